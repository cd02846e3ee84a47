from __future__ import annotations

import math
import random

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from caprag.evaluation.ranking import Metric, measure, parse_metric, rank_documents, score_run
from caprag.evaluation.report import evaluate_run

KS = (1, 2, 3, 5, 10)
# Ours, and trec_eval's name of the same.
NAMES = {
    "ndcg": "ndcg", "map": "map", "mrr": "recip_rank",
    **{f"recall@{k}": f"recall_{k}" for k in KS}, **{f"precision@{k}": f"P_{k}" for k in KS},
    **{f"ndcg@{k}": f"ndcg_cut_{k}" for k in KS}, **{f"map@{k}": f"map_cut_{k}" for k in KS},
    **{f"success@{k}": f"success_{k}" for k in KS},
}  # fmt: skip
CUTS = ",".join(map(str, KS))
MEASURES = {
    "ndcg", "map", "recip_rank", f"recall.{CUTS}", f"P.{CUTS}", f"ndcg_cut.{CUTS}", f"map_cut.{CUTS}",
    f"success.{CUTS}",
}  # fmt: skip

documents = st.sampled_from([*(f"d{i}" for i in range(14)), "é", "中", "𠀀", "D3", "10", "9"])
# Few scores, so that many are equal, some of them only as 32-bit numbers.
scores = st.sampled_from([0.0, 0.5, 1.0, 1.0 + 1e-9, 2.0, -1.0, 1e30, 16777216.0, 16777217.0])
# trec_eval itself hangs on a query of which every grade is negative.
qrels_of = st.dictionaries(documents, st.integers(-1, 3), min_size=1).filter(lambda judged: max(judged.values()) >= 0)
run_of = st.dictionaries(documents, scores)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(qrels_of, run_of), min_size=1, max_size=4))
def test_every_value_is_trec_evals(pairs: list[tuple[dict[str, int], dict[str, float]]]) -> None:
    qrels = {f"q{i}": judged for i, (judged, _) in enumerate(pairs)}
    run = {f"q{i}": found for i, (_, found) in enumerate(pairs) if found}
    ours = score_run(qrels, run, list(NAMES))
    theirs = pytrec_eval.RelevanceEvaluator(qrels, MEASURES).evaluate(run)
    for place, query in enumerate(ours.queries):
        for name, other in NAMES.items():
            # trec_eval -c counts 0 for a query that the run lacks.
            expected = theirs[query][other] if query in run else 0.0
            assert ours.values[name][place] == pytest.approx(expected, abs=1e-9), (name, query)


def test_large_random_runs_have_trec_evals_means() -> None:
    draw = random.Random(5)
    qrels = {f"q{i}": {f"d{draw.randrange(300)}": draw.randrange(4) for _ in range(12)} for i in range(200)}
    run = {f"q{i}": {f"d{j}": float(draw.randrange(40)) for j in draw.sample(range(300), 100)} for i in range(200)}
    report = evaluate_run(qrels, run, list(NAMES), samples=10)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, MEASURES).evaluate(run)
    for name, other in NAMES.items():
        mean = sum(values[other] for values in theirs.values()) / len(theirs)
        assert report[name].value == pytest.approx(mean, abs=1e-9)


def test_a_ranking_worked_by_hand() -> None:
    # Relevant at the ranks 2 (grade 1) and 4 (grade 3); a third, of grade 2, is not found.
    gains, judged = [0, 1, 0, 3, 0], [1, 3, 2, 0]
    values = {
        "recall@1": 0.0, "recall@2": 1 / 3, "recall@4": 2 / 3, "precision@2": 0.5, "precision@10": 0.2,
        "success@1": 0.0, "success@3": 1.0, "mrr": 0.5, "mrr@1": 0.0, "map": (1 / 2 + 2 / 4) / 3, "map@3": 1 / 6,
        "ndcg": (1 / math.log2(3) + 3 / math.log2(5)) / (3 + 2 / math.log2(3) + 1 / 2),
        "ndcg@2": (1 / math.log2(3)) / (3 + 2 / math.log2(3)),
    }  # fmt: skip
    assert measure([parse_metric(name) for name in values], gains, judged) == pytest.approx(list(values.values()))


@given(st.integers(0, 12), st.integers(1, 12))
def test_with_one_relevant_sentence_all_is_said_at_rank_1(rank: int, length: int) -> None:
    """The trap of the house plan: tables in which these differ have ties or doubles."""
    gains = [int(place == rank) for place in range(length)]
    names = ["precision@1", "mrr@1", "ndcg@1", "recall@1", "map@1", "success@1"]
    assert len(set(measure([parse_metric(name) for name in names], gains, [1]))) == 1
    # And at any rank these agree, one relevant sentence being all there is.
    recall, success, mean, reciprocal = measure([Metric(n, 5) for n in ("recall", "success", "map", "mrr")], gains, [1])
    assert recall == success
    assert mean == reciprocal


def test_a_list_is_taken_in_its_order_and_scores_in_trec_evals() -> None:
    assert rank_documents(["b", "c", "a"]) == ["b", "c", "a"]
    assert rank_documents({"a": 1.0, "b": 1.0, "c": 1.0 + 1e-12, "d": 0.0}) == ["c", "b", "a", "d"]
    qrels = {"q": {"a": 1}}
    assert score_run(qrels, {"q": ["a", "b"]}, ["mrr"]).values["mrr"] == (1.0,)
    assert score_run(qrels, {"q": {"a": 1.0, "b": 1.0}}, ["mrr"]).values["mrr"] == (0.5,)
    kinds = [evaluate_run(qrels, {"q": ranking}, ["mrr"]).signature for ranking in (["a"], {"a": 1.0})]
    assert "ties=order-given" in kinds[0]
    assert "ties=float32,id-descending" in kinds[1]


