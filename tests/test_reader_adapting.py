"""The shipped reader's kind of model is fine-tuned as any other: adapters on lines of pictures."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from caprag.evaluation.metrics import count_errors
from caprag.recognition.reader import ReaderForConditionalGeneration, ReaderProcessor
from caprag.recognition.reader.ctc_prefix import text_loss
from caprag.recognition.reader.tower import line_pixels
from caprag.recognition.vlm import VLMRecognizer
from caprag.synthesis.conversations import Example, write_conversations
from caprag.training.merging import merge
from caprag.training.reader.initial import ReaderSize, new_reader
from caprag.training.reader.run import ctc_loss
from caprag.training.recognizer import RecognizerOptions, train_recognizer
from caprag.training.recognizer.collation import Collator
from caprag.training.recognizer.examples import Item

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


def test_the_tower_is_trained_where_that_is_asked_for(base: Path, data: Path, tmp_path: Path) -> None:
    options = RecognizerOptions(
        lora_rank=4, lora_alpha=8, lora_dropout=0.0, tower="tuned", learning_rate=1e-2, warmup=0, schedule="constant",
        max_steps=6, batch_size=6, crop="frame", precision="float32", logging_steps=1, save_steps=3,
        max_new_tokens=10,
    )  # fmt: skip
    trained = train_recognizer([data], base, tmp_path / "adapter", options, held_out=[data])
    assert trained.losses[trained.steps] < trained.losses[1]
    saved = load_file(tmp_path / "adapter/adapter_model.safetensors")
    before = load_file(base / "model.safetensors")
    for part in ("tower_changes.up", "tower_changes.down", "neck"):
        changed = [name for name in saved if f"{part}." in name]
        assert changed, part
        own = [name.removeprefix("base_model.model.") for name in changed]
        assert any(not torch.equal(saved[a], before[b]) for a, b in zip(changed, own, strict=True) if b in before), part
    pictures = [drawn(text) for text in TEXTS]
    adapted = VLMRecognizer(base, adapter=tmp_path / "adapter", crop="frame", max_new_tokens=10)
    read = [one[0].text for one in adapted.recognize_batch(pictures, 1)]
    assert trained.best_step is not None
    assert trained.rates[trained.best_step] == pytest.approx(count_errors(read, list(TEXTS)).cer)
    merge([tmp_path / "adapter"], tmp_path / "merged")

    def scores(model: Path) -> list[float]:
        recognizer = VLMRecognizer(model, crop="frame", max_new_tokens=10)
        return [score for (score,) in recognizer.score_batch(pictures, [[text] for text in TEXTS])]

    told = [score for (score,) in adapted.score_batch(pictures, [[text] for text in TEXTS])]
    assert scores(tmp_path / "merged") == pytest.approx(told, abs=1e-2)
    # With the tower as it was it would be another reader.
    weights = load_file(tmp_path / "merged/model.safetensors")
    weights |= {name: value for name, value in before.items() if name.startswith("tower_changes.")}
    save_file(weights, tmp_path / "merged/model.safetensors", metadata={"format": "pt"})
    assert max(abs(a - b) for a, b in zip(scores(tmp_path / "merged"), told, strict=True)) > 0.05


def test_what_was_trained_is_what_reads(base: Path) -> None:
    """The tower outside torch is made anew after a training, and says what the one in torch does."""
    model = ReaderForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    line, width = torch.from_numpy(line_pixels(drawn("CAB 12")))[None], torch.tensor([10**6])
    assert model.tower_changes is not None

    def seen() -> torch.Tensor:
        found: torch.Tensor = model.picture_features(line, width)[0].detach()
        return found

    model.eval()
    before = seen()
    model.train()
    with torch.no_grad():
        for weight in model.tower_changes.up.values():
            weight += 0.05
    in_torch = seen()
    model.eval()
    assert torch.allclose(seen(), in_torch, atol=1e-3)
    assert not torch.allclose(before, in_torch, atol=1e-2)


def test_a_reader_in_half_precision_is_trained(base: Path, data: Path, tmp_path: Path) -> None:
    options = RecognizerOptions(
        lora_rank=4, lora_alpha=8, lora_dropout=0.0, tower="tuned", learning_rate=1e-3, max_steps=2, batch_size=6,
        crop="frame", precision="bfloat16", logging_steps=1, save_steps=2,
        max_new_tokens=10,
    )  # fmt: skip
    trained = train_recognizer([data], base, tmp_path / "adapter", options, held_out=[data])
    assert trained.steps == 2
    assert all(math.isfinite(loss) for loss in trained.losses.values())
    assert 0 <= trained.rates[2] <= 10
    saved = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert {value.dtype for name, value in saved.items() if "lora_" in name or "tower_changes" in name} == {
        torch.float32
    }


def test_a_lines_filling_is_no_room_for_ctc() -> None:
    """What can't be said in a line's own steps is passed over, whatever stands beside it in the batch."""
    wide, narrow = torch.randn(12, 9).log_softmax(-1), torch.randn(4, 9).log_softmax(-1)
    both = torch.stack([wide, torch.cat([narrow, torch.full((8, 9), -85.0).index_fill(1, torch.tensor([0]), 0.0)])])
    ids = [[1, 2, 2, 3], [4, 5, 6, 7, 8, 1]]
    alone = text_loss(wide[None], [12], ids[:1], blank=0)
    assert float(text_loss(both, [12, 4], ids, blank=0)) == pytest.approx(float(alone))
    fits = text_loss(narrow[None], [4], [[4, 5]], blank=0)
    assert float(text_loss(both, [12, 4], [ids[0], [4, 5]], blank=0)) == pytest.approx(float(alone + fits) / 2)
    assert float(text_loss(both, [12, 4], [[], []], blank=0)) == 0


def test_the_reader_adds_its_own_loss_in_training(base: Path) -> None:
    """CTC's loss of the texts, as torch has it for each line by itself."""
    model = ReaderForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    processor = ReaderProcessor.from_pretrained(base)
    model.config.ctc_share, model.config.ctc_weight = 0.3, 0.5
    lines = [drawn("AB12"), drawn("CAB")]
    collator = Collator(str(base), model, processor, processor.tokenizer, crop="frame")
    batch = collator([Item(image, text, "") for image, text in zip(lines, ("AB12", "CAB"), strict=True)])
    model.train()
    output = model(**batch)
    expected = []
    for image, text in zip(lines, ("AB12", "CAB"), strict=True):
        features = model.picture_features(torch.from_numpy(line_pixels(image))[None], torch.tensor([10**6]))
        steps = model.steps(features[0][None])
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        expected.append(float(ctc_loss(model, steps, [list(ids)]).detach()))
    assert float(output.further_loss.detach()) == pytest.approx(0.5 * sum(expected) / 2, rel=1e-4)
    output.further_loss.backward()
    assert model.tower_changes is not None
    assert any(float(weight.grad.abs().max()) > 0 for weight in model.tower_changes.up.values())
    with torch.no_grad():
        assert model.eval()(**batch).further_loss is None
