"""Plans of sentences: even use, exact shares, kept floors, and nothing that depends on the order of asking."""

from __future__ import annotations

import pickle
from collections import Counter
from fractions import Fraction
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caprag.synthesis.sampling import SamplingReport, SentencePlan, measure_lengths
from caprag.text import normalize

LINES = [
    "妳在開玩笑嗎?",
    "不會持續太久的",
    "OK, 走吧",
    "走吧",
    "好",
    "鱷魚　來了",
    "等\n一下",
    "不會",
    "她在笑",
    "笑什麼",
]

# White space is not drawn, and what is drawn is the written form.
ALPHABET = "的一是不了在人有我鼉龘Ａ…　\n"
texts_of = st.lists(st.text(ALPHABET, min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=20)


def drawn_characters(text: str) -> list[str]:
    """Count the slow way: what is drawn of a text."""
    return [c for c in normalize(text) if not c.isspace()]


def pictures_with(texts: list[str], rows: list[int]) -> Counter[str]:
    """Count the slow way: in how many pictures each character is."""
    return Counter(c for row in rows for c in set(drawn_characters(texts[row])))


# --- without options ----------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**40))
def test_no_sentence_twice_before_all_once(size: int, count: int, seed: int) -> None:
    plan = SentencePlan([f"第{i}句" for i in range(size)], seed, count=count)
    stream = [plan[number] for number in range(4 * max(size, count))]
    for start in range(0, len(stream) - size + 1, size):
        assert sorted(stream[start : start + size]) == list(range(size))


@pytest.mark.parametrize(
    "options", [{}, {"floor": 3}, {"lengths": {2: 1.0, 7: 3.0}}, {"lengths": {2: 1.0}, "floor": 2}]
)
def test_the_order_of_asking_does_not_matter(options: dict[str, Any]) -> None:
    def plan() -> SentencePlan:
        return SentencePlan(LINES, 5, count=40, **options)

    fresh = {number: plan()[number] for number in range(0, 5 * 40, 7)}
    one = plan()
    straight = [one[number] for number in range(5 * 40)]
    assert all(straight[number] == row for number, row in fresh.items())
    order = np.random.default_rng(0).permutation(len(straight)).tolist()[:60]
    asked, copied = plan(), pickle.loads(pickle.dumps(plan()))
    for number in order:
        assert asked[number] == straight[number] == copied[number]
    assert list(plan()) == plan().rows().tolist() == straight[:40]
    assert plan().rows(4).tolist() == straight[160:]
    assert len(plan()) == 40


@pytest.mark.parametrize("options", [{}, {"floor": 3}, {"lengths": {2: 1.0, 3: 2.0}}])
def test_seeds_and_passes_differ(options: dict[str, Any]) -> None:
    texts = [f"{a}{b}{'了' * (i % 2)}" for i, (a, b) in enumerate(combinations_with_replacement("一二三四五六七", 2))]
    plans = [SentencePlan(texts, seed, **options) for seed in range(3)]
    passes = [tuple(plan.rows(turn).tolist()) for plan in plans for turn in range(3)]
    assert len(set(passes)) == len(passes)


def test_chance_has_no_favourites() -> None:
    """Over many seeds each sentence is first about as often as any other: within 6 standard deviations."""
    firsts = Counter(SentencePlan(["甲", "乙", "丙", "丁", "戊"], seed)[0] for seed in range(1000))
    assert set(firsts) == set(range(5))
    assert all(abs(n - 200) < 6 * (1000 * 0.2 * 0.8) ** 0.5 for n in firsts.values())


def test_each_goes_line_by_line_without_end() -> None:
    plan = SentencePlan(LINES, 9, mode="each")
    assert [plan[number] for number in range(25)] == [*range(10), *range(10), *range(5)]
    assert plan.rows(3).tolist() == list(range(10))
    assert plan.report().used == plan.report().pictures == 10


def test_rows_are_read_only() -> None:
    rows = SentencePlan(LINES, 0).rows()
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 1


# --- lengths ------------------------------------------------------------------------------------------------------


def test_lengths_are_counted_in_what_is_drawn() -> None:
    measured = measure_lengths([*LINES, "", " \n"])
    assert measured == {n: k / 10 for n, k in sorted(Counter(len(drawn_characters(t)) for t in LINES).items())}
    # "…" is drawn as three points, and the ideographic space is none of the characters.
    assert measure_lengths(["嗯…　好"]) == {5: 1.0}
    with pytest.raises(ValueError, match="no text to measure"):
        measure_lengths(iter(["", "\u200b"]))


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=12),
    st.dictionaries(st.integers(1, 6), st.integers(0, 9) | st.floats(0, 5), min_size=1),
    st.integers(1, 50),
    st.integers(0, 99),
)
def test_shares_are_exact_to_one_picture(sizes: list[int], weights: dict[int, float], count: int, seed: int) -> None:
    if not any(weights.values()):
        return
    texts = ["字" * size for size in sizes]
    plan = SentencePlan(texts, seed, count=count, lengths=weights)
    there = sorted(set(sizes))
    shares: dict[int, Fraction] = dict.fromkeys(there, Fraction())
    for length, weight in weights.items():
        nearest = min(there, key=lambda n: (abs(n - length), n))
        shares[nearest] += Fraction(weight) / sum(map(Fraction, weights.values()))
    uses: Counter[int] = Counter()
    for turn in range(3):
        rows = plan.rows(turn).tolist()
        got = Counter(sizes[row] for row in rows)
        assert sum(got.values()) == count
        # Hamilton's quota rule: each length has its share rounded down or up, and up goes before down by remainder.
        remainders = {n: share * count - int(share * count) for n, share in shares.items()}
        up = [remainders[n] for n in there if got[n] > int(shares[n] * count)]
        down = [remainders[n] for n in there if got[n] == int(shares[n] * count)]
        assert all(got[n] - int(shares[n] * count) in (0, 1) for n in there)
        assert min(up, default=Fraction(1)) >= max(down, default=Fraction())
        uses.update(rows)
        for size in there:
            # Even use within a length, over passes too.
            of = [uses[row] for row, other in enumerate(sizes) if other == size]
            assert max(of) - min(of) <= 1
    report = plan.report()
    assert {n.length: n.got for n in report.lengths if n.got} == Counter(sizes[row] for row in plan)
    assert all(n.wanted == n.got for n in report.lengths)
    assert {a for a, _, _ in report.moved} == {n for n, w in weights.items() if w and n not in there}


