"""Finds pieces that nearly stood before: the edit similarity of their matching forms is high.

Exact, without comparing all pairs. Two forms at most k edits apart are found by cutting the shorter into k + 1
segments: one of these is untouched, and stands in the longer form near its own place. Forms that share no segment are
never looked at; those that do are measured by rapidfuzz.

References
----------
Li, Deng, Wang, Feng: Pass-Join, a partition-based method for similarity joins. PVLDB 5(3), 2011: the segments and the
window of their places.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint32]
Ids = npt.NDArray[np.int64]

LEAST = 0.7
"""Below this the segments are so short that all pairs share one."""

_PAIRS_AT_A_TIME = 1 << 20
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def check_near(near: float) -> None:
    """Raise ValueError unless a similarity can be asked for."""
    if not LEAST <= near <= 1:
        raise ValueError(f"near is {near}; a similarity between {LEAST} and 1 is wanted")


def find_near(
    codes: Codes,
    offsets: Ids,
    ids: Ids,
    near: float,
    on_done: Callable[[int], object] | None = None,
) -> Ids:
    """Find the pieces that nearly stood before.

    A piece is dropped where its similarity to an earlier piece that is kept is `near` or more; similarity is
    1 - Levenshtein distance / length of the longer.

    Parameters
    ----------
    codes
        All matching forms one after the other, shape (characters,), uint32 code points; may be mapped from a file.
    offsets
        Where each form begins, and where the last one ends, shape (pieces + 1,).
    ids
        The pieces that take part, ascending, their forms distinct.
    near
        Least similarity, in [0.7, 1].
    on_done
        Called now and then with a number of pieces that have been looked up since the last call.

    Returns
    -------
    numpy.ndarray
        Ids of the pieces to drop, ascending, int64. Memory grows with the pieces of one length (about 100 bytes
        each), and with the pairs that are near each other (16 bytes each).

    Raises
    ------
    ValueError
        Where `near` is outside its range.

    Examples
    --------
    >>> forms = ["今天天氣真的很好啊", "今天天氣真是很好啊", "完全是另一句話了"]
    >>> codes = np.frombuffer("".join(forms).encode("utf-32-le"), np.uint32)
    >>> find_near(codes, np.cumsum([0, *map(len, forms)]), np.arange(3), 0.85).tolist()
    [1]
    """
    check_near(near)
    if not len(ids):
        return ids
    lengths = (offsets[1:] - offsets[:-1])[ids]
    order = np.argsort(lengths, kind="stable")
    grouped, starts = np.unique(lengths[order], return_index=True)
    groups = {int(length): ids[places] for length, places in zip(grouped, np.split(order, starts[1:]), strict=True)}
    earlier, later = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for length, longs in groups.items():
        edits = math.floor((1 - near) * length + 1e-9)
        text_of = _gather(codes, offsets, longs, length)
        for short in range(length - edits, length + 1) if edits else ():
            if short not in groups:
                continue
            shorts = groups[short]
            short_text = text_of if short == length else _gather(codes, offsets, shorts, short)
            for left, right in _candidates(short_text, text_of, edits):
                pairs = np.stack([shorts[left], longs[right]])
                if short == length:
                    pairs = pairs[:, pairs[0] < pairs[1]]
                true = pairs[:, _within(codes, offsets, pairs, edits)]
                earlier.append(true.min(axis=0))
                later.append(true.max(axis=0))
        if on_done is not None:
            on_done(len(longs))
    return _settle(np.concatenate(earlier), np.concatenate(later))


def _gather(codes: Codes, offsets: Ids, ids: Ids, length: int) -> Codes:
    """Return the forms of one length as a matrix, shape (len(ids), length)."""
    return np.asarray(codes[offsets[ids][:, None] + np.arange(length)])


def _candidates(short: Codes, long: Codes, edits: int) -> Iterator[tuple[Ids, Ids]]:
    """Yield rows of the two matrices that share a segment, a block of pairs at a time, perhaps more than once."""
    length, gap = short.shape[1], long.shape[1] - short.shape[1]
    bounds = [length * i // (edits + 1) for i in range(edits + 2)]
    for start, end in itertools.pairwise(bounds):
        keys = _hash(short[:, start:end])
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for place in range(start - (edits - gap) // 2, start + (edits + gap) // 2 + 1):
            if place < 0 or place + end - start > long.shape[1]:
                continue
            probes = _hash(long[:, place : place + end - start])
            low, high = np.searchsorted(keys, probes, "left"), np.searchsorted(keys, probes, "right")
            yield from _expand(order, low, high)


def _hash(texts: Codes) -> npt.NDArray[np.uint64]:
    """Return a number for each row; equal rows have equal numbers."""
    value = np.zeros(len(texts), np.uint64)
    for column in texts.T:
        value = (value ^ column) * _MULTIPLIER
        value ^= value >> np.uint64(29)
    return value


def _expand(order: Ids, low: Ids, high: Ids) -> Iterator[tuple[Ids, Ids]]:
    """Turn ranges of sorted rows, one range for each row of the other side, into pairs of rows."""
    sizes = high - low
    rows = np.flatnonzero(sizes)
    ends = np.cumsum(sizes[rows])
    start = 0
    while start < len(rows):
        done = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + _PAIRS_AT_A_TIME, "right")))
        part = rows[start:stop]
        count = sizes[part]
        # 0, 1, 2 ... within each range.
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        yield order[np.repeat(low[part], count) + within], np.repeat(part, count)
        start = stop


def _within(codes: Codes, offsets: Ids, pairs: Ids, edits: int) -> npt.NDArray[np.bool_]:
    """Say which pairs are at most so many edits apart."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    if not pairs.shape[1]:
        return np.zeros(0, bool)
    used, places = np.unique(pairs, return_inverse=True)
    texts = [codes[offsets[i] : offsets[i + 1]].tobytes().decode("utf-32-le") for i in used]
    left, right = places.reshape(2, -1)
    distance = cpdist(
        [texts[i] for i in left], [texts[i] for i in right], scorer=Levenshtein.distance, score_cutoff=edits,
        dtype=np.int32, workers=1,
    )  # fmt: skip
    return np.asarray(distance <= edits)


def _settle(earlier: Ids, later: Ids) -> Ids:
    """Drop the later of each near pair whose earlier one is kept, in document order."""
    order = np.lexsort((earlier, later))
    dropped: set[int] = set()
    for first, second in zip(earlier[order].tolist(), later[order].tolist(), strict=True):
        if first not in dropped:
            dropped.add(second)
    return np.array(sorted(dropped), np.int64)
