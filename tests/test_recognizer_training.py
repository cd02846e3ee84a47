"""Fine-tuning of recognizers: laws of what changes, of stopping and going on, of what is kept and what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_models import SENTENCES, picture

from caprag.errors import CapragError, FrameError, ModelError
from caprag.recognition.loading import load_model
from caprag.recognition.vlm import VLMRecognizer
from caprag.synthesis.conversations import Example, Form, write_conversations
from caprag.training.recognizer import FileExamples, Recipe, RecognizerOptions, train_recognizer
from caprag.training.recognizer.examples import Skipped, read_notes
from caprag.training.recognizer.modules import optimizer_groups, plain_name, prepare, role_of
from caprag.training.recognizer.trainer import read_log
from caprag.training.recognizer.training import CONFIGS, shipped_config
from caprag.training.runs import last_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PROMPT = "讀字幕"
RECIPES = sorted((Path(__file__).resolve().parent.parent / "scripts" / "recipes").glob("*.json"))
SMALL: dict[str, Any] = {
    "lora_rank": 4,
    "lora_alpha": 8.0,
    "warmup": 0,
    "schedule": "constant",
    "logging_steps": 1,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tiny_models.llava(tmp_path_factory.mktemp("base") / "模型")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data"), 4)


def write(folder: Path, count: int, form: Form = "llava") -> Path:
    for place in range(count):
        picture(place).save(folder / f"{place}.png")
    examples = [Example(f"{n}.png", SENTENCES[n % len(SENTENCES)], PROMPT) for n in range(count)]
    write_conversations(examples, folder / "train.jsonl", form)
    return folder / "train.jsonl"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_tiny_model_learns_four_pictures_and_the_best_is_kept(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    options = RecognizerOptions(
        **SMALL, method="full", tower="tuned", learning_rate=3e-3, max_steps=90, save_steps=30, keep_checkpoints=1,
        max_new_tokens=40,
    )  # fmt: skip
    trained = train_recognizer([data], base, out, options, held_out=[data], plot=tmp_path / "curve.png")
    assert trained.rates[trained.best_step or 0] == min(trained.rates.values()) == 0.0
    assert trained.best_step == min(step for step, rate in trained.rates.items() if rate == 0.0)
    reader = VLMRecognizer(out, prompt=PROMPT, device="cpu", max_new_tokens=40)
    read = reader.recognize_batch([picture(place) for place in range(4)])
    assert [hypotheses[0].text for hypotheses in read] == list(SENTENCES[:4])
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    assert run["options"] == options.as_dict()
    assert (run["model"], run["best_step"], run["best_cer"]) == (str(base), trained.best_step, 0.0)
    kept = weights(out)
    assert sorted(trained.rates) == [30, 60, 90]
    best = weights(tmp_path / "model.work" / "checkpoints" / f"checkpoint-{trained.best_step}")
    assert all(torch.equal(kept[name], best[name]) for name in best)
    log = read_log(tmp_path / "model.work" / "log.jsonl")
    assert {entry["step"]: entry["loss"] for entry in log if "loss" in entry} == trained.losses
    assert list((tmp_path / "model.work" / "logs").glob("events.*"))
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_training_that_gets_no_better_stops_and_keeps_the_best(base: Path, data: Path, tmp_path: Path) -> None:
    options = RecognizerOptions(
        **SMALL, method="projector", learning_rate=1e-12, max_steps=9, save_steps=1, patience=2, max_new_tokens=3
    )
    trained = train_recognizer([data], base, tmp_path / "out", options, held_out=[data])
    assert len(set(trained.rates.values())) == 1
    assert (trained.steps, trained.best_step, sorted(trained.rates)) == (3, 1, [1, 2, 3])


def test_patience_and_the_last_whole_checkpoint_outlive_a_stop(base: Path, data: Path, tmp_path: Path) -> None:
    """Step 1 is the best, steps 2 to 4 are no better: as many as without the stop, and without the kill in a save."""
    options = RecognizerOptions(
        **SMALL, method="projector", learning_rate=1e-12, max_steps=9, save_steps=1, patience=3, max_new_tokens=3,
        keep_checkpoints=3,
    )  # fmt: skip
    out, work = tmp_path / "out", tmp_path / "out.work"
    train_recognizer([data], base, out, options, held_out=[data], stop_after=3)
    (work / "checkpoints" / "checkpoint-3" / "trainer_state.json").unlink()
    trained = train_recognizer([data], base, out, options, held_out=[data])
    assert (trained.steps, trained.best_step, sorted(trained.rates)) == (4, 1, [1, 2, 3, 4])


def test_the_last_checkpoint_is_the_last_whole_one(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    states = {2: '{"global_step": 2}', 9: '{"global_step": 9}', 10: '{"global_st', 11: None}
    for step, state in states.items():
        place = tmp_path / "checkpoints" / f"checkpoint-{step}"
        place.mkdir(parents=True)
        if state is not None:
            (place / "trainer_state.json").write_text(state, encoding="utf-8")
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoints" / "checkpoint-9")
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-9"]


@pytest.mark.parametrize(("method", "weights_file"), [("lora", "adapter_model"), ("full", "model")])
def test_a_stopped_training_goes_on_with_the_same_losses(
    base: Path, tmp_path: Path, method: Any, weights_file: str
) -> None:
    """Dropout, accumulation, an order of each pass's own and a schedule: all are taken up where they were."""
    rows = write(tmp_path, 8)
    options = RecognizerOptions(
        **{**SMALL, "schedule": "cosine", "warmup": 2}, method=method, lora_dropout=0.3,
        learning_rate=1e-2, epochs=3, batch_size=1,
        accumulation=3, save_steps=100, module_rates={"projector": 1e-3},
    )  # fmt: skip
    whole = train_recognizer([rows], base, tmp_path / "whole", options)
    first = train_recognizer([rows], base, tmp_path / "parts", options, stop_after=4)
    assert (first.steps, first.size) == (4, 0)
    assert not (tmp_path / "parts").exists()
    # What a kill leaves behind: a line of a step that will be done again, and half of another.
    with (tmp_path / "parts.work" / "log.jsonl").open("a") as stream:
        stream.write('{"step": 5, "loss": 9.9}\n{"step": 6, "lo')
    rest = train_recognizer([rows], base, tmp_path / "parts", options)
    assert len(whole.losses) == whole.steps == 9
    assert whole.losses == pytest.approx({**first.losses, **rest.losses}, abs=1e-6)
    log = [entry for entry in read_log(tmp_path / "parts.work" / "log.jsonl") if "loss" in entry]
    assert [entry["step"] for entry in log] == list(range(1, 10))
    one, two = (load_file(tmp_path / name / f"{weights_file}.safetensors") for name in ("whole", "parts"))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    with pytest.raises(CapragError, match="is there already"):
        train_recognizer([rows], base, tmp_path / "whole", options)
    with pytest.raises(CapragError, match="learning_rate"):
        train_recognizer([rows], base, tmp_path / "other", RecognizerOptions(), work=tmp_path / "parts.work")


