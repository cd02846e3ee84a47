"""The shipped reader's kind of model is fine-tuned as any other: adapters on lines of pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file

from caprag.recognition.vlm import VLMRecognizer
from caprag.synthesis.conversations import Example, write_conversations
from caprag.training.merging import merge
from caprag.training.reader.initial import ReaderSize, new_reader
from caprag.training.recognizer import RecognizerOptions, train_recognizer

TEXTS = ("AB12", "CAB", "1234", "DADA", "FEED 1", "B2B")


def drawn(text: str) -> Image.Image:
    image = Image.new("RGB", (40 * len(text) + 30, 60), "navy")
    ImageDraw.Draw(image).text((12, 4), text, fill="yellow", font_size=44)
    return image


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    made = tmp_path_factory.mktemp("reader") / "new"
    size = ReaderSize(hidden=128, layers=2, heads=4, key_value_heads=2, intermediate=128, tower_rank=2)
    new_reader(made, "ABCDEFabcdef0123456789 ", size, seed=1)
    return made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lines")
    for place, text in enumerate(TEXTS):
        drawn(text).save(folder / f"{place}.png")
    write_conversations(
        [Example(f"{n}.png", text, "") for n, text in enumerate(TEXTS)], folder / "lines.jsonl", "llava"
    )
    return folder / "lines.jsonl"


def test_an_adapter_makes_what_it_learns_likelier(base: Path, data: Path, tmp_path: Path) -> None:
    before = load_file(base / "model.safetensors")
    options = RecognizerOptions(
        lora_rank=16, lora_alpha=32, lora_dropout=0.0, learning_rate=1e-2, warmup=0, schedule="constant", max_steps=40,
        batch_size=6, crop="frame", precision="float32", logging_steps=1,
    )  # fmt: skip
    trained = train_recognizer([data], base, tmp_path / "adapter", options)
    assert trained.losses[trained.steps] < 0.5 * trained.losses[1]
    saved = load_file(tmp_path / "adapter/adapter_model.safetensors")
    # The tower is not trained here; what joins it to the language model is, whole.
    assert {("lora_" in name) or ("projector" in name) for name in saved} == {True}
    now = load_file(base / "model.safetensors")
    assert all(torch.equal(value, now[name]) for name, value in before.items())
    pictures = [drawn(text) for text in TEXTS]

    def scores(model: Path, adapter: Path | None = None) -> list[float]:
        recognizer = VLMRecognizer(model, adapter=adapter, crop="frame", max_new_tokens=10)
        return [score for (score,) in recognizer.score_batch(pictures, [[text] for text in TEXTS])]

    adapted = scores(base, tmp_path / "adapter")
    assert sum(adapted) > sum(scores(base)) / 2
    merge([tmp_path / "adapter"], tmp_path / "merged")
    assert scores(tmp_path / "merged") == pytest.approx(adapted, abs=1e-2)
