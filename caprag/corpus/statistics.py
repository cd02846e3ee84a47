"""Lengths and characters of a corpus, as a table and as a picture."""

from __future__ import annotations

import io
import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from caprag.corpus.output import writing
from caprag.errors import CapragError, require

CharacterClass = Literal["Han", "kana", "Latin", "digits", "punctuation", "other"]
"""Han ideographs; hiragana, katakana and bopomofo; Latin letters; numbers; punctuation and symbols; the rest."""

_LINES_AT_A_TIME = 1 << 14


@dataclass(frozen=True, slots=True)
class CorpusStatistics:
    """How long the lines of a corpus are, and of which characters.

    Attributes
    ----------
    lengths
        Number of lines by their length in characters, ascending; spaces and marks count.
    characters
        Number of occurrences by character, the most frequent first, equals by code point; without white space.
    """

    lengths: Mapping[int, int]
    characters: Mapping[str, int]

    @property
    def lines(self) -> int:
        """Number of lines."""
        return sum(self.lengths.values())

    @property
    def total(self) -> int:
        """Number of characters without white space."""
        return sum(self.characters.values())

    @property
    def mean(self) -> float:
        """Mean length, in characters; nan for an empty corpus."""
        return (
            sum(length * count for length, count in self.lengths.items()) / self.lines if self.lines else float("nan")
        )

    def percentile(self, percent: float) -> int:
        """Return the least length that so many per cent of the lines do not exceed; 0 for an empty corpus.

        Parameters
        ----------
        percent
            In [0, 100]; 50 is the (lower) median.
        """
        if not 0 <= percent <= 100:
            raise ValueError(f"percent is {percent}; 0 to 100 is wanted")
        for length, passed in zip(self.lengths, itertools.accumulate(self.lengths.values()), strict=True):
            if passed * 100 >= percent * self.lines:
                return length
        return 0

    def rare(self, below: int) -> int:
        """Return the number of characters that occur less often than `below` times."""
        return sum(count < below for count in self.characters.values())

    def coverage(self, percent: float) -> int:
        """Return how many of the most frequent characters make so many per cent of all."""
        if not 0 <= percent <= 100:
            raise ValueError(f"percent is {percent}; 0 to 100 is wanted")
        passed = 0
        for number, count in enumerate(self.characters.values()):
            if passed * 100 >= percent * self.total:
                return number
            passed += count
        return len(self.characters)

    def shares(self) -> dict[CharacterClass, float]:
        """Return the share of each class in all characters, in [0, 1]."""
        counts: dict[CharacterClass, int] = dict.fromkeys(get_args(CharacterClass), 0)
        for character, count in self.characters.items():
            counts[character_class(character)] += count
        return {name: count / max(1, self.total) for name, count in counts.items()}

    def __str__(self) -> str:
        lengths = "  ".join(f"{p} % {self.percentile(p)}" for p in (5, 25, 50, 75, 95))
        coverage = "  ".join(f"{p} % {self.coverage(p)}" for p in (90, 99, 99.9))
        shares = "  ".join(f"{name} {share:.2%}" for name, share in self.shares().items() if share)
        rows = [
            ("lines", f"{self.lines}"),
            ("length", f"mean {self.mean:.2f}  {lengths}  longest {max(self.lengths, default=0)}"),
            ("characters", f"{self.total}, {len(self.characters)} distinct"),
            ("rare", f"once {self.rare(2)}  below 5 times {self.rare(5)}"),
            ("coverage", f"{coverage} of the characters distinct"),
            ("classes", shares or "none"),
            ("most frequent", " ".join(itertools.islice(self.characters, 20))),
        ]
        table = [f"{name:<15}{value}" for name, value in rows]
        table += ["", f"{'length':>6} {'lines':>10} {'share':>7}"]
        most = max(self.lengths.values(), default=1)
        table += [
            f"{length:>6} {count:>10} {count / self.lines:>7.2%} {'#' * round(40 * count / most)}".rstrip()
            for length, count in self.lengths.items()
        ]
        return "\n".join(table)


