"""Fine-tuning of any transformers image-text-to-text model on pictures with question and answer.

transformers' trainer does the work; what it is given is in the modules beside this one. A training that was stopped is
taken up from its last checkpoint with the same losses. Knows nothing of families.

References
----------
Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022. Liu et al., Visual Instruction Tuning,
NeurIPS 2023, for the projector trained in full at a rate of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from caprag.errors import CapragError, require
from caprag.training.model_folders import new_folder
from caprag.training.recognizer.examples import ExampleSource, FileExamples, Skipped, read_notes
from caprag.training.recognizer.options import RecognizerOptions
from caprag.training.runs import Rows, claim, last_checkpoint
from caprag.training.saving import folder_size, quiet

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
"""Where the shipped settings of DeepSpeed and FSDP lie."""

NOTES = "skipped.jsonl"
_RESULT = "result"


@dataclass(frozen=True, slots=True)
class TrainedRecognizer:
    """What a training gave.

    Attributes
    ----------
    folder
        The model, or its adapters, with tokenizer and processor.
    steps
        Steps in all.
    losses
        Step to the mean loss since the entry before, in nats a token.
    rates
        Step to the character error rate on what was held out.
    best_step
        Step whose weights were kept; ``None``: the last.
    skipped
        Pictures that could not be had.
    size
        Bytes of the folder; 0 where the training was stopped before its end.
    """

    folder: Path
    steps: int
    losses: dict[int, float]
    rates: dict[int, float]
    best_step: int | None
    skipped: tuple[Skipped, ...]
    size: int


def train_recognizer(
    data: Sequence[str | PathLike[str]] | ExampleSource,
    model: str | PathLike[str],
    out: str | PathLike[str],
    options: RecognizerOptions | None = None,
    *,
    held_out: Sequence[str | PathLike[str]] | FileExamples | None = None,
    pictures: str | PathLike[str] | None = None,
    work: str | PathLike[str] | None = None,
    plot: str | PathLike[str] | None = None,
    stop_after: int | None = None,
    on_error: Callable[[CapragError], None] | None = None,
    progress: bool = False,
) -> TrainedRecognizer:
    """Train a recognizer.

    Parameters
    ----------
    data
        Conversation files or folders that `caprag synth` wrote, or a source of examples, such as
        `caprag.training.recognizer.DrawnExamples`.
    model
        Hub id or folder of an image-text-to-text model; ``"caprag"`` for the shipped reader.
    out
        Folder for the result: a model, or adapters in PEFT's form, with tokenizer and processor, and ``run.json`` with
        all that is needed to do it again.
    options
        How to train.
    held_out
        Examples that are read at each checkpoint: the one with the least character error rate is kept. ``None``: the
        last is kept.
    pictures
        Folder that paths in files begin at; ``None``: the file's own.
    work
        Folder for checkpoints, ``log.jsonl``, TensorBoard's ``logs``; ``None`` is `out` with ``.work`` behind its name.
        What lies there is taken up again, with the same losses as without the stop.
    plot
        Picture of loss and error rate to draw, png.
    stop_after
        Stop after so many steps in all, with a checkpoint and without a result; ``None`` goes to the end.
    on_error
        Called with the error of each example that can't be read; ``None`` raises it.
    progress
        Whether to show a progress bar on stderr.

    Returns
    -------
    TrainedRecognizer
        The folder and how it went.

    Raises
    ------
    MissingDependencyError
        Where a package of the extra ``train`` is missing, or one that the model needs.
    CorpusError, SynthesisError
        Where there are no examples, or a file can't be read.
    ModelError
        Where the model can't be loaded or trained in this way, and where a picture takes more tokens than there are.
    FrameError
        Where a hundred pictures in a row can't be had.
    CapragError
        Where `out` is not empty, and where `work` holds a training on other data, model or options.
    ValueError
        For an option that does not fit the model, or that transformers does not know; for `plot` that can't be
        drawn, and for ``patience`` without `held_out`.
    TypeError
        Where `data` or `held_out` is one path instead of a sequence of paths.

    Examples
    --------
    >>> train_recognizer(["train.jsonl"], "llava-hf/llava-1.5-7b-hf", "models/captions",
    ...     RecognizerOptions(module_rates={"multi_modal_projector": 1e-3}))  # doctest: +SKIP
    """
    require("accelerate", "train")
    settings, name = options or RecognizerOptions(), fspath(model)
    if settings.patience is not None and held_out is None:
        raise ValueError(
            f"patience is {settings.patience}, and nothing is held out to be read; give held_out (--held-out), or "
            "leave patience out"
        )
    if plot is not None:
        from caprag.training.recognizer.saving import check_plot

        check_plot(Path(plot))
    folder = Path(work) if work is not None else Path(f"{fspath(out)}.work")
    examples = (
        data if not isinstance(data, (Sequence, PathLike)) else FileExamples(data, pictures=pictures, on_error=on_error)
    )
    if held_out is not None and not isinstance(held_out, FileExamples):
        held_out = FileExamples(held_out, pictures=pictures, on_error=on_error)
    if Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise CapragError(f"{fspath(out)}: is there already, and not empty; choose another folder, or remove it")
    rows = _rows(examples, held_out)
    if _rank() == 0:
        claim(folder, settings, name, rows)
    examples.notes = folder / NOTES
    if held_out is not None:
        held_out.notes = folder / NOTES
    with quiet():
        trainer = _trainer(examples, name, folder, settings, held_out, stop_after, progress)
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
        state = trainer.state
        losses = {int(entry["step"]): float(entry["loss"]) for entry in state.log_history if "loss" in entry}
        rates = {int(entry["step"]): float(entry["eval_cer"]) for entry in state.log_history if "eval_cer" in entry}
        skipped = tuple(read_notes(folder / NOTES))
        best = int(state.best_global_step) if held_out is not None and state.best_global_step else None
        unfinished = stop_after is not None and state.global_step >= stop_after and state.global_step < state.max_steps
        if unfinished:
            return TrainedRecognizer(Path(out), state.global_step, losses, rates, best, skipped, 0)
        trainer.save_model(str(folder / _RESULT))
    if trainer.is_world_process_zero():
        _finish(Path(out), folder, name, settings, rows, trainer, plot)
    return TrainedRecognizer(Path(out), state.global_step, losses, rates, best, skipped, folder_size(out))


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _rows(examples: ExampleSource, held_out: FileExamples | None) -> Rows:
    parts = [examples.signature(), held_out.signature() if held_out is not None else None]
    return Rows(len(examples), hashlib.sha256(json.dumps(parts).encode()).hexdigest())


def shipped_config(given: str) -> str:
    """Return the file of a shipped setting's name, or what was given where it is a file.

    Raises
    ------
    CapragError
        Where there is neither.
    """
    shipped = CONFIGS / f"{given}.json"
    if shipped.exists():
        return str(shipped)
    if Path(given).is_file():
        return given
    known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.json")))
    raise CapragError(f"{given}: there is no such file; shipped are {known}")


def _arguments(folder: Path, settings: RecognizerOptions, held_out: bool, progress: bool) -> Any:
    """Return transformers' training arguments. They must be there before the model: DeepSpeed says how it is loaded."""
    import torch
    from transformers import TrainingArguments

    from caprag.training.recognizer.base import compute_dtype

    dtype, gpu = compute_dtype(settings), torch.cuda.is_available()
    given: dict[str, Any] = {
        "output_dir": str(folder / "checkpoints"), "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1, "per_device_train_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation, "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay, "adam_beta1": settings.adam_beta1, "adam_beta2": settings.adam_beta2,
        "max_grad_norm": settings.max_grad_norm, "warmup_steps": settings.warmup,
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "bf16": dtype == "bfloat16", "fp16": dtype == "float16", "save_strategy": "steps",
        "save_steps": settings.save_steps, "save_total_limit": settings.keep_checkpoints,
        "logging_steps": settings.logging_steps, "logging_strategy": "steps", "seed": settings.seed,
        "dataloader_num_workers": settings.workers, "dataloader_pin_memory": gpu,
        "use_cpu": not torch.accelerator.is_available(), "disable_tqdm": not progress,
        "remove_unused_columns": False, "label_names": ["labels"], "report_to": "none",
    }  # fmt: skip
    if settings.gradient_checkpointing:
        # Its name differs from version to version.
        known = {one.name for one in fields(TrainingArguments)}
        checkpointing = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
        given |= {checkpointing: True, f"{checkpointing}_kwargs": {"use_reentrant": False}}
    if held_out:
        given |= {
            "eval_strategy": "steps", "eval_steps": settings.save_steps, "load_best_model_at_end": True,
            "metric_for_best_model": "eval_cer", "greater_is_better": False,
        }  # fmt: skip
    if settings.deepspeed is not None:
        require("deepspeed", "deepspeed")
        given["deepspeed"] = shipped_config(settings.deepspeed)
    if settings.fsdp is not None:
        given |= {"fsdp": True, "fsdp_config": shipped_config(settings.fsdp)}
    try:
        return TrainingArguments(**{**given, **settings.others})
    except TypeError as error:
        raise ValueError(f"others has a name that transformers' training arguments do not know: {error}") from error


