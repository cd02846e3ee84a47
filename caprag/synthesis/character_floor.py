"""How often characters are drawn, and which sentences to add so that none is drawn too seldom.

Works on rows of sentences and numbers of characters, whole arrays at a time; knows nothing of seeds and passes. The
lengths that are wanted are for it those of the sentences that are picked already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from caprag.text import normalize

Ints = npt.NDArray[np.int64]
_Small = npt.NDArray[np.int32]

_TEXTS_AT_A_TIME = 1 << 16
_CANDIDATES_AT_A_TIME = 1 << 14
# A code point needs 21 bits.
_CODE_BITS = 21
_WHITE_SPACE = tuple(map(ord, " \n"))


@dataclass(frozen=True, slots=True)
class CharacterTable:
    """The distinct characters of each sentence.

    Attributes
    ----------
    lengths
        Shape (sentences,), int64: characters of the written form, white space apart, each as often as it occurs.
    alphabet
        Shape (characters,), int64: code points that occur, rising; a character's number is its place here.
    starts
        Shape (sentences + 1,), int64.
    ids
        Shape (starts[-1],), int32: the numbers of row i's distinct characters are ``ids[starts[i] : starts[i + 1]]``.
    """

    lengths: Ints
    alphabet: Ints
    starts: Ints
    ids: _Small

    @classmethod
    def of(cls, texts: Iterable[str]) -> CharacterTable:
        """Make the table of some sentences; it takes about 4 bytes a character."""
        lengths, sizes, codes = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int32)]
        source = iter(texts)
        while forms := [normalize(text) for text in islice(source, _TEXTS_AT_A_TIME)]:
            flat = np.frombuffer("".join(forms).encode("utf-32-le"), "<u4").astype(np.int64)
            owners = np.repeat(np.arange(len(forms)), [len(form) for form in forms])
            drawn = ~np.isin(flat, _WHITE_SPACE)
            lengths.append(np.bincount(owners[drawn], minlength=len(forms)))
            pairs = np.unique(owners[drawn] << _CODE_BITS | flat[drawn])
            sizes.append(np.bincount(pairs >> _CODE_BITS, minlength=len(forms)))
            codes.append((pairs & ((1 << _CODE_BITS) - 1)).astype(np.int32))
        every = np.concatenate(codes)
        seen = np.zeros(1 << _CODE_BITS, bool)
        seen[every] = True
        ids = np.cumsum(seen, dtype=np.int32)[every] - np.int32(1)
        starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
        return cls(np.concatenate(lengths), np.flatnonzero(seen), starts, ids)

    def count(self, drawn: Ints) -> Ints:
        """Return in how many pictures each character is, where row i is drawn ``drawn[i]`` times."""
        weights = np.repeat(drawn, np.diff(self.starts))
        # Sums of whole numbers are exact in float64, up to 2 ** 53.
        return np.bincount(self.ids, weights=weights, minlength=len(self.alphabet)).astype(np.int64)

    def pairs(self, rows: Ints) -> tuple[Ints, _Small]:
        """Return for each distinct character of each of some rows the place in `rows`, and the character's number."""
        sizes = self.starts[rows + 1] - self.starts[rows]
        owners = np.repeat(np.arange(len(rows)), sizes)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return owners, self.ids[self.starts[rows][owners] + within]


