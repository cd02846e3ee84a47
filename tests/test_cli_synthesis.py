"""The verb synth, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from drawn_fonts import save_font
from PIL import Image

from caprag.synthesis.reading import read_manifest

TEXTS = ["你好嗎", "我很好,謝謝", "今天一起去看海", "三點見", "走吧"]
ROMAN = "".join(map(chr, range(0x21, 0x7F)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "句子.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    save_font(tmp_path / "字體" / "a.ttf", "".join(TEXTS) + "，" + ROMAN)
    (tmp_path / "照片").mkdir()
    colours = np.random.default_rng(0).integers(0, 255, (90, 160, 3), np.uint8)
    Image.fromarray(colours).save(tmp_path / "照片" / "一.png")
    return tmp_path


def synth(folder: Path, *options: str, text: str = "句子.txt") -> subprocess.CompletedProcess[str]:
    """Run the verb in a folder, with its text and fonts unless told otherwise."""
    given = [] if "--fonts" in options else ["--fonts", "字體"]
    command = [sys.executable, "-m", "caprag", "synth", "--text", text, *given, *options, "--quiet"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, encoding="utf-8", check=False)


def test_a_plain_run(folder: Path) -> None:
    done = synth(
        folder, "--backgrounds", "照片", "--out", "圖", "--count", "12", "--seed", "3", "--workers", "2",
        "--size", "160x90", "--damage", "light",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "12 pictures, 12 of them made now" in done.stderr
    rows = list(read_manifest(folder / "圖"))
    assert [row["number"] for row in rows] == list(range(12))
    for row in rows:
        with Image.open(folder / "圖" / row["file_name"]) as image:
            assert image.size == (160, 90)
        assert row["background"]["file"] == "一.png"
        assert row["damage"]["strength"] == 0.3
    again = synth(
        folder, "--backgrounds", "照片", "--out", "圖", "--count", "12", "--seed", "3", "--size", "160x90",
        "--damage", "light",
    )  # fmt: skip
    assert (again.returncode, "12 pictures, 0 of them made now" in again.stderr) == (0, True)


def test_each_sentence_once(folder: Path) -> None:
    # Repeated lines and those too long for the frame are lines too; empty ones are not.
    lines = [*TEXTS[:2], "", TEXTS[0], TEXTS[2] * 6, TEXTS[3]]
    (folder / "b.txt").write_text("\n".join(lines), encoding="utf-8")
    done = synth(
        folder, "--out", "o", "--each", "--size", "160x90", "--kinds", "line=1,empty=5,two_speakers=2",
        "--overflow", "skip", text="b.txt",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    drawn = [row["text"].replace("\n", "") for row in read_manifest(folder / "o")]
    assert drawn == [line for line in lines if line]


def test_several_sizes_shares_and_a_floor(folder: Path) -> None:
    done = synth(
        folder, "--out", "o", "--count", "60", "--size", "160x90", "--size", "90x160", "--floor", "20",
        "--crop", "line", "--kinds", "line=3,top=1", "--looks", "box", "--type-size", "8-9",
        "--container", "tar", "--format", "png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = list(read_manifest(folder / "o"))
    assert {row["kind"] for row in rows} == {"line", "top"}
    assert {row["style"]["look"] for row in rows} == {"box"}
    assert {row["font_size"] for row in rows} == {8, 9}
    counts = Counter(c for row in rows for c in set(row["text"]))
    assert min(counts.values()) >= 20
    assert "floor       20 pictures" in done.stderr


def test_lengths_are_those_of_a_file_of_captions(folder: Path) -> None:
    # One caption that comes again and again counts each time.
    (folder / "a.txt").write_text("走吧\n走吧\n走吧\n三點見\n", encoding="utf-8")
    assert synth(folder, "--out", "o", "--count", "40", "--lengths", "a.txt", "--size", "160x90", "--kinds",
                 "line").returncode == 0  # fmt: skip
    assert Counter(len(row["text"]) for row in read_manifest(folder / "o")) == {2: 30, 3: 10}


def test_a_recipe_is_printed_and_taken(folder: Path) -> None:
    shown = synth(folder, "--show-recipe", "--kinds", "vertical")
    recipe = json.loads(shown.stdout)
    assert recipe["kinds"] == {"vertical": 1.0}
    (folder / "r.json").write_text(shown.stdout, encoding="utf-8")
    assert synth(folder, "--recipe", "r.json", "--out", "o", "--count", "3", "--size", "160x90").returncode == 0
    assert {row["kind"] for row in read_manifest(folder / "o")} == {"vertical"}


def test_a_preview_makes_no_data_set(folder: Path) -> None:
    done = synth(folder, "--preview", "圖/sheet.png", "--size", "160x90", "--count", "30")
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "圖" / "sheet.png") as image:
        assert image.width > 500
    assert [path.name for path in (folder / "圖").iterdir()] == ["sheet.png"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--out is missing"),
        (["--out", "o", "--size", "160"], "--size 160: wanted is width x height"),
        (["--out", "o", "--size", "9x9"], "sizes is"),
        (["--out", "o", "--damage", "awful"], "--damage awful: known are none, light, medium, severe"),
        (["--out", "o", "--damage", "7"], "damage is 7"),
        (["--out", "o", "--kinds", "diagonal=1"], "diagonal"),
        (["--out", "o", "--kinds", "line=x"], "x is not a number"),
        (["--out", "o", "--looks", "none"], "looks"),
        (["--out", "o", "--type-size", "big"], "--type-size big: wanted"),
        (["--out", "o", "--crop", "circle"], "crop is 'circle'"),
        (["--out", "o", "--format", "gif"], "format is 'gif'"),
        (["--out", "o", "--container", "zip"], "zip"),
        (["--out", "o", "--fonts", "none.ttf"], "none.ttf: does not exist"),
        (["--out", "o", "--backgrounds", "nowhere"], "nowhere"),
        (["--out", "o", "--recipe", "句子.txt"], "is not JSON"),
        (["--out", "o", "--each", "--count", "3"], "--each"),
        (["--out", "句子.txt"], "句子.txt"),
        (["--preview", "sheet.xyz", "--size", "160x90"], "sheet.xyz"),
    ],
)
def test_wrong_use_says_what_is_wanted(folder: Path, options: list[str], said: str) -> None:
    done = synth(folder, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_fonts_and_texts_that_do_not_go_together(folder: Path) -> None:
    save_font(folder / "roman.ttf", ROMAN)
    done = synth(folder, "--out", "o", "--fonts", "roman.ttf")
    assert done.returncode == 2
    assert "roman.ttf: has the characters of none of the sentences" in done.stderr
    (folder / "b.txt").write_text("你好嗎\n龜兔賽跑\n", encoding="utf-8")
    done = synth(folder, "--out", "o", "--size", "160x90", text="b.txt")
    assert done.returncode == 0
    assert "1 of 2 sentences are left out: no font has their characters (龜兔賽跑)" in done.stderr
    (folder / "empty.txt").write_text("", encoding="utf-8")
    done = synth(folder, "--out", "o2", text="empty.txt")
    assert done.returncode == 2
    assert "no sentence to draw" in done.stderr
