"""Which files a folder holds, in the order a person would put them in; and how a file or folder is written safely.

Knows nothing of what is in the files.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

_DIGITS = re.compile(r"(\d+)")
_held: set[int] = set()  # descriptors of locked folders


def walk(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List the files of some kinds in a folder, to the bottom.

    Parameters
    ----------
    folder
        Where to begin. Names that begin with a dot are passed over; links to folders are not followed.
    suffixes
        Lower-case suffixes with their dots; a file's may be in either case.

    Raises
    ------
    OSError
        Where a folder can't be listed.

    Returns
    -------
    list of pathlib.Path
        In natural order (see `natural_key`).
    """
    found: list[Path] = []
    for root, folders, names in os.walk(folder, onerror=_fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(root, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in suffixes
        ]
    return sorted(found, key=natural_key)


def _fail(error: OSError) -> None:
    raise error


def natural_key(path: Path) -> tuple[list[list[tuple[int, int, str]]], str]:
    """Return a key that sorts ``2.png`` before ``10.png``, in whatever case.

    Examples
    --------
    >>> [path.name for path in sorted(map(Path, ["10.srt", "A2.srt", "2.srt", "a1.srt"]), key=natural_key)]
    ['2.srt', '10.srt', 'a1.srt', 'A2.srt']
    """

    def pieces(name: str) -> list[tuple[int, int, str]]:
        found = [piece for piece in _DIGITS.split(name.casefold()) if piece]
        return [(0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in found]

    return [pieces(name) for name in (*path.parent.parts, path.stem)], str(path)


@contextmanager
def locked(folder: Path, error: type[Exception]) -> Iterator[None]:
    """Keep other writers out of a folder while the block runs.

    The lock goes with the process, however it ends; forked children do not hold it.

    Parameters
    ----------
    folder
        A folder that exists; nothing is written into it.
    error
        What is raised where another writer is in it.

    Raises
    ------
    OSError
        Where the folder can't be opened.
    """
    _watch_forks()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise error(f"{folder}: another writer is at work there; try again when it is done") from None
        yield
    finally:
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


@cache
def _watch_forks() -> None:
    """Let the locks go in forked children: one that outlives a killed parent would keep the folder locked."""

    def let_go() -> None:
        while _held:
            os.close(_held.pop())

    os.register_at_fork(after_in_child=let_go)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes its place at one stroke, when the block ends well; until then the old one stays.

    What is written lies in the same folder under a name that `left_over` knows. A link stays a link.

    Raises
    ------
    OSError
        Where the file can't be written, or something lies there that is no file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise OSError(errno.EEXIST, "something that is no file has this name", str(path))
    beside = target.with_name(f".caprag-{secrets.token_hex(4)}.new")
    try:
        with beside.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(target)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def left_over(path: Path) -> bool:
    """Say whether a file is what a killed `replacing` left behind."""
    return re.fullmatch(r"\.caprag-[0-9a-f]{8}\.new", path.name) is not None
