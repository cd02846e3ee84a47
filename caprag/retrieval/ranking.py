"""From candidates to hits: what is found for a query is put in order.

Knows texts and scores, not where they come from. The order by reading is a conditional logit over the candidates: how
many edits lead from the sentence to the reading, how alike the characters look that they change, how near the
embeddings are, and how many rare n-grams the two share. Its weights are fitted (scripts/fit_ranking.py) on readings
that the noise channel made; it says which sentence comes first, not whether it is right.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from caprag.glyphs import GlyphTable
from caprag.text import match_form
from caprag.types import Hit

FEATURES = ("edit", "written", "glyph", "dense", "lexical")
"""In the order of the columns of `features`."""

RANK_CONSTANT = 60
"""Of the reciprocal rank fusion."""

_WEIGHTS = Path(__file__).with_name("ranking.json")
# The glyph distance costs more than the others: it is told for as many of the best by these.
_LOOKED_AT = 16

Table = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Proposals:
    """Sentences that a search proposes for a query, column by column: an object each would cost more than the ranking.

    Attributes
    ----------
    ids, texts, forms
        The sentences, and their matching forms.
    dense, lexical
        Cosine and BM25; ``None`` where that search did not return the sentence.
    """

    ids: Sequence[int]
    texts: Sequence[str]
    forms: Sequence[str]
    dense: Sequence[float | None]
    lexical: Sequence[float | None]

    def __len__(self) -> int:
        return len(self.ids)


@functools.cache
def weights() -> Table:
    """Return the weight of each feature, shape (5,)."""
    stored = json.loads(_WEIGHTS.read_text(encoding="utf-8"))["weights"]
    return np.array([stored[name] for name in FEATURES])


def features(queries: Sequence[str], found: Sequence[Proposals]) -> Table:
    """Describe how well each candidate explains its reading.

    Parameters
    ----------
    queries
        Readings in their written form.
    found
        For each of them the candidates.

    Returns
    -------
    numpy.ndarray
        Shape (candidates of all queries, 5), higher is better. ``edit``: 1 - Levenshtein distance / the longer length,
        of the matching forms. ``glyph`` and ``written``: the same of the matching and of the written forms by
        `caprag.glyphs.GlyphTable.distance`, for a sign is misread as a letter that looks like it; of all but the best
        candidates by Levenshtein distance. ``dense``: cosine; where the dense search did not return the sentence, the
        least of those it returned. ``lexical``: BM25 over the query's best; where it was not returned, likewise.
        All in [0, 1] but ``dense`` in [-1, 1].
    """
    counts = [len(row) for row in found]
    table = np.zeros((sum(counts), len(FEATURES)))
    if not len(table):
        return table
    readings = [form for query, n in zip(queries, counts, strict=True) for form in [match_form(query)] * n]
    texts = [query for query, n in zip(queries, counts, strict=True) for _ in range(n)]
    forms = list(chain.from_iterable(row.forms for row in found))
    sentences = list(chain.from_iterable(row.texts for row in found))
    similarity = functools.partial(process.cpdist, scorer=Levenshtein.normalized_similarity, dtype=np.float64)
    table[:, 0] = similarity(readings, forms)
    table[:, 1] = similarity(texts, sentences)
    for column, rows in ((3, [row.dense for row in found]), (4, [row.lexical for row in found])):
        # What is not known becomes no number.
        table[:, column] = _filled(np.array(list(chain.from_iterable(rows)), np.float64), counts)
    best = np.repeat(_by_query(np.maximum, table[:, 4], counts), counts)
    table[:, 4] /= np.where(best > 0, best, 1.0)
    rough = table @ weights()
    start = 0
    near: list[int] = []
    for n in counts:
        near += (start + np.argsort(-rough[start : start + n], kind="stable")[:_LOOKED_AT]).tolist()
        start += n
    # Look-alikes only bring texts nearer: of those that were not looked at this is the least it can be.
    table[:, 2] = table[:, 0]
    table[near, 2] = _alikeness([readings[i] for i in near], [forms[i] for i in near])
    table[near, 1] = _alikeness([texts[i] for i in near], [sentences[i] for i in near])
    return table


def _alikeness(readings: Sequence[str], texts: Sequence[str]) -> Table:
    longer = np.array([max(len(reading), len(text), 1) for reading, text in zip(readings, texts, strict=True)])
    alike: Table = 1.0 - GlyphTable.load().distances(readings, texts) / longer
    return alike


def _by_query(reduce: np.ufunc, values: Table, counts: Sequence[int]) -> Table:
    starts = np.cumsum([0, *counts])[:-1]
    full = [i for i, n in enumerate(counts) if n]
    result = np.zeros(len(counts))
    result[full] = reduce.reduceat(values, starts[full])
    return result


def _filled(values: Table, counts: Sequence[int]) -> Table:
    least = np.repeat(_by_query(np.fmin, values, counts), counts)
    return np.nan_to_num(np.where(np.isnan(values), least, values))


def by_reading(queries: Sequence[str], found: Sequence[Proposals], k: int) -> list[list[Hit]]:
    """Rank sentences by how well they explain readings.

    Parameters
    ----------
    queries
        Readings in their written form.
    found
        For each of them the candidates.
    k
        At most this many hits for each.

    Returns
    -------
    list of list of Hit
        Best first, by the weighted sum of the `features`, then by id. A sentence whose matching form is the reading's
        comes before all others.

    References
    ----------
    McFadden, Conditional logit analysis of qualitative choice behavior, 1974.
    """
    table = features(queries, found)
    scores = table @ weights()
    # Nothing explains a reading better than the very text.
    scores += np.where(table[:, 0] == 1.0, weights().sum(), 0.0)
    results: list[list[Hit]] = []
    start = 0
    for row in found:
        part, edits = scores[start : start + len(row)].tolist(), table[start : start + len(row), 0].tolist()
        order = sorted(range(len(row)), key=lambda i: (-part[i], row.ids[i]))[:k]
        results.append([Hit(row.ids[i], row.texts[i], edits[i], row.dense[i], row.lexical[i], part[i]) for i in order])
        start += len(row)
    return results


def by_meaning(found: Sequence[Proposals], k: int) -> list[list[Hit]]:
    """Rank sentences by reciprocal rank fusion of the dense and the lexical search, then by id.

    References
    ----------
    Cormack, Clarke and Büttcher, Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods,
    SIGIR 2009.
    """
    results: list[list[Hit]] = []
    for row in found:
        scores = dict.fromkeys(row.ids, 0.0)
        for values in (row.dense, row.lexical):
            ranked = sorted(
                (-score, number) for score, number in zip(values, row.ids, strict=True) if score is not None
            )
            for rank, (_, number) in enumerate(ranked, 1):
                scores[number] += 1 / (RANK_CONSTANT + rank)
        best = sorted(range(len(row)), key=lambda i: (-scores[row.ids[i]], row.ids[i]))[:k]
        results.append(
            [Hit(row.ids[i], row.texts[i], 0.0, row.dense[i], row.lexical[i], scores[row.ids[i]]) for i in best]
        )
    return results
