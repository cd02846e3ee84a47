from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import pytrec_eval

from caprag.errors import CapragError
from caprag.evaluation.baselines import EditRetriever, OverTexts, Ranking
from caprag.evaluation.plots import Curve, draw_curves, draw_sweep
from caprag.evaluation.ranking import Metric, parse_metrics
from caprag.evaluation.retrieval import evaluate_retrieval, make_task
from caprag.evaluation.sweep import Point, Store, distinct_texts, measure_points, nested_points
from caprag.evaluation.systems import System, open_system
from caprag.retrieval import Index, SentenceEmbedder
from caprag.types import Sentence

TEXTS = ["妳在開玩笑嗎", "不會持續太久的", "現在終於實現了", "妳在开玩笑吗?", "昨天還很喜歡 今天就膩了", "……"]


def lines(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    letters = [chr(0x4E00 + 7 * i) for i in range(300)]
    return ["".join(draw.choices(letters, k=draw.randint(4, 10))) for _ in range(count)]


def misread(text: str, seed: int) -> str:
    draw = random.Random(seed)
    return "".join("口" if draw.random() < 0.5 else c for c in text)


def test_values_are_trec_evals() -> None:
    texts = lines(200)
    queries = [misread(text, i) for i, text in enumerate(texts[:60])]
    relevant = [{i: 2, (i + 7) % 200: 1, (i + 9) % 200: 0} for i in range(60)]
    names = {"recall@5": "recall_5", "precision@3": "P_3", "ndcg@10": "ndcg_cut_10", "map@10": "map_cut_10",
             "success@1": "success_1", "mrr": "recip_rank"}  # fmt: skip
    report = evaluate_retrieval(EditRetriever(texts), queries, relevant, list(names), samples=10)
    qrels = {str(q): {str(i): grade for i, grade in grades.items()} for q, grades in enumerate(relevant)}
    cuts = {"recall.5", "P.3", "ndcg_cut.10", "map_cut.10", "success.1", "recip_rank"}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, cuts).evaluate(report.to_run())
    for name, other in names.items():
        assert report.values[name] == pytest.approx([theirs[query][other] for query in report.queries], abs=1e-9)
    assert 0 < report["recall@5"].value < 1


def test_with_one_relevant_sentence_all_metrics_say_the_same_at_rank_1(tiny_embedder: SentenceEmbedder) -> None:
    texts = lines(120)
    index = Index.build(texts, tiny_embedder)
    queries = [misread(text, i) for i, text in enumerate(texts)]
    at_one = ["precision@1", "mrr@1", "ndcg@1", "recall@1", "success@1"]
    report = evaluate_retrieval(index, queries, range(120), at_one, samples=50)
    assert len({(r.value, r.interval) for r in report.reports.values()}) == 1
    assert len(set(report.values.values())) == 1


def test_sentences_of_the_same_letters_are_relevant_unless_ids_alone_count() -> None:
    retriever = OrderGiven(TEXTS, [[3, 0, 1], [3, 0, 1]])
    both = evaluate_retrieval(retriever, ["妳在閒玩笑嗎"], [0], ["recall@1", "success@1", "mrr@10"])
    assert {name: values[0] for name, values in both.values.items()} == {"recall@1": 0.5, "success@1": 1, "mrr@10": 1}
    assert "relevant=same-form" in both.signature
    alone = evaluate_retrieval(retriever, ["妳在閒玩笑嗎"], [0], ["recall@1", "mrr@10"], same_text=False)
    assert (alone["recall@1"].value, alone["mrr@10"].value) == (0.0, 0.5)
    assert "relevant=ids" in alone.signature
    # What has no letter is not the same as all else that has none.
    assert make_task(OverTexts([*TEXTS, "!"]), ["?"], [5]).grades == ({5: 1},)


