"""The verbs assemble, merge and label, from folders to folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
import transformers
from tiny_models import pictures
from typer.testing import CliRunner

from caprag.cli import app
from caprag.errors import CapragError
from caprag.recognition.vlm import VLMRecognizer
from caprag.synthesis.conversations import read_conversations

hub: Any = transformers  # its annotations differ from version to version

# PEFT asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, CapragError):
        assert code == 2, result.exception
        return str(result.exception)
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("verbs")
    tiny_parts.tower(place / "tower", "chinese_clip")
    tiny_parts.language_model(place / "lm", "qwen2")
    said = run("assemble", "--tower", place / "tower", "--lm", place / "lm", "--out", place / "llava", "--seed", 3)
    assert "chinese_clip_vision_model and qwen2" in said
    assert "9 tokens a picture; new tokens: <image>; answers end with <|im_end|> <|endoftext|>" in said
    assert said.index("--method projector") < said.index("--method full")
    return place / "llava"


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, picture in enumerate(pictures(3)):
        picture.save(folder / f"{number}.png")
    return folder


def test_assemble_then_merge_then_read(llava: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    settings = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["multi_modal_projector"])
    tuned = peft.get_peft_model(hub.AutoModelForImageTextToText.from_pretrained(llava), settings)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    tuned.save_pretrained(tmp_path / "adapter")
    said = run("merge", tmp_path / "adapter", "--out", tmp_path / "merged", "--dtype", "bfloat16")
    assert "logits differ by" in said
    assert "bfloat16" in said
    assert hub.AutoModelForImageTextToText.from_pretrained(tmp_path / "merged").dtype == torch.bfloat16
    read = VLMRecognizer(tmp_path / "merged", device="cpu", max_new_tokens=4).recognize_batch(pictures(2))
    assert len(read) == 2
    assert "not empty" in run("merge", tmp_path / "adapter", "--out", tmp_path / "merged", code=2)


def test_label_with_a_local_model(llava: Path, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    (tmp_path / "prompts.txt").write_text("讀出字幕\n\nWhat is it?\n", encoding="utf-8")
    (frames / "9.png").write_bytes(b"nothing")
    arguments = (
        "label", frames, "--model", llava, "--task", "describe", "--prompts", tmp_path / "prompts.txt", "--out", out,
        "--format", "sharegpt", "--max-new-tokens", 6, "--device", "cpu", "--quiet",
    )  # fmt: skip
    said = run(*arguments, code=1)
    assert "9.png" in said
    assert "4 pictures: " in said
    assert "1 unreadable" in said
    found = list(read_conversations(out))
    assert {example.prompt for example in found} <= {"讀出字幕", "What is it?"}
    assert all((tmp_path / example.image).exists() for example in found)
    assert "conversations" in json.loads(out.read_text(encoding="utf-8").splitlines()[0])
    before = out.read_bytes()
    assert run(*arguments, code=1).splitlines()[-3:] == said.splitlines()[-3:]
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["--prompt", "a", "--prompts", "b"], "--prompts"), (["--embedder", "e"], "--task describe"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"), (["--prompt", "a", "--prompt", "a"], "each once"),
        (["--prompt", "<image> a"], "<image>"), (["--dtype", "float8"], "float8"),
    ],
)  # fmt: skip
def test_label_refuses_wrong_use(given: list[str], named: str, llava: Path, frames: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    assert named in run("label", frames, "--model", llava, "--out", out, "--quiet", *given, code=2)
    assert not out.exists()


def test_assemble_refuses_wrong_use(llava: Path, tmp_path: Path) -> None:
    parts = ("--tower", llava.with_name("tower"), "--lm", llava.with_name("lm"))
    missing = tmp_path / "no.jinja"
    assert "no.jinja" in run("assemble", *parts, "--out", tmp_path / "a", "--chat-template", missing, code=2)
    assert "is there already" in run("assemble", *parts, "--out", llava, code=2)
    assert not (tmp_path / "a").exists()