def _trainer(
    examples: ExampleSource, name: str, folder: Path, settings: RecognizerOptions, held_out: FileExamples | None,
    stop_after: int | None, progress: bool,
) -> Any:  # fmt: skip
    """Return the trainer with model, data and logs."""
    from transformers import set_seed

    from caprag.training.flag import watch
    from caprag.training.recognizer.base import load_base
    from caprag.training.recognizer.collation import Collator
    from caprag.training.recognizer.heldout import HeldOut
    from caprag.training.recognizer.modules import prepare
    from caprag.training.recognizer.trainer import LOG, LogFile, Patience, RecognizerTrainer, check_causal

    arguments = _arguments(folder, settings, held_out is not None, progress)
    set_seed(settings.seed)
    base, processor, tokenizer = load_base(name, settings)
    collator = Collator(
        name, base, processor, tokenizer, prompt=settings.prompt, crop=settings.crop, max_length=settings.max_length
    )
    reader = None
    if held_out is not None:
        reader = HeldOut(held_out, collator, batch_size=settings.batch_size, max_new_tokens=settings.max_new_tokens)
    trainer = RecognizerTrainer(
        prepare(base, settings), arguments, examples, collator, held_out=reader, module_rates=settings.module_rates
    )
    if settings.deepspeed is None and settings.fsdp is None:
        check_causal(trainer.model, collator([examples[0]]), encoder_decoder=collator.encoder_decoder, pad=collator.pad)
    if settings.patience is not None:
        trainer.add_callback(Patience(settings.patience))
    trainer.add_callback(LogFile(folder / LOG))
    watch(trainer, folder / "logs", stop_after)
    return trainer


