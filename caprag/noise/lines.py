"""A block of lines and their readings: what can be done for all letters at once, then the misread lines one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from caprag.noise.draws import uniforms
from caprag.noise.parameters import Parameters
from caprag.noise.rates import misread_rate_quantiles, no_event, rate_quantiles
from caprag.noise.tables import ANY, DOTS, ELLIPSIS, Tables, draw

LINE = 0xFFFFFFFF
"""The place of draws that belong to a whole line."""

_FEWEST_CUT = 2
_MOST_CUT_SHARE = 0.5
_NO_MORE = 1e-9

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Lines:
    """Some lines, all of whose characters lie in one row of arrays.

    Parameters
    ----------
    texts
        At least one.
    tables, parameters
        The channel's.
    seed, start
        Of the draws; number of the first line.
    """

    def __init__(self, texts: Sequence[str], tables: Tables, parameters: Parameters, seed: int, start: int) -> None:
        self._texts, self._tables, self._parameters = texts, tables, parameters
        self._seed, self._numbers = seed, np.arange(start, start + len(texts))
        lengths = np.array([len(text) for text in texts])
        codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
        self._starts = np.cumsum(lengths) - lengths
        self._line = np.repeat(np.arange(len(texts)), lengths)
        self._place = np.arange(len(codes)) - self._starts[self._line]
        distinct, self._kind = np.unique(codes, return_inverse=True)
        self._characters = [chr(c) for c in distinct.tolist()]
        self._is_letter = np.array([c.isalnum() for c in self._characters], bool)[self._kind]
        self._letters = np.bincount(self._line[self._is_letter], minlength=len(texts))
        self._weigh()

    def _weigh(self) -> None:
        """Weigh each letter for being misread, and for having letters put before it (behind it too, at the end)."""
        p = self._parameters
        weights = np.array([self._tables.weight(c) if c.isalnum() else 0.0 for c in self._characters])
        index = np.flatnonzero(self._is_letter)
        lines = self._line[index]
        new = np.diff(lines, prepend=-1) > 0
        first, last = index[new], index[np.roll(new, -1)]
        read = weights[self._kind]
        read[first] *= p.places["first"]
        read[last] *= p.places["last"]
        gap = np.full(len(read), p.gaps["after_sign"])
        gap[1:][self._is_letter[:-1]] = p.gaps["inner"]
        gap[first] = p.gaps["start"]
        gap[last] += p.gaps["end"]
        self._behind = np.zeros(len(read))
        self._behind[last] = p.gaps["end"] / np.maximum(gap[last], _NO_MORE)
        share = p.insertion["share"]
        self._read = np.where(self._is_letter, (1.0 - share) * read, 0.0)
        self._weight = np.where(self._is_letter, self._read + share * gap, 0.0)
        # Sums go line by line, in order, and so do not depend on the block.
        self.exposure: Floats = np.bincount(self._line, self._weight, len(self._texts)).astype(np.float64)
        # Of the misreadings of a letter, those that it shares with all others.
        self._common = np.zeros(len(read))

    def read(self, strength: float | None, *, misread_only: bool = False) -> list[str]:
        """Return a reading of each line (see `NoiseChannel.corrupt`)."""
        p, whole = self._parameters, np.full(len(self._texts), LINE)
        rate_draw, left_draw, right_draw, same_draw = uniforms(self._seed, self._numbers, whole, 0)
        left_more, right_more, how_draw, first_draw = uniforms(self._seed, self._numbers, whole, 1)
        places = self._shared_places(same_draw < p.single["repeat"])
        draws = uniforms(self._seed, self._numbers[self._line], places, 2)
        cuts = (p.truncation["left"], p.truncation["right"])
        if strength is not None:
            events = float(np.interp(strength, [y for _, y in p.strengths], [x for x, _ in p.strengths]))
            mean = (1.0 - p.rate["clean"]) * p.rate["mean"]
            cuts = (min(cuts[0] * events / mean, 0.25), min(cuts[1] * events / mean, 0.25))
            rates = events * rate_quantiles(0.0, p.single["spread"], 1.0, rate_draw)
            self._flatten(max(0.0, 1.0 - mean / max(events, _NO_MORE)))
        else:
            rates = rate_quantiles(p.rate["clean"], p.rate["shape"], p.rate["mean"], rate_draw)
        left, right = left_draw < cuts[0], right_draw < cuts[1]
        if misread_only:
            flagged, left, right = self._misread(rates, rate_draw, how_draw, first_draw, draws[0], cuts)
        else:
            flagged = draws[0] < -np.expm1(-rates[self._line] * self._weight)
        lost_left = self._cut(left, left_more)
        lost_right = self._cut(right, right_more)
        return self._write(flagged, places, draws, lost_left, lost_right, strength)

    def _flatten(self, share: float) -> None:
        """Let a share of the misreadings fall on all letters alike, and give each line the mean weight 1.

        Where the picture is worse than those of the pairs, it is so for every letter.
        """
        common = share * (1.0 - self._parameters.insertion["share"]) * self._is_letter
        gap = self._weight - self._read
        read = (1.0 - share) * self._read + common
        scale = self._letters / np.maximum(np.bincount(self._line, read + gap, len(self._texts)), _NO_MORE)
        self._read, self._weight = read * scale[self._line], (read + gap) * scale[self._line]
        self._common = common / np.maximum(read, _NO_MORE)

    def _shared_places(self, shared: Flags) -> npt.NDArray[np.int64]:
        """Return the place whose draws each character takes: where it stood first, in lines where repeats are alike."""
        key = self._line * len(self._characters) + self._kind
        _, index, inverse = np.unique(key, return_index=True, return_inverse=True)
        alike = shared[self._line] | ~self._is_letter
        self._again = np.zeros(len(key), bool)
        self._again[alike] = (index[inverse] != np.arange(len(key)))[alike]
        found: npt.NDArray[np.int64] = np.where(alike, self._place[index[inverse]], self._place)
        return found

    def _misread(
        self,
        rates: Floats,
        rate_draw: Floats,
        how_draw: Floats,
        first_draw: Floats,
        draws: Floats,
        cuts: tuple[float, float],
    ) -> tuple[Flags, Flags, Flags]:
        """Draw events and lost ends of lines that have one of them at least."""
        p = self._parameters
        cut = np.where(self._letters > 1, cuts[0] + cuts[1], 0.0)
        events = 1.0 - no_event(p.rate, self.exposure)
        truncated = cut / np.maximum(cut + (1.0 - cut) * events, _NO_MORE)
        ends = how_draw < truncated
        left = ends & (how_draw * (cuts[0] + cuts[1]) < truncated * cuts[0])
        given = misread_rate_quantiles(p.rate["shape"], p.rate["mean"], self.exposure, rate_draw)
        hazards = np.where(ends, rates, given)[self._line] * self._weight
        flagged = draws < -np.expm1(-hazards)
        ordered = hazards.tolist()
        bounds = [*self._starts.tolist(), len(ordered)]
        for i in np.flatnonzero(~ends & (self._letters > 0)).tolist():
            sums = list(itertools.accumulate(ordered[bounds[i] : bounds[i + 1]]))
            aim = -math.log1p(first_draw[i] * math.expm1(-sums[-1]))
            # The first event is drawn; before it there is none, behind it all is as ever.
            j = next((j for j, total in enumerate(sums) if total >= aim and total > 0), len(sums) - 1)
            while not self._is_letter[bounds[i] + j]:
                j -= 1
            flagged[bounds[i] : bounds[i] + j] = False
            flagged[bounds[i] + j] = True
        return flagged, left, ends & ~left

    def _cut(self, cut: Flags, more_draw: Floats) -> npt.NDArray[np.int64]:
        """Return how many letters each line loses at an end: two and geometrically more, at most half of them."""
        more = self._parameters.truncation["more"]
        further = np.floor(np.log(more_draw) / math.log(min(max(more, _NO_MORE), 1 - _NO_MORE))).astype(np.int64)
        most = (self._letters * _MOST_CUT_SHARE).astype(np.int64)
        return np.where(cut, np.minimum(_FEWEST_CUT + further, most), 0)

    def _signs(self, draws: Floats, strength: float | None) -> dict[int, str]:
        """Return what is read for the signs that are not read as they are, and for ellipses: index to text."""
        if self._is_letter.all():
            return {}
        dot = np.array([c in DOTS for c in self._characters], bool)[self._kind]
        further = dot.copy()
        further[1:] &= dot[:-1]
        further &= self._place > 0
        one = np.array([c in "⋯…" for c in self._characters], bool)[self._kind]
        ellipsis = dot & ~further & (np.append(further[1:], False) | one)
        single = ~self._is_letter & ~further & ~ellipsis
        signs = [None if c.isalnum() else self._tables.sign(c) for c in self._characters]
        rate = np.array([0.0 if s is None else s[0] if strength is None or s[2] is None else strength for s in signs])
        dots = self._tables.sign(ELLIPSIS)
        dots_rate = dots[0] if strength is None else strength
        found: dict[int, str] = {}
        for i in np.flatnonzero(single & (draws[0] < rate[self._kind])).tolist():
            sign = signs[self._kind[i]]
            if sign is not None and sign[2] is not None:
                found[i] = draw(sign[2], draws[1, i])
        for i in np.flatnonzero(ellipsis).tolist():
            wrong = dots[2] if draws[0, i] < dots_rate else None
            found[i] = draw(wrong or dots[1], draws[1, i])
            end = i + 1
            while end < len(further) and further[end]:
                found[end] = ""
                end += 1
        return found

    def _write(
        self,
        flagged: Flags,
        places: npt.NDArray[np.int64],
        draws: Floats,
        lost_left: npt.NDArray[np.int64],
        lost_right: npt.NDArray[np.int64],
        strength: float | None,
    ) -> list[str]:
        """Put the events into the texts."""
        p = self._parameters
        at = np.flatnonzero(flagged & self._is_letter)
        numbers = self._numbers[self._line[at]]
        events = np.concatenate([uniforms(self._seed, numbers, places[at], purpose) for purpose in (4, 5)]).T.tolist()
        reads = (np.array([e[0] for e in events]) * self._weight[at] < self._read[at]).tolist()
        stray = self._is_letter & (draws[3] < p.single["stray"])
        changes: dict[int, str] = self._signs(draws, strength)
        for i in np.flatnonzero(stray).tolist():
            changes[i] = self._characters[self._kind[i]] + draw(self._tables.stray, float(draws[1, i]))
        touched = np.zeros(len(self._texts), bool)
        touched[self._line[at]] = True
        touched[self._line[list(changes)]] = True
        touched |= (lost_left > 0) | (lost_right > 0)
        starts = self._starts.tolist()
        per_line: dict[int, list[tuple[int, list[float], bool]]] = {}
        for i, line, uniform, read in zip(at.tolist(), self._line[at].tolist(), events, reads, strict=True):
            per_line.setdefault(line, []).append((i - starts[line], uniform, read))
        per_line_changes: dict[int, list[tuple[int, str]]] = {}
        for i, what in changes.items():
            line = int(self._line[i])
            per_line_changes.setdefault(line, []).append((i - starts[line], what))
        found = list(self._texts)
        for line in np.flatnonzero(touched).tolist():
            parts = list(self._texts[line])
            for j, what in per_line_changes.get(line, ()):
                parts[j] = what
            if line in per_line:
                self._misread_letters(line, parts, per_line[line])
            found[line] = self._finish(line, parts, int(lost_left[line]), int(lost_right[line]))
        return found

    def _misread_letters(self, line: int, parts: list[str], events: Sequence[tuple[int, list[float], bool]]) -> None:
        """Replace what the events touch."""
        p, tables, text = self._parameters, self._tables, self._texts[line]
        start = int(self._starts[line])
        again, behind_share, common = self._again, self._behind, self._common
        done = -1
        for j, (_, which, other, more, *rest), read in events:
            if j <= done:
                continue
            letter, behind = text[j], parts[j][1:]
            if not read:
                if not again[start + j]:
                    parts[j] = self._insert(letter, which, other, more, rest, float(behind_share[start + j])) + behind
                continue
            pair = text[j : j + 2]
            if pair in tables.merges and other < p.single["merge"]:
                parts[j : j + 2] = [tables.merges[pair], ""]
                done = j + 1
                continue
            # What falls on all letters alike is no habit of this letter.
            habit = rest[0] >= common[start + j]
            what = draw(tables.outcomes(letter, habit=habit), which)
            parts[j] = (draw(tables.background, other) if what == ANY else what) + behind
            done = j
            while what == "" and more < p.single["drop_more"] and done + 1 < len(text) and text[done + 1].isalnum():
                more /= p.single["drop_more"]
                done += 1
                parts[done] = ""

    def _insert(
        self, letter: str, which: float, other: float, more: float, rest: Sequence[float], behind: float
    ) -> str:
        """Return a letter with others before or behind it."""
        p = self._parameters
        if which < p.insertion["double"]:
            put = letter
        else:
            put = self._invented((which - p.insertion["double"]) / (1.0 - p.insertion["double"]), other)
            for uniform in rest[:2]:
                if more >= p.insertion["more"]:
                    break
                more /= p.insertion["more"]
                put += self._invented(uniform, (other + uniform) % 1.0)
        space = " " if rest[2] < p.insertion["space"] else ""
        return f"{letter}{space}{put}" if rest[3] < behind else f"{put}{space}{letter}"

    def _invented(self, which: float, other: float) -> str:
        what = draw(self._tables.alphabet, which)
        return draw(self._tables.background, other) if what == ANY else what

    def _finish(self, line: int, parts: list[str], lost_left: int, lost_right: int) -> str:
        """Take off the lost ends, and make sure that a letter is left."""
        text = self._texts[line]
        if lost_left or lost_right:
            letters = [j for j, c in enumerate(text) if c.isalnum()]
            if lost_left:
                parts[: letters[lost_left - 1] + 1] = [""] * (letters[lost_left - 1] + 1)
            if lost_right:
                end = letters[-lost_right]
                parts[end:] = [""] * (len(parts) - end)
        reading = "".join(parts).strip(" \n")
        while "  " in reading:
            reading = reading.replace("  ", " ")
        # Most readings show a letter at once.
        if not reading[:1].isalnum() and self._letters[line] and not any(c.isalnum() for c in reading):
            kept = [j for j, c in enumerate(text) if c.isalnum()]
            return text[kept[lost_left if lost_left < len(kept) else 0]]
        return reading
