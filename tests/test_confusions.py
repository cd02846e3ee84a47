"""What readers mix up: counted from pairs, kept, and cheaper in distances."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from caprag.errors import ModelError
from caprag.glyphs import GlyphTable
from caprag.reranking.confusions import Confusions, confusion_sources, load_confusions, load_glyphs, save_confusions

SEEN = {"乾幹": 6, "已矣": 2, "睛晴": 1}
TABLE = GlyphTable.load().counted(SEEN, worth=2.0)
TEXT = st.text(alphabet="乾幹已矣睛晴一二三好", max_size=9)


def test_counting_takes_letters_for_letters_alone() -> None:
    pairs = [
        ("乾什麼?", "幹什麼！"),
        ("幹嘛", "乾嘛"),
        ("好", "好嗎"),
        ("一 二", "一二"),
        ("", "沒有"),
        ("3天啊", "三天"),
    ]
    counts = Confusions.count(pairs)
    assert counts.pairs == {"乾幹": 2, "3三": 1}
    assert counts.wrong == {"乾": 1, "幹": 1, "3": 1, "啊": 1}
    assert counts.read.total() == sum(c.isalnum() for read, _ in pairs for c in read)
    assert Confusions.count([]) == Confusions()


def test_how_many_letters_are_expected_to_be_wrong() -> None:
    """By hand: 乾 was wrong 8 times of 10, everything 10 times of 110; each is drawn to that by 20 readings."""
    counts = Confusions(Counter(), Counter({"乾": 10, "好": 100}), Counter({"乾": 8, "好": 2}))
    mean = 10 / 110
    dry, good, unseen = (8 + 20 * mean) / 30, (2 + 20 * mean) / 120, mean
    expected = -sum(math.log(1 - p) for p in (dry, good, unseen))
    assert counts.misread("乾，好 x") == pytest.approx(expected)
    assert counts.misread("") == counts.misread("？") == 0
    assert counts.misread("乾" * 50) == 2
    assert Confusions().misread("好") == 0


def test_what_was_seen_often_costs_little() -> None:
    shapes = GlyphTable.load()
    for pair, count in SEEN.items():
        by_shape = 1 - shapes.similarity(*pair)
        assert 1 - TABLE.similarity(*pair) == pytest.approx(by_shape * 2 / (2 + count), abs=1e-6)
        assert TABLE.similarity(*pair) == TABLE.similarity(*reversed(pair))
    assert TABLE.similarity("一", "好") == shapes.similarity("一", "好")
    # A character without a shape is like those that it was read for.
    assert shapes.counted({"一\U0001f600": 2}).similarity("\U0001f600", "一") == pytest.approx(0.5)
    two_ways = shapes.counted({"乾幹": 2, "幹乾": 4}, 2.0)
    assert two_ways.similarity("乾", "幹") == TABLE.similarity("乾", "幹")
    assert shapes.counted({}).distance("睛", "晴") == shapes.distance("睛", "晴")


@given(TEXT, TEXT)
def test_laws_of_the_distance_hold(a: str, b: str) -> None:
    distance = TABLE.distance(a, b)
    assert distance == pytest.approx(TABLE.distance(b, a), abs=1e-5)
    assert distance == pytest.approx(float(TABLE.distances([a], [b])[0]), abs=1e-4)
    assert distance <= GlyphTable.load().distance(a, b) + 1e-6 <= Levenshtein.distance(a, b) + 2e-6
    assert (distance == 0) == (a == b)
    costs = TABLE.substitutions(a, b)
    for row, x in zip(costs, a, strict=True):
        assert row.tolist() == pytest.approx([1 - TABLE.similarity(x, y) for y in b], abs=1e-6)


@pytest.mark.parametrize(
    ("counts", "worth"), [({"乾": 1}, 1.0), ({"乾幹嗎": 1}, 1.0), ({"乾幹": -1}, 1.0), ({}, 0.0), ({}, math.inf)]
)
def test_what_is_no_count(counts: dict[str, int], worth: float) -> None:
    with pytest.raises(ValueError, match=r"worth|wanted are two characters"):
        GlyphTable.load().counted(counts, worth)


def test_sources_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "某.json"
    one = Confusions(Counter({"乾幹": 3}), Counter({"乾": 5}), Counter({"乾": 3}))
    two = Confusions(Counter({"乾幹": 1, "已矣": 2}), Counter({"乾": 1, "矣": 2}), Counter({"矣": 2}))
    save_confusions(path, {"one": one, "two": two}, {"engine": "x"})
    both = load_confusions(path)
    assert (both.pairs, both.read, both.wrong) == ({"乾幹": 4, "已矣": 2}, {"乾": 6, "矣": 2}, {"乾": 3, "矣": 2})
    assert load_confusions(path, without=("two",)) == one
    assert confusion_sources(path) == ("one", "two")
    assert json.loads(path.read_text(encoding="utf-8"))["provenance"] == {"engine": "x"}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": 2, "sources": {}}', '{"format": 1, "sources": {"a": {"pairs": {}}}}',
     '{"format": 1, "sources": {"a": {"pairs": {"乾": 1}, "read": {}, "wrong": {}}}}',
     '{"format": 1, "sources": {"a": {"pairs": {"乾幹": "x"}, "read": {}, "wrong": {}}}}',
     '{"format": 1, "sources": [1]}'],
)  # fmt: skip
def test_a_file_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"c\.json.*count again"):
        load_confusions(tmp_path / "c.json")
    with pytest.raises(ModelError, match="can't be read"):
        load_confusions(tmp_path / "none.json")


def test_what_is_shipped() -> None:
    counts = load_confusions()
    assert counts.wrong.total() > 300
    assert counts.pairs["乾幹"] > 10
    assert counts.misread("你在乾什麼") > 2 * counts.misread("你在做什麼")
    assert load_glyphs().similarity("乾", "幹") > 0.8 > GlyphTable.load().similarity("乾", "幹")
    assert load_glyphs() is load_glyphs()
