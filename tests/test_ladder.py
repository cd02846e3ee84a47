"""The ladder: each rung against plain counting, what is taken out of the corpus, and curves by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rapidfuzz.distance import Levenshtein
from test_reranker_training import misread, script
from typer.testing import CliRunner

import caprag
from caprag.cli import app
from caprag.evaluation import cer
from caprag.evaluation.ladder import (
    CONDITIONS,
    calibration_error,
    evaluate_captions,
    reliability,
    risk_coverage_area,
)
from caprag.evaluation.peers import ProperNames
from caprag.reranking import Found
from caprag.text import countable, match_form
from caprag.types import Embedder, Hypothesis


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_the_area_is_the_mean_risk_over_all_orders_of_what_is_equally_sure(pairs: list[tuple[int, bool]]) -> None:
    """By drawing orders: ties are broken by chance many times, and the risks averaged."""
    sure, right = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    rng = np.random.default_rng(0)
    means = []
    for _ in range(400):
        order = np.lexsort((rng.random(len(pairs)), -np.array(sure)))
        wrong = np.cumsum(~np.array(right)[order])
        means.append(np.mean(wrong / np.arange(1, len(pairs) + 1)))
    assert risk_coverage_area(sure, right) == pytest.approx(np.mean(means), abs=6 * np.std(means) / 20 + 1e-9)


def test_a_perfect_order_has_the_least_area() -> None:
    right = [True] * 8 + [False] * 2
    perfect = risk_coverage_area(range(10, 0, -1), right)
    assert perfect == pytest.approx((1 / 9 + 2 / 10) / 10)
    assert perfect < risk_coverage_area([1.0] * 10, right) < risk_coverage_area(range(10), right)


def test_reliability_by_hand() -> None:
    counts, stated, came = reliability([0.91, 0.95, 1.0, 0.32], [True, True, False, False])
    assert counts.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 3]
    assert stated[9] == pytest.approx(2.86 / 3)
    assert (came[9], came[3]) == (pytest.approx(2 / 3), 0.0)
    assert np.isnan(stated[0])
    assert calibration_error([0.91, 0.95, 1.0, 0.32], [1, 1, 0, 0]) == pytest.approx(
        (3 * (0.9533333 - 2 / 3) + 0.32) / 4
    )


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return script(90, 11)


@pytest.fixture(scope="module")
def index(texts: list[str], tiny_embedder: Embedder) -> caprag.Index:
    return caprag.Index.build([*texts, *script(150, 12)], tiny_embedder)


def test_every_rung_is_what_plain_counting_says(texts: list[str], index: caprag.Index) -> None:
    pairs = misread(texts, 13)
    rng = random.Random(1)
    pipeline = caprag.Pipeline(index, k=20)
    found = [
        Found([*one.hypotheses, Hypothesis(pair.truth if rng.random() < 0.3 else "別的", -3.0)], one.hits, one.places)
        for one, pair in zip(pipeline.found_for([pair.read for pair in pairs]), pairs, strict=True)
    ]
    truths, corpus = [pair.truth for pair in pairs], [text for _, text in index.texts()]
    known, unknown, mixed = evaluate_captions(
        found, truths, pipeline.reranker, corpus, frequency=index.frequency, samples=50
    )
    assert [known.condition, unknown.condition, mixed.condition] == list(CONDITIONS)
    read = [pair.read for pair in pairs]
    best = [t if t in {h.text for h in one.hypotheses} else r for one, t, r in zip(found, truths, read, strict=True)]
    forms = [match_form(text) for text in corpus]
    for ladder in (known, unknown, mixed):
        assert ladder.rungs["first reading"].value == cer(read, truths)
        assert ladder.rungs["best reading"].value == cer(best, truths)
        assert ladder.rungs["answer"].value == cer([caption.text for caption in ladder.captions], truths)
        assert ladder.rungs["best reading or hit"].value <= ladder.rungs["best reading"].value
        assert sum(lines for lines, _, _ in ladder.by_length.values()) == len(pairs)
        answered = [countable(c.text) == countable(t) for c, t in zip(ladder.captions, truths, strict=True)]
        harmed = sum(r == t and not a for r, t, a in zip(read, truths, answered, strict=True))
        assert ladder.harms["answer"] == harmed / len(pairs)
    nearest = [
        corpus[min(range(len(forms)), key=lambda i: (Levenshtein.normalized_distance(r, forms[i]), i))]
        for r in map(match_form, read)
    ]
    assert known.rungs["nearest sentence"].value == cer(nearest, truths)
    assert known.rungs["best reading or hit"].value == 0
    assert known.rungs["answer"].value < 0.2 * known.rungs["first reading"].value
    assert unknown.outcomes.snapped_right == 0
    assert unknown.harms["nearest sentence"] > 0.4 > unknown.harms["answer"]
    own = {countable(truth) for truth in truths}
    assert not any(countable(caption.text) in own for caption in unknown.captions if caption.hit is not None)
    assert 0 < mixed.outcomes.snapped_right < known.outcomes.snapped_right
    alone = evaluate_captions(
        found, truths, pipeline.reranker, corpus, frequency=index.frequency, samples=50, in_order=False, peers=False,
        conditions=["known"],
    )  # fmt: skip
    assert [list(ladder.rungs)[-1] for ladder in alone] == ["answer"]
    assert all("story" not in caption.evidence for caption in alone[0].captions)
    (other,) = evaluate_captions(
        found, truths, pipeline.reranker, corpus, frequency=index.frequency, samples=50, conditions=["known"],
        peers=False, readers={"another": [f"{read}別" for read in truths]},
    )  # fmt: skip
    assert other.rungs["another"].value == pytest.approx(len(truths) / sum(map(len, truths)))
    assert "another" not in other.harms
    for wrong, message in (
        ({"conditions": ["some"]}, "condition is 'some'"),
        ({"truths": truths[1:]}, "89 truths"),
        ({"readers": {"another": ["一"]}}, "1 texts of another"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate_captions(
                **{"found": found, "truths": truths, "reranker": pipeline.reranker, "corpus": corpus,
                   "frequency": index.frequency, **wrong}  # type: ignore[arg-type]
            )  # fmt: skip


def test_pycorrector_answers_where_it_is_installed() -> None:
    """It mends a character of alike strokes, and can't answer with what is gone."""
    pytest.importorskip("pycorrector", reason="pycorrector is not installed")
    corpus = ["今天天氣很好", "他們，在末來相見!", "我們明天出發"]
    read = ["他們在未來 相見", "我們明天出發。", "……"]
    names = ProperNames(read, corpus)
    assert names.answers(set(), [""] * 3) == {"pycorrector": ["他們，在末來相見!", *read[1:]]}
    assert names.answers({"他們在末來相見"}, [""] * 3) == {"pycorrector": read}