def test_adapters_leave_the_model_as_it_was(base: Path, data: Path, tmp_path: Path) -> None:
    before = weights(base)
    options = RecognizerOptions(**SMALL, learning_rate=1e-2, max_steps=2)
    train_recognizer([data], base, tmp_path / "lora", options)
    assert all(torch.equal(value, before[name]) for name, value in weights(base).items())
    saved = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert {("lora_" in name) or ("multi_modal_projector" in name) for name in saved} == {True}
    trained = load_model(tmp_path / "lora", "cpu").state_dict()
    for name, value in load_model(base, "cpu").state_dict().items():
        adapted = role_of(name, options) == "projector" or ("_proj.weight" in name and "language_model" in name)
        assert torch.equal(trained[name], value) != adapted, name
    read = VLMRecognizer(tmp_path / "lora", prompt=PROMPT, device="cpu", max_new_tokens=4)
    assert len(read.recognize_batch([picture(0)])[0]) == 1


@pytest.mark.parametrize("method", ["full", "projector"])
def test_a_frozen_tower_stays_bit_for_bit(base: Path, data: Path, tmp_path: Path, method: Any) -> None:
    options = RecognizerOptions(**SMALL, method=method, learning_rate=1e-2, max_steps=2)
    train_recognizer([data], base, tmp_path / "out", options)
    before, after = weights(base), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    same = {role: {torch.equal(before[n], after[n]) for n in before if role_of(n, options) == role}
            for role in ("tower", "projector", "language")}  # fmt: skip
    assert same["tower"] == {True}
    assert same["projector"] == {False}
    assert (True in same["language"]) is (method == "projector")


