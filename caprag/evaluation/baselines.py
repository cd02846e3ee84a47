"""What the index is measured against: brute force, BM25, TF-IDF and SymSpell over the same sentences.

Each is a `Retriever` over a list of sentences whose ids are their places in it. All compare
`caprag.text.match_form`, rank equals by id, and return no hit for a text without a letter or digit, nor for a
sentence that shares nothing with it. They know nothing of what is relevant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from caprag.errors import require
from caprag.evaluation.report import package_version
from caprag.text import match_forms, normalize

Ranking = list[tuple[int, float]]
"""Ids and scores of sentences, best first."""

_CORPUS_BLOCK = 1 << 15
_QUERY_BLOCK = 64
_LEAST = 1e-9  # of a similarity that is any


@runtime_checkable
class Retriever(Protocol):
    """Anything that finds sentences for readings."""

    @property
    def description(self) -> str:
        """What makes it again, without white space: kind, parameters, versions."""
        ...

    def sentences(self) -> Iterator[tuple[int, str]]:
        """Yield each sentence's id and text, in document order."""
        ...

    def text(self, number: int) -> str:
        """Return the sentence with this id; LookupError where there is none."""
        ...

    def search_batch(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Find at most `k` sentences for each reading, ids distinct, best first."""
        ...


class Best:
    """Keeps the best of scores that come in blocks, and all that are equal to the last of them.

    Parameters
    ----------
    k
        How many, >= 1.
    least
        Scores below are never kept.
    """

    def __init__(self, k: int, least: float = -np.inf) -> None:
        self.floor = least
        self._k = k
        self._scores: npt.NDArray[Any] = np.zeros(0, np.float64)
        self._ids: npt.NDArray[np.int64] = np.zeros(0, np.int64)

    def offer(self, scores: npt.NDArray[Any], ids: npt.NDArray[Any]) -> None:
        """Take the better ones of some scores, shape (n,), with their ids, shape (n,)."""
        found = np.flatnonzero(scores >= self.floor)
        if not len(found):
            return
        self._scores = np.concatenate([self._scores, scores[found]])
        self._ids = np.concatenate([self._ids, ids[found]])
        if len(self._scores) > self._k:
            last = len(self._scores) - self._k
            self.floor = max(self.floor, float(np.partition(self._scores, last)[last]))
            kept = self._scores >= self.floor
            self._scores, self._ids = self._scores[kept], self._ids[kept]

    def result(self) -> Ranking:
        """Return the ids and scores, best first, equals by id, with all that are equal to the last that counts."""
        order = np.lexsort((self._ids, -self._scores))
        return list(zip(self._ids[order].tolist(), self._scores[order].tolist(), strict=True))


class OverTexts:
    """What the baselines share: the sentences, and queries that have no matching form.

    Parameters
    ----------
    texts
        The sentences; ids are places in it. They are kept, not copied.
    """

    description = "texts"

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def sentences(self) -> Iterator[tuple[int, str]]:
        """Yield each sentence's place and text."""
        yield from enumerate(self._texts)

    def text(self, number: int) -> str:
        """Return the sentence at a place; IndexError where there is none."""
        if number < 0:
            raise IndexError(f"there is no sentence {number}")
        return self._texts[number]

    def search_batch(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Find at most `k` sentences for each reading, best first; ValueError for `k` below 1."""
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 is needed")
        results: list[Ranking] = [[] for _ in queries]
        forms = match_forms(queries)
        asked = [place for place, form in enumerate(forms) if form]
        for start in range(0, len(asked), _QUERY_BLOCK):
            block = asked[start : start + _QUERY_BLOCK]
            found = self.search_forms([forms[i] for i in block], [queries[i] for i in block], k)
            for place, ranking in zip(block, found, strict=True):
                results[place] = ranking[:k]
        return results

    def search_forms(self, forms: Sequence[str], queries: Sequence[str], k: int) -> list[Ranking]:
        """Find sentences for a block of readings, of which none has an empty form."""
        raise NotImplementedError


class EditRetriever(OverTexts):
    """Brute force: the edit similarity of a reading to every sentence, by rapidfuzz.

    Scores are 1 - Levenshtein distance / the longer length, in (0, 1]; equals are ranked by that of the written
    forms, then by id, as the index ranks them. What is compared at a time is 16 MB of similarities.

    Parameters
    ----------
    texts
        The sentences; they and their forms stay in memory, some 200 bytes each.
    workers
        Threads, >= 1; -1 for all cores. Changes no score.
    """

    def __init__(self, texts: Sequence[str], *, workers: int = 1) -> None:
        super().__init__(texts)
        self._workers = workers
        self._forms = list(_forms_of(texts))
        self.description = f"edit(rapidfuzz={package_version('rapidfuzz')},forms)"

    def search_forms(self, forms: Sequence[str], queries: Sequence[str], k: int) -> list[Ranking]:
        """Compare readings with every sentence."""
        best = [Best(k, _LEAST) for _ in forms]
        for start in range(0, len(self._forms), _CORPUS_BLOCK):
            block = self._forms[start : start + _CORPUS_BLOCK]
            # What can't be among the best of any of these readings need not be counted to the end.
            cutoff = max(0.0, min(kept.floor for kept in best) - 1e-6)
            table = cdist(
                forms, block, scorer=Levenshtein.normalized_similarity, score_cutoff=cutoff, dtype=np.float64,
                workers=self._workers,
            )  # fmt: skip
            ids = np.arange(start, start + len(block))
            for kept, row in zip(best, table, strict=True):
                kept.offer(row, ids)
        return [self._by_written_form(kept.result(), query) for kept, query in zip(best, queries, strict=True)]

    def _by_written_form(self, ranking: Ranking, query: str) -> Ranking:
        written = normalize(query)
        keys = [
            (-score, -Levenshtein.normalized_similarity(written, normalize(self._texts[i])), i) for i, score in ranking
        ]
        return [(i, -score) for score, _, i in sorted(keys)]


def grams_of(form: str) -> list[str]:
    """Return the single characters and the pairs of neighbours of a form, repeats included.

    Examples
    --------
    >>> grams_of("好啊好")
    ['好', '啊', '好', '好啊', '啊好']
    """
    return [*form, *(form[i : i + 2] for i in range(len(form) - 1))]


class BM25Retriever(OverTexts):
    """BM25 of single characters and pairs, by bm25s: k1 1.5, b 0.75, Lucene's form.

    Scores are > 0. Building takes about 1.8 kB a sentence.

    References
    ----------
    Lù, BM25S: orders of magnitude faster lexical search via eager sparse scoring, arXiv 2407.03618.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__(texts)
        require("bm25s", "eval")
        import bm25s

        self._vocabulary: dict[str, int] = {}
        number = self._vocabulary.setdefault
        tokens = [[number(gram, len(self._vocabulary)) for gram in grams_of(form)] for form in _forms_of(texts)]
        self._index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
        self._ids = np.arange(len(texts))
        if self._vocabulary:
            self._index.index((tokens, self._vocabulary), create_empty_token=False, show_progress=False)
        self.description = f"bm25(bm25s={package_version('bm25s')},chars=1-2,k1=1.5,b=0.75,lucene)"

    def search_forms(self, forms: Sequence[str], queries: Sequence[str], k: int) -> list[Ranking]:  # noqa: ARG002
        """Score every sentence for each reading."""
        results: list[Ranking] = []
        for form in forms:
            known = [self._vocabulary[gram] for gram in grams_of(form) if gram in self._vocabulary]
            best = Best(k, _LEAST)
            if known:
                best.offer(self._index.get_scores_from_ids(known), self._ids)
            results.append(best.result())
        return results


class TfidfRetriever(OverTexts):
    """Cosine of TF-IDF vectors of single characters and pairs, by scikit-learn.

    Scores lie in (0, 1]. Building takes about 1.5 kB a sentence.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        super().__init__(texts)
        require("sklearn", "eval")
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), lowercase=False, dtype=np.float32)
        forms = list(_forms_of(texts))
        # Its own error for a corpus without a character would not say what to do.
        self._table = self._vectorizer.fit_transform(forms).T.tocsr() if any(forms) else None
        self.description = f"tfidf(scikit-learn={package_version('scikit-learn')},chars=1-2)"

    def search_forms(self, forms: Sequence[str], queries: Sequence[str], k: int) -> list[Ranking]:  # noqa: ARG002
        """Multiply readings with the table of sentences."""
        if self._table is None:
            return [[] for _ in forms]
        product = self._vectorizer.transform(forms) @ self._table
        results = []
        for low, high in zip(product.indptr[:-1], product.indptr[1:], strict=True):
            best = Best(k, _LEAST)
            best.offer(product.data[low:high], product.indices[low:high].astype(np.int64))
            results.append(best.result())
        return results


class SymSpellRetriever(OverTexts):
    """Symmetric deletes, by symspellpy, with whole sentences as the words: all within so many edits.

    Scores are minus the edits (exchanged neighbours count as one), in [-edits, 0]. Nothing is found beyond. Building
    takes about 5 kB a sentence for 2 edits, 11 kB for 3.

    Parameters
    ----------
    texts
        The sentences.
    edits
        How many, 1 to 3.

    References
    ----------
    Garbe, 1000x faster spelling correction algorithm, 2012 (symmetric delete); prefixes of 7 characters.
    """

    def __init__(self, texts: Sequence[str], *, edits: int = 2) -> None:
        super().__init__(texts)
        if not 1 <= edits <= 3:
            raise ValueError(f"edits is {edits}; 1 to 3 are possible")
        require("symspellpy", "eval")
        import symspellpy

        self._dictionary = symspellpy.SymSpell(edits, 7)
        self._all = symspellpy.Verbosity.ALL
        self._places: dict[str, list[int]] = {}
        for place, form in enumerate(_forms_of(texts)):
            if form:
                self._places.setdefault(form, []).append(place)
        for form in self._places:
            self._dictionary.create_dictionary_entry(form, 1)
        self.description = f"symspell(symspellpy={package_version('symspellpy')},edits={edits},prefix=7)"

    def search_forms(self, forms: Sequence[str], queries: Sequence[str], k: int) -> list[Ranking]:  # noqa: ARG002
        """Look readings up."""
        results = []
        for form in forms:
            edits: dict[str, int] = {}
            for suggestion in self._dictionary.lookup(form, self._all):
                # A word of one character may come twice, once with too many edits.
                edits[suggestion.term] = min(suggestion.distance, edits.get(suggestion.term, suggestion.distance))
            found = [(distance, place) for term, distance in edits.items() for place in self._places[term]]
            results.append([(place, 0.0 - distance) for distance, place in sorted(found)[:k]])
        return results


def _forms_of(texts: Sequence[str]) -> Iterable[str]:
    for start in range(0, len(texts), _CORPUS_BLOCK):
        yield from match_forms(texts[start : start + _CORPUS_BLOCK])