def _finish(
    out: Path, folder: Path, name: str, settings: RecognizerOptions, rows: Rows, trainer: Any,
    plot: str | PathLike[str] | None,
) -> None:  # fmt: skip
    """Lay beside the weights what reads with them and what tells of them, and draw."""
    from caprag.recognition.loading import SHIPPED
    from caprag.training.recognizer.base import copy_beside
    from caprag.training.recognizer.saving import RUN, draw_log, write_json

    counts = [parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad]
    state = trainer.state
    run = {
        "model": name, "options": settings.as_dict(), "data": rows.digest, "steps": state.global_step,
        "best_step": state.best_global_step, "best_cer": state.best_metric, "trained_parameters": sum(counts),
        "examples": rows.count, "devices": trainer.args.world_size,
        "versions": {package: _version(package) for package in ("caprag", "torch", "transformers", "peft")},
    }  # fmt: skip
    with new_folder(out) as place:
        copy_beside(name, place)
        for path in sorted((folder / _RESULT).iterdir()):
            if path.name != "training_args.bin":
                shutil.move(path, place / path.name)
        adapter = place / "adapter_config.json"
        if name == SHIPPED and adapter.exists():
            # Found by its name on any machine, wherever it lies there.
            config = json.loads(adapter.read_text(encoding="utf-8"))
            write_json(adapter, {**config, "base_model_name_or_path": SHIPPED})
        write_json(place / RUN, run)
    shutil.rmtree(folder / _RESULT)
    if plot is not None:
        draw_log(folder, Path(plot))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
