"""Which readings a letter or a sign can have, and how likely each is: built when first asked for.

A letter's readings mix what was counted for it with a base that needs no counts: dropped, split, a look-alike
(caprag.glyphs), a variant, any letter. It knows nothing of lines.
"""

from __future__ import annotations

import functools
import itertools
import math
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caprag.noise.parameters import Parameters
from caprag.text import convert, match_form

if TYPE_CHECKING:
    from caprag.glyphs import GlyphTable

NEIGHBOURS = 48
_ROWS_AT_A_TIME = 512
_MOST_MISREAD = 0.95
# Beside one misreading counted, where the letter is not misread by habit.
_BASE_WEIGHT = 4.0
Choice = tuple[list[float], list[str]]
"""Rising sums, the last one infinite, and what each stands for."""

ANY = "\0"
"""Stands for any letter, drawn from the background."""

ELLIPSIS = "⋯"
"""Stands for two dots or more, and for the characters that mean as many."""

DOTS = ".·・⋯…"


def choice(weights: Iterable[tuple[str, float]]) -> Choice:
    """Return a table to draw from with `bisect`, from weights >= 0 of which one is above 0."""
    kept = [(what, weight) for what, weight in weights if weight > 0]
    sums = list(itertools.accumulate(weight for _, weight in kept))
    # The last sum is beyond every draw, whatever rounding did to it.
    return [*(value / sums[-1] for value in sums[:-1]), math.inf], [what for what, _ in kept]


def in_one_line(table: Choice) -> Choice:
    """Return the table with a space for each line break: a reading of one line has none."""
    return table[0], [what.replace("\n", " ") for what in table[1]]


def draw(table: Choice, uniform: float) -> str:
    """Draw from a table with a number in (0, 1)."""
    return table[1][bisect_right(table[0], uniform)]


