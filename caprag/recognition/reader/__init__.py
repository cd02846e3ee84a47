"""The reader that is shipped: PP-OCRv6's tower, a neck, and a small language model of characters.

Importing this package makes it known to transformers' Auto classes.
"""

from typing import Any

import transformers

from caprag.recognition.reader.configuration import ReaderConfig
from caprag.recognition.reader.modeling import ReaderForConditionalGeneration
from caprag.recognition.reader.processing import ReaderImageProcessor, ReaderProcessor, character_tokenizer

__all__ = [
    "ReaderConfig",
    "ReaderForConditionalGeneration",
    "ReaderImageProcessor",
    "ReaderProcessor",
    "character_tokenizer",
]

_hub: Any = transformers  # its annotations differ from version to version

_hub.AutoConfig.register(ReaderConfig.model_type, ReaderConfig, exist_ok=True)
_hub.AutoModelForImageTextToText.register(ReaderConfig, ReaderForConditionalGeneration, exist_ok=True)
_hub.AutoProcessor.register(ReaderConfig, ReaderProcessor, exist_ok=True)
