from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import caprag
from caprag.cli import main

TRUTHS = {"a.png": ["一隻貓坐在墊子上面", "貓在墊子上"], "b.png": ["兩個人騎著馬"], "c.png": ["外面好像在下雨"]}
GIVEN = {"c.png": "外面在下雨", "a.png": "一隻貓坐在墊子上", "b.png": '他們在, 騎"馬'}
METRICS = "bleu,rouge-l,cider,cer,mean-edits"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["caprag", "eval", "text", *map(str, arguments)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def truths(tmp_path: Path) -> Path:
    rows = [json.dumps({"id": name, "references": texts}, ensure_ascii=False) for name, texts in TRUTHS.items()]
    return write(tmp_path / "truths.jsonl", "\n".join(rows) + "\n")


@pytest.fixture
def given(tmp_path: Path) -> Path:
    rows = [json.dumps({"id": name, "text": text}, ensure_ascii=False) for name, text in GIVEN.items()]
    return write(tmp_path / "given.jsonl", "\n".join(rows) + "\n")


def test_every_form_of_a_file_gives_the_same(run: Any, tmp_path: Path, truths: Path, given: Path) -> None:
    report = caprag.evaluate_text(
        [GIVEN[name] for name in TRUTHS], list(TRUTHS.values()), METRICS.split(","), ids=list(TRUTHS)
    )
    quoted = {name: text.replace('"', '""') for name, text in GIVEN.items()}
    write(tmp_path / "given.csv", "text,id\r\n" + "".join(f'"{text}",{name}\r\n' for name, text in quoted.items()))
    write(tmp_path / "given.tsv", "id\ttext\n" + "".join(f"{name}\t{text}\n" for name, text in GIVEN.items()))
    rows = [(name, text) for name, texts in TRUTHS.items() for text in texts]
    write(tmp_path / "truths.csv", "﻿id,text\n" + "".join(f"{name},{text}\n" for name, text in rows))
    coco = {"annotations": [{"image_id": name, "caption": text} for name, text in rows], "images": []}
    write(tmp_path / "truths.json", json.dumps(coco))
    for one, other in (("given.jsonl", "truths.csv"), ("given.csv", "truths.json"), ("given.tsv", "truths.jsonl")):
        code, out, err = run(tmp_path / one, tmp_path / other, "--metrics", METRICS)
        assert (code, err) == (0, "")
        assert out == f"{report}\n"


def test_lines_are_matched_by_number_and_files_are_several_references(run: Any, tmp_path: Path) -> None:
    given = write(tmp_path / "given.txt", "a cat\n\nthe dog runs\n")
    first = write(tmp_path / "first.txt", "a cat sits\nnothing\na dog runs")
    second = write(tmp_path / "second.txt", "a cat\nempty\nthe dogs run\n")
    report = caprag.evaluate_text(
        ["a cat", "", "the dog runs"],
        [["a cat sits", "a cat"], ["nothing", "empty"], ["a dog runs", "the dogs run"]],
        ["rouge-l", "mean-edits"],
    )
    code, out, _ = run(given, first, second, "--metrics", "rouge-l,mean-edits")
    assert code == 0
    assert out == f"{report}\n"
    short = write(tmp_path / "short.txt", "a cat\n")
    code, _, err = run(given, first, short)
    assert code == 2
    assert f"{short}: has not the ids of {first} (2 differ, such as '2')" in err


def test_figures_and_items_are_written_and_systems_compared(
    run: Any, tmp_path: Path, truths: Path, given: Path
) -> None:
    other = write(tmp_path / "other.csv", "id,text\na.png,貓\nb.png,馬\nc.png,雨\n")
    code, out, _ = run(
        given, truths, "--metrics", "rouge-l,cer", "--compare", other, "--json", tmp_path / "s.json", "--per-item",
        tmp_path / "items.jsonl",
    )  # fmt: skip
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    compared = [row for row in rows if row[:1] == ["cer"]][1]
    assert compared[-6:] == ["better", "3,", "worse", "0", "of", "3"]
    saved = json.loads((tmp_path / "s.json").read_text("utf-8"))
    assert saved["name"] == str(given)
    items = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text("utf-8").splitlines()]
    assert [(item["id"], item["text"]) for item in items] == [(name, GIVEN[name]) for name in TRUTHS]


def test_what_is_absent_is_left_out_of_the_table(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, truths: Path, given: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no java
    code, out, _ = run(given, truths)
    assert code == 0
    assert "meteor        left out: java is not found" in out
    code, _, err = run(given, truths, "--tokenize", "ptb", "--metrics", "bleu")
    assert code == 2
    assert "ptb: java is not found; install a Java runtime" in err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "id,text\na.png,貓\n", "lacks 2 of the 3 ids of {truths}: 'b.png', 'c.png'; both must have the same"),
        ("p.csv", "id,text\na.png,貓\nb.png,貓\nc.png,貓\nd.png,貓\n", "{truths}: lacks 1 of the 4 ids of {path}"),
        ("p.csv", "id,text\na.png,貓\nb.png,馬\nc.png,雨\na.png,狗\n", "{path}: has several texts for 'a.png'"),
        ("p.csv", "id,caption\na.png,貓\n", "has 0 columns 'text' in its header (id, caption); name one with --column"),
        ("p.tsv", "image\ttext\na.png\t貓\n", "has 0 columns 'id' in its header (image, text); name one with --id"),
        ("p.csv", "id,text\na.png,貓,狗\n", "{path}, line 2: has 3 fields and the header 2"),
        ("p.csv", 'id,text\na.png,"貓\n', "{path}, line 2: is no table"),
        ("p.csv", "", "{path}: has 0 columns 'id' in its header ()"),
        ("p.txt", "", "{path}: holds no text"),
        ("p.csv", "id,text\n", "{path}: holds no text"),
        ("p.jsonl", '{{"id": "a.png"}}\n', "{path}, line 1: has None under 'text'; wanted is a text or a list of them"),
        ("p.jsonl", '{{"text": "貓"}}\n', "{path}, line 1: has None under 'id'"),
        ("p.jsonl", "貓\n", "{path}, line 1: is no JSON"),
        ("p.jsonl", "[]\n", "{path}, line 1: is no object"),
        ("p.json", '{{"a": 1}}', "{path}: is no list of objects"),
        ("p.docx", "貓", "{path}: has the suffix '.docx'; known are .csv"),
    ],
)  # fmt: skip
def test_wrong_files_are_named(run: Any, tmp_path: Path, truths: Path, name: str, text: str, message: str) -> None:
    path = write(tmp_path / name, text.replace("{{", "{").replace("}}", "}"))
    code, out, err = run(path, truths)
    assert (code, out) == (2, "")
    assert message.format(path=path, truths=truths) in err


def test_wrong_options_are_named(run: Any, tmp_path: Path, truths: Path, given: Path) -> None:
    for arguments, message in (
        (["--metrics", "bleu,f1"], "metric is 'f1'; known are bleu"),
        (["--tokenize", "jieba"], "tokenize is 'jieba'"),
        (["--metrics", "bertscore"], "give bertscore_model (--bertscore-model)"),
        (["--per-item", tmp_path / "items.json"], "has the suffix '.json'; write to .jsonl or .csv"),
        (["--json", tmp_path / "scores.txt"], "has the suffix '.txt'; write to .json or .csv"),
    ):
        code, _, err = run(given, truths, *arguments)
        assert code == 2
        assert message in err
    code, _, err = run(given, tmp_path / "none.csv")
    assert code == 2
    assert "none.csv: can't be read (No such file or directory)" in err
