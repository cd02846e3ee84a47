"""Segments against plain dictionaries: rows and vectors that are there, and those that were removed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hashing_embedder import HashingEmbedder

from caprag.retrieval.segments import FLAT, Segment, merge
from caprag.retrieval.sentences import SentenceTable
from caprag.retrieval.vectors import VectorIndex
from caprag.types import Sentence

EMBEDDER = HashingEmbedder()
WORDS = "天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏"


def sentence(i: int) -> Sentence:
    text = "".join(random.Random(i).choices(WORDS, k=6)) + str(i)
    return Sentence(text, "千字文", i, tuple(f"別名{i}-{j}" for j in range(i % 3)))


def made(ids: list[int], factory: str = FLAT, *, texts_of: int = 0) -> Segment:
    """A segment with the vectors of all texts of each row; the rows of number i are sentence(i + texts_of)."""
    segment = Segment.empty(EMBEDDER.dimension, factory)
    sentences = [sentence(i + texts_of) for i in ids]
    segment.append(ids, sentences)
    vectors = EMBEDDER.embed([text for s in sentences for text in (s.text, *s.aliases)])
    if not segment.vectors.is_trained:
        segment.vectors.train(vectors)
    segment.vectors.add(np.repeat(ids, [1 + len(s.aliases) for s in sentences]), vectors)
    return segment


def nearest(segment: Segment, there: dict[int, Sentence], k: int = 5) -> None:
    """What a search finds are the best vectors of rows that are there."""
    queries = EMBEDDER.embed([sentence(i).text for i in range(0, 300, 7)])
    ids, cosines = segment.search(queries, k)
    numbers = [i for i, s in sorted(there.items()) for _ in (s.text, *s.aliases)]
    vectors = EMBEDDER.embed([text for _, s in sorted(there.items()) for text in (s.text, *s.aliases)])
    for query, found, scores in zip(queries, ids, cosines, strict=True):
        expected = np.sort(vectors @ query)[::-1][:k]
        full = found >= 0
        assert full.sum() == min(k, len(expected))
        np.testing.assert_allclose(scores[full], expected, atol=1e-5)
        assert set(found[full].tolist()) <= set(numbers)


def test_what_was_removed_is_not_there() -> None:
    ids = list(range(0, 300, 3))
    segment = made(ids)
    expected = {i: sentence(i) for i in ids}
    generator = random.Random(0)
    nearest(segment, expected)
    assert not segment.changed
    while len(expected) > 4:
        gone = generator.sample(sorted(expected), max(1, len(expected) // 3))
        segment.remove(gone)
        for i in gone:
            del expected[i]
        assert len(segment) == len(expected)
        assert segment.ids.tolist() == sorted(expected)
        assert segment.removed.tolist() == sorted(set(ids) - set(expected))
        assert (segment.find(range(-1, 301)) >= 0).tolist() == [i in expected for i in range(-1, 301)]
        nearest(segment, expected)
    assert segment.changed


def test_it_takes_rows_behind_its_last_one() -> None:
    segment = made([3, 8])
    assert [segment.takes(i) for i in (0, 8, 9)] == [False, False, True]
    segment.remove([8])
    # The row is still there.
    assert not segment.takes(8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("factory", [FLAT, "HNSW16", "IVF8,Flat", "SQ8", "IVF8,SQ8,RFlat"])
def test_merged_equals_made_anew(factory: str, tmp_path: Path) -> None:
    segments = [made(list(range(0, 200, 2)), factory), made([*range(1, 100, 2)]), made([10, 12, *range(201, 230)])]
    segments[1].remove([5, 7])
    # Ids that were removed from one segment may stand in a later one.
    segments[0].remove([10, 12, 14])
    segments[2].remove([12, 229])
    expected = {i: sentence(i) for segment in segments for i in segment.ids.tolist()}
    base = None if factory == FLAT else segments[0].vectors
    whole = merge(segments, base)
    assert whole.factory == factory
    assert whole.ids.tolist() == sorted(expected)
    assert whole.sentences.take(np.arange(len(expected))) == [s for _, s in sorted(expected.items())]
    assert len(whole.removed) == 0
    texts = sum(1 + len(s.aliases) for s in expected.values())
    assert len(whole.vectors) == texts
    whole.vectors.tune({"HNSW16": "efSearch=512", "IVF8,Flat": "nprobe=8"}.get(factory, ""))
    if factory in (FLAT, "HNSW16", "IVF8,Flat"):
        nearest(whole, expected)
    queries = sorted(expected)[::5]
    found, _ = whole.search(EMBEDDER.embed([sentence(i).text for i in queries]), 3)
    assert np.mean([i in row for i, row in zip(queries, found.tolist(), strict=True)]) > 0.9
    whole.save(tmp_path / "s.arrow", tmp_path / "v.faiss")
    opened = Segment(SentenceTable(tmp_path / "s.arrow"), VectorIndex.load(tmp_path / "v.faiss", factory), factory, [4])
    assert opened.ids.tolist() == [i for i in sorted(expected) if i != 4]


def test_merging_changes_none_of_the_merged() -> None:
    segments = [made([0, 2, 4]), made([1, 3, 9])]
    segments[0].remove([2])
    whole = merge(segments)
    whole.remove([0])
    whole.append([20], [sentence(20)])
    assert [segment.ids.tolist() for segment in segments] == [[0, 4], [1, 3, 9]]
    assert whole.ids.tolist() == [1, 3, 4, 9, 20]
