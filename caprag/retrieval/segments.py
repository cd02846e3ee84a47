"""A segment: sentences that were written together, and their vectors.

An index is a list of segments. A stored one is never changed: what is removed from it is remembered beside it, and what
is added goes into a new one, until some are merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caprag.retrieval.sentences import SentenceTable
from caprag.retrieval.storage import SegmentEntry
from caprag.retrieval.vectors import Ids, VectorIndex, Vectors
from caprag.types import Sentence

FLAT = "Flat"
"""The factory of all segments but the first: small, exact, and merged into any other."""


class Segment:
    """Sentences with vectors; ids ascend from row to row.

    Parameters
    ----------
    sentences
        The rows.
    vectors
        At least one vector a row, under the row's id.
    factory
        FAISS factory string of the vectors.
    removed
        Ids of rows that are no longer there.
    """

    def __init__(
        self, sentences: SentenceTable, vectors: VectorIndex, factory: str, removed: Iterable[int] = ()
    ) -> None:
        self.sentences = sentences
        self.vectors = vectors
        self.factory = factory
        self.entry: SegmentEntry | None = None
        """The files it was opened from or saved to."""
        self.changed = False
        """Whether rows were removed since."""
        self._removed = set(removed)
        self._gone: Ids | None = None

    @classmethod
    def empty(cls, dimension: int, factory: str) -> Segment:
        """Return a segment without rows."""
        return cls(SentenceTable(), VectorIndex(dimension, factory), factory)

    def __len__(self) -> int:
        """Return the number of rows that are there."""
        return len(self.sentences) - len(self._removed)

    @property
    def removed(self) -> Ids:
        """The ids that were removed, ascending."""
        if self._gone is None:
            self._gone = np.fromiter(sorted(self._removed), np.int64, len(self._removed))
        return self._gone

    @property
    def ids(self) -> Ids:
        """The ids that are there, ascending."""
        ids = self.sentences.ids
        return ids[~np.isin(ids, self.removed)] if self._removed else ids

    def takes(self, first_id: int) -> bool:
        """Return whether rows from this id on can be appended."""
        return first_id > self.sentences.last_id

    def append(self, ids: Sequence[int], sentences: Sequence[Sentence]) -> None:
        """Append rows; their vectors are the caller's to add."""
        self.sentences.append(ids, sentences)

    def find(self, ids: npt.ArrayLike) -> Ids:
        """Return the row of each id, -1 where it is not there or was removed."""
        wanted = np.asarray(ids, np.int64)
        rows = self.sentences.find(wanted)
        if self._removed:
            rows[np.isin(wanted, self.removed)] = -1
        return rows

    def remove(self, ids: Iterable[int]) -> None:
        """Forget rows that are there."""
        before = len(self._removed)
        self._removed.update(ids)
        self.changed |= len(self._removed) > before
        self._gone = None

    def search(self, vectors: Vectors, k: int) -> tuple[Ids, Vectors]:
        """Find the nearest vectors whose rows are there: ids (-1 for none) and cosines, shape (n, at most k)."""
        share = len(self) / max(1, len(self.sentences))
        depth = k if not self._removed else int(k / max(share, 0.02)) + 8
        while True:
            ids, cosines = self.vectors.search(vectors, depth)
            if not self._removed:
                return ids, cosines
            dead = np.isin(ids, self.removed)
            full = ((~dead & (ids >= 0)).sum(1) >= min(k, len(self))).all()
            # A row may have several vectors, and some kinds of index return fewer than they were asked for.
            if full or depth >= len(self.vectors) or (ids[:, -1] < 0).all():
                cosines[dead], ids[dead] = -np.inf, -1
                order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
                return np.take_along_axis(ids, order, 1), np.take_along_axis(cosines, order, 1)
            depth = min(4 * depth, len(self.vectors))

    def save(self, sentences: Path, vectors: Path) -> None:
        """Write rows and vectors to two new files."""
        self.sentences.save(sentences)
        self.vectors.save(vectors)


def merge(segments: Sequence[Segment], base: VectorIndex | None = None) -> Segment:
    """Merge segments into one in memory, without the rows that were removed.

    Parameters
    ----------
    segments
        Those to merge, oldest first; all but the first have the factory ``"Flat"``.
    base
        The first one's vectors, read whole so that they can be changed, which they are; ``None`` where the first is
        ``"Flat"`` too.

    Returns
    -------
    Segment
        Of the first one's factory.
    """
    live = [~np.isin(s.sentences.ids, s.removed) for s in segments]
    sentences = SentenceTable.merge([s.sentences for s in segments], live)
    first, others = segments[0], segments[1:]
    if base is None:
        vectors = VectorIndex(first.vectors.dimension, FLAT)
        others = segments
    else:
        vectors = base
        if len(first.removed):
            vectors.remove(first.removed)
    for segment in others:
        for ids, rows in segment.vectors.blocks():
            keep = ~np.isin(ids, segment.removed)
            vectors.add(ids[keep], rows[keep])
    return Segment(sentences, vectors, first.factory)
