"""How far each step takes captions: read, found, answered; and what answering does to lines that were right.

The same captions are answered with the corpus as it is, with their own sentences taken out of what is found, and with
half of them taken out (how often pairs of characters occur is asked of the whole corpus all the same). Beside each
answer stand those of peers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from caprag.evaluation.captions import Outcomes, count_outcomes
from caprag.evaluation.metrics import cer_report, count_errors
from caprag.evaluation.peers import Corrector, correctors
from caprag.reranking import Found, Reranker
from caprag.text import countable
from caprag.types import Caption, Hypothesis, Report

Condition = Literal["known", "unknown", "mixed"]
"""The corpus has the captions' sentences; has none of them; has half of them, drawn by chance."""

CONDITIONS: tuple[Condition, ...] = get_args(Condition)

LENGTHS = ((1, 4), (5, 8), (9, 12), (13, 10_000))
"""Characters of the truth that captions are sorted by."""

_BINS = 10

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ladder:
    """What each step gave under one condition.

    Attributes
    ----------
    condition
        Which.
    rungs
        Character error rate of the first reading, of the best reading, of the best of readings and hits, of the answer,
        and of peers' answers, in that order; the best ones are chosen by the truth.
    outcomes
        What answering did.
    harms
        Share of lines that were right as read and wrong as answered, of the answer and of peers.
    risk_area
        Area under the risk-coverage curve: the mean share of wrong lines among the surest, over all coverages; lower is
        better.
    calibration
        Expected calibration error: how far the stated confidence is from the share of right answers, in [0, 1].
    by_length
        Characters of the truth, fewest and most, to lines, error rate as read, error rate as answered.
    captions
        The answers.
    """

    condition: Condition
    rungs: Mapping[str, Report]
    outcomes: Outcomes
    harms: Mapping[str, float]
    risk_area: float
    calibration: float
    by_length: Mapping[tuple[int, int], tuple[int, float, float]]
    captions: tuple[Caption, ...]


