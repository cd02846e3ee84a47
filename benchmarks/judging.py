"""Let the picture judge what was found for it: python benchmarks/judging.py [--every N].

The captions of real frames, and caption bitmaps on photographs, are damaged by the synthesiser at three strengths and
cut out. RapidOCR and the shipped reader read each, and give every sentence that is found a probability. Answers with
and without that judgement, each caption by itself, with all captions in the corpus beside text/ and with their own
left out; what is harmed then is compared with the risk that was asked for. The decision was fitted on drawn captions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import reader as reading
import readings
from material import DATA, ROOT, require_data, tsv, write
from PIL import Image

import caprag
from caprag.evaluation import count_errors, count_outcomes
from caprag.pipeline import Pipeline
from caprag.progress import progress_bar
from caprag.reranking import Found, Reranker
from caprag.synthesis.damage import STRENGTHS, apply_damage, sample_damage
from caprag.text import countable
from caprag.types import Caption, Hit

LEVELS = ("light", "medium", "severe")
RISKS = (0.01, 0.002)
RESAMPLES = 10_000


def crop_of(level: str, job: reading.Job) -> Image.Image:
    """Damage a picture and cut out its caption, all rows together."""
    number, kind, name, _, rows = job
    frame = readings.paste(name, number)[0] if kind == "bitmaps" else caprag.open_frame(DATA / kind / name)
    damage = sample_damage(np.random.default_rng([readings.SEED, number, LEVELS.index(level), 3]), STRENGTHS[level])
    rng = np.random.default_rng([readings.SEED, number, 4])
    pixels = apply_damage(np.asarray(frame.convert("RGB")), damage, rng)
    return reading.cut_out(pixels, rows[0])


def gather(name: str, index: caprag.Index, level: str, jobs: Sequence[reading.Job]) -> list[Found]:
    """Read captions, find sentences, and let the recognizer judge them."""
    options: dict[str, Any] = {} if name == "rapidocr" else {"crop": "frame", "batch_size": 16}
    pipeline = Pipeline(index, recognizer=caprag.load_recognizer(name, **options), in_order=False)
    with progress_bar(len(jobs), f"{name}, {level}", " captions") as bar:
        return list(pipeline.found_in((crop_of(level, job) for job in jobs), on_read=bar.update))


def without(one: Found, truth: str | None, *, judged: bool) -> Found:
    """Leave out a sentence, or the judgement."""
    gone = None if truth is None else countable(truth)
    kept = [place for place, hit in enumerate(one.hits) if countable(hit.text) != gone]
    hits: list[Hit] = [one.hits[place] for place in kept]
    margins = [one.margins[place] for place in kept] if judged and one.margins is not None else None
    return Found(one.hypotheses, hits, {}, margins)


def answers(found: Sequence[Found], reranker: Reranker, index: caprag.Index) -> list[Caption]:
    """Decide on each caption by itself."""
    return reranker.rerank_batch(
        [one.hypotheses for one in found], [one.hits for one in found], index.frequency, [one.margins for one in found]
    )


def difference(one: Sequence[int], two: Sequence[int], characters: int) -> tuple[float, list[float]]:
    """Return how far two error rates of the same captions lie apart, and its 95 % interval by drawing them anew."""
    apart = np.array(one, float) - np.array(two, float)
    drawn = np.random.default_rng(0).integers(len(apart), size=(RESAMPLES, len(apart)))
    sums = apart[drawn].sum(1) / characters
    return float(apart.sum() / characters), [float(value) for value in np.quantile(sums, (0.025, 0.975))]


def main() -> None:
    """Measure both readers at three strengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=2, help="every so manieth caption")
    parser.add_argument("--readers", nargs="+", default=["rapidocr", "caprag"])
    parser.add_argument("--out", type=Path, default=ROOT / "build/reader", help="folder of the captions' boxes")
    parser.add_argument("--name", default="judging", help="of the result file")
    arguments = parser.parse_args()
    require_data()
    jobs = [job for job in reading.located(arguments.out, 1) if len(job[4]) == 1][:: arguments.every]
    truths = [job[3] for job in jobs]
    captions = [row[1] for kind in readings.SETS for row in tsv(DATA / kind / "captions.tsv") if row[1].strip()]
    index = caprag.Index.build([*(s.text for s in caprag.read_corpus(DATA / "text")), *captions], progress=True)
    rows: list[dict[str, Any]] = []
    for name in arguments.readers:
        for level in LEVELS:
            found = gather(name, index, level, jobs)
            read = count_errors([one.hypotheses[0].text for one in found], truths)
            characters = sum(read.lengths)
            for known in (True, False):
                left = {
                    judged: [
                        without(one, None if known else truth, judged=judged)
                        for one, truth in zip(found, truths, strict=True)
                    ]
                    for judged in (False, True)
                }
                base = Reranker.load()
                given = {judged: answers(left[judged], base, index) for judged in left}
                counts = {judged: count_errors([c.text for c in given[judged]], truths) for judged in given}
                apart, interval = difference(counts[True].edits, counts[False].edits, characters)
                row: dict[str, Any] = {
                    "reader": name, "strength": level, "known": known, "captions": len(jobs), "read": read.cer,
                    "without": counts[False].cer, "with": counts[True].cer, "difference": apart, "interval": interval,
                    "harm": {"without": count_outcomes(given[False], truths).harm},
                }  # fmt: skip
                for risk in RISKS:
                    careful = answers(left[True], base.at_risk(risk), index)
                    row["harm"][str(risk)] = count_outcomes(careful, truths).harm
                    row.setdefault("at_risk", {})[str(risk)] = count_errors([c.text for c in careful], truths).cer
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(write(arguments.name, {"rows": rows}))


if __name__ == "__main__":
    main()
