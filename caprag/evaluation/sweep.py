"""Systems over corpus sizes and noise: cells that are measured once, and kept.

A cell is one system on one task. What is kept of it is the rank of every relevant sentence, from which all metrics
can be computed again; so another metric, or another system beside it, costs no search.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from caprag.errors import CapragError
from caprag.evaluation.baselines import Ranking
from caprag.evaluation.ranking import CONVENTIONS, TIES_OF_LISTS, Metric, measure
from caprag.evaluation.report import Comparison, RetrievalReport, hash_of, make_report, package_version
from caprag.evaluation.retrieval import Task, search_all
from caprag.evaluation.systems import System
from caprag.paths import replacing
from caprag.text import match_forms
from caprag.types import Sentence

FORMAT = 1
_BLOCK = 1 << 14

Found = tuple[tuple[int, int], ...]
"""Rank and grade of each relevant sentence that was found, by rank."""


@dataclass(frozen=True, slots=True)
class Point:
    """A point of a sweep: a corpus, and queries with one noise.

    Attributes
    ----------
    texts
        The sentences; ids are places in it.
    noise
        Character error rate that the queries were made with, in [0, 1]; ``None`` for queries that were given.
    task
        The queries and what is relevant.
    signature
        How the queries were made.
    """

    texts: Sequence[str]
    noise: float | None
    task: Task
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """One system at one point; equal to another where the same was found, however long it took.

    Attributes
    ----------
    system
        Its name.
    size
        Number of sentences.
    noise
        See `Point`.
    signature
        What is needed to find the same again.
    found
        For each query, what was found of the relevant.
    seconds
        ``build`` and ``search``; build is 0 where the system was built for an earlier cell. Not compared.
    """

    system: str
    size: int
    noise: float | None
    signature: str
    found: tuple[Found, ...]
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)

    def report(self, task: Task, metrics: Sequence[Metric], *, samples: int = 1000, seed: int = 0) -> RetrievalReport:
        """Compute metrics; `task` is the one that it was measured on."""
        rows = []
        for found, grades in zip(self.found, task.grades, strict=True):
            gains = [0] * (found[-1][0] if found else 0)
            for rank, grade in found:
                gains[rank - 1] = grade
            rows.append(measure(metrics, gains, grades.values()))
        return make_report(
            self.system, [str(i) for i in range(len(rows))],
            {str(metric): column for metric, column in zip(metrics, zip(*rows, strict=True), strict=True)}, (),
            signature=self.signature.partition(" ")[2], task=task.questions, samples=samples, seed=seed,
            seconds=self.seconds.get("search", float("nan")),
        )  # fmt: skip


def distinct_texts(sentences: Iterable[Sentence | str]) -> list[str]:
    """Return the texts of which no earlier one has the same matching form, without those that have none.

    So each has one relevant sentence, itself, and precision, reciprocal rank and NDCG at rank 1 are the same. In
    memory are the texts and 8 bytes for each; forms are told apart by 64 bits of a hash.
    """
    texts: list[str] = []
    hashes: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    block: list[str] = []

    def close() -> None:
        forms = match_forms(block)
        kept = [(text, form) for text, form in zip(block, forms, strict=True) if form]
        texts.extend(text for text, _ in kept)
        hashes.append(np.fromiter((hash(form) for _, form in kept), np.int64, len(kept)))
        block.clear()

    for sentence in sentences:
        block.append(sentence if isinstance(sentence, str) else sentence.text)
        if len(block) == _BLOCK:
            close()
    close()
    _, first = np.unique(np.concatenate(hashes), return_index=True)
    return texts if len(first) == len(texts) else [texts[i] for i in np.sort(first).tolist()]


def nested_points(
    texts: Sequence[str], sizes: Sequence[int], noises: Sequence[float], *, count: int, seed: int = 0
) -> Iterable[list[Point]]:
    """Make queries out of sentences of the corpus itself, for each size and noise.

    The corpora are drawn at random, each within the next larger one. The queries of a noise are the same at every
    size: what grows is the number of other sentences.

    Parameters
    ----------
    texts
        Sentences of distinct matching forms; see `distinct_texts`.
    sizes
        Numbers of sentences, each >= 1.
    noises
        Character error rates, each in [0, 1].
    count
        Number of queries, >= 1, not above the smallest size.
    seed
        Of the drawing and of the noise.

    Yields
    ------
    list of Point
        The points of one size, sizes ascending.

    Raises
    ------
    ValueError
        Where a size is larger than the corpus, a number is out of its range, or there are too few sentences.
    """
    from caprag.noise import NoiseChannel

    if not sizes or min(sizes) < 1 or max(sizes) > len(texts):
        raise ValueError(
            f"the sizes are {sorted(sizes)} and there are {len(texts)} sentences; 1 to that many are possible"
        )
    if not 1 <= count <= min(sizes):
        raise ValueError(
            f"count is {count} and the smallest corpus has {min(sizes)} sentences; 1 to that many are possible"
        )
    order = np.random.default_rng(seed).permutation(len(texts))
    drawn = [texts[i] for i in order[:count].tolist()]
    channel = NoiseChannel.load()
    queries = [(noise, tuple(channel.corrupt(drawn, seed=seed, strength=noise))) for noise in sorted(set(noises))]
    for size in sorted(set(sizes)):
        chosen = [texts[i] for i in order[:size].tolist()]
        corpus = f"{size}:{hash_of(chosen)}"
        yield [
            Point(
                chosen, noise,
                Task(asked, tuple({i: 1} for i in range(count)), corpus, f"{count}:{hash_of(asked)}", same_text=True),
                f"noise={noise:g} noise-seed={seed} draw-seed={seed}",
            )
            for noise, asked in queries
        ]  # fmt: skip


def measure_points(
    points: Sequence[Point],
    systems: Sequence[System],
    *,
    depth: int,
    store: Store | None = None,
    on_hits: Callable[[System, Point, Sequence[Ranking]], None] | None = None,
    wanted: Callable[[System, Point], bool] = lambda *_: False,
    on_left_out: Callable[[str], None] | None = None,
    progress: bool = False,
) -> list[Cell]:
    """Search with each system at points of one corpus; each is built once at most, and let go before the next.

    Parameters
    ----------
    points
        Of one corpus.
    systems
        What to measure.
    depth
        How many sentences are asked for, >= 1.
    store
        Where finished cells lie and new ones go.
    on_hits
        Called with what was found, where it was searched for now.
    wanted
        Says of which cells the hits are wanted, so that they are searched for even if they are in the store.
    on_left_out
        Called with the reason for a system that can't take the corpus.
    progress
        Whether to show progress bars on stderr.

    Returns
    -------
    list of Cell
        By system, then by point, in their orders.
    """
    cells = []
    for system in systems:
        reason = system.refusal(len(points[0].texts))
        if reason:
            if on_left_out is not None:
                on_left_out(reason)
            continue
        retriever, build = None, 0.0
        for point in points:
            signature = _signature(system, point, depth)
            stored = None if store is None else store.cells.get(signature)
            if stored is not None and not wanted(system, point):
                cells.append(stored)
                continue
            begin = time.perf_counter()
            if retriever is None:
                retriever = system.build(point.texts)
                build = time.perf_counter() - begin
                # What is loaded at the first search is no part of its speed.
                retriever.search_batch(point.task.queries[:1], depth)
            begin = time.perf_counter()
            name = system.name if point.noise is None else f"{system.name}, noise {point.noise:g}"
            hits = search_all(retriever, point.task.queries, depth, name=name, progress=progress)
            # Few queries of a fast system take less than a millisecond.
            seconds = {"build": round(build, 3), "search": round(time.perf_counter() - begin, 6)}
            build = 0.0
            found = tuple(
                tuple((rank, grades[number]) for rank, (number, _) in enumerate(ranking, 1) if number in grades)
                for ranking, grades in zip(hits, point.task.grades, strict=True)
            )
            cells.append(Cell(system.name, len(point.texts), point.noise, signature, found, seconds))
            if on_hits is not None:
                on_hits(system, point, hits)
            if store is not None:
                store.add(cells[-1])
    return cells


def _signature(system: System, point: Point, depth: int) -> str:
    parts = [
        f"caprag={package_version()}", f"system={system.description}", point.task.signature, point.signature,
        f"depth={depth}", TIES_OF_LISTS, CONVENTIONS,
    ]  # fmt: skip
    return " ".join(filter(None, parts))


class Store:
    """A JSON file of finished cells, replaced at one stroke after each.

    The same cells give the same bytes, but for ``seconds``, in whatever order they were measured.

    Parameters
    ----------
    path
        The file; what it holds is taken up.

    Raises
    ------
    CapragError
        Where the file holds something else, or can't be read.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = path = Path(path)
        self._figures: dict[str, dict[str, Any]] = {}
        self.cells: dict[str, Cell] = {}
        if not path.exists():
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] != FORMAT:
                raise CapragError(f"{path}: has format {stored['format']}, not {FORMAT}; choose another file")
            for row in stored["cells"]:
                cell = _cell(row)
                self.cells[cell.signature] = cell
                self._figures[cell.signature] = {key: row[key] for key in ("metrics", "against") if key in row}
        except OSError as error:
            raise CapragError(f"{path}: can't be read ({error.strerror}); choose another file") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CapragError(f"{path}: holds no results of this command ({error!r}); choose another file") from error

    def add(self, cell: Cell) -> None:
        """Keep a cell."""
        self.cells[cell.signature] = cell
        self._figures.pop(cell.signature, None)
        self.save()

    def figure(self, cell: Cell, report: RetrievalReport, against: str, comparisons: Sequence[Comparison]) -> None:
        """Put the figures of a cell beside it: means with intervals, and how they compare with a baseline."""
        row: dict[str, Any] = {
            "metrics": {
                name: {"value": r.value, "low": r.interval[0], "high": r.interval[1], "signature": r.signature}
                for name, r in report.reports.items()
            }
        }
        if comparisons:
            row["against"] = {
                "system": against,
                **{
                    c.metric: {
                        "difference": c.test.difference, "low": c.test.interval[0], "high": c.test.interval[1],
                        "p_randomization": c.test.p_randomization, "p_bootstrap": c.test.p_bootstrap,
                        "better": c.test.better, "worse": c.test.worse,
                    }
                    for c in comparisons
                },
            }  # fmt: skip
        self._figures[cell.signature] = row

    def save(self) -> None:
        """Write the file; OSError where it can't be."""
        cells = sorted(
            self.cells.values(), key=lambda c: (c.size, -1 if c.noise is None else c.noise, c.system, c.signature)
        )
        rows = [{**_row(cell), **self._figures.get(cell.signature, {})} for cell in cells]
        # A line for each cell: diffs stay readable.
        lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path) as stream:
            stream.write(f'{{"format": {FORMAT}, "cells": [\n{lines}\n]}}\n'.encode("utf-8", "surrogateescape"))


def _row(cell: Cell) -> dict[str, Any]:
    row: dict[str, Any] = {
        "system": cell.system, "size": cell.size, "noise": cell.noise, "signature": cell.signature,
        "seconds": dict(cell.seconds), "ranks": [[rank for rank, _ in found] for found in cell.found],
    }  # fmt: skip
    if any(grade != 1 for found in cell.found for _, grade in found):
        row["grades"] = [[grade for _, grade in found] for found in cell.found]
    return row


def _cell(row: Mapping[str, Any]) -> Cell:
    grades = row.get("grades") or [[1] * len(ranks) for ranks in row["ranks"]]
    found = tuple(tuple(zip(r, g, strict=True)) for r, g in zip(row["ranks"], grades, strict=True))
    return Cell(str(row["system"]), int(row["size"]), row["noise"], str(row["signature"]), found, row["seconds"])
