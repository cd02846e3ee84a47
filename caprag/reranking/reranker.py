"""The decision: snap to the best sentence, or keep the reading, and how sure it is.

Three cases are weighed: the sentence is what the picture shows, the reading is, neither is. There is one set of weights
for readings by themselves, one for pictures, for which the recognizer has scored the sentences, and one for captions in
their order, which hears the neighbours too: multinomial logistic models, and trees for pictures.
All lies in a JSON file that says what it was fitted on. It knows nothing of pictures or of how hits were found.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from caprag.errors import ModelError
from caprag.glyphs import GlyphTable
from caprag.reranking.chooser import BLOCK, Chooser, Chosen, Places
from caprag.reranking.confusions import load_glyphs
from caprag.reranking.decision import Decision
from caprag.reranking.features import FEATURES, IN_ORDER, Candidate, candidates_batch, regional
from caprag.reranking.story import MOST, StoryModel
from caprag.reranking.surety import Surety, describe
from caprag.reranking.weights import Linear, Trees, W
from caprag.text import countable
from caprag.types import Caption, Hit, Hypothesis

_SHIPPED = Path(__file__).with_name("reranker.json")
FORMAT = 6


_FURTHER = 3
"""Characters of its own from which on reading or sentence says more than the other, whatever the neighbours say. The
scripts that were fitted on have each caption as one sentence, and can't teach what two in one, or halves, look like."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a caption before it is decided.

    Attributes
    ----------
    hypotheses
        Its readings, best first, at least one.
    hits
        What retrieval found for it.
    places
        Where the hits' sentences stand.
    margins
        For each hit, ln p(hit | picture) - ln p(first reading | picture) in nats; ``None`` without a picture.
    cross
        For each hit the logit of a cross-encoder for the first reading and it; ``None`` without one.
    """

    hypotheses: Sequence[Hypothesis]
    hits: Sequence[Hit]
    places: Places
    margins: Sequence[float] | None = None
    cross: Sequence[float] | None = None

    def without(self, gone: Collection[str]) -> Found:
        """Return the same without some hits, by their letters and digits (`caprag.text.countable`)."""
        if not gone:
            return self
        left = [place for place, hit in enumerate(self.hits) if countable(hit.text) not in gone]
        margins, cross = (
            None if told is None else [told[place] for place in left] for told in (self.margins, self.cross)
        )
        return Found(self.hypotheses, [self.hits[place] for place in left], self.places, margins, cross)


def describe_found(
    found: Sequence[Found], frequency: Callable[[str], int], glyphs: GlyphTable
) -> list[list[Candidate]]:
    """Describe the sentences that first readings may stand for; see `caprag.reranking.features.candidates_batch`."""
    return candidates_batch(
        [one.hypotheses[0] for one in found], [one.hits for one in found], frequency, glyphs,
        [one.margins for one in found], cross=[one.cross for one in found],
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class InOrder:
    """What is known of captions in their order.

    Attributes
    ----------
    model
        How stories go on.
    decision
        By what speaks for a sentence among its neighbours (`caprag.reranking.features.IN_ORDER`).
    """

    model: StoryModel
    decision: Decision[Linear]

    def __post_init__(self) -> None:
        self.decision.weights.check(IN_ORDER)


@dataclass(frozen=True, slots=True)
class Reranker:
    """Weights of the decision.

    Attributes
    ----------
    line
        Weights for a reading by itself.
    exact
        Probability that a reading which is a sentence of the corpus, letter by letter, is right, in [0, 1].
    order
        What is known of captions in their order; ``None`` decides each by itself.
    picture
        Weights for a picture by itself; ``None`` takes those for a reading.
    surety
        How sure a reading is that was kept by its text, or by texts in their order; ``None`` takes the decision's word.
    unmatched
        Probability that a reading is right to which no sentence could be compared, since it has no letter or the corpus
        is empty; for readings that come without a probability of their own, in [0, 1].
    uncounted
        Sources of counted misreadings that it does not hear (`caprag.reranking.confusions`): those it is tested on.
    cross_encoder
        Hub id or folder of the cross-encoder that it was fitted with; empty for none.
    provenance
        What the weights were fitted on.
    """

    line: Decision[Linear]
    exact: float
    order: InOrder | None = None
    picture: Decision[Linear | Trees] | None = None
    surety: Surety | None = None
    unmatched: float = 0.5
    uncounted: tuple[str, ...] = ()
    cross_encoder: str = ""
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for decision in (self.line, self.picture):
            if decision is not None:
                decision.weights.check(FEATURES)
        texts = (self.cross_encoder, *self.uncounted)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.provenance, Mapping):
            raise TypeError(f"cross_encoder and uncounted are {texts}; wanted are texts, and a provenance by name")
        for name, chance in (("exact", self.exact), ("unmatched", self.unmatched)):
            if not 0 <= chance <= 1:
                raise ValueError(f"{name} is {chance}; it must lie in [0, 1]")

    def at_risk(self, risk: float) -> Reranker:
        """Return the same with thresholds for a risk; see `Decision.at_risk`.

        What is a sentence but for characters of another region is not counted for pictures: it is weighed as a text.
        """
        order = None if self.order is None else replace(self.order, decision=self.order.decision.at_risk(risk))
        picture = None if self.picture is None else self.picture.at_risk(risk)
        return replace(self, line=self.line.at_risk(risk), picture=picture, order=order)

    def alone(self, candidate: Candidate) -> Decision[Linear | Trees]:
        """Return the weights for a sentence without its neighbours: a picture's where it was scored for one.

        But for what is `regional`.
        """
        return self._weights(candidate.features, judged=candidate.judged)

    def weighed_by(self, evidence: Mapping[str, float]) -> Decision[Linear | Trees]:
        """Return the weights that a caption's evidence was weighed by without its neighbours."""
        return self._weights(evidence, judged=_by_picture(evidence)) if evidence else self.line

    def _weights(self, features: Mapping[str, float], *, judged: bool) -> Decision[Linear | Trees]:
        pictured = judged and not regional(features)
        return self.picture if pictured and self.picture is not None else self.line

    @classmethod
    def load(cls, path: str | PathLike[str] | None = None) -> Reranker:
        """Load a reranker.

        Parameters
        ----------
        path
            A file that `save` wrote; ``None`` takes the shipped one.

        Raises
        ------
        ModelError
            Where the file is missing or is no reranker of this version.
        """
        place = _SHIPPED if path is None else Path(path)
        try:
            stored = json.loads(place.read_text(encoding="utf-8"))
            version = stored.pop("format")
            if version != FORMAT:
                raise ModelError(f"{place}: has format {version}, this caprag reads {FORMAT}; fit it again")
            order, picture, surety = (stored.pop(name) for name in ("order", "picture", "surety"))
            return cls(
                line=_line(stored.pop("line")),
                picture=None if picture is None else _picture(picture),
                surety=None if surety is None else Surety(**surety),
                uncounted=_names(stored.pop("uncounted")),
                order=None if order is None else InOrder(_model(order["model"]), _line(order["decision"])),
                **stored,
            )
        except OSError as error:
            raise ModelError(f"{place}: can't be read ({error.strerror}); name a reranker's file") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise ModelError(f"{place}: is no reranker ({error}); fit it again") from error

    def save(self, path: str | PathLike[str]) -> None:
        """Write the weights, the threshold and their provenance as JSON."""
        stored = {"format": FORMAT, **asdict(self)}
        text = json.dumps(stored, indent=2, ensure_ascii=False)
        # A list of numbers on one line; what breaks lines lies between JSON's values, never in them.
        text = re.sub(r"\[[^][{}]*\]", lambda numbers: re.sub(r"\n\s*", " ", numbers[0]), text)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def rerank_batch(
        self,
        hypotheses: Sequence[Sequence[Hypothesis]],
        hits: Sequence[Sequence[Hit]],
        frequency: Callable[[str], int],
        margins: Sequence[Sequence[float] | None] | None = None,
        cross: Sequence[Sequence[float] | None] | None = None,
    ) -> list[Caption]:
        """Decide for each picture or reading by itself.

        Parameters
        ----------
        hypotheses
            Readings of each, best first, at least one.
        hits
            What retrieval found for each.
        frequency
            Number of sentences in the corpus that hold a pair of characters in the matching form.
        margins
            For each picture and hit, ln p(hit | picture) - ln p(first reading | picture) in nats; ``None`` where there
            is no picture.
        cross
            For each reading and hit a cross-encoder's logit; ``None`` without one.

        Returns
        -------
        list of Caption
            In the order given.

        Raises
        ------
        ValueError
            Where the lists differ in length (margins and hits too) or one has no hypothesis.
        """
        if len(hypotheses) != len(hits):
            raise ValueError(f"there are {len(hypotheses)} lists of hypotheses and {len(hits)} of hits")
        if not all(hypotheses):
            raise ValueError("a picture has no hypothesis; an empty text is one too")
        glyphs = load_glyphs(self.uncounted)
        described = candidates_batch(
            [read[0] for read in hypotheses], hits, frequency, glyphs, margins, cross=cross, most=2
        )
        judged = [None] * len(hits) if margins is None else margins
        return [
            self.decide(tuple(read), found, pictured=told is not None)
            for read, found, told in zip(hypotheses, described, judged, strict=True)
        ]

    def rerank_in_order(
        self, found: Iterable[Found], frequency: Callable[[str], int], sentences: int
    ) -> Iterator[Caption]:
        """Decide for captions that follow each other, with an ear to those before and behind.

        Parameters
        ----------
        found
            What is known of each caption, in their order.
        frequency
            As in `rerank_batch`.
        sentences
            Of the corpus, >= 1.

        Yields
        ------
        Caption
            One for each, in order, as soon as it is decided: when 32 to 63 of those behind it are known
            (`caprag.reranking.chooser`), or all are. Fewer than 12 are decided each by itself, and all are where the
            reranker knows no order.
        """
        remaining = iter(found)
        first = next(remaining, None)
        if first is None:
            return
        described = self._described(itertools.chain([first], remaining), frequency)
        yield from self.decide_in_order(described, sentences, pictured=first.margins is not None)

    def _described(
        self, found: Iterable[Found], frequency: Callable[[str], int]
    ) -> Iterator[tuple[tuple[Hypothesis, ...], Sequence[Candidate], Places]]:
        """Describe the candidates of captions, as many together as are decided together."""
        glyphs, remaining = load_glyphs(self.uncounted), iter(found)
        while block := list(itertools.islice(remaining, BLOCK if self.order is not None else 1)):
            read = [_checked(one) for one in block]
            yield from zip(read, describe_found(block, frequency, glyphs), [one.places for one in block], strict=True)

    def decide_in_order(
        self, described: Iterable[tuple[tuple[Hypothesis, ...], Sequence[Candidate], Places]], sentences: int, *,
        pictured: bool = False,
    ) -> Iterator[Caption]:  # fmt: skip
        """Decide for captions that follow each other, whose candidates are known.

        Parameters
        ----------
        described
            For each caption its readings, its candidates, the likeliest first, and where their sentences stand.
        sentences
            Of the corpus, >= 1.
        pictured
            Whether they were read from pictures, by a reader that knows how likely its readings are.

        Yields
        ------
        Caption
            As `rerank_in_order` does.
        """
        if self.order is None:
            for read, found, _ in described:
                yield self.decide(read, found, pictured=pictured)
            return
        chooser = Chooser(self, sentences)
        waiting: deque[tuple[tuple[Hypothesis, ...], Sequence[Candidate]]] = deque()
        for read, found, places in described:
            waiting.append((read, found))
            for chosen in chooser.push(read[0].text, found, places):
                yield self._decide_among(*waiting.popleft(), chosen, pictured)
        for chosen in chooser.finish():
            yield self._decide_among(*waiting.popleft(), chosen if chooser.listens else None, pictured)

    def _decide_among(
        self, read: tuple[Hypothesis, ...], found: Sequence[Candidate], chosen: Chosen | None, pictured: bool
    ) -> Caption:
        if chosen is None or chosen.story is None or self.order is None:
            return self.decide(read, found, pictured=pictured)
        features = chosen.candidate.features
        # Dirt in the picture is read as a character or two of other scripts; it says nothing.
        if max(features["invented"] - features["stray"], features["lost"]) >= _FURTHER:
            return self.decide(read, found)
        evidence = {**features, "story": chosen.story}
        others = [candidate for candidate in found if candidate is not chosen.candidate]
        return self._answer(read, [chosen.candidate, *others], self.order.decision, self.among(chosen), evidence)

    def among(self, chosen: Chosen) -> dict[str, float]:
        """Return what speaks for a sentence among its neighbours: name to value, in the order of `IN_ORDER`."""
        if chosen.story is None:
            raise ValueError("there is no word of the neighbours; decide by the line")
        odds = self.alone(chosen.candidate).weights.log_odds(chosen.candidate.features)
        snap, keep = (max(min(value, MOST), -MOST) for value in odds)
        return {"snap": snap, "keep": keep, "story": chosen.story}

    def decide(
        self, hypotheses: tuple[Hypothesis, ...], found: Sequence[Candidate], *, pictured: bool = False
    ) -> Caption:
        """Decide for one picture or reading by itself, whose candidates are known, the likeliest first."""
        if not found:
            # Nothing to compare with: as sure as the reader was, where it has said so.
            told = pictured or hypotheses[0].logprob < 0
            sure = min(1.0, math.exp(hypotheses[0].logprob)) if told else self.unmatched
            return Caption(hypotheses[0].text, None, hypotheses, sure)
        return self._answer(hypotheses, found, self.alone(found[0]), found[0].features, found[0].features)

    def _answer(
        self, hypotheses: tuple[Hypothesis, ...], found: Sequence[Candidate], decision: Decision[Linear | Trees],
        said: Mapping[str, float], evidence: Mapping[str, float],
    ) -> Caption:  # fmt: skip
        best = found[0]
        considered = tuple(candidate.hit for candidate in found[:2])
        if best.exact:
            return Caption(best.hit.text, best.hit, hypotheses, self.exact, evidence, considered)
        snap, keep = decision.probabilities(said)
        if snap >= decision.threshold:
            return Caption(best.hit.text, best.hit, hypotheses, snap, evidence, considered)
        if self.surety is not None and not best.judged:
            keep = self.surety.confidence(hypotheses[0].text, keep, self.uncounted)
        return Caption(hypotheses[0].text, None, hypotheses, keep, evidence, considered)

    def shares(self, evidence: Mapping[str, float]) -> dict[str, float]:
        """Say how much each feature speaks for the sentence, and against the reading.

        Parameters
        ----------
        evidence
            Of a caption.

        Returns
        -------
        dict of str to float
            Name to nats, those that say most first: together with ``bias`` they are the log odds of the sentence
            against the reading, as far as these are not cut off in the middle of a story.
        """
        line = {name: value for name, value in evidence.items() if name != "story"}
        if not line:
            return {}
        alone = self.weighed_by(evidence).weights.shares(line)
        by_snap, by_keep, told = 1.0, -1.0, {"bias": 0.0}
        if "story" in evidence and self.order is not None:
            among = self.order.decision.weights
            by_snap, by_keep, by_story = (among.snap[name] - among.keep[name] for name in IN_ORDER)
            told = {"bias": among.snap_bias - among.keep_bias, "story": by_story * evidence["story"]}
        for name, (snap, keep) in alone.items():
            told[name] = told.get(name, 0.0) + by_snap * snap + by_keep * keep
        return dict(sorted(told.items(), key=lambda item: (-abs(item[1]), item[0])))

    def of_reading(self, caption: Caption) -> dict[str, tuple[float, float]]:
        """Say what makes a reading sure that was kept by its text alone; nothing for others.

        Returns
        -------
        dict
            Name to value and to nats, those of `caprag.reranking.surety.ABOUT`.
        """
        evidence = caption.evidence
        if self.surety is None or caption.hit is not None or not evidence or _by_picture(evidence):
            return {}
        keep = self.line.probabilities({name: evidence[name] for name in FEATURES})[1]
        said = describe(caption.hypotheses[0].text, keep, self.uncounted)
        return {name: (value, self.surety.weights[name] * value) for name, value in said.items()}


