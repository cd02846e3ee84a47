"""Snap what two OCR engines read of four films: python benchmarks/subtitles.py.

For each film the lines of paddle.srt are snapped twice: with the film's sentences in the index beside those of text/,
and without them; in their order, in an order drawn by chance, and each by itself. caprag's decision is fitted on the
other three films. Peers in the same run: always the nearest sentence by rapidfuzz, and the same within the threshold
that is best for them in hindsight.
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
from caprag.evaluation.ladder import risk_coverage_area
from caprag.reranking import Episode, Reranker, fit_reranker
from caprag.reranking.confusions import load_glyphs
from caprag.reranking.features import FEATURES
from caprag.reranking.fitting import listener
from caprag.text import countable
from caprag.types import Caption, Hit, Hypothesis

ENGINES = ("paddle", "lens")
SEED = 1
THRESHOLDS = [round(t, 2) for t in np.arange(0.05, 0.55, 0.05)]


@dataclass(frozen=True)
class Case:
    """One film read by one engine, with or without its sentences in the index."""

    film: str
    engine: str
    inside: bool
    truth: list[str]
    read: list[str]
    episode: Episode


def gather() -> tuple[list[Case], dict[bool, dict[str, list[str]]]]:
    """Search every reading under both conditions; also return the sentences that each condition had."""
    index = caprag.Index.build(caprag.read_corpus(DATA / "text"), progress=True)
    background = [index[i].text for i in index]
    pipeline = caprag.Pipeline(index, reranker=listener())
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
                found = list(pipeline.found_for(read, at_once=512))
                # What was counted in films makes no substitution cheap: it is they that are tested.
                episode = Episode.of(
                    found, truth, index.frequency, sentences=len(index), known=inside, group=film,
                    glyphs=load_glyphs(FILMS),
                )  # fmt: skip
                cases.append(Case(film, engine, inside, truth, read, episode))
        index.remove(ids)
    return cases, corpora


def by_line(reranker: Reranker, case: Case) -> list[Caption]:
    """Decide on each reading by itself."""
    rows = zip(case.episode.readings, case.episode.described, strict=True)
    return [reranker.decide((read,), found) for read, found in rows]


def in_order(reranker: Reranker, episode: Episode) -> list[Caption]:
    """Decide on readings in their order."""
    rows = zip(episode.readings, episode.described, episode.places, strict=True)
    return list(reranker.decide_in_order((((read,), found, spots) for read, found, spots in rows), episode.sentences))


def shuffled(reranker: Reranker, case: Case) -> list[Caption]:
    """Decide on readings in an order drawn by chance, and put the answers back."""
    order = np.random.default_rng(SEED).permutation(len(case.read)).tolist()
    answers = dict(zip(order, in_order(reranker, case.episode.shuffled(SEED)), strict=True))
    return [answers[place] for place in range(len(order))]


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


def risks(captions: Sequence[Caption], truths: Sequence[str]) -> dict[str, float]:
    """Measure the area under risk over coverage: by the stated confidence, and by each feature alone.

    A feature is taken in the direction that is better in hindsight; a line without a candidate counts as its mean.
    """
    right = [countable(c.text) == countable(t) for c, t in zip(captions, truths, strict=True)]
    found = {"confidence": risk_coverage_area([caption.confidence for caption in captions], right)}
    for name in (*FEATURES, "story"):
        known = [caption.evidence[name] for caption in captions if name in caption.evidence]
        middle = float(np.mean(known))
        values = np.array([caption.evidence.get(name, middle) for caption in captions])
        found[name] = min(risk_coverage_area(values, right), risk_coverage_area(-values, right))
    return found


def main() -> None:
    """Measure all films under both conditions."""
    require_data()
    cases, corpora = gather()
    tested = [case for case in cases if case.engine == "paddle"]
    found = {(c.film, c.inside): nearest(c, corpora[c.inside][c.film]) for c in tqdm(tested, desc="peers")}
    fitted = {
        film: fit_reranker(
            [e for c in tested if c.film != film for e in c.episode.line_examples()],
            episodes=[c.episode for c in tested if c.film != film],
            uncounted=(film,),
        )
        for film in FILMS
    }
    shipped = Reranker.load()

    def ways(case: Case, threshold: float) -> dict[str, list[Caption]]:
        peers = found[case.film, case.inside]
        return {
            "as read": as_captions(case, peers, -1.0),
            "caprag": in_order(fitted[case.film], case.episode),
            "caprag, order shuffled": shuffled(fitted[case.film], case),
            "caprag, line by line": by_line(fitted[case.film], case),
            "caprag, shipped (fitted on all films)": in_order(shipped, case.episode),
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
    areas = {}
    for film in FILMS:
        own = [case for case in tested if case.film == film]
        answers = [caption for case in own for caption in in_order(fitted[film], case.episode)]
        areas[film] = risks(answers, [truth for case in own for truth in case.truth])
        others = {name: area for name, area in areas[film].items() if name != "confidence"}
        first = min(others, key=others.__getitem__)
        print(f"{film:7} area {areas[film]['confidence']:.6f}, best of single features {first} {others[first]:.6f}")
    result = {"threshold": best, "sentences": len(corpora[False][FILMS[0]]), "rows": rows, "areas": areas}
    path = write("subtitles", result)
    for row in rows:
        print(f"{row['film']:7} {row['corpus']:14} {row['way']:38} CER {row['cer']:.4%}  harm {row['harm']:.2%}")
    print(path)


if __name__ == "__main__":
    main()
