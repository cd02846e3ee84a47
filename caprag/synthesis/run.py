"""A run of the synthesiser: sentences to a data set on disk, in parallel, stopped and gone on with at any time.

Worker processes make and encode pictures; this process alone writes, in the order of the numbers. Which pictures come
out does not depend on how many workers there are.
"""

from __future__ import annotations

import functools
import hashlib
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from caprag.errors import FrameError, SynthesisError
from caprag.progress import progress_bar
from caprag.synthesis.backgrounds import background_schema
from caprag.synthesis.containers import Container, Suffix
from caprag.synthesis.damage import damage_schema
from caprag.synthesis.generator import Synthesizer
from caprag.synthesis.output import JSON, DatasetWriter
from caprag.synthesis.pictures import manifest_schema
from caprag.synthesis.sampling import Mode, SentencePlan
from caprag.synthesis.styles import style_schema
from caprag.workers import map_in_order

_PICTURES_AT_A_TIME = 16
_NEIGHBOURS = 4
_EXAMPLES = 5
# Raised whenever the same settings come to draw other pictures.
_DRAWING = 1
_LIBRARIES = ("av", "numpy", "opencv-python-headless", "pillow")
_BYTES_LOOKED_AT = 4096
# Ends the seed of the draw of pictures without a caption, so that it shares its numbers with no other.
_CAPTIONLESS = 211


