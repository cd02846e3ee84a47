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
        self._first, self._second = table[:-1, 2][follows], table[1:, 2][follows]
        self._by_second = np.argsort(self._second, kind="stable")
        self._by_first = np.argsort(self._first, kind="stable")

    def pairs(self, ids: npt.ArrayLike) -> list[tuple[int, int]]:
        """Return the pairs of sentences that stand one behind the other, one of which is among `ids`, ascending."""
        wanted = np.unique(np.asarray(ids, np.int64))
        found = [_rows(self._first, self._by_first, wanted), _rows(self._second, self._by_second, wanted)]
        rows = np.unique(np.concatenate(found))
        return sorted(set(zip(self._first[rows].tolist(), self._second[rows].tolist(), strict=True)))


def _rows(column: npt.NDArray[np.int64], order: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.ArrayLike:
    """Return where a column has one of the wanted values; `order` sorts it."""
    known = column[order]
    starts, stops = np.searchsorted(known, wanted, "left"), np.searchsorted(known, wanted, "right")
    return np.concatenate([order[start:stop] for start, stop in zip(starts, stops, strict=True)] or [order[:0]])


__all__ = ["Order"]
