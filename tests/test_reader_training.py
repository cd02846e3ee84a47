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
from caprag.recognition.reader.tower import Tower, line_pixels
from caprag.synthesis.backgrounds import Backgrounds
from caprag.synthesis.fonts import load_fonts
from caprag.training.reader import (
    CaptionLines,
    FeatureStore,
    ReaderOptions,
    ReaderSize,
    make_features,
    new_reader,
    train_reader,
)
from caprag.training.reader.features import batches
from caprag.training.reader.loop import evaluate_features, fit_blank

TEXTS = ("ABBA", "CAB", "BEAD", "FACE", "DEAF", "CAFE")
"""Letters that the drawn font has."""


def lines_of(font: Path, count: int, seed: int) -> CaptionLines:
    return CaptionLines(TEXTS, Backgrounds(()), load_fonts([font], sample=TEXTS), count=count, seed=seed)


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_font(tmp_path_factory.mktemp("font") / "letters.ttf", "".join(sorted(set("".join(TEXTS)))))


@pytest.fixture(scope="module")
def store(font: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return make_features(functools.partial(lines_of, font, 24, 1), 24, tmp_path_factory.mktemp("f"), about="test")


@pytest.fixture(scope="module")
def base(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


def test_features_are_those_of_the_lines_and_resume(font: Path, tmp_path: Path) -> None:
    source = functools.partial(lines_of, font, 6, 2)
    made = make_features(source, 6, tmp_path / "f", about="six")
    lines = [line for number in range(6) for line in source().make(number)]
    assert made.texts == [line.text for line in lines]
    found = Tower(1).features([line_pixels(lines[-1].image)])[0]
    np.testing.assert_allclose(made[len(made) - 1], found, atol=2e-2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "f").iterdir()}
    again = make_features(source, 6, tmp_path / "f", about="six")
    assert again.texts == made.texts
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "f").iterdir()}
    with pytest.raises(ValueError, match="other lines"):
        make_features(source, 6, tmp_path / "f", about="others")
    assert made.first(2).texts == made.texts[:2]


def test_a_batch_has_one_width_and_each_line_comes_once() -> None:
    steps = np.random.default_rng(0).integers(1, 6, 100) * 4
    seen = list(batches(steps, 8, np.random.default_rng(1)))
    assert sorted(place for batch in seen for place in batch) == list(range(100))
    assert all(len({steps[place] for place in batch}) == 1 and len(batch) <= 8 for batch in seen)


def test_it_learns_and_goes_on_as_if_it_had_not_been_stopped(store: FeatureStore, base: Path, tmp_path: Path) -> None:
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


def test_only_what_is_learnt_moves(store: FeatureStore, base: Path, tmp_path: Path) -> None:
    """The neck's normalisations go on with the statistics that the tower was trained with."""
    options = ReaderOptions(epochs=1, batch_size=24)
    train_reader(store, base, tmp_path / "out", options)
    before, after = (ReaderForConditionalGeneration.from_pretrained(f).state_dict() for f in (base, tmp_path / "out"))
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert not {name for name in moved if "running" in name}
    assert any(name.startswith("neck.svtr_block") for name in moved)


def test_a_picture_goes_the_whole_way(base: Path) -> None:
    model = ReaderForConditionalGeneration.from_pretrained(base).eval()
    inputs = ReaderProcessor.from_pretrained(base)(images=[Image.new("RGB", (200, 50))])
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[1] > inputs["input_ids"].shape[1]
