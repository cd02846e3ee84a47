"""Which candidates are no negatives: those that say the same as a positive, or that can't be told from it.

For snapping, sentences that are near in edits are just the negatives that are wanted: 快餐吃什麼 is a good one for
午餐吃什麼. Only what is equal but for its form, and a short list of characters that are written one for the other,
counts as the same. It knows texts and scores, not where they come from.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, get_args

from rapidfuzz.distance import Levenshtein

from caprag.text import match_form, normalize

Reason = Literal[
    "the same text", "the same but for signs or case", "a variant", "the same meaning, one edit apart",
    "equal to the query", "above the margin", "twice among the negatives", "no text",
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)

_EXCHANGEABLE = ("的得地", "啊呀阿", "喔哦噢", "啦喇", "吧罷", "你妳", "做作")
_LAST_PARTICLES = "啊呀阿喔哦噢啦喇耶欸誒"


class Guard:
    """Judges the candidates of one pair.

    Parameters
    ----------
    query
        The reading.
    positives
        What it stands for, one or more.
    ceiling
        Highest score of a negative; ``None`` allows any.
    """

    def __init__(self, query: str, positives: Sequence[str], ceiling: float | None = None) -> None:
        self._texts = {normalize(text) for text in positives}
        self._plain = {match_form(text, variants=False) for text in positives}
        self._forms = sorted({match_form(text) for text in positives})
        self._query = match_form(query)
        self._ceiling = ceiling
        self._taken: set[str] = set()

    def check(self, candidate: str, score: float | None = None) -> Reason | None:
        """Say why a candidate is no negative, ``None`` where it is one.

        Parameters
        ----------
        candidate
            A sentence.
        score
            Its score for the query, on the scale of the ceiling; ``None`` where there is none.

        Examples
        --------
        >>> guard = Guard("午餐吃什磨", ["午餐吃什麼"])
        >>> guard.check("午餐吃什么?"), guard.check("午餐吃什麼啊"), guard.check("快餐吃什麼")
        ('a variant', 'the same meaning, one edit apart', None)
        """
        form = match_form(candidate)
        reason: Reason | None = None
        if not form:
            reason = "no text"
        elif normalize(candidate) in self._texts:
            reason = "the same text"
        elif match_form(candidate, variants=False) in self._plain:
            reason = "the same but for signs or case"
        elif form in self._forms:
            reason = "a variant"
        elif any(same_meaning(form, positive) for positive in self._forms):
            reason = "the same meaning, one edit apart"
        elif form == self._query:
            reason = "equal to the query"
        elif form in self._taken:
            reason = "twice among the negatives"
        elif score is not None and self._ceiling is not None and score > self._ceiling:
            reason = "above the margin"
        return reason

    def take(self, candidate: str) -> None:
        """Note a candidate as chosen."""
        self._taken.add(match_form(candidate))


def same_meaning(a: str, b: str) -> bool:
    """Say whether two matching forms are one edit apart and surely mean the same.

    That is, the edit exchanges two characters that are written one for the other (的 得 地, 啊 呀 阿, 喔 哦 噢, 啦 喇,
    吧 罷, 你 妳, 做 作), or one has an exclamation more at its end (啊 呀 喔 啦 耶 欸 ...). Question words such as 嗎
    and 呢, and all other characters, make another sentence.

    Examples
    --------
    >>> same_meaning("跑的快", "跑得快"), same_meaning("好啊", "好"), same_meaning("来吗", "来")
    (True, True, False)
    """
    if Levenshtein.distance(a, b, score_cutoff=1) != 1:
        return False
    table, particles = _tables()
    if len(a) == len(b):
        return a.translate(table) == b.translate(table)
    longer, shorter = (a, b) if len(a) > len(b) else (b, a)
    return longer[:-1] == shorter and longer[-1] in particles


@functools.cache
def _tables() -> tuple[dict[int, str], frozenset[str]]:
    """Return what each exchangeable character is read as, and the exclamations, in the matching form."""
    groups = ["".join(dict.fromkeys(match_form(group))) for group in _EXCHANGEABLE]
    return {ord(c): group[0] for group in groups for c in group}, frozenset(match_form(_LAST_PARTICLES))
