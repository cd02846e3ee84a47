"""Finds pieces that are nearly the same: the edit similarity of their matching forms is high.

Exact, without comparing all pairs. Two forms at most k edits apart are found by cutting the shorter into k + 1
segments: one of these is untouched, and stands in the longer form near its own place. Forms that share no segment are
never looked at; of those that do, few have letters enough in common, and these are measured by rapidfuzz.

Lines made from one template share their segments, and may all be near each other. What is known to be of no account
any more is left out on the way (labels, halves), so that their pairs are not all measured. Where lines share segments
and yet are not near, the pairs are looked at one by one: a few tens of millions a second.

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
Hashes = npt.NDArray[np.uint64]

LEAST = 0.7
"""Below this the segments are so short that all pairs share one."""

# So few that they stay in the processor's cache.
_PAIRS_AT_A_TIME, _ROWS_AT_A_TIME = 1 << 16, 1 << 13
# From so many near pairs on, the pieces are taken in halves: pairs for each piece, and pairs in any case.
_MANY_EACH, _MANY = 4, 1 << 17
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
        each), and with the pairs that are near each other (16 bytes each, and of a few pairs for each piece at a time).

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
    told = 0

    def tell(count: int) -> None:
        nonlocal told
        told += count
        if on_done is not None:
            on_done(count)

    dropped = _later(codes, offsets, ids, near, tell)
    tell(len(ids) - told)
    return np.sort(dropped)


def _later(codes: Codes, offsets: Ids, ids: Ids, near: float, on_done: Callable[[int], object] | None = None) -> Ids:
    """Return what `find_near` does."""
    found, count = [np.zeros((2, 0), np.int64)], 0
    for pairs in near_pairs(codes, offsets, ids, near, on_done=on_done):
        found.append(pairs)
        count += pairs.shape[1]
        if count > _MANY_EACH * len(ids) + _MANY:
            break
    else:
        return _settle(np.concatenate(found, axis=1))
    # What the first half's kept pieces drop of the second is compared with nothing else.
    found.clear()
    first, second = ids[: len(ids) // 2], ids[len(ids) // 2 :]
    dropped = _later(codes, offsets, first, near)
    labels = np.zeros(len(offsets) - 1, np.int64)
    labels[second] = 1
    falls = np.zeros(len(labels), bool)
    for pairs in near_pairs(codes, offsets, np.setdiff1d(ids, dropped), near, labels):
        falls[pairs[1]] = True
    rest = second[~falls[second]]
    return np.concatenate([dropped, second[falls[second]], _later(codes, offsets, rest, near)])


def near_pairs(
    codes: Codes,
    offsets: Ids,
    ids: Ids,
    near: float,
    labels: Ids | None = None,
    on_done: Callable[[int], object] | None = None,
) -> Iterator[Ids]:
    """Find the pairs of pieces that are near each other.

    Parameters
    ----------
    codes, offsets, ids, near, on_done
        See `find_near`.
    labels
        A number for each form, shape (pieces,), >= 0: two of the same label are not compared. The caller may change
        them from block to block, to tell what has become of no account.

    Yields
    ------
    numpy.ndarray
        Shape (2, pairs), int64: the lower and the higher id of each pair, in no order. A pair may come more than once.

    Raises
    ------
    ValueError
        Where `near` is outside its range.

    Examples
    --------
    >>> forms = ["今天天氣真的很好啊", "今天天氣真是很好啊", "完全是另一句話了"]
    >>> codes = np.frombuffer("".join(forms).encode("utf-32-le"), np.uint32)
    >>> blocks = near_pairs(codes, np.cumsum([0, *map(len, forms)]), np.arange(3), 0.85)
    >>> {tuple(pair) for block in blocks for pair in block.T.tolist()}
    {(0, 1)}
    """
    check_near(near)
    if not len(ids):
        return
    lengths = (offsets[1:] - offsets[:-1])[ids]
    order = np.argsort(lengths, kind="stable")
    grouped, starts = np.unique(lengths[order], return_index=True)
    groups = {int(length): ids[places] for length, places in zip(grouped, np.split(order, starts[1:]), strict=True)}
    for length, longs in groups.items():
        edits = math.floor((1 - near) * length + 1e-9)
        text_of = _gather(codes, offsets, longs, length)
        for short in range(length - edits, length + 1) if edits else ():
            if short not in groups:
                continue
            shorts = groups[short]
            short_text = text_of if short == length else _gather(codes, offsets, shorts, short)
            letters = _letters(short_text), _letters(text_of)
            for left, right in _candidates(short_text, text_of, edits, shorts, longs, labels):
                able = _ones(letters[0][left] ^ letters[1][right]) <= 2 * edits
                if short == length:
                    # Each pair once, and the first rows with all behind them: what is near these has its label soon.
                    able &= left > right
                left, right = left[able], right[able]
                true = _within(short_text[left], text_of[right], edits)
                if true.any():
                    yield np.sort(np.stack([shorts[left[true]], longs[right[true]]]), axis=0)
        if on_done is not None:
            on_done(len(longs))


def _gather(codes: Codes, offsets: Ids, ids: Ids, length: int) -> Codes:
    """Return the forms of one length as a matrix, shape (len(ids), length)."""
    return np.asarray(codes[offsets[ids][:, None] + np.arange(length)])


def _candidates(
    short: Codes, long: Codes, edits: int, shorts: Ids, longs: Ids, labels: Ids | None
) -> Iterator[tuple[Ids, Ids]]:
    """Yield rows of the two matrices that share a segment, a block of pairs at a time, perhaps more than once."""
    length, gap = short.shape[1], long.shape[1] - short.shape[1]
    bounds = [length * i // (edits + 1) for i in range(edits + 2)]
    for start, end in itertools.pairwise(bounds):
        bucket = _Buckets(_hash(short[:, start:end]))
        for place in range(start - (edits - gap) // 2, start + (edits + gap) // 2 + 1):
            if place < 0 or place + end - start > long.shape[1]:
                continue
            low, high = bucket.find(_hash(long[:, place : place + end - start]))
            rest = np.flatnonzero(high > low)
            while len(rest):
                rows = rest[:_ROWS_AT_A_TIME]
                first, last = low[rows], high[rows]
                skip = until = last
                if labels is not None:
                    bucket.relabel(labels[shorts])
                    skip, until = bucket.alike(first, labels[longs[rows]])
                sizes = np.cumsum(skip - first + last - until)
                taken = max(1, int(np.searchsorted(sizes, _PAIRS_AT_A_TIME, "right")))
                if sizes[taken - 1]:
                    yield bucket.expand(rows[:taken], *(ends[:taken] for ends in (first, skip, until, last)))
                rest = rest[taken:]


class _Buckets:
    """Rows in the order of their keys, and of their labels within."""

    def __init__(self, keys: Hashes) -> None:
        self._keys = keys
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        self._labels: Ids | None = None

    def find(self, keys: Hashes) -> tuple[Ids, Ids]:
        """Return where the rows of some keys begin and end."""
        return np.searchsorted(self._sorted, keys, "left"), np.searchsorted(self._sorted, keys, "right")

    def relabel(self, labels: Ids) -> None:
        """Take labels, one a row."""
        if self._labels is not None and np.array_equal(self._labels, labels):
            return
        self._labels = labels
        self._order = np.lexsort((labels, self._keys))
        self._numbers = np.concatenate([[0], np.cumsum(self._sorted[1:] != self._sorted[:-1])])
        self._width = int(labels.max()) + 1
        self._both = self._numbers * self._width + labels[self._order]

    def alike(self, places: Ids, labels: Ids) -> tuple[Ids, Ids]:
        """Return where the rows with a place's key and a label begin and end."""
        # A label that no row has is found nowhere; the next key's rows are not its.
        both = self._numbers[places] * self._width + np.minimum(labels, self._width - 1)
        low, high = np.searchsorted(self._both, both, "left"), np.searchsorted(self._both, both, "right")
        return low, np.where(labels < self._width, high, low)

    def expand(self, rows: Ids, first: Ids, skip: Ids, until: Ids, last: Ids) -> tuple[Ids, Ids]:
        """Turn ranges, one up to `skip` and one from `until` on for each row of the other side, into pairs of rows."""
        low, high = np.concatenate([first, until]), np.concatenate([skip, last])
        count = high - low
        # 0, 1, 2 ... within each range.
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        return self._order[np.repeat(low, count) + within], np.repeat(np.concatenate([rows, rows]), count)


