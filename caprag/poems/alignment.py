"""Which part of a translation belongs to which verse, by order and length alone.

Where a translation has as many sentences as there are verses, they belong together one by one. Elsewhere the cheapest
way through both is taken, by the lengths of what is put together. Knows nothing of words.

References
----------
Gale and Church, A program for aligning sentences in bilingual corpora, Computational Linguistics 19(1), 1993: the
cost of a match, its variance (6.8 a character) and the probabilities of the kinds of matches.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from caprag.text import countable

_SENTENCE = re.compile('[^。！？；!?;…]*(?:[。！？；!?;…]+[」』”’"）)]*|$)')
_CLAUSE = re.compile('[^，、：,:。！？；!?;…]*(?:[，、：,:。！？；!?;…]+[」』”’"）)]*|$)')
_VARIANCE = 6.8
# Verses and translated sentences that are put together, and how often that is so. The paper gives one and none, and
# one and two, together with their mirror images.
_KINDS = {
    (1, 1): 0.89, (1, 0): 0.0099 / 2, (0, 1): 0.0099 / 2, (1, 2): 0.089 / 2, (2, 1): 0.089 / 2, (2, 2): 0.011,
}  # fmt: skip
_LEAST = 1e-300  # a probability whose logarithm is still a number


def split_sentences(text: str) -> list[str]:
    """Cut a text behind its sentence ends (。！？；…), marks kept.

    Examples
    --------
    >>> split_sentences("天亮了；「走吧！」他說。")
    ['天亮了；', '「走吧！」', '他說。']
    """
    return _pieces(_SENTENCE, text)


def split_clauses(text: str) -> list[str]:
    """Cut a text behind its sentence ends and commas (，、：), marks kept.

    Examples
    --------
    >>> split_clauses("床前明月光,疑是地上霜。")
    ['床前明月光,', '疑是地上霜。']
    """
    return _pieces(_CLAUSE, text)


def _pieces(pattern: re.Pattern[str], text: str) -> list[str]:
    return [piece for found in pattern.findall(text) if countable(piece := found.strip())]


def align_translation(verses: Sequence[str], translation: str) -> list[str]:
    """Find for each verse the part of a translation that belongs to it.

    The translation is cut into sentences, or where these are fewer than the verses into clauses.

    Parameters
    ----------
    verses
        In order.
    translation
        Of all of them, in the same order.

    Returns
    -------
    list of str
        As many as verses; empty for a verse that was left without. Two verses that are translated by one sentence both
        get it.

    Examples
    --------
    >>> align_translation(["床前明月光", "疑是地上霜"], "床前灑滿了月光。好像地上結了霜。")
    ['床前灑滿了月光。', '好像地上結了霜。']
    """
    parts = split_sentences(translation)
    if len(parts) < len(verses):
        parts = split_clauses(translation)
    if len(parts) == len(verses):
        return parts
    found = [""] * len(verses)
    for (first, end), (start, stop) in align_lengths([_length(v) for v in verses], [_length(p) for p in parts]):
        for place in range(first, end):
            found[place] = "".join(parts[start:stop])
    return found


def _length(text: str) -> int:
    return len(countable(text))


def align_lengths(left: Sequence[int], right: Sequence[int]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Find the most probable way to put two rows of pieces together, given their lengths.

    Parameters
    ----------
    left, right
        Lengths in characters, each >= 1.

    Returns
    -------
    list of ((int, int), (int, int))
        Matches in order: the half-open span on the left and the one on the right. All pieces are in one of them; an
        empty span stands for nothing.
    """
    ratio = sum(right) / sum(left) if left and right else 1.0
    best: dict[tuple[int, int], tuple[float, tuple[int, int]]] = {(0, 0): (0.0, (0, 0))}
    for i in range(len(left) + 1):
        for j in range(len(right) + 1):
            for kind in _KINDS:
                before = (i - kind[0], j - kind[1])
                if before in best:
                    cost = best[before][0] + match_cost(
                        sum(left[before[0] : i]), sum(right[before[1] : j]), ratio, kind
                    )
                    if (i, j) not in best or cost < best[i, j][0]:
                        best[i, j] = (cost, before)
    matches = []
    place = (len(left), len(right))
    while place != (0, 0):
        before = best[place][1]
        matches.append(((before[0], place[0]), (before[1], place[1])))
        place = before
    return matches[::-1]


def match_cost(left: int, right: int, ratio: float, kind: tuple[int, int]) -> float:
    """Return minus the logarithm of the probability that two texts of these lengths belong together, >= 0.

    Parameters
    ----------
    left, right
        Lengths in characters, >= 0.
    ratio
        Characters on the right for one on the left, > 0.
    kind
        How many pieces are put together: one of (1, 1), (1, 0), (0, 1), (1, 2), (2, 1), (2, 2).
    """
    mean = (left + right / ratio) / 2
    deviation = abs(right - left * ratio) / math.sqrt(max(mean, 1) * _VARIANCE)
    # Twice the tail of the normal distribution.
    tail = math.erfc(deviation / math.sqrt(2))
    return -math.log(max(tail, _LEAST)) - math.log(_KINDS[kind])
