from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from caprag.errors import CapragError
from caprag.results import ResultFile, caption_row
from caprag.types import Caption, Hit, Hypothesis

CAPTION = Caption("走嘞\n好", Hit(7, "走嘞\n好", 0.5), (Hypothesis("走勒\n好", -1.25), Hypothesis("走", -3.0)), 0.75)


def row(image: str, caption: Caption = CAPTION) -> dict[str, object]:
    return {"image": image, **caption_row(caption)}


def write(path: Path, images: list[str]) -> set[str]:
    with ResultFile(path, "image") as results:
        done = set(results.done)
        for image in images:
            if image not in results.done:
                results.write(row(image))
    return done


def test_a_row_says_what_was_read_and_what_is_answered() -> None:
    assert caption_row(CAPTION) == {
        "text": "走嘞\n好",
        "read": "走勒\n好",
        "snapped": True,
        "sentence_id": 7,
        "confidence": 0.75,
        "hypotheses": [{"text": "走勒\n好", "logprob": -1.25}, {"text": "走", "logprob": -3.0}],
    }
    kept = caption_row(Caption("走", None, (Hypothesis("走"),), 0.5))
    assert kept["snapped"] is False
    assert kept["sentence_id"] is None


def test_a_lone_surrogate_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with ResultFile(path, "image") as results:
        results.write(row("a", Caption("走\ud800", None, (Hypothesis("走\ud800"),), 0.5)))
    assert json.loads(path.read_text(encoding="utf-8"))["text"] == "走?"


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_file_is_taken_up_where_it_stopped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"結果{suffix}"
    whole = tmp_path / f"whole{suffix}"
    write(whole, ["甲,1.png", '乙"2.png', "丙.png"])
    assert write(path, ["甲,1.png"]) == set()
    assert write(path, ["甲,1.png", '乙"2.png', "丙.png"]) == {"甲,1.png"}
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_file_cut_anywhere_is_mended(tmp_path: Path, suffix: str) -> None:
    """A kill may cut the last row at any byte; taken up again the file is as if nothing had happened."""
    images = ["甲.png", "乙.png"]
    whole = tmp_path / f"whole{suffix}"
    write(whole, images)
    content = whole.read_bytes()
    for cut in range(len(content)):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(content[:cut])
        write(path, images)
        assert path.read_bytes() == content, cut


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_odd_line_breaks_in_a_text_part_no_rows(tmp_path: Path, suffix: str) -> None:
    odd = "甲\u2028乙\x85丙\x0b丁\x1c戊\r己"
    path = tmp_path / f"out{suffix}"
    for _ in range(2):
        with ResultFile(path, "image") as results:
            for image in ("1", "2", "3"):
                if image not in results.done:
                    results.write(row(image, Caption(odd, None, (Hypothesis(odd, -math.inf),), 0.5)))
    with ResultFile(path, "image") as results:
        assert results.done == {"1": odd, "2": odd, "3": odd}


def test_csv_can_be_read_by_anyone(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    write(path, ["a.png"])
    with path.open(encoding="utf-8", newline="") as stream:
        (only,) = list(csv.DictReader(stream))
    assert only == {
        "image": "a.png",
        "text": "走嘞\n好",
        "read": "走勒\n好",
        "snapped": "True",
        "sentence_id": "7",
        "confidence": "0.75",
    }


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("out.txt", None, "write to .jsonl or .csv"),
        ("out.csv", "a,b\n1,2\n", "choose another file"),
        ("out.jsonl", "{}\n", "choose another file"),
        ("out.jsonl", "not json\n", "choose another file"),
        ("out.jsonl", "[1]\n", "choose another file"),
        ("out.jsonl", "my own notes", "choose another file"),
        ("out.csv", "my own notes", "choose another file"),
    ],
)
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(CapragError, match=words):
        ResultFile(path, "image")
    if content is not None:
        assert path.read_text(encoding="utf-8") == content
