"""Strips what is no part of a caption from a line, and says which pieces are no captions.

Stripped are list marks, Markdown, speaker tags, brackets and quotes. Works on the written form, one line at a time
(`strip_row` apart, which sees a row as it was read). Knows marks and lengths, not meaning: what stands before a colon
near the beginning of a line is a speaker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from caprag.corpus.characters import CharacterSet
from caprag.corpus.splitting import ConnectiveSide
from caprag.text import Variant

Brackets = Literal["content", "marks", "keep"]
"""What goes of round, square, curly and lenticular brackets: all with what is in them, the marks alone, nothing."""

Reason = Literal["empty", "speaker", "letters", "short", "long", "characters", "duplicate", "variant", "near"]
"""Why a piece is dropped; see `REASONS`."""

REASONS: dict[Reason, str] = {
    "empty": "nothing is left after stripping",
    "speaker": "a speaker and a colon",
    "letters": "no letter",
    "short": "too few characters",
    "long": "one word longer than a caption",
    "characters": "a character outside the set",
    "duplicate": "stood before",
    "variant": "stood before in other marks, case or variant characters",
    "near": "nearly stood before",
}
"""Each reason in words, in the order in which they are tried."""


@dataclass(frozen=True, slots=True)
class CaptionRules:
    """What a caption is.

    Attributes
    ----------
    max_chars
        Most characters, >= 1; every character of the written form counts one, spaces and marks too.
    min_chars
        Least characters, between 1 and `max_chars`.
    connectives
        On which side of a connective a long clause is cut; see `caprag.corpus.splitting.split_caption`.
    convert
        Region whose characters (and words) the text is rewritten in first; ``None`` leaves them.
    charset
        Characters that a caption may hold; ``None`` allows all.
    drop_speakers
        Drop a line with a speaker and a colon, rather than strip them.
    brackets
        What is stripped of brackets.

    Raises
    ------
    ValueError
        For a length or choice that is none.
    """

    max_chars: int = 15
    min_chars: int = 5
    connectives: ConnectiveSide = "after"
    convert: Variant | None = None
    charset: CharacterSet | None = None
    drop_speakers: bool = False
    brackets: Brackets = "content"

    def __post_init__(self) -> None:
        if not 1 <= self.min_chars <= self.max_chars:
            raise ValueError(
                f"min_chars is {self.min_chars} and max_chars is {self.max_chars}; 1 or more is wanted, and no less"
            )
        for name, choices in (("connectives", ConnectiveSide), ("convert", Variant), ("brackets", Brackets)):
            value = getattr(self, name)
            if value not in get_args(choices) and not (name == "convert" and value is None):
                raise ValueError(f"{name} is {value!r}; known are {', '.join(get_args(choices))}")


_NUMERAL = "一二三四五六七八九十"
# Numbers in circles and the like, which the written form turns into plain digits.
_CIRCLED = "\u2460-\u24ff\u2776-\u2793\u3220-\u3229\u3251-\u325f\u3280-\u3289\u32b1-\u32bf"
_HAS_CIRCLED = re.compile(f"[{_CIRCLED}]")
_CIRCLED_MARK = re.compile(rf"(?m)^([\s>#*\-]*)[{_CIRCLED}][.、:： \t\u3000]*")
_FENCE = re.compile(r"(?ms)^[ \t]*```.*?(?:^[ \t]*```[ \t]*$|\Z)")

# Nothing of what follows is in a line without any of these.
_ANY = re.compile(r"[^\w\s,，。!?！？…~%]|_|~~|^\d|^[,，。]")
_LIST_MARK = re.compile(
    r"(?:[*•‣◦●○■□◆◇▪▫►▶★☆※➤#>|·]+"
    r"|[-–—+]+(?!\d)"
    r"|\(\d{1,3}\)|\d{1,3}[.)、](?!\d)"
    rf"|\([{_NUMERAL}]{{1,3}}\)|[{_NUMERAL}]{{1,3}}[、.](?![{_NUMERAL}])"
    r"|\(?[A-Ha-h][.)](?![A-Za-z.])"
    r")\s*"
)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_BREAK_TAG = re.compile(r"</?(?:br|p|div|li|tr|td)\b[^<>]{0,200}>|\|", re.IGNORECASE)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
# Between digits a star is a sign of multiplication.
_EMPHASIS = re.compile(r"(?<!\d)\*+|\*+(?!\d)|_{2,}|~{2,}(?=\w)|(?<=\w)~{2,}|`+")

_HAN_NAME = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff·・]{1,5}"
_LATIN_NAME = r"[A-Za-z\u00c0-\u024f][\w.'’\-]{0,19}(?: [\w.'’\-]{1,20}){0,2}"
_ASIDE = r"\s*(?:\([^()]{1,10}\))?\s*"
# Not a time (12:30), not an address (https://).
_SPEAKER = re.compile(
    rf"[「『\"“]?(?:{_HAN_NAME}\s?[A-Za-z0-9]{{0,2}}|{_LATIN_NAME}){_ASIDE}(?:(?<!\d):|:(?!\d))(?!//)[」』\"”]?\s*(?=\S)"
)
_BRACKETED_SPEAKER = re.compile(
    r"(?:\([^()\[\]]{1,10}\)|\[[^()\[\]]{1,10}\]|【[^【】]{1,10}】|〔[^〔〕]{1,10}〕)\s*:?\s*(?=\S)"
)

_PAIRS = {"(": ")", "[": "]", "{": "}", "【": "】", "〔": "〕", "〖": "〗", "（": "）", "［": "］", "｛": "｝"}
_BRACKET = re.compile("[" + re.escape("".join([*_PAIRS, *_PAIRS.values()])) + "]")
# An apostrophe within a word stays.
_QUOTE = re.compile(r"[「」『』“”„‟\"〝〞〟«»`]|(?<![A-Za-z\u00c0-\u024f])['‘’]|['‘’](?![A-Za-z\u00c0-\u024f])")


def strip_row(text: str) -> str:
    """Strip from a row, as it was read, what the written form would hide: numbers in circles, fenced code.

    Examples
    --------
    >>> strip_row("① 你好\\n```python\\nx = 1\\n```\\n再見")
    '你好\\n\\n再見'
    """
    if "```" in text:
        text = _FENCE.sub("", text)
    return _CIRCLED_MARK.sub(r"\1", text) if _HAS_CIRCLED.search(text) else text


def clean_line(line: str, brackets: Brackets = "content") -> str:
    """Strip list marks, Markdown, speaker tags, brackets and quotes from a line.

    Parameters
    ----------
    line
        A line in its written form.
    brackets
        What is stripped of brackets. Title marks (《》〈〉) are no brackets.

    Returns
    -------
    str
        A line in its written form, perhaps empty.

    Examples
    --------
    >>> clean_line("1. **小明**:「你好(笑),再見」")
    '你好,再見'
    """
    return _clean(line, brackets)[0]


def has_speaker(line: str) -> bool:
    """Say whether a line in its written form names a speaker before a colon.

    Examples
    --------
    >>> has_speaker("- 小明(笑): 你好"), has_speaker("12:30 見"), has_speaker("https://example.com")
    (True, False, False)
    """
    return _clean(line, "keep")[1]


def clean_and_tell(line: str, brackets: Brackets) -> tuple[str, bool]:
    """Return a line as `clean_line` does, and what `has_speaker` says of it."""
    return _clean(line, brackets)


def _clean(line: str, brackets: Brackets) -> tuple[str, bool]:
    if not _ANY.search(line):
        return line, False
    line = _TAG.sub("", _BREAK_TAG.sub(" ", _LINK.sub(r"\1", line))).strip()
    line = _strip_marks(line)
    line = _EMPHASIS.sub("", line).lstrip()
    spoken = False
    if match := _BRACKETED_SPEAKER.match(line):
        spoken = ":" in match.group()
        line = line[match.end() :]
    if match := _SPEAKER.match(line):
        spoken = True
        line = line[match.end() :]
    line = _strip_marks(line)
    if brackets != "keep":
        line = _strip_brackets(line, content=brackets == "content")
    return " ".join(_QUOTE.sub("", line).split()), spoken


def _strip_marks(line: str) -> str:
    place = 0
    while match := _LIST_MARK.match(line, place):
        place = match.end()
    return line[place:]


def _strip_brackets(line: str, *, content: bool) -> str:
    found = list(_BRACKET.finditer(line))
    if not found:
        return line
    if not content:
        return _BRACKET.sub("", line)
    # Pairs by a stack; a bracket without its other half loses its mark alone.
    opened: list[re.Match[str]] = []
    spans: list[tuple[int, int]] = []
    for match in found:
        mark = match.group()
        if mark in _PAIRS:
            opened.append(match)
        elif opened and _PAIRS[opened[-1].group()] == mark:
            start = opened.pop().start()
            while spans and spans[-1][0] > start:
                spans.pop()
            spans.append((start, match.end()))
    kept, place = [], 0
    for start, end in spans:
        kept.append(line[place:start])
        place = end
    kept.append(line[place:])
    return _BRACKET.sub("", "".join(kept))


def refusal(piece: str, rules: CaptionRules) -> Reason | None:
    """Say why a piece is no caption by itself, or None where it is one.

    Parameters
    ----------
    piece
        A piece in its written form.
    rules
        What a caption is.

    Examples
    --------
    >>> refusal("3.1415", CaptionRules()), refusal("你好", CaptionRules()), refusal("你好嗎小明", CaptionRules())
    ('letters', 'short', None)
    """
    if not any(map(str.isalpha, piece)):
        return "letters"
    if len(piece) < rules.min_chars:
        return "short"
    if len(piece) > rules.max_chars:
        return "long"
    if rules.charset is not None and rules.charset.outside(piece):
        return "characters"
    return None
