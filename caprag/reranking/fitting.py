"""Fits the decision's weights on readings with truth.

Wants examples both with the true sentence among the hits and with it taken out of the corpus on purpose: without the
second kind the weights would learn to snap always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from caprag.errors import require
from caprag.reranking.features import FEATURES, Candidate
from caprag.reranking.reranker import Reranker
from caprag.text import countable
from caprag.types import Hypothesis

_CLASSES = ("neither", "keep", "snap")


@dataclass(frozen=True, slots=True)
class Example:
    """A reading whose truth is known, and the sentence that it would be snapped to.

    Attributes
    ----------
    features
        Name to value, as `caprag.reranking.features.best_candidate` gives them; ``None`` where there is no candidate.
    exact
        Whether the reading's letters and digits are the candidate's.
    reading_right, candidate_right
        Whether all letters and digits agree with the truth.
    """

    features: Mapping[str, float] | None
    exact: bool
    reading_right: bool
    candidate_right: bool

    @classmethod
    def of(cls, reading: Hypothesis, candidate: Candidate | None, truth: str) -> Example:
        """Describe one reading, its best candidate, and whether each is right."""
        wanted = countable(truth)
        read_right = countable(reading.text) == wanted
        if candidate is None:
            return cls(None, False, read_right, False)
        return cls(candidate.features, candidate.exact, read_right, countable(candidate.hit.text) == wanted)

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
    described = [(e.features, e.case) for e in examples if e.features is not None and not e.exact]
    cases = {case for _, case in described}
    if len(cases) < len(_CLASSES):
        raise ValueError(f"the examples show {', '.join(sorted(cases)) or 'no case'}; all of {_CLASSES} are needed")
    values = np.array([[features[name] for name in FEATURES] for features, _ in described])
    labels = np.array([_CLASSES.index(case) for _, case in described])
    mean, scale = values.mean(0), values.std(0)
    scale[scale == 0] = 1.0
    model = linear.LogisticRegression(C=1.0 / penalty, max_iter=5000).fit((values - mean) / scale, labels)
    weights = model.coef_ / scale
    biases = model.intercept_ - weights @ mean
    # Only differences count: "neither" is the zero that the others are measured from.
    weights, biases = weights - weights[0], biases - biases[0]
    exact = [e.candidate_right for e in examples if e.exact]
    return Reranker(
        snap=dict(zip(FEATURES, weights[2].tolist(), strict=True)),
        keep=dict(zip(FEATURES, weights[1].tolist(), strict=True)),
        snap_bias=float(biases[2]),
        keep_bias=float(biases[1]),
        exact=(sum(exact) + 1) / (len(exact) + 2),
        threshold=threshold,
        provenance=dict(provenance or {}),
    )
