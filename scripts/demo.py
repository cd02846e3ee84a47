"""Read the sample frames with the shipped index and draw them with their captions: python scripts/demo.py [PICTURE]."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from drawing import caption_font
from PIL import Image, ImageDraw
from tqdm import tqdm

import caprag
from caprag.recognition import list_frames

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "indexes/demo"
TILE, LEGEND, COLUMNS = (480, 270), 92, 3
SNAPPED, KEPT, NONE = (60, 140, 70), (170, 120, 30), (110, 110, 110)


def verdict(caption: caprag.Caption) -> tuple[str, tuple[int, int, int]]:
    """Say in words and colour what was done."""
    sure = f"{caption.confidence:.1%} sure" if caption.confidence < 0.9995 else "more than 99.9% sure"
    if not caption.text:
        return "no caption", NONE
    if caption.hit is None:
        return f"kept as read, {sure}", KEPT
    return f"snapped to sentence {caption.hit.id}, {sure}", SNAPPED


def draw_sheet(paths: list[Path], captions: list[caprag.Caption], out: Path) -> None:
    """Draw the frames in a grid, each with what was read and what is answered below it."""
    rows = -(-len(paths) // COLUMNS)
    sheet = Image.new("RGB", (TILE[0] * COLUMNS, (TILE[1] + LEGEND) * rows), (246, 246, 244))
    draw = ImageDraw.Draw(sheet)
    large, small = caption_font(24), caption_font(16)
    for number, (path, caption) in enumerate(zip(paths, captions, strict=True)):
        x, y = number % COLUMNS * TILE[0], number // COLUMNS * (TILE[1] + LEGEND)
        sheet.paste(caprag.open_frame(path).resize(TILE), (x, y))
        words, colour = verdict(caption)
        top = y + TILE[1]
        draw.rectangle((x, top, x + 6, top + LEGEND - 6), fill=colour)
        draw.text((x + 16, top + 4), "read  " + caption.hypotheses[0].text.replace("\n", " / "), (90, 90, 90), small)
        draw.text((x + 16, top + 26), caption.text.replace("\n", " / ") or "–", (20, 20, 20), large)
        draw.text((x + 16, top + 62), words, colour, small)
    sheet.save(out)


def main() -> None:
    """Read, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", nargs="?", type=Path, default=ROOT / "demo.png", help="where to draw the sheet")
    arguments = parser.parse_args()
    paths = list_frames([DEMO / "frames"])
    caption_font(24, install=True)
    pipeline = caprag.Pipeline.load(DEMO)
    captions = []
    for path in tqdm(paths, desc="read", unit=" frames"):
        captions.append(pipeline.read(path))
        shown = captions[-1]
        text, read = (t.replace("\n", " / ") or "–" for t in (shown.text, shown.hypotheses[0].text))
        tqdm.write(f"{path.name}\n  read    {read}\n  answer  {text}\n          {verdict(shown)[0]}")
    draw_sheet(paths, captions, arguments.picture)
    print(f"the frames with their captions: {arguments.picture}")


if __name__ == "__main__":
    main()
