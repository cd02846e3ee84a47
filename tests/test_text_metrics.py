"""Overlap of tokens beside pycocoevalcap and sacreBLEU, tokens, and figures that are made of sums."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import sacrebleu.metrics.bleu as reference_bleu
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from caprag.evaluation import bootstrap
from caprag.evaluation.significance import bootstrap_means, paired_test
from caprag.evaluation.texts import overlap
from caprag.evaluation.texts.tokens import choose_tokenizer, split_texts
from caprag.evaluation.texts.totals import Totals, mean_of, paired_test_of_totals

WORDS = [*"abcdefghijklm", "貓", "狗", ",", "."]
Items = tuple[list[list[str]], list[list[list[str]]]]


def texts(seed: int, items: int = 60) -> Items:
    """Candidates that are references with words replaced, lost and repeated; some are empty, some right."""
    draw = random.Random(seed)

    def sentence() -> list[str]:
        return draw.choices(WORDS, k=draw.randint(1, 14))

    references = [[sentence() for _ in range(draw.randint(1, 5))] for _ in range(items)]
    candidates = []
    for truths in references:
        tokens = [w if draw.random() < 0.7 else draw.choice(WORDS) for w in draw.choice(truths)]
        candidates.append(tokens[: draw.randint(0, len(tokens))] if draw.random() < 0.3 else tokens)
    candidates[0], candidates[1] = [], list(references[1][0])
    return candidates, references


def for_coco(items: Items) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    candidates, references = items
    truths = {i: [" ".join(tokens) for tokens in group] for i, group in enumerate(references)}
    return truths, {i: [" ".join(tokens)] for i, tokens in enumerate(candidates)}


@pytest.mark.parametrize("seed", range(4))
def test_bleu_is_that_of_pycocoevalcap(seed: int) -> None:
    items = texts(seed)
    counts = overlap.bleu_counts(*items)
    corpus, single = Bleu(4).compute_score(*for_coco(items), verbose=0)
    for n in range(1, 5):
        assert overlap.bleu(counts.sum(axis=0, keepdims=True), n)[0] == pytest.approx(corpus[n - 1], abs=1e-12)
        assert overlap.bleu(counts, n) == pytest.approx(np.array(single[n - 1]), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_bleu_is_that_of_sacrebleu(seed: int) -> None:
    candidates, references = texts(seed)
    counts = overlap.bleu_counts(candidates, references)
    lines = [" ".join(tokens) for tokens in candidates]
    most = max(map(len, references))
    # Its references stand in columns; where an item has less, None.
    columns: Any = [[" ".join(r[i]) if i < len(r) else None for r in references] for i in range(most)]
    corpus = reference_bleu.BLEU(tokenize="none", force=True).corpus_score(lines, columns).score
    assert overlap.sacrebleu(counts.sum(axis=0, keepdims=True))[0] == pytest.approx(corpus, abs=1e-9)
    sentence = reference_bleu.BLEU(tokenize="none", force=True, effective_order=True)
    single = [
        sentence.sentence_score(line, [" ".join(t) for t in r]).score for line, r in zip(lines, references, strict=True)
    ]
    assert overlap.sacrebleu(counts, effective_order=True) == pytest.approx(np.array(single), abs=1e-9)
    for n in range(1, 5):
        plain = reference_bleu.BLEU(tokenize="none", force=True, smooth_method="none", max_ngram_order=n)
        value = overlap.bleu(counts.sum(axis=0, keepdims=True), n)[0]
        assert 100 * value == pytest.approx(plain.corpus_score(lines, columns).score, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_rouge_and_cider_are_those_of_pycocoevalcap(seed: int) -> None:
    items = texts(seed)
    for theirs, ours in ((Rouge(), overlap.rouge_l(*items)), (Cider(), overlap.cider(*items))):
        value, single = theirs.compute_score(*for_coco(items))
        assert ours == pytest.approx(single, abs=1e-9)
        assert np.mean(ours) == pytest.approx(value, abs=1e-9)


def test_the_same_text_has_the_most() -> None:
    _, references = texts(0)
    long = [[tokens for tokens in group if len(tokens) >= 4][:1] for group in references]
    kept = [group for group in long if group]
    same = [group[0] for group in kept]
    counts = overlap.bleu_counts(same, kept).sum(axis=0, keepdims=True)
    assert overlap.bleu(counts, 4)[0] == pytest.approx(1)
    assert overlap.sacrebleu(counts)[0] == pytest.approx(100)
    assert overlap.rouge_l(same, kept) == pytest.approx([1.0] * len(kept))
    assert overlap.cider(same, kept) == pytest.approx([10.0] * len(kept))


def test_tokens_are_those_of_sacrebleu() -> None:
    lines = ["A cat's here, isn't it?", "一隻貓 sat，在 mat 上。", ""]
    for name in ("13a", "zh"):
        split = reference_bleu.BLEU(tokenize=name).tokenizer
        assert split_texts(lines, name) == [split(line).split() for line in lines]
    characters = reference_bleu.BLEU(tokenize="char").tokenizer
    assert split_texts(["一隻貓, ok"], "characters") == [characters("一隻貓, ok").split()]
    assert split_texts(["A  Cat"], "words", lowercase=True) == [["a", "cat"]]
    with pytest.raises(ValueError, match="'letters'; known are characters, words"):
        split_texts(["a"], "letters")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        (["一隻貓在 mat 上面"], "characters"),
        (["the sign says 你好"], "13a"),
        (["", "..."], "13a"),
        (["ねこがいる"], "13a"),
    ],
)
def test_chinese_is_told_by_its_letters(lines: Sequence[str], chosen: str) -> None:
    assert choose_tokenizer(lines) == chosen


def test_a_mean_has_the_interval_and_the_test_of_means() -> None:
    draw = np.random.default_rng(3)
    first, second = draw.random(40), draw.random(40)
    totals = mean_of(first)
    assert totals.value == pytest.approx(first.mean())
    assert totals.interval(samples=300, seed=5) == pytest.approx(bootstrap_means(first, samples=300, seed=5).tolist())
    ours = paired_test_of_totals(totals, mean_of(second), samples=500, seed=2)
    theirs = paired_test(first, second, samples=500, seed=2)
    assert ours.p_bootstrap == theirs.p_bootstrap
    assert ours.interval == pytest.approx(theirs.interval)
    assert (ours.better, ours.worse, ours.queries) == (theirs.better, theirs.worse, theirs.queries)
    assert ours.p_randomization == pytest.approx(theirs.p_randomization, abs=0.08)
    few = paired_test_of_totals(mean_of(first[:8]), mean_of(second[:8]), samples=500)
    assert few.p_randomization == paired_test(first[:8], second[:8], samples=500).p_randomization


def test_counts_are_summed_before_they_are_scored() -> None:
    """Against resampling the items themselves, which knows no counts."""
    candidates, references = texts(1, items=25)
    counts = overlap.bleu_counts(candidates, references)
    totals = Totals(counts, lambda sums: overlap.bleu(sums, 2), tuple(overlap.bleu(counts, 2)))

    def again(lines: Sequence[int]) -> float:
        drawn = ([candidates[i] for i in lines], [references[i] for i in lines])
        return float(Bleu(2).compute_score(*for_coco(drawn), verbose=0)[0][1])

    expected = bootstrap("bleu-2", again, 25, samples=60, seed=4)
    assert totals.value == pytest.approx(expected.value)
    assert totals.interval(samples=60, seed=4) == pytest.approx(expected.interval)


def test_equal_systems_do_not_differ_and_fewer_can_be_better() -> None:
    same = mean_of([1.0, 2.0, 3.0])
    assert paired_test_of_totals(same, same, samples=100).p_randomization == 1
    test = paired_test_of_totals(mean_of([0.0, 1.0], higher=False), mean_of([1.0, 1.0], higher=False), samples=100)
    assert (test.better, test.worse) == (1, 0)
    with pytest.raises(ValueError, match="same items and figure"):
        paired_test_of_totals(same, mean_of([1.0]))
