"""BLEU, ROUGE-L and CIDEr: what candidates and references have in common, token by token.

Written so that the values are those of pycocoevalcap, which captioning results are compared by, on the same tokens;
sacreBLEU's score is its own library's. Knows tokens, not where they come from.

References
----------
Papineni et al., BLEU: a Method for Automatic Evaluation of Machine Translation, ACL 2002.
Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004.
Vedantam, Zitnick and Parikh, CIDEr: Consensus-based Image Description Evaluation, CVPR 2015.
Post, A Call for Clarity in Reporting BLEU Scores, WMT 2018 (sacreBLEU).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from rapidfuzz.distance import LCSseq

from caprag.errors import require
from caprag.evaluation.texts.totals import Array

Tokens = Sequence[str]
ORDER = 4
"""The longest n-grams that count."""

# What keeps pycocoevalcap's quotients from being 0, or over 0.
_TINY, _SMALL = 1e-15, 1e-9
# The weight of recall in pycocoevalcap's ROUGE-L; the spread of lengths that its CIDEr allows.
_BETA, _SIGMA = 1.2, 6.0


def count_ngrams(tokens: Tokens) -> Counter[tuple[str, ...]]:
    """Count the n-grams of one to `ORDER` tokens.

    Examples
    --------
    >>> count_ngrams("ab")
    Counter({('a',): 1, ('b',): 1, ('a', 'b'): 1})
    """
    return Counter(tuple(tokens[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(tokens) - n + 1))


def bleu_counts(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> Array:
    """Count what BLEU is made of.

    Parameters
    ----------
    candidates
        One a item.
    references
        For each item at least one.

    Returns
    -------
    numpy.ndarray
        Shape (items, 10), float64: tokens of the candidate and of the reference nearest in length (the shorter of two
        as near); then for n = 1 to 4 the n-grams found in a reference, none more often than there; then all of them.
    """
    table = np.zeros((len(candidates), 2 + 2 * ORDER))
    for row, tokens, truths in zip(table, candidates, references, strict=True):
        length = len(tokens)
        most: Counter[tuple[str, ...]] = Counter()
        for truth in truths:
            most |= count_ngrams(truth)
        row[0], row[1] = length, min((abs(len(truth) - length), len(truth)) for truth in truths)[1]
        for ngram, count in count_ngrams(tokens).items():
            row[1 + len(ngram)] += min(count, most[ngram])
        row[2 + ORDER :] = [max(0, length - n) for n in range(ORDER)]
    return table


def bleu(counts: Array, n: int) -> Array:
    """Compute BLEU of n-grams up to n, as pycocoevalcap does.

    Parameters
    ----------
    counts
        Shape (rows, 10): sums of `bleu_counts`, or single items.
    n
        1 to 4.

    Returns
    -------
    numpy.ndarray
        Shape (rows,), in [0, 1]. Not smoothed but for what keeps a quotient from 0 / 0: a text of less than n tokens
        has next to nothing, even where it is right.

    Examples
    --------
    >>> counts = bleu_counts([["a", "cat", "sits"]], [[["the", "cat", "sits"]]])
    >>> bleu(counts, 1).round(4).tolist(), bleu(counts, 2).round(4).tolist()
    ([0.6667], [0.5774])
    """
    found, there = counts[:, 2 : 2 + n], counts[:, 2 + ORDER : 2 + ORDER + n]
    precision = np.prod((found + _TINY) / (there + _SMALL), axis=1) ** (1 / n)
    ratio = (counts[:, 0] + _TINY) / (counts[:, 1] + _SMALL)
    return np.asarray(precision * np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0))


def sacrebleu(counts: Array, *, effective_order: bool = False) -> Array:
    """Compute BLEU as sacreBLEU does by default: n-grams up to 4, exponential smoothing.

    Parameters
    ----------
    counts
        Shape (rows, 10): sums of `bleu_counts`, or single items.
    effective_order
        Leave out n-grams that are longer than the text, as sacreBLEU advises for single items.

    Returns
    -------
    numpy.ndarray
        Shape (rows,), in [0, 100].

    Raises
    ------
    MissingDependencyError
        Without sacrebleu.
    """
    require("sacrebleu", "eval")
    from sacrebleu.metrics.bleu import BLEU

    scores = [
        BLEU.compute_bleu(
            [int(c) for c in row[2 : 2 + ORDER]], [int(c) for c in row[2 + ORDER :]], int(row[0]), int(row[1]),
            smooth_method="exp", effective_order=effective_order,
        ).score
        for row in counts
    ]  # fmt: skip
    return np.array(scores, np.float64)


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """Compute ROUGE-L of each item, as pycocoevalcap does.

    Parameters
    ----------
    candidates, references
        See `bleu_counts`.

    Returns
    -------
    list of float
        In [0, 1]: the F measure, with recall weighing 1.2 times, of the best precision and the best recall over the
        references, which need not be of the same one.

    Examples
    --------
    >>> [round(value, 4) for value in rouge_l([["a", "cat", "sits"]], [[["the", "cat", "sits", "there"]]])]
    [0.5571]
    """
    scores = []
    for tokens, truths in zip(candidates, references, strict=True):
        # An empty text is one empty token there: two of them agree.
        given = list(tokens) or [""]
        common = [(LCSseq.similarity(given, list(truth) or [""]), max(1, len(truth))) for truth in truths]
        precision = max(length / len(given) for length, _ in common)
        recall = max(length / of for length, of in common)
        weight = _BETA**2
        scores.append((1 + weight) * precision * recall / (recall + weight * precision) if precision else 0.0)
    return scores


def cider(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """Compute CIDEr of each item, as pycocoevalcap does under this name (it is CIDEr-D of the paper's appendix).

    Parameters
    ----------
    candidates, references
        See `bleu_counts`.

    Returns
    -------
    list of float
        In [0, 10]: cosines of n-gram counts weighted by rarity, the mean over n = 1 to 4 and over references. What is
        rare is told by the references of all the items, so that single items can't be scored: one alone has 0. A text
        of less than 4 tokens can't reach 10.
    """
    counted = [[count_ngrams(truth) for truth in truths] for truths in references]
    documents = Counter(ngram for truths in counted for ngram in set().union(*truths))
    total = math.log(len(counted)) if counted else 0.0
    rarity = {ngram: total - math.log(count) for ngram, count in documents.items()}

    def weigh(counts: Mapping[tuple[str, ...], int]) -> tuple[dict[tuple[str, ...], float], list[float], int]:
        weights = {ngram: count * rarity.get(ngram, total) for ngram, count in counts.items()}
        squares = [0.0] * ORDER
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight * weight
        # A text is as long as it has pairs.
        return weights, [math.sqrt(s) for s in squares], sum(count for n, count in counts.items() if len(n) == 2)

    scores = []
    for tokens, truths in zip(candidates, counted, strict=True):
        weights, norms, length = weigh(count_ngrams(tokens))
        similarity = 0.0
        for truth in truths:
            others, other_norms, other_length = weigh(truth)
            products = [0.0] * ORDER
            for ngram, weight in weights.items():
                other = others.get(ngram, 0.0)
                products[len(ngram) - 1] += min(weight, other) * other
            cosines = [p / (a * b) if a and b else 0.0 for p, a, b in zip(products, norms, other_norms, strict=True)]
            similarity += sum(cosines) * math.exp(-((length - other_length) ** 2) / (2 * _SIGMA**2))
        scores.append(10 * similarity / ORDER / len(truths))
    return scores
