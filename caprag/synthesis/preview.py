"""A sheet of small pictures with their captions below, to look a data set over.

Knows nothing of how pictures are made; the font for the captions is given to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from PIL import Image, ImageDraw, ImageFont

from caprag.synthesis.pictures import Pixels

Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

_GAP = 8
_PAPER, _INK = (32, 32, 32), (235, 235, 235)
# Pillow asks a font for a glyph even where it has none: no font has this one.
_NO_CHARACTER = "\U0010ffff"


def contact_sheet(
    pictures: Iterable[tuple[Pixels | Image.Image, str]],
    *,
    columns: int = 4,
    width: int = 1600,
    font: Font | None = None,
    band: tuple[float, float] | None = None,
) -> Image.Image:
    """Draw pictures in rows, each with its label below. The same pictures give the same sheet.

    Parameters
    ----------
    pictures
        Each with its label; line breaks in a label are drawn as a stroke, what is too long is cut.
    columns
        Pictures in a row, >= 1.
    width
        Of the sheet, in pixels; at least 32 a column.
    font
        For the labels; ``None`` is Pillow's own, which knows Latin alone. Characters that it lacks are left out.
    band
        Part of each picture that is shown: upper and lower edge as parts of its height, 0 to 1.

    Returns
    -------
    PIL.Image.Image
        RGB; pictures keep their shape.

    Raises
    ------
    ValueError
        For no picture at all, or an argument out of its range.
    """
    if columns < 1 or width < 32 * columns:
        raise ValueError(f"columns is {columns} and width {width}; at least 1, and 32 pixels a column are wanted")
    if band is not None and not 0 <= band[0] < band[1] <= 1:
        raise ValueError(f"band is {band}; two numbers from 0 to 1 are wanted, the smaller first")
    face = ImageFont.load_default(14) if font is None else font
    cell = (width - _GAP) // columns - _GAP
    cells = [(_fitted(picture, cell, band), _label(label, face, cell)) for picture, label in pictures]
    if not cells:
        raise ValueError("there is no picture to show")
    line = int(max(face.getbbox(label)[3] for label in ["Ágj", *(label for _, label in cells)])) + _GAP // 2
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(picture.height for picture, _ in row) + line for row in rows]
    sheet = Image.new("RGB", (width, sum(heights) + _GAP * (len(rows) + 1)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for place, (picture, label) in enumerate(row):
            left = _GAP + place * (cell + _GAP)
            sheet.paste(picture, (left, top))
            draw.text((left, top + picture.height), label, font=face, fill=_INK)
        top += height + _GAP
    return sheet


def _fitted(picture: Pixels | Image.Image, width: int, band: tuple[float, float] | None) -> Image.Image:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    upper, lower = (0, image.height) if band is None else (round(part * image.height) for part in band)
    upper = min(upper, image.height - 1)
    cut = image.convert("RGB").crop((0, upper, image.width, max(lower, upper + 1)))
    size = (width, max(1, round(cut.height * width / cut.width)))
    return cut.resize(size, Image.Resampling.LANCZOS)


def _label(text: str, font: Font, width: int) -> str:
    """Keep what the font has, as much of it as fits."""
    drawn = "".join(character for character in text.replace("\n", " / ") if _has(font, character))
    while drawn and font.getlength(drawn) > width:
        drawn = drawn[:-1]
    return drawn


def _has(font: Font, character: str) -> bool:
    if character == " ":
        return True
    try:
        glyph, missing = font.getmask(character), font.getmask(_NO_CHARACTER)
    except UnicodeEncodeError:
        # Pillow's fonts of bitmaps have Latin alone.
        return False
    return bool(glyph.size != missing.size or bytes(glyph) != bytes(missing)) and character.isprintable()
