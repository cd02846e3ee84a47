"""Retrieval systems by name: the index, its parts alone, and the baselines, each over any list of sentences.

Knows how each is built and how many sentences it can take, not what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caprag.evaluation.baselines import (
    Best,
    BM25Retriever,
    EditRetriever,
    OverTexts,
    Ranking,
    Retriever,
    SymSpellRetriever,
    TfidfRetriever,
)
from caprag.evaluation.report import package_version
from caprag.retrieval import Index, load_embedder
from caprag.retrieval.lexical import LexicalIndex
from caprag.text import normalize
from caprag.types import Embedder

_BLOCK = 1 << 14

MOST: dict[str, tuple[int, str]] = {
    "bm25": (5_000_000, "1.8 kB"), "tfidf": (5_000_000, "1.5 kB"), "symspell": (500_000, "5 kB"),
}  # fmt: skip
"""The most sentences of those whose tables grow large, and what each sentence costs them; measured on caption lines of
4 to 14 characters."""

NAMES = ("caprag", "edit", "bm25", "tfidf", "symspell", "dense", "lexical")
"""The systems that `open_system` knows."""


class IndexRetriever:
    """A `caprag.Index` as a retriever; scores are those that its hits are ranked by.

    Parameters
    ----------
    index
        The index.
    numbers
        The id under which each of its sentences is known, shape (sentences,), ascending as the index's own ids are;
        ``None``: these.

    Raises
    ------
    ValueError
        Where there are not as many numbers as sentences.
    """

    def __init__(self, index: Index, numbers: npt.NDArray[np.int64] | None = None) -> None:
        self._index = index
        self._numbers = numbers
        if numbers is not None:
            self._own = np.fromiter(index, np.int64)
            if len(self._own) != len(numbers):
                raise ValueError(
                    f"the index has {len(self._own)} sentences and there are {len(numbers)} texts; build it of these"
                )

    @property
    def description(self) -> str:
        """What makes it again."""
        index = self._index
        kind = f"factory={index.factory}" + (f",parameters={index.parameters}" if index.parameters else "")
        return f"caprag({_of_embedder(index.embedder)},{kind},{_engines('faiss', 'tantivy')})"

    def sentences(self) -> Iterator[tuple[int, str]]:
        """Yield each sentence's id and text."""
        for place, (own, text) in enumerate(self._index.texts()):
            yield own if self._numbers is None else int(self._numbers[place]), text

    def text(self, number: int) -> str:
        """Return the sentence with this id; KeyError where there is none."""
        if self._numbers is not None:
            place = int(np.searchsorted(self._numbers, number))
            if place == len(self._numbers) or self._numbers[place] != number:
                raise KeyError(number)
            number = int(self._own[place])
        return self._index[number].text

    def search_batch(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Search the index."""
        results = []
        for hits in self._index.search_batch(queries, k):
            ids = [hit.id for hit in hits]
            if self._numbers is not None:
                ids = self._numbers[np.searchsorted(self._own, ids)].tolist()
            results.append(list(zip(ids, (hit.score for hit in hits), strict=True)))
        return results


class DenseRetriever(OverTexts):
    """An embedder alone: the cosine of a reading to every sentence, exactly. Scores lie in [-1, 1].

    Parameters
    ----------
    texts
        The sentences; their vectors stay in memory, 4 bytes a dimension.
    embedder
        Makes the vectors.
    """

    def __init__(self, texts: Sequence[str], embedder: Embedder) -> None:
        super().__init__(texts)
        self._embedder = embedder
        self._vectors = np.empty((len(texts), embedder.dimension), np.float32)
        for start in range(0, len(texts), _BLOCK):
            written = [normalize(text) for text in texts[start : start + _BLOCK]]
            self._vectors[start : start + len(written)] = embedder.embed(written)
        self.description = f"dense({_of_embedder(embedder)},exact)"

    def search_forms(self, forms: Sequence[str], queries: Sequence[str], k: int) -> list[Ranking]:
        """Multiply readings with all sentences."""
        asked = self._embedder.embed([normalize(query) for query in queries])
        best = [Best(k) for _ in forms]
        for start in range(0, len(self._vectors), _BLOCK):
            table = np.clip(asked @ self._vectors[start : start + _BLOCK].T, -1.0, 1.0)
            ids = np.arange(start, start + table.shape[1])
            for kept, row in zip(best, table, strict=True):
                kept.offer(row, ids)
        return [kept.result() for kept in best]


class LexicalRetriever(OverTexts):
    """The index's character n-grams alone. Scores are BM25's, > 0."""

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__(texts)
        self._lexical = LexicalIndex()
        self._lexical.add(range(len(texts)), [normalize(text) for text in texts])
        self.description = f"lexical({_engines('tantivy')})"

    def search_forms(self, forms: Sequence[str], queries: Sequence[str], k: int) -> list[Ranking]:  # noqa: ARG002
        """Search the postings."""
        return self._lexical.search([normalize(query) for query in queries], k)


@dataclass(frozen=True, slots=True)
class System:
    """A retrieval system that has not been built yet.

    Attributes
    ----------
    name
        As it was asked for.
    description
        What makes it again, without white space; that of the retriever it builds.
    build
        From sentences to a retriever whose ids are their places.
    most
        The most sentences it takes; ``None`` for any number.
    """

    name: str
    description: str
    build: Callable[[Sequence[str]], Retriever]
    most: int | None = None

    def refusal(self, sentences: int) -> str:
        """Return why it is left out at so many sentences; empty where it is not."""
        if self.most is None or sentences <= self.most:
            return ""
        return (
            f"{self.name} is left out at {sentences} sentences: it takes {self.most} at most, as its table wants "
            f"{MOST[self.name.partition(':')[0]][1]} of memory for each"
        )


def check_system(name: str) -> tuple[str, str]:
    """Return the kind of a system and its model, empty where it names none; ValueError for an unknown one."""
    kind, _, model = name.partition(":")
    if kind not in NAMES or (model and kind not in ("dense", "caprag")):
        raise ValueError(f"system is {name!r}; known are {', '.join(NAMES)}, and dense:MODEL and caprag:MODEL")
    return kind, model


def open_system(
    name: str, *, embedder: Embedder | None = None, factory: str = "Flat", workers: int = 1, index: Index | None = None
) -> System:
    """Find a system by its name.

    Parameters
    ----------
    name
        ``caprag`` (the index), ``dense`` and ``lexical`` (its parts alone), ``edit`` (brute-force rapidfuzz),
        ``bm25``, ``tfidf``, ``symspell``. ``dense:MODEL`` and ``caprag:MODEL`` take another embedder: a folder or hub
        id.
    embedder
        Of ``caprag`` and ``dense``; ``None``: the shipped one.
    factory
        FAISS factory string of ``caprag``.
    workers
        Threads of ``edit``, >= 1; -1 for all cores.
    index
        An index that holds the sentences already, in their order: ``caprag`` is this one and is not built.

    Raises
    ------
    ValueError
        For an unknown name.
    ModelError
        Where an embedder can't be loaded.
    MissingDependencyError
        Where the package of a baseline is not installed.
    """
    kind, model = check_system(name)
    if kind in ("dense", "caprag"):
        if kind == "caprag" and index is not None and not model:
            return System(
                name, IndexRetriever(index).description, lambda texts: IndexRetriever(index, np.arange(len(texts)))
            )
        chosen = load_embedder(model) if model else embedder or load_embedder()
        if kind == "dense":
            # Described by what it is made of: to build it only for that would take the time that a stored result saves.
            return System(name, DenseRetriever([], chosen).description, lambda texts: DenseRetriever(texts, chosen))
        described = IndexRetriever(Index(chosen, factory=factory)).description
        return System(name, described, lambda texts: _built(texts, chosen, factory))
    if kind == "edit":
        return System(name, EditRetriever([]).description, lambda texts: EditRetriever(texts, workers=workers))
    builders: dict[str, Callable[[Sequence[str]], Retriever]] = {
        "bm25": BM25Retriever, "tfidf": TfidfRetriever, "symspell": SymSpellRetriever, "lexical": LexicalRetriever,
    }  # fmt: skip
    build = builders[kind]
    most = MOST[kind][0] if kind in MOST else None
    return System(name, build([]).description, build, most)


def _built(texts: Sequence[str], embedder: Embedder, factory: str) -> IndexRetriever:
    # An index keeps a text once, under the id of its first row, and no empty one.
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        if written := normalize(text):
            first.setdefault(written, place)
    index = Index.build(first, embedder, factory=factory)
    return IndexRetriever(index, np.fromiter(first.values(), np.int64, len(first)))


def _of_embedder(embedder: Embedder) -> str:
    return f"embedder={embedder.name}:{embedder.fingerprint[:12]}"


def _engines(*names: str) -> str:
    packages = {"faiss": "faiss-cpu", "tantivy": "tantivy"}
    return ",".join(f"{name}={package_version(packages[name])}" for name in names)
