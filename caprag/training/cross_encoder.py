"""Training a cross-encoder on queries, positives and negatives: FlagEmbedding's encoder-only reranker recipe.

FlagEmbedding's own runner, trainer, model and data set do the work; added are draws that do not depend on where a run
was stopped, logs, and a result that `caprag.reranking.cross_encoder` opens. It knows nothing of how negatives were
found.

References
----------
Xiao et al., C-Pack: Packed Resources For General Chinese Embeddings, SIGIR 2024; FlagEmbedding 1.4,
``finetune/reranker/encoder_only/base``: the softmax over a group of one positive and its negatives.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from caprag.errors import ModelError, require
from caprag.training.flag import EpochOrder, load_checkpoints_whole, watch
from caprag.training.runs import check_batch, check_files, claim, last_checkpoint, unobtrusive
from caprag.training.saving import folder_size, quiet


@dataclass(frozen=True, slots=True)
class CrossEncoderOptions:
    """How a cross-encoder is trained; the defaults are those of BGE's recipe.

    Attributes
    ----------
    epochs
        Times that each line is seen, > 0.
    batch_size
        Queries a step on each device, >= 1.
    group_size
        Passages for each query: one positive, the rest negatives, >= 2.
    learning_rate, weight_decay
        Of AdamW; the rate rises over `warmup` and falls linearly.
    warmup
        Steps on the way up: a share of all in [0, 1), or a number of steps.
    query_max_length, passage_max_length
        Most tokens of each; a pair is cut to their sum.
    fp16
        Half precision; ``None`` where there is a GPU.
    save_steps
        Steps between two checkpoints, >= 1.
    keep_checkpoints
        How many to keep, >= 1.
    logging_steps
        Steps between two entries in the logs, >= 1.
    seed
        Of order and draws, and of a last layer that the base lacks.
    others
        Any other argument of FlagEmbedding's model, data and training arguments, by its name there.
    """

    epochs: float = 1.0
    batch_size: int = 32
    group_size: int = 8
    learning_rate: float = 6e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    query_max_length: int = 64
    passage_max_length: int = 64
    fp16: bool | None = None
    save_steps: int = 1000
    keep_checkpoints: int = 2
    logging_steps: int = 10
    seed: int = 42
    others: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("batch_size", "save_steps", "keep_checkpoints", "logging_steps", "query_max_length",
                     "passage_max_length"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if self.group_size < 2:
            raise ValueError(f"group_size is {self.group_size}; a positive and at least one negative are needed")
        if not self.epochs > 0 or self.warmup < 0:
            raise ValueError(f"epochs is {self.epochs} and warmup {self.warmup}; above 0 and at least 0 are needed")


@dataclass(frozen=True, slots=True)
class TrainedCrossEncoder:
    """What a training gave.

    Attributes
    ----------
    folder
        The cross-encoder, as `caprag.reranking.cross_encoder.load_cross_encoder` opens it.
    steps
        Steps in all.
    losses
        Step to the mean loss since the entry before, as logged; the last step always is.
    size
        Bytes of the folder; 0 where the training was stopped before its end.
    """

    folder: Path
    steps: int
    losses: dict[int, float]
    size: int


def train_cross_encoder(
    data: Sequence[str | PathLike[str]],
    base: str | PathLike[str],
    out: str | PathLike[str],
    options: CrossEncoderOptions | None = None,
    *,
    work: str | PathLike[str] | None = None,
    stop_after: int | None = None,
    progress: bool = False,
) -> TrainedCrossEncoder:
    """Train a cross-encoder on JSON lines with ``query``, ``pos`` and ``neg``.

    Parameters
    ----------
    data
        Files, as `caprag.training.negatives.mine_negatives` and `caprag.poems.write_training` write them.
    base
        Hub id or folder of a BGE reranker, or of a plain encoder, which gets a new last layer.
    out
        Folder for the result.
    options
        How to train.
    work
        Folder for checkpoints and TensorBoard's ``logs``; ``None`` is `out` with ``.work`` behind its name. What lies
        there is taken up again, with the same result as without the stop.
    stop_after
        Stop after so many steps in all, with a checkpoint and without a result; ``None`` goes to the end.
    progress
        Whether to show a progress bar on stderr.

    Returns
    -------
    TrainedCrossEncoder
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
    settings = options or CrossEncoderOptions()
    files = [Path(path) for path in data]
    rows = check_files(files, settings.group_size)
    folder = Path(work) if work is not None else Path(f"{fspath(out)}.work")
    arguments = _arguments(files, fspath(base), folder, settings, progress)
    check_batch(rows.count, arguments[2].train_batch_size * arguments[2].world_size)
    claim(folder, settings, f"cross-encoder {fspath(base)}", rows)
    with quiet():
        trainer = _trainer(arguments, folder, stop_after)
        trainer.train(resume_from_checkpoint=last_checkpoint(folder))
        losses = {int(entry["step"]): float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry}
        size = 0
        if trainer.state.global_step >= trainer.state.max_steps and trainer.is_world_process_zero():
            # Not the trainer's own way of saving, which adds a pickle.
            trainer.model.model.save_pretrained(fspath(out))
            trainer.processing_class.save_pretrained(fspath(out))
            size = folder_size(out)
    return TrainedCrossEncoder(Path(out), trainer.state.global_step, losses, size)


