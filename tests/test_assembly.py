"""A LLaVA out of parts: the parts' weights and answers stay, and plain transformers loads it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_parts
import torch
import transformers
from tiny_models import SENTENCES, pictures

from caprag.errors import ModelError
from caprag.recognition.vlm import VLMRecognizer
from caprag.training.assembly import Assembled, assemble
from caprag.training.chat import PLAIN_TEMPLATE, template_with_pictures

hub: Any = transformers  # its annotations differ from version to version

# Tower, language model, tokens of a picture of 3 x 3 patches, vectors that are no patch.
PAIRS = [
    ("chinese_clip", "qwen2", 9, 1), ("clip", "llama", 9, 1), ("siglip", "qwen3", 9, 0), ("dinov2", "plain", 9, 1),
    ("dinov2_registers", "phi3", 11, 3), ("chinese_clip_alone", "qwen2", 9, 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    for name in (
        "chinese_clip",
        "clip",
        "siglip",
        "siglip2",
        "dinov2",
        "dinov2_registers",
        "chinese_clip_alone",
        "swin",
    ):
        tiny_parts.tower(folder / name, name)
    for name in ("qwen2", "qwen3", "llama", "plain", "phi3", "phi", "cohere"):
        tiny_parts.language_model(folder / name, name)
    return folder


@pytest.fixture(scope="module")
def pairs(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Assembled]:
    """Put each pair together once."""
    place = tmp_path_factory.mktemp("pairs")
    return functools.cache(lambda tower, mouth: assemble(parts / tower, parts / mouth, place / f"{tower}-{mouth}"))


def load(folder: Path) -> tuple[Any, Any]:
    model, info = hub.AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval(), hub.AutoProcessor.from_pretrained(folder)


@pytest.mark.parametrize(("tower", "mouth", "tokens", "extra"), PAIRS, ids=lambda value: str(value))
def test_parts_stay_as_they_are(
    tower: str, mouth: str, tokens: int, extra: int, parts: Path, pairs: Callable[[str, str], Assembled]
) -> None:
    made = pairs(tower, mouth)
    model, processor = load(made.folder)
    assert isinstance(model, hub.LlavaForConditionalGeneration)
    assert isinstance(processor, hub.LlavaProcessor)
    assert made.image_tokens == model.config.image_seq_length == tokens
    assert made.size == sum(path.stat().st_size for path in made.folder.iterdir())

    speaker = hub.AutoModelForCausalLM.from_pretrained(parts / mouth).eval()
    own = hub.AutoTokenizer.from_pretrained(parts / mouth)
    inside = model.model.language_model.state_dict()
    for name, weight in speaker.base_model.state_dict().items():
        assert torch.equal(inside[name][: len(weight)], weight), name
    ids = own(SENTENCES[0], return_tensors="pt")["input_ids"]
    assert torch.equal(ids, processor.tokenizer(SENTENCES[0], return_tensors="pt")["input_ids"])
    with torch.no_grad():
        said = model(input_ids=ids).logits[..., : speaker.config.vocab_size]
        assert torch.equal(said, speaker(input_ids=ids).logits)

    # The tower as its makers load it, without this package's help.
    seeing = hub.AutoModel.from_pretrained(parts / tower).eval()
    seeing = getattr(seeing, "vision_model", seeing)
    for name, weight in seeing.state_dict().items():
        assert torch.equal(model.model.vision_tower.state_dict()[name], weight), name
    picture = pictures(1)[0]
    pixels = processor.image_processor(picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(
        pixels, hub.AutoImageProcessor.from_pretrained(parts / tower)(picture, return_tensors="pt")["pixel_values"]
    )
    with torch.no_grad():
        layers = seeing(pixels, output_hidden_states=True).hidden_states
        assert layers[-2].shape[1] == 9 + extra
        wanted = model.model.multi_modal_projector(layers[-2][:, 1 if extra else 0 :])
        assert torch.equal(torch.stack(list(model.get_image_features(pixels).pooler_output)), wanted)


@pytest.mark.parametrize(("tower", "mouth", "tokens", "extra"), PAIRS, ids=lambda value: str(value))
def test_the_picture_gets_its_tokens(
    tower: str, mouth: str, tokens: int, extra: int, parts: Path, pairs: Callable[[str, str], Assembled]
) -> None:
    folder = pairs(tower, mouth).folder
    model, processor = load(folder)
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "讀出字幕"}]}]
    text = processor.apply_chat_template(talk, add_generation_prompt=True)
    own = hub.AutoTokenizer.from_pretrained(parts / mouth)
    flat = [{"role": "user", "content": "<image>\n讀出字幕"}]
    template = own.chat_template or PLAIN_TEMPLATE
    assert text == own.apply_chat_template(flat, chat_template=template, tokenize=False, add_generation_prompt=True)
    inputs = processor(images=[[p] for p in pictures(2)], text=[text] * 2, padding=True, return_tensors="pt")
    assert (inputs["input_ids"] == model.config.image_token_id).sum(dim=1).tolist() == [tokens] * 2
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
    # It sees the picture: another one gives another answer.
    assert not torch.allclose(logits[0], logits[1])
    read = VLMRecognizer(folder, device="cpu", max_new_tokens=4).recognize_batch(pictures(2), n_best=2)
    assert [len(hypotheses) > 0 for hypotheses in read] == [True, True]


@pytest.mark.parametrize(
    ("mouth", "new", "ends", "pad"),
    [
        # Spare rows are taken; a pad that is the end of texts but of no turn stays.
        ("qwen2", ("<image>",), ("<|im_end|>", "<|endoftext|>"), "<|endoftext|>"),
        ("llama", ("<image>", "<pad>"), ("<|eot_id|>", "<|end_of_text|>"), "<pad>"),
        # What pads must not be what ends an answer.
        ("plain", ("<image>", "<pad>"), ("</s>",), "<pad>"),
    ],
)  # fmt: skip
def test_tokens_and_ends(
    mouth: str,
    new: tuple[str, ...],
    ends: tuple[str, ...],
    pad: str,
    parts: Path,
    pairs: Callable[[str, str], Assembled],
) -> None:
    made = pairs("dinov2" if mouth == "plain" else "clip" if mouth == "llama" else "chinese_clip", mouth)
    model, processor = load(made.folder)
    assert (made.new_tokens, made.ends) == (new, ends)
    tokens = processor.tokenizer
    assert tokens.pad_token == pad
    assert model.generation_config.eos_token_id == tokens.convert_tokens_to_ids(list(ends))
    assert model.generation_config.pad_token_id == tokens.pad_token_id
    assert len(tokens) <= model.config.text_config.vocab_size
    old = hub.AutoModelForCausalLM.from_pretrained(parts / mouth)
    for mine, its in (
        (model.get_input_embeddings(), old.get_input_embeddings()),
        (model.get_output_embeddings(), old.get_output_embeddings()),
    ):
        rows = len(its.weight)
        assert torch.allclose(mine.weight[rows:], its.weight.mean(dim=0), atol=1e-6)
        assert len(mine.weight) == (rows if mouth == "qwen2" else rows + len(new))


def test_talk_without_pictures_is_the_language_models_own(parts: Path, tmp_path: Path) -> None:
    talk = [
        {"role": "system", "content": "短"}, {"role": "user", "content": "你好 "},
        {"role": "assistant", "content": "好"}, {"role": "user", "content": "再見"},
    ]  # fmt: skip
    for mouth in ("qwen2", "llama"):
        own = hub.AutoTokenizer.from_pretrained(parts / mouth)
        both = template_with_pictures("\n" + own.chat_template, "<image>")
        for ask in (True, False):
            wanted = own.apply_chat_template(
                talk, tokenize=False, add_generation_prompt=ask, chat_template="\n" + own.chat_template
            )
            options = {"tokenize": False, "add_generation_prompt": ask, "chat_template": both}
            assert own.apply_chat_template(talk, **options) == wanted
            parted = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in talk]
            assert own.apply_chat_template(parted, **options) == wanted
            assert talk[1]["content"] == "你好 "


def test_only_the_projector_is_new(parts: Path, tmp_path: Path) -> None:
    made = [assemble(parts / "clip", parts / "plain", tmp_path / str(n), seed=seed) for n, seed in enumerate((3, 3, 4))]
    models = [load(one.folder)[0] for one in made]
    names = [name for name, _ in models[0].named_parameters() if "projector" in name]
    assert names == [f"model.multi_modal_projector.linear_{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")]
    assert made[0].projector_parameters == 24 * 32 + 32 + 32 * 32 + 32
    assert made[0].parameters == sum(weight.numel() for weight in models[0].parameters())
    same, other = (
        [torch.equal(a, b) for a, b in zip(models[0].parameters(), model.parameters(), strict=True)]
        for model in models[1:]
    )
    assert all(same)
    assert [n for (n, _), equal in zip(models[0].named_parameters(), other, strict=True) if not equal] == names
    first, second = (sorted(one.folder.iterdir()) for one in made[:2])
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_the_callers_draws_stay(parts: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    assemble(parts / "clip", parts / "llama", tmp_path / "llava")
    assert torch.equal(torch.rand(3), wanted)


def test_settings_of_the_features(parts: Path, tmp_path: Path) -> None:
    made = assemble(parts / "clip", parts / "qwen2", tmp_path / "llava", feature_layer=-1, keep_class_token=True)
    model, processor = load(made.folder)
    assert made.image_tokens == 10
    pixels = processor.image_processor(pictures(1)[0], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        wanted = model.model.multi_modal_projector(
            model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        )
        assert torch.equal(model.get_image_features(pixels).pooler_output[0], wanted[0])
    text = processor(images=pictures(1), text="<image>", return_tensors="pt")
    assert int((text["input_ids"] == model.config.image_token_id).sum()) == 10


def test_a_picture_can_be_kept_whole(parts: Path, tmp_path: Path) -> None:
    """A mark at the left edge of a wide picture is cut off by CLIP's processor, and not by this one."""
    from PIL import Image

    plain = Image.new("RGB", (192, 48), "white")
    marked = plain.copy()
    marked.paste("black", (0, 0, 16, 48))
    same = {}
    for fit in ("own", "whole"):
        folder = assemble(parts / "clip", parts / "qwen2", tmp_path / fit, fit=fit).folder
        seen = [load(folder)[1].image_processor(p, return_tensors="pt")["pixel_values"] for p in (plain, marked)]
        assert seen[0].shape == (1, 3, 24, 24)
        same[fit] = torch.equal(*seen)
    assert same == {"own": True, "whole": False}


