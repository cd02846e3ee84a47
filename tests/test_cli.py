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


def test_snap_leaves_alone_what_it_is_told_to(run: Any, index: Path, tmp_path: Path) -> None:
    readings = "「不會持績太久的…」\n 妳在開玩笑馬?\n".encode()

    def texts(*options: object) -> list[str]:
        result = run("snap", "-", "--index", index, *options, stdin=readings)
        assert result.code == 0
        return [row["text"] for row in result.rows]

    assert texts() == ["不會持續太久的", "妳在開玩笑嗎"]
    assert texts("--no-snap") == readings.decode().split("\n")[:-1]
    assert texts("--keep-marks") == ["「不會持續太久的…」", " 妳在開玩笑嗎?"]
    names, lines = tmp_path / "名字.txt", tmp_path / "行.txt"
    names.write_text("持績\n", encoding="utf-8")
    lines.write_text("妳在開玩笑馬\n", encoding="utf-8")
    assert texts("--words", names) == ["「不會持績太久的…」", "妳在開玩笑嗎"]
    assert texts("--never-touch", lines) == ["不會持續太久的", " 妳在開玩笑馬?"]
    for useless in (("--no-snap", "--index", index), ()):
        result = run("snap", "-", "--words", names, *useless, stdin=readings)
        assert result.code == 2
        assert "--index" in result.err
    assert run("snap", "-", "--no-snap", "--parts", stdin=readings).code == 2
    assert [row["text"] for row in run("snap", "-", "--no-snap", stdin=readings).rows] == texts("--no-snap")
    names.write_text("!\n", encoding="utf-8")
    result = run("snap", "-", "--index", index, "--words", names, stdin=readings)
    assert result.code != 0
    assert "名字.txt, line 1" in result.err


def test_snap_tells_the_parts_of_a_caption(run: Any, index: Path) -> None:
    read = "不會持績太久的　　妳在開玩笑馬\n".encode()
    assert "parts" not in run("snap", "-", "--index", index, stdin=read).rows[0]
    (row,) = run("snap", "-", "--index", index, "--parts", stdin=read).rows
    assert row["text"] == "不會持續太久的 妳在開玩笑嗎"
    assert row["parts"] == [
        {"text": "不會持續太久的", "sentence_id": 1}, {"text": "妳在開玩笑嗎", "sentence_id": 0},
    ]  # fmt: skip


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
    alone = [*command[:-4], "--out", str(whole), "--batch-size", "1"]
    subprocess.run(alone, check=True, capture_output=True)
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


@pytest.fixture
def drama(run: Any, tmp_path: Path) -> Path:
    """An index of two files: ids 0 to 3 and 4."""
    (tmp_path / "一.txt").write_text("妳在開玩笑嗎\n不會持續太久的\n走嘞\n好啊\n", encoding="utf-8")
    (tmp_path / "二.txt").write_text("現在終於實現了\n", encoding="utf-8")
    assert run("index", "build", tmp_path / "一.txt", tmp_path / "二.txt", "--out", tmp_path / "i").code == 0
    return tmp_path / "i"


def test_upsert_follows_the_files(run: Any, drama: Path) -> None:
    first = drama.parent / "一.txt"
    # A line before the others, one changed where it stands, one gone, one that is there under the other file.
    first.write_text("開頭新的\n妳在開玩笑嗎\n不會再持續太久了\n走嘞\n現在終於實現了\n", encoding="utf-8")
    result = run("index", "upsert", first, "--index", drama)
    assert result.code == 0
    index = caprag.Index.load(drama)
    assert {i: (index[i].text, index[i].line) for i in index if index[i].source == str(first)} == {
        # What moved keeps its id, as does the line whose text has changed.
        0: ("妳在開玩笑嗎", 2), 2: ("走嘞", 4), 5: ("開頭新的", 1), 6: ("不會再持續太久了", 3),
    }  # fmt: skip
    assert index[4].text == "現在終於實現了"


