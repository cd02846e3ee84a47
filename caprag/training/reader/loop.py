"""Train the reader on features: the neck, the projector and the language model together.

The loss is the cross-entropy of the text after its picture, and, where wanted, CTC's of the same text from the picture
alone, which keeps what the neck says near the characters' embeddings. Text alone can be learnt first: what the tower
would make of it is made up from the characters' embeddings, with look-alikes, gaps and noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from caprag.errors import require
from caprag.evaluation.metrics import count_errors
from caprag.recognition.reader import ReaderForConditionalGeneration, ReaderProcessor
from caprag.recognition.reader.processing import SPECIAL, START
from caprag.training.reader.run import Run, ctc_loss, ctc_tokens, follow
from caprag.training.reader.stores import LineStore, batches

_ALIKE = 16
"""Characters that one may be taken for, where pictures are made up."""
_TWICE, _LOST = 0.04, 0.4
"""Shares of characters that two tokens show, and, of the badly seen ones, that none does."""
_SPREAD = 0.5
"""Length of the noise in lengths of an embedding."""


@dataclass(frozen=True, slots=True)
class ReaderOptions:
    """How the reader is trained.

    Attributes
    ----------
    epochs, batch_size
        Passes over the lines, and lines a step.
    learning_rate, neck_rate, embedding_rate
        The highest, of the language model and projector; of the neck; and of the characters' embeddings and what
        carries steps into their space. At 0 they stand still. What the embeddings begin with is what lets the model
        copy: at the language model's rate that is lost within some hundred steps.
    warmup_steps
        Steps on the way up.
    weight_decay, max_norm
        Of AdamW, and the norm that gradients are cut to.
    ctc_weight
        Of CTC's loss beside the cross-entropy; it costs as much as all the rest.
    text_steps
        Steps on text alone before the first picture; 0 for none.
    blur
        Share of the characters that are badly seen in the worst of the pictures that are made up of text.
    noise, hidden_steps
        Of the features in training: standard deviation, in theirs, and the share of lines that lose a part.
    checkpoint_steps
        Steps between two checkpoints.
    half
        Whether products of matrices are taken in bfloat16: twice as fast where the processor has it.
    seed
        Of order and noise.
    """

    epochs: int = 4
    batch_size: int = 48
    learning_rate: float = 1e-3
    neck_rate: float = 0.0
    embedding_rate: float = 0.0
    warmup_steps: int = 150
    weight_decay: float = 0.02
    max_norm: float = 1.0
    ctc_weight: float = 0.3
    text_steps: int = 0
    blur: float = 0.6
    noise: float = 0.1
    hidden_steps: float = 0.2
    checkpoint_steps: int = 300
    half: bool = False
    seed: int = 0


def train_reader(
    store: LineStore, base: Path, out: Path, options: ReaderOptions | None = None, *,
    sentences: Sequence[str] = (), held_out: LineStore | None = None, seconds: float = math.inf,
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
    learner = _Learner(store, base, out, settings, sentences)

    def evaluate() -> dict[str, float]:
        return evaluate_features(learner.model, learner.processor, held_out) if held_out is not None else {}

    result = follow(
        learner.run, learner.batches(), learner.loss, checkpoint_steps=settings.checkpoint_steps, evaluate=evaluate,
        seconds=seconds, progress=progress,
    )  # fmt: skip
    learner.model.save_pretrained(out)
    learner.processor.save_pretrained(out)
    return result


class _Learner:
    """What is learnt in a step, from pictures or from text alone."""

    def __init__(
        self, store: LineStore, base: Path, out: Path, settings: ReaderOptions, sentences: Sequence[str]
    ) -> None:
        self._store, self._settings, self._sentences = store, settings, sentences
        self.model = ReaderForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
        self.processor = ReaderProcessor.from_pretrained(base)
        self.model.train()
        # Of the base, so that a training that goes on has the same.
        self._alike, (self._strength, self._doubt) = _alike(self.model), _typical(self.model, store)
        self._steps = store.steps()
        a_pass = sum(1 for _ in batches(self._steps, settings.batch_size, np.random.default_rng(0)))
        self.run = Run(
            out / "checkpoint.pt", self.model, _groups(self.model, settings),
            total=settings.text_steps + a_pass * settings.epochs, warmup=settings.warmup_steps,
            weight_decay=settings.weight_decay, max_norm=settings.max_norm, half=settings.half,
            about=(json.dumps(asdict(settings), sort_keys=True), *store.texts, *sentences),
        )  # fmt: skip
        self._tokenizer = self.processor.tokenizer
        self._deviation = _deviation(store)
        # Neighbours in length are mixed, in the same order each time.
        mixed = np.random.default_rng(settings.seed).permutation(len(sentences))
        lengths = np.array([len(sentences[i]) for i in mixed], np.int64)
        self._by_length = mixed[np.argsort(lengths, kind="stable")].tolist()

    def batches(self) -> Iterator[Sequence[int] | None]:
        """Yield what is left of the lines' places a step; ``None`` for a step on text alone."""
        settings, done = self._settings, self.run.step
        for _ in range(done, settings.text_steps):
            yield None
        place = settings.text_steps
        for epoch in range(settings.epochs):
            for rows in batches(self._steps, settings.batch_size, np.random.default_rng([settings.seed, epoch])):
                if place >= done:
                    yield rows
                place += 1

    def loss(self, rows: Sequence[int] | None) -> torch.Tensor:
        """Return the loss of a step."""
        rng = np.random.default_rng([self._settings.seed, self.run.step, 1])
        return self._from_text(rng) if rows is None else self._from_pictures(rows, rng)

    def _from_pictures(self, rows: Sequence[int], rng: np.random.Generator) -> torch.Tensor:
        features = torch.from_numpy(np.stack([self._store[row] for row in rows]).astype(np.float32))
        features = self._spoilt(features, rng)
        ids = [self._ids(self._store.texts[row]) for row in rows]
        steps = self.model.steps(features)
        loss = self._reading_loss(self.model.tokens_of(steps), ids)
        if self._settings.ctc_weight:
            loss = loss + self._settings.ctc_weight * ctc_loss(self.model, steps, ids)
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

    def _reading_loss(self, prefixes: Sequence[torch.Tensor], ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Cross-entropy a token of the texts and their ends, after their prefixes, (tokens, width) each."""
        start, end = self._tokenizer.convert_tokens_to_ids(START), self._tokenizer.eos_token_id
        longest, length = max(map(len, prefixes)), max(map(len, ids)) + 1
        said = torch.tensor([[start, *row, *[end] * (length - 1 - len(row))] for row in ids])
        wanted = torch.tensor([[*row, end, *[-100] * (length - 1 - len(row))] for row in ids])
        # What it can't write is not to be learnt.
        wanted[wanted == self._tokenizer.unk_token_id] = -100
        filled = torch.stack([functional.pad(prefix, (0, 0, longest - len(prefix), 0)) for prefix in prefixes])
        shown = torch.full((len(ids), longest), self.model.config.image_token_id)
        for row, prefix in enumerate(prefixes):
            shown[row, : longest - len(prefix)] = end
        told = self.model(
            torch.cat([shown, said], 1), prefix=filled, use_cache=False, logits_to_keep=length,
            attention_mask=torch.cat([(shown != end).long(), torch.ones_like(said)], 1),
        )  # fmt: skip
        return functional.cross_entropy(told.logits.float().flatten(0, 1), wanted.flatten())

    def _from_text(self, rng: np.random.Generator) -> torch.Tensor:
        """Read sentences whose pictures are made up."""
        settings = self._settings
        # Sentences of like lengths: what fills up the short ones costs as much as text.
        size = min(settings.batch_size, len(self._sentences))
        start = int(rng.integers(len(self._sentences) - size + 1))
        ids = [self._ids(self._sentences[i])[:40] for i in self._by_length[start : start + size]]
        return self._reading_loss(self.made_up(ids, rng), ids)

    @torch.no_grad()
    def made_up(self, ids: Sequence[Sequence[int]], rng: np.random.Generator) -> list[torch.Tensor]:
        """Return what the tokens of texts might be made of, (tokens, width) each: for each character one, or two.

        What is badly seen is lost, lies between the character and one that looks alike, or is that one.
        """
        settings = self._settings
        table: Any = self.model.get_input_embeddings().weight
        # From the embeddings' space back into the neck's, and to where a step is that shows a character.
        carry = torch.linalg.pinv(self.model.projector.to_text.weight).T
        blank = self.model.projector.blank
        away = blank.weight[0] / blank.weight[0].square().sum().clamp(min=1e-6)
        prefixes = []
        for row in ids:
            blurred = rng.random() * settings.blur
            tokens = np.repeat(row, 1 + (rng.random(len(row)) < _TWICE)).astype(np.int64)
            tokens = tokens[rng.random(len(tokens)) >= blurred * _LOST]
            if not len(tokens):
                tokens = np.array(row[:1] or [self._tokenizer.eos_token_id], np.int64)
            others = self._alike[tokens, rng.integers(self._alike.shape[1], size=len(tokens))]
            share = np.where(rng.random(len(tokens)) < blurred, rng.random(len(tokens)), 0.0).astype(np.float32)
            mixed = torch.from_numpy(share)[:, None]
            shown = table[torch.from_numpy(tokens)] * (1 - mixed) + table[torch.from_numpy(others)] * mixed
            drawn = rng.standard_normal(shown.shape, np.float32) * np.float32(_SPREAD / math.sqrt(table.shape[1]))
            steps = ((shown + torch.from_numpy(drawn)) * self._strength) @ carry
            prefixes.append(steps + (self._doubt - blank(steps)) * away)
        return prefixes


def _groups(model: ReaderForConditionalGeneration, settings: ReaderOptions) -> list[dict[str, Any]]:
    """Return what is trained, by its learning rate; the rest stands still."""
    # The features are those of the tower as it was when they were made.
    rates = {"tower_changes.": 0.0, "projector.blank.": 0.0, "neck.": settings.neck_rate}
    shared = ("projector.to_text.", "projector.scale", "ctc_bias", "language_model.model.embed_tokens.")
    rates |= dict.fromkeys(shared, settings.embedding_rate)
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        rate = next((rates[part] for part in rates if name.startswith(part)), settings.learning_rate)
        parameter.requires_grad_(rate > 0)
        if rate > 0:
            groups.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def _alike(model: ReaderForConditionalGeneration) -> npt.NDArray[np.int64]:
    """Return for each token those whose embeddings are nearest to its own, (vocabulary, 16)."""
    embeddings: Any = model.get_input_embeddings().weight
    table = functional.normalize(embeddings.detach(), dim=1)
    first = len(SPECIAL)
    count = min(_ALIKE + 1, len(table) - first)
    # The first is the token itself.
    near = [(part @ table[first:].T).topk(count, 1).indices[:, 1:] + first for part in torch.split(table, 1024)]
    found: npt.NDArray[np.int64] = torch.cat(near).numpy()
    return found


@torch.no_grad()
def _typical(model: ReaderForConditionalGeneration, store: LineStore) -> tuple[float, float]:
    """Return what steps of the first lines are like that show a character.

    Their length in the lengths of embeddings, and the logit of there being no character.
    """
    rows = [torch.from_numpy(store[i].astype(np.float32)) for i in range(min(20, len(store)))]
    embeddings: Any = model.get_input_embeddings().weight
    steps = torch.cat(model.prefixes(rows))
    found = model.projector.to_text(steps).norm(dim=1).median()
    return float(found / embeddings.norm(dim=1).median()), float(model.projector.blank(steps).median())


def _deviation(store: LineStore) -> float:
    """Return the standard deviation of the features of some lines."""
    some = [store[place] for place in range(0, len(store), -(-len(store) // 50))]
    # In half precision the sum of the squares would be infinite.
    return float(np.std(np.concatenate(some).astype(np.float32)))


def fit_blank(model: ReaderForConditionalGeneration, store: LineStore, lines: int = 400) -> float:
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
    model: ReaderForConditionalGeneration, processor: ReaderProcessor, store: LineStore, *, batch_size: int = 64
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
        ids = torch.tensor([[model.config.image_token_id] * len(features[0]) + [start]] * len(rows))
        seen = model.look(ids, features=features)
        found = model.generate(**seen, max_new_tokens=60, do_sample=False)
        alone = ctc_tokens(model, model.steps(torch.stack(features)))
        for row, written, told in zip(rows, found[:, seen["input_ids"].shape[1] :].tolist(), alone, strict=True):
            read[row] = tokenizer.decode(written, skip_special_tokens=True)
            ctc[row] = tokenizer.decode(told)
    model.train(training)
    counts, without = count_errors(read, store.texts), count_errors(ctc, store.texts)
    return {"cer": counts.cer, "exact": 1 - counts.wrong_lines / len(store), "ctc_cer": without.cer}
