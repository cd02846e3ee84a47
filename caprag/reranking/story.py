"""Where captions stand in a story: a corpus that is a script has an order, and captions follow it.

A hidden Markov model whose states are the places of sentences in their files. A caption shows the sentence at a place,
or it shows none of the corpus: then the place is kept in mind, or nothing is known of one. What the captions before and
behind say of a caption's place is worked out by a forward and a backward pass. Knows places and evidence, no texts.

References
----------
Rabiner, A tutorial on hidden Markov models and selected applications in speech recognition, Proc. IEEE 77(2), 1989.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Place = tuple[str, int]
"""A file, and the line, caption or row in it."""

Evidence = Sequence[Mapping[Place, float]]
"""For each caption, by place: ln p(reading | the sentence there) - ln p(reading | a sentence that the corpus lacks), in
nats."""

MOST = 12.0
"""What the neighbours can say at most, in nats, either way."""

_BACK, _ON = 3, 8
"""Lines that a step of the story goes back and on at most."""
_STEPS = {*range(-_BACK, 0), *range(1, _ON + 1)}
_KEPT = 24
"""Places kept in mind from one caption to the next."""
_LEAST = 1e-300
"""Least probability whose logarithm is taken; far beyond what `MOST` lets through."""

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StoryModel:
    """How a story goes on.

    Attributes
    ----------
    steps
        Lines from one place to the next, from -3 to 8 without 0, and how often; adds up to 1. That a sentence stands
        where it stood says nothing: what comes twice does so in any programme.
    absent
        Probability that a caption in the middle of a story is none of its sentences, in (0, 1).
    jump
        That the next one stands anywhere in the corpus, in (0, 1).
    leave
        That the story is left, in (0, 1).
    enter
        That one begins where none was known, in (0, 1).

    Raises
    ------
    ValueError
        For what is no probability, or adds up to more than 1.
    """

    steps: Mapping[int, float]
    absent: float
    jump: float
    leave: float
    enter: float

    def __post_init__(self) -> None:
        for name in ("absent", "jump", "leave", "enter"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.absent + self.jump + self.leave >= 1:
            raise ValueError(f"absent, jump and leave add up to {self.absent + self.jump + self.leave}, not below 1")
        if not set(self.steps) <= _STEPS or min(self.steps.values(), default=-1) < 0:
            raise ValueError(f"steps is {dict(self.steps)}; wanted are probabilities of {sorted(_STEPS)}")
        if abs(sum(self.steps.values()) - 1) > 1e-6:
            raise ValueError(f"steps add up to {sum(self.steps.values())}, not 1")


def fit_story(episodes: Sequence[Sequence[Place | None]]) -> StoryModel:
    """Count how stories go on; a caption that stands where the one before does is passed over.

    Parameters
    ----------
    episodes
        For each episode the place of each caption, in order; ``None`` where the corpus lacks it.

    Returns
    -------
    StoryModel
        Each count begins at what scripts of unknown making may do, so that nothing is impossible.
    """
    steps: Counter[int] = Counter()
    absent = jumps = leaves = inside = entered = outside = 0
    for episode in episodes:
        last: Place | None = None
        for place in episode:
            if last is None:
                outside += 1
                entered += place is not None
            elif place is None:
                inside += 1
                absent += 1
            else:
                inside += 1
                step = place[1] - last[1]
                if place[0] == last[0] and step in _STEPS:
                    steps[step] += 1
                else:
                    jumps += place != last
            last = place or last
    # A script that was typed by others: lines joined, split, left out, said twice.
    prior = {step: 2.0 * 0.5 ** abs(step - 1) for step in sorted(_STEPS)}
    prior[1] = 20.0
    total = sum(steps.values()) + sum(prior.values())
    return StoryModel(
        steps={step: (steps[step] + prior[step]) / total for step in prior},
        absent=(absent + 5) / (inside + 100), jump=(jumps + 1) / (inside + 100), leave=(leaves + 0.2) / (inside + 100),
        enter=(entered + 1) / (outside + 100),
    )  # fmt: skip


def neighbours_say(
    evidence: Evidence, sentences: int, model: StoryModel, first: int = 0, last: int | None = None
) -> list[dict[Place, float]]:
    """Work out what the other captions say of each caption's places.

    Parameters
    ----------
    evidence
        Of the captions of an episode, in order, at most 300 nats each. A caption without an entry has nothing near it
        in the corpus.
    sentences
        Of the corpus, >= 1.
    model
        How stories go on.
    first, last
        Captions that are asked for: from the one, up to and without the other.

    Returns
    -------
    list of dict
        For each caption that was asked for, by place: the log odds, in nats, that it stands there rather than that the
        corpus lacks it, by its neighbours alone, less what they were if nothing was known (even odds, any sentence); at
        most `MOST` either way.

    Raises
    ------
    ValueError
        For a corpus without a sentence.
    """
    if sentences < 1:
        raise ValueError(f"sentences is {sentences}; at least 1 is needed")
    if not evidence:
        return []
    stages = _stages(evidence, sentences, model)
    asked = range(first, len(stages) if last is None else last)
    said: list[dict[Place, float]] = [{} for _ in asked]
    back: Floats = np.ones(1 + len(stages[-1].places) + stages[-1].kept.size)
    for number in range(len(stages) - 1, first - 1, -1):
        stage = stages[number]
        if number in asked:
            said[number - first] = _odds(stage, stage.expected * back, sentences)
        back = stage.steps.backward(back * stage.evidence)
    return said


def _odds(stage: _Stage, told: Floats, sentences: int) -> dict[Place, float]:
    """Return what p of each state says of a caption's places, in nats."""
    count = len(stage.places)
    # Without knowledge: a half that the corpus lacks it, a half shared by all its sentences.
    known = math.log(told[0] + told[1 + count :].sum()) - math.log(sentences)
    odds = np.log(np.maximum(told[1 : 1 + count], _LEAST)) - known
    return dict(zip(stage.places, np.clip(odds, -MOST, MOST).tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class _Steps:
    """How likely each state follows each of the caption before, but for constants.

    Attributes
    ----------
    model, sentences
        The constants.
    near
        Shape (places before, places), how likely a story goes from one to the other by a step.
    same
        Shape (places before, places kept in mind), 1 where they are one.
    """

    model: StoryModel
    sentences: int
    near: Floats
    same: Floats

    def forward(self, reached: Floats) -> Floats:
        """Return p of each state, from p of those before."""
        model, count, lost, inside = self.model, self.near.shape[1], float(reached[0]), reached[1:]
        known = float(inside.sum())
        told = np.empty(1 + count + self.same.shape[1])
        told[0] = (1 - model.enter) * lost + model.leave * known
        told[1 : 1 + count] = _goes_on(model) * (inside @ self.near)
        told[1 : 1 + count] += (model.enter * lost + model.jump * known) / self.sentences
        told[1 + count :] = model.absent * (inside @ self.same)
        return told

    def backward(self, ahead: Floats) -> Floats:
        """Return p of what comes, from each of the states before, up to a constant."""
        model, (_, count) = self.model, self.near.shape
        lost, places, kept = float(ahead[0]), ahead[1 : 1 + count], ahead[1 + count :]
        anywhere = float(places.sum()) / self.sentences
        told = np.empty(1 + len(self.near))
        told[0] = (1 - model.enter) * lost + model.enter * anywhere
        told[1:] = _goes_on(model) * (self.near @ places) + model.absent * (self.same @ kept)
        told[1:] += model.leave * lost + model.jump * anywhere
        told /= told.max()
        return told


def _goes_on(model: StoryModel) -> float:
    return 1 - model.absent - model.jump - model.leave


@dataclass(frozen=True, slots=True)
class _Stage:
    """A caption's states: lost; at a place that it has evidence for; absent, with a place kept in mind.

    Attributes
    ----------
    places
        Those it has evidence for, sorted.
    kept
        Those kept in mind, by number.
    evidence
        p of the caption in each state, over that in one that the corpus lacks.
    steps
        From the states of the caption before.
    expected
        p of each state by what came before, up to a constant.
    """

    places: Sequence[Place]
    kept: Numbers
    evidence: Floats
    steps: _Steps
    expected: Floats


def _stages(evidence: Evidence, sentences: int, model: StoryModel) -> list[_Stage]:
    """Go forward through the captions."""
    zero = _zeros(evidence)
    chances = np.array([0.0, *(model.steps.get(step, 0.0) for step in range(-_BACK, _ON + 1)), 0.0])
    stages: list[_Stage] = []
    pointers, reached = np.zeros(0, np.int64), np.ones(1)
    for found in evidence:
        places = sorted(found)
        numbers = np.array([zero[name] + line for name, line in places], np.int64)
        kept = _likeliest(pointers, reached[1:])
        apart = numbers - (pointers - (_BACK + 1))[:, None]
        near = chances[np.minimum(np.maximum(apart, 0, out=apart), len(chances) - 1, out=apart)]
        steps = _Steps(model, sentences, near, (pointers[:, None] == kept).astype(float))
        expected = steps.forward(reached) if stages else np.array([0.5, *[0.5 / sentences] * len(places)])
        weights = np.ones(len(expected))
        weights[1 : 1 + len(places)] = np.exp([found[place] for place in places])
        stages.append(_Stage(places, kept, weights, steps, expected))
        reached = expected * weights
        reached = reached / reached.max()
        pointers = np.concatenate([numbers, kept])
    return stages


def _zeros(evidence: Evidence) -> dict[str, int]:
    """Return for each file the number of its line 0, such that places are numbered in order, from 0 on.

    Between two files there is more than a step.
    """
    ends: dict[str, tuple[int, int]] = {}
    for name, line in (place for found in evidence for place in found):
        low, high = ends.get(name, (line, line))
        ends[name] = min(low, line), max(high, line)
    zero, start = {}, 0
    for name, (low, high) in sorted(ends.items()):
        zero[name] = start - low
        start += high - low + _BACK + _ON + 1
    return zero


def _likeliest(pointers: Numbers, chances: Floats) -> Numbers:
    """Return the places to be kept in mind, each once, those of the greatest probability."""
    ranked = pointers[np.lexsort((pointers, -chances))]
    by_place = ranked.argsort(kind="stable")
    # The first of each place is its likeliest.
    first = by_place[np.diff(ranked[by_place], prepend=-1) > 0]
    first.sort()
    kept = ranked[first[:_KEPT]]
    kept.sort()
    return kept
