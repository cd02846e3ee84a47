"""Draw real and made bands of captions on one sheet, shuffled: python benchmarks/blind_sheet.py --out sheet.png.

A person looks at the sheet, says which bands are made, and looks into the key beside it. A made band is as like a real
one as can be in all but the synthesiser's own work: it stands before the rows above the caption of another real frame,
pixel for pixel, with a caption of the same programme that belongs to another picture, in a frame of the same size,
and goes through the coder that the programme's frames went through, last of all.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from material import DATA, require_data, tsv
from PIL import Image

import caprag
from caprag.synthesis.backgrounds import Backgrounds
from caprag.synthesis.damage import Damage, apply_damage
from caprag.synthesis.fonts import FontSet, Region, load_fonts
from caprag.synthesis.generator import Synthesizer
from caprag.synthesis.recipe import Recipe
from caprag.synthesis.styles import Look

BAND = 0.2
"""Share of the frame's height that a band shows, from the foot."""

ABOVE = 0.133
"""How far above the foot the rows without a caption end, share of the frame's height."""

BLOCK = 16
"""Rows of a coder's block: rows moved by so many keep their place in it, so that coding again costs them little."""

LEAST_LINES = 576
"""Smaller frames were made of larger ones after the caption was drawn."""

SAME_SHOT = 28.0
"""Mean difference in levels below which two frames, made small, are of one shot."""


@dataclass(frozen=True)
class Programme:
    """How one programme sets its captions; lengths of `house` for type of 60 px, `size` at 720 lines."""

    look: Look
    font: str
    region: Region
    size: int
    lower_edge: float
    house: dict[str, Any]
    damage: Damage
    coder: str
    quality: int


# Measured on the frames: mean brightness by distance from the white ink, width of strokes, pitch of characters; the
# coder's quality by the tables of JPEG, and by the size of the same picture coded again as WebP.
_SOFT = {"outline_width": 6.0, "outline_blur": 1.25, "outline_opacity": 1.0, "softness": 0.6, "tracking": 0.0715,
         "shadow_opacity": 0.25, "shadow_x": 1.0, "shadow_y": 1.0, "shadow_blur": 1.8}  # fmt: skip
_FAINT = {"outline_width": 1.75, "outline_blur": 0.85, "outline_opacity": 1.0, "softness": 0.6, "tracking": 0.097,
          "opacity": 1.0}  # fmt: skip
_DAMAGE = Damage(h264_crf=18, h264_frames=2, h264_preset="fast")
_ANIMATION = Programme("soft", "NotoSansCJK-Bold.ttc", "TC", 39, 0.947, _SOFT, _DAMAGE, "WEBP", 80)
PROGRAMMES = {
    "ave": _ANIMATION,
    "mygo": replace(_ANIMATION, coder="JPEG", quality=92),
    "snail": Programme("faint", "NotoSansCJK-DemiLight.ttc", "SC", 44, 0.938, _FAINT, _DAMAGE, "JPEG", 92),
}

WIDTH, COLUMNS, GAP = 800, 2, 6


def band(frame: Image.Image) -> Image.Image:
    """Cut the foot of a frame and bring it to the sheet's width."""
    width, height = frame.size
    foot = frame.crop((0, round(height * (1 - BAND)), width, height))
    return foot.resize((WIDTH, round(foot.height * WIDTH / width)), Image.Resampling.LANCZOS)


def ground(frame: Image.Image) -> Image.Image:
    """Move a frame down until its caption is gone; what is missing above is taken from the frame's upper edge."""
    width, height = frame.size
    rows = round(height * ABOVE / BLOCK) * BLOCK
    moved = frame.copy()
    moved.paste(frame.crop((0, 0, width, height - rows)), (0, rows))
    return moved


