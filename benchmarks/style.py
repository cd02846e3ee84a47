"""Teach the shipped reader a style that it never saw: python benchmarks/style.py --font FILE [--reader FOLDER].

Draws lines of the films in one font with a thick coloured edge on photographs, at medium damage: 300 to learn from and
200 of other sentences. Fine-tunes the reader on the 300: the language model by LoRA, what is low-rank in the tower's last
stages, and the neck; and reads the 200 before and after.
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
from caprag.synthesis.recipe import Recipe
from caprag.training.recognizer import RecognizerOptions, train_recognizer

LEARNT, ASKED = 300, 200
HOUSE = {
    "colour": [250, 235, 90], "outline_width": 22.0, "outline_colour": [190, 20, 90], "outline_blur": 0.0,
    "outline_opacity": 1.0, "softness": 0.6,
}  # fmt: skip
RECIPE = {
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
        recipe=Recipe.from_dict(RECIPE),
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
    parser.add_argument("--reader", type=Path, default=ROOT / "caprag/recognition/reader/weights")
    parser.add_argument("--out", type=Path, default=ROOT / "build/style")
    parser.add_argument("--epochs", type=float, default=12.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--lora-rank", type=int, default=16)
    parser.add_argument("--name", default="style", help="of the result file")
    arguments = parser.parse_args()
    require_data()
    rows = draw(arguments.font, arguments.out / "pictures")
    learnt, asked = rows[:LEARNT], rows[LEARNT:]
    known = {caprag.match_form(text) for _, text in learnt}
    asked = [row for row in asked if caprag.match_form(row[1]) not in known]
    data = conversations(learnt, arguments.out / "pictures/learnt.json")
    options = RecognizerOptions(
        method="lora", lora_rank=arguments.lora_rank, lora_alpha=2 * arguments.lora_rank, crop="frame", tower="tuned",
        module_rates={"neck|tower_changes": 5e-4},
        learning_rate=arguments.learning_rate, epochs=arguments.epochs, batch_size=16, save_steps=1000,
    )  # fmt: skip
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
        "interval": interval, "options": {"epochs": arguments.epochs, "lora_rank": arguments.lora_rank},
    }  # fmt: skip
    for name, counted in counts.items():
        result |= {name: counted.cer, f"{name}_interval": list(cer_report(counted).interval)}
    print(json.dumps(result, ensure_ascii=False))
    print(write(arguments.name, result))


if __name__ == "__main__":
    main()
