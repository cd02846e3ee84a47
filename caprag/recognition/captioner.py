"""Reads captions with a captioner: a convolutional encoder and an LSTM with attention, trained from scratch.

The network is in `captioner_network`; here pictures become what it sees, and its tokens become hypotheses. It is the
baseline beside which larger readers are measured: what it has not been trained on it can't read. Knows nothing of
training.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from caprag.recognition.captioner_network import Encoded, View, load_captioner
from caprag.recognition.frames import MATTE
from caprag.recognition.views import Views, keyed
from caprag.types import Hypothesis

_TEXTS = 64
"""Scored at once."""

_Item = TypeVar("_Item")


def canvas(picture: Image.Image, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Scale a picture to fit in, its shape kept, and lay it to the left on grey.

    Parameters
    ----------
    picture
        RGB, any size.
    height, width
        Pixels, >= 1.

    Returns
    -------
    numpy.ndarray
        Shape (height, width, 3), uint8.

    Examples
    --------
    >>> canvas(Image.new("RGB", (20, 10), (255, 255, 255)), 2, 6)[0, :, 0].tolist()
    [255, 255, 255, 255, 128, 128]
    """
    scale = min(height / picture.height, width / picture.width)
    size = min(width, max(1, round(picture.width * scale))), min(height, max(1, round(picture.height * scale)))
    whole = Image.new("RGB", (width, height), (MATTE, MATTE, MATTE))
    whole.paste(picture.resize(size, Image.Resampling.BICUBIC), (0, (height - size[1]) // 2))
    return np.array(whole)


class CaptionerRecognizer:
    """A `Recognizer` on a trained captioner.

    Parameters
    ----------
    model
        Folder that `caprag train captioner` wrote.
    crop
        What of a picture is seen: the whole ``"frame"``, or the caption ``"band"`` that RapidOCR's networks find in
        it, and the whole frame where they find none. ``None``: as it was trained.
    device
        A torch device; ``None``: the first CUDA device, or the CPU where there is none.
    batch_size
        Pictures read at once, >= 1; what it made of so many is kept, so that scoring texts for pictures just
        recognised costs no second look.
    beam_width
        Of the search, >= 1; at least `n_best` whatever it says. 1 is greedy.
    max_new_tokens
        Most characters of a reading, its end counted as one, >= 1; ``None``: as it was trained.

    Attributes
    ----------
    name
        What it was loaded from.

    Raises
    ------
    ModelError
        Where the folder holds no captioner, or is damaged.
    ValueError
        For an unknown `crop`, or a number out of its range.

    Notes
    -----
    A text is its characters as they are: `score_batch` normalises nothing, and a text with a character that was not
    learnt has no probability. The log-probability that the search finds is that of teacher forcing but for rounding;
    a reading that reaches its greatest length is scored as if it ended there.

    Examples
    --------
    >>> recognizer = CaptionerRecognizer("models/captioner")  # doctest: +SKIP
    >>> recognizer.recognize_batch([Image.open("caption.png")], n_best=3)  # doctest: +SKIP
    [[Hypothesis(text='社交方式發生了變化', logprob=-0.42), ...]]
    """

    def __init__(
        self, model: str | Path, *, crop: View | None = None, device: str | None = None, batch_size: int = 8,
        beam_width: int = 5, max_new_tokens: int | None = None,
    ) -> None:  # fmt: skip
        for name, value in (("batch_size", batch_size), ("beam_width", beam_width), ("max_new_tokens", max_new_tokens)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if crop is not None and crop not in get_args(View):
            raise ValueError(f"crop must be one of {', '.join(get_args(View))}, not {crop!r}")
        self.name = str(model)
        self._network = load_captioner(model, device)
        self._views = Views(self._network.config.crop if crop is None else crop)
        self._batch_size, self._beam_width, self._max_length = batch_size, beam_width, max_new_tokens
        self._kept: OrderedDict[bytes, torch.Tensor] = OrderedDict()

    def recognize_batch(self, images: Sequence[Image.Image], n_best: int = 1) -> list[list[Hypothesis]]:
        """Read each picture.

        Parameters
        ----------
        images
            Frames or crops, any size; turned into RGB.
        n_best
            At most this many hypotheses a picture, >= 1.

        Returns
        -------
        list of list of Hypothesis
            One list a picture, best first, texts distinct, never empty; log-probabilities in nats, of the whole text
            and its end.

        Raises
        ------
        ValueError
            For `n_best` below 1.
        TypeError
            Where an image is not a `PIL.Image.Image`.
        """
        if n_best < 1:
            raise ValueError(f"n_best must be at least 1, not {n_best}")
        width, found = max(self._beam_width, n_best), []
        for part in _parts(images, self._batch_size):
            encoded = self._look(part)
            rows = self._network.search(encoded, width=width, n_best=n_best, max_length=self._max_length)
            found += [[Hypothesis(self._network.text(row), logprob) for row, logprob in texts] for texts in rows]
        return found

    def score_batch(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Score given texts for each picture.

        Parameters
        ----------
        images
            Frames or crops, any size; turned into RGB.
        texts
            For each picture the texts to score, as they are; may differ in number, also none.

        Returns
        -------
        list of list of float
            ln p(text and then its end | picture) in nats, each <= 0, in the order of `texts`; ``-inf`` for a text
            with a character that was not learnt.

        Raises
        ------
        ValueError
            Where `images` and `texts` differ in length.
        TypeError
            Where an image is not a `PIL.Image.Image`.
        """
        if len(images) != len(texts):
            raise ValueError(f"one list of texts a picture: {len(images)} pictures, {len(texts)} lists")
        scores: list[list[float]] = [[] for _ in texts]
        for places in _parts([place for place, several in enumerate(texts) if several], self._batch_size):
            encoded = self._look([images[place] for place in places])
            asked = [(owner, place, text) for owner, place in enumerate(places) for text in texts[place]]
            for part in _parts(asked, _TEXTS):
                owners = torch.tensor([owner for owner, _, _ in part], device=self._network.device)
                rows = [self._network.ids(text) for _, _, text in part]
                found = self._network.logprobs(encoded.pick(owners), rows)
                for (_, place, _), score in zip(part, found, strict=True):
                    scores[place].append(score)
        return scores

    @torch.no_grad()
    def _look(self, images: Sequence[Image.Image]) -> Encoded:
        """Show pictures to the encoder, but for those that it has seen just now."""
        pictures, keys = keyed(images)
        new = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in self._kept}
        if new:
            config = self._network.config
            views = [canvas(view, config.height, config.width) for view in self._views.single(list(new.values()))]
            for key, places in zip(new, self._network.encode(torch.from_numpy(np.stack(views))).places, strict=True):
                self._kept[key] = places
        encoded = self._network.compared(torch.stack([self._kept[key] for key in keys]))
        while len(self._kept) > self._batch_size:
            self._kept.popitem(last=False)
        return encoded


def _parts(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