def test_upsert_replaces_changed_lines_under_their_ids(run: Any, drama: Path) -> None:
    first = drama.parent / "一.txt"
    first.write_text("妳在開玩笑嗎\n不會再持續太久了\n走嘞\n好啊\n再一句\n", encoding="utf-8")
    result = run("index", "upsert", first, "--index", drama)
    assert (result.code, "1 sentences replaced, 1 added, 0 removed, 0 moved, 6 in all" in result.err) == (0, True)
    index = caprag.Index.load(drama)
    assert [index[i].text for i in index] == [
        "妳在開玩笑嗎", "不會再持續太久了", "走嘞", "好啊", "現在終於實現了", "再一句",
    ]  # fmt: skip
    assert run("search", "不會再持績太久了", "--index", drama, "-k", 1).rows[0]["sentence_id"] == 1
    # Nothing new: nothing is written.
    before = (drama / "index.json").read_bytes()
    assert run("index", "upsert", first, drama.parent / "二.txt", "--index", drama).code == 0
    assert (drama / "index.json").read_bytes() == before
    # An emptied file takes its sentences along; the other one's stay.
    first.write_text("", encoding="utf-8")
    assert run("index", "upsert", first, "--index", drama).code == 0
    assert [index.text for index in map(caprag.Index.load(drama).__getitem__, [4])] == ["現在終於實現了"]
    assert len(caprag.Index.load(drama)) == 1


@pytest.mark.parametrize("query", ["", " ", "……？"])
def test_search_says_that_a_query_has_no_letter(run: Any, index: Path, query: str) -> None:
    result = run("search", query, "--index", index)
    assert (result.code, result.out) == (2, "")
    assert "has no letter or digit; give a reading that has one" in result.err


