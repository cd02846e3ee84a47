"""Measures of ranked lists, query by query, as trec_eval has them.

Knows relevance judgements and rankings, not how they came about. What is averaged, resampled and compared is made of
these values.

Conventions, all of them trec_eval's:

* A grade above 0 is relevant; grades of 0 and below, and documents that were not judged, are not, and gain nothing.
* A run of scores is ranked by score, descending, and among equal scores by document id, descending, as strings;
  scores are equal where they are as 32-bit numbers, which is what trec_eval keeps. A list is taken in its order.
* A judged query that the run lacks counts 0 (``trec_eval -c``), one without a relevant document counts 0, and a query
  of the run that was not judged is left out.
* NDCG takes the grade itself as the gain, and log2(rank + 1) as the discount.

References
----------
Buckley and Voorhees, Retrieval System Evaluation, in TREC: Experiment and Evaluation in Information Retrieval, 2005.
Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

MetricName = Literal["recall", "precision", "ndcg", "map", "mrr", "success"]
"""Share of the relevant found; share of the found relevant; normalised discounted gain; mean of the precisions at the
relevant ranks; one over the first relevant rank; whether any is relevant."""

Qrels = Mapping[str, Mapping[str, int]]
"""Query to document to grade."""
Run = Mapping[str, Mapping[str, float] | Sequence[str]]
"""Query to document to score, or to documents, best first."""

CONVENTIONS = "gain=linear,grade>0 no-answer=0"
"""What a signature says of the above, but for the ties: gains, and what a query without an answer counts."""
TIES_OF_SCORES = "ties=float32,id-descending"
TIES_OF_LISTS = "ties=order-given"

_NAMES: dict[str, MetricName] = {
    "recall": "recall", "r": "recall", "precision": "precision", "p": "precision", "ndcg": "ndcg", "ndcg_cut": "ndcg",
    "map": "map", "map_cut": "map", "mrr": "mrr", "rr": "mrr", "recip_rank": "mrr", "success": "success",
    "hit": "success", "hit_rate": "success", "accuracy": "success",
}  # fmt: skip
_WITHOUT_CUT = ("ndcg", "map", "mrr")
_FORM = re.compile(r"([a-z_]+?)(?:[@_]([0-9]+))?")


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure and the rank at which it stops.

    Attributes
    ----------
    name
        What is measured.
    k
        The last rank that counts, >= 1; ``None`` for all.
    """

    name: MetricName
    k: int | None = None

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"


def parse_metric(text: str) -> Metric:
    """Read the name of a metric.

    Parameters
    ----------
    text
        ``recall@10``, ``precision@5`` (``P@5``), ``ndcg@10``, ``map@100``, ``mrr@10``, ``success@1`` (``hit@1``);
        ``ndcg``, ``map`` and ``mrr`` may go without a rank; trec_eval's names (``ndcg_cut_10``) mean the same.

    Raises
    ------
    ValueError
        For an unknown name, a rank below 1, or no rank where one is wanted.

    Examples
    --------
    >>> [str(parse_metric(name)) for name in ("P@5", "ndcg_cut_10", "recip_rank")]
    ['precision@5', 'ndcg@10', 'mrr']
    """
    found = _FORM.fullmatch(text.strip().lower())
    if found is None or found[1] not in _NAMES:
        raise ValueError(f"metric is {text!r}; known are recall@k, precision@k, success@k, ndcg@k, map@k and mrr@k")
    name = _NAMES[found[1]]
    k = None if found[2] is None else int(found[2])
    if k == 0 or (k is None and name not in _WITHOUT_CUT):
        raise ValueError(f"metric is {text!r}; it wants a rank of at least 1, for example {name}@10")
    return Metric(name, k)


def parse_metrics(metrics: Sequence[str | Metric]) -> tuple[Metric, ...]:
    """Read the names of metrics, each once; ValueError for a single string, for none, and for an unknown one."""
    if isinstance(metrics, str) or not metrics:
        raise ValueError(f"metrics is {metrics!r}; a list such as ['recall@1', 'mrr@10'] is wanted")
    return tuple(dict.fromkeys(m if isinstance(m, Metric) else parse_metric(m) for m in metrics))


