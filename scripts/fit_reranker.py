"""Fit the shipped reranker: python scripts/fit_reranker.py --work FOLDER.

Examples are readings with truth, each with the true sentence in the corpus and with it left out: what two OCR engines
read of four films, in their order too, and what recognizers read of drawn captions, damaged until they err, a third of
which have a near twin in the corpus. The material is found through CAPRAG_DATA. What was read of pictures is kept in
--work, and a second run goes on from there; with --gather several processes, one a recognizer, read at the same time.
Writes caprag/reranking/reranker.json. Half an hour, five minutes where all pictures are read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import caprag
from caprag.pipeline import Pipeline
from caprag.reranking import Episode, Example, fit_reranker
from caprag.reranking.confusions import load_glyphs
from caprag.reranking.features import best_candidate
from caprag.reranking.fitting import listener
from caprag.synthesis.backgrounds import Backgrounds
from caprag.synthesis.fonts import load_fonts
from caprag.text import countable
from caprag.training.reader import CaptionLines, DamageMix

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
from known import as_line, of_line  # noqa: E402
from material import DATA, FILMS, lines, require_data  # noqa: E402

MIX = DamageMix(clean=0.2, low=0.4, worst=0.35)
FOLDS = 5
"""Parts that risks are counted on, each by weights that were fitted without it."""


def film_episodes(index: caprag.Index, engines: Sequence[str]) -> Iterator[Episode]:
    """Describe the readings of films, without and with the film's sentences in the index."""
    pipeline = Pipeline(index, reranker=listener())
    for film in tqdm(FILMS, desc="films"):
        truth = lines(film, "truth")
        for inside in (False, True):
            ids = index.add(caprag.read_corpus(DATA / "subtitles" / film / "truth.srt")) if inside else []
            for engine in engines:
                found = list(pipeline.found_for(lines(film, engine), at_once=512))
                # What was counted in a film must not help to mend it here.
                yield Episode.of(
                    found, truth, index.frequency, sentences=len(index), known=inside, group=film,
                    glyphs=load_glyphs((film,)),
                )  # fmt: skip
            index.remove(ids)


def sentences() -> list[str]:
    """Return what captions are drawn from."""
    return [sentence.text for sentence in caprag.read_corpus(DATA / "text") if "\n" not in sentence.text]


