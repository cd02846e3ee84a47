"""Let the tower get used to damage: changes to its last two stages, and the neck, learnt by CTC alone.

What comes before them stands still and was run once. Characters keep the places that the recogniser gave
them.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from caprag.evaluation.metrics import count_errors
from caprag.recognition.reader import ReaderForConditionalGeneration, ReaderProcessor
from caprag.recognition.reader.last_stages import LastStages, TowerChanges
from caprag.training.reader.features import maps_of
from caprag.training.reader.run import Run, ctc_loss, ctc_tokens, follow
from caprag.training.reader.stores import LineStore, batches


@dataclass(frozen=True, slots=True)
class TuningOptions:
    """How the tower is tuned.

    Attributes
    ----------
    rank
        Of the changes to each convolution of single pixels in the last two stages.
    steps, batch_size
        Steps, and lines a step; lines come again when all were seen.
    learning_rate, neck_rate
        The highest, of the changes and of the neck.
    warmup_steps
        Steps on the way up.
    weight_decay, max_norm
        Of AdamW, and the norm that gradients are cut to.
    checkpoint_steps
        Steps between two checkpoints.
    half
        Whether products of matrices are taken in bfloat16: twice as fast where the processor has it.
    seed
        Of order and of what is drawn by chance.
    """

    rank: int = 64
    steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 8e-4
    neck_rate: float = 3e-4
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_norm: float = 1.0
    checkpoint_steps: int = 150
    half: bool = False
    seed: int = 0


def tune_tower(
    maps: LineStore, base: Path, out: Path, options: TuningOptions | None = None, *,
    held_out: LineStore | None = None, seconds: float = math.inf, progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Tune the tower and the neck of a reader, or go on with it.

    Parameters
    ----------
    maps
        Of lines, as `make_maps` returns them.
    base
        Folder of a reader.
    out
        Gets the reader with its changes to the tower, ``checkpoint.pt`` and ``log.jsonl``.
    options
        How to tune.
    held_out
        Lines to measure on at every checkpoint.
    seconds
        Stop after so long, with a checkpoint.
    progress
        Whether to show how far it is on stderr.

    Returns
    -------
    dict
        ``step``, ``steps``, ``seconds``, ``loss`` and, where lines are held out, ``cer`` and ``exact`` of CTC alone.

    Raises
    ------
    ModelError
        Where the checkpoint belongs to other lines or options.
    """
    settings = options or TuningOptions()
    torch.manual_seed(settings.seed)
    processor = ReaderProcessor.from_pretrained(base)
    model, changes = _with_changes(base, settings.rank)
    model.train()
    stages = LastStages(changes)
    trained = nn.ModuleDict({"changes": changes, "neck": model.neck})
    run = Run(
        out / "checkpoint.pt", trained,
        [
            {"params": list(changes.parameters()), "lr": settings.learning_rate},
            {"params": list(model.neck.parameters()), "lr": settings.neck_rate},
        ],
        total=settings.steps, warmup=settings.warmup_steps, weight_decay=settings.weight_decay,
        max_norm=settings.max_norm, half=settings.half,
        about=(json.dumps(asdict(settings), sort_keys=True), *maps.texts),
    )  # fmt: skip

    def steps_of(store: LineStore, rows: Sequence[int]) -> torch.Tensor:
        return model.steps(stages(maps_of(store, rows)))

    def loss_of(rows: Sequence[int]) -> torch.Tensor:
        ids = [list(processor.tokenizer(maps.texts[row], add_special_tokens=False)["input_ids"]) for row in rows]
        return ctc_loss(model, steps_of(maps, rows), ids)

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        if held_out is None:
            return {}
        read = [""] * len(held_out)
        model.eval()
        for rows in batches(held_out.steps(), settings.batch_size, np.random.default_rng(0)):
            for row, told in zip(rows, ctc_tokens(model, steps_of(held_out, rows)), strict=True):
                read[row] = processor.tokenizer.decode(told)
        model.train()
        counts = count_errors(read, held_out.texts)
        return {"cer": counts.cer, "exact": 1 - counts.wrong_lines / len(held_out)}

    if not run.step:
        (out / "log.jsonl").write_text(json.dumps({"step": 0, **evaluate()}) + "\n", encoding="utf-8")
    result = follow(
        run, _rows(maps, settings, run.step), loss_of, checkpoint_steps=settings.checkpoint_steps, evaluate=evaluate,
        seconds=seconds, progress=progress,
    )  # fmt: skip
    model.save_pretrained(out)
    processor.save_pretrained(out)
    return result


def _rows(maps: LineStore, settings: TuningOptions, done: int) -> Iterator[Sequence[int]]:
    """Yield the places of the lines of each step that is left."""
    steps, place, epoch = maps.steps(), 0, 0
    while True:
        for rows in batches(steps, settings.batch_size, np.random.default_rng([settings.seed, epoch])):
            if place == settings.steps:
                return
            if place >= done:
                yield rows
            place += 1
        epoch += 1


def _with_changes(base: Path, rank: int) -> tuple[ReaderForConditionalGeneration, TowerChanges]:
    """Load a reader, give it changes to its tower where it has none yet, and return both."""
    model: ReaderForConditionalGeneration = ReaderForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    if model.tower_changes is not None:
        if model.config.tower_rank != rank:
            raise ValueError(f"{base}: its tower is changed by a rank of {model.config.tower_rank}, and rank is {rank}")
        return model, model.tower_changes
    config = copy.deepcopy(model.config)
    config.tower_rank = rank
    changed = ReaderForConditionalGeneration(config)
    missing, unexpected = changed.load_state_dict(model.state_dict(), strict=False)
    if unexpected or any(not name.startswith("tower_changes.") for name in missing):
        raise ValueError(f"{base}: lacks {missing}, and has {unexpected} beside")
    changed.generation_config = model.generation_config
    if changed.tower_changes is None:
        raise ValueError(f"rank is {rank}; a positive number is wanted")
    return changed, changed.tower_changes


__all__ = ["TuningOptions", "tune_tower"]
