"""Every feature by hand on a few pairs, and its range on many."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprag.glyphs import GlyphTable
from caprag.reranking import FEATURES
from caprag.reranking.features import Candidate, best_candidate, candidates_batch
from caprag.types import Hit, Hypothesis

GLYPHS = GlyphTable.load()
TEXT = st.text(st.sampled_from("妳你裡裏睛晴在a1Ａ，。\n\U0001f600"), max_size=12)


def nobody(_gram: str) -> int:
    return 0


def hit(number: int, text: str, *, edit: float = 0.5, dense: float | None = None, lexical: float | None = None) -> Hit:
    return Hit(number, text, edit, dense, lexical)


def best(reading: str, *hits: Hit, margins: list[float] | None = None, logprob: float = 0.0) -> Candidate:
    found = best_candidate(Hypothesis(reading, logprob), hits, nobody, GLYPHS, margins)
    assert found is not None
    return found


def test_names_come_in_order() -> None:
    assert list(best("好", hit(0, "你好")).features) == list(FEATURES)


def test_a_substitution_by_hand() -> None:
    alike = GLYPHS.similarity("閒", "開")
    found = best("妳在閒玩笑嗎？", hit(3, "妳在開玩笑嗎!", dense=0.9, lexical=7.0))
    assert (found.hit.id, found.exact) == (3, False)
    assert found.features == pytest.approx(
        {
            "edits": 1, "edit_rate": 1 / 6, "folded_edits": 1, "folded_edit_rate": 1 / 6, "variant_edits": 0,
            "simplified": 0, "glyph_distance": 1 - alike, "glyph_rate": (1 - alike) / 6, "worst_glyph": 1 - alike,
            "lost": 0, "invented": 0, "stray": 0, "log_length": math.log(6), "inverse_length": 1 / 6,
            "familiarity": 0, "gap": 3, "dense": 0.9, "lexical": 1, "doubt": 0, "margin": 0, "refuted": 0,
            "refuted_rate": 0, "cross": 0,
        },
        abs=1e-6,
    )  # fmt: skip


def test_lost_invented_and_stray() -> None:
    features = best("Q在開玩", hit(0, "在開玩笑")).features
    assert (features["lost"], features["invented"], features["stray"], features["edits"]) == (1, 1, 1, 2)
    # A Latin letter is no stranger to a sentence with others, a digit is one.
    assert best("aOK", hit(0, "OK")).features["stray"] == 0
    assert best("1OK", hit(0, "OK")).features["stray"] == 1


def test_variants_are_told_from_edits() -> None:
    features = best("在這裏著", hit(0, "在這裡着")).features
    assert (features["edits"], features["folded_edits"], features["variant_edits"]) == (2, 0, 2)
    features = best("妳好", hit(0, "你好")).features
    assert (features["edits"], features["folded_edits"], features["variant_edits"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("read", "sentence", "count"),
    [
        ("怎麼會這樣", "怎么会这样", 4), ("怎么会这样", "怎麼會這樣", 0), ("妳在這裏", "你在這裡", 0),
        ("王后", "王後", 0), ("我們走吧", "我们该走了", 1), ("我們都走了", "我們都走吧", 0),
    ],
)  # fmt: skip
def test_a_sentence_in_simplified_characters_is_told(read: str, sentence: str, count: int) -> None:
    """By what the reading has in traditional ones; the other way round a reader takes one for the other."""
    assert best(read, hit(0, sentence)).features["simplified"] == count


def test_familiarity_is_that_of_the_rarest_pair() -> None:
    counts = {"在閒": 5, "閒玩": 2, "妳在": 0}
    found = best_candidate(Hypothesis("妳在閒玩笑"), [hit(0, "妳在開玩笑")], lambda gram: counts.get(gram, 100), GLYPHS)
    assert found is not None
    # The matching form may write a pair differently, and has the same places.
    assert found.features["familiarity"] in (math.log(3), math.log(101))
    exact = best_candidate(Hypothesis("好"), [hit(0, "好。")], lambda gram: 0, GLYPHS)
    assert exact is not None
    assert exact.features["familiarity"] == 8


def test_exactness_is_of_letters_and_digits() -> None:
    assert best("OK，好！", hit(0, "ok好")).exact is False
    assert best("ＯＫ，好！", hit(0, "OK\n好")).exact is True
    assert best("裡", hit(0, "裏")).exact is False


def test_the_nearest_in_shape_is_chosen() -> None:
    # Both are one edit away.
    assert best("眼晴", hit(0, "眼一"), hit(1, "眼睛")).hit.id == 1
    # Of equals the one whose signs are those of the reading, then the first.
    assert best("好！", hit(0, "好?"), hit(1, "好!"), hit(2, "好!")).hit.id == 1


def test_gap_is_to_the_runner_up() -> None:
    found = best("在開玩笑", hit(0, "在開玩笑嗎"), hit(1, "他也在開玩笑"), hit(2, "啊"))
    assert found.features["gap"] == pytest.approx(1)
    # The same sentence with other signs is no rival.
    assert best("在開玩笑", hit(0, "在開玩笑嗎"), hit(1, "在開玩笑嗎?")).features["gap"] == 3


def test_bm25_is_relative_to_the_best() -> None:
    hits = [hit(0, "在開玩笑嗎", lexical=2.0), hit(1, "他他他他", lexical=8.0)]
    assert best("在開玩笑", *hits).features["lexical"] == 0.25
    assert best("在開玩笑", hits[1], hit(2, "在開玩笑嗎")).features["lexical"] == 0


def test_the_picture_decides_before_the_shape() -> None:
    hits = [hit(0, "眼睛"), hit(1, "別的")]
    found = best("眼晴", *hits, margins=[-1.0, 2.5])
    assert (found.hit.id, found.features["margin"]) == (1, 2.5)
    assert best("眼晴", *hits, margins=[-math.inf, -math.inf]).features["margin"] == -10
    assert best("眼晴", *hits, margins=[math.inf, 0]).features["margin"] == 10


def test_what_the_picture_rules_out_is_told_from_what_it_doubts() -> None:
    for margin, refuted, rate in (
        (-4.0, 0, 2.0), (-30.0, 20.0, 15.0), (-75.0, 60.0, 35.0), (-math.inf, 60.0, 35.0), (3.0, 0, -1.5),
        (math.inf, 0, -5.0),
    ):  # fmt: skip
        features = best("眼晴好", hit(0, "眼睛壞"), margins=[margin]).features
        assert features["folded_edits"] == 2
        assert (features["refuted"], features["refuted_rate"]) == (refuted, rate)


def test_of_what_is_ruled_out_altogether_the_nearest_comes_first() -> None:
    """A sentence with a letter that the reader can't write is no less likely than one that the picture refuses."""
    hits = [hit(0, "毫不相干"), hit(1, "眼睛好"), hit(2, "別的")]
    assert best("眼晴好", *hits, margins=[-90.0, -math.inf, -71.0]).hit.id == 1
    assert best("眼晴好", *hits, margins=[-90.0, -math.inf, -69.0]).hit.id == 2


