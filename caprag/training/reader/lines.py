"""Damaged lines of captions to learn reading from: drawn, put through a poor transmission, and cut out.

A part of the lines goes through all kinds of damage, a part is shrunk to a few hundred lines of height and sent through
H.264, and a part is left as it is. Which is decided by a picture's number, so that the same number gives the same line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from caprag.synthesis.damage import Damage, apply_damage, sample_damage
from caprag.synthesis.fonts import FontSet
from caprag.synthesis.generator import Synthesizer
from caprag.synthesis.recipe import Recipe
from caprag.synthesis.run import Sentences
from caprag.text import normalize

if TYPE_CHECKING:
    from caprag.synthesis.backgrounds import Backgrounds

RECIPE = Recipe(
    crop="band",
    kinds={"line": 0.75, "two_lines": 0.05, "two_speakers": 0.11, "bilingual": 0.03, "top": 0.03, "left": 0.03},
)
"""Of most captions."""

DISC = tuple(
    replace(
        RECIPE, house={"colour": (grey,) * 3}, looks={"faint": 0.7, "outline": 0.2, "adaptive": 0.1},
        type_size=(36, 58), coloured=0.0,
    )
    for grey in (190, 206, 218, 230)
)  # fmt: skip
"""Of captions as discs have them: a small thin grey type with a hair line around it, set wide."""

_HEAVY = re.compile("bold|black|heavy", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DamageMix:
    """How often which damage, and how much of it.

    Attributes
    ----------
    clean, low
        Shares of lines that are left as they are, and that are sent with few lines of height; the others get all kinds.
    lines
        Fewest and most lines of height of the low ones, of frames of 720.
    crf
        Least and most constant rate factor of their H.264.
    worst
        Share of the others whose strength is drawn from the uppermost quarter only.
    disc
        Share of captions as discs have them, see `DISC`.
    """

    clean: float = 0.06
    low: float = 0.52
    lines: tuple[int, int] = (125, 280)
    crf: tuple[int, int] = (31, 41)
    worst: float = 0.75
    disc: float = 0.5


@dataclass(frozen=True, slots=True)
class CaptionLine:
    """A cut-out line, and what it says in its written form."""

    image: Image.Image
    text: str


class CaptionLines:
    """Makes the lines of a number of captions.

    Parameters
    ----------
    texts
        Sentences to draw.
    backgrounds, fonts
        What they stand on, and what they are drawn with.
    count
        Number of captions; a caption of two lines gives two.
    mix
        Of damage.
    seed
        Decides all that is drawn by chance, with a caption's number.
    """

    def __init__(
        self, texts: Sequence[str], backgrounds: Backgrounds, fonts: FontSet, *, count: int,
        mix: DamageMix | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        thin = [font for font in fonts.fonts if not _HEAVY.search(font.name)]
        kinds = [(RECIPE, fonts), *((recipe, FontSet(thin or fonts.fonts)) for recipe in DISC)]
        self._synthesizers = [
            Synthesizer(backgrounds, chosen, seed=seed, recipe=recipe, format="png") for recipe, chosen in kinds
        ]
        self._sentences = Sentences(texts, self._synthesizers[0], count=count)
        self._mix, self._seed, self.count = mix or DamageMix(), seed, count

    def make(self, number: int) -> list[CaptionLine]:
        """Make the lines of one caption, each cut out by itself."""
        rng = np.random.default_rng([self._seed, number, 2])
        kind = int(rng.integers(1, len(self._synthesizers))) if rng.random() < self._mix.disc else 0
        picture = self._synthesizers[kind].make(number, self._sentences.for_picture(number))
        pixels = apply_damage(picture.pixels, self._draw(rng), rng)
        height, width = pixels.shape[:2]
        lines = []
        for line in picture.label.lines:
            left, top, right, bottom = line.box
            if line.role != "caption" or right <= left or bottom <= top:
                continue
            # A detector's boxes are now narrow, now wide.
            room = rng.uniform((-0.02, -0.04, -0.02, -0.04), (0.35, 0.25, 0.35, 0.25)) * (bottom - top)
            box = (
                max(0, round(left - room[0])), max(0, round(top - room[1])),
                min(width, round(right + room[2])), min(height, round(bottom + room[3])),
            )  # fmt: skip
            lines.append(CaptionLine(Image.fromarray(pixels[box[1] : box[3], box[0] : box[2]]), normalize(line.text)))
        return lines

    def __iter__(self) -> Iterator[CaptionLine]:
        """Make all."""
        for number in range(self.count):
            yield from self.make(number)

    def _draw(self, rng: np.random.Generator) -> Damage:
        mix, kind = self._mix, rng.random()
        if kind < mix.clean:
            return Damage()
        if kind < mix.clean + mix.low:
            low, high = np.log(mix.lines)
            return Damage(
                scale=float(np.exp(rng.uniform(low, high)) / 720),
                shrink=("area", "area", "linear", "cubic")[int(rng.integers(4))],
                enlarge=("cubic", "linear", "cubic")[int(rng.integers(3))],
                h264_crf=int(rng.integers(mix.crf[0], mix.crf[1] + 1)),
            )
        return sample_damage(rng, float(rng.uniform(0.75 if rng.random() < mix.worst else 0.0, 1.0)))