def test_a_length_that_no_sentence_has_is_moved_and_told() -> None:
    plan = SentencePlan(["一二", "一二三四", "三四五六"], 0, count=8, lengths={3: 1, 4: 1, 9: 2})
    assert Counter(plan) == {0: 2, 1: 3, 2: 3}
    assert plan.report().moved == ((3, 0.25, 2), (9, 0.5, 4))
    assert "50.00% from length 9, which no sentence has, to 4" in str(plan.report())


# --- the floor ----------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(texts_of, st.integers(1, 5), st.integers(0, 30), st.integers(0, 99))
def test_the_floor_is_kept_wherever_it_must_be(texts: list[str], floor: int, more: int, seed: int) -> None:
    alphabet = {c for text in texts for c in drawn_characters(text)}
    plan = SentencePlan(texts, seed, count=len(alphabet) * floor + more, floor=floor)
    for turn in range(2):
        drawn = pictures_with(texts, plan.rows(turn).tolist())
        assert min(drawn[c] for c in alphabet) >= floor
        assert plan.report(turn).short == ()
        assert plan.report(turn).needed is None


@settings(deadline=None)
@given(texts_of, st.integers(0, 4), st.integers(1, 30), st.integers(0, 99), st.booleans())
def test_the_report_counts_right(texts: list[str], floor: int, count: int, seed: int, by_length: bool) -> None:
    lengths = {2: 1.0, 3: 0.5, 5: 0.1} if by_length else None
    plan = SentencePlan(texts, seed, count=count, floor=floor, lengths=lengths)
    base = SentencePlan(texts, seed, count=count, lengths=lengths)
    report = plan.report(1)
    after, before = pictures_with(texts, plan.rows(1).tolist()), pictures_with(texts, base.rows(1).tolist())
    held = pictures_with(texts, list(range(len(texts))))
    counted = {c.character: (c.sentences, c.before, c.after) for c in report.characters}
    assert counted == {c: (held[c], before[c], after[c]) for c in held}
    assert [c.sentences for c in report.characters] == sorted(held.values())
    assert {c.character for c in report.short} == {c for c in held if after[c] < floor}
    uses = Counter(plan.rows(1).tolist())
    assert (report.pictures, report.sentences, report.used) == (count, len(texts), len(uses))
    assert report.most == max(uses.values())
    sizes = Counter(len(drawn_characters(texts[row])) for row in plan.rows(1).tolist())
    assert {n.length: n.got for n in report.lengths if n.got} == sizes
    if all(before[c] >= floor for c in held):
        assert plan.rows(1).tolist() == base.rows(1).tolist()
    if report.short:
        assert report.needed is not None
        assert count < report.needed <= floor * len(held)