def test_temporary_folders_go_where_the_program_is_ended(index: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    readings = tmp_path / "readings.txt"
    readings.write_text("".join(f"{SENTENCES[0]}{i}\n" for i in range(50_000)), encoding="utf-8")
    code = "from caprag import cli; cli.main()"
    command = [
        sys.executable,
        "-c",
        code,
        "snap",
        str(readings),
        "--index",
        str(index),
        "--out",
        str(tmp_path / "x.csv"),
    ]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as program:
        while program.poll() is None and not list(scratch.glob("caprag-lexical-*/meta.json")):
            time.sleep(0.05)
        program.send_signal(signal.SIGTERM)
        program.communicate(timeout=30)
    assert program.returncode == 143
    assert list(scratch.glob("caprag-*")) == []


def test_upsert_keeps_a_line_that_another_file_holds(run: Any, tmp_path: Path) -> None:
    first, second, third = (tmp_path / f"{name}.txt" for name in "一二三")
    first.write_text("妳在開玩笑嗎\n好啊\n", encoding="utf-8")
    second.write_text("好啊\n走嘞\n", encoding="utf-8")
    third.write_text("妳在開玩笑嗎\n", encoding="utf-8")
    folder = tmp_path / "i"
    assert run("index", "build", first, second, "--out", folder).code == 0
    result = run("index", "add", third, "--index", folder)
    assert (result.code, "0 sentences added, 3 in all" in result.err) == (0, True)
    first.write_text("", encoding="utf-8")
    result = run("index", "upsert", first, "--index", folder)
    assert (result.code, "0 added, 0 removed, 2 moved, 3 in all" in result.err) == (0, True)
    index = caprag.Index.load(folder)
    assert [(index[i].text, index[i].source) for i in index] == [
        ("妳在開玩笑嗎", str(third)), ("好啊", str(second)), ("走嘞", str(second)),
    ]  # fmt: skip
    third.write_text("", encoding="utf-8")
    assert run("index", "upsert", third, "--index", folder).code == 0
    assert caprag.Index.load(folder).find("妳在開玩笑嗎") is None
    assert run("index", "check", folder).code == 0


def test_upsert_removes_nothing_after_lines_it_could_not_read(run: Any, drama: Path) -> None:
    first = drama.parent / "一.txt"
    first.write_bytes("妳在開玩笑嗎\n".encode() + "不會\n".encode("big5") + "新的\n".encode())
    result = run("index", "upsert", first, "--index", drama)
    assert result.code == 1
    assert "line 2" in result.err
    index = caprag.Index.load(drama)
    assert [index[i].text for i in index] == ["妳在開玩笑嗎", "不會持續太久的", "新的", "好啊", "現在終於實現了"]


def test_removing_compacting_and_looking_need_no_embedder(run: Any, drama: Path) -> None:
    contents = json.loads((drama / "index.json").read_text(encoding="utf-8"))
    contents["embedder"]["name"] = "/no/such/embedder"
    (drama / "index.json").write_text(json.dumps(contents), encoding="utf-8")
    assert run("index", "remove", 0, 2, "--index", drama).code == 0
    info = run("index", "info", drama).rows[0]
    assert (info["sentences"], info["segments"], info["removed"], info["parameters"]) == (3, [3], [2], "")
    assert run("index", "compact", drama).code == 0
    info = run("index", "info", drama).rows[0]
    assert (info["sentences"], info["segments"], info["removed"]) == (3, [3], [0])
    assert run("index", "check", drama).code == 0
    result = run("index", "remove", 10**30, "--index", drama)
    assert (result.code, f"no sentence {10**30}" in result.err) == (1, True)
    # Those that need one say so at once, before they read the files.
    text = str(drama.parent / "二.txt")
    for words in (
        ["search", "好"],
        ["snap", "-"],
        ["index", "add", text],
        ["index", "upsert", text],
        ["index", "tune"],
    ):
        result = run(*words, *([drama] if words[-1] == "tune" else ["--index", drama]))
        assert (result.code, "embedder is not to be had" in result.err) == (2, True)


def test_check_names_every_damage(run: Any, drama: Path) -> None:
    assert run("index", "check", drama).code == 0
    vectors, sentences = next(drama.glob("vectors-*")), next(drama.glob("sentences-*"))
    vectors.write_bytes(vectors.read_bytes()[:-1] + bytes([vectors.read_bytes()[-1] ^ 1]))
    sentences.unlink()
    result = run("index", "check", drama)
    assert result.code == 1
    assert f"{vectors}: its content has changed; copy the folder again" in result.err
    assert f"{sentences}: is missing" in result.err
    assert run("index", "check", drama.parent / "nothing").code == 2


def test_tune_sets_parameters_and_writes_what_it_measured(run: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "句.txt"
    corpus.write_text("".join(f"第{i}句話在這裡{chr(0x4E00 + 37 * i)}\n" for i in range(200)), encoding="utf-8")
    (tmp_path / "讀.txt").write_text("第3句話在這里\n第17句活在這裡\n", encoding="utf-8")
    folder, out = tmp_path / "i", tmp_path / "out.json"
    assert run("index", "build", corpus, "--out", folder, "--factory", "IVF4,Flat").code == 0
    files = {path.name for path in folder.iterdir()}
    result = run("index", "tune", folder, "--recall", 1, "--dry-run", "--plot", tmp_path / "p.png", "--out", out)
    assert result.code == 0
    assert run("index", "info", folder).rows[0]["parameters"] == ""
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size[0] > 100
    result = run("index", "tune", folder, "--recall", 1, "--queries", tmp_path / "讀.txt", "--out", out)
    assert result.code == 0
    stored = json.loads(out.read_text(encoding="utf-8"))
    assert "2 queries" in stored["signature"]
    assert stored["chosen"]["recall"] == 1.0
    assert run("index", "info", folder).rows[0]["parameters"] == stored["chosen"]["parameters"] != ""
    assert {name for name in files if name.startswith("vectors")} <= {path.name for path in folder.iterdir()}
    before = (folder / "index.json").read_bytes()
    result = run("index", "tune", folder, "--factories", "Flat; SQ8;HNSW8", "--memory", "1GB", "--ms", 1000)
    assert result.code == 0
    assert all(factory in result.out for factory in ("Flat", "SQ8", "HNSW8"))
    assert (folder / "index.json").read_bytes() == before
    for arguments, words in (
        (["--memory", "1GB"], "goes with --factories"), (["--factories", "Flat", "--memory", "much"], "is no size"),
        (["--recall", "2"], "target_recall is 2"), (["--vectors", corpus], "no file of vectors"),
        (["--factories", "Nonsense"], "unknown to FAISS"),
    ):  # fmt: skip
        result = run("index", "tune", folder, *arguments)
        assert (result.code, words in result.err) == (2, True)


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
        (["read", "{frame}", "--recognizer", "rapidocr", "--device", "cpu"], "vision-language"),
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


@pytest.mark.parametrize(
    "verb",
    ["read", "snap", "search", "index build", "index add", "index upsert", "index remove", "index compact",
     "index tune", "index check", "index info"],
)  # fmt: skip
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


def test_many_lines_of_one_kind_are_counted_and_not_all_shown(run: Any, tmp_path: Path) -> None:
    """Big5 read as UTF-8 is wrong in each line: the first ten are shown, and other kinds and files still are."""
    for name, count in (("一", 30), ("二", 2)):
        (tmp_path / f"{name}.txt").write_bytes("字幕\n".encode("big5") * count)
    good = tmp_path / "good.txt"
    good.write_text("今天吃什麼都可以\n", encoding="utf-8")
    done = run("index", "build", good, tmp_path / "一.txt", tmp_path / "二.txt", "--out", tmp_path / "索引")
    err = done.err
    assert done.code == 1
    assert err.count("一.txt, line") == 10
    assert "more lines like these" in err
    assert err.count("二.txt, line") == 2
    assert "lines: 32 failed" in err
    assert "--encoding" in err
