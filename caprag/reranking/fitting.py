"""Fits the decision on readings with truth.

Wants examples both with the true sentence among the hits and with it taken out of the corpus on purpose: without the
second kind the weights would learn to snap always.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from caprag.reranking.confusions import confusion_sources
from caprag.reranking.decision import Decision
from caprag.reranking.examples import Episode, Example
from caprag.reranking.features import FEATURES, IN_ORDER, regional
from caprag.reranking.learners import fit_linear, fit_surety, fit_trees, shows_all
from caprag.reranking.reranker import InOrder, Reranker
from caprag.reranking.story import fit_story
from caprag.reranking.weights import Linear, Trees, W

ENOUGH_FOR_TREES = 1000
"""Examples of pictures from which on trees weigh them; fewer would be learnt by heart."""

_FOLDS = 5
"""Parts that examples without groups are counted in."""


def listener() -> Reranker:
    """Return a reranker of no opinion, with which captions hear each other: to find what a decision is fitted on."""
    return Reranker(_mute(FEATURES), 0.5, order=InOrder(fit_story([]), _mute(IN_ORDER)))


def _mute(names: Collection[str]) -> Decision[Linear]:
    return Decision(Linear(dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0), 0.0, 0.0))


def fit_reranker(
    examples: Sequence[Example],
    *,
    episodes: Sequence[Episode] = (),
    risk: float = 0.002,
    penalty: float = 1.0,
    seed: int = 0,
    uncounted: Sequence[str] = (),
    provenance: Mapping[str, object] | None = None,
) -> Reranker:
    """Fit a reranker.

    Parameters
    ----------
    examples
        Readings with and without their sentence in the corpus.
    episodes
        Captions in their order, of scripts that are in the corpus and of others; without any, each caption is decided
        by itself.
    risk
        Share of lines that may be harmed where the corpus lacks them, in (0, 1); what so few examples can vouch for if
        that is more. See `Reranker.at_risk`.
    penalty
        Strength of the L2 penalty on standardised weights, > 0.
    seed
        Of the order in which each episode is shown once more, so that an order that means nothing is known, too; and of
        trees.
    uncounted
        Sources of counted misreadings that must not be heard (`caprag.reranking.confusions`): what a test is made of.
        For how sure kept readings are an example's own group never is. What the examples themselves were described
        with is their maker's business (`Episode.of`).
    provenance
        What the examples are, stored with the weights.

    Returns
    -------
    Reranker
        Weights for the features as they are (the standardisation is folded in); trees for those of pictures, from
        `ENOUGH_FOR_TREES` examples of them on.

    Raises
    ------
    ValueError
        Where the examples do not show all three cases, or for a penalty or risk out of range.
    MissingDependencyError
        Where scikit-learn is not installed.
    """
    if unknown := sorted(set(uncounted) - set(confusion_sources())):
        raise ValueError(f"uncounted names {unknown[0]!r}; counted are {', '.join(confusion_sources())}")
    if not penalty > 0:
        raise ValueError(f"penalty is {penalty}; it must be above 0")
    exact = [e.candidate_right for e in examples if e.exact]
    # As they are decided: what differs from a sentence by region alone is weighed as a text.
    judged = [example for example in examples if example.judged and not _by_text(example)]
    read = [example for example in examples if not example.judged]
    # Where there are too few of a kind, both have the weights of all.
    apart = shows_all(judged) and shows_all(read)
    summed = partial(fit_linear, names=FEATURES, penalty=penalty)
    line, by_line = _fit_decision(read if apart else examples, summed, risk)
    picture: Decision[Linear | Trees] | None = None
    if apart and len(judged) >= ENOUGH_FOR_TREES:
        picture, _ = _fit_decision(judged, partial(fit_trees, names=FEATURES, seed=seed), risk)
    elif apart:
        picture, _ = _fit_decision(judged, summed, risk)
    blank = [example.reading_right for example in read if example.features is None]
    alone = Reranker(
        line, (sum(exact) + 1) / (len(exact) + 2), picture=picture, unmatched=(sum(blank) + 1) / (len(blank) + 2),
        uncounted=tuple(uncounted), provenance=dict(provenance or {}),
    )  # fmt: skip
    if not episodes:
        return replace(alone, surety=fit_surety(by_line, uncounted))
    whole, _ = _listening(alone, episodes, penalty, seed)
    groups = sorted({episode.group for episode in episodes})
    weighed: list[tuple[Example, Decision[Linear]]] = []
    for group in groups:
        inside = [episode for episode in episodes if episode.group == group]
        hearing = whole
        if len(groups) > 1:
            # All that was fitted, the line and the story too, without the group that it is counted on.
            others = [example for example in (read if apart else examples) if example.group != group]
            fitted = replace(alone, line=Decision(summed(others))) if shows_all(others) else alone
            rest = [episode for episode in episodes if episode.group != group]
            hearing, told = _listening(fitted, rest, penalty, seed)
            hearing = hearing if shows_all(told) else whole
        by = hearing.order.decision if hearing.order is not None else line
        weighed += [(example, by) for episode in inside for example in episode.examples(hearing)]
    whole = replace(whole, surety=fit_surety([*by_line, *weighed], uncounted))
    if whole.order is None:
        return whole
    return replace(whole, order=replace(whole.order, decision=counted(whole.order.decision, weighed, risk)))


def _listening(
    alone: Reranker, episodes: Sequence[Episode], penalty: float, seed: int
) -> tuple[Reranker, list[Example]]:
    """Fit how stories go on, and what the neighbours' word weighs; also return what that was fitted on."""
    model = fit_story([episode.way() for episode in episodes])
    # To hear the neighbours no weights are needed.
    hearing = replace(alone, order=InOrder(model, _mute(IN_ORDER)))
    shuffled = [episode.shuffled(seed + number) for number, episode in enumerate(episodes)]
    told = [example for episode in (*episodes, *shuffled) for example in episode.examples(hearing)]
    if not shows_all(told):
        return hearing, told
    return replace(alone, order=InOrder(model, Decision(fit_linear(told, IN_ORDER, penalty)))), told