def least_missing(texts: list[str], count: int, floor: int) -> int:
    """Try all ways to draw `count` sentences: the smallest total by which characters miss the floor."""
    alphabet = set("".join(texts))
    ways = combinations_with_replacement(range(len(texts)), count)
    return min(
        sum(max(0, floor - drawn[c]) for c in alphabet) for drawn in (pictures_with(texts, list(way)) for way in ways)
    )


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.text("的一是不了在", min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(1, 3), st.integers(1, 5), st.integers(0, 9),
)  # fmt: skip
def test_too_few_pictures_come_near(texts: list[str], floor: int, count: int, seed: int) -> None:
    """Greedy covering reaches at least 1 - 1/e of what the best way does (Nemhauser, Wolsey and Fisher, 1978)."""
    report = SentencePlan(texts, seed, count=count, floor=floor).report()
    wanted = floor * len(report.characters)
    missing = sum(floor - c.after for c in report.short)
    best = least_missing(texts, count, floor)
    assert wanted - missing >= (1 - np.exp(-1)) * (wanted - best) - 1e-9


def test_what_is_rare_is_drawn_by_all_that_hold_it() -> None:
    texts = [f"一二三{'龘' if i < 4 else '四'}" for i in range(200)]
    plan = SentencePlan(texts, 3, floor=40)
    uses = Counter(plan)
    assert [uses[row] for row in range(4)] == [10, 10, 10, 10]
    # The rest gave way to these, and nothing more did.
    assert Counter(uses[row] for row in range(4, 200)) == {1: 160, 0: 36}


@pytest.mark.parametrize("floor", [1, 2, 4, 6, 7, 9])
@pytest.mark.parametrize("seed", range(6))
def test_what_is_drawn_already_waits_for_the_rest(seed: int, floor: int) -> None:
    texts = [f"一二三{'龘' if i < 4 else '四'}" for i in range(200)]
    uses = Counter(SentencePlan(texts, seed, count=100, floor=floor))
    times = [uses[row] for row in range(4)]
    assert max(times) - min(times) <= 1
    assert sum(times) >= floor


def test_one_sentence_with_both_goes_before_two() -> None:
    texts = ["龘鼉", *["龘一", "鼉一"], *["一二"] * 50]
    # All three rare ones are drawn once anyway; one more picture brings both characters to three.
    assert Counter(SentencePlan(texts, 1, floor=3))[0] == 2


def test_replacements_stand_anywhere() -> None:
    texts = ["龘一", *["二一"] * 999]
    plans = [SentencePlan(texts, seed, floor=100).rows(turn) for seed in range(4) for turn in range(3)]
    places = [np.flatnonzero(rows == 0) for rows in plans]
    assert all(len(p) == 100 and 400 < p.mean() < 600 for p in places)
    assert len({tuple(p) for p in places}) == 12


def test_equals_are_chosen_by_chance() -> None:
    texts = [*["龘一"] * 500, *["二一"] * 9500]
    chosen = [sorted(row for row in SentencePlan(texts, seed, count=100, floor=50) if row < 500) for seed in range(5)]
    assert all(len(rows) == 50 and 150 < np.mean(rows) < 350 for rows in chosen)


def test_lengths_are_mixed_anew_in_each_pass() -> None:
    plans = [SentencePlan(["一", "一二"], seed, count=60, lengths={1: 1, 2: 1}) for seed in range(3)]
    orders = {tuple(plan.rows(turn).tolist()) for plan in plans for turn in range(3)}
    assert len(orders) == 9
    assert all(3 < order[:30].count(0) < 27 for order in orders)


def test_the_floor_keeps_to_lengths_where_it_can() -> None:
    texts = [
        *(f"{c}一二" for c in "甲乙丙丁"),
        *["一二三"] * 100,
        *["一二三四"] * 100,
        "戊一二三四五六七",
        "甲乙丙丁一",
    ]
    plan = SentencePlan(texts, 2, count=100, lengths={3: 0.5, 4: 0.5}, floor=5)
    got = Counter(len(texts[row]) for row in plan)
    # Characters of the long sentence alone cost five pictures of a length that was not wanted.
    assert got[8] == 5
    assert got[3] + got[4] == 95
    assert plan.report().short == ()
    without = SentencePlan([*texts[:-2], texts[-1]], 2, count=100, lengths={3: 0.5, 4: 0.5}, floor=5)
    assert Counter(len(texts[row]) for row in without) == {3: 50, 4: 50}


def test_a_length_gives_no_more_than_it_can_spare() -> None:
    texts = [*["龘一二"] * 20, *["三一二"] * 20, *["龘一二三"] * 20, *["三一二三"] * 200]
    for seed in range(10):
        plan = SentencePlan(texts, seed, count=100, lengths={3: 2, 4: 98}, floor=30)
        assert Counter(len(texts[row]) for row in plan) == {3: 2, 4: 98}
        assert plan.report().short == ()