def lift(
    rows: Ints, table: CharacterTable, classes: Ints, floor: int, rng: np.random.Generator
) -> tuple[Ints, int | None]:
    """Replace picks until every character is in `floor` pictures.

    Parameters
    ----------
    rows
        Shape (pictures,), int64: the sentence of each picture.
    table
        The characters of the sentences; each sentence has one at least.
    classes
        Shape (sentences,), int64, from 0: as far as can be, a sentence takes the place of one of its own class.
    floor
        Pictures that each character is to be in, 1 or more.
    rng
        Decides between equals, and which picks make room.

    Returns
    -------
    numpy.ndarray
        The new sentence of each picture.
    int or None
        Where there are too few pictures: about how many would do. Otherwise ``None``.
    """
    drawn = np.bincount(rows, minlength=len(table.lengths))
    counts = table.count(drawn)
    needy = np.logical_or.reduceat(counts[table.ids] <= floor, table.starts[:-1])
    most = int(classes.max()) + 1
    picked = np.bincount(classes[rows], minlength=most)
    to_spare = np.bincount(classes[rows[~needy[rows]]], minlength=most)
    chosen, lacking = _choose(table, classes, floor - counts, drawn, to_spare, rng, even=True, most=len(rows))
    added = _expand(chosen, len(rows))
    if not lacking:
        counts = counts + table.count(np.bincount(added, minlength=len(drawn)))
        lifted = _replace(rows, added, table, classes, counts - floor, rng)
        if lifted is not None:
            return lifted, None
    # Too many are needed for a plan that mostly stays as it was: choose for the floor alone, then fill up.
    full = np.full(len(counts), floor)
    chosen, lacking = _choose(table, classes, full, np.zeros_like(drawn), picked, rng, even=False, most=len(rows))
    lifted = _replace(rows, _expand(chosen, len(rows)), table, classes, np.full(len(counts), len(rows) + 1), rng)
    assert lifted is not None
    return lifted, len(rows) + lacking if lacking else None


def _expand(chosen: list[tuple[Ints, int]], most: int) -> Ints:
    """Return the rows that were chosen, each as often as it was, up to `most` of them."""
    parts = [np.empty(0, np.int64)]
    for some, copies in chosen:
        parts.append(np.tile(some, copies))
    return np.concatenate(parts)[:most]


def _choose(
    table: CharacterTable, classes: Ints, missing: Ints, drawn: Ints, limits: Ints, rng: np.random.Generator,
    *, even: bool, most: int,
) -> tuple[list[tuple[Ints, int]], int]:  # fmt: skip
    """Choose up to `most` sentences to add: groups of rows, each added so many times, and what is missing then.

    A sentence's gain is the number of its characters that are still missing. With `even` the sentence that is drawn
    least comes first, and of these that with the greatest gain; otherwise the greatest gain alone decides. Classes
    keep to their limits for as long as that helps, then only to those that have a limit above 0.
    """
    size = len(missing)
    # A class is one character more that its sentences have, but one that they gain nothing by.
    room = np.concatenate([np.maximum(missing, 0), limits])
    drawn = drawn.copy()
    tie = rng.permutation(len(drawn))
    owners = np.repeat(np.arange(len(drawn), dtype=np.int32), np.diff(table.starts))
    welcome = limits[classes] > 0
    chosen: list[tuple[Ints, int]] = []
    for allowed, limited in ((welcome, True), (welcome, False), (~welcome, False)):
        useful = allowed[owners] & (room[table.ids] > 0)
        rows, ids = owners[useful], table.ids[useful]
        candidates = np.unique(rows).astype(np.int64)
        # Number the candidates by their place in the order of ties.
        candidates = candidates[np.argsort(tie[candidates])]
        place = np.empty(len(drawn), np.int32)
        place[candidates] = np.arange(len(candidates))
        rows, uses = place[rows], drawn[candidates]
        if limited:
            rows = np.concatenate([rows, np.arange(len(candidates), dtype=np.int32)])
            ids = np.concatenate([ids, (size + classes[candidates]).astype(np.int32)])
        while len(rows) and most:
            group = uses[rows] == uses[rows].min() if even else slice(None)
            for some, copies in _take(rows[group], ids[group], room, size, most, uses if even else None):
                uses[some] += copies
                drawn[candidates[some]] += copies
                chosen.append((candidates[some], copies))
                most -= copies * len(some)
            still, gains = room[ids] > 0, ids < size
            full, helps = np.zeros((2, len(uses)), bool)
            full[rows[~still & ~gains]] = True
            helps[rows[still & gains]] = True
            still &= (helps & ~full)[rows]
            rows, ids = rows[still], ids[still]
    return chosen, int(room[:size].sum())


