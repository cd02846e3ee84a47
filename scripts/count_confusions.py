"""Count what recognizers misread: python scripts/count_confusions.py.

What two OCR engines read of four films, and what recognizers read of drawn captions, from clean to hardly legible,
against what they say. The material is found through CAPRAG_DATA. Writes caprag/reranking/confusions.json; ten minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

import caprag
from caprag.reranking.confusions import Confusions, save_confusions

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "scripts")]
from fit_reranker import pictures  # noqa: E402
from material import FILMS, lines, require_data  # noqa: E402

BATCH = 16


def drawn(reader: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Return what a recognizer reads of drawn captions, and what they say."""
    options: dict[str, Any] = {"crop": "frame"} if reader != "rapidocr" else {}
    recognizer = caprag.load_recognizer(reader, **options)
    source, pairs = pictures(count, seed), []
    for start in tqdm(range(0, count, BATCH), desc=f"drawn, {reader}"):
        made = [line for number in range(start, min(count, start + BATCH)) for line in source.make(number)]
        read = recognizer.recognize_batch([line.image for line in made])
        pairs += [(found[0].text, line.text) for found, line in zip(read, made, strict=True)]
    return pairs


def main() -> None:
    """Count and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "caprag/reranking/confusions.json")
    parser.add_argument("--pictures", type=int, default=400, help="how many captions each recognizer reads")
    parser.add_argument("--recognizers", nargs="*", default=["rapidocr", "caprag"], help="what reads the pictures")
    parser.add_argument("--engines", nargs="+", default=["paddle", "lens"])
    parser.add_argument("--seed", type=int, default=2, help="of the pictures; not that of scripts/fit_reranker.py")
    arguments = parser.parse_args()
    require_data()
    sources = {
        film: Confusions.count(
            pair for engine in arguments.engines for pair in zip(lines(film, engine), lines(film, "truth"), strict=True)
        )
        for film in FILMS
    }
    for reader in arguments.recognizers:
        sources[f"drawn, {reader}"] = Confusions.count(drawn(reader, arguments.pictures, arguments.seed))
    provenance = {
        "engines": arguments.engines,
        "recognizers": arguments.recognizers,
        "pictures": arguments.pictures,
        "seed": arguments.seed,
    }
    save_confusions(arguments.out, sources, provenance)
    wrong = {name: counts.wrong.total() for name, counts in sources.items()}
    print(f"{arguments.out}: {wrong}")


if __name__ == "__main__":
    main()
