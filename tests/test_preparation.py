"""The whole way from raw text to a corpus, from Python and from the command line."""

from __future__ import annotations

import csv
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from caprag.corpus import CaptionRules, corpus_statistics, preparation, prepare_corpus, split_caption
from caprag.corpus.cleaning import clean_line, refusal, strip_row
from caprag.corpus.forms import duplicate_forms
from caprag.errors import CapragError, CorpusError
from caprag.text import convert, match_form, normalize
from caprag.types import Sentence

RAW = {
    "1.txt": "1. 小明：「今天天氣真的很好！」\n\n- 我們一起去公園玩吧。\n短\n12345678\n今天天气真的很好\n",
    "2.srt": "1\n00:00:01,000 --> 00:00:02,000\n不會持續太久的\n走了走了走了\n",
    "子/3.csv": "id,text\n1,不會持續太久的?\n2,他昨天晚上告訴我們,\n",
    "子/4.jsonl": '{"messages": [{"role": "user", "content": "你叫什麼名字呢"}]}\n{"text": 3}\n',
}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for name, text in RAW.items():
        path = tmp_path / "原文" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "原文"


def made_up(path: Path, count: int, seed: int = 0) -> Path:
    """Write lines of a few characters, so that many are equal or nearly so."""
    generator = random.Random(seed)
    lines: list[str] = []
    while len(lines) < count:
        letters = generator.choices("我你妳好嗎裡裏天氣,。!？因為所以 a1:(", k=generator.randint(0, 30))
        lines.append(generator.choice(lines) if lines and generator.random() < 0.1 else "".join(letters))
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def plain(paths: list[Path], rules: CaptionRules) -> tuple[list[tuple[str, str, int]], Counter[str]]:
    """The same without streaming, processes, files or fingerprints."""
    kept, dropped = [], Counter[str]()
    texts: set[str] = set()
    forms: set[str] = set()
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            written = normalize(strip_row(line)[0])
            if not written:
                continue
            if rules.convert:
                written = convert(written, rules.convert)
            pieces = split_caption(clean_line(written, rules.brackets).text, rules.max_chars, rules.min_chars)
            dropped["empty"] += not pieces
            for piece in pieces:
                if reason := refusal(piece, rules):
                    dropped[reason] += 1
                elif piece in texts:
                    dropped["duplicate"] += 1
                elif duplicate_forms([piece])[0] in forms:
                    dropped["variant"] += 1
                else:
                    kept.append((piece, str(path), number))
                texts.add(piece) if not reason else None
                forms.add(duplicate_forms([piece])[0]) if not reason else None
    return kept, +dropped


def test_merges_files_and_says_what_was_dropped(raw: Path, tmp_path: Path) -> None:
    errors: list[CorpusError] = []
    report = prepare_corpus(raw, tmp_path / "out.jsonl", on_error=errors.append)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["text"], Path(row["source"]).name, row["line"]) for row in rows] == [
        ("今天天氣真的很好!", "1.txt", 1),
        ("我們一起去公園玩吧", "1.txt", 3),
        ("不會持續太久的", "2.srt", 1),
        ("走了走了走了", "2.srt", 1),
        ("他昨天晚上告訴我們", "3.csv", 3),
        ("你叫什麼名字呢", "4.jsonl", 1),
    ]
    assert (report.files, report.failed, report.kept, report.pieces) == (4, 1, 6, 10)
    assert dict(report.dropped) == {"letters": 1, "short": 1, "variant": 2}
    assert report.examples["variant"][0] == Sentence("今天天气真的很好", str(raw / "1.txt"), 6)
    assert "4.jsonl, line 2: the text is a int" in str(errors[0])
    table = str(report)
    assert "1.txt, line 6: 今天天气真的很好" in table
    assert "kept         6  60.0%" in table
    assert report.statistics == corpus_statistics([row["text"] for row in rows])
    # Nothing but marks goes in silence.
    assert dict(report.changed) == {"marks": 2, "speakers": 1}
    assert report.changes["speakers"] == (Sentence("小明:「今天天氣真的很好!」", str(raw / "1.txt"), 1),)
    assert "changed: list marks stripped" in table
    assert "1.txt, line 1: 小明:「今天天氣真的很好!」" in table


