"""Snap what two OCR engines read of four films: python benchmarks/subtitles.py.

For each film the lines of paddle.srt are snapped twice: with the film's sentences in the index beside those of text/,
and without them. caprag's decision is fitted on the other three films. Peers in the same run: always the nearest
sentence by rapidfuzz, and the same within the threshold that is best for them in hindsight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from material import DATA, FILMS, lines, require_data, write
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein
from tqdm import tqdm

import caprag
from caprag.evaluation import cer_report, count_errors, count_outcomes
from caprag.glyphs import GlyphTable
from caprag.reranking import Example, Reranker, fit_reranker
from caprag.reranking.features import Candidate, best_candidate
from caprag.types import Caption, Hit, Hypothesis

ENGINES = ("paddle", "lens")
THRESHOLDS = [round(t, 2) for t in np.arange(0.05, 0.55, 0.05)]


@dataclass(frozen=True)
class Case:
    """One film read by one engine, with or without its sentences in the index."""

    film: str
    engine: str
    inside: bool
    truth: list[str]
    read: list[str]
    candidates: list[Candidate | None]

    @property
    def examples(self) -> list[Example]:
        """What the decision can be fitted on."""
        rows = zip(self.read, self.candidates, self.truth, strict=True)
        return [Example.of(Hypothesis(read), candidate, truth) for read, candidate, truth in rows]


def gather() -> tuple[list[Case], dict[bool, dict[str, list[str]]]]:
    """Search every reading under both conditions; also return the sentences that each condition had."""
    glyphs = GlyphTable.load()
    index = caprag.Index.build(caprag.read_corpus(DATA / "text"), progress=True)
    background = [index[i].text for i in index]
    cases, corpora = [], {False: dict.fromkeys(FILMS, background), True: {}}
    for film in tqdm(FILMS, desc="search"):
        truth = lines(film, "truth")
        ids: list[int] = []
        for inside in (False, True):
            if inside:
                ids = index.add(caprag.read_corpus(DATA / "subtitles" / film / "truth.srt"))
                corpora[True][film] = background + [index[i].text for i in ids]
            for engine in ENGINES:
                read = lines(film, engine)
                hits = index.search_batch(read)
                candidates = [
                    best_candidate(Hypothesis(r), h, index.frequency, glyphs) for r, h in zip(read, hits, strict=True)
                ]  # fmt: skip
                cases.append(Case(film, engine, inside, truth, read, candidates))
        index.remove(ids)
    return cases, corpora


def answer(reranker: Reranker, case: Case) -> list[Caption]:
    """Decide on readings whose features are known already."""
    return [
        reranker.decide((Hypothesis(read),), candidate)
        for read, candidate in zip(case.read, case.candidates, strict=True)
    ]


def nearest(case: Case, corpus: Sequence[str]) -> list[tuple[str, float]]:
    """Find the nearest sentence by exhaustive search: text and normalised distance of the matching forms."""
    forms = [caprag.match_form(text) for text in corpus]
    queries = [caprag.match_form(text) for text in case.read]
    found = []
    for start in range(0, len(queries), 256):
        table = process.cdist(queries[start : start + 256], forms, scorer=Levenshtein.normalized_distance, workers=-1)
        best = table.argmin(1)
        found += [(corpus[j], float(row[j])) for row, j in zip(table, best, strict=True)]
    return found


def as_captions(case: Case, found: Sequence[tuple[str, float]], threshold: float) -> list[Caption]:
    """Snap to the nearest sentence where it is near enough."""
    captions = []
    for read, (text, distance) in zip(case.read, found, strict=True):
        near = distance <= threshold
        hit = Hit(0, text, 1 - distance) if near else None
        captions.append(Caption(text if near else read, hit, (Hypothesis(read),), 1.0))
    return captions


def score(case: Case, captions: Sequence[Caption]) -> dict[str, object]:
    """Measure one way on one film."""
    counts = count_errors([c.text for c in captions], case.truth)
    outcomes = count_outcomes(captions, case.truth)
    report = cer_report(counts)
    return {
        "cer": report.value,
        "interval": report.interval,
        "signature": report.signature,
        "harm": outcomes.harm,
        "wrong_lines": counts.wrong_lines,
        **asdict(outcomes),
    }


def main() -> None:
    """Measure all films under both conditions."""
    require_data()
    cases, corpora = gather()
    tested = [case for case in cases if case.engine == "paddle"]
    found = {(c.film, c.inside): nearest(c, corpora[c.inside][c.film]) for c in tqdm(tested, desc="peers")}
    fitted = {
        film: fit_reranker([e for c in cases if c.film != film and c.engine == "paddle" for e in c.examples])
        for film in FILMS
    }
    shipped = Reranker.load()

    def ways(case: Case, threshold: float) -> dict[str, list[Caption]]:
        peers = found[case.film, case.inside]
        return {
            "as read": as_captions(case, peers, -1.0),
            "caprag, fitted on the other films": answer(fitted[case.film], case),
            "caprag, shipped (fitted on all films)": answer(shipped, case),
            "nearest by rapidfuzz, always": as_captions(case, peers, 2.0),
            "nearest by rapidfuzz, best threshold": as_captions(case, peers, threshold),
        }

    def errors(threshold: float) -> int:
        return sum(
            sum(
                count_errors(
                    [c.text for c in as_captions(case, found[case.film, case.inside], threshold)], case.truth
                ).edits
            )
            for case in tested
        )

    best = min(THRESHOLDS, key=errors)
    rows = [
        {"film": case.film, "corpus": "film and text" if case.inside else "text", "way": way, **score(case, captions)}
        for case in tested
        for way, captions in ways(case, best).items()
    ]
    path = write("subtitles", {"threshold": best, "sentences": len(corpora[False][FILMS[0]]), "rows": rows})
    for row in rows:
        print(f"{row['film']:7} {row['corpus']:14} {row['way']:38} CER {row['cer']:.4%}  harm {row['harm']:.2%}")
    print(path)


if __name__ == "__main__":
    main()
