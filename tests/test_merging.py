"""Merged equals unmerged, in the folder as in memory; and what quantised folders hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import WIDE, llava, pictures, trocr

from caprag.errors import ModelError
from caprag.recognition.vlm import VLMRecognizer
from caprag.training.merging import merge

peft: Any = pytest.importorskip("peft")
hub: Any = transformers  # its annotations differ from version to version

# PEFT asks transformers by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def load(folder: Path) -> Any:
    return hub.AutoModelForImageTextToText.from_pretrained(folder).eval()


def save_adapter(base: Path, folder: Path, *, seed: int, onto: Any = None, **settings: Any) -> Any:
    """Save a random adapter, and return the model with it, not merged."""
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **settings}
    tuned = peft.get_peft_model(load(base) if onto is None else onto, peft.LoraConfig(**settings))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.2)
    tuned.save_pretrained(folder)
    return tuned.eval()


def logits(model: Any, base: Path) -> torch.Tensor:
    processor = hub.AutoProcessor.from_pretrained(base)
    inputs = processor(images=pictures(2), text=["<image>\n你好", "<image>\n再見"], return_tensors="pt", padding=True)
    with torch.no_grad():
        made: torch.Tensor = model(**inputs).logits.float()
    return made


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("merging") / "llava")


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    folder = base.with_name("adapter")
    save_adapter(base, folder, seed=1, modules_to_save=["multi_modal_projector"])
    return folder


def test_merged_equals_unmerged(base: Path, adapter: Path, tmp_path: Path) -> None:
    made = merge([adapter], tmp_path / "merged")
    unmerged = peft.PeftModel.from_pretrained(load(base), adapter).eval()
    wanted = logits(unmerged, base)
    assert (logits(load(base), base) - wanted).abs().max() > 0.1
    assert (logits(load(made.folder), base) - wanted).abs().max() <= 1e-4
    assert 0 <= made.difference <= 1e-4
    assert (made.base, made.adapters, made.dtype, made.quantize) == (str(base), (str(adapter),), "float32", None)
    assert not any("lora" in name for name in load(made.folder).state_dict())
    # All that lies beside the weights, as it was.
    kept = {path.name for path in base.iterdir()} - {"config.json", "generation_config.json", "model.safetensors"}
    assert {"tokenizer.json", "processor_config.json", "chat_template.jinja"} <= kept
    assert all((made.folder / name).read_bytes() == (base / name).read_bytes() for name in kept)
    settings = [json.loads((folder / "generation_config.json").read_text()) for folder in (base, made.folder)]
    assert settings[0] == settings[1]
    read = [
        VLMRecognizer(base, adapter=adapter, device="cpu", max_new_tokens=6).recognize_batch(pictures(2)),
        VLMRecognizer(made.folder, device="cpu", max_new_tokens=6).recognize_batch(pictures(2)),
    ]
    assert [h[0].text for h in read[0]] == [h[0].text for h in read[1]]


def test_adapters_are_merged_in_their_order(base: Path, tmp_path: Path) -> None:
    """The second was trained on the first one's result, and replaces what that had made of the projector."""
    save_adapter(base, tmp_path / "1", seed=1, modules_to_save=["multi_modal_projector"])
    between = merge([tmp_path / "1"], tmp_path / "between").folder
    second = save_adapter(between, tmp_path / "2", seed=2, modules_to_save=["multi_modal_projector"])
    made = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "both")
    assert (logits(load(made.folder), base) - logits(second, base)).abs().max() <= 1e-4
    other = merge([tmp_path / "2", tmp_path / "1"], tmp_path / "other", base=base)
    assert (logits(load(other.folder), base) - logits(second, base)).abs().max() > 0.01


