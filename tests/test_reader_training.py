"""Training of the shipped reader: lines, features, and a loop that goes on where it was stopped."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_fonts import save_font
from PIL import Image

from caprag.errors import ModelError
from caprag.recognition.reader import ReaderForConditionalGeneration, ReaderProcessor
from caprag.recognition.reader.last_stages import LastStages, TowerChanges
from caprag.recognition.reader.projector import _EMPTY
from caprag.recognition.reader.tower import LAST_STAGES, Tower, line_bytes, line_pixels
from caprag.synthesis.backgrounds import Backgrounds
from caprag.synthesis.fonts import load_fonts
from caprag.training.reader import (
    CaptionLines,
    LineStore,
    ReaderOptions,
    ReaderSize,
    TuningOptions,
    make_features,
    make_maps,
    make_pixels,
    new_reader,
    train_reader,
    tune_tower,
)
from caprag.training.reader.features import picture_of
from caprag.training.reader.loop import _Learner, evaluate_features, fit_blank
from caprag.training.reader.stores import batches

TEXTS = ("ABBA", "CAB", "BEAD", "FACE", "DEAF", "CAFE")
"""Letters that the drawn font has."""


def lines_of(font: Path, count: int, seed: int) -> CaptionLines:
    return CaptionLines(TEXTS, Backgrounds(()), load_fonts([font], sample=TEXTS), count=count, seed=seed)


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_font(tmp_path_factory.mktemp("font") / "letters.ttf", "".join(sorted(set("".join(TEXTS)))))


@pytest.fixture(scope="module")
def pixels(font: Path, tmp_path_factory: pytest.TempPathFactory) -> LineStore:
    return make_pixels(functools.partial(lines_of, font, 24, 1), 24, tmp_path_factory.mktemp("p"), about="test")


@pytest.fixture(scope="module")
def maps(pixels: LineStore, tmp_path_factory: pytest.TempPathFactory) -> LineStore:
    return make_maps(pixels, tmp_path_factory.mktemp("m"))


@pytest.fixture(scope="module")
def store(pixels: LineStore, tmp_path_factory: pytest.TempPathFactory) -> LineStore:
    return make_features(pixels, tmp_path_factory.mktemp("f"))


@pytest.fixture(scope="module")
def base(store: LineStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("base") / "new"
    new_reader(made, "ABCDEF", ReaderSize(hidden=128, layers=1, heads=4, key_value_heads=2, intermediate=128), seed=1)
    model = ReaderForConditionalGeneration.from_pretrained(made)
    assert fit_blank(model, store) > 0.9
    model.save_pretrained(made)
    return made


def test_lines_are_cut_out_alike_each_time(font: Path) -> None:
    one, two = lines_of(font, 5, 3), lines_of(font, 5, 3)
    for number in reversed(range(5)):
        for first, second in zip(one.make(number), two.make(number), strict=True):
            assert first.text == second.text
            assert "".join(first.text.split()) in "".join(TEXTS)
            np.testing.assert_array_equal(np.asarray(first.image), np.asarray(second.image))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pixels_and_features_are_those_of_the_lines_and_resume(font: Path, tmp_path: Path) -> None:
    source = functools.partial(lines_of, font, 6, 2)
    drawn = make_pixels(source, 6, tmp_path / "p", about="six")
    made = make_features(drawn, tmp_path / "f")
    shown = make_maps(drawn, tmp_path / "m")
    lines = [line for number in range(6) for line in source().make(number)]
    assert drawn.texts == made.texts == shown.texts == [line.text for line in lines]
    for place, line in enumerate(lines):
        np.testing.assert_array_equal(picture_of(drawn[place]), line_bytes(line.image))
        found = Tower(1).features([line_pixels(line.image)])[0]
        np.testing.assert_allclose(made[place], found, atol=2e-2, rtol=1e-3)
        assert shown[place].shape == (len(found), 2, 12, 96)
    before = [contents(tmp_path / name) for name in "pmf"]
    kept = make_pixels(source, 6, tmp_path / "p", about="six")
    again = make_features(kept, tmp_path / "f")
    assert make_maps(kept, tmp_path / "m").texts == again.texts == made.texts
    assert before == [contents(tmp_path / name) for name in "pmf"]
    with pytest.raises(ValueError, match="other lines"):
        make_pixels(source, 6, tmp_path / "p", about="others")
    with pytest.raises(ValueError, match="other lines"):
        make_maps(make_pixels(source, 6, tmp_path / "q", about="others"), tmp_path / "m")
    assert made.first(2).texts == made.texts[:2]


def test_the_last_stages_are_the_networks_own_with_and_without_changes(pixels: LineStore) -> None:
    """What gradients go through is what onnxruntime computes."""
    line = line_pixels(picture_of(pixels[0]))
    maps = torch.from_numpy(Tower(1, end=LAST_STAGES).maps([line])[0])[None]
    changes = TowerChanges(4)
    with torch.no_grad():
        before = LastStages(changes)(maps)[0].numpy()
        for part in changes.up.values():
            part.normal_(std=0.05)
        after = LastStages(changes)(maps)[0].numpy()
    np.testing.assert_allclose(before, Tower(1).features([line])[0], atol=1e-3, rtol=1e-3)
    np.testing.assert_allclose(after, Tower(1, changes=changes.weights()).features([line])[0], atol=1e-3, rtol=1e-3)
    assert np.abs(after - before).max() > 0.1


def test_a_tuned_tower_reads_better_and_goes_on_as_if_it_had_not_been_stopped(
    pixels: LineStore, maps: LineStore, base: Path, tmp_path: Path
) -> None:
    options = TuningOptions(rank=4, steps=12, batch_size=8, learning_rate=5e-3, warmup_steps=2, checkpoint_steps=100)
    whole = tune_tower(maps, base, tmp_path / "whole", options, held_out=maps)
    assert tune_tower(maps, base, tmp_path / "parts", options, seconds=0.0)["step"] < options.steps
    ended = tune_tower(maps, base, tmp_path / "parts", options, held_out=maps)
    assert ended["cer"] == pytest.approx(whole["cer"], abs=1e-9)
    log = [json.loads(row) for row in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] > 0
    assert whole["cer"] < log[0]["cer"]
    one, two = (ReaderForConditionalGeneration.from_pretrained(tmp_path / name).eval() for name in ("whole", "parts"))
    for name, value in one.state_dict().items():
        torch.testing.assert_close(value, two.state_dict()[name], atol=1e-5, rtol=1e-4)
    # What is read from pictures goes through the changes, as what is learnt from features does.
    found = make_features(pixels, tmp_path / "features", reader=tmp_path / "whole")
    image = Image.fromarray(picture_of(pixels[0]))
    inputs = ReaderProcessor.from_pretrained(tmp_path / "whole")(images=[image])
    seen = one.picture_features(inputs["pixel_values"], inputs["pixel_widths"])[0]
    np.testing.assert_allclose(seen.numpy(), found[0], atol=2e-2, rtol=1e-3)
    assert np.abs(seen.numpy() - make_features(pixels, tmp_path / "plain")[0]).max() > 0.05
    with pytest.raises(ModelError, match="other lines or options"):
        tune_tower(maps, base, tmp_path / "parts", TuningOptions(rank=4, seed=3))
    with pytest.raises(ValueError, match="rank"):
        tune_tower(maps, tmp_path / "whole", tmp_path / "more", TuningOptions(rank=8))


def test_a_batch_has_one_width_and_each_line_comes_once() -> None:
    steps = np.random.default_rng(0).integers(1, 6, 100) * 4
    seen = list(batches(steps, 8, np.random.default_rng(1)))
    assert sorted(place for batch in seen for place in batch) == list(range(100))
    assert all(len({steps[place] for place in batch}) == 1 and len(batch) <= 8 for batch in seen)


def test_it_learns_and_goes_on_as_if_it_had_not_been_stopped(store: LineStore, base: Path, tmp_path: Path) -> None:
    options = ReaderOptions(
        epochs=30, batch_size=8, learning_rate=3e-3, warmup_steps=5, text_steps=3, checkpoint_steps=10_000, seed=1
    )
    whole = train_reader(store, base, tmp_path / "whole", options, sentences=TEXTS, held_out=store)
    stopped = train_reader(store, base, tmp_path / "parts", options, sentences=TEXTS, seconds=0.0)
    assert stopped["step"] < stopped["steps"]
    ended = train_reader(store, base, tmp_path / "parts", options, sentences=TEXTS, held_out=store)
    weights = [
        ReaderForConditionalGeneration.from_pretrained(tmp_path / name).state_dict() for name in ("whole", "parts")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], atol=1e-5, rtol=1e-4)
    assert ended["cer"] == pytest.approx(whole["cer"], abs=1e-9)
    model = ReaderForConditionalGeneration.from_pretrained(base)
    before = evaluate_features(model, ReaderProcessor.from_pretrained(base), store)
    assert whole["cer"] < 0.35 < before["cer"]
    log = [json.loads(line) for line in (tmp_path / "whole/log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == whole["steps"]
    with pytest.raises(ModelError, match="other lines or options"):
        train_reader(store, base, tmp_path / "parts", ReaderOptions(seed=2), sentences=TEXTS)
    with pytest.raises(ValueError, match="no sentences"):
        train_reader(store, base, tmp_path / "none", ReaderOptions(text_steps=1))


def test_half_precision_is_for_products_alone(store: LineStore, base: Path, tmp_path: Path) -> None:
    """The losses are those of single precision within its digits; what is kept has single precision."""
    losses = {}
    for half in (False, True):
        options = ReaderOptions(epochs=4, batch_size=8, learning_rate=1e-3, text_steps=2, checkpoint_steps=5, half=half)
        losses[half] = train_reader(store, base, tmp_path / str(half), options, sentences=TEXTS)["loss"]
    assert losses[True] == pytest.approx(losses[False], rel=0.03)
    assert losses[True] != losses[False]
    kept = torch.load(tmp_path / "True/checkpoint.pt", weights_only=True)["model"]
    assert {value.dtype for value in kept.values() if value.is_floating_point()} == {torch.float32}


def test_pictures_made_up_of_text_look_like_pictures(store: LineStore, base: Path, tmp_path: Path) -> None:
    """Their steps show characters, those that the text has, and are as long as a picture's."""
    learner = _Learner(store, base, tmp_path, ReaderOptions(blur=0.0), TEXTS)
    ids = [learner._ids(text) for text in TEXTS for _ in range(8)]
    made = learner.made_up(ids, np.random.default_rng(0))
    steps, wanted = torch.cat(made), []
    for row, prefix in zip(ids, made, strict=True):
        wanted += row if len(prefix) == len(row) else [-1] * len(prefix)
    with torch.no_grad():
        assert bool((learner.model.projector.blank(steps) < _EMPTY).all())
        read = learner.model.ctc_logits(steps).argmax(1).tolist()
    told = [a == b for a, b in zip(read, wanted, strict=True) if b >= 0]
    assert len(told) > 100
    assert np.mean(told) > 0.9


