"""What speaks for and against one sentence being what a reading stands for.

Each feature is a plain number read off the two texts, the hit's scores, or the corpus; none is fitted here.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from rapidfuzz.distance import Levenshtein

from caprag.glyphs import GlyphTable
from caprag.text import convert, countable, match_form, normalize
from caprag.types import Hit, Hypothesis

FEATURES: Mapping[str, str] = {
    "edits": "Levenshtein distance of the letters and digits, at most 8",
    "edit_rate": "edits / characters of the reading, at most 2",
    "folded_edits": "Levenshtein distance after folding variants, at most 8",
    "folded_edit_rate": "folded_edits / characters of the reading, at most 2",
    "variant_edits": "edits - folded_edits: characters that differ only by region, at most 8",
    "simplified": "traditional characters of the reading that the sentence has in their simplified form, at most 8",
    "glyph_distance": "edit distance in which look-alikes cost little, at most 8",
    "glyph_rate": "glyph_distance / characters of the reading, at most 2",
    "worst_glyph": "cost of the least alike substitution, in [0, 1]",
    "lost": "characters of the sentence that the reading lacks, at most 8",
    "invented": "characters of the reading that the sentence lacks, at most 8",
    "stray": "characters at an edit of the reading whose script the sentence has not, at most 2",
    "log_length": "natural logarithm of the reading's number of characters",
    "inverse_length": "1 / characters of the reading",
    "familiarity": "ln(1 + sentences that hold the rarest pair of characters of the reading at an edit), at most 8",
    "gap": "glyph distance to the runner-up minus that to the sentence, in [-3, 3]",
    "dense": "cosine of the embeddings; 0 where the dense search did not return the sentence",
    "lexical": "BM25 / the best BM25 among the hits; 0 where the lexical search did not return the sentence",
    "doubt": "-ln p(reading | picture) in nats, at most 2; 0 without a picture",
    "margin": "ln p(sentence | picture) - ln p(reading | picture) in nats, in [-10, 10]; 0 without a picture",
    "refuted": "nats that the margin lies below -10, at most 60; 0 without a picture",
    "refuted_rate": "-margin / folded_edits (1 where there are none) in nats, in [-5, 40]; 0 without a picture",
    "cross": "logit of a cross-encoder for reading and sentence, in [-10, 10]; 0 without one",
}
"""Name and meaning of what speaks for a sentence by itself, in the order of the reranker's weights."""

IN_ORDER: Mapping[str, str] = {
    "snap": "log odds that the sentence is right rather than neither, by itself, in nats, in [-12, 12]",
    "keep": "log odds that the reading is right rather than neither, by itself, in nats, in [-12, 12]",
    "story": "log odds of the sentence by the captions before and behind, in nats, in [-12, 12]",
}
"""Name and meaning of what speaks for a sentence among its neighbours."""

_FAR = 0.5
"""Glyph distance a letter of the longer text beyond which a sentence is passed over, but for the likeliest."""
_LIKELIEST = 2
"""Sentences that are never passed over."""
_MOST_EDITS = 8.0
_MOST_RATE = 2.0
# Dirt is read as a letter or two; a reading full of them is another text.
_MOST_STRAY = 2.0
_MOST_GAP = 3.0
_MOST_FAMILIAR = 8.0
_MOST_MARGIN = 10.0
_MOST_REFUTED = 60.0
_REFUTED_RATES = (-5.0, 40.0)
_MOST_CROSS = 10.0
# Doubt speaks against the reading, not for the sentence: it may tip the scales, never outweigh the texts.
_MOST_DOUBT = 2.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """The most likely sentence for a reading.

    Attributes
    ----------
    hit
        The sentence.
    exact
        Whether its letters and digits are the reading's.
    features
        Name to value, in the order of `FEATURES`.
    judged
        Whether the recognizer has scored it for a picture.
    """

    hit: Hit
    exact: bool
    features: Mapping[str, float]
    judged: bool = False


