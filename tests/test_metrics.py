"""Character errors against jiwer, a textbook Levenshtein, and values worked out by hand."""

from __future__ import annotations

import math
import random

import jiwer
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprag import cer, count_errors, mean_edits
from caprag.evaluation import ErrorCounts, bootstrap, cer_report
from caprag.text import Characters, countable

GENERATOR = random.Random(0)
REFERENCES = [
    "".join(GENERATOR.choices("妳在開玩笑嗎ABC12，。 ", k=GENERATOR.randint(1, 15))) + "好" for _ in range(80)
]
READINGS = ["".join(GENERATOR.choice([c, c, c, "", "閒", c + "x"]) for c in text) for text in REFERENCES]
LINES = st.lists(st.tuples(st.text("一二三Ａa1 ，\n", max_size=8), st.text("一二三Ａa1 ，\n", max_size=8)), max_size=8)


def wagner_fischer(a: str, b: str) -> int:
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    table[:, 0], table[0] = range(len(a) + 1), range(len(b) + 1)
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            swap = table[i - 1, j - 1] + (a[i - 1] != b[j - 1])
            table[i, j] = min(swap, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return int(table[-1, -1])


@pytest.mark.parametrize("characters", ["letters", "all"])
def test_jiwer_counts_the_same(characters: Characters) -> None:
    truths = [countable(text, characters) for text in REFERENCES]
    reads = [countable(text, characters) for text in READINGS]
    expected = jiwer.process_characters(truths, reads)
    counts = count_errors(READINGS, REFERENCES, characters=characters)
    assert sum(counts.edits) == expected.substitutions + expected.deletions + expected.insertions
    assert sum(counts.lengths) == expected.hits + expected.substitutions + expected.deletions
    assert counts.cer == pytest.approx(expected.cer)
    assert cer(READINGS, REFERENCES, characters=characters) == counts.cer
    singles = [jiwer.cer(truth, read) for truth, read in zip(truths, reads, strict=True)]
    assert counts.mean_cer == pytest.approx(np.mean(singles))


@given(LINES)
def test_a_textbook_levenshtein_counts_the_same(lines: list[tuple[str, str]]) -> None:
    counts = count_errors([a for a, _ in lines], [b for _, b in lines], characters="all")
    pairs = [(countable(a, "all"), countable(b, "all")) for a, b in lines]
    assert counts.edits == tuple(wagner_fischer(b, a) for a, b in pairs)
    assert counts.lengths == tuple(len(b) for _, b in pairs)
    for inserted, deleted, (a, b) in zip(counts.insertions, counts.deletions, pairs, strict=True):
        assert len(b) + inserted - deleted == len(a)
    assert counts.wrong_lines == sum(a != b for a, b in pairs)


def test_by_hand() -> None:
    counts = count_errors(["在開玩笑", "是的。", "好好好", "", "x"], ["妳在開玩笑", "是嗎?", "好", "沒有", ""])
    assert counts.deletions == (1, 0, 0, 2, 0)
    assert counts.substitutions == (0, 1, 0, 0, 0)
    assert counts.insertions == (0, 0, 2, 0, 1)
    assert counts.lengths == (5, 2, 1, 2, 0)
    assert counts.edits == (1, 1, 2, 2, 1)
    assert counts.cer == 7 / 10
    assert counts.mean_cer == pytest.approx((1 / 5 + 1 / 2 + 2 / 1 + 2 / 2 + 1) / 5)
    assert counts.mean_edits == 7 / 5
    assert counts.wrong_lines == 5


def test_signs_count_in_the_edits_of_competitions_only() -> None:
    assert mean_edits(["是嗎!", "好"], ["是嗎?", "好 "]) == 0.5
    assert mean_edits(["是嗎!"], ["是嗎?"], characters="letters") == cer(["是嗎!"], ["是嗎?"]) == 0.0
    # Full and half width, Unicode's two ways to write é, and blanks are not errors; variants of a character are.
    assert mean_edits(["ＯＫ！ e\u0301"], ["OK!é"]) == 0.0
    assert mean_edits(["裡"], ["裏"]) == 1.0


def test_the_two_averages_differ() -> None:
    counts = count_errors(["壞", "一二三四五六七八九"], ["好", "一二三四五六七八九"])
    assert counts.cer == 1 / 10
    assert counts.mean_cer == 1 / 2


def test_nothing_to_count_is_not_a_number() -> None:
    assert all(
        math.isnan(x) for x in (cer([], []), mean_edits([], []), count_errors([], []).mean_cer, cer(["x"], [""]))
    )
    assert count_errors([""], ["…"]).mean_cer == 0.0


def test_counts_add_up() -> None:
    one, two = count_errors(READINGS[:30], REFERENCES[:30]), count_errors(READINGS[30:], REFERENCES[30:])
    assert one + two == count_errors(READINGS, REFERENCES)
    with pytest.raises(ValueError, match="'letters' and 'all' characters don't add up"):
        one + count_errors([], [], characters="all")


def test_the_order_of_lines_changes_no_rate() -> None:
    turned = count_errors(READINGS[::-1], REFERENCES[::-1])
    straight = count_errors(READINGS, REFERENCES)
    assert turned.edits == straight.edits[::-1]
    assert (turned.cer, turned.mean_edits) == (straight.cer, straight.mean_edits)
    assert turned.mean_cer == pytest.approx(straight.mean_cer)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="there are 1 readings and 2 references"):
        count_errors(["一"], ["一", "二"])
    with pytest.raises(ValueError, match="characters is 'words'"):
        cer([], [], characters="words")  # type: ignore[arg-type]