def rank_documents(ranking: Mapping[str, float] | Sequence[str]) -> list[str]:
    """Return documents in the order in which they are measured.

    Parameters
    ----------
    ranking
        Document to score, or documents, best first.

    Returns
    -------
    list of str
        By score, then by id, both descending, where there are scores; else as given.

    Raises
    ------
    ValueError
        For a score that is no number or not finite, and for a document that comes twice.

    Examples
    --------
    >>> rank_documents({"a": 1.0, "b": 2.0, "c": 1.0})
    ['b', 'c', 'a']
    """
    if isinstance(ranking, Mapping):
        with np.errstate(over="ignore"):
            scores = np.fromiter(ranking.values(), np.float32, len(ranking))
        if not np.isfinite(scores).all():
            bad = next(d for d, score in zip(ranking, scores, strict=True) if not math.isfinite(score))
            raise ValueError(f"document {bad!r} has the score {ranking[bad]}; 32-bit numbers are wanted")
        return [document for _, document in sorted(zip(scores.tolist(), ranking, strict=True), reverse=True)]
    if isinstance(ranking, str) or len(set(ranking)) < len(ranking):
        raise ValueError(f"ranking is {ranking!r}; a list of documents, each once, is wanted")
    return list(ranking)


def measure(metrics: Sequence[Metric], gains: Sequence[int], judged: Collection[int]) -> list[float]:
    """Measure the ranking of one query.

    Parameters
    ----------
    metrics
        What to measure.
    gains
        Grade of each document of the ranking, best first; 0 for one that was not judged.
    judged
        Grades of all documents that were judged for this query.

    Returns
    -------
    list of float
        In the order of `metrics`, each in [0, 1].

    Examples
    --------
    >>> measure([Metric("recall", 2), Metric("mrr"), Metric("map")], [0, 1, 1], [1, 1, 1])
    [0.3333333333333333, 0.5, 0.38888888888888884]
    """
    ideal = sorted((grade for grade in judged if grade > 0), reverse=True)
    if not ideal:
        return [0.0] * len(metrics)
    ranks = [rank for rank, gain in enumerate(gains, 1) if gain > 0]
    return [_value(metric, ranks, gains, ideal) for metric in metrics]


def _value(metric: Metric, ranks: Sequence[int], gains: Sequence[int], ideal: Sequence[int]) -> float:
    k = metric.k
    within = ranks if k is None else [rank for rank in ranks if rank <= k]
    if not within:
        return 0.0
    if metric.name == "recall":
        return len(within) / len(ideal)
    if metric.name == "success":
        return 1.0
    if metric.name == "mrr":
        return 1 / within[0]
    if metric.name == "map":
        return sum(number / rank for number, rank in enumerate(within, 1)) / len(ideal)
    if metric.name == "ndcg":
        # The best that the judged documents could make of as many ranks.
        best = sum(grade / math.log2(rank + 1) for rank, grade in enumerate(ideal[:k], 1))
        return sum(gains[rank - 1] / math.log2(rank + 1) for rank in within) / best
    return len(within) / (k or len(gains))


@dataclass(frozen=True, slots=True)
class Scores:
    """Values of every judged query; all tuples have one entry a query.

    Attributes
    ----------
    queries
        Ids of the judged queries, in the order of the judgements.
    values
        Metric to its values, each in [0, 1].
    missing
        Number of queries that the run lacks; they count 0.
    hopeless
        Number of queries without a relevant document; they count 0.
    unjudged
        Number of queries of the run that were not judged; they are left out.
    """

    queries: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    missing: int
    hopeless: int
    unjudged: int

    @property
    def means(self) -> dict[str, float]:
        """Metric to its mean over the queries."""
        return {metric: float(np.mean(values)) for metric, values in self.values.items()}


def score_run(qrels: Qrels, run: Run, metrics: Sequence[str | Metric]) -> Scores:
    """Measure a run against judgements, query by query.

    Parameters
    ----------
    qrels
        Query to document to grade; above 0 is relevant.
    run
        Query to document to score, or to documents, best first.
    metrics
        Names as `parse_metric` reads them.

    Returns
    -------
    Scores
        One value a metric and judged query.

    Raises
    ------
    ValueError
        Where nothing was judged, a score is not finite, a list has a document twice, or a metric is unknown.

    Examples
    --------
    >>> scores = score_run({"q": {"a": 1, "b": 2}}, {"q": {"a": 0.7, "b": 0.7}}, ["mrr@10", "ndcg@1"])
    >>> scores.values
    {'mrr@10': (1.0,), 'ndcg@1': (1.0,)}
    """
    wanted = parse_metrics(metrics)
    if not qrels:
        raise ValueError("qrels is empty; at least one judged query is needed")
    rows = []
    for query, grades in qrels.items():
        ranked = rank_documents(run[query]) if query in run else []
        rows.append(measure(wanted, [max(0, grades.get(document, 0)) for document in ranked], grades.values()))
    return Scores(
        tuple(qrels),
        {str(metric): column for metric, column in zip(wanted, zip(*rows, strict=True), strict=True)},
        missing=sum(query not in run for query in qrels),
        hopeless=sum(not any(grade > 0 for grade in grades.values()) for grades in qrels.values()),
        unjudged=sum(query not in qrels for query in run),
    )