def test_a_row_of_nothing_is_shown_as_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text("\u200b\u200b\n***\n①\n" + "\x01" * 99 + "\n今天天氣真的很好\n", encoding="utf-8")
    report = prepare_corpus(path, tmp_path / "out.txt", CaptionRules(convert="tw"))
    assert [(e.line, e.text) for e in report.examples["empty"]] == [
        (1, "\\u200b\\u200b"),
        (2, "***"),
        (3, "①"),
        (4, "\\x01" * 10),
    ]
    assert not report.changed


@pytest.mark.parametrize("convert_to", [None, "tw", "s"])
def test_equals_the_plain_way(tmp_path: Path, convert_to: Any) -> None:
    paths = [made_up(tmp_path / f"{i}.txt", 1500, i) for i in range(3)]
    rules = CaptionRules(convert=convert_to)
    report = prepare_corpus(paths, tmp_path / "out.jsonl", rules, workers=1)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    kept, dropped = plain(paths, rules)
    assert [(row["text"], row["source"], row["line"]) for row in rows] == kept
    assert report.dropped == dropped
    assert report.pieces == report.kept + sum(report.dropped.values())
    assert all(len(match_form(row["text"])) for row in rows)


def test_every_number_of_workers_and_every_chunk_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [made_up(tmp_path / f"{i}.txt", 700, i) for i in range(3)]
    results = []
    for workers, rows in [(1, 4096), (1, 1), (1, 77), (2, 100), (3, 333)]:
        monkeypatch.setattr(preparation, "_CHUNK_ROWS", rows)
        out = tmp_path / f"{workers}-{rows}.csv"
        report = prepare_corpus(paths, out, CaptionRules(convert="tw"), near=0.8, workers=workers)
        results.append((out.read_bytes(), report))
    assert results[0][1].dropped.keys() >= {"duplicate", "variant", "near", "short", "empty", "letters"}
    assert all(result == results[0] for result in results)


def test_near_lines_go_when_asked(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "今天天氣真的非常的好\n今天天氣真的非常的棒\n我們一起去公園玩吧\n", encoding="utf-8"
    )
    assert prepare_corpus(tmp_path / "a.txt", tmp_path / "b.txt").kept == 3
    report = prepare_corpus(tmp_path / "a.txt", tmp_path / "b.txt", near=0.9)
    assert report.dropped == {"near": 1}
    assert report.examples["near"] == (Sentence("今天天氣真的非常的棒", str(tmp_path / "a.txt"), 2),)


@pytest.mark.parametrize("suffix", [".txt", ".tsv", ".csv", ".jsonl", ".parquet"])
def test_every_kind_of_output_is_read_back(tmp_path: Path, suffix: str) -> None:
    (tmp_path / 'a,"b.txt').write_text('今天 "天氣,真的"很好\n我們一起去公園玩吧\n', encoding="utf-8")
    out = tmp_path / f"新/庫{suffix}"
    prepare_corpus(tmp_path / 'a,"b.txt', out)
    expected = [("今天 天氣,真的很好", 1), ("我們一起去公園玩吧", 2)]
    rows: list[Any]
    if suffix == ".txt":
        assert out.read_text(encoding="utf-8") == "".join(f"{text}\n" for text, _ in expected)
        return
    if suffix == ".parquet":
        rows = pq.read_table(out).to_pylist()
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    else:
        with out.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t" if suffix == ".tsv" else ","))
    assert [(row["text"], int(row["line"])) for row in rows] == expected
    assert {row["source"] for row in rows} == {str(tmp_path / 'a,"b.txt')}


