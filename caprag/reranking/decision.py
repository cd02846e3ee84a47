"""Weights of the three cases, and from which probability on to snap: knows features by name, no texts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Decision:
    """Weights of the three cases, and when to snap.

    Attributes
    ----------
    snap, keep
        Weight of each feature for "the sentence is right" and "the reading is right", against "neither is".
    snap_bias, keep_bias
        Constant of each.
    threshold
        Smallest probability of the sentence at which it is the answer, in [0, 1].
    lines
        Lines that risks are counted on, whose sentences the corpus lacked.
    harmful
        Of those lines the ones that a threshold of a half would have harmed: the probability of the wrong sentence, by
        weights that were fitted without the line. Descending.
    """

    snap: Mapping[str, float]
    keep: Mapping[str, float]
    snap_bias: float
    keep_bias: float
    threshold: float = 0.5
    lines: int = 0
    harmful: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must lie in [0, 1]")
        if self.lines < len(self.harmful):
            raise ValueError(f"lines is {self.lines}, and {len(self.harmful)} of them are harmful; fit it again")
        for name, weights in (("snap", self.snap), ("keep", self.keep)):
            if not all(math.isfinite(weight) for weight in weights.values()):
                raise ValueError(f"{name} has a weight that is not finite; fit it again")
        if not math.isfinite(self.snap_bias) or not math.isfinite(self.keep_bias):
            raise ValueError(f"snap_bias is {self.snap_bias} and keep_bias is {self.keep_bias}; both must be finite")

    def at_risk(self, risk: float) -> Decision:
        """Return the same with the smallest threshold, a half or more, that keeps to a risk.

        Parameters
        ----------
        risk
            Expected share of lines, of those that the corpus lacks, that were right as read and are wrong as answered,
            in (0, 1).

        Raises
        ------
        ValueError
            For a risk that is less than the lines can vouch for.

        References
        ----------
        Angelopoulos et al., Conformal risk control, ICLR 2024: of n exchangeable lines (harmed + 1) / (n + 1) bounds
        the expected risk of the next.
        """
        if not 0 < risk < 1:
            raise ValueError(f"risk is {risk}; it must lie between 0 and 1")
        allowed = math.floor(risk * (self.lines + 1) + 1e-9) - 1
        if allowed < 0:
            raise ValueError(
                f"risk is {risk}; {self.lines} lines can vouch for {1 / (self.lines + 1):.2g} at the least: ask for "
                "that, or fit on more"
            )
        if allowed >= len(self.harmful):
            return replace(self, threshold=0.5)
        return replace(self, threshold=min(1.0, max(0.5, math.nextafter(self.harmful[allowed], 2.0))))

    def check(self, names: Iterable[str]) -> None:
        """Raise ValueError where the weights are not of these features, in this order."""
        for name, weights in (("snap", self.snap), ("keep", self.keep)):
            if list(weights) != list(names):
                raise ValueError(f"{name} weighs {', '.join(weights)}; the features are {', '.join(names)}")

    def log_odds(self, features: Mapping[str, float]) -> tuple[float, float]:
        """Return the log odds that the sentence and that the reading is right, each against neither, in nats.

        Parameters
        ----------
        features
            Name to value.
        """
        snap = self.snap_bias + sum(self.snap[name] * value for name, value in features.items())
        keep = self.keep_bias + sum(self.keep[name] * value for name, value in features.items())
        return snap, keep

    def probabilities(self, features: Mapping[str, float]) -> tuple[float, float]:
        """Return the probabilities that the sentence and that the reading is right; they add up to at most 1."""
        snap, keep = self.log_odds(features)
        top = max(snap, keep, 0.0)
        odds = (math.exp(snap - top), math.exp(keep - top), math.exp(-top))
        return odds[0] / sum(odds), odds[1] / sum(odds)
