"""Captions of two sentences that do not stand one behind the other, or of one and something else."""

from __future__ import annotations

import pytest

import caprag
from caprag.reranking.parts import cuts
from caprag.text import countable
from caprag.types import Embedder

SENTENCES = (
    "好呀我們一起去吧", "麥嘜同學今天沒有來", "你為什麼還不回家呢", "那個人已經走得很遠了", "我昨天在街上看見他了",
    "明天早上八點鐘出發", "他說他從來沒有去過那裡", "這件事情我完全不知道", "老師叫我們把書打開", "外面下著很大的雨",
    "媽媽做的菜最好吃了", "我們家就在河的那一邊", "電影馬上就要開始了", "請你把窗戶關起來", "弟弟的生日是哪一天",
)  # fmt: skip


@pytest.fixture(scope="module")
def index(tiny_embedder: Embedder) -> caprag.Index:
    return caprag.Index.build(SENTENCES, tiny_embedder)


def pipeline(index: caprag.Index, *, in_order: bool = False, parts: bool = True) -> caprag.Pipeline:
    return caprag.Pipeline(index, in_order=in_order, parts=parts)


def test_two_sentences_in_a_caption_are_each_snapped(index: caprag.Index) -> None:
    read = "你為什麼還不同家呢　　外面下著很大旳雨"
    answer = pipeline(index).snap([read])[0]
    assert answer.text == "你為什麼還不回家呢 外面下著很大的雨"
    assert [part.text for part in answer.parts] == ["你為什麼還不回家呢", "外面下著很大的雨"]
    assert answer.hit is not None
    assert answer.hit.text == "你為什麼還不回家呢"
    assert pipeline(index, parts=False).snap([read])[0].text == read


def test_two_sentences_that_nothing_parts_are_found(index: caprag.Index) -> None:
    answer = pipeline(index).snap(["電影馬上就要開始子請你把窗戶關起夾"])[0]
    assert countable(answer.text) == "電影馬上就要開始了請你把窗戶關起來"


def test_a_part_that_is_no_sentence_stays_as_read(index: caprag.Index) -> None:
    answer = pipeline(index).snap(["阿旺你過來一下! 老師叫我們把書打問"])[0]
    assert answer.text == "阿旺你過來一下! 老師叫我們把書打開"
    assert [part.hit is None for part in answer.parts] == [True, False]


def test_what_no_sentence_is_near_to_stays_as_it_was_read(index: caprag.Index) -> None:
    read = ["今晚　吃什麼飯好", "甲乙丙丁, 戊己庚辛", "走! 走!", "……", ""]
    assert [caption.text for caption in pipeline(index, in_order=True).snap(read)] == read


def test_what_is_kept_is_kept_in_parts(index: caprag.Index) -> None:
    two = "你為什麼還不同家呢　　外面下著很大旳雨"

    def answers(kept: caprag.Kept) -> list[str]:
        return [caption.text for caption in caprag.Pipeline(index, kept=kept, parts=True).snap([two])]

    assert answers(caprag.Kept(lines=[two])) == [two]
    assert answers(caprag.Kept(words=["同家"])) == ["你為什麼還不同家呢 外面下著很大的雨"]


def test_parts_say_what_was_weighed(index: caprag.Index) -> None:
    answer = pipeline(index).snap(["你為什麼還不同家呢　　外面下著很大旳雨"])[0]
    assert [hit.text for hit in answer.considered] == ["你為什麼還不回家呢", "外面下著很大的雨"]
    assert not answer.evidence
    assert all(part.evidence for part in answer.parts)


def test_cuts_are_at_marks_and_where_sentences_end() -> None:
    assert cuts("") == cuts("好") == cuts("!?") == []
    assert [(cut.left, cut.right) for cut in cuts("一二 三四,五六")] == [("一二", "三四,五六"), ("一二 三四", "五六")]
    assert [(cut.left, cut.between, cut.right) for cut in cuts("甲乙丙丁戊己", ["甲乙丙", "丁戊己", "甲"])] == [
        ("甲乙丙", "", "丁戊己"),
        ("甲乙", "", "丙丁戊己"),
        ("甲乙丙丁", "", "戊己"),
    ]
    assert all(f"{cut.left}{cut.between}{cut.right}" == "你好 - 再見" for cut in cuts("你好　－　再見"))
    assert len(cuts("一二,三四,五六,七八,九十,甲乙,丙丁,戊己,庚辛")) == 6
