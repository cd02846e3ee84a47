"""Figures that are made of sums over items: their value, their interval, and whether two systems differ.

BLEU of a corpus is no mean of BLEUs: it is computed from counts that are summed first, and so are METEOR and the
character error rate. What is resampled, and exchanged between two systems, are therefore items with their counts. A
mean is the plainest of such figures. Knows nothing of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caprag.evaluation.significance import PairedTest, resampled_sums

Array = npt.NDArray[np.float64]

_CELLS = 1 << 22  # numbers drawn at a time: 32 MB


@dataclass(frozen=True, slots=True, eq=False)
class Totals:
    """What a figure is made of.

    Attributes
    ----------
    counts
        Shape (items, columns), float64, finite: what is summed.
    score
        From sums, shape (rows, columns), to figures, shape (rows,); ``nan`` where the sums say nothing.
    values
        The figure of each item by itself.
    higher
        Whether more is better.
    """

    counts: Array
    score: Callable[[Array], Array]
    values: tuple[float, ...]
    higher: bool = True

    @property
    def value(self) -> float:
        """The figure over all items."""
        return float(self.score(self.counts.sum(axis=0, keepdims=True))[0])

    def interval(self, *, samples: int, seed: int) -> tuple[float, float]:
        """Return the 2.5th and the 97.5th percentile over resamplings of the items.

        The resamplings are those of `caprag.evaluation.bootstrap` with the same seed.
        """
        figures = self.score(resampled_sums(self.counts, samples=samples, seed=seed))
        low, high = np.nanpercentile(figures, [2.5, 97.5])
        return float(low), float(high)


def mean_of(values: Sequence[float] | Array, *, higher: bool = True) -> Totals:
    """Return the totals whose figure is the mean of values.

    Examples
    --------
    >>> mean_of([1.0, 0.0, 0.5]).value
    0.5
    """
    column = np.asarray(values, np.float64)
    return Totals(np.stack([column, np.ones_like(column)], axis=1), _mean, tuple(column.tolist()), higher=higher)


def _mean(sums: Array) -> Array:
    return np.asarray(sums[:, 0] / sums[:, 1])


def paired_test_of_totals(first: Totals, second: Totals, *, samples: int = 10000, seed: int = 0) -> PairedTest:
    """Test whether two systems differ on the same items.

    Parameters
    ----------
    first, second
        Of the same figure and items, in the same order.
    samples
        Number of random exchanges and of resamplings, >= 1. Where all exchanges are no more than that, each is looked
        at once, and the randomization test is exact.
    seed
        Of both.

    Returns
    -------
    PairedTest
        See `caprag.evaluation.significance.paired_test`, which tests means alone. `better` and `worse` count items by
        their own values, by whichever is better of the figure.

    Raises
    ------
    ValueError
        Where the shapes differ.

    References
    ----------
    Riezler and Maxwell, On Some Pitfalls in Automatic Evaluation and Significance Testing for MT, ACL workshop 2005
    (approximate randomization). Koehn, Statistical Significance Tests for Machine Translation Evaluation, EMNLP 2004
    (paired bootstrap).

    Examples
    --------
    >>> paired_test_of_totals(mean_of([1, 1, 1, 0.5]), mean_of([0, 0, 0.5, 0.5])).p_randomization
    0.25
    """
    if first.counts.shape != second.counts.shape:
        raise ValueError(
            f"first has counts of the shape {first.counts.shape} and second {second.counts.shape}; the same items and "
            "figure are wanted"
        )
    difference = first.value - second.value
    drawn = [one.score(resampled_sums(one.counts, samples=samples, seed=seed)) for one in (first, second)]
    differences = drawn[0] - drawn[1]
    differences = differences[~np.isnan(differences)]
    low, high = np.percentile(differences, [2.5, 97.5])
    # Rounding must not make an equal difference a smaller one.
    reach = abs(difference) * (1 - 1e-12) - 1e-15
    shifted = int((np.abs(differences - difference) >= reach).sum())
    gains = np.subtract(first.values, second.values) * (1 if first.higher else -1)
    return PairedTest(
        difference, (float(low), float(high)), _randomization(first, second, reach, samples, seed),
        (shifted + 1) / (len(differences) + 1), int((gains > 0).sum()), int((gains < 0).sum()), len(gains),
    )  # fmt: skip


def _randomization(first: Totals, second: Totals, reach: float, samples: int, seed: int) -> float:
    """Exchange items at random, and return how often the systems are then as far apart as they are."""
    # Where both are equal, exchanging them changes nothing.
    moved = np.flatnonzero((first.counts != second.counts).any(axis=1))
    steps = (second.counts - first.counts)[moved]
    sums = [one.counts.sum(axis=0) for one in (first, second)]

    def extreme(flips: Array) -> int:
        shift = np.stack([(flips * column).sum(axis=1) for column in steps.T], axis=1)
        return int((np.abs(first.score(sums[0] + shift) - first.score(sums[1] - shift)) >= reach).sum())

    count = len(moved)
    if count < 63 and 1 << count <= samples:
        numbers = np.arange(1 << count)
        return extreme(((numbers[:, None] >> np.arange(count)) & 1).astype(np.float64)) / (1 << count)
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS // count)
    found = 0
    for start in range(0, samples, rows):
        found += extreme(generator.integers(0, 2, (min(rows, samples - start), count)).astype(np.float64))
    return (found + 1) / (samples + 1)
