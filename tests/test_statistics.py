"""Lengths and characters, against collections.Counter and NumPy."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from caprag.corpus import corpus_statistics, draw_statistics
from caprag.corpus.statistics import character_class
from caprag.errors import CapragError

LINES = st.lists(st.text(st.sampled_from("我你好a1,。 あ가𠮷"), max_size=12), min_size=1, max_size=30)


@given(LINES)
def test_counts_agree_with_plain_counting(lines: list[str]) -> None:
    statistics = corpus_statistics(iter(lines))
    assert dict(statistics.lengths) == Counter(map(len, lines))
    assert list(statistics.lengths) == sorted(statistics.lengths)
    characters = Counter(c for line in lines for c in line if c != " ")
    assert dict(statistics.characters) == characters
    assert list(statistics.characters) == sorted(characters, key=lambda c: (-characters[c], c))
    assert statistics.lines == len(lines)
    assert statistics.total == sum(characters.values())
    assert statistics.mean == pytest.approx(np.mean([len(line) for line in lines]))
    assert statistics.rare(2) == sum(n == 1 for n in characters.values())
    assert math.isclose(sum(statistics.shares().values()), 1 if characters else 0)


@given(LINES, st.sampled_from([0, 5, 25, 50, 75, 95, 99.9, 100]))
def test_percentiles_agree_with_numpy(lines: list[str], percent: float) -> None:
    lengths = [len(line) for line in lines]
    assert corpus_statistics(lines).percentile(percent) == np.percentile(lengths, percent, method="inverted_cdf")


@given(LINES, st.sampled_from([0, 50, 90, 99, 100]))
def test_coverage_is_the_least_number_that_will_do(lines: list[str], percent: float) -> None:
    statistics = corpus_statistics(lines)
    number, counts = statistics.coverage(percent), list(statistics.characters.values())
    assert sum(counts[:number]) * 100 >= percent * statistics.total
    assert number == 0 or sum(counts[: number - 1]) * 100 < percent * statistics.total


@pytest.mark.parametrize(
    ("characters", "expected"),
    [
        ("裡里々〇豈𠮷㐀", "Han"),
        ("あアㄅㇰー", "kana"),
        ("aZéｚ", "Latin"),
        ("7½Ⅷ７", "digits"),
        (",。「—♪+・", "punctuation"),
        ("가Жα", "other"),
    ],
)
def test_classes(characters: str, expected: str) -> None:
    assert {character_class(c) for c in characters} == {expected}


def test_the_table_says_it_all() -> None:
    table = str(corpus_statistics(["你好嗎", "你好啊", "走"]))
    assert "mean 2.33" in table
    assert "7, 5 distinct" in table
    assert "once 3  below 5 times 5" in table
    assert "Han 100.00%" in table
    assert "     3          2  66.67% ########################################" in table.splitlines()


def test_an_empty_corpus() -> None:
    statistics = corpus_statistics([])
    assert (statistics.lines, statistics.total, statistics.percentile(50), statistics.coverage(99)) == (0, 0, 0, 0)
    assert math.isnan(statistics.mean)
    assert "0, 0 distinct" in str(statistics)


@pytest.mark.parametrize("wrong", [-1, 101])
def test_percentages_that_are_none(wrong: float) -> None:
    statistics = corpus_statistics(["好"])
    for method in (statistics.percentile, statistics.coverage):
        with pytest.raises(ValueError, match=f"percent is {wrong}"):
            method(wrong)


@pytest.mark.parametrize("lines", [["你好嗎", "你好"], []])
def test_the_picture_is_a_picture(tmp_path: Path, lines: list[str]) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "圖.png"
    draw_statistics(corpus_statistics(lines), path)
    first = path.read_bytes()
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        # Something is drawn: not all of one colour.
        assert len(picture.convert("L").getcolors() or []) > 2
    draw_statistics(corpus_statistics(lines), path)
    assert path.read_bytes() == first
    assert [p.name for p in tmp_path.iterdir()] == ["圖.png"]


def test_another_kind_of_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(CapragError, match=r"draw to \.png"):
        draw_statistics(corpus_statistics(["好"]), tmp_path / "a.gif")
