"""Fits the decision's weights on readings with truth.

Wants examples both with the true sentence among the hits and with it taken out of the corpus on purpose: without the
second kind the weights would learn to snap always.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from caprag.errors import require
from caprag.reranking.features import FEATURES, Candidate, best_candidate
from caprag.reranking.glyphs import GlyphTable
from caprag.reranking.reranker import Reranker
from caprag.text import countable
from caprag.types import Hit, Hypothesis

_CLASSES = ("neither", "keep", "snap")


@dataclass(frozen=True, slots=True)
class Example:
    """A reading whose truth is known.

    Attributes
    ----------
    candidate
        The sentence that would be snapped to; ``None`` where there is none.
    reading_right, candidate_right
        Whether all letters and digits agree with the truth.
    """

    candidate: Candidate | None
    reading_right: bool
    candidate_right: bool

    @classmethod
    def of(
        cls,
        reading: Hypothesis,
        truth: str,
        hits: Sequence[Hit],
        frequency: Callable[[str], int],
        margins: Sequence[float] | None = None,
    ) -> Example:
        """Describe one reading; the arguments are those of `Reranker.rerank_batch`, with the truth."""
        candidate = best_candidate(reading, hits, frequency, GlyphTable.load(), margins)
        wanted = countable(truth)
        right = candidate is not None and countable(candidate.hit.text) == wanted
        return cls(candidate, countable(reading.text) == wanted, right)

    @property
    def case(self) -> str:
        """Which answer is right: ``"snap"``, ``"keep"`` or ``"neither"``."""
        return "snap" if self.candidate_right else "keep" if self.reading_right else "neither"


def fit_reranker(
    examples: Sequence[Example],
    *,
    threshold: float = 0.5,
    penalty: float = 1.0,
    provenance: Mapping[str, object] | None = None,
) -> Reranker:
    """Fit a reranker.

    Parameters
    ----------
    examples
        Readings with and without their sentence in the corpus.
    threshold
        Smallest probability at which to snap, in [0, 1].
    penalty
        Strength of the L2 penalty on standardised weights, > 0.
    provenance
        What the examples are, stored with the weights.

    Returns
    -------
    Reranker
        Weights for the features as they are (the standardisation is folded in).

    Raises
    ------
    ValueError
        Where the examples do not show all three cases, or for a penalty or threshold out of range.
    MissingDependencyError
        Where scikit-learn is not installed.

    References
    ----------
    Multinomial logistic regression as in Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 4.4.
    """
    if not penalty > 0:
        raise ValueError(f"penalty is {penalty}; it must be above 0")
    linear = require("sklearn.linear_model", "train")
    described = [(e.candidate, e.case) for e in examples if e.candidate is not None and not e.candidate.exact]
    cases = {case for _, case in described}
    if len(cases) < len(_CLASSES):
        raise ValueError(f"the examples show {', '.join(sorted(cases)) or 'no case'}; all of {_CLASSES} are needed")
    values = np.array([list(candidate.features.values()) for candidate, _ in described])
    labels = np.array([_CLASSES.index(case) for _, case in described])
    mean, scale = values.mean(0), values.std(0)
    scale[scale == 0] = 1.0
    model = linear.LogisticRegression(C=1.0 / penalty, max_iter=5000).fit((values - mean) / scale, labels)
    weights = model.coef_ / scale
    biases = model.intercept_ - weights @ mean
    # Only differences count: "neither" is the zero that the others are measured from.
    weights, biases = weights - weights[0], biases - biases[0]
    exact = [e.candidate_right for e in examples if e.candidate is not None and e.candidate.exact]
    return Reranker(
        snap=dict(zip(FEATURES, weights[2].tolist(), strict=True)),
        keep=dict(zip(FEATURES, weights[1].tolist(), strict=True)),
        snap_bias=float(biases[2]),
        keep_bias=float(biases[1]),
        exact=(sum(exact) + 1) / (len(exact) + 2),
        threshold=threshold,
        provenance=dict(provenance or {}),
    )