@pytest.mark.parametrize("family", ["llava", "paddleocr_vl", "qwen2_vl", "qwen3_vl", "florence2"])
@pytest.mark.parametrize("method", ["lora", "full", "projector"])
def test_each_trained_parameter_has_one_rate_and_that_which_was_asked(
    family: str, method: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    model = load_model(getattr(tiny_models, family)(tmp_path / "m"), "cpu")
    options = RecognizerOptions(method=method, lora_rank=2, tower="tuned" if method == "full" else "frozen")
    prepared = prepare(model, options)
    rates = {r"projector|merger": 1e-3, "layers": 5e-5} if method != "projector" else {"projector|merger": 1e-3}
    named = list(prepared.named_parameters())
    groups = optimizer_groups(
        named, rate=2e-5, module_rates=rates, weight_decay=0.1, decaying=[n for n, _ in named[::2]]
    )
    place = {id(p): group for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(place)
    trained = [(name, p) for name, p in named if p.requires_grad]
    assert {id(p) for _, p in trained} == set(place)
    assert any(role_of(plain_name(name), options) == "projector" for name, _ in trained)
    for number, (name, parameter) in enumerate(named):
        if parameter.requires_grad:
            wanted = 1e-3 if "projector" in name or "merger" in name else 5e-5 if "layers" in name else 2e-5
            assert place[id(parameter)]["lr"] == wanted, name
            assert place[id(parameter)]["weight_decay"] == (0.1 if number % 2 == 0 else 0.0)
            assert parameter.dtype == torch.float32
    with pytest.raises(ValueError, match="'nose'"):
        optimizer_groups(named, rate=1, module_rates={"nose": 1.0}, weight_decay=0, decaying=())


def test_lora_targets_by_name_and_by_expression(base: Path) -> None:
    def adapted(*targets: str) -> set[str]:
        model = prepare(load_model(base, "cpu"), RecognizerOptions(lora_rank=2, lora_targets=targets))
        return {plain_name(n).rpartition(".lora_")[0] for n, p in model.named_parameters() if p.requires_grad} - {""}

    language = {f"model.language_model.layers.{n}.self_attn" for n in (0, 1)}
    expected = {f"{layer}.{name}" for layer in language for name in ("q_proj", "v_proj")}
    assert adapted(r".*language_model.*\.(q|v)_proj") == expected
    tower = {f"model.vision_tower.encoder.layers.{n}.self_attn" for n in (0, 1)}
    assert adapted("q_proj", "v_proj") == expected | {
        f"{layer}.{name}" for layer in tower for name in ("q_proj", "v_proj")
    }
    with pytest.raises(ModelError, match=r"'nose'.*q_proj"):
        adapted("nose")
    with pytest.raises(ValueError, match="trained in full"):
        adapted("linear_1")


def test_pictures_that_can_not_be_had_are_skipped_and_named(base: Path, tmp_path: Path) -> None:
    rows = write(tmp_path, 5)
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "4.png").unlink()
    for workers in (0, 2):
        options = RecognizerOptions(**SMALL, max_steps=4, batch_size=5, workers=workers)
        trained = train_recognizer([rows], base, tmp_path / f"out{workers}", options)
        assert [(skipped.source, skipped.where) for skipped in trained.skipped] == [
            (str(rows), "line 3"),
            (str(rows), "line 5"),
        ]
        assert "4.png does not exist" in str(trained.skipped[1])
    examples = FileExamples([rows])
    assert examples[2].text == examples[3].text
    assert examples.open(2) is None
    for n in range(5):
        (tmp_path / f"{n}.png").unlink(missing_ok=True)
    with pytest.raises(FrameError, match=r"line 1: neither .*0\.png nor any of the 4 pictures"):
        FileExamples([rows])[0]


def test_pictures_are_opened_as_in_reading(tmp_path: Path) -> None:
    levels = np.arange(0, 256, dtype=np.uint8).reshape(16, 16)
    rows = write(tmp_path, 3)
    Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "0.png")
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "1.png", format="tiff")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "2.png", exif=turned)
    examples = FileExamples([rows])
    examples.notes = tmp_path / "notes"
    found = np.asarray(examples[0].image)
    assert np.array_equal(found, np.repeat(levels[:, :, None], 3, axis=2))
    assert examples.open(1) is None
    assert examples[2].image.size == (4, 8)
    (note,) = read_notes(examples.notes)
    assert note.where == "line 2"
    assert "float" in note.reason


