"""How exact and how fast an index searches its vectors, and the search parameters or the factory that fit a need.

Measures the dense search alone, against exact search over the same vectors; what the lexical search finds besides, and
how hits are ranked, is not its matter. Times are this machine's, and no seed makes them the same twice.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caprag.progress import progress_bar
from caprag.retrieval.index import Index
from caprag.retrieval.vectors import Ids, VectorIndex, Vectors
from caprag.text import match_form, normalize

CANDIDATES = 32
"""Vectors asked for in a search, as `Index.search_batch` does where fewer hits are wanted."""

_BLOCK = 8192
# Cosines nearer than this are the same: two sentences may have one vector.
_SAME = 1e-6
_TIMED = 100
_ENOUGH = 0.999
_VALUES = {"efSearch": [2**i for i in range(4, 11)], "k_factor_rf": [2**i for i in range(7)]}

Search = Callable[[Vectors, int], Ids]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One way to search.

    Attributes
    ----------
    factory
        FAISS factory string of the vectors.
    parameters
        What is weighed while searching, as FAISS writes it; empty where there is nothing to weigh.
    recall
        Mean share of the k nearest sentences that are among the first k found, in [0, 1].
    interval
        95 % interval of the recall over the queries (Wilson).
    milliseconds
        Median time to search for one query alone, without embedding it.
    bytes_per_vector
        What one more vector adds to the file.
    total_bytes
        Bytes of the file with all vectors; those of a comparison on a sample are reckoned up.
    """

    factory: str
    parameters: str
    recall: float
    interval: tuple[float, float]
    milliseconds: float
    bytes_per_vector: float
    total_bytes: int


