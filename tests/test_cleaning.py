"""What is stripped from lines, and which pieces are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caprag.corpus import CaptionRules, character_set
from caprag.corpus.characters import CharacterSet
from caprag.corpus.cleaning import Brackets, clean_line, refusal, strip_row
from caprag.errors import CorpusError
from caprag.text import normalize

AWKWARD = st.text(st.sampled_from("我好a1 .,:()[]「」『』\"'*_`~#>|<-•、一①。!\u3000"), max_size=30)


def cleaned(raw: str, brackets: Brackets = "marks") -> str:
    return clean_line(normalize(strip_row(raw)[0]), brackets).text


@pytest.mark.parametrize(
    "mark",
    [
        "1. ",
        "1.",
        "12) ",
        "(3) ",
        "（3）",
        "3、",
        "• ",
        "•",
        "- ",
        "-",
        "* ",
        "## ",
        "#",
        "> ",
        ">> ",
        "一、",
        "十二、",
        "(二)",
        "①",
        "① ",
        "⑴",
        "⒈ ",
        "❶",
        "㈠",
        "- 1. ",
        "A. ",
        "(b) ",
        "* > ",
    ],
)
def test_list_marks_go(mark: str) -> None:
    assert cleaned(mark + "你好嗎") == "你好嗎"


@pytest.mark.parametrize(
    "text",
    [
        "3.14是圓周率",
        "3、4個人來了",
        "一、二、三走",
        "-5度好冷",
        "2026年",
        "12:30見",
        "一個人",
        "+1",
        "10比3",
        "3*4=12",
        "don't",
        "U.S.A.很大",
        "《書名》很好看",
        "~好喔~",
        "a_b",
        "你好嗎?",
        "https://example.com/a",
        "十分好",
        "7-11見",
        "O'Brien's",
        "100.元起跳",
        "100.我不知道",
        "50.元起跳",
        "3.年後再見",
        "如果a<b而且c>d就成立了",
        "如果 a < b 而且 c > d 就成立了",
        "我告訴你:快跑吧",
        "他說:快跑吧",
        "时间:明天早上",
        "時間:明天早上",
        "地點:台北",
        "例如:蘋果",
        "重點如下:蘋果",
        "答:我不知道",
        "港島綫:金鐘,灣仔",
        "屯馬線:荃灣西",
        "手續費:沒有列明",
        "孔子云:何陋之有",
        "Note: 很好",
        "CPU: 很快",
        "Step 1: 很好",
        "他昨天晚上說:好",
    ],
)
def test_what_only_looks_like_a_mark_stays(text: str) -> None:
    assert cleaned(text) == text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("**粗**體", "粗體"),
        ("*斜體*", "斜體"),
        ("__粗__體", "粗體"),
        ("~~刪~~去", "刪去"),
        ("`碼`", "碼"),
        ("[連結](https://x.y/z)在此", "連結在此"),
        ("![圖](a.png)好看", "圖好看"),
        ("<i>斜</i>體", "斜體"),
        ('<font color="#fff">字</font>', "字"),
        ("<v 小明>你好</v><c.yellow>嗎</c>", "你好嗎"),
        ("<00:01:02.000>你好", "你好"),
        ("一<br/>二", "一 二"),
        ("| 甲 | 乙 |", "甲 乙"),
        ("### **標題**", "標題"),
        ("---", ""),
        ("***", ""),
    ],
)
def test_markdown_goes(raw: str, expected: str) -> None:
    assert cleaned(raw) == expected


def test_fenced_code_goes_with_what_is_in_it() -> None:
    text = "前\n```python\nprint('中')\n```\n後"
    assert strip_row(text) == ("前\n\n後", {"markup": text[2:]})
    assert strip_row("前\n```\n沒有結束")[0] == "前\n"


@pytest.mark.parametrize(
    "raw",
    [
        "小明：你好",
        "小明:你好",
        "小明 ： 你好",
        "「小明：你好」",
        "「小明：」你好",
        "[小明] 你好",
        "【小明】你好",
        "(旁白)你好",
        "（旁白）：你好",
        "Tom: 你好",
        "Speaker 1: 你好",
        "Dr. Smith: 你好",
        "**小明：**你好",
        "- 小明：你好",
        "1. 小明（笑）：「你好」",
        "瑪麗·安：你好",
    ],
)
def test_speakers_go(raw: str) -> None:
    assert cleaned(raw) == "你好"


@pytest.mark.parametrize("raw", ["小明：你好", "- 小明(笑): 你好", "Tom: hi", "[小明]:你好", "「小明：你好」"])
def test_a_speaker_colon_is_seen(raw: str) -> None:
    assert clean_line(normalize(raw)).spoken


@pytest.mark.parametrize(
    "raw", ["12:30見", "https://a.b", "你好", "(旁白)你好", "他一共帶來了三種東西:蘋果", "看見自己:", "比分3:2"]
)
def test_other_colons_are_none(raw: str) -> None:
    assert not clean_line(normalize(raw)).spoken


@pytest.mark.parametrize(
    ("raw", "content", "marks", "keep"),
    [
        ("你好(笑)再見", "你好再見", "你好笑再見", "你好(笑)再見"),
        ("他(不)知道", "他知道", "他不知道", "他(不)知道"),
        ("(其實)我知道", "我知道", "其實我知道", "(其實)我知道"),
        ("你好（甲（b）丙）再見", "你好再見", "你好甲b丙再見", "你好(甲(b)丙)再見"),
        ("要100(50%)元", "要100元", "要100 50%元", "要100(50%)元"),
        # Stage directions at an end.
        ("你好[音樂]", "你好", "你好", "你好[音樂]"),
        ("你好!(笑)再見", "你好!再見", "你好!再見", "你好!(笑)再見"),
        ("「你好(笑)」", "你好", "你好", "你好(笑)"),
        ("(笑)(掌聲)你好", "你好", "你好", "(笑)(掌聲)你好"),
        ("[電話鈴聲響起]", "", "", "[電話鈴聲響起]"),
        ("[♪♪]你好", "你好", "你好", "[♪♪]你好"),
        ("你好(再見", "你好再見", "你好再見", "你好(再見"),
        ("你)好(a]b)c", "你好c", "你好a b c", "你)好(a]b)c"),
        ("(全部都是)", "", "全部都是", "(全部都是)"),
        ("好(a)(b)好【c】", "好好", "好a b好c", "好(a)(b)好【c】"),
    ],
)
def test_brackets(raw: str, content: str, marks: str, keep: str) -> None:
    assert [cleaned(raw, mode) for mode in ("content", "marks", "keep")] == [content, marks, keep]


@pytest.mark.parametrize(
    "raw", ["「好」", "『好』", "“好”", '"好"', "‘好’", "'好'", "〝好〞", "«好»", "＂好＂", "「好"]
)
def test_quotes_go(raw: str) -> None:
    assert cleaned(raw) == "好"


def test_apostrophes_within_words_stay() -> None:
    assert cleaned("I don't 'say' it’s") == "I don't say it’s"


@given(AWKWARD | st.text(max_size=40), st.sampled_from(["content", "marks", "keep"]))
def test_cleaning_gives_a_written_line_out_of_its_characters(raw: str, brackets: Brackets) -> None:
    for line in normalize(raw).split("\n"):
        clean = clean_line(line, brackets).text
        assert normalize(clean) == clean
        # Nothing is added or moved: what is left is a subsequence.
        rest = iter(line.replace("|", " ").replace("<", " <").replace(">", "> "))
        assert all(c in rest for c in clean if c != " ")
        if brackets != "keep":
            assert not set(clean) & set("()[]{}【】〔〕「」『』“”")


@pytest.mark.parametrize(
    ("raw", "brackets", "changes"),
    [
        ("1. 你好", "marks", {"marks": "1. 你好"}),
        ("- 小明(笑):你好", "marks", {"marks": "- 小明(笑):你好", "speakers": "小明(笑):你好"}),
        ("[小明] 你好", "marks", {"speakers": "[小明] 你好"}),
        ("你好嗎(笑)", "marks", {"brackets": "(笑)"}),
        ("他(不)知道", "content", {"brackets": "(不)知道"}),
        ("你<b>好</b>", "marks", {"markup": "<b>好</b>"}),
        ("你[好](a.html)", "marks", {"markup": "[好](a.html)"}),
        ("「他(不)*知*道」", "marks", {}),
        ("他(不)知道(笑)", "keep", {}),
    ],
)
def test_what_goes_is_told(raw: str, brackets: Brackets, changes: dict[str, str]) -> None:
    assert clean_line(raw, brackets).changes == changes


WORDS = st.sampled_from([*"我不知道:<>().1", "時間", "小明", "100", "元", "告訴你", "(不)", "[笑]", " ", "a", "<b>"])


@given(st.lists(WORDS, max_size=12).map("".join))
def test_no_letter_goes_untold(raw: str) -> None:
    def letters(text: str) -> str:
        return "".join(filter(str.isalnum, text))

    line = normalize(raw)
    clean = clean_line(line)
    assert clean.changes or letters(clean.text) == letters(line)


@pytest.mark.parametrize(
    "unit",
    ["(", "(笑)", "(笑)」", "<b ", "小明:", "()", "**a", "「", "[a](", "1. ", "<a", "a:", "'", "①\n", "```\n", "小明("],
)
def test_a_huge_line_is_cleaned_in_one_go(unit: str) -> None:
    assert len(cleaned((unit * (300_000 // len(unit))).replace("\n", " "))) <= 300_000


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        ("123456", "letters"),
        ("?!?!?!", "letters"),
        ("½½½½½", "letters"),
        ("四個字啊", "short"),
        ("五個字才行", None),
        ("字" * 15, None),
        ("字" * 16, "long"),
        ("a" * 16, "long"),
        ("あいうえお", None),
        ("abcde", None),
    ],
)
def test_refusals(piece: str, reason: str | None) -> None:
    assert refusal(piece, CaptionRules()) == reason


def test_refusal_by_character() -> None:
    rules = CaptionRules(charset=character_set("big5"))
    assert refusal("今天天氣很好", rules) is None
    assert refusal("今天发生什么", rules) == "characters"


@pytest.mark.parametrize("name", ["big5", "gb2312", "cp950", "Big5-HKSCS", "ascii"])
def test_a_set_that_is_an_encoding(name: str) -> None:
    found = character_set(name)
    for text in ("裡面", "里面", "发生", "abc,!", "é", "𠮷"):
        wrong = [c for c in text if not c.encode(name, "ignore")]
        assert found.outside(text) == "".join(wrong[:1])


def test_a_set_that_is_a_file_or_written_out(tmp_path: Path) -> None:
    path = tmp_path / "字表.txt"
    path.write_text("\ufeff你\n好，\n嗎", encoding="utf-8")
    # The written form of the comma is narrow.
    assert character_set(path) == CharacterSet(characters=frozenset("你好,嗎"))
    assert character_set(str(path)).outside("你好 嗎,他") == "他"
    assert character_set("你好嗎abc").outside("你 好b") == ""


@pytest.mark.parametrize("wrong", ["bgi5", "rot13", "沒有.txt", "nothing.txt", "資料/字表", ""])
def test_sets_that_are_none(wrong: str) -> None:
    with pytest.raises(CorpusError, match="no set of characters"):
        character_set(wrong)


def test_an_empty_or_foreign_file_is_no_set(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\n")
    with pytest.raises(CorpusError, match="holds no character"):
        character_set(tmp_path / "a")
    (tmp_path / "a").write_bytes("好".encode("big5"))
    with pytest.raises(CorpusError, match="line 1: byte"):
        character_set(tmp_path / "a")
    with pytest.raises(CorpusError, match="no set of characters"):
        character_set(tmp_path / "沒有")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_chars": 0}, "min_chars is 0"),
        ({"min_chars": 16}, "min_chars is 16 and max_chars is 15"),
        ({"convert": "jp"}, "convert is 'jp'; known are tw, twp, hk, s"),
        ({"brackets": "no"}, "known are content, marks, keep"),
        ({"connectives": "in"}, "known are after, before"),
    ],
)
def test_rules_that_are_none(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaptionRules(**options)  # type: ignore[arg-type]
