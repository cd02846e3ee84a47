"""Tuning against recall counted by hand over the same vectors."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hashing_embedder import HashingEmbedder

from caprag import Index
from caprag.retrieval.tuning import Measurement, TuningReport, compare_factories, tune_index
from caprag.types import Sentence

EMBEDDER = HashingEmbedder()
WORDS = "天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏閏餘成歲律呂調陽"
CORPUS = ["".join(random.Random(i).choices(WORDS, k=4 + i % 9)) + f"{i:x}" for i in range(2000)]
QUERIES = [text[:-3] + "啊" + text[-2:] for text in CORPUS[::20]]


def built(factory: str, sentences: list[Sentence] | list[str] = CORPUS) -> Index:
    return Index.build(sentences, EMBEDDER, factory=factory)


def counted(index: Index, k: int) -> float:
    """Recall of the dense search by brute force over all that is there."""
    ids = np.array(list(index))
    cosines = EMBEDDER.embed(QUERIES) @ EMBEDDER.embed([index[i].text for i in ids.tolist()]).T
    found = index._store.dense(EMBEDDER.embed(QUERIES), 32)
    shares = []
    for row, hits in zip(cosines, found, strict=True):
        last = np.sort(row)[::-1][k - 1]
        near = set(ids[row >= last - 1e-6].tolist())
        shares.append(len(near.intersection([*hits][:k])) / k)
    return float(np.mean(shares))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("factory", "name"), [("IVF64,Flat", "nprobe"), ("HNSW4", "efSearch"), ("SQ4,RFlat", "k_factor_rf")]
)
@pytest.mark.parametrize("k", [1, 10])
def test_recall_is_what_brute_force_counts(factory: str, name: str, k: int) -> None:
    index = built(factory)
    index.remove(range(0, 2000, 40))
    report = tune_index(index, QUERIES, k=k, target_recall=0.9)
    assert {row.factory for row in report.rows} == {factory}
    assert [row.parameters.partition("=")[0] for row in report.rows] == [name] * len(report.rows)
    for row in report.rows:
        index.parameters = row.parameters
        assert row.recall == pytest.approx(counted(index, k), abs=1e-9)
        assert row.interval[0] <= row.recall <= row.interval[1]
        assert row.milliseconds > 0
    recalls = [row.recall for row in report.rows]
    # More work finds no less, and all of it at last; a thin graph may have vectors that no way leads to.
    assert recalls == sorted(recalls)
    assert recalls[-1] >= (0.98 if factory == "HNSW4" else 0.999)
    assert report.reached
    assert report.chosen.recall >= 0.9


@pytest.mark.filterwarnings("ignore")
def test_what_is_chosen_is_set_and_the_fastest_that_does() -> None:
    index = built("IVF64,Flat")
    for target in (0.6, 0.95, 1.0):
        report = tune_index(index, QUERIES, target_recall=target)
        assert index.parameters == report.chosen.parameters
        fitting = [row for row in report.rows if row.recall >= target]
        assert report.chosen.milliseconds == min(row.milliseconds for row in fitting)
    # All cells find all, within a minute a query.
    report = tune_index(index, QUERIES, max_milliseconds=60_000)
    assert report.chosen.recall == max(row.recall for row in report.rows) == 1.0
    report = tune_index(index, QUERIES, max_milliseconds=1e-9)
    assert not report.reached
    assert report.chosen.milliseconds == min(row.milliseconds for row in report.rows)


@pytest.mark.filterwarnings("ignore")
def test_codes_that_cannot_reach_it_say_so() -> None:
    index = built("IVF16,PQ2x4")
    report = tune_index(index, QUERIES)
    assert not report.reached
    assert report.chosen.recall == max(row.recall for row in report.rows) < 0.9
    assert "nprobe=16" in [row.parameters for row in report.rows]


def test_an_exact_index_has_nothing_to_weigh() -> None:
    embedder = HashingEmbedder()
    index = Index.build(CORPUS, EMBEDDER)
    index._given = embedder
    report = tune_index(index, QUERIES)
    (row,) = report.rows
    assert (row.parameters, row.recall, report.reached, index.parameters) == ("", 1.0, True, "")
    # Only the queries were embedded.
    assert embedder.texts == len(QUERIES)


@pytest.mark.filterwarnings("ignore")
def test_vectors_given_spare_embedding() -> None:
    sentences = [Sentence(text, aliases=(text[::-1],) * (i % 2)) for i, text in enumerate(CORPUS)]
    index = built("IVF16,Flat", sentences)
    index.remove([3, 9])
    texts = [text for i in index for text in (index[i].text, *index[i].aliases)]
    vectors = EMBEDDER.embed(texts)
    embedder = HashingEmbedder()
    index._given = embedder
    given = tune_index(index, QUERIES, vectors=vectors)
    assert embedder.texts == len(QUERIES)
    made = tune_index(index, QUERIES)
    assert embedder.texts == 2 * len(QUERIES) + len(texts)
    assert [(r.parameters, r.recall) for r in given.rows] == [(r.parameters, r.recall) for r in made.rows]
    for wrong in (vectors[:-1], np.concatenate([vectors, vectors[:1]])):
        with pytest.raises(ValueError, match="vectors and"):
            tune_index(index, QUERIES, vectors=wrong)


@pytest.mark.filterwarnings("ignore")
def test_the_same_seed_asks_the_same() -> None:
    index = built("IVF16,Flat")
    one, other = (tune_index(index, sample=50, seed=3) for _ in range(2))
    assert [(r.parameters, r.recall) for r in one.rows] == [(r.parameters, r.recall) for r in other.rows]
    assert one.signature == other.signature == "recall@1 | 50 queries | 2000 vectors | seed 3"
    # Its own sentences, as they stand, lie in the cell that is looked at first.
    assert one.rows[0].recall == 1.0


@pytest.mark.filterwarnings("ignore")
def test_factories_are_compared_and_the_index_stays() -> None:
    index = built("Flat")
    before = index.search_batch(QUERIES, 3)
    factories = ["Flat", "SQ8", "IVF16,SQ8", "PQ8x4"]
    report = compare_factories(index, factories, QUERIES, target_recall=0.9, sentences=1500)
    assert list(dict.fromkeys(row.factory for row in report.rows)) == factories
    assert (index.factory, index.parameters, index.search_batch(QUERIES, 3)) == ("Flat", "", before)
    best = {factory: max(row.recall for row in report.rows if row.factory == factory) for factory in factories}
    assert best["Flat"] == 1.0
    assert best["Flat"] >= best["SQ8"] >= best["PQ8x4"]
    # A vector of 24 floats, one byte each, or 8 codes of 4 bits; and 8 bytes for its id.
    each = {row.factory: row.bytes_per_vector for row in report.rows}
    assert each["Flat"] == pytest.approx(24 * 4 + 8, rel=0.01)
    assert each["SQ8"] == pytest.approx(24 + 8, rel=0.01)
    assert each["PQ8x4"] == pytest.approx(4 + 8, rel=0.01)
    whole = {row.factory: row.total_bytes for row in report.rows}
    assert whole["Flat"] == pytest.approx(2000 * 104, rel=0.01)
    small = compare_factories(index, factories, QUERIES, target_recall=0.9, sentences=1500, max_bytes=100_000)
    assert small.chosen.total_bytes <= 100_000
    assert small.chosen.factory != "Flat"
    with pytest.raises(ValueError, match="unknown to FAISS"):
        compare_factories(index, ["Flat", "Nonsense"], QUERIES)
    with pytest.raises(ValueError, match="one of each"):
        compare_factories(index, [])


@pytest.mark.parametrize(
    "wrong",
    [{"k": 0}, {"sample": 0}, {"target_recall": 0.0}, {"target_recall": 1.1}, {"max_milliseconds": 0.0},
     {"queries": []}, {"queries": ["", "……"]}],
)  # fmt: skip
def test_wrong_numbers_and_no_query(wrong: dict[str, object]) -> None:
    index = Index.build(CORPUS[:20], EMBEDDER)
    with pytest.raises(ValueError, match=r"k is|target_recall is|max_milliseconds is|no query"):
        tune_index(index, **wrong)  # type: ignore[arg-type]


def test_nothing_to_tune() -> None:
    index = Index(EMBEDDER)
    with pytest.raises(ValueError, match="nothing to tune"):
        tune_index(index, QUERIES)
    with pytest.raises(ValueError, match="nothing to compare"):
        compare_factories(index, ["Flat"], QUERIES)


def test_the_table_marks_what_was_chosen() -> None:
    rows = (
        Measurement("IVF8,Flat", "nprobe=1", 0.5, (0.4, 0.6), 0.1, 104.0, 208_000),
        Measurement("IVF8,Flat", "nprobe=8", 1.0, (0.9, 1.0), 0.25, 104.0, 208_000),
    )
    lines = str(TuningReport(rows, rows[1], True, "recall@1")).splitlines()
    cells = [" ".join(line.split()) for line in lines]
    assert cells[0] == "factory parameters recall 95 % ms a query bytes a vector MB"
    assert cells[1] == "IVF8,Flat nprobe=1 0.5000 [0.4000, 0.6000] 0.100 104.0 0.2"
    assert cells[2] == "* IVF8,Flat nprobe=8 1.0000 [0.9000, 1.0000] 0.250 104.0 0.2"
    assert lines[3] == "recall@1"
