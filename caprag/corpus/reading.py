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
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path

from caprag.corpus.files import decode_lines, list_files
from caprag.corpus.messages import texts_of
from caprag.errors import CorpusError
from caprag.text import normalize
from caprag.types import Sentence

_TEXT_COLUMNS = ("text", "sentence", "caption", "content", "subtitle", "字幕", "文字", "句子")
_CHAT_COLUMNS = ("messages", "conversations", "conversation")
# Rows of a chat may be long.
_ROWS_AT_A_TIME = 1024

Item = tuple[int, "str | CorpusError"]
Columns = str | Sequence[str] | None
"""Name of the text's column, several of them, or None to choose by name."""


def read_corpus(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    *,
    column: Columns = None,
    encoding: str | None = None,
    roles: Collection[str] | None = None,
    on_error: Callable[[CorpusError], None] | None = None,
) -> Iterator[Sentence]:
    """Read the sentences of text files, subtitles and tables.

    Parameters
    ----------
    paths
        One or several files, folders or glob patterns. The suffix says how a file is read: txt (a sentence a line),
        srt, vtt, ass and ssa (a sentence a caption), csv, tsv, jsonl and parquet (a sentence a row).
    column
        Name of the text's column or key in tables, or several; ``None`` takes one named text, sentence, caption,
        content, subtitle, 字幕, 文字 or 句子, or the messages of a chat, or the only one.
    encoding
        Encoding of the files that are text; ``None`` means UTF-8, or UTF-16 where the file says so itself.
    roles
        In jsonl and parquet whose column holds the messages of a chat: the roles to take, for example
        ``["assistant"]``; ``None`` takes all. See `caprag.corpus.messages.texts_of`.
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
    return _unique(_read_files(files, column, encoding, roles, on_error))


def _read_files(
    files: list[Path],
    column: Columns,
    encoding: str | None,
    roles: Collection[str] | None,
    on_error: Callable[[CorpusError], None] | None,
) -> Iterator[Sentence]:
    for path in files:
        try:
            for number, item in read_rows(path, column, encoding, roles=roles):
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


def read_rows(
    path: Path,
    column: Columns = None,
    encoding: str | None = None,
    *,
    roles: Collection[str] | None = None,
    on_bytes: Callable[[int], object] | None = None,
) -> Iterator[Item]:
    """Read one file row by row, as it stands, never more than a part of it at a time (subtitles apart).

    Parameters
    ----------
    path
        A file; its suffix says its kind.
    column, encoding, roles
        See `read_corpus`.
    on_bytes
        Called now and then with the number of bytes that were read since the last call.

    Yields
    ------
    tuple of int and (str or CorpusError)
        1-based number of the line, caption or row, and its text, or the error where it can't be read. A row of
        several texts gives each with the same number.

    Raises
    ------
    CorpusError
        Where the file as a whole can't be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path, column, roles, on_bytes)
    lines = decode_lines(path, encoding, on_bytes=on_bytes)
    if suffix in (".srt", ".vtt", ".ass", ".ssa"):
        return _subtitles(path, lines)
    if suffix in (".csv", ".tsv"):
        return _table(path, lines, "\t" if suffix == ".tsv" else ",", column)
    if suffix == ".jsonl":
        return _json_lines(path, lines, column, roles)
    return lines


def _subtitles(path: Path, lines: Iterator[Item]) -> Iterator[Item]:
    import pysubs2

    whole = []
    for number, line in lines:
        if isinstance(line, str):
            whole.append(line)
        else:
            yield number, line
    text = "\n".join(whole)
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


