"""What models of a family expect, where it is not what any model expects: data, one line a family.

A model that is not listed is taken for one that follows instructions. Knows nothing of single models or their
fine-tunings: whoever trains one on other prompts says so when reading.

References
----------
The prompts are those that the families were trained on, as their model cards give them: zai-org/GLM-OCR,
PaddlePaddle/PaddleOCR-VL, google/paligemma-3b-mix-448, microsoft/Florence-2-large, deepseek-ai/DeepSeek-OCR,
lightonai/LightOnOCR-1B, stepfun-ai/GOT-OCR2_0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Crop = Literal["frame", "band", "parts"]
"""The whole picture, the caption band that is found in it, or the caption's parts, each by itself: its rows, and
what stands apart within a row."""

PROMPT = (
    "請讀出圖中的字幕。只輸出字幕的文字，保留換行，不要翻譯，不要解釋；沒有字幕就什麼都不輸出。\n"
    "Read the caption in the picture. Output only its text, keep line breaks, do not translate or explain; "
    "output nothing where there is no caption."
)
"""What a model that follows instructions is asked, unless the user asks something else."""


@dataclass(frozen=True, slots=True)
class Family:
    """What models of a family expect.

    Attributes
    ----------
    prompt
        What such a model is asked; ``None``: nothing, or what its processor writes itself.
    crop
        What it is shown; ``"parts"`` where it reads one line of text at a time.
    stop
        Texts that end a reading: what comes from there on is no caption.
    """

    prompt: str | None = PROMPT
    crop: Crop = "frame"
    # A model that goes on to explain does so after an empty line, and no caption has one.
    stop: tuple[str, ...] = ("\n\n",)


def _reads_all(prompt: str | None, crop: Crop = "band") -> Family:
    """Make a family that reads whatever text it sees, so that it must see the caption only."""
    return Family(prompt, crop, ())


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "caprag_reader": _reads_all(None, "parts"),
        "deepseek_ocr2": _reads_all("Free OCR."),
        "florence2": _reads_all("<OCR>"),
        "glm_ocr": _reads_all("Text Recognition:"),
        "got_ocr2": _reads_all(None),
        "lighton_ocr": _reads_all(""),
        "paddleocr_vl": _reads_all("OCR:"),
        "paligemma": _reads_all("ocr"),
        "vision-encoder-decoder": _reads_all(None),
    }
)
"""Model type, as it stands in config.json, to family."""


def family_of(model_type: str) -> Family:
    """Return what models of this type expect.

    Parameters
    ----------
    model_type
        As it stands in the model's config.json.

    Returns
    -------
    Family
        That of a model which follows instructions where the type is not listed.

    Examples
    --------
    >>> family_of("glm_ocr")
    Family(prompt='Text Recognition:', crop='band', stop=())
    >>> family_of("llava").crop
    'frame'
    """
    return FAMILIES.get(model_type, Family())
