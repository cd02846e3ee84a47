"""The verb train recognizer: fine-tuning of models that read pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from caprag.cli.options import Complaints, HeldOut, PicturesFolder, Quiet, finish, hidden, refuse, say
from caprag.cli.training import others
from caprag.errors import CapragError

if TYPE_CHECKING:
    from caprag.training.recognizer import DrawnExamples

# Typer reads the choices off these; caprag.training.recognizer.options has the same.
_Method = Literal["lora", "qlora", "full", "projector"]
_Precision = Literal["auto", "float32", "bfloat16", "float16"]
_Schedule = Literal["cosine", "linear", "constant"]


def train_recognizer(
    out: Annotated[Path, typer.Option("--out", help="Folder for the model or its adapters.")],
    data: Annotated[
        list[Path] | None,
        typer.Argument(help="Conversation files (LLaVA, ShareGPT, messages, lines), or folders of caprag synth."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Hub id, folder or caprag; the recipe's if not given.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="JSON with model and options; what is given here wins over it."),
    ] = None,
    held_out: HeldOut = None,
    pictures: PicturesFolder = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints, log.jsonl and TensorBoard; OUT.work if not given.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw loss and error rate, .png.")] = None,
    method: Annotated[_Method | None, typer.Option(help="qlora keeps the base in 4 bits.  [default: lora]")] = None,
    tower: Annotated[Literal["frozen", "tuned"] | None, typer.Option(help="Eyes.  [default: frozen]")] = None,
    projector: Annotated[
        Literal["full", "frozen"] | None,
        typer.Option(help="What joins eyes and language.  [default: full]"),
    ] = None,
    tower_modules: Annotated[str | None, typer.Option(help="Regular expression for its modules' names.")] = None,
    projector_modules: Annotated[str | None, typer.Option(help="Regular expression for its modules' names.")] = None,
    lora_rank: Annotated[int | None, typer.Option(help="[default: 128]")] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="[default: 256]")] = None,
    lora_dropout: Annotated[float | None, typer.Option(help="[default: 0.05]")] = None,
    lora_targets: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer by name or regular expression, as q_proj; repeatable.  [default: all of the language model]"
        ),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest.  [default: 2e-5]")] = None,
    module_rate: Annotated[
        list[str] | None,
        typer.Option(help="Another rate for modules, as multi_modal_projector=1e-3; repeatable."),
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="[default: 0]")] = None,
    warmup: Annotated[
        float | None,
        typer.Option(help="Steps on the way up: a share of all, or a number.  [default: 0.03]"),
    ] = None,
    schedule: Annotated[_Schedule | None, typer.Option(help="The way down.  [default: cosine]")] = None,
    epochs: Annotated[float | None, typer.Option(help="Times each example is seen.  [default: 1]")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Steps, instead of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples at once on each device.  [default: 4]")] = None,
    accumulation: Annotated[int | None, typer.Option(help="Batches that make a step.  [default: 1]")] = None,
    gradient_checkpointing: Annotated[bool | None, typer.Option(help="Slower, less memory.")] = None,
    max_length: Annotated[
        int | None,
        typer.Option(help="Most tokens, the picture's included; a longer answer is cut."),
    ] = None,
    precision: Annotated[_Precision | None, typer.Option(help="[default: auto]")] = None,
    prompt: Annotated[str | None, typer.Option(help="What is asked of every picture, instead of the data's.")] = None,
    crop: Annotated[
        Literal["auto", "frame", "band"] | None,
        typer.Option(
            help="What of a picture is shown: all, or its caption; frame for crops.  [default: auto, as in reading]"
        ),
    ] = None,
    save_steps: Annotated[int | None, typer.Option(help="Steps between two checkpoints.  [default: 500]")] = None,
    keep_checkpoints: Annotated[int | None, typer.Option(help="[default: 2]")] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many held-out readings without a better one."),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a held-out reading.  [default: 64]")
    ] = None,
    logging_steps: Annotated[
        int | None, typer.Option(help="Steps between two entries in the logs.  [default: 10]")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that load pictures.  [default: 0]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all that is drawn.  [default: 42]")] = None,
    deepspeed: Annotated[str | None, typer.Option(help="zero2, zero3, zero3-offload, or a file of DeepSpeed.")] = None,
    fsdp: Annotated[str | None, typer.Option(help="fsdp, or a file: transformers' fsdp_config.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other training argument of transformers, as optim=adafactor; repeatable."),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(help="Instead of DATA: sentences to draw, new ones each epoch."),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(help="Pictures an epoch; as many as sentences if not given."),
    ] = None,
    backgrounds: Annotated[list[Path] | None, typer.Option(help="Pictures, videos or folders of them.")] = None,
    fonts: Annotated[list[str] | None, typer.Option(help="As for caprag synth.")] = None,
    size: Annotated[list[str] | None, typer.Option(help="Frame.  [default: 1280x720]")] = None,
    damage: Annotated[str, typer.Option(help="As for caprag synth.")] = "none",
    looks: Annotated[Path | None, typer.Option(help="Recipe of caprag synth (its --show-recipe).")] = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model that reads pictures: any image-text-to-text model of transformers.

    A run that was stopped goes on from its last checkpoint, with the same losses, when it is started again in the same
    way. caprag read takes the result as --recognizer. Pictures that are missing or broken are named at the end. For
    several GPUs start it by torchrun or accelerate launch: torchrun --nproc-per-node 8 -m caprag train recognizer ...
    """
    from caprag.training.recognizer import FileExamples, Recipe
    from caprag.training.recognizer import train_recognizer as train

    plan = Recipe("", "", {}) if recipe is None else Recipe.read(recipe)
    given: dict[str, Any] = {
        "method": method, "tower": tower, "projector": projector, "tower_modules": tower_modules,
        "projector_modules": projector_modules, "lora_rank": lora_rank, "lora_alpha": lora_alpha,
        "lora_dropout": lora_dropout, "lora_targets": lora_targets, "learning_rate": learning_rate,
        "weight_decay": weight_decay, "warmup": warmup, "schedule": schedule, "epochs": epochs, "max_steps": max_steps,
        "batch_size": batch_size, "accumulation": accumulation, "gradient_checkpointing": gradient_checkpointing,
        "max_length": max_length, "precision": precision, "prompt": prompt, "crop": crop, "save_steps": save_steps,
        "keep_checkpoints": keep_checkpoints, "patience": patience, "max_new_tokens": max_new_tokens,
        "logging_steps": logging_steps, "workers": workers, "seed": seed, "deepspeed": deepspeed, "fsdp": fsdp,
    }  # fmt: skip
    chosen = model or plan.model
    if not chosen:
        refuse("--model is missing; name the model to train, or a --recipe that names one")
    if bool(data) == bool(text):
        refuse("wanted is DATA (files of conversations, or data sets) or --text (sentences to draw), and not both")
    complaints = Complaints()
    try:
        if module_rate:
            given["module_rates"] = dict(map(_rate, module_rate))
        if settings:
            given["others"] = {**plan.settings.get("others", {}), **others(settings)}
        options = plan.options(**{name: value for name, value in given.items() if value not in (None, [])})
        if text:
            examples: Any = _drawn(text, count, backgrounds, fonts, size, damage, looks, options.seed, complaints)
        else:
            examples = FileExamples(data or [], pictures=pictures, on_error=complaints)
        held = FileExamples(held_out, pictures=pictures, on_error=complaints) if held_out else None
        trained = train(examples, chosen, out, options, held_out=held, work=work, plot=plot, progress=not hidden(quiet))
    except ValueError as error:
        refuse(str(error))
    for skipped in trained.skipped:
        complaints(CapragError(str(skipped)))
    last = list(trained.losses.values())[-1:] or [float("nan")]
    rates = f", CER {min(trained.rates.values()):.4f} at step {trained.best_step}" if trained.rates else ""
    say(f"{trained.folder}: {trained.steps} steps, last loss {last[0]:.4f}{rates}, {trained.size / 1e6:.1f} MB")
    finish(complaints.count, "examples")


