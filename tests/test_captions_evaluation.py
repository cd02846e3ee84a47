"""The outcomes of snapping and keeping, against a table worked out by hand."""

from __future__ import annotations

import math

import pytest

from caprag.evaluation import Outcomes, count_outcomes
from caprag.types import Caption, Hit, Hypothesis


def caption(read: str, answered: str | None) -> Caption:
    """Answered with a sentence, or kept (None)."""
    hit = None if answered is None else Hit(0, answered, 0.5)
    return Caption(read if answered is None else answered, hit, (Hypothesis(read), Hypothesis("其他")), 0.5)


TRUTH = "妳在開玩笑"
WRONG = "妳在閒玩笑"
CASES = [
    # read, answered, snapped_right, snapped_wrong, kept_right, kept_wrong, mended, harmed
    (TRUTH, TRUTH, 1, 0, 0, 0, 0, 0),
    (WRONG, TRUTH, 1, 0, 0, 0, 1, 0),
    (TRUTH, WRONG, 0, 1, 0, 0, 0, 1),
    (WRONG, "別的", 0, 1, 0, 0, 0, 0),
    (TRUTH, None, 0, 0, 1, 0, 0, 0),
    (WRONG, None, 0, 0, 0, 1, 0, 0),
    ("", None, 0, 0, 0, 1, 0, 0),
]


@pytest.mark.parametrize(("read", "answered", "a", "b", "c", "d", "mended", "harmed"), CASES)
def test_each_outcome(
    read: str, answered: str | None, a: int, b: int, c: int, d: int, mended: int, harmed: int
) -> None:
    assert count_outcomes([caption(read, answered)], [TRUTH]) == Outcomes(a, b, c, d, mended, harmed)


def test_lines_add_up() -> None:
    captions = [caption(read, answered) for read, answered, *_ in CASES]
    outcomes = count_outcomes(captions, [TRUTH] * len(CASES))
    assert outcomes == Outcomes(*(sum(column) for column in list(zip(*CASES, strict=True))[2:]))
    assert outcomes.lines == len(CASES)
    assert outcomes.harm == 1 / len(CASES)
    assert outcomes == count_outcomes(captions[::-1], [TRUTH] * len(CASES))


def test_right_is_a_matter_of_the_characters_counted() -> None:
    captions = [caption("OK!", "ＯＫ？")]
    assert count_outcomes(captions, ["OK!"]).snapped_right == 1
    assert count_outcomes(captions, ["OK!"], characters="all") == Outcomes(0, 1, 0, 0, 0, 1)
    # Variants are other characters: to answer 裏 for 裡 is wrong.
    assert count_outcomes([caption("裡", "裏")], ["裡"]).harmed == 1


def test_an_empty_truth() -> None:
    assert count_outcomes([caption("", None), caption("台標", None)], ["", ""]) == Outcomes(0, 0, 1, 1, 0, 0)


def test_nothing_to_count() -> None:
    outcomes = count_outcomes([], [])
    assert outcomes.lines == 0
    assert math.isnan(outcomes.harm)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="there are 1 captions and 0 references"):
        count_outcomes([caption("", None)], [])
    with pytest.raises(ValueError, match="characters is 'x'"):
        count_outcomes([caption("", None)], [""], characters="x")  # type: ignore[arg-type]
