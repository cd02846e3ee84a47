"""What a greedy search chose, with the probabilities it saw on its way, so that nothing need be read twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import LogitsProcessor

Row = tuple[int, ...]


class Generated(NamedTuple):
    """A sequence that a search found.

    Attributes
    ----------
    row
        Token ids without prompt and end.
    logprob
        ln p(row and then the end | prompt and picture) in nats; ``None`` where the search does not know it.
    """

    row: Row
    logprob: float | None = None


class Watcher(LogitsProcessor):
    """Adds up the log-probabilities of what is chosen; changes nothing.

    Must be the first of the processors, to see the model's own scores. Keeps one step's scores at a time.

    Parameters
    ----------
    prompt_length
        Tokens before the text, padding included.
    ends
        Ids of the tokens that end a text; their probabilities count together.
    """

    def __init__(self, prompt_length: int, ends: Sequence[int]) -> None:
        self._length, self._ends = prompt_length, list(ends)
        self._scores: torch.Tensor | None = None
        self._sums: list[float] = []
        self._open: list[bool] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Take note of a step."""
        self._settle(input_ids)
        self._scores = scores.detach().to(torch.float32).log_softmax(-1)
        return scores

    def _settle(self, input_ids: torch.Tensor) -> None:
        if self._scores is None:
            self._sums, self._open = [0.0] * len(input_ids), [True] * len(input_ids)
            return
        chosen = input_ids[:, -1:].to(self._scores.device)
        said = self._scores.gather(1, chosen)[:, 0].tolist()
        ended = self._scores[:, self._ends].logsumexp(1).tolist()
        for place, token in enumerate(chosen[:, 0].tolist()):
            if self._open[place]:
                self._open[place] = token not in self._ends
                self._sums[place] += said[place] if self._open[place] else ended[place]

    def logprobs(self, sequences: torch.Tensor) -> list[float | None]:
        """Return the log-probability of each row of what the search gave; ``None`` for one that has no end."""
        if sequences.shape[1] > self._length:
            self._settle(sequences)
        return [None if still else min(0.0, total) for still, total in zip(self._open, self._sums, strict=True)]
