"""Ranks of a corpus for a reading: by an embedder, by edit distance, by glyph distance.

The dense ranks are exact. Those by distance are exact among what dense and lexical search propose together. It knows
nothing of which candidates are wanted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

from caprag.errors import CorpusError
from caprag.glyphs import GlyphTable
from caprag.progress import progress_bar
from caprag.retrieval import Index
from caprag.retrieval.vectors import VectorIndex
from caprag.text import match_form, normalize
from caprag.types import Embedder

Method = Literal["dense", "edit", "glyph", "random"]
METHODS: tuple[Method, ...] = get_args(Method)

_CHUNK = 16384
_QUERIES = 512
# What distances are measured of is at least so many hits.
_LEAST = 32
# Scores are compared after rounding: what differs by less is the arithmetic of the batch.
_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidates of one query.

    Attributes
    ----------
    by_method
        Positions in the corpus, best first, for each method that ranks.
    """

    by_method: dict[Method, list[int]]


class Candidates:
    """Ranks the sentences of a corpus.

    Parameters
    ----------
    corpus
        Sentences; equal written forms count once, the first one's place.
    embedder
        Makes the vectors.
    methods
        Which rankings are wanted.
    depth
        How many candidates of each are wanted, >= 1.
    progress
        Whether to show on stderr how far the embedding is; where all is drawn at random, nothing is embedded.

    Raises
    ------
    CorpusError
        Where there is no sentence.
    ValueError
        For an unknown method.

    Attributes
    ----------
    texts
        The distinct sentences, in their written form; positions count these.
    """

    def __init__(
        self,
        corpus: Iterable[str],
        embedder: Embedder,
        methods: Sequence[Method],
        depth: int,
        *,
        progress: bool = False,
    ) -> None:
        for method in methods:
            if method not in METHODS:
                raise ValueError(f"method is {method!r}; known are {', '.join(METHODS)}")
        self.texts = list(dict.fromkeys(text for sentence in corpus if (text := normalize(sentence))))
        if not self.texts:
            raise CorpusError("the corpus has no sentence; give at least one line of text")
        self._embedder = embedder
        self._methods = list(methods)
        self._depth = min(depth, len(self.texts))
        self._vectors = VectorIndex(embedder.dimension, "Flat")
        self._index: Index | None = None
        self._places: dict[str, int] = {}
        if set(methods) == {"random"}:
            return
        vectors = np.empty((len(self.texts), embedder.dimension), np.float32)
        with progress_bar(len(self.texts), "embed", " sentences", show=progress) as bar:
            for start in range(0, len(self.texts), _CHUNK):
                chunk = self.texts[start : start + _CHUNK]
                vectors[start : start + len(chunk)] = embedder.embed(chunk)
                bar.update(len(chunk))
        self._vectors.add(range(len(self.texts)), vectors)
        if {"edit", "glyph"} & set(methods):
            self._index = Index.build(self.texts, embedder, vectors=vectors)
            self._places = {text: i for i, text in enumerate(self.texts)}
            self._glyphs = GlyphTable.load()

    def rank(self, queries: Sequence[str], positives: Sequence[Sequence[str]]) -> list[tuple[Ranked, Scores]]:
        """Rank the corpus for readings.

        Parameters
        ----------
        queries
            Readings.
        positives
            What each stands for; they are scored too.

        Returns
        -------
        list of (Ranked, Scores)
            For each query its candidates and what scores them.
        """
        if not len(self._vectors):
            nothing = Scores(0.0, np.zeros(self._embedder.dimension, np.float32), {})
            return [(Ranked({}), nothing) for _ in queries]
        written = [normalize(query) for query in queries]
        vectors = self._embedder.embed(written)
        meant = self._embedder.embed(list(itertools.chain.from_iterable(positives)))
        places, cosines = self._vectors.search(vectors, self._depth)
        found: Sequence[Sequence[int]] = [[] for _ in queries]
        if self._index is not None:
            wide = max(self._depth, _LEAST)
            hits = self._index.search_batch(written, wide, candidates=wide)
            found = [[self._places[hit.text] for hit in row if hit.text in self._places] for row in hits]
        answers, place = [], 0
        for number, query in enumerate(written):
            own = meant[place : place + len(positives[number])]
            place += len(own)
            dense = zip(places[number].tolist(), cosines[number].tolist(), strict=True)
            nearest = sorted(dense, key=lambda entry: (-round(entry[1], _DIGITS), entry[0]))
            ids = [i for i, _ in nearest]
            by_method: dict[Method, list[int]] = {}
            for method in self._methods:
                if method == "dense":
                    by_method[method] = ids
                elif method != "random":
                    pool = sorted({*ids, *found[number]})
                    by_method[method] = self._by_distance(query, pool, method)[: self._depth]
            lowest = min((float(cosine) for cosine in own @ vectors[number]), default=0.0)
            answers.append((Ranked(by_method), Scores(round(lowest, _DIGITS), vectors[number], dict(nearest))))
        return answers

    def _by_distance(self, query: str, pool: Sequence[int], method: Method) -> list[int]:
        if method == "edit":
            form = match_form(query)
            keyed = [(Levenshtein.distance(form, match_form(self.texts[i])), i) for i in pool]
            return [i for _, i in sorted(keyed)]
        distances = self._glyphs.distances([query] * len(pool), [self.texts[i] for i in pool])
        return [i for _, i in sorted(zip(distances.round(_DIGITS).tolist(), pool, strict=True))]

    def cosine(self, scores: Scores, number: int) -> float:
        """Return the cosine of a query and a sentence, in [-1, 1], rounded."""
        known = scores.known.get(number)
        if known is None:
            known = float(self._embedder.embed([self.texts[number]])[0] @ scores.query)
        return round(known, _DIGITS)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The cosines that belong to one query.

    Attributes
    ----------
    positive
        The lowest cosine of its positives, in [-1, 1].
    query
        Its vector, shape (dimension,), float32.
    known
        Cosines of the sentences that dense search found.
    """

    positive: float
    query: npt.NDArray[np.float32]
    known: dict[int, float]


def dense_ranks(
    embedder: Embedder, corpus: Sequence[str], queries: Sequence[str], truths: Sequence[str], *, progress: bool = False
) -> npt.NDArray[np.int64]:
    """Return the rank of each query's true sentence by cosine alone, exactly.

    Parameters
    ----------
    embedder
        Makes the vectors.
    corpus
        Written forms, distinct.
    queries
        Readings.
    truths
        For each query the sentence of the corpus that it stands for.
    progress
        Whether to show on stderr how far the embedding is.

    Returns
    -------
    numpy.ndarray
        Shape (len(queries),), int64, 1 for the best: one more than the sentences whose cosine is higher.

    Raises
    ------
    ValueError
        Where a truth is not in the corpus, or there are not as many as queries.
    """
    if len(queries) != len(truths):
        raise ValueError(f"there are {len(queries)} queries and {len(truths)} truths; each query needs one")
    places = {text: i for i, text in enumerate(corpus)}
    missing = next((text for text in truths if text not in places), None)
    if missing is not None:
        raise ValueError(f"the truth {missing!r} is not in the corpus")
    asked = embedder.embed([normalize(query) for query in queries])
    own = np.einsum("ij,ij->i", asked, embedder.embed(list(truths)))
    ranks = np.ones(len(queries), np.int64)
    with progress_bar(len(corpus), "rank", " sentences", show=progress) as bar:
        for start in range(0, len(corpus), _CHUNK):
            chunk = corpus[start : start + _CHUNK]
            vectors = embedder.embed(chunk)
            for first in range(0, len(queries), _QUERIES):
                rows = slice(first, first + _QUERIES)
                # The same text embedded in another batch differs by rounding.
                ranks[rows] += (asked[rows] @ vectors.T > own[rows, None] + 1e-5).sum(axis=1)
            bar.update(len(chunk))
    return ranks