def _arguments(
    files: Sequence[Path], base: str, folder: Path, settings: CrossEncoderOptions, progress: bool
) -> tuple[Any, Any, Any]:
    """Return FlagEmbedding's model, data and training arguments."""
    import torch
    from FlagEmbedding.abc.finetune.reranker import (
        AbsRerankerDataArguments,
        AbsRerankerModelArguments,
        AbsRerankerTrainingArguments,
    )

    kinds = (AbsRerankerModelArguments, AbsRerankerDataArguments, AbsRerankerTrainingArguments)
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


def _collate(tokenizer: Any, features: Sequence[Any], multiple: int | None) -> dict[str, Any]:
    """Put the pairs of all queries into one batch, group by group."""
    pairs = [pair for group, _ in features for pair in group]
    columns = {name: [pair[name] for pair in pairs] for name in pairs[0]}
    scores = [score for _, group in features for score in group or []]
    batch = tokenizer.pad(columns, padding=True, pad_to_multiple_of=multiple, return_tensors="pt")
    return {"pair": batch, "teacher_scores": scores or None}


def _trainer(arguments: tuple[Any, Any, Any], folder: Path, stop_after: int | None) -> Any:
    """Return FlagEmbedding's trainer with its model and data."""
    from FlagEmbedding.abc.finetune.reranker import AbsRerankerTrainDataset
    from FlagEmbedding.finetune.reranker.encoder_only.base import EncoderOnlyRerankerRunner

    class Seeded(AbsRerankerTrainDataset):  # type: ignore[misc]
        """Draws by seed, epoch and row, where FlagEmbedding's depend on how often the run was stopped."""

        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __getitem__(self, item: int) -> object:
            before = random.getstate()
            random.seed(f"{arguments[2].seed} {self.epoch} {item}")
            try:
                return super().__getitem__(item)
            finally:
                random.setstate(before)

    class Runner(EncoderOnlyRerankerRunner):  # type: ignore[misc]
        def load_tokenizer_and_model(self) -> object:
            tokenizer, model = super().load_tokenizer_and_model()
            # A base that was saved in half precision would be trained in it: slow on a CPU, and too coarse for AdamW.
            return tokenizer, model.float()

        def load_train_dataset(self) -> object:
            return Seeded(args=self.data_args, tokenizer=self.tokenizer)

        def load_data_collator(self) -> object:
            # FlagEmbedding's asks for a length beside padding to the longest, which draws a warning a batch.
            return lambda features: _collate(self.tokenizer, features, self.data_args.pad_to_multiple_of)

    try:
        with unobtrusive():
            runner = Runner(*arguments)
    except OSError as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"{arguments[0].model_name_or_path}: is not loaded as an encoder ({reason})") from error
    load_checkpoints_whole(runner.trainer)
    order = EpochOrder(runner.train_dataset, arguments[2].seed)
    runner.trainer._get_train_sampler = lambda *_: order
    watch(runner.trainer, folder / "logs", stop_after)
    return runner.trainer
