"""What features say for a sentence and for a reading: weighted sums, or trees. Knows features by name, no texts."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

CASES = ("neither", "keep", "snap")
"""Which answer is right: none, the reading, the sentence."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A weighted sum.

    Attributes
    ----------
    snap, keep
        Weight of each feature for "the sentence is right" and "the reading is right", against "neither is".
    snap_bias, keep_bias
        Constant of each.
    """

    snap: Mapping[str, float]
    keep: Mapping[str, float]
    snap_bias: float
    keep_bias: float

    def __post_init__(self) -> None:
        for name, weights in (("snap", self.snap), ("keep", self.keep)):
            if not all(math.isfinite(weight) for weight in weights.values()):
                raise ValueError(f"{name} has a weight that is not finite; fit it again")
        if not math.isfinite(self.snap_bias) or not math.isfinite(self.keep_bias):
            raise ValueError(f"snap_bias is {self.snap_bias} and keep_bias is {self.keep_bias}; both must be finite")

    def check(self, names: Iterable[str]) -> None:
        """Raise ValueError where the weights are not of these features, in this order."""
        for name, weights in (("snap", self.snap), ("keep", self.keep)):
            if list(weights) != list(names):
                raise ValueError(f"{name} weighs {', '.join(weights)}; the features are {', '.join(names)}")

    def log_odds(self, features: Mapping[str, float]) -> tuple[float, float]:
        """Return the log odds that the sentence and that the reading is right, each against neither, in nats."""
        snap = self.snap_bias + sum(self.snap[name] * value for name, value in features.items())
        keep = self.keep_bias + sum(self.keep[name] * value for name, value in features.items())
        return snap, keep

    def shares(self, features: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Return what each feature adds to the log odds, in nats; what is there without any is called ``bias``."""
        said = {name: (self.snap[name] * value, self.keep[name] * value) for name, value in features.items()}
        return {"bias": (self.snap_bias, self.keep_bias), **said}


@dataclass(frozen=True, slots=True)
class Tree:
    """A binary tree, its nodes in a list; the first is the root.

    Attributes
    ----------
    case
        Place among `CASES` of what it speaks for.
    feature
        Place of the feature that a node asks for; -1 in a leaf.
    limit
        Up to which the feature's value, rounded to single precision, leads to the left.
    left, right
        Nodes that a node leads to, behind it; -1 in a leaf.
    value
        What it says, in nats; in a node that is no leaf the mean over the examples that came by.
    """

    case: int
    feature: Sequence[int]
    limit: Sequence[float]
    left: Sequence[int]
    right: Sequence[int]
    value: Sequence[float]

    def check(self, features: int) -> None:
        """Raise ValueError or TypeError where a walk would not end, or ask for what there is not."""
        count = len(self.value)
        array("q", (self.case, *self.feature, *self.left, *self.right))  # raises TypeError for all but whole numbers
        if not 0 <= self.case < len(CASES) or not count:
            raise ValueError(f"a tree speaks for case {self.case} by {count} nodes; fit it again")
        if {len(self.feature), len(self.limit), len(self.left), len(self.right)} != {count}:
            raise ValueError(f"a tree of {count} nodes has lists of another length; fit it again")
        if not all(map(math.isfinite, (*self.value, *self.limit))):
            raise ValueError("a tree has a number that is not finite; fit it again")
        for node, (feature, *ways) in enumerate(zip(self.feature, self.left, self.right, strict=True)):
            leaf, inner = (feature, *ways) == (-1, -1, -1), 0 <= feature < features
            if not leaf and not (inner and all(node < way < count for way in ways)):
                raise ValueError(f"node {node} of a tree leads nowhere; fit it again")


@dataclass(frozen=True)
class Trees:
    """A sum over trees.

    Attributes
    ----------
    names
        Of the features, in the order in which trees ask for them.
    bias
        What is said for each of `CASES` without a tree, in nats.
    trees
        Each for one case.

    References
    ----------
    Friedman, Greedy function approximation: a gradient boosting machine, Annals of Statistics 29 (2001), 1189-1232.
    What a feature says, by the steps of a walk: Saabas's decomposition, as in Lundberg et al., Nature Machine
    Intelligence 2 (2020), 56-67.
    """

    names: Sequence[str]
    bias: Sequence[float]
    trees: Sequence[Tree]

    def __post_init__(self) -> None:
        if len(self.bias) != len(CASES) or not all(map(math.isfinite, self.bias)):
            raise ValueError(f"bias is {self.bias}; wanted is a finite number for each of {', '.join(CASES)}")
        for tree in self.trees:
            tree.check(len(self.names))

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Trees:
        """Return what `dataclasses.asdict` made of trees, after a way through JSON."""
        if not isinstance(stored["trees"], list):
            raise TypeError(f"trees is a {type(stored['trees']).__name__}; wanted is a list")
        trees: Iterable[dict[str, Any]] = (
            {name: tuple(value) if isinstance(value, list) else value for name, value in tree.items()}
            for tree in stored["trees"]
        )
        return cls(
            **{**{name: tuple(value) for name, value in stored.items()}, "trees": tuple(Tree(**tree) for tree in trees)}
        )

    @cached_property
    def _nodes(self) -> list[tuple[int, list[tuple[int, float, int, int, float]]]]:
        """Each tree's case and nodes, one behind the other."""
        return [
            (tree.case, list(zip(tree.feature, tree.limit, tree.left, tree.right, tree.value, strict=True)))
            for tree in self.trees
        ]

    def check(self, names: Iterable[str]) -> None:
        """Raise ValueError where the trees do not ask for these features, in this order."""
        if list(self.names) != list(names):
            raise ValueError(f"trees ask for {', '.join(self.names)}; the features are {', '.join(names)}")

    def log_odds(self, features: Mapping[str, float]) -> tuple[float, float]:
        """Return the log odds that the sentence and that the reading is right, each against neither, in nats."""
        row, said = self._row(features), list(self.bias)
        for case, nodes in self._nodes:
            feature, limit, left, right, value = nodes[0]
            while feature >= 0:
                feature, limit, left, right, value = nodes[left if row[feature] <= limit else right]
            said[case] += value
        return said[2] - said[0], said[1] - said[0]

    def shares(self, features: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Return what each feature adds to the log odds, in nats; what is there without any is called ``bias``."""
        row = self._row(features)
        base = list(self.bias)
        said = [[0.0] * len(CASES) for _ in self.names]
        for case, nodes in self._nodes:
            feature, limit, left, right, value = nodes[0]
            base[case] += value
            while feature >= 0:
                asked, before = feature, value
                feature, limit, left, right, value = nodes[left if row[feature] <= limit else right]
                said[asked][case] += value - before
        told = {"bias": base, **dict(zip(self.names, said, strict=True))}
        return {name: (cases[2] - cases[0], cases[1] - cases[0]) for name, cases in told.items()}

    def _row(self, features: Mapping[str, float]) -> array[float]:
        # In single precision, in which the limits were found.
        return array("f", [features[name] for name in self.names])


W = TypeVar("W", bound=Linear | Trees)
