"""What is held out is held out: nothing of it, equal or near, is left in training."""

from __future__ import annotations

import hashlib
import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from caprag import match_form, read_corpus
from caprag.training.split import near_clusters, split_sentences
from caprag.types import Sentence

LETTERS = "天地人你我他來去吃喝看聽說讀寫大小多少上下"


def similarity(a: str, b: str) -> float:
    return Levenshtein.normalized_similarity(match_form(a), match_form(b))


def made(count: int, seed: int = 0) -> list[Sentence]:
    """Sentences of six documents, a third of them an edit away from an earlier one, wherever that stands."""
    draw = random.Random(seed)
    texts: list[str] = []
    while len(texts) < count:
        if texts and draw.random() < 0.35:
            text = list(draw.choice(texts))
            text[draw.randrange(len(text))] = draw.choice(LETTERS)
        else:
            text = [draw.choice(LETTERS) for _ in range(draw.randint(4, 12))]
        texts.append("".join(text))
    return [Sentence(text, f"{i % 6}.txt", i // 6 + 1) for i, text in enumerate(texts)]


def test_clusters_are_the_connected_components_of_near_pairs() -> None:
    texts = [s.text for s in made(250)]
    clusters = near_clusters(texts, 0.8)
    # Independently: flood fill over all pairs.
    wanted = np.full(len(texts), -1)
    for start in range(len(texts)):
        if wanted[start] >= 0:
            continue
        queue, number = [start], wanted.max() + 1
        wanted[start] = number
        while queue:
            here = queue.pop()
            for other in range(len(texts)):
                if wanted[other] < 0 and similarity(texts[here], texts[other]) >= 0.8:
                    wanted[other] = number
                    queue.append(other)
    assert clusters.tolist() == wanted.tolist()
    assert clusters.max() < len(texts) - 20


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_pair_across_is_equal_or_near(seed: int) -> None:
    sentences = made(300, seed)
    split = split_sentences(sentences, dev=0.2, test=0.2, near=0.8, seed=seed)
    parts = (split.train, split.dev, split.test)
    assert all(parts)
    assert sorted(itertools.chain(*parts, split.dropped)) == list(range(300))
    for one, other in itertools.combinations(parts, 2):
        for a, b in itertools.product(one, other):
            assert similarity(sentences[a].text, sentences[b].text) < 0.8


def test_variants_are_near() -> None:
    sentences = [Sentence("你在這裡嗎?", "a"), Sentence("你在这里吗", "b"), Sentence("完全不同的一句", "c")]
    assert near_clusters([s.text for s in sentences]).tolist() == [0, 0, 1]


def test_documents_stay_whole() -> None:
    """But for what was dropped, a source is on one side."""
    sentences = made(300)
    split = split_sentences(sentences, dev=0.2, test=0.2)
    sides = [{sentences[i].source for i in part} for part in (split.train, split.dev, split.test)]
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert split.documents == tuple(map(len, sides))


def test_a_long_source_is_several_documents() -> None:
    draw = random.Random(0)
    sentences = [Sentence("".join(draw.choices(LETTERS, k=12)), "one.txt", i + 1) for i in range(100)]
    split = split_sentences(sentences, dev=0, test=0.2, block=10, near=1.0)
    assert split.documents == (8, 0, 2)
    blocks = [{i // 10 for i in part} for part in (split.train, split.test)]
    assert not blocks[0] & blocks[1]
    assert split_sentences(sentences, dev=0, test=0.2, block=None, near=1.0).documents == (0, 0, 1)


def test_the_draw_is_the_seeds_and_the_names() -> None:
    sentences = made(120)
    split = split_sentences(sentences, dev=0.2, test=0.2, seed=3)
    assert split == split_sentences(sentences, dev=0.2, test=0.2, seed=3)
    others = [split_sentences(sentences, dev=0.2, test=0.2, seed=seed).test for seed in range(6)]
    assert len(set(others)) > 1
    # The same documents in another order: the same ones are held out.
    turned = sorted(sentences, key=lambda s: (s.source, s.line), reverse=True)
    again = split_sentences(turned, dev=0.2, test=0.2, seed=3)
    assert {turned[i].source for i in again.test} == {sentences[i].source for i in split.test}


def test_nothing_held_out() -> None:
    sentences = made(30)
    split = split_sentences(sentences, dev=0, test=0)
    assert split.train == tuple(range(30))
    assert split_sentences([], dev=0.1, test=0.1).train == ()


@pytest.mark.parametrize(
    ("given", "named"), [({"dev": 0.6, "test": 0.5}, "0.6"), ({"near": 0.5}, "0.5"), ({"block": 0}, "0")]
)
def test_arguments_out_of_range_are_refused(given: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        split_sentences(made(10), **given)  # type: ignore[arg-type]


def test_real_sentences(data: Path) -> None:
    """A sample of the held-out sentences against all of training, by a search of its own."""
    from rapidfuzz.process import cdist

    sentences = list(read_corpus(data / "text" / "zh-TW"))
    split = split_sentences(sentences, seed=1)
    train = [match_form(sentences[i].text) for i in split.train]
    held_out = [match_form(sentences[i].text) for i in random.Random(0).sample(split.test, 100)]
    assert cdist(held_out, train, scorer=Levenshtein.normalized_similarity, workers=1).max() < 0.8 - 1e-6


def test_sentences_without_a_source_are_split_by_cluster() -> None:
    sentences = [Sentence(s.text) for s in made(600)]
    split = split_sentences(sentences, dev=0.1, test=0.2, seed=1)
    assert split.dropped == ()
    clusters = near_clusters([s.text for s in sentences])
    parts = [set(clusters[list(part)]) for part in (split.train, split.dev, split.test)]
    assert not parts[0] & parts[1] | parts[1] & parts[2] | parts[0] & parts[2]
    assert split.documents == tuple(map(len, parts))
    largest = np.bincount(clusters).max()
    assert 120 <= len(split.test) < 120 + largest
    assert 60 <= len(split.dev) < 60 + largest
    # What is drawn hangs on the texts, not on their order.
    again = split_sentences(sentences[::-1], dev=0.1, test=0.2, seed=1)
    assert {sentences[::-1][i].text for i in again.test} == {sentences[i].text for i in split.test}


def test_a_cluster_larger_than_a_share_is_trained_on() -> None:
    texts = [f"我們的故事說到這裡第{i}集" for i in range(60)] + [s.text for s in made(40)]
    split = split_sentences([Sentence(text) for text in texts], dev=0, test=0.1)
    assert set(range(60)) <= set(split.train)
    assert 10 <= len(split.test) < 25


def test_sentences_with_sources_are_split_as_ever() -> None:
    """What was held out of a corpus stays held out."""
    sentences = made(300)
    assert hashlib.sha256(repr(split_sentences(sentences, dev=0.2, test=0.2, seed=1)).encode()).hexdigest() == (
        "baab0ad6c0bda8b4df2b569da95ea07e7c033562afc38b94da0e0434ee621289"
    )
