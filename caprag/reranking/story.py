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
_HALF = math.log(0.5)

Floats = npt.NDArray[np.float64]


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


def neighbours_say(evidence: Evidence, sentences: int, model: StoryModel) -> list[dict[Place, float]]:
    """Work out what the other captions say of each caption's places.

    Parameters
    ----------
    evidence
        Of the captions of an episode, in order. A caption without an entry has nothing near it in the corpus.
    sentences
        Of the corpus, >= 1.
    model
        How stories go on.

    Returns
    -------
    list of dict
        For each caption, by place: the log odds, in nats, that it stands there rather than that the corpus lacks it, by
        its neighbours alone, less what they were if nothing was known (even odds, any sentence); at most `MOST` either
        way.

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
    back: Floats = np.zeros(1 + len(stages[-1].places) + len(stages[-1].kept))
    said: list[dict[Place, float]] = [{} for _ in evidence]
    for number in range(len(stages) - 1, -1, -1):
        stage = stages[number]
        count = len(stage.places)
        told = stage.expected + back
        absent = _logsum(np.concatenate([told[:1], told[1 + count :]]))
        # Without knowledge: a half that the corpus lacks it, a half shared by all its sentences.
        known = absent - math.log(sentences)
        for i, place in enumerate(stage.places):
            said[number][place] = float(np.clip(told[1 + i] - known, -MOST, MOST))
        if number:
            ahead = back + stage.evidence
            back = _logsum_rows(stage.transitions + ahead[None, :])
            back = back - back.max()
    return said


@dataclass(frozen=True, slots=True)
class _Stage:
    """A caption's states: lost; at a place that it has evidence for; absent, with a place kept in mind."""

    places: tuple[Place, ...]
    kept: tuple[Place, ...]
    evidence: Floats
    transitions: Floats
    """From the states of the stage before, ln p."""
    expected: Floats
    """ln p of each state by what came before, up to a constant."""


def _stages(evidence: Evidence, sentences: int, model: StoryModel) -> list[_Stage]:
    """Go forward through the captions."""
    start = _Stage((), (), np.zeros(1), np.zeros((0, 1)), np.zeros(1))
    stages: list[_Stage] = []
    before, reached = start, np.zeros(1)
    for number, found in enumerate(evidence):
        places = tuple(sorted(found))
        pointers = (*before.places, *before.kept)
        kept = _likeliest(pointers, reached[1:])
        weights = np.concatenate([[0.0], [found[place] for place in places], np.zeros(len(kept))])
        if number:
            transitions = _transitions(pointers, places, kept, sentences, model)
            expected = _logsum_rows((transitions + reached[:, None]).T)
        else:
            transitions = np.zeros((0, len(weights)))
            expected = np.concatenate([[_HALF], np.full(len(places), _HALF - math.log(sentences))])
        stage = _Stage(places, kept, weights, transitions, expected)
        reached = expected + weights
        reached = reached - reached.max()
        stages.append(stage)
        before = stage
    return stages


def _likeliest(pointers: Sequence[Place], scores: Floats) -> tuple[Place, ...]:
    """Return the places to be kept in mind, each once, those of the greatest probability."""
    best: dict[Place, float] = {}
    for place, score in zip(pointers, scores.tolist(), strict=True):
        best[place] = max(best.get(place, -math.inf), score)
    return tuple(sorted(sorted(best, key=lambda place: (-best[place], place))[:_KEPT]))


def _transitions(
    pointers: Sequence[Place], places: Sequence[Place], kept: Sequence[Place], sentences: int, model: StoryModel
) -> Floats:
    """Return ln p of each state after each state of the stage before."""
    table = np.full((1 + len(pointers), 1 + len(places) + len(kept)), -math.inf)
    table[0, 0] = math.log1p(-model.enter)
    table[0, 1 : 1 + len(places)] = math.log(model.enter / sentences)
    if pointers:
        goes_on = 1 - model.absent - model.jump - model.leave
        table[1:, 0] = math.log(model.leave)
        names = {name: i for i, name in enumerate(sorted({place[0] for place in (*pointers, *places, *kept)}))}
        source, line = _columns(pointers, names)
        other_source, other_line = _columns(places, names)
        step = other_line[None, :] - line[:, None]
        near = (source[:, None] == other_source[None, :]) & (step >= -_BACK) & (step <= _ON)
        known = np.array([model.steps.get(one, 0.0) for one in range(-_BACK, _ON + 1)])
        chance = np.where(near, known[np.clip(step + _BACK, 0, _BACK + _ON)], 0.0)
        table[1:, 1 : 1 + len(places)] = np.log(goes_on * chance + model.jump / sentences)
        source_kept, line_kept = _columns(kept, names)
        same = (source[:, None] == source_kept[None, :]) & (line[:, None] == line_kept[None, :])
        table[1:, 1 + len(places) :] = np.where(same, math.log(model.absent), -math.inf)
    return table


def _columns(places: Sequence[Place], names: Mapping[str, int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.array([names[s] for s, _ in places], np.int64), np.array([line for _, line in places], np.int64)


def _logsum(values: Floats) -> float:
    top = float(values.max())
    return top if math.isinf(top) else top + math.log(float(np.exp(values - top).sum()))


def _logsum_rows(table: Floats) -> Floats:
    top = table.max(1)
    safe = np.where(np.isinf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        summed: Floats = safe + np.log(np.exp(table - safe[:, None]).sum(1))
    return summed
