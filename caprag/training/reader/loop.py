"""Train the reader on features: the neck, the projector and the language model together.

The loss is the cross-entropy of the text after its picture, and CTC's of the same text from the picture alone, which
keeps what the neck says near the characters' embeddings. Text alone can be learnt first: what the tower would make of
it is made up from the characters' embeddings, with look-alikes, gaps and noise.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from caprag.errors import ModelError, require
from caprag.evaluation.metrics import count_errors
from caprag.paths import replacing
from caprag.progress import progress_bar
from caprag.recognition.reader import ReaderForConditionalGeneration, ReaderProcessor
from caprag.recognition.reader.modeling import STEPS_A_TOKEN
from caprag.recognition.reader.processing import START
from caprag.training.reader.features import FeatureStore, batches

_FLOOR = 0.02
_RARE = 1000
"""Tokens that are no part of a batch and that CTC tells its characters from."""


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """How the reader is trained.

    Attributes
    ----------
    epochs, batch_size
        Passes over the lines, and lines a step.
    learning_rate, neck_rate
        The highest, of the language model and projector, and of the neck.
    warmup_steps
        Steps on the way up.
    weight_decay, max_norm
        Of AdamW, and the norm that gradients are cut to.
    ctc_weight
        Of CTC's loss beside the cross-entropy.
    text_steps
        Steps on text alone before the first picture; 0 for none.
    noise, hidden_steps
        Of the features in training: standard deviation, in theirs, and the share of lines that lose a part.
    checkpoint_steps
        Steps between two checkpoints.
    seed
        Of order and noise.
    """

    epochs: int = 4
    batch_size: int = 48
    learning_rate: float = 1e-3
    neck_rate: float = 2e-4
    warmup_steps: int = 300
    weight_decay: float = 0.02
    max_norm: float = 1.0
    ctc_weight: float = 0.3
    text_steps: int = 0
    noise: float = 0.1
    hidden_steps: float = 0.2
    checkpoint_steps: int = 250
    seed: int = 0


def train_reader(
    store: FeatureStore, base: Path, out: Path, options: ReaderOptions | None = None, *,
    sentences: Sequence[str] = (), held_out: FeatureStore | None = None, seconds: float = math.inf,
    progress: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Train a reader, or go on with it.

    Parameters
    ----------
    store
        Features of lines, with what they say.
    base
        Folder of a reader, as `new_reader` makes it.
    out
        Gets the reader, ``checkpoint.pt`` to go on from, and ``log.jsonl``: a line for each checkpoint.
    options
        How to train.
    sentences
        For learning from text alone.
    held_out
        Lines to measure on at every checkpoint.
    seconds
        Stop after so long, with a checkpoint; the learning rate's way is that of the whole training all the same.
    progress
        Whether to show how far it is on stderr.

    Returns
    -------
    dict
        ``step``, ``steps``, ``seconds``, ``loss`` and, where lines are held out, ``cer``, ``exact`` and ``ctc_cer``.

    Raises
    ------
    ModelError
        Where the checkpoint belongs to other lines or options.
    """
    settings = options or ReaderOptions()
    if settings.text_steps and not sentences:
        raise ValueError(
            f"text_steps is {settings.text_steps}, and there are no sentences to learn from; give some, or 0"
        )
    run = _Run(store, base, out, settings, sentences)
    started = time.perf_counter() - run.seconds
    result: dict[str, Any] = {"step": run.step, "steps": run.total, "seconds": run.seconds}
    stop = run.seconds + seconds
    losses: list[float] = []
    with progress_bar(run.total, "train", " steps", initial=run.step, show=progress) as bar:
        for batch in run.batches():
            losses.append(run.learn(batch))
            bar.set_postfix(loss=f"{np.mean(losses[-100:]):.4f}", refresh=False)
            bar.update()
            run.seconds = time.perf_counter() - started
            late = run.seconds > stop
            if run.step % settings.checkpoint_steps == 0 or run.step == run.total or late:
                run.save()
                result = {
                    "step": run.step, "steps": run.total, "seconds": run.seconds, "loss": float(np.mean(losses[-100:])),
                }  # fmt: skip
                if held_out is not None:
                    result |= evaluate_features(run.model, run.processor, held_out)
                with (out / "log.jsonl").open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(result) + "\n")
            if late:
                break
    run.model.save_pretrained(out)
    run.processor.save_pretrained(out)
    return result


