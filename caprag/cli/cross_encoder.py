"""The verb train cross-encoder: what puts candidates in order, trained on queries, positives and negatives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caprag.cli.options import Quiet, hidden, refuse, say
from caprag.cli.training import _settings


def train_cross_encoder(
    data: Annotated[list[Path], typer.Argument(help="JSON lines with query, pos and neg, as caprag mine writes them.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the cross-encoder.")],
    base: Annotated[
        str, typer.Option("--base", help="Hub id or folder of a BGE reranker, or of an encoder, which gets a new head.")
    ] = "BAAI/bge-reranker-base",
    work: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and TensorBoard's logs; OUT.work if not given.")
    ] = None,
    epochs: Annotated[float, typer.Option(help="Times that each line is seen.")] = 1.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries a step on each device.")] = 32,
    group_size: Annotated[
        int, typer.Option(min=2, help="Passages of each query: one positive, the rest negatives.")
    ] = 8,
    learning_rate: Annotated[float, typer.Option(help="The highest.")] = 6e-5,
    warmup: Annotated[float, typer.Option(min=0, help="Steps on the way up: a share of all, or a number.")] = 0.1,
    weight_decay: Annotated[float, typer.Option(min=0, help="Of AdamW.")] = 0.01,
    query_max_length: Annotated[int, typer.Option(min=1, help="Most tokens of a query.")] = 64,
    passage_max_length: Annotated[int, typer.Option(min=1, help="Most tokens of a passage.")] = 64,
    fp16: Annotated[
        bool | None, typer.Option(help="Half precision in training; where there is a GPU if not given.")
    ] = None,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 1000,
    keep_checkpoints: Annotated[int, typer.Option(min=1, help="How many to keep.")] = 2,
    logging_steps: Annotated[int, typer.Option(min=1, help="Steps between two entries in the logs.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of order, draws and a new head.")] = 42,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other argument of FlagEmbedding, as lr_scheduler_type=cosine; repeatable."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train a cross-encoder by FlagEmbedding's encoder-only reranker recipe.

    A run that was stopped goes on from its last checkpoint when it is started again in the same way. The result is a
    sequence classifier with one label: caprag takes it as --cross-encoder, and FlagReranker and sentence_transformers
    open it too. For several GPUs start it by torchrun.
    """
    from caprag.training.cross_encoder import CrossEncoderOptions
    from caprag.training.cross_encoder import train_cross_encoder as train

    try:
        options = CrossEncoderOptions(
            epochs=epochs, batch_size=batch_size, group_size=group_size, learning_rate=learning_rate, warmup=warmup,
            weight_decay=weight_decay, query_max_length=query_max_length, passage_max_length=passage_max_length,
            fp16=fp16, save_steps=save_steps, keep_checkpoints=keep_checkpoints, logging_steps=logging_steps, seed=seed,
            others=_settings(settings or []),
        )  # fmt: skip
        trained = train(data, base, out, options, work=work, progress=not hidden(quiet))
    except ValueError as error:
        refuse(str(error))
    last = list(trained.losses.values())[-1:] or [float("nan")]
    say(f"{trained.folder}: {trained.steps} steps, last loss {last[0]:.4f}, {trained.size / 1e6:.1f} MB")
