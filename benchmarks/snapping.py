"""What snapping costs: taskset -c 0 python benchmarks/snapping.py [--sentences 100000 1000000].

On one core, without pictures: lines of text/ and made of its halves are indexed; readings of some by the noise channel
and as many of sentences that are not in the index are snapped, in batches and one by one. Then captions on photographs
are read by a recognizer, and ten sentences scored for each: the time of scoring as a share of that of reading.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import reader as reading
from corpora import made_lines
from judging import crop_of
from material import RESULTS, ROOT, machine, require_data, write
from scale_systems import factory_of

import caprag
from caprag.progress import progress_bar

READINGS = 1000
PICTURES = 100
CANDIDATES = 10
BATCH = 512
STRENGTH = 0.1


def milliseconds(work: Callable[[], object], count: int, repeats: int = 3) -> float:
    """Return the best time for one of so many."""
    took = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        took.append(time.perf_counter() - begin)
    return min(took) / count * 1e3


def lines(sentences: int) -> dict[str, Any]:
    """Measure readings alone."""
    texts = list(made_lines(sentences + READINGS // 2, 0))
    inside, outside = texts[:sentences], texts[sentences:]
    factory, parameters = factory_of(sentences)
    index = caprag.Index.build(inside, factory=factory, progress=True)
    index.parameters = parameters
    rng = np.random.default_rng(1)
    chosen = [inside[place] for place in rng.choice(sentences, READINGS // 2, replace=False)]
    read = caprag.NoiseChannel.load().corrupt([*chosen, *outside], strength=STRENGTH)
    ways = {"in order": caprag.Pipeline(index), "line by line": caprag.Pipeline(index, in_order=False)}
    row: dict[str, Any] = {"sentences": sentences, "factory": factory}
    for name, pipeline in ways.items():
        pipeline.snap(read[:BATCH])
        row[name] = milliseconds(lambda snap=pipeline.snap: snap(read), len(read))  # type: ignore[misc]
    alone = ways["line by line"]
    row["one by one"] = milliseconds(lambda: [alone.snap([text]) for text in read[:200]], 200, 1)
    row["search"] = milliseconds(lambda: index.search_batch(read, 10), len(read))
    return row


def pictures(name: str) -> dict[str, Any]:
    """Measure a recognizer: reading, five hypotheses, and ten sentences scored."""
    jobs = [job for job in reading.located(ROOT / "build/reader", 1) if len(job[4]) == 1][:: 875 // PICTURES]
    crops = [crop_of("medium", job) for job in jobs]
    known = [job[3] for job in reading.located(ROOT / "build/reader", 1)]
    rng = np.random.default_rng(0)
    asked = [[job[3], *(known[i] for i in rng.choice(len(known), CANDIDATES - 1, replace=False))] for job in jobs]
    options: dict[str, Any] = {} if name == "rapidocr" else {"crop": "frame"}
    recognizer = caprag.load_recognizer(name, batch_size=8, **options)
    took = {"reading": 0.0, "five": 0.0, "scoring": 0.0}
    recognizer.recognize_batch(crops[:8], 1)
    with progress_bar(len(crops), name, " captions") as bar:
        for start in range(0, len(crops), 8):
            images, texts = crops[start : start + 8], asked[start : start + 8]
            for way, work in (
                ("reading", lambda: recognizer.recognize_batch(images, 1)),  # noqa: B023
                ("scoring", lambda: recognizer.score_batch(images, texts)),  # noqa: B023
                ("five", lambda: recognizer.recognize_batch(images, 5)),  # noqa: B023
            ):
                begin = time.perf_counter()
                work()
                took[way] += time.perf_counter() - begin
            bar.update(len(images))
    found = {way: seconds / len(crops) * 1e3 for way, seconds in took.items()}
    return {"reader": name, **found, "ratio": found["scoring"] / found["reading"]}


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--readers", nargs="*", default=["rapidocr", "caprag"])
    parser.add_argument("--name", default="snapping", help="of the result file")
    arguments = parser.parse_args()
    require_data()
    if len(os.sched_getaffinity(0)) > 1:
        sys.exit("this measures one core; give it no more: taskset -c 0 python benchmarks/snapping.py")
    # What another run measured of other sizes and readers stays, by the same packages.
    before = RESULTS / f"{arguments.name}.json"
    stored = json.loads(before.read_text(encoding="utf-8")) if before.exists() else {}
    stored = stored if stored.get("machine") == machine() else {}
    found: dict[str, list[dict[str, Any]]] = {
        "lines": [row for row in stored.get("lines", []) if row["sentences"] not in arguments.sentences],
        "pictures": [row for row in stored.get("pictures", []) if row["reader"] not in arguments.readers],
    }
    for kind, measure, given in (("lines", lines, arguments.sentences), ("pictures", pictures, arguments.readers)):
        for one in given:
            row = measure(one)
            found[kind].append(row)
            print({name: round(v, 2) if isinstance(v, float) else v for name, v in row.items()}, flush=True)
    found["lines"].sort(key=lambda row: row["sentences"])
    found["pictures"].sort(key=lambda row: row["reader"])
    print(write(arguments.name, dict(found)))


if __name__ == "__main__":
    main()
