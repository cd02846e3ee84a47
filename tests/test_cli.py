from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import caprag
from caprag import cli

ROOT = Path(__file__).resolve().parent.parent
FRAMES = ROOT / "indexes/demo/frames"
SENTENCES = ["妳在開玩笑嗎", "不會持續太久的", "昨天還很喜歡 今天就膩了", "因為再也沒有這種機會了嘛", "走嘞"]


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["caprag", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Result(int(stop.value.code or 0), out, err)

    return call


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("索引") / "drama"
    caprag.Index.build(SENTENCES).save(folder)
    return folder


def test_snap_answers_in_the_order_of_the_input(run: Any, index: Path) -> None:
    readings = "不會持績太久的\n\n沒有人說過的一句長話\n妳在開玩笑嗎\n"
    result = run("snap", "-", "--index", index, stdin=readings.encode())
    assert result.code == 0
    assert [row["line"] for row in result.rows] == [1, 2, 3, 4]
    assert [row["text"] for row in result.rows] == ["不會持續太久的", "", "沒有人說過的一句長話", "妳在開玩笑嗎"]
    assert [row["snapped"] for row in result.rows] == [True, False, False, True]
    assert [row["sentence_id"] for row in result.rows] == [1, None, None, 0]
    assert [row["read"] for row in result.rows] == readings.split("\n")[:-1]
    assert all(0 <= row["confidence"] <= 1 for row in result.rows)


def test_snap_reads_subtitles_and_tables(run: Any, index: Path, tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\n不會持績太久的\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text("id,text\n1,不會持績太久的\n", encoding="utf-8")
    for name in ("a.srt", "a.csv"):
        assert [row["text"] for row in run("snap", tmp_path / name, "--index", index).rows] == ["不會持續太久的"]


def test_a_line_that_does_not_decode_is_named_and_the_rest_goes_on(run: Any, index: Path) -> None:
    result = run("snap", "-", "--index", index, stdin="走嘞\n".encode() + "走\n".encode("big5") + "走勒\n".encode())
    assert result.code == 1
    assert "stdin, line 2" in result.err
    assert [row["line"] for row in result.rows] == [1, 3]


def test_results_of_other_readings_are_not_taken_for_these(run: Any, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert run("snap", "-", "--index", index, "--out", out, stdin="走勒\n".encode()).code == 0
    before = out.read_bytes()
    result = run("snap", "-", "--index", index, "--out", out, stdin="不會持績太久的\n".encode())
    assert result.code == 2
    assert "another reading" in result.err
    assert out.read_bytes() == before


def test_a_name_that_is_no_utf8_is_read_all_the_same(run: Any, tmp_path: Path) -> None:
    for letter in (b"\xfe", b"\xff"):
        shutil.copyfile(FRAMES / "01-clear.jpg", os.fsdecode(os.fsencode(tmp_path) + b"/" + letter + b".jpg"))
    result = run("read", tmp_path)
    assert result.code == 0
    assert [row["image"][-8:] for row in result.rows] == ["\\xfe.jpg", "\\xff.jpg"]


def test_read_names_what_it_cannot_read_and_goes_on(run: Any, index: Path, tmp_path: Path) -> None:
    folder = tmp_path / "畫面"
    folder.mkdir()
    (folder / "1.png").write_text("this is no picture")
    (folder / "2.png").touch()
    good = FRAMES / "01-clear.jpg"
    result = run("read", folder, tmp_path / "missing.png", good, "--index", index)
    assert result.code == 1
    for name in ("1.png", "2.png", "missing.png"):
        assert name in result.err
    assert [row["image"] for row in result.rows] == [str(good)]


def test_read_without_an_index_gives_the_reading(run: Any) -> None:
    result = run("read", FRAMES / "02-logo.jpg", "--n-best", 3)
    (row,) = result.rows
    assert result.code == 0
    assert row["text"] == row["read"] == row["hypotheses"][0]["text"]
    assert (row["snapped"], row["sentence_id"]) == (False, None)
    logprobs = [h["logprob"] for h in row["hypotheses"]]
    assert len(logprobs) <= 3
    assert logprobs == sorted(logprobs, reverse=True)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_killed_run_goes_on(tmp_path: Path, suffix: str) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(8):
        Image.open(FRAMES / "01-clear.jpg").resize((320, 180)).save(frames / f"{number}.png")
    out = tmp_path / f"out{suffix}"
    command = [sys.executable, "-m", "caprag", "read", str(frames), "--out", str(out), "--batch-size", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = out.read_bytes()
    kept = before[: before.rfind(b"\n") + 1]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "are in" in done.stderr
    after = out.read_bytes()
    assert after.startswith(kept)
    whole = tmp_path / f"whole{suffix}"
    subprocess.run([*command[:-4], "--out", str(whole)], check=True, capture_output=True)
    assert after == whole.read_bytes()


def test_an_index_is_built_changed_and_searched(run: Any, tmp_path: Path) -> None:
    (tmp_path / "第一集.txt").write_text("妳在開玩笑嗎\n不會持續太久的\n妳在開玩笑嗎\n", encoding="utf-8")
    (tmp_path / "第二集.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\n現在終於實現了\n", encoding="utf-8")
    folder = tmp_path / "index"
    assert run("index", "build", tmp_path / "第一集.txt", "--out", folder).code == 0
    assert run("index", "info", folder).rows[0]["sentences"] == 2
    assert run("index", "add", tmp_path / "第二集.srt", "--index", folder).code == 0
    hits = run("search", "現在終于實現了", "--index", folder, "-k", 2).rows
    assert (hits[0]["sentence_id"], hits[0]["text"]) == (2, "現在終於實現了")
    result = run("index", "remove", 2, 17, "--index", folder)
    assert result.code == 1
    assert "no sentence 17" in result.err
    assert run("index", "info", folder).rows[0]["sentences"] == 2


def test_an_index_is_not_replaced_unasked(run: Any, index: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "a.txt"
    corpus.write_text("好\n", encoding="utf-8")
    before = (index / "index.json").read_bytes()
    result = run("index", "build", corpus, "--out", index)
    assert result.code == 2
    assert "--force" in result.err
    assert (index / "index.json").read_bytes() == before


def test_building_goes_on_past_bad_lines(run: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "混.txt"
    corpus.write_bytes("好的\n".encode() + "壞的\n".encode("big5") + "對的\n".encode())
    result = run("index", "build", corpus, "--out", tmp_path / "index")
    assert result.code == 1
    assert "混.txt, line 2" in result.err
    assert run("index", "info", tmp_path / "index").rows[0]["sentences"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["snap", "-", "--index", "no/such/folder"], "no such index folder"),
        (["snap", "missing.txt", "--index", "{index}"], "no such file"),
        (["read", "{frame}", "--index", "{corpus}"], "no such index folder"),
        (["read", "{frame}", "--recognizer", "./no-such-model"], "no-such-model"),
        (["read", "{frame}", "--device", "cpu"], "vision-language"),
        (["read", "{frame}", "--reranker", "{corpus}"], "is no reranker"),
        (["read", "{frame}", "--out", "{tmp}/x.xml"], ".jsonl or .csv"),
        (["read", "{frame}", "--n-best", "0"], "n-best"),
        (["index", "build", "{tmp}/none.txt", "--out", "{tmp}/i"], "does not exist"),
        (["index", "build", "{empty}", "--out", "{tmp}/i"], "no sentence"),
        (["index", "build", "{corpus}", "--out", "{tmp}/i", "--factory", "Nonsense"], "unknown to FAISS"),
        (["index", "build", "{corpus}", "--out", "{tmp}/i", "--factory", "IVF4096,Flat"], "can't be trained"),
        (["index", "build", "{corpus}", "--out", "{tmp}/i", "--embedder", "./nothing"], "no such folder"),
        (["index", "build", "{corpus}", "--out", "{tmp}/i", "--encoding", "klingon"], "unknown"),
        (["index", "build", "{corpus}", "--out", "{corpus}"], "can't be written"),
        (["nonsense"], "nonsense"),
    ],
)
def test_wrong_use_says_what_to_do(run: Any, index: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "corpus.txt").write_text("好的\n", encoding="utf-8")
    places = {
        "index": index, "frame": FRAMES / "01-clear.jpg", "tmp": tmp_path, "empty": tmp_path / "empty.txt",
        "corpus": tmp_path / "corpus.txt",
    }  # fmt: skip
    result = run(*(argument.format(**places) for argument in arguments))
    assert result.code == 2
    assert words in result.err
    assert result.out == ""


@pytest.mark.parametrize("verb", ["read", "snap", "search", "index build", "index add", "index remove", "index info"])
def test_help_has_an_example(run: Any, verb: str) -> None:
    result = run(*verb.split(), "--help")
    assert result.code == 0
    assert f"Example: caprag {verb}" in result.out


def test_hostile_readings_come_through(run: Any, index: Path) -> None:
    readings = ["字" * 5000, "\x00\x07走勒\x1b[31m", "\ufeff走嘞", "𪚥𪚥", "👩‍👩‍👧 走"]
    result = run("snap", "-", "--index", index, stdin="\n".join(readings).encode())
    assert result.code == 0
    assert len(result.rows) == len(readings)
    assert result.rows[0]["text"] == readings[0]