class OrderGiven(OverTexts):
    """Returns what it was told to, with equal scores."""

    def __init__(self, texts: Sequence[str], rankings: list[list[int]]) -> None:
        super().__init__(texts)
        self.rankings = iter(rankings)

    def search_batch(self, queries: Sequence[str], k: int) -> list[Ranking]:
        return [[(i, 1.0) for i in next(self.rankings)] for _ in queries]


def test_the_order_that_was_found_decides_between_equal_scores() -> None:
    retriever = OrderGiven(TEXTS, [[1, 2, 4], [4, 2, 1]])
    report = evaluate_retrieval(retriever, ["a", "b"], [1, 1], ["mrr@10"])
    assert list(report.values["mrr@10"]) == pytest.approx([1, 1 / 3])
    assert "ties=order-given" in report.signature


@pytest.mark.parametrize("relevant", [[0, 2], [[0], {2}], [{0: 1}, {2: 1, 1: 0}]])
def test_what_is_relevant_is_an_id_or_several_or_grades(relevant: list[object]) -> None:
    report = evaluate_retrieval(EditRetriever(TEXTS), ["妳在閒玩笑", "現在終于"], relevant, ["mrr@10"])  # type: ignore[arg-type]
    assert report["mrr@10"].value == 1.0


def test_a_report_is_the_same_again_and_says_what_it_was_made_of(tiny_embedder: SentenceEmbedder) -> None:
    index = Index.build(TEXTS, tiny_embedder)
    queries, relevant = ["妳在閒玩笑", "現在終于"], [0, 2]
    report = evaluate_retrieval(index, queries, relevant, signature="noise=0.1 noise-seed=4")
    assert report == evaluate_retrieval(index, queries, relevant, signature="noise=0.1 noise-seed=4")
    assert list(report.values) == ["recall@1", "recall@10", "mrr@10", "ndcg@10"]
    assert report.seconds > 0
    for part in (
        f"embedder={tiny_embedder.name}:{tiny_embedder.fingerprint[:12]}", "factory=Flat", f"corpus={len(TEXTS)}:",
        "queries=2:", "noise=0.1 noise-seed=4", "depth=10", "bootstrap=1000 seed=0", "caprag=",
    ):  # fmt: skip
        assert part in report.signature
    # Another corpus, other queries, another truth: another signature.
    other = Index.build([*TEXTS, "多一句"], tiny_embedder)
    signatures = {
        report.signature,
        evaluate_retrieval(other, queries, relevant).signature,
        evaluate_retrieval(index, queries[::-1], relevant).signature,
        evaluate_retrieval(index, queries, relevant[::-1]).signature,
        evaluate_retrieval(index, queries, relevant, k=20).signature,
    }
    assert len(signatures) == 5


def test_two_systems_are_compared_on_one_task() -> None:
    texts = lines(100)
    queries = [misread(text, i) for i, text in enumerate(texts)]
    edit, bm25 = (
        evaluate_retrieval(open_system(name).build(texts), queries, range(100), ["recall@1"], name=name)
        for name in ("edit", "symspell")
    )
    (comparison,) = edit.compare(bm25)
    assert comparison.test.difference == pytest.approx(edit["recall@1"].value - bm25["recall@1"].value)
    assert comparison.test.better > comparison.test.worse
    with pytest.raises(ValueError, match="same queries"):
        edit.compare(evaluate_retrieval(EditRetriever(texts), queries[1:], range(1, 100), ["recall@1"]))


