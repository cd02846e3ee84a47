"""The folder that a training leaves: weights or adapters, what reads text and pictures, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from caprag.errors import require
from caprag.paths import replacing
from caprag.training.recognizer.trainer import LOG, read_log

RUN = "run.json"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as a file at one stroke."""
    with replacing(path) as stream:
        stream.write((json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n").encode())


def check_plot(path: Path) -> None:
    """Make sure, before a training, that its picture can be drawn after it.

    Raises
    ------
    MissingDependencyError
        Where matplotlib is not installed.
    ValueError
        Where the picture is no png, or its folder is not there.
    """
    require("matplotlib", "plot")
    if path.suffix.lower() != ".png" or path.is_dir():
        raise ValueError(f"plot is {path}; a file that ends in .png is wanted")
    if not path.parent.is_dir():
        raise ValueError(f"plot is {path}, and there is no folder {path.parent}; make it, or choose another")


def draw_log(log: Path, path: Path) -> None:
    """Draw loss and character error rate over the steps.

    Parameters
    ----------
    log
        What a training wrote, or its folder.
    path
        Picture to write, png.

    Raises
    ------
    MissingDependencyError
        Where matplotlib is not installed.
    OSError
        Where the file can't be written.
    """
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    entries = read_log(log / LOG if log.is_dir() else log)
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("step")
    axes.grid(visible=True, alpha=0.3)
    losses = [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]
    rates = [(entry["step"], entry["eval_cer"]) for entry in entries if "eval_cer" in entry]
    axes.plot(*zip(*losses, strict=True), color="#0072B2", label="loss") if losses else None
    axes.set_ylabel("loss, nats a token")
    axes.set_ylim(bottom=0)
    if rates:
        right = axes.twinx()
        right.plot(*zip(*rates, strict=True), color="#D55E00", marker="o", label="CER")
        right.set_ylabel("character error rate, held out")
        right.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    with replacing(path) as stream:
        # No version in the file: the same figures, the same bytes.
        figure.savefig(stream, format="png", dpi=130, metadata={"Software": None})
