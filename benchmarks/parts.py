"""Snap captions that are not one sentence: python benchmarks/parts.py.

The lines that PaddleOCR reads of four films: as they are, with each fifth put together with the one behind it by a wide
gap, a space or nothing, and with each fifth cut in two captions. Each is snapped with captions taken for one sentence
each, and with two in one and one in two allowed, by a decision that is fitted on the other three films; with the film
in the corpus and without.
"""

from __future__ import annotations

from dataclasses import asdict

from material import DATA, FILMS, lines, require_data, write
from subtitles import gather
from tqdm import tqdm

import caprag
from caprag.evaluation import count_errors, count_outcomes
from caprag.reranking import fit_reranker
from caprag.reranking.marks import aligned_place
from caprag.text import countable

EVERY = 5
GAPS = ("　　　", " ", "")
FEWEST = 6

Lines = tuple[list[str], list[str]]
"""What is read and what is true."""


def as_they_are(read: list[str], truth: list[str]) -> Lines:
    """Change nothing."""
    return read, truth


def two_in_one(read: list[str], truth: list[str]) -> Lines:
    """Put each fifth caption together with the one behind it."""
    found: Lines = ([], [])
    place = 0
    while place < len(read):
        width = 2 if place % EVERY == 0 and place + 1 < len(read) else 1
        gap = GAPS[place // EVERY % len(GAPS)]
        for texts, source in zip(found, (read, truth), strict=True):
            texts.append(gap.join(source[place : place + width]))
        place += width
    return found


def one_in_two(read: list[str], truth: list[str]) -> Lines:
    """Cut each fifth caption in two."""
    found: Lines = ([], [])
    for place, (text, true) in enumerate(zip(read, truth, strict=True)):
        letters, said = countable(true), countable(text)
        if place % EVERY or len(letters) < FEWEST or len(said) < FEWEST:
            found[0].append(text)
            found[1].append(true)
            continue
        middle = len(letters) // 2
        cut = aligned_place(letters, said, middle)
        found[0].extend((said[:cut], said[cut:]))
        found[1].extend((letters[:middle], letters[middle:]))
    return found


def main() -> None:
    """Measure all films under both conditions."""
    require_data()
    cases = [case for case in gather()[0] if case.engine == "paddle"]
    rerankers = {
        film: fit_reranker(
            [example for case in cases if case.film != film for example in case.episode.line_examples()],
            episodes=[case.episode for case in cases if case.film != film],
            # As these cases were described: what was counted in films is not heard.
            uncounted=FILMS,
        )
        for film in FILMS
    }
    index = caprag.Index.build(caprag.read_corpus(DATA / "text"), progress=True)
    rows: list[dict[str, object]] = []
    for film in tqdm(FILMS, desc="parts"):
        ids: list[int] = []
        for inside in (False, True):
            if inside:
                ids = index.add(caprag.read_corpus(DATA / "subtitles" / film / "truth.srt"))
            for change in (as_they_are, two_in_one, one_in_two):
                read, truth = change(lines(film, "paddle"), lines(film, "truth"))
                known: dict[str, object] = {
                    "film": film, "corpus": "film and text" if inside else "text", "captions": change.__name__,
                }  # fmt: skip
                rows.append({**known, "way": "as read", "cer": count_errors(read, truth).cer, "harm": 0.0})
                for parts in (False, True):
                    captions = caprag.Pipeline(index, reranker=rerankers[film], parts=parts).snap(read)
                    outcomes = count_outcomes(captions, truth)
                    cer = count_errors([caption.text for caption in captions], truth).cer
                    way = "parts" if parts else "whole"
                    rows.append({**known, "way": way, "cer": cer, "harm": outcomes.harm, **asdict(outcomes)})
        index.remove(ids)
    for row in rows:
        print(*(f"{row[name]!s:14}" for name in ("film", "corpus", "captions", "way")), end=" ")
        print(f"CER {row['cer']:.4%}  harm {row['harm']:.2%}")
    print(write("parts", {"every": EVERY, "rows": rows}))


if __name__ == "__main__":
    main()
