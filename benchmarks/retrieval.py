"""Find sentences for readings: python benchmarks/retrieval.py [--untuned MODEL].

The share of readings whose first hit is the sentence that was meant, by letters and digits: lines that two OCR engines
misread, RapidOCR's readings of damaged pictures (benchmarks/readings.py makes them), and sentences of the films misread
by the noise channel. The corpus is text/ and all films' sentences, for the pictures with what they say besides. Peers
in the same run: the dense and the lexical search alone, exhaustive search by edit similarity (rapidfuzz), BM25,
TF-IDF, SymSpell, and an embedder that was not trained for this. Each is tested against exhaustive search, reading by
reading; where errors are few, so is how often its first hit is as near in edits as any sentence of the corpus.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpora import Pair, film_lines, films_and_text, misread_lines, picture_captions, relevant_places
from material import require_data, write
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from readings import HEIGHTS, READINGS, load_readings
from tqdm import tqdm

import caprag
from caprag.evaluation.baselines import Retriever
from caprag.evaluation.report import RetrievalReport
from caprag.evaluation.retrieval import evaluate_retrieval
from caprag.evaluation.systems import open_system
from caprag.noise import NoiseChannel
from caprag.text import match_form, match_forms, normalize
from caprag.types import Embedder

SYSTEMS = ("caprag", "dense", "lexical", "edit", "bm25", "tfidf", "symspell")
BASE = "edit"
# Success, for doubles of the truth are as good: of recall@1 they would make a fraction.
METRICS = ("success@1", "success@10", "mrr@10")
STRENGTHS = (5, 10, 30, 50, 60)
LIGHT = ("paddle", "lens", "simulated 5 %", "simulated 10 %")
SEED = 7
SAMPLES = 10000


class Remembering:
    """An embedder that embeds each text once, and is called by a name that is the same on all machines."""

    def __init__(self, embedder: Embedder, name: str) -> None:
        self._embedder = embedder
        self._known: dict[str, npt.NDArray[np.float32]] = {}
        self.dimension = embedder.dimension
        self.fingerprint = embedder.fingerprint
        self.name = name

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Embed texts."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(fresh, self._embedder.embed(fresh, progress=progress), strict=True))
        return np.array([self._known[text] for text in texts], np.float32).reshape(len(texts), self.dimension)


@dataclass(frozen=True)
class Queries:
    """Readings of one kind, with their truths."""

    name: str
    pairs: list[Pair]
    with_pictures: bool = False


def query_sets(folder: Path, count: int) -> Iterator[Queries]:
    """Yield all kinds of readings, those that have no letter or digit left out."""
    for engine in ("paddle", "lens"):
        yield Queries(engine, misread_lines(engine))
    for lines in sorted(HEIGHTS, reverse=True):
        pairs = [(row["read"], row["truth"]) for row in load_readings(folder, lines)]
        pairs = [pair for pair in pairs if all(map(match_form, pair))]
        if pairs:
            yield Queries(f"pictures, {lines} lines", pairs, with_pictures=True)
        else:
            print(f"{folder}: has no readings at {lines} lines; make them with python benchmarks/readings.py")
    truths = film_lines(count, SEED)
    channel = NoiseChannel.load()
    for percent in STRENGTHS:
        read = channel.corrupt(truths, seed=SEED, strength=percent / 100)
        yield Queries(f"simulated {percent} %", list(zip(read, truths, strict=True)))


def nearest_distances(corpus: Sequence[str], queries: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the edits from each reading to the nearest sentence, of the matching forms."""
    forms = match_forms(corpus)
    nearest = []
    for start in range(0, len(queries), 64):
        part = [match_form(query) for query in queries[start : start + 64]]
        nearest.append(cdist(part, forms, scorer=Levenshtein.distance, dtype=np.uint16, workers=-1).min(1))
    return np.concatenate(nearest).astype(np.int64)


def agreement(corpus: Sequence[str], queries: Queries, report: RetrievalReport, nearest: Sequence[int]) -> float:
    """Return the share of readings whose first hit is as near as the nearest sentence."""
    agreed = [
        bool(hits) and Levenshtein.distance(match_form(read), match_form(corpus[int(hits[0][0])])) == least
        for (read, _), hits, least in zip(queries.pairs, report.hits, nearest, strict=True)
    ]
    return float(np.mean(agreed))


