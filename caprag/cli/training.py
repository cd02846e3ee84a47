"""The verbs mine and train: hard negatives, and embedders trained on them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caprag.cli.options import Complaints, Quiet, finish, hidden, open_embedder, refuse, say

if TYPE_CHECKING:
    from caprag.training import Pair, TrainedEmbedder
    from caprag.training.cross_encoder import TrainedCrossEncoder

train_app = typer.Typer(help="Train models of your own.", no_args_is_help=True, rich_markup_mode=None)


def mine(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Pairs: .jsonl with query and positives, or .tsv; with --noise, text files to make readings of."
        ),
    ],
    corpus: Annotated[
        list[Path], typer.Option("--corpus", help="Where negatives come from: files, folders or patterns; repeatable.")
    ],
    out: Annotated[Path, typer.Option("--out", help="JSON lines to write, with query, pos and neg.")],
    embedder: Annotated[str, typer.Option("--embedder", help="Folder or hub id of the embedder.")] = "shipped",
    by: Annotated[
        str,
        typer.Option("--by", help="Rankings and their shares: dense, edit, glyph, random, e.g. dense:2,edit,glyph."),
    ] = "dense",
    ranks: Annotated[
        str, typer.Option("--range", help="Ranks that negatives are drawn from; 1 is the nearest sentence of all.")
    ] = "2-20",
    negatives: Annotated[int, typer.Option(min=1, help="Negatives of each pair.")] = 9,
    margin: Annotated[
        float, typer.Option(help="Refuse what scores above this part of the positive's score; 0 for no margin.")
    ] = 0.95,
    fill: Annotated[bool, typer.Option(help="Draw at random what the ranks do not yield.")] = True,
    noise: Annotated[bool, typer.Option("--noise", help="Make the readings by the noise channel.")] = False,
    strength: Annotated[
        float | None, typer.Option(help="Of the noise: events a letter; the channel's own if not given.")
    ] = None,
    copies: Annotated[int, typer.Option(min=1, help="Readings of each sentence, with --noise.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Find hard negatives for readings, and write them as FlagEmbedding reads them.

    Sentences that say the same as the positive are never negatives: equal ones, those that differ in signs, case or
    regional variants, and those one edit apart that surely mean the same. What was refused is counted with examples,
    and kept beside the output in a report, with which a run that was stopped goes on where it was.
    """
    from caprag.training import MiningOptions, mine_negatives

    if not noise and (strength is not None or copies > 1):
        refuse("--strength and --copies belong to --noise; add it, or leave them away")
    try:
        options = MiningOptions(
            methods=_shares(by),  # type: ignore[arg-type] # checked there
            ranks=_ranks(ranks), negatives=negatives, margin=margin or None, fill=fill, seed=seed,
        )  # fmt: skip
    except ValueError as error:
        refuse(str(error))
    complaints = Complaints()
    pairs = _noisy(sources, strength, copies, seed, complaints) if noise else _read(sources)
    report = mine_negatives(
        pairs, _texts(corpus, complaints), out, options, embedder=open_embedder(embedder), progress=not quiet
    )
    say(f"{report}\n{out}: {report.written} lines")
    finish(complaints.count, "files or lines")


def _shares(by: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in by.split(","):
        name, _, share = part.strip().partition(":")
        try:
            shares[name] = float(share or 1)
        except ValueError:
            raise ValueError(f"--by has {part!r}; a ranking and a number are wanted, as dense:2") from None
    return shares


def _ranks(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)-(\d+)", text.strip())
    if found is None:
        raise ValueError(f"--range is {text!r}; first and last rank are wanted, as 2-20")
    return int(found[1]), int(found[2])


def _read(sources: list[Path]) -> Iterator[Pair]:
    from caprag.training import read_pairs

    for path in sources:
        yield from read_pairs(path)


def _noisy(
    sources: list[Path], strength: float | None, copies: int, seed: int, complaints: Complaints
) -> Iterator[Pair]:
    from caprag.noise import NoiseChannel
    from caprag.training import VariedNoise, noisy_pairs

    channel = VariedNoise(NoiseChannel.load())
    return noisy_pairs(_texts(sources, complaints), channel, seed=seed, strength=strength, copies=copies)


def _texts(sources: list[Path], complaints: Complaints) -> Iterator[str]:
    from caprag.corpus import read_corpus

    return (sentence.text for sentence in read_corpus(sources, on_error=complaints))


Rows = Annotated[list[Path], typer.Argument(help="JSON lines with query, pos and neg, as caprag mine writes them.")]
Work = Annotated[
    Path | None, typer.Option(help="Folder for checkpoints and TensorBoard's logs; OUT.work if not given.")
]
Epochs = Annotated[float, typer.Option(help="Times that each line is seen.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Queries a step on each device.")]
Rate = Annotated[float, typer.Option(help="The highest.")]
Warmup = Annotated[float, typer.Option(min=0, help="Steps on the way up: a share of all, or a number.")]
Decay = Annotated[float, typer.Option(min=0, help="Of AdamW.")]
Half = Annotated[bool | None, typer.Option(help="Half precision in training; where there is a GPU if not given.")]
SaveSteps = Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")]
Keep = Annotated[int, typer.Option(min=1, help="How many to keep.")]
LoggingSteps = Annotated[int, typer.Option(min=1, help="Steps between two entries in the logs.")]
Others = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other argument of FlagEmbedding, as lr_scheduler_type=cosine; repeatable."),
]