class Sentences:
    """The sentences of a run: those that the fonts can draw, and which of them each picture shows.

    Parameters
    ----------
    texts
        Sentences in order.
    synthesizer
        Who will draw them: its fonts say which can be drawn (the others are left out), its recipe how many pictures
        have no caption, its seed which picture shows what.
    count
        Number of pictures; ``None`` makes as many as there are sentences.
    mode
        ``"random"``, or ``"each"`` for one picture of each sentence in order, and none without a caption.
    lengths
        Wanted shares of lengths in characters, see `SentencePlan`.
    floor
        Each character is planned for at least so many pictures, where possible. A sentence that does not fit its frame
        gives way to another, so that a few can be less; `SynthesisReport` counts what was drawn.

    Raises
    ------
    SynthesisError
        Where no sentence can be drawn.
    """

    def __init__(
        self,
        texts: Sequence[str],
        synthesizer: Synthesizer,
        *,
        count: int | None = None,
        mode: Mode = "random",
        lengths: Mapping[int, float] | None = None,
        floor: int = 0,
    ) -> None:
        fonts, seed = synthesizer.fonts, synthesizer.seed
        known = fonts.characters()
        # What all fonts together lack needs no look at each of them.
        self.rows = [i for i, text in enumerate(texts) if text and known.issuperset(text) and fonts.covers(text)]
        self.left_out = len(texts) - len(self.rows)
        kept = set(self.rows) if self.left_out else set()
        examples = (text for i, text in enumerate(texts) if self.left_out and i not in kept)
        self.left_out_examples = tuple(text for text, _ in zip(examples, range(_EXAMPLES), strict=False))
        if not self.rows:
            raise SynthesisError(
                f"no font has the characters of any of {len(texts)} sentences; name fonts that have them"
                if texts
                else "there is no sentence to draw; name a text that has some"
            )
        self._texts = [texts[i] for i in self.rows] if self.left_out else texts
        self.count = len(self.rows) if count is None else count
        self.seed = seed
        self.captionless = 0 if mode == "each" else min(round(self.count * synthesizer.recipe.empty), self.count)
        # Where every picture is without a caption, no row of the plan is ever asked for.
        captions = max(1, self.count - self.captionless)
        self.plan = SentencePlan(self._texts, seed=seed, count=captions, mode=mode, lengths=lengths, floor=floor)
        self._turn, self._places = -1, np.empty(0, np.int64)

    def for_picture(self, number: int) -> list[tuple[int, str]]:
        """Return row and text of the sentence for a picture, and of those that follow it in the text.

        Empty for a picture without a caption. Numbers from `count` on go on with the next pass over the text.
        """
        turn, place = divmod(number, self.count)
        if self.captionless:
            place = int(self._captions_before(turn)[place])
            if place < 0:
                return []
        first = self.plan[turn * self.plan.count + place]
        # One picture of each sentence: none takes another's place, nor stands beside it.
        count = 1 if self.plan.mode == "each" else min(_NEIGHBOURS, len(self.rows))
        places = (first + i for i in range(count))
        return [(self.rows[i % len(self.rows)], self._texts[i % len(self.rows)]) for i in places]

    def _captions_before(self, turn: int) -> npt.NDArray[np.int64]:
        """Return for each picture of a pass how many with a caption come before it; -1 for one without."""
        if turn != self._turn:
            rng = np.random.default_rng([self.seed, turn, _CAPTIONLESS])
            has = np.ones(self.count, bool)
            has[rng.permutation(self.count)[: self.captionless]] = False
            self._turn, self._places = turn, np.where(has, np.cumsum(has) - 1, -1)
        return self._places

    def fingerprint(self) -> str:
        """Return a digest of the texts."""
        digest = hashlib.blake2b(digest_size=16)
        for row, text in zip(self.rows, self._texts, strict=True):
            digest.update(f"{row}\t{text}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


@dataclass(frozen=True)
class SynthesisReport:
    """What a run made.

    `pictures` is how many the folder holds, `made` how many of them in this run; `left_out` the sentences that no font
    could draw, `skipped` those that did not fit a frame, `fitted` and `kinds` how many pictures were wrapped or shrunk
    and of each kind; `characters` in how many pictures each character was drawn, the rarest first; `lengths` how many
    pictures have a caption of so many characters, white space apart. A caption of two sentences is as long as both.
    """

    manifest: Path
    pictures: int
    made: int
    left_out: int
    skipped: int
    fitted: Mapping[str, int]
    kinds: Mapping[str, int]
    characters: Mapping[str, int]
    lengths: Mapping[int, int]

    def __str__(self) -> str:
        """Return a few lines to read."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in self.kinds.items())
        return (
            f"{self.manifest.parent}: {self.pictures} pictures, {self.made} of them made now ({kinds}); "
            f"{self.fitted.get('wrapped', 0)} wrapped, {self.fitted.get('shrunk', 0)} shrunk, "
            f"{self.skipped} sentences passed over because they did not fit; "
            f"{len(self.characters)} characters, the rarest {self._rarest()}; "
            f"captions of {min(self.lengths, default=0)} to {max(self.lengths, default=0)} characters"
        )

    def _rarest(self) -> str:
        shown = list(self.characters.items())[:_EXAMPLES]
        return ", ".join(f"{character} in {count}" for character, count in shown) or "none"


def synthesize(
    sentences: Sentences,
    synthesizer: Synthesizer,
    out: Path,
    *,
    workers: int = 1,
    container: Container = "folders",
    shard_size: int = 1000,
    progress: bool = False,
    on_error: Callable[[FrameError], None] | None = None,
) -> SynthesisReport:
    """Make a data set of pictures of captions, or go on with one.

    Parameters
    ----------
    sentences
        What is drawn.
    synthesizer
        How it is drawn.
    out
        Folder of the data set.
    workers
        Number of processes that make pictures; 1 makes them in this one.
    container, shard_size
        See `DatasetWriter`.
    progress
        Show a bar with rate and time left on a terminal, or write a line a minute to a log.
    on_error
        Called with the error of each background that can't be read, once; another one takes its place.

    Returns
    -------
    SynthesisReport

    Raises
    ------
    SynthesisError
        Where the folder holds another set, a disk is full, a picture can't be made, or a worker died. What was
        written is kept, and the same call goes on after it.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}; at least 1 is needed")
    count = sentences.count
    schema = manifest_schema(style_schema(), background_schema(), damage_schema())
    complain = _Once(on_error)
    suffix: Suffix = f".{synthesizer.format}"  # type: ignore[assignment]
    with DatasetWriter(out, _settings(sentences, synthesizer), schema, container=container,
                       shard_size=shard_size) as writer:  # fmt: skip
        begun = writer.done
        with progress_bar(count, "synth", " pictures", initial=begun, show=progress) as bar:
            for made in _made(sentences, synthesizer, range(begun, count), workers):
                for message in made.complaints:
                    complain(message)
                for number, data, row in made.pictures:
                    writer.write(number, data, suffix, row)
                bar.update(len(made.pictures))
        manifest = writer.finish()
    return _report(manifest, sentences, count - begun)


@dataclass(frozen=True, slots=True)
class _Made:
    pictures: list[tuple[int, bytes, dict[str, object]]]
    complaints: list[str]


