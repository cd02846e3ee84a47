"""The decoding against brute force over all paths, against torch's CTC loss, and by its laws."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caprag.recognition.ctc_decoding import (
    best_split_logprob,
    forward_logprob,
    forward_logprobs,
    log_probabilities,
    prefix_beam_search,
    prefix_logprobs,
)

Table = npt.NDArray[np.float64]


def random_table(steps: int, classes: int, seed: int, sharpness: float = 2.0) -> Table:
    logits = np.random.default_rng(seed).normal(scale=sharpness, size=(steps, classes))
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), dtype=np.float64)


def brute_force(table: Table, blank: int) -> dict[tuple[int, ...], float]:
    """Probability of every labelling: each path walked, repeats merged, blanks dropped."""
    probabilities: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(table.shape[1]), repeat=len(table)):
        merged = [label for label, _ in itertools.groupby(path)]
        labelling = tuple(label for label in merged if label != blank)
        probabilities[labelling] += math.exp(sum(table[step, label] for step, label in enumerate(path)))
    return dict(probabilities)


@pytest.mark.parametrize(("steps", "classes", "blank"), [(1, 2, 0), (4, 3, 0), (5, 3, 2), (6, 3, 1), (4, 5, 0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_forward_equals_the_sum_over_all_paths(steps: int, classes: int, blank: int, seed: int) -> None:
    table = random_table(steps, classes, seed)
    truth = brute_force(table, blank)
    assert math.isclose(sum(truth.values()), 1.0, abs_tol=1e-12)
    found = forward_logprobs(table, list(truth), blank)
    np.testing.assert_allclose(np.exp(found), list(truth.values()), rtol=1e-10)


@pytest.mark.parametrize("seed", range(4))
def test_forward_equals_torch_ctc_loss(seed: int) -> None:
    generator = np.random.default_rng(seed)
    table = random_table(30, 12, seed)
    labellings = [generator.integers(1, 12, size=length).tolist() for length in (1, 2, 5, 9, 14)]
    labellings.append([3, 3, 3, 4, 4])
    losses = [
        torch.nn.functional.ctc_loss(
            torch.from_numpy(table)[:, None],
            torch.tensor([labels]),
            torch.tensor([30]),
            torch.tensor([len(labels)]),
            blank=0,
            reduction="none",
        ).item()
        for labels in labellings
    ]
    np.testing.assert_allclose(forward_logprobs(table, labellings), -np.array(losses), rtol=1e-10)


def test_prefixes_equal_their_own_forward_sums() -> None:
    table = random_table(8, 4, 3)
    labellings: list[tuple[int, ...]] = [(1, 2, 2, 3), (), (3, 3)]
    prefixes = prefix_logprobs(table, labellings)
    assert prefixes.shape == (3, 5)
    for row, labels in zip(prefixes, labellings, strict=True):
        expected = [forward_logprob(table, labels[:end]) for end in range(len(labels) + 1)]
        np.testing.assert_allclose(row[: len(expected)], expected, rtol=1e-12)
        assert np.isnan(row[len(expected) :]).all()


def test_many_equal_one_by_one() -> None:
    table = random_table(9, 5, 4)
    labellings: list[tuple[int, ...]] = [(1,), (2, 2, 4, 1), (), (4, 3)]
    singles = [forward_logprob(table, labels) for labels in labellings]
    np.testing.assert_array_equal(forward_logprobs(table, labellings), singles)
    assert forward_logprobs(table, []).shape == (0,)


def test_a_repeat_needs_a_blank_between() -> None:
    table = random_table(3, 3, 5)
    assert math.isfinite(forward_logprob(table, (1, 1)))
    assert forward_logprob(table, (1, 1, 2)) == -math.inf
    assert math.isfinite(forward_logprob(table, (1, 2, 1)))


def test_no_steps_give_the_empty_labelling_only() -> None:
    nothing = np.zeros((0, 3))
    assert forward_logprobs(nothing, [(), (1,)]).tolist() == [0.0, -math.inf]
    assert prefix_beam_search(nothing, n_best=3) == [((), 0.0)]


def test_zero_probabilities_are_impossible_without_a_warning() -> None:
    with np.errstate(divide="ignore"):
        table = np.log(np.array([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]]))
    assert forward_logprob(table, (1,)) == pytest.approx(0.0, abs=1e-12)
    assert forward_logprob(table, (2,)) == -math.inf
    ((labels, logprob),) = prefix_beam_search(table, n_best=5)
    assert labels == (1,)
    assert logprob == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("steps", "classes", "blank"), [(4, 3, 0), (5, 3, 2), (3, 5, 1), (6, 3, 0)])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_equals_brute_force(steps: int, classes: int, blank: int, seed: int) -> None:
    table = random_table(steps, classes, seed, sharpness=1.0)
    truth = sorted(brute_force(table, blank).items(), key=lambda item: (-item[1], item[0]))
    found = prefix_beam_search(table, blank, beam_width=2000, n_best=2000, top_classes=classes)
    assert len(found) == len(truth)
    np.testing.assert_allclose([math.exp(logprob) for _, logprob in found], [p for _, p in truth], rtol=1e-9)
    assert found[0][0] == truth[0][0]
    assert dict(found).keys() == dict(truth).keys()


def test_merging_beats_the_best_path() -> None:
    # Graves 2006, figure 2: best path decoding gives the blank (0.36), yet the label has 0.64 in sum.
    table = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    (first, logprob), (second, other) = prefix_beam_search(table, n_best=2)
    assert (first, second) == ((1,), ())
    assert math.exp(logprob) == pytest.approx(0.64)
    assert math.exp(other) == pytest.approx(0.36)


def test_a_narrow_beam_still_gives_exact_sums_in_order() -> None:
    table = random_table(20, 30, 6)
    found = prefix_beam_search(table, beam_width=4, n_best=4, top_classes=3)
    logprobs = [logprob for _, logprob in found]
    assert logprobs == sorted(logprobs, reverse=True)
    assert logprobs == [forward_logprob(table, labels) for labels, _ in found]
    assert len({labels for labels, _ in found}) == len(found)


@given(
    st.integers(1, 5).flatmap(
        lambda classes: st.lists(
            st.lists(st.floats(0, 1), min_size=classes, max_size=classes).filter(any), min_size=0, max_size=5
        ).map(lambda rows: np.array(rows, dtype=np.float64).reshape(-1, classes))
    )
)
@settings(max_examples=60, deadline=None)
def test_labellings_never_sum_above_one(table: Table) -> None:
    logprobs = log_probabilities(table)
    found = prefix_beam_search(logprobs, beam_width=64, n_best=64)
    assert found
    assert all(logprob <= 0 for _, logprob in found)
    assert math.fsum(math.exp(logprob) for _, logprob in found) <= 1 + 1e-9


def test_log_probabilities_are_finite_and_sum_to_one() -> None:
    table = np.array([[1.0, 0.0, 0.0], [0.2, 0.3, 0.50001]], dtype=np.float32)
    logprobs = log_probabilities(table)
    assert np.isfinite(logprobs).all()
    assert (logprobs <= 0).all()
    np.testing.assert_allclose(np.exp(logprobs).sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.exp(logprobs), table, atol=2e-5)


@pytest.mark.parametrize("seed", range(3))
def test_best_split_equals_trying_every_cut(seed: int) -> None:
    tables = [random_table(steps, 4, seed * 10 + steps) for steps in (5, 3, 4)]
    labels = (1, 3, 3, 2, 1)
    cuts = itertools.combinations_with_replacement(range(len(labels) + 1), 2)
    truth = max(
        sum(
            forward_logprob(table, piece)
            for table, piece in zip(tables, (labels[:one], labels[one:two], labels[two:]), strict=True)
        )
        for one, two in cuts
    )
    assert best_split_logprob(tables, labels) == pytest.approx(truth, rel=1e-12)
    assert best_split_logprob(tables[:1], labels) == pytest.approx(forward_logprob(tables[0], labels))


def test_best_split_drops_spaces_at_the_ends_of_pieces() -> None:
    first, second = random_table(4, 4, 1), random_table(4, 4, 2)
    for labels in [(1, 3, 2), (1, 3, 3, 2), (3, 1, 3, 2, 3)]:
        split = forward_logprob(first, (1,)) + forward_logprob(second, (2,))
        assert best_split_logprob([first, second], labels, space=3) >= split - 1e-12
    assert best_split_logprob([first], (3, 3), space=3) == pytest.approx(forward_logprob(first, ()))


@pytest.mark.parametrize(
    ("table", "labels", "blank"),
    [
        (np.zeros(3), (1,), 0),
        (np.zeros((2, 0)), (), 0),
        (np.full((2, 3), np.nan), (1,), 0),
        (np.zeros((2, 3)), (3,), 0),
        (np.zeros((2, 3)), (-1,), 0),
        (np.zeros((2, 3)), (0,), 0),
        (np.zeros((2, 3)), (1,), 3),
    ],
)
def test_bad_arguments_are_refused(table: Table, labels: tuple[int, ...], blank: int) -> None:
    with pytest.raises(ValueError):
        forward_logprob(table, labels, blank)


def test_bad_search_arguments_are_refused() -> None:
    table = np.log(np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match="beam_width"):
        prefix_beam_search(table, beam_width=2, n_best=3)
    with pytest.raises(ValueError, match="n_best"):
        prefix_beam_search(table, n_best=0)
    with pytest.raises(ValueError, match="top_classes"):
        prefix_beam_search(table, top_classes=0)
    with pytest.raises(ValueError, match="above 0"):
        prefix_beam_search(np.full((2, 3), -np.inf))
    with pytest.raises(ValueError, match="at least one matrix"):
        best_split_logprob([], (1,))
    for bad in ([[-0.1, 1.1]], [[0.0, 0.0]], [[np.inf, 1.0]]):
        with pytest.raises(ValueError):
            log_probabilities(np.array(bad))


def test_arguments_are_not_written_to() -> None:
    table = random_table(4, 3, 0)
    copy = table.copy()
    prefix_beam_search(table, n_best=2)
    forward_logprobs(table, [(1, 2)])
    log_probabilities(np.exp(table))
    np.testing.assert_array_equal(table, copy)
