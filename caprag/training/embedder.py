"""Training an embedder on queries, positives and negatives: FlagEmbedding's encoder-only recipe.

FlagEmbedding's own runner, trainer, model and data set do the work; added are draws that do not depend on where a run
was stopped, texts of like length that go through together, logs, and a result that SentenceTransformer and FlagModel
both open. It knows nothing of how negatives were found.

References
----------
Xiao et al., C-Pack: Packed Resources For General Chinese Embeddings, SIGIR 2024; FlagEmbedding 1.4,
``finetune/embedder/encoder_only/base``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from caprag.errors import ModelError, require
from caprag.training.runs import check_batch, check_files, claim, last_checkpoint, unobtrusive
from caprag.training.saving import PoolingMethod, check_pooling, quiet, save_embedder
from caprag.training.scratch import Architecture, new_encoder

_GROUP = 64


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How an embedder is trained; the defaults are those of BGE's recipe.

    Attributes
    ----------
    epochs
        Times that each line is seen, > 0.
    batch_size
        Queries a step on each device, >= 1.
    group_size
        Passages for each query: one positive, the rest negatives, >= 1.
    learning_rate, weight_decay
        Of AdamW; the rate rises over `warmup` and falls linearly.
    warmup
        Steps on the way up: a share of all in [0, 1), or a number of steps.
    temperature
        What cosines are divided by, > 0.
    pooling, normalize
        Which vector stands for a text, and whether it gets length 1.
    query_max_length, passage_max_length
        Most tokens; longer texts are cut.
    negatives_cross_device
        With several devices (torchrun), whether the passages of all are negatives.
    fp16
        Half precision; ``None`` where there is a GPU.
    save_steps
        Steps between two checkpoints, >= 1.
    keep_checkpoints
        How many to keep, >= 1.
    logging_steps
        Steps between two entries in the logs, >= 1.
    seed
        Of order and draws.
    others
        Any other argument of FlagEmbedding's model, data and training arguments, by its name there.
    """

    epochs: float = 1.0
    batch_size: int = 32
    group_size: int = 8
    learning_rate: float = 1e-5
    weight_decay: float = 0.0
    warmup: float = 0.1
    temperature: float = 0.02
    pooling: PoolingMethod = "cls"
    normalize: bool = True
    query_max_length: int = 32
    passage_max_length: int = 128
    negatives_cross_device: bool = True
    fp16: bool | None = None
    save_steps: int = 1000
    keep_checkpoints: int = 2
    logging_steps: int = 10
    seed: int = 42
    others: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("batch_size", "group_size", "save_steps", "keep_checkpoints", "logging_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if not self.epochs > 0 or not self.temperature > 0 or self.warmup < 0:
            raise ValueError(
                f"epochs is {self.epochs}, temperature {self.temperature} and warmup {self.warmup}; "
                "the first two must be above 0, the last at least 0"
            )
        check_pooling(self.pooling)


@dataclass(frozen=True, slots=True)
class TrainedEmbedder:
    """What a training gave.

    Attributes
    ----------
    folder
        The SentenceTransformer.
    steps
        Steps in all.
    losses
        Step to the mean loss since the entry before, as logged; the last step always is.
    size
        Bytes of the folder.
    """

    folder: Path
    steps: int
    losses: dict[int, float]
    size: int


def train_embedder(
    data: Sequence[str | PathLike[str]],
    base: str | PathLike[str] | Architecture,
    out: str | PathLike[str],
    options: TrainingOptions | None = None,
    *,
    work: str | PathLike[str] | None = None,
    half: bool = False,
    stop_after: int | None = None,
    progress: bool = False,
) -> TrainedEmbedder:
    """Train an embedder on JSON lines with ``query``, ``pos`` and ``neg``.

    Parameters
    ----------
    data
        Files, as `caprag.training.mine_negatives` writes them.
    base
        Hub id or folder of a BGE model or another encoder, also one of `caprag.training.new_encoder`; or the
        size of a new one, which is made with the seed of `options`.
    out
        Folder for the result.
    options
        How to train.
    work
        Folder for checkpoints and TensorBoard's ``logs``; ``None`` is `out` with ``.work`` behind its name. What lies
        there is taken up again, with the same losses as without the stop.
    half
        Store the result in half precision.
    stop_after
        Stop after so many steps in all, with a checkpoint and without a result; ``None`` goes to the end.
    progress
        Whether to show a progress bar on stderr.

    Returns
    -------
    TrainedEmbedder
        The folder and how it went.

    Raises
    ------
    MissingDependencyError
        Where FlagEmbedding is not installed.
    CorpusError
        Where a file is missing or empty, or a line holds no query, positives and negatives.
    ModelError
        Where the base can't be loaded.
    CapragError
        Where `work` holds a training on other data, base or options.
    ValueError
        For an argument that FlagEmbedding does not know, or fewer rows than a step takes on all devices.
    """
    require("FlagEmbedding", "train")
    settings = options or TrainingOptions()
    files = [Path(path) for path in data]
    rows = check_files(files, settings.group_size)
    # An untrained one is named by its size.
    name = f"scratch {asdict(base)}" if isinstance(base, Architecture) else fspath(base)
    if not isinstance(base, Architecture):
        _check_base(name)
    folder = Path(work) if work is not None else Path(f"{fspath(out)}.work")
    start = str(folder / "new") if isinstance(base, Architecture) else name
    arguments = _arguments(files, start, folder, settings, progress)
    check_batch(rows.count, arguments[2].train_batch_size * arguments[2].world_size)
    claim(folder, settings, name, rows)
    if isinstance(base, Architecture):
        # Same seed, same bytes: one that a stop left half is written over.
        new_encoder(folder / "new", base, seed=settings.seed)
    with quiet():
        trainer = _trainer(arguments, folder, stop_after)
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
        losses = {int(entry["step"]): float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry}
        if trainer.state.global_step < trainer.state.max_steps:
            return TrainedEmbedder(Path(out), trainer.state.global_step, losses, 0)
        trainer.save_model(str(folder / "encoder"))
    size = 0
    if trainer.is_world_process_zero():
        size = save_embedder(
            folder / "encoder", out, pooling=settings.pooling, normalize=settings.normalize, half=half,
            max_length=_window(folder / "encoder", settings.passage_max_length),
        )  # fmt: skip
    return TrainedEmbedder(Path(out), trainer.state.global_step, losses, size)


def _check_base(base: str) -> None:
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(base)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"{base}: is not loaded as an encoder ({reason}); check the id or folder") from error


