"""The verb train cross-encoder: what puts candidates in order, trained on queries, positives and negatives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caprag.cli.options import Quiet, hidden, refuse
from caprag.cli.training import (
    BatchSize,
    Decay,
    Epochs,
    Half,
    Keep,
    LoggingSteps,
    Others,
    Rate,
    Rows,
    SaveSteps,
    Warmup,
    Work,
    others,
    say_trained,
)


def train_cross_encoder(
    data: Rows,
    out: Annotated[Path, typer.Option("--out", help="Folder for the cross-encoder.")],
    base: Annotated[
        str, typer.Option("--base", help="Hub id or folder of a BGE reranker, or of an encoder, which gets a new head.")
    ] = "BAAI/bge-reranker-base",
    work: Work = None,
    epochs: Epochs = 1.0,
    batch_size: BatchSize = 32,
    group_size: Annotated[
        int, typer.Option(min=2, help="Passages of each query: one positive, the rest negatives.")
    ] = 8,
    learning_rate: Rate = 6e-5,
    warmup: Warmup = 0.1,
    weight_decay: Decay = 0.01,
    query_max_length: Annotated[int, typer.Option(min=1, help="Most tokens of a query.")] = 64,
    passage_max_length: Annotated[int, typer.Option(min=1, help="Most tokens of a passage.")] = 64,
    fp16: Half = None,
    save_steps: SaveSteps = 1000,
    keep_checkpoints: Keep = 2,
    logging_steps: LoggingSteps = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of order, draws and a new head.")] = 42,
    settings: Others = None,
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
            others=others(settings),
        )  # fmt: skip
        trained = train(data, base, out, options, work=work, progress=not hidden(quiet))
    except ValueError as error:
        refuse(str(error))
    say_trained(trained)