@dataclass(frozen=True, slots=True)
class TuningReport:
    """What was measured, and what fits.

    Attributes
    ----------
    rows
        All that was measured, in the order of measuring.
    chosen
        The cheapest that reaches the recall, or the best within the time; where none does, the nearest to it.
    reached
        Whether the one that was chosen does.
    signature
        What else is needed to measure it again.
    """

    rows: tuple[Measurement, ...]
    chosen: Measurement
    reached: bool
    signature: str

    def __str__(self) -> str:
        head = ["", "factory", "parameters", "recall", "95 %", "ms a query", "bytes a vector", "MB"]
        lines = [head] + [
            [
                "*" if row is self.chosen else "", row.factory, row.parameters or "-", f"{row.recall:.4f}",
                f"[{row.interval[0]:.4f}, {row.interval[1]:.4f}]", f"{row.milliseconds:.3f}",
                f"{row.bytes_per_vector:.1f}", f"{row.total_bytes / 1e6:.1f}",
            ]
            for row in self.rows
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        return "\n".join([*(line.rstrip() for line in table), self.signature])


def tune_index(
    index: Index,
    queries: Sequence[str] | None = None,
    *,
    sample: int = 1000,
    k: int = 1,
    target_recall: float = 0.99,
    max_milliseconds: float | None = None,
    vectors: npt.ArrayLike | None = None,
    seed: int = 0,
    progress: bool = False,
) -> TuningReport:
    """Find the search parameters that fit, and set them; `Index.save` keeps them.

    Parameters
    ----------
    index
        The parameters are those of its first segment, the one that has its factory.
    queries
        Readings like those it will be asked. ``None`` takes sentences of its own, as they stand, which any kind of
        index finds more easily than readings of them.
    sample
        At most this many queries, >= 1.
    k
        Of so many nearest sentences the recall is measured, >= 1.
    target_recall
        The fastest with this recall is chosen, in (0, 1].
    max_milliseconds
        Where given, the most exact within this time is chosen instead.
    vectors
        Vectors of all texts of the segment, if they are known: by ascending id, each sentence's text followed by its
        aliases, removed ones left out. ``None`` embeds all texts again, unless the index is exact itself.
    seed
        Chooses the sample.
    progress
        Whether to show a progress bar on stderr.

    Returns
    -------
    TuningReport
        One row a setting.

    Raises
    ------
    ValueError
        For a number out of its range, an index without sentences, no query that has a letter, or vectors that are not
        as many as the texts.

    Examples
    --------
    >>> index = Index.build(["妳在開玩笑嗎", "不會持續太久的"], factory="HNSW8")
    >>> report = tune_index(index, ["妳在閒玩笑嗎"])
    >>> report.chosen.recall, index.parameters == report.chosen.parameters
    (1.0, True)
    """
    _check(sample, k, target_recall, max_milliseconds)
    segment = index._store.first
    if not len(segment):
        raise ValueError("the index has no sentence in its first segment; there is nothing to tune")
    generator = np.random.default_rng(seed)
    if queries is None:
        rows = np.sort(generator.permutation(segment.find(segment.ids))[:sample])
        queries = [s.text for s in segment.sentences.take(rows)]
    asked = _asked(queries, sample, generator)
    rows = index.embedder.embed(asked)
    if index.factory == "Flat":
        truth = [set(row[:k]) for row in _distinct(segment.search(rows, k + CANDIDATES)[0])]
    else:
        given = None if vectors is None else np.asarray(vectors, np.float32)
        truth = _nearest(rows, _blocks(index, given), k, len(segment.vectors), progress=progress)
    size = _size(segment.vectors, index)
    total = size / max(1, len(segment.vectors))
    measured: list[Measurement] = []

    def search(vectors: Vectors, depth: int) -> Ids:
        return segment.search(vectors, depth)[0]

    try:
        for parameters, recall, milliseconds in _measured(
            segment.vectors, search, rows, truth, k, target_recall, max_milliseconds
        ):
            interval = _wilson(recall, len(asked))
            measured.append(Measurement(index.factory, parameters, recall, interval, milliseconds, total, size))
    finally:
        segment.vectors.tune(index.parameters)
    signature = f"recall@{k} | {len(asked)} queries | {len(segment.vectors)} vectors | seed {seed}"
    report = _chosen(measured, target_recall, max_milliseconds, None, signature)
    index.parameters = report.chosen.parameters
    return report


def compare_factories(
    index: Index,
    factories: Sequence[str],
    queries: Sequence[str] | None = None,
    *,
    sample: int = 1000,
    sentences: int = 100_000,
    k: int = 1,
    target_recall: float = 0.99,
    max_milliseconds: float | None = None,
    max_bytes: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> TuningReport:
    """Compare kinds of vectors on a sample of an index's sentences; the index stays as it is.

    With fewer vectors a search is faster and nearer to exact than it will be with all; bytes are reckoned up to all.

    Parameters
    ----------
    index
        Its sentences and embedder are taken.
    factories
        FAISS factory strings, at least one.
    queries, sample, k, target_recall, max_milliseconds, seed, progress
        See `tune_index`; queries of its own are from the sample of sentences.
    sentences
        At most this many sentences, >= 1.
    max_bytes
        What the vectors of the whole index may take; larger ones are measured, not chosen. ``None`` for any size.

    Returns
    -------
    TuningReport
        One row a factory and setting.

    Raises
    ------
    ValueError
        As `tune_index`, and for a factory that FAISS does not know or that wants more sentences to train on.
    """
    _check(sample, k, target_recall, max_milliseconds)
    if not factories or sentences < 1:
        raise ValueError(f"factories are {list(factories)!r} and sentences is {sentences}; one of each is the least")
    generator = np.random.default_rng(seed)
    ids = np.array(list(index), np.int64)
    chosen = np.sort(generator.permutation(ids)[:sentences])
    if not len(chosen):
        raise ValueError("the index has no sentence; there is nothing to compare")
    (texts,) = index._store.columns(chosen, "text")
    vectors = index.embedder.embed([texts[i] for i in chosen.tolist()], progress=progress)
    if queries is None:
        queries = [texts[i] for i in generator.permutation(chosen)[:sample].tolist()]
    asked = _asked(queries, sample, generator)
    rows = index.embedder.embed(asked)
    truth = _nearest(rows, [(chosen, vectors)], k, len(chosen), progress=False)
    measured: list[Measurement] = []
    with progress_bar(len(factories), "compare", " factories", show=progress) as bar:
        for factory in factories:
            made = VectorIndex(vectors.shape[1], factory)
            if not made.is_trained:
                made.train(vectors)
            fixed = _size(made)
            made.add(chosen, vectors)
            each = (_size(made) - fixed) / len(chosen)
            whole = round(fixed + each * len(ids))
            for parameters, recall, milliseconds in _measured(
                made, _ids_of(made), rows, truth, k, target_recall, max_milliseconds
            ):
                interval = _wilson(recall, len(asked))
                measured.append(Measurement(factory, parameters, recall, interval, milliseconds, each, whole))
            bar.update()
    signature = f"recall@{k} | {len(asked)} queries | {len(chosen)} of {len(ids)} sentences | seed {seed}"
    return _chosen(measured, target_recall, max_milliseconds, max_bytes, signature)


def _check(sample: int, k: int, target_recall: float, max_milliseconds: float | None) -> None:
    if sample < 1 or k < 1:
        raise ValueError(f"sample is {sample} and k is {k}; both must be at least 1")
    if not 0 < target_recall <= 1:
        raise ValueError(f"target_recall is {target_recall}; it must lie in (0, 1]")
    if max_milliseconds is not None and not max_milliseconds > 0:
        raise ValueError(f"max_milliseconds is {max_milliseconds}; more than 0 is wanted")


def _asked(queries: Sequence[str], sample: int, generator: np.random.Generator) -> list[str]:
    written = [text for text in map(normalize, queries) if match_form(text)]
    if not written:
        raise ValueError("no query has a letter or digit; give at least one")
    return [written[i] for i in np.sort(generator.permutation(len(written))[:sample])]


def _blocks(index: Index, vectors: Vectors | None) -> Iterator[tuple[Ids, Vectors]]:
    """Yield ids and exact vectors of all texts of the first segment."""
    segment, used = index._store.first, 0
    ids = segment.ids
    for start in range(0, len(ids), _BLOCK):
        part = ids[start : start + _BLOCK]
        sentences = segment.sentences.take(segment.find(part))
        counts = [1 + len(s.aliases) for s in sentences]
        if vectors is None:
            rows = index.embedder.embed([text for s in sentences for text in (s.text, *s.aliases)])
        else:
            rows = vectors[used : used + sum(counts)]
        used += sum(counts)
        if len(rows) != sum(counts):
            raise ValueError(f"there are {len(rows) + used - sum(counts)} vectors and more texts; each needs one")
        yield np.repeat(part, counts), rows
    if vectors is not None and used != len(vectors):
        raise ValueError(f"there are {len(vectors)} vectors and {used} texts; there must be one for each")


def _nearest(
    queries: Vectors, blocks: Iterable[tuple[Ids, Vectors]], k: int, total: int, *, progress: bool
) -> list[set[int]]:
    """Return for each query the ids of the nearest `k` sentences, and of those as near as the last of them."""
    keep = 4 * k + CANDIDATES
    ids, cosines = np.full((len(queries), 0), -1, np.int64), np.zeros((len(queries), 0), np.float32)
    with progress_bar(total, "exact search", " vectors", show=progress) as bar:
        for numbers, rows in blocks:
            ids = np.concatenate([ids, np.broadcast_to(numbers, (len(queries), len(numbers)))], axis=1)
            cosines = np.concatenate([cosines, queries @ rows.T], axis=1)
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :keep]
            ids, cosines = np.take_along_axis(ids, order, 1), np.take_along_axis(cosines, order, 1)
            bar.update(len(numbers))
    truth: list[set[int]] = []
    for row, scores in zip(ids.tolist(), cosines.tolist(), strict=True):
        best: dict[int, float] = {}
        for number, cosine in zip(row, scores, strict=True):
            best.setdefault(number, cosine)
        last = sorted(best.values(), reverse=True)[:k][-1]
        truth.append({number for number, cosine in best.items() if cosine >= last - _SAME})
    return truth


def _ids_of(vectors: VectorIndex) -> Search:
    return lambda rows, depth: vectors.search(rows, depth)[0]


def _distinct(ids: Ids) -> list[list[int]]:
    return [[i for i in dict.fromkeys(row) if i >= 0] for row in ids.tolist()]


def _measured(
    vectors: VectorIndex,
    search: Search,
    queries: Vectors,
    truth: Sequence[set[int]],
    k: int,
    target_recall: float,
    max_milliseconds: float | None,
) -> Iterator[tuple[str, float, float]]:
    """Yield parameters, recall and milliseconds of one setting after the other, as far as more may be of use."""
    names = vectors.tunable()
    values = {**_VALUES, "nprobe": _powers(vectors.cells)}
    depth = max(k, CANDIDATES)
    before: list[float] = []
    for others in itertools.product(*(values[name] for name in names[1:])):
        # The first one alone goes up until the need is met.
        recalls: list[float] = []
        for value in values[names[0]] if names else [0]:
            parameters = ",".join(f"{n}={v}" for n, v in zip(names, (value, *others), strict=False))
            vectors.tune(parameters)
            found = _distinct(search(queries, depth))
            shares = [
                len(near.intersection(row[:k])) / min(k, len(near)) for row, near in zip(found, truth, strict=True)
            ]
            recall = min(1.0, math.fsum(shares) / len(shares))
            milliseconds = _time(search, queries, depth)
            recalls.append(recall)
            yield parameters, recall, milliseconds
            if recall >= (1.0 if max_milliseconds else max(target_recall, _ENOUGH)):
                break
            if max_milliseconds is not None and milliseconds > max_milliseconds:
                break
        if recalls == before and len(names) == 2:
            # More of the other costs time and finds nothing.
            break
        before = recalls


def _powers(cells: int) -> list[int]:
    return [*(2**i for i in range(32) if 2**i < cells), cells]


def _time(search: Search, queries: Vectors, depth: int) -> float:
    times: list[float] = []
    for row in queries[:_TIMED]:
        start = time.perf_counter()
        search(row[None], depth)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))