def _table(path: Path, numbered: Iterator[Item], delimiter: str, column: Columns) -> Iterator[Item]:
    broken: list[tuple[int, CorpusError]] = []
    current = 0
    ended = False

    def lines() -> Iterator[str]:
        nonlocal current, ended
        for number, line in numbered:
            if isinstance(line, str):
                current = number
                # Python 3.10 takes no character 0.
                yield line.replace("\0", "") + "\n"
            else:
                broken.append((number, line))
        ended = True

    reader = csv.reader(lines(), delimiter=delimiter)
    places: list[int] = []
    columns = 0
    while True:
        start = current + 1
        item: CorpusError | None = None
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
            places, columns = [row.index(name) for name in _choose_columns(path, row, column)], len(row)
        elif len(row) > max(places, default=0):
            for place in places:
                yield current, row[place]
        elif row:
            item = CorpusError(
                f"{path}, line {current}: has {len(row)} columns, the header has {columns}; mend the line"
            )
        if item is not None:
            yield current, item


def _json_lines(path: Path, lines: Iterator[Item], column: Columns, roles: Collection[str] | None) -> Iterator[Item]:
    for number, line in lines:
        if not isinstance(line, str):
            yield number, line
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield (
                number,
                CorpusError(f"{path}, line {number}: is not JSON ({error}); one value a line is wanted"),
            )
            continue
        try:
            # One or several columns of an object; anything else is the text itself.
            names = _choose_columns(path, list(value), column, roles) if isinstance(value, dict) else []
            cells = [value[name] for name in names] if isinstance(value, dict) else [value]
            if len(cells) == 1 and cells[0] is None:
                raise ValueError("the text is null; a string or messages are wanted")
            texts = list(texts_of(cells, roles))
        except CorpusError as error:
            yield number, CorpusError(f"{path}, line {number}: {str(error).removeprefix(f'{path}: ')}")
        except ValueError as error:
            yield number, CorpusError(f"{path}, line {number}: {error}")
        else:
            yield from ((number, text) for text in texts)


def _parquet(
    path: Path, column: Columns, roles: Collection[str] | None, on_bytes: Callable[[int], object] | None
) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, memory_map=True) as table:
            names = _choose_columns(path, table.schema_arrow.names, column, roles)
            for name in names:
                kind = table.schema_arrow.field(name).type
                if not (_is_text(kind) or pa.types.is_nested(kind)):
                    raise CorpusError(f"{path}: column {name!r} holds {kind}; name a column of strings")
            size, count = path.stat().st_size, max(1, table.metadata.num_rows)
            number = 0
            for batch in table.iter_batches(_ROWS_AT_A_TIME, columns=names):
                # A name may be that of a list's inner field too: take the columns by name, in the order asked for.
                columns = [batch.column(batch.schema.get_field_index(name)).to_pylist() for name in names]
                if on_bytes is not None:
                    done = number * size // count
                    on_bytes((number + len(batch)) * size // count - done)
                for cells in zip(*columns, strict=True):
                    number += 1
                    try:
                        texts = list(texts_of(list(cells), roles))
                    except ValueError as error:
                        yield number, CorpusError(f"{path}, row {number}: {error}")
                    else:
                        yield from ((number, text) for text in texts)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: is not read as parquet ({error}); write the file again") from error


def _is_text(kind: pa.DataType) -> bool:  # type: ignore[name-defined] # noqa: F821
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view())


def _choose_columns(path: Path, names: list[str], column: Columns, roles: Collection[str] | None = None) -> list[str]:
    if column is not None:
        wanted = [column] if isinstance(column, str) else list(dict.fromkeys(column))
        for name in wanted:
            if name not in names:
                raise CorpusError(f"{path}: has no column {name!r}; it has {', '.join(names)}")
        if wanted:
            return wanted
    # Who names roles wants the chat.
    groups = (_TEXT_COLUMNS, _CHAT_COLUMNS) if roles is None else (_CHAT_COLUMNS, _TEXT_COLUMNS)
    for group in groups:
        for name in names:
            if name.strip().lower() in group:
                return [name]
    if len(names) == 1:
        return names
    raise CorpusError(f"{path}: name the text's column (column=..., --column); it has {', '.join(names)}")