def test_notes_that_a_kill_cut_are_read_up_to_there(tmp_path: Path) -> None:
    line = json.dumps(["a.jsonl", "line 1", "圖"], ensure_ascii=False).encode()
    for cut in range(len(line)):
        (tmp_path / "notes").write_bytes(line + b"\n" + line.replace(b"1", b"2")[:cut])
        assert read_notes(tmp_path / "notes") == [Skipped("a.jsonl", "line 1", "圖")]


@pytest.mark.parametrize(
    ("given", "kind", "named"),
    [
        ({"plot": "curve.jpg"}, ValueError, r"curve\.jpg; .*\.png"),
        ({"plot": "nowhere/curve.png"}, ValueError, "no folder nowhere"),
        ({"options": RecognizerOptions(patience=2)}, ValueError, "patience is 2.*--held-out"),
        ({"data": "train.jsonl"}, TypeError, r"'train\.jsonl'; write \[path\]"),
        ({"data": Path("train.jsonl")}, TypeError, r"write \[path\]"),
        ({"held_out": "held.jsonl"}, TypeError, r"'held\.jsonl'; write"),
    ],
)
def test_what_can_not_work_is_refused_before_the_model_is_loaded(
    given: dict[str, Any], kind: type[Exception], named: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=named):
        train_recognizer(**{"data": [data], "model": "no/model", "out": tmp_path / "out", **given})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_name_everything_and_run(path: Path, base: Path, data: Path, tmp_path: Path) -> None:
    recipe = Recipe.read(path)
    model: Path | str
    assert set(recipe.settings) == set(RecognizerOptions().as_dict())
    assert recipe.about
    assert recipe.model
    assert Recipe("", "", recipe.options().as_dict()).options() == recipe.options()
    model = base
    if path.stem.startswith("minicpmv"):
        model = tiny_models.minicpm_v(tmp_path / "minicpmv")
    elif "siglip" in path.stem:
        model = tiny_models.tinyllava(tmp_path / "siglip")
    elif path.stem.startswith("reader"):
        model = recipe.model
    small: dict[str, Any] = {
        "max_steps": 2,
        "batch_size": 2,
        "accumulation": 1,
        "workers": 0,
        "precision": "float32",
        "max_length": None,
    }
    options = recipe.options(**small)
    trained = train_recognizer([data], model, tmp_path / "out", options)
    assert trained.steps == 2
    assert all(torch.isfinite(torch.tensor(loss)) for loss in trained.losses.values())
    if model == "caprag":
        # The shipped reader is named, not where it lies here, so that the adapters read on another machine.
        config = json.loads((tmp_path / "out/adapter_config.json").read_text(encoding="utf-8"))
        assert config["base_model_name_or_path"] == "caprag"
        pictures = [Image.new("RGB", (96, 48), "navy")]
        assert VLMRecognizer(tmp_path / "out", crop="frame").recognize_batch(pictures, 1)[0]


def test_deepspeed_settings_load() -> None:
    """DeepSpeed itself is not needed for that: accelerate's own reader of its files knows stages and offloading."""
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    found = {}
    for name in ("zero2", "zero3", "zero3-offload"):
        config = HfDeepSpeedConfig(shipped_config(name))
        found[name] = (config.is_zero2(), config.is_zero3(), config.is_offload())
        for key in ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
            assert config.get_value(key) == "auto"
    assert found == {"zero2": (True, False, False), "zero3": (False, True, False), "zero3-offload": (False, True, True)}