class Shapes:
    """Look-alikes among the letters of the glyph table, likelier where the letter is frequent."""

    def __init__(self, glyphs: GlyphTable, seen: Mapping[str, int], temperature: float, frequency: float) -> None:
        self.temperature, self.frequency = temperature, frequency
        common = common_letters()
        self.letters = [c for c in glyphs.characters if c in seen or (c.isalnum() and (c < "\u4e00" or c in common))]
        self._vectors = glyphs.vectors[[glyphs.index[c] for c in self.letters]]
        self._row = {c: i for i, c in enumerate(self.letters)}
        self.logs = np.log(np.array([seen.get(c, 0) for c in self.letters], np.float32) + 0.5)

    def __contains__(self, letter: str) -> bool:
        return letter in self._row

    def neighbours(self, letter: str) -> list[tuple[str, float]]:
        """Return the likeliest look-alikes with their probabilities, best first; none for an unknown letter."""
        row = self._row.get(letter)
        if row is None:
            return []
        # Letter by letter, since the last bits of a product of matrices depend on its shape.
        similar = np.round(self._vectors @ self._vectors[row], 4)
        similar[row] = -1.0
        scores = similar / np.float32(self.temperature) + np.float32(self.frequency) * self.logs
        best = np.sort(np.argpartition(-scores, NEIGHBOURS)[:NEIGHBOURS])
        best = best[np.argsort(-scores[best], kind="stable")]
        weights = np.exp(scores[best].astype(np.float64) - float(scores[best[0]]))
        return [(self.letters[j], w) for j, w in zip(best.tolist(), (weights / weights.sum()).tolist(), strict=True)]

    def chances(
        self, pairs: Sequence[tuple[str, str]], temperatures: Sequence[float], exponents: Sequence[float]
    ) -> dict[tuple[float, float], npt.NDArray[np.float64]]:
        """Return for each temperature and exponent the probability of each reading as a look-alike of its letter."""
        known = [k for k, (c, r) in enumerate(pairs) if c in self._row and r in self._row]
        known.sort(key=lambda k: self._row[pairs[k][0]])
        found = {point: np.zeros(len(pairs)) for point in itertools.product(temperatures, exponents)}
        for start in range(0, len(known), _ROWS_AT_A_TIME):
            block = known[start : start + _ROWS_AT_A_TIME]
            letters, which = np.unique([self._row[pairs[k][0]] for k in block], return_inverse=True)
            columns = np.array([self._row[pairs[k][1]] for k in block])
            similar = np.round(self._vectors[letters] @ self._vectors.T, 4)
            similar[np.arange(len(letters)), letters] = -1.0
            for (temperature, exponent), chances in found.items():
                scores = similar / np.float32(temperature) + np.float32(exponent) * self.logs
                scores -= scores.max(1, keepdims=True)
                best = np.partition(scores, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
                here = scores[which, columns].astype(np.float64)
                chances[block] = np.where(here >= best[which, 0], np.exp(here), 0.0) / np.exp(best).sum(1)[which]
        return found

    @functools.cached_property
    def _groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        folded = [match_form(c) for c in self.letters] if len(self.letters) < 2 else _fold_all(self.letters)
        for letter, form in zip(self.letters, folded, strict=True):
            groups.setdefault(form, []).append(letter)
        return groups

    def variants(self, letter: str) -> list[str]:
        """Return the other forms of a letter, Simplified among them; none where it has none."""
        found = dict.fromkeys(convert(letter, variant) for variant in ("s", "tw", "hk"))
        found.update(dict.fromkeys(self._groups.get(match_form(letter), [])))
        return [c for c in found if c != letter and len(c) == 1]


def common_letters() -> frozenset[str]:
    """Return the first levels of Big5 and GB 2312: readers seldom know rarer ideographs."""
    found: set[str] = set()
    for encoding, highs in (("big5", range(0xA4, 0xC7)), ("gb2312", range(0xB0, 0xD8))):
        for high, low in itertools.product(highs, (*range(0x40, 0x7F), *range(0xA1, 0xFF))):
            found.update(bytes((high, low)).decode(encoding, "ignore"))
    return frozenset(c for c in found if "\u4e00" <= c <= "\u9fff")


def _fold_all(letters: list[str]) -> list[str]:
    folded = match_form("".join(letters))
    # One call is a thousand times faster; composing could change the number of characters.
    return list(folded) if len(folded) == len(letters) else [match_form(c) for c in letters]


class Tables:
    """What the channel looks up; filled as letters come."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._outcomes: dict[tuple[str, bool], Choice] = {}
        self._signs: dict[str, tuple[float, Choice, Choice | None]] = {}
        self._weights: dict[str, float] = {}
        p = parameters
        self._misread = {c: sum(counts.values()) for c, counts in p.readings.items()}
        self._mean = sum(self._misread.values()) / sum(p.seen.values())
        self.background = choice((c, float(n)) for c, n in sorted(p.seen.items()))
        self.alphabet = choice([*((c, float(n)) for c, n in sorted(p.alphabet.items())), (ANY, 1.0)])
        stray = choice((c, float(n)) for c, n in sorted(p.stray.items())) if p.stray else ([math.inf], [" "])
        self.stray = in_one_line(stray)
        self.joins = choice((c, n + 1.0) for c, n in {"": 0, " ": 0, "\n": 0, **p.joins}.items())
        self.merges = {parts: c for c, parts in sorted(p.splits.items(), reverse=True)}
        self._mean_sign = self._pool_signs()

    @functools.cached_property
    def shapes(self) -> Shapes:
        """The look-alikes; the glyph table is loaded here."""
        from caprag.glyphs import GlyphTable

        smoothing = self._parameters.smoothing
        return Shapes(GlyphTable.load(), self._parameters.seen, smoothing["temperature"], smoothing["frequency"])

    def weight(self, letter: str) -> float:
        """Return how much more often than the mean letter this one is misread, > 0: a gamma posterior mean."""
        found = self._weights.get(letter)
        if found is None:
            smoothing = self._parameters.smoothing
            shape, habit = smoothing["susceptibility"], smoothing["habit"]
            seen, misread = self._parameters.seen.get(letter, 0), float(self._misread.get(letter, 0))
            # A letter misread half the time has more than half an event each time.
            misread = -seen * math.log1p(-min(misread / seen, _MOST_MISREAD)) if misread and seen else misread
            own = (misread + shape) / (self._mean * seen + shape)
            found = self._weights[letter] = habit * own + 1.0 - habit
        return found

    def outcomes(self, letter: str, *, habit: bool = True) -> Choice:
        """Return what a misread letter becomes: ``""`` dropped, two letters split, `ANY` for any letter.

        Parameters
        ----------
        letter
            Any letter or digit.
        habit
            Whether it is misread as the pairs have it; else what was counted weighs no more than one misreading.
        """
        found = self._outcomes.get((letter, habit))
        if found is None:
            counted = self._parameters.readings.get(letter, {})
            scale = 1.0 if habit else 1.0 / max(sum(counted.values()), 1)
            weights = {what: n * scale for what, n in sorted(counted.items())}
            concentration = self._parameters.smoothing["concentration"] if habit else _BASE_WEIGHT
            for what, share in self.base(letter).items():
                weights[what] = weights.get(what, 0.0) + concentration * share
            found = self._outcomes[letter, habit] = choice(weights.items())
        return found

    def base(self, letter: str) -> dict[str, float]:
        """Return the base probabilities of a misread letter's outcomes, which add up to 1."""
        p = self._parameters
        parts = {
            "drop": {"": 1.0},
            "split": {p.splits[letter]: 1.0} if letter in p.splits else {},
            "part": dict.fromkeys(p.splits.get(letter, ""), 0.5),
            "glyph": dict(self.shapes.neighbours(letter)),
            "variant": {c: 1.0 / len(v) for v in [self.shapes.variants(letter)] for c in v},
            "background": {ANY: 1.0},
        }
        possible = sum(p.base[name] for name, part in parts.items() if part)
        found: dict[str, float] = {}
        for name, part in parts.items():
            for what, share in part.items():
                found[what] = found.get(what, 0.0) + share * p.base[name] / possible
        return found

    def sign(self, sign: str) -> tuple[float, Choice, Choice | None]:
        """Return how often a sign is misread, what it is read as where it is not, and where it is.

        An ellipsis has several right readings; any other sign only itself.
        """
        found = self._signs.get(sign)
        if found is None:
            p = self._parameters
            key = sign if sign in p.signs else unicodedata.normalize("NFKC", sign)
            weights = {what: float(n) for what, n in sorted(p.signs.get(key, {}).items())}
            if key != sign:
                weights[sign] = weights.pop(key, 0.0)
            for what, share in self._mean_sign.items():
                read = sign if what == ANY else what
                weights[read] = weights.get(read, 0.0) + p.smoothing["signs"] * share
            right = {sign} if sign != ELLIPSIS else {sign, "…", "..."}
            well = [(what, weight) for what, weight in weights.items() if what in right]
            ill = [(what, weight) for what, weight in weights.items() if what not in right and weight > 0]
            rate = sum(weight for _, weight in ill) / sum(weights.values())
            wrong = in_one_line(choice(ill)) if ill else None
            found = self._signs[sign] = (rate, choice(well), wrong)
        return found

    def _pool_signs(self) -> dict[str, float]:
        """How the mean sign is read: kept (`ANY`), dropped, or as a space."""
        counts = {ANY: 1.0, "": 0.5, " ": 0.5}
        for sign, readings in self._parameters.signs.items():
            if sign in (" ", "\n", ELLIPSIS):
                continue
            for what, n in readings.items():
                key = ANY if what == sign else what if what in ("", " ") else None
                if key is not None:
                    counts[key] += n
        total = sum(counts.values())
        return {what: n / total for what, n in counts.items()}
