"""What of a picture a model is shown: the frame, the caption's band, or its parts. Knows no model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from caprag.recognition.families import Crop
from caprag.recognition.parts import Part

if TYPE_CHECKING:
    from caprag.recognition.ctc import RapidOCRRecognizer


def keyed(images: Sequence[Image.Image]) -> tuple[list[Image.Image], list[bytes]]:
    """Return pictures in RGB, and for each a key that equal ones share; TypeError for what is no picture."""
    for image in images:
        if not isinstance(image, Image.Image):
            raise TypeError(f"a picture must be a PIL.Image.Image, not {type(image).__name__}")
    pictures = [image.convert("RGB") for image in images]
    keys = [
        hashlib.blake2b(repr(picture.size).encode() + picture.tobytes(), digest_size=16).digest()
        for picture in pictures
    ]
    return pictures, keys


class Views:
    """Cuts out what is shown; the networks that find it are loaded when they are first wanted.

    Parameters
    ----------
    crop
        See `caprag.recognition.vlm.VLMRecognizer`.
    """

    def __init__(self, crop: Crop) -> None:
        self.crop = crop
        self._finder: RapidOCRRecognizer | None = None
        self._process = 0

    def parts(self, pictures: Sequence[Image.Image]) -> list[list[Part]]:
        """Return the parts of each picture, RGB: one, but where the caption's own are asked for.

        A picture without a caption is shown whole; part by part it has none, unless it is a strip that was cut out
        around a caption.
        """
        if self.crop != "parts":
            return [[Part(view)] for view in self.single(pictures)]
        from caprag.recognition.ctc import is_strip

        found = self._networks().find_parts_batch(pictures)
        return [
            [Part(picture)] if not parts and is_strip(picture) else parts
            for picture, parts in zip(pictures, found, strict=True)
        ]

    def single(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Return one view of each picture, RGB, as an example for training is one: of several parts the band."""
        if self.crop == "frame":
            return list(pictures)
        if self.crop == "parts":
            found = zip(pictures, self.parts(pictures), strict=True)
            # The band is looked for only where it is wanted.
            return [parts[0].image if len(parts) == 1 else self._band(picture) for picture, parts in found]
        return [self._band(picture) for picture in pictures]

    def _band(self, picture: Image.Image) -> Image.Image:
        (band,) = self._networks().find_batch([picture])
        return picture if band is None else picture.crop(band)

    def _networks(self) -> RapidOCRRecognizer:
        if self._finder is None or self._process != os.getpid():
            import torch

            from caprag.recognition.ctc import RapidOCRRecognizer

            # The networks' threads do not come along into a data loader's workers.
            self._finder = RapidOCRRecognizer(n_threads=torch.get_num_threads(), cache_size=0)
            self._process = os.getpid()
        return self._finder

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_finder": None}