def test_rows_are_rounded_up(parts: Path, tmp_path: Path) -> None:
    made = assemble(parts / "siglip", parts / "llama", tmp_path / "llava", pad_to_multiple_of=64)
    model, _ = load(made.folder)
    assert model.get_input_embeddings().weight.shape[0] % 64 == 0
    assert model.config.text_config.vocab_size == model.get_output_embeddings().weight.shape[0]


def test_the_wider_type_keeps_all_bits(parts: Path, tmp_path: Path) -> None:
    half = tiny_parts.language_model(tmp_path / "half", "llama", dtype=torch.bfloat16)
    model, _ = load(assemble(parts / "clip", half, tmp_path / "wide").folder)
    assert model.dtype == torch.float32
    small = hub.AutoModelForCausalLM.from_pretrained(half)
    assert small.dtype == torch.bfloat16
    weight = model.model.language_model.layers[0].mlp.up_proj.weight
    assert torch.equal(weight, small.model.layers[0].mlp.up_proj.weight.float())
    model, _ = load(assemble(parts / "clip", half, tmp_path / "narrow", dtype="bfloat16").folder)
    assert model.dtype == torch.bfloat16


def test_it_generates_from_a_template_and_a_picture(pairs: Callable[[str, str], Assembled]) -> None:
    model, processor = load(pairs("chinese_clip", "qwen2").folder)
    talk = [{"role": "user", "content": [{"type": "image", "image": pictures(1)[0]}, {"type": "text", "text": "?"}]}]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    inputs = processor.apply_chat_template(talk, add_generation_prompt=True, **options)
    made = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert made.shape[1] - inputs["input_ids"].shape[1] == 3


