"""What an evaluation of rankings hands back: values of every query, figures with intervals, and what reproduces them.

Knows rankings by document id; where they come from is said by the signature alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from caprag.evaluation.ranking import (
    CONVENTIONS,
    TIES_OF_LISTS,
    TIES_OF_SCORES,
    Metric,
    Qrels,
    Run,
    Scores,
    rank_documents,
    score_run,
)
from caprag.evaluation.significance import PairedTest, bootstrap_means, paired_test
from caprag.types import Report


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of two systems on the same queries.

    Attributes
    ----------
    metric
        Its name.
    value, other
        Means of the first and of the second system.
    test
        Their difference, its interval, and how probable it is by chance.
    """

    metric: str
    value: float
    other: float
    test: PairedTest

    @property
    def ratio(self) -> float:
        """First over second, >= 0; ``nan`` where the second is 0."""
        return self.value / self.other if self.other else float("nan")

    def __str__(self) -> str:
        low, high = self.test.interval
        return (
            f"{self.metric:<14}{self.value:.4f} - {self.other:.4f} = {self.test.difference:+.4f} "
            f"[{low:+.4f}, {high:+.4f}]  × {self.ratio:.3f}  p {self.test.p_randomization:.4f}  "
            f"better {self.test.better}, worse {self.test.worse} of {self.test.queries}"
        )


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """An evaluated ranking; equal to another where all was measured alike, however long it took.

    Attributes
    ----------
    name
        What was evaluated.
    queries
        Ids of the queries.
    values
        Metric to its values, one a query, each in [0, 1].
    reports
        Metric to its mean, 95 % interval and signature.
    hits
        For each query the ids and scores of what was found, best first.
    signature
        What is needed to measure it again.
    task
        A hash of the queries and of what is relevant to them; reports of one task can be compared.
    samples, seed
        Of the resampling.
    seconds
        How long the search took; ``nan`` where nothing was searched. Not compared.
    """

    name: str
    queries: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    reports: Mapping[str, Report]
    hits: tuple[tuple[tuple[str, float], ...], ...]
    signature: str
    task: str
    samples: int
    seed: int
    seconds: float = field(default=float("nan"), compare=False)

    def __getitem__(self, metric: str) -> Report:
        """Return the figure of a metric; KeyError where it was not measured."""
        return self.reports[metric]

    def compare(self, other: RetrievalReport, *, samples: int = 10000) -> tuple[Comparison, ...]:
        """Compare with another system on the same queries, metric by metric.

        Parameters
        ----------
        other
            A report over the same queries and judgements, with the same metrics.
        samples
            See `caprag.evaluation.significance.paired_test`; its seed is the report's.

        Raises
        ------
        ValueError
            Where the queries, the judgements or the metrics are others.
        """
        if self.task != other.task or self.queries != other.queries:
            raise ValueError(f"the tasks are {self.task} and {other.task}; reports of the same queries are wanted")
        if self.values.keys() != other.values.keys():
            raise ValueError(
                f"the metrics are {', '.join(self.values)} and {', '.join(other.values)}; measure the same"
            )
        return tuple(
            Comparison(
                metric, self[metric].value, other[metric].value,
                paired_test(values, other.values[metric], samples=samples, seed=self.seed),
            )
            for metric, values in self.values.items()
        )  # fmt: skip

    def to_run(self) -> dict[str, dict[str, float]]:
        """Return the ranking as a run: query to document to score.

        The score is one over the rank, so that trec_eval, which breaks ties by its own rule, keeps the order and
        finds the same values.
        """
        return {
            query: {document: 1 / rank for rank, (document, _) in enumerate(hits, 1)}
            for query, hits in zip(self.queries, self.hits, strict=True)
        }

    def __str__(self) -> str:
        rows = [
            f"{name:<14}{r.value:.4f} [{r.interval[0]:.4f}, {r.interval[1]:.4f}]" for name, r in self.reports.items()
        ]
        return "\n".join([*rows, self.signature])