def test_fsdp_settings_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers
    from accelerate import FullyShardedDataParallelPlugin

    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")
    hub: Any = transformers  # its annotations differ from version to version
    arguments = hub.TrainingArguments(str(tmp_path), fsdp=True, fsdp_config=shipped_config("fsdp"), report_to="none")
    plugin = FullyShardedDataParallelPlugin(**arguments.fsdp_plugin_args)
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)


def test_settings_that_are_not_there_are_named() -> None:
    assert sorted(path.stem for path in CONFIGS.glob("*.json")) == ["fsdp", "zero2", "zero3", "zero3-offload"]
    with pytest.raises(CapragError, match=r"zero9: .*zero2, zero3"):
        shipped_config("zero9")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"method": "magic"}, "'magic'"), ({"lora_rank": 0}, "lora_rank is 0"), ({"learning_rate": 0}, "learning_rate"),
        ({"module_rates": {"(": 1.0}}, "regular expression"), ({"lora_dropout": 1.0}, "lora_dropout is 1.0"),
        ({"deepspeed": "zero2", "fsdp": "fsdp"}, "one of them"),
        ({"method": "projector", "projector": "frozen"}, "nothing would be trained"), ({"crop": "face"}, "'face'"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        RecognizerOptions(**wrong)


def test_recipes_with_what_no_training_knows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"model": "m", "lora_rnak": 3}', encoding="utf-8")
    with pytest.raises(CapragError, match="lora_rnak"):
        Recipe.read(path)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("epochs", "3", "'3', a str; wanted is float"), ("lora_targets", "q_proj", "'q_proj', a str"),
        ("max_steps", 2.5, "2.5, a float"), ("batch_size", True, "True, a bool; wanted is int"),
        ("module_rates", {"a": "1"}, "a dict"), ("method", 3, "3, a int"), ("seed", None, "None, a NoneType"),
        ("warmup", -1, "warmup -1"),
    ],
)  # fmt: skip
def test_recipes_with_a_value_that_none_may_have_are_refused(
    name: str, value: object, wanted: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"model": "m", name: value}), encoding="utf-8")
    with pytest.raises(
        CapragError, match=rf"r\.json: .*{name}.*{wanted}" if name != "warmup" else rf"r\.json: .*{wanted}"
    ):
        Recipe.read(path)


def test_adapters_learn_on_a_base_of_four_bits(data: Path, tmp_path: Path) -> None:
    """Reading what is held out between the steps changes nothing, nor does a stop; the base stays as it was."""
    pytest.importorskip("bitsandbytes")
    base = tiny_models.llava(tmp_path / "base", **tiny_models.WIDE)
    options = RecognizerOptions(
        **SMALL, method="qlora", learning_rate=3e-2, max_steps=30, save_steps=10, max_new_tokens=10
    )
    read = train_recognizer([data], base, tmp_path / "read", options, held_out=[data])
    first = train_recognizer([data], base, tmp_path / "parts", options, stop_after=20)
    rest = train_recognizer([data], base, tmp_path / "parts", options)
    assert first.steps == 20
    assert rest.losses == pytest.approx(read.losses, rel=1e-5)
    assert min(read.losses.values()) < 0.5 * read.losses[1]
    adapter = load_file(tmp_path / "read" / "adapter_model.safetensors")
    assert all(tensor.is_floating_point() for tensor in adapter.values())
    few, whole = (
        VLMRecognizer(base, adapter=tmp_path / "read", prompt=PROMPT, device="cpu", dtype=dtype, max_new_tokens=10)
        for dtype in ("int4", "float32")
    )
    asked = [[SENTENCES[0], SENTENCES[1]]]
    assert few.score_batch([picture(0)], asked)[0][0] > few.score_batch([picture(0)], asked)[0][1] + 1
    assert whole.score_batch([picture(0)], asked)[0] == pytest.approx(few.score_batch([picture(0)], asked)[0], rel=0.2)
