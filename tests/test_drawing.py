from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn_fonts import save_font
from PIL import Image, ImageDraw

from caprag.synthesis import drawing
from caprag.synthesis.drawing import draw_line, ink_box, line_mask
from caprag.synthesis.fonts import Font, load_fonts
from caprag.synthesis.styles import LOOKS, Style, adapt, sample_style

TEXT = "你好嗎我很AB"


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Font:
    path = save_font(tmp_path_factory.mktemp("fonts") / "a.ttf", TEXT + "，（︵「﹁")
    return load_fonts([path]).fonts[0]


def test_a_line_is_what_pillow_draws_in_one_go(font: Font) -> None:
    mask = line_mask(font, 40, TEXT)
    image = Image.new("L", (400, 80))
    ImageDraw.Draw(image).text((20, 60), TEXT, fill=255, font=font.at(40), anchor="ls")
    left, top, right, bottom = ink_box(np.asarray(image))
    ours = ink_box(mask.fill)
    np.testing.assert_array_equal(
        mask.fill[ours[1] : ours[3], ours[0] : ours[2]], np.asarray(image)[top:bottom, left:right]
    )
    # The baseline is where the mask says.
    assert 60 + mask.top + ours[1] == top


def test_an_outline_reaches_as_far_as_asked(font: Font) -> None:
    plain, wide = line_mask(font, 40, "你"), line_mask(font, 40, "你", outline=4)
    one, other = ink_box(plain.fill), ink_box(wide.outline)
    assert other[2] - other[0] == one[2] - one[0] + 8
    assert other[3] - other[1] == one[3] - one[1] + 8
    assert (wide.outline >= wide.fill).all()
    assert (wide.fill.sum() == plain.fill.sum()).all()
    assert plain.outline is plain.fill


def test_tracking_spreads_the_characters(font: Font) -> None:
    narrow, wide = (ink_box(line_mask(font, 50, TEXT, tracking=t).fill) for t in (0.0, 0.2))
    assert (wide[2] - wide[0]) - (narrow[2] - narrow[0]) == pytest.approx(0.2 * 50 * (len(TEXT) - 1), abs=1)
    assert wide[3] - wide[1] == narrow[3] - narrow[1]


def test_white_space_moves_the_pen_and_draws_nothing(font: Font) -> None:
    apart, together = line_mask(font, 40, "你　好"), line_mask(font, 40, "你好")
    assert apart.size[0] == together.size[0] + 40
    assert apart.fill.astype(int).sum() == together.fill.astype(int).sum()
    with pytest.raises(ValueError, match="nothing to draw"):
        line_mask(font, 40, " 　")


def test_italics_lean_and_keep_their_foot(font: Font) -> None:
    upright, slanted = line_mask(font, 60, "你"), line_mask(font, 60, "你", slant=14)
    _, top, _, bottom = ink_box(upright.fill)
    lean = ink_box(slanted.fill)
    assert (lean[1], lean[3]) == (top, bottom)
    # Every glyph of the font has a straight left edge.
    rows = np.arange(top + 3, bottom - 3)
    edge = [int(np.flatnonzero(slanted.fill[row] > 127)[0]) for row in rows]
    assert np.polyfit(rows, edge, 1)[0] == pytest.approx(-np.tan(np.radians(14)), abs=0.02)


def test_a_vertical_line_runs_downwards(font: Font) -> None:
    mask = line_mask(font, 40, "你好嗎", vertical=True)
    box = ink_box(mask.fill)
    one = ink_box(line_mask(font, 40, "你").fill)
    assert box[2] - box[0] == one[2] - one[0]
    assert box[3] - box[1] == one[3] - one[1] + 80
    # A bracket takes its vertical form, of which the pattern differs.
    np.testing.assert_array_equal(line_mask(font, 40, "你「好", vertical=True).fill,
                                  line_mask(font, 40, "你﹁好", vertical=True).fill)  # fmt: skip


def test_marks_stand_in_the_middle_of_a_vertical_line(font: Font) -> None:
    with_mark, alone = (ink_box(line_mask(font, 40, text, vertical=True).fill) for text in ("你，好", "你好"))
    # No wider than the characters, and one square longer.
    assert with_mark[2] - with_mark[0] <= alone[2] - alone[0] + 4
    assert (with_mark[3] - with_mark[1]) - (alone[3] - alone[1]) == 40


