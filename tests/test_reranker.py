"""The decision: probabilities, what is always snapped or kept, and the file it lies in."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprag import Hit, Hypothesis, Reranker
from caprag.errors import ModelError
from caprag.reranking import FEATURES
from caprag.reranking.confusions import load_glyphs
from caprag.reranking.decision import Decision
from caprag.reranking.features import IN_ORDER, best_candidate
from caprag.reranking.reranker import FORMAT, InOrder
from caprag.reranking.story import fit_story
from caprag.reranking.weights import Linear, Tree, Trees

WEIGHTS = st.lists(st.floats(-50, 50), min_size=len(FEATURES), max_size=len(FEATURES))


def nobody(_gram: str) -> int:
    return 0


def make(threshold: float = 0.5, snap_bias: float = 1.0, **snap: float) -> Reranker:
    return Reranker(weights(snap_bias, threshold, **snap), 0.9, provenance={"seed": 0})


def weights(snap_bias: float, threshold: float = 0.5, **snap: float) -> Decision[Linear]:
    zero = dict.fromkeys(FEATURES, 0.0)
    return Decision(Linear({**zero, **snap}, {**zero, "edits": 0.5}, snap_bias, 0.0), threshold)


ORDERED = Decision(Linear({"snap": 1.0, "keep": 0.0, "story": 0.5}, dict.fromkeys(IN_ORDER, 0.0), 0.0, 0.0))
PICTURED = Decision(Trees(tuple(FEATURES), (0.0, 0.5, -0.5), (
    Tree(2, (0, -1, -1), (1.5, 0.0, 0.0), (1, -1, -1), (2, -1, -1), (0.25, 2.0, -1.5)),
)))  # fmt: skip
EDITS = make(edits=-2.0, snap_bias=4.0)
HITS = [Hit(0, "妳在開玩笑嗎", 5 / 6, 0.9, 7.0), Hit(1, "不會持續太久的", 0.0, 0.1), Hit(2, "妳在看玩笑", 0.6)]


@given(WEIGHTS, WEIGHTS, WEIGHTS, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_probabilities_are_a_softmax(
    snap: list[float], keep: list[float], values: list[float], snap_bias: float, keep_bias: float
) -> None:
    made = Decision(
        Linear(dict(zip(FEATURES, snap, strict=True)), dict(zip(FEATURES, keep, strict=True)), snap_bias, keep_bias)
    )
    one, two = made.probabilities(dict(zip(FEATURES, values, strict=True)))
    assert 0 <= one <= 1
    assert 0 <= two <= 1
    assert one + two <= 1 + 1e-12
    logits = np.array([snap_bias + np.dot(snap, values), keep_bias + np.dot(keep, values), 0.0])
    odds = np.exp(logits - logits.max())
    np.testing.assert_allclose([one, two], odds[:2] / odds.sum(), atol=1e-6)


def test_the_threshold_decides() -> None:
    candidate = best_candidate(Hypothesis("妳在閒玩笑嗎", -0.5), HITS, nobody, load_glyphs())
    assert candidate is not None
    snap, keep = EDITS.line.probabilities(candidate.features)
    read = (Hypothesis("妳在閒玩笑嗎", -0.5), Hypothesis("妳在閑玩笑嗎", -1.5))
    for threshold, snapped in ((0.0, True), (snap, True), (math.nextafter(snap, 1), False), (1.0, False)):
        caption = make(threshold, edits=-2.0, snap_bias=4.0).decide(read, [candidate])
        assert (caption.hit is not None) is snapped
        assert caption.text == (HITS[0].text if snapped else read[0].text)
        assert caption.confidence == pytest.approx(snap if snapped else keep)
        assert caption.hypotheses == read
        assert caption.evidence == candidate.features


def test_near_is_snapped_and_far_is_kept() -> None:
    near, far = EDITS.rerank_batch([[Hypothesis("妳在閒玩笑嗎")], [Hypothesis("今天天氣很好")]], [HITS, HITS], nobody)
    assert near.hit == HITS[0]
    assert (far.text, far.hit) == ("今天天氣很好", None)


def test_an_exact_match_always_snaps() -> None:
    never = make(threshold=1.0, snap_bias=-100.0)
    (caption,) = never.rerank_batch([[Hypothesis("妳在，開玩笑嗎？！")]], [HITS], nobody)
    assert (caption.text, caption.hit, caption.confidence) == (HITS[0].text, HITS[0], never.exact)


@pytest.mark.parametrize("text", ["", "……", "\ud800"])
@pytest.mark.parametrize("hits", [[], HITS])
def test_a_reading_without_letters_is_kept(text: str, hits: list[Hit]) -> None:
    always = make(threshold=0.0, snap_bias=100.0)
    (caption,) = always.rerank_batch([[Hypothesis(text, math.log(0.25))]], [hits], nobody)
    assert (caption.text, caption.hit, caption.evidence) == (text, None, {})
    assert caption.confidence == pytest.approx(0.25)


def test_without_hits_the_reading_is_kept() -> None:
    (caption,) = make(threshold=0.0).rerank_batch([[Hypothesis("好", -math.inf)]], [[]], nobody)
    assert (caption.text, caption.hit, caption.confidence) == ("好", None, 0.0)


def test_permuting_hits_changes_nothing() -> None:
    scores = {0: -0.5, 1: -30.0, 2: -1.0}
    read = [Hypothesis("妳在閒玩笑嗎")]
    with_picture, without = set(), set()
    for hits in itertools.permutations(HITS):
        margins = [[scores[hit.id] for hit in hits]]
        with_picture.add(repr(EDITS.rerank_batch([read], [hits], nobody, margins)))
        without.add(repr(EDITS.rerank_batch([read], [hits], nobody)))
    assert len(with_picture) == len(without) == 1


def test_a_batch_equals_its_singles() -> None:
    readings = [[Hypothesis(text)] for text in ("妳在閒玩笑嗎", "", "不會持續太久", "x" * 5000, "妳在開玩笑嗎")]
    hits = [HITS, HITS, HITS[1:], HITS, []]
    margins = [[0.0] * 3, [0.0] * 3, None, [1.0, 2.0, 3.0], []]
    together = EDITS.rerank_batch(readings, hits, nobody, margins)
    alone = [EDITS.rerank_batch([r], [h], nobody, [m])[0] for r, h, m in zip(readings, hits, margins, strict=True)]
    assert together == alone
    assert EDITS.rerank_batch([], [], nobody) == []


def test_lists_of_other_lengths_are_refused() -> None:
    read = [Hypothesis("好")]
    with pytest.raises(ValueError, match="there are 1 lists of hypotheses and 0 of hits"):
        EDITS.rerank_batch([read], [], nobody)
    with pytest.raises(ValueError):
        EDITS.rerank_batch([read], [HITS], nobody, [[0.0] * 3, [0.0]])
    with pytest.raises(ValueError, match="3 hits and 1 margins"):
        EDITS.rerank_batch([read], [HITS], nobody, [[0.0]])
    with pytest.raises(ValueError, match="no hypothesis"):
        EDITS.rerank_batch([[]], [HITS], nobody)


def test_it_survives_the_round_trip(tmp_path: Path) -> None:
    for reranker in (replace(EDITS, order=InOrder(fit_story([]), ORDERED)), replace(EDITS, picture=PICTURED), EDITS):
        reranker.save(tmp_path / "r.json")
        assert Reranker.load(tmp_path / "r.json") == reranker
        assert Reranker.load(str(tmp_path / "r.json")) == reranker
    stored = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert stored["format"] == FORMAT
    assert stored["provenance"] == {"seed": 0}
    Reranker.load(tmp_path / "r.json").save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "r.json").read_bytes()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b"null", b"{}", b'{"format": 1}', b"\xff\xfe", b"[" * 100_000, b'{"format": "1"}'],
)
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"r\.json.*fit it again"):
        Reranker.load(tmp_path / "r.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [("format", 1), ("line.threshold", 1.5), ("line.threshold", "0.5"), ("exact", -0.1), ("line.threshold", math.nan),
     ("line.harmful", 3), ("line.harmful", ["x"]), ("line.harmful", [5.0]), ("uncounted", "kob"),
     ("uncounted", [["x"]]), ("provenance", 3), ("cross_encoder", 3), ("picture.weights.trees", ""),
     ("line.lines", math.inf), ("line.harmful", [0.9]), ("line.lines", None), ("line.weights", {}),
     ("line.weights", None),
     ("line.weights.snap", {}), ("line.weights.keep", None), ("line.weights.snap", dict.fromkeys(FEATURES, "x")),
     ("line.weights.keep", dict.fromkeys(FEATURES, math.nan)), ("line.weights.snap", [1, 2]),
     ("line.weights.snap", dict.fromkeys(reversed(list(FEATURES)), 0.0)), ("line.weights.snap_bias", math.inf),
     ("line.weights.keep_bias", "x"), ("line.weights.keep_bias", None), ("surprise", 1), ("line", None),
     ("order", {}), ("order", 3), ("order.model", {}), ("order.model.steps", {"x": 1.0}),
     ("order.model.steps", {"1": 0.5}), ("order.model.steps", [1.0]), ("order.model.jump", 1.5),
     ("order.model.jump", None), ("order.decision", {}), ("picture", {}), ("picture.weights", None),
     ("picture.weights.trees", None), ("picture.weights.trees", [[]]), ("picture.weights.names", ["edits"]),
     ("picture.weights.bias", [0.0]), ("picture.weights.bias", [0.0, 0.0, math.nan])],
)  # fmt: skip
def test_no_entry_of_the_wrong_kind_gets_through(tmp_path: Path, name: str, value: object) -> None:
    replace(EDITS, order=InOrder(fit_story([]), ORDERED), picture=PICTURED).save(tmp_path / "r.json")
    stored = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    *way, last = name.split(".")
    inner = stored
    for step in way:
        inner = inner[step]
    inner[last] = value
    (tmp_path / "r.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(ModelError, match="fit it again"):
        Reranker.load(tmp_path / "r.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path):
        with pytest.raises(ModelError, match=r"can't be read .*; name a reranker's file"):
            Reranker.load(path)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_a_threshold_is_a_probability(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold is"):
        make(threshold)
