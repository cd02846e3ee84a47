"""Learn from examples what features weigh: a multinomial logistic model, or boosted trees."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caprag.errors import require
from caprag.reranking.decision import Decision
from caprag.reranking.examples import Example
from caprag.reranking.surety import ABOUT, Surety, describe
from caprag.reranking.weights import CASES, Linear, Tree, Trees

_ROUNDS = 150
_RATE = 0.06
_LEAVES = 8
_FEWEST = 20
_SHARE = 0.5
"""Trees a case, how far each goes, its leaves, examples in a leaf, and the share of examples that each sees."""


def shows_all(examples: Sequence[Example]) -> bool:
    """Whether the examples show all that is to be told apart."""
    return _cases(examples) == set(CASES)


def fit_linear(examples: Sequence[Example], names: Collection[str], penalty: float) -> Linear:
    """Fit weights to examples that have a candidate which is not the reading, letter by letter.

    Parameters
    ----------
    examples
        Of all three cases.
    names
        Of their features, in order.
    penalty
        Strength of the L2 penalty on standardised weights, > 0.

    Raises
    ------
    ValueError
        Where the examples do not show all three cases.
    MissingDependencyError
        Where scikit-learn is not installed.

    References
    ----------
    Multinomial logistic regression as in Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 4.4.
    """
    linear: Any = require("sklearn.linear_model", "train")
    values, labels = _table(examples, names)
    mean, scale = values.mean(0), values.std(0)
    scale[scale == 0] = 1.0
    model = linear.LogisticRegression(C=1.0 / penalty, max_iter=5000).fit((values - mean) / scale, labels)
    weights = model.coef_ / scale
    biases = model.intercept_ - weights @ mean
    # Only differences count: "neither" is the zero that the others are measured from.
    weights, biases = weights - weights[0], biases - biases[0]
    return Linear(
        snap=dict(zip(names, weights[2].tolist(), strict=True)),
        keep=dict(zip(names, weights[1].tolist(), strict=True)),
        snap_bias=float(biases[2]), keep_bias=float(biases[1]),
    )  # fmt: skip


def fit_trees(examples: Sequence[Example], names: Collection[str], seed: int) -> Trees:
    """Fit trees to examples that have a candidate which is not the reading, letter by letter.

    Parameters
    ----------
    examples
        Of all three cases.
    names
        Of their features, in order.
    seed
        Of the draw of examples for each tree.

    Raises
    ------
    ValueError
        Where the examples do not show all three cases.
    MissingDependencyError
        Where scikit-learn is not installed.

    References
    ----------
    Friedman, Stochastic gradient boosting, Computational Statistics & Data Analysis 38 (2002), 367-378.
    """
    ensemble: Any = require("sklearn.ensemble", "train")
    values, labels = _table(examples, names)
    # As trees are walked: in single precision.
    rows = values.astype(np.float32)
    model = ensemble.GradientBoostingClassifier(
        n_estimators=_ROUNDS, learning_rate=_RATE, max_depth=None, max_leaf_nodes=_LEAVES, min_samples_leaf=_FEWEST,
        subsample=_SHARE, random_state=seed,
    ).fit(rows, labels)  # fmt: skip
    prior = np.log(np.bincount(labels, minlength=len(CASES)) / len(labels))
    trees = tuple(_tree(case, grown.tree_, rows) for row in model.estimators_ for case, grown in enumerate(row))
    return Trees(tuple(names), tuple(prior.tolist()), trees)


def kept_readings(
    weighed: Iterable[tuple[Example, Decision[Linear | Trees]]],
) -> Iterator[tuple[Example, float]]:
    """Yield the examples that are kept, each with the probability of its reading; neither exact ones nor pictures."""
    for example, decision in weighed:
        if example.features is not None and not example.exact and not example.judged:
            snap, keep = decision.probabilities(example.features)
            if snap < decision.threshold:
                yield example, keep


def fit_surety(
    weighed: Sequence[tuple[Example, Decision[Linear | Trees]]], uncounted: Sequence[str] = ()
) -> Surety | None:
    """Fit how sure readings are that are kept.

    Parameters
    ----------
    weighed
        Examples, each with the decision that it is judged by: one fitted without it. Those that are snapped are passed
        over, exact ones, those without a candidate, and pictures.
    uncounted
        Sources of counts that are not heard; beside them none hears the source that has its group's name.

    Returns
    -------
    Surety or None
        None where all of the readings are right, or all wrong.

    Raises
    ------
    MissingDependencyError
        Where scikit-learn is not installed.
    """
    linear: Any = require("sklearn.linear_model", "train")
    rows, right = [], []
    for example, keep in kept_readings(weighed):
        unheard = tuple(sorted({*uncounted, example.group}))
        rows.append(list(describe(example.reading, keep, unheard).values()))
        right.append(example.reading_right)
    if len(set(right)) < 2:
        return None
    model = linear.LogisticRegression(C=1.0, max_iter=5000).fit(np.array(rows), right)
    weights = dict(zip(ABOUT, model.coef_[0].tolist(), strict=True))
    return Surety(weights, float(model.intercept_[0]))


def _tree(case: int, grown: Any, rows: npt.NDArray[np.float32]) -> Tree:
    """Return a tree of scikit-learn's, with the means of its leaves in the nodes above them."""
    said = _RATE * grown.value[:, 0, 0]
    leaf = grown.children_left < 0
    came = grown.decision_path(rows).toarray()
    value = np.where(leaf, said, came.T @ said[grown.apply(rows)] / came.sum(0))
    return Tree(
        case,
        tuple(np.where(leaf, -1, grown.feature).tolist()), tuple(np.where(leaf, 0.0, grown.threshold).tolist()),
        tuple(grown.children_left.tolist()), tuple(grown.children_right.tolist()),
        tuple(float(f"{number:.6g}") for number in value),
    )  # fmt: skip


def _cases(examples: Sequence[Example]) -> set[str]:
    return {example.case for example in examples if example.features is not None and not example.exact}


def _table(
    examples: Sequence[Example], names: Collection[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return features, a row an example, and cases by their place."""
    cases = _cases(examples)
    if len(cases) < len(CASES):
        raise ValueError(f"the examples show {', '.join(sorted(cases)) or 'no case'}; all of {CASES} are needed")
    described = [(e.features, e.case) for e in examples if e.features is not None and not e.exact]
    values = np.array([[features[name] for name in names] for features, _ in described])
    return values, np.array([CASES.index(case) for _, case in described])
