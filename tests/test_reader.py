"""The shipped reader's network: its tower, its neck, and reading by transformers' own means."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from PIL import Image, ImageDraw

from caprag.recognition.reader import (
    ReaderConfig,
    ReaderForConditionalGeneration,
    ReaderImageProcessor,
    ReaderProcessor,
    character_tokenizer,
)
from caprag.recognition.reader.ctc_prefix import next_logprobs
from caprag.recognition.reader.processing import SPECIAL
from caprag.recognition.reader.tower import CHANNELS, Tower, line_pixels, network_file
from caprag.recognition.vlm import VLMRecognizer
from caprag.training.reader.initial import ReaderSize, load_recognizer_weights, new_reader

LETTERS = "ABCDEFGHabcdefgh0123456789 ,.一二三"


def drawn(text: str, size: tuple[int, int] = (300, 60)) -> Image.Image:
    """Write a text in Pillow's own face, as large as the line."""
    image = Image.new("RGB", size, "black")
    ImageDraw.Draw(image).text((12, 4), text, fill="white", font_size=44)
    return image


@pytest.fixture(scope="module")
def tower() -> Tower:
    return Tower(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new reader: a language model and a pointer that know nothing on a neck that knows its characters."""
    made = tmp_path_factory.mktemp("reader") / "new"
    new_reader(made, LETTERS, ReaderSize(hidden=128, layers=1, heads=4, key_value_heads=2, intermediate=64), seed=1)
    model = ReaderForConditionalGeneration.from_pretrained(made)
    torch.manual_seed(2)
    with torch.no_grad():
        for part in (model.pointer.query.weight, model.pointer.gate.weight, model.pointer.end, model.pointer.end_key):
            part.normal_(std=0.2)
    model.config.ctc_share = 0.7
    model.save_pretrained(made)
    return made


def spelt(path: Sequence[int], blank: int) -> list[int]:
    """Return what a path of CTC says."""
    return [token for token, _ in itertools.groupby(path) if token != blank]


def test_what_comes_next_is_the_sum_over_all_paths() -> None:
    """Against a list of all paths: repeated characters, short lines, and texts that a line is too short for."""
    blank, end, tokens, steps = 1, 0, 5, 5
    generator = torch.Generator().manual_seed(0)
    heard = torch.rand(2, steps, tokens, generator=generator)
    heard[:, :, end] = 0
    heard /= heard.sum(-1, keepdim=True)
    heard[1, 3:] = 0
    heard[1, 3:, blank] = 1
    texts = torch.tensor([[2, 2, 3], [2, 3, 4], [3, 3, 3], [4, 2, 2]])
    found = next_logprobs(heard, texts, blank=blank, end=end)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(4, 4))
    torch.testing.assert_close(next_logprobs(heard, texts, blank=blank, end=end, kept=slice(-2, None)), found[:, -2:])
    paths = list(itertools.product(range(tokens), repeat=steps))
    for row, text in enumerate(texts.tolist()):
        chances = [math.prod(float(heard[row // 2, t, token]) for t, token in enumerate(path)) for path in paths]
        told = [spelt(path, blank) for path in paths]
        for length in range(4):
            begun = [
                (said, chance) for said, chance in zip(told, chances, strict=True) if said[:length] == text[:length]
            ]
            whole = sum(chance for _, chance in begun)
            if whole < 1e-9:
                continue
            for token in range(tokens):
                wanted = [] if token == end else [token]
                chance = sum(c for said, c in begun if said[length : length + 1] == wanted) / whole
                assert float(found[row, length, token].exp()) == pytest.approx(
                    0.0 if token == blank else chance, abs=1e-5
                )


def test_a_line_keeps_its_proportions_and_is_filled_up_with_grey() -> None:
    pixels = line_pixels(Image.new("RGB", (100, 40), (255, 0, 0)))
    assert pixels.shape == (3, 48, 128)
    assert np.allclose(pixels[:, :, :118], np.array([-1.0, -1.0, 1.0])[:, None, None])
    assert np.abs(pixels[:, :, 120:]).max() < 0.005
    assert line_pixels(Image.new("RGB", (1, 300))).shape == (3, 48, 32)


def test_features_of_a_line_do_not_depend_on_its_neighbours(tower: Tower) -> None:
    lines = [line_pixels(drawn("ABC")), line_pixels(drawn("12", (90, 60)))]
    together = tower.features(lines)
    assert [len(found) for found in together] == [line.shape[2] // 8 for line in lines]
    for line, found in zip(lines, together, strict=True):
        assert found.shape[1] == CHANNELS
        np.testing.assert_array_equal(tower.features([line])[0], found)
    for found, other in zip(together, Tower(3).features(lines), strict=True):
        np.testing.assert_array_equal(found, other)


def test_a_new_readers_neck_is_the_recognizers_own(tower: Tower, folder: Path) -> None:
    """Neck and characters say what the whole network in rapidocr says of the same line."""
    pixels = line_pixels(drawn("ABCD 12"))
    whole = onnxruntime.InferenceSession(str(network_file()), providers=["CPUExecutionProvider"])
    expected = whole.run(None, {"x": pixels[None]})[0][0]
    known = load_recognizer_weights()
    model = ReaderForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        steps = model.steps(torch.from_numpy(tower.features([pixels])[0])[None])
        ours = model.ctc_logits(steps)[0]
    logits = steps[0].numpy() @ known.head.T + known.bias
    shares = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(shares / shares.sum(1, keepdims=True), expected, atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    places = [known.characters.index(character) for character in LETTERS if character in known.characters]
    tokens = tokenizer.convert_tokens_to_ids([c for c in LETTERS if c in known.characters])
    np.testing.assert_allclose(ours[:, tokens].numpy(), logits[:, places], rtol=1e-3, atol=1e-2)


def test_characters_are_tokens() -> None:
    tokenizer = character_tokenizer("一二 a")
    ids = tokenizer("一 二a龍", add_special_tokens=False)["input_ids"]
    assert ids == [len(SPECIAL) + place for place in (0, 2, 1, 3)] + [tokenizer.unk_token_id]
    assert tokenizer.decode(ids[:-1]) == "一 二a"
    with pytest.raises(ValueError, match="not one character"):
        character_tokenizer(["ab"])


def test_the_recognizer_reads_with_it(folder: Path) -> None:
    """Beams of mixed widths are those of single lines, and scores are the plain model's."""
    recognizer = VLMRecognizer(folder, max_new_tokens=6, crop="frame")
    pictures = [drawn("AB12"), drawn("c", (70, 60)), drawn("ABCDEFGH 34", (420, 60))]
    together = recognizer.recognize_batch(pictures, 5)
    for picture, found in zip(pictures, together, strict=True):
        alone = recognizer.recognize_batch([picture], 5)[0]
        assert [h.text for h in alone] == [h.text for h in found]
        assert np.allclose([h.logprob for h in alone], [h.logprob for h in found], atol=1e-3)
    model: Any = ReaderForConditionalGeneration.from_pretrained(folder).eval()
    processor = ReaderProcessor.from_pretrained(folder)
    shown, text = next((one, h) for one, found in zip(pictures, together, strict=True) for h in found if h.text)
    inputs = processor(images=[shown])
    said = processor.tokenizer(text.text, add_special_tokens=False)["input_ids"] + [processor.tokenizer.eos_token_id]
    whole = torch.cat([inputs["input_ids"], torch.tensor([said])], 1)
    with torch.no_grad():
        logits = model(
            input_ids=whole, pixel_values=inputs["pixel_values"], pixel_widths=inputs["pixel_widths"], use_cache=False
        ).logits[0]
    told = logits.log_softmax(-1)[-len(said) - 1 : -1].gather(1, torch.tensor(said)[:, None]).sum()
    assert float(told) == pytest.approx(text.logprob, abs=1e-3)


def test_it_takes_no_prompt_and_checks_its_places() -> None:
    tokenizer = character_tokenizer(LETTERS)
    processor = ReaderProcessor(ReaderImageProcessor(), tokenizer)
    with pytest.raises(ValueError, match="no prompt"):
        processor(images=[drawn("A")], text=["read"])
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    }  # fmt: skip
    model = ReaderForConditionalGeneration(ReaderConfig(text)).eval()
    with pytest.raises(ValueError, match="processor make the inputs"):
        model(input_ids=torch.tensor([[0, 0, 1]]), features=[torch.zeros(8, CHANNELS)])