def test_queries_that_are_missing_hopeless_or_not_judged_are_counted() -> None:
    qrels = {"found": {"a": 1}, "missing": {"a": 1}, "hopeless": {"a": 0}}
    scores = score_run(qrels, {"found": ["a"], "hopeless": ["a"], "other": ["a"], "more": ["a"]}, ["mrr"])
    assert scores.values["mrr"] == (1.0, 0.0, 0.0)
    assert (scores.missing, scores.hopeless, scores.unjudged) == (1, 1, 2)
    assert scores.means == {"mrr": 1 / 3}
    signature = evaluate_run(qrels, {"found": ["a"], "hopeless": ["a"], "other": []}, ["mrr"]).signature
    assert "missing=1 hopeless=1 unjudged=1" in signature


@pytest.mark.parametrize(
    ("given_name", "meant"),
    [
        ("P@5", "precision@5"), ("p_5", "precision@5"), ("Recall@10", "recall@10"), ("ndcg_cut_10", "ndcg@10"),
        ("map_cut_3", "map@3"), ("recip_rank", "mrr"), ("RR@10", "mrr@10"), ("hit@1", "success@1"),
        ("hit_rate@2", "success@2"), ("nDCG", "ndcg"), (" mrr@10 ", "mrr@10"),
    ],
)  # fmt: skip
def test_metrics_are_known_by_their_usual_names(given_name: str, meant: str) -> None:
    assert str(parse_metric(given_name)) == meant


@pytest.mark.parametrize(
    "name", ["recall", "precision", "success", "recall@0", "f1@10", "ndcg@-1", "ndcg@x", "", "@10"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"metric is '"):
        parse_metric(name)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="qrels is empty"):
        score_run({}, {"q": ["a"]}, ["mrr"])
    with pytest.raises(ValueError, match="a list such as"):
        score_run({"q": {"a": 1}}, {}, "mrr")
    with pytest.raises(ValueError, match="score nan"):
        score_run({"q": {"a": 1}}, {"q": {"a": float("nan")}}, ["mrr"])
    with pytest.raises(ValueError, match="score 1e\\+60"):
        score_run({"q": {"a": 1}}, {"q": {"a": 1e60}}, ["mrr"])
    with pytest.raises(ValueError, match="each once"):
        score_run({"q": {"a": 1}}, {"q": ["a", "a"]}, ["mrr"])


def test_a_report_says_its_figures_and_can_be_measured_again() -> None:
    qrels = {f"q{i}": {"a": 1} for i in range(20)}
    run = {f"q{i}": {"a": 1.0, "b": float(i % 2 * 2)} for i in range(20)}
    report = evaluate_run(qrels, run, ["mrr@10", "recall@1"], samples=200, seed=3)
    assert report["mrr@10"].value == 0.75
    low, high = report["mrr@10"].interval
    assert low < 0.75 < high
    lines = str(report).splitlines()
    assert lines[0].startswith("mrr@10        0.7500 [0.")
    assert lines[-1] == report.signature
    assert "bootstrap=200 seed=3" in report["mrr@10"].signature
    assert report["mrr@10"].signature.startswith("metric=mrr@10 caprag=")
    assert report == evaluate_run(qrels, run, ["mrr@10", "recall@1"], samples=200, seed=3)
    assert report != evaluate_run(qrels, run, ["mrr@10", "recall@1"], samples=200, seed=4)
    with pytest.raises(KeyError):
        report["ndcg@3"]


def test_the_run_of_a_report_has_trec_evals_values() -> None:
    draw = np.random.default_rng(1)
    qrels = {f"q{i}": {f"d{j}": 1 for j in draw.choice(30, 3, replace=False)} for i in range(30)}
    run = {f"q{i}": [f"d{j}" for j in draw.permutation(30)[:20]] for i in range(30)}
    report = evaluate_run(qrels, run, list(NAMES), samples=10)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, MEASURES).evaluate(report.to_run())
    for name, other in NAMES.items():
        assert report.values[name] == pytest.approx([theirs[query][other] for query in report.queries], abs=1e-9)


def test_reports_are_compared_query_by_query_and_only_on_one_task() -> None:
    qrels = {f"q{i}": {"a": 1} for i in range(12)}
    good = evaluate_run(qrels, {q: ["a", "b"] for q in qrels}, ["mrr", "recall@1"])
    poor = evaluate_run(qrels, {q: ["b", "a"] if int(q[1:]) < 6 else ["a"] for q in qrels}, ["mrr", "recall@1"])
    mrr, recall = good.compare(poor)
    assert (mrr.metric, mrr.value, mrr.other, mrr.ratio) == ("mrr", 1.0, 0.75, 1 / 0.75)
    assert (mrr.test.better, mrr.test.worse, mrr.test.queries) == (6, 0, 12)
    # Six queries that differ, all one way: 2 of 2**6 assignments are as extreme.
    assert mrr.test.p_randomization == recall.test.p_randomization == 2 / 64
    assert "better 6, worse 0 of 12" in str(mrr)
    other = evaluate_run({q: {"b": 1} for q in qrels}, {q: ["a"] for q in qrels}, ["mrr", "recall@1"])
    with pytest.raises(ValueError, match="reports of the same queries"):
        good.compare(other)
    with pytest.raises(ValueError, match="measure the same"):
        good.compare(evaluate_run(qrels, {q: ["a"] for q in qrels}, ["mrr"]))