def make_report(
    name: str,
    queries: Sequence[str],
    values: Mapping[str, Sequence[float]],
    hits: Sequence[Sequence[tuple[str, float]]],
    *,
    signature: str,
    task: str,
    samples: int = 1000,
    seed: int = 0,
    seconds: float = float("nan"),
) -> RetrievalReport:
    """Put figures with their intervals to values of queries; see `RetrievalReport` for what is what."""
    table = np.array(list(values.values()), np.float64).T
    intervals = bootstrap_means(table, samples=samples, seed=seed).T
    signature = f"caprag={package_version()} {signature} bootstrap={samples} seed={seed}"
    return RetrievalReport(
        name, tuple(queries), {metric: tuple(column) for metric, column in values.items()},
        {
            metric: Report(metric, float(np.mean(column)), (float(low), float(high)), f"metric={metric} {signature}")
            for (metric, column), (low, high) in zip(values.items(), intervals, strict=True)
        },
        tuple(tuple(found) for found in hits), signature, task, samples, seed, seconds,
    )  # fmt: skip


def evaluate_run(
    qrels: Qrels,
    run: Run,
    metrics: Sequence[str | Metric],
    *,
    name: str = "run",
    samples: int = 1000,
    seed: int = 0,
    signature: str = "",
) -> RetrievalReport:
    """Measure a run against judgements; see `caprag.evaluation.ranking` for ties and for queries that are missing.

    Parameters
    ----------
    qrels
        Query to document to grade.
    run
        Query to document to score, or to documents, best first.
    metrics
        Names as `caprag.evaluation.ranking.parse_metric` reads them.
    name
        What is evaluated.
    samples, seed
        Of the resampling.
    signature
        What else is needed to measure it again.

    Returns
    -------
    RetrievalReport
        With the ranking as it was measured.

    Raises
    ------
    ValueError
        As `caprag.evaluation.ranking.score_run` does.

    Examples
    --------
    >>> report = evaluate_run({"1": {"a": 1}, "2": {"b": 1}}, {"1": {"a": 2.0}, "2": {"a": 1.0, "b": 0.5}}, ["mrr@10"])
    >>> report["mrr@10"].value, report.values["mrr@10"]
    (0.75, (1.0, 0.5))
    """
    scores = score_run(qrels, run, metrics)
    hits = []
    for query in scores.queries:
        ranking = run.get(query, ())
        given = ranking if isinstance(ranking, Mapping) else {d: 1 / rank for rank, d in enumerate(ranking, 1)}
        hits.append([(document, float(given[document])) for document in rank_documents(ranking)])
    kinds = {TIES_OF_SCORES if isinstance(ranking, Mapping) else TIES_OF_LISTS for ranking in run.values()}
    parts = [
        signature, f"queries={len(scores.queries)}:{hash_of(_judgements(qrels))}",
        f"run={hash_of(_rankings(scores, hits))}",
        f"missing={scores.missing} hopeless={scores.hopeless} unjudged={scores.unjudged}",
        CONVENTIONS, *sorted(kinds),
    ]  # fmt: skip
    return make_report(
        name, scores.queries, scores.values, hits, signature=" ".join(filter(None, parts)),
        task=hash_of(_judgements(qrels)), samples=samples, seed=seed,
    )  # fmt: skip


def _judgements(qrels: Qrels) -> Iterable[str]:
    return (f"{q}\t{d}\t{grade}" for q, grades in qrels.items() for d, grade in sorted(grades.items()))


def _rankings(scores: Scores, hits: Sequence[Sequence[tuple[str, float]]]) -> Iterable[str]:
    return (f"{q}\t{document}" for q, found in zip(scores.queries, hits, strict=True) for document, _ in found)


def hash_of(lines: Iterable[str]) -> str:
    """Return 12 hexadecimal digits of the SHA-256 of lines.

    Examples
    --------
    >>> hash_of(["a", "b"]) == hash_of(["a", "c"])
    False
    """
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass"))
        digest.update(b"\n")
    return digest.hexdigest()[:12]


def package_version(package: str = "caprag") -> str:
    """Return the installed version of a package, ``"unknown"`` where it is not installed as one."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
