"""The index against brute force, and laws: batch = singles, saved = loaded, changed = built anew."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from caprag import Index
from caprag.errors import CorpusError
from caprag.retrieval.embedder import SentenceEmbedder
from caprag.text import match_form, normalize
from caprag.types import Hit, Sentence

GENERATOR = random.Random(0)
WORDS = "你妳我他在是不了嗎的有這裡裏著着就說要去來吧啊天氣好開玩笑真實發生變化方式社交"
CORPUS = list(dict.fromkeys("".join(GENERATOR.choices(WORDS, k=GENERATOR.randint(2, 14))) for _ in range(320)))[:300]


def misread(text: str, edits: int) -> str:
    """Replace, drop or add characters at random places."""
    characters = list(text)
    for _ in range(edits):
        place = GENERATOR.randrange(len(characters))
        characters[place] = GENERATOR.choice(["", GENERATOR.choice(WORDS), characters[place] + "一"])
        characters = list("".join(characters)) or ["好"]
    return "".join(characters)


QUERIES = [misread(text, 1 + i % 3) for i, text in enumerate(GENERATOR.sample(CORPUS, 25))]
QUERIES += [CORPUS[0], CORPUS[1] + "！", "OK"]


@pytest.fixture(scope="module")
def index(tiny_embedder: SentenceEmbedder) -> Index:
    return Index.build(CORPUS, tiny_embedder)


def exact(hits: list[Hit]) -> list[tuple[int, str, float]]:
    return [(hit.id, hit.text, hit.edit) for hit in hits]


def same_hits(one: list[list[Hit]], other: list[list[Hit]], *, bm25: bool = True) -> None:
    """Equal but for the rounding of vectors; BM25 left out where sentences were removed."""
    assert [exact(hits) for hits in one] == [exact(hits) for hits in other]
    for a, b in zip(chain(*one), chain(*other), strict=True):
        assert a.dense == (None if b.dense is None else pytest.approx(b.dense, abs=1e-5))
        assert not bm25 or a.lexical == (None if b.lexical is None else pytest.approx(b.lexical, abs=1e-5))


# --- searching ----------------------------------------------------------------------------------------------------


def test_cosines_are_numpy_s(index: Index, tiny_embedder: SentenceEmbedder) -> None:
    cosines = tiny_embedder.embed([normalize(q) for q in QUERIES]) @ tiny_embedder.embed(CORPUS).T
    for row, hits in zip(cosines, index.search_batch(QUERIES, k=len(CORPUS)), strict=True):
        assert sorted(hit.id for hit in hits) == list(range(len(CORPUS)))
        assert all(hit.dense == pytest.approx(row[hit.id], abs=1e-5) for hit in hits)
        assert all(-1.0 <= (hit.dense or 0.0) <= 1.0 for hit in hits)


def test_the_dense_search_proposes_the_nearest(index: Index, tiny_embedder: SentenceEmbedder) -> None:
    cosines = tiny_embedder.embed([normalize(q) for q in QUERIES]) @ tiny_embedder.embed(CORPUS).T
    # A hit has a cosine where it is among the 32 nearest, and only there.
    for row, hits in zip(cosines, index.search_batch(QUERIES, k=7), strict=True):
        nearest = set(np.argsort(-row)[:32].tolist())
        assert {hit.id for hit in hits if hit.dense is not None} <= nearest
        assert all(hit.dense is not None for hit in hits if hit.id in nearest)


def test_edit_similarities_are_brute_force(index: Index) -> None:
    everything = index.search_batch(QUERIES, k=len(CORPUS))
    for query, hits, few in zip(QUERIES, everything, index.search_batch(QUERIES, 10, candidates=300), strict=True):
        edits = [Levenshtein.normalized_similarity(match_form(query), match_form(text)) for text in CORPUS]
        assert {hit.id: hit.edit for hit in hits} == dict(enumerate(edits))
        assert all(hit.text == CORPUS[hit.id] for hit in hits)
        assert exact(few) == exact(hits)[:10]


def test_a_batch_equals_its_singles(index: Index) -> None:
    queries = [*QUERIES[::3], "", "……", "一" * 5000]
    same_hits(index.search_batch(queries, k=7), [index.search(query, k=7) for query in queries])


def test_the_order_of_queries_changes_nothing(index: Index) -> None:
    same_hits(index.search_batch(QUERIES[::-1], k=5)[::-1], index.search_batch(QUERIES, k=5))


@pytest.mark.parametrize("k", [1, 3, 299, 300, 301, 10**9])
def test_at_most_k(index: Index, k: int) -> None:
    hits = index.search(QUERIES[0], k=k)
    assert len(hits) == min(k, len(CORPUS))
    assert exact(hits)[:1] == exact(index.search(QUERIES[0], k=1))


@pytest.mark.parametrize("query", ["", " \n", "……？！", "\u200b", "\ud800", "👍"])
def test_a_query_without_a_letter_finds_nothing(index: Index, query: str) -> None:
    assert index.search(query) == []
    assert index.search_batch([query, CORPUS[0]], k=1)[0] == []


@pytest.mark.parametrize("query", ["好\ud800笑", "在" * 5000, "\0開\x07玩笑", "a" * 5000, "𠮷" * 200, "開\n玩笑"])
def test_odd_queries_do_no_harm(index: Index, query: str) -> None:
    assert len(index.search(query, k=3)) == 3


def test_no_query(index: Index) -> None:
    assert index.search_batch([]) == []


@pytest.mark.parametrize(("k", "candidates"), [(0, 1), (1, 0), (-1, 5)])
def test_too_little_asked(index: Index, k: int, candidates: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k} and candidates is {candidates}"):
        index.search_batch(["好"], k, candidates=candidates)


def test_a_string_is_not_a_list(index: Index, tiny_embedder: SentenceEmbedder) -> None:
    with pytest.raises(TypeError, match="a list of readings is wanted"):
        index.search_batch("妳在開玩笑嗎")
    with pytest.raises(TypeError, match="a list of sentences is wanted"):
        Index.build("corpus.txt", tiny_embedder)


def test_queries_of_any_kind_or_a_clear_error(index: Index) -> None:
    assert index.search_batch(query for query in QUERIES) == index.search_batch(QUERIES)
    assert index.candidates(iter(QUERIES[:2])) == index.candidates(QUERIES[:2])
    for wrong, words in (
        (b"bytes", "queries is the bytes b'bytes'; a list of readings is wanted"),
        (["好", "好".encode()], r"query 1 is b'.*' of type bytes; decode it"),
        ([None], "query 0 is None of type NoneType; a string is wanted"),
    ):
        for call in (index.search_batch, index.candidates):
            with pytest.raises(TypeError, match=words):
                call(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="decode it"):
        index.search(b"x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="depth is 0"):
        index.candidates(["好"], 0)


def test_an_emptied_index_proposes_nothing(tiny_embedder: SentenceEmbedder) -> None:
    emptied = Index.build(["一句"], tiny_embedder)
    emptied.remove([0])
    for index in (emptied, Index(tiny_embedder)):
        assert [len(proposed) for proposed in index.candidates(["一句", "好"])] == [0, 0]


@pytest.mark.parametrize("number", ["0", 0.0, None, [0]])
def test_ids_are_whole_numbers(index: Index, number: object) -> None:
    assert number not in index
    assert (np.int64(0) in index, index[np.int64(0)]) == (True, index[0])
    with pytest.raises(TypeError, match=r"the id .* is of type \w+; an int is wanted"):
        index[number]  # type: ignore[index]
    with pytest.raises(TypeError, match=r"the id .* is of type \w+; an int is wanted"):
        index.remove([0, number])  # type: ignore[list-item]
    if not isinstance(number, list):
        with pytest.raises(TypeError, match=r"the id .* is of type \w+; an int is wanted"):
            index.upsert({number: "x"})  # type: ignore[dict-item]
    assert len(index) == len(CORPUS)


def test_exact_sentences_come_first(index: Index) -> None:
    for number, hits in enumerate(index.search_batch(CORPUS, k=1)):
        assert hits[0].text == CORPUS[number]
        assert hits[0].edit == 1.0


# --- as a collection ----------------------------------------------------------------------------------------------


def test_ids_count_in_document_order(index: Index) -> None:
    assert len(index) == len(CORPUS)
    assert list(index) == list(range(len(CORPUS)))
    assert [index[number].text for number in index] == CORPUS
    assert 0 in index
    assert len(CORPUS) not in index
    assert -1 not in index
    with pytest.raises(KeyError):
        index[len(CORPUS)]
    assert index.factory == "Flat"


def test_find(index: Index) -> None:
    assert [index.find(text) for text in CORPUS] == list(range(len(CORPUS)))
    assert index.find(f" {CORPUS[4]}\u200b ") == 4
    assert index.find("沒有這句") is None
    assert index.find("") is None


def test_frequency(index: Index) -> None:
    for gram in ("你", "玩笑", "開玩"):
        assert index.frequency(gram) == sum(gram in match_form(text) for text in CORPUS)


def test_sentences_are_stored_in_the_written_form(tiny_embedder: SentenceEmbedder) -> None:
    given: list[Sentence | str] = [Sentence(" 好　ＯＫ ", "a.srt", 3), "好 OK", Sentence("", "a.srt", 4), " "]
    given.append(Sentence("\ud800壞", "\udcff.txt", 1))
    index = Index.build(given, tiny_embedder)
    assert [index[i] for i in index] == [Sentence("好 OK", "a.srt", 3), Sentence("壞", "?.txt", 1)]


def test_sentences_that_are_only_signs_are_kept(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    index = Index.build(["……", "？！", "好"], tiny_embedder)
    assert index.find("？！") == 1
    assert index.search("好", k=3)[0].text == "好"
    assert index.add(["……"]) == []


# --- building -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sentences", [[], [""], [" ", Sentence("")], iter(())])
def test_an_empty_corpus_is_refused(tiny_embedder: SentenceEmbedder, sentences: list[str]) -> None:
    with pytest.raises(CorpusError, match="has no sentence"):
        Index.build(sentences, tiny_embedder)


def test_one_sentence(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    index = Index.build(["妳在開玩笑嗎"], tiny_embedder)
    index.save(tmp_path / "one")
    for each in (index, Index.load(tmp_path / "one", embedder=tiny_embedder)):
        (hit,) = each.search("妳在閒玩笑嗎")
        assert (hit.id, hit.text) == (0, "妳在開玩笑嗎")
        assert hit.edit == pytest.approx(5 / 6)
    index.remove([0])
    assert index.search("妳在開玩笑嗎") == []
    assert len(index) == 0


def test_an_index_without_sentences(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    index = Index(tiny_embedder, factory="IVF4,Flat")
    assert index.search("好") == []
    index.save(tmp_path / "empty")
    opened = Index.load(tmp_path / "empty", embedder=tiny_embedder)
    assert (len(opened), opened.search("好"), list(opened)) == (0, [], [])


FACTORIES = ["Flat", "IVF4,Flat", "HNSW16", "SQ8", "PCA12,IVF4,SQ8", "IVF4,Flat,RFlat"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("factory", FACTORIES)
def test_every_kind_of_vectors_goes_the_whole_way(
    tiny_embedder: SentenceEmbedder, tmp_path: Path, factory: str
) -> None:
    index = Index.build(CORPUS, tiny_embedder, factory=factory)
    assert index.factory == factory
    added = index.add(["全新的一句話", CORPUS[0], "又一句新的"])
    assert added == [300, 301]
    index.remove([0, 5, 300])
    index.save(tmp_path / "index")
    opened = Index.load(tmp_path / "index", embedder=tiny_embedder)
    same_hits(opened.search_batch(QUERIES, k=8), index.search_batch(QUERIES, k=8))
    assert len(opened) == len(CORPUS) - 1
    assert opened.factory == factory
    queries = [text for i, text in enumerate(CORPUS) if i not in (0, 5)][:60]
    assert [hits[0].text for hits in opened.search_batch(queries, k=1)] == queries
    gone = {hit.id for hits in opened.search_batch([CORPUS[0], CORPUS[5], "全新的一句話"], k=299) for hit in hits}
    assert not gone & {0, 5, 300}
    opened.remove([7])
    assert opened.add([CORPUS[0]]) == [302]
    assert opened.search(CORPUS[0], k=1)[0].id == 302


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW16"])
def test_cosines_stay_right_after_removing(tiny_embedder: SentenceEmbedder, factory: str) -> None:
    """A map from places to ids goes wrong where the index beneath does not close its gaps."""
    index = Index.build(CORPUS, tiny_embedder, factory=factory)
    index.remove(range(0, 100, 3))
    index.add(["全新的一句話"])
    index.remove([50])
    cosines = tiny_embedder.embed([normalize(q) for q in QUERIES]) @ tiny_embedder.embed([*CORPUS, "全新的一句話"]).T
    seen = 0
    for row, hits in zip(cosines, index.search_batch(QUERIES, k=300), strict=True):
        for hit in hits:
            if hit.dense is not None:
                assert hit.dense == pytest.approx(row[hit.id], abs=1e-5)
                seen += 1
    assert seen > 10 * len(QUERIES)


@pytest.mark.parametrize("factory", ["", "flat?", "IVF,Flat", "Flat,Flat", "IDMap,Flat", "IDMap2,Flat"])
def test_an_unknown_factory(tiny_embedder: SentenceEmbedder, factory: str) -> None:
    with pytest.raises(ValueError, match=f"factory '{factory}' ".replace("?", r"\?")):
        Index.build(["好"], tiny_embedder, factory=factory)


@pytest.mark.parametrize("factory", ["IVF64,Flat", "PQ4"])
def test_too_few_to_train(tiny_embedder: SentenceEmbedder, factory: str) -> None:
    with pytest.raises(ValueError, match=f"factory '{factory}' can't be trained on 20 sentences"):
        Index.build(CORPUS[:20], tiny_embedder, factory=factory)


def test_the_same_corpus_gives_the_same_bytes(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Index.build(CORPUS, tiny_embedder, factory="IVF4,Flat").save(tmp_path / name)
    for part in ("vectors-1-0.faiss", "sentences-1-0.arrow"):
        assert (tmp_path / "a" / part).read_bytes() == (tmp_path / "b" / part).read_bytes()


# --- changing -----------------------------------------------------------------------------------------------------


def test_added_and_removed_equals_built_anew(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    changed = Index.build(CORPUS[:100], tiny_embedder)
    changed.remove(range(10, 60))
    changed.add(CORPUS[100:200])
    changed.save(tmp_path / "changed")
    changed = Index.load(tmp_path / "changed", embedder=tiny_embedder)
    changed.add(iter(CORPUS[50:60]))
    changed.remove([0, 120])
    left = [changed[i].text for i in changed]
    assert left == [t for t in [*CORPUS[:10], *CORPUS[60:200], *CORPUS[50:60]] if t not in (CORPUS[0], CORPUS[120])]
    anew = Index.build(left, tiny_embedder)
    numbers = dict(zip(changed, anew, strict=True))
    found = changed.search_batch(QUERIES, k=len(left))
    expected = anew.search_batch(QUERIES, k=len(left))

    def sorted_by_id(rows: list[list[Hit]]) -> list[list[Hit]]:
        return [sorted(hits, key=lambda hit: hit.id) for hits in rows]

    # BM25 may put what is alike otherwise into another order.
    renamed = [[replace(hit, id=numbers[hit.id]) for hit in hits] for hits in found]
    same_hits(sorted_by_id(renamed), sorted_by_id(expected), bm25=False)
    changed.compact()
    found = changed.search_batch(QUERIES, k=len(left))
    same_hits([[replace(hit, id=numbers[hit.id]) for hit in hits] for hits in found], expected)
    assert all(changed.frequency(gram) == anew.frequency(gram) for gram in WORDS)


def test_ids_stay(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    index = Index.build(CORPUS[:20], tiny_embedder)
    index.remove([3, 19])
    assert index.add([CORPUS[3], CORPUS[4], "新"]) == [20, 21]
    assert index.find(CORPUS[4]) == 4
    index.remove([21])
    index.save(tmp_path / "index")
    opened = Index.load(tmp_path / "index", embedder=tiny_embedder)
    assert opened.find(CORPUS[3]) == 20
    # Not even the last id is used again.
    assert opened.add(["再新"]) == [22]


def test_adding_what_is_there_adds_nothing(tiny_embedder: SentenceEmbedder) -> None:
    index = Index.build(CORPUS[:20], tiny_embedder)
    assert index.add(CORPUS[:20]) == []
    assert index.add([]) == []
    assert index.add(["新", "新", " 新 "]) == [20]
    # Signs are part of a sentence.
    assert index.add(["新。"]) == [21]


def test_removing_what_is_not_there_removes_nothing(tiny_embedder: SentenceEmbedder) -> None:
    index = Index.build(CORPUS[:20], tiny_embedder)
    for wrong in ([0, 20], [-1], [5, 5, 99]):
        with pytest.raises(KeyError):
            index.remove(wrong)
    assert len(index) == 20
    index.remove([])
    index.remove([5, 5])
    assert len(index) == 19


def test_nothing_is_printed(tiny_embedder: SentenceEmbedder, capfd: pytest.CaptureFixture[str]) -> None:
    Index.build(CORPUS[:20], tiny_embedder).search("好")
    assert capfd.readouterr() == ("", "")
    Index.build(CORPUS[:20], tiny_embedder, progress=True)
    assert capfd.readouterr().out == ""


def test_real_subtitles_are_found_by_what_ocr_read(data: Path, tiny_embedder: SentenceEmbedder) -> None:
    """With all sentences as candidates none that brute-force edit distance finds is left out, whatever the embedder."""
    from rapidfuzz.process import cdist

    from caprag import read_corpus

    film = min((data / "subtitles").glob("*/truth.srt")).parent
    sentences = [s.text for s in read_corpus(film / "truth.srt")][:600]
    readings = [s.text for s in read_corpus(film / "paddle.srt")][:100]
    index = Index.build(sentences, tiny_embedder)
    forms = [match_form(text) for text in sentences]
    best = cdist([match_form(r) for r in readings], forms, scorer=Levenshtein.normalized_similarity, dtype=np.float64)
    found = index.search_batch(readings, k=len(sentences))
    for row, reading, hits in zip(best, readings, found, strict=True):
        if match_form(reading):
            np.testing.assert_allclose([hit.edit for hit in hits], row[[hit.id for hit in hits]])
            assert len(hits) == len(index)
            assert hits[0].edit == 1.0 or row.max() < 1.0
        else:
            assert hits == []


def test_places_of_sentences(tiny_embedder: SentenceEmbedder) -> None:
    """Its own place first, then where else the text stands; a sentence of no file stands at its id."""
    first = [Sentence("妳在開玩笑嗎", "甲.srt", 3), Sentence("不會持續太久的", "甲.srt", 4)]
    index = Index.build([*first, Sentence("妳在開玩笑嗎", "乙.srt", 9)], tiny_embedder)
    (third,) = index.add(["現在終於實現了"])
    expected = {0: [("甲.srt", 3), ("乙.srt", 9)], 1: [("甲.srt", 4)], third: [("", third)]}
    assert index.places_of([third, 0, 1, 0, 99]) == expected
    assert index.places_of([]) == {}
    index.remove([0])
    assert index.places_of([0, 1]) == {1: [("甲.srt", 4)]}
