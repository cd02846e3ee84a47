"""Character errors of readings against references, with intervals.

Every figure is a projection of per-line counts, so that any two can be compared and resampled together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from caprag.text import Characters, check_characters, countable
from caprag.types import Report


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Character errors, line by line; all tuples have one entry a line.

    Attributes
    ----------
    substitutions, deletions, insertions
        Edits of a shortest way from the reference to the reading: characters replaced, lost, invented.
    lengths
        Characters of the reference.
    characters
        Which characters were counted.
    """

    substitutions: tuple[int, ...]
    deletions: tuple[int, ...]
    insertions: tuple[int, ...]
    lengths: tuple[int, ...]
    characters: Characters

    @property
    def edits(self) -> tuple[int, ...]:
        """Levenshtein distance of each line."""
        return tuple(map(sum, zip(self.substitutions, self.deletions, self.insertions, strict=True)))

    @property
    def cer(self) -> float:
        """Character error rate: all edits over all reference characters, >= 0; ``nan`` without a character."""
        return _rate(sum(self.edits), sum(self.lengths))

    @property
    def mean_cer(self) -> float:
        """Mean over lines of edits / reference length; an empty reference counts 0 if read as empty, else 1."""
        return _rate(
            sum(_rate(e, n) if n else float(e > 0) for e, n in zip(self.edits, self.lengths, strict=True)),
            len(self.lengths),
        )

    @property
    def mean_edits(self) -> float:
        """Mean edits a line, the "Levenshtein mean" of caption-reading competitions."""
        return _rate(sum(self.edits), len(self.lengths))

    @property
    def wrong_lines(self) -> int:
        """Number of lines with an edit."""
        return sum(e > 0 for e in self.edits)

    def __add__(self, other: ErrorCounts) -> ErrorCounts:
        if self.characters != other.characters:
            raise ValueError(f"counts of {self.characters!r} and {other.characters!r} characters don't add up")
        return ErrorCounts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.lengths + other.lengths,
            self.characters,
        )


def count_errors(
    readings: Sequence[str], references: Sequence[str], *, characters: Characters = "letters"
) -> ErrorCounts:
    """Count character errors line by line.

    Parameters
    ----------
    readings
        What was read or answered.
    references
        The truth, as many.
    characters
        Which characters count after `caprag.text.normalize`: ``"letters"`` (letters and digits) or ``"all"`` (all but
        white space).

    Returns
    -------
    ErrorCounts
        Of one shortest sequence of edits a line.

    Raises
    ------
    ValueError
        Where the lists differ in length or `characters` is unknown.

    Examples
    --------
    >>> counts = count_errors(["在開玩笑", "是的。"], ["妳在開玩笑", "是嗎?"])
    >>> counts.deletions, counts.substitutions, round(counts.cer, 4), counts.mean_edits
    ((1, 0), (0, 1), 0.2857, 1.0)
    """
    if len(readings) != len(references):
        raise ValueError(f"there are {len(readings)} readings and {len(references)} references; they must be as many")
    check_characters(characters)
    table: dict[str, list[int]] = {"replace": [], "delete": [], "insert": []}
    lengths = []
    for reading, reference in zip(readings, references, strict=True):
        truth = countable(reference, characters)
        operations = [op.tag for op in Levenshtein.editops(truth, countable(reading, characters))]
        for tag, column in table.items():
            column.append(operations.count(tag))
        lengths.append(len(truth))
    return ErrorCounts(
        tuple(table["replace"]), tuple(table["delete"]), tuple(table["insert"]), tuple(lengths), characters
    )


def cer(readings: Sequence[str], references: Sequence[str], *, characters: Characters = "letters") -> float:
    """Return the character error rate over all characters; see `count_errors` for the arguments.

    Examples
    --------
    >>> cer(["在開玩笑"], ["妳在開玩笑"])
    0.2
    """
    return count_errors(readings, references, characters=characters).cer


def cer_report(counts: ErrorCounts, *, samples: int = 1000, seed: int = 0) -> Report:
    """Return the character error rate with its 95 % interval over lines.

    Parameters
    ----------
    counts
        Character errors line by line.
    samples, seed
        See `bootstrap`.

    Returns
    -------
    Report
        The rate over all characters, its interval, and what is needed to measure it again.
    """
    edits, lengths = np.array(counts.edits), np.array(counts.lengths)

    def rate(lines: Sequence[int]) -> float:
        rows = np.asarray(lines)
        return _rate(float(edits[rows].sum()), float(lengths[rows].sum()))

    signature = f"characters={counts.characters} form=NFKC"
    return bootstrap("cer", rate, len(edits), samples=samples, seed=seed, signature=signature)


def mean_edits(readings: Sequence[str], references: Sequence[str], *, characters: Characters = "all") -> float:
    """Return the mean Levenshtein distance a line; see `count_errors` for the arguments.

    Examples
    --------
    >>> mean_edits(["在開玩笑", "是嗎?"], ["妳在開玩笑", "是嗎"])
    1.0
    """
    return count_errors(readings, references, characters=characters).mean_edits


def bootstrap(
    name: str,
    statistic: Callable[[Sequence[int]], float],
    lines: int,
    *,
    samples: int = 1000,
    seed: int = 0,
    signature: str = "",
) -> Report:
    """Measure a figure with its 95 % interval by resampling lines.

    Parameters
    ----------
    name
        The metric's name.
    statistic
        From line numbers (with repeats) to the figure over these lines.
    lines
        Number of lines, >= 1.
    samples
        Number of resamplings, >= 1.
    seed
        Of the resampling.
    signature
        What else is needed to measure it again.

    Returns
    -------
    Report
        The figure over all lines, and the 2.5th and 97.5th percentile over the resamplings.

    Raises
    ------
    ValueError
        For no lines or no samples.

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval).
    """
    if lines < 1 or samples < 1:
        raise ValueError(f"lines is {lines} and samples is {samples}; both must be at least 1")
    generator = np.random.default_rng(seed)
    values = [statistic(generator.integers(0, lines, lines).tolist()) for _ in range(samples)]
    low, high = np.percentile(values, [2.5, 97.5])
    line = f"lines={lines} bootstrap={samples} seed={seed}"
    return Report(name, statistic(range(lines)), (float(low), float(high)), f"{signature} {line}".strip())


def _rate(count: float, total: float) -> float:
    return count / total if total else float("nan")
