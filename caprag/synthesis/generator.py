"""One picture from its number: background, other text, caption, damage, label.

Each picture has a random generator of its own, seeded by the run's seed and the picture's number, so that any picture
can be made alone and in any order.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from caprag.errors import SynthesisError
from caprag.synthesis.backgrounds import BackgroundLabel, Backgrounds
from caprag.synthesis.damage import apply_damage, sample_damage
from caprag.synthesis.drawing import LineMask, draw_line, line_mask
from caprag.synthesis.fonts import Font, FontSet
from caprag.synthesis.layout import Fit, Line, place, split_evenly
from caprag.synthesis.pictures import Box, Kind, Label, Picture, Pixels, TextLine, fields_of
from caprag.synthesis.recipe import Overflow, Recipe
from caprag.synthesis.screen_text import draw_screen_text
from caprag.synthesis.styles import ADAPTED, Style, adapt, pick, sample_style
from caprag.text import normalize

if TYPE_CHECKING:
    import numpy.typing as npt

Format = Literal["jpg", "png", "webp"]
"""How pictures are encoded."""

# From a line's middle to its baseline, in em: the ideographs' square begins 0.88 em above the baseline.
_BASELINE = 0.38
# Shorter ones are set with the next sentence below, not in two lines of their own.
_TWO_LINES_FROM = 8
# Behind or before an East Asian character; white space after a comma goes with it.
_NARROW_MARK = re.compile(r"(?<=[\u3040-\u9fff\uff00-\uffef])[,!?:;)]+ ?|[(](?=[\u3040-\u9fff])")
_ELLIPSIS = re.compile(r"\.{3}")
_WIDE = str.maketrans(",!?:;()", "，！？：；（）", " ")
_PAPER, _INK = (255, 255, 255), (12, 12, 12)


@dataclass(frozen=True, slots=True)
class _Caption:
    """A caption that found its place in the frame."""

    sentence: int
    skipped: int
    kind: Kind
    font: Font
    lines: list[Line]
    masks: list[LineMask]
    corners: list[tuple[int, int]]
    fit: Fit
    panel: Box | None = None

    def boxes(self) -> list[Box]:
        """Return what each line takes up in the frame, with all that its style draws around it."""
        return [
            _grown(mask, corner, line.style.reach)
            for line, mask, corner in zip(self.lines, self.masks, self.corners, strict=True)
        ]


class Synthesizer:
    """Makes pictures of captions.

    Parameters
    ----------
    backgrounds
        What stands behind the captions.
    fonts
        What they are drawn with.
    sizes
        Widths and heights of frames in pixels; each picture has one of them.
    damage
        Strength of the damage, 0 (none) to 1 (severe).
    seed
        Together with a picture's number it decides all that is drawn by chance.
    recipe
        How pictures look.
    format
        How `encode` writes them.
    """

    def __init__(
        self,
        backgrounds: Backgrounds,
        fonts: FontSet,
        *,
        sizes: Sequence[tuple[int, int]] = ((1280, 720),),
        damage: float = 0.0,
        seed: int = 0,
        recipe: Recipe | None = None,
        format: Format = "jpg",
    ) -> None:
        if not sizes or any(min(size) < 32 or max(size) > 8192 for size in sizes):
            raise ValueError(f"sizes is {list(sizes)}; wanted are frames of 32 to 8192 pixels a side")
        if not 0 <= damage <= 1:
            raise ValueError(f"damage is {damage}; it goes from 0 to 1")
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be 0 or more")
        if format not in get_args(Format):
            raise ValueError(f"format is {format!r}; known are {', '.join(get_args(Format))}")
        self.backgrounds, self.fonts, self.recipe = backgrounds, fonts, recipe or Recipe()
        self.sizes, self.damage, self.seed, self.format = tuple(sizes), damage, seed, format

    def make(self, number: int, sentences: Sequence[tuple[int, str]]) -> Picture:
        """Make one picture.

        Parameters
        ----------
        number
            The picture's number, 0 or more.
        sentences
            Rows and texts: the sentence to draw, then those that take its place where it does not fit, and that stand
            beside it in captions of two sentences; none for a picture without a caption. Where none fits, the first is
            set as small as it must be.

        Returns
        -------
        Picture

        Raises
        ------
        SynthesisError
            Where not even the smallest type fits the frame.
        """
        rng = np.random.default_rng([self.seed, number])
        frame = self.sizes[int(rng.integers(len(self.sizes)))]
        kind: Kind = "empty"
        caption = None
        if sentences:
            # Recipes without any other kind draw plain lines where a caption is wanted all the same.
            kinds = {kind: weight for kind, weight in self.recipe.kinds.items() if kind != "empty" and weight}
            kind = list(kinds)[pick(rng, list(kinds.values()))] if kinds else "line"
            caption = self._arrange(rng, kind, frame, sentences, number)
            kind = caption.kind
        view = self._view(rng, frame, caption)
        pixels, background = self._background(rng, frame, view, caption)
        screen_text: tuple[TextLine, ...] = ()
        if self.recipe.crop == "frame" and kind != "meme_panel":
            taken = [] if caption is None else caption.boxes()
            screen_text = draw_screen_text(rng, pixels, self.recipe.screen_text, self.fonts, taken)
        before = pixels.copy() if self.damage else None
        lines: tuple[TextLine, ...] = ()
        if caption is not None:
            lines, caption = self._draw(pixels, caption, view)
        damage = sample_damage(rng, self.damage)
        if self.damage:
            pixels = apply_damage(pixels, damage, rng, before)
        own = [line for line in lines if line.role == "caption"]
        label = Label(
            text="\n".join(normalize(line.text) for line in own),
            kind=kind,
            width=pixels.shape[1],
            height=pixels.shape[0],
            quality=None if self.format == "png" else self._quality(number),
            box=_hull([line.box for line in own]),
            lines=lines,
            screen_text=screen_text,
            background=fields_of(background),
            damage=fields_of(damage),
        )
        if caption is not None:
            first = next(line for line in caption.lines if line.role == "caption")
            label = replace(
                label, sentence=caption.sentence, skipped=caption.skipped, fitted=caption.fit.fitted,
                font=f"{caption.font.path.name}#{caption.font.face}", font_size=first.size,
                style=fields_of(first.style),
            )  # fmt: skip
        return Picture(number, pixels, label)

    def encode(self, picture: Picture) -> bytes:
        """Return a picture as the bytes of a file; its number decides the quality, within the recipe's range."""
        from PIL import Image

        quality = self._quality(picture.number)
        stream = io.BytesIO()
        image = Image.fromarray(picture.pixels)
        if self.format == "jpg":
            image.save(stream, "JPEG", quality=quality)
        elif self.format == "webp":
            image.save(stream, "WEBP", quality=quality, method=0)
        else:
            image.save(stream, "PNG", compress_level=1)
        return stream.getvalue()

    def _quality(self, number: int) -> int:
        low, high = self.recipe.quality
        return low + int(np.random.default_rng([self.seed, number, 1]).integers(high - low + 1))

    def _arrange(
        self, rng: np.random.Generator, kind: Kind, frame: tuple[int, int], sentences: Sequence[tuple[int, str]],
        number: int,
    ) -> _Caption:  # fmt: skip
        low, high = self.recipe.type_sizes(*frame)
        size = int(rng.integers(low, high + 1))
        alone = len(sentences) == 1
        # A panel may be too small for what a frame is wide enough for; and no long sentence is to stop a run.
        tries = [(attempt, forced, i) for attempt, forced in ((kind, False), ("line", False), ("line", True))
                 for i in range(len(sentences))]  # fmt: skip
        for attempt, forced, i in tries:
            row, text = sentences[i]
            other = "" if alone else normalize(sentences[(i + 1) % len(sentences)][1])
            texts = _texts(rng, attempt, normalize(text), other)
            if rng.random() < self.recipe.wide_marks:
                wide = tuple(map(_widen, texts))
                texts = wide if self.fonts.covers("".join(wide)) else texts
            font = self.fonts.choose(rng, "".join(texts)) if all(texts) else None
            if font is None:
                continue
            placed = self._place(rng, attempt, frame, texts, font, size, forced=forced)
            if placed is not None:
                return replace(placed, sentence=row, skipped=i)
        tried = ", ".join(repr(text) for _, text in sentences[:3])
        raise SynthesisError(
            f"picture {number}: none of {len(sentences)} sentences fits {frame[0]} x {frame[1]} pixels in type of "
            f"{size} or less ({tried}); take a larger frame, or shorter sentences"
        )

    def _place(
        self, rng: np.random.Generator, kind: Kind, frame: tuple[int, int], texts: tuple[str, ...], font: Font,
        size: int, *, forced: bool,
    ) -> _Caption | None:  # fmt: skip
        """Place a caption; `forced` wraps and shrinks it as far as it takes."""
        width, height = frame
        recipe = self.recipe
        style = sample_style(
            rng, size, looks=recipe.looks, italic=recipe.italic, coloured=recipe.coloured, house=recipe.house
        )
        panel: Box | None = None
        if kind == "meme_panel":
            depth = round(height * float(rng.uniform(0.2, 0.36)))
            top = 0 if rng.random() < 0.5 else height - depth
            panel, style = (0, top, width, top + depth), Style(colour=_INK)
        elif kind == "meme_over":
            edge = round(size * float(rng.uniform(0.05, 0.09)) * 4) / 4
            style = Style("outline", outline_width=edge)
        second = None
        if kind == "bilingual":
            # The first, in a random order, that a font can draw.
            phrases = (recipe.second_language[i] for i in rng.permutation(len(recipe.second_language)))
            second = next(((p, face) for p in phrases if (face := self.fonts.choose(rng, p)) is not None), None)
        inner = frame if panel is None else (width, panel[3] - panel[1])
        overflow: Overflow = "wrap" if forced else recipe.overflow
        placed = place(
            rng, kind, texts, font, size, style, inner,
            overflow="skip" if kind == "two_speakers" else overflow, forced=forced, lower_edge=recipe.lower_edge,
            second=second,
        )  # fmt: skip
        if placed is None and kind == "two_speakers":
            # A line for each, where one line is too short for both.
            texts = tuple(re.split("　+", texts[0]))
            placed = place(
                rng, kind, texts, font, size, style, inner,
                overflow=overflow, forced=forced, lower_edge=recipe.lower_edge,
            )  # fmt: skip
        if placed is None:
            return None
        lines, fit = placed
        if kind == "bilingual" and all(line.role == "caption" for line in lines):
            kind = "line"
        if panel is not None:
            lines = [replace(line, y=line.y + panel[1]) for line in lines]
        masks = [_mask(line) for line in lines]
        corners = [_corner(*pair) for pair in zip(lines, masks, strict=True)]
        left, top, right, bottom = _hull([_grown(*pair) for pair in zip(masks, corners, strict=True)]) or (0, 0, 0, 0)
        if left < 0 or top < 0 or right > width or bottom > height:
            return None
        return _Caption(0, 0, kind, font, lines, masks, corners, fit, panel)

    def _view(self, rng: np.random.Generator, frame: tuple[int, int], caption: _Caption | None) -> Box:
        """Return the part of the frame that becomes the picture."""
        width, height = frame
        if self.recipe.crop == "frame":
            return 0, 0, width, height
        boxes = [] if caption is None else [_grown(*pair) for pair in zip(caption.masks, caption.corners, strict=True)]
        hull = _hull(boxes)
        if hull is None:
            deep = max(16, round(height * float(rng.uniform(0.08, 0.16))))
            hull = (round(width * 0.3), height - 2 * deep, round(width * 0.7), height - deep)
        left, top, right, bottom = hull
        room = max(4.0, (bottom - top) * 0.35)
        left, top, right, bottom = (
            edge + sign * round(float(rng.uniform(0.15, 1.0)) * room)
            for edge, sign in ((left, -1), (top, -1), (right, 1), (bottom, 1))
        )
        top, bottom = max(0, top), min(height, bottom)
        return (0, top, width, bottom) if self.recipe.crop == "band" else (max(0, left), top, min(width, right), bottom)

    def _background(
        self, rng: np.random.Generator, frame: tuple[int, int], view: Box, caption: _Caption | None
    ) -> tuple[Pixels, BackgroundLabel]:
        panel = None if caption is None else caption.panel
        if panel is None:
            return self.backgrounds.draw(rng, frame, view)
        left, top, right, bottom = view
        pixels: Pixels = np.empty((frame[1], frame[0], 3), np.uint8)
        pixels[panel[1] : panel[3]] = _PAPER
        depth = panel[3] - panel[1]
        picture, label = self.backgrounds.draw(rng, (frame[0], frame[1] - depth))
        where = slice(depth, None) if panel[1] == 0 else slice(0, panel[1])
        pixels[where] = picture
        return np.ascontiguousarray(pixels[top:bottom, left:right]), label

    def _draw(self, pixels: Pixels, caption: _Caption, view: Box) -> tuple[tuple[TextLine, ...], _Caption]:
        """Draw the lines; those of the adaptive look get their outline now that the picture below is known."""
        lines, drawn = list(caption.lines), []
        for i, line in enumerate(lines):
            mask, corner = caption.masks[i], caption.corners[i]
            left, top = corner[0] - view[0], corner[1] - view[1]
            if line.style.look in ADAPTED and "outline_width" not in self.recipe.house:
                width, height = mask.size
                below = pixels[max(0, top) : top + height : 2, max(0, left) : left + width : 2]
                lines[i] = line = replace(line, style=adapt(line.style, line.size, _brightness(below)))
                mask = _mask(line)
                corner = _corner(line, mask)
                left, top = corner[0] - view[0], corner[1] - view[1]
            drawn.append(TextLine(line.text, draw_line(pixels, mask, left, top, line.style), line.role))
        return tuple(drawn), replace(caption, lines=lines)


