"""Cuts to caption length: where, and what of the text is left."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprag.corpus import split_caption
from caprag.corpus.splitting import DROPPED_AT_ENDS
from caprag.text import convert, normalize

MATERIAL = st.text(
    st.sampled_from("我你好天氣很了不過因為所以並而或者但是雖然,，、:。!?？…;.' 3.14,0aBc-—()「」\u0301ー"), max_size=80
)
UNITS = ["don't", "3.14", "1,000", "12:30", "OK", "2026", "e-mail", "我", "很", "好", "，", "。", " ", "因為", "是"]
WORDS = st.lists(st.sampled_from(UNITS), max_size=25).map("".join)


def left_out(text: str, pieces: list[str]) -> str:
    """The characters of a text that are in no piece; fails where the pieces are not in it in this order."""
    place, gaps = 0, []
    for piece in pieces:
        found = text.index(piece, place)
        gaps.append(text[place:found])
        place = found + len(piece)
    return "".join([*gaps, text[place:]])


@given(
    MATERIAL | WORDS | st.text(max_size=60), st.integers(1, 20), st.integers(1, 8), st.sampled_from(["after", "before"])
)
def test_nothing_is_lost_but_marks_and_spaces_at_cuts(text: str, most: int, least: int, side: str) -> None:
    pieces = split_caption(text, most, least, connectives=side)  # type: ignore[arg-type]
    assert all(pieces)
    assert all(c in DROPPED_AT_ENDS or c.isspace() for c in left_out(text, pieces))
    assert all(piece == piece.strip().strip(DROPPED_AT_ENDS) and "\n" not in piece for piece in pieces)


@given(MATERIAL | WORDS, st.integers(1, 20), st.integers(1, 8))
def test_only_what_can_not_be_cut_is_longer(text: str, most: int, least: int) -> None:
    for piece in split_caption(text, most, least):
        if len(piece) > most:
            # An independent look: between two ideographs every text can be cut.
            assert not re.search(r"[\u4e00-\u9fff]{2}", piece), piece


@given(
    st.text(st.sampled_from("我你好天氣很了不因為所以並而或者但是雖然"), min_size=1, max_size=100), st.integers(1, 20)
)
def test_ideographs_always_fit_and_leave_no_scrap(text: str, most: int) -> None:
    pieces = split_caption(text, most, min(5, most))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= most
    # A hard cut leaves as much as asked for, where half a piece is that much.
    if len(text) >= 5 and most >= 9:
        assert min(map(len, pieces)) >= 5


@given(WORDS, st.integers(1, 12), st.integers(1, 8))
def test_no_cut_within_a_word_or_number(text: str, most: int, least: int) -> None:
    pieces = split_caption(text, most, least)
    borders, place = set(), 0
    for piece in pieces:
        start = text.index(piece, place)
        place = start + len(piece)
        borders |= {start, place}
    for match in re.finditer(r"[A-Za-z]+(?:['-][A-Za-z]+)*|\d+(?:[.,:]\d+)*", text):
        assert not borders & set(range(match.start() + 1, match.end())), (text, pieces)


@given(MATERIAL, st.integers(1, 20), st.integers(1, 8))
def test_pieces_are_not_cut_again(text: str, most: int, least: int) -> None:
    for piece in split_caption(normalize(text), most, least):
        if len(piece) <= most:
            assert split_caption(piece, most, least) == [piece]


@given(MATERIAL, st.integers(2, 20))
def test_no_piece_begins_with_a_closing_mark_after_a_hard_cut(text: str, most: int) -> None:
    ideographs = "".join(c for c in text if unicodedata.category(c) == "Lo") + "」" * text.count("」")
    assert not any(piece.startswith("」") for piece in split_caption(ideographs, most, 1)[1:])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" 。，, \n \n", []),
        ("今天天氣好", ["今天天氣好"]),
        ("你好嗎？我很好。真的！", ["你好嗎？", "我很好", "真的！"]),
        ("一行\n二行\r\n三行", ["一行", "二行", "三行"]),
        ("你說什麼……我聽不見；走吧", ["你說什麼……", "我聽不見", "走吧"]),
        ("等等...好吧", ["等等...", "好吧"]),
        ("I see. You go.", ["I see.", "You go."]),
        ('"I see." You go', ['"I see."', "You go"]),
        ("I see him.我也是", ["I see him.", "我也是"]),
        ("I see. 我也是", ["I see.", "我也是"]),
        ("Mr. Lee來了", ["Mr. Lee來了"]),
        ("我和Dr. Lee說", ["我和Dr. Lee說"]),
        ("e.g. Tom etc. A", ["e.g. Tom etc. A"]),
        ("the U.S. Army", ["the U.S. Army"]),
        ("at 9 a.m. Tom", ["at 9 a.m. Tom"]),
        ("www.x.com很好", ["www.x.com很好"]),
        ("圓周率是3.14嗎", ["圓周率是3.14嗎"]),
        ("see. you", ["see. you"]),
        # Commas count only in what is too long.
        ("今天很好,我們走吧", ["今天很好,我們走吧"]),
        ("今天天氣真的非常好，我們一起去公園玩", ["今天天氣真的非常好", "我們一起去公園玩"]),
        ("今天天氣真的非常好、我們一起去公園玩", ["今天天氣真的非常好", "我們一起去公園玩"]),
        ("他昨天晚上告訴我們：今天大家都不用上班", ["他昨天晚上告訴我們", "今天大家都不用上班"]),
        ("昨天我還很喜歡它的 今天早上就已經膩了", ["昨天我還很喜歡它的", "今天早上就已經膩了"]),
        # A short clause stays with its neighbour.
        ("對啊，今天天氣真的非常好，我們一起去公園玩吧", ["對啊，今天天氣真的非常好", "我們一起去公園玩吧"]),
        # Connectives count only in clauses that are too long, and as few as will do.
        ("我昨天很想去公園但是外面下著很大的雨", ["我昨天很想去公園但是", "外面下著很大的雨"]),
        ("我很想去公園因為天氣很好所以大家都去了", ["我很想去公園因為天氣很好所以", "大家都去了"]),
        ("我覺得這件事並非你想像的那樣簡單明瞭啊", ["我覺得這件事並非你想像的那樣", "簡單明瞭啊"]),
        # Then the length.
        ("字" * 40, ["字" * 15, "字" * 15, "字" * 10]),
        ("字" * 17, ["字" * 12, "字" * 5]),
        ("他在那家商店一共花了1,000,000元", ["他在那家商店一共花了", "1,000,000元"]),
        ("這個圓周率的小數大概是3.14159對吧", ["這個圓周率的小數大概是", "3.14159對吧"]),
        ("我們全部的人都覺得很難過don't worry", ["我們全部的人都覺得很難過", "don't worry"]),
        ("字" * 14 + "好」" + "字" * 10, ["字" * 14, "好」" + "字" * 10]),
        ("字" * 14 + "「好" + "字" * 10, ["字" * 14, "「好" + "字" * 10]),
        ("a" * 40, ["a" * 40]),
    ],
)  # fmt: skip
def test_examples(text: str, expected: list[str]) -> None:
    assert split_caption(text) == expected


CONNECTIVES = ["但是", "不過", "然而", "雖然", "因為", "所以", "並且", "而且", "或者", "並", "而"]


@pytest.mark.parametrize("connective", CONNECTIVES)
def test_every_connective_in_both_scripts_on_both_sides(connective: str) -> None:
    first, second = "他們今天都沒有來", "我們明天再去看看"
    for word in {connective, convert(connective, "s"), convert(connective, "hk")}:
        text = first + word + second
        assert split_caption(text) == [first + word, second]
        assert split_caption(text, connectives="before") == [first, word + second]


@pytest.mark.parametrize(("most", "least"), [(0, 1), (5, 0), (-1, 1)])
def test_lengths_below_one(most: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"max_chars is {most} and min_chars is {least}"):
        split_caption("好", most, least)


def test_unknown_side() -> None:
    with pytest.raises(ValueError, match="known are after, before"):
        split_caption("好", connectives="beside")  # type: ignore[arg-type]


@pytest.mark.parametrize("unit", ["字", "字,", "a", "!", "而字", "「", ",字:", "a ", "1,"])
def test_a_huge_line_is_cut_in_one_go(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    assert all(c in DROPPED_AT_ENDS for c in left_out(text, split_caption(text)))
