"""Drawing texts by chance, and where a text stops: small tools for ``generate``.

Draws are by the Gumbel trick: to each token's log-probability noise is added, and the greatest sum wins. The
noise of a text depends on the seed, the picture and the number of the draw alone, so that a picture gives the
same texts in whatever batch it stands.

References
----------
C. J. Maddison, D. Tarlow, T. Minka: A* Sampling. NIPS 2014 (the Gumbel trick).
A. Holtzman, J. Buys, L. Du, M. Forbes, Y. Choi: The Curious Case of Neural Text Degeneration. ICLR 2020 (top p).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor, StoppingCriteria


@dataclass(frozen=True, slots=True)
class Sampling:
    """How texts are drawn.

    Attributes
    ----------
    temperature
        > 0; log-probabilities are divided by it: below 1 likely tokens become likelier still.
    top_p
        In (0, 1]; of the tokens, likeliest first, only so many as make up this probability.
    seed
        >= 0; the same seed draws the same texts.

    Raises
    ------
    ValueError
        For a number outside its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, not {self.seed}")


class Drawing(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """Draws the next token of each row and leaves no other.

    Parameters
    ----------
    sampling
        How.
    keys
        One for each picture; pictures with equal keys give equal texts.
    draws
        Rows of each picture, which stand together, >= 1.
    """

    def __init__(self, sampling: Sampling, keys: Sequence[bytes], draws: int) -> None:
        self._sampling = sampling
        self._generators = [_generator(sampling.seed, key, draw) for key in keys for draw in range(draws)]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:  # noqa: ARG002
        """Set all scores but those drawn to minus infinity; `scores`: (rows, vocabulary)."""
        logprobs = torch.log_softmax(scores.float() / self._sampling.temperature, dim=-1)
        if self._sampling.top_p < 1:
            ordered, order = logprobs.sort(dim=-1, descending=True)
            before = ordered.exp().cumsum(dim=-1) - ordered.exp()
            cut = torch.zeros_like(before, dtype=torch.bool).scatter(1, order, before >= self._sampling.top_p)
            logprobs = logprobs.masked_fill(cut, -torch.inf)
        width = scores.shape[1]
        # Drawn on the CPU, whose generator gives the same numbers on every machine.
        noise = torch.stack([torch.empty(width).exponential_(generator=one) for one in self._generators])
        winners = (logprobs - noise.log().to(scores.device)).argmax(dim=-1, keepdim=True)
        scores = torch.full_like(scores, -torch.inf)  # type: ignore[assignment]
        return scores.scatter_(1, winners, 0.0)  # type: ignore[return-value]


class StopAt(StoppingCriteria):  # type: ignore[misc, unused-ignore]
    """Ends a row whose text holds a stop string.

    Parameters
    ----------
    decode
        Token ids to text.
    stop
        The strings, none of them empty.
    prompt_length
        Tokens that stand before the text in each row.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str], prompt_length: int) -> None:
        self._decode, self._stop, self._length = decode, tuple(stop), prompt_length

    def __call__(self, input_ids: torch.LongTensor, *_: object, **__: object) -> torch.BoolTensor:
        """Tell of each row whether it is done."""
        texts = (self._decode(row) for row in input_ids[:, self._length :].tolist())
        done = [cut(text, self._stop) != text.lstrip() for text in texts]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]


def cut(text: str, stop: Sequence[str]) -> str:
    """Cut a text at the first stop string after the white space that it begins with.

    Examples
    --------
    >>> cut("回家。 It says: go home.", ["It says", "Note"])
    '回家。 '
    """
    text = text.lstrip()
    return text[: min((place for string in stop if (place := text.find(string)) >= 0), default=len(text))]


def _generator(seed: int, key: bytes, draw: int) -> torch.Generator:
    digest = hashlib.blake2b(f"{seed} {draw} ".encode() + key, digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
