"""How well sentences are found for readings: any retriever, any metric, every query.

A task is a corpus, queries, and what is relevant to each; systems are compared on the same task. Knows nothing of
where the queries came from.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from caprag.evaluation.baselines import Ranking, Retriever
from caprag.evaluation.ranking import CONVENTIONS, TIES_OF_LISTS, Metric, measure, parse_metrics
from caprag.evaluation.report import RetrievalReport, hash_of, make_report
from caprag.evaluation.systems import IndexRetriever
from caprag.progress import progress_bar
from caprag.retrieval import Index
from caprag.text import match_form, match_forms

Relevant = int | Collection[int] | Mapping[int, int]
"""The id of the sentence that is relevant to a query, or those of several, or ids to grades."""

METRICS = ("recall@1", "recall@10", "mrr@10", "ndcg@10")
"""What is measured where nothing is asked for."""
DEPTH = 100
"""How many sentences are looked at by metrics without a rank."""

_BLOCK = 1 << 14
_BATCH = 512


@dataclass(frozen=True, slots=True)
class Task:
    """Queries over a corpus, and what is relevant to each.

    Attributes
    ----------
    queries
        Readings.
    grades
        For each query the relevant sentences: id to grade, >= 1.
    corpus, questions
        Size and hash of the corpus; number and hash of the queries with what was given as relevant to them.
    same_text
        Whether sentences of the same matching form as a relevant one were made relevant too.
    """

    queries: tuple[str, ...]
    grades: tuple[Mapping[int, int], ...]
    corpus: str
    questions: str
    same_text: bool

    @property
    def signature(self) -> str:
        """What is needed to measure it again."""
        rule = "same-form" if self.same_text else "ids"
        hopeless = sum(not grades for grades in self.grades)
        return f"corpus={self.corpus} queries={self.questions} relevant={rule} hopeless={hopeless}"


def evaluate_retrieval(
    retriever: Index | Retriever,
    queries: Sequence[str],
    relevant: Sequence[Relevant],
    metrics: Sequence[str | Metric] = METRICS,
    *,
    k: int | None = None,
    same_text: bool = True,
    name: str = "",
    samples: int = 1000,
    seed: int = 0,
    signature: str = "",
    progress: bool = False,
) -> RetrievalReport:
    """Measure how well a retriever finds the sentences that readings stand for.

    Parameters
    ----------
    retriever
        An index, or anything that is a `caprag.evaluation.baselines.Retriever`. Its ranking counts in the order in
        which it comes, which so decides between equal scores.
    queries
        Readings, at least one.
    relevant
        For each query the id of the relevant sentence, or a collection of ids, or ids to grades (0 and below: not
        relevant).
    metrics
        Names as `caprag.evaluation.ranking.parse_metric` reads them.
    k
        How many sentences are asked for, >= 1; ``None``: as many as the metrics look at, or 100 where one of them has
        no rank.
    same_text
        Make every sentence relevant that has the matching form (`caprag.text.match_form`) of a relevant one: it would
        be answered with the same letters. Where a corpus has such doubles, recall@1 can't be 1.
    name
        What is measured; the retriever's description if not given.
    samples, seed
        Of the bootstrap.
    signature
        What else is needed to measure it again, such as how the queries were made.
    progress
        Whether to show a progress bar on stderr.

    Returns
    -------
    RetrievalReport
        With every query's values; `str` of it is a table.

    Raises
    ------
    ValueError
        Where there is no query, the lists differ in length, an id is no sentence's, a metric is unknown, or `k` is
        below 1 or below a metric's rank.
    TypeError
        For a single string.

    Examples
    --------
    >>> index = Index.build(["妳在開玩笑嗎", "不會持續太久的", "現在終於實現了"])
    >>> report = evaluate_retrieval(index, ["妳在閒玩笑嗎", "現在終于買現了"], [0, 2], metrics=["recall@1", "mrr@10"])
    >>> report["recall@1"].value, report.values["mrr@10"]
    (1.0, (1.0, 1.0))
    """
    wanted = parse_metrics(metrics)
    depth = check_depth(wanted, k)
    searched = IndexRetriever(retriever) if isinstance(retriever, Index) else retriever
    task = make_task(searched, queries, relevant, same_text=same_text)
    begin = time.perf_counter()
    hits = search_all(searched, task.queries, depth, name=name or "search", progress=progress)
    return report_hits(
        task, hits, wanted, depth=depth, name=name or searched.description, description=searched.description,
        samples=samples, seed=seed, signature=signature, seconds=time.perf_counter() - begin,
    )  # fmt: skip


def check_depth(metrics: Sequence[Metric], k: int | None) -> int:
    """Return how many sentences are to be asked for; ValueError where `k` is below what the metrics look at."""
    needed = max(metric.k or 1 for metric in metrics)
    if k is None:
        return max(needed, DEPTH) if any(metric.k is None for metric in metrics) else needed
    if k < needed:
        raise ValueError(f"k is {k} and a metric looks at {needed} ranks; ask for {needed} at least")
    return k


def make_task(
    retriever: Retriever, queries: Sequence[str], relevant: Sequence[Relevant], *, same_text: bool = True
) -> Task:
    """Bring queries and what is relevant to them into one form; see `evaluate_retrieval`.

    The corpus is read through once.
    """
    if isinstance(queries, str):
        raise TypeError(f"queries is the string {queries[:20]!r}; a list of readings is wanted")
    if not queries or len(queries) != len(relevant):
        raise ValueError(f"there are {len(queries)} queries and {len(relevant)} relevant; as many, and one, are wanted")
    given = [_grades(entry) for entry in relevant]
    forms: dict[str, list[int]] = {}
    for number in sorted({number for grades in given for number in grades}):
        try:
            text = retriever.text(number)
        except LookupError:
            raise ValueError(f"sentence {number} is relevant to a query and is not in the corpus") from None
        # Sentences without a letter are not the same for having none.
        if form := match_form(text):
            forms.setdefault(form, [])
    size, digest = 0, hashlib.sha256()
    of_number: dict[int, list[int]] = {}
    for block in _blocks(retriever.sentences()):
        size += len(block)
        digest.update("".join(f"{number}\t{text}\n" for number, text in block).encode("utf-8", "surrogatepass"))
        if same_text:
            for (number, _), form in zip(block, match_forms([text for _, text in block]), strict=True):
                if form in forms:
                    forms[form].append(number)
    for numbers in forms.values():
        of_number.update(dict.fromkeys(numbers, numbers))
    grades = tuple(_widened(entry, of_number) for entry in given)
    lines = (
        f"{query}\t{' '.join(f'{n}:{g}' for n, g in sorted(e.items()))}"
        for query, e in zip(queries, given, strict=True)
    )
    questions = f"{len(queries)}:{hash_of(lines)}"
    return Task(tuple(queries), grades, f"{size}:{digest.hexdigest()[:12]}", questions, same_text)


def _grades(entry: Relevant) -> dict[int, int]:
    if isinstance(entry, Mapping):
        return {int(number): int(grade) for number, grade in entry.items() if grade > 0}
    if isinstance(entry, Collection):
        return {int(number): 1 for number in sorted(entry)}
    return {int(entry): 1}


def _widened(grades: Mapping[int, int], same: Mapping[int, list[int]]) -> dict[int, int]:
    """Give sentences of the same form the grade of the best of them."""
    wide: dict[int, int] = {}
    for number, grade in grades.items():
        for other in same.get(number, [number]):
            wide[other] = max(grade, wide.get(other, 0))
    return wide


def _blocks(sentences: Iterator[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    while block := list(islice(sentences, _BLOCK)):
        yield block


def search_all(
    retriever: Retriever, queries: Sequence[str], k: int, *, name: str = "search", progress: bool = False
) -> list[Ranking]:
    """Search for all queries, in batches.

    Raises
    ------
    ValueError
        Where the retriever returns a wrong number of rankings, or a sentence twice for one query.
    """
    hits: list[Ranking] = []
    with progress_bar(len(queries), name, " queries", show=progress) as bar:
        for start in range(0, len(queries), _BATCH):
            batch = queries[start : start + _BATCH]
            found = retriever.search_batch(batch, k)
            if len(found) != len(batch):
                raise ValueError(f"{retriever.description} returned {len(found)} rankings for {len(batch)} queries")
            hits += [ranking[:k] for ranking in found]
            bar.update(len(batch))
    for query, ranking in zip(queries, hits, strict=True):
        if len({number for number, _ in ranking}) < len(ranking):
            raise ValueError(f"{retriever.description} returned a sentence twice for {query!r}")
    return hits


def report_hits(
    task: Task,
    hits: Sequence[Ranking],
    metrics: Sequence[Metric],
    *,
    depth: int,
    name: str,
    description: str,
    samples: int = 1000,
    seed: int = 0,
    signature: str = "",
    seconds: float = float("nan"),
) -> RetrievalReport:
    """Measure what a system found for a task; see `evaluate_retrieval`."""
    rows = [
        measure(metrics, [grades.get(number, 0) for number, _ in ranking], grades.values())
        for ranking, grades in zip(hits, task.grades, strict=True)
    ]
    parts = [f"system={description}", task.signature, signature, f"depth={depth}", TIES_OF_LISTS, CONVENTIONS]
    return make_report(
        name, [str(i) for i in range(len(task.queries))],
        {str(metric): column for metric, column in zip(metrics, zip(*rows, strict=True), strict=True)},
        [[(str(number), float(score)) for number, score in ranking] for ranking in hits],
        signature=" ".join(filter(None, parts)), task=task.questions, samples=samples, seed=seed, seconds=seconds,
    )  # fmt: skip
