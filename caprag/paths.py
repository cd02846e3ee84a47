"""Which files a folder holds, in the order a person would put them in."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

_DIGITS = re.compile(r"(\d+)")


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
