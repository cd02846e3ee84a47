"""The verbs poem and poems: what they print, what they refuse, and that a batch goes on."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import typer
from test_cross_encoder import save_tiny_cross_encoder

import caprag
from caprag import cli
from caprag.cli import cross_encoder, poems
from caprag.poems import PoemFinder

ROWS = [
    {"title": "静夜思", "author": "李白", "lines": ["床前明月光，疑是地上霜。", "举头望明月，低头思故乡。"]},
    {"title": "春晓", "author": "孟浩然", "lines": ["春眠不觉晓，处处闻啼鸟。"]},
    {"translation": "床前洒满了月光。", "choices": ["窗前明月光", "床前明月光"], "answer": 1},
]


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    registered = {command.name for command in cli.app.registered_commands}
    if "poem" not in registered:
        # As caprag.cli does it.
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        group = typer.Typer(rich_markup_mode=None)
        app.add_typer(group, name="poems")
        app.command("poem")(poems.poem)
        group.command("build")(poems.poems_build)
        group.command("pairs")(poems.poems_pairs)
        training = typer.Typer(rich_markup_mode=None)
        app.add_typer(training, name="train")
        # A group of one verb would take no name for it.
        training.command("none")(lambda: None)
        training.command("cross-encoder")(cross_encoder.train_cross_encoder)
        monkeypatch.setattr(cli, "app", app)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["caprag", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Result(int(stop.value.code or 0), out, err)

    return call


@pytest.fixture
def files(tmp_path: Path) -> Path:
    path = tmp_path / "poems.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return path


@pytest.fixture
def index(run: Any, files: Path, tmp_path: Path, tiny_folder: Path) -> Path:
    folder = tmp_path / "index"
    result = run(
        "poems", "build", files, "--out", folder, "--unit", "clause", "--convert", "tw", "--embedder", tiny_folder
    )
    assert result.code == 0
    assert "6 verses, 1 with a translation" in result.err
    return folder


def test_build_makes_an_index_of_verses(index: Path, tiny_folder: Path) -> None:
    opened = caprag.Index.load(index)
    assert [opened[i].text for i in opened][:3] == ["床前明月光", "疑是地上霜", "舉頭望明月"]
    assert opened[0].aliases == ("床前灑滿了月光。",)
    assert (opened[4].source, opened[4].line) == ("孟浩然《春曉》", 1)


def test_build_by_verse_for_chosen_authors(run: Any, files: Path, tmp_path: Path, tiny_folder: Path) -> None:
    out = tmp_path / "li"
    options = ["--by", "verse", "--authors", "李白，孟浩然", "--embedder", tiny_folder]
    assert run("poems", "build", files, "--out", out, *options).code == 0
    opened = caprag.Index.load(out)
    assert [(opened[i].text, opened[i].aliases) for i in opened][-1] == ("床前明月光", ())
    again = run("poems", "build", files, "--out", out, "--authors", "杜甫", "--force", "--embedder", tiny_folder)
    assert again.code == 2
    assert "no poem by 杜甫" in again.err


def test_words_are_answered_with_verses(run: Any, index: Path) -> None:
    result = run("poem", "床前灑滿了月光", "春天睡不醒", "--index", index, "-k", "2")
    assert result.code == 0
    assert [row["text"] for row in result.rows] == ["床前灑滿了月光", "春天睡不醒"]
    best = result.rows[0]["verses"][0]
    assert best.pop("score") == pytest.approx(1 / 61)
    assert best == {
        "text": "床前明月光", "title": "靜夜思", "author": "李白", "line": 1, "origins": ["words"], "known": True,
        "sentence_id": 0,
    }  # fmt: skip
    assert all(len(row["verses"]) == 2 for row in result.rows)


def test_pictures_are_described_and_bad_ones_named(run: Any, index: Path, tmp_path: Path) -> None:
    model = tiny_models.llava(tmp_path / "llava")
    cross = save_tiny_cross_encoder(tmp_path / "cross")
    tiny_models.picture(1).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("this is no picture")
    result = run(
        "poem", tmp_path / "1.png", tmp_path / "2.png", "月亮", tmp_path / "3.png", "--index", index, "--recognizer",
        model, "--words", "想家", "--cross-encoder", cross, "--max-new-tokens", 8, "--device", "cpu", "--batch-size", 2,
    )  # fmt: skip
    assert result.code == 1
    assert "2.png" in result.err
    assert "3.png: no such file" in result.err
    shown, words = result.rows
    assert (shown["image"], words["text"]) == (str(tmp_path / "1.png"), "月亮")
    assert {"description", "line"} <= shown.keys()
    assert "description" not in words
    # The same as in Python.
    from caprag.poems.finder import PROMPT
    from caprag.reranking.cross_encoder import load_cross_encoder

    reader = caprag.load_recognizer(str(model), device="cpu", prompt=PROMPT, max_new_tokens=8)
    finder = PoemFinder(caprag.Index.load(index), reader, load_cross_encoder(cross, device="cpu"))
    verses = finder.find("想家", caprag.open_frame(tmp_path / "1.png"))
    assert [verse["text"] for verse in shown["verses"]] == [verse.text for verse in verses]


def test_pairs_writes_training_rows(run: Any, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "train.jsonl"
    assert run("poems", "pairs", files, "--out", out).code == 0
    (row,) = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert row == {"query": "床前洒满了月光。", "pos": ["床前明月光"], "neg": ["窗前明月光"]}
    refused = run("poems", "pairs", files, "--out", out)
    assert refused.code == 2
    assert "--force" in refused.err


def test_a_cross_encoder_is_trained_on_pairs(run: Any, files: Path, tmp_path: Path, tiny_folder: Path) -> None:
    from FlagEmbedding import FlagReranker

    from caprag.reranking.cross_encoder import load_cross_encoder

    rows = tmp_path / "train.jsonl"
    assert run("poems", "pairs", files, "--out", rows).code == 0
    out = tmp_path / "cross"
    arguments = ["train", "cross-encoder", rows, "--out", out, "--base", tiny_folder, "--batch-size", 1]
    assert run(*arguments, "--set", "wings=2").code == 2
    result = run(*arguments, "--epochs", 2, "--group-size", 2, "--set", "use_cpu=true")
    assert result.code == 0
    assert "2 steps" in result.err
    assert result.out == ""
    # FlagEmbedding itself opens it, and finds the same.
    pairs = [("床前洒满了月光。", "床前明月光"), ("床前洒满了月光。", "窗前明月光")]
    theirs = FlagReranker(str(out), use_fp16=False, devices="cpu").compute_score(pairs)
    assert load_cross_encoder(out, device="cpu").score(pairs, unit="logit") == pytest.approx(theirs, abs=1e-4)


def test_a_wrong_row_is_named_and_the_rest_is_built(run: Any, files: Path, tmp_path: Path, tiny_folder: Path) -> None:
    with files.open("a", encoding="utf-8") as stream:
        stream.write('{"title": "無"}\n')
    result = run("poems", "build", files, "--out", tmp_path / "index", "--embedder", tiny_folder)
    assert result.code == 1
    assert "poems.jsonl, line 4" in result.err
    assert (tmp_path / "index/index.json").exists()


SERVED = ["poem", "{tmp}/a.png", "--index", "{tmp}/none", "--recognizer", "http://127.0.0.1:9"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["poem", "月亮", "--index", "{tmp}/none"], "none"),
        (["poem", "{tmp}/a.png", "--index", "{tmp}/none"], "name a vision-language model"),
        (["poem", "月亮", "--index", "{tmp}/none", "-k", "0"], "'-k'"),
        (["poem", "月亮", "--index", "{tmp}/none", "--cross-encoder", "./nothing"], "no such folder"),
        (["poem", "{tmp}/a.png", "--index", "{tmp}/none", "--recognizer", "rapidocr", "--prompt", "x"], "prompt"),
        ([*SERVED, "--dtype", "auto", "--device", "cpu"], "device, dtype: is for models that run here"),
        (["poem", "{tmp}/a.png", "--index", "{tmp}/none", "--recognizer", "llava", "--served", "x"], "served: is for"),
        ([*SERVED, "--served", "x", "--device", "cpu", "--cross-encoder", "./nothing"], "no such folder"),
        (["poems", "build", "{tmp}/none.jsonl", "--out", "{tmp}/i"], "no such file"),
        (["poems", "build", "{files}", "--out", "{tmp}/i", "--by", "ear"], "by is 'ear'"),
        (["poems", "build", "{files}", "--out", "{tmp}/i", "--unit", "word"], "unit is 'word'"),
        (["poems", "build", "{files}", "--out", "{tmp}/i", "--convert", "klingon"], "variant is 'klingon'"),
        (["poems", "build", "{files}", "--out", "{tmp}/i", "--factory", "Nonsense"], "Nonsense"),
        (["poems", "pairs", "{tmp}/none.jsonl", "--out", "{tmp}/t.jsonl"], "no such file"),
    ],
)
def test_wrong_use_says_what_to_do(run: Any, files: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    result = run(*(argument.format(tmp=tmp_path, files=files) for argument in arguments))
    assert result.code == 2
    assert words in result.err
    assert result.out == ""
