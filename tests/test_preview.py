"""The contact sheet: where pictures stand, which shape they keep, what labels can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from caprag.synthesis.pictures import Pixels
from caprag.synthesis.preview import contact_sheet

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int], width: int, height: int) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


def areas(sheet: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what has a colour; it fills that box."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert len(rows) == (right - left) * (bottom - top)
    return int(left), int(top), int(right - left), int(bottom - top)


def test_pictures_keep_their_shape_and_order() -> None:
    pictures: list[tuple[Any, str]] = [
        (plain(RED, 1280, 720), "red"), (Image.new("L", (90, 160), 200), ""), (plain(GREEN, 64, 36), ""),
        (Image.new("RGBA", (200, 10), (*BLUE, 255)), ""),
    ]  # fmt: skip
    sheet = contact_sheet(pictures, columns=3, width=1000)
    assert (sheet.mode, sheet.width) == ("RGB", 1000)
    red, green, blue, grey = (areas(sheet, colour) for colour in (RED, GREEN, BLUE, (200, 200, 200)))
    for box, shape in ((red, 16 / 9), (green, 16 / 9), (blue, 20), (grey, 9 / 16)):
        assert box[2] == red[2]
        assert box[3] == pytest.approx(box[2] / shape, abs=0.5)
    assert red[0] < grey[0] < green[0]
    assert red[1] == grey[1] == green[1]
    assert blue[0] == red[0]
    assert blue[1] > grey[1] + grey[3]


def test_labels_stand_below_and_are_cut() -> None:
    def inked(label: str, font: Any = None) -> np.ndarray[Any, Any]:
        return np.asarray(contact_sheet([(plain(RED, 160, 90), label)], columns=2, width=400, font=font))

    empty = inked("")
    assert (inked("a caption")[: 8 + 103] == empty[: 8 + 103]).all()
    changed = np.nonzero((inked("W" * 500) != empty).any(axis=2))
    assert changed[0].min() > 100
    assert changed[1].max() < 200
    assert (inked("two\nlines") == inked("two / lines")).all()
    # Pillow's own font has no Chinese: neither boxes nor an error.
    assert (inked("字a幕\t\x00\u200b😀") == inked("a")).all()
    assert (inked("字a幕", ImageFont.load_default_imagefont()) == inked("a", ImageFont.load_default_imagefont())).all()


def test_a_font_with_chinese_draws_it() -> None:
    fonts = sorted(p for p in Path("/usr/share/fonts").rglob("*.tt[fc]") if p.name.startswith(("NotoSansCJK", "wqy")))
    if not fonts:
        pytest.skip("no Chinese font is installed")
    font = ImageFont.truetype(str(fonts[0]), 16)
    sheets = [np.asarray(contact_sheet([(plain(RED, 160, 90), label)], font=font)) for label in ("", "字", "字幕")]
    assert (sheets[0] != sheets[1]).any()
    assert (sheets[1] != sheets[2]).any()


def test_a_band_is_cut_out() -> None:
    picture = plain(RED, 320, 180)
    picture[135:] = BLUE
    sheet = contact_sheet([(picture, "")], columns=1, width=336, band=(0.75, 1.0))
    assert areas(sheet, BLUE)[2:] == (320, 45)
    assert RED not in {colour for _, colour in sheet.getcolors(1 << 20) or ()}
    assert contact_sheet([(plain(RED, 3, 1), "")], columns=1, width=336, band=(0.99, 1.0)).size[0] == 336


def test_wrong_arguments() -> None:
    one: list[tuple[Any, str]] = [(plain(RED, 4, 4), "")]
    for options in ({"columns": 0}, {"width": 100}, {"band": (0.5, 0.5)}, {"band": (-1, 1)}):
        with pytest.raises(ValueError, match="wanted"):
            contact_sheet(one, **options)
    with pytest.raises(ValueError, match="no picture"):
        contact_sheet([])