def row_of(queries: Queries, system: str, report: RetrievalReport, base: RetrievalReport) -> dict[str, Any]:
    """Say how good a system is, and how far from exhaustive search."""
    first = METRICS[0]
    comparison = next(c for c in report.compare(base, samples=SAMPLES) if c.metric == first)
    return {
        "set": queries.name,
        "system": system,
        "queries": len(queries.pairs),
        "recall@1": report[first].value,
        "interval": report[first].interval,
        "recall@10": report["success@10"].value,
        "mrr@10": report["mrr@10"].value,
        "difference": comparison.test.difference,
        "difference_interval": comparison.test.interval,
        "p": comparison.test.p_randomization,
        "better": comparison.test.better,
        "worse": comparison.test.worse,
        "seconds": report.seconds,
        "signature": report[first].signature,
    }


def measure(corpus: list[str], sets: Sequence[Queries], systems: dict[str, Any]) -> list[dict[str, Any]]:
    """Measure all systems on all kinds of readings that go with a corpus."""
    relevant = {s.name: relevant_places(corpus, [truth for _, truth in s.pairs]) for s in sets}
    reports: dict[tuple[str, str], RetrievalReport] = {}
    for name, system in tqdm(systems.items(), desc=f"{len(corpus)} sentences"):
        retriever: Retriever = system.build(corpus)
        for queries in sets:
            reports[queries.name, name] = evaluate_retrieval(
                retriever, [normalize(read) for read, _ in queries.pairs], relevant[queries.name], METRICS,
                name=name, signature=f"set={queries.name.replace(' ', '_')}",
            )  # fmt: skip
    rows = []
    for queries in sets:
        light = queries.name in LIGHT
        nearest = nearest_distances(corpus, [read for read, _ in queries.pairs]).tolist() if light else []
        for name in systems:
            report = reports[queries.name, name]
            row = row_of(queries, name, report, reports[queries.name, BASE])
            if light:
                row["agreement"] = agreement(corpus, queries, report, nearest)
            rows.append(row)
    return rows


def main() -> None:
    """Measure all, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readings", type=Path, default=READINGS, help="folder that benchmarks/readings.py wrote")
    parser.add_argument("--untuned", help="folder or hub id of an embedder that was not trained for this")
    parser.add_argument("--queries", type=int, default=2000, help="how many sentences the channel misreads")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS)
    parser.add_argument("--name", default="retrieval", help="of the result file")
    arguments = parser.parse_args()
    require_data()
    embedder = Remembering(caprag.load_embedder(), "shipped")
    wanted = list(dict.fromkeys([*arguments.systems, BASE]))
    systems = {name: open_system(name, embedder=embedder, workers=-1) for name in wanted}
    if arguments.untuned:
        untuned = Remembering(caprag.load_embedder(arguments.untuned), Path(arguments.untuned).name)
        systems |= {f"{name}, untuned": open_system(name, embedder=untuned) for name in ("caprag", "dense")}
    sets = list(query_sets(arguments.readings, arguments.queries))
    corpus = films_and_text()
    with_pictures = list(dict.fromkeys([*corpus, *picture_captions()]))
    rows = measure(corpus, [s for s in sets if not s.with_pictures], systems)
    rows += measure(with_pictures, [s for s in sets if s.with_pictures], systems)
    order = {queries.name: place for place, queries in enumerate(sets)}
    rows.sort(key=lambda row: order[row["set"]])
    sizes = {"sentences": len(corpus), "with_pictures": len(with_pictures)}
    path = write(arguments.name, {**sizes, "rows": rows})
    for row in rows:
        low, high = row["difference_interval"]
        agreed = f"  as near as the nearest {row['agreement']:.2%}" if "agreement" in row else ""
        print(
            f"{row['set']:20} {row['system']:16} {row['recall@1']:.2%}  {row['difference']:+.2%} "
            f"[{low:+.2%}, {high:+.2%}] p {row['p']:.4f}{agreed}"
        )
    print(path)


if __name__ == "__main__":
    main()
