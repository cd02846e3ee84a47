"""What of a picture a model is shown while it is trained: the same as `VLMRecognizer` shows it.

Knows no model.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from PIL import Image

from caprag.recognition.families import Crop

if TYPE_CHECKING:
    from caprag.recognition.ctc import RapidOCRRecognizer


class Views:
    """Cuts out what is shown.

    Parameters
    ----------
    crop
        See `caprag.recognition.vlm.VLMRecognizer`.
    """

    def __init__(self, crop: Crop) -> None:
        self.crop = crop
        self._finder: RapidOCRRecognizer | None = None
        self._process = 0

    def __call__(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Return the view of each picture, RGB; the whole picture where there is no caption in it."""
        if self.crop == "frame":
            return list(pictures)
        if self._finder is None or self._process != os.getpid():
            from caprag.recognition.ctc import RapidOCRRecognizer

            # The networks' threads do not come along into a data loader's workers.
            self._finder = RapidOCRRecognizer(n_threads=torch.get_num_threads(), cache_size=0)
            self._process = os.getpid()
        bands = self._finder.find_batch(pictures)
        return [picture if band is None else picture.crop(band) for picture, band in zip(pictures, bands, strict=True)]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_finder": None}