class _Once:
    """Passes on each complaint once, whichever worker came upon it."""

    def __init__(self, on_error: Callable[[FrameError], None] | None) -> None:
        self._on_error, self._seen = on_error, set[str]()

    def __call__(self, message: str) -> None:
        if message not in self._seen:
            self._seen.add(message)
            if self._on_error is not None:
                self._on_error(FrameError(message))


Task = tuple[range, list[list[tuple[int, str]]]]


def _make(synthesizer: Synthesizer, task: Task) -> _Made:
    if multiprocessing.parent_process() is not None:
        import cv2

        # With a process for each core, threads would only be in each other's way.
        cv2.setNumThreads(1)
    complaints: list[str] = []
    before = synthesizer.backgrounds.on_error
    synthesizer.backgrounds.on_error = lambda error: complaints.append(str(error))
    try:
        pictures = []
        for number, texts in zip(*task, strict=True):
            picture = synthesizer.make(number, texts)
            pictures.append((number, synthesizer.encode(picture), picture.label.row()))
    finally:
        synthesizer.backgrounds.on_error = before
    return _Made(pictures, complaints)


def _made(sentences: Sentences, synthesizer: Synthesizer, numbers: range, workers: int) -> Iterator[_Made]:
    """Make pictures in order, some ahead of what was asked for where there are several workers."""

    def tasks() -> Iterator[Task]:
        for start in range(0, len(numbers), _PICTURES_AT_A_TIME):
            part = numbers[start : start + _PICTURES_AT_A_TIME]
            yield part, [sentences.for_picture(number) for number in part]

    return map_in_order(functools.partial(_make, synthesizer), tasks(), workers)


def _settings(sentences: Sentences, synthesizer: Synthesizer) -> dict[str, JSON]:
    """Return all that decides the pictures."""
    lengths = sentences.plan.lengths
    backgrounds = synthesizer.backgrounds
    return {
        "drawing": _DRAWING,
        "libraries": {name: version(name) for name in _LIBRARIES},
        "count": sentences.count,
        "seed": synthesizer.seed,
        "sentences": len(sentences.rows),
        "text": sentences.fingerprint(),
        "mode": sentences.plan.mode,
        "lengths": None if lengths is None else {str(length): share for length, share in lengths.items()},
        "floor": sentences.plan.floor,
        "backgrounds": {
            "count": len(backgrounds.files),
            "digest": _digest(zip(backgrounds.names, backgrounds.files, strict=True)),
            "letterbox": backgrounds.letterbox,
        },
        "fonts": [
            f"{font.path.name}#{font.face} {font.name} = {font.weight:g}, {_digest([('', font.path)])}"
            for font in synthesizer.fonts.fonts
        ],
        "sizes": [list(size) for size in synthesizer.sizes],
        "damage": synthesizer.damage,
        "format": synthesizer.format,
        "recipe": synthesizer.recipe.as_dict(),
    }


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    """Return a digest of names, sizes and first bytes of files: enough to tell that one was changed for another."""
    digest = hashlib.blake2b(digest_size=8)
    for name, path in files:
        try:
            with path.open("rb") as stream:
                begin, size = stream.read(_BYTES_LOOKED_AT), path.stat().st_size
        except OSError as error:
            raise SynthesisError(f"{path}: can't be read any more ({error.strerror}); put it back") from error
        digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape") + begin)
    return digest.hexdigest()


def _report(manifest: Path, sentences: Sentences, made: int) -> SynthesisReport:
    import pyarrow.parquet as pq

    fitted, kinds, characters, lengths = Counter[str](), Counter[str](), Counter[str](), Counter[int]()
    skipped = pictures = 0
    with pq.ParquetFile(manifest) as table:
        for batch in table.iter_batches(columns=["text", "fitted", "kind", "skipped"]):
            pictures += batch.num_rows
            for text in batch.column("text").to_pylist():
                drawn = "".join(text.split())
                characters.update(set(drawn))
                lengths[len(drawn)] += bool(drawn)
            fitted.update(batch.column("fitted").to_pylist())
            kinds.update(batch.column("kind").to_pylist())
            skipped += pc.sum(batch.column("skipped")).as_py() or 0
    rarest = sorted(characters.items(), key=lambda item: (item[1], item[0]))
    return SynthesisReport(
        manifest, pictures, made, sentences.left_out, skipped, dict(sorted(fitted.items())),
        dict(sorted(kinds.items())), dict(rarest), {n: lengths[n] for n in sorted(lengths) if lengths[n]},
    )  # fmt: skip
