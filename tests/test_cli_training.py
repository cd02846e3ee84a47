"""The verbs mine and train embedder, from files to a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from caprag import load_embedder
from caprag.cli import training
from caprag.errors import CapragError

app = typer.Typer(rich_markup_mode=None)
app.command("mine")(training.mine)
app.add_typer(training.train_app, name="train")
training.train_app.command("embedder")(training.train_embedder)

CORPUS = [
    "午餐吃什麼",
    "快餐吃什麼",
    "晚餐吃什麼",
    "明天見",
    "今天天氣很好",
    "今天天氣很糟",
    "不會持續太久的",
    "現在終於實現了",
]


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(CORPUS), encoding="utf-8")
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{text[:-1]}貝\t{text}\n" for text in CORPUS), encoding="utf-8")
    return path


def test_mine_writes_what_train_embedder_reads(corpus: Path, pairs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("FlagEmbedding")
    out = tmp_path / "train.jsonl"
    said = run(
        "mine", pairs, "--corpus", corpus, "--out", out, "--embedder", tiny_folder, "--range", "2-8", "--negatives", 3,
        "--by", "dense:2,edit", "--margin", 0, "--quiet",
    )  # fmt: skip
    assert "8 pairs, 8 written; negatives: dense 16, edit 8" in said
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["pos"] for row in rows] == [[text] for text in CORPUS]
    assert all(len(set(row["neg"])) == 3 and row["pos"][0] not in row["neg"] for row in rows)
    said = run(
        "train", "embedder", out, "--base", tiny_folder, "--out", tmp_path / "model", "--batch-size", 4,
        "--group-size", 3, "--learning-rate", 1e-3, "--logging-steps", 1, "--half", "--quiet",
        "--set", "lr_scheduler_type=cosine", "--set", "use_cpu=true",
    )  # fmt: skip
    assert "2 steps, last loss" in said
    assert load_embedder(tmp_path / "model", device="cpu").embed(["午餐"]).shape == (1, 24)


def test_mine_makes_its_readings(corpus: Path, tiny_folder: Path, tmp_path: Path) -> None:
    arguments = (
        "mine", corpus, "--noise", "--strength", 0.5, "--copies", 2, "--corpus", corpus, "--embedder", tiny_folder,
        "--range", "1-8", "--negatives", 2, "--margin", 0, "--by", "edit,glyph,random", "--seed", 4, "--quiet",
    )  # fmt: skip
    run(*arguments, "--out", tmp_path / "a.jsonl")
    run(*arguments, "--out", tmp_path / "b.jsonl")
    content = (tmp_path / "a.jsonl").read_bytes()
    assert content == (tmp_path / "b.jsonl").read_bytes()
    rows = [json.loads(line) for line in content.decode().splitlines()]
    assert {row["pos"][0] for row in rows} == set(CORPUS)
    assert any(row["query"] not in CORPUS for row in rows)


def test_train_embedder_from_scratch(corpus: Path, pairs: Path, tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("FlagEmbedding")
    run("mine", pairs, "--corpus", corpus, "--out", tmp_path / "a.jsonl", "--embedder", tiny_folder, "--quiet")
    run(
        "train", "embedder", tmp_path / "a.jsonl", "--base", "scratch", "--hidden", 64, "--layers", 1, "--heads", 2,
        "--out", tmp_path / "model", "--batch-size", 4, "--passage-max-length", 32, "--set", "use_cpu=true", "--quiet",
    )  # fmt: skip
    embedder = load_embedder(tmp_path / "model", device="cpu")
    assert embedder.dimension == 64


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--range", "2"], "'2'"), (["--range", "9-2"], "9-2"), (["--by", "sound"], "sound"),
        (["--by", "dense:x"], "dense:x"), (["--copies", "2"], "--noise"),
    ],
)  # fmt: skip
def test_mine_refuses_wrong_use(given: list[str], named: str, corpus: Path, pairs: Path, tmp_path: Path) -> None:
    assert named in run("mine", pairs, "--corpus", corpus, "--out", tmp_path / "a", *given, code=2)


@pytest.mark.parametrize(
    ("given", "named"),
    [(["--set", "x"], "'x'"), (["--temperature", "0"], "temperature 0.0"), (["--set", "sound=1"], "sound")],
)
def test_train_refuses_wrong_use(given: list[str], named: str, tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("FlagEmbedding")
    rows = tmp_path / "a.jsonl"
    rows.write_text('{"query": "a", "pos": ["b"], "neg": ["c"]}\n', encoding="utf-8")
    out = run("train", "embedder", rows, "--base", tiny_folder, "--out", tmp_path / "m", *given, code=2)
    assert named in out


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"query": "牛餐", "pos": ["午餐"], "neg": ["晚餐"]}\n' * 4, encoding="utf-8")
    return path


SCRATCH = ("--base", "scratch", "--hidden", 64, "--heads", 2, "--set", "use_cpu=true", "--quiet", "--batch-size", 2)


@pytest.mark.parametrize(("option", "value"), [("--layers", 2), ("--hidden", 128), ("--heads", 4), ("--seed", 7)])
def test_another_network_is_not_taken_up(option: str, value: int, rows: Path, tmp_path: Path) -> None:
    pytest.importorskip("FlagEmbedding")
    given = ["train", "embedder", rows, "--out", tmp_path / "model", *SCRATCH, "--layers", 1]
    said = run(*given)
    assert "2 steps, last loss " in said
    assert "nan" not in said.rpartition("last loss")[2]
    result = CliRunner().invoke(app, [str(argument) for argument in [*given, option, value]])
    assert isinstance(result.exception, CapragError)
    assert "--out" in str(result.exception)
    name = "seed" if option == "--seed" else "base"
    assert f"({name} " in str(result.exception)


def test_fewer_rows_than_a_batch(rows: Path, tiny_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("FlagEmbedding")
    said = run("train", "embedder", rows, "--base", tiny_folder, "--out", tmp_path / "model", code=2)
    assert "data holds 4 rows and a step takes 32" in said
    assert not (tmp_path / "model.work").exists()


def test_an_unknown_pooling(rows: Path, tiny_folder: Path, tmp_path: Path) -> None:
    said = run("train", "embedder", rows, "--base", tiny_folder, "--out", tmp_path / "m", "--pooling", "max", code=2)
    assert "pooling is 'max'; known are cls, mean, last_token" in said
