"""Let the picture judge what was found for it: python benchmarks/judging.py [--every N].

The captions of real frames, and caption bitmaps on photographs, are damaged by the synthesiser at three strengths and
cut out. RapidOCR and the shipped reader read each, and give every sentence that is found a probability. Answers with
and without that judgement, each caption by itself, with all captions in the corpus beside text/, with each one's own
left out, and both together; what is harmed is compared with the risk that was asked for.
The decision on pictures was fitted on drawn captions. That on texts has seen what two engines read of the film whose
captions the bitmaps are, so that "by text alone" is flattered; what was counted in that film is not heard.
What was read is kept in --out: remove it there where readers or the index have changed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import reader as reading
import readings
from known import as_line, of_line
from material import DATA, RESULTS, ROOT, require_data, tsv, write
from PIL import Image

import caprag
from caprag.evaluation import count_errors, count_outcomes
from caprag.pipeline import Pipeline
from caprag.progress import progress_bar
from caprag.reranking import Found, Reranker
from caprag.synthesis.damage import STRENGTHS, apply_damage, sample_damage
from caprag.text import countable
from caprag.types import Caption

LEVELS = ("light", "medium", "severe")
RISKS = (0.01, 0.002)
RESAMPLES = 10_000
OWN_FILM = "mlamd"
"""Of whose lines the bitmaps are pictures."""


def crop_of(level: str, job: reading.Job) -> Image.Image:
    """Damage a picture and cut out its caption, all rows together."""
    number, kind, name, _, rows = job
    frame = readings.paste(name, number)[0] if kind == "bitmaps" else caprag.open_frame(DATA / kind / name)
    damage = sample_damage(np.random.default_rng([readings.SEED, number, LEVELS.index(level), 3]), STRENGTHS[level])
    rng = np.random.default_rng([readings.SEED, number, 4])
    pixels = apply_damage(np.asarray(frame.convert("RGB")), damage, rng)
    return reading.cut_out(pixels, rows[0])


def gather(name: str, index: caprag.Index, level: str, jobs: Sequence[reading.Job], kept: Path) -> list[Found]:
    """Read captions, find sentences, and let the recognizer judge them; what was kept of that is not done again."""
    if kept.exists():
        return [of_line(line)[0] for line in kept.read_text(encoding="utf-8").splitlines()]
    options: dict[str, Any] = {} if name == "rapidocr" else {"crop": "frame", "batch_size": 16}
    pipeline = Pipeline(index, recognizer=caprag.load_recognizer(name, **options), in_order=False)
    with progress_bar(len(jobs), f"{name}, {level}", " captions") as bar:
        found = list(pipeline.found_in((crop_of(level, job) for job in jobs), on_read=bar.update))
    part = kept.with_suffix(".part")
    part.write_text("".join(map(as_line, found)), encoding="utf-8")
    part.rename(kept)
    return found


def answers(found: Sequence[Found], reranker: Reranker, index: caprag.Index) -> list[Caption]:
    """Decide on each caption by itself."""
    return reranker.rerank_batch(
        [one.hypotheses for one in found], [one.hits for one in found], index.frequency, [one.margins for one in found]
    )


@dataclass(frozen=True)
class Measured:
    """What one way made of captions: edits left in each, and how many of them it harmed."""

    edits: list[int]
    harmed: int
    captions: int

    def joined(self, other: Measured) -> Measured:
        """Return both together, caption by caption."""
        edits = [one + two for one, two in zip(self.edits, other.edits, strict=True)]
        return Measured(edits, self.harmed + other.harmed, self.captions + other.captions)

    @property
    def harm(self) -> float:
        """Share of the captions that were right as read and are wrong as answered."""
        return self.harmed / self.captions


def measured(
    found: Sequence[Found], truths: Sequence[str], base: Reranker, index: caprag.Index, gone: bool
) -> tuple[Measured, ...]:
    """Answer by text alone, with the picture, and with it at each risk; with each caption's sentence or without."""
    left = [one.without({countable(truth)} if gone else set()) for one, truth in zip(found, truths, strict=True)]
    blind = [replace(one, margins=None) for one in left]
    answered = [answers(blind, base, index), answers(left, base, index)]
    answered += [answers(left, base.at_risk(risk), index) for risk in RISKS]
    return tuple(
        Measured(
            list(count_errors([c.text for c in given], truths).edits), count_outcomes(given, truths).harmed, len(truths)
        )
        for given in answered
    )


def compared(without: Measured, judged: Measured, *at_risk: Measured, characters: int) -> dict[str, Any]:
    """Return error rates, their difference with its 95 % interval by drawing captions anew, and what was harmed."""
    apart = np.array(judged.edits, float) - np.array(without.edits, float)
    drawn = np.random.default_rng(0).integers(len(apart), size=(RESAMPLES, len(apart)))
    ends = np.quantile(apart[drawn].sum(1) / characters, (0.025, 0.975))
    risks = dict(zip(map(str, RISKS), at_risk, strict=True))
    return {
        "without": sum(without.edits) / characters, "with": sum(judged.edits) / characters,
        "difference": float(apart.sum() / characters), "interval": [float(end) for end in ends],
        "harm": {"without": without.harm, "with": judged.harm, **{name: one.harm for name, one in risks.items()}},
        "at_risk": {name: sum(one.edits) / characters for name, one in risks.items()},
    }  # fmt: skip


def main() -> None:
    """Measure both readers at three strengths."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=2, help="every so manieth caption")
    parser.add_argument("--readers", nargs="+", default=["rapidocr", "caprag"])
    parser.add_argument("--out", type=Path, default=ROOT / "build/reader", help="folder of boxes and of what is read")
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
            kept = arguments.out / f"judged-{name.replace('/', '_')}-{level}-{arguments.every}.jsonl"
            found = gather(name, index, level, jobs, kept)
            read = count_errors([one.hypotheses[0].text for one in found], truths)
            characters = sum(read.lengths)
            base = replace(Reranker.load(), uncounted=(OWN_FILM,))
            known, unknown = (measured(found, truths, base, index, gone) for gone in (False, True))
            both = [one.joined(other) for one, other in zip(known, unknown, strict=True)]
            for corpus, ways in (("known", known), ("unknown", unknown), ("mixed", both)):
                row = {"reader": name, "strength": level, "corpus": corpus, "captions": len(jobs), "read": read.cer}
                rows.append(row | compared(*ways, characters=characters * (2 if corpus == "mixed" else 1)))
                print(json.dumps(rows[-1]), flush=True)
    # What another run measured of other readers stays.
    before = RESULTS / f"{arguments.name}.json"
    others = json.loads(before.read_text(encoding="utf-8"))["rows"] if before.exists() else []
    rows = [row for row in others if row["reader"] not in arguments.readers] + rows
    print(write(arguments.name, {"rows": rows}))


if __name__ == "__main__":
    main()