def test_only_what_is_learnt_moves(store: LineStore, base: Path, tmp_path: Path) -> None:
    """Neck and embeddings stand still unless they have a rate; the neck's normalisations keep their statistics."""
    before = ReaderForConditionalGeneration.from_pretrained(base).state_dict()

    def moved(name: str, **rates: float) -> set[str]:
        train_reader(store, base, tmp_path / name, ReaderOptions(epochs=1, batch_size=24, **rates))  # type: ignore[arg-type]
        after = ReaderForConditionalGeneration.from_pretrained(tmp_path / name).state_dict()
        return {name for name, value in before.items() if not torch.equal(value, after[name])}

    alone, all_moved = moved("alone"), moved("all", neck_rate=1e-4, embedding_rate=1e-4, ctc_weight=0.3)
    assert alone == {
        name for name in alone if name.startswith(("language_model.model.layers", "projector.detail", "pointer."))
    } | {"language_model.model.norm.weight"}
    assert not {name for name in all_moved if "running" in name or name.startswith("projector.blank")}
    for part in ("neck.svtr_block", "projector.to_text", "language_model.model.embed_tokens", "ctc_bias"):
        assert any(name.startswith(part) for name in all_moved), part


def test_a_picture_goes_the_whole_way(base: Path) -> None:
    model = ReaderForConditionalGeneration.from_pretrained(base).eval()
    inputs = ReaderProcessor.from_pretrained(base)(images=[Image.new("RGB", (200, 50))])
    seen = model.look(**inputs)
    assert seen["input_ids"].shape[1] < inputs["input_ids"].shape[1]
    found = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert found.shape[1] > seen["input_ids"].shape[1]
    assert torch.equal(found, model.generate(**seen, max_new_tokens=2, do_sample=False))