class _Run:
    """A training that goes on where its checkpoint stands."""

    def __init__(
        self, store: FeatureStore, base: Path, out: Path, settings: ReaderOptions, sentences: Sequence[str]
    ) -> None:
        self._store, self._settings, self._sentences = store, settings, sentences
        self._path = out / "checkpoint.pt"
        out.mkdir(parents=True, exist_ok=True)
        self.model = ReaderForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
        self.processor = ReaderProcessor.from_pretrained(base)
        self.model.train()
        self._steps = store.steps()
        a_pass = sum(1 for _ in batches(self._steps, settings.batch_size, np.random.default_rng(0)))
        self.total = settings.text_steps + a_pass * settings.epochs
        self.step, self.seconds = 0, 0.0
        neck = list(self.model.neck.parameters())
        others = [p for name, p in self.model.named_parameters() if not name.startswith("neck.")]
        groups = [{"params": others, "lr": settings.learning_rate}, {"params": neck, "lr": settings.neck_rate}]
        self._optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, betas=(0.9, 0.98))
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)
        wanted = "\n".join((json.dumps(asdict(settings), sort_keys=True), *store.texts, *sentences))
        self._signature = hashlib.sha256(wanted.encode()).hexdigest()
        self._tokenizer = self.processor.tokenizer
        self._deviation = _deviation(store)
        if self._path.exists():
            self._load()

    def _rate(self, step: int) -> float:
        warmup = self._settings.warmup_steps
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / max(1, self.total - warmup))
        return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * done))

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(), "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(), "step": self.step, "seconds": self.seconds,
            "signature": self._signature,
        }  # fmt: skip
        with replacing(self._path) as stream:
            torch.save(state, stream)

    def _load(self) -> None:
        state = torch.load(self._path, weights_only=True, map_location="cpu")
        if state["signature"] != self._signature:
            raise ModelError(
                f"{self._path}: belongs to a training with other lines or options; remove it to begin anew"
            )
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self.step, self.seconds = int(state["step"]), float(state["seconds"])

    def batches(self) -> Iterator[Sequence[int] | None]:
        """Yield what is left of the lines' places a step; ``None`` for a step on text alone."""
        settings = self._settings
        for _ in range(self.step, settings.text_steps):
            yield None
        place = settings.text_steps
        for epoch in range(settings.epochs):
            for rows in batches(self._steps, settings.batch_size, np.random.default_rng([settings.seed, epoch])):
                if place >= self.step:
                    yield rows
                place += 1

    def learn(self, rows: Sequence[int] | None) -> float:
        """Take a step."""
        rng = np.random.default_rng([self._settings.seed, self.step, 1])
        loss = self._from_text(rng) if rows is None else self._from_pictures(rows, rng)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._settings.max_norm)
        self._optimizer.step()
        self._schedule.step()
        self.step += 1
        return float(loss.detach())

    def _from_pictures(self, rows: Sequence[int], rng: np.random.Generator) -> torch.Tensor:
        features = torch.from_numpy(np.stack([self._store[row] for row in rows]).astype(np.float32))
        features = self._spoilt(features, rng)
        ids = [self._ids(self._store.texts[row]) for row in rows]
        steps = self.model.steps(features)
        loss = self._reading_loss(self.model.projector(steps), ids)
        if self._settings.ctc_weight:
            loss = loss + self._settings.ctc_weight * self._ctc_loss(steps, ids, rng)
        return loss

    def _spoilt(self, features: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Add noise, and hide a part of some lines, so that the text before it must help."""
        settings = self._settings
        if settings.noise:
            drawn = rng.standard_normal(features.shape, np.float32) * np.float32(settings.noise * self._deviation)
            features = features + torch.from_numpy(drawn)
        length = features.shape[1]
        for row in np.flatnonzero(rng.random(len(features)) < settings.hidden_steps).tolist():
            start = int(rng.integers(length))
            features[row, start : start + int(rng.integers(2, 8))] = 0.0
        return features

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _reading_loss(self, prefix: torch.Tensor, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Cross-entropy a token of the texts and their ends, after a prefix (n, tokens, hidden)."""
        start, end = self._tokenizer.convert_tokens_to_ids(START), self._tokenizer.eos_token_id
        longest = max(map(len, ids)) + 1
        said = torch.tensor([[start, *row, *[end] * (longest - 1 - len(row))] for row in ids])
        wanted = torch.tensor([[*row, end, *[-100] * (longest - 1 - len(row))] for row in ids])
        embedded = torch.cat([prefix, self.model.get_input_embeddings()(said)], 1)
        hidden = self.model.language_model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        told = wanted != -100
        logits = self.model.language_model.lm_head(hidden[:, prefix.shape[1] :][told])
        return functional.cross_entropy(logits, wanted[told])

    def _ctc_loss(self, steps: torch.Tensor, ids: Sequence[Sequence[int]], rng: np.random.Generator) -> torch.Tensor:
        """CTC's loss a character, among the batch's characters and some others: all would cost more than the rest."""
        blank, size = self.model.config.blank_token_id, self.model.config.text_config.vocab_size
        used = sorted({token for row in ids for token in row} - {blank})
        others = np.setdiff1d(rng.integers(5, size, _RARE), used).tolist()
        tokens = [blank, *used, *others]
        places = {token: place for place, token in enumerate(tokens)}
        # A character that follows itself wants a blank between.
        needed = [len(row) + sum(a == b for a, b in itertools.pairwise(row)) for row in ids]
        fitting = [place for place, row in enumerate(ids) if row and needed[place] <= steps.shape[1]]
        if not fitting:
            return steps.sum() * 0.0
        logits = self.model.ctc_logits(steps[fitting], torch.tensor(tokens)).log_softmax(-1)
        targets = torch.tensor([places[token] for place in fitting for token in ids[place]])
        lengths = torch.tensor([len(ids[place]) for place in fitting])
        widths = torch.full((len(fitting),), steps.shape[1])
        return functional.ctc_loss(logits.transpose(0, 1), targets, widths, lengths, blank=0, zero_infinity=True)

    def _from_text(self, rng: np.random.Generator) -> torch.Tensor:
        """Read sentences whose pictures are made up: each character's embedding in one of its two or three tokens."""
        chosen = rng.integers(len(self._sentences), size=self._settings.batch_size)
        ids = [self._ids(self._sentences[i])[:40] for i in chosen]
        table = self.model.get_input_embeddings().weight
        slots = [[int(rng.integers(2, 4)) for _ in row] for row in ids]
        length = max(max(map(sum, slots)), 1)
        tokens, shown = np.zeros((len(ids), length), np.int64), np.zeros((len(ids), length), np.float32)
        for place, (row, widths) in enumerate(zip(ids, slots, strict=True)):
            at = 0
            blurred = rng.uniform(0, 0.6)
            for token, width in zip(row, widths, strict=True):
                tokens[place, at + width // 2] = token
                # What is badly seen is lost now and then, or taken for something else.
                shown[place, at + width // 2] = 0.0 if rng.random() < blurred / 2 else 1.0
                if rng.random() < blurred / 4:
                    tokens[place, at + width // 2] = int(rng.integers(5, len(table)))
                at += width
        strength = self._strength()
        seen = table[torch.from_numpy(tokens)].detach() * torch.from_numpy(shown * strength).unsqueeze(-1)
        spread = strength * 0.5 / math.sqrt(table.shape[1])
        drawn = rng.standard_normal((*tokens.shape, table.shape[1]), np.float32) * np.float32(spread)
        return self._reading_loss(seen + torch.from_numpy(drawn), ids)

    def _strength(self) -> float:
        """Length of a prefix token that shows a character, as the first lines have it."""
        if not hasattr(self, "_length"):
            with torch.no_grad():
                rows = [
                    torch.from_numpy(self._store[i].astype(np.float32))[None] for i in range(min(20, len(self._store)))
                ]
                found = torch.cat([self.model.projector(self.model.steps(row))[0] for row in rows])
                self._length = float(found.norm(dim=1).quantile(0.8))
        return self._length


def _deviation(store: FeatureStore) -> float:
    """Return the standard deviation of the features of some lines."""
    some = [store[place] for place in range(0, len(store), -(-len(store) // 50))]
    # In half precision the sum of the squares would be infinite.
    return float(np.std(np.concatenate(some).astype(np.float32)))


def fit_blank(model: ReaderForConditionalGeneration, store: FeatureStore, lines: int = 400) -> float:
    """Let the projector know a step without a character, by CTC's own word; return how often it agrees.

    A logistic regression on the neck's features of some lines: that CTC's blank is likelier than all characters.
    """
    require("sklearn", "train")
    from sklearn.linear_model import LogisticRegression

    with torch.no_grad():
        steps = [
            model.steps(torch.from_numpy(store[i].astype(np.float32))[None])[0] for i in range(min(lines, len(store)))
        ]
        table = torch.cat(steps)
        blank = torch.cat([model.ctc_logits(part[None])[0].argmax(1) == model.config.blank_token_id for part in steps])
        fitted = LogisticRegression(max_iter=2000).fit(table.numpy(), blank.numpy())
        model.projector.blank.weight.copy_(torch.tensor(fitted.coef_, dtype=torch.float32))
        model.projector.blank.bias.copy_(torch.tensor(fitted.intercept_, dtype=torch.float32))
    return float(fitted.score(table.numpy(), blank.numpy()))


@torch.no_grad()
def evaluate_features(
    model: ReaderForConditionalGeneration, processor: ReaderProcessor, store: FeatureStore, *, batch_size: int = 64
) -> dict[str, float]:
    """Read lines greedily from their features.

    Returns
    -------
    dict
        ``cer`` over letters and digits, ``exact``: the share of lines without an error, and ``ctc_cer``: the same
        from the neck alone.
    """
    training = model.training
    model.eval()
    tokenizer = processor.tokenizer
    start = tokenizer.convert_tokens_to_ids(START)
    read, ctc = [""] * len(store), [""] * len(store)
    for rows in batches(store.steps(), batch_size, np.random.default_rng(0)):
        features = [torch.from_numpy(store[row].astype(np.float32)) for row in rows]
        tokens = len(features[0]) // STEPS_A_TOKEN
        ids = torch.tensor([[model.config.image_token_id] * tokens + [start]] * len(rows))
        found = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), features=features, max_new_tokens=60, do_sample=False
        )
        best = model.ctc_logits(model.steps(torch.stack(features))).argmax(-1)
        for row, written, path in zip(rows, found[:, ids.shape[1] :].tolist(), best.tolist(), strict=True):
            read[row] = tokenizer.decode(written, skip_special_tokens=True)
            kept = [
                t
                for t, before in zip(path, [None, *path], strict=False)
                if t != before and t > model.config.blank_token_id
            ]
            ctc[row] = tokenizer.decode(kept)
    model.train(training)
    counts, alone = count_errors(read, store.texts), count_errors(ctc, store.texts)
    return {"cer": counts.cer, "exact": 1 - counts.wrong_lines / len(store), "ctc_cer": alone.cer}
