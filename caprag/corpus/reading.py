"""From files to sentences: one function that streams, with a reader for each kind of file.

Order is the document's; a sentence that came before is not given again. Nothing is cut or cleaned beyond the written
form of `caprag.text.normalize`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from os import PathLike
from pathlib import Path

from caprag.corpus.files import decode_lines, list_files
from caprag.errors import CorpusError
from caprag.text import normalize
from caprag.types import Sentence

_TEXT_COLUMNS = ("text", "sentence", "caption", "content", "subtitle", "字幕", "文字", "句子")
_ROWS_AT_A_TIME = 8192

Item = tuple[int, "str | CorpusError"]


def read_corpus(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    column: str | None = None,
    encoding: str | None = None,
    on_error: Callable[[CorpusError], None] | None = None,
) -> Iterator[Sentence]:
    """Read the sentences of text files, subtitles and tables.

    Parameters
    ----------
    paths
        One or several files, folders or glob patterns. The suffix says how a file is read: txt (a sentence a line),
        srt, vtt, ass and ssa (a sentence a caption), csv, tsv, jsonl and parquet (a sentence a row).
    column
        Name of the text's column or key in tables; ``None`` takes one named text, sentence, caption, content,
        subtitle, 字幕, 文字 or 句子, or the only one.
    encoding
        Encoding of the files that are text; ``None`` means UTF-8, or UTF-16 where the file says so itself.
    on_error
        Called with the error of each line that can't be read, after which reading goes on; ``None`` raises it.

    Yields
    ------
    Sentence
        Non-empty sentences in document order. Of equal texts only the first is given.

    Raises
    ------
    CorpusError
        Naming file, line and remedy: for a path that does not exist (always), and for a file or line that can't be
        read (unless `on_error` takes it).

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "劇本.txt"
    >>> _ = path.write_text("你好嗎？\\n我很好\\n你好嗎？\\n", encoding="utf-8")
    >>> [sentence.text for sentence in read_corpus(path)]
    ['你好嗎?', '我很好']
    """
    files = list_files(paths)
    return _unique(_read_files(files, column, encoding, on_error))


def _read_files(
    files: list[Path],
    column: str | None,
    encoding: str | None,
    on_error: Callable[[CorpusError], None] | None,
) -> Iterator[Sentence]:
    for path in files:
        try:
            for number, item in read_rows(path, column, encoding):
                if isinstance(item, str):
                    if text := normalize(item):
                        yield Sentence(text, str(path), number)
                elif on_error is None:
                    raise item
                else:
                    on_error(item)
        except CorpusError as error:
            if on_error is None:
                raise
            on_error(error)


def _unique(sentences: Iterable[Sentence]) -> Iterator[Sentence]:
    # A digest of 16 bytes instead of the text: a corpus may be larger than memory.
    seen: set[bytes] = set()
    for sentence in sentences:
        digest = hashlib.blake2b(sentence.text.encode(), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield sentence


def read_rows(path: Path, column: str | None = None, encoding: str | None = None) -> Iterator[Item]:
    """Read one file row by row, as it stands.

    Parameters
    ----------
    path
        A file; its suffix says its kind.
    column, encoding
        See `read_corpus`.

    Yields
    ------
    tuple of int and (str or CorpusError)
        1-based number of the line, caption or row, and its text, or the error where it can't be read.

    Raises
    ------
    CorpusError
        Where the file as a whole can't be read.
    """
    suffix = path.suffix.lower()
    if suffix in (".srt", ".vtt", ".ass", ".ssa"):
        return _subtitles(path, encoding)
    if suffix in (".csv", ".tsv"):
        return _table(path, "\t" if suffix == ".tsv" else ",", column, encoding)
    if suffix == ".jsonl":
        return _json_lines(path, column, encoding)
    if suffix == ".parquet":
        return _parquet(path, column)
    return decode_lines(path, encoding)


def _subtitles(path: Path, encoding: str | None) -> Iterator[Item]:
    import pysubs2

    lines = []
    for number, line in decode_lines(path, encoding):
        if isinstance(line, str):
            lines.append(line)
        else:
            yield number, line
    text = "\n".join(lines)
    if not text.strip():
        return
    kind = path.suffix.lower()[1:]
    # In these two pysubs2 takes all up to the next time line for text, and a last line of digits for a number.
    if kind == "vtt":
        cues = (block for block in re.split(r"\n(?:[ \t]*\n)+", text) if "-->" in block)
        text = "\n\n0\n".join(cue[cue.rfind("\n", 0, cue.index("-->")) + 1 :] for cue in cues)
    if kind in ("srt", "vtt"):
        text += "\n\n0\n"
    try:
        with warnings.catch_warnings():
            # What it warns of are times, layers and margins, not texts.
            warnings.simplefilter("ignore")
            events = pysubs2.SSAFile.from_string(text, format_=kind).events
    except (pysubs2.exceptions.Pysubs2Error, ValueError) as error:
        raise CorpusError(f"{path}: is not read as {path.suffix[1:]} ({error}); check the file's kind") from error
    if not events:
        raise CorpusError(f"{path}: has no caption; check that it is {path.suffix[1:]}, or rename it to .txt")
    for number, event in enumerate(events, 1):
        if not event.is_comment and not event.is_drawing:
            yield number, event.plaintext


def _table(path: Path, delimiter: str, column: str | None, encoding: str | None) -> Iterator[Item]:
    broken: list[tuple[int, CorpusError]] = []
    current = 0
    ended = False

    def lines() -> Iterator[str]:
        nonlocal current, ended
        for number, line in decode_lines(path, encoding):
            if isinstance(line, str):
                current = number
                # Python 3.10 takes no character 0.
                yield line.replace("\0", "") + "\n"
            else:
                broken.append((number, line))
        ended = True

    reader = csv.reader(lines(), delimiter=delimiter)
    place = columns = 0
    while True:
        start = current + 1
        item: str | CorpusError | None = None
        try:
            row = next(reader, None)
        except csv.Error as error:
            row = []
            item = CorpusError(f"{path}, line {current}: is not csv ({error}); check its quotes")
        yield from broken
        broken.clear()
        if row is None:
            return
        if row and ended:
            # Only a field that is still open makes a row of the end of the file.
            item = CorpusError(f"{path}, line {start}: opens a quote that is never closed; check its quotes")
        elif row and not columns:
            place, columns = row.index(_choose_column(path, row, column)), len(row)
        elif len(row) > place:
            item = row[place]
        elif row:
            item = CorpusError(
                f"{path}, line {current}: has {len(row)} columns, the header has {columns}; mend the line"
            )
        if item is not None:
            yield current, item


def _json_lines(path: Path, column: str | None, encoding: str | None) -> Iterator[Item]:
    for number, line in decode_lines(path, encoding):
        if not isinstance(line, str):
            yield number, line
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if isinstance(value, dict):
                value = value[_choose_column(path, list(value), column)]
        except (ValueError, RecursionError) as error:
            yield (
                number,
                CorpusError(f"{path}, line {number}: is not JSON ({error}); one value a line is wanted"),
            )
            continue
        except CorpusError as error:
            yield number, CorpusError(f"{path}, line {number}: {str(error).removeprefix(f'{path}: ')}")
            continue
        if isinstance(value, str):
            yield number, value
        else:
            kind = type(value).__name__
            yield number, CorpusError(f"{path}, line {number}: the text is a {kind}; a string is wanted")


def _parquet(path: Path, column: str | None) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as table:
            name = _choose_column(path, table.schema_arrow.names, column)
            kind = table.schema_arrow.field(name).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise CorpusError(f"{path}: column {name!r} holds {kind}; name a column of strings")
            number = 0
            for batch in table.iter_batches(_ROWS_AT_A_TIME, columns=[name]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    if value is not None:
                        yield number, value
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: is not read as parquet ({error}); write the file again") from error


def _choose_column(path: Path, names: list[str], column: str | None) -> str:
    if column is not None:
        if column in names:
            return column
        raise CorpusError(f"{path}: has no column {column!r}; it has {', '.join(names)}")
    for name in names:
        if name.strip().lower() in _TEXT_COLUMNS:
            return name
    if len(names) == 1:
        return names[0]
    raise CorpusError(f"{path}: name the text's column (column=..., --column); it has {', '.join(names)}")
