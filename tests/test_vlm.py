"""VLMRecognizer against plain loops over the model's own forward; tiny random models of several families."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from PIL import Image
from tiny_models import FAMILIES, SENTENCES, picture, pictures

from caprag.errors import MissingDependencyError, ModelError
from caprag.recognition.vlm import VLMRecognizer
from caprag.types import Recognizer

hub: Any = transformers  # its annotations differ from version to version

PROMPT = "讀字幕"
TEXTS = ("", SENTENCES[0], "OK, let's go\n回家", "x")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models") / "模型 臺灣"
    return {name: FAMILIES[name](root / name) for name in ("llava", "trocr")}


@pytest.fixture(scope="session")
def readers(folders: dict[str, Path]) -> dict[str, VLMRecognizer]:
    more: dict[str, Any] = {"batch_size": 3, "max_new_tokens": 8, "device": "cpu"}
    return {
        "llava": VLMRecognizer(folders["llava"], prompt=PROMPT, **more),
        "trocr": VLMRecognizer(folders["trocr"], crop="frame", **more),
    }


@pytest.fixture(scope="session")
def fitted(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LLaVA after a few steps of ordinary training: it reads four pictures."""
    model = hub.AutoModelForImageTextToText.from_pretrained(folders["llava"])
    processor = hub.AutoProcessor.from_pretrained(folders["llava"])
    batch = [_conversation(SENTENCES[place], picture(place)) for place in range(4)]
    inputs = processor.apply_chat_template(
        batch, tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs={"padding": True}
    )
    labels = inputs["input_ids"].clone()
    marker = processor.tokenizer("<|im_start|>assistant\n")["input_ids"]
    for row in labels:
        places = row.tolist()
        start = next(p for p in range(len(places)) if places[p : p + len(marker)] == marker) + len(marker)
        row[:start] = -100
    labels[inputs["attention_mask"] == 0] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(220):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("fitted")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _conversation(answer: str | None, image: Image.Image, prompt: str = PROMPT) -> list[dict[str, Any]]:
    asked = [{"type": "image", "image": image}, {"type": "text", "text": prompt}]
    turns: list[dict[str, Any]] = [{"role": "user", "content": asked}]
    if answer is not None:
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return turns


def test_a_trained_model_reads_what_it_was_shown(fitted: Path) -> None:
    reader = VLMRecognizer(fitted, prompt=PROMPT, max_new_tokens=40, batch_size=2)
    images = [picture(place) for place in range(4)]
    found = reader.recognize_batch(images, n_best=10)
    assert [hypotheses[0].text for hypotheses in found] == list(SENTENCES[:4])
    for hypotheses in found:
        assert hypotheses[0].logprob > math.log(0.5)
        assert len(hypotheses) > 1
        assert sum(math.exp(h.logprob) for h in hypotheses) <= 1.0 + 1e-6
    for place, scores in enumerate(reader.score_batch(images, [SENTENCES[:4]] * 4)):
        assert scores.index(max(scores)) == place


def test_a_reading_cut_short_ends_at_a_whole_character(fitted: Path) -> None:
    tokens = hub.AutoTokenizer.from_pretrained(fitted)
    ids = tokens(SENTENCES[1])["input_ids"]
    cut = [tokens.decode(ids[:count]) for count in range(1, 10)]
    assert any("\ufffd" in text for text in cut)  # the tokenizer does cut characters in two
    for count, expected in enumerate(cut, 1):
        reader = VLMRecognizer(fitted, prompt=PROMPT, max_new_tokens=count)
        ((hypothesis,),) = reader.recognize_batch([picture(1)])
        assert hypothesis.text == expected.rstrip("\ufffd")


def test_no_broken_character_in_any_reading(folders: dict[str, Path]) -> None:
    for length in (1, 2, 5):
        reader = VLMRecognizer(folders["llava"], prompt=PROMPT, max_new_tokens=length)
        for hypotheses in reader.recognize_batch(pictures(8), n_best=12):
            assert hypotheses
            assert not any("\ufffd" in h.text for h in hypotheses)


def test_a_text_that_cannot_be_written_has_no_probability(readers: dict[str, VLMRecognizer]) -> None:
    ((broken, whole),) = readers["llava"].score_batch([picture(0)], [["社\ufffd", "社"]])
    assert broken == -math.inf
    assert math.isfinite(whole)


# transformers' processor hands a torch tensor to numpy in a way that numpy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_prompt_that_sees_itself_is_scored_as_it_is_generated(tmp_path: Path) -> None:
    # Read in one pass, such a model lets the answer's tokens see those after them.
    reader = VLMRecognizer(tiny_models.paligemma(tmp_path), crop="frame")
    model = hub.AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    processor = hub.AutoProcessor.from_pretrained(tmp_path)
    inputs = processor(images=[picture(2)], text=["<image>ocr"], return_tensors="pt")
    length = inputs["input_ids"].shape[1]
    ids = processor.tokenizer(SENTENCES[0], add_special_tokens=False)["input_ids"]
    ids.append(processor.tokenizer.eos_token_id)
    made = model.generate(
        **inputs,
        max_new_tokens=len(ids),
        output_logits=True,
        return_dict_in_generate=True,
        do_sample=False,
        prefix_allowed_tokens_fn=lambda _, said: [ids[len(said) - length]],
    )
    assert made.sequences[0, length:].tolist() == ids
    steps = zip(made.logits, ids, strict=True)
    expected = sum(float(torch.log_softmax(logits[0].double(), -1)[token]) for logits, token in steps)
    assert reader.score_batch([picture(2)], [[SENTENCES[0]]])[0] == pytest.approx([expected], abs=1e-4)


