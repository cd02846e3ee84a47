"""The stages in a row: what a user holds.

Picture -> hypotheses -> hits -> caption. It owns no logic of its own but the order of the steps.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from caprag.recognition import load_recognizer, open_frame, to_rgb
from caprag.reranking import Found, Kept, Reranker, chooser, joins
from caprag.reranking.cross_encoder import load_cross_encoder
from caprag.reranking.marks import with_marks_of
from caprag.reranking.parts import Parts
from caprag.retrieval import Index
from caprag.text import countable, match_forms
from caprag.types import Caption, Embedder, Hit, Hypothesis, Recognizer

if TYPE_CHECKING:
    from PIL import Image

    from caprag.reranking.cross_encoder import CrossEncoderScorer

Item = TypeVar("Item")

_AT_ONCE, _AT_SHOW = 512, 32
"""Readings that are searched together: where all answers are wanted, and where they are shown as they come."""
_SPARE = 2
"""Times the hits that are asked for where some are to be passed over."""


class Pipeline:
    """Reads pictures and snaps readings to known sentences.

    Parameters
    ----------
    index
        The known sentences; ``None`` keeps every reading as it is.
    recognizer
        Reads the pictures; a name is loaded when the first picture comes (see `caprag.load_recognizer`).
    reranker
        Decides; ``None`` takes the shipped one. The cross-encoder that it was fitted with, if any, is loaded when the
        first caption comes.
    n_best
        Hypotheses a picture, >= 1.
    k
        Sentences weighed for a picture or reading, >= 1.
    batch_size
        Pictures read at a time, >= 1.
    in_order
        Whether captions given together follow each other as they do in the programme. Then what stands before and
        behind is listened to; a corpus that is a script makes nearly sure what a badly read line was, and captions of a
        programme that the corpus lacks are hardly ever touched.
    risk
        Share of captions that may be harmed (right as read, wrong as answered) where the corpus lacks them, in (0, 1);
        ``None`` takes what the reranker was fitted for. See `Reranker.at_risk`. It is counted on captions that are
        taken whole.
    kept
        Words that no answer may lose, and lines that stay as they were read.
    parts
        Whether a caption may be any two sentences, or one and something else (`caprag.reranking.parts`). Up to 0.4 %
        of the captions are harmed then that the corpus lacks. Two that stand one behind the other in a file are always
        thought of, and so, where readings are in order, is a sentence over two of them (`caprag.reranking.joins`).
    keep_marks
        Whether sentences get the marks and spaces of the readings.

    Raises
    ------
    ValueError
        For a number below 1, or a risk that the reranker can't vouch for.
    """

    def __init__(
        self,
        index: Index | None,
        *,
        recognizer: Recognizer | str = "caprag",
        reranker: Reranker | None = None,
        n_best: int = 5,
        k: int = 10,
        batch_size: int = 8,
        in_order: bool = True,
        risk: float | None = None,
        kept: Kept | None = None,
        parts: bool = False,
        keep_marks: bool = False,
    ) -> None:
        for name, value in (("n_best", n_best), ("k", k), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}; at least 1 is needed")
        self.index = index
        self._recognizer = recognizer
        self._reranker = reranker
        self._n_best = n_best
        self._k = k
        self._batch_size = batch_size
        self._in_order = in_order
        self._kept = kept
        self._parts = parts
        self._keep_marks = keep_marks
        self._cross_encoder: CrossEncoderScorer | None = None
        if risk is not None:
            self._reranker = self.reranker.at_risk(risk)

    @classmethod
    def load(
        cls,
        index: str | PathLike[str] | None,
        *,
        recognizer: Recognizer | str = "caprag",
        embedder: Embedder | None = None,
        reranker: str | PathLike[str] | None = None,
        n_best: int = 5,
        k: int = 10,
        batch_size: int = 8,
        in_order: bool = True,
        risk: float | None = None,
        kept: Kept | None = None,
        parts: bool = False,
        keep_marks: bool = False,
    ) -> Pipeline:
        """Open an index folder and set up the stages around it.

        Parameters
        ----------
        index
            Index folder; ``None`` reads without one.
        recognizer
            ``"caprag"`` (the shipped reader), ``"rapidocr"``, the hub id or folder of a vision-language model, or a
            recognizer.
        embedder
            The one the index was built with; ``None`` loads the one that the index names.
        reranker
            File of a reranker; ``None`` takes the shipped one.
        n_best, k, batch_size, in_order, risk, kept, parts, keep_marks
            See `Pipeline`.

        Returns
        -------
        Pipeline
            Ready to read; the recognizer is loaded with the first picture.

        Raises
        ------
        IndexFolderError, ModelError
            Where the index, the embedder or the reranker can't be loaded.
        """
        opened = None if index is None else Index.load(index, embedder=embedder)
        if opened is not None:
            # Loaded now, so that it is told at once where it is not to be had.
            _ = opened.embedder
        decision = Reranker.load(reranker)
        return cls(
            opened, recognizer=recognizer, reranker=decision, n_best=n_best, k=k, batch_size=batch_size,
            in_order=in_order, risk=risk, kept=kept, parts=parts, keep_marks=keep_marks,
        )  # fmt: skip

    @property
    def recognizer(self) -> Recognizer:
        """The reader of pictures, loaded on first use."""
        if isinstance(self._recognizer, str):
            self._recognizer = load_recognizer(self._recognizer, batch_size=self._batch_size)
        return self._recognizer

    @property
    def reranker(self) -> Reranker:
        """What decides."""
        if self._reranker is None:
            self._reranker = Reranker.load()
        return self._reranker

    def read(self, frame: str | PathLike[str] | Image.Image) -> Caption:
        """Read one picture; see `read_batch`."""
        return self.read_batch([frame])[0]

    def read_batch(
        self, frames: Sequence[str | PathLike[str] | Image.Image], *, progress: bool = False
    ) -> list[Caption]:
        """Read pictures.

        Parameters
        ----------
        frames
            Paths, or PIL pictures of any mode and size.
        progress
            Whether to show a progress bar on stderr.

        Returns
        -------
        list of Caption
            In the order given; a picture without a caption gives an empty text.

        Raises
        ------
        FrameError
            Where a picture can't be read.
        """
        if isinstance(frames, (str, PathLike)):
            raise TypeError(f"frames is one path, {frames!r}; a list is wanted (or use read)")
        with tqdm(total=len(frames), desc="read", unit=" frames", disable=not progress) as bar:
            return list(self.stream(frames, on_read=bar.update))

    def stream(
        self, frames: Iterable[str | PathLike[str] | Image.Image], *, on_read: Callable[[int], object] | None = None
    ) -> Iterator[Caption]:
        """Read pictures as they come.

        Parameters
        ----------
        frames
            Paths, or PIL pictures of any mode and size.
        on_read
            Called with how many more pictures were read.

        Yields
        ------
        Caption
            One a picture, in order: the same as `read_batch` gives. Where captions are in order it comes when 32 to 63
            of those behind it are read.

        Raises
        ------
        FrameError
            Where a picture can't be read.
        """
        if isinstance(frames, (str, PathLike)):
            raise TypeError(f"frames is one path, {frames!r}; a list or another source of pictures is wanted")
        return self._decide(self.found_in(frames, on_read=on_read), self._batch_size)

    def found_in(
        self, frames: Iterable[str | PathLike[str] | Image.Image], *, on_read: Callable[[int], object] | None = None
    ) -> Iterator[Found]:
        """Read pictures, and find sentences for them, without a decision; see `stream`."""
        for batch in _batches(frames, self._batch_size):
            images = [open_frame(frame) if isinstance(frame, (str, PathLike)) else to_rgb(frame) for frame in batch]
            hypotheses = self.recognizer.recognize_batch(images, self._n_best)
            hits = self.find(hypotheses)
            margins = self.judge(images, hypotheses, hits)
            places = self._places(hits)
            for read, found, judged in zip(hypotheses, hits, margins, strict=True):
                yield self._crossed(Found(read, found, places, judged))
            if on_read is not None:
                on_read(len(images))

    def snap(self, readings: Sequence[str], *, progress: bool = False) -> list[Caption]:
        """Snap readings that come from elsewhere.

        Parameters
        ----------
        readings
            Texts, as they were read.
        progress
            Whether to show a progress bar on stderr.

        Returns
        -------
        list of Caption
            In the order given.
        """
        if isinstance(readings, str):
            raise TypeError(f"readings is the string {readings[:20]!r}; a list of readings is wanted")
        with tqdm(total=len(readings), desc="snap", unit=" lines", disable=not progress) as bar:
            return list(self._decide(self.found_for(readings, on_read=bar.update, at_once=_AT_ONCE), _AT_ONCE))

    def snap_stream(
        self, readings: Iterable[str], *, on_read: Callable[[int], object] | None = None
    ) -> Iterator[Caption]:
        """Snap readings as they come, 32 at a time; see `stream` and `snap`."""
        if isinstance(readings, str):
            raise TypeError(f"readings is the string {readings[:20]!r}; a list or another source of readings is wanted")
        return self._decide(self.found_for(readings, on_read=on_read), _AT_SHOW)

    def found_for(
        self, readings: Iterable[str], *, on_read: Callable[[int], object] | None = None, at_once: int = _AT_SHOW,
        without: Collection[str] = (),
    ) -> Iterator[Found]:  # fmt: skip
        """Find sentences for readings, `at_once` together, without a decision; see `snap_stream` and `find`."""
        for batch in _batches(readings, at_once):
            hypotheses = [[Hypothesis(text)] for text in batch]
            hits = self.find(hypotheses, without=without)
            places = self._places(hits)
            whole = [Found(read, found, places) for read, found in zip(hypotheses, hits, strict=True)]
            yield from (self._crossed(one.without(without)) for one in self._with_halves(whole))
            if on_read is not None:
                on_read(len(batch))

    def heard_from(self, position: int) -> int:
        """Return from which caption on an episode must be given again, for those from `position` on to be the same."""
        return chooser.heard_from(position) if self.listens else position

    @property
    def listens(self) -> bool:
        """Whether captions hear those before and behind them."""
        return self.index is not None and self._in_order and self.reranker.order is not None

    def find(self, hypotheses: Sequence[Sequence[Hypothesis]], *, without: Collection[str] = ()) -> list[list[Hit]]:
        """Find sentences by every hypothesis of a picture.

        Parameters
        ----------
        hypotheses
            Readings of each picture, best first.
        without
            Letters and digits (`caprag.text.countable`) of sentences to pass over, as if the corpus lacked them.

        Returns
        -------
        list of list of Hit
            For each picture the hits of its readings together, each sentence once, with the scores that the best
            reading gave it; of those that its first reading may be snapped to.
        """
        if self.index is None:
            return [[] for _ in hypotheses]
        texts = [hypothesis.text for read in hypotheses for hypothesis in read]
        found = iter(self.index.search_batch(texts, self._k * (_SPARE if without else 1)))
        merged: list[list[Hit]] = []
        for read in hypotheses:
            hits: dict[int, Hit] = {}
            for _ in read:
                for hit in [hit for hit in next(found) if not without or countable(hit.text) not in without][: self._k]:
                    hits.setdefault(hit.id, hit)
            merged.append(list(hits.values()))
        merged = self._with_pairs([read[0].text for read in hypotheses], merged, without)
        if without:
            # What two sentences say together may be one that is to be passed over.
            merged = [[hit for hit in hits if countable(hit.text) not in without] for hits in merged]
        if self._kept is None:
            return merged
        return [self._kept.allowed(read[0].text, hits) for read, hits in zip(hypotheses, merged, strict=True)]

    def _with_pairs(
        self, readings: Sequence[str], hits: Sequence[list[Hit]], without: Collection[str]
    ) -> list[list[Hit]]:
        """Add sentences that stand one behind the other, for readings that may be both."""
        open_ = [joins.may_join(read, found) for read, found in zip(readings, hits, strict=True)]
        wanted = {hit.id for found, may in zip(hits, open_, strict=True) if may for hit in found}
        pairs = self.index.pairs(wanted) if self.index is not None and wanted else {}
        if without:
            pairs = {
                ids: texts for ids, texts in pairs.items() if not any(countable(text) in without for text in texts)
            }
        texts = {text for row in pairs.values() for text in row}
        texts.update(hit.text for row, may in zip(hits, open_, strict=True) if may for hit in row)
        forms = dict(zip(texts, match_forms(list(texts)), strict=True))
        beside: dict[int, list[tuple[int, int]]] = {}
        for pair in pairs:
            for number in pair:
                beside.setdefault(number, []).append(pair)
        return [
            [
                *joins.joined(
                    read, found, {p: pairs[p] for hit in found for p in beside.get(hit.id, ())}, forms.__getitem__
                ),
                *found,
            ]
            if may else found
            for read, found, may in zip(readings, hits, open_, strict=True)
        ]  # fmt: skip

    def _with_halves(self, found: Sequence[Found]) -> Iterator[Found]:
        """Add halves of sentences, for captions that together may be one."""
        if not self.listens:
            yield from found
            return
        allows = (lambda _reading, _answer: True) if self._kept is None else self._kept.allows
        for start in range(0, len(found), chooser.BLOCK):
            yield from joins.with_halves(found[start : start + chooser.BLOCK], allows)

    def _crossed(self, found: Found) -> Found:
        cross = self._logits(found.hypotheses[0].text, found.hits)
        return found if cross is None else replace(found, cross=cross)

    def _logits(self, read: str, hits: Sequence[Hit]) -> list[float] | None:
        """Return what the cross-encoder says of hits, ``None`` where the reranker was fitted without one."""
        if not self.reranker.cross_encoder:
            return None
        if self._cross_encoder is None:
            self._cross_encoder = load_cross_encoder(self.reranker.cross_encoder)
        logits: list[float] = self._cross_encoder.score([(read, hit.text) for hit in hits], unit="logit").tolist()
        return logits

    def judge(
        self,
        images: list[Image.Image],
        hypotheses: Sequence[Sequence[Hypothesis]],
        hits: Sequence[Sequence[Hit]],
    ) -> list[list[float]]:
        """Let the recognizer judge the hits of pictures.

        Parameters
        ----------
        images
            The pictures.
        hypotheses, hits
            What was read in each and found for it.

        Returns
        -------
        list of list of float
            For each hit ln p(hit | picture) - ln p(first reading | picture) in nats; 0 where the recognizer can't
            produce its own reading. Marks and spaces are the reading's in either: corpora write them in their own way,
            some so that a recognizer can't.
        """
        texts = [
            [read[0].text, *(with_marks_of(read[0].text, hit.text) for hit in found)]
            for read, found in zip(hypotheses, hits, strict=True)
        ]
        if not any(hits):
            return [[] for _ in images]
        scores = self.recognizer.score_batch(images, texts)
        return [[score - first if math.isfinite(first) else 0.0 for score in rest] for first, *rest in scores]

    def _places(self, hits: Sequence[Sequence[Hit]]) -> Mapping[int, Sequence[tuple[str, int]]]:
        if self.index is None or not self.listens:
            return {}
        return self.index.places_of(hit.id for found in hits for hit in found)

    def _decide(self, found: Iterable[Found], at_once: int) -> Iterator[Caption]:
        for caption in self._decided(found, at_once):
            if self._keep_marks and caption.hit is not None:
                yield replace(caption, text=with_marks_of(caption.hypotheses[0].text, caption.text))
            else:
                yield caption

    def _decided(self, found: Iterable[Found], at_once: int) -> Iterator[Caption]:
        if self.index is None:
            for one in found:
                yield from self.reranker.rerank_batch([one.hypotheses], [one.hits], _never, [one.margins], [one.cross])
            return
        frequency, remembered = self.index.frequency, deque[Sequence[Hit]]()

        def noted() -> Iterator[Found]:
            for one in found:
                if self._parts:
                    remembered.append(one.hits)
                yield one

        if self._in_order:
            captions = self.reranker.rerank_in_order(noted(), frequency, max(1, len(self.index)))
        else:
            captions = (
                caption for several in _batches(noted(), at_once)
                for caption in self.reranker.rerank_batch(
                    [one.hypotheses for one in several], [one.hits for one in several], frequency,
                    [one.margins for one in several], [one.cross for one in several],
                )
            )  # fmt: skip
        if not self._parts:
            yield from captions
            return
        parts = Parts(
            lambda texts: self.find([[Hypothesis(text)] for text in texts]), self.reranker, frequency, self._logits,
            None if self._kept is None else self._kept.allows,
        )  # fmt: skip
        pairs = ((caption, remembered.popleft()) for caption in captions)
        # What is decided in order comes in blocks.
        yield from parts.each_apart(pairs, max(at_once, chooser.BLOCK) if self.listens else at_once)


def _never(_gram: str) -> int:
    return 0


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    remaining = iter(items)
    while batch := list(itertools.islice(remaining, size)):
        yield batch
