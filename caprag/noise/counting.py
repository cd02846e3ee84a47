"""Counts of what happens to letters, signs and lines in aligned pairs. Knows nothing of probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from caprag.noise.alignment import Fate, align, units
from caprag.noise.tables import ELLIPSIS
from caprag.text import normalize

_FEWEST_CUT = 2
_MOST_LEARNT = 3


@dataclass(slots=True)
class Tally:
    """What was counted.

    Attributes
    ----------
    splits
        Letter to the two that it looks like.
    truths
        The true lines of which something was read, in their written form.
    events
        For each of these the number of events among its letters.
    readings, seen, alphabet, signs, stray
        As in `Parameters`.
    kinds
        Events by kind: read (misread, dropped or split), merge, insert, double, more (further letters invented), space.
    places
        Misread letters that are the ``first``, an ``inner`` or the ``last`` of their line.
    gaps
        Insertions by gap: start, after_sign, inner, end.
    chances
        How often each place and gap, and each pair that may merge, was there.
    runs
        Dropped letters behind which one stands that could be dropped too (``chances``), and these (``more``).
    repeats
        Letters that recur beside a misread one: ``alike`` and ``other``.
    cuts
        Lines that lost their ``left`` or ``right`` end, and the letters lost ``beyond`` two.
    lost
        Lines of which no letter was read.
    halves
        The values of `splits`.
    """

    splits: Mapping[str, str]
    truths: list[str] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    readings: dict[str, Counter[str]] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    alphabet: Counter[str] = field(default_factory=Counter)
    signs: dict[str, Counter[str]] = field(default_factory=dict)
    stray: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    gaps: Counter[str] = field(default_factory=Counter)
    chances: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    repeats: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    halves: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.halves = frozenset(self.splits.values())

    def add(self, reading: str, truth: str) -> None:
        """Count one pair; one whose truth has no letter counts for nothing."""
        reading, truth = normalize(reading), normalize(truth)
        if not any(c.isalnum() for c in truth):
            return
        if not any(c.isalnum() for c in reading):
            self.lost += 1
            return
        if reading == truth:
            fates = [*(Fate(ELLIPSIS if len(c) > 1 or c == "…" else c, c) for c in units(truth)), Fate("")]
        else:
            fates = align(truth, reading)
        _Line(self, fates).count()
        self.truths.append(truth)

    def merge(self, other: Tally) -> None:
        """Add what another has counted."""
        self.truths += other.truths
        self.events += other.events
        self.lost += other.lost
        for name in ("seen", "alphabet", "stray", "kinds", "places", "gaps", "chances", "runs", "repeats", "cuts"):
            getattr(self, name).update(getattr(other, name))
        for mine, its in ((self.readings, other.readings), (self.signs, other.signs)):
            for key, counts in its.items():
                mine.setdefault(key, Counter()).update(counts)

    def misread(self, letter: str, what: str) -> None:
        """Count a misread letter."""
        self.readings.setdefault(letter, Counter())[what] += 1
        self.kinds["read"] += 1


class _Line:
    """One aligned line on its way into the counts."""

    def __init__(self, tally: Tally, fates: list[Fate]) -> None:
        self.tally, self.fates = tally, fates
        self._join_halves()
        self.letters = [i for i, fate in enumerate(fates) if fate.truth.isalnum()]
        self.cut = self._cut()

    def count(self) -> None:
        """Count all that there is in the line."""
        events = 0
        misread: dict[str, str] = {}
        previous_dropped = False
        skip = -1
        for i, fate in enumerate(self.fates):
            if fate.truth and not fate.truth.isalnum():
                self._sign(i)
            events += self._insertion(i)
            if not fate.truth.isalnum():
                previous_dropped = previous_dropped and not fate.truth
                continue
            self.tally.seen[fate.truth] += 1
            place = "first" if i == self.letters[0] else "last" if i == self.letters[-1] else "inner"
            self.tally.chances[place] += 1
            if i in self.cut or i == skip:
                continue
            following = self.fates[i + 1]
            pair = fate.truth + following.truth
            whole = next((c for c in (fate.read, following.read) if self.tally.splits.get(c) == pair), "")
            self.tally.chances["merge"] += pair in self.tally.halves and (fate.read, following.read) != tuple(pair)
            if whole and "" in (fate.read, following.read):
                self.tally.kinds["merge"] += 1
                events += 1
                skip = i + 1
                continue
            if fate.read == fate.truth:
                previous_dropped = False
                continue
            self.tally.runs["chances"] += not fate.read and following.truth.isalnum()
            if not fate.read and previous_dropped:
                self.tally.runs["more"] += 1
                continue
            previous_dropped = not fate.read
            self.tally.places[place] += 1
            self.tally.misread(fate.truth, fate.read)
            # A letter that recurs and meets the same fate is one event.
            events += misread.get(fate.truth) != fate.read
            misread.setdefault(fate.truth, fate.read)
        for letter, what in misread.items():
            alike = [self.fates[i].read == what for i in self.letters if self.fates[i].truth == letter]
            self.tally.repeats["alike"] += sum(alike) - 1
            self.tally.repeats["other"] += len(alike) - sum(alike)
        self.tally.events.append(events)

    def _join_halves(self) -> None:
        """See a letter that was read as its two halves as one event."""
        for fate, following in zip(self.fates, self.fates[1:], strict=False):
            parts = self.tally.splits.get(fate.truth, "")
            if not parts or fate.read == fate.truth:
                continue
            if fate.read == parts[0] and following.before[:1] == [parts[1]]:
                fate.read, following.before = parts, following.before[1:]
            elif fate.read == parts[1] and fate.before[-1:] == [parts[0]]:
                fate.read, fate.before = parts, fate.before[:-1]

    def _cut(self) -> frozenset[int]:
        """Find the letters lost at the ends: two or more, and not all of them."""
        read = [bool(self.fates[i].read) for i in self.letters]
        left, right = read.index(True) if True in read else 0, read[::-1].index(True) if True in read else 0
        found: list[int] = []
        for side, number, rows in (("left", left, self.letters[:left]), ("right", right, self.letters[-right:])):
            if number >= _FEWEST_CUT:
                self.tally.cuts[side] += 1
                self.tally.cuts["beyond"] += number - _FEWEST_CUT
                found += rows
        return frozenset(found)

    def _insertion(self, i: int) -> bool:
        """Count what stands before a unit, or at the end, for nothing; say whether letters do."""
        tally, fate = self.tally, self.fates[i]
        before = "" if i == 0 else self.fates[i - 1].truth
        if fate.truth.isalnum() or not fate.truth:
            if not self.letters or i > self.letters[-1]:
                gap = "end"
            elif i == self.letters[0]:
                gap = "start"
            else:
                gap = "inner" if before.isalnum() else "after_sign"
            tally.chances[gap] += 1
        letters = [c for c in fate.before if c.isalnum()]
        if not letters:
            signs = "".join(fate.before)
            if signs and before.isalnum():
                tally.stray[signs] += 1
            return False
        gap = "end" if not self.letters or i > self.letters[-1] else "start" if i <= self.letters[0] else "inner"
        if gap == "inner" and not (before.isalnum() and fate.truth.isalnum()):
            gap = "after_sign"
        tally.gaps[gap] += 1
        tally.kinds["insert"] += 1
        tally.kinds["space"] += " " in fate.before
        neighbour = fate.truth if fate.truth.isalnum() else before
        if letters[0] == neighbour or letters[-1] == neighbour:
            tally.kinds["double"] += 1
        else:
            tally.alphabet.update(letters[:_MOST_LEARNT])
            tally.kinds["more"] += len(letters[:_MOST_LEARNT]) - 1
        return True

    def _sign(self, i: int) -> None:
        """Count what a sign was read as, with the signs that follow for nothing."""
        following = self.fates[i + 1].before
        behind = "".join(following) if not any(c.isalnum() for c in following) else ""
        read = self.fates[i].read + behind
        self.tally.signs.setdefault(self.fates[i].truth, Counter())[read] += 1
