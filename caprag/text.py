"""The one normalisation of text, and what counts as a character.

Two forms of a text are used, and no others:

* `normalize` — the written form: what is stored, shown and answered. Unicode NFKC (which also makes full-width
  letters and digits narrow and half-width kana wide), one ASCII space for every run of white space, no control or
  zero-width characters, no lone surrogates, no white space at either end. Line breaks are kept.
* `match_form` — the form that is compared: the written form, lower-cased, letters and digits only, and with every
  Taiwan, Hong Kong and Simplified variant of a character folded into one (OpenCC's tables, one character at a time,
  so that lengths and positions stay).

`Characters` says which characters a metric counts. Nothing here knows of corpora or models.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Sequence
from typing import Literal, get_args

Characters = Literal["letters", "all"]
"""``"letters"``: Unicode letters and digits (categories L and N); ``"all"``: everything but white space."""

Variant = Literal["tw", "twp", "hk", "s"]
"""Target of `convert`: Taiwan characters, Taiwan characters and words, Hong Kong characters, Simplified."""

# Sources in the order in which a character is tried: the first table that changes it wins.
_FOLDING = ("tw2s", "hk2s", "t2s")
_CJK = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
_LINE_BREAKS = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_SPACES = re.compile(r"[^\S\n]+")
# What re calls a word character is, but for the underscore, just the categories L and N (a test looks at them all).
_NOT_LETTERS = re.compile(r"[\W_]+")
_NOT_LETTERS_NOR_BREAKS = re.compile(r"[^\w\n]+|_")
_DROPPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Cn"})


def normalize(text: str) -> str:
    """Return the written form of a text.

    Parameters
    ----------
    text
        Any string.

    Returns
    -------
    str
        NFKC, single ASCII spaces, no control, format or surrogate characters; ``"\\n"`` between lines, none of them
        empty.

    References
    ----------
    Unicode Standard Annex 15, normalisation form KC.

    Examples
    --------
    >>> normalize("　ＯＫ啦！\\u200b \\t好")
    'OK啦! 好'
    """
    # Most texts are in their written form but for spaces: what is printable has no white space of any other kind.
    if text.isprintable() and "  " not in text and unicodedata.is_normalized("NFKC", text):
        return text.strip()
    text = _LINE_BREAKS.sub("\n", unicodedata.normalize("NFKC", text))
    # A line break is kept, and says nothing of the rest.
    if not text.replace("\n", "").isprintable():
        text = "".join(c for c in text if c in "\n\t" or not _is_dropped(c))
        # What was dropped may have stood between a letter and its accent.
        text = unicodedata.normalize("NFKC", text)
    text = _SPACES.sub(" ", text)
    return "\n".join(line for part in text.split("\n") if (line := part.strip()))


def _is_dropped(character: str) -> bool:
    # An ideograph that this Python's tables do not know yet is a character all the same.
    code = ord(character)
    return unicodedata.category(character) in _DROPPED_CATEGORIES and not (
        0x20000 <= code < 0x40000 and code & 0xFFFE != 0xFFFE
    )


def match_form(text: str, *, variants: bool = True) -> str:
    """Return the form in which texts are compared.

    Parameters
    ----------
    text
        Any string.
    variants
        Fold Taiwan, Hong Kong and Simplified variants of a character into one.

    Returns
    -------
    str
        Lower-case letters and digits; empty for a text that has none.

    Examples
    --------
    >>> match_form("妳在這裡嗎？ OK") == match_form("妳在这裏吗 ok!")
    True
    """
    return _fold(countable(text, "letters"), variants)


def match_forms(texts: Sequence[str]) -> list[str]:
    """Return ``[match_form(text) for text in texts]``, several times faster where all are in their written form.

    Parameters
    ----------
    texts
        Any strings; the fast way is for lines in their written form, none empty.

    Examples
    --------
    >>> match_forms(["你在這裡嗎?", "你在这裏吗"])
    ['你在这里吗', '你在这里吗']
    """
    whole = "\n".join(texts)
    # Written forms have no empty line, so that these two say that each text is one line.
    if whole.count("\n") != len(texts) - 1 or normalize(whole) != whole:
        return [match_form(text) for text in texts]
    letters = unicodedata.normalize("NFC", _NOT_LETTERS_NOR_BREAKS.sub("", whole))
    return _fold(letters, variants=True).split("\n")


def _fold(text: str, variants: bool) -> str:
    # The one letter whose lower case is longer.
    text = text.replace("İ", "i").lower()
    return text.translate(_variant_table()) if variants else text


def countable(text: str, characters: Characters = "letters") -> str:
    """Return the characters of a text that count in a metric.

    Parameters
    ----------
    text
        Any string.
    characters
        Which ones count; see `Characters`.

    Returns
    -------
    str
        A subsequence of ``normalize(text)``, composed (NFC).

    Examples
    --------
    >>> countable("嗯… 3 點，OK？")
    '嗯3點OK'
    """
    if characters == "letters":
        text = normalize(text)
        return text if text.isalnum() else unicodedata.normalize("NFC", _NOT_LETTERS.sub("", text))
    check_characters(characters)
    return unicodedata.normalize("NFC", "".join(normalize(text).split()))


def check_characters(characters: str) -> None:
    """Raise ValueError unless `characters` is one of `Characters`."""
    if characters not in get_args(Characters):
        raise ValueError(f"characters is {characters!r}; known are {', '.join(get_args(Characters))}")


def convert(text: str, variant: Variant) -> str:
    """Rewrite a text in one region's characters.

    Parameters
    ----------
    text
        Any string.
    variant
        Where to; from Simplified for the Traditional targets, from Traditional for ``"s"``.

    Returns
    -------
    str
        The text converted by OpenCC, phrase by phrase, without lone surrogates.

    Raises
    ------
    ValueError
        For an unknown target.

    Examples
    --------
    >>> convert("鼠标里面", "twp")
    '滑鼠裡面'
    """
    if variant not in get_args(Variant):
        raise ValueError(f"variant is {variant!r}; known are {', '.join(get_args(Variant))}")
    converter = _converter("t2s" if variant == "s" else f"s2{variant}")
    # OpenCC refuses lone surrogates, and some of its tables end a text at the character 0.
    parts = text.encode("utf-8", "ignore").decode("utf-8").split("\0")
    return "\0".join(str(converter.convert(part)) for part in parts)


@functools.cache
def _converter(name: str) -> opencc.OpenCC:  # type: ignore[name-defined] # noqa: F821
    import opencc

    return opencc.OpenCC(name)


@functools.cache
def _variant_table() -> dict[int, int]:
    """Map each CJK character to the one that stands for all its variants."""
    characters = [chr(c) for low, high in _CJK for c in range(low, min(high, sys.maxunicode) + 1)]
    table: dict[int, int] = {}
    for name in _FOLDING:
        # A line break between the characters keeps the converter from seeing words.
        folded = _converter(name).convert("\n".join(characters)).split("\n")
        for source, target in zip(characters, folded, strict=True):
            if target != source and len(target) == 1:
                table.setdefault(ord(source), ord(target))
    # Follow chains, so that folding twice changes nothing.
    for code in table:
        seen = {code}
        end = table[code]
        while end in table and end not in seen:
            seen.add(end)
            end = table[end]
        table[code] = end
    return table
