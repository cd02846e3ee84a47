"""Where the lines of a caption stand in a frame, and what happens to one that is too long.

Works with widths and frame sizes alone; nothing is drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from caprag.line_breaks import CLOSING, may_break
from caprag.synthesis.fonts import Font
from caprag.synthesis.pictures import Box, Kind, Role
from caprag.synthesis.recipe import Overflow
from caprag.synthesis.styles import Style

if TYPE_CHECKING:
    import numpy as np

# Of the frame's width and height, what captions keep free at each side.
_SIDE = 0.04
_LINE_PITCH = 1.25
# No smaller than this share of the smallest type asked for is a sentence shrunk.
_SHRINK = 0.6
_LINES_AT_MOST = 2
_LINES_OF_MEME = 4
_LINES_FORCED = 8
_SMALLEST = 6
Alignment = Literal["middle", "left"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line to draw: `x` is its middle or left edge as `alignment` says, `y` the middle of its type."""

    text: str
    font: Font
    size: int
    style: Style
    x: float
    y: float
    alignment: Alignment = "middle"
    vertical: bool = False
    role: Role = "caption"


@dataclass(frozen=True, slots=True)
class Fit:
    """Lines of text and the type size at which they fit, and whether they were wrapped or shrunk for it."""

    lines: tuple[str, ...]
    size: int
    fitted: Literal["as is", "wrapped", "shrunk"] = "as is"


def text_length(font: Font, size: int, text: str, style: Style, *, vertical: bool = False) -> float:
    """Return how long a line is in its direction, in pixels, outline included."""
    if vertical:
        return len(text) * size * (1 + style.tracking) + 2 * style.outline_width
    return font.at(size).getlength(text) + len(text) * style.tracking * size + 2 * style.outline_width


def split_evenly(text: str, parts: int) -> tuple[str, ...] | None:
    """Cut a text into lines of about one length, rather after punctuation and at spaces than within words.

    Examples
    --------
    >>> split_evenly("我們回家吧，天快黑了", 2)
    ('我們回家吧，', '天快黑了')
    """
    lines, rest = [], text
    for left in range(parts, 1, -1):
        wanted = len(rest) / left
        places = [i for i in range(1, len(rest)) if may_break(rest, i)]
        if not places:
            return None

        def cost(i: int, rest: str = rest, wanted: float = wanted) -> float:
            inviting = rest[i - 1] in CLOSING or rest[i].isspace() or rest[i - 1].isspace()
            return abs(i - wanted) - (2.5 if inviting else 0)

        place = min(places, key=cost)
        lines.append(rest[:place].strip())
        rest = rest[place:].strip()
    lines.append(rest)
    return tuple(lines) if all(lines) else None


def fit(
    text: str,
    size: int,
    length: Callable[[str, int], float],
    room: float,
    *,
    overflow: Overflow = "wrap",
    smallest: int = 1,
    most_lines: int = _LINES_AT_MOST,
) -> Fit | None:
    """Make a text fit.

    Parameters
    ----------
    text
        One line.
    size
        Type size wanted, in pixels.
    length
        Length of a text at a size, in pixels.
    room
        What the length may be.
    overflow
        See `Overflow`.
    smallest
        No smaller than this is the type made, in pixels.
    most_lines
        Into no more lines than this is the text wrapped.

    Returns
    -------
    Fit or None
        ``None`` where the text does not fit.
    """
    if length(text, size) <= room:
        return Fit((text,), size)
    if overflow == "skip":
        return None
    if overflow == "wrap":
        for parts in range(2, most_lines + 1):
            lines = split_evenly(text, parts)
            if lines and all(length(line, size) <= room for line in lines):
                return Fit(lines, size, "wrapped")
    for parts in range(1, most_lines + 1 if overflow == "wrap" else 2):
        lines = split_evenly(text, parts)
        if lines:
            smaller = int(size * room / max(length(line, size) for line in lines))
            # The outline does not shrink with the type.
            while smaller >= smallest and any(length(line, smaller) > room for line in lines):
                smaller -= 1
            if smaller >= smallest:
                return Fit(lines, smaller, "shrunk")
    return None


