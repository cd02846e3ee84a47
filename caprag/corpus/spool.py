"""Pieces on their way to the output: on disk, so that the corpus may be larger than memory.

The files have no name: they are gone when the process is, however it ends.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from caprag.corpus.chunks import ORIGIN, ChunkResult
from caprag.corpus.deduplication import KEPT, NEAR, find_duplicates
from caprag.corpus.near import find_near

_LINES_AT_A_TIME = 1 << 15


class Spool:
    """Pieces in document order.

    Parameters
    ----------
    folder
        Where the files lie: about 80 bytes for each Chinese piece of 15 characters, and 60 more where chunks
        come with their matching forms.
    """

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._folder = folder
        with ExitStack() as stack:
            self._texts, self._origins, self._fingerprints, self._forms, self._lengths = (
                stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(5)
            )
            self._stack = stack.pop_all()
        self.found: npt.NDArray[np.uint8] = np.zeros(0, np.uint8)

    def append(self, result: ChunkResult) -> None:
        """Add the pieces of the next chunk."""
        self.count += len(result.origins)
        self._texts.write(result.texts)
        self._origins.write(result.origins.tobytes())
        self._fingerprints.write(result.fingerprints.tobytes())
        self._forms.write(result.forms)
        self._lengths.write(result.lengths.tobytes())

    def deduplicate(self, near: float | None = None, on_done: Callable[[int], object] | None = None) -> None:
        """Find what stood before; `found` then says of each piece what it is (see `find_duplicates`).

        Parameters
        ----------
        near
            Least similarity of what counts as nearly the same; ``None`` leaves those.
        on_done
            See `find_near`.
        """
        self._fingerprints.seek(0)
        self.found = find_duplicates(self._fingerprints, self.count, self._folder)
        if near is None or not self.count:
            return
        self._lengths.seek(0)
        offsets = np.zeros(self.count + 1, np.int64)
        np.cumsum(np.frombuffer(self._lengths.read(), np.uint32), out=offsets[1:])
        self._forms.flush()
        codes = np.memmap(self._forms, np.uint32, "r")
        self.found[find_near(codes, offsets, np.flatnonzero(self.found == KEPT), near, on_done)] = NEAR

    def blocks(self) -> Iterator[tuple[list[str], npt.NDArray[np.void], npt.NDArray[np.uint8]]]:
        """Yield some pieces at a time: texts, origins (`ORIGIN`), and what was found of each."""
        self._texts.seek(0)
        self._origins.seek(0)
        start = 0
        while raw := list(itertools.islice(self._texts, _LINES_AT_A_TIME)):
            texts = b"".join(raw).decode().split("\n")[:-1]
            origins = np.frombuffer(self._origins.read(len(raw) * ORIGIN.itemsize), ORIGIN)
            yield texts, origins, self.found[start : start + len(raw)]
            start += len(raw)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