def pictures(count: int, seed: int) -> CaptionLines:
    """Return captions of text/ on photographs, from clean to hardly legible, each cut out by itself."""
    texts = sentences()
    fonts = load_fonts(sample=texts[:: max(1, len(texts) // 200)], on_error=lambda _: None)
    return CaptionLines(texts, Backgrounds([DATA / "backgrounds"]), fonts, count=count, mix=MIX, seed=seed)


def twins(texts: Sequence[str], seed: int) -> list[str]:
    """Return for every third sentence a near twin: a word exchanged, lost or added.

    Scripts have them. Without them the corpus would have nothing near a caption that it lacks, and a picture's word
    would weigh too little.
    """
    rng = np.random.default_rng(seed)
    made = []
    for place in range(0, len(texts), 3):
        text, other = texts[place], texts[int(rng.integers(len(texts)))]
        width = min(int(rng.integers(1, 4)), len(text) - 2, len(other))
        if width < 1:
            continue
        start, begin = int(rng.integers(len(text) - width + 1)), int(rng.integers(len(other) - width + 1))
        word, change = other[begin : begin + width], int(rng.integers(4))
        # Exchanged twice as often as lost or added.
        left = text[start + width :] if change < 3 else text[start:]
        made.append(text[:start] + ("" if change == 2 else word) + left)
    return made


def read_pictures(index: caprag.Index, reader: str, count: int, seed: int, path: Path) -> None:
    """Keep what is read of pictures, what is found for it, and its scores by the same reader; go on where it ended."""
    # The shipped reader is shown lines as they are; what finds captions in frames is not asked.
    options: dict[str, Any] = {"crop": "frame"} if reader != "rapidocr" else {}
    pipeline = Pipeline(
        index, recognizer=caprag.load_recognizer(reader, **options), reranker=listener(), in_order=False
    )
    known = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if known and not known[-1].endswith("\n"):
        # A kill cut the last number's lines: it is read again.
        last = json.loads(known[-2])["number"] if len(known) > 1 else 0
        known = [line for line in known[:-1] if json.loads(line)["number"] < last]
    path.write_text("".join(known), encoding="utf-8")
    done = json.loads(known[-1])["number"] + 1 if known else 0
    if done >= count:
        return
    lines = pictures(count, seed)
    added = index.add(twins(sentences(), seed))
    with path.open("a", encoding="utf-8") as stream:
        for number in tqdm(range(done, count), desc=f"pictures, {reader}", initial=done, total=count):
            drawn = list(lines.make(number))
            found = pipeline.found_in([line.image for line in drawn])
            stream.write("".join(as_line(f, number=number, truth=d.text) for f, d in zip(found, drawn, strict=True)))
            stream.flush()
    index.remove(added)


def picture_examples(index: caprag.Index, path: Path) -> Iterator[Example]:
    """Describe what was read of pictures, with their captions in the index and without."""
    glyphs = load_glyphs()
    for line in path.read_text(encoding="utf-8").splitlines():
        found, about = of_line(line)
        truth, wanted = str(about["truth"]), countable(str(about["truth"]))
        group = f"fold {int(str(about['number'])) % FOLDS}"
        for known in (True, False):
            left = found if known else found.without({wanted})
            read = left.hypotheses[0]
            candidate = best_candidate(read, left.hits, index.frequency, glyphs, left.margins)
            yield Example.of(read, candidate, truth, known=known, group=group, judged=True)


def main() -> None:
    """Gather the examples, fit and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "caprag/reranking/reranker.json")
    parser.add_argument("--work", type=Path, required=True, help="folder of what is read of pictures")
    parser.add_argument("--gather", action="store_true", help="read pictures, and no more")
    parser.add_argument("--pictures", type=int, default=700, help="how many captions each recognizer reads")
    parser.add_argument("--recognizers", nargs="+", default=["rapidocr", "caprag"], help="what reads the pictures")
    parser.add_argument("--engines", nargs="+", default=["paddle", "lens"])
    parser.add_argument("--risk", type=float, default=0.002, help="share of lines that may be harmed")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    require_data()
    index = caprag.Index.build(caprag.read_corpus(DATA / "text"), progress=True)
    arguments.work.mkdir(parents=True, exist_ok=True)
    by_picture: list[Example] = []
    for reader in arguments.recognizers:
        kept = arguments.work / f"{reader.replace('/', '_')}-{arguments.pictures}-{arguments.seed}.jsonl"
        read_pictures(index, reader, arguments.pictures, arguments.seed, kept)
        by_picture += picture_examples(index, kept)
    if arguments.gather:
        return
    episodes = list(film_episodes(index, arguments.engines))
    by_text = [example for episode in episodes for example in episode.line_examples()]
    examples = [*by_text, *by_picture]
    provenance = {
        "recognizers": arguments.recognizers,
        "pictures": arguments.pictures,
        "seed": arguments.seed,
        "films": list(FILMS),
        "engines": arguments.engines,
        "corpus_sentences": len(index),
        "embedder": index.embedder.fingerprint[:16],
        "text_examples": len(by_text),
        "picture_examples": len(by_picture),
        "cases": {case: sum(e.case == case for e in examples) for case in ("snap", "keep", "neither")},
    }
    reranker = fit_reranker(
        examples, episodes=episodes, risk=arguments.risk, seed=arguments.seed, provenance=provenance
    )
    reranker.save(arguments.out)
    print(f"{arguments.out}: {provenance}")


if __name__ == "__main__":
    main()