def character_class(character: str) -> CharacterClass:
    """Return the class of one character.

    Examples
    --------
    >>> [character_class(c) for c in "裡ツㄅé7，가"]
    ['Han', 'kana', 'kana', 'Latin', 'digits', 'punctuation', 'other']
    """
    code, category = ord(character), unicodedata.category(character)
    if 0x3400 <= code < 0xA000 or 0xF900 <= code < 0xFB00 or 0x20000 <= code < 0x323B0 or code in (0x3005, 0x3007):
        return "Han"
    if category[0] in "PSZ":
        return "punctuation"
    if 0x3040 <= code < 0x3130 or 0x31A0 <= code < 0x3200:
        return "kana"
    if category[0] == "N":
        return "digits"
    if category[0] == "L" and "LATIN" in unicodedata.name(character, ""):
        return "Latin"
    return "other"


class StatisticsCounter:
    """Counts lines as they pass."""

    def __init__(self) -> None:
        self._lengths: Counter[int] = Counter()
        self._codes: Counter[int] = Counter()

    def add(self, lines: list[str]) -> None:
        """Count some lines."""
        self._lengths.update(_counts(np.fromiter(map(len, lines), np.uint32, len(lines))))
        self._codes.update(_counts(np.frombuffer("".join(lines).encode("utf-32-le", "surrogatepass"), np.uint32)))

    def result(self) -> CorpusStatistics:
        """Return what has been counted."""
        ranked = sorted(self._codes.items(), key=lambda item: (-item[1], item[0]))
        characters = {chr(code): count for code, count in ranked}
        return CorpusStatistics(
            dict(sorted(self._lengths.items())), {c: n for c, n in characters.items() if not c.isspace()}
        )


def _counts(values: npt.NDArray[np.uint32]) -> dict[int, int]:
    counted = np.bincount(values)
    present = np.flatnonzero(counted)
    return dict(zip(present.tolist(), counted[present].tolist(), strict=True))


def corpus_statistics(lines: Iterable[str]) -> CorpusStatistics:
    """Count the lengths and characters of lines.

    Parameters
    ----------
    lines
        The lines, without their breaks; drawn a few at a time.

    Examples
    --------
    >>> statistics = corpus_statistics(["你好嗎", "好啊"])
    >>> statistics.mean, statistics.percentile(50), dict(statistics.characters)
    (2.5, 2, {'好': 2, '你': 1, '啊': 1, '嗎': 1})
    """
    counter = StatisticsCounter()
    source = iter(lines)
    while block := list(itertools.islice(source, _LINES_AT_A_TIME)):
        counter.add(block)
    return counter.result()


def draw_statistics(statistics: CorpusStatistics, path: str | PathLike[str]) -> None:
    """Draw the lengths and the frequency of each character by its rank.

    Parameters
    ----------
    statistics
        What to draw; labels are English, so that any font will do.
    path
        Picture to write, png.

    Raises
    ------
    MissingDependencyError
        Where matplotlib is not installed.
    CapragError, OSError
        Where the picture can't be written.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise CapragError(f"{path}: has the suffix {path.suffix!r}; draw to .png")
    # A figure without pyplot: nothing global, no display.
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.bar(list(statistics.lengths), list(statistics.lengths.values()), width=0.9)
    left.set(title=f"{statistics.lines} lines, mean length {statistics.mean:.2f}", xlabel="characters", ylabel="lines")
    counts = list(statistics.characters.values())
    if counts:
        right.loglog(range(1, len(counts) + 1), counts)
    right.set(title=f"{len(counts)} distinct characters", xlabel="rank", ylabel="occurrences")
    right.grid(visible=True, which="major", alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    with writing(path) as stream:
        stream.write(drawn.getvalue())