def made(path: Path, text: str, programme: Programme, fonts: FontSet, number: int, seed: int) -> Image.Image:
    """Draw a text before a real frame's rows, and code it as the frame was."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder, "scene.png")
        picture = ground(caprag.open_frame(path))
        picture.save(scene, compress_level=1)
        size = round(programme.size * picture.height / 720)
        recipe = Recipe(
            kinds={"line": 1.0}, looks={programme.look: 1.0}, type_size=(size, size), house=programme.house,
            lower_edge=(programme.lower_edge, programme.lower_edge), italic=0.0, coloured=0.0, screen_text={},
            wide_marks=0.0,
        )  # fmt: skip
        backgrounds = Backgrounds([scene], letterbox=0.0, zoom=(1.0, 1.0), light=0.0, soft=0.0, flip=0.0)
        synthesizer = Synthesizer(backgrounds, fonts, sizes=[picture.size], seed=seed, recipe=recipe)
        pixels = synthesizer.make(number, [(0, text)]).pixels
    pixels = apply_damage(pixels, programme.damage, np.random.default_rng([seed, number]), np.asarray(picture))
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, programme.coder, quality=programme.quality)
    return Image.open(stream).convert("RGB")


def find_fonts(programme: Programme, texts: list[str]) -> FontSet:
    """Find a programme's typeface among the installed ones."""
    paths = sorted(Path("/usr/share/fonts").rglob(programme.font))
    return load_fonts(paths, region=programme.region, sample=texts)


def choose(rng: np.random.Generator, count: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Choose real frames, and as many others of the same programmes with captions that stand in none of them.

    No two frames are of one shot where there are shots enough: its bands would show which of them was moved.
    """
    rows = {row[0]: row for row in tsv(DATA / "frames/meta.tsv")}
    captions = {row[0]: row[1] for row in tsv(DATA / "frames/captions.tsv")}
    small = {}
    for name in captions:
        frame = caprag.open_frame(DATA / "frames" / name)
        wide = abs(frame.width / frame.height - 16 / 9) < 0.01
        # A note tells of another type, or of a picture that is nearly black; an ellipsis is drawn as three full stops.
        plain = not rows[name][3] and captions[name] == caprag.normalize(captions[name])
        if rows[name][1] in PROGRAMMES and plain and wide and frame.height >= LEAST_LINES:
            above = frame.crop((0, 0, frame.width, round(frame.height * 0.8)))
            small[name] = np.asarray(above.convert("L").resize((16, 7), Image.Resampling.BOX), dtype=np.float32)
    names = [list(small)[i] for i in rng.permutation(len(small))]
    fresh: list[str] = []
    for name in names:
        if all(np.abs(small[name] - small[other]).mean() > SAME_SHOT for other in fresh):
            fresh.append(name)
    names = fresh + [name for name in names if name not in fresh]
    real: list[str] = []
    made: list[tuple[str, str]] = []
    shares = {programme: sum(rows[name][1] == programme for name in small) / len(small) for programme in PROGRAMMES}
    ends = np.rint(np.cumsum(list(shares.values())) * count).astype(int)
    for programme, share in zip(PROGRAMMES, np.diff(ends, prepend=0), strict=True):
        own = [name for name in names if rows[name][1] == programme]
        # By turns, so that shots that come twice, where there are too few, are of both sorts.
        shown, grounds = own[: 2 * share : 2], own[1 : 2 * share : 2]
        real += shown
        # From behind, so that none meets its own picture.
        taken = {captions[name] for name in shown}
        others = dict.fromkeys(captions[name] for name in reversed(own))
        texts = [text for text in others if text not in taken][:share]
        if len(grounds) < share or len(texts) < share:
            raise ValueError(f"{programme} has {len(own)} frames; {share} bands of each sort want more of them")
        made += zip(grounds, texts, strict=True)
    return real, made


def main() -> None:
    """Draw the sheet and write its key."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("sheet.png"))
    parser.add_argument("--count", type=int, default=20, help="bands of each sort")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    require_data()
    rng = np.random.default_rng(arguments.seed)
    real, others = choose(rng, arguments.count)
    bands = [(name, band(caprag.open_frame(DATA / "frames" / name))) for name in real]
    sets = {row[0]: row[1] for row in tsv(DATA / "frames/meta.tsv")}
    fonts = {name: find_fonts(programme, [text for _, text in others]) for name, programme in PROGRAMMES.items()}
    for number, (name, text) in enumerate(others):
        picture = made(DATA / "frames" / name, text, PROGRAMMES[sets[name]], fonts[sets[name]], number, arguments.seed)
        bands.append((f"made: {text} before {name}", band(picture)))
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
