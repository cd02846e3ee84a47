"""What recognizers misread, counted: which letters they take for each other, and how often what they read is wrong.

Shapes say what looks alike; counts say what readers in fact mix up, for a habit of theirs (幹 for 乾) or a shape that
they see otherwise. `scripts/count_confusions.py` counts. It knows no more of a text than its letters.
"""

from __future__ import annotations

import functools
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from caprag.errors import ModelError
from caprag.glyphs import GlyphTable
from caprag.noise.alignment import align
from caprag.text import normalize

_SHIPPED = Path(__file__).with_name("confusions.json")
FORMAT = 1

_WORTH = 20.0
"""Readings of a letter that the mean of all is worth."""
_MOST_MISREAD = 2.0


@dataclass(frozen=True)
class Confusions:
    """Counts of letters and digits.

    Attributes
    ----------
    pairs
        Two characters, the smaller first, to how often one was read for the other.
    read
        Letter to how often it was read.
    wrong
        Letter to how often it was read for another, or for nothing.
    """

    pairs: Counter[str] = field(default_factory=Counter)
    read: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    @classmethod
    def count(cls, pairs: Iterable[tuple[str, str]]) -> Confusions:
        """Count what readings, each with its truth, show; a reading without a letter shows nothing.

        Examples
        --------
        >>> counts = Confusions.count([("乾什麼", "幹什麼"), ("幹嘛呢", "乾嘛呢"), ("妳好", "你好嗎")])
        >>> counts.pairs, counts.read["乾"], counts.wrong["乾"]
        (Counter({'乾幹': 2, '你妳': 1}), 1, 1)
        """
        found = cls()
        for reading, truth in pairs:
            letters = [c for c in normalize(reading) if c.isalnum()]
            found.read.update(letters)
            if not letters or normalize(reading) == normalize(truth):
                continue
            for fate in align(normalize(truth), normalize(reading)):
                found.wrong.update(c for c in "".join(fate.before) if c.isalnum())
                if fate.read != fate.truth and fate.read.isalnum():
                    found.wrong[fate.read] += 1
                    if fate.truth.isalnum():
                        found.pairs["".join(sorted((fate.read, fate.truth)))] += 1
        return found

    def add(self, other: Confusions) -> None:
        """Add what another has counted; before anything is asked."""
        self.pairs.update(other.pairs)
        self.read.update(other.read)
        self.wrong.update(other.wrong)

    @functools.cached_property
    def _mean(self) -> float:
        return self.wrong.total() / max(1, self.read.total())

    def misread(self, reading: str) -> float:
        """Return how many letters of a reading are expected to be wrong, in [0, 2].

        It is the sum of -ln(1 - p) over its letters, where p is the share of times that a letter was read wrongly,
        drawn towards the mean of all as if each had been read 20 times at that.
        """
        chances = (
            (self.wrong[c] + _WORTH * self._mean) / (self.read[c] + _WORTH) for c in normalize(reading) if c.isalnum()
        )
        return min(math.fsum(-math.log1p(-min(chance, 1 - 1e-9)) for chance in chances), _MOST_MISREAD)


def save_confusions(
    path: str | PathLike[str], sources: Mapping[str, Confusions], provenance: Mapping[str, object]
) -> None:
    """Write counts, by what they were counted in, as JSON."""
    stored = {
        name: {kind: dict(sorted(getattr(counts, kind).items())) for kind in ("pairs", "read", "wrong")}
        for name, counts in sources.items()
    }
    text = json.dumps({"format": FORMAT, "provenance": dict(provenance), "sources": stored}, ensure_ascii=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def load_confusions(path: str | PathLike[str] | None = None, *, without: tuple[str, ...] = ()) -> Confusions:
    """Load counts; kept for the next call, so do not write into them.

    Parameters
    ----------
    path
        A file that `save_confusions` wrote; ``None`` takes the shipped one.
    without
        Sources that are left out, so that what was counted in a text does not help to correct it in a test; names of
        none are passed over (`confusion_sources`).

    Raises
    ------
    ModelError
        Where the file is missing or holds no counts of this version.
    """
    return _total(_SHIPPED if path is None else Path(path), without)


def confusion_sources(path: str | PathLike[str] | None = None) -> tuple[str, ...]:
    """Return the names of what was counted; see `load_confusions`."""
    return tuple(_sources(_SHIPPED if path is None else Path(path)))


@functools.cache
def _total(place: Path, without: tuple[str, ...]) -> Confusions:
    total = Confusions()
    for name, counts in _sources(place).items():
        if name not in without:
            total.add(counts)
    return total


@functools.cache
def _sources(place: Path) -> dict[str, Confusions]:
    try:
        stored = json.loads(place.read_text(encoding="utf-8"))
        if stored["format"] != FORMAT:
            raise ModelError(f"{place}: has format {stored['format']}, this caprag reads {FORMAT}; count again")
        return {name: _counts(name, counts) for name, counts in stored["sources"].items()}
    except OSError as error:
        raise ModelError(f"{place}: can't be read ({error.strerror}); name a file of counts") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{place}: holds no counts ({error}); count again") from error


def _counts(name: str, stored: Mapping[str, Mapping[str, int]]) -> Confusions:
    for kind, length in (("pairs", 2), ("read", 1), ("wrong", 1)):
        if any(len(key) != length or type(n) is not int or n < 1 for key, n in stored[kind].items()):
            raise ValueError(f"{name} has {kind} that are no counts of characters")
    return Confusions(*(Counter(stored[kind]) for kind in ("pairs", "read", "wrong")))


@functools.cache
def load_glyphs(without: tuple[str, ...] = ()) -> GlyphTable:
    """Return the shapes of characters with what was counted; see `load_confusions`."""
    return GlyphTable.load().counted(load_confusions(without=without).pairs)