def _rate(pair: str) -> tuple[str, float]:
    """Part the modules' name, a regular expression that may have signs of equality, from their rate."""
    name, _, rate = pair.rpartition("=")
    try:
        value = float(rate)
    except ValueError:
        value = 0.0
    if not name.strip() or not value > 0:
        raise ValueError(f"--module-rate {pair}: wanted are modules and a rate above 0, as multi_modal_projector=1e-3")
    return name.strip(), value


def _drawn(
    text: list[Path], count: int | None, backgrounds: list[Path] | None, fonts: list[str] | None,
    size: list[str] | None, damage: str, looks: Path | None, seed: int, complaints: Complaints,
) -> DrawnExamples:  # fmt: skip
    """Set up the synthesiser."""
    from caprag.corpus import read_corpus
    from caprag.synthesis.backgrounds import Backgrounds
    from caprag.synthesis.damage import STRENGTHS
    from caprag.synthesis.fonts import load_fonts
    from caprag.synthesis.generator import Synthesizer
    from caprag.synthesis.recipe import Recipe
    from caprag.synthesis.run import Sentences
    from caprag.training.recognizer import DrawnExamples

    sizes = []
    for one in size or ["1280x720"]:
        width, _, height = one.lower().partition("x")
        if not (width.isdecimal() and height.isdecimal()):
            raise ValueError(f"--size {one}: wanted is width x height in pixels, such as 1280x720")
        sizes.append((int(width), int(height)))
    try:
        strength = STRENGTHS[damage] if damage in STRENGTHS else float(damage)
    except ValueError:
        raise ValueError(f"--damage {damage}: known are {', '.join(STRENGTHS)}, and numbers from 0 to 1") from None
    texts = [sentence.text for sentence in read_corpus(text, on_error=complaints)]
    found = load_fonts(fonts or (), sample=texts[:: max(1, len(texts) // 200)], on_error=complaints)
    plan = Recipe() if looks is None else Recipe.read(looks)
    synthesizer = Synthesizer(
        Backgrounds(backgrounds or (), on_error=complaints), found, sizes=sizes, damage=strength, seed=seed, recipe=plan
    )
    return DrawnExamples(Sentences(texts, synthesizer, count=count), synthesizer)
