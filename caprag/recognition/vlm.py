"""Reads captions with any image-text-to-text model that transformers can load.

One way for all families: load (`loading`), put pictures and prompt into the model's terms (`wording`), search and
score (`generation`); what a family expects is data (`families`). What this module does not know: whether a
reading makes sense.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from PIL import Image

from caprag.recognition.families import PROMPT, Crop, Family, family_of
from caprag.recognition.generation import Constraint, Prefix, Row, SequenceModel
from caprag.recognition.loading import Dtype, load_model, load_processor
from caprag.recognition.memory import out_of_memory
from caprag.recognition.sampling import Drawing, Sampling, StopAt, cut
from caprag.recognition.wording import Wording
from caprag.text import normalize
from caprag.types import Hypothesis

__all__ = ["PROMPT", "Constraint", "Crop", "Dtype", "Sampling", "VLMRecognizer"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pictures that the model has taken in: a key for each, what was shown of it, and the prefix of all."""

    keys: list[bytes]
    views: list[Image.Image]
    prefix: Prefix


class VLMRecognizer:
    """A reader of captions: any transformers image-text-to-text model.

    Parameters
    ----------
    model
        Id on the Hugging Face hub, or a local folder with weights, tokenizer and processor; or of a PEFT adapter,
        which names its base.
    prompt
        What the model is asked. ``None``: what its family expects (`caprag.recognition.families`); `PROMPT` for a
        model with a chat template or an image token; the processor's own prompt where it writes one; nothing for
        a model that takes the picture alone. A text given for a model that takes the picture alone is what its
        decoder starts with (Donut's task token).
    adapter
        Folder or hub id of a PEFT adapter (LoRA) that is put on top of `model`.
    crop
        What of a picture the model sees: the whole ``"frame"``, or the caption ``"band"`` that RapidOCR's networks
        find in it, and the whole frame where they find none. ``None``: what its family expects.
    stop
        Texts that end a reading; it is cut before the first. ``None``: what its family expects.
    device
        A torch device; ``None``: the first CUDA device, or the CPU where there is none.
    dtype
        Of the weights; ``"auto"``: float32 on a CPU, elsewhere what the weights were saved in; ``"int8"`` and
        ``"int4"`` need a CUDA device and bitsandbytes.
    batch_size
        Pictures read at once, and texts scored at once, >= 1. Where memory runs out it is halved for good.
    max_new_tokens
        At most this many tokens a reading, its end included, >= 1. Readings that reach it are cut there.
    sampling
        How to draw hypotheses by chance; ``None`` searches them with a beam.
    constraint
        What texts the search keeps to.

    Attributes
    ----------
    name
        What it was loaded from.
    constraint
        What texts the search keeps to; may be set anew.
    tokenizer
        The model's transformers tokenizer, for a `caprag.recognition.constrained.SentenceConstraint`.

    Raises
    ------
    ModelError
        Where there is no such model, or it is of another kind.
    MissingDependencyError
        Where the model's processor needs a package that is not installed.
    ValueError
        For an unknown `dtype` or `crop`, an empty stop string, or a `batch_size` or `max_new_tokens` below 1.

    Notes
    -----
    The log-probability of a text is that of the tokens its tokenizer writes for it after the prompt, and the
    end after them, by teacher forcing; several end tokens count as one, their probabilities added.
    `recognize_batch` uses beam search or sampling only to find texts, and scores them as `score_batch` does: so the
    two agree, and neither length, temperature, constraint nor any setting in the model's generation config bends a
    score. Where a text can begin in two ways that read alike (with or without a space after a prompt like
    ``ASSISTANT:``; with or without the start token that an encoder-decoder's tokenizer writes) both count, their
    probabilities added. A text that was cut at a stop string is scored as if it ended there.

    What the model made of the last batch of pictures is kept, so that scoring texts for pictures just recognised
    costs no second look at them.

    Examples
    --------
    >>> recognizer = VLMRecognizer("models/captions")  # doctest: +SKIP
    >>> recognizer.recognize_batch([Image.open("caption.png")], n_best=3)  # doctest: +SKIP
    [[Hypothesis(text='社交方式發生了變化', logprob=-0.31), ...]]
    """

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str | None = None,
        adapter: str | Path | None = None,
        crop: Crop | None = None,
        stop: Sequence[str] | None = None,
        device: str | None = None,
        dtype: Dtype = "auto",
        batch_size: int = 8,
        max_new_tokens: int = 64,
        sampling: Sampling | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if crop is not None and crop not in get_args(Crop):
            raise ValueError(f"crop must be one of {', '.join(get_args(Crop))}, not {crop!r}")
        if isinstance(stop, str) or not all(stop or ()):
            raise ValueError(f"stop must be a sequence of texts that are not empty, not {stop!r}")
        self.name = str(model)
        processor, tokenizer = load_processor(model, adapter=adapter)
        loaded = load_model(model, device, dtype, adapter=adapter)
        family: Family = family_of(loaded.config.model_type)
        self.tokenizer: Any = tokenizer
        self._wording = Wording(self.name, loaded, processor, tokenizer, prompt, family)
        self._sequences = SequenceModel(
            loaded, ends=self._wording.ends, pad=self._wording.pad, start=self._wording.start, batch_size=batch_size
        )
        self._crop = family.crop if crop is None else crop
        self._stop = family.stop if stop is None else tuple(stop)
        self._batch_size = self._asked_size = batch_size
        self._max_new_tokens = max_new_tokens
        self._sampling = sampling
        self.constraint = constraint
        self._finder: Any = None
        self._last: _Batch | None = None

    @property
    def context(self) -> str:
        """What stands before an answer, after the prompt's last special token; for a `SentenceConstraint`."""
        return self._wording.context

    def recognize_batch(self, images: Sequence[Image.Image], n_best: int = 1) -> list[list[Hypothesis]]:
        r"""Read each picture.

        Parameters
        ----------
        images
            Frames or crops, any size; turned into RGB.
        n_best
            At most this many hypotheses a picture, >= 1. It is also the width of the beam (1 is greedy), or the
            number of draws.

        Returns
        -------
        list of list of Hypothesis
            One list a picture, best first, never empty; log-probabilities in nats, of the whole text and its end.
            Lines are parted by ``"\n"``; outer white space is gone. Of texts with the same written form
            (`caprag.text.normalize`) the likeliest alone is kept, with its own probability. A reading that breaks
            off inside a character ends before it, so there is never a U+FFFD.

        Raises
        ------
        ValueError
            For `n_best` below 1.
        ModelError
            Where the model can't be scored.
        """
        if n_best < 1:
            raise ValueError(f"n_best must be at least 1, not {n_best}")
        return self._in_batches(images, lambda part: self._recognize(part, n_best))

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
            ln p(text and then the end | picture, prompt) in nats, each <= 0, in the order of `texts`;
            ``-inf`` for a text that the tokenizer can't write.

        Raises
        ------
        ValueError
            Where `images` and `texts` differ in length.
        ModelError
            Where the model can't be scored.
        """
        if len(images) != len(texts):
            raise ValueError(f"one list of texts a picture: {len(images)} pictures, {len(texts)} lists")
        scores: list[list[float]] = [[] for _ in texts]
        asked = [place for place, wordings in enumerate(texts) if wordings]
        found = self._in_batches(
            asked, lambda part: self._scores([images[place] for place in part], [texts[place] for place in part])
        )
        for place, values in zip(asked, found, strict=True):
            scores[place] = values
        return scores

    def _recognize(self, images: Sequence[Image.Image], n_best: int) -> list[list[Hypothesis]]:
        batch, places = self._take_in(images)
        length = len(self._wording.start) or batch.prefix.inputs["input_ids"].shape[1]
        rows = self._sequences.search(
            batch.prefix,
            n_best=n_best,
            max_new_tokens=self._max_new_tokens,
            constraint=self.constraint,
            draw=None if self._sampling is None else Drawing(self._sampling, batch.keys, n_best),
            stop=StopAt(self._wording.decode_roughly, self._stop, length) if self._stop else None,
        )
        found = []
        for place in places:
            texts = [cut(self._wording.decode(row), self._stop).strip() for row in self._wanted(rows[place])]
            distinct = list(dict.fromkeys(texts))
            scores = self._score(batch, place, distinct)
            read = [Hypothesis(text, score) for text, score in zip(distinct, scores, strict=True)]
            written: dict[str, Hypothesis] = {}
            for hypothesis in sorted(read, key=lambda hypothesis: -hypothesis.logprob):
                written.setdefault(normalize(hypothesis.text), hypothesis)
            found.append(list(written.values()))
        return found

    def _wanted(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Drop what only fills up a beam that is wider than there are texts; one row stays in any case."""
        if self.constraint is None:
            return rows
        return [row for row in rows if self.constraint.adjustment(row) > -math.inf] or rows[:1]

    def _scores(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        batch, places = self._take_in(images)
        return [self._score(batch, place, wordings) for place, wordings in zip(places, texts, strict=True)]

    def _score(self, batch: _Batch, place: int, texts: Sequence[str]) -> list[float]:
        spellings = [self._wording.spellings(text) for text in texts]
        rows = [row for several in spellings for row in several]
        found = iter(
            self._sequences.logprobs(
                batch.prefix, place, rows, alone=lambda: self._wording.inputs([batch.views[place]])
            )
        )
        return [_log_sum([next(found) for _ in several]) for several in spellings]

    def _take_in(self, images: Sequence[Image.Image]) -> tuple[_Batch, list[int]]:
        """Show pictures to the model, unless the last batch had them; the batch, and their places in it."""
        for image in images:
            if not isinstance(image, Image.Image):
                raise TypeError(f"a picture must be a PIL.Image.Image, not {type(image).__name__}")
        pictures = [image.convert("RGB") for image in images]
        keys = [
            hashlib.blake2b(repr(picture.size).encode() + picture.tobytes(), digest_size=16).digest()
            for picture in pictures
        ]
        if self._last is None or not set(keys) <= set(self._last.keys):
            self._last = None  # its memory is wanted
            views = self._views(pictures)
            prefix = self._sequences.read(self._wording.inputs(views), len(views))
            self._last = _Batch(keys, views, prefix)
        return self._last, [self._last.keys.index(key) for key in keys]

    def _views(self, pictures: Sequence[Image.Image]) -> list[Image.Image]:
        """Cut out what the model is shown."""
        if self._crop == "frame":
            return list(pictures)
        if self._finder is None:
            from caprag.recognition.ctc import RapidOCRRecognizer

            self._finder = RapidOCRRecognizer(n_threads=torch.get_num_threads(), cache_size=0)
        bands = self._finder.find_batch(pictures)
        return [picture if band is None else picture.crop(band) for picture, band in zip(pictures, bands, strict=True)]

    def _in_batches(self, items: Sequence[_Item], work: Callable[[Sequence[_Item]], list[_Result]]) -> list[_Result]:
        """Work on so many items at a time as memory has room for."""
        done: list[_Result] = []
        while len(done) < len(items):
            try:
                done += work(items[len(done) : len(done) + self._batch_size])
                continue
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or self._batch_size == 1:
                    raise
            # Only here, where the error is gone, is what it held on to free.
            self._halve()
        return done

    def _halve(self) -> None:
        self._last = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self._batch_size == self._asked_size:
            warnings.warn(
                f"no memory for batches of {self._batch_size} pictures; going on with smaller ones", stacklevel=5
            )
        self._batch_size //= 2
        self._sequences.batch_size = self._batch_size


def _log_sum(values: Sequence[float]) -> float:
    """Logarithm of the sum of the exponentials; ``-inf`` for none."""
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return top
    return min(0.0, top + math.log(sum(math.exp(value - top) for value in values)))