@pytest.mark.parametrize(
    ("tower", "mouth", "said"),
    [
        ("siglip2", "qwen2", "siglip2: does not turn a picture into vectors"),
        ("swin", "qwen2", "swin: makes vectors of shape"),
        ("qwen2", "qwen2", "qwen2: "),
        ("clip", "phi", "lm_head.bias"),
        ("clip", "cohere", "its logits differ"),
        ("clip", "siglip", "a causal language model is wanted"),
        ("nowhere/at all", "qwen2", "vision tower can't be loaded"),
    ],
)
def test_what_does_not_fit_is_refused(tower: str, mouth: str, said: str, parts: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        assemble(parts / tower, parts / mouth, tmp_path / "llava")
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_wrong_use_is_refused(parts: Path, tmp_path: Path) -> None:
    for wrong in ({"fit": "cut"}, {"dtype": "int8"}, {"feature_layer": 0}, {"pad_to_multiple_of": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            assemble(parts / "clip", parts / "qwen2", tmp_path / "llava", **wrong)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(ModelError, match="not empty"):
        assemble(parts / "clip", parts / "qwen2", tmp_path / "full")
    with pytest.raises(ModelError, match="chat template"):
        assemble(parts / "clip", parts / "qwen2", tmp_path / "llava", chat_template="{% for %}")
    with pytest.raises(ModelError, match="leaves out"):
        assemble(parts / "clip", parts / "qwen2", tmp_path / "llava", chat_template="hello")


def test_a_tower_without_its_weights_is_refused(parts: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in (parts / "clip").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "vision_model.encoder.layers.1" not in name}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lacks weights of the vision tower"):
        assemble(tmp_path, parts / "qwen2", tmp_path / "llava")
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "clip"
