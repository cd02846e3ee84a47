"""Fit the shipped reranker: python scripts/fit_reranker.py --examples examples.json.

Examples are readings with truth, each with the true sentence in the corpus and with it left out: what two OCR engines
read of four films, in their order too, and what a recognizer reads of real frames and of caption bitmaps on
photographs, shrunk and blurred until it errs. The material is found through CAPRAG_DATA. Writes
caprag/reranking/reranker.json. A quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

import caprag
from caprag.glyphs import GlyphTable
from caprag.pipeline import Pipeline
from caprag.reranking import Episode, Example, fit_reranker
from caprag.reranking.features import best_candidate, candidates
from caprag.types import Hypothesis

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from material import DATA, FILMS, lines, require_data, tsv  # noqa: E402

SIZE = (1280, 720)
PICTURES = "pictures"


def film_episodes(index: caprag.Index, engines: Sequence[str]) -> Iterator[Episode]:
    """Describe the readings of films, without and with the film's sentences in the index."""
    glyphs = GlyphTable.load()
    for film in tqdm(FILMS, desc="films"):
        truth = lines(film, "truth")
        for inside in (False, True):
            ids = index.add(caprag.read_corpus(DATA / "subtitles" / film / "truth.srt")) if inside else []
            for engine in engines:
                read = [Hypothesis(text) for text in lines(film, engine)]
                hits = index.search_batch([reading.text for reading in read])
                described = [candidates(r, found, index.frequency, glyphs) for r, found in zip(read, hits, strict=True)]
                places = [index.places_of(hit.id for hit in found) for found in hits]
                yield Episode(read, truth, described, places, len(index), known=inside, group=film)
            index.remove(ids)


def pictures(count: int, seed: int) -> Iterator[tuple[Image.Image, str]]:
    """Give damaged frames and pasted bitmaps with what they say, in a random order."""
    random = np.random.default_rng(seed)
    frames = [("frames", row) for row in tsv(DATA / "frames/captions.tsv")]
    bitmaps = [("bitmaps", row) for row in tsv(DATA / "bitmaps/captions.tsv")]
    backgrounds = sorted((DATA / "backgrounds").glob("*.jpg"))
    chosen = [*frames, *(bitmaps[i] for i in random.permutation(len(bitmaps)))]
    for kind, (name, truth) in (chosen[i] for i in random.permutation(len(chosen))[:count]):
        picture = caprag.open_frame(DATA / kind / name) if kind == "frames" else Image.open(DATA / kind / name)
        if kind == "bitmaps":
            back = caprag.open_frame(backgrounds[random.integers(len(backgrounds))]).resize(SIZE)
            layer = picture.convert("RGBA")
            layer.thumbnail((SIZE[0] - 80, SIZE[1] // 3))
            back.paste(layer, ((SIZE[0] - layer.width) // 2, SIZE[1] - layer.height - 40), layer)
            picture = back
        yield damage(picture, random), truth


def damage(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Shrink, blur and add grain, from hardly to severely; leave two pictures of five as they are."""
    width, height = picture.size
    if random.random() < 0.4:
        return picture
    factor = random.uniform(1.5, 6.5) * height / 720
    small = picture.resize((max(64, round(width / factor)), max(36, round(height / factor))), Image.Resampling.BOX)
    grain = random.normal(0, random.uniform(0, 16), (*small.size[::-1], 1))
    noisy = Image.fromarray(np.uint8(np.clip(np.asarray(small, np.float32) + grain, 0, 255)))
    return noisy.resize(SIZE, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(random.uniform(0, 1.2)))


def picture_examples(without: caprag.Index, reader: str, count: int, seed: int) -> Iterator[Example]:
    """Describe what is read of pictures, scored by the same reader, without and with their captions in the index."""
    captions = [row[1] for kind in ("frames", "bitmaps") for row in tsv(DATA / kind / "captions.tsv")]
    inside = caprag.Index.build([*(without[i] for i in without), *captions], without.embedder, progress=True)
    recognizer = caprag.load_recognizer(reader)
    glyphs = GlyphTable.load()
    for picture, truth in tqdm(pictures(count, seed), desc="pictures", total=count):
        hypotheses = recognizer.recognize_batch([picture], 5)
        for index in (without, inside):
            pipeline = Pipeline(index, recognizer=recognizer)
            hits = pipeline.find(hypotheses)
            margins = pipeline.judge([picture], hypotheses, hits)
            candidate = best_candidate(hypotheses[0][0], hits[0], index.frequency, glyphs, margins[0])
            yield Example.of(hypotheses[0][0], candidate, truth, known=index is inside, group=PICTURES)


def main() -> None:
    """Gather the examples, fit and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "caprag/reranking/reranker.json")
    parser.add_argument(
        "--examples", type=Path, required=True, help="file of what is read of pictures: made once, then read"
    )
    parser.add_argument("--pictures", type=int, default=600, help="how many damaged pictures to read")
    parser.add_argument("--recognizer", default="rapidocr", help="what reads the pictures")
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
                asdict(e) for e in picture_examples(index, arguments.recognizer, arguments.pictures, arguments.seed)
            ],
            "about": {"recognizer": arguments.recognizer, "seed": arguments.seed},
        }
        arguments.examples.write_text(json.dumps(kept), encoding="utf-8")
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
