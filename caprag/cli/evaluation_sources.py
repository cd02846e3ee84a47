"""What eval retrieval evaluates: a test collection, an index with queries, or a corpus with noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from caprag.cli.options import Complaints, open_embedder, refuse
from caprag.errors import CorpusError

if TYPE_CHECKING:
    from caprag.evaluation.sweep import Point
    from caprag.retrieval import Index


@dataclass
class Source:
    """What is evaluated: points, those of one corpus together, and the outer names of queries and sentences."""

    points: Iterable[list[Point]]
    queries: Sequence[str]
    sentence: Callable[[int], str]
    index: Index | None = None


def of_beir(folder: Path, split: str, same_text: bool) -> Source:
    """Take a test collection."""
    from caprag.evaluation.baselines import OverTexts
    from caprag.evaluation.retrieval import make_task
    from caprag.evaluation.sweep import Point
    from caprag.evaluation.trec import read_beir

    collection = read_beir(folder, split)
    names, texts = [], []
    for name, text in collection.corpus():
        names.append(name)
        texts.append(text)
    places = {name: place for place, name in enumerate(names)}
    relevant = [{places[d]: grade for d, grade in collection.qrels[query].items()} for query in collection.queries]
    task = make_task(OverTexts(texts), list(collection.queries.values()), relevant, same_text=same_text)
    point = Point(texts, None, task, f"beir={folder.resolve().name}/{split}")
    return Source([[point]], list(collection.queries), names.__getitem__)


def of_index(
    folder: Path, queries: Path | None, embedder: str | None, same_text: bool, complaints: Complaints
) -> Source:
    """Take an index and a file of queries; a query whose truth it lacks is complained of and left out."""
    from caprag.evaluation.baselines import OverTexts
    from caprag.evaluation.queries import Query, read_queries, resolve
    from caprag.evaluation.retrieval import make_task
    from caprag.evaluation.sweep import Point
    from caprag.retrieval import Index

    if queries is None:
        raise ValueError("--index is given without --queries; give both")

    def absent(query: Query, truth: int | str) -> None:
        what = f"sentence {truth}" if isinstance(truth, int) else f"{truth!r}"
        complaints(CorpusError(f"{queries}, line {query.line}: the truth, {what}, is not in {folder}; it is left out"))

    read = read_queries(queries, on_error=complaints)
    index = Index.load(folder, embedder=open_embedder(embedder))
    ids, texts = list(index), [text for _, text in index.texts()]
    found = resolve(read, zip(ids, texts, strict=True), on_error=absent)
    if not found:
        raise CorpusError(f"{queries}: no query has its truth in {folder}; name the index that holds it")
    places = {number: place for place, number in enumerate(ids)}
    relevant = [[places[number] for number in truth] for _, truth in found]
    task = make_task(OverTexts(texts), [query.text for query, _ in found], relevant, same_text=same_text)
    names = [str(query.line) for query, _ in found]
    return Source([[Point(texts, None, task)]], names, lambda place: str(ids[place]), index)


def of_corpus(
    paths: list[Path], column: str | None, encoding: str | None, sizes: list[float], noise: str, count: int, seed: int,
    complaints: Complaints,
) -> Source:  # fmt: skip
    """Take text files, and make queries out of their own sentences."""
    from caprag.corpus import read_corpus
    from caprag.evaluation.sweep import distinct_texts, nested_points

    texts = distinct_texts(read_corpus(paths, column=column, encoding=encoding, on_error=complaints))
    if not texts:
        raise CorpusError(f"{', '.join(map(str, paths))}: no sentence has a letter; give a corpus")
    if any(size != int(size) for size in sizes):
        raise ValueError(f"--corpus-size {sizes}: wanted are whole numbers, such as 10000,100000")
    wanted = [int(size) for size in sizes] or [len(texts)]
    count = min(count, min(wanted))
    points = nested_points(texts, wanted, numbers(noise, "--noise"), count=count, seed=seed)
    return Source(points, [str(i) for i in range(count)], str)


def numbers(given: str | None, option: str) -> list[float]:
    """Read numbers parted by commas; none where nothing was given."""
    try:
        return [float(part) for part in (given or "").split(",") if part.strip()]
    except ValueError:
        refuse(f"{option} {given}: wanted are numbers parted by commas")