def candidates_batch(
    readings: Sequence[Hypothesis],
    hits: Sequence[Sequence[Hit]],
    frequency: Callable[[str], int],
    glyphs: GlyphTable,
    margins: Sequence[Sequence[float] | None] | None = None,
    *,
    cross: Sequence[Sequence[float] | None] | None = None,
    most: int | None = None,
) -> list[list[Candidate]]:
    """Describe the sentences that readings may stand for; of many together each takes a fraction of the time.

    Parameters
    ----------
    readings
        What was read, with its log-probability.
    hits
        What retrieval found for each.
    frequency
        Number of sentences in the corpus that hold a pair of characters in the matching form.
    glyphs
        The shapes of characters.
    margins
        For each reading and hit, ln p(hit | picture) - ln p(reading | picture) in nats; ``None`` without a picture.
    cross
        For each reading and hit a cross-encoder's logit; ``None`` without one.
    most
        Describe so many a reading at most, >= 1; ``None`` for all.

    Returns
    -------
    list of list of Candidate
        For each reading the likeliest first: the hit with the greatest margin, or without a picture the one at the
        smallest glyph distance, of several the one whose written form is nearest. Without a picture, sentences whose
        glyph distance is more than half of the longer text's letters are passed over, but for the likeliest two. Empty
        without a letter or digit in the reading.

    Raises
    ------
    ValueError
        Where there are not as many lists as readings, or margins or logits as hits.
    """
    for kind, several in (("lists of hits", hits), ("lists of margins", margins), ("lists of logits", cross)):
        if several is not None and len(several) != len(readings):
            raise ValueError(f"readings: {len(readings)}, {kind}: {len(several)}; they must be as many")
    margins = [None] * len(readings) if margins is None else margins
    cross = [None] * len(readings) if cross is None else cross
    for row, judged, told in zip(hits, margins, cross, strict=True):
        for kind, numbers in (("margins", judged), ("logits", told)):
            if numbers is not None and len(numbers) != len(row):
                raise ValueError(f"there are {len(row)} hits and {len(numbers)} {kind}; they must be as many")
    reads = [countable(reading.text) for reading in readings]
    texts = [[countable(hit.text) for hit in row] if read else [] for read, row in zip(reads, hits, strict=True)]
    told_apart = glyphs.distances(
        [read for read, row in zip(reads, texts, strict=True) for _ in row], [text for row in texts for text in row]
    )
    # Rounded, so that what is equal stays so in whatever order single precision has added it up.
    distances = iter([round(distance, 5) for distance in told_apart.tolist()])
    # All candidates ask for the same few pairs.
    often = functools.cache(frequency)
    return [
        _described(
            reading, read, row, [next(distances) for _ in row], hits[i], often, glyphs, margins[i], cross[i], most
        )
        for i, (reading, read, row) in enumerate(zip(readings, reads, texts, strict=True))
    ]


def best_candidate(
    reading: Hypothesis,
    hits: Sequence[Hit],
    frequency: Callable[[str], int],
    glyphs: GlyphTable,
    margins: Sequence[float] | None = None,
) -> Candidate | None:
    """Describe the sentence that a reading most likely stands for; see `candidates_batch`.

    Returns
    -------
    Candidate or None
        The first of the candidates; ``None`` where there is none.
    """
    return next(iter(candidates_batch([reading], [hits], frequency, glyphs, [margins], most=1)[0]), None)


def _described(
    reading: Hypothesis, read: str, texts: Sequence[str], distances: Sequence[float], hits: Sequence[Hit],
    frequency: Callable[[str], int], glyphs: GlyphTable, margins: Sequence[float] | None,
    cross: Sequence[float] | None, most: int | None,
) -> list[Candidate]:  # fmt: skip
    """Describe the candidates of one reading, whose texts, and whose glyph distances, are known."""
    if not texts:
        return []
    form, forms = match_form(read), [match_form(text) for text in texts]
    # Beyond what is told apart all are alike: a letter that the recognizer can't write rules nothing out.
    floor = -_MOST_MARGIN - _MOST_REFUTED
    evidence = [0.0] * len(hits) if margins is None else [max(margin, floor) for margin in margins]
    written = normalize(reading.text)
    signs = [Levenshtein.distance(written, hit.text) for hit in hits]
    order = sorted(range(len(hits)), key=lambda i: (-evidence[i], distances[i], -hits[i].edit, signs[i], hits[i].id))
    best_bm25 = max((hit.lexical or 0.0 for hit in hits), default=0.0)
    found = []
    for rank, i in enumerate(order[:most]):
        if margins is None and rank >= _LIKELIEST and distances[i] > _FAR * max(len(read), len(texts[i])):
            continue
        rival = next((distances[j] for j in order if j != i and forms[j] != forms[i]), math.inf)
        features = _compare(read, texts[i], form, forms[i], frequency, glyphs)
        features["glyph_distance"] = min(distances[i], _MOST_EDITS)
        features["glyph_rate"] = min(distances[i] / len(read), _MOST_RATE)
        features["gap"] = max(min(rival - distances[i], _MOST_GAP), -_MOST_GAP)
        features["dense"] = hits[i].dense or 0.0
        features["lexical"] = (hits[i].lexical or 0.0) / best_bm25 if best_bm25 else 0.0
        features["doubt"] = min(max(0.0, -reading.logprob), _MOST_DOUBT)
        features["margin"] = max(min(evidence[i], _MOST_MARGIN), -_MOST_MARGIN)
        features["refuted"] = min(max(-evidence[i] - _MOST_MARGIN, 0.0), _MOST_REFUTED)
        rate = (0.0 - evidence[i]) / max(1.0, features["folded_edits"])
        features["refuted_rate"] = min(max(rate, _REFUTED_RATES[0]), _REFUTED_RATES[1])
        features["cross"] = 0.0 if cross is None else max(min(float(cross[i]), _MOST_CROSS), -_MOST_CROSS)
        described = {name: float(features[name]) for name in FEATURES}
        found.append(Candidate(hits[i], read == texts[i], described, margins is not None))
    return found


