"""Strips what is no part of a caption from a line, and says which pieces are no captions.

Stripped are list marks, Markdown, speaker tags, brackets and quotes; where more goes than marks that say nothing, it is
told (`CHANGES`). Works on the written form, one line at a time (`strip_row` apart, which sees a row as it was read).
Knows marks, lengths and small tables of words, not meaning; in doubt, the words stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from caprag.corpus.characters import CharacterSet
from caprag.corpus.speakers import NAME, is_speaker
from caprag.corpus.splitting import ConnectiveSide
from caprag.text import Variant

Brackets = Literal["content", "marks", "keep"]
"""What goes of round, square, curly and lenticular brackets: all with what is in them; the marks alone, and stage
directions (笑, 音樂) at an end of a sentence; nothing."""

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

Change = Literal["marks", "speakers", "brackets", "markup"]
"""What is stripped of a line that goes on; see `CHANGES`."""

CHANGES: dict[Change, str] = {
    "marks": "list marks stripped",
    "speakers": "speakers stripped",
    "brackets": "brackets stripped with what was in them",
    "markup": "tags, addresses of links and fenced code stripped",
}
"""Each change in words. Quotes, emphasis, and brackets that leave what is in them are not told."""


class Cleaned(NamedTuple):
    """What is left of a line.

    Attributes
    ----------
    text
        In its written form, perhaps empty.
    changes
        For each change, the line from the first place of it on, as an example of at most 80 characters.
    spoken
        Whether a speaker and a colon were stripped.
    """

    text: str
    changes: dict[Change, str]
    spoken: bool


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
    brackets: Brackets = "marks"

    def __post_init__(self) -> None:
        if not 1 <= self.min_chars <= self.max_chars:
            raise ValueError(
                f"min_chars is {self.min_chars} and max_chars is {self.max_chars}; 1 or more is wanted, and no less"
            )
        for name, choices in (("connectives", ConnectiveSide), ("convert", Variant), ("brackets", Brackets)):
            value = getattr(self, name)
            if value not in get_args(choices) and not (name == "convert" and value is None):
                raise ValueError(f"{name} is {value!r}; known are {', '.join(get_args(choices))}")


_SHOWN = 80
_NUMERAL = "一二三四五六七八九十"
# Numbers in circles and the like, which the written form turns into plain digits.
_CIRCLED = "\u2460-\u24ff\u2776-\u2793\u3220-\u3229\u3251-\u325f\u3280-\u3289\u32b1-\u32bf"
_HAS_CIRCLED = re.compile(f"[{_CIRCLED}]")
_CIRCLED_MARK = re.compile(rf"(?m)^([\s>#*\-]*)[{_CIRCLED}][.、:： \t\u3000]*")
_FENCE = re.compile(r"(?ms)^[ \t]*```.*?(?:^[ \t]*```[ \t]*$|\Z)")

# Nothing of what follows is in a line without any of these.
_ANY = re.compile(r"[^\w\s,，。!?！？…~%]|_|~~|^\d|^[,，。]")
# A number with a unit after it is no list mark, nor one of three digits without a space after it.
_UNIT = "(?:元(?![旦素])|[年度](?![輕轻紀纪級级假過过])|[塊块]|[歲岁]|[萬万](?!一)|[億亿倍折%°])"
_LIST_MARK = re.compile(
    r"(?:[*•‣◦●○■□◆◇▪▫►▶★☆※➤#>|·]+"
    r"|[-–—+]+(?!\d)"
    rf"|(?:\(\d{{1,3}}\)|\d{{1,3}}[.)、])(?=\s|$)|(?:\(\d{{1,2}}\)|\d{{1,2}}[.)、])(?!\d|{_UNIT})"
    rf"|\([{_NUMERAL}]{{1,3}}\)|[{_NUMERAL}]{{1,3}}[、.](?![{_NUMERAL}])"
    r"|\(?[A-Ha-h][.)](?![A-Za-z.])"
    r")\s*"
)
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
# Of HTML and of subtitles; a < b and c > d is none.
_ATTRIBUTES = r"(?:\s+[A-Za-z][\w:\-]*\s*=[^<>]{0,200})?\s*/?>"
_BREAK_TAG = re.compile(rf"</?(?:br|p|div|li|ul|ol|tr|td|th|table|hr|h[1-6]){_ATTRIBUTES}|\|", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:i|b|u|s|em|strong|font|span|ruby|rt|rp|rb|sub|sup|small|big|center|mark|del|ins|code|a|img|html|body)"
    rf"{_ATTRIBUTES}|</?(?:c|v|lang)(?:\.[\w.\-]{{1,40}})?(?: [^<>=]{{1,40}})?>|<\d\d:[\d:.]{{4,12}}>",
    re.IGNORECASE,
)
# Between digits a star is a sign of multiplication.
_EMPHASIS = re.compile(r"(?<!\d)\*+|\*+(?!\d)|_{2,}|~{2,}(?=\w)|(?<=\w)~{2,}|`+")

# Not a time (12:30), not an address (https://).
_SPEAKER = re.compile(rf"[「『\"“]?({NAME})\s*(?:\([^()]{{1,10}}\))?\s*(?:(?<!\d):|:(?!\d))(?!//)[」』\"”]?\s*(?=\S)")
_BRACKETED = re.compile(r"[(\[【〔]([^()\[\]【】〔〕]{1,20})[)\]】〕]\s*(:?)\s*(?=\S)")
_DIRECTION = re.compile(
    "[♪♫♬… ]+|[大苦偷微冷傻狂竊窃乾干爆]?笑|[大痛]?哭|[啜哭]泣|[嘆叹][氣气息]"
    "|鼓掌|[歡欢]呼|尖叫|[驚惊]呼|咳嗽|喘[氣气息]|哽咽|打哈欠"
    "|沉默|停[頓顿]|[靜静]默|旁白|[畫画話话]外音|(?:[內内]心)?[獨独]白|[內内]心|心[聲声]"
    "|音效|消音|嗶+|哔+|[聽听]不清楚?|(?:下集)?待[續续]|全文完"
    "|(?:背景|片[頭头]|片尾|[輕轻]快|[緊紧][張张]|悲[傷伤]|[歡欢][樂乐])?的?(?:音|配)[樂乐](?:[聲声起停]|[響响]起?)?"
    "|[歌插]曲|片[頭头尾]曲|主[題题]曲|\\w{1,4}(?<!名)[聲声](?:[響响]起?)?|\\w{0,3}[鈴铃]?[響响]起?"
    "|o\\.?s\\.?|v\\.?o\\.?|(?:\\w{1,12} )?(?:music|laugh(?:s|ing|ter)|applause|sigh(?:s|ing)|cr(?:ies|ying)|sobbing"
    "|scream(?:s|ing)|cheer(?:s|ing)|cough(?:s|ing)|gasps|whispers|inaudible|silence|narrator|voice-?over)",
    re.IGNORECASE,
)

_PAIRS = {"(": ")", "[": "]", "{": "}", "【": "】", "〔": "〕", "〖": "〗", "（": "）", "［": "］", "｛": "｝"}
_BRACKET = re.compile("[" + re.escape("".join([*_PAIRS, *_PAIRS.values()])) + "]")
# Where it is left out between these, a space stands for it.
_BRACKETS_IN_LATIN = re.compile(rf"(?<=[0-9A-Za-z%]){_BRACKET.pattern}+(?=[0-9A-Za-z])")
_SENTENCE_MARKS = ",，。.!?！？…;；~"
_BLANKS = " 「」『』“”\"'‘’"
_SENTENCE_STOPS = re.compile(f"[{_BLANKS}]*(?:[{_SENTENCE_MARKS}]|$)")
# An apostrophe within a word stays.
_QUOTE = re.compile(r"[「」『』“”„‟\"〝〞〟«»`]|(?<![A-Za-z\u00c0-\u024f])['‘’]|['‘’](?![A-Za-z\u00c0-\u024f])")


def strip_row(text: str) -> tuple[str, dict[Change, str]]:
    """Strip from a row, as it was read, what the written form would hide: numbers in circles, fenced code.

    Returns
    -------
    tuple of str and dict
        What is left, and the changes as in `Cleaned`.

    Examples
    --------
    >>> strip_row("① 你好\\n```python\\nx = 1\\n```\\n再見")[0]
    '你好\\n\\n再見'
    """
    changes: dict[Change, str] = {}
    if "```" in text:
        text = _note(changes, "markup", _FENCE, text, "")
    if _HAS_CIRCLED.search(text):
        text = _note(changes, "marks", _CIRCLED_MARK, text, r"\1")
    return text, changes


def _note(changes: dict[Change, str], change: Change, pattern: re.Pattern[str], text: str, put: str) -> str:
    """Replace a pattern, and note where it was found first."""
    if match := pattern.search(text):
        changes.setdefault(change, text[match.start() :][:_SHOWN])
        return pattern.sub(put, text)
    return text


def clean_line(line: str, brackets: Brackets = "marks") -> Cleaned:
    """Strip list marks, Markdown, speaker tags, brackets and quotes from a line.

    Parameters
    ----------
    line
        A line in its written form.
    brackets
        What is stripped of brackets. Title marks (《》〈〉) are no brackets. A speaker in brackets goes as a speaker.

    Examples
    --------
    >>> clean_line("1. **小明**:「你好(笑),再(不)見」").text
    '你好,再不見'
    >>> clean_line("我告訴你:快跑吧(笑)").changes
    {'brackets': '(笑)'}
    """
    changes: dict[Change, str] = {}
    if not _ANY.search(line):
        return Cleaned(line, changes, False)
    if "<" in line or "|" in line or "](" in line:
        line = _note(changes, "markup", _LINK, line, r"\1").replace("|", " ")
        line = _note(changes, "markup", _BREAK_TAG, line, " ")
        line = _note(changes, "markup", _TAG, line, "").strip()
    line = _EMPHASIS.sub("", _strip_marks(line, changes)).lstrip()
    line, spoken = _strip_speakers(line, brackets, changes)
    line = _strip_marks(line, changes)
    if brackets != "keep" and _BRACKET.search(line):
        line = _strip_brackets(line, changes, content=brackets == "content")
    return Cleaned(" ".join(_QUOTE.sub("", line).split()), changes, spoken)


def _strip_marks(line: str, changes: dict[Change, str]) -> str:
    place = 0
    while match := _LIST_MARK.match(line, place):
        place = match.end()
    if place:
        changes.setdefault("marks", line[:_SHOWN])
    return line[place:]


def _strip_speakers(line: str, brackets: Brackets, changes: dict[Change, str]) -> tuple[str, bool]:
    spoken = False
    if match := _BRACKETED.match(line):
        direction = _DIRECTION.fullmatch(match[1])
        if (direction and match[2]) or (not direction and is_speaker(match[1], bare=not match[2])):
            spoken = bool(match[2])
            changes["speakers"] = line[:_SHOWN]
            line = line[match.end() :]
        elif direction and brackets != "keep":
            changes["brackets"] = line[:_SHOWN]
            line = line[match.end() :]
    if (match := _SPEAKER.match(line)) and is_speaker(match[1]):
        spoken = True
        changes.setdefault("speakers", line[:_SHOWN])
        line = line[match.end() :]
    return line, spoken


def _strip_brackets(line: str, changes: dict[Change, str], *, content: bool) -> str:
    # Pairs by a stack; a bracket without its other half loses its mark alone.
    opened: list[re.Match[str]] = []
    spans: list[tuple[int, int]] = []
    for match in _BRACKET.finditer(line):
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
        if content or _is_direction(line, start, end, place):
            changes.setdefault("brackets", line[start:][:_SHOWN])
            kept.append(line[place:start])
            place = end
    kept.append(line[place:])
    return _BRACKET.sub("", _BRACKETS_IN_LATIN.sub(" ", "".join(kept)))


def _is_direction(line: str, start: int, end: int, place: int) -> bool:
    """Say whether brackets hold a stage direction at an end of a sentence; the line goes on at a place before them."""
    if end - start > 30 or not _DIRECTION.fullmatch(line[start + 1 : end - 1].strip()):
        return False
    if _SENTENCE_STOPS.match(line, end):
        return True
    while start > place and line[start - 1] in _BLANKS:
        start -= 1
    # Where another direction went just before, it is as if this one stood there.
    return start == place or line[start - 1] in _SENTENCE_MARKS


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