def evaluate_captions(
    found: Sequence[Found], truths: Sequence[str], reranker: Reranker, corpus: Sequence[str], *,
    frequency: Callable[[str], int], conditions: Sequence[Condition] = CONDITIONS, in_order: bool = True,
    peers: bool = True, readers: Mapping[str, Sequence[str]] | None = None, samples: int = 1000, seed: int = 0,
) -> list[Ladder]:  # fmt: skip
    """Answer captions under several conditions, and measure each step.

    Parameters
    ----------
    found
        What is known of each caption, in order.
    truths
        What they say.
    reranker
        What decides.
    corpus
        All sentences, for the peers.
    frequency
        See `Reranker.rerank_batch`.
    conditions
        Which, in the order of the result.
    in_order
        Whether the captions follow each other.
    peers
        Whether others answer the same readings (`caprag.evaluation.peers`).
    readers
        What others read of the same pictures: name to texts.
    samples, seed
        Of the intervals; the seed also draws the half that is taken out.

    Returns
    -------
    list of Ladder
        One a condition.

    Raises
    ------
    ValueError
        Where `found` and `truths` differ in length or are empty, or for an unknown condition.
    """
    if len(found) != len(truths) or not found:
        raise ValueError(f"there are {len(found)} captions and {len(truths)} truths; as many are wanted, at least one")
    if unknown := [condition for condition in conditions if condition not in CONDITIONS]:
        raise ValueError(f"condition is {unknown[0]!r}; known are {', '.join(CONDITIONS)}")
    readers = readers or {}
    for name, texts in readers.items():
        if len(texts) != len(truths):
            raise ValueError(f"there are {len(texts)} texts of {name} and {len(truths)} truths; as many are wanted")
    own = [countable(truth) for truth in truths]
    half = np.random.default_rng(seed).permutation(sorted(set(own)))[: len(set(own)) // 2].tolist()
    others = correctors([one.hypotheses[0].text for one in found], corpus) if peers else []
    gone: dict[Condition, set[str]] = {"known": set(), "unknown": set(own), "mixed": set(half)}
    decision = reranker if in_order else replace(reranker, order=None)
    return [
        _ladder(
            found, truths, decision, condition, gone[condition], frequency, len(corpus), others, readers, samples, seed
        )
        for condition in conditions
    ]


def _ladder(
    found: Sequence[Found], truths: Sequence[str], reranker: Reranker, condition: Condition, gone: set[str],
    frequency: Callable[[str], int], sentences: int, others: Sequence[Corrector], readers: Mapping[str, Sequence[str]],
    samples: int, seed: int,
) -> Ladder:  # fmt: skip
    left = [one.without(gone) for one in found]
    captions = list(reranker.rerank_in_order(left, frequency, max(1, sentences)))
    first = [one.hypotheses[0].text for one in found]
    best = [_nearest_to(truth, [h.text for h in one.hypotheses]) for one, truth in zip(left, truths, strict=True)]
    reach = [
        _nearest_to(truth, [*(h.text for h in one.hypotheses), *(hit.text for hit in one.hits)])
        for one, truth in zip(left, truths, strict=True)
    ]
    answers = {"first reading": first, "best reading": best, "best reading or hit": reach}
    answers["answer"] = [caption.text for caption in captions]
    outcomes = count_outcomes(captions, truths)
    harms = {"answer": outcomes.harm}
    answers |= {name: list(texts) for name, texts in readers.items()}
    for name, texts in [pair for other in others for pair in other.answers(gone, truths).items()]:
        answers[name] = texts
        harms[name] = count_outcomes(
            [Caption(t, None, (Hypothesis(r),), 1.0) for t, r in zip(texts, first, strict=True)], truths
        ).harm
    rungs = {
        name: cer_report(count_errors(texts, truths), samples=samples, seed=seed) for name, texts in answers.items()
    }
    right = np.array([countable(c.text) == countable(t) for c, t in zip(captions, truths, strict=True)])
    sure = np.array([caption.confidence for caption in captions])
    return Ladder(
        condition, rungs, outcomes, harms, risk_coverage_area(sure, right), calibration_error(sure, right),
        _by_length(first, answers["answer"], truths), tuple(captions),
    )  # fmt: skip


def _nearest_to(truth: str, texts: Sequence[str]) -> str:
    wanted = countable(truth)
    return min(texts, key=lambda text: Levenshtein.distance(countable(text), wanted))


def _by_length(
    read: Sequence[str], answered: Sequence[str], truths: Sequence[str]
) -> dict[tuple[int, int], tuple[int, float, float]]:
    found = {}
    for low, high in LENGTHS:
        places = [place for place, truth in enumerate(truths) if low <= len(countable(truth)) <= high]
        if places:
            wanted = [truths[place] for place in places]
            rates = [count_errors([texts[place] for place in places], wanted).cer for texts in (read, answered)]
            found[low, high] = (len(places), rates[0], rates[1])
    return found


def risk_coverage_area(confidence: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return the area under the risk-coverage curve.

    Parameters
    ----------
    confidence
        Shape (n,): how sure each answer is; any scale.
    right
        Shape (n,): whether it is right.

    Returns
    -------
    float
        In [0, 1], lower is better; captions that are equally sure are taken in together, at their mean.

    References
    ----------
    Geifman, Uziel and El-Yaniv, Bias-reduced uncertainty estimation for deep neural classifiers, ICLR 2019.

    Examples
    --------
    >>> risk_coverage_area([0.9, 0.8, 0.1, 0.2], [True, True, False, True])
    0.0625
    """
    sure, wrong = np.asarray(confidence, float), ~np.asarray(right, bool)
    levels, place = np.unique(-sure, return_inverse=True)
    shares = np.bincount(place, wrong, len(levels)) / np.bincount(place, minlength=len(levels))
    taken = np.sort(place)
    return float(np.mean(np.cumsum(shares[taken]) / np.arange(1, len(sure) + 1)))


def calibration_error(confidence: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return the expected calibration error over ten bins of equal width.

    References
    ----------
    Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015.

    Examples
    --------
    >>> round(calibration_error([0.95, 0.95, 0.55, 0.55], [True, True, True, False]), 3)
    0.05
    """
    counts, stated, came = reliability(confidence, right)
    return float(np.sum(counts * np.abs(np.nan_to_num(stated - came))) / counts.sum())


def reliability(confidence: npt.ArrayLike, right: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return for ten bins of confidence the number of answers, the mean confidence and the share that is right.

    Where a bin is empty both are ``nan``.
    """
    sure, good = np.asarray(confidence, float), np.asarray(right, float)
    place = np.clip((sure * _BINS).astype(int), 0, _BINS - 1)
    counts = np.bincount(place, minlength=_BINS).astype(float)
    with np.errstate(invalid="ignore"):
        return counts, np.bincount(place, sure, _BINS) / counts, np.bincount(place, good, _BINS) / counts


__all__ = [
    "CONDITIONS", "Condition", "Ladder", "calibration_error", "evaluate_captions", "reliability",
    "risk_coverage_area",
]  # fmt: skip
