"""How sure a reading is that was kept: what the decision says of it, and what the reading itself looks like.

The decision weighs a sentence against the reading. Where the reading stays, the question is another one: whether it is
right, whatever the corpus has. It changes no answer, only how sure one is of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from caprag.reranking.confusions import load_confusions
from caprag.text import normalize

ABOUT: Mapping[str, str] = {
    "keep": "log odds that the reading is right, by the decision, in nats, in [-12, 12]",
    "misread": "letters of the reading that are expected to be wrong, by what was counted, in [0, 2]",
    "gaps": "gaps within the reading, at most 3",
}
"""Name and meaning of what speaks for a reading, in the order of the weights."""

_MOST = 12.0
_MOST_GAPS = 3


@dataclass(frozen=True, slots=True)
class Surety:
    """A logistic model of whether a reading that was kept is right.

    Attributes
    ----------
    weights
        Of `ABOUT`, in its order.
    bias
        Constant, in nats.
    """

    weights: Mapping[str, float]
    bias: float

    def __post_init__(self) -> None:
        if list(self.weights) != list(ABOUT):
            raise ValueError(f"weights are of {', '.join(self.weights)}; wanted are those of {', '.join(ABOUT)}")
        if not all(map(math.isfinite, (self.bias, *self.weights.values()))):
            raise ValueError("a weight or the bias is not finite; fit it again")

    def log_odds(self, reading: str, keep: float, uncounted: tuple[str, ...] = ()) -> float:
        """Return ln(p / (1 - p)) of what `confidence` returns, in nats."""
        said = describe(reading, keep, uncounted)
        return self.bias + sum(self.weights[name] * value for name, value in said.items())

    def confidence(self, reading: str, keep: float, uncounted: tuple[str, ...] = ()) -> float:
        """Return the probability that a reading is right.

        Parameters
        ----------
        reading
            Its text.
        keep
            The same by the decision, in [0, 1].
        uncounted
            Sources of counts that are not heard; see `caprag.reranking.confusions.load_confusions`.
        """
        odds = self.log_odds(reading, keep, uncounted)
        return 1 / (1 + math.exp(-max(min(odds, 700.0), -700.0)))


def describe(reading: str, keep: float, uncounted: tuple[str, ...] = ()) -> dict[str, float]:
    """Return what speaks for a reading: name to value, in the order of `ABOUT`."""
    odds = math.copysign(_MOST, keep - 0.5) if keep in (0.0, 1.0) else math.log(keep / (1 - keep))
    gaps = len(re.findall(r"\S\s+(?=\S)", normalize(reading).strip()))
    return {
        "keep": max(min(odds, _MOST), -_MOST),
        "misread": load_confusions(without=uncounted).misread(reading),
        "gaps": float(min(gaps, _MOST_GAPS)),
    }
