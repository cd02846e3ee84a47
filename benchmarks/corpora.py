"""The corpora and queries that the benchmarks of retrieval share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from material import DATA, FILMS, lines, tsv

import caprag
from caprag.text import countable, match_form, match_forms, normalize

Pair = tuple[str, str]
"""A reading and its truth."""


def films_and_text() -> list[str]:
    """Return the sentences of text/ and of the four films, each once, in their written form."""
    places = [DATA / "text", *(DATA / "subtitles" / film / "truth.srt" for film in FILMS)]
    texts = (normalize(sentence.text) for place in places for sentence in caprag.read_corpus(place))
    return [text for text in dict.fromkeys(texts) if text]


def picture_captions() -> list[str]:
    """Return what the frames and the bitmaps say, each once, in its written form."""
    texts = (normalize(row[1]) for kind in ("frames", "bitmaps") for row in tsv(DATA / kind / "captions.tsv"))
    return [text for text in dict.fromkeys(texts) if text]


def misread_lines(engine: str) -> list[Pair]:
    """Return the lines of all films that an OCR engine misread, by letters and digits, and what they say."""
    pairs = [pair for film in FILMS for pair in zip(lines(film, engine), lines(film, "truth"), strict=True)]
    return [
        (read, truth)
        for read, truth in pairs
        if countable(read) and countable(truth) and countable(read) != countable(truth)
    ]


def film_lines(count: int, seed: int) -> list[str]:
    """Draw sentences of the films that have a letter or digit, each form once."""
    texts = {match_form(text): normalize(text) for film in FILMS for text in reversed(lines(film, "truth"))}
    texts.pop("", None)
    known = sorted(texts.values())
    chosen = np.random.default_rng(seed).permutation(len(known))[:count]
    return [known[i] for i in np.sort(chosen)]


def relevant_places(corpus: Sequence[str], truths: Sequence[str]) -> list[list[int]]:
    """Return for each truth the places of the sentences that have its matching form."""
    places: dict[str, list[int]] = {}
    for place, form in enumerate(match_forms(corpus)):
        places.setdefault(form, []).append(place)
    return [places[form] for form in map(match_form, truths)]


def made_lines(count: int, seed: int) -> Iterator[str]:
    """Yield so many distinct lines: the first half of a line of text/ and the second of another.

    More of them begin with the same ones.
    """
    texts = (normalize(sentence.text) for sentence in caprag.read_corpus(DATA / "text"))
    known = [text for text in dict.fromkeys(texts) if 4 <= len(text) <= 24 and "\n" not in text]
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in known]
    rng = np.random.default_rng(seed)
    seen: set[str] = set()
    while len(seen) < count:
        # A block of fixed size, so that a longer corpus begins as a shorter one does.
        for one, two in rng.integers(len(known), size=(100_000, 2)).tolist():
            line = normalize(halves[one][0] + halves[two][1])
            if line not in seen:
                seen.add(line)
                yield line
                if len(seen) == count:
                    return
