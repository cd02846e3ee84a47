"""Held-out pictures read while a model is trained, as `VLMRecognizer` reads, and what that costs in characters.

Knows no optimiser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import transformers

from caprag.evaluation.metrics import count_errors
from caprag.recognition.sampling import StopAt, cut
from caprag.training.recognizer.collation import Collator
from caprag.training.recognizer.examples import FileExamples, Item
from caprag.training.recognizer.modules import mixed

_hub: Any = transformers  # its annotations differ from version to version


class HeldOut:
    """Examples that are never trained on.

    Parameters
    ----------
    examples
        What is read; pictures that can't be had are left out.
    collator
        The training's.
    batch_size
        Pictures read at once, >= 1.
    max_new_tokens
        Most tokens of a reading, >= 1.

    Raises
    ------
    ValueError
        Where no answer has a character to count errors in.
    """

    def __init__(self, examples: FileExamples, collator: Collator, *, batch_size: int, max_new_tokens: int) -> None:
        texts = examples.texts()
        if not sum(count_errors(texts, texts).lengths):
            raise ValueError("no held-out answer has a letter or digit, so that there is no error rate; add some")
        self._examples, self._collator = examples, collator
        self._batch_size, self._max_new_tokens = batch_size, max_new_tokens

    def cer(self, model: Any, *, rank: int = 0, world_size: int = 1) -> float:
        """Return the character error rate of greedy readings, >= 0.

        Parameters
        ----------
        model
            The transformers model itself, adapters and all; its mode and settings are as before afterwards.
        rank, world_size
            This process among those that share the reading; each returns the same.
        """
        mine = range(rank, len(self._examples), world_size)
        # All processes go through the model equally often: a sharded model waits for each of them.
        wanted = -(-len(self._examples) // world_size)
        edits = characters = 0
        with _reading(model):
            for first in range(0, wanted, self._batch_size):
                numbers = mine[first : first + self._batch_size]
                items = [item for item in map(self._examples.open, numbers) if item is not None]
                if not items and world_size == 1:
                    continue
                readings = self._read(model, items or [self._examples[0]])
                counts = count_errors(readings[: len(items)], [item.text for item in items])
                edits, characters = edits + sum(counts.edits), characters + sum(counts.lengths)
        if world_size > 1:
            shares: list[Any] = [None] * world_size
            torch.distributed.all_gather_object(shares, (edits, characters))
            edits, characters = (sum(column) for column in zip(*shares, strict=True))
        return edits / characters if characters else float("nan")

    def read(self, model: Any) -> list[str]:
        """Read all pictures that can be had, in order."""
        with _reading(model):
            items = [item for item in map(self._examples.open, range(len(self._examples))) if item is not None]
            parts = [items[first : first + self._batch_size] for first in range(0, len(items), self._batch_size)]
            return [text for part in parts for text in self._read(model, part)]

    def _read(self, model: Any, items: Sequence[Item]) -> list[str]:
        collator, device = self._collator, model.device
        inputs = {name: value.to(device) for name, value in collator.inputs(items, side="left").items()}
        if (look := getattr(model, "look", None)) is not None:
            # How long a prompt is, such a model knows once it has seen the picture.
            with torch.no_grad():
                inputs = look(**inputs)
        settings: dict[str, Any] = {"eos_token_id": list(collator.ends), "pad_token_id": collator.pad}
        if collator.encoder_decoder:
            settings["decoder_start_token_id"] = collator.start[0]
            inputs["decoder_input_ids"] = torch.tensor([collator.start] * len(items), device=device)
        # The model's own settings would fill in what is not given here: penalties, least lengths, beams.
        model.generation_config = _hub.GenerationConfig(**settings)
        greedy = _hub.GenerationConfig(**settings, max_new_tokens=self._max_new_tokens, do_sample=False, num_beams=1)
        begin = len(collator.start) or inputs["input_ids"].shape[1]
        stop = [StopAt(collator.decode_roughly, collator.stop, begin)] if collator.stop else []
        with torch.no_grad():
            rows = model.generate(**inputs, generation_config=greedy, stopping_criteria=_hub.StoppingCriteriaList(stop))
        return [cut(collator.decode(row), collator.stop).strip() for row in rows[:, begin:].tolist()]


@contextmanager
def _reading(model: Any) -> Iterator[None]:
    """Put a model into the mode in which it reads, and back."""
    training, settings, cache = model.training, model.generation_config, getattr(model.config, "use_cache", None)
    model.eval()
    try:
        with mixed(model):
            yield
    finally:
        model.generation_config = settings
        if cache is not None:
            model.config.use_cache = cache
        model.train(training)