def _take(
    rows: _Small, ids: _Small, room: Ints, size: int, most: int, uses: Ints | None
) -> list[tuple[Ints, int]]:  # fmt: skip
    """Return candidates to add next, and how often; takes their characters off `room`.

    They are those of the greatest gain, for as long as they keep it. With `uses`, rows are all used equally often, and
    none is added twice, unless all are: until they have come up with the next.
    """
    copies = 0
    if uses is not None:
        copies = _copies(ids, room)
        later = uses[uses > uses[rows[0]]]
        copies = min(copies, int(later.min() - uses[rows[0]])) if len(later) else copies
    if not copies:
        gain = np.bincount(rows[ids < size])
        top = gain[rows] == gain.max()
        rows, ids = rows[top], ids[top]
    taken = []
    while len(rows) and most:
        if uses is None:
            copies = _copies(ids, room)
        # Where all can be added without using up any character, their order does not matter.
        some = np.unique(rows).astype(np.int64) if copies else _within(rows, ids, room)
        some, times = some[:most], max(1, min(copies, most // len(some)))
        taken.append((some, times))
        most -= times * len(some)
        added, out = np.zeros((2, int(rows.max()) + 1), bool)
        added[some] = True
        room -= times * np.bincount(ids[added[rows]], minlength=len(room))
        out[rows[room[ids] < 1]] = True
        if uses is not None:
            out |= added
        left = ~out[rows]
        rows, ids, copies = rows[left], ids[left], 0
    return taken


def _copies(ids: _Small, room: Ints) -> int:
    """Return how often all candidates can be added before any character is used up."""
    return int((room[ids] // np.bincount(ids, minlength=len(room))[ids]).min())


def _within(rows: npt.NDArray[np.integer], ids: npt.NDArray[np.integer], room: Ints) -> Ints:
    """Return the rows, rising, whose characters all have room for them and for all rows before them.

    The first row is always among them where its characters have any room.
    """
    order = np.lexsort((rows, ids))
    of = ids[order]
    first = np.concatenate([[True], of[1:] != of[:-1]]) if len(of) else np.empty(0, bool)
    places = np.arange(len(of))
    rank = places - np.maximum.accumulate(np.where(first, places, 0))
    return np.setdiff1d(rows, rows[order][rank >= room[of]]).astype(np.int64)


def _replace(
    rows: Ints, added: Ints, table: CharacterTable, classes: Ints, slack: Ints, rng: np.random.Generator
) -> Ints | None:
    """Put sentences in the place of picks that can be spared, of the same class first; None where there are too few.

    A pick can be spared while each of its characters has slack: pictures above the floor.
    """
    order = rng.permutation(len(rows))
    slack = slack.copy()
    limits = np.bincount(classes[added], minlength=int(classes.max()) + 1)
    places = _spare(rows, order, table, classes, slack, limits, len(added))
    if len(places) < len(added):
        free = np.ones(len(rows), bool)
        free[places] = False
        rest = _spare(rows, order[free[order]], table, classes, slack, None, len(added) - len(places))
        places = np.concatenate([places, rest])
    if len(places) < len(added):
        return None
    rows = rows.copy()
    rows[places] = added
    return rows


def _spare(
    rows: Ints, order: Ints, table: CharacterTable, classes: Ints, slack: Ints, limits: Ints | None, need: int
) -> Ints:
    """Return up to `need` pictures that can be spared, the first in `order` first; takes their characters off `slack`.

    `limits` is how many of each class to spare at most; a class is one character more that each of its sentences has.
    """
    room = slack if limits is None else np.concatenate([slack, limits])
    spared = [np.empty(0, np.int64)]
    while need and len(order):
        later = []
        for start in range(0, len(order), _CANDIDATES_AT_A_TIME):
            some = order[start : start + _CANDIDATES_AT_A_TIME]
            owners, ids = table.pairs(rows[some])
            everything = np.asarray(ids, np.int64)
            if limits is not None:
                owners = np.concatenate([owners, np.arange(len(some))])
                everything = np.concatenate([everything, len(slack) + classes[rows[some]]])
            hopeless = np.zeros(len(some), bool)
            hopeless[owners[room[everything] < 1]] = True
            hopeful = ~hopeless[owners]
            taken = _within(owners[hopeful], everything[hopeful], room)[:need]
            hit = np.zeros(len(some), bool)
            hit[taken] = True
            room -= np.bincount(everything[hit[owners]], minlength=len(room))
            spared.append(some[taken])
            need -= len(taken)
            if not need:
                break
            later.append(some[~hit & ~hopeless])
        order = np.concatenate(later) if later and need else order[:0]
    slack[:] = room[: len(slack)]
    return np.concatenate(spared)
