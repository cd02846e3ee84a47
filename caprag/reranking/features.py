"""What speaks for and against one sentence being what a reading stands for.

Each feature is a plain number read off the two texts, the hit's scores, or the corpus; none is fitted here.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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


def candidates(
    reading: Hypothesis,
    hits: Sequence[Hit],
    frequency: Callable[[str], int],
    glyphs: GlyphTable,
    margins: Sequence[float] | None = None,
    *,
    cross: Sequence[float] | None = None,
    most: int | None = None,
) -> list[Candidate]:
    """Describe the sentences that a reading may stand for.

    Parameters
    ----------
    reading
        What was read, with its log-probability.
    hits
        What retrieval found for it.
    frequency
        Number of sentences in the corpus that hold a pair of characters in the matching form.
    glyphs
        The shapes of characters.
    margins
        For each hit, ln p(hit | picture) - ln p(reading | picture) in nats; ``None`` without a picture.
    cross
        For each hit a cross-encoder's logit for the reading and it; ``None`` without one.
    most
        Describe so many at most, >= 1; ``None`` for all.

    Returns
    -------
    list of Candidate
        The likeliest first: the hit with the greatest margin, or without a picture the one at the smallest glyph
        distance, of several the one whose written form is nearest. Empty without a letter or digit in the reading.

    Raises
    ------
    ValueError
        Where there are not as many margins or logits as hits.
    """
    read = countable(reading.text)
    if not read or not hits:
        return []
    if margins is not None and len(margins) != len(hits):
        raise ValueError(f"there are {len(hits)} hits and {len(margins)} margins; they must be as many")
    if cross is not None and len(cross) != len(hits):
        raise ValueError(f"there are {len(hits)} hits and {len(cross)} logits; they must be as many")
    texts = [countable(hit.text) for hit in hits]
    forms = [match_form(hit.text) for hit in hits]
    # Rounded, so that what is equal stays so in whatever order single precision has added it up.
    distances = [round(distance, 5) for distance in glyphs.distances([read] * len(texts), texts).tolist()]
    # Beyond what is told apart all are alike: a letter that the recognizer can't write rules nothing out.
    floor = -_MOST_MARGIN - _MOST_REFUTED
    evidence = [0.0] * len(hits) if margins is None else [max(margin, floor) for margin in margins]
    written = normalize(reading.text)
    signs = [Levenshtein.distance(written, hit.text) for hit in hits]
    order = sorted(range(len(hits)), key=lambda i: (-evidence[i], distances[i], -hits[i].edit, signs[i], hits[i].id))
    # All candidates ask for the same few pairs.
    often = functools.cache(frequency)
    best_bm25 = max((hit.lexical or 0.0 for hit in hits), default=0.0)
    found = []
    for i in order[:most]:
        rival = next((distances[j] for j in order if j != i and forms[j] != forms[i]), math.inf)
        features = _compare(read, texts[i], distances[i], often, glyphs)
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


def best_candidate(
    reading: Hypothesis,
    hits: Sequence[Hit],
    frequency: Callable[[str], int],
    glyphs: GlyphTable,
    margins: Sequence[float] | None = None,
) -> Candidate | None:
    """Describe the sentence that a reading most likely stands for; see `candidates`.

    Returns
    -------
    Candidate or None
        The first of the candidates; ``None`` where there is none.
    """
    return next(iter(candidates(reading, hits, frequency, glyphs, margins, most=1)), None)


def _compare(
    read: str, text: str, glyph_distance: float, frequency: Callable[[str], int], glyphs: GlyphTable
) -> dict[str, float]:
    steps = Levenshtein.editops(read, text)
    form, other = match_form(read), match_form(text)
    folded = Levenshtein.editops(form, other)
    swaps = [1.0 - glyphs.similarity(read[s.src_pos], text[s.dest_pos]) for s in steps if s.tag == "replace"]
    return {
        "edits": min(len(steps), _MOST_EDITS),
        "edit_rate": min(len(steps) / len(read), _MOST_RATE),
        "folded_edits": min(len(folded), _MOST_EDITS),
        "folded_edit_rate": min(len(folded) / len(read), _MOST_RATE),
        "variant_edits": min(max(len(steps) - len(folded), 0), _MOST_EDITS),
        "simplified": min(sum((c := _simplified(r)) in text and c != "" for r in read if r not in text), _MOST_EDITS),
        "glyph_distance": min(glyph_distance, _MOST_EDITS),
        "glyph_rate": min(glyph_distance / len(read), _MOST_RATE),
        "worst_glyph": max(swaps, default=0.0),
        "lost": min(sum(s.tag == "insert" for s in steps), _MOST_EDITS),
        "invented": min(sum(s.tag == "delete" for s in steps), _MOST_EDITS),
        "stray": min(_stray(read, text, [s.src_pos for s in steps if s.tag != "insert"]), _MOST_STRAY),
        "log_length": math.log(len(read)),
        "inverse_length": 1.0 / len(read),
        "familiarity": _familiarity(form, [s.src_pos for s in folded], frequency),
    }


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
