"""Draw every character a caption may hold and store its shape: python scripts/make_glyphs.py.

Writes caprag/glyphs.npz, from which look-alike characters are told (see caprag/glyphs.py). Needs
the Debian packages fonts-noto-cjk; `fc-match` finds them. Takes a minute.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from tqdm import tqdm

from caprag.text import convert

ROOT = Path(__file__).resolve().parent.parent
FACES = ("Noto Sans CJK TC:bold", "Noto Serif CJK TC:bold")
SIZE, BLUR, CELLS, DIMENSIONS = 48, 1.6, 16, 64


def characters() -> list[str]:
    """Return the characters of Big5, GB 2312, kana, bopomofo, ASCII and Taiwan's and Hong Kong's variants."""
    found = {chr(c) for c in range(0x21, 0x7F)} | {chr(c) for c in range(0x3041, 0x30FF)}
    found |= {chr(c) for c in range(0x3105, 0x312A)} | set("，。、！？：；「」『』（）《》…—～·⋯é")
    for high in range(0xA1, 0xFA):
        for low in (*range(0x40, 0x7F), *range(0xA1, 0xFF)):
            for encoding in ("big5", "gb2312", "big5hkscs"):
                text = bytes((high, low)).decode(encoding, errors="ignore")
                found.update(c for c in text if "\u4e00" <= c <= "\u9fff")
    found |= set(convert("\n".join(sorted(found)), "s")) | set(convert("\n".join(sorted(found)), "tw"))
    return sorted(c for c in found if c.isprintable() and not c.isspace())


def load_face(pattern: str, size: int) -> tuple[ImageFont.FreeTypeFont, set[str]]:
    """Load the face that fontconfig has for a pattern, with the characters it can draw."""
    answer = subprocess.run(
        ["fc-match", "-f", "%{file}\t%{index}\t%{family}", pattern],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\t")
    if pattern.partition(":")[0] not in answer[2]:
        raise SystemExit(f"the font {pattern} is not installed: apt-get install fonts-noto-cjk")
    number = int(answer[1])
    with TTFont(answer[0], fontNumber=number, lazy=True) as font:
        drawable = {chr(code) for code in font.getBestCmap()}
    return ImageFont.truetype(answer[0], size, index=number), drawable


def shapes(text: list[str], face: ImageFont.FreeTypeFont) -> npt.NDArray[np.float32]:
    """Draw each character, blur it and shrink it: shape (characters, CELLS * CELLS), in [0, 1]."""
    rows = np.empty((len(text), CELLS * CELLS), np.float32)
    ascent, descent = face.getmetrics()
    for i, character in enumerate(tqdm(text, desc=face.getname()[0] or "")):
        cell = Image.new("L", (SIZE, SIZE))
        origin = (SIZE / 2, (SIZE + ascent - descent) / 2)
        ImageDraw.Draw(cell).text(origin, character, fill=255, font=face, anchor="ms")
        small = cell.filter(ImageFilter.GaussianBlur(BLUR)).resize((CELLS, CELLS), Image.Resampling.BOX)
        rows[i] = np.asarray(small, np.float32).ravel() / 255
    return rows


def main() -> None:
    """Draw, reduce by principal components, quantise and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "caprag/glyphs.npz")
    arguments = parser.parse_args()
    faces = [load_face(pattern, SIZE - 8) for pattern in FACES]
    # A face without a character draws a box, and all boxes are alike.
    text = [c for c in characters() if all(c in drawable for _, drawable in faces)]
    drawn = np.hstack([shapes(text, face) for face, _ in faces])
    centred = drawn - drawn.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    reduced = centred @ vectors[:, ::-1][:, :DIMENSIONS]
    reduced /= np.linalg.norm(reduced, axis=1, keepdims=True)
    quantised = np.rint(reduced * 127 / np.abs(reduced).max()).astype(np.int8)
    np.savez_compressed(arguments.out, characters=np.array([ord(c) for c in text], np.uint32), shapes=quantised)
    print(f"{arguments.out}: {len(text)} characters, {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
