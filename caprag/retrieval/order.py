"""Which sentences stand one behind the other in their files. Knows ids, files and lines, not texts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from caprag.retrieval.places import Place

_NEAR = 3
"""Lines on that the next sentence stands at most: empty ones and such as are no sentence lie between."""


class Order:
    """The sentences of files in their order.

    Parameters
    ----------
    places
        Id, source and line of sentences, in any order.

    Examples
    --------
    >>> order = Order([(7, "二.txt", 3), (2, "二.txt", 1), (5, "三.txt", 2), (4, "二.txt", 9)])
    >>> order.pairs([7, 5])
    [(2, 7)]
    """

    def __init__(self, places: Iterable[Place]) -> None:
        codes: dict[str, int] = {}
        rows = [(codes.setdefault(source, len(codes)), line, number) for number, source, line in places]
        table = np.array(rows, np.int64).reshape(-1, 3)
        table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]
        follows = (table[1:, 0] == table[:-1, 0]) & (table[1:, 1] - table[:-1, 1] <= _NEAR)
        # Sorted once either way: a search goes through the columns for each batch of captions.
        pairs = np.unique(np.stack([table[:-1, 2][follows], table[1:, 2][follows]], 1), axis=0)
        self._sorted = (pairs, pairs[np.argsort(pairs[:, 1], kind="stable")])

    def pairs(self, ids: npt.ArrayLike) -> list[tuple[int, int]]:
        """Return the pairs of sentences that stand one behind the other, one of which is among `ids`, ascending."""
        wanted = np.unique(np.asarray(ids, np.int64))
        found: set[tuple[int, int]] = set()
        for column, pairs in enumerate(self._sorted):
            starts, stops = (np.searchsorted(pairs[:, column], wanted, side) for side in ("left", "right"))
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                found.update((first, second) for first, second in pairs[start:stop].tolist())
        return sorted(found)


__all__ = ["Order"]
