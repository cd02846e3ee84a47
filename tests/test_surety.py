"""How sure a reading is that was kept: a logistic model that changes no answer."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from caprag import Hit, Hypothesis, Reranker
from caprag.reranking import FEATURES, Example, fit_reranker
from caprag.reranking.confusions import load_confusions
from caprag.reranking.surety import ABOUT, Surety, describe

WEIGHTS = {"keep": 0.5, "misread": -4.0, "gaps": -1.0}


def test_by_hand() -> None:
    surety = Surety(WEIGHTS, 0.25)
    misread = load_confusions().misread("你在 乾什麼")
    odds = 0.25 + 0.5 * math.log(0.9 / 0.1) - 4 * misread - 1
    assert surety.confidence("你在 乾什麼", 0.9) == pytest.approx(1 / (1 + math.exp(-odds)))
    assert list(describe("好", 0.5)) == list(ABOUT)
    assert describe("好", 0.5)["keep"] == 0


@pytest.mark.parametrize(
    ("text", "gaps"), [("", 0), (" 好 ", 0), ("好 嗎", 1), ("好　　嗎 啊", 2), ("一 二 三 四 五", 3)]
)
def test_gaps(text: str, gaps: int) -> None:
    assert describe(text, 0.5)["gaps"] == gaps


def test_certainty_is_bounded() -> None:
    for keep, odds in ((0.0, -12), (1.0, 12), (1e-30, -12), (1 - 1e-16, 12)):
        assert describe("好", keep)["keep"] == odds
        assert 0 < Surety(WEIGHTS, 0.0).confidence("好", keep) < 1


@pytest.mark.parametrize(
    ("weights", "bias"),
    [({}, 0.0), ({"gaps": 1.0, "misread": 1.0, "keep": 1.0}, 0.0), (WEIGHTS, math.inf),
     ({**WEIGHTS, "gaps": math.nan}, 0.0)],
)  # fmt: skip
def test_what_is_none(weights: dict[str, float], bias: float) -> None:
    with pytest.raises(ValueError, match=r"wanted are those of|fit it again"):
        Surety(weights, bias)


def kept_readings(count: int) -> list[Example]:
    """Readings of a corpus without their sentences: with a gap three of four are wrong, without one of ten is."""
    generator = random.Random(0)
    rows = []
    for number in range(count):
        gap = number % 2 == 0
        right = generator.random() < (0.25 if gap else 0.9)
        snap = number % 10 == 9
        features = {**dict.fromkeys(FEATURES, 0.0), "edits": 1.0 if snap else generator.uniform(4, 8)}
        text = "今天 天氣" if gap else "今天天氣"
        rows.append(Example(features, False, right and not snap, snap, snap, f"{number % 3}", reading=text))
    return rows


def test_fitting_finds_what_tells_wrong_readings() -> None:
    reranker = fit_reranker(kept_readings(3000))
    assert reranker.surety is not None
    keep = sum(e.reading_right for e in kept_readings(3000)) / 3000
    assert reranker.surety.confidence("今天 天氣", keep) == pytest.approx(0.25, abs=0.08)
    assert reranker.surety.confidence("今天天氣", keep) == pytest.approx(0.9, abs=0.08)
    deaf = fit_reranker(kept_readings(3000), uncounted=("kob",))
    assert deaf.uncounted == ("kob",)
    assert deaf.surety != reranker.surety
    assert fit_reranker(kept_readings(3000)) == reranker


def test_unknown_sources_are_named() -> None:
    with pytest.raises(ValueError, match=r"uncounted names 'kobb'; counted are acoptc, kob"):
        fit_reranker(kept_readings(300), uncounted=("kobb",))


def test_it_changes_no_answer() -> None:
    shipped = Reranker.load()
    assert shipped.surety is not None
    bare = replace(shipped, surety=None)
    hits = [Hit(0, "你在幹什麼", 0.8, 0.9, 7.0), Hit(1, "不會持續太久的", 0.0, 0.1)]
    for text in ("你在乾什麼", "僧 格林沁", "不會持續大久的", "完全是別的話", ""):
        for margins in (None, [[-30.0, -90.0]]):
            (one,), (other,) = (
                r.rerank_batch([[Hypothesis(text, -0.5)]], [hits], lambda _: 0, margins) for r in (shipped, bare)
            )
            assert replace(one, confidence=0.0) == replace(other, confidence=0.0)
            # Pictures say themselves how sure they are.
            told = one.hit is None and margins is None and bool(text)
            assert (one.confidence != other.confidence) is told