def test_the_interval_is_the_percentile_bootstrap() -> None:
    """Against scipy's definition written out: 2.5 and 97.5 % of the resampled means."""
    edits = np.array(count_errors(READINGS, REFERENCES).edits)

    def mean(rows: object) -> float:
        return float(edits[np.asarray(rows)].mean())

    report = bootstrap("mean_edits", mean, len(edits), samples=2000, seed=3, signature="characters=letters")
    assert (report.name, report.value) == ("mean_edits", mean(range(len(edits))))
    # A mean of 80 lines is nearly normal: 1.96 standard errors to either side.
    error = edits.std() / math.sqrt(len(edits))
    assert report.interval == pytest.approx((report.value - 1.96 * error, report.value + 1.96 * error), abs=0.4 * error)
    assert report.signature == "characters=letters lines=80 bootstrap=2000 seed=3"
    assert report == bootstrap("mean_edits", mean, len(edits), samples=2000, seed=3, signature="characters=letters")
    assert report.interval != bootstrap("mean_edits", mean, len(edits), samples=2000, seed=4).interval
    low, high = report.interval
    assert str(report).startswith(f"mean_edits {report.value:.4f} [{low:.4f}, {high:.4f}]\ncharacters")


def test_the_report_is_of_the_rate_over_all_characters() -> None:
    counts = count_errors(READINGS, REFERENCES)
    report = cer_report(counts, samples=500, seed=2)
    assert (report.name, report.value) == ("cer", counts.cer)
    assert report.signature == "characters=letters form=NFKC lines=80 bootstrap=500 seed=2"
    lines = np.random.default_rng(2).integers(0, 80, (500, 80))
    rates = [sum(counts.edits[i] for i in row) / sum(counts.lengths[i] for i in row) for row in lines.tolist()]
    assert report.interval == pytest.approx(np.percentile(rates, [2.5, 97.5]).tolist())
    with pytest.raises(ValueError, match="lines is 0"):
        cer_report(count_errors([], []))


def test_the_interval_of_a_constant_is_a_point() -> None:
    report = bootstrap("x", lambda rows: 0.25, 7, samples=10)
    assert (report.value, report.interval, report.signature) == (0.25, (0.25, 0.25), "lines=7 bootstrap=10 seed=0")


@pytest.mark.parametrize(("lines", "samples"), [(0, 10), (10, 0), (-1, 1)])
def test_nothing_to_resample(lines: int, samples: int) -> None:
    with pytest.raises(ValueError, match=f"lines is {lines} and samples is {samples}"):
        bootstrap("x", len, lines, samples=samples)


def test_counts_are_frozen() -> None:
    counts = ErrorCounts((), (), (), (), "all")
    with pytest.raises(AttributeError):
        counts.lengths = (1,)  # type: ignore[misc]
