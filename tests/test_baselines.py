from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rapidfuzz.distance import OSA, Levenshtein

from caprag.errors import MissingDependencyError
from caprag.evaluation import baselines
from caprag.evaluation.baselines import (
    Best,
    BM25Retriever,
    EditRetriever,
    OverTexts,
    Ranking,
    Retriever,
    SymSpellRetriever,
    TfidfRetriever,
    grams_of,
)
from caprag.evaluation.systems import MOST, NAMES, DenseRetriever, IndexRetriever, LexicalRetriever, open_system
from caprag.retrieval import Index, SentenceEmbedder
from caprag.text import match_form, normalize

K = 7


def make_texts(count: int, seed: int = 0) -> list[str]:
    """Lines over few characters, so that many scores are equal; some come twice, some have no letter."""
    draw = random.Random(seed)
    texts = ["".join(draw.choices("我你他的了是不在有人這裡A1,", k=draw.randint(1, 9))) for _ in range(count)]
    return [*texts, "…", texts[0], texts[1] + "!"]


TEXTS = make_texts(400)
QUERIES = [*make_texts(40, seed=1), "", "?!", "龜"]


def brute(scores: list[float], least: float, k: int = K) -> Ranking:
    found = [(i, score) for i, score in enumerate(scores) if score > least]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:k]


def test_brute_force_is_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "_CORPUS_BLOCK", 32)
    monkeypatch.setattr(baselines, "_QUERY_BLOCK", 5)
    forms = [match_form(text) for text in TEXTS]
    for query, found in zip(QUERIES, EditRetriever(TEXTS).search_batch(QUERIES, K), strict=True):
        form, written = match_form(query), normalize(query)
        similarity = [Levenshtein.normalized_similarity(form, other) if form else 0.0 for other in forms]
        keys = [
            (-s, -Levenshtein.normalized_similarity(written, normalize(TEXTS[i])), i)
            for i, s in enumerate(similarity) if s > 0
        ]  # fmt: skip
        assert found == [(i, -s) for s, _, i in sorted(keys)[:K]]


def test_workers_change_nothing() -> None:
    assert EditRetriever(TEXTS, workers=2).search_batch(QUERIES, K) == EditRetriever(TEXTS).search_batch(QUERIES, K)


def test_bm25_is_the_formula() -> None:
    """Lucene's form: ln(1 + (N - n + 0.5) / (n + 0.5)) * f / (f + k1 (1 - b + b length / mean length))."""
    grams = [grams_of(match_form(text)) for text in TEXTS]
    document_frequency = Counter(gram for each in grams for gram in set(each))
    mean = sum(map(len, grams)) / len(grams)
    counts = [Counter(each) for each in grams]
    found = BM25Retriever(TEXTS).search_batch(QUERIES, K)
    for query, ranking in zip(QUERIES, found, strict=True):
        expected = [0.0] * len(TEXTS)
        for gram in grams_of(match_form(query)):
            n = document_frequency[gram]
            idf = np.log(1 + (len(TEXTS) - n + 0.5) / (n + 0.5))
            for i, (each, count) in enumerate(zip(grams, counts, strict=True)):
                f = count[gram]
                expected[i] += idf * f / (f + 1.5 * (0.25 + 0.75 * len(each) / mean))
        assert [score for _, score in ranking] == pytest.approx([s for _, s in brute(expected, 1e-9)], rel=1e-4)
        assert [expected[i] for i, _ in ranking] == pytest.approx([s for _, s in ranking], rel=1e-4)


