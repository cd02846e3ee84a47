"""Fits the decision's weights on readings with truth.

Wants examples both with the true sentence among the hits and with it taken out of the corpus on purpose: without the
second kind the weights would learn to snap always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from caprag.errors import require
from caprag.glyphs import GlyphTable
from caprag.reranking.chooser import Chooser, Places
from caprag.reranking.decision import Decision
from caprag.reranking.features import FEATURES, IN_ORDER, Candidate, candidates
from caprag.reranking.reranker import Found, InOrder, Reranker
from caprag.reranking.story import Place, fit_story
from caprag.text import countable
from caprag.types import Hypothesis

_CLASSES = ("neither", "keep", "snap")
_FOLDS = 5
"""Parts that examples without groups are counted in."""


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
    known
        Whether the corpus has the sentence. Risks are counted on examples of which it has been taken out.
    group
        What it is of, a film say: risks are counted on each group by weights that were fitted on the others.
    judged
        Whether the recognizer has scored the candidate for a picture: such examples have weights of their own.
    """

    features: Mapping[str, float] | None
    exact: bool
    reading_right: bool
    candidate_right: bool
    known: bool = True
    group: str = ""
    judged: bool = False

    @classmethod
    def of(
        cls,
        reading: Hypothesis,
        candidate: Candidate | None,
        truth: str,
        *,
        known: bool = True,
        group: str = "",
        judged: bool = False,
    ) -> Example:
        """Describe one reading, its best candidate, and whether each is right.

        `judged` is for readings without a candidate; a candidate knows it.
        """
        wanted = countable(truth)
        read_right = countable(reading.text) == wanted
        if candidate is None:
            return cls(None, False, read_right, False, known, group, judged)
        right = countable(candidate.hit.text) == wanted
        return cls(candidate.features, candidate.exact, read_right, right, known, group, candidate.judged)

    @property
    def case(self) -> str:
        """Which answer is right: ``"snap"``, ``"keep"`` or ``"neither"``."""
        return "snap" if self.candidate_right else "keep" if self.reading_right else "neither"


@dataclass(frozen=True, slots=True)
class Episode:
    """Captions in their order, whose truth is known.

    Attributes
    ----------
    readings
        What was read.
    truths
        What they say.
    described
        The candidates of each.
    places
        For each, where its candidates' sentences stand.
    sentences
        Of the corpus.
    known
        Whether the corpus has the script.
    group
        What it is of; see `Example`.
    """

    readings: Sequence[Hypothesis]
    truths: Sequence[str]
    described: Sequence[Sequence[Candidate]]
    places: Sequence[Places]
    sentences: int
    known: bool = True
    group: str = ""

    @classmethod
    def of(
        cls, found: Sequence[Found], truths: Sequence[str], frequency: Callable[[str], int], *, sentences: int,
        known: bool = True, group: str = "",
    ) -> Episode:  # fmt: skip
        """Describe captions as they are described where they are decided.

        Parameters
        ----------
        found
            What is known of each, as `caprag.Pipeline.found_for` yields it.
        truths, sentences, known, group
            See `Episode`.
        frequency
            See `Reranker.rerank_batch`.
        """
        glyphs = GlyphTable.load()
        described = [
            candidates(one.hypotheses[0], one.hits, frequency, glyphs, one.margins, cross=one.cross) for one in found
        ]
        readings = [one.hypotheses[0] for one in found]
        return cls(readings, truths, described, [one.places for one in found], sentences, known, group)

    def shuffled(self, seed: int) -> Episode:
        """Return the same captions in an order drawn by chance."""
        order = np.random.default_rng(seed).permutation(len(self.readings)).tolist()
        return Episode(
            [self.readings[i] for i in order], [self.truths[i] for i in order], [self.described[i] for i in order],
            [self.places[i] for i in order], self.sentences, self.known, self.group,
        )  # fmt: skip

    def way(self) -> list[Place | None]:
        """Return where each caption's sentence stands in the file of most of them; nowhere in an unknown script.

        Of several places it is the one that is nearest to where the story was.
        """
        right: list[set[Place]] = []
        for truth, row, places in zip(self.truths, self.described, self.places, strict=True):
            wanted = countable(truth)
            fitting = [places.get(one.hit.id, ()) for one in row if countable(one.hit.text) == wanted]
            right.append({place for several in fitting for place in several})
        files = Counter(file for spots in right for file in sorted({file for file, _ in spots}))
        # What the corpus has of a script that it lacks is there by chance.
        home = files.most_common(1)[0][0] if files and self.known else None
        found: list[Place | None] = []
        next_line = 1
        for spots in right:
            lines = [line for file, line in spots if file == home]
            line = min(lines, key=lambda line: (abs(line - next_line), line), default=None)
            found.append((home, line) if home is not None and line is not None else None)
            next_line = next_line if line is None else line + 1
        return found

    def line_examples(self) -> list[Example]:
        """Describe each reading and its likeliest sentence by itself."""
        rows = zip(self.readings, self.described, self.truths, strict=True)
        return [
            Example.of(read, next(iter(found), None), truth, known=self.known, group=self.group)
            for read, found, truth in rows
        ]

    def examples(self, reranker: Reranker) -> list[Example]:
        """Describe each reading and its likeliest sentence by what speaks for it among its neighbours.

        Parameters
        ----------
        reranker
            One that knows an order; its weights for it are not asked.
        """
        chooser = Chooser(reranker, self.sentences)
        texts = [reading.text for reading in self.readings]
        pushed = [chooser.push(*row) for row in zip(texts, self.described, self.places, strict=True)]
        chosen = [one for several in (*pushed, chooser.finish()) for one in several]
        examples = []
        for reading, one, truth in zip(self.readings, chosen, self.truths, strict=True):
            heard = one if one is not None and one.story is not None else None
            candidate = heard.candidate if heard is not None else None
            example = Example.of(reading, candidate, truth, known=self.known, group=self.group)
            examples.append(replace(example, features=reranker.among(heard)) if heard is not None else example)
        return examples


