"""The decision: snap to the best sentence, or keep the reading, and how sure it is.

A multinomial logistic model weighs three cases: the sentence is what the picture shows, the reading is, neither is.
Its weights lie in a JSON file that says what they were fitted on. It knows nothing of pictures or of how hits were
found.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path

from caprag.errors import ModelError
from caprag.glyphs import GlyphTable
from caprag.reranking.features import FEATURES, Candidate, best_candidate
from caprag.types import Caption, Hit, Hypothesis

_SHIPPED = Path(__file__).with_name("reranker.json")
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Reranker:
    """Weights of the decision.

    Attributes
    ----------
    snap, keep
        Weight of each feature for "the sentence is right" and "the reading is right", against "neither is".
    snap_bias, keep_bias
        Constant of each.
    exact
        Probability that a reading which is a sentence of the corpus, letter by letter, is right, in [0, 1].
    threshold
        Smallest probability of the sentence at which it is the answer, in [0, 1].
    provenance
        What the weights were fitted on.
    """

    snap: Mapping[str, float]
    keep: Mapping[str, float]
    snap_bias: float
    keep_bias: float
    exact: float
    threshold: float
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, weights in (("snap", self.snap), ("keep", self.keep)):
            if list(weights) != list(FEATURES):
                raise ValueError(f"{name} weighs {', '.join(weights)}; the features are {', '.join(FEATURES)}")
            if not all(math.isfinite(weight) for weight in weights.values()):
                raise ValueError(f"{name} has a weight that is not finite; fit it again")
        if not math.isfinite(self.snap_bias) or not math.isfinite(self.keep_bias):
            raise ValueError(f"snap_bias is {self.snap_bias} and keep_bias is {self.keep_bias}; both must be finite")
        if not 0 <= self.threshold <= 1 or not 0 <= self.exact <= 1:
            raise ValueError(f"threshold is {self.threshold} and exact is {self.exact}; both must lie in [0, 1]")

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
            return cls(**stored)
        except OSError as error:
            raise ModelError(f"{place}: can't be read ({error.strerror}); name a reranker's file") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelError(f"{place}: is no reranker ({error}); fit it again") from error

    def save(self, path: str | PathLike[str]) -> None:
        """Write the weights, the threshold and their provenance as JSON."""
        stored = {"format": FORMAT, **asdict(self)}
        Path(path).write_text(json.dumps(stored, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def probabilities(self, features: Mapping[str, float]) -> tuple[float, float]:
        """Return the probabilities that the sentence and that the reading is right; they add up to at most 1.

        Parameters
        ----------
        features
            Name to value, as `caprag.reranking.features.best_candidate` gives them.
        """
        snap = self.snap_bias + sum(self.snap[name] * value for name, value in features.items())
        keep = self.keep_bias + sum(self.keep[name] * value for name, value in features.items())
        top = max(snap, keep, 0.0)
        odds = (math.exp(snap - top), math.exp(keep - top), math.exp(-top))
        return odds[0] / sum(odds), odds[1] / sum(odds)

    def rerank_batch(
        self,
        hypotheses: Sequence[Sequence[Hypothesis]],
        hits: Sequence[Sequence[Hit]],
        frequency: Callable[[str], int],
        margins: Sequence[Sequence[float] | None] | None = None,
    ) -> list[Caption]:
        """Decide for each picture or reading.

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
        glyphs = GlyphTable.load()
        return [
            self.decide(tuple(read), best_candidate(read[0], found, frequency, glyphs, judged))
            for read, found, judged in zip(hypotheses, hits, margins or [None] * len(hits), strict=True)
        ]

    def decide(self, hypotheses: tuple[Hypothesis, ...], candidate: Candidate | None) -> Caption:
        """Decide for one picture or reading whose best candidate is known."""
        first = hypotheses[0]
        if candidate is None:
            # Nothing to compare with: as sure as the reader was.
            return Caption(first.text, None, hypotheses, min(1.0, math.exp(first.logprob)))
        if candidate.exact:
            return Caption(candidate.hit.text, candidate.hit, hypotheses, self.exact, candidate.features)
        snap, keep = self.probabilities(candidate.features)
        if snap >= self.threshold:
            return Caption(candidate.hit.text, candidate.hit, hypotheses, snap, candidate.features)
        return Caption(first.text, None, hypotheses, keep, candidate.features)
