"""What the trainings of the reader share: steps that go on where a checkpoint stands, and losses of lines."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from caprag.errors import ModelError
from caprag.paths import replacing
from caprag.progress import progress_bar
from caprag.recognition.reader import ReaderForConditionalGeneration
from caprag.recognition.reader.ctc_prefix import text_loss

_FLOOR = 0.02

Batch = TypeVar("Batch")


class Run:
    """Steps of AdamW with a warm-up and a cosine, which go on where the checkpoint stands.

    Parameters
    ----------
    path
        Of the checkpoint.
    module
        What is trained, and kept.
    groups
        Parameters and their highest learning rates, as the optimizer takes them.
    total, warmup
        Steps of the whole training, and on the way up.
    weight_decay, max_norm
        Of AdamW, and the norm that gradients are cut to.
    half
        Whether products of matrices are taken in bfloat16; weights, sums of losses and what is kept are single.
    about
        What the training depends on: lines, texts, options.

    Raises
    ------
    ModelError
        Where the checkpoint belongs to another training.
    """

    def __init__(
        self, path: Path, module: nn.Module, groups: Sequence[dict[str, Any]], *, total: int, warmup: int,
        weight_decay: float, max_norm: float, half: bool, about: Sequence[str],
    ) -> None:  # fmt: skip
        self.path, self.module, self.total, self._warmup, self._max_norm = path, module, total, warmup, max_norm
        self._half = half
        self.step, self.seconds = 0, 0.0
        self._optimizer = torch.optim.AdamW(groups, weight_decay=weight_decay, betas=(0.9, 0.98))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)
        self._signature = hashlib.sha256("\n".join(about).encode()).hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._load()

    def _rate(self, step: int) -> float:
        if step < self._warmup:
            return (step + 1) / self._warmup
        done = min(1.0, (step - self._warmup) / max(1, self.total - self._warmup))
        return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * done))

    def take(self, loss_of: Callable[[], torch.Tensor]) -> float:
        """Take a step, and return the loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            loss = loss_of()
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        trained = [p for group in self._optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, self._max_norm)
        self._optimizer.step()
        self._schedule.step()
        self.step += 1
        return float(loss.detach())

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "model": self.module.state_dict(), "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(), "step": self.step, "seconds": self.seconds,
            "signature": self._signature,
        }  # fmt: skip
        with replacing(self.path) as stream:
            torch.save(state, stream)

    def _load(self) -> None:
        state = torch.load(self.path, weights_only=True, map_location="cpu")
        if state["signature"] != self._signature:
            raise ModelError(f"{self.path}: belongs to a training with other lines or options; remove it to begin anew")
        self.module.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])


def follow(
    run: Run, batches: Iterator[Batch], loss_of: Callable[[Batch], torch.Tensor], *, checkpoint_steps: int,
    evaluate: Callable[[], dict[str, float]], seconds: float, progress: bool,
) -> dict[str, Any]:  # fmt: skip
    """Take the steps that are left, with a checkpoint and a line in ``log.jsonl`` now and then.

    Parameters
    ----------
    run
        Where it stands.
    batches
        What the steps that are left learn from.
    loss_of
        Of a batch.
    checkpoint_steps
        Steps between two checkpoints.
    evaluate
        Measures, at each checkpoint.
    seconds
        Stop after so long; the learning rate's way is that of the whole training all the same.
    progress
        Whether to show how far it is on stderr.

    Returns
    -------
    dict
        The last line of the log: ``step``, ``steps``, ``seconds``, ``loss``, and what was measured.
    """
    started, stop = time.perf_counter() - run.seconds, run.seconds + seconds
    result: dict[str, Any] = {"step": run.step, "steps": run.total, "seconds": run.seconds}
    losses: list[float] = []
    with progress_bar(run.total, "train", " steps", initial=run.step, show=progress) as bar:
        for batch in batches:
            losses.append(run.take(functools.partial(loss_of, batch)))
            bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
            bar.update()
            run.seconds = time.perf_counter() - started
            late = run.seconds > stop
            if run.step % checkpoint_steps == 0 or run.step == run.total or late:
                run.save()
                result = {
                    "step": run.step, "steps": run.total, "seconds": run.seconds, "loss": float(np.mean(losses[-100:])),
                    **evaluate(),
                }  # fmt: skip
                with (run.path.parent / "log.jsonl").open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(result) + "\n")
            if late:
                break
    return result


def ctc_loss(model: ReaderForConditionalGeneration, steps: torch.Tensor, ids: Sequence[Sequence[int]]) -> torch.Tensor:
    """CTC's loss a character.

    Parameters
    ----------
    model
        The reader.
    steps
        The neck's, (n, steps, 120).
    ids
        Tokens of each line; see `caprag.recognition.reader.ctc_prefix.text_loss`.
    """
    # Not in half precision: a softmax over thousands would lose most of its digits.
    logprobs = model.ctc_logits(steps).float().log_softmax(-1)
    return text_loss(logprobs, [steps.shape[1]] * len(ids), ids, blank=model.config.blank_token_id)


def ctc_tokens(model: ReaderForConditionalGeneration, steps: torch.Tensor) -> list[list[int]]:
    """Return the tokens of CTC's best path for each line of `steps`, (n, steps, 120)."""
    blank = model.config.blank_token_id
    paths = model.ctc_logits(steps).argmax(-1).tolist()
    return [
        [token for token, before in zip(path, [None, *path], strict=False) if token != before and token > blank]
        for path in paths
    ]