def regional(features: Mapping[str, float]) -> bool:
    """Whether the sentence is the reading but for characters of another region.

    Readers take a region's characters for another's, and are sure of it: the texts decide, never the picture.
    """
    return features["folded_edits"] == 0


def _compare(
    read: str, text: str, form: str, other: str, frequency: Callable[[str], int], glyphs: GlyphTable
) -> dict[str, float]:
    """Compare a reading's letters and digits with a sentence's, and the matching forms of both."""
    steps, folded = _edits(read, text), _edits(form, other)
    changed = [place for kind, place, _ in steps if kind != "insert"]
    swaps = [1.0 - glyphs.similarity(read[i], text[j]) for kind, i, j in steps if kind == "replace"]
    return {
        "edits": min(len(steps), _MOST_EDITS),
        "edit_rate": min(len(steps) / len(read), _MOST_RATE),
        "folded_edits": min(len(folded), _MOST_EDITS),
        "folded_edit_rate": min(len(folded) / len(read), _MOST_RATE),
        "variant_edits": min(max(len(steps) - len(folded), 0), _MOST_EDITS),
        "simplified": min(sum((c := _simplified(r)) in text and c != "" for r in read if r not in text), _MOST_EDITS),
        "worst_glyph": max(swaps, default=0.0),
        "lost": min(len(steps) - len(changed), _MOST_EDITS),
        "invented": min(len(changed) - len(swaps), _MOST_EDITS),
        "stray": min(_stray(read, text, changed), _MOST_STRAY),
        "log_length": math.log(len(read)),
        "inverse_length": 1.0 / len(read),
        "familiarity": _familiarity(form, [place for _, place, _ in folded], frequency),
    }


def _edits(one: str, other: str) -> list[tuple[str, int, int]]:
    """Return what leads from one text to the other: kind, and place in either."""
    return cast("list[tuple[str, int, int]]", Levenshtein.editops(one, other).as_list())


@functools.lru_cache(maxsize=4096)
def _simplified(character: str) -> str:
    """Return the simplified form of a character, one that is no traditional character itself; else none."""
    form = convert(character, "s")
    return form if form != character and convert(form, "hk") != form else ""


def _stray(read: str, text: str, places: Sequence[int]) -> int:
    """Count characters such as the Latin letter that dirt in the picture is read as."""
    scripts = {_script(c) for c in text}
    return sum(_script(read[place]) not in scripts for place in places)


@functools.lru_cache(maxsize=4096)
def _script(character: str) -> str:
    # A name such as "CJK UNIFIED IDEOGRAPH-4E00" or "LATIN SMALL LETTER A" begins with the script.
    return "DIGIT" if character.isdigit() else unicodedata.name(character, "").partition(" ")[0]


def _familiarity(form: str, places: Sequence[int], frequency: Callable[[str], int]) -> float:
    """How common the pairs of characters around the edits are: a misreading makes pairs nobody writes."""
    pairs = {form[i : i + 2] for place in places for i in (place - 1, place) if 0 <= i <= len(form) - 2}
    return min([_MOST_FAMILIAR, *(math.log1p(frequency(pair)) for pair in pairs)])
