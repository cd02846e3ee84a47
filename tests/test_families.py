"""Every family that is named in the documentation: its real processor, a tiny random model, against plain forwards.

The oracle reads prompt and text in one pass of the model's own forward, without cache or padding.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from tiny_models import FAMILIES, SENTENCES, picture

from caprag.recognition.loading import load_processor
from caprag.recognition.vlm import VLMRecognizer
from caprag.text import normalize

hub: Any = transformers  # its annotations differ from version to version

# transformers' processors hand a torch tensor to numpy in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPT = "讀字幕"
TEXTS = ("", SENTENCES[0], "OK, let's go\n回家", "x")
SIZES = ((64, 32), (48, 48), (96, 24))
UNASKED = ("got_ocr2", "trocr")
"""Families that take the picture alone, or whose processor writes the prompt."""

ENCODER_DECODERS = ("trocr", "florence2")
CHAT = "<|im_start|>user\n{}" + PROMPT + "<|im_end|>\n<|im_start|>assistant\n"
PROMPTS = {
    "llava": CHAT.format("<image>\n"),
    "tinyllava": f"USER: <image>\n{PROMPT} ASSISTANT:",
    "llava_onevision": CHAT.format("<image>\n"),
    "minicpm_v": CHAT.format("<image>\n"),
    "internvl": CHAT.format("<image>\n"),
    "smolvlm": CHAT.format("<image>"),
    "glm_ocr": CHAT.format("<|vision_start|><|image_pad|><|vision_end|>"),
    "paddleocr_vl": CHAT.format("<|IMAGE_PLACEHOLDER|>"),
    "florence2": PROMPT,
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _inputs(family: str, folder: Path, image: Image.Image) -> dict[str, torch.Tensor]:
    """The model's inputs, without the recognizer."""
    if family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        settings = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        eyes = hub.Qwen2VLImageProcessorPil(patch_size=8, merge_size=2, temporal_patch_size=2, size=settings["size"])
        seen = eyes(images=[image], return_tensors="pt")
        patches = int(seen["image_grid_thw"].prod()) // 4
        tokens = hub.AutoTokenizer.from_pretrained(folder)
        ids = tokens(CHAT.format(f"<|vision_start|>{'<|image_pad|>' * patches}<|vision_end|>"), return_tensors="pt")[
            "input_ids"
        ]
        kinds = (ids == tokens.convert_tokens_to_ids("<|image_pad|>")).long()
        return {"input_ids": ids, "mm_token_type_ids": kinds, **seen}
    processor, _ = load_processor(folder)
    if family in UNASKED:
        return {**processor(images=image, return_tensors="pt")}
    return {**processor(images=[[image]], text=[PROMPTS[family]], return_tensors="pt")}


