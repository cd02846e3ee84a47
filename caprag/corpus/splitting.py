"""Cuts a text into pieces of caption length.

The cuts are made where those who make subtitles make them: always at the ends of sentences; in a sentence that is too
long at commas; in a clause that is still too long at connectives; and only then wherever the length runs out. A
character counts one, whether it is East Asian, Latin, a digit, a mark or a space: a Latin letter is half as wide, so
that a piece may be narrower than its length says but is never wider.

Knows nothing of words: what is neither in the table of connectives nor written in Latin, Greek or Cyrillic letters or
digits may be cut anywhere.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from typing import Literal, get_args

from caprag.line_breaks import WORD, may_break

ConnectiveSide = Literal["after", "before"]
"""On which side of a connective a clause is cut."""

DROPPED_AT_ENDS = " \t\u3000,，、､;；:：。｡"
"""What a caption does not show at its ends; other marks (?!…~) stay."""

_LINE = re.compile(r"[\n\r]+")
_ALL_ENDS = re.compile(r"[。｡！？!?…⋯；;.]")
# These begin with the one class of characters that they can begin with, which makes the search fast.
# A run of ends, with the brackets and quotes that it closes. Within a Latin word (an address) there is no end.
_CLOSED = '[)）\\]］」』】》〉”’"]*'
_CJK = "\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_LATIN = "A-Za-z\u00c0-\u024f"
_ABBREVIATIONS = (
    "mr mrs ms dr st jr sr vs etc prof rev hon gen col capt lt sgt inc ltd co corp dept univ assoc cf al ca approx est "
    "tel ext ave blvd rd mt ft jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri"
)
# A full stop after a Latin word, before a capital, before East Asian text or at the end. Not in 3.14, a.m. or U.S.
_FULL_STOP = (
    rf"(?<=[{_LATIN}]{{2}}\.)(?={_CLOSED}(?:\s+[A-Z\u00c0-\u00de(\[\"'“‘]|\s*(?:[{_CJK}「『《(【]|$)))"
    + "".join(rf"(?<!(?<![{_LATIN}])(?i:{word})\.)" for word in _ABBREVIATIONS.split())
)
_SENTENCE_END = re.compile(
    rf"[。｡！？…⋯；.!?;](?:(?<=[。｡！？…⋯；])|(?<=\.)\.+|{_FULL_STOP}|(?<=[!?;])(?:(?<![{WORD}].)|(?![{WORD}])))"
    rf"(?:[。｡！？!?…⋯；;~～]|\.{{2,}})*{_CLOSED}"
)
# Not 1,000, 12:30 or https://. A space between two East Asian characters stands for a comma.
_PAUSE = re.compile(
    rf"[，、､：,: \u3000](?:(?<=[，、､：])|(?<=,)(?:(?<!\d,)|(?!\d))|(?<=:)(?:(?<!\d:)|(?!\d))(?!/)"
    rf"|(?<=[{_CJK}][ \u3000])[ \u3000]*(?=[{_CJK}]))(?:[，、､：,]|:(?![\d/]))*{_CLOSED}"
)
# Each in its Traditional, Hong Kong and Simplified spellings. A single character is one only outside the words that
# hold it: 並非, 合並, 而已, 反而 are no connectives.
_CONNECTIVE = re.compile(
    "但是|(?<![只再])不[過过]|然而|[雖虽]然|因[為爲为]|所以|[並并竝]且|而且|或者"
    "|(?<![合一])[並并竝](?![且非不未無无沒没存列肩行排進进])"
    "|(?<![然反從从因進进甚時时故幸])而(?![且已言是非])"
)


def split_caption(
    text: str, max_chars: int = 15, min_chars: int = 5, *, connectives: ConnectiveSide = "after"
) -> list[str]:
    """Cut a text into pieces of caption length.

    The text is cut at every line break and sentence end (。！？…；, a run of dots, the full stop of a Latin sentence).
    A piece that is longer than `max_chars` is cut at every comma (，、： and a space between East Asian characters),
    one that is still longer at as few connectives (但是 不過 然而 雖然 因為 所以 並且 而且 或者 並 而) as will
    do, and one that is still longer wherever `max_chars` is reached: not inside a word or number (``don't``,
    ``3.14``, ``1,000``), not before a closing mark, not after an opening one. The last three leave nothing shorter than
    `min_chars` where that can be helped: a short clause stays with its neighbour, a hard cut moves to the left.

    Parameters
    ----------
    text
        Any string. The written form (`caprag.text.normalize`) is expected; full-width marks are known too.
    max_chars
        Most characters in a piece, >= 1; every character counts one.
    min_chars
        Least characters that a cut within a sentence should leave, >= 1. Shorter sentences are pieces all the same.
    connectives
        Cut ``"after"`` the connective, or ``"before"`` it, as style guides for subtitles ask.

    Returns
    -------
    list of str
        Pieces in order, none empty, without `DROPPED_AT_ENDS` at either end. Joined they are the text less such
        characters and white space. A piece longer than `max_chars` is one word with its marks that can't be cut.

    Raises
    ------
    ValueError
        For a length below 1 or an unknown side.

    Examples
    --------
    >>> split_caption("今天天氣真的非常好，我們一起去公園玩吧！好啊。")
    ['今天天氣真的非常好', '我們一起去公園玩吧！', '好啊']
    >>> split_caption("圓周率是3.14159265358979喔", 8, 2)
    ['圓周率是', '3.14159265358979', '喔']
    """
    if max_chars < 1 or min_chars < 1:
        raise ValueError(f"max_chars is {max_chars} and min_chars is {min_chars}; both must be 1 or more")
    if connectives not in get_args(ConnectiveSide):
        raise ValueError(f"connectives is {connectives!r}; known are {', '.join(get_args(ConnectiveSide))}")
    return [
        piece
        for line in _LINE.split(text)
        for piece in split_line(line, max_chars, min(min_chars, max_chars), connectives)
    ]


def split_line(line: str, max_chars: int, min_chars: int, connectives: ConnectiveSide) -> list[str]:
    """Cut a text without line breaks; see `split_caption`. The arguments are not checked."""
    if len(line) <= max_chars and not _ALL_ENDS.search(line):
        piece = _trim(line)
        return [piece] if piece else []
    pieces: list[str] = []
    for sentence in _cut(line, _SENTENCE_END):
        if len(sentence) <= max_chars:
            pieces.append(sentence)
            continue
        for clause in _join_short(_cut(sentence, _PAUSE), sentence, max_chars, min_chars):
            if len(clause) <= max_chars:
                pieces.append(clause)
                continue
            for part in _at_connectives(clause, max_chars, min_chars, connectives):
                pieces += [part] if len(part) <= max_chars else _hard_cut(part, max_chars, min_chars)
    return [piece for piece in pieces if piece]


def _trim(text: str) -> str:
    return text.strip().strip(DROPPED_AT_ENDS).strip()


def _cut(text: str, ends: re.Pattern[str]) -> Iterator[str]:
    """Yield what stands between ends, each piece with the end that closes it, trimmed and not empty."""
    start = 0
    for match in ends.finditer(text):
        if piece := _trim(text[start : match.end()]):
            yield piece
        start = match.end()
    if piece := _trim(text[start:]):
        yield piece


def _join_short(clauses: Iterator[str], sentence: str, max_chars: int, min_chars: int) -> Iterator[str]:
    """Put clauses that are too short back to a neighbour, where the two are one piece together."""
    # Places in the sentence, so that what stood between two clauses comes back with them.
    spans: list[tuple[int, int]] = []
    place = 0
    for clause in clauses:
        place = sentence.index(clause, place)
        end = place + len(clause)
        if spans:
            start, last = spans[-1]
            short = min(last - start, end - place) < min_chars
            if short and end - start <= max_chars:
                spans[-1] = (start, end)
                place = end
                continue
        spans.append((place, end))
        place = end
    return (sentence[start:end] for start, end in spans)


def _at_connectives(clause: str, max_chars: int, min_chars: int, side: ConnectiveSide) -> Iterator[str]:
    """Yield parts: each the longest that a connective ends and that fits, or the shortest that one ends."""
    ends = (match.end() if side == "after" else match.start() for match in _CONNECTIVE.finditer(clause))
    # Closing marks stay with the connective here too.
    places = [place for place in ends if place and len(clause) - place >= min_chars and may_break(clause, place)]
    start = 0
    while len(clause) - start > max_chars:
        first = bisect.bisect_left(places, start + min_chars)
        if first == len(places):
            break
        place = places[max(first, bisect.bisect_right(places, start + max_chars) - 1)]
        yield _trim(clause[start:place])
        start = place
    yield _trim(clause[start:])


def _hard_cut(text: str, max_chars: int, min_chars: int) -> Iterator[str]:
    start = 0
    while len(text) - start > max_chars:
        # Nothing is left over that would be too short for a caption.
        rest = len(text) - start - max_chars
        target = start + max_chars - max(0, min_chars - rest)
        place = next((p for p in range(target, start, -1) if may_break(text, p)), 0)
        if not place:
            place = next((p for p in range(target + 1, len(text)) if may_break(text, p)), len(text))
        yield _trim(text[start:place])
        start = place
        while start < len(text) and text[start].isspace():
            start += 1
    yield _trim(text[start:])
