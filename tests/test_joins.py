"""Two sentences of a script in one caption, and one over two captions."""

from __future__ import annotations

import pytest
from test_parts import SENTENCES

import caprag
from caprag.reranking.joins import halved, joined
from caprag.types import Embedder, Hit, Sentence

HALVES = (
    "好呀我們一起去吧", "麥嘜同學今天沒有來", "你為什麼還不回家呢", "那個人已經走得很遠了", "我昨天在街",
    "上看見他子", "明天早上八點鐘出發", "他說他從來沒冇", "去過那裡", "這件事情我完全不知道", "老師叫我們把書打開",
    "外面下著很大的雨", "媽媽做的菜最好吃了",
)  # fmt: skip
"""Of `SENTENCES` as captions; two of them over two captions, each misread once."""
PAIR = {(3, 4): ("電影開始了!", "快關燈。")}


@pytest.fixture(scope="module")
def index(tiny_embedder: Embedder) -> caprag.Index:
    return caprag.Index.build(
        [Sentence(text, "劇本.txt", 2 * i + 1) for i, text in enumerate(SENTENCES)], tiny_embedder
    )


def test_two_sentences_of_a_script_in_a_caption_are_both_answered(index: caprag.Index) -> None:
    read = [*SENTENCES[:8], f"{SENTENCES[8]}　　外面下著很大旳雨", *SENTENCES[10:]]
    answer = caprag.Pipeline(index).snap(read)[8]
    assert answer.text == f"{SENTENCES[8]} 外面下著很大的雨"
    assert answer.hit is not None
    assert (answer.hit.id, answer.hit.behind) == (8, 9)
    # Those that stand apart are not thought of.
    apart = f"{SENTENCES[2]}{SENTENCES[9]}"
    assert not any(hit.behind for hit in caprag.Pipeline(index).find([[caprag.Hypothesis(apart)]])[0])


def test_two_sentences_are_joined_as_the_caption_joins_them() -> None:
    hits = [Hit(4, "快關燈。", 0.4, dense=0.5)]
    for reading, wanted in (
        ("電影開姶了！ 快闗燈", "電影開始了! 快關燈。"), ("電影開姶了快闗燈", "電影開始了! 快關燈。"),
        ("-電影開姶了\n-快闗燈", "電影開始了!\n-快關燈。"),
    ):  # fmt: skip
        (hit,) = joined(reading, hits, PAIR)
        assert (hit.text, hit.id, hit.behind, hit.dense) == (wanted, 3, 4, 0.5)
    assert joined("電影開姶了", [Hit(3, "電影開始了!", 0.8)], PAIR) == []
    assert joined("完全是另一回事情", hits, PAIR) == joined("", [], {}) == []
    # A word of one letter.
    (hit,) = joined("是電影開始了", [Hit(3, "電影開始了", 0.8)], {(2, 3): ("是", "電影開始了")})
    assert hit.text == "是 電影開始了"


def test_a_sentence_over_two_captions_is_halved_as_they_are(index: caprag.Index) -> None:
    reader = caprag.Pipeline(index)
    whole = reader.snap(HALVES)
    assert "".join(caption.text for caption in whole) == "".join(SENTENCES[:11])
    assert [caption.text for caption in whole[4:6]] == ["我昨天在街", "上看見他了"]
    assert [caption.hit.id for caption in whole[4:6] if caption.hit is not None] == [4, 4]
    assert list(reader.snap_stream(iter(HALVES))) == whole
    frames = [text for text in HALVES for _ in range(3)]
    assert [caption.text for caption in reader.snap(frames)][::3] == [caption.text for caption in whole]


def test_halves_are_what_two_captions_are_nearer_to_than_to_any_sentence() -> None:
    def texts(read: str, behind: str, *sentences: str) -> list[tuple[str, str]]:
        hits = [Hit(number, text, 0.3) for number, text in enumerate(sentences)]
        return [(one.text, two.text) for one, two in halved(read, hits, behind, hits, lambda _read, _answer: True)]

    assert texts("他從來沒", "冇去過那裡", "他從來沒有, 去過那裡") == [("他從來沒", "有, 去過那裡")]
    assert texts("他從來沒有", "去過那裡", "他從來沒有, 去過那裡") == [("他從來沒有,", "去過那裡")]
    assert texts("他從來沒", "冇去過那裡", "他從來沒", "有去過那裡", "他從來沒有去過那裡") == []
    assert texts("走吧", "走吧", "走吧走吧") == texts("走", "吧", "走吧") == texts("", "", "走吧") == []


def test_what_is_kept_is_kept_in_halves_and_joins(index: caprag.Index) -> None:
    def answers(kept: caprag.Kept, read: list[str]) -> list[str]:
        return [caption.text for caption in caprag.Pipeline(index, kept=kept).snap(read)]

    kept = answers(caprag.Kept(words=["沒冇"], lines=["上看見他子"]), list(HALVES))
    assert [kept[4], kept[5], kept[7], kept[8]] == ["我昨天在街", "上看見他子", "他說他從來沒冇", "去過那裡"]
    two = [*SENTENCES[:8], f"{SENTENCES[8]}　　外面下著很大旳雨", *SENTENCES[10:]]
    assert answers(caprag.Kept(words=["大旳"]), two)[8] == two[8]


def test_pairs_follow_what_an_index_holds(tiny_embedder: Embedder) -> None:
    rows = [("好", "a", 1), ("不好", "a", 4), ("很好", "a", 9), ("再見", "b", 2), ("好", "b", 3)]
    index = caprag.Index.build([Sentence(*row) for row in rows], tiny_embedder)
    assert index.pairs([0, 3, 99]) == {(0, 1): ("好", "不好"), (3, 0): ("再見", "好")}
    assert index.pairs([2]) == index.pairs([]) == {}
    (number,) = index.add([Sentence("太好", "a", 7)])
    assert index.pairs([2]) == {(number, 2): ("太好", "很好")}
    index.remove([1])
    assert index.pairs([0, number]) == {(3, 0): ("再見", "好"), (number, 2): ("太好", "很好")}
    plain = caprag.Index.build(["一", "二", "三"], tiny_embedder)
    assert plain.pairs([1]) == {(0, 1): ("一", "二"), (1, 2): ("二", "三")}