def test_doubt_is_what_the_reader_had() -> None:
    for logprob, doubt in ((0.0, 0.0), (-1.5, 1.5), (-math.inf, 2.0)):
        assert best("眼晴", hit(0, "眼睛"), logprob=logprob).features["doubt"] == doubt


def test_nothing_to_choose() -> None:
    assert best_candidate(Hypothesis("好"), [], nobody, GLYPHS) is None
    for reading in ("", "……", "\ud800", "👍"):
        assert best_candidate(Hypothesis(reading), [hit(0, "好")], nobody, GLYPHS) is None
    # A sentence of signs only is one that shares nothing.
    assert best("好", hit(0, "……")).features["edits"] == 1


def test_as_many_margins_as_hits() -> None:
    for margins in ([], [0.0, 1.0]):
        with pytest.raises(ValueError, match=f"there are 1 hits and {len(margins)} margins"):
            best_candidate(Hypothesis("好"), [hit(0, "好")], nobody, GLYPHS, margins)


def test_as_many_lists_as_readings() -> None:
    for margins, cross in (([], None), (None, [[0.0], [1.0]])):
        with pytest.raises(ValueError, match=r"readings: 1, lists of (margins: 0|logits: 2); they must be as many"):
            candidates_batch([Hypothesis("好")], [[hit(0, "好")]], nobody, GLYPHS, margins, cross=cross)
    with pytest.raises(ValueError, match="1 hits and 2 logits"):
        candidates_batch([Hypothesis("好")], [[hit(0, "好")]], nobody, GLYPHS, cross=[[0.0, 1.0]])


