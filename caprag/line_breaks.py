"""Where a line of text may end: the one rule of corpora that are cut and of captions that are wrapped."""

from __future__ import annotations

import re
import unicodedata

CLOSING = frozenset(
    "。｡！？!?…⋯；;，,、､：:.．)）]］}｝」』】》〉〕〗”’\"'%％‰°℃～~—─-–·‧ー々ゝゞヽヾっゃゅょッャュョ♪♥"
)
"""No line begins with one of these."""

OPENING = frozenset("(（[［{｛「『【《〈〔〖“‘#＃$＄¥￥€£@＠")
"""No line ends with one of these."""

WORD = (
    "0-9A-Za-z０-９Ａ-Ｚａ-ｚ\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"
    "\u0370-\u03ff\u0400-\u052f\u1e00-\u1fff"
)
"""Letters of Latin, Greek and Cyrillic, and digits, as a regular expression's class has them."""

_IN_WORD = re.compile(f"[{WORD}]")


def may_break(text: str, place: int) -> bool:
    """Say whether a line may end before the character at a place.

    Parameters
    ----------
    text
        One line.
    place
        From 1 to the text's length less 1.

    Returns
    -------
    bool
        False within a Latin word or a number, before a mark that closes, after one that opens, and before an accent.

    Examples
    --------
    >>> text = "用iPad看，好"
    >>> [text[:place] for place in range(1, len(text)) if may_break(text, place)]
    ['用', '用iPad', '用iPad看，']
    """
    before, after = text[place - 1], text[place]
    if after.isspace() or before.isspace():
        return True
    if after in CLOSING or before in OPENING or unicodedata.category(after)[0] == "M":
        return False
    if not _IN_WORD.match(after):
        return True
    if _IN_WORD.match(before):
        return False
    # 3.14, 1,000, 12:30, don't, e-mail: a mark between letters or digits joins them.
    if place < 2 or not _IN_WORD.match(text[place - 2]):
        return True
    if before in ",:":
        return not (after.isdigit() and text[place - 2].isdigit())
    return before not in ".'’-–_/@&+~"