def test_pictures_are_answered_as_they_are_read() -> None:
    """With the corpus as it is, the ladder's answers are the pipeline's, whatever each hypothesis finds."""
    root = Path(__file__).resolve().parent.parent / "indexes/demo"
    pipeline = caprag.Pipeline.load(root)
    frames = sorted((root / "frames").glob("*.jpg"))
    assert pipeline.index is not None
    found = list(pipeline.found_in(frames))
    assert max(len(one.hits) for one in found) > 10
    (ladder,) = evaluate_captions(
        found, ["好"] * len(frames), pipeline.reranker, [], frequency=pipeline.index.frequency, conditions=["known"],
        peers=False, samples=10,
    )  # fmt: skip
    read = pipeline.read_batch(frames)
    assert [(c.text, c.hit and c.hit.id) for c in ladder.captions] == [(c.text, c.hit and c.hit.id) for c in read]


def test_the_command(texts: list[str], index: caprag.Index, tmp_path: Path, tiny_folder: Path) -> None:
    index.save(tmp_path / "index")
    given = ["--index", str(tmp_path / "index"), "--embedder", str(tiny_folder), "--samples", "20"]
    (tmp_path / "pairs.tsv").write_text("".join(f"{p.read}\t{p.truth}\n" for p in misread(texts, 13)), encoding="utf-8")
    run = CliRunner()
    done = run.invoke(
        app,
        ["eval", "captions", str(tmp_path / "pairs.tsv"), *given, "--json", str(tmp_path / "out.json"),
         "--plot", str(tmp_path / "out.png")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [one["condition"] for one in figures] == list(CONDITIONS)
    assert figures[0]["rungs"]["answer"]["cer"] < figures[0]["rungs"]["first reading"]["cer"]
    assert "without the captions' sentences (90 captions)" in done.output
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.width > 800
    again = run.invoke(
        app, ["eval", "captions", str(tmp_path / "pairs.tsv"), *given, "--json", str(tmp_path / "2.json")]
    )
    assert again.exit_code == 0
    assert (tmp_path / "2.json").read_bytes() == (tmp_path / "out.json").read_bytes()
    frames = Path(__file__).resolve().parent.parent / "indexes/demo/frames"
    root = frames.parent
    seen = run.invoke(
        app, ["eval", "captions", str(frames), "--truth", str(frames / "captions.tsv"), "--index", str(root),
              "--conditions", "known", "--samples", "20"],
    )  # fmt: skip
    assert seen.exit_code == 0, seen.output
    assert "rapidocr alone" in seen.output
    assert "corpus as it is (" in seen.output
    for wrong, message in (
        (["eval", "captions", str(frames), *given], "name a file with --truth"),
        (["eval", "captions", str(tmp_path / "pairs.tsv"), *given, "--conditions", "x"], "--conditions is 'x'"),
    ):
        failed = run.invoke(app, wrong)
        assert failed.exit_code == 2
        assert message in failed.output
