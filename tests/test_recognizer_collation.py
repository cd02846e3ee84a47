"""Batches for training: what is learnt, what is masked, and that the question is the one that reading asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from tiny_models import FAMILIES, SENTENCES, picture

from caprag.errors import ModelError
from caprag.recognition.ctc import RapidOCRRecognizer
from caprag.recognition.families import family_of
from caprag.recognition.loading import load_model, load_processor
from caprag.recognition.vlm import VLMRecognizer
from caprag.recognition.wording import Wording
from caprag.synthesis.conversations import Example, write_conversations
from caprag.training.recognizer.collation import IGNORED, Collator, answer_loss
from caprag.training.recognizer.examples import FileExamples, Item
from caprag.training.recognizer.heldout import HeldOut
from caprag.training.recognizer.trainer import check_causal

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

hub: Any = transformers  # its annotations differ from version to version

TEXTS = (SENTENCES[0], "OK, let's go\n回家", "", SENTENCES[2])
SIZES = ((64, 32), (48, 48), (96, 24), (64, 32))
ITEMS = [
    Item(picture(i, SIZES[i]), text, "讀字幕" if i < 2 else "這張圖上面寫著什麼字？") for i, text in enumerate(TEXTS)
]
PROMPT = "讀字幕"
FRAMES = Path(__file__).resolve().parent.parent / "indexes/demo/frames"
Parts = tuple[Any, Any, Any, Collator]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {name: make(root / name) for name, make in FAMILIES.items()}


@pytest.fixture(scope="module")
def parts(folders: dict[str, Path]) -> dict[str, Parts]:
    torch.set_num_threads(1)
    found = {}
    for name, folder in folders.items():
        processor, tokenizer = load_processor(folder)
        model = load_model(folder, "cpu")
        found[name] = (model, processor, tokenizer, Collator(name, model, processor, tokenizer))
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prompt", [None, "這張圖上面寫著什麼字？"])
def test_the_question_is_the_one_that_reading_asks(parts: dict[str, Parts], family: str, prompt: str | None) -> None:
    model, processor, tokenizer, _ = parts[family]
    if prompt is not None and family == "got_ocr2":
        pytest.skip("writes the question itself")
    collator = Collator(family, model, processor, tokenizer, prompt=prompt, crop="frame")
    made = collator.inputs([Item(picture(0), "", "")], side="left")
    wording = Wording(family, model, processor, tokenizer, prompt, family_of(model.config.model_type))
    wanted = wording.inputs([picture(0)])
    assert set(made) == set(wanted)
    assert all(torch.equal(made[name], wanted[name]) for name in wanted)
    assert collator.start == wording.start


@pytest.mark.parametrize("family", FAMILIES)
def test_answer_and_end_are_learnt_and_nothing_else(parts: dict[str, Parts], family: str) -> None:
    _, _, tokenizer, collator = parts[family]
    batch = collator(ITEMS)
    for row, item in zip(batch["labels"], ITEMS, strict=True):
        learnt = row[row != IGNORED].tolist()
        assert learnt[-1] in collator.ends
        assert not set(learnt[:-1]) & set(collator.ends)
        assert tokenizer.decode(learnt, skip_special_tokens=True).strip() == item.text


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("trocr", "florence2")])
def test_a_row_is_the_question_as_it_is_read_and_then_the_answer(parts: dict[str, Parts], family: str) -> None:
    *_, collator = parts[family]
    batch = collator(ITEMS)
    for place, item in enumerate(ITEMS):
        alone = collator.inputs([item], side="left")["input_ids"][0].tolist()
        ids, labels = batch["input_ids"][place].tolist(), batch["labels"][place].tolist()
        length = sum(batch["attention_mask"][place].tolist())
        assert ids[: len(alone)] == alone
        assert labels[: len(alone)] == [IGNORED] * len(alone)
        assert ids[len(alone) : length] == labels[len(alone) : length]
        assert set(labels[length:]) <= {IGNORED}
        assert set(ids[length:]) <= {collator.pad}


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_the_mean_of_single_tokens_log_probabilities(parts: dict[str, Parts], family: str) -> None:
    """A plain loop over single examples, against the loss of the padded batch and the one that the model has itself."""
    model, *_, collator = parts[family]
    shift = not collator.encoder_decoder
    total, count = 0.0, 0
    with torch.no_grad():
        for item in ITEMS:
            batch = collator([item])
            wanted = batch.pop("labels")[0].tolist()
            table = model(**batch).logits[0].double().log_softmax(dim=-1)
            for place, token in enumerate(wanted):
                if token != IGNORED:
                    total -= float(table[place - shift, token])
                    count += 1
        batch = collator(ITEMS)
        labels = batch.pop("labels")
        found = float(answer_loss(model(**batch), labels, shift=shift))
        own = float(model(**batch, labels=labels).loss)
    assert found == pytest.approx(total / count, abs=1e-4)
    assert own == pytest.approx(total / count, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_do_not_see_what_comes(parts: dict[str, Parts], family: str) -> None:
    model, *_, collator = parts[family]
    check_causal(model, collator(ITEMS[:1]), encoder_decoder=collator.encoder_decoder, pad=collator.pad)


def test_a_model_whose_words_see_ahead_is_refused(parts: dict[str, Parts]) -> None:
    class Seeing(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            table = torch.nn.functional.one_hot(input_ids, 400).float()
            return hub.modeling_outputs.CausalLMOutput(logits=table + table.mean(dim=1, keepdim=True))

    *_, collator = parts["llava"]
    with pytest.raises(ModelError, match="see those after them"):
        check_causal(Seeing(), collator(ITEMS[:1]), encoder_decoder=False, pad=collator.pad)


def test_a_long_answer_is_cut_and_a_picture_never(parts: dict[str, Parts]) -> None:
    model, processor, tokenizer, whole = parts["llava"]
    length = whole.inputs(ITEMS[:1], side="right")["input_ids"].shape[1]
    cut = Collator("m", model, processor, tokenizer, max_length=length + 3)(ITEMS[:1])
    full = whole(ITEMS[:1])
    assert cut["input_ids"].shape[1] == length + 3
    assert torch.equal(cut["labels"], full["labels"][:, : length + 3])
    assert int(cut["labels"][0, -1]) not in whole.ends
    with pytest.raises(ModelError, match=rf"a picture takes 9 tokens and its question {length - 9}.*max_length 12 "):
        Collator("m", model, processor, tokenizer, max_length=12)(ITEMS[:1])


def test_what_a_template_writes_before_an_answer_is_learnt_and_its_end(folders: dict[str, Path]) -> None:
    """Vicuna's template ends the question with a colon and parts it from the answer by a space."""
    processor, tokenizer = load_processor(folders["llava"])
    processor.chat_template = (
        "{% for m in messages %}{{ m.role.upper() }}: {% for part in m.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}"
        "{% if m.role == 'assistant' %}<|endoftext|>{% endif %} {% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    collator = Collator("m", load_model(folders["llava"], "cpu"), processor, tokenizer)
    assert collator.prompts.lead == " "
    assert collator.prompts.end == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    labels = collator([Item(picture(0), "好", "")])["labels"][0]
    assert tokenizer.decode(labels[labels != IGNORED]) == " 好<|endoftext|>"


def test_a_decoder_starts_with_the_prompt_where_the_model_takes_none(parts: dict[str, Parts]) -> None:
    model, processor, tokenizer, plain = parts["trocr"]
    asked = Collator("m", model, processor, tokenizer, prompt="字幕", crop="frame")
    start = tokenizer("字幕", add_special_tokens=False)["input_ids"]
    batch, wanted = asked(ITEMS), plain(ITEMS)
    assert len(start) > 1
    assert batch["decoder_input_ids"][:, : len(start)].tolist() == [start] * len(ITEMS)
    assert set(batch["labels"][:, : len(start) - 1].flatten().tolist()) == {IGNORED}
    assert torch.equal(batch["labels"][:, len(start) - 1 :], wanted["labels"])
    assert torch.equal(batch["decoder_input_ids"][:, len(start) :], wanted["decoder_input_ids"][:, 1:])
    with pytest.raises(ModelError, match="max_length 2 "):
        Collator("m", model, processor, tokenizer, prompt="字幕", crop="frame", max_length=2)(ITEMS)


@pytest.mark.parametrize(("family", "crop"), [("paddleocr_vl", "band"), ("llava", "frame")])
def test_what_is_shown_and_where_a_reading_stops_are_as_in_reading(
    parts: dict[str, Parts], folders: dict[str, Path], tmp_path: Path, family: str, crop: Any
) -> None:
    model, processor, tokenizer, collator = parts[family]
    frame = Image.open(FRAMES / "01-clear.jpg").convert("RGB")
    item = Item(frame, "好", PROMPT)
    (band,) = RapidOCRRecognizer(n_threads=1).find_batch([frame])
    cut = Item(frame.crop(band), "好", PROMPT)
    whole = Collator(family, model, processor, tokenizer, crop="frame")
    shown, wanted = collator([item]), whole([cut if crop == "band" else item])
    assert all(torch.equal(shown[name], wanted[name]) for name in wanted)
    other = Collator(family, model, processor, tokenizer, crop="band")([item])
    assert all(torch.equal(other[name], value) for name, value in whole([cut]).items())
    assert collator.stop == family_of(model.config.model_type).stop

    frame.save(tmp_path / "0.png")
    write_conversations([Example("0.png", "好", PROMPT)], tmp_path / "held.jsonl", "llava")
    held = HeldOut(FileExamples([tmp_path / "held.jsonl"]), collator, batch_size=1, max_new_tokens=12)

    def read(stop: tuple[str, ...]) -> str:
        prompt = PROMPT if family == "llava" else None
        reader = VLMRecognizer(folders[family], prompt=prompt, stop=stop, device="cpu", max_new_tokens=12)
        return reader.recognize_batch([frame])[0][0].text

    collator.stop = ()
    full = read(())
    assert held.read(model) == [full]
    collator.stop = (full[len(full) // 2],)
    assert held.read(model) == [read(collator.stop)] != [full]
    collator.stop = family_of(model.config.model_type).stop
