"""A file to which pieces are added whole or not at all, as far as the disk allows."""

from __future__ import annotations

import os
from pathlib import Path


class Appender:
    """One file at a time, to which a piece is added whole or not at all."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self._descriptor = self._end = 0

    def open(self, path: Path, end: int | None = None) -> None:
        """Go over to another file, to add after its first `end` bytes; ``None``: after all of them."""
        self.close()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self.path = path
        self._end = os.fstat(self._descriptor).st_size if end is None else end

    def append(self, piece: bytes, *, stay: bool = False) -> None:
        """Add a piece; with `stay` the next one takes its place. After an OSError nothing of it is there."""
        done = 0
        try:
            while done < len(piece):
                done += os.pwrite(self._descriptor, piece[done:], self._end + done)
        except OSError as error:
            error.filename = str(self.path)
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end += 0 if stay else done

    def sync(self) -> None:
        """See what was added to the disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file, once it is on the disk."""
        if self.path is None:
            return
        self.path = None
        try:
            self.sync()
        finally:
            os.close(self._descriptor)