def test_options_of_the_rules(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("小明：今天天氣真的很好\n里面的东西都很好(笑)\n我们一起去公园玩吧\n", encoding="utf-8")

    def run(**options: Any) -> list[str]:
        prepare_corpus(path, tmp_path / "out.txt", CaptionRules(**options))
        return (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines()

    assert run() == ["今天天氣真的很好", "里面的东西都很好", "我们一起去公园玩吧"]
    assert run(drop_speakers=True) == ["里面的东西都很好", "我们一起去公园玩吧"]
    assert run(convert="tw", brackets="keep") == ["今天天氣真的很好", "裡面的東西都很好(笑)", "我們一起去公園玩吧"]
    assert run(max_chars=5, min_chars=3) == ["今天天氣真", "的很好", "里面的东西", "都很好", "我们一起去", "公园玩吧"]


# --- bad input ----------------------------------------------------------------------------------------------------


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "1.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "2.txt").write_bytes("今天天氣真的很好\n".encode("big5") + "我們一起去公園玩吧".encode())
    (tmp_path / "3.txt").write_bytes(os.urandom(0))
    (tmp_path / "4.txt").write_text("\n \n\n", encoding="utf-8")
    errors: list[CorpusError] = []
    report = prepare_corpus([tmp_path, tmp_path / "沒有.txt"], tmp_path / "out.txt", on_error=errors.append)
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "我們一起去公園玩吧\n"
    assert (report.files, report.failed, report.kept) == (3, 3, 1)
    assert all(
        word in str(error) for word, error in zip(["沒有.txt", "1.parquet", "2.txt, line 1"], errors, strict=True)
    )
    with pytest.raises(CorpusError, match="is not read as parquet"):
        prepare_corpus(tmp_path, tmp_path / "out2.txt")
    assert not (tmp_path / "out2.txt").exists()


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    path = made_up(tmp_path / "a.txt", 50)
    (tmp_path / "link.txt").symlink_to(path)
    once = prepare_corpus(path, tmp_path / "x.jsonl")
    assert prepare_corpus([path, tmp_path / "link.txt", tmp_path / "*.txt"], tmp_path / "y.jsonl") == once


def test_a_line_of_ten_megabytes(tmp_path: Path) -> None:
    text = "".join(chr(0x4E00 + i * i % 20011) for i in range(3_500_000))
    (tmp_path / "a.txt").write_text("前面的這一行字\n" + text + "\n後面的這一行字\n", encoding="utf-8")
    prepare_corpus(tmp_path / "a.txt", tmp_path / "out.txt")
    lines = (tmp_path / "out.txt").read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1]) == ("前面的這一行字", "後面的這一行字")
    assert max(map(len, lines)) == 15


def test_a_line_longer_than_any_is_named_and_the_next_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xe5\xa5\xbd" * (6 << 20) + "\n後面的這一行字\n".encode())
    errors: list[CorpusError] = []
    prepare_corpus(tmp_path / "a.txt", tmp_path / "out.txt", on_error=errors.append)
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "後面的這一行字\n"
    assert [str(error) for error in errors] == [
        f"{tmp_path / 'a.txt'}, line 1: is longer than 16 MiB; break it into lines"
    ]


