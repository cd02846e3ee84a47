"""Which sentence goes to which picture: even use, wanted lengths, and a floor for rare characters.

A plan is decided by the texts, the seed and the options alone, so any picture's sentence can be asked for in any order
and in any process. It counts what is to be drawn: the characters of a text's written form (`caprag.text.normalize`),
white space apart. Nothing here knows of fonts or frames, so a sentence that fits none and is passed over later is
still counted.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from caprag.synthesis.character_floor import CharacterTable, lift
from caprag.text import normalize

Mode = Literal["random", "each"]
"""``"random"``: sentences in random order, evenly used; ``"each"``: one picture for each sentence, in order."""

Ints = npt.NDArray[np.int64]

# So many rows are permuted at once, lest a few sentences take a generator each time.
_BLOCK = 1 << 16
_PASSES_KEPT = 2
_RAREST_SHOWN = 20
# Seeds end in one of these, so that no two uses of chance share their numbers.
_ORDER, _MIX, _FLOOR = 101, 102, 103


@dataclass(frozen=True, slots=True)
class CharacterCount:
    """How often a character is drawn.

    It is in `sentences` of the texts, and in `before` pictures without the floor and `after` pictures with it.
    """

    character: str
    sentences: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class LengthCount:
    """How many pictures have a sentence of `length` characters; `wanted` is ``None`` where none were asked for."""

    length: int
    wanted: int | None
    got: int


@dataclass(frozen=True, slots=True)
class SamplingReport:
    """What a plan draws in one pass.

    Attributes
    ----------
    pictures
        Number of pictures of the pass.
    sentences, used
        Number of sentences there are, and of those that are drawn at least once.
    most
        How often the sentence that is drawn most is drawn.
    floor
        Pictures that each character was to be in; 0 without a floor.
    needed
        Where some characters stay short of the floor: about how many pictures would do, rather too many. It is
        `pictures` and what is missing, at most one picture for each. Otherwise ``None``.
    lengths
        By rising length, in characters.
    moved
        Wanted lengths that no sentence has: length, its share of all pictures, and the length that stands in for it.
    characters
        The rarest in the texts first.
    """

    pictures: int
    sentences: int
    used: int
    most: int
    floor: int
    needed: int | None
    lengths: tuple[LengthCount, ...]
    moved: tuple[tuple[int, float, int], ...]
    characters: tuple[CharacterCount, ...]

    @property
    def short(self) -> tuple[CharacterCount, ...]:
        """The characters that are in fewer pictures than the floor."""
        return tuple(c for c in self.characters if c.after < self.floor)

    def __str__(self) -> str:
        rows = [
            f"pictures    {self.pictures:,}",
            f"sentences   {self.used:,} of {self.sentences:,} drawn, none more than {self.most:,} times",
            f"characters  {len(self.characters):,} distinct",
        ]
        if self.floor:
            reached, exact = len(self.characters) - len(self.short), sum(c.after == self.floor for c in self.characters)
            rows.append(f"floor       {self.floor:,} pictures: {reached:,} reach it, {exact:,} of them just so")
        if self.short:
            few = f"{self.pictures:,} pictures are too few, about {self.needed:,} would do"
            rows.append(f"short       {len(self.short):,}: {few}")
        rows += [
            f"moved       {share:.2%} from length {a}, which no sentence has, to {b}" for a, share, b in self.moved
        ]
        rows += ["", f"{'length':>6} {'wanted':>10} {'got':>10}"]
        wanted = ["-" if n.wanted is None else f"{n.wanted:,}" for n in self.lengths]
        rows += [f"{n.length:>6} {w:>10} {n.got:>10,}" for n, w in zip(self.lengths, wanted, strict=True)]
        rows += ["", f"{'rarest':>6} {'sentences':>10} {'no floor':>10} {'pictures':>10}"]
        for count in self.characters[:_RAREST_SHOWN]:
            # What stands on its neighbour, or takes no room, would spoil the table.
            shown = count.character if count.character.isalnum() else f"U+{ord(count.character):04X}"
            rows.append(f"{shown:>6} {count.sentences:>10,} {count.before:>10,} {count.after:>10,}")
        return "\n".join(rows)


def measure_lengths(texts: Iterable[str]) -> dict[int, float]:
    """Measure how long texts are.

    Parameters
    ----------
    texts
        Captions, for example of real frames; those without a character to draw are left out.

    Returns
    -------
    dict of int to float
        Share of each length that occurs, in characters (white space apart), by rising length; the sum is 1.

    Raises
    ------
    ValueError
        Where there is nothing to measure.

    Examples
    --------
    >>> measure_lengths(["好啊", "走 吧", "妳在哪裡"])
    {2: 0.6666666666666666, 4: 0.3333333333333333}
    """
    counts = Counter(len("".join(normalize(text).split())) for text in texts)
    del counts[0]
    if not counts:
        raise ValueError("there is no text to measure; give captions that have characters")
    return {length: counts[length] / counts.total() for length in sorted(counts)}


class SentencePlan:
    """Which sentence each picture draws, for an endless row of pictures in passes of `count`.

    Without options every sentence is drawn once before any is drawn again, over all passes. With `lengths` the same
    holds among the sentences of each length, and each pass has as many pictures of each length as its share asks for
    (largest remainder).

    A floor adds sentences that hold rare characters, the least used first and of these the ones that help most
    characters at once, in the place of picks that can be spared, at random. All characters reach it wherever `count`
    is at least the number of distinct characters times the floor, and mostly long before. Where there are too few
    pictures for that, the sentences that help most characters are drawn first, so that little is missing.

    The floor goes before the lengths, but keeps to them as far as it can: what is added replaces a sentence of its own
    length while one can be spared, and sentences of a length that is not wanted are added only for what no other
    holds. The report says what became of both.

    Parameters
    ----------
    texts
        The sentences, none empty; kept, not copied.
    seed
        0 or more; the same seed, texts and options give the same plan.
    count
        Pictures in a pass, 1 or more; ``None`` means as many as there are sentences. `Mode` ``"each"`` allows no other.
    mode
        See `Mode`; lengths and a floor need ``"random"``.
    lengths
        Weight of each wanted length in characters (white space apart), as of `measure_lengths`; the weight of a length
        that no sentence has goes to the nearest that there is, of two the shorter. ``None`` takes lengths as they come.
    floor
        Each character of the texts is in at least so many pictures of each pass.

    Raises
    ------
    ValueError
        For an option out of its range, an empty sentence, or options that exclude each other.

    References
    ----------
    Largest remainder: Hamilton's method of apportionment. Greedy choice: the multicover of Dobson, Worst-case analysis
    of greedy heuristics for integer programming with nonnegative data, Mathematics of Operations Research 7(4), 1982.

    Examples
    --------
    >>> plan = SentencePlan(["好啊", "走吧", "妳在哪裡"], seed=1)
    >>> sorted(plan[number] for number in range(3)), sorted(plan[number] for number in range(3, 6))
    ([0, 1, 2], [0, 1, 2])
    """

    def __init__(
        self,
        texts: Sequence[str],
        seed: int,
        *,
        count: int | None = None,
        mode: Mode = "random",
        lengths: Mapping[int, float] | None = None,
        floor: int = 0,
    ) -> None:
        if isinstance(texts, str):
            raise TypeError("texts is one string; give a sequence of them")
        if not len(texts):
            raise ValueError("texts is empty; at least one sentence is wanted")
        for row, text in enumerate(texts):
            if not text or text.isspace():
                raise ValueError(f"sentence {row} is empty ({text!r}); leave empty lines out")
        count = len(texts) if count is None else count
        for name, value, least in (("seed", seed, 0), ("count", count, 1), ("floor", floor, 0)):
            if isinstance(value, bool) or operator.index(value) < least:
                raise ValueError(f"{name} is {value!r}; it must be a whole number, {least} or more")
        if mode not in get_args(Mode):
            raise ValueError(f"mode is {mode!r}; known are {', '.join(get_args(Mode))}")
        if mode == "each" and (floor or lengths is not None or count != len(texts)):
            raise ValueError(
                f"mode is 'each', which draws each of {len(texts)} sentences once, but count is {count}, floor {floor} "
                f"and lengths {'not ' if lengths is not None else ''}None; leave these out, or take 'random'"
            )
        self.texts, self.seed, self.count, self.mode, self.floor = texts, seed, count, mode, floor
        self.lengths = None if lengths is None else {n: lengths[n] for n in sorted(lengths)}
        self._characters: CharacterTable | None = None
        self._passes: dict[int, tuple[Ints, int | None]] = {}
        self._groups: list[Ints] = [np.arange(len(texts))]
        self._quotas = [count]
        self._moved: tuple[tuple[int, float, int], ...] = ()
        if floor or lengths is not None:
            known = self._count_characters().lengths
            if not known.all():
                row = int(known.argmin())
                raise ValueError(f"sentence {row} is {texts[row]!r}, which has no character to draw; leave it out")
        if self.lengths is not None:
            self._group_by_length(self.lengths)

    def __len__(self) -> int:
        """Return the number of pictures in a pass."""
        return self.count

    def __getitem__(self, number: int) -> int:
        """Return the row of the sentence for picture `number`, 0 or more; passes follow each other without end."""
        number = operator.index(number)
        if number < 0:
            raise IndexError(f"picture {number} is asked for; the first is 0")
        if self.mode == "each":
            return number % self.count
        turn, place = divmod(number, self.count)
        return int(self.rows(turn)[place])

    def __iter__(self) -> Iterator[int]:
        """Give the rows of the first pass, in the order of its pictures."""
        return iter(self.rows().tolist())

    def rows(self, turn: int = 0) -> Ints:
        """Return the rows of one pass, in the order of its pictures.

        Parameters
        ----------
        turn
            Number of the pass, 0 or more: its first picture is ``turn * count``.

        Returns
        -------
        numpy.ndarray
            Shape (count,), int64, read-only.
        """
        return self._pass(turn)[0]

    def report(self, turn: int = 0) -> SamplingReport:
        """Count what one pass draws; see `rows` for `turn`."""
        rows, needed = self._pass(turn)
        characters = self._count_characters()
        drawn = np.bincount(rows, minlength=len(self.texts))
        after = characters.count(drawn)
        before = after if not self.floor else characters.count(np.bincount(self._base(turn), minlength=len(drawn)))
        held = characters.count(np.ones(len(drawn), np.int64))
        got = np.bincount(characters.lengths, weights=drawn).astype(np.int64)
        wanted = {int(characters.lengths[rows[0]]): n for rows, n in zip(self._groups, self._quotas, strict=True)}
        return SamplingReport(
            pictures=self.count,
            sentences=len(self.texts),
            used=int(np.count_nonzero(drawn)),
            most=int(drawn.max()),
            floor=self.floor,
            needed=needed,
            lengths=tuple(
                LengthCount(n, None if self.lengths is None else wanted.get(n, 0), int(got[n]))
                for n in range(len(got))
                if got[n] or (self.lengths is not None and wanted.get(n))
            ),
            moved=self._moved,
            characters=tuple(
                CharacterCount(chr(characters.alphabet[i]), int(held[i]), int(before[i]), int(after[i]))
                for i in np.argsort(held, kind="stable")
            ),
        )

    def _count_characters(self) -> CharacterTable:
        if self._characters is None:
            self._characters = CharacterTable.of(self.texts)
        return self._characters

    def _group_by_length(self, lengths: Mapping[int, float]) -> None:
        for length, weight in lengths.items():
            if length < 1 or not math.isfinite(weight) or weight < 0:
                raise ValueError(f"lengths has {length!r}: {weight!r}; a length from 1 and a weight from 0 are wanted")
        total = sum(map(Fraction, lengths.values()))
        if not total:
            raise ValueError(f"lengths is {dict(lengths)!r}; at least one weight must be above 0")
        known = self._count_characters().lengths
        there = np.unique(known).tolist()
        shares: dict[int, Fraction] = {}
        moved = []
        for length, weight in lengths.items():
            nearest = min(there, key=lambda n: (abs(n - length), n))
            shares[nearest] = shares.get(nearest, Fraction()) + Fraction(weight) / total
            if weight and nearest != length:
                moved.append((length, float(Fraction(weight) / total), nearest))
        quotas = _apportion(shares, self.count)
        self._moved = tuple(moved)
        self._groups = [np.flatnonzero(known == length) for length in quotas]
        self._quotas = list(quotas.values())

    def _pass(self, turn: int) -> tuple[Ints, int | None]:
        """Return the rows of a pass, and the pictures that its floor would need where there are too few."""
        if turn not in self._passes:
            rows, needed = self._base(turn), None
            if self.floor:
                rng = np.random.default_rng([self.seed, turn, _FLOOR])
                table = self._count_characters()
                classes = np.zeros_like(table.lengths) if self.lengths is None else table.lengths
                rows, needed = lift(rows, table, classes, self.floor, rng)
            rows.flags.writeable = False
            while len(self._passes) >= _PASSES_KEPT:
                del self._passes[next(iter(self._passes))]
            self._passes[turn] = rows, needed
        return self._passes[turn]

    def _base(self, turn: int) -> Ints:
        """Return the rows of a pass without a floor."""
        if self.mode == "each":
            return np.arange(self.count)
        group_of = np.repeat(np.arange(len(self._groups)), self._quotas)
        np.random.default_rng([self.seed, turn, _MIX]).shuffle(group_of)
        rows = np.empty(self.count, np.int64)
        for group, quota in enumerate(self._quotas):
            rows[group_of == group] = self._stream(group, turn * quota, quota)
        return rows

    def _stream(self, group: int, start: int, size: int) -> Ints:
        """Return a stretch of one group's endless row of permutations, some of which are made at once."""
        members = self._groups[group]
        block = len(members) * max(1, _BLOCK // len(members))
        parts = [np.empty(0, np.int64)]
        for number in range(start // block, -(-(start + size) // block)):
            rng = np.random.default_rng([self.seed, number, int(members[0]), _ORDER])
            rows = rng.permuted(np.tile(members, (block // len(members), 1)), axis=1).ravel()
            parts.append(rows[max(0, start - number * block) : start + size - number * block])
        return np.concatenate(parts)


def _apportion(shares: Mapping[int, Fraction], count: int) -> dict[int, int]:
    """Give lengths the whole part of their shares, and one more to the largest remainders, of equals to the shorter."""
    exact = {length: shares[length] * count for length in sorted(shares)}
    quotas = {length: math.floor(value) for length, value in exact.items()}
    by_remainder = sorted(exact, key=lambda length: quotas[length] - exact[length])
    for length in by_remainder[: count - sum(quotas.values())]:
        quotas[length] += 1
    return quotas
