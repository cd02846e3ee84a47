"""What can be asked of a VLMRecognizer: adapters, crops, stops, draws, bounds, and what it does with little memory."""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from PIL import Image
from tiny_models import SENTENCES, picture, pictures

from caprag.errors import MissingDependencyError, ModelError
from caprag.recognition import RapidOCRRecognizer, load_recognizer
from caprag.recognition.constrained import SentenceConstraint
from caprag.recognition.families import FAMILIES, PROMPT, family_of
from caprag.recognition.loading import load_model
from caprag.recognition.sampling import Drawing, Sampling, cut
from caprag.recognition.vlm import VLMRecognizer
from caprag.text import normalize

hub: Any = transformers  # its annotations differ from version to version

FRAMES = Path(__file__).resolve().parent.parent / "indexes/demo/frames"
ASKED = "讀字幕"

# peft asks transformers for a name that is deprecated there.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llava(tmp_path_factory.mktemp("model") / "llava")


def reader_of(folder: Path, **options: Any) -> VLMRecognizer:
    return VLMRecognizer(folder, **{"prompt": ASKED, "device": "cpu", "max_new_tokens": 8, "batch_size": 4, **options})


def _options(*several: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return several


@pytest.fixture(scope="module")
def reader(folder: Path) -> VLMRecognizer:
    return reader_of(folder)


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA with random weights, which does change what the model says."""
    peft = pytest.importorskip("peft", reason="adapters want peft")
    torch.manual_seed(1)
    model = hub.AutoModelForImageTextToText.from_pretrained(folder)
    settings = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    place = tmp_path_factory.mktemp("adapter")
    peft.get_peft_model(model, settings).save_pretrained(place)
    return place


def test_an_adapter_reads_as_the_merged_model(
    folder: Path, adapter: Path, reader: VLMRecognizer, tmp_path: Path
) -> None:
    import peft

    base = hub.AutoModelForImageTextToText.from_pretrained(folder)
    peft.PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(tmp_path)
    hub.AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    images, texts = pictures(2), [SENTENCES[:2]] * 2
    merged = reader_of(tmp_path).score_batch(images, texts)
    for given in (reader_of(adapter), reader_of(folder, adapter=adapter)):
        for some, others in zip(given.score_batch(images, texts), merged, strict=True):
            assert some == pytest.approx(others, abs=1e-4)
    assert merged[0] != pytest.approx(reader.score_batch(images, texts)[0], abs=1e-2)


def test_an_adapter_whose_base_has_moved_says_what_to_do(folder: Path, adapter: Path, tmp_path: Path) -> None:
    moved = tmp_path / "adapter"
    shutil.copytree(adapter, moved)
    settings = json.loads((moved / "adapter_config.json").read_text(encoding="utf-8"))
    settings["base_model_name_or_path"] = str(tmp_path / "gone")
    (moved / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ModelError, match=r"made for the model .*gone.*as the model, and this one as its adapter"):
        VLMRecognizer(moved)
    scores = reader_of(folder, adapter=moved).score_batch([picture(0)], [SENTENCES[:1]])
    assert scores[0] == pytest.approx(reader_of(adapter).score_batch([picture(0)], [SENTENCES[:1]])[0], abs=1e-4)


def test_an_adapter_that_does_not_fit_is_named(folder: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not fit|holds no adapter_config"):
        load_model(tiny_models.trocr(tmp_path), adapter=adapter)
    with pytest.raises(ModelError, match=r"holds no adapter_config\.json"):
        load_model(folder, adapter=folder)
    with pytest.raises(ModelError, match="is an adapter itself"):
        load_model(adapter, adapter=adapter)


def test_whole_numbers_need_a_device_for_them(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"int8 needs a CUDA device or a CPU, and this is meta; take dtype bfloat16"):
        load_model(folder, "meta", "int8")


@pytest.mark.parametrize(("dtype", "kind", "near"), [("int8", "Linear8bitLt", 0.02), ("int4", "Linear4bit", 0.1)])
def test_few_bits_read_on_a_cpu_too(tmp_path: Path, dtype: Any, kind: str, near: float) -> None:
    """Scores are near those of the whole weights, and are the same in any company."""
    pytest.importorskip("bitsandbytes")
    folder = tiny_models.llava(tmp_path, **tiny_models.WIDE)
    whole, few = (
        VLMRecognizer(folder, prompt=PROMPT, device="cpu", dtype=chosen, max_new_tokens=8)
        for chosen in ("float32", dtype)
    )
    texts = [["早安", "我不知道"], ["早安"]]
    images = [picture(0), picture(1)]
    scores = few.score_batch(images, texts)
    expected = whole.score_batch(images, texts)
    for image, row, mine, theirs in zip(images, texts, scores, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=near)
        assert few.score_batch([image], [row])[0] == pytest.approx(mine, abs=0.05)
    assert sum(type(module).__name__ == kind for module in load_model(folder, "cpu", dtype).modules()) > 8


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="what happens without bitsandbytes")
def test_whole_numbers_without_their_package_give_the_install_line(folder: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install 'caprag\[quantize\]'"):
        load_model(folder, "cuda", "int4")


def test_every_listed_family_is_one_that_is_read() -> None:
    known = set(hub.models.auto.modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    assert set(FAMILIES) - {"caprag_reader"} <= known
    assert family_of("qwen3_vl").prompt == PROMPT
    assert family_of("paddleocr_vl").prompt == "OCR:"


def test_the_readers_folder_is_known_without_more(tmp_path: Path) -> None:
    """In a process that has not imported its classes; one line of text reads as plain generation says."""
    from caprag.recognition.reader import (
        ReaderConfig,
        ReaderForConditionalGeneration,
        ReaderImageProcessor,
        ReaderProcessor,
        character_tokenizer,
    )

    tokens = character_tokenizer("今天氣很好")
    text = {"vocab_size": len(tokens), "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
            "head_dim": 8, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True,
            "bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id}  # fmt: skip
    torch.manual_seed(0)
    model = ReaderForConditionalGeneration(ReaderConfig(text, {})).eval()
    model.save_pretrained(tmp_path)
    processor = ReaderProcessor(ReaderImageProcessor(), tokens)
    processor.save_pretrained(tmp_path)
    frame = Image.open(FRAMES / "01-clear.jpg").convert("RGB")
    ((part,),) = RapidOCRRecognizer(n_threads=1).find_parts_batch([frame])
    seen = model.look(**processor([part.image]))
    made = model.generate(**seen, max_new_tokens=6, do_sample=False)
    wanted = tokens.decode(made[0][seen["input_ids"].shape[1] :], skip_special_tokens=True)
    program = (
        "import sys\nfrom PIL import Image\nfrom caprag.recognition.vlm import VLMRecognizer\n"
        "reader = VLMRecognizer(sys.argv[1], device='cpu', max_new_tokens=6)\n"
        "print(ascii(reader.recognize_batch([Image.open(sys.argv[2])])[0][0].text))"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(FRAMES / "01-clear.jpg")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert ast.literal_eval(said.strip()) == wanted.strip()
    assert family_of("caprag_reader").crop == "parts"


def test_a_family_is_asked_what_it_expects(tmp_path: Path) -> None:
    made = tiny_models.paddleocr_vl(tmp_path)
    image, texts = picture(1), [SENTENCES[:2]]
    unasked, asked, other = (
        VLMRecognizer(made, crop="frame", device="cpu", **more).score_batch([image], texts)[0]
        for more in _options({}, {"prompt": "OCR:"}, {"prompt": ASKED})
    )
    assert unasked == asked
    assert unasked != pytest.approx(other, abs=1e-2)


def test_a_band_is_where_the_caption_stands() -> None:
    ocr = RapidOCRRecognizer(n_threads=1)
    frame = Image.open(FRAMES / "02-logo.jpg").convert("RGB")
    (band,) = ocr.find_batch([frame])
    assert band is not None
    left, top, right, bottom = band
    assert 0 <= left < right <= frame.width
    assert 0 <= top < bottom <= frame.height
    assert bottom - top < frame.height / 3
    read, cropped = ocr.recognize_batch([frame, frame.crop(band)])
    assert cropped[0].text == read[0].text
    assert ocr.find_batch([Image.new("RGB", (640, 360), (128, 128, 128))]) == [None]
    strip = frame.crop(band)
    assert ocr.find_batch([strip]) == [(0, 0, *strip.size)]


def test_a_band_is_what_the_model_sees(folder: Path, reader: VLMRecognizer) -> None:
    frame = Image.open(FRAMES / "01-clear.jpg").convert("RGB")
    (band,) = RapidOCRRecognizer(n_threads=1).find_batch([frame])
    grey = Image.new("RGB", (640, 360), (128, 128, 128))
    found = reader_of(folder, crop="band").recognize_batch([frame, grey], 2)
    assert found == reader.recognize_batch([frame.crop(band), grey], 2)
    assert found != reader.recognize_batch([frame, grey], 2)


def test_a_reading_ends_before_a_stop(folder: Path, reader: VLMRecognizer) -> None:
    images = pictures(6)
    long = reader_of(folder, stop=())
    whole = [hypotheses[0].text for hypotheses in long.recognize_batch(images)]
    stop = next(text[1] for text in whole if len(text) > 1 and not text[1].isspace())
    short = reader_of(folder, stop=[stop]).recognize_batch(images)
    assert [hypotheses[0].text for hypotheses in short] == [cut(text, [stop]).strip() for text in whole]
    assert [hypotheses[0].text for hypotheses in short] != whole
    scores = long.score_batch(images, [[hypotheses[0].text] for hypotheses in short])
    for hypotheses, scored in zip(short, scores, strict=True):
        assert [hypothesis.logprob for hypothesis in hypotheses] == pytest.approx(scored, abs=1e-4)
    for hypotheses in reader_of(folder, stop=[stop]).recognize_batch(images, 4):
        assert not any(stop in hypothesis.text for hypothesis in hypotheses)


class Bound:
    """Lets the search write some texts and no other."""

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        tokens = hub.AutoTokenizer.from_pretrained(folder)
        self.rows = [tokens(text, add_special_tokens=False)["input_ids"] for text in texts]

    def processor(self, *, prompt_length: int, eos_token_ids: Sequence[int]) -> Any:
        def allowed(_: int, ids: torch.Tensor) -> list[int]:
            said = ids[prompt_length:].tolist()
            ways = [row for row in self.rows if row[: len(said)] == said]
            return [token for row in ways for token in row[len(said) : len(said) + 1]] or list(eos_token_ids)

        return hub.PrefixConstrainedLogitsProcessor(allowed, num_beams=1)

    def adjustment(self, tokens: Sequence[int]) -> float:
        return 0.0 if list(tokens) in self.rows else -math.inf


def test_a_bound_search_keeps_to_its_texts_and_scores_are_the_models_own(folder: Path, reader: VLMRecognizer) -> None:
    texts = ["走吧", "媽媽", "出去"]
    for more in ({}, {"sampling": Sampling()}):
        bound = reader_of(folder, constraint=Bound(folder, texts), **more)
        for image in pictures(2):
            (found,) = bound.recognize_batch([image], 3)
            assert {hypothesis.text for hypothesis in found} <= set(texts)
            (scores,) = reader.score_batch([image], [[hypothesis.text for hypothesis in found]])
            assert [hypothesis.logprob for hypothesis in found] == pytest.approx(scores, abs=1e-4)
    (found,) = reader_of(folder, constraint=Bound(folder, texts)).recognize_batch([picture(1)], 3)
    assert len(found) > 1


def test_what_fills_up_a_beam_is_no_reading(folder: Path, reader: VLMRecognizer) -> None:
    texts = ["走吧", "媽媽"]
    bound = reader_of(folder)
    free = bound.recognize_batch([picture(1)], 6)
    bound.constraint = SentenceConstraint(texts, bound.tokenizer, "hard", context=bound.context)
    (found,) = bound.recognize_batch([picture(1)], 6)
    (scores,) = reader.score_batch([picture(1)], [texts])
    wanted = sorted(zip(texts, scores, strict=True), key=lambda item: -item[1])
    assert [hypothesis.text for hypothesis in found] == [text for text, _ in wanted]
    assert [hypothesis.logprob for hypothesis in found] == pytest.approx([score for _, score in wanted], abs=1e-4)
    bound.constraint = None
    assert bound.recognize_batch([picture(1)], 6) == free


def test_texts_of_one_written_form_are_one_hypothesis(folder: Path, reader: VLMRecognizer) -> None:
    texts = ["ＯＫ", "OK", "走吧"]
    assert normalize(texts[0]) == normalize(texts[1])
    (found,) = reader_of(folder, constraint=Bound(folder, texts), max_new_tokens=20).recognize_batch([picture(2)], 3)
    (scores,) = reader.score_batch([picture(2)], [texts])
    best = dict(zip(texts, scores, strict=True))
    expected = sorted([max(texts[:2], key=best.__getitem__), texts[2]], key=lambda text: -best[text])
    assert [hypothesis.text for hypothesis in found] == expected
    assert [hypothesis.logprob for hypothesis in found] == pytest.approx([best[text] for text in expected], abs=1e-4)


def test_draws_are_distinct_scored_and_the_same_again(folder: Path, reader: VLMRecognizer) -> None:
    images = pictures(3)
    drawn = reader_of(folder, sampling=Sampling(temperature=0.7, top_p=0.9, seed=4))
    found = drawn.recognize_batch(images, 6)
    assert sum(map(len, found)) > len(images)
    scores = reader.score_batch(images, [[h.text for h in hypotheses] for hypotheses in found])
    for hypotheses, scored in zip(found, scores, strict=True):
        assert len({normalize(h.text) for h in hypotheses}) == len(hypotheses) <= 6
        assert [h.logprob for h in hypotheses] == sorted((h.logprob for h in hypotheses), reverse=True)
        assert [h.logprob for h in hypotheses] == pytest.approx(scored, abs=1e-4)
    torch.rand(3)  # whatever was drawn elsewhere
    reader_again = reader_of(folder, sampling=Sampling(temperature=0.7, top_p=0.9, seed=4))
    alone = [reader_again.recognize_batch([image], 6)[0] for image in reversed(images)][::-1]
    assert [[h.text for h in hypotheses] for hypotheses in alone] == [[h.text for h in h6] for h6 in found]
    other = reader_of(folder, sampling=Sampling(temperature=0.7, top_p=0.9, seed=5)).recognize_batch(images, 6)
    assert [[h.text for h in hypotheses] for hypotheses in other] != [[h.text for h in h6] for h6 in found]


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
    count = 20000
    drawing = Drawing(Sampling(temperature=2.0, top_p=0.8, seed=1), [b"picture"], count)
    kept = drawing(torch.zeros(count, 1, dtype=torch.long), logits.repeat(count, 1))  # type: ignore[arg-type]
    assert (kept.isfinite().sum(dim=1) == 1).all()
    share = kept.isfinite().double().mean(dim=0)
    # By hand: the likeliest tokens of softmax(logits / 2), as many as reach 0.8, and their sum made 1.
    probable = [math.exp(value / 2) for value in logits.tolist()]
    probable = [value / sum(probable) for value in probable]
    many = next(n for n in range(1, 6) if sum(probable[:n]) >= 0.8)
    expected = [value / sum(probable[:many]) if place < many else 0.0 for place, value in enumerate(probable)]
    assert 1 < many < 5
    for found, wanted in zip(share.tolist(), expected, strict=True):
        assert abs(found - wanted) <= 4 * math.sqrt(wanted * (1 - wanted) / count)


@pytest.mark.parametrize("bad", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.5}, {"seed": -1}])
def test_a_bad_way_to_draw_is_named(bad: dict[str, Any]) -> None:
    (name, value) = next(iter(bad.items()))
    with pytest.raises(ValueError, match=f"{name} must be .* not {value}"):
        Sampling(**bad)


def test_a_picture_is_looked_at_once(folder: Path) -> None:
    reader = reader_of(folder)
    reader.recognize_batch([picture(90)])  # the first batch is also tried the long way
    seen: list[int] = []
    model = reader._sequences._model
    model.model.vision_tower.register_forward_hook(lambda *call: seen.append(call[1][0].shape[0]))
    images = pictures(4)
    found = reader.recognize_batch(images, 5)
    reader.score_batch(images, [[h.text for h in hypotheses] + list(SENTENCES) for hypotheses in found])
    assert seen == [4]


@pytest.mark.parametrize("kind", ["accelerator", "cpu"])
def test_a_full_memory_halves_the_batch(folder: Path, reader: VLMRecognizer, kind: str) -> None:
    small = reader_of(folder, batch_size=8)

    def fill(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if len(named["input_ids"]) > 4:
            if kind == "cpu":
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    small._sequences._model.register_forward_pre_hook(fill, with_kwargs=True)
    images = pictures(7)
    with pytest.warns(UserWarning, match="no memory for batches of 8 pictures") as said:
        found = small.recognize_batch(images, 2)
    assert len(said) == 1
    scores = small.score_batch(images, [SENTENCES[:2]] * 7)
    expected = reader.recognize_batch(images, 2)
    assert [[h.text for h in hypotheses] for hypotheses in found] == [[h.text for h in some] for some in expected]
    for some, others in zip(scores, reader.score_batch(images, [SENTENCES[:2]] * 7), strict=True):
        assert some == pytest.approx(others, abs=1e-4)


def test_memory_may_run_out_at_any_step_of_the_first_batch(folder: Path, reader: VLMRecognizer) -> None:
    """Each of the steps in which a cache is tried, and the reading after them."""
    images = pictures(2)
    expected = reader.recognize_batch(images)
    steps, fails_at = 0, -1
    small = reader_of(folder, batch_size=2)

    def fill(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == fails_at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    small._sequences._model.register_forward_pre_hook(fill)
    small.recognize_batch(images)
    model, every = small._sequences._model, steps
    assert every > 15
    for fails_at in range(1, every + 1):  # noqa: B007 (the hook reads it)
        small, steps = reader_of(folder, batch_size=2), 0
        small._sequences._model = model
        with pytest.warns(UserWarning, match="no memory for batches of 2 pictures"):
            found = small.recognize_batch(images)
        assert [h[0].text for h in found] == [h[0].text for h in expected]


@pytest.mark.filterwarnings("ignore:no memory for batches")
def test_a_memory_too_small_for_one_picture_is_told(folder: Path) -> None:
    small = reader_of(folder, batch_size=2)

    def fill(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    small._sequences._model.register_forward_pre_hook(fill)
    with pytest.raises(torch.OutOfMemoryError):
        small.recognize_batch(pictures(2))


def test_an_address_opens_a_server() -> None:
    server = load_recognizer("http://127.0.0.1:9/v1", batch_size=3)
    assert type(server).__name__ == "ServerRecognizer"