@pytest.mark.parametrize(
    ("queries", "relevant", "metrics", "k", "words"),
    [
        ([], [], ["mrr"], None, "0 queries and 0 relevant"),
        (["a"], [0, 1], ["mrr"], None, "1 queries and 2 relevant"),
        (["a"], [99], ["mrr"], None, "sentence 99 is relevant"),
        (["a"], [-1], ["mrr"], None, "sentence -1 is relevant"),
        (["a"], [0], ["nothing"], None, "metric is 'nothing'"),
        (["a"], [0], ["recall@10"], 5, "k is 5 and a metric looks at 10"),
        (["a"], [0], ["mrr"], 0, "k is 0"),
    ],
)
def test_wrong_arguments_are_refused(
    queries: list[str], relevant: list[int], metrics: list[str], k: int | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        evaluate_retrieval(EditRetriever(TEXTS), queries, relevant, metrics, k=k)


def test_a_retriever_that_repeats_itself_or_loses_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="a sentence twice"):
        evaluate_retrieval(OrderGiven(TEXTS, [[1, 1]]), ["a"], [1], ["mrr"])
    with pytest.raises(TypeError, match="a list of readings"):
        evaluate_retrieval(EditRetriever(TEXTS), "甲", [1], ["mrr"])


def test_a_sentence_with_the_letters_of_an_earlier_one_is_dropped() -> None:
    given: Iterator[Sentence | str] = iter([Sentence("妳在開玩笑嗎"), "…", "妳在开玩笑吗?", "是的", "是的。", "A", "a"])
    assert distinct_texts(given) == ["妳在開玩笑嗎", "是的", "A"]
    many = [f"{i % 20000}號" for i in range(40000)]
    assert distinct_texts(many) == many[:20000]


def make_points(texts: Sequence[str], noises: Sequence[float] = (0.1, 0.5)) -> list[Point]:
    task = make_task(OverTexts(texts), [misread(text, i) for i, text in enumerate(texts[:30])], list(range(30)))
    return [Point(texts, noise, task, f"noise={noise}") for noise in noises]


def test_figures_of_a_cell_are_those_of_the_evaluation() -> None:
    texts = lines(150)
    (point,) = make_points(texts, [0.1])
    system = open_system("bm25")
    (cell,) = measure_points([point], [system], depth=20)
    metrics = parse_metrics(["recall@1", "recall@20", "mrr@10", "ndcg@5", "map@20", "precision@7"])
    report = cell.report(point.task, metrics, samples=100, seed=1)
    whole = evaluate_retrieval(
        system.build(texts), point.task.queries, list(range(30)), metrics, k=20, samples=100, seed=1,
        signature=point.signature,
    )  # fmt: skip
    assert report.values == whole.values
    assert report.reports == whole.reports
    assert report.signature == whole.signature


def test_finished_cells_are_kept_and_nothing_is_searched_again(tmp_path: Path) -> None:
    texts = lines(80)
    points = make_points(texts)
    built: list[str] = []

    def counting(name: str) -> System:
        system = open_system(name)

        def build(given: Sequence[str]) -> OverTexts:
            built.append(name)
            return system.build(given)  # type: ignore[return-value]

        return System(name, system.description, build)

    path = tmp_path / "results.json"
    first = measure_points(points[:1], [counting("edit")], depth=10, store=Store(path))
    assert built == ["edit"]
    both = measure_points(points, [counting("edit"), counting("bm25")], depth=10, store=Store(path))
    # Each is built once at most: edit for its second point, bm25 for both.
    assert built == ["edit", "edit", "bm25"]
    assert both[0] == first[0]
    assert measure_points(points, [counting("edit"), counting("bm25")], depth=10, store=Store(path)) == both
    assert built == ["edit", "edit", "bm25"]
    # In another order, and in one go, the file is the same but for the times.
    other = tmp_path / "other.json"
    measure_points(points[::-1], [counting("bm25"), counting("edit")], depth=10, store=Store(other))
    assert without_times(other) == without_times(path)
    # Another depth is another measurement.
    measure_points(points[:1], [counting("edit")], depth=11, store=Store(path))
    assert built[-1] == "edit"
    assert len(built) == 6


