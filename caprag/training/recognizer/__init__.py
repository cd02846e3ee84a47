"""Fine-tuning of models that read pictures.

The names load on first use: what they need is heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caprag.training.recognizer.examples import DrawnExamples, FileExamples
    from caprag.training.recognizer.options import Recipe, RecognizerOptions
    from caprag.training.recognizer.training import TrainedRecognizer, train_recognizer

__all__ = [
    "DrawnExamples",
    "FileExamples",
    "Recipe",
    "RecognizerOptions",
    "TrainedRecognizer",
    "train_recognizer",
]

_HOMES = {
    "DrawnExamples": "examples",
    "FileExamples": "examples",
    "Recipe": "options",
    "RecognizerOptions": "options",
    "TrainedRecognizer": "training",
    "train_recognizer": "training",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"caprag.training.recognizer.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
