from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from caprag.evaluation import bootstrap
from caprag.evaluation.significance import bootstrap_means, paired_test

# It comes with scikit-learn; untyped.
stats: Any = pytest.importorskip("scipy.stats")


def test_the_interval_is_that_of_the_plain_bootstrap() -> None:
    values = np.random.default_rng(0).random(37)
    plain = bootstrap("x", lambda rows: float(values[list(rows)].mean()), len(values), samples=300, seed=7)
    assert bootstrap_means(values, samples=300, seed=7) == pytest.approx(plain.interval, abs=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    values, other = draw.random((50, 3)), draw.random(50)
    whole = bootstrap_means(values, samples=101, seed=2), paired_test(values[:, 0], other, samples=333, seed=2)
    monkeypatch.setattr("caprag.evaluation.significance._CELLS", 170)
    assert np.array_equal(bootstrap_means(values, samples=101, seed=2), whole[0])
    assert paired_test(values[:, 0], other, samples=333, seed=2) == whole[1]


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    draw = np.random.default_rng(3)
    table = (draw.random((80, 400)) < 0.7).astype(float)
    low, high = np.array([bootstrap_means(column, samples=400) for column in table.T]).T
    assert 0.90 <= float(((low <= 0.7) & (high >= 0.7)).mean()) <= 0.98


def test_equal_columns_have_equal_intervals() -> None:
    column = np.random.default_rng(4).random(30)
    low, high = bootstrap_means(np.column_stack([column, column]), samples=50)
    assert low[0] == low[1]
    assert high[0] == high[1]


@pytest.mark.parametrize("seed", range(5))
def test_the_exact_randomization_test_is_scipys(seed: int) -> None:
    draw = np.random.default_rng(seed)
    first, second = draw.integers(0, 4, 9) / 4, draw.integers(0, 4, 9) / 4
    theirs = stats.permutation_test(
        (first, second), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
    )
    assert paired_test(first, second).p_randomization == pytest.approx(min(1.0, theirs.pvalue))


def test_the_sampled_tests_come_near_the_t_test() -> None:
    """With many queries and a difference that is nearly normal all three agree, as Smucker et al. found."""
    draw = np.random.default_rng(9)
    second = draw.normal(0.5, 0.1, 400)
    first = second + draw.normal(0.008, 0.08, 400)
    result = paired_test(first, second, samples=20000, seed=1)
    expected = float(stats.ttest_rel(first, second).pvalue)
    assert 0.01 < expected < 0.2
    assert result.p_randomization == pytest.approx(expected, abs=0.01)
    assert result.p_bootstrap == pytest.approx(expected, abs=0.01)
    assert result.difference == pytest.approx(float((first - second).mean()))


def test_under_no_difference_small_probabilities_are_as_rare_as_they_say() -> None:
    draw = np.random.default_rng(11)
    found = [paired_test(*draw.random((2, 30)), samples=200, seed=i) for i in range(400)]
    for share in (0.05, 0.3):
        assert np.mean([p.p_randomization <= share for p in found]) == pytest.approx(share, abs=0.06)
        assert np.mean([p.p_bootstrap <= share for p in found]) == pytest.approx(share, abs=0.08)


def test_what_does_not_differ_is_no_difference() -> None:
    same = paired_test([0.5] * 40, [0.5] * 40)
    assert (same.difference, same.interval, same.p_randomization, same.p_bootstrap) == (0.0, (0.0, 0.0), 1.0, 1.0)


def test_turning_the_systems_around_turns_the_signs() -> None:
    draw = np.random.default_rng(5)
    first, second = draw.random((2, 60))
    one, other = paired_test(first, second, samples=500), paired_test(second, first, samples=500)
    assert one.difference == -other.difference
    assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))
    assert (one.better, one.worse) == (other.worse, other.better)
    assert one.p_randomization == other.p_randomization
    assert one.p_bootstrap == other.p_bootstrap
    assert paired_test(first, second, samples=500, seed=1) != one


@pytest.mark.parametrize(
    ("first", "second", "samples", "words"),
    [
        ([], [], 10, "at least 1"),
        ([1.0], [1.0], 0, "at least 1"),
        ([1.0, 2.0], [1.0], 10, "same queries"),
        ([[1.0]], [[1.0]], 10, "same queries"),
        ([float("nan")], [1.0], 10, "not finite"),
    ],
)
def test_wrong_values_are_refused(first: list[float], second: list[float], samples: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        paired_test(first, second, samples=samples)
