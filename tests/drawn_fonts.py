"""Small fonts made on the spot: real TrueType files whose glyphs are patterns of squares, one pattern a character."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib.tables._g_l_y_f import Glyph

_GRID = 6
_CELL = 140
# Below, characters are half as wide.
_NARROW = 0x2000


def _pattern(code: int) -> Glyph:
    # A frame on two sides, so that every glyph has the same extent; the bits of the code within.
    pen = TTGlyphPen(None)
    for row in range(_GRID):
        for column in range(_GRID):
            inner = (code >> ((row - 1) * (_GRID - 1) + column - 1) % 20) & 1
            if row == 0 or column == 0 or (inner and row < _GRID and column < _GRID):
                width = _CELL // 2 if code < _NARROW else _CELL
                x, y = 40 + column * width, -40 + row * _CELL
                pen.moveTo((x, y))
                pen.lineTo((x, y + _CELL))
                pen.lineTo((x + width, y + _CELL))
                pen.lineTo((x + width, y))
                pen.closePath()
    return pen.glyph()


def save_font(path: Path, characters: Iterable[str], *, empty: str = "", name: str = "Squares") -> Path:
    """Write a font that has `characters`; those in `empty` are mapped to a glyph without a shape."""
    codes = sorted({ord(c) for c in characters} | {ord(c) for c in empty} | {0x20, 0x3000})
    names = {code: f"u{code:05X}" for code in codes}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    hollow = {ord(c) for c in empty} | {0x20, 0x3000}
    nothing = TTGlyphPen(None).glyph()
    builder.setupGlyf(
        {".notdef": _pattern(0), **{n: nothing if code in hollow else _pattern(code) for code, n in names.items()}}
    )
    builder.setupHorizontalMetrics(
        {".notdef": (1000, 40), **{n: (500 if code < _NARROW else 1000, 40) for code, n in names.items()}}
    )
    builder.setupHorizontalHeader(ascent=880, descent=-120)
    builder.setupNameTable({"familyName": name, "styleName": "Regular", "fullName": name})
    builder.setupOS2(sTypoAscender=880, sTypoDescender=-120, usWinAscent=880, usWinDescent=120)
    builder.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)
    return path