def test_the_adapters_own_files_win(base: Path, tmp_path: Path) -> None:
    save_adapter(base, tmp_path / "adapter", seed=1)
    (tmp_path / "adapter" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    folder = merge([tmp_path / "adapter"], tmp_path / "merged").folder
    assert (folder / "chat_template.jinja").read_text() == "{{ messages[0]['content'] }}"
    assert not list(folder.glob("adapter*"))


def test_an_encoder_decoder_is_merged(tmp_path: Path) -> None:
    base = trocr(tmp_path / "trocr")
    save_adapter(base, tmp_path / "adapter", seed=1)
    made = merge([tmp_path / "adapter"], tmp_path / "merged")
    read = [
        VLMRecognizer(model, device="cpu", max_new_tokens=6, **options).recognize_batch(pictures(2))  # type: ignore[arg-type]
        for model, options in ((base, {"adapter": tmp_path / "adapter"}), (made.folder, {}))
    ]
    assert [h[0].text for h in read[0]] == [h[0].text for h in read[1]]
    assert read[0][0][0].logprob == pytest.approx(read[1][0][0].logprob, abs=1e-3)


def test_dtypes(base: Path, adapter: Path, tmp_path: Path) -> None:
    whole = load(merge([adapter], tmp_path / "whole").folder)
    made = merge([adapter], tmp_path / "half", dtype="bfloat16")
    half = load(made.folder)
    assert made.dtype == "bfloat16"
    for name, weight in whole.state_dict().items():
        # Rounded once, from what was merged in full.
        assert torch.equal(half.state_dict()[name], weight.to(torch.bfloat16)), name
    halved = tmp_path / "base"
    model = load(base).to(torch.float16)
    model.save_pretrained(halved)
    hub.AutoProcessor.from_pretrained(base).save_pretrained(halved)
    assert merge([adapter], tmp_path / "as-base", base=halved).dtype == "float16"
    assert load(tmp_path / "as-base").dtype == torch.float16


@pytest.mark.parametrize(("bits", "kind", "likeness"), [("int8", torch.int8, 0.99), ("int4", torch.uint8, 0.9)])
def test_quantised_folders(bits: Any, kind: torch.dtype, likeness: float, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    base, adapter = llava(tmp_path / "base", **WIDE), tmp_path / "adapter"
    save_adapter(base, adapter, seed=1, modules_to_save=["multi_modal_projector"])
    plain = load(merge([adapter], tmp_path / "whole").folder)
    wanted = logits(plain, base)
    made = merge([adapter], tmp_path / "few", quantize=bits)
    assert made.quantize == bits
    assert made.size < (tmp_path / "whole").stat().st_size + sum(
        f.stat().st_size for f in (tmp_path / "whole").iterdir()
    )
    model = load(made.folder)
    weights = {name: module.weight for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    inside = [weight.dtype for name, weight in weights.items() if "language_model" in name]
    outside = [weight.dtype for name, weight in weights.items() if "language_model" not in name]
    assert set(inside) == {kind}
    assert set(outside) == {torch.float32}
    found = logits(model, base)
    assert torch.nn.functional.cosine_similarity(found, wanted, dim=-1).mean() > likeness
    assert not torch.equal(found, wanted)
    if bits == "int8":
        # By its definition: each row in steps of a 127th of its largest weight, in half precision.
        for name, module in plain.model.language_model.named_modules():
            if isinstance(module, torch.nn.Linear):
                few = model.model.language_model.get_submodule(name).weight
                step = module.weight.abs().amax(dim=1, keepdim=True) / 127
                assert ((few.data * step - module.weight).abs() <= 0.6 * step).all(), name
    assert not (made.folder / "whole").exists()
    # And it is read with, on the CPU, as it generates.
    reader = VLMRecognizer(made.folder, device="cpu", max_new_tokens=6)
    for image, (hypothesis,) in zip(pictures(2), reader.recognize_batch(pictures(2)), strict=True):
        assert reader.score_batch([image], [[hypothesis.text]])[0][0] == pytest.approx(hypothesis.logprob, abs=0.5)
    assert hub.AutoProcessor.from_pretrained(made.folder).chat_template


def test_what_does_not_fit_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"adapter_config\.json"):
        merge([base], tmp_path / "merged", base=base)
    with pytest.raises(ModelError, match="give the base that it was made for"):
        merge([adapter], tmp_path / "merged", base=trocr(tmp_path / "trocr"))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    astray = tmp_path / "astray"
    astray.mkdir()
    (astray / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "/no/where"}))
    with pytest.raises(ModelError, match="/no/where"):
        merge([astray], tmp_path / "merged")
    for wrong in ({"dtype": "int8"}, {"quantize": "int2"}):
        with pytest.raises(ValueError, match="known are"):
            merge([adapter], tmp_path / "merged", **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a list"):
        merge(str(adapter), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    assert not list(tmp_path.glob(".merged*"))


def test_an_adapter_that_does_not_merge_is_noticed(base: Path, adapter: Path, tmp_path: Path) -> None:
    """Weights that are no numbers can't be merged."""
    from safetensors.torch import load_file, save_file

    for path in adapter.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "adapter_model.safetensors")
    save_file({name: weight * float("nan") for name, weight in weights.items()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=r"can't be merged|not the same merged"):
        merge([tmp_path], tmp_path / "merged")
