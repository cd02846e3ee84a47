"""Teach the shipped reader a style that it never saw: python benchmarks/style.py --font FILE [--reader FOLDER].

Draws lines of the films in one font with a thick coloured edge on photographs, at medium damage: 300 to learn from and
200 of other sentences. Fine-tunes the reader on the 300 by scripts/recipes/reader-style.json, and reads the 200 before
and after.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpora import film_lines
from material import DATA, ROOT, require_data, write
from PIL import Image
from reader import BATCH, ratio_interval, read_crops

import caprag
from caprag.evaluation import cer_report, count_errors
from caprag.recognition.vlm import VLMRecognizer
from caprag.synthesis.recipe import Recipe as Drawing
from caprag.training.recognizer import Recipe, train_recognizer

LEARNT, ASKED = 300, 200
RECIPE_FILE = ROOT / "scripts/recipes/reader-style.json"
HOUSE = {
    "colour": [250, 235, 90], "outline_width": 22.0, "outline_colour": [190, 20, 90], "outline_blur": 0.0,
    "outline_opacity": 1.0, "softness": 0.6,
}  # fmt: skip
DRAWING = {
    "kinds": {"line": 1.0}, "looks": {"outline": 1.0}, "house": HOUSE, "screen_text": {}, "italic": 0.0,
    "coloured": 0.0, "crop": "line",
}  # fmt: skip
SEED = 7


def draw(font: Path, out: Path) -> list[tuple[Path, str]]:
    """Draw all captions as PNG files; return their names and texts."""
    chosen = [line for line in film_lines(4 * (LEARNT + ASKED), SEED) if 6 <= len(line) <= 18]
    fonts = caprag.load_fonts([font], sample=chosen, on_error=lambda _: None)
    synthesizer = caprag.Synthesizer(
        caprag.Backgrounds([DATA / "backgrounds"]), fonts, seed=SEED, damage=0.78, format="png",
        recipe=Drawing.from_dict(DRAWING),
    )  # fmt: skip
    sentences = caprag.Sentences(chosen, synthesizer, count=LEARNT + ASKED)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    made = []
    for number in range(LEARNT + ASKED):
        picture = synthesizer.make(number, sentences.for_picture(number))
        path = out / f"{number:03}.png"
        Image.fromarray(picture.pixels).save(path)
        made.append((path, picture.label.text))
    return made


def conversations(rows: Sequence[tuple[Path, str]], path: Path) -> Path:
    """Write a file of conversations in LLaVA's form."""
    turns = [
        {
            "id": image.stem, "image": image.name,
            "conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": text}],
        }
        for image, text in rows
    ]  # fmt: skip
    path.write_text(json.dumps(turns, ensure_ascii=False), encoding="utf-8")
    return path


def main() -> None:
    """Draw, read, learn, read again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--font", type=Path, required=True, help="one that the reader was not trained with")
    parser.add_argument("--reader", default="caprag")
    parser.add_argument("--out", type=Path, default=ROOT / "build/style")
    parser.add_argument("--epochs", type=float, help="the recipe's if not given")
    parser.add_argument("--name", default="style", help="of the result file")
    arguments = parser.parse_args()
    require_data()
    rows = draw(arguments.font, arguments.out / "pictures")
    learnt, asked = rows[:LEARNT], rows[LEARNT:]
    known = {caprag.match_form(text) for _, text in learnt}
    asked = [row for row in asked if caprag.match_form(row[1]) not in known]
    data = conversations(learnt, arguments.out / "pictures/learnt.json")
    recipe = Recipe.read(RECIPE_FILE)
    options = recipe.options(crop="frame", **({} if arguments.epochs is None else {"epochs": arguments.epochs}))
    for name in ("adapter", "adapter.work"):
        shutil.rmtree(arguments.out / name, ignore_errors=True)
    begin = time.perf_counter()
    train_recognizer([data], arguments.reader, arguments.out / "adapter", options, progress=True)
    seconds = time.perf_counter() - begin
    images = [caprag.open_frame(path) for path, _ in asked]
    truths = [text for _, text in asked]
    counts = {}
    for name, adapter in (("before", None), ("after", arguments.out / "adapter")):
        recognizer = VLMRecognizer(arguments.reader, adapter=adapter, crop="frame", batch_size=BATCH)
        counts[name] = count_errors(read_crops(recognizer, images), truths)
    ratio, interval = ratio_interval(counts["after"], counts["before"])
    result: dict[str, Any] = {
        "font": arguments.font.name, "learnt": len(learnt), "asked": len(asked), "seconds": seconds, "ratio": ratio,
        "interval": interval, "options": options.as_dict(),
    }  # fmt: skip
    for name, counted in counts.items():
        result |= {name: counted.cer, f"{name}_interval": list(cer_report(counted).interval)}
    print(json.dumps(result, ensure_ascii=False))
    print(write(arguments.name, result))


if __name__ == "__main__":
    main()