def test_ink_is_blended_by_coverage_and_opacity(font: Font) -> None:
    mask = line_mask(font, 40, "你好", outline=3)
    grey = np.full((100, 200, 3), 100, np.uint8)
    pixels = grey.copy()
    box = draw_line(pixels, mask, 30, 20, Style(colour=(250, 200, 150), outline_width=3, outline_colour=(10, 20, 30)))
    expected = grey.astype(float)
    for ink, colour in ((mask.outline, (10, 20, 30)), (mask.fill, (250, 200, 150))):
        alpha = np.zeros((100, 200, 1))
        alpha[20 : 20 + ink.shape[0], 30 : 30 + ink.shape[1], 0] = ink / 255
        expected = expected * (1 - alpha) + np.array(colour) * alpha
    assert np.abs(pixels - expected).max() <= 0.51
    changed = np.abs(pixels.astype(int) - 100).max(axis=2) > 0
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    assert abs(box[0] - columns[0]) <= 1
    assert abs(box[1] - rows[0]) <= 1
    assert abs(box[2] - columns[-1] - 1) <= 1
    assert abs(box[3] - rows[-1] - 1) <= 1

    half = grey.copy()
    draw_line(half, mask, 30, 20, Style(colour=(250, 200, 150), opacity=0.5))
    full = grey.copy()
    draw_line(full, mask, 30, 20, Style(colour=(250, 200, 150)))
    assert np.abs((half.astype(float) - 100) * 2 - (full.astype(float) - 100)).max() <= 1.5


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_changes_beyond_a_styles_reach(font: Font, look: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        style = adapt(sample_style(rng, 40, looks={look: 1.0}), 40, 0.9)  # type: ignore[dict-item]
        mask = line_mask(font, 40, "你好", outline=style.outline_width, slant=style.slant)
        pixels = np.full((200, 260, 3), 77, np.uint8)
        draw_line(pixels, mask, 80, 70, style)
        pixels[
            70 - style.reach : 70 + mask.size[1] + style.reach, 80 - style.reach : 80 + mask.size[0] + style.reach
        ] = 77
        assert (pixels == 77).all()


def test_a_translucent_box_lies_behind_the_line(font: Font) -> None:
    mask = line_mask(font, 40, "你好")
    pixels = np.full((120, 200, 3), 200, np.uint8)
    draw_line(pixels, mask, 50, 40, Style(box_opacity=0.5, box_padding=10, box_colour=(0, 0, 0)))
    assert (pixels[31, 41] == 100).all()
    assert (pixels[29, 39] == 200).all()


def test_what_leaves_the_picture_is_cut_off(font: Font) -> None:
    mask = line_mask(font, 40, "你好")
    pixels = np.zeros((30, 50, 3), np.uint8)
    box = draw_line(pixels, mask, 20, 10, Style())
    assert 0 <= box[0] < box[2] <= 50
    assert 0 <= box[1] < box[3] <= 30
    assert pixels.any()
    with pytest.raises(ValueError, match="lies outside"):
        draw_line(pixels, mask, 500, 10, Style())


def test_styles_follow_the_weights_and_the_seed() -> None:
    rng = np.random.default_rng(3)
    styles = [sample_style(rng, 60) for _ in range(3000)]
    for look, weight in LOOKS.items():
        share = sum(style.look == look for style in styles) / 3000
        assert abs(share - weight) < 4 * (weight * (1 - weight) / 3000) ** 0.5
    again = np.random.default_rng(3)
    assert [sample_style(again, 60) for _ in range(3000)] == styles
    whites = [style.colour for style in styles if min(style.colour) >= 250]
    assert len(whites) / 3000 == pytest.approx(0.86, abs=0.03)
    assert all(max(c) - min(c) == 0 for c in whites)


@pytest.mark.parametrize(("brightness", "width"), [(0.1, 1.0), (0.5, 2.0), (0.9, 3.0)])
def test_the_adaptive_outline_grows_with_the_brightness(brightness: float, width: float) -> None:
    style = sample_style(np.random.default_rng(0), 60, looks={"adaptive": 1.0})
    assert style.outline_width == 0
    assert adapt(style, 60, brightness).outline_width == width
    other = replace(style, look="box")
    assert adapt(other, 60, brightness) is other
    # White on white would be no caption at all.
    plain = replace(style, look="plain", colour=(255, 255, 255))
    assert adapt(plain, 60, brightness).outline_width == (1.5 if brightness > 0.6 else 0)


def test_a_house_style_stands_whatever_is_drawn() -> None:
    rng = np.random.default_rng(0)
    house = {"outline_width": 6.0, "outline_blur": 1.2, "colour": (250, 250, 200), "slant": 0.0}
    styles = [sample_style(rng, 40, house=house) for _ in range(50)]
    assert {(s.outline_width, round(s.outline_blur, 6), s.colour, s.slant) for s in styles} == {
        (4.0, 0.8, (250, 250, 200), 0.0)
    }
    assert len({style.softness for style in styles}) == 50


def test_glyphs_that_are_kept_take_bounded_memory(font: Font, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = drawing._GlyphCache(50_000)
    monkeypatch.setattr(drawing, "_GLYPHS", cache)
    for size in range(20, 60):
        first = line_mask(font, size, TEXT, outline=2)
        np.testing.assert_array_equal(line_mask(font, size, TEXT, outline=2).outline, first.outline)
        assert cache.held <= 50_000
    assert 0 < len(cache._glyphs) < 40 * len(set(TEXT))
