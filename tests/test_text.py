"""The written form, the matching form, and what counts, over all of Unicode."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprag.text import Characters, Variant, check_characters, convert, countable, match_form, normalize

ANYTHING = st.text(st.characters(exclude_categories=[]), max_size=30)
"""Every code point, lone surrogates included."""

AWKWARD = st.text(st.sampled_from("eA가가好裡\u0301\u200b\ufeff\ud800\0\r\n\x85\u2028\t\u3000 !İΣß①㎏ﾊﾞ"), max_size=12)
# The many Han, Hangul and private characters are alike: one in seven of them.
CHARACTERS = [chr(c) for c in range(sys.maxunicode + 1) if c % 7 == 0 or (not 0x3400 <= c < 0xF900 and c < 0x1FFFF)]


@given(ANYTHING | AWKWARD)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once


@given(ANYTHING | AWKWARD)
def test_the_written_form_is_what_it_says(text: str) -> None:
    once = normalize(text)
    assert unicodedata.is_normalized("NFKC", once)
    # Ideographs that are newer than this Python's tables are kept.
    rest = [c for c in once.replace("\n", "") if not "\U00020000" <= c < "\U0003fffe"]
    assert not {unicodedata.category(c) for c in rest} & {"Cc", "Cf", "Cs", "Cn", "Zl", "Zp"}
    assert all(line and line == line.strip() and "  " not in line for line in once.split("\n")) or not once
    assert not any(c.isspace() and c not in " \n" for c in once)
    once.encode("utf-8")


@given(ANYTHING | AWKWARD)
def test_folding_twice_changes_nothing_and_keeps_the_length(text: str) -> None:
    form = match_form(text)
    assert match_form(form) == form
    assert len(form) == len(countable(text)) == len(match_form(text, variants=False))


def test_every_kind_of_character_alone() -> None:
    wrong = [
        c
        for c in CHARACTERS
        if unicodedata.category(c) not in ("Cn", "Co")
        and (
            normalize(normalize(c)) != normalize(c)
            or match_form(match_form(c)) != match_form(c)
            or len(match_form(c)) != len(countable(c))
        )
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" \t\u3000\u00a0 ", ""),
        ("ＯＫ　１２３％！？", "OK 123%!?"),
        ("ﾊﾞｶ ｱｲｳ", "バカ アイウ"),
        ("①㎏ﬁ", "1kgfi"),
        ("a\u200bb\u200c\u200dc\ufeff\u2060\u00add", "abcd"),
        ("e\u0301", "é"),
        ("e\u200b\u0301", "é"),
        ("好\ud800好\udfff", "好好"),
        ("\0好\x07\x1b", "好"),
        ("一\r\n二\r三\n四\v五\f六\x1c七\x85八\u2028九\u2029十", "一\n二\n三\n四\n五\n六\n七\n八\n九\n十"),
        ("\n\n 一 \n \n二\n", "一\n二"),
        ("一\t \u3000二", "一 二"),
        ("\u202b好\u202c\u200f", "好"),
        ("𠮷野家", "𠮷野家"),
        ("豈", "豈"),
        ("…⋯—", "...⋯—"),
        ("👨\u200d👩", "👨👩"),
        ("\U0010ffff\ue000", "\ue000"),
    ],
)
def test_written_form(text: str, expected: str) -> None:
    assert normalize(text) == expected


@pytest.mark.parametrize("family", ["裡裏里", "著着", "台臺", "峰峯", "群羣", "說説说", "為爲为", "麵麪"])
def test_variants_fold_into_one(family: str) -> None:
    assert len({match_form(c) for c in family}) == 1


@pytest.mark.parametrize("pair", ["妳你", "他她", "它牠", "開閒", "日曰", "末未", "已己"])
def test_other_words_and_look_alikes_stay_two(pair: str) -> None:
    assert match_form(pair[0]) != match_form(pair[1])


def test_matching_form_is_letters_and_digits_in_lower_case() -> None:
    assert match_form("Ｈello，世界！ 42。") == "hello世界42"
    assert match_form("……？！ 👍") == ""
    assert match_form("İI") == "ii"
    assert match_form("裡", variants=False) == "裡"


@pytest.mark.parametrize(
    ("text", "letters", "everything"),
    [
        ("嗯… 3 點，OK？", "嗯3點OK", "嗯...3點,OK?"),
        ("一\n二", "一二", "一二"),
        ("♪ ～", "", "♪~"),
        ("", "", ""),
        ("½Ⅷ", "12VIII", "1⁄2VIII"),
        ("ᄀ!ᅡ", "가", "ᄀ!ᅡ"),
    ],
)
def test_countable(text: str, letters: str, everything: str) -> None:
    assert countable(text) == countable(text, "letters") == letters
    assert countable(text, "all") == everything


@given(ANYTHING | AWKWARD)
def test_countable_leaves_no_white_space_and_counts_once(text: str) -> None:
    for characters in ("letters", "all"):
        counted = countable(text, characters)
        assert not any(c.isspace() for c in counted)
        assert countable(counted, characters) == counted


@pytest.mark.parametrize("wrong", ["", "words", "Letters"])
def test_unknown_characters(wrong: Characters) -> None:
    with pytest.raises(ValueError, match="known are letters, all"):
        check_characters(wrong)
    with pytest.raises(ValueError, match="known are letters, all"):
        countable("好", wrong)


@pytest.mark.parametrize(
    ("text", "variant", "expected"),
    [
        ("鼠标里面", "twp", "滑鼠裡面"),
        ("鼠标里面", "tw", "鼠標裡面"),
        ("里面", "hk", "裏面"),
        ("頭髮發財", "s", "头发发财"),
        ("头发发财", "tw", "頭髮發財"),
        ("", "s", ""),
        ("里\0面\0", "tw", "裡\0面\0"),
        ("好\ud800里面", "tw", "好裡面"),
        ("OK\n里面", "tw", "OK\n裡面"),
    ],
)
def test_convert(text: str, variant: Variant, expected: str) -> None:
    assert convert(text, variant) == expected


def test_convert_to_nowhere() -> None:
    with pytest.raises(ValueError, match=r"variant is 'jp'; known are tw, twp, hk, s"):
        convert("好", "jp")  # type: ignore[arg-type]
