"""What became of each character of a true line in a reading: alignment, and the events that it shows.

Look-alikes are aligned with each other rather than with strangers. It knows nothing of probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from caprag.glyphs import GlyphTable
from caprag.noise.tables import ELLIPSIS

_ELLIPSES = re.compile(r"[.·・⋯…]{2,}|[⋯…]")
# Costs are whole numbers, so that equal ones are equal in whatever order they are added up.
_LETTER, _SIGN, _SIGN_FOR_SPACE, _LETTER_FOR_SIGN = 1000, 700, 900, 1300
_LEAST_SWAP = 600


@dataclass(slots=True)
class Fate:
    """What became of one character of the truth, and what stands before it in the reading.

    Attributes
    ----------
    truth
        A character; `ELLIPSIS` for any run of dots; empty for the end of the line.
    read
        What was read for it; empty where it was dropped.
    before
        What was read before it and stands for nothing.
    """

    truth: str
    read: str = ""
    before: list[str] = field(default_factory=list)


def units(text: str) -> list[str]:
    """Cut a text into characters, a run of dots in one piece.

    Examples
    --------
    >>> units("好..嗎…")
    ['好', '..', '嗎', '…']
    """
    found: list[str] = []
    start = 0
    for match in _ELLIPSES.finditer(text):
        found += [*text[start : match.start()], match[0]]
        start = match.end()
    return found + list(text[start:])


def align(truth: str, reading: str) -> list[Fate]:
    """Align a reading with its truth.

    Returns
    -------
    list of Fate
        One for each unit of the truth, and one for its end; together they spell the reading.

    References
    ----------
    Wagner and Fischer, The String-to-String Correction Problem, JACM 21(1), 1974.

    Examples
    --------
    >>> [(fate.truth, fate.read, "".join(fate.before)) for fate in align("快點,月亮", "快占,月 月亮")]
    [('快', '快', ''), ('點', '占', ''), (',', ',', ''), ('月', '月', '月 '), ('亮', '亮', ''), ('', '', '')]
    """
    whole, pieces = units(truth), units(reading)
    a = [ELLIPSIS if len(c) > 1 or c == "…" else c for c in whole]
    b = [ELLIPSIS if len(c) > 1 or c == "…" else c for c in pieces]
    swaps = _swaps(a, b)
    drops = [_LETTER if c.isalnum() else _SIGN for c in a]
    puts = [_LETTER if c.isalnum() else _SIGN for c in b]
    rows = [[0]]
    for put in puts:
        rows[0].append(rows[0][-1] + put)
    for i, drop in enumerate(drops):
        above, row = rows[-1], [rows[-1][0] + drop]
        for j, put in enumerate(puts):
            row.append(min(above[j] + swaps[i][j], above[j + 1] + drop, row[j] + put))
        rows.append(row)
    fates = [Fate(c) for c in [*a, ""]]
    i, j = len(a), len(b)
    while i or j:
        here = rows[i][j]
        if i and j and here == rows[i - 1][j - 1] + swaps[i - 1][j - 1]:
            i, j = i - 1, j - 1
            fates[i].read = pieces[j]
        elif j and here == rows[i][j - 1] + puts[j - 1]:
            j -= 1
            fates[i].before.insert(0, pieces[j])
        else:
            i -= 1
    return fates


def _swaps(a: Sequence[str], b: Sequence[str]) -> list[list[int]]:
    unlike = GlyphTable.load().substitutions("".join(a), "".join(b)).tolist()
    return [
        [
            0 if c == d
            else round(_LEAST_SWAP + (_LETTER - _LEAST_SWAP) * unlike[i][j]) if c.isalnum() and d.isalnum()
            else _LETTER_FOR_SIGN if c.isalnum() or d.isalnum()
            else _SIGN_FOR_SPACE if c.isspace() != d.isspace()
            else _SIGN
            for j, d in enumerate(b)
        ]
        for i, c in enumerate(a)
    ]  # fmt: skip