def _window(encoder: Path, wanted: int) -> int:
    config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    return min(wanted, int(config.get("max_position_embeddings", wanted)))


def _arguments(
    files: Sequence[Path], base: str, folder: Path, settings: TrainingOptions, progress: bool
) -> tuple[Any, Any, Any]:
    """Return FlagEmbedding's model, data and training arguments."""
    import torch
    from FlagEmbedding.finetune.embedder.encoder_only.base import (
        EncoderOnlyEmbedderDataArguments,
        EncoderOnlyEmbedderModelArguments,
        EncoderOnlyEmbedderTrainingArguments,
    )

    kinds = (
        EncoderOnlyEmbedderModelArguments,
        EncoderOnlyEmbedderDataArguments,
        EncoderOnlyEmbedderTrainingArguments,
    )
    gpu = torch.cuda.is_available()
    given: list[dict[str, Any]] = [
        {"model_name_or_path": base},
        {
            "train_data": [str(path) for path in files], "train_group_size": settings.group_size,
            "query_max_len": settings.query_max_length, "passage_max_len": settings.passage_max_length,
            "cache_path": str(folder / "data"),
        },
        {
            "output_dir": str(folder / "checkpoints"), "num_train_epochs": settings.epochs,
            "per_device_train_batch_size": settings.batch_size, "learning_rate": settings.learning_rate,
            "weight_decay": settings.weight_decay, "warmup_steps": settings.warmup,
            "temperature": settings.temperature, "sentence_pooling_method": settings.pooling,
            "normalize_embeddings": settings.normalize,
            # A process alone has no other device to share with, and FlagEmbedding refuses to.
            "negatives_cross_device": settings.negatives_cross_device and int(os.environ.get("WORLD_SIZE", "1")) > 1,
            "fp16": gpu if settings.fp16 is None else settings.fp16, "save_steps": settings.save_steps,
            "save_total_limit": settings.keep_checkpoints, "logging_steps": settings.logging_steps,
            "seed": settings.seed, "dataloader_drop_last": True, "dataloader_pin_memory": gpu,
            "disable_tqdm": not progress, "report_to": "none",
        },
    ]  # fmt: skip
    for name, value in settings.others.items():
        owner = next((i for i, kind in enumerate(kinds) if name in {f.name for f in fields(kind) if f.init}), None)
        if owner is None:
            raise ValueError(f"others has {name!r}, which FlagEmbedding's arguments do not know")
        given[owner][name] = value
    model, data, training = (kind(**values) for kind, values in zip(kinds, given, strict=True))
    return model, data, training


def _trainer(arguments: tuple[Any, Any, Any], folder: Path, stop_after: int | None) -> Any:
    """Return FlagEmbedding's trainer with its model and data."""
    from FlagEmbedding.finetune.embedder.encoder_only.base import EncoderOnlyEmbedderRunner

    from caprag.training.flag import EpochOrder, load_checkpoints_whole, seeded_dataset, sort_by_length, watch

    class Runner(EncoderOnlyEmbedderRunner):  # type: ignore[misc]
        def load_tokenizer_and_model(self) -> object:
            tokenizer, model = super().load_tokenizer_and_model()
            # A base that was saved in half precision would be trained in it: slow on a CPU, and too coarse for AdamW.
            return tokenizer, model.float()

        def load_train_dataset(self) -> object:
            if self.data_args.same_dataset_within_batch:
                return super().load_train_dataset()
            return seeded_dataset(self.data_args, self.tokenizer, self.training_args.seed)

    with unobtrusive():
        runner = Runner(*arguments)
    if not arguments[1].same_dataset_within_batch and arguments[2].sub_batch_size is None:
        sort_by_length(runner.trainer, _GROUP)
    load_checkpoints_whole(runner.trainer)
    if hasattr(runner.train_dataset, "epoch") and runner.training_args.train_sampling_strategy == "random":
        order = EpochOrder(runner.train_dataset, runner.training_args.seed)
        runner.trainer._get_train_sampler = lambda *_: order
    watch(runner.trainer, folder / "logs", stop_after)
    return runner.trainer