def _by_picture(evidence: Mapping[str, float]) -> bool:
    # Evidence does not say whether there was a picture; only a picture's has doubt, or a margin.
    return bool(evidence["doubt"] or evidence["margin"])


def _checked(found: Found) -> tuple[Hypothesis, ...]:
    if not found.hypotheses:
        raise ValueError("a picture has no hypothesis; an empty text is one too")
    return tuple(found.hypotheses)


def _names(stored: object) -> tuple[str, ...]:
    if not isinstance(stored, list):
        raise TypeError(f"uncounted is {stored!r}; wanted is a list of names")
    return tuple(stored)


def _decision(stored: Mapping[str, Any], weights: W) -> Decision[W]:
    rest = {name: value for name, value in stored.items() if name != "weights"}
    # JSON knows lists alone.
    return Decision(weights, **{**rest, "harmful": tuple(rest["harmful"])})


def _line(stored: Mapping[str, Any]) -> Decision[Linear]:
    return _decision(stored, Linear(**stored["weights"]))


def _picture(stored: Mapping[str, Any]) -> Decision[Linear | Trees]:
    return _decision(stored, Trees.of(stored["weights"])) if "trees" in stored["weights"] else _line(stored)


def _model(stored: Mapping[str, object]) -> StoryModel:
    # JSON's names are texts.
    steps = stored["steps"]
    if not isinstance(steps, dict):
        raise TypeError(f"steps is {steps!r}; wanted are probabilities by step")
    return StoryModel(**{**stored, "steps": {int(step): chance for step, chance in steps.items()}})  # type: ignore[arg-type]