def _texts(rng: np.random.Generator, kind: Kind, text: str, other: str) -> tuple[str, ...]:
    """Return the lines, before any wrapping, that a kind of caption makes of a sentence and its neighbour."""
    own = tuple(text.split("\n"))
    if kind == "vertical":
        return (" ".join(own),)
    if kind == "two_speakers":
        one, two = " ".join(own), other.replace("\n", " ")
        dash = "-" if rng.random() < 0.4 else ""
        return (f"{dash}{one}{'　' * int(rng.integers(1, 4))}{dash}{two}",) if two else (one,)
    if kind == "two_lines" and len(own) == 1:
        halves = split_evenly(text, 2) if len(text) >= _TWO_LINES_FROM else None
        return halves or tuple(line for line in (text, other.split("\n")[0]) if line)
    return own


def _widen(text: str) -> str:
    """Set the marks of a Chinese text as wide as its characters."""
    return _ELLIPSIS.sub("…", _NARROW_MARK.sub(lambda mark: mark[0].translate(_WIDE), text))


def _mask(line: Line) -> LineMask:
    return line_mask(
        line.font, line.size, line.text,
        outline=line.style.outline_width, tracking=line.style.tracking, slant=line.style.slant, vertical=line.vertical,
    )  # fmt: skip


def _corner(line: Line, mask: LineMask) -> tuple[int, int]:
    """Return where a line's mask goes in the frame: its left and upper edge."""
    width, height = mask.size
    shift = {"middle": 0.5, "left": 0.0}[line.alignment]
    top = line.y - height / 2 if line.vertical else line.y + _BASELINE * line.size + mask.top
    return round(line.x - shift * width), round(top)


def _grown(mask: LineMask, corner: tuple[int, int], reach: int = 0) -> Box:
    left, top = corner
    return left - reach, top - reach, left + mask.size[0] + reach, top + mask.size[1] + reach


def _hull(boxes: Sequence[Box]) -> Box | None:
    if not boxes:
        return None
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _brightness(pixels: npt.NDArray[np.uint8]) -> float:
    return float(pixels.mean()) / 255 if pixels.size else 0.5
