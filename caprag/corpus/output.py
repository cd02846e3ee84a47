"""Writes a corpus: a text a line, or a table of text, source and line; all of it or nothing.

Knows nothing of where the texts come from.
"""

from __future__ import annotations

import csv
import errno
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from caprag.errors import CapragError
from caprag.paths import replacing
from caprag.types import Sentence

OUTPUT_SUFFIXES = (".txt", ".tsv", ".csv", ".jsonl", ".parquet")
"""The kinds of file that a corpus is written to, by suffix; all but txt say where each text came from."""

COLUMNS = ("text", "source", "line")


def check_output(path: Path) -> None:
    """Raise CapragError unless the suffix is one of `OUTPUT_SUFFIXES`."""
    if path.suffix.lower() not in OUTPUT_SUFFIXES:
        raise CapragError(f"{path}: has the suffix {path.suffix!r}; write to {' '.join(OUTPUT_SUFFIXES)}")


@contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that takes its place when the block ends well; see `caprag.paths.replacing`.

    Parameters
    ----------
    path
        What is replaced or made; folders that it needs are made.

    Yields
    ------
    binary file

    Raises
    ------
    CapragError
        Where the file can't be made.
    OSError
        With the name of `path`, where writing fails in the block; what stood there before is as it was.
    """
    with ExitStack() as stack:
        stack.enter_context(_naming(path))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context(replacing(path))
        except OSError as error:
            raise CapragError(f"{path}: can't be written ({error.strerror}); choose another file") from error
        except ValueError as error:
            raise CapragError(f"{path!r}: can't be written ({error}); choose another file") from error
        yield stream


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Give an OSError the name of the output: the file it was written to has none that anybody knows."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            reason += " (make room, or choose another folder)"
        raise OSError(error.errno or errno.EIO, reason, str(path)) from error


def write_sentences(stream: IO[bytes], suffix: str, blocks: Iterable[list[Sentence]]) -> None:
    """Write sentences in the form that a suffix says.

    Parameters
    ----------
    stream
        Where to.
    suffix
        One of `OUTPUT_SUFFIXES`.
    blocks
        The sentences in order, some at a time, without line breaks.
    """
    if suffix == ".parquet":
        _write_parquet(stream, blocks)
        return
    form = _FORMS[suffix]
    if suffix in (".csv", ".tsv"):
        stream.write(form([Sentence(*COLUMNS)]).encode())  # type: ignore[arg-type] # the header's words
    for block in blocks:
        stream.write(form(block).encode())


def _as_text(block: list[Sentence]) -> str:
    return "".join(f"{sentence.text}\n" for sentence in block)


def _as_json(block: list[Sentence]) -> str:
    rows = ({"text": s.text, "source": s.source, "line": s.line} for s in block)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _as_table(delimiter: str) -> Callable[[list[Sentence]], str]:
    def form(block: list[Sentence]) -> str:
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
        writer.writerows((s.text, s.source, s.line) for s in block)
        return text.getvalue()

    return form


_FORMS = {".txt": _as_text, ".jsonl": _as_json, ".csv": _as_table(","), ".tsv": _as_table("\t")}


def _write_parquet(stream: IO[bytes], blocks: Iterable[list[Sentence]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("text", pa.string()), ("source", pa.string()), ("line", pa.int64())])
    with pq.ParquetWriter(stream, schema) as writer:
        for block in blocks:
            columns = ([getattr(s, name) for s in block] for name in COLUMNS)
            writer.write_batch(pa.record_batch([*columns], schema=schema))