def test_tfidf_is_the_formula() -> None:
    """Counts times ln((1 + N) / (1 + n)) + 1, to length 1."""
    grams = [Counter(grams_of(match_form(text))) for text in TEXTS]
    document_frequency = Counter(gram for each in grams for gram in each)

    def vector(counts: Counter[str]) -> dict[str, float]:
        weights = {
            g: f * (np.log((1 + len(TEXTS)) / (1 + document_frequency[g])) + 1)
            for g, f in counts.items() if g in document_frequency
        }  # fmt: skip
        length = np.sqrt(sum(w * w for w in weights.values()))
        return {g: float(w / length) for g, w in weights.items()}

    vectors = [vector(each) for each in grams]
    for query, ranking in zip(QUERIES, TfidfRetriever(TEXTS).search_batch(QUERIES, K), strict=True):
        asked = vector(Counter(grams_of(match_form(query))))
        expected = [sum(w * other.get(g, 0.0) for g, w in asked.items()) for other in vectors]
        assert [score for _, score in ranking] == pytest.approx([s for _, s in brute(expected, 1e-9)], abs=1e-5)
        assert [expected[i] for i, _ in ranking] == pytest.approx([s for _, s in ranking], abs=1e-5)


@pytest.mark.parametrize("edits", [1, 2, 3])
def test_symspell_finds_all_within_its_edits(edits: int) -> None:
    forms = [match_form(text) for text in TEXTS]
    found = SymSpellRetriever(TEXTS, edits=edits).search_batch(QUERIES, len(TEXTS))
    for query, ranking in zip(QUERIES, found, strict=True):
        form = match_form(query)
        distances = [OSA.distance(form, other) if form and other else 99 for other in forms]
        expected = sorted((d, i) for i, d in enumerate(distances) if d <= edits)
        assert ranking == [(i, -d) for d, i in expected]


