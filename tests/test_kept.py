"""What a user knows to be right stays."""

from __future__ import annotations

from pathlib import Path

import pytest

import caprag
from caprag.errors import CorpusError
from caprag.reranking import Kept
from caprag.types import Embedder, Hit


def hits(*texts: str) -> list[Hit]:
    return [Hit(number, text, 0.5) for number, text in enumerate(texts)]


def allowed(kept: Kept, reading: str, *texts: str) -> list[str]:
    return [hit.text for hit in kept.allowed(reading, hits(*texts))]


def test_a_word_that_was_read_is_never_lost() -> None:
    kept = Kept(words=["麥兜", "OK"])
    assert allowed(kept, "麥兜,麥兜!", "麥兜麥兜", "麥兜麥嘜", "麥嘜") == ["麥兜麥兜"]
    assert allowed(kept, "OK啦", "OK啦", "ok啦", "好啦") == ["OK啦"]
    assert allowed(kept, "麥嘜來了", "麥兜來了", "麥嘜來了") == ["麥兜來了", "麥嘜來了"]


def test_a_line_that_is_kept_is_snapped_to_nothing() -> None:
    kept = Kept(lines=["我們走!"])
    assert allowed(kept, "「我們走」", "我們走", "我們走吧") == []
    assert allowed(kept, "我們走吧", "我們走") == ["我們走"]


def test_what_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no letter or digit"):
        Kept(words=["…"])
    words = tmp_path / "字詞.txt"
    words.write_text("麥兜\n\n——\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"字詞\.txt, line 3: .*remove the line"):
        Kept.read(words)
    with pytest.raises(CorpusError, match=r"none\.txt"):
        Kept.read(lines=tmp_path / "none.txt")
    words.write_bytes("麥兜\n".encode("big5"))
    with pytest.raises(CorpusError, match="line 1"):
        Kept.read(words)
    assert allowed(Kept.read(words, encoding="big5"), "麥兜呀", "麥嘜呀") == []


def test_the_pipeline_keeps_them(tiny_embedder: Embedder) -> None:
    index = caprag.Index.build(["麥嘜同學今天沒有來", "外面下著很大的雨", "電影馬上就要開始了"], tiny_embedder)
    read = ["麥兜同學今天沒有來", "外面下著很大旳雨"]
    free, bound = caprag.Pipeline(index), caprag.Pipeline(index, kept=Kept(["麥兜"], ["外面下著很大旳雨"]))
    assert [caption.text for caption in free.snap(read)][1] == "外面下著很大的雨"
    assert [caption.text for caption in bound.snap(read)] == read


def test_marks_are_kept_where_it_is_asked(tiny_embedder: Embedder) -> None:
    index = caprag.Index.build(["外面下著很大的雨", "電影馬上就要開始了"], tiny_embedder)
    answers = caprag.Pipeline(index, keep_marks=True).snap(["「外面下著很大旳雨……」", "電影馬上就要開始子！"])
    assert [caption.text for caption in answers] == ["「外面下著很大的雨……」", "電影馬上就要開始了！"]
