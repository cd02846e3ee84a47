"""Draw real and made bands of captions on one sheet, shuffled: python benchmarks/blind_sheet.py --out sheet.png.

A person looks at the sheet, says which bands are made, and looks into the key beside it. The made ones stand before
the upper parts of real frames of their own set, so that only the captions and the damage can give them away; texts
come from the Traditional sentence list, and from the Simplified one for the drama's look.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from material import DATA, require_data, tsv
from PIL import Image

import caprag
from caprag.synthesis.backgrounds import Backgrounds
from caprag.synthesis.fonts import Region, load_fonts
from caprag.synthesis.generator import Synthesizer
from caprag.synthesis.recipe import Recipe
from caprag.synthesis.styles import Look

BAND = 0.2
"""Share of the frame's height that a band shows, from the foot."""

DAMAGE = 0.06
"""Strength of the damage: these programmes were well sent."""

# Measured on the frames: mean brightness by distance from the white ink, width of strokes, pitch of characters.
ANIMATION = {"outline_width": 6.25, "outline_blur": 1.2, "outline_opacity": 1.0, "softness": 0.8, "tracking": 0.027,
             "shadow_opacity": 0.25, "shadow_x": 1.0, "shadow_y": 1.0, "shadow_blur": 1.8}  # fmt: skip
DRAMA = {"outline_width": 1.75, "outline_blur": 0.4, "outline_opacity": 1.0, "softness": 0.4, "tracking": 0.03,
         "opacity": 1.0}  # fmt: skip

WIDTH, COLUMNS, GAP = 800, 2, 6


def band(frame: Image.Image) -> Image.Image:
    """Cut the foot of a frame and bring it to the sheet's width."""
    width, height = frame.size
    foot = frame.crop((0, round(height * (1 - BAND)), width, height))
    return foot.resize((WIDTH, round(foot.height * WIDTH / width)), Image.Resampling.LANCZOS)


def made(count: int, seed: int, scenes: Path) -> list[Image.Image]:
    """Make frames in the looks of the real sets: animation and drama."""
    frames = []
    look: Look
    region: Region
    for look, text, name, region, size, edge, house in (
        ("soft", "zh-TW/setences.txt", "NotoSansCJK-Bold.ttc", "TC", (40, 40), (0.946, 0.946), ANIMATION),
        ("faint", "zh-CN/cn.txt", "NotoSansCJK-DemiLight.ttc", "SC", (46, 46), (0.937, 0.937), DRAMA),
    ):
        sentences = [s.text for s in caprag.read_corpus(DATA / "text" / text) if 3 <= len(s.text) <= 14]
        paths = sorted(Path("/usr/share/fonts").rglob(name))
        recipe = Recipe(
            kinds={"line": 1.0}, looks={look: 1.0}, type_size=size, lower_edge=edge, italic=0.0, coloured=0.0,
            screen_text={}, house=house, wide_marks=0.0,
        )  # fmt: skip
        synthesizer = Synthesizer(
            Backgrounds([scenes / look], letterbox=0.0), load_fonts(paths, region=region, sample=sentences[:50]),
            damage=DAMAGE, seed=seed, recipe=recipe,
        )  # fmt: skip
        rng = np.random.default_rng(seed)
        share = count * 3 // 5 if look == "soft" else count - count * 3 // 5
        for number in range(share):
            start = int(rng.integers(len(sentences) - 4))
            rows = [(start + i, sentences[start + i]) for i in range(4)]
            frames.append(Image.fromarray(synthesizer.make(number, rows).pixels))
    return frames


def main() -> None:
    """Draw the sheet and write its key."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--count", type=int, default=20, help="bands of each sort")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    require_data()
    rng = np.random.default_rng(arguments.seed)
    names = [row[0] for row in tsv(DATA / "frames/captions.tsv")]
    sets = {row[0]: row[1] for row in tsv(DATA / "frames/meta.tsv")}
    order = rng.permutation(len(names))
    chosen = [names[i] for i in order[: arguments.count]]
    with tempfile.TemporaryDirectory() as folder:
        for i in order[arguments.count : arguments.count * 4]:
            frame = caprag.open_frame(DATA / "frames" / names[i])
            scenes = Path(folder, "faint" if sets[names[i]] == "snail" else "soft")
            scenes.mkdir(exist_ok=True)
            frame.crop((0, 0, frame.width, round(frame.height * 0.8))).save(scenes / f"{i}.png")
        synthetic = made(arguments.count, arguments.seed, Path(folder))
    bands = [(name, band(caprag.open_frame(DATA / "frames" / name))) for name in chosen]
    bands += [("made", band(frame)) for frame in synthetic]
    bands = [bands[i] for i in rng.permutation(len(bands))]
    rows = [bands[i : i + COLUMNS] for i in range(0, len(bands), COLUMNS)]
    heights = [max(picture.height for _, picture in row) + GAP for row in rows]
    sheet = Image.new("RGB", (COLUMNS * (WIDTH + GAP), sum(heights)))
    for y, row in zip(np.cumsum([0, *heights]), rows, strict=False):
        for i, (_, picture) in enumerate(row):
            sheet.paste(picture, (i * (WIDTH + GAP), int(y)))
    sheet.save(arguments.out)
    key = arguments.out.with_suffix(".json")
    key.write_text(json.dumps([name for name, _ in bands], indent=1) + "\n", encoding="utf-8")
    print(arguments.out, key)


if __name__ == "__main__":
    main()
