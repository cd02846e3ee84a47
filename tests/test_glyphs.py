"""How alike characters look: laws of the distance, and a slow one written out beside it."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from caprag.glyphs import GlyphTable

TABLE = GlyphTable.load()
TEXT = st.text(st.sampled_from("睛晴情請日曰目末未一Ａa1…⋯\U0001f600龘"), max_size=7)


def slow_distance(a: str, b: str) -> float:
    """The recursion as Wagner and Fischer state it."""

    @functools.cache
    def rest(i: int, j: int) -> float:
        if i == len(a) or j == len(b):
            return float(len(a) - i + len(b) - j)
        swap = 1.0 - TABLE.similarity(a[i], b[j])
        return min(rest(i + 1, j + 1) + swap, rest(i + 1, j) + 1, rest(i, j + 1) + 1)

    return rest(0, 0)


def test_the_shipped_table() -> None:
    assert sorted(TABLE.characters) == TABLE.characters
    assert len(set(TABLE.characters)) == len(TABLE.characters) == len(TABLE.vectors) == len(TABLE.index)
    assert TABLE.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(TABLE.vectors, axis=1), 1.0, atol=1e-5)
    # All of Big5's frequent characters (its first level) are known.
    level_one = [bytes((h, w)) for h in range(0xA4, 0xC6) for w in (*range(0x40, 0x7F), *range(0xA1, 0xFF))]
    assert all(c.decode("big5") in TABLE.index for c in level_one)


def test_no_box_stands_for_many_characters() -> None:
    """A font draws the same box for each character that it lacks."""
    _, counts = np.unique(TABLE.vectors, axis=0, return_counts=True)
    assert counts.max() <= 2


def test_look_alikes_are_nearer_than_strangers() -> None:
    for a, b, stranger in ("睛晴一", "末未龜", "日曰鬱", "開閒乙", "己已龍", "土士凹"):
        assert TABLE.similarity(a, b) > 0.5 > TABLE.similarity(a, stranger) >= 0.0


def test_similarity_is_symmetric_and_one_for_equals_only() -> None:
    generator = random.Random(0)
    for _ in range(2000):
        a, b = generator.choices(TABLE.characters, k=2)
        assert TABLE.similarity(a, b) == pytest.approx(TABLE.similarity(b, a), abs=1e-6)
        assert 0.0 <= TABLE.similarity(a, b) <= 1.0
        assert (TABLE.similarity(a, b) == 1.0) == (a == b)
    assert TABLE.similarity("…", "⋯") < 1.0


def test_unknown_characters_are_like_themselves_only() -> None:
    for unknown in ("\U0001f600", "\ud800", "\0", "א"):
        assert unknown not in TABLE.index
        assert TABLE.similarity(unknown, unknown) == 1.0
        assert TABLE.similarity(unknown, "一") == TABLE.similarity("一", unknown) == 0.0
        assert TABLE.distance(unknown, unknown) == 0.0
        assert TABLE.distance(unknown, "一") == 1.0
    assert TABLE.distance("\U0001f600", "\U0001f601") == 1.0


@given(TEXT, TEXT)
def test_laws_of_the_distance(a: str, b: str) -> None:
    distance = TABLE.distance(a, b)
    assert distance == pytest.approx(slow_distance(a, b), abs=1e-5)
    assert distance == pytest.approx(TABLE.distance(b, a), abs=1e-5)
    assert distance <= Levenshtein.distance(a, b) + 1e-6
    assert abs(len(a) - len(b)) <= distance <= max(len(a), len(b))
    assert (distance == 0) == (a == b)


def test_known_distances() -> None:
    assert TABLE.distance("", "") == 0
    assert TABLE.distance("", "一二三") == TABLE.distance("一二三", "") == 3
    assert TABLE.distance("在開玩笑", "妳在開玩笑") == 1
    assert TABLE.distance("眼睛", "眼晴") == pytest.approx(1 - TABLE.similarity("睛", "晴"), abs=1e-6)


def test_substitutions_agree_with_similarity() -> None:
    a, b = "睛一\U0001f600末", "晴\U0001f600末"
    costs = TABLE.substitutions(a, b)
    assert costs.shape == (4, 3)
    assert costs.dtype == np.float32
    expected = [[1 - TABLE.similarity(x, y) for y in b] for x in a]
    np.testing.assert_allclose(costs, expected, atol=1e-6)
    assert TABLE.substitutions("", "一二").shape == (0, 2)
    assert TABLE.substitutions("一二", "").shape == (2, 0)


def test_neighbours_are_brute_force() -> None:
    some = list(TABLE.characters[5000:5700])
    found = TABLE.neighbours([*some, "\U0001f600"], 4)
    assert list(found) == some
    for character in some[::50]:
        others = [c for c in some if c != character]
        best = sorted((TABLE.similarity(character, c) for c in others), reverse=True)[:4]
        assert [TABLE.similarity(character, c) for c in found[character]] == pytest.approx(best, abs=1e-5)
        assert character not in found[character]
    assert TABLE.neighbours([], 3) == {}


@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_neighbours_of_few(k: int) -> None:
    found = TABLE.neighbours(["睛", "晴", "一"], k)
    assert all(len(others) == min(k, 2) for others in found.values())
    assert all(c not in others for c, others in found.items())
    assert found["睛"][0] == "晴"


def test_another_table(tmp_path: Path) -> None:
    shapes = np.array([[3, 4], [4, 3], [0, -5]], np.int8)
    np.savez(tmp_path / "t.npz", characters=np.array([ord(c) for c in "abc"], np.uint32), shapes=shapes)
    table = GlyphTable.load(tmp_path / "t.npz")
    assert table.similarity("a", "b") == pytest.approx(24 / 25)
    # Less than nothing in common is nothing in common.
    assert table.similarity("a", "c") == 0.0
    assert GlyphTable.load(tmp_path / "t.npz") is table
    assert GlyphTable.load() is TABLE


def test_many_distances_are_the_single_ones() -> None:
    generator = random.Random(1)
    alphabet = "睛晴己已勒嘞你妳我好a1未末\U00020000\ud800"
    pairs = [
        tuple("".join(generator.choices(alphabet, k=generator.randint(0, 14))) for _ in range(2)) for _ in range(400)
    ]
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    singles = [TABLE.distance(a, b) for a, b in pairs]
    np.testing.assert_allclose(TABLE.distances(one, other), singles, atol=1e-4)
    np.testing.assert_allclose(TABLE.distances(other, one), singles, atol=1e-4)
    counted = TABLE.counted({"睛a": 3, "己已": 9, "未\ud800": 1})
    singles = [counted.distance(a, b) for a, b in pairs]
    np.testing.assert_allclose(counted.distances(one, other), singles, atol=1e-4)
    assert TABLE.distances(["", "\0", "\ud800a"], ["", "", "\udfffa"]).tolist() == [0, 1, 1]
    assert TABLE.distances(["一" * 200], [""]).tolist() == [128]
    assert TABLE.distances([], []).shape == (0,)
    with pytest.raises(ValueError, match="there are 1 and 2 texts"):
        TABLE.distances(["一"], ["一", "二"])