def test_what_can_not_be_spared_is_left_and_lengths_with_it() -> None:
    texts = [*(f"{c}一二" for c in "甲乙丙丁戊"), "鼉一二", "鼉一二三", *["一二三四"] * 9]
    seen = 0
    for seed in range(150):
        options: dict[str, Any] = {"count": 10, "lengths": {3: 1, 4: 1}}
        base = set(SentencePlan(texts, seed, **options))
        if {0, 1, 2, 3, 4} <= base and 6 not in base:
            seen += 1
            plan = SentencePlan(texts, seed, floor=1, **options)
            assert plan.report().short == ()
            assert Counter(len(texts[row]) for row in plan) == {3: 5, 4: 5}
    assert seen > 5


def test_extreme_floors_end() -> None:
    texts = ["龘一", "鼉一", *["一二"] * 8]
    plan = SentencePlan(texts, 0, count=450_000, floor=140_000)
    assert plan.report().short == ()
    assert len(SentencePlan(texts, 0, count=1, floor=10**9).report().short) == 4


def test_real_lines(data: Path) -> None:
    texts = [s for s in (data / "text/zh-TW/sentence-collector.txt").read_text("utf-8").splitlines() if s.strip()]
    captions = [line.split("\t")[1] for line in (data / "frames/captions.tsv").read_text("utf-8").splitlines()[1:]]
    lengths = measure_lengths(captions)
    plan = SentencePlan(texts, 7, count=20_000, lengths=lengths, floor=10)
    drawn = pictures_with(texts, plan.rows().tolist())
    held = pictures_with(texts, list(range(len(texts))))
    assert min(drawn[c] for c in held) >= 10
    report = plan.report()
    wanted = {n.length: n.wanted or 0 for n in report.lengths}
    base = Counter(len(drawn_characters(texts[row])) for row in SentencePlan(texts, 7, count=20_000, lengths=lengths))
    assert {n: k for n, k in wanted.items() if k} == base
    assert sum(abs(n.got - wanted[n.length]) for n in report.lengths) < 0.05 * 20_000


# --- the report ---------------------------------------------------------------------------------------------------


def test_the_report_reads_well() -> None:
    report = SentencePlan(["龘一", "一二", "一\u0301三"], 0, count=3, floor=2).report()
    assert isinstance(report, SamplingReport)
    text = str(report)
    assert text.splitlines()[:5] == [
        "pictures    3",
        f"sentences   {report.used} of 3 drawn, none more than {report.most} times",
        "characters  5 distinct",
        f"floor       2 pictures: {5 - len(report.short)} reach it, {sum(c.after == 2 for c in report.characters)} "
        "of them just so",
        f"short       {len(report.short)}: 3 pictures are too few, about {report.needed} would do",
    ]
    assert "U+0301" in text


# --- bad options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "options", "said"),
    [
        ([], {}, "texts is empty"),
        (["好", " \n"], {}, "sentence 1 is empty"),
        (["好", "\u200b"], {"floor": 1}, "sentence 1 is '.*', which has no character to draw"),
        (["好"], {"seed": -1}, "seed is -1"),
        (["好"], {"count": 0}, "count is 0"),
        (["好"], {"floor": -2}, "floor is -2"),
        (["好"], {"floor": True}, "floor is True"),
        (["好"], {"mode": "all"}, "mode is 'all'; known are random, each"),
        (["好"], {"mode": "each", "count": 2}, "each of 1 sentences once, but count is 2"),
        (["好"], {"mode": "each", "floor": 2}, "floor 2"),
        (["好"], {"mode": "each", "lengths": {1: 1}}, "lengths not None"),
        (["好"], {"lengths": {}}, "at least one weight"),
        (["好"], {"lengths": {1: 0.0}}, "at least one weight"),
        (["好"], {"lengths": {0: 1.0}}, "lengths has 0"),
        (["好"], {"lengths": {1: float("nan")}}, "lengths has 1: nan"),
        (["好"], {"lengths": {1: -1}}, "lengths has 1: -1"),
    ],
)  # fmt: skip
def test_bad_options_are_named(texts: list[str], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SentencePlan(texts, **{"seed": 0, **options})


def test_one_string_is_not_texts() -> None:
    with pytest.raises(TypeError, match="one string"):
        SentencePlan("你好", 0)
    with pytest.raises(TypeError):
        SentencePlan(["好"], 0, count=1.5)  # type: ignore[arg-type]
    with pytest.raises(IndexError, match="-1"):
        SentencePlan(["好"], 0)[-1]