def train_embedder(
    data: Rows,
    out: Annotated[Path, typer.Option("--out", help="Folder for the SentenceTransformer.")],
    base: Annotated[
        str, typer.Option("--base", help="Hub id or folder to start from, e.g. BAAI/bge-small-zh-v1.5; or scratch.")
    ] = "BAAI/bge-small-zh-v1.5",
    work: Work = None,
    epochs: Epochs = 1.0,
    batch_size: BatchSize = 32,
    group_size: Annotated[
        int, typer.Option(min=1, help="Passages of each query: one positive, the rest negatives.")
    ] = 8,
    learning_rate: Rate = 1e-5,
    warmup: Warmup = 0.1,
    weight_decay: Decay = 0.0,
    temperature: Annotated[float, typer.Option(help="What cosines are divided by.")] = 0.02,
    pooling: Annotated[str, typer.Option(help="cls, mean or last_token.")] = "cls",
    normalize: Annotated[bool, typer.Option(help="Give vectors length 1.")] = True,
    query_max_length: Annotated[int, typer.Option(min=3, help="Most tokens of a query.")] = 32,
    passage_max_length: Annotated[int, typer.Option(min=3, help="Most tokens of a passage.")] = 128,
    negatives_cross_device: Annotated[
        bool, typer.Option(help="Under torchrun, all devices' passages are negatives.")
    ] = True,
    fp16: Half = None,
    half: Annotated[bool, typer.Option("--half", help="Store the result in half precision.")] = False,
    save_steps: SaveSteps = 1000,
    keep_checkpoints: Keep = 2,
    logging_steps: LoggingSteps = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of order and draws.")] = 42,
    hidden_size: Annotated[int, typer.Option("--hidden", help="With --base scratch: width.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="With --base scratch: number of layers.")] = 2,
    heads: Annotated[int, typer.Option(min=1, help="With --base scratch: attention heads.")] = 4,
    settings: Others = None,
    quiet: Quiet = False,
) -> None:
    """Train an embedder by FlagEmbedding's encoder-only recipe.

    A run that was stopped goes on from its last checkpoint when it is started again in the same way. The result is a
    SentenceTransformer that FlagModel opens too; caprag takes it as --embedder. For several GPUs start it by torchrun.
    """
    from caprag.training import Architecture, TrainingOptions
    from caprag.training import train_embedder as train

    try:
        options = TrainingOptions(
            epochs=epochs, batch_size=batch_size, group_size=group_size, learning_rate=learning_rate, warmup=warmup,
            weight_decay=weight_decay, temperature=temperature,
            pooling=pooling,  # type: ignore[arg-type] # checked there
            normalize=normalize, query_max_length=query_max_length, passage_max_length=passage_max_length,
            negatives_cross_device=negatives_cross_device, fp16=fp16, save_steps=save_steps,
            keep_checkpoints=keep_checkpoints, logging_steps=logging_steps, seed=seed, others=others(settings),
        )  # fmt: skip
        window = max(query_max_length, passage_max_length)
        start = Architecture(hidden_size, layers, heads, max_length=window) if base == "scratch" else base
        trained = train(data, start, out, options, work=work, half=half, progress=not hidden(quiet))
    except ValueError as error:
        refuse(str(error))
    say_trained(trained)


def say_trained(trained: TrainedEmbedder | TrainedCrossEncoder) -> None:
    """Print how a training went."""
    loss = f"last loss {list(trained.losses.values())[-1]:.4f}" if trained.losses else "no loss was logged"
    say(f"{trained.folder}: {trained.steps} steps, {loss}, {trained.size / 1e6:.1f} MB")


def others(pairs: list[str] | None) -> dict[str, Any]:
    """Return the arguments of --set by name; ValueError for what is no name and value."""
    found: dict[str, Any] = {}
    for pair in pairs or ():
        name, sign, value = pair.partition("=")
        if not sign:
            raise ValueError(f"--set has {pair!r}; a name and a value are wanted, as lr_scheduler_type=cosine")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found
