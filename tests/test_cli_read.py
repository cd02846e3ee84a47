"""The verb read with a vision-language model: its options reach the reader, its files are taken up again."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from tiny_models import picture

from caprag import Index, cli
from caprag.recognition import Sampling
from caprag.recognition.vlm import VLMRecognizer

OCR = ["--recognizer", "rapidocr"]
SERVER = "http://127.0.0.1:9"  # where nobody listens
MODEL = {"prompt": "讀字幕", "device": "cpu", "max_new_tokens": 6}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["caprag", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return int(stop.value.code or 0), out, err

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llava(tmp_path_factory.mktemp("model") / "llava")


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "畫面"
    folder.mkdir()
    for place, name in enumerate(("2_b", "10_a", "1_c")):
        picture(place, (64, 32)).save(folder / f"{name}.png")
    return folder


def options(model: Path) -> list[object]:
    return ["--recognizer", model, *(item for name, value in MODEL.items()
            for item in (f"--{name.replace('_', '-')}", value))]  # fmt: skip


def test_json_lines_say_what_the_reader_says(run: Any, model: Path, frames: Path) -> None:
    code, out, _ = run(
        "read", frames, *options(model), "--n-best", 3, "--stop", "的", "--crop", "frame", "--dtype", "float32"
    )
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [Path(row["image"]).stem for row in rows] == ["1_c", "2_b", "10_a"]  # the folder's order is natural
    reader = VLMRecognizer(model, stop=["的"], **MODEL)  # type: ignore[arg-type]
    found = reader.recognize_batch([picture(place, (64, 32)) for place in (2, 0, 1)], 3)
    assert [[h["text"] for h in row["hypotheses"]] for row in rows] == [[h.text for h in some] for some in found]
    for row, some in zip(rows, found, strict=True):
        assert [h["logprob"] for h in row["hypotheses"]] == pytest.approx([h.logprob for h in some], abs=1e-4)


def test_draws_are_those_of_the_seed(run: Any, model: Path, frames: Path) -> None:
    draws = ("--sample", "--temperature", 0.8, "--top-p", 0.9, "--seed", 3)
    _, out, _ = run("read", frames / "2_b.png", *options(model), "--n-best", 4, *draws)
    sampling = Sampling(temperature=0.8, top_p=0.9, seed=3)
    reader = VLMRecognizer(model, sampling=sampling, **MODEL)  # type: ignore[arg-type]
    (found,) = reader.recognize_batch([picture(0, (64, 32))], 4)
    assert [h["text"] for h in json.loads(out)["hypotheses"]] == [h.text for h in found]


def test_id_and_text_in_the_given_order_and_taken_up_again(run: Any, model: Path, frames: Path, tmp_path: Path) -> None:
    given = [frames / f"{name}.png" for name in ("10_a", "1_c", "2_b")]
    out, whole = tmp_path / "answers.csv", tmp_path / "whole.csv"
    assert run("read", *given, *options(model), "--id-text", "--out", whole)[0] == 0
    rows = list(csv.reader(io.StringIO(whole.read_text(encoding="utf-8"), newline="")))
    assert rows[0] == ["id", "text"]
    assert [row[0] for row in rows[1:]] == ["10_a", "1_c", "2_b"]
    _, lines, _ = run("read", *given, *options(model))
    assert [row[1] for row in rows[1:]] == [json.loads(line)["text"] for line in lines.splitlines()]
    assert run("read", given[0], *options(model), "--id-text", "--out", out)[0] == 0
    out.write_bytes(out.read_bytes() + b'1_c,"half a')  # as a kill leaves it
    code, _, err = run("read", *given, *options(model), "--id-text", "--out", out)
    assert code == 0
    assert "1 of 3 pictures are in" in err
    assert out.read_bytes() == whole.read_bytes()


def test_what_can_not_be_is_refused(run: Any, model: Path, frames: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    picture(1).save(tmp_path / "b" / "2_b.png")
    one = frames / "2_b.png"
    for arguments, message in (
        ([one, "--id-text"], "name a file with --out"),
        ([one, tmp_path / "b" / "2_b.png", "--id-text", "--out", tmp_path / "x.csv"], "would have the same id, 2_b"),
        ([one, *OCR, "--crop", "band"], "crop: is for vision-language models"),
        ([one, *OCR, "--sample"], "sample: is for vision-language models"),
        ([one, *options(model), "--temperature", 0.5], "ask for them with --sample"),
        ([one, *options(model), "--sample", "--temperature", 0], "temperature must be above 0"),
        ([one, *options(model), "--crop", "middle"], "frame, band, parts, not 'middle'"),
        ([one, *options(model), "--dtype", "int3"], "not 'int3'"),
        ([one, "--recognizer", SERVER, "--device", "cpu", "--crop", "band"], "device, crop: is for models"),
        ([one, "--recognizer", SERVER, "--dtype", "auto"], "dtype: is for models that run here"),
        ([one, "--recognizer", SERVER, "--sample", "--seed", 1], "sample: is for models that run here"),
        ([one, "--recognizer", SERVER, "--adapter", "x", "--stop", "y"], "adapter, stop: is for models"),
        ([one, *options(model), "--served", "x"], "served: is for servers"),
        ([one, "--served", "x"], "served: is for servers"),
        ([one, *options(model), "--adapter", model], "holds no adapter_config.json"),
    ):
        code, _, err = run("read", *arguments)
        assert code != 0
        assert message in err


def test_readings_are_kept_to_the_sentences_of_an_index(run: Any, model: Path, frames: Path, tmp_path: Path) -> None:
    """What is read is a sentence of the index, since nothing else is searched; without an index it is refused."""
    sentences = ["我不知道他在哪裡", "這是我們最後的機會", "社交方式發生了變化"]
    Index.build(sentences).save(tmp_path / "索引")
    given = ["read", frames, "--recognizer", model, "--device", "cpu", "--index", tmp_path / "索引", "--n-best", 2]
    code, out, _ = run(*given, "--keep-to", "hard")
    assert code == 0
    read = [json.loads(line)["read"] for line in out.splitlines()]
    assert len(read) == 3
    assert set(read) <= set(sentences)
    free = [json.loads(line)["read"] for line in run(*given)[1].splitlines()]
    assert not set(free) & set(sentences)
    # A bonus that outweighs all else does the same.
    _, soft, _ = run(*given, "--keep-to", "soft", "--bonus", 1000)
    assert {json.loads(line)["read"] for line in soft.splitlines()} <= set(sentences)
    for wrong, said in (
        (["--keep-to", "hard"], "--index"),
        (["--index", tmp_path / "索引", "--bonus", 2], "--keep-to soft"),
        (["--index", tmp_path / "索引", "--keep-to", "firm"], "firm"),
    ):
        code, _, err = run("read", frames, "--recognizer", model, *wrong)
        assert code == 2
        assert said in err
    code, _, err = run("read", frames, *OCR, "--index", tmp_path / "索引", "--keep-to", "hard")
    assert code == 2
    assert "vision-language" in err
