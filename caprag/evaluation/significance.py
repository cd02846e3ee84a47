"""Intervals of means over queries, and whether two systems differ on the same queries.

Works on values of queries, whatever they measure. Queries are resampled, never documents: what is asked is how the
mean would come out with other queries like these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_CELLS = 1 << 22  # numbers drawn at a time: 32 MB
Values = Sequence[float] | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PairedTest:
    """How far two systems are apart on the same queries.

    Attributes
    ----------
    difference
        Mean of the first minus mean of the second.
    interval
        Lower and upper end of its 95 % interval, by the percentile bootstrap over queries.
    p_randomization
        Probability of a difference at least as large, either way, were the two systems exchangeable on every query,
        in (0, 1].
    p_bootstrap
        The same by the bootstrap, with differences moved to a mean of 0, in (0, 1].
    better, worse
        Number of queries on which the first is better, and worse.
    queries
        Number of all queries.
    """

    difference: float
    interval: tuple[float, float]
    p_randomization: float
    p_bootstrap: float
    better: int
    worse: int
    queries: int


def bootstrap_means(
    values: Values | npt.NDArray[np.float64], *, samples: int = 1000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return the 95 % intervals of means over queries.

    All columns are resampled by the same queries, so that equal columns have equal intervals; the resamplings are
    those of `caprag.evaluation.bootstrap` with the same seed.

    Parameters
    ----------
    values
        Shape (queries,), or (queries, metrics) for several at once; finite.
    samples
        Number of resamplings, >= 1.
    seed
        Of the resampling.

    Returns
    -------
    numpy.ndarray
        Shape (2,) or (2, metrics): the 2.5th and the 97.5th percentile of the mean.

    Raises
    ------
    ValueError
        For no queries, no samples, or values that are not finite.

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13 (percentile interval).

    Examples
    --------
    >>> bootstrap_means([1.0, 1.0, 0.0, 1.0]).tolist()
    [0.25, 1.0]
    """
    table = _checked(values, samples)
    means = resampled_sums(table, samples=samples, seed=seed) / len(table)
    return np.asarray(np.percentile(means, [2.5, 97.5], axis=0), np.float64)


def resampled_sums(
    values: Values | npt.NDArray[np.float64], *, samples: int = 1000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return the sums over resamplings of the queries, for figures that are made of sums.

    Parameters
    ----------
    values
        Shape (queries,), or (queries, columns); finite.
    samples, seed
        See `bootstrap_means`; the resamplings are the same.

    Returns
    -------
    numpy.ndarray
        Shape (samples,) or (samples, columns), float64.

    Raises
    ------
    ValueError
        For no queries, no samples, or values that are not finite.

    Examples
    --------
    >>> resampled_sums([[1, 10], [1, 10]], samples=2).tolist()
    [[2.0, 20.0], [2.0, 20.0]]
    """
    table = _checked(values, samples)
    return np.concatenate([_weighted(weights, table) for weights in _resamplings(len(table), samples, seed)])


def paired_test(first: Values, second: Values, *, samples: int = 10000, seed: int = 0) -> PairedTest:
    """Test whether two systems differ on the same queries.

    Parameters
    ----------
    first, second
        Values of the queries, in the same order; finite.
    samples
        Number of random assignments and of resamplings, >= 1. Where all assignments of signs are no more than that,
        each is looked at once, and the randomization test is exact.
    seed
        Of both.

    Returns
    -------
    PairedTest
        Probabilities are two-sided and not corrected for the number of comparisons. A sampled one is (count + 1) /
        (samples + 1), so that none is 0.

    Raises
    ------
    ValueError
        Where the lengths differ, there is no query, no sample, or a value is not finite.

    References
    ----------
    Smucker, Allan and Carterette, A comparison of statistical significance tests for information retrieval
    evaluation, CIKM 2007 (randomization test; bootstrap test by shifting). Sakai, Evaluating evaluation metrics based
    on the bootstrap, SIGIR 2006. Phipson and Smyth, Permutation P-values should never be zero, SAGMB 9(1), 2010.

    Examples
    --------
    >>> paired_test([1, 1, 1, 0.5], [0, 0, 0.5, 0.5]).p_randomization  # all three queries that differ agree: 2 / 2**3
    0.25
    """
    one, two = _checked(first, samples), _checked(second, samples)
    if one.shape != two.shape or one.ndim != 1:
        raise ValueError(
            f"first has the shape {one.shape} and second {two.shape}; values of the same queries are wanted"
        )
    differences = one - two
    mean = float(differences.mean())
    means = resampled_sums(differences, samples=samples, seed=seed) / len(differences)
    low, high = np.percentile(means, [2.5, 97.5])
    # Rounding must not make an equal difference a smaller one.
    reach = abs(mean) * (1 - 1e-12) - 1e-15
    shifted = int((np.abs(means - mean) >= reach).sum())
    return PairedTest(
        mean, (float(low), float(high)), _randomization(differences, reach, samples, seed),
        (shifted + 1) / (samples + 1), int((differences > 0).sum()), int((differences < 0).sum()), len(differences),
    )  # fmt: skip


def _randomization(differences: npt.NDArray[np.float64], reach: float, samples: int, seed: int) -> float:
    # Where both are equal, exchanging them changes nothing.
    moved = differences[differences != 0]
    count, queries = len(moved), len(differences)
    if count < 63 and 1 << count <= samples:
        numbers = np.arange(1 << count)
        signs = 1.0 - 2.0 * ((numbers[:, None] >> np.arange(count)) & 1)
        return float((np.abs(signs @ moved / queries) >= reach).mean())
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS // count)
    extreme = 0
    for start in range(0, samples, rows):
        # Narrower integers would throw away what is left of the last word, and depend on the size of the blocks.
        flips = generator.integers(0, 2, (min(rows, samples - start), count))
        extreme += int((np.abs(((1.0 - 2.0 * flips) * moved).sum(axis=1) / queries) >= reach).sum())
    return (extreme + 1) / (samples + 1)


def _weighted(weights: npt.NDArray[np.float64], table: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sums of resamplings, shape (samples,) or (samples, columns)."""
    # Not as a matrix product, whose last bits depend on how many rows it has and on the machine.
    if table.ndim == 1:
        return np.asarray((weights * table).sum(axis=1))
    return np.stack([(weights * column).sum(axis=1) for column in table.T], axis=1)


def _resamplings(count: int, samples: int, seed: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield how often each query is in each resampling, shape (some, count)."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CELLS // count)
    for start in range(0, samples, rows):
        size = min(rows, samples - start)
        drawn = generator.integers(0, count, (size, count))
        drawn += np.arange(size)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def _checked(values: Values | npt.NDArray[np.float64], samples: int) -> npt.NDArray[np.float64]:
    table = np.asarray(values, np.float64)
    if not len(table) or samples < 1:
        raise ValueError(f"there are {len(table)} values and samples is {samples}; both must be at least 1")
    if not np.isfinite(table).all():
        raise ValueError(f"{int((~np.isfinite(table)).sum())} of the values are not finite; every query needs a value")
    return table
