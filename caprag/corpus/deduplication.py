"""Finds the later ones of equal pieces, in a corpus that is larger than memory.

Pieces are known by their fingerprints (`caprag.corpus.chunks.FINGERPRINT`), which lie in a file; what equal means is
said by who made those. One byte a piece is held in memory, and `_PART` fingerprints at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from caprag.corpus.chunks import FINGERPRINT

KEPT, DUPLICATE, VARIANT, NEAR = range(4)
"""What a piece is found to be."""

_PART = 1 << 18
# A process may have so many files open and no more.
_MOST_PARTS = 512
_BLOCK = 1 << 16
_NUMBERED = np.dtype([*((name, FINGERPRINT[name]) for name in FINGERPRINT.names or ()), ("index", "<u8")])


def find_duplicates(fingerprints: IO[bytes], count: int, folder: Path | None = None) -> npt.NDArray[np.uint8]:
    """Say of each piece whether it stood before.

    Parameters
    ----------
    fingerprints
        A file of `count` records of `FINGERPRINT`, in document order, at its beginning.
    count
        Number of pieces.
    folder
        Where temporary files may lie, as large as the fingerprints by a third more; ``None`` means the system's.

    Returns
    -------
    numpy.ndarray
        Shape (count,), uint8: `DUPLICATE` where the same text stood before, `VARIANT` where only a text of the same
        matching form did, `KEPT` for the first of its form.
    """
    found = np.zeros(count, np.uint8)
    parts = min(max(1, -(-count // _PART)), _MOST_PARTS)
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(parts if parts > 1 else 0)]
        for block in _blocks(fingerprints, count if parts == 1 else _BLOCK):
            # The later ones of equal texts go here: however often a line is repeated, no part grows by it.
            first = block[_judge(block, found)]
            if parts == 1:
                return found
            home = first["high"] % parts
            for part in np.unique(home):
                files[part].write(first[home == part].tobytes())
        for file in files:
            file.seek(0)
            _judge(np.frombuffer(file.read(), _NUMBERED), found)
    return found


def _blocks(fingerprints: IO[bytes], size: int) -> Iterator[npt.NDArray[np.void]]:
    start = 0
    while block := fingerprints.read(size * FINGERPRINT.itemsize):
        plain = np.frombuffer(block, FINGERPRINT)
        numbered = np.empty(len(plain), _NUMBERED)
        for name in FINGERPRINT.names or ():
            numbered[name] = plain[name]
        numbered["index"] = np.arange(start, start + len(plain))
        yield numbered
        start += len(plain)


def _judge(records: npt.NDArray[np.void], found: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Note what each of some records is among them, and return the places of the first of each text."""
    if not len(records):
        return np.zeros(0, np.intp)
    # Records come by index, and the sort is stable: equal ones stay in document order.
    order = np.lexsort((records["text"], records["low"], records["high"]))
    high, low, text = (records[name][order] for name in ("high", "low", "text"))
    new_form = np.ones(len(order), bool)
    new_form[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    new_text = new_form.copy()
    new_text[1:] |= text[1:] != text[:-1]
    index = records["index"][order]
    found[index[~new_text]] = DUPLICATE
    firsts = index[new_text]
    starts = np.flatnonzero(new_form[new_text])
    earliest = np.minimum.reduceat(firsts, starts)
    sizes = np.diff(np.append(starts, len(firsts)))
    found[firsts] = np.where(firsts == np.repeat(earliest, sizes), KEPT, VARIANT)
    return np.sort(order[new_text])