def test_dense_is_the_matrix_product(tiny_embedder: SentenceEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caprag.evaluation.systems._BLOCK", 64)
    retriever = DenseRetriever(TEXTS, tiny_embedder)
    cosines = (
        tiny_embedder.embed([normalize(q) for q in QUERIES]) @ tiny_embedder.embed([normalize(t) for t in TEXTS]).T
    )
    for query, row, ranking in zip(QUERIES, cosines, retriever.search_batch(QUERIES, K), strict=True):
        if match_form(query):
            best = np.sort(row)[::-1][:K]
            assert [score for _, score in ranking] == pytest.approx(best.tolist(), abs=1e-5)
            assert [float(row[i]) for i, _ in ranking] == pytest.approx([s for _, s in ranking], abs=1e-5)
        else:
            assert ranking == []


@pytest.mark.parametrize("name", NAMES)
def test_every_system_keeps_the_laws(name: str, tiny_embedder: SentenceEmbedder) -> None:
    system = open_system(name, embedder=tiny_embedder)
    retriever = system.build(TEXTS)
    assert isinstance(retriever, Retriever)
    # It says beforehand what it will be, in one word.
    assert system.description == retriever.description
    assert len(system.description.split()) == 1
    found = retriever.search_batch(QUERIES, K)
    # One by one it finds the same.
    single = [ranking for query in QUERIES for ranking in retriever.search_batch([query], K)]
    for one, other in zip(found, single, strict=True):
        assert [score for _, score in one] == pytest.approx([score for _, score in other], abs=1e-5)
        # The last bits of a cosine depend on what is multiplied with it.
        assert name in ("dense", "caprag") or one == other
    # Fewer are the first of more.
    if name not in ("dense", "caprag"):
        assert [ranking[:3] for ranking in found] == retriever.search_batch(QUERIES, 3)
    texts = dict(retriever.sentences())
    for query, ranking in zip(QUERIES, found, strict=True):
        ids = [i for i, _ in ranking]
        assert len(ids) == len(set(ids)) <= K
        assert all(retriever.text(i) == texts[i] for i in ids)
        scores = [score for _, score in ranking]
        assert scores == sorted(scores, reverse=True)
        assert match_form(query) or not ranking
    # Its own sentence comes first, or one of the same form.
    own = [text for text in TEXTS if match_form(text)][:50]
    if name not in ("bm25", "dense", "lexical"):
        for text, ranking in zip(own, retriever.search_batch(own, 1), strict=True):
            assert match_form(texts[ranking[0][0]]) == match_form(text)
    with pytest.raises(LookupError):
        retriever.text(len(TEXTS) + 5)
    with pytest.raises(LookupError):
        retriever.text(-1)
    with pytest.raises(ValueError, match="k is 0"):
        retriever.search_batch(QUERIES, 0)


def test_an_index_is_known_by_places_or_by_its_own_ids(tiny_embedder: SentenceEmbedder) -> None:
    index = Index.build(["甲乙丙", "丁戊己", "庚辛壬"], tiny_embedder)
    index.remove([0])
    assert [i for i, _ in IndexRetriever(index).sentences()] == [1, 2]
    assert IndexRetriever(index).search_batch(["庚辛王"], 1)[0][0][0] == 2
    system = open_system("caprag", index=index)
    placed = system.build(["丁戊己", "庚辛壬"])
    assert list(placed.sentences()) == [(0, "丁戊己"), (1, "庚辛壬")]
    assert placed.search_batch(["庚辛王"], 1)[0][0][0] == 1
    assert placed.text(1) == "庚辛壬"
    assert system.description == placed.description == IndexRetriever(index).description
    with pytest.raises(ValueError, match="2 sentences and there are 3"):
        system.build(["丁戊己", "庚辛壬", "甲"])


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW8"])
def test_an_index_of_any_kind_is_described_before_it_is_built(tiny_embedder: SentenceEmbedder, factory: str) -> None:
    system = open_system("caprag", embedder=tiny_embedder, factory=factory)
    assert system.build(TEXTS).description == system.description
    assert f"factory={factory}" in system.description


def test_texts_that_an_index_keeps_once_have_the_place_of_the_first(tiny_embedder: SentenceEmbedder) -> None:
    texts = ["", "甲乙", "甲乙", "丙丁", "甲乙 "]
    retriever = open_system("caprag", embedder=tiny_embedder).build(texts)
    assert [i for i, _ in retriever.sentences()] == [1, 3]
    assert [r[0][0] for r in retriever.search_batch(["甲乙", "丙丁"], 1)] == [1, 3]


def test_other_embedders_are_named(tiny_folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    system = open_system(f"dense:{tiny_folder}")
    assert system.name == f"dense:{tiny_folder}"
    assert tiny_embedder.fingerprint[:12] in system.description
    assert open_system(f"caprag:{tiny_folder}").build(["丙", "甲乙"]).search_batch(["甲乙"], 1)[0][0][0] == 1
    for name in ("nothing", "edit:x", "lexical:y", ""):
        with pytest.raises(ValueError, match="system is"):
            open_system(name)


def test_what_is_too_large_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    system = open_system("symspell")
    most = MOST["symspell"][0]
    assert system.refusal(most) == ""
    assert f"left out at {most + 1} sentences: it takes {most}" in system.refusal(most + 1)
    assert open_system("edit").refusal(10**9) == ""


@pytest.mark.parametrize(
    ("module", "build"), [("bm25s", BM25Retriever), ("sklearn", TfidfRetriever), ("symspellpy", SymSpellRetriever)]
)
def test_a_missing_package_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, module: str, build: type[OverTexts]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'caprag\[eval\]'"):
        build(["甲"])


@pytest.mark.parametrize("build", [EditRetriever, BM25Retriever, TfidfRetriever, SymSpellRetriever, LexicalRetriever])
def test_a_corpus_without_a_letter_finds_nothing(build: type[OverTexts]) -> None:
    for texts in ([], ["…", ""]):
        assert build(texts).search_batch(["甲", "…"], 3) == [[], []]


def test_the_best_are_kept_with_all_that_equal_the_last() -> None:
    draw = np.random.default_rng(0)
    scores = draw.integers(0, 9, 500).astype(float)
    best = Best(20, least=1.0)
    for start in range(0, 500, 33):
        best.offer(scores[start : start + 33], np.arange(start, min(500, start + 33)))
    last = np.sort(scores)[::-1][19]
    assert best.result() == sorted(
        ((i, s) for i, s in enumerate(scores.tolist()) if s >= last), key=lambda pair: (-pair[1], pair[0])
    )
