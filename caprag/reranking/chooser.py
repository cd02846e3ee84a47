"""Chooses sentences for captions that come in order: each with an ear to those before and behind.

A caption is decided when enough of those behind it are known, in blocks: what is chosen for it is the same whether the
captions come at once or one by one. Knows evidence and places, no texts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caprag.reranking.story import Place, neighbours_say
from caprag.text import match_form

if TYPE_CHECKING:
    from caprag.reranking.features import Candidate
    from caprag.reranking.reranker import Reranker

BLOCK, BEFORE, BEHIND = 32, 2, 1
"""Captions that are decided together, and how many such blocks before and behind them are listened to."""

FEWEST = 12
"""Captions from which on their order is listened to."""

_PLACES = 32
"""Of a sentence that stands in many files, so many are thought of: what is said everywhere tells no story."""

_SUREST = 8.0
"""Log odds that a sentence by itself has at most, before its neighbours are heard."""

Places = Mapping[int, Sequence[Place]]
"""Id of a sentence to where it stands."""


def heard_from(position: int) -> int:
    """Return the first caption that has a say in what is chosen for the one at `position`, or a later one.

    Examples
    --------
    >>> heard_from(10), heard_from(100)
    (0, 32)
    """
    return max(0, position // BLOCK - BEFORE) * BLOCK


@dataclass(frozen=True, slots=True)
class Chosen:
    """The likeliest sentence for a caption.

    Attributes
    ----------
    candidate
        The sentence.
    story
        Its log odds by the captions before and behind, in nats, in [-12, 12]; ``None`` where there is no word of them,
        since it stands in no file or there are too few captions.
    """

    candidate: Candidate
    story: float | None


@dataclass(frozen=True, slots=True)
class _Caption:
    reading: str
    candidates: Sequence[Candidate]
    odds: Sequence[float]
    places: Places
    evidence: Mapping[Place, float]


class Chooser:
    """Chooses a sentence for each of the captions of an episode.

    Parameters
    ----------
    reranker
        Says how likely each sentence is by itself, and knows how stories go on.
    sentences
        Of the corpus, >= 1.

    Raises
    ------
    ValueError
        For a reranker that knows no order.
    """

    def __init__(self, reranker: Reranker, sentences: int) -> None:
        if reranker.order is None:
            raise ValueError("this reranker knows no order; fit it on episodes")
        self._reranker, self._model, self._sentences = reranker, reranker.order.model, sentences
        self._captions: list[_Caption] = []
        self._start = 0  # place in the episode of the first caption that is kept
        self._decided = 0

    @property
    def listens(self) -> bool:
        """Whether there are captions enough for their order to mean anything."""
        return self._start + len(self._captions) >= FEWEST

    def push(self, reading: str, candidates: Sequence[Candidate], places: Places) -> list[Chosen | None]:
        """Take the next caption.

        Parameters
        ----------
        reading
            What was read; captions in a row that read alike are one.
        candidates
            Its candidates, the likeliest first.
        places
            Where their sentences stand; none where they came from no file.

        Returns
        -------
        list of Chosen or None
            What is chosen for the captions that are decided now, in order, ``None`` for one without a candidate.
        """
        odds = [self._log_odds(candidate) for candidate in candidates]
        evidence: dict[Place, float] = {}
        for candidate, value in zip(candidates, odds, strict=True):
            for place in places.get(candidate.hit.id, ())[:_PLACES]:
                # Odds among all sentences of the corpus; one place's are so many times as great.
                evidence[place] = max(evidence.get(place, -math.inf), value + math.log(self._sentences))
        self._captions.append(_Caption(match_form(reading), candidates, odds, places, evidence))
        if self._start + len(self._captions) < self._decided + (1 + BEHIND) * BLOCK:
            return []
        chosen = self._choose(BLOCK)
        gone = max(0, self._decided - BEFORE * BLOCK - self._start)
        self._captions, self._start = self._captions[gone:], self._start + gone
        return chosen

    def finish(self) -> list[Chosen | None]:
        """Choose for the captions that are left."""
        chosen: list[Chosen | None] = []
        while (left := self._start + len(self._captions) - self._decided) > 0:
            chosen += self._choose(min(BLOCK, left))
        return chosen

    def _choose(self, count: int) -> list[Chosen | None]:
        """Decide the next block."""
        first = max(self._start, self._decided - BEFORE * BLOCK) - self._start
        begin = self._decided - self._start
        window = self._captions[first : begin + (1 + BEHIND) * BLOCK]
        self._decided += count
        if not self.listens:
            return [_best(caption, {}) for caption in self._captions]
        fresh = [
            not place or not caption.reading or caption.reading != window[place - 1].reading
            for place, caption in enumerate(window)
        ]
        numbers = list(itertools.accumulate(fresh))
        shown: list[dict[Place, float]] = [{} for _ in range(numbers[-1])]
        for caption, number in zip(window, numbers, strict=True):
            for place, value in caption.evidence.items():
                shown[number - 1][place] = max(shown[number - 1].get(place, -math.inf), value)
        decided = range(begin - first, begin - first + count)
        start = numbers[decided[0]] - 1
        said = neighbours_say(shown, self._sentences, self._model, start, numbers[decided[-1]])
        return [_best(window[place], said[numbers[place] - 1 - start]) for place in decided]

    def _log_odds(self, candidate: Candidate) -> float:
        """Return the log odds of a sentence by itself."""
        alone, exact = self._reranker.alone(candidate), self._reranker.exact
        chance = exact if candidate.exact else alone.probabilities(candidate.features)[0]
        if not 0 < chance < 1:
            return math.copysign(_SUREST, chance - 0.5)
        return max(min(math.log(chance / (1 - chance)), _SUREST), -2 * _SUREST)


def _best(caption: _Caption, told: Mapping[Place, float]) -> Chosen | None:
    """Return a caption's likeliest candidate: one that is the reading, letter by letter, before all others."""
    if not caption.candidates:
        return None
    story = [
        max((told[place] for place in caption.places.get(candidate.hit.id, ()) if place in told), default=None)
        for candidate in caption.candidates
    ]
    best = max(range(len(story)), key=lambda i: (caption.candidates[i].exact, caption.odds[i] + (story[i] or 0.0), -i))
    return Chosen(caption.candidates[best], story[best])
