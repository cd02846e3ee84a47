"""Readings whose truth is known, one by one and in their order: what a decision is fitted on, and measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from caprag.glyphs import GlyphTable
from caprag.reranking.chooser import Chooser, Places
from caprag.reranking.confusions import load_glyphs
from caprag.reranking.features import Candidate
from caprag.reranking.reranker import Found, Reranker, describe_found
from caprag.reranking.story import Place
from caprag.text import countable
from caprag.types import Hypothesis


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
    reading
        What was read.
    """

    features: Mapping[str, float] | None
    exact: bool
    reading_right: bool
    candidate_right: bool
    known: bool = True
    group: str = ""
    judged: bool = False
    reading: str = ""

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
            return cls(None, False, read_right, False, known, group, judged, reading.text)
        right = countable(candidate.hit.text) == wanted
        return cls(
            candidate.features, candidate.exact, read_right, right, known, group, candidate.judged, reading.text
        )  # fmt: skip

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
        known: bool = True, group: str = "", glyphs: GlyphTable | None = None,
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
        glyphs
            What looks alike; ``None`` takes all that was counted (`caprag.reranking.confusions.load_glyphs`).
        """
        glyphs = glyphs or load_glyphs()
        readings = [one.hypotheses[0] for one in found]
        described = describe_found(found, frequency, glyphs)
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