def test_a_model_that_can_not_be_scored_is_named(tmp_path: Path) -> None:
    reader = VLMRecognizer(tiny_models.git(tmp_path), prompt=PROMPT)
    with pytest.raises(ModelError, match="GitForCausalLM can't be scored"):
        reader.recognize_batch([picture(0)])


def test_spaces_that_only_the_decoder_sees_are_no_text(tmp_path: Path) -> None:
    reader = VLMRecognizer(tiny_models.trocr_wordpiece(tmp_path), crop="frame", max_new_tokens=8)
    tokens = hub.AutoTokenizer.from_pretrained(tmp_path)
    assert tokens.decode(tokens("我們走")["input_ids"], skip_special_tokens=True) == "我 們 走"
    texts = [h.text for found in reader.recognize_batch(pictures(6), n_best=4) for h in found]
    assert max(len(text) for text in texts) > 2
    han = [text for text in texts if all("\u4e00" <= character <= "\u9fff" or character == " " for character in text)]
    assert any(len(text) > 1 for text in han)
    assert not any(" " in text for text in han)
    ((known, unknown),) = reader.score_batch([picture(0)], [["我們", "我龘"]])
    assert math.isfinite(known)
    assert unknown == -math.inf


def test_parts_without_a_processor_do(
    folders: dict[str, Path], readers: dict[str, VLMRecognizer], tmp_path: Path
) -> None:
    processor = hub.AutoProcessor.from_pretrained(folders["trocr"])
    hub.AutoModelForImageTextToText.from_pretrained(folders["trocr"]).save_pretrained(tmp_path)
    for part in (processor.tokenizer, processor.image_processor):
        part.save_pretrained(tmp_path)
    for file in tmp_path.glob("*.json"):
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings.pop("processor_class", None)
        file.write_text(json.dumps(settings), encoding="utf-8")
    found = VLMRecognizer(tmp_path, crop="frame").score_batch([picture(0)], [TEXTS])
    assert found[0] == pytest.approx(readers["trocr"].score_batch([picture(0)], [TEXTS])[0], abs=1e-4)


def test_half_precision_says_nearly_the_same(folders: dict[str, Path], readers: dict[str, VLMRecognizer]) -> None:
    half = VLMRecognizer(folders["llava"], prompt=PROMPT, dtype="bfloat16")
    found = half.score_batch([picture(0)], [SENTENCES])[0]
    assert found == pytest.approx(readers["llava"].score_batch([picture(0)], [SENTENCES])[0], rel=0.05)


def test_the_pictures_are_left_alone(readers: dict[str, VLMRecognizer]) -> None:
    image = picture(0).convert("RGBA")
    before = image.tobytes()
    assert readers["llava"].recognize_batch([image]) == readers["llava"].recognize_batch([picture(0)])
    assert (image.mode, image.tobytes()) == ("RGBA", before)


def test_nothing_in_nothing_out(readers: dict[str, VLMRecognizer]) -> None:
    assert readers["llava"].recognize_batch([]) == []
    assert readers["llava"].score_batch([], []) == []
    assert readers["llava"].score_batch([picture(0)], [[]]) == [[]]


def test_it_is_a_recognizer(readers: dict[str, VLMRecognizer]) -> None:
    assert all(isinstance(reader, Recognizer) for reader in readers.values())


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"batch_size": 0}, "at least 1, not 0"),
        ({"max_new_tokens": -3}, "at least 1, not -3"),
        ({"dtype": "int2"}, "float32.*'int2'"),
        ({"crop": "strip"}, "frame, band, parts, not 'strip'"),
        ({"stop": ["x", ""]}, "not empty"),
        ({"stop": "Note"}, "a sequence of texts"),
    ],
)
def test_a_bad_setting_is_named(folders: dict[str, Path], settings: dict[str, Any], values: str) -> None:
    with pytest.raises(ValueError, match=values):
        VLMRecognizer(folders["llava"], **settings)


def test_a_bad_argument_is_named(readers: dict[str, VLMRecognizer]) -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        readers["llava"].recognize_batch([picture(0)], n_best=0)
    with pytest.raises(ValueError, match="1 pictures, 2 lists"):
        readers["llava"].score_batch([picture(0)], [[], []])
    with pytest.raises(TypeError, match="not str"):
        readers["llava"].recognize_batch(["frame.png"])  # type: ignore[list-item]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    for name in (tmp_path / "沒有", str(tmp_path / "沒有")):
        with pytest.raises(ModelError, match=r"no folder .*沒有"):
            VLMRecognizer(name)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        VLMRecognizer(tmp_path)


def test_a_model_of_another_kind_is_named(tmp_path: Path) -> None:
    hub.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a bert model"):
        VLMRecognizer(tmp_path)


def test_a_model_from_the_future_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava_9000"}', encoding="utf-8")
    with pytest.raises(ModelError, match="update transformers"):
        VLMRecognizer(tmp_path)


def test_a_folder_without_processor_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    hub.AutoModelForImageTextToText.from_pretrained(folders["llava"]).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="save tokenizer and processor"):
        VLMRecognizer(tmp_path)


def test_weights_that_are_missing_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    hub.AutoProcessor.from_pretrained(folders["llava"]).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((folders["llava"] / "config.json").read_bytes())
    with pytest.raises(ModelError, match="weights of"):
        VLMRecognizer(tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="what happens without torchvision")
def test_a_processor_that_needs_torchvision_says_how_to_get_it(tmp_path: Path) -> None:
    hub.Mistral3Config().save_pretrained(tmp_path)
    tiny_models.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(MissingDependencyError, match="pip install torchvision"):
        VLMRecognizer(tmp_path)
