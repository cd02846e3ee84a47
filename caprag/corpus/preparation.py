"""The whole way from raw text to a corpus of captions: read, clean, split, judge, deduplicate, write.

Streams: what is held in memory does not grow with the corpus (but for a byte a piece). Works in several processes;
the output does not depend on how many.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from caprag.corpus.chunks import EXAMPLES, ChunkResult, Row, process_chunk
from caprag.corpus.cleaning import CHANGES, REASONS, CaptionRules, Change, Reason
from caprag.corpus.deduplication import DUPLICATE, KEPT, NEAR, VARIANT
from caprag.corpus.files import list_files
from caprag.corpus.near import check_near
from caprag.corpus.output import check_output, write_sentences, writing
from caprag.corpus.reading import Columns, read_rows
from caprag.corpus.spool import Spool
from caprag.corpus.statistics import CorpusStatistics, StatisticsCounter
from caprag.errors import CorpusError
from caprag.types import Sentence
from caprag.workers import available_cpus, map_in_order

if TYPE_CHECKING:
    from tqdm import tqdm

# A chunk has at most so many rows and, but for its last row, so many characters.
_CHUNK_ROWS = 4096
_CHUNK_CHARACTERS = 1 << 18

_FOUND: dict[int, Reason] = {DUPLICATE: "duplicate", VARIANT: "variant", NEAR: "near"}


@dataclass(frozen=True, slots=True)
class PreparationReport:
    """What became of the texts.

    Attributes
    ----------
    files
        Number of files that were read.
    rows
        Number of lines, captions and cells that were read.
    failed
        Number of files and lines that could not be read; each was named.
    pieces
        Number of pieces that the rows were cut into; `kept` and `dropped` add up to it.
    kept
        Number of pieces written.
    dropped
        Number of pieces dropped by reason, in the order of `caprag.corpus.cleaning.REASONS`; only those above 0.
    examples
        The first few pieces dropped for each reason, with file and line.
    changed
        Number of lines that lost more than marks that say nothing, by what they lost, in the order of
        `caprag.corpus.cleaning.CHANGES`; only those above 0.
    changes
        The first few such lines of each kind, from the place on where they lost it.
    statistics
        Lengths and characters of what was written.
    """

    files: int
    rows: int
    failed: int
    pieces: int
    kept: int
    dropped: Mapping[Reason, int]
    examples: Mapping[Reason, tuple[Sentence, ...]]
    changed: Mapping[Change, int]
    changes: Mapping[Change, tuple[Sentence, ...]]
    statistics: CorpusStatistics

    def __str__(self) -> str:
        width = max(len(str(n)) for n in (self.files, self.rows, self.pieces))
        lines = [
            f"{'read':<11} {self.rows:>{width}}  rows of {self.files} files",
            f"{'failed':<11} {self.failed:>{width}}  lines or files" if self.failed else "",
            f"{'pieces':<11} {self.pieces:>{width}}",
            f"{'kept':<11} {self.kept:>{width}}  {self.kept / max(1, self.pieces):.1%}",
        ]
        for reason, count in self.dropped.items():
            share = f"{count / max(1, self.pieces):.1%}"
            lines.append(f"{reason:<11} {count:>{width}}  {share:<6} dropped: {REASONS[reason]}")
            lines += map(_example, self.examples[reason])
        for change, count in self.changed.items():
            lines.append(f"{change:<11} {count:>{width}}  {'lines':<6} changed: {CHANGES[change]}")
            lines += map(_example, self.changes[change])
        return "\n".join(filter(None, lines))


def _example(sentence: Sentence) -> str:
    return f"{'':<12}{sentence.source}, line {sentence.line}: {_shorten(sentence.text)}"


def _shorten(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def prepare_corpus(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    out: str | PathLike[str],
    rules: CaptionRules | None = None,
    *,
    column: Columns = None,
    roles: Collection[str] | None = None,
    encoding: str | None = None,
    near: float | None = None,
    workers: int | None = None,
    on_error: Callable[[CorpusError], None] | None = None,
    progress: bool = False,
) -> PreparationReport:
    """Make one corpus of captions out of text files, subtitles, tables and chats.

    Each line is written in its written form, converted where asked, stripped of what is no caption, split to caption
    length, and judged; of pieces that are equal but for marks, case and variant characters the first in document order
    is kept (`caprag.corpus.forms`). Output that was there is replaced when all is done, and only then.

    Parameters
    ----------
    paths
        Files, folders or glob patterns; see `caprag.read_corpus`. A file that is named twice is read once.
    out
        File to write. ``.txt`` holds a caption a line; ``.tsv``, ``.csv``, ``.jsonl`` and ``.parquet`` hold text,
        source and line, that is, where each came from. Room for temporary files is needed beside it: about twice the
        size of the texts.
    rules
        What a caption is; ``None`` means ``CaptionRules()``.
    column, roles, encoding
        Where the text is; see `caprag.read_corpus`.
    near
        Also drop what is at least so similar to an earlier kept piece, in [0.7, 1]: 1 - edit distance / the longer
        length, of those forms. Needs about 20 bytes of memory a piece, and more where many are similar; see
        `caprag.corpus.near.find_near`.
    workers
        Number of processes; ``None`` means one for each CPU. It changes nothing in the output. With more than one, a
        script must have ``if __name__ == "__main__":`` around its start.
    on_error
        Called with the error of each file or line that can't be read, after which reading goes on; ``None`` raises it.
    progress
        Whether to show progress bars on stderr.

    Returns
    -------
    PreparationReport
        What was read, kept and dropped, and why.

    Raises
    ------
    CorpusError
        Where no path stands for a file, the output is one of the inputs, or (unless `on_error` takes it) a file or line
        can't be read.
    CapragError
        Where the output can't be made, or a worker process ended.
    OSError
        Naming the output, where writing fails (a full disk); what stood there before is as it was.
    ValueError
        For an argument outside its range.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "raw.txt").write_text("1. 小明：今天天氣真好！我們走吧。\\n好\\n今天天氣真好。", encoding="utf-8")
    >>> report = prepare_corpus(folder / "raw.txt", folder / "corpus.txt", CaptionRules(min_chars=4))
    >>> (folder / "corpus.txt").read_text(encoding="utf-8").split()
    ['今天天氣真好!', '我們走吧']
    >>> dict(report.dropped)
    {'short': 1, 'variant': 1}
    """
    rules = rules or CaptionRules()
    out = Path(out)
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; 1 or more is wanted")
    if near is not None:
        check_near(near)
    check_output(out)
    source = _Source(_find(paths, on_error), column, roles, encoding, on_error)
    source.refuse(out)
    # Writing is tried before hours of reading; the temporary files lie where there must be room anyway.
    with writing(out) as stream, Spool(out.parent) as spool:
        tally = _Tally()
        with _bar(progress, "read", sum(map(_size, source.files)), "B") as bar:
            work = partial(process_chunk, rules=rules, forms=near is not None)
            for result in map_in_order(work, source.chunks(bar.update), workers or available_cpus()):
                spool.append(result)
                tally.add(result)
        if near is not None:
            with _bar(progress, "compare", spool.count, " lines") as bar:
                spool.deduplicate(near, bar.update)
        else:
            spool.deduplicate()
        names = [_name(path) for path in source.files]
        counter = StatisticsCounter()
        with _bar(progress, "write", spool.count, " lines") as bar:
            write_sentences(stream, out.suffix.lower(), _kept(spool, names, counter, tally, bar))
        dropped = {reason: tally.dropped[reason] for reason in REASONS if tally.dropped[reason]}
        kept = spool.count - sum(tally.dropped[reason] for reason in _FOUND.values())
    return PreparationReport(
        files=len(source.files) - source.failed_files,
        rows=source.rows,
        failed=source.failed,
        pieces=kept + sum(dropped.values()),
        kept=kept,
        dropped=dropped,
        examples={reason: _sentences(tally.examples[reason], names) for reason in dropped},
        changed={change: tally.changed[change] for change in CHANGES if tally.changed[change]},
        changes={change: _sentences(tally.changes[change], names) for change in CHANGES if tally.changed[change]},
        statistics=counter.result(),
    )


def _sentences(rows: list[Row], names: Sequence[str]) -> tuple[Sentence, ...]:
    return tuple(Sentence(text, names[number], line) for number, line, text in rows)


def _find(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]], on_error: Callable[[CorpusError], None] | None
) -> tuple[list[Path], int]:
    """Return the files, each once, and the number of paths that stand for none."""
    found: dict[tuple[int, int], Path] = {}
    given = [paths] if isinstance(paths, (str, PathLike)) else list(paths)
    errors = []
    for path in given:
        try:
            for file in list_files(path):
                status = file.stat()
                found.setdefault((status.st_dev, status.st_ino), file)
        except OSError as error:
            errors.append(CorpusError(f"{path}: can't be looked up ({error.strerror}); check the name and its rights"))
        except CorpusError as error:
            errors.append(error)
        if errors and on_error is None:
            raise errors[0]
    if not found:
        raise errors[0] if errors else CorpusError("no path is given; name the files or folders of the texts")
    if on_error is not None:
        for refused in errors:
            on_error(refused)
    return list(found.values()), len(errors)


class _Source:
    """Rows of files in order, by the chunk, with counts of what was read and what was not."""

    def __init__(
        self,
        found: tuple[list[Path], int],
        column: Columns,
        roles: Collection[str] | None,
        encoding: str | None,
        on_error: Callable[[CorpusError], None] | None,
    ) -> None:
        self.files, self.failed = found
        self.rows = self.failed_files = 0
        self._read = partial(read_rows, column=column, encoding=encoding, roles=roles)
        self._on_error = on_error

    def refuse(self, out: Path) -> None:
        """Raise CorpusError where the output is one of the files."""
        for path in self.files:
            try:
                same = path.samefile(out)
            except (OSError, ValueError):
                return  # There is none yet, or there can be none.
            if same:
                raise CorpusError(f"{out}: is one of the inputs ({path}); write to another file")

    def _fail(self, error: CorpusError) -> None:
        self.failed += 1
        if self._on_error is None:
            raise error
        self._on_error(error)

    def chunks(self, on_bytes: Callable[[int], object]) -> Iterator[list[Row]]:
        chunk: list[Row] = []
        characters = 0
        for number, path in enumerate(self.files):
            try:
                for line, item in self._read(path, on_bytes=on_bytes):
                    if not isinstance(item, str):
                        self._fail(item)
                        continue
                    self.rows += 1
                    # A lone surrogate is no text, and does not travel.
                    chunk.append((number, line, item if item.isascii() else _encodable(item)))
                    characters += len(item)
                    if len(chunk) == _CHUNK_ROWS or characters >= _CHUNK_CHARACTERS:
                        yield chunk
                        chunk, characters = [], 0
            except CorpusError as error:
                self.failed_files += 1
                self._fail(error)
        if chunk:
            yield chunk


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "ignore").decode()
    return text


class _Tally:
    """What was dropped and changed, and the first few of each kind."""

    def __init__(self) -> None:
        self.dropped: Counter[Reason] = Counter()
        self.examples: dict[Reason, list[Row]] = {reason: [] for reason in REASONS}
        self.changed: Counter[Change] = Counter()
        self.changes: dict[Change, list[Row]] = {change: [] for change in CHANGES}

    def add(self, result: ChunkResult) -> None:
        self.dropped.update(result.dropped)
        for reason, rows in result.examples.items():
            examples = self.examples[reason]
            examples += rows[: EXAMPLES - len(examples)]
        self.changed.update(result.changed)
        for change, rows in result.changes.items():
            changes = self.changes[change]
            changes += rows[: EXAMPLES - len(changes)]


def _kept(
    spool: Spool, names: Sequence[str], counter: StatisticsCounter, tally: _Tally, bar: tqdm[None]
) -> Iterator[list[Sentence]]:
    """Yield what is written, and count it and what is not."""
    for texts, origins, found in spool.blocks():
        sources, lines = origins["source"].tolist(), origins["line"].tolist()
        for kind, reason in _FOUND.items():
            places = (found == kind).nonzero()[0].tolist()
            tally.dropped[reason] += len(places)
            examples = tally.examples[reason]
            examples += [(sources[i], lines[i], texts[i]) for i in places[: EXAMPLES - len(examples)]]
        kept = (found == KEPT).nonzero()[0].tolist()
        counter.add([texts[i] for i in kept])
        yield [Sentence(texts[i], names[sources[i]], lines[i]) for i in kept]
        bar.update(len(texts))


def _bar(progress: bool, what: str, total: int, unit: str) -> tqdm[None]:
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit=unit, unit_scale=True, disable=not progress)


def _size(path: Path) -> int:
    return path.stat().st_size


def _name(path: Path) -> str:
    """Return a path as it is written: bytes of a name that are not UTF-8 as ``\\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
