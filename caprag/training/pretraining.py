"""The first phase of an embedder from scratch: a noisy reading is put next to its sentence, with fresh noise each time.

A loop of our own, because the noise is new in every epoch and a small encoder on a CPU needs care: texts of like
length go through together, and the last layer is computed for the first token alone, which is the only one that is
used. Measured: eleven times the pairs a second of FlagEmbedding's own loop, four times that of the one in
`caprag.training.embedder`, which comes after this phase and trains with mined negatives. It knows sentences and a
noise channel, nothing of documents or splits.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from caprag.errors import ModelError
from caprag.paths import replacing
from caprag.progress import progress_bar
from caprag.text import match_forms
from caprag.training.lean import LeanEncoder

if TYPE_CHECKING:
    import torch

_FLOOR = 0.02
"""What the learning rate falls to, as a share of its highest."""
_SAMPLE = 256


class Noise(Protocol):
    """Makes readings of sentences; `caprag.noise.NoiseChannel` is one."""

    def corrupt(
        self, texts: Sequence[str], *, seed: int = 0, strength: float | None = None, start: int = 0
    ) -> list[str]:
        """Return a reading of each text; text i of a call is drawn as number ``start + i`` of its seed."""
        ...


@dataclass(frozen=True, slots=True)
class PretrainingOptions:
    """How the first phase is trained.

    Attributes
    ----------
    epochs
        Times that each sentence is seen, >= 1.
    batch_size
        Pairs a step, each other's negatives, >= 2.
    learning_rate
        The highest; reached after `warmup_steps`, then falls as a cosine to a fiftieth.
    warmup_steps
        Steps on the way up, >= 0.
    weight_decay, max_norm
        Of AdamW, and the norm that gradients are cut to.
    temperature
        What cosines are divided by, > 0.
    strengths
        Strengths of the noise, each as often as the others; ``None`` is the channel's own.
    seed
        Of order and noise.
    checkpoint_steps
        Steps between two checkpoints, >= 1.
    group_size
        Texts that go through the encoder together, >= 1; changes the speed only.
    """

    epochs: int = 12
    batch_size: int = 512
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    weight_decay: float = 0.01
    max_norm: float = 1.0
    temperature: float = 0.02
    strengths: tuple[float | None, ...] = (None,)
    seed: int = 0
    checkpoint_steps: int = 500
    group_size: int = 96

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 2 or self.checkpoint_steps < 1 or self.group_size < 1:
            raise ValueError(
                f"epochs is {self.epochs}, batch_size {self.batch_size}, checkpoint_steps {self.checkpoint_steps} and "
                f"group_size {self.group_size}; at least 1, 2, 1 and 1 are needed"
            )
        if not self.temperature > 0 or not self.strengths:
            raise ValueError(
                f"temperature is {self.temperature} and strengths {self.strengths}; > 0 and one are needed"
            )


def pretrain_embedder(
    sentences: Sequence[str],
    base: str | PathLike[str],
    out: str | PathLike[str],
    noise: Noise,
    options: PretrainingOptions | None = None,
    *,
    logs: str | PathLike[str] | None = None,
    stop_after: int | None = None,
    progress: bool = False,
) -> list[float]:
    """Train an encoder to put readings next to their sentences.

    Parameters
    ----------
    sentences
        Written forms; their order is part of the seed.
    base
        Folder of a BERT, trained or not.
    out
        Where the trained encoder goes, as transformers loads it. Its ``checkpoint.pt`` is taken up again where
        there is one, with the same result as without the stop.
    noise
        Makes the readings.
    options
        How to train.
    logs
        Folder for TensorBoard; ``None`` writes none.
    stop_after
        Stop after so many steps of this call, with a checkpoint; ``None`` goes to the end.
    progress
        Whether to show how far it is on stderr.

    Returns
    -------
    list of float
        The loss of each step of this call.

    Raises
    ------
    ModelError
        Where the base is no BERT, or the checkpoint belongs to other sentences or options, another base
        or another noise.
    ValueError
        Where there are fewer sentences than a batch takes.

    References
    ----------
    van den Oord, Li and Vinyals, Representation Learning with Contrastive Predictive Coding, 2018: the loss (InfoNCE).
    """
    import torch

    settings = options or PretrainingOptions()
    steps = len(sentences) // settings.batch_size
    if not steps:
        raise ValueError(f"there are {len(sentences)} sentences; a batch takes {settings.batch_size}")
    encoder = LeanEncoder.load(base, settings.group_size)
    optimizer = torch.optim.AdamW(
        encoder.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    total = steps * settings.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, total, settings.warmup_steps))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = _Checkpoint(
        folder / "checkpoint.pt", _signature(sentences, settings),
        {"base": _weights_digest(encoder.model), "noise": _noise_digest(noise, sentences, settings)},
    )  # fmt: skip
    first = checkpoint.load(encoder.model, optimizer, schedule)
    keys = np.unique(match_forms(sentences), return_inverse=True)[1]
    last = total if stop_after is None else min(total, first + stop_after)
    losses: list[float] = []
    with ExitStack() as stack:
        writer = _writer(logs, first) if logs is not None else None
        if writer is not None:
            stack.callback(writer.close)
        bar = stack.enter_context(progress_bar(total, "pre-train", " steps", initial=first, show=progress))
        order = np.zeros(0, np.int64)
        for step in range(first, last):
            epoch, place = divmod(step, steps)
            if not len(order) or not place:
                order = np.random.default_rng((settings.seed, epoch)).permutation(len(sentences))
            start = place * settings.batch_size
            rows = order[start : start + settings.batch_size]
            positives = [sentences[i] for i in rows]
            readings = _readings(noise, positives, settings, epoch, start)
            loss = contrastive_loss(encoder.embed([*readings, *positives]), keys[rows], settings.temperature)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(encoder.model.parameters(), settings.max_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            if writer is not None:
                writer.add_scalar("train/loss", losses[-1], step + 1)
                writer.add_scalar("train/learning_rate", schedule.get_last_lr()[0], step + 1)
            if (step + 1) % settings.checkpoint_steps == 0 or step + 1 == last:
                checkpoint.save(encoder.model, optimizer, schedule, step + 1)
            bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
            bar.update()
    if last == total:
        encoder.save(folder)
    return losses


def _readings(noise: Noise, texts: Sequence[str], settings: PretrainingOptions, epoch: int, start: int) -> list[str]:
    """Return a reading of each text, with the strengths in turn."""
    seed = settings.seed * 100_003 + epoch
    readings = [""] * len(texts)
    kinds = len(settings.strengths)
    for kind, strength in enumerate(settings.strengths):
        # Neighbours in a batch come from anywhere: each kind of place gets each strength in some epoch.
        places = range((kind + epoch) % kinds, len(texts), kinds)
        made = noise.corrupt([texts[i] for i in places], seed=seed * kinds + kind, strength=strength, start=start)
        for i, reading in zip(places, made, strict=True):
            readings[i] = reading or texts[i]
    return readings


def _rate(step: int, total: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * done))


def contrastive_loss(vectors: torch.Tensor, keys: npt.NDArray[np.int64], temperature: float) -> torch.Tensor:
    """Return the mean InfoNCE of queries against the positives of the batch.

    Parameters
    ----------
    vectors
        Shape (2 n, dimension), rows of length 1: the queries, then their positives.
    keys
        Shape (n,): positives with equal keys are no negatives of each other.
    temperature
        > 0.
    """
    import torch

    count = len(keys)
    logits = vectors[:count] @ vectors[count:].T / temperature
    same = torch.from_numpy((keys[:, None] == keys) & ~np.eye(count, dtype=bool)).to(logits.device)
    target = torch.arange(count, device=logits.device)
    return torch.nn.functional.cross_entropy(logits.masked_fill(same, -1e4), target)


class _Checkpoint:
    """The state of a training, kept at one stroke; belongs to one set of sentences and options, one base and noise."""

    def __init__(self, path: Path, signature: str, origins: dict[str, str]) -> None:
        self._path = path
        self._signature = signature
        self._origins = origins

    def save(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR,
        step: int,
    ) -> None:  # fmt: skip
        import torch

        state = {
            "model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(),
            "step": step, "signature": self._signature, **self._origins,
        }  # fmt: skip
        with replacing(self._path) as stream:
            torch.save(state, stream)

    def load(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR
    ) -> int:
        """Take up the state, and return the number of steps that are done."""
        import torch

        if not self._path.exists():
            return 0
        if not zipfile.is_zipfile(self._path):
            raise ModelError(f"{self._path}: is no checkpoint; remove it to begin anew")
        try:
            state = torch.load(self._path, weights_only=True, map_location="cpu")
        except (RuntimeError, OSError) as error:
            raise ModelError(f"{self._path}: can't be opened ({error}); remove it to begin anew") from error
        if state["signature"] != self._signature:
            raise ModelError(
                f"{self._path}: belongs to a training with other sentences or options; remove it, or take another"
            )
        for name, digest in self._origins.items():
            # Checkpoints of earlier versions do not say.
            if state.get(name, digest) != digest:
                raise ModelError(
                    f"{self._path}: belongs to a training with another {name}; take that one, remove the checkpoint, "
                    "or choose another folder"
                )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        return int(state["step"])


def _signature(sentences: Sequence[str], settings: PretrainingOptions) -> str:
    digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
    for sentence in sentences:
        digest.update(sentence.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _weights_digest(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _noise_digest(noise: Noise, sentences: Sequence[str], settings: PretrainingOptions) -> str:
    """Tell noises apart by what they make of some sentences: that is all they are known by."""
    readings = _readings(noise, sentences[:_SAMPLE], settings, 0, 0)
    return hashlib.sha256("\n".join(readings).encode("utf-8", "surrogatepass")).hexdigest()


def _writer(logs: str | PathLike[str], step: int) -> torch.utils.tensorboard.SummaryWriter:
    from caprag.errors import require

    require("tensorboard", "train")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(logs), purge_step=step + 1)
