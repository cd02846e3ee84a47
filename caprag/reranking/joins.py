"""Sentences as captions have them: two in one caption, or one over two captions.

Two sentences that stand one behind the other in their file are a hit of their own, where a reading is clearly nearer to
both together than to any sentence alone; and so are the halves of a sentence, for two captions that together are
clearly nearer to it than each is to any. How likely such a hit is, is decided as for any other. Knows texts, no places.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from rapidfuzz.distance import Levenshtein

from caprag.reranking.marks import aligned_place, lettered
from caprag.reranking.reranker import Found
from caprag.text import countable, match_form, normalize
from caprag.types import Hit

Allows = Callable[[str, str], bool]
"""Says whether a reading may have an answer."""

_NEAR = 0.34
"""Edits a character up to which a reading may be two sentences, or two readings one."""
_CLEARLY = 2
"""Edits that it must be nearer by than a sentence alone is."""
_FEWEST = 2
"""Letters and digits of a half."""
_ROUNDING = 1e-6
"""What a similarity that is told as a share of the length may lack."""
_MOST = 3
"""Hits of either kind for a caption."""


def joined(
    reading: str, hits: Sequence[Hit], pairs: Mapping[tuple[int, int], tuple[str, str]],
    form_of: Callable[[str], str] = match_form,
) -> list[Hit]:  # fmt: skip
    """Return the pairs of sentences that a reading may be, the nearest first.

    Parameters
    ----------
    reading
        What was read.
    hits
        What retrieval found for it.
    pairs
        Ids and texts of sentences that stand one behind the other in their file.
    form_of
        Returns `caprag.text.match_form` of the sentences; where many are asked for it may know them.

    Returns
    -------
    list of Hit
        Three at most. The text is both sentences with what stands between them in the reading; `id` is of the first,
        and `behind` of the second.

    Examples
    --------
    >>> hits = [Hit(3, "電影開始了", 0.6), Hit(4, "快關燈", 0.4)]
    >>> [hit.text for hit in joined("電影開姶了—快闗燈", hits, {(3, 4): ("電影開始了", "快關燈")})]
    ['電影開始了—快關燈']
    """
    if not may_join(reading, hits):
        return []
    read = match_form(reading)
    fewest = _edits_alone(read, hits, form_of)
    found = []
    for (first, second), texts in pairs.items():
        one, two = map(form_of, texts)
        # A word of one letter can't make more than one edit less.
        limit = min(int(_NEAR * len(read)), fewest - min(_CLEARLY, len(one), len(two)))
        if not one or not two or limit < 0:
            continue
        edits = Levenshtein.distance(read, one + two, score_cutoff=limit)
        if edits <= limit:
            found.append((edits, first, second))
    known = {hit.id: hit for hit in hits}
    joins = []
    for _, first, second in sorted(found)[:_MOST]:
        one, two = pairs[first, second]
        scored = [known[number] for number in (first, second) if number in known]
        hit = replace(max(scored, key=lambda hit: hit.dense or 0.0), id=first, behind=second)
        joins.append(_shown(hit, f"{one}{_between(reading, one, two)}{two}", read))
    return joins


def may_join(reading: str, hits: Sequence[Hit]) -> bool:
    """Say whether a reading may be two sentences: at once, and never wrongly that it may not."""
    return _least_edits(reading, hits) > 1 - _ROUNDING


def _least_edits(reading: str, hits: Sequence[Hit]) -> float:
    """Return the edits to the nearest sentence, or a little more, since marks count in the length."""
    return min(((1 - hit.edit) * max(len(reading), len(hit.text)) for hit in hits), default=len(reading))


def _edits_alone(read: str, hits: Sequence[Hit], form_of: Callable[[str], str] = match_form) -> int:
    """Return the edits from a matching form to the nearest sentence."""
    return min((Levenshtein.distance(read, form_of(hit.text)) for hit in hits), default=len(read))


def with_halves(found: Sequence[Found], allows: Allows) -> list[Found]:
    """Add to what is known of captions in their order the halves of sentences that two of them may be together.

    Parameters
    ----------
    found
        Of each caption; captions in a row that read alike are one.
    allows
        Says whether a reading may have an answer.
    """
    groups = [list(rows) for _, rows in itertools.groupby(found, key=lambda one: match_form(one.hypotheses[0].text))]
    further: list[list[Hit]] = [[] for _ in groups]
    for place, (one, two) in enumerate(itertools.pairwise(groups)):
        halves = halved(one[0].hypotheses[0].text, one[0].hits, two[0].hypotheses[0].text, two[0].hits, allows)
        further[place] += [first for first, _ in halves]
        further[place + 1] += [second for _, second in halves]
    return [
        replace(one, hits=(*hits, *one.hits)) if hits else one
        for rows, hits in zip(groups, further, strict=True) for one in rows
    ]  # fmt: skip


def halved(
    read: str, hits: Sequence[Hit], behind: str, hits_behind: Sequence[Hit], allows: Allows
) -> list[tuple[Hit, Hit]]:
    """Return the sentences that two captions may be together, cut as they are, the nearest first.

    Parameters
    ----------
    read, behind
        What was read in a caption and in the next one.
    hits, hits_behind
        What retrieval found for them.
    allows
        Says whether a reading may have an answer.

    Examples
    --------
    >>> hits = [Hit(3, "他從來沒有去過那裡", 0.4)]
    >>> for one, two in halved("他從來沒", hits, "冇去過那裡", [], lambda _reading, _answer: True):
    ...     print(one.text, two.text)
    他從來沒 有去過那裡
    """
    if _least_edits(read, hits) + _least_edits(behind, hits_behind) < _CLEARLY - _ROUNDING:
        return []
    one, two = match_form(read), match_form(behind)
    if min(len(one), len(two)) < _FEWEST or one == two:
        return []
    limit = int(_NEAR * len(one + two))
    # Most are too short by far; a matching form is never longer than its text.
    long = {
        hit.id: hit for hit in (*hits, *hits_behind) if hit.behind is None and len(hit.text) >= len(one + two) - limit
    }
    if not long:
        return []
    limit = min(limit, _edits_alone(one, hits) + _edits_alone(two, hits_behind) - _CLEARLY)
    found = []
    for hit in long.values() if limit >= 0 else ():
        edits = Levenshtein.distance(one + two, match_form(hit.text), score_cutoff=limit)
        parts = _cut(hit.text, countable(read), countable(behind)) if edits <= limit else None
        if parts is not None and allows(read, parts[0]) and allows(behind, parts[1]):
            found.append((edits, hit.id, hit, parts))
    nearest = sorted(found, key=lambda row: row[:2])[:_MOST]
    return [(_shown(hit, parts[0], one), _shown(hit, parts[1], two)) for _, _, hit, parts in nearest]


def _shown(hit: Hit, text: str, read: str) -> Hit:
    """Return a hit with what of it a caption shows; other scores stay those of the sentence."""
    return replace(hit, text=text, edit=Levenshtein.normalized_similarity(read, match_form(text)))


def _between(reading: str, first: str, second: str) -> str:
    """Return what stands in a reading where one sentence ends and the next begins; a space where nothing does."""
    text = normalize(reading)
    places, letters = lettered(text)
    cut = aligned_place(countable(first) + countable(second), letters, len(countable(first)))
    between = text[places[cut - 1] + 1 : places[cut]] if 0 < cut < len(places) else ""
    # Marks that the sentences have themselves are not said twice.
    if not countable(first[-1]) or not countable(second[0]):
        between = "".join(character for character in between if character.isspace() or character == "-")
    return between or " "


def _cut(sentence: str, read: str, behind: str) -> tuple[str, str] | None:
    """Cut a sentence as two captions do, ``None`` where one of them would have nothing of it."""
    places, letters = lettered(sentence)
    # The cut that leaves the fewest edits; of several the one nearest to where the first caption ends.
    costs = [
        (Levenshtein.distance(read, letters[:size]) + Levenshtein.distance(behind, letters[size:]),
         abs(size - len(read)), size)
        for size in range(1, len(letters))
    ]  # fmt: skip
    if not costs:
        return None
    size = min(costs)[2]
    # Marks belong to what stands before them.
    return sentence[: places[size]].rstrip(), sentence[places[size] :]


__all__ = ["Allows", "halved", "joined", "may_join", "with_halves"]