def place(
    rng: np.random.Generator,
    kind: Kind,
    texts: tuple[str, ...],
    font: Font,
    size: int,
    style: Style,
    frame: tuple[int, int],
    *,
    overflow: Overflow = "wrap",
    forced: bool = False,
    lower_edge: tuple[float, float] = (0.88, 0.965),
    second: tuple[str, Font] | None = None,
) -> tuple[list[Line], Fit] | None:
    """Find the places of a caption's lines.

    Parameters
    ----------
    rng
        Source of chance.
    kind
        How the caption stands; ``"empty"`` has no lines.
    texts
        The sentence, or the sentences of two lines or two speakers.
    font, size, style
        Of the type.
    frame
        Width and height in pixels of the frame, or of a meme's panel.
    overflow
        See `Overflow`.
    forced
        Set it in as many lines and as small as it takes.
    lower_edge
        Of the last line's type, lowest and highest share of the frame's height, for lines in the lower band.
    second
        Text and font of a line in a second language.

    Returns
    -------
    tuple of list of Line, and Fit
        The lines from top to bottom, and what was done to make them fit; ``None`` where they can't be made to.
    """
    width, height = frame
    smallest = _SMALLEST if forced else max(_SMALLEST, int(size * _SHRINK))
    if kind == "vertical":
        return _place_vertically(rng, texts[0], font, size, style, frame, overflow, smallest)
    margin = width * float(rng.uniform(0.04, 0.1)) if kind == "left" else width * _SIDE
    lean = math.tan(math.radians(abs(style.slant))) * size
    room = width * (1 - _SIDE) - margin - 2 * style.reach - lean

    def length(text: str, at: int) -> float:
        return text_length(font, at, text, style)

    meme = kind in ("meme_panel", "meme_over")
    most_lines = _LINES_FORCED if forced else _LINES_OF_MEME if meme else _LINES_AT_MOST
    fits = []
    for text in texts:
        found = fit(
            text, size, length, room,
            overflow=overflow, smallest=smallest, most_lines=most_lines,
        )  # fmt: skip
        if found is None:
            return None
        fits.append(found)
    result = Fit(
        tuple(line for found in fits for line in found.lines),
        min(found.size for found in fits),
        max((found.fitted for found in fits), key=("as is", "wrapped", "shrunk").index),
    )
    pitch = result.size * (_LINE_PITCH + (2 * style.box_padding / result.size if style.box_opacity else 0))
    rows: list[tuple[str, Font, int, Role]] = [(line, font, result.size, "caption") for line in result.lines]
    if second is not None:
        row = _second_row(rng, second, result.size, room, style)
        if row is not None:
            rows.insert(0 if rng.random() < 0.3 else len(rows), row)
    if len(rows) * pitch > height * 0.96:
        return None
    first = _first_middle(rng, kind, height, pitch * (len(rows) - 1), result.size, lower_edge)
    alignment: Alignment = "left" if kind == "left" else "middle"
    x = margin + style.reach if kind == "left" else width / 2
    plain = replace(style, slant=style.slant if second is None else 0.0)
    lines = [
        Line(text, face, at, plain.scaled(at / size), x, first + i * pitch, alignment, role=role)
        for i, (text, face, at, role) in enumerate(rows)
    ]
    return lines, result


def _second_row(
    rng: np.random.Generator, second: tuple[str, Font], size: int, room: float, style: Style
) -> tuple[str, Font, int, Role] | None:
    text, font = second
    smaller = max(6, round(size * float(rng.uniform(0.55, 0.8))))
    while smaller > size * 0.35 and text_length(font, smaller, text, style) > room:
        smaller -= 1
    return (text, font, smaller, "second_language") if text_length(font, smaller, text, style) <= room else None


def _first_middle(
    rng: np.random.Generator, kind: Kind, height: int, block: float, size: int, lower_edge: tuple[float, float]
) -> float:
    """Return the y of the first line's middle; the last line's lies `block` pixels below."""
    if kind == "meme_panel":
        return (height - block) / 2
    if kind == "top" or (kind == "meme_over" and rng.random() < 0.4):
        return height * float(rng.uniform(0.03, 0.1)) + size * 0.55
    last = min(height * float(rng.uniform(*lower_edge)) - size * 0.5, height - size * 0.6)
    return max(last - block, size * 0.6)


def _place_vertically(
    rng: np.random.Generator, text: str, font: Font, size: int, style: Style, frame: tuple[int, int],
    overflow: Overflow, smallest: int,
) -> tuple[list[Line], Fit] | None:  # fmt: skip
    width, height = frame

    def length(text: str, at: int) -> float:
        return text_length(font, at, text, style, vertical=True)

    found = fit(text, size, length, height * 0.86, overflow=overflow, smallest=smallest)
    if found is None or len(found.lines) * found.size * _LINE_PITCH > width * 0.5:
        return None
    # Columns run from right to left, at either side of the frame.
    right = width * float(rng.uniform(0.9, 0.95)) if rng.random() < 0.7 else width * 0.08 + len(found.lines) * size
    style = replace(style, slant=0.0)
    lines = []
    top = height * float(rng.uniform(0.05, 0.12))
    for i, line in enumerate(found.lines):
        middle = top + length(line, found.size) / 2
        lines.append(
            Line(line, font, found.size, style, right - found.size * (0.5 + i * _LINE_PITCH), middle, vertical=True)
        )
    return lines, found


def overlap(one: Box, other: Box) -> bool:
    """Say whether two boxes share a pixel."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