def test_what_is_far_off_is_passed_over() -> None:
    """Of texts all beyond the likeliest two that share less than half of the letters; of pictures nothing."""
    reading = Hypothesis("天地人和")
    hits = [hit(0, "一二三四"), hit(1, "天地人合"), hit(2, "天地五六"), hit(3, "七八九十"), hit(4, "天地口和")]
    (found,) = candidates_batch([reading], [hits], nobody, GLYPHS)
    assert {one.hit.id for one in found} == {1, 2, 4}
    (found,) = candidates_batch([reading], [[hits[0], hits[3]]], nobody, GLYPHS)
    assert {one.hit.id for one in found} == {0, 3}
    (found,) = candidates_batch([reading], [hits], nobody, GLYPHS, [[0.0] * 5])
    assert {one.hit.id for one in found} == {0, 1, 2, 3, 4}
    (found,) = candidates_batch([reading], [hits], nobody, GLYPHS, most=1)
    assert len(found) == 1


@given(st.lists(st.tuples(TEXT, st.lists(TEXT, max_size=4)), max_size=4))
def test_many_together_are_described_as_one_by_one(rows: list[tuple[str, list[str]]]) -> None:
    readings = [Hypothesis(reading) for reading, _ in rows]
    hits = [[hit(i, text, edit=0.1 * i) for i, text in enumerate(texts)] for _, texts in rows]
    together = candidates_batch(readings, hits, len, GLYPHS)
    assert together == [
        candidates_batch([reading], [row], len, GLYPHS)[0] for reading, row in zip(readings, hits, strict=True)
    ]


@given(TEXT, st.lists(TEXT, min_size=1, max_size=3), st.lists(st.floats(allow_nan=False), min_size=3, max_size=3))
def test_ranges_and_permutations(reading: str, texts: list[str], scores: list[float]) -> None:
    hits = [hit(i, text, edit=0.1 * i, dense=0.2 * i, lexical=float(i)) for i, text in enumerate(texts)]
    for margins in (None, scores[: len(hits)]):
        found = best_candidate(Hypothesis(reading), hits, lambda gram: len(gram), GLYPHS, margins)
        if found is None:
            continue
        features = found.features
        for name in ("edits", "folded_edits", "variant_edits", "glyph_distance", "lost", "invented", "stray"):
            assert 0 <= features[name] <= 8
        for name in ("edit_rate", "folded_edit_rate", "glyph_rate"):
            assert 0 <= features[name] <= 2
        assert features["glyph_distance"] <= features["edits"] + 1e-6
        assert 0 <= features["worst_glyph"] <= 1
        assert -3 <= features["gap"] <= 3
        assert 0 <= features["lexical"] <= 1
        assert 0 <= features["familiarity"] <= 8
        assert -10 <= features["margin"] <= 10
        assert 0 <= features["refuted"] <= 60
        assert -5 <= features["refuted_rate"] <= 40
        assert all(math.isfinite(value) for value in features.values())
        for places in itertools.permutations(range(len(hits))):
            turned = None if margins is None else [margins[i] for i in places]
            assert (
                best_candidate(Hypothesis(reading), [hits[i] for i in places], lambda g: len(g), GLYPHS, turned)
                == found
            )
