"""Poems to verses: reading, splitting, aligning (against brute force), joining."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from caprag.errors import CorpusError
from caprag.poems import Poem, VersePair, make_verses, read_poems, write_training
from caprag.poems.alignment import align_lengths, align_translation, match_cost, split_clauses, split_sentences
from caprag.poems.corpus import cite, parse_citation, split_verses
from caprag.text import match_form
from caprag.training.pairs import read_pairs
from caprag.types import Sentence

NIGHT = {"title": "静夜思", "author": "李白", "lines": ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。"]}
PAIR = {
    "translation": "床前洒满了月光。",
    "choices": ["窗前明月光", "床前明月光", "床前看月光", "牀前明月光"],
    "answer": 1,
}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


# --- reading ------------------------------------------------------------------------------------------------------


def test_both_kinds_of_rows_are_read_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", NIGHT, PAIR)
    poem, pair = read_poems(path)
    assert poem == Poem("静夜思", "李白", ("床前明月光,疑是地上霜。", "举头望明月,低头思故乡。"), (), str(path), 1)
    # 牀 is 床 in other characters, and so no wrong choice.
    assert pair == VersePair("床前洒满了月光。", "床前明月光", ("窗前明月光", "床前看月光"), str(path), 2)


@pytest.mark.parametrize("key", ["lines", "paragraphs", "content"])
def test_the_keys_of_the_collections_are_known(tmp_path: Path, key: str) -> None:
    row = {"rhythmic": "浣溪沙", "author": None, key: ["一曲新詞酒一杯"], "translation": "聽一曲新詞，\n喝一杯酒。"}
    (poem,) = read_poems(write(tmp_path / "a.jsonl", row))
    assert isinstance(poem, Poem)
    assert (poem.title, poem.author, poem.lines) == ("浣溪沙", "", ("一曲新詞酒一杯",))
    assert poem.translation == ("聽一曲新詞,", "喝一杯酒。")


def test_only_what_is_simplified_is_converted(tmp_path: Path) -> None:
    # OpenCC would make 後 of the 后 of an empress, and 雲 of a 云 that means to say.
    traditional = {"title": "賀", "author": "無名氏", "lines": ["皇后云：萬歲，讀書聲"]}
    path = write(tmp_path / "a.jsonl", NIGHT, traditional)
    night, other = read_poems(path, variant="tw")
    assert isinstance(night, Poem)
    assert isinstance(other, Poem)
    assert (night.title, night.lines[1]) == ("靜夜思", "舉頭望明月,低頭思故鄉。")
    assert other.lines == ("皇后云:萬歲,讀書聲",)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("no json", "is no JSON"),
        ("[1]", "an object"),
        ('{"title": "a"}', "neither lines"),
        ('{"lines": "。"}', "no line with a character"),
        ('{"lines": [1]}', "lines is list"),
        ('{"lines": ["a"], "author": 3}', "title or author"),
        ('{"lines": ["a"], "translation": 3}', "translation is int"),
        ('{"translation": "”", "choices": ["a"], "answer": 0}', "translation is"),
        ('{"translation": "a", "choices": [], "answer": 0}', "choices is"),
        ('{"translation": "a", "choices": ["a"]}', "has no answer"),
        ('{"translation": "a", "choices": ["a"], "answer": 1}', "answer is 1; a place from 0 to 0"),
        ('{"translation": "a", "choices": ["a"], "answer": true}', "answer is True"),
    ],
)
def test_a_wrong_row_is_named_and_the_rest_goes_on(tmp_path: Path, row: str, words: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f"{json.dumps(NIGHT)}\n\n{row}\n{json.dumps(PAIR)}\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 3: .*" + words):
        list(read_poems(path))
    errors: list[CorpusError] = []
    assert [type(entry) for entry in read_poems(path, on_error=errors.append)] == [Poem, VersePair]
    assert len(errors) == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"none\.jsonl"):
        list(read_poems(tmp_path / "none.jsonl"))


def test_training_rows_are_what_the_training_reads(tmp_path: Path) -> None:
    (pair,) = read_poems(write(tmp_path / "a.jsonl", PAIR))
    assert isinstance(pair, VersePair)
    assert write_training([pair], tmp_path / "train.jsonl") == 1
    (read,) = read_pairs(tmp_path / "train.jsonl")
    assert (read.query, read.positives) == (pair.translation, (pair.verse,))
    row = json.loads((tmp_path / "train.jsonl").read_text(encoding="utf-8"))
    assert row["neg"] == list(pair.negatives)


# --- splitting ----------------------------------------------------------------------------------------------------


def test_units_cut_ever_finer_and_lose_no_letter() -> None:
    line = "(正末唱)關關雎鳩，在河之洲。「窈窕淑女，君子好逑！」（一作「仇」）參差荇菜；左右流之"
    assert split_verses(line, "couplet") == [
        "關關雎鳩,在河之洲。", "「窈窕淑女,君子好逑!」", "參差荇菜;", "左右流之",
    ]  # fmt: skip
    assert split_verses(line, "clause")[:2] == ["關關雎鳩", "在河之洲"]
    letters = match_form("關關雎鳩在河之洲窈窕淑女君子好逑參差荇菜左右流之")
    for unit in ("clause", "couplet", "line"):
        assert match_form("".join(split_verses(line, unit))) == letters
    assert split_verses("(下)") == split_verses("。，") == []
    with pytest.raises(ValueError, match="unit is 'word'"):
        split_verses(line, "word")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("title", "author"), [("靜夜思", "李白"), ("關雎", ""), ("", "李白"), ("《別》二首", "無名氏")]
)
def test_a_citation_is_read_back(title: str, author: str) -> None:
    assert parse_citation(cite(title, author)) == (title, author)


# --- aligning -----------------------------------------------------------------------------------------------------


def all_ways(left: int, right: int) -> list[list[tuple[int, int]]]:
    """List every row of matches that covers so many pieces on both sides."""
    if left == right == 0:
        return [[]]
    kinds = [(1, 1), (1, 0), (0, 1), (1, 2), (2, 1), (2, 2)]
    return [
        [kind, *rest]
        for kind in kinds
        if kind[0] <= left and kind[1] <= right
        for rest in all_ways(left - kind[0], right - kind[1])
    ]


def test_the_alignment_is_the_cheapest_of_all() -> None:
    generator = random.Random(0)
    for _ in range(25):
        left = [generator.randint(3, 16) for _ in range(generator.randint(1, 4))]
        right = [generator.randint(3, 40) for _ in range(generator.randint(1, 4))]
        ratio = sum(right) / sum(left)

        def cost(way: list[tuple[int, int]]) -> float:
            total, i, j = 0.0, 0, 0
            for kind in way:
                total += match_cost(sum(left[i : i + kind[0]]), sum(right[j : j + kind[1]]), ratio, kind)  # noqa: B023
                i, j = i + kind[0], j + kind[1]
            return total

        found = align_lengths(left, right)
        way = [(b - a, d - c) for (a, b), (c, d) in found]
        assert cost(way) == pytest.approx(min(map(cost, all_ways(len(left), len(right)))))
        # Nothing is left out and nothing comes twice.
        assert list(itertools.chain.from_iterable(range(*span) for span, _ in found)) == list(range(len(left)))
        assert list(itertools.chain.from_iterable(range(*span) for _, span in found)) == list(range(len(right)))


def test_as_many_sentences_belong_together_one_by_one() -> None:
    verses = ["長" * 20, "短"]
    assert align_translation(verses, "短。" + "長" * 60 + "。") == ["短。", "長" * 60 + "。"]


def test_a_verse_that_is_told_in_two_sentences_gets_both() -> None:
    verses = ["白日依山盡,黃河入海流。", "欲窮千里目,更上一層樓。"]
    parts = ["太陽靠著山慢慢落下去。", "黃河朝著大海奔流。", "想要看到一千里以外的風光,就要再登上一層高樓才行。"]
    assert align_translation(verses, "".join(parts)) == ["".join(parts[:2]), parts[2]]


def test_two_verses_in_one_sentence_share_it() -> None:
    verses = ["甲乙丙丁", "戊己庚辛", "子丑寅卯辰巳午未"]
    parts = ["甲" * 20 + "。", "子" * 20 + "。"]
    assert align_translation(verses, "".join(parts)) == [parts[0], parts[0], parts[1]]


def test_a_translation_of_nothing_is_nothing() -> None:
    assert align_translation(["甲乙", "丙丁"], "。") == ["", ""]
    assert align_translation([], "甲乙。") == []


def test_pieces_join_to_the_text() -> None:
    text = "天亮了;「走吧!」他說,她笑:好……好"
    assert "".join(split_sentences(text)) == "".join(split_clauses(text)) == text


# --- joining ------------------------------------------------------------------------------------------------------


def test_a_pair_lends_its_translation_and_gets_the_poem(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", PAIR, NIGHT, {**PAIR, "choices": ["無處尋覓"], "answer": 0})
    sentences, report = make_verses(read_poems(path), unit="clause")
    assert sentences[0] == Sentence("床前明月光", "李白《静夜思》", 1, ("床前洒满了月光。",))
    assert [s.text for s in sentences] == ["床前明月光", "疑是地上霜", "举头望明月", "低头思故乡", "無處尋覓"]
    assert sentences[2].line == 2
    # What no poem has keeps its file for a source.
    assert (sentences[4].source, sentences[4].line) == (str(path), 3)
    assert (report.poems, report.pairs, report.verses, report.translated, report.traced) == (1, 2, 5, 2, 1)


def test_a_clause_is_traced_though_couplets_are_indexed(tmp_path: Path) -> None:
    sentences, report = make_verses(read_poems(write(tmp_path / "a.jsonl", PAIR, NIGHT)))
    assert [s.text for s in sentences] == ["床前明月光,疑是地上霜。", "举头望明月,低头思故乡。", "床前明月光"]
    assert (sentences[2].source, sentences[2].line) == ("李白《静夜思》", 1)
    assert report.traced == 1


def test_by_verse_leaves_the_translations_out() -> None:
    entries: list[Poem | VersePair] = [Poem("甲", "乙", ("丙丁。",), ("譯。",)), VersePair("譯二。", "丙丁")]
    aliased, _ = make_verses(entries)
    plain, report = make_verses(entries, by="verse")
    assert aliased == [Sentence("丙丁。", "乙《甲》", 1, ("譯。", "譯二。"))]
    assert plain == [Sentence("丙丁。", "乙《甲》", 1)]
    assert report.translated == 1


def test_lines_that_agree_are_aligned_line_by_line() -> None:
    poem = Poem("甲", "乙", ("一一一。二二。", "三三三。"), ("壹，壹！貳。", "參。肆。"))
    sentences, report = make_verses([poem])
    assert [s.aliases for s in sentences] == [("壹，壹！",), ("貳。",), ("參。肆。",)]
    assert report.unaligned == 0


def test_what_is_not_aligned_is_counted() -> None:
    poem = Poem("甲", "乙", tuple(f"{c * 5}。" for c in "一二三四五六"), ("譯" * 14 + "。",))
    sentences, report = make_verses([poem])
    assert report.unaligned == sum(not s.aliases for s in sentences) > 0


def test_the_same_verse_in_other_characters_comes_once() -> None:
    poems = [Poem("甲", "乙", ("舉頭望明月。",)), Poem("丙", "丁", ("举头望明月!",))]
    sentences, report = make_verses(poems)
    assert sentences == [Sentence("舉頭望明月。", "乙《甲》", 1)]
    assert report.repeated == 1


def test_authors_are_chosen_in_whatever_characters() -> None:
    poems: list[Poem | VersePair] = [
        Poem("甲", "陆游", ("死去元知萬事空。",)), Poem("丙", "李白", ("舉頭望明月。",)),
        VersePair("原本知道", "死去元知萬事空"), VersePair("抬頭看", "舉頭望明月"), VersePair("別處", "無處尋覓"),
    ]  # fmt: skip
    sentences, report = make_verses(poems, authors=["陸游"])
    assert sentences == [Sentence("死去元知萬事空。", "陆游《甲》", 1, ("原本知道",))]
    assert report.other_authors == 3
    with pytest.raises(CorpusError, match="no poem by 杜甫"):
        make_verses(poems, authors=["陸游", "杜甫"])
    with pytest.raises(ValueError, match="no letter"):
        make_verses(poems, authors=["。"])


def test_nothing_is_an_error_and_wrong_words_are_named() -> None:
    with pytest.raises(CorpusError, match="no verse"):
        make_verses([])
    with pytest.raises(ValueError, match="by is 'ear'"):
        make_verses([], by="ear")  # type: ignore[arg-type]


def test_real_poems_and_pairs_are_read(data: Path) -> None:
    errors: list[CorpusError] = []
    files = [data / "poems/poems.jsonl", data / "poems/ccpm-valid.jsonl"]
    sentences, report = make_verses(
        read_poems(files, on_error=errors.append), unit="clause", authors=["李白", "杜甫"]
    )  # fmt: skip
    # Every row is accounted for; one of CCPM has a quotation mark for a translation.
    assert "ccpm-valid.jsonl, line 749: translation" in " ".join(map(str, errors))
    assert report.poems + report.pairs + len(errors) == 41148 + 2720
    assert len(errors) < 10
    assert report.translated == sum(bool(s.aliases) for s in sentences) > 50
    moon = next(s for s in sentences if match_form(s.text) == match_form("疑是地上霜"))
    assert parse_citation(moon.source)[1] == "李白"


def test_the_lines_of_a_poem_are_no_string() -> None:
    with pytest.raises(TypeError, match=r"lines is the string '床前明月光'; a tuple of lines is wanted: lines=\("):
        Poem("靜夜思", "李白", "床前明月光")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="translation is the string"):
        Poem("靜夜思", "李白", ("床前明月光",), "床前的月光")  # type: ignore[arg-type]