def _hash(texts: Codes) -> Hashes:
    """Return a number for each row; equal rows have equal numbers."""
    value = np.zeros(len(texts), np.uint64)
    for column in texts.T:
        value = (value ^ column) * _MULTIPLIER
        value ^= value >> np.uint64(29)
    return value


def _letters(texts: Codes) -> Hashes:
    """Return which letters each row has, as bits: an edit changes at most two of them."""
    bits = np.zeros(len(texts), np.uint64)
    for column in texts.T:
        bits |= np.uint64(1) << (column * _MULTIPLIER >> np.uint64(58))
    return bits


def _ones(bits: Hashes) -> Hashes:
    """Return how many bits are set: sums within 2, 4 and 8 neighbours, and of the bytes by a product."""
    pairs, fours, bytes_, sums = (np.uint64(int(byte * 8, 16)) for byte in ("55", "33", "0f", "01"))
    bits = bits - (bits >> np.uint64(1) & pairs)
    bits = (bits & fours) + (bits >> np.uint64(2) & fours)
    return np.asarray(((bits + (bits >> np.uint64(4))) & bytes_) * sums >> np.uint64(56))


def _within(left: Codes, right: Codes, edits: int) -> npt.NDArray[np.bool_]:
    """Say which rows are at most so many edits apart."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cpdist

    if not len(left):
        return np.zeros(0, bool)
    texts = (rows.view(f"U{rows.shape[1]}")[:, 0].tolist() for rows in (left, right))
    distance = cpdist(*texts, scorer=Levenshtein.distance, score_cutoff=edits, dtype=np.int32, workers=1)
    return np.asarray(distance <= edits)


def _settle(pairs: Ids) -> Ids:
    """Drop the later of each near pair whose earlier one is kept, in document order."""
    dropped: set[int] = set()
    for first, second in pairs[:, np.lexsort(pairs)].T.tolist():
        if first not in dropped:
            dropped.add(second)
    return np.array(sorted(dropped), np.int64)
