"""What text alone is worth to the shipped reader: python benchmarks/pretraining.py --work FOLDER [--plot FILE.png].

Trains the reader's language model twice on the same damaged lines in the same order, from the same beginning: at once,
and after steps on text alone. Both are measured on the same held-out lines at every checkpoint. FOLDER is that of
scripts/train_reader.py, which has the lines' features. A second run goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from material import write

from caprag.training.reader import LineStore, ReaderOptions, train_reader
from caprag.training.reader.features import SHARD


def store_of(folder: Path, lines: int) -> LineStore:
    """Open the features of the first lines."""
    paths = sorted(folder.glob("*.json"))[: -(-lines // SHARD)]
    if not paths:
        raise SystemExit(f"{folder}: has no features; run scripts/train_reader.py first")
    return LineStore(paths)


def draw(ways: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw the error rates over the steps on pictures."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for (way, rows), colour in zip(ways.items(), ("#0072B2", "#D55E00"), strict=True):
        axes.plot([row["step"] for row in rows], [row["cer"] for row in rows], marker="o", color=colour, label=way)
    axes.axhline(rows[-1]["ctc_cer"], color="grey", linestyle=":", label="neck alone")
    axes.set_xlabel("steps on pictures")
    axes.set_ylabel("character error rate, held out")
    axes.set_yscale("log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def main() -> None:
    """Train both ways, and write down how they went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of scripts/train_reader.py")
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--measured", type=int, default=400)
    parser.add_argument("--text-steps", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--half", action="store_true", help="train in bfloat16 where the processor has it")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.work
    store, held_out = store_of(work / "features-train", arguments.lines), store_of(work / "features-held_out", 10**9)
    sentences = (work / "train.txt").read_text(encoding="utf-8").splitlines()
    ways: dict[str, list[dict[str, Any]]] = {}
    for way, text_steps in (("pictures at once", 0), ("text first", arguments.text_steps)):
        out = work / f"pretraining-{text_steps}"
        options = ReaderOptions(
            epochs=arguments.epochs, batch_size=arguments.batch_size, learning_rate=arguments.learning_rate,
            ctc_weight=0.0, text_steps=text_steps, checkpoint_steps=250, half=arguments.half,
        )  # fmt: skip
        train_reader(
            store, work / "begun", out, options, sentences=sentences, held_out=held_out.first(arguments.measured),
            progress=True,
        )  # fmt: skip
        log = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
        ways[way] = [{**row, "step": row["step"] - text_steps} for row in log if row["step"] >= text_steps]
        print(way, ways[way][-1], flush=True)
    if arguments.plot is not None:
        draw(ways, arguments.plot)
    options_used = {name: value for name, value in vars(arguments).items() if name not in ("work", "plot", "threads")}
    print(write("pretraining", {"options": options_used, "ways": ways}))


if __name__ == "__main__":
    main()
