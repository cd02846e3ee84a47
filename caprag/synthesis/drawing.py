"""Text to masks, and masks onto pictures: outlines, shadows, boxes, glow, slant, vertical lines.

Works glyph by glyph, because subtitles are spaced wider than type is set, and keeps the glyphs that it drew. Knows
nothing of where a line belongs or why it looks as it does.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caprag.synthesis.fonts import Font
from caprag.synthesis.pictures import Box, Pixels

if TYPE_CHECKING:
    from caprag.synthesis.styles import Style

Mask = npt.NDArray[np.uint8]
"""Coverage: uint8, shape (height, width), 0 outside to 255 inside."""

_GLYPH_BYTES_KEPT = 64 << 20
# Where the em square of a face without vertical metrics begins above the baseline.
_ASCENT = 0.88
# In vertical lines these have forms of their own.
_VERTICAL_FORMS = str.maketrans(
    "(){}[]「」『』《》〈〉【】〔〕…—–_:",
    "︵︶︷︸﹇﹈﹁﹂﹃﹄︽︾︿﹀︻︼︹︺︙︱︲︳︓",
)
# And these stand in the middle of their square, as they are set in Taiwan.
_CENTRED = frozenset("，、。,.")


@dataclass(frozen=True, slots=True)
class LineMask:
    """A drawn line: the ink of its strokes, and of strokes with outline, on the same canvas.

    `top` is where the canvas begins below the baseline of a horizontal line, in pixels; negative above.
    """

    fill: Mask
    outline: Mask
    top: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        height, width = self.fill.shape
        return width, height


@dataclass(frozen=True, slots=True)
class _Glyph:
    fill: Mask
    outline: Mask
    left: int
    """From the pen's position to the mask's left edge."""
    top: int
    """From the baseline to the mask's upper edge; negative above."""
    advance: float

    @property
    def weight(self) -> int:
        """Bytes held, roughly."""
        return self.fill.nbytes + (0 if self.outline is self.fill else self.outline.nbytes) + 512


_Key = tuple[object, int, int, str, float]


