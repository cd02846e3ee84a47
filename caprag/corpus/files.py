"""Which files a corpus is made of, and how their bytes become lines of text.

Knows nothing of what is in the lines.
"""

from __future__ import annotations

import codecs
import glob
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from os import PathLike, fspath
from pathlib import Path
from typing import BinaryIO

from caprag.errors import CorpusError
from caprag.paths import natural_key, walk

SUFFIXES = (".txt", ".srt", ".vtt", ".ass", ".ssa", ".csv", ".tsv", ".jsonl", ".parquet")
"""The kinds of file that `caprag.read_corpus` reads, by suffix."""

LONGEST_LINE = 1 << 24
"""Bytes in the longest line that is read; one that is longer is refused, so that no file fills the memory."""

_BLOCK = 1 << 20
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
    path: Path,
    encoding: str | None = None,
    opened: BinaryIO | None = None,
    on_bytes: Callable[[int], object] | None = None,
) -> Iterator[tuple[int, str | CorpusError]]:
    """Read a file as numbered lines, a line at a time.

    Parameters
    ----------
    path
        The file.
    encoding
        Name of its encoding; ``None`` means UTF-8, or UTF-16 where the file says so by its byte order mark.
    opened
        The bytes, where they come from elsewhere; `path` then only names them.
    on_bytes
        Called with the number of bytes that were read since the last call; they add up to the file's size.

    Yields
    ------
    tuple of int and (str or CorpusError)
        1-based number of the line, and the line without its break, or the error where its bytes do not decode or
        are more than `LONGEST_LINE`.

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
    told = on_bytes or _ignore
    try:
        with path.open("rb") if opened is None else nullcontext(opened) as stream:
            # Two bytes say whether the file is UTF-16.
            first = stream.read(2)
            wide = _WIDE_BOMS.get(first) if encoding is None else None
            if wide is not None or known.startswith(("utf-16", "utf-32")):
                yield from _wide_lines(path, wide or known, first, stream, told)
                return
            for number, raw in enumerate(_narrow_lines(first, stream, told), 1):
                if raw is None:
                    yield number, _too_long(path, number)
                    continue
                line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                try:
                    yield number, line.decode(encoding or "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    yield number, _undecodable(path, number, encoding or "utf-8", error, error.start + 1)
    except OSError as error:
        raise CorpusError(f"{path}: can't be read ({error.strerror})") from error


def _ignore(_: int) -> None:
    pass


def _narrow_lines(first: bytes, stream: BinaryIO, on_bytes: Callable[[int], object]) -> Iterator[bytes | None]:
    """Yield each line with its break, or None for one that is too long."""
    # The first two bytes may hold whole lines.
    *whole, first = first.split(b"\n")
    for line in whole:
        on_bytes(len(line) + 1)
        yield line + b"\n"
    while raw := first + stream.readline(LONGEST_LINE):
        on_bytes(len(raw))
        first = b""
        if len(raw) < LONGEST_LINE or raw.endswith(b"\n"):
            yield raw
            continue
        while rest := stream.readline(LONGEST_LINE):
            on_bytes(len(rest))
            if rest.endswith(b"\n"):
                break
        yield None


def _wide_lines(
    path: Path, encoding: str, first: bytes, stream: BinaryIO, on_bytes: Callable[[int], object]
) -> Iterator[tuple[int, str | CorpusError]]:
    # A line break is two or four bytes here, so that blocks are decoded and then cut.
    decoder = codecs.getincrementaldecoder(encoding)()
    number, pending, skipping, ended = 1, "", False, False
    while not ended:
        block = first + stream.read(_BLOCK)
        first, ended = b"", not block
        on_bytes(len(block))
        state = decoder.getstate()
        wrong = None
        try:
            pending += decoder.decode(block, final=ended)
        except UnicodeDecodeError as error:
            # What stands before the error is read; what follows it may be out of step.
            decoder.setstate(state)
            pending += decoder.decode(block[: max(0, len(block) - len(error.object) + error.start)])
            wrong, ended = error, True
        # A return may be the first half of a break, and the mark of the byte order is no text.
        held = "\r" if pending.endswith("\r") and not ended else ""
        pending = pending.removesuffix(held) if held else pending
        if number == 1:
            pending = pending.removeprefix("\ufeff")
        *lines, pending = pending.replace("\r\n", "\n").split("\n")
        for line in lines:
            yield number, _too_long(path, number) if skipping else line
            skipping = False
            number += 1
        pending += held
        if len(pending) > LONGEST_LINE:
            pending, skipping = "", True
        if wrong is not None:
            yield number, _undecodable(path, number, encoding, wrong, len(pending) + 1)
            return
    if skipping or pending:
        yield number, _too_long(path, number) if skipping else pending.rstrip("\r")


def _too_long(path: Path, number: int) -> CorpusError:
    return CorpusError(f"{path}, line {number}: is longer than {LONGEST_LINE >> 20} MiB; break it into lines")


def _undecodable(path: Path, number: int, encoding: str, error: UnicodeDecodeError, column: int) -> CorpusError:
    wrong = error.object[error.start : error.start + 1].hex()
    return CorpusError(
        f"{path}, line {number}: byte 0x{wrong} at column {column} is not {encoding}; "
        "name the file's encoding (--encoding, for example big5 or gb18030), or mend the line"
    )
