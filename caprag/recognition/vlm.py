"""Reads captions with any image-text-to-text model that transformers can load.

One way for all families: load (`loading`), put pictures and prompt into the model's terms (`wording`), search and
score (`generation`), join what was read part by part (`parts`); what a family expects is data (`families`). What
this module does not know: whether a reading makes sense.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from PIL import Image

from caprag.recognition.families import PROMPT, Crop, Family, family_of
from caprag.recognition.generation import Constraint, Prefix, SequenceModel
from caprag.recognition.greedy import Generated, Row
from caprag.recognition.loading import Dtype, load_model, load_processor
from caprag.recognition.memory import out_of_memory
from caprag.recognition.parts import Part, combine, one_line, split_text
from caprag.recognition.sampling import Drawing, Sampling, StopAt, cut
from caprag.recognition.views import Views, keyed
from caprag.recognition.wording import Wording
from caprag.text import normalize
from caprag.types import Hypothesis

__all__ = ["PROMPT", "Constraint", "Crop", "Dtype", "Sampling", "VLMRecognizer"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class _Batch:
    """Pictures that the model has taken in.

    Attributes
    ----------
    keys, places
        One a picture; where its parts stand in `parts`.
    parts, prefix
        What was shown, of all pictures together, and what the model made of it.
    plain
        What each part reads like, once that was asked.
    """

    keys: list[bytes]
    places: list[range]
    parts: list[Part]
    prefix: Prefix
    plain: list[str] = field(default_factory=list)


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
        What of a picture the model sees: the whole ``"frame"``; or the caption ``"band"`` that RapidOCR's networks
        find in it, and the whole frame where they find none; or the caption's ``"parts"``, each by itself, which are
        its rows and what stands apart within a row. ``None``: what its family expects.
    stop
        Texts that end a reading; it is cut before the first. ``None``: what its family expects.
    device
        A torch device; ``None``: the first CUDA device, or the CPU where there is none.
    dtype
        Of the weights; ``"auto"``: float32 on a CPU, elsewhere what the weights were saved in; ``"int8"`` and
        ``"int4"`` keep the language model in few bits, and need bitsandbytes.
    batch_size
        Pictures read at once, and texts scored at once, >= 1. Where memory runs out it is halved for good.
    max_new_tokens
        At most this many tokens a reading (of a part, where parts are read), its end included, >= 1. Readings that
        reach it are cut there.
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

    A caption in parts has the probability of its parts together: each part's text is one line, and the text of the
    caption is split over the parts by its line breaks, or, where these do not tell, so that the pieces are nearest to
    what the parts read like (`caprag.recognition.parts.split_text`). A constraint and a stop hold for each part. A
    picture in which no part is found has no caption: the empty text has log-probability 0 and any other ``-inf``;
    but what looks like a strip cut out around a caption is shown whole, as one part.

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
        self._views = Views(family.crop if crop is None else crop)
        self._stop = family.stop if stop is None else tuple(stop)
        self._batch_size = self._asked_size = batch_size
        self._max_new_tokens = max_new_tokens
        self._sampling = sampling
        self.constraint = constraint
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
        batch, pictures = self._take_in(images)
        draw = None
        if self._sampling is not None:
            shown = zip(batch.keys, batch.places, strict=True)
            keys = [key + b"+" * part for key, places in shown for part in range(len(places))]
            draw = Drawing(self._sampling, keys, n_best)
        rows = self._search(batch, n_best, self.constraint, draw)
        found = []
        for picture in pictures:
            places = batch.places[picture]
            readings = [self._readings(batch, place, rows[place]) for place in places]
            hypotheses = combine(readings, [batch.parts[place].separator for place in places], n_best, normalize)
            if len(places) > 1:
                # A text's probability is that of the split that is found for it, whatever it was put together from.
                texts = [hypothesis.text for hypothesis in hypotheses]
                scored = map(Hypothesis, texts, self._score(batch, picture, texts))
                hypotheses = sorted(scored, key=lambda hypothesis: -hypothesis.logprob)
            found.append(hypotheses)
        return found

    def _search(
        self, batch: _Batch, n_best: int, constraint: Constraint | None = None, draw: Drawing | None = None
    ) -> list[list[Generated]]:
        if not batch.parts:
            return []
        length = len(self._wording.start) or batch.prefix.inputs["input_ids"].shape[1]
        return self._sequences.search(
            batch.prefix,
            n_best=n_best,
            max_new_tokens=self._max_new_tokens,
            constraint=constraint,
            draw=draw,
            stop=StopAt(self._wording.decode_roughly, self._stop, length) if self._stop else None,
        )

    def _readings(self, batch: _Batch, place: int, found: Sequence[Generated]) -> list[Hypothesis]:
        """Give the distinct readings of a part."""
        texts = {self._text(one.row): one for one in reversed(self._wanted(found))}
        known = {
            text: one.logprob
            for text, one in texts.items()
            if one.logprob is not None and self._wording.spellings(text) == [one.row]
        }
        others = [text for text in texts if text not in known]
        known |= zip(others, self._score_part(batch, place, others), strict=True)
        return [Hypothesis(text, known[text]) for text in reversed(texts)]

    def _text(self, row: Row) -> str:
        text = cut(self._wording.decode(row), self._stop).strip()
        return one_line(text) if self._views.crop == "parts" else text

    def _wanted(self, found: Sequence[Generated]) -> Sequence[Generated]:
        """Drop what only fills up a beam that is wider than there are texts; one row stays in any case."""
        if self.constraint is None:
            return found
        return [one for one in found if self.constraint.adjustment(one.row) > -math.inf] or found[:1]

    def _scores(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        batch, pictures = self._take_in(images)
        return [self._score(batch, picture, wordings) for picture, wordings in zip(pictures, texts, strict=True)]

    def _score(self, batch: _Batch, picture: int, texts: Sequence[str]) -> list[float]:
        places = batch.places[picture]
        if not places:
            return [-math.inf if text.strip() else 0.0 for text in texts]
        if self._views.crop != "parts":
            return self._score_part(batch, places[0], texts)
        separators = [batch.parts[place].separator for place in places]
        split = [split_text(text, separators, lambda: self._plain(batch)[places.start : places.stop]) for text in texts]
        columns = zip(places, zip(*split, strict=True), strict=True)
        scores = [self._score_part(batch, place, pieces) for place, pieces in columns]
        return [sum(several) for several in zip(*scores, strict=True)]

    def _plain(self, batch: _Batch) -> list[str]:
        """Read each part greedily: how a text is split must not change with how hypotheses are searched."""
        if not batch.plain:
            batch.plain.extend(self._text(found.row) for (found,) in self._search(batch, 1))
        return batch.plain

    def _score_part(self, batch: _Batch, place: int, texts: Sequence[str]) -> list[float]:
        spellings = [self._wording.spellings(text) for text in texts]
        rows = [row for several in spellings for row in several]
        found = iter(
            self._sequences.logprobs(
                batch.prefix, place, rows, alone=lambda: self._wording.inputs([batch.parts[place].image])
            )
        )
        return [_log_sum([next(found) for _ in several]) for several in spellings]

    def _take_in(self, images: Sequence[Image.Image]) -> tuple[_Batch, list[int]]:
        """Show pictures to the model, unless the last batch had them; the batch, and which of its pictures they are."""
        pictures, keys = keyed(images)
        if self._last is None or not set(keys) <= set(self._last.keys):
            self._last = None  # its memory is wanted
            parts: list[Part] = []
            places: list[range] = []
            for several in self._views.parts(pictures):
                places.append(range(len(parts), len(parts) + len(several)))
                parts += several
            images = [part.image for part in parts]
            prefix = self._sequences.read(self._wording.inputs(images), len(images)) if images else Prefix({}, 0)
            self._last = _Batch(keys, places, parts, prefix)
        return self._last, [self._last.keys.index(key) for key in keys]

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