class _GlyphCache:
    """Keeps the glyphs drawn last, up to so many bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._glyphs: OrderedDict[_Key, _Glyph] = OrderedDict()

    def get(self, font: Font, size: int, character: str, outline: float) -> _Glyph:
        key: _Key = (font.path, font.face, size, character, outline)
        if key in self._glyphs:
            self._glyphs.move_to_end(key)
            return self._glyphs[key]
        glyph = self._glyphs[key] = _draw_glyph(font, size, character, outline)
        self.held += glyph.weight
        while self.held > self.limit and len(self._glyphs) > 1:
            self.held -= self._glyphs.popitem(last=False)[1].weight
        return glyph


_GLYPHS = _GlyphCache(_GLYPH_BYTES_KEPT)


def _draw_glyph(font: Font, size: int, character: str, outline: float) -> _Glyph:
    from PIL import Image, ImageDraw

    face = font.at(size)
    advance = face.getlength(character)
    left, top, right, bottom = face.getbbox(character, anchor="ls")
    pad = math.ceil(outline) + 1
    left, top = math.floor(left) - pad, math.floor(top) - pad
    canvas = (max(1, math.ceil(right) + pad - left), max(1, math.ceil(bottom) + pad - top))

    def draw(stroke: float) -> Mask:
        image = Image.new("L", canvas)
        ImageDraw.Draw(image).text(
            (-left, -top), character, fill=255, font=face, anchor="ls", stroke_width=stroke, stroke_fill=255
        )
        return np.array(image)

    fill = draw(0)
    return _Glyph(fill, draw(outline) if outline else fill, left, top, advance)


def line_mask(
    font: Font,
    size: int,
    text: str,
    *,
    outline: float = 0.0,
    tracking: float = 0.0,
    slant: float = 0.0,
    vertical: bool = False,
) -> LineMask:
    """Draw one line of text.

    Parameters
    ----------
    font
        A font that has the text's characters.
    size
        Type size in pixels, at least 1.
    text
        Without line breaks.
    outline
        How far the outline reaches beyond the strokes, in pixels, 0 or more.
    tracking
        Extra space after each character, in em.
    slant
        How far an italic leans, in degrees.
    vertical
        Set from top to bottom, with the vertical forms of punctuation where the font has them.

    Returns
    -------
    LineMask
        Cut to the ink, except for the widths of white space within.

    Raises
    ------
    ValueError
        For a text without ink.
    """
    glyphs = (
        _set_vertically(font, size, text, outline, tracking) if vertical else _set(font, size, text, outline, tracking)
    )
    if not glyphs:
        raise ValueError(f"text is {text!r}; it has nothing to draw")
    left = min(x for _, x, _ in glyphs)
    top = min(y for _, _, y in glyphs)
    width = max(x + glyph.fill.shape[1] for glyph, x, _ in glyphs) - left
    height = max(y + glyph.fill.shape[0] for glyph, _, y in glyphs) - top
    fill = np.zeros((height, width), np.uint8)
    edge = np.zeros((height, width), np.uint8) if outline else fill
    for glyph, x, y in glyphs:
        rows, columns = glyph.fill.shape
        place = np.s_[y - top : y - top + rows, x - left : x - left + columns]
        np.maximum(fill[place], glyph.fill, out=fill[place])
        if outline:
            np.maximum(edge[place], glyph.outline, out=edge[place])
    if slant:
        fill, edge = _lean(fill, slant), _lean(edge, slant)
    return LineMask(fill, edge, top)


def _set(font: Font, size: int, text: str, outline: float, tracking: float) -> list[tuple[_Glyph, int, int]]:
    pen, placed = 0.0, []
    for character in text:
        glyph = _GLYPHS.get(font, size, character, outline)
        if not character.isspace():
            placed.append((glyph, round(pen) + glyph.left, glyph.top))
        pen += glyph.advance + tracking * size
    return placed


def _set_vertically(font: Font, size: int, text: str, outline: float, tracking: float) -> list[tuple[_Glyph, int, int]]:
    pen, placed = 0.0, []
    for character in text:
        form = character.translate(_VERTICAL_FORMS)
        glyph = _GLYPHS.get(font, size, form if font.has(form) else character, outline)
        if character.isspace():
            pen += size / 2
            continue
        x = round((size - glyph.advance) / 2) + glyph.left
        y = round(pen + _ASCENT * size) + glyph.top
        if character in _CENTRED:
            left, top, right, bottom = ink_box(glyph.fill)
            x, y = round((size - left - right) / 2), round(pen + (size - top - bottom) / 2)
        placed.append((glyph, x, y))
        pen += size * (1 + tracking)
    return placed


def _lean(mask: Mask, slant: float) -> Mask:
    import cv2

    height, width = mask.shape
    shear = math.tan(math.radians(slant))
    # The foot stays where it is.
    extra = math.ceil(abs(shear) * height)
    move = np.array([[1, -shear, shear * height if shear > 0 else 0], [0, 1, 0]], np.float64)
    return np.asarray(cv2.warpAffine(mask, move, (width + extra, height), flags=cv2.INTER_LINEAR), dtype=np.uint8)


def draw_line(pixels: Pixels, mask: LineMask, left: int, top: int, style: Style) -> Box:
    """Draw a line onto a picture, in place.

    Parameters
    ----------
    pixels
        The picture; changed.
    mask
        The line.
    left, top
        Where the mask's upper left corner goes; what lies outside the picture is cut off.
    style
        Colours, opacities, and what lies behind the strokes.

    Returns
    -------
    tuple of int
        The box of the ink, outline included, cut to the picture.
    """
    width, height = mask.size
    margin = style.reach
    # The strip of the picture that changes.
    x0, y0 = max(0, left - margin), max(0, top - margin)
    x1, y1 = min(pixels.shape[1], left + width + margin), min(pixels.shape[0], top + height + margin)
    if x1 <= x0 or y1 <= y0:
        raise ValueError(f"a line at {left}, {top} of {width} x {height} lies outside {pixels.shape[1::-1]} pixels")
    # Plane by plane: colour by colour is what arithmetic is fast at.
    strip = pixels[y0:y1, x0:x1].transpose(2, 0, 1).astype(np.float32, order="C")

    def place(ink: Mask, dx: float = 0, dy: float = 0, blur: float = 0.0) -> npt.NDArray[np.float32]:
        """Bring a mask into the strip, moved and blurred; opacity 0 to 1."""
        x, y = left - x0 + round(dx), top - y0 + round(dy)
        rows, columns = strip.shape[1:]
        canvas = np.zeros((rows, columns), np.float32)
        up, down, west, east = max(0, y), min(rows, y + height), max(0, x), min(columns, x + width)
        if up < down and west < east:
            canvas[up:down, west:east] = ink[up - y : down - y, west - x : east - x]
        canvas *= 1 / 255
        return _blur(canvas, blur) if blur else canvas

    def lay(colour: tuple[int, int, int], alpha: npt.NDArray[np.float32], opacity: float) -> None:
        if opacity * style.opacity != 1:
            alpha = alpha * np.float32(opacity * style.opacity)
        keep = 1 - alpha
        for plane, paint in zip(strip, colour, strict=True):
            plane *= keep
            if paint:
                plane += alpha * np.float32(paint)

    if style.box_opacity:
        pad = style.box_padding
        box = np.zeros(strip.shape[1:], np.float32)
        upper, west = max(0, top - y0 - pad), max(0, left - x0 - pad)
        box[upper : top - y0 + height + pad, west : left - x0 + width + pad] = 1
        lay(style.box_colour, box, style.box_opacity)
    if style.glow_opacity:
        glow = place(mask.outline, blur=style.glow_radius)
        lay(style.glow_colour, np.minimum(1, glow * np.float32(2)), style.glow_opacity)
    if style.shadow_opacity:
        shadow = place(mask.outline, style.shadow_x, style.shadow_y, style.shadow_blur)
        lay((0, 0, 0), shadow, style.shadow_opacity)
    if style.outline_width:
        lay(style.outline_colour, place(mask.outline, blur=style.outline_blur), style.outline_opacity)
    lay(style.colour, place(mask.fill, blur=style.softness), 1.0)
    # Rounded, not cut off; every layer stays within 0 to 255.
    strip += np.float32(0.5)
    pixels[y0:y1, x0:x1] = strip.astype(np.uint8).transpose(1, 2, 0)
    ink_left, ink_top, ink_right, ink_bottom = ink_box(mask.outline)
    return (
        min(max(0, left + ink_left), pixels.shape[1]),
        min(max(0, top + ink_top), pixels.shape[0]),
        min(max(0, left + ink_right), pixels.shape[1]),
        min(max(0, top + ink_bottom), pixels.shape[0]),
    )


def ink_box(mask: Mask) -> Box:
    """Return the box of what is more than half covered; the whole mask where nothing is."""
    rows = np.flatnonzero(mask.max(axis=1) > 127)
    columns = np.flatnonzero(mask.max(axis=0) > 127)
    if not len(rows):
        return 0, 0, mask.shape[1], mask.shape[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _blur(canvas: npt.NDArray[np.float32], sigma: float) -> npt.NDArray[np.float32]:
    import cv2

    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), sigma), dtype=np.float32)