def _by_text(example: Example) -> bool:
    return example.features is not None and not example.exact and regional(example.features)


def _fit_decision(
    examples: Sequence[Example], fit: Callable[[Sequence[Example]], W], risk: float
) -> tuple[Decision[W], list[tuple[Example, Decision[W]]]]:
    """Fit weights, and count what they would harm; also return each example with weights fitted without it."""
    if not 0 < risk < 1:
        raise ValueError(f"risk is {risk}; it must lie between 0 and 1")
    decision = Decision(fit(examples))
    groups = [example.group for example in examples]
    if not all(shows_all([e for e in examples if e.group != group]) for group in set(groups)):
        groups = [str(place % _FOLDS) for place in range(len(examples))]
    judged: list[tuple[Example, Decision[W]]] = []
    for group in sorted(set(groups)):
        inside = [example for example, one in zip(examples, groups, strict=True) if one == group]
        others = [example for example, one in zip(examples, groups, strict=True) if one != group]
        fitted = Decision(fit(others)) if shows_all(others) else decision
        judged += [(example, fitted) for example in inside]
    return counted(decision, judged, risk), judged


def counted(decision: Decision[W], judged: Sequence[tuple[Example, Decision[W]]], risk: float) -> Decision[W]:
    """Count what a decision would harm, and set its threshold.

    Parameters
    ----------
    decision
        What is counted for.
    judged
        Examples, each with the decision that it is judged by: one fitted without it. Those whose sentence the corpus
        has are passed over, unless all are of that kind.
    risk
        Share of lines that may be harmed, in (0, 1); what so few lines can vouch for if that is more.
    """
    if not 0 < risk < 1:
        raise ValueError(f"risk is {risk}; it must lie between 0 and 1")
    unknown = [pair for pair in judged if not pair[0].known] or list(judged)
    chances = [
        by.probabilities(example.features)[0]
        for example, by in unknown
        if example.features is not None and not example.exact and example.case == "keep"
    ]
    harmful = tuple(sorted((chance for chance in chances if chance >= 0.5), reverse=True))
    lines = len(unknown)
    return replace(decision, lines=lines, harmful=harmful).at_risk(max(risk, 1 / (lines + 1)))
