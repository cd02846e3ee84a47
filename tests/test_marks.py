"""Sentences with the marks of their readings."""

from __future__ import annotations

import pytest

from caprag.reranking.marks import with_marks_of
from caprag.text import countable


@pytest.mark.parametrize(
    ("reading", "sentence", "answer"),
    [
        ("你去邦？", "你去哪", "你去哪？"),
        ("「你好嗎」", "你好嗎。", "「你好嗎」"),
        ("喂！　你去邦？", "喂,你去哪裡", "喂！　你去哪裡？"),
        ("好呀", "好呀!", "好呀"),
        ("MissChan來子", "Miss Chan來了", "Miss Chan來了"),
        ("Miss  Chan來子", "Miss Chan來了", "Miss  Chan來了"),
        ("！？", "好", "！？好"),
        ("", "好,好", "好好"),
        ("甲，乙，丙", "丙", "，，丙"),
        ("３．５公里", "3.5公里", "3．5公里"),
    ],
)
def test_marks_are_the_readings(reading: str, sentence: str, answer: str) -> None:
    assert with_marks_of(reading, sentence) == answer
    assert countable(answer) == countable(sentence)
