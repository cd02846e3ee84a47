"""The verb train captioner: a small reader of pictures from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from caprag.cli.options import Complaints, HeldOut, PicturesFolder, Quiet, finish, hidden, refuse, say
from caprag.errors import CapragError


def train_captioner(
    data: Annotated[
        list[Path],
        typer.Argument(help="Conversation files (LLaVA, ShareGPT, messages, lines), or folders of caprag synth."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the captioner.")],
    held_out: HeldOut = None,
    pictures: PicturesFolder = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for scaled pictures, checkpoint and log.jsonl; OUT.work if not given.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Hub id or folder of a ResNet to begin with; a new one if not given.")
    ] = None,
    stages: Annotated[int, typer.Option(min=1, help="Of that encoder, how many are taken.")] = 3,
    channels: Annotated[str, typer.Option(help="Of a new encoder's stages.")] = "64,128,256",
    layers: Annotated[int, typer.Option(min=1, help="Of each of a new encoder's stages.")] = 2,
    size: Annotated[str, typer.Option(help="Width x height of what the encoder sees, in pixels.")] = "640x64",
    crop: Annotated[
        Literal["band", "frame"], typer.Option(help="What of a picture that is: its caption, or all; frame for crops.")
    ] = "band",
    hidden_size: Annotated[int, typer.Option("--hidden", min=1, help="Width of the LSTM.")] = 256,
    embedding: Annotated[int, typer.Option(min=1, help="Width of a character's vector.")] = 128,
    attention: Annotated[int, typer.Option(min=1, help="Width that attention compares in.")] = 128,
    dropout: Annotated[float, typer.Option(min=0, max=0.99, help="Before the output.")] = 0.3,
    max_length: Annotated[int, typer.Option(min=1, help="Most characters of a reading, its end among them.")] = 64,
    rarest: Annotated[int, typer.Option(min=1, help="Characters that are there less often are not learnt.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Times each picture is seen.")] = 20,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures a step.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="The highest.")] = 1e-3,
    encoder_rate: Annotated[float | None, typer.Option(help="That of the encoder, if another.")] = None,
    warmup: Annotated[float, typer.Option(min=0, help="Steps on the way up: a share of all, or a number.")] = 0.05,
    weight_decay: Annotated[float, typer.Option(min=0)] = 0.01,
    label_smoothing: Annotated[float, typer.Option(min=0, max=0.99, help="Probability spread over all.")] = 0.0,
    checkpoint_steps: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 250,
    seed: Annotated[int, typer.Option(min=0, help="Of new weights, order and dropout.")] = 42,
    device: Annotated[str | None, typer.Option(help="e.g. cuda or cpu.")] = None,
    quiet: Quiet = False,
) -> None:
    """Train a captioner: a convolutional encoder and an LSTM with attention, which writes characters.

    A run that was stopped goes on from its last checkpoint, with the same losses, when it is started again in the same
    way. caprag read takes the result as --recognizer. Pictures that are missing or broken are named at the end.
    """
    from caprag.training.captioner import CaptionerOptions
    from caprag.training.captioner import train_captioner as train

    complaints = Complaints()
    try:
        width, height = _whole_numbers("--size", size, "x", count=2)
        options = CaptionerOptions(
            encoder=encoder, stages=stages, channels=_whole_numbers("--channels", channels, ","), layers=layers,
            height=height, width=width, crop=crop, max_length=max_length, embedding=embedding, hidden=hidden_size,
            attention=attention, dropout=dropout, rarest=rarest, epochs=epochs, batch_size=batch_size,
            learning_rate=learning_rate, encoder_rate=encoder_rate, warmup=warmup, weight_decay=weight_decay,
            label_smoothing=label_smoothing, checkpoint_steps=checkpoint_steps, seed=seed,
        )  # fmt: skip
        trained = train(
            data, out, options, held_out=held_out, pictures=pictures, work=work, device=device, on_error=complaints,
            progress=not hidden(quiet),
        )  # fmt: skip
    except ValueError as error:
        refuse(str(error))
    for skipped in trained.skipped:
        complaints(CapragError(str(skipped)))
    last = list(trained.losses.values())[-1]
    rates = f", CER {min(trained.rates.values()):.4f} at step {trained.best_step}" if trained.rates else ""
    say(f"{trained.folder}: {trained.steps} steps, last loss {last:.4f}{rates}, {trained.size / 1e6:.1f} MB")
    finish(complaints.count, "examples")


def _whole_numbers(option: str, given: str, sign: str, count: int | None = None) -> tuple[int, ...]:
    """Part numbers, as in 640x64 and 64,128,256."""
    parts = given.lower().split(sign)
    if not all(part.strip().isdecimal() for part in parts) or count not in (None, len(parts)):
        raise ValueError(f"{option} {given}: wanted are whole numbers with {sign!r} between them")
    return tuple(map(int, parts))
