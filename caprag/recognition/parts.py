"""Captions that are read part by part: rows, and pieces of a row that stand apart.

What joins the readings of the parts to one of the caption, and what of a caption's text belongs to which part.
A part is one line of type. Knows nothing of models, and not where in a picture the parts are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from rapidfuzz.distance import Levenshtein

from caprag.types import Hypothesis


@dataclass(frozen=True, slots=True)
class Part:
    """What is read in one go.

    Attributes
    ----------
    image
        RGB.
    separator
        What joins its reading to that of the part before: a line break where a row begins, a space within a row.
    """

    image: Image.Image
    separator: str = "\n"


def one_line(text: str) -> str:
    """Write a text in one line, a space for each line break; empty lines and outer white space are dropped."""
    return " ".join(_lines(text))


def combine(
    readings: Sequence[Sequence[Hypothesis]], separators: Sequence[str], n_best: int, form: Callable[[str], str]
) -> list[Hypothesis]:
    r"""Join the readings of a caption's parts to readings of the caption.

    Parameters
    ----------
    readings
        Those of each part, at least one each.
    separators
        Of each part; that of the first part, and those beside an empty reading, are not written.
    n_best
        At most this many, >= 1.
    form
        Of texts that it makes equal the likeliest alone is kept.

    Returns
    -------
    list of Hypothesis
        The likeliest combinations, best first, log-probabilities added; the empty reading, with 0.0, of no parts.

    Examples
    --------
    >>> rows = [[Hypothesis("早", -0.1), Hypothesis("旱", -2.5)], [Hypothesis("安", -0.2), Hypothesis("", -2.0)]]
    >>> [(found.text, round(found.logprob, 1)) for found in combine(rows, "\n\n", 3, str.lower)]
    [('早\n安', -0.3), ('早', -2.1), ('旱\n安', -2.7)]
    """
    joined = [Hypothesis("", 0.0)]
    for several, separator in zip(readings, separators, strict=True):
        combined = [
            Hypothesis(
                before.text + (separator if before.text and after.text else "") + after.text,
                before.logprob + after.logprob,
            )
            for before, after in itertools.product(joined, several)
        ]
        distinct: dict[str, Hypothesis] = {}
        for hypothesis in sorted(combined, key=lambda hypothesis: -hypothesis.logprob):
            distinct.setdefault(form(hypothesis.text), hypothesis)
        joined = list(distinct.values())[:n_best]
    return joined


def split_text(text: str, separators: Sequence[str], readings: Callable[[], Sequence[str]]) -> list[str]:
    r"""Say what of a text belongs to which part of a caption.

    Parameters
    ----------
    text
        Of the whole caption.
    separators
        Of each part, at least one.
    readings
        Gives what each part reads like; asked only where the lines of the text do not tell.

    Returns
    -------
    list of str
        One piece a part, in one line each, without outer white space. A text of as many lines as parts, or as rows,
        is split at its line breaks; what is still to share out is cut where the pieces are nearest to the readings
        by the sum of their edit distances, at white space where several cuts are as near.

    Examples
    --------
    >>> split_text("早\n安", "\n\n", list)
    ['早', '安']
    >>> split_text("你要去哪裡我要回家", "\n ", lambda: ["你要去那裡", "我要回家"])
    ['你要去哪裡', '我要回家']
    """
    lines, count = _lines(text), len(separators)
    if len(lines) == count:
        return lines
    starts = [place for place, separator in enumerate(separators) if separator == "\n" or not place]
    if len(lines) != len(starts):
        lines, starts = [" ".join(lines)], [0]
    pieces: list[str] = []
    for line, start, end in zip(lines, starts, [*starts[1:], count], strict=True):
        pieces += [line] if end == start + 1 else _nearest(line, readings()[start:end])
    return pieces


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if line]


def _nearest(line: str, readings: Sequence[str]) -> tuple[str, ...]:
    """Cut a line into pieces that are nearest to the readings."""
    # For each place where the pieces so far may end: their distance, how many cuts are inside a word, and the pieces.
    best: dict[int, tuple[int, int, tuple[str, ...]]] = {0: (0, 0, ())}
    for number, reading in enumerate(readings, 1):
        ends = range(len(line) + 1) if number < len(readings) else [len(line)]
        best = {
            end: min(
                (
                    distance + Levenshtein.distance(piece := line[start:end].strip(), reading),
                    inside + _is_inside(line, end),
                    (*pieces, piece),
                )
                for start, (distance, inside, pieces) in best.items()
                if start <= end
            )
            for end in ends
        }
    return best[len(line)][2]


def _is_inside(line: str, place: int) -> bool:
    return 0 < place < len(line) and not any(map(str.isspace, line[place - 1 : place + 1]))
