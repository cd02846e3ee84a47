"""Training of captioners: pictures with their captions in, a folder that `CaptionerRecognizer` reads out.

Pictures are cropped, scaled and kept on disk once; then each step draws a batch, and the LSTM is told the text as it
stands so far. A training that was stopped goes on from its last checkpoint with the same losses. Knows no recogniser
but its own.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch.nn import functional

from caprag.errors import CapragError, CorpusError, ModelError
from caprag.evaluation.metrics import count_errors
from caprag.paths import replacing
from caprag.progress import progress_bar
from caprag.recognition.captioner import canvas
from caprag.recognition.captioner_network import ENCODER_FIELDS, Captioner, CaptionerConfig, View, weights_of
from caprag.recognition.views import Views
from caprag.text import normalize
from caprag.training.model_folders import new_folder
from caprag.training.reader.run import Run, follow
from caprag.training.reader.stores import LineStore, claim, write_shard
from caprag.training.recognizer.examples import FileExamples, read_notes
from caprag.training.recognizer.training import TrainedRecognizer
from caprag.training.saving import folder_size, quiet

_hub: Any = transformers  # its annotations differ from version to version

_BEST, _NOTES, _SHARD = "best.safetensors", "skipped.jsonl", 500
_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class CaptionerOptions:
    """How a captioner is built and trained.

    Attributes
    ----------
    encoder
        Hub id or folder of a ResNet whose weights it begins with; ``None``: a new one.
    stages
        How many of that encoder's stages are taken, >= 1. Three give places of 16 pixels, each more halves them.
    channels, layers
        Of a new encoder: the channels of each of its stages, and the layers of a stage; all >= 1.
    height, width, crop, max_length, embedding, hidden, attention, dropout
        See `caprag.recognition.captioner_network.CaptionerConfig`.
    rarest
        Characters that the texts have less often are not learnt, >= 1.
    epochs, batch_size
        Passes over the pictures, and pictures a step, >= 1.
    learning_rate, encoder_rate
        The highest, and that of the encoder; ``None``: the same. Both > 0.
    warmup
        Steps on the way up: a share of all below 1, else a number. After it a cosine leads down.
    weight_decay, max_norm
        Of AdamW, >= 0, and the norm that gradients are cut to, > 0.
    label_smoothing
        Probability that is spread over all characters in what is to be learnt, in [0, 1).
    checkpoint_steps
        Steps between two checkpoints, and two readings of what is held out, >= 1.
    seed
        Of new weights, order and dropout, >= 0.

    Raises
    ------
    ValueError
        Where a value is out of its range.
    """

    encoder: str | None = None
    stages: int = 3
    channels: tuple[int, ...] = (64, 128, 256)
    layers: int = 2
    height: int = 64
    width: int = 640
    crop: View = "band"
    max_length: int = 64
    embedding: int = 128
    hidden: int = 256
    attention: int = 128
    dropout: float = 0.3
    rarest: int = 1
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 1e-3
    encoder_rate: float | None = None
    warmup: float = 0.05
    weight_decay: float = 0.01
    max_norm: float = 1.0
    label_smoothing: float = 0.0
    checkpoint_steps: int = 250
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("stages", "layers", "rarest", "epochs", "batch_size", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels are {self.channels}; one number a stage is wanted, each at least 1")
        for name in ("learning_rate", "encoder_rate", "max_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0")
        for name in ("warmup", "weight_decay", "seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be below 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}; it must be in [0, 1)")


def train_captioner(
    data: Sequence[str | PathLike[str]] | FileExamples,
    out: str | PathLike[str],
    options: CaptionerOptions | None = None,
    *,
    held_out: Sequence[str | PathLike[str]] | FileExamples | None = None,
    pictures: str | PathLike[str] | None = None,
    work: str | PathLike[str] | None = None,
    device: str | None = None,
    seconds: float = math.inf,
    on_error: Callable[[CapragError], None] | None = None,
    progress: bool = False,
) -> TrainedRecognizer:
    """Train a captioner, or go on with it.

    Parameters
    ----------
    data
        Conversation files, lists of pictures and texts, or folders that `caprag synth` wrote.
    out
        Folder for the result: ``config.json``, ``vocabulary.json``, ``model.safetensors``, and ``run.json`` with all
        that is needed to do it again.
    options
        How to build and train it.
    held_out
        Examples that are read at each checkpoint: the one with the least character error rate is kept. ``None``: the
        last is kept.
    pictures
        Folder that paths in files begin at; ``None``: the file's own.
    work
        Folder for the scaled pictures (123 KB each at the size given), the checkpoint and ``log.jsonl``; ``None`` is
        `out` with ``.work`` behind its name. What lies there is taken up again, with the same losses as without the
        stop.
    device
        A torch device; ``None``: the first CUDA device, or the CPU where there is none.
    seconds
        Stop after so long, with a checkpoint and without a result.
    on_error
        Called with the error of each example that can't be read; ``None`` raises it.
    progress
        Whether to show how far it is on stderr.

    Returns
    -------
    TrainedRecognizer
        The folder and how it went; losses are means of the hundred steps before, in nats a character.

    Raises
    ------
    CorpusError, SynthesisError
        Where there are no examples, or a file can't be read.
    ModelError
        Where the encoder can't be loaded, and where `work` holds a training on other data or options.
    CapragError
        Where `out` is not empty.
    ValueError
        Where `work` holds other pictures, or what is held out has no letter or digit.
    TypeError
        Where `data` or `held_out` is one path instead of a sequence of paths.

    Examples
    --------
    >>> train_captioner(["train.jsonl"], "models/captioner", held_out=["held.jsonl"])  # doctest: +SKIP
    """
    settings, place = options or CaptionerOptions(), Path(out)
    folder = Path(work) if work is not None else Path(f"{fspath(out)}.work")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise CapragError(f"{place}: is there already, and not empty; choose another folder, or remove it")
    examples = data if isinstance(data, FileExamples) else FileExamples(data, pictures=pictures, on_error=on_error)
    held = held_out
    if held is not None and not isinstance(held, FileExamples):
        held = FileExamples(held, pictures=pictures, on_error=on_error)
    if held is not None and not sum(count_errors(held.texts(), held.texts()).lengths):
        raise ValueError("no held-out answer has a letter or digit, so that there is no error rate; add some")
    learner = _Learner(
        _scaled(folder / "pictures", examples, settings, folder / _NOTES, progress),
        None if held is None else _scaled(folder / "held-out", held, settings, folder / _NOTES, progress),
        folder, settings, torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")),
    )  # fmt: skip
    run = learner.run
    follow(
        run, learner.batches(), learner.loss, checkpoint_steps=settings.checkpoint_steps, evaluate=learner.evaluate,
        seconds=seconds, progress=progress,
    )  # fmt: skip
    entries = _entries(folder / "log.jsonl")
    losses = {entry["step"]: entry["loss"] for entry in entries}
    rates = {entry["step"]: entry["cer"] for entry in entries if "cer" in entry}
    skipped = tuple(read_notes(folder / _NOTES))
    best = learner.best()
    if run.step < run.total:
        return TrainedRecognizer(place, run.step, losses, rates, best and best[0], skipped, 0)
    if best is not None:
        learner.network.load_state_dict(load_file(folder / _BEST))
    about = {
        "options": asdict(settings), "data": examples.signature(), "examples": len(learner.store), "steps": run.step,
        "best_step": best and best[0], "best_cer": best and best[1],
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }  # fmt: skip
    with new_folder(place) as beside:
        learner.network.save(beside)
        (beside / "run.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return TrainedRecognizer(place, run.step, losses, rates, best and best[0], skipped, folder_size(place))


class _Learner:
    """What is learnt in a step, and how well it reads."""

    def __init__(
        self, store: LineStore, held: LineStore | None, folder: Path, settings: CaptionerOptions, device: torch.device
    ) -> None:
        self.store, self._held, self._settings, self._device = store, held, settings, device
        self._best = folder / _BEST
        counts = Counter(character for text in store.texts for character in text)
        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(settings.seed)
            encoder = _encoder(settings)
            config = CaptionerConfig(
                {name: getattr(encoder.config, name) for name in ENCODER_FIELDS}, settings.height, settings.width,
                settings.crop, settings.max_length, settings.embedding, settings.hidden, settings.attention,
                settings.dropout,
            )  # fmt: skip
            self.network = Captioner(config, sorted(c for c, count in counts.items() if count >= settings.rarest))
            self.network.encoder = encoder
        self.network.to(device).train()
        total = settings.epochs * -(-len(store) // settings.batch_size)
        warmup = settings.warmup * total if settings.warmup < 1 else settings.warmup
        encoder_rate = settings.learning_rate if settings.encoder_rate is None else settings.encoder_rate
        others = [p for name, p in self.network.named_parameters() if not name.startswith("encoder.")]
        self.run = Run(
            folder / "checkpoint.pt", self.network,
            [
                {"params": list(self.network.encoder.parameters()), "lr": encoder_rate},
                {"params": others, "lr": settings.learning_rate},
            ],
            total=total, warmup=int(warmup), weight_decay=settings.weight_decay, max_norm=settings.max_norm,
            half=False, about=(json.dumps([asdict(settings), store.texts, None if held is None else held.texts]),),
        )  # fmt: skip

    def batches(self) -> Iterator[Sequence[int]]:
        """Yield the pictures of each step that is left."""
        size, place = self._settings.batch_size, 0
        for epoch in range(self._settings.epochs):
            order = np.random.default_rng([self._settings.seed, epoch]).permutation(len(self.store)).tolist()
            for start in range(0, len(order), size):
                if place >= self.run.step:
                    yield order[start : start + size]
                place += 1

    def loss(self, rows: Sequence[int]) -> torch.Tensor:
        """Return the cross-entropy a token of these pictures' texts and their ends."""
        said, wanted = self.network.teaching([self.network.ids(self.store.texts[row]) for row in rows])
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            # What dropout draws depends on the step alone, and so is the same after a stop.
            torch.manual_seed(self._settings.seed + self.run.step)
            logits = self.network(_pixels(self.store, rows), said)
        return functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), label_smoothing=self._settings.label_smoothing
        )

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Read what is held out greedily, and keep the weights where none were better."""
        if self._held is None:
            return {}
        self.network.eval()
        read: list[str] = []
        for start in range(0, len(self._held), _AT_ONCE):
            rows = range(start, min(start + _AT_ONCE, len(self._held)))
            found = self.network.search(self.network.encode(_pixels(self._held, rows)))
            read += [self.network.text(texts[0][0]) for texts in found]
        self.network.train()
        rate = count_errors(read, self._held.texts).cer
        best = self.best()
        if best is None or rate < best[1]:
            about = {"step": str(self.run.step), "cer": repr(rate)}
            with replacing(self._best) as stream:
                stream.write(save(weights_of(self.network), about))
        return {"cer": rate}

    def best(self) -> tuple[int, float] | None:
        """Return the step whose weights were kept, and its character error rate."""
        if not self._best.exists():
            return None
        with safe_open(self._best, "pt") as opened:
            about = opened.metadata()
        return int(about["step"]), float(about["cer"])


def _encoder(settings: CaptionerOptions) -> Any:
    """Return the ResNet to begin with."""
    if settings.encoder is None:
        depths = [settings.layers] * len(settings.channels)
        first, channels = settings.channels[0], list(settings.channels)
        return _hub.ResNetModel(
            _hub.ResNetConfig(embedding_size=first, hidden_sizes=channels, depths=depths, layer_type="basic")
        )
    try:
        found = _hub.AutoConfig.from_pretrained(settings.encoder)
        if found.model_type != "resnet":
            raise ModelError(f"{settings.encoder} is a {found.model_type} model; the encoder must be a resnet")
        if len(found.depths) < settings.stages:
            raise ValueError(f"stages is {settings.stages}, and {settings.encoder} has {len(found.depths)}")
        fields = {name: getattr(found, name) for name in ENCODER_FIELDS}
        fields |= {name: fields[name][: settings.stages] for name in ("hidden_sizes", "depths")}
        return _hub.ResNetModel.from_pretrained(
            settings.encoder, config=_hub.ResNetConfig(**fields), dtype=torch.float32
        )
    except (OSError, KeyError, RuntimeError) as error:
        raise ModelError(
            f"no ResNet can be loaded from {settings.encoder}; check the id or folder, and the network: {error}"
        ) from error


def _scaled(folder: Path, examples: FileExamples, settings: CaptionerOptions, notes: Path, progress: bool) -> LineStore:
    """Keep what the encoder sees of each picture, once and for all; those that can't be had are noted and left out."""
    size = settings.height, settings.width
    claim(folder, hashlib.sha256(f"{examples.signature()} {size} {settings.crop}".encode()).hexdigest())
    examples.notes = notes
    views, shards = Views(settings.crop), []
    with progress_bar(len(examples), "scale", " pictures", show=progress) as bar:
        for start in range(0, len(examples), _SHARD):
            numbers = range(start, min(start + _SHARD, len(examples)))
            shards.append(folder / f"{start:09}.json")
            if not shards[-1].exists():
                items = [item for item in map(examples.open, numbers) if item is not None]
                arrays = [canvas(views.single([item.image])[0], *size) for item in items]
                texts = [normalize(item.text) for item in items]
                write_shard(shards[-1], texts, arrays, np.zeros((0, settings.width, 3), np.uint8))
            bar.update(len(numbers))
    store = LineStore(shards)
    if not len(store):
        raise CorpusError(
            f"{notes}: none of the {len(examples)} pictures can be had, and this says why; mend them, remove {folder}, "
            "and begin again"
        )
    return store


def _pixels(store: LineStore, rows: Sequence[int]) -> torch.Tensor:
    return torch.from_numpy(np.stack([store[row] for row in rows]))


def _entries(path: Path) -> list[dict[str, Any]]:
    """Read the log; nothing was written where there was no checkpoint yet."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