def _size(vectors: VectorIndex, index: Index | None = None) -> int:
    """Return the bytes of its file."""
    store = None if index is None else index._store
    if store is not None and store.folder is not None and store.first.entry is not None:
        return (store.folder / store.first.entry["vectors"]).stat().st_size
    with tempfile.TemporaryDirectory(prefix="caprag-") as folder:
        vectors.save(Path(folder) / "vectors.faiss")
        return (Path(folder) / "vectors.faiss").stat().st_size


def _wilson(share: float, count: int) -> tuple[float, float]:
    z = 1.959964
    centre, spread = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return max(0.0, (centre - spread) / (1 + z * z / count)), min(1.0, (centre + spread) / (1 + z * z / count))


def _chosen(
    rows: Sequence[Measurement],
    target_recall: float,
    max_milliseconds: float | None,
    max_bytes: int | None,
    signature: str,
) -> TuningReport:
    small = [row for row in rows if max_bytes is None or row.total_bytes <= max_bytes]
    if max_milliseconds is None:
        fitting = [row for row in small if row.recall >= target_recall]
        best = min(fitting, key=lambda row: (row.milliseconds, -row.recall), default=None)
        nearest = max(small, key=lambda row: (row.recall, -row.milliseconds), default=None)
    else:
        fitting = [row for row in small if row.milliseconds <= max_milliseconds]
        best = max(fitting, key=lambda row: (row.recall, -row.milliseconds), default=None)
        nearest = min(small, key=lambda row: row.milliseconds, default=None)
    chosen = best or nearest or min(rows, key=lambda row: row.total_bytes)
    return TuningReport(tuple(rows), chosen, best is not None, signature)