def listener() -> Reranker:
    """Return a reranker of no opinion, with which captions hear each other: to find what a decision is fitted on."""
    by_line = Decision(dict.fromkeys(FEATURES, 0.0), dict.fromkeys(FEATURES, 0.0), 0.0, 0.0)
    return Reranker(by_line, 0.5, order=InOrder(fit_story([]), _deaf()))


def _deaf() -> Decision:
    return Decision(dict.fromkeys(IN_ORDER, 0.0), dict.fromkeys(IN_ORDER, 0.0), 0.0, 0.0)


def fit_reranker(
    examples: Sequence[Example],
    *,
    episodes: Sequence[Episode] = (),
    risk: float = 0.002,
    penalty: float = 1.0,
    seed: int = 0,
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
        Of the order in which each episode is shown once more, so that an order that means nothing is known, too.
    provenance
        What the examples are, stored with the weights.

    Returns
    -------
    Reranker
        Weights for the features as they are (the standardisation is folded in).

    Raises
    ------
    ValueError
        Where the examples do not show all three cases, or for a penalty or risk out of range.
    MissingDependencyError
        Where scikit-learn is not installed.

    References
    ----------
    Multinomial logistic regression as in Hastie, Tibshirani and Friedman, The Elements of Statistical Learning, 4.4.
    """
    if not penalty > 0:
        raise ValueError(f"penalty is {penalty}; it must be above 0")
    exact = [e.candidate_right for e in examples if e.exact]
    judged = [example for example in examples if example.judged]
    read = [example for example in examples if not example.judged]
    # Where there are too few of a kind, both have the weights of all.
    apart = _shows_all(judged) and _shows_all(read)
    line = _fit_decision(read if apart else examples, FEATURES, penalty, risk)
    picture = _fit_decision(judged, FEATURES, penalty, risk) if apart else None
    blank = [example.reading_right for example in read if example.features is None]
    alone = Reranker(
        line, (sum(exact) + 1) / (len(exact) + 2), picture=picture, unmatched=(sum(blank) + 1) / (len(blank) + 2),
        provenance=dict(provenance or {}),
    )  # fmt: skip
    if not episodes:
        return alone
    whole, _ = _listening(alone, episodes, penalty, seed)
    groups = sorted({episode.group for episode in episodes})
    weighed: list[tuple[Example, Decision]] = []
    for group in groups:
        inside = [episode for episode in episodes if episode.group == group]
        hearing = whole
        if len(groups) > 1:
            # All that was fitted, the line and the story too, without the group that it is counted on.
            others = [example for example in (read if apart else examples) if example.group != group]
            fitted = replace(alone, line=_fit_weights(others, FEATURES, penalty)) if _shows_all(others) else alone
            rest = [episode for episode in episodes if episode.group != group]
            hearing, told = _listening(fitted, rest, penalty, seed)
            hearing = hearing if _shows_all(told) else whole
        by = hearing.order.decision if hearing.order is not None else line
        weighed += [(example, by) for episode in inside for example in episode.examples(hearing)]
    if whole.order is None:
        return alone
    return replace(whole, order=replace(whole.order, decision=counted(whole.order.decision, weighed, risk)))


def _listening(
    alone: Reranker, episodes: Sequence[Episode], penalty: float, seed: int
) -> tuple[Reranker, list[Example]]:
    """Fit how stories go on, and what the neighbours' word weighs; also return what that was fitted on."""
    model = fit_story([episode.way() for episode in episodes])
    # To hear the neighbours no weights are needed.
    hearing = replace(alone, order=InOrder(model, _deaf()))
    shuffled = [episode.shuffled(seed + number) for number, episode in enumerate(episodes)]
    told = [example for episode in (*episodes, *shuffled) for example in episode.examples(hearing)]
    if not _shows_all(told):
        return hearing, told
    return replace(alone, order=InOrder(model, _fit_weights(told, IN_ORDER, penalty))), told


def _fit_decision(examples: Sequence[Example], names: Collection[str], penalty: float, risk: float) -> Decision:
    """Fit weights, and count what they would harm."""
    if not 0 < risk < 1:
        raise ValueError(f"risk is {risk}; it must lie between 0 and 1")
    decision = _fit_weights(examples, names, penalty)
    groups = [example.group for example in examples]
    if len(set(groups)) < 2:
        groups = [str(place % _FOLDS) for place in range(len(examples))]
    judged: list[tuple[Example, Decision]] = []
    for group in sorted(set(groups)):
        inside = [example for example, one in zip(examples, groups, strict=True) if one == group]
        others = [example for example, one in zip(examples, groups, strict=True) if one != group]
        fitted = _fit_weights(others, names, penalty) if _shows_all(others) else decision
        judged += [(example, fitted) for example in inside]
    return counted(decision, judged, risk)


def counted(decision: Decision, judged: Sequence[tuple[Example, Decision]], risk: float) -> Decision:
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


def _shows_all(examples: Sequence[Example]) -> bool:
    return _cases(examples) == set(_CLASSES)


def _cases(examples: Sequence[Example]) -> set[str]:
    return {example.case for example in examples if example.features is not None and not example.exact}


def _fit_weights(examples: Sequence[Example], names: Collection[str], penalty: float) -> Decision:
    linear = require("sklearn.linear_model", "train")
    described = [(e.features, e.case) for e in examples if e.features is not None and not e.exact]
    cases = _cases(examples)
    if len(cases) < len(_CLASSES):
        raise ValueError(f"the examples show {', '.join(sorted(cases)) or 'no case'}; all of {_CLASSES} are needed")
    values = np.array([[features[name] for name in names] for features, _ in described])
    labels = np.array([_CLASSES.index(case) for _, case in described])
    mean, scale = values.mean(0), values.std(0)
    scale[scale == 0] = 1.0
    model = linear.LogisticRegression(C=1.0 / penalty, max_iter=5000).fit((values - mean) / scale, labels)
    weights = model.coef_ / scale
    biases = model.intercept_ - weights @ mean
    # Only differences count: "neither" is the zero that the others are measured from.
    weights, biases = weights - weights[0], biases - biases[0]
    return Decision(
        snap=dict(zip(names, weights[2].tolist(), strict=True)),
        keep=dict(zip(names, weights[1].tolist(), strict=True)),
        snap_bias=float(biases[2]), keep_bias=float(biases[1]),
    )  # fmt: skip