class Oracle:
    """Next-token distributions from plain forwards: one sequence, no cache, no padding."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family, self.folder = family, folder
        self.model = hub.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokens = hub.AutoTokenizer.from_pretrained(folder)
        names = {"llava": ("<|im_end|>", "<|endoftext|>"), "got_ocr2": ("<|im_end|>", "<|endoftext|>")}
        self.ends = self.tokens.convert_tokens_to_ids(list(names.get(family, (self.tokens.eos_token,))))

    def look_at(self, image: Image.Image) -> None:
        self.inputs = _inputs(self.family, self.folder, image)
        self.inputs.pop("attention_mask", None)

    @torch.no_grad()
    def logprobs(self, said: list[int]) -> torch.Tensor:
        """ln p of every token after the prompt and after each token of `said`; shape (len + 1, vocabulary)."""
        names = inspect.signature(self.model.forward).parameters
        whole = {name: value for name, value in self.inputs.items() if name in names}
        if self.family in ENCODER_DECODERS:
            whole["decoder_input_ids"] = torch.tensor([[self.tokens.eos_token_id, *said]])
        else:
            whole["input_ids"] = torch.cat([whole["input_ids"], torch.tensor([said], dtype=torch.long)], dim=1)
            if "mm_token_type_ids" in whole:
                zeros = torch.zeros(1, len(said), dtype=torch.long)
                whole["mm_token_type_ids"] = torch.cat([whole["mm_token_type_ids"], zeros], dim=1)
        logits = self.model(**whole, use_cache=False).logits[0, -len(said) - 1 :]
        return torch.log_softmax(logits.double(), dim=-1)

    def score(self, text: str) -> float:
        def encode(text: str) -> list[int]:
            return list(self.tokens(text, add_special_tokens=False)["input_ids"])

        ways = [encode(text)]
        if self.family in ENCODER_DECODERS:
            # The tokenizer begins a text with <s>: with and without it, the same text is read.
            ways.append([self.tokens.bos_token_id, *ways[0]])
        if self.family == "tinyllava":
            # With and without a space after "ASSISTANT:", the same text is read.
            ways.append(encode(" " + text))
        return math.log(sum(math.exp(self._way(way)) for way in ways))

    def _way(self, ids: list[int]) -> float:
        table = self.logprobs(ids)
        said = sum(float(table[place, token]) for place, token in enumerate(ids))
        return said + math.log(float(table[-1, self.ends].exp().sum()))


class Case:
    """A family with its folder, its reader and its oracle."""

    def __init__(self, family: str, folder: Path) -> None:
        if family == "smolvlm":
            pytest.importorskip("num2words", reason="SmolVLM's processor wants num2words")
        FAMILIES[family](folder)
        self.family = family
        self.reader = VLMRecognizer(
            folder, prompt=None if family in UNASKED else PROMPT, crop="frame", stop=(), batch_size=3,
            max_new_tokens=8, device="cpu",
        )  # fmt: skip
        self.oracle = Oracle(family, folder)

    def forget(self) -> None:
        """Make the reader look at its next pictures anew."""
        self.reader.score_batch([picture(99, (32, 32))], [["x"]])


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("模型 臺灣") / request.param)


def test_scores_are_those_of_teacher_forcing(case: Case) -> None:
    images = [picture(1, (48, 48)), picture(2, (96, 24))]
    found = case.reader.score_batch(images, [TEXTS, TEXTS[:2]])
    for image, texts, scores in zip(images, (TEXTS, TEXTS[:2]), found, strict=True):
        case.oracle.look_at(image)
        assert scores == pytest.approx([case.oracle.score(text) for text in texts], abs=1e-4)
    assert found[0][1] != pytest.approx(found[1][1], abs=1e-2)  # the picture matters


def test_hypotheses_are_scored_as_by_teacher_forcing(case: Case) -> None:
    images = [picture(seed, SIZES[seed % 3]) for seed in range(4)]
    found = case.reader.recognize_batch(images, n_best=6)
    assert sum(map(len, found)) > len(images)
    for hypotheses, image in zip(found, images, strict=True):
        texts = [h.text for h in hypotheses]
        logprobs = [h.logprob for h in hypotheses]
        assert 1 <= len(texts) <= 6
        assert len({normalize(text) for text in texts}) == len(texts)
        assert logprobs == sorted(logprobs, reverse=True)
        assert all(text == text.strip() and "\ufffd" not in text for text in texts)
        case.oracle.look_at(image)
        assert logprobs == pytest.approx([case.oracle.score(text) for text in texts], abs=1e-4)


def test_a_batch_of_mixed_sizes_reads_as_its_pictures_alone(case: Case) -> None:
    images = [picture(seed, SIZES[seed % 3]) for seed in range(3)]
    together = case.reader.recognize_batch(images, n_best=2)
    scores = case.reader.score_batch(images, [TEXTS] * 3)
    case.forget()
    for image, hypotheses, scored in zip(images, together, scores, strict=True):
        (alone,) = case.reader.recognize_batch([image], n_best=2)
        assert [h.text for h in alone] == [h.text for h in hypotheses]
        assert [h.logprob for h in alone] == pytest.approx([h.logprob for h in hypotheses], abs=1e-4)
        assert case.reader.score_batch([image], [TEXTS])[0] == pytest.approx(scored, abs=1e-4)


def test_one_hypothesis_is_the_argmax_of_every_step(case: Case) -> None:
    image = picture(5, (64, 32))
    case.oracle.look_at(image)
    said: list[int] = []
    while len(said) < 8:
        token = int(case.oracle.logprobs(said)[-1].argmax())
        if token in case.oracle.ends:
            break
        said.append(token)
    text = case.oracle.tokens.decode(said, skip_special_tokens=True).partition("\ufffd")[0].strip()
    ((hypothesis,),) = case.reader.recognize_batch([image])
    assert hypothesis.text == text
    # A search that came to the end knows the probability by itself.
    assert hypothesis.logprob == pytest.approx(case.oracle.score(text), abs=1e-4)
