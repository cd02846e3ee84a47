"""The probabilities of the three cases, and from which on to snap."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from caprag.reranking.weights import Linear, Trees

W_co = TypeVar("W_co", bound=Linear | Trees, covariant=True)


@dataclass(frozen=True, slots=True)
class Decision(Generic[W_co]):
    """What features weigh, and when to snap.

    Attributes
    ----------
    weights
        What speaks for "the sentence is right" and "the reading is right", against "neither is".
    threshold
        Smallest probability of the sentence at which it is the answer, in [0, 1].
    lines
        Lines that risks are counted on, whose sentences the corpus lacked.
    harmful
        Of those lines the ones that a threshold of a half would have harmed: the probability of the wrong sentence, by
        weights that were fitted without the line. Descending.
    """

    weights: W_co
    threshold: float = 0.5
    lines: int = 0
    harmful: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must lie in [0, 1]")
        ordered = all(one >= two for one, two in itertools.pairwise((1.0, *self.harmful, 0.5)))
        if type(self.lines) is not int or not ordered:
            raise ValueError(
                f"lines is {self.lines!r} and harmful {self.harmful}; wanted are a count, and falling chances"
            )
        if self.lines < len(self.harmful):
            raise ValueError(f"lines is {self.lines}, and {len(self.harmful)} of them are harmful; fit it again")

    def at_risk(self, risk: float) -> Decision[W_co]:
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

    def probabilities(self, features: Mapping[str, float]) -> tuple[float, float]:
        """Return the probabilities that the sentence and that the reading is right; they add up to at most 1."""
        snap, keep = self.weights.log_odds(features)
        top = max(snap, keep, 0.0)
        odds = (math.exp(snap - top), math.exp(keep - top), math.exp(-top))
        return odds[0] / sum(odds), odds[1] / sum(odds)
