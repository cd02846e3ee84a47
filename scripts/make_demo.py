"""Make the index and the frames that a new user starts with: python scripts/make_demo.py [--frames].

Builds indexes/demo from the dialogue in indexes/demo/corpus; with --frames also draws indexes/demo/frames anew
(needs the Debian package fonts-noto-cjk) and writes what is drawn on each to captions.tsv.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from drawing import caption_font
from PIL import Image, ImageDraw, ImageFilter

import caprag

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "indexes/demo"
SIZE = (1280, 720)

# name, lines of the caption, what else is there, damage (0 none, 1 hardly legible)
FRAMES: list[tuple[str, list[str], str, float]] = [
    ("clear", ["family_drama:200"], "", 0.0),
    ("logo", ["cooking_show:310"], "logo", 0.15),
    ("blurred", ["family_drama:333"], "", 0.95),
    ("faint", ["talk_show:1000"], "faint noise", 0.95),
    ("small", ["family_drama:640"], "logo", 0.9),
    ("two-lines", ["talk_show:800", "talk_show:801"], "", 0.2),
    ("bright", ["military_comedy:900"], "bright", 0.8),
    ("sign", ["military_comedy:77"], "sign", 0.3),
    ("noisy", ["cooking_show:700"], "noise", 0.9),
    ("unknown", ["=月亮今天請假沒有來"], "logo", 0.3),
    ("no-caption", [], "", 0.2),
    ("no-caption-logo", [], "logo sign", 0.2),
]


def scene(seed: int, bright: bool) -> Image.Image:
    """Paint a blurred room of coloured shapes."""
    random = np.random.default_rng(seed)
    top, bottom = random.integers(20, 120, 3), random.integers(60, 200, 3)
    if bright:
        top, bottom = top + 110, np.minimum(bottom + 100, 250)
    slope = np.linspace(0, 1, SIZE[1])[:, None, None]
    picture = Image.fromarray(np.uint8((1 - slope) * top + slope * bottom) * np.ones((1, SIZE[0], 1), np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(40):
        x, y = int(random.integers(-100, SIZE[0])), int(random.integers(-100, SIZE[1]))
        w, h = (int(v) for v in random.integers(40, 420, 2))
        colour = tuple(
            int(v) for v in random.integers(0, 46, 3) + random.integers(*((120, 200) if bright else (20, 120)))
        )
        (draw.ellipse if random.random() < 0.5 else draw.rectangle)((x, y, x + w, y + h), fill=colour)
    return picture.filter(ImageFilter.GaussianBlur(9))


def draw_caption(picture: Image.Image, lines: list[str], faint: bool) -> None:
    """Set lines of white type with a dark outline, centred at the foot of the frame."""
    font = caption_font(50)
    layer = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(layer)
    for number, line in enumerate(reversed(lines)):
        place = (SIZE[0] / 2, SIZE[1] - 50 - 64 * number)
        opacity = 165 if faint else 255
        draw.text(place, line, font=font, anchor="ms", fill=(250, 250, 250, opacity), stroke_width=1 if faint else 3,
                  stroke_fill=(10, 10, 10, opacity // 2 if faint else 255))  # fmt: skip
    picture.paste(layer, (0, 0), layer)


def draw_extras(picture: Image.Image, extras: str) -> None:
    """Add a channel's logo or a shop's sign."""
    draw = ImageDraw.Draw(picture, "RGBA")
    if "logo" in extras:
        draw.rounded_rectangle((1090, 36, 1226, 92), 8, fill=(230, 230, 230, 150))
        draw.text((1158, 64), "巷口台", font=caption_font(34), anchor="mm", fill=(40, 40, 60, 220))
    if "sign" in extras:
        draw.rectangle((130, 150, 210, 430), fill=(150, 30, 25))
        for row, character in enumerate("手工麵店"):
            draw.text((170, 185 + 68 * row), character, font=caption_font(50), anchor="mm", fill=(240, 210, 90))


def damage(picture: Image.Image, strength: float, noise: bool, seed: int) -> Image.Image:
    """Shrink, enlarge and blur, as a poor copy does."""
    factor = 1 + 5 * strength
    small = picture.resize((round(SIZE[0] / factor), round(SIZE[1] / factor)), Image.Resampling.BILINEAR)
    picture = small.resize(SIZE, Image.Resampling.BICUBIC)
    if noise:
        grain = np.random.default_rng(seed).normal(0, 22, (SIZE[1], SIZE[0], 1))
        picture = Image.fromarray(np.uint8(np.clip(np.asarray(picture, np.float32) + grain, 0, 255)))
    return picture


def sentence(entry: str) -> str:
    """Look up PROGRAMME:LINE, or take what follows a = as it is."""
    if entry.startswith("="):
        return entry[1:]
    programme, line = entry.split(":")
    return (DEMO / "corpus" / f"{programme}.txt").read_text(encoding="utf-8").splitlines()[int(line) - 1]


def draw_frames() -> None:
    """Draw the sample frames and write down what is on them."""
    folder = DEMO / "frames"
    folder.mkdir(exist_ok=True)
    truth = []
    for number, (name, entries, extras, strength) in enumerate(FRAMES):
        lines = [sentence(entry) for entry in entries]
        picture = scene(number, "bright" in extras)
        draw_extras(picture, extras)
        draw_caption(picture, lines, "faint" in extras)
        path = folder / f"{number + 1:02d}-{name}.jpg"
        quality = math.floor(88 - 58 * strength)
        damage(picture, strength, "noise" in extras, number).save(path, quality=quality, optimize=True)
        truth.append(f"{path.name}\t{'|'.join(lines)}")
    (folder / "captions.tsv").write_text("\n".join(truth) + "\n", encoding="utf-8")


def main() -> None:
    """Build, and draw where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", action="store_true", help="draw the frames too")
    arguments = parser.parse_args()
    if arguments.frames:
        draw_frames()
    # Where this checkout lies is nobody's business.
    sentences = (
        replace(sentence, source=Path(sentence.source).relative_to(ROOT).as_posix())
        for sentence in caprag.read_corpus(DEMO / "corpus")
    )
    index = caprag.Index.build(sentences, progress=True)
    index.save(DEMO)
    print(f"{DEMO}: {len(index)} sentences")


if __name__ == "__main__":
    main()