def test_the_output_is_never_an_input(tmp_path: Path) -> None:
    path = made_up(tmp_path / "a.txt", 50)
    before = path.read_bytes()
    (tmp_path / "b.txt").symlink_to(path)
    for out in (path, tmp_path / "b.txt"):
        with pytest.raises(CorpusError, match="is one of the inputs"):
            prepare_corpus(tmp_path, out)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [({"workers": 0}, "workers is 0"), ({"near": 0.5}, "near is 0.5"), ({"encoding": "klingon"}, "try utf-8, big5")],
)
def test_wrong_arguments_leave_nothing(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = made_up(tmp_path / "a.txt", 5)
    with pytest.raises((ValueError, CorpusError), match=message):
        prepare_corpus(path, tmp_path / "out.txt", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("out", ["out.doc", "out", "folder.txt", "a.txt/out.txt", "\0.txt", "好" * 300 + ".txt"])
def test_outputs_that_can_not_be_made(tmp_path: Path, out: str) -> None:
    path = made_up(tmp_path / "a.txt", 5)
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(CapragError, match=r"write to|can't be written"):
        prepare_corpus(path, tmp_path / out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "folder.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs file size limits")
@pytest.mark.parametrize("suffix", [".txt", ".csv", ".parquet"])
def test_a_disk_that_is_full_is_named_and_the_old_corpus_stays(tmp_path: Path, suffix: str) -> None:
    """A limit on the size of files stands for the full disk: the system refuses to write in the same way."""
    made_up(tmp_path / "a.txt", 20_000)
    out = tmp_path / f"庫{suffix}"
    out.write_text("早先的", encoding="utf-8")
    code = (
        "import resource, signal, sys; from caprag.corpus import prepare_corpus\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try: prepare_corpus(sys.argv[1], sys.argv[2], workers=1)\n"
        "except OSError as error: print(error.errno, error.filename)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.txt", out], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(errno.EFBIG), str(out)]
    assert done.stderr == ""
    assert out.read_text(encoding="utf-8") == "早先的"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.txt", out.name])


def test_a_worker_that_is_killed_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up(tmp_path / "a.txt", 300)
    monkeypatch.setattr(preparation, "_CHUNK_ROWS", 100)
    monkeypatch.setattr(preparation, "process_chunk", _die)
    with pytest.raises(CapragError, match="a worker process ended before its work was done"):
        prepare_corpus(tmp_path / "a.txt", tmp_path / "out.txt", workers=2)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def _die(*arguments: object, **options: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- the verb -----------------------------------------------------------------------------------------------------


def verb(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "caprag", "corpus", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_the_verb(raw: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "庫.tsv"
    done = verb(raw, "--out", out, "--stats", "--plot", tmp_path / "圖.png", "--convert", "twp", "--roles", "user")
    assert done.returncode == 1
    assert "4.jsonl, line 2: the text is a int" in done.stderr
    assert "variant      2  20.0%  dropped: stood before in other marks" in done.stderr
    assert "distinct" in done.stderr
    assert out.read_text(encoding="utf-8").splitlines()[0] == "text\tsource\tline"
    assert (tmp_path / "圖.png").stat().st_size > 1000
    again = verb(raw, "--out", out)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    assert verb(raw / "1.txt", "--out", out, "--force").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.txt"], "nothing.txt: does not exist"),
        (["{raw}", "--min-chars", "20"], "min_chars is 20"),
        (["{raw}", "--convert", "jp"], "known are tw, twp, hk, s"),
        (["{raw}", "--charset", "bgi5"], "'bgi5' is no set of characters"),
        (["{raw}", "--roles", ","], "roles is ','"),
        (["{raw}", "--near", "3"], "near is 3"),
        (["{raw}", "--plot", "a.gif"], "draw to .png"),
    ],
)
def test_wrong_use_of_the_verb(
    raw: Path, tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from caprag import cli

    given = [argument.format(raw=raw) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["caprag", "corpus", *given, "--out", str(tmp_path / "out.txt")])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out.txt").exists()


def test_nothing_heavy_is_loaded(raw: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from caprag.corpus import prepare_corpus\n"
        "prepare_corpus(sys.argv[1], sys.argv[2], on_error=lambda error: None)\n"
        "print({'torch', 'transformers', 'sentence_transformers', 'matplotlib', 'faiss', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, raw, tmp_path / "out.txt"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def running(group: int) -> list[str]:
    """The processes of a group that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = path.read_text(encoding="utf-8").rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, its_group = fields.split()[:3]
        if int(its_group) == group and state not in "ZX":
            found.append(name)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("delay", [0.0, 0.2, 0.8])
def test_an_interrupt_ends_all_and_leaves_nothing(tmp_path: Path, delay: float) -> None:
    made_up(tmp_path / "a.txt", 120_000)
    command = [sys.executable, "-m", "caprag", "corpus", "a.txt", "--out", "out.txt", "--workers", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, start_new_session=True, text=True)
    while process.poll() is None and not any(path.name.startswith(".caprag") for path in tmp_path.iterdir()):
        time.sleep(0.01)
    time.sleep(delay)
    # As the terminal does: to all of the group.
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode not in (0, None), said
    assert "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    deadline = time.monotonic() + 30
    while running(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    made_up(tmp_path / "a.txt", 120_000)
    command = [sys.executable, "-m", "caprag", "corpus", "a.txt", "--out", "out.txt", "--workers", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and len(running(process.pid)) < 3:
        time.sleep(0.01)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while running(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "out.txt").exists()
    # What is left is in nobody's way.
    assert subprocess.run(command, cwd=tmp_path, stderr=subprocess.DEVNULL, check=False).returncode == 0
