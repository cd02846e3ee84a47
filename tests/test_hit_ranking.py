"""The order of hits: features against their formulas one by one, and what no weights may change."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from caprag.glyphs import GlyphTable
from caprag.retrieval import ranking
from caprag.retrieval.ranking import FEATURES, Proposals, by_meaning, by_reading, features
from caprag.text import match_form

GENERATOR = random.Random(0)
WORDS = "睛晴己已勒嘞你妳我他在是不了未末開閒玩笑真實發生變化a1，"


def text() -> str:
    return "".join(GENERATOR.choices(WORDS, k=GENERATOR.randint(1, 9))) + "好"


class Row(NamedTuple):
    """A sentence that is proposed."""

    id: int
    text: str
    form: str
    dense: float | None
    lexical: float | None


def candidate(number: int, written: str, dense: float | None = None, lexical: float | None = None) -> Row:
    return Row(number, written, match_form(written), dense, lexical)


def columns(rows: Sequence[Row]) -> Proposals:
    ids, texts, forms, dense, lexical = zip(*rows, strict=True) if rows else ((),) * 5
    return Proposals(ids, texts, forms, dense, lexical)


def maybe(most: float) -> float | None:
    return GENERATOR.choice([None, GENERATOR.random() * most])


ROWS = [
    [candidate(i, text(), maybe(1.0), maybe(9.0)) for i in range(GENERATOR.choice([0, 1, 5, 40]))] for _ in range(30)
]
FOUND = [columns(rows) for rows in ROWS]
QUERIES = [text() for _ in FOUND]


def test_features_are_their_formulas() -> None:
    table = features(QUERIES, FOUND)
    assert table.shape == (sum(map(len, FOUND)), len(FEATURES))
    glyphs, row = GlyphTable.load(), 0
    for query, found in zip(QUERIES, ROWS, strict=True):
        dense = [c.dense for c in found if c.dense is not None]
        lexical = [c.lexical for c in found if c.lexical is not None]
        for c in found:
            form = match_form(query)
            assert table[row, 0] == pytest.approx(Levenshtein.normalized_similarity(form, c.form))
            # Looks are compared for the best candidates alone; the others have the edits, which is what it is at least.
            for column, one, other in ((1, query, c.text), (2, form, c.form)):
                alike = 1 - glyphs.distance(one, other) / max(len(one), len(other))
                edits = pytest.approx(Levenshtein.normalized_similarity(one, other))
                assert table[row, column] == pytest.approx(alike, abs=1e-5) or (
                    len(found) > 16 and table[row, column] == edits
                )
            assert table[row, 3] == pytest.approx(c.dense if c.dense is not None else min(dense, default=0.0))
            bm25 = c.lexical if c.lexical is not None else min(lexical, default=0.0)
            assert table[row, 4] == pytest.approx(bm25 / max(lexical) if lexical else 0.0)
            row += 1


def test_a_query_s_hits_do_not_depend_on_the_others() -> None:
    together = by_reading(QUERIES, FOUND, 5)
    for query, found, hits in zip(QUERIES, FOUND, together, strict=True):
        (alone,) = by_reading([query], [found], 5)
        assert [hit.id for hit in hits] == [hit.id for hit in alone]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-4)


def test_best_first_and_at_most_k() -> None:
    for found, hits in zip(FOUND, by_reading(QUERIES, FOUND, 7), strict=True):
        assert len(hits) == min(7, len(found))
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_the_order_of_candidates_changes_nothing() -> None:
    back = [columns(rows[::-1]) for rows in ROWS]
    assert by_reading(QUERIES, FOUND, 9) == by_reading(QUERIES, back, 9)
    assert by_meaning(FOUND, 9) == by_meaning(back, 9)


def test_the_very_text_comes_first_whatever_speaks_for_another() -> None:
    same = candidate(7, "你在閒玩笑嗎", None, None)
    other = candidate(3, "你在開玩笑嗎", 1.0, 50.0)
    (hits,) = by_reading(["你在閒玩笑嗎?"], [columns([other, same])], 2)
    assert [hit.id for hit in hits] == [7, 3]


def test_look_alikes_come_before_others() -> None:
    """One character is wrong in either; 睛 looks like 晴, and nothing like 一."""
    (hits,) = by_reading(["今天睛天"], [columns([candidate(0, "今天一天"), candidate(1, "今天晴天")])], 2)
    assert [hit.id for hit in hits] == [1, 0]


def test_nothing_found() -> None:
    assert by_reading(["好", "你"], [columns([])] * 2, 3) == [[], []]
    assert by_reading([], [], 3) == by_meaning([], 3) == []


def test_meaning_is_reciprocal_rank_fusion() -> None:
    """Cormack, Clarke and Büttcher's formula, by hand: 1/61 + 1/62, 1/61 + 1/62, 1/63."""
    row = [candidate(0, "一", 0.9, 3.0), candidate(1, "二", 0.8, 5.0), candidate(2, "三", 0.1, None)]
    (hits,) = by_meaning([columns(row)], 3)
    assert [hit.id for hit in hits] == [0, 1, 2]
    assert [hit.score for hit in hits] == pytest.approx([1 / 61 + 1 / 62, 1 / 62 + 1 / 61, 1 / 63])


def test_every_feature_has_a_weight() -> None:
    assert ranking.weights().shape == (len(FEATURES),)
    assert np.isfinite(ranking.weights()).all()
    # More of any of them never speaks against a sentence.
    assert (ranking.weights() >= 0).all()
