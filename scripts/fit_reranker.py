"""Fit the shipped reranker: python scripts/fit_reranker.py --examples examples.json.

Examples are readings with truth, each with the true sentence in the corpus and with it left out: what two OCR engines
read of four films, in their order too, and what recognizers read of drawn captions, damaged until they err. The
material is found through CAPRAG_DATA. Writes caprag/reranking/reranker.json. Half an hour.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

import caprag
from caprag.glyphs import GlyphTable
from caprag.pipeline import Pipeline
from caprag.reranking import Episode, Example, fit_reranker
from caprag.reranking.features import best_candidate
from caprag.synthesis.backgrounds import Backgrounds
from caprag.synthesis.fonts import load_fonts
from caprag.text import countable
from caprag.training.reader import CaptionLines, DamageMix

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from material import DATA, FILMS, lines, require_data  # noqa: E402

MIX = DamageMix(clean=0.2, low=0.4, worst=0.35)
FOLDS = 5
"""Parts that risks are counted on, each by weights that were fitted without it."""


def film_episodes(index: caprag.Index, engines: Sequence[str]) -> Iterator[Episode]:
    """Describe the readings of films, without and with the film's sentences in the index."""
    pipeline = Pipeline(index)
    for film in tqdm(FILMS, desc="films"):
        truth = lines(film, "truth")
        for inside in (False, True):
            ids = index.add(caprag.read_corpus(DATA / "subtitles" / film / "truth.srt")) if inside else []
            for engine in engines:
                found = list(pipeline.found_for(lines(film, engine), at_once=512))
                yield Episode.of(found, truth, index.frequency, sentences=len(index), known=inside, group=film)
            index.remove(ids)


def pictures(count: int, seed: int) -> CaptionLines:
    """Return captions of text/ on photographs, from clean to hardly legible, each cut out by itself."""
    texts = [sentence.text for sentence in caprag.read_corpus(DATA / "text") if "\n" not in sentence.text]
    fonts = load_fonts(sample=texts[:: max(1, len(texts) // 200)], on_error=lambda _: None)
    return CaptionLines(texts, Backgrounds([DATA / "backgrounds"]), fonts, count=count, mix=MIX, seed=seed)


def picture_examples(index: caprag.Index, reader: str, count: int, seed: int) -> Iterator[Example]:
    """Describe what is read of pictures, scored by the same reader, with their captions in the index and without."""
    # The shipped reader is shown lines as they are; what finds captions in frames is not asked.
    options: dict[str, Any] = {"crop": "frame"} if reader != "rapidocr" else {}
    recognizer = caprag.load_recognizer(reader, **options)
    glyphs, pipeline = GlyphTable.load(), Pipeline(index, recognizer=recognizer)
    lines = pictures(count, seed)
    for number in tqdm(range(count), desc=f"pictures, {reader}"):
        for line in lines.make(number):
            hypotheses = recognizer.recognize_batch([line.image], 5)
            hits = pipeline.find(hypotheses)
            margins = pipeline.judge([line.image], hypotheses, hits)
            wanted = countable(line.text)
            for known in (True, False):
                left = [
                    (hit, margin) for hit, margin in zip(hits[0], margins[0], strict=True)
                    if known or countable(hit.text) != wanted
                ]  # fmt: skip
                candidate = best_candidate(
                    hypotheses[0][0], [hit for hit, _ in left], index.frequency, glyphs, [margin for _, margin in left]
                )
                yield Example.of(
                    hypotheses[0][0], candidate, line.text, known=known, group=f"fold {number % FOLDS}", judged=True
                )


def main() -> None:
    """Gather the examples, fit and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "caprag/reranking/reranker.json")
    parser.add_argument(
        "--examples", type=Path, required=True, help="file of what is read of pictures: made once, then read"
    )
    parser.add_argument("--pictures", type=int, default=1500, help="how many captions each recognizer reads")
    parser.add_argument("--recognizers", nargs="+", default=["rapidocr", "caprag"], help="what reads the pictures")
    parser.add_argument("--engines", nargs="+", default=["paddle", "lens"])
    parser.add_argument("--risk", type=float, default=0.002, help="share of lines that may be harmed")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    require_data()
    index = caprag.Index.build(caprag.read_corpus(DATA / "text"), progress=True)
    if arguments.examples.exists():
        kept = json.loads(arguments.examples.read_text(encoding="utf-8"))
    else:
        kept = {
            "picture": [
                asdict(example)
                for reader in arguments.recognizers
                for example in picture_examples(index, reader, arguments.pictures, arguments.seed)
            ],
            "about": {"recognizers": arguments.recognizers, "seed": arguments.seed},
        }
        arguments.examples.write_text(json.dumps(kept), encoding="utf-8")
    if not all(row.get("judged") for row in kept["picture"]):
        raise SystemExit(f"{arguments.examples}: was made by an older version of this script; remove it")
    by_picture = [Example(**row) for row in kept["picture"]]
    episodes = list(film_episodes(index, arguments.engines))
    by_text = [example for episode in episodes for example in episode.line_examples()]
    examples = [*by_text, *by_picture]
    provenance = {
        **kept["about"],
        "films": list(FILMS),
        "engines": arguments.engines,
        "corpus_sentences": len(index),
        "embedder": index.embedder.fingerprint[:16],
        "text_examples": len(by_text),
        "picture_examples": len(by_picture),
        "cases": {case: sum(e.case == case for e in examples) for case in ("snap", "keep", "neither")},
    }
    reranker = fit_reranker(examples, episodes=episodes, risk=arguments.risk, provenance=provenance)
    reranker.save(arguments.out)
    print(f"{arguments.out}: {provenance}")


if __name__ == "__main__":
    main()
