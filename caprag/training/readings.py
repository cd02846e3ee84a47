"""Noise for training that also changes what readers' programs change: the region's characters, signs left out.

A channel fitted on one kind of captions seldom writes Simplified for Traditional; queries do. It knows texts and
another noise, nothing of training.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from caprag.text import convert, countable
from caprag.training.pretraining import Noise

_KINDS = ("s", "tw", "plain")


class VariedNoise:
    """Changes some texts as a whole, then hands them to another noise.

    Parameters
    ----------
    noise
        Makes the readings.
    simplified, taiwan, unsigned
        Shares of the texts that are first written in Simplified or in Taiwan's characters, or lose all but letters and
        digits; together at most 1.

    Raises
    ------
    ValueError
        For shares below 0 or above 1 together.

    Examples
    --------
    >>> class Nothing:
    ...     def corrupt(self, texts, *, seed=0, strength=None, start=0):
    ...         return list(texts)
    >>> VariedNoise(Nothing(), simplified=1.0, taiwan=0.0, unsigned=0.0).corrupt(["你這裡?"])
    ['你这里?']
    """

    def __init__(self, noise: Noise, *, simplified: float = 0.12, taiwan: float = 0.08, unsigned: float = 0.2) -> None:
        shares = (simplified, taiwan, unsigned)
        if min(shares) < 0 or sum(shares) > 1 + 1e-9:
            raise ValueError(f"the shares are {shares}; each must be at least 0, all together at most 1")
        self._noise = noise
        self._shares = shares

    def corrupt(
        self, texts: Sequence[str], *, seed: int = 0, strength: float | None = None, start: int = 0
    ) -> list[str]:
        """Return a reading of each text; see `caprag.training.pretraining.Noise`."""
        changed = [self._change(text, seed, start + i) for i, text in enumerate(texts)]
        readings = self._noise.corrupt(changed, seed=seed, strength=strength, start=start)
        return [reading or text for reading, text in zip(readings, texts, strict=True)]

    def _change(self, text: str, seed: int, number: int) -> str:
        draw = random.Random(f"{seed} {number}").random()
        for kind, share in zip(_KINDS, self._shares, strict=True):
            if draw < share:
                if kind == "plain":
                    return countable(text) or text
                return convert(text, "s" if kind == "s" else "tw")
            draw -= share
        return text
