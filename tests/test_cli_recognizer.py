"""The verb train recognizer, from files of examples and from sentences to a model that reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_models
import typer
from drawn_fonts import save_font
from tiny_models import SENTENCES, picture
from typer.testing import CliRunner

from caprag.cli.recognizer_training import train_recognizer
from caprag.recognition.vlm import VLMRecognizer
from caprag.synthesis.conversations import Example, Form, write_conversations

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

app = typer.Typer(rich_markup_mode=None)
app.command()(train_recognizer)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llava(tmp_path_factory.mktemp("base") / "llava")


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result.output


def examples(folder: Path, form: Form = "messages") -> Path:
    for place in range(3):
        picture(place).save(folder / f"{place}.png")
    rows = [Example(f"{n}.png", SENTENCES[n], "讀字幕") for n in range(3)]
    write_conversations(rows, folder / f"{form}.json", form)
    return folder / f"{form}.json"


@pytest.mark.parametrize("form", ["llava", "sharegpt", "messages"])
def test_options_win_over_the_recipe_and_all_is_noted(base: Path, tmp_path: Path, form: Form) -> None:
    recipe = tmp_path / "recipe.json"
    given = {"model": str(base), "lora_rank": 2, "batch_size": 3, "max_steps": 1, "others": {"adam_epsilon": 1e-7}}
    recipe.write_text(json.dumps(given), encoding="utf-8")
    data = examples(tmp_path, form)
    said = run(
        data, "--recipe", recipe, "--out", tmp_path / "out", "--max-steps", 2, "--module-rate",
        "multi_modal_projector=1e-3", "--set", "optim=adamw_torch", "--set", "optim_args=rank=64",
        "--lora-targets", "q_proj", "--lora-targets", "v_proj",
        "--held-out", data, "--max-new-tokens", 4, "--save-steps", 2, "--quiet",
    )  # fmt: skip
    assert "2 steps, last loss" in said
    assert "CER" in said
    options = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))["options"]
    assert (options["lora_rank"], options["batch_size"], options["max_steps"]) == (2, 3, 2)
    assert options["module_rates"] == {"multi_modal_projector": 1e-3}
    assert options["others"] == {"adam_epsilon": 1e-7, "optim": "adamw_torch", "optim_args": "rank=64"}
    assert options["lora_targets"] == ["q_proj", "v_proj"]
    assert len(VLMRecognizer(tmp_path / "out", device="cpu", max_new_tokens=4).recognize_batch([picture(0)])) == 1


def test_straight_from_the_synthesiser(base: Path, tmp_path: Path) -> None:
    save_font(tmp_path / "f.ttf", "abc")
    (tmp_path / "corpus.txt").write_text("abc\nbca\ncab\n", encoding="utf-8")
    said = run(
        "--text", tmp_path / "corpus.txt", "--fonts", tmp_path / "f.ttf", "--size", "160x90", "--count", 4, "--model",
        base, "--out", tmp_path / "out", "--batch-size", 2, "--epochs", 2, "--method", "projector", "--quiet",
    )  # fmt: skip
    assert "4 steps" in said


def test_broken_pictures_are_named_at_the_end(base: Path, tmp_path: Path) -> None:
    data = examples(tmp_path)
    (tmp_path / "1.png").write_bytes(b"no picture")
    said = run(data, "--model", base, "--out", tmp_path / "out", "--max-steps", 1, "--batch-size", 3, "--quiet", code=1)
    assert f"{data}, element 2: {tmp_path / '1.png'}: not a picture in a known format" in said
    assert "examples: 1 failed" in said
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ([], "--model"), (["--model", "x", "--text", "y"], "not both"), (["--model", "x", "--module-rate", "=1"], "=1"),
        (["--model", "x", "--module-rate", "a=b"], "a=b"), (["--model", "x", "--set", "y"], "--set has 'y'"),
        (["--model", "x", "--lora-rank", "0"], "lora_rank is 0"), (["--model", "x", "--patience", "2"], "--held-out"),
        (["--model", "x", "--plot", "curve.svg"], "curve.svg"),
    ],
)  # fmt: skip
def test_wrong_use_is_refused(given: list[str], named: str, tmp_path: Path) -> None:
    assert named in run(examples(tmp_path), "--out", tmp_path / "out", *given, code=2)