def without_times(path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(row.pop("seconds") for row in rows)
    return rows


def test_grades_come_back_from_the_file(tmp_path: Path) -> None:
    texts = lines(40)
    task = make_task(OverTexts(texts), [texts[3], texts[5]], [{3: 3, 9: 1}, [5]])
    store = Store(tmp_path / "a.json")
    cells = measure_points([Point(texts, None, task)], [open_system("edit")], depth=10, store=store)
    (stored,) = Store(tmp_path / "a.json").cells.values()
    assert stored == cells[0]
    metrics = [Metric("ndcg", 10)]
    assert stored.report(task, metrics).values == cells[0].report(task, metrics).values


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 9, "cells": []}', '{"format": 1, "cells": [{}]}'])
def test_a_file_of_something_else_is_not_touched(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(CapragError, match=r"a\.json: "):
        Store(path)
    assert path.read_text() == content


def test_a_system_that_cannot_take_the_corpus_is_left_out_with_the_reason() -> None:
    small = System("symspell", "symspell()", EditRetriever, most=10)
    said: list[str] = []
    assert measure_points(make_points(lines(40)), [small], depth=5, on_left_out=said.append) == []
    assert len(said) == 1
    assert "symspell is left out at 40 sentences: it takes 10 at most" in said[0]


def test_noisy_queries_come_from_nested_corpora() -> None:
    pytest.importorskip("caprag.noise")
    texts = lines(300)
    groups = list(nested_points(texts, [300, 100], [0.4, 0.1], count=50, seed=3))
    assert [len(group[0].texts) for group in groups] == [100, 300]
    assert groups[1][0].texts[:100] == groups[0][0].texts
    assert sorted(groups[1][0].texts) == sorted(texts)
    for group in groups:
        assert [point.noise for point in group] == [0.1, 0.4]
        assert [point.task.queries for point in group] == [point.task.queries for point in groups[0]]
        assert all(point.task.grades == tuple({i: 1} for i in range(50)) for point in group)
    again = list(nested_points(texts, [100, 300], [0.1, 0.4], count=50, seed=3))
    assert again == groups
    (other,) = nested_points(texts, [100], [0.1], count=50, seed=4)
    assert other[0] != groups[0][0]
    changed = [sum(q != t for q, t in zip(p.task.queries, p.texts, strict=False)) for p in groups[0]]
    assert changed[0] < changed[1]
    # The task is that which would be made of the corpus the long way.
    point = groups[0][0]
    assert make_task(OverTexts(point.texts), point.task.queries, list(range(50))).grades == point.task.grades
    for sizes, count in (([301], 10), ([0], 10), ([], 10), ([20], 21), ([20], 0)):
        with pytest.raises(ValueError):
            list(nested_points(texts, sizes, [0.1], count=count))


def test_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    texts = lines(90)
    measured = []
    for size in (40, 90):
        for point in make_points(texts[:size]):
            cells = measure_points([point], [open_system(name) for name in ("edit", "bm25")], depth=10)
            measured += [(cell, point.task) for cell in cells]
    metrics = parse_metrics(["mrr@10", "recall@5"])
    drawn = draw_sweep(measured, metrics, tmp_path / "p.png", depth=10, samples=20)
    assert [path.name for path in drawn] == ["p-k.png", "p-noise.png", "p-size.png"]
    first = [path.read_bytes() for path in drawn]
    assert all(content.startswith(b"\x89PNG") for content in first)
    assert [
        path.read_bytes() for path in draw_sweep(measured, metrics, tmp_path / "p.png", depth=10, samples=20)
    ] == first
    assert [p.name for p in draw_sweep(measured[:1], metrics, tmp_path / "q.png", depth=10, samples=20)] == ["q-k.png"]
    curve = Curve("a", (1.0,), (0.5,), (0.4,), (0.6,))
    with pytest.raises(CapragError, match=r"draw to \.png"):
        draw_curves([("", [curve])], tmp_path / "a.svg", x_label="", y_label="")
    with pytest.raises(ValueError, match="panels is empty"):
        draw_curves([], tmp_path / "a.png", x_label="", y_label="")
