"""Fit the shipped noise channel: python scripts/fit_noise.py.

The pairs are what two OCR engines read of four films, with the truth, line for line: subtitles/<film>/paddle.srt,
lens.srt and truth.srt of the material (found through CAPRAG_DATA). The letters that look like two others side by side
are found by drawing: a letter is cut at its emptiest columns, and each half compared with every whole letter. Writes
caprag/noise/parameters.json, always the same bytes. Needs the Debian package fonts-noto-cjk; takes a minute or two.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from caprag.noise import NoiseChannel
from caprag.noise.tables import common_letters

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "scripts")]
from make_glyphs import load_face  # noqa: E402
from material import FILMS, lines, require_data  # noqa: E402

FACES = (("Noto Sans CJK TC:regular", 1.0), ("Noto Sans CJK TC:light", 1.6))  # and how much to blur
SIZE, CELLS = 96, 20
HALVES = (0.22, 0.72)  # where a letter may be cut, as shares of its width
CUTS, LEAST_GAP = 4, 5
ALIKE, NEARLY = 0.74, 0.04  # the least cosine of a half with a letter; how much less a more frequent letter may have

Floats = npt.NDArray[np.float32]


def ink(letter: str, face: ImageFont.FreeTypeFont) -> Floats:
    """Draw a letter: shape (SIZE, SIZE), in [0, 1]."""
    cell = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(cell).text((SIZE / 2, SIZE / 2), letter, fill=255, font=face, anchor="mm")
    drawn: Floats = np.asarray(cell, np.float32) / np.float32(255)
    return drawn


def shape(drawn: Floats, blur: float) -> Floats | None:
    """Stretch what is drawn over the whole of a small cell: a vector of length 1; ``None`` for too little."""
    rows, columns = np.flatnonzero(drawn.max(1) > 0.3), np.flatnonzero(drawn.max(0) > 0.3)
    if len(rows) < SIZE // 3 or len(columns) < SIZE // 12:
        return None
    part = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    small = Image.fromarray(np.uint8(part * 255)).resize((CELLS, CELLS), Image.Resampling.BOX)
    vector = np.asarray(small.filter(ImageFilter.GaussianBlur(blur)), np.float32).ravel()
    vector = vector - vector.mean()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)


def cuts(drawn: Floats) -> list[int]:
    """Return the columns at which a letter has the least ink, some way apart."""
    columns = np.flatnonzero(drawn.max(0) > 0.3)
    low, high = columns[0], columns[-1] + 1
    amount = drawn.sum(0)
    found: list[int] = []
    within = range(int(low + HALVES[0] * (high - low)), int(low + HALVES[1] * (high - low)))
    for column in sorted(within, key=lambda c: (round(float(amount[c]), 2), abs(c - (low + high) / 2))):
        if all(abs(column - other) >= LEAST_GAP for other in found):
            found.append(column)
    return found[:CUTS]


def halves(drawn: Floats, cut: int) -> list[tuple[Floats, Floats]]:
    """Cut a letter at a column, and between the connected pieces that lie to its left and right."""
    straight = drawn.copy(), drawn.copy()
    straight[0][:, cut:] = straight[1][:, :cut] = 0
    number, labels, _, centres = cv2.connectedComponentsWithStats(np.uint8(drawn > 0.3))
    left = np.isin(labels, [i for i in range(1, number) if centres[i][0] < cut])
    right = np.isin(labels, [i for i in range(1, number) if centres[i][0] >= cut])
    return [straight, (drawn * left, drawn * right)]


def find_splits(letters: list[str], counts: Counter[str]) -> dict[str, str]:
    """Return the letters that look like two others side by side, with these; of near equals the more frequent."""
    faces = [load_face(name, SIZE - 12) for name, _ in FACES]
    letters = [c for c in letters if all(c in drawable for _, drawable in faces)]
    drawn = {c: [ink(c, face) for face, _ in faces] for c in letters}

    def describe(pictures: Sequence[Floats]) -> Floats | None:
        vectors = [shape(picture, blur) for picture, (_, blur) in zip(pictures, FACES, strict=True)]
        found = [v for v in vectors if v is not None]
        return np.concatenate(found) / np.float32(len(FACES)) ** 0.5 if len(found) == len(FACES) else None

    described = {c: vector for c in letters for vector in [describe(drawn[c])] if vector is not None}
    names, vectors = list(described), np.stack(list(described.values()))
    frequency = np.array([counts[c] for c in names])
    sides: list[tuple[str, Floats, Floats]] = []
    for letter, pictures in drawn.items():
        for cut in cuts(pictures[0]):
            for pair in zip(*(halves(picture, cut) for picture in pictures), strict=True):
                left, right = (describe([half[side] for half in pair]) for side in (0, 1))
                if left is not None and right is not None:
                    sides.append((letter, left, right))
    best: dict[str, tuple[float, str]] = {}
    for start in range(0, len(sides), 512):
        rows = sides[start : start + 512]
        alike = [np.stack([row[side] for row in rows]) @ vectors.T for side in (1, 2)]
        for i, (letter, _, _) in enumerate(rows):
            near = [np.flatnonzero(side[i] >= side[i].max() - NEARLY) for side in alike]
            a, b = (int(n[np.lexsort((-side[i][n], -frequency[n]))[0]]) for n, side in zip(near, alike, strict=True))
            score = round(float(min(alike[0][i].max(), alike[1][i].max())), 4)
            if score > best.get(letter, (0.0, ""))[0] and letter not in (names[a], names[b]):
                best[letter] = (score, names[a] + names[b])
    return {letter: parts for letter, (score, parts) in sorted(best.items()) if score >= ALIKE}


def main() -> None:
    """Find the splits, fit and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "caprag/noise/parameters.json")
    parser.add_argument("--engines", nargs="+", default=["paddle", "lens"])
    arguments = parser.parse_args()
    require_data()
    pairs: list[tuple[str, str]] = []
    sources: list[str] = []
    for film in FILMS:
        for engine in arguments.engines:
            pairs += list(zip(lines(film, engine), lines(film, "truth"), strict=True))
        sources += [film] * (len(pairs) - len(sources))
    counts = Counter(c for _, truth in pairs for c in truth)
    splits = find_splits(sorted(common_letters()), counts)
    print(f"{len(splits)} letters look like two")
    made = {"films": len(FILMS), "engines": list(arguments.engines), "faces": [name for name, _ in FACES]}
    NoiseChannel.fit(pairs, sources=sources, splits=splits, provenance=made).save(arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
