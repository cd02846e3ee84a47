"""Which files a corpus is made of, and how their bytes become lines of text.

Knows nothing of what is in the lines.
"""

from __future__ import annotations

import codecs
import glob
import itertools
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from os import PathLike, fspath
from pathlib import Path
from typing import BinaryIO

from caprag.errors import CorpusError
from caprag.paths import natural_key, walk

SUFFIXES = (".txt", ".srt", ".vtt", ".ass", ".ssa", ".csv", ".tsv", ".jsonl", ".parquet")
"""The kinds of file that `caprag.read_corpus` reads, by suffix."""

_WIDE_BOMS = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


def list_files(paths: str | PathLike[str] | Iterable[str | PathLike[str]]) -> list[Path]:
    """Find the corpus files that paths, folders and patterns stand for.

    Parameters
    ----------
    paths
        One or several of: a file; a folder, searched through for known suffixes; a glob pattern (``**`` included).

    Returns
    -------
    list of Path
        In the order given; within a folder or pattern in natural order (``2.srt`` before ``10.srt``).

    Raises
    ------
    CorpusError
        Where a path does not exist or stands for no file.
    """
    files: list[Path] = []
    for path in [paths] if isinstance(paths, (str, PathLike)) else paths:
        given = Path(path)
        try:
            found = _find(given, fspath(path))
        except OSError as error:
            raise CorpusError(f"{given}: can't be looked up ({error.strerror}); name a file or folder") from error
        if not found:
            what = "holds no file of a known kind" if given.is_dir() else "does not exist"
            raise CorpusError(f"{given}: {what}; a corpus is made of {' '.join(SUFFIXES)}")
        files += found
    return files


def _find(given: Path, pattern: str) -> list[Path]:
    if not pattern:
        raise CorpusError("a path is empty; name a file, or . for the working directory")
    if given.is_file():
        return [given]
    if given.is_dir():
        return walk(given, SUFFIXES)
    matches = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207
    return sorted((match for match in matches if match.is_file()), key=natural_key)


def decode_lines(
    path: Path, encoding: str | None = None, opened: BinaryIO | None = None
) -> Iterator[tuple[int, str | CorpusError]]:
    """Read a file as numbered lines.

    Parameters
    ----------
    path
        The file.
    encoding
        Name of its encoding; ``None`` means UTF-8, or UTF-16 where the file says so by its byte order mark.
    opened
        The bytes, where they come from elsewhere; `path` then only names them.

    Yields
    ------
    tuple of int and (str or CorpusError)
        1-based number of the line, and the line without its break, or the error where its bytes do not decode.

    Raises
    ------
    CorpusError
        Where the file can't be opened or the encoding is unknown.
    """
    try:
        "".encode(encoding or "utf-8")
        # One name for utf16, UTF_16 and U16.
        known = codecs.lookup(encoding or "utf-8").name
    except (LookupError, ValueError):
        raise CorpusError(f"encoding {encoding!r} is unknown; try utf-8, big5 or gb18030") from None
    try:
        with path.open("rb") if opened is None else nullcontext(opened) as stream:
            first = stream.readline()
            wide = _WIDE_BOMS.get(first[:2]) if encoding is None else None
            if wide is not None or known.startswith(("utf-16", "utf-32")):
                yield from _wide_lines(path, wide or known, first + stream.read())
                return
            for number, raw in enumerate(itertools.chain([first] if first else [], stream), 1):
                line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                try:
                    yield number, line.decode(encoding or "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    yield number, _undecodable(path, number, encoding or "utf-8", error)
    except OSError as error:
        raise CorpusError(f"{path}: can't be read ({error.strerror})") from error


def _wide_lines(path: Path, encoding: str, content: bytes) -> Iterator[tuple[int, str | CorpusError]]:
    # A line break is two or four bytes here, so that the file has to be decoded as a whole.
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        yield 1, _undecodable(path, 1, encoding, error)
        return
    yield from enumerate(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"), 1)


def _undecodable(path: Path, number: int, encoding: str, error: UnicodeDecodeError) -> CorpusError:
    wrong = error.object[error.start : error.start + 1].hex()
    return CorpusError(
        f"{path}, line {number}: byte 0x{wrong} at column {error.start + 1} is not {encoding}; "
        "name the file's encoding (for example big5 or gb18030), or mend the line"
    )
