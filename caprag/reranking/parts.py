"""Captions that are two sentences of the corpus which do not stand one behind the other, or one and something else.

What was kept as read is tried in two parts; where no letter would change it stays as it was read. A part is decided as
a caption by itself is. Knows nothing of how sentences are found.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rapidfuzz.distance import Levenshtein

from caprag.reranking.joins import Allows
from caprag.reranking.marks import lettered
from caprag.reranking.reranker import Reranker
from caprag.text import countable, normalize
from caprag.types import Caption, Hit, Hypothesis

Find = Callable[[Sequence[str]], Sequence[Sequence[Hit]]]
"""Finds sentences for readings."""

_FEWEST = 2
"""Letters and digits of a part."""
_NEAR = 0.34
"""Edits a character up to which a sentence may be what a part says."""
_MOST_CUTS = 6
_BETWEEN = re.compile(r"[\s!?,.;:。、…⋯~—–-]+")


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a reading falls in two: its written form is the three together, and nothing may stand between."""

    left: str
    between: str
    right: str


class Parts:
    """Decides for captions that hold two sentences.

    Parameters
    ----------
    find
        Finds sentences for readings.
    reranker
        Decides for each part as for a caption by itself.
    frequency
        Number of sentences in the corpus that hold a pair of characters in the matching form.
    logits
        What a cross-encoder says of the sentences found for a reading; ``None`` without one.
    allows
        What must not be answered; ``None`` allows all.
    """

    def __init__(
        self, find: Find, reranker: Reranker, frequency: Callable[[str], int],
        logits: Callable[[str, Sequence[Hit]], Sequence[float] | None], allows: Allows | None = None,
    ) -> None:  # fmt: skip
        self._find, self._reranker, self._frequency, self._logits = find, reranker, frequency, logits
        self._allows = allows or (lambda _reading, _answer: True)

    def take_apart(self, captions: Sequence[Caption], hits: Sequence[Sequence[Hit]]) -> list[Caption]:
        """Return answers in two parts, or a caption as it is where no two sentences are surer.

        Where something stands between them one part may be kept as read; elsewhere both must be sentences.

        Parameters
        ----------
        captions, hits
            The captions, and all that was found for each.
        """
        found = [
            [] if caption.hit is not None else cuts(caption.hypotheses[0].text, [hit.text for hit in near])
            for caption, near in zip(captions, hits, strict=True)
        ]
        texts = list(dict.fromkeys(part for several in found for cut in several for part in (cut.left, cut.right)))
        if not texts:
            return list(captions)
        answers = dict(zip(texts, self._decide(texts, self._find(texts)), strict=True))
        return [self._best_cut(caption, several, answers) for caption, several in zip(captions, found, strict=True)]

    def _best_cut(self, caption: Caption, found: Sequence[Cut], answers: Mapping[str, Caption]) -> Caption:
        best, known = caption, (0, 0.0)
        for cut in found:
            parts = (answers[cut.left], answers[cut.right])
            snapped = [part for part in parts if part.hit is not None]
            if not snapped or (len(snapped) < len(parts) and not cut.between):
                continue
            sure = snapped[0].confidence * (snapped[1].confidence if len(snapped) > 1 else 1.0)
            text = _joined(parts[0].text, cut.between, parts[1].text)
            surer = sure >= self._reranker.line.threshold and (len(snapped), sure) > known
            read = caption.hypotheses[0].text
            if surer and countable(text) != countable(read) and self._allows(read, text):
                known = len(snapped), sure
                whole = parts[0].confidence * parts[1].confidence
                considered = tuple(part.hit for part in snapped if part.hit is not None)
                best = replace(
                    caption, text=text, hit=snapped[0].hit, confidence=whole, parts=parts, evidence={},
                    considered=considered,
                )  # fmt: skip
        return best

    def each_apart(self, decided: Iterable[tuple[Caption, Sequence[Hit]]], at_once: int = 1) -> Iterator[Caption]:
        """Take captions apart that come one by one, each with all that was found for it, `at_once` together."""
        remaining = iter(decided)
        while block := list(itertools.islice(remaining, at_once)):
            yield from self.take_apart([caption for caption, _ in block], [near for _, near in block])

    def _decide(self, readings: Sequence[str], hits: Sequence[Sequence[Hit]]) -> list[Caption]:
        return self._reranker.rerank_batch(
            [[Hypothesis(reading)] for reading in readings], hits, self._frequency,
            cross=[self._logits(reading, found) for reading, found in zip(readings, hits, strict=True)],
        )  # fmt: skip


def cuts(reading: str, sentences: Iterable[str] = ()) -> list[Cut]:
    """Return where a reading may fall in two parts.

    Parameters
    ----------
    reading
        What was read.
    sentences
        Such as may be its beginning or end.

    Returns
    -------
    list of Cut
        Where marks or spaces stand, in their order, then where a sentence ends or begins; six at most.

    Examples
    --------
    >>> cuts("好呀! 走吧")
    [Cut(left='好呀', between='! ', right='走吧')]
    >>> cuts("好呀走吧", ["好呀"])
    [Cut(left='好呀', between='', right='走吧')]
    """
    text = normalize(reading)
    spans = [match.span() for match in _BETWEEN.finditer(text)]
    places, letters = lettered(text)
    for sentence in map(countable, sentences):
        length = len(sentence)
        for size in (length, length - 1, length + 1):
            if not _FEWEST <= size <= len(letters) - _FEWEST:
                continue
            if Levenshtein.distance(letters[:size], sentence) <= _NEAR * length:
                spans.append((places[size - 1] + 1, places[size]))
            if Levenshtein.distance(letters[-size:], sentence) <= _NEAR * length:
                spans.append((places[-size - 1] + 1, places[-size]))
    found = (Cut(text[:start], text[start:stop], text[stop:]) for start, stop in dict.fromkeys(spans))
    wanted = (cut for cut in found if min(len(countable(cut.left)), len(countable(cut.right))) >= _FEWEST)
    return [cut for cut, _ in zip(wanted, range(_MOST_CUTS), strict=False)]


def _joined(left: str, between: str, right: str) -> str:
    """Put two answers together; marks that the first ends with are not said twice."""
    if left and _BETWEEN.fullmatch(left[-1]):
        between = "".join(character for character in between if character.isspace() or character == "-")
    return f"{left}{between}{right}"


__all__ = ["Cut", "Parts", "cuts"]
