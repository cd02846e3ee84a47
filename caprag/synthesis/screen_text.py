"""Other text on the screen: logo, clock, credits, sign. A reader has to tell it from the caption.

Places it where the caption is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from caprag.synthesis.drawing import LineMask, draw_line, line_mask
from caprag.synthesis.fonts import Font, FontSet
from caprag.synthesis.layout import overlap
from caprag.synthesis.phrases import CREDITS, LOGOS, SIGNS
from caprag.synthesis.pictures import Box, Pixels, Role, TextLine
from caprag.synthesis.styles import Colour, Style

_PAINTS: tuple[tuple[Colour, Colour], ...] = (
    ((190, 40, 30), (250, 240, 225)), ((30, 70, 140), (240, 240, 245)), ((240, 235, 220), (40, 35, 30)),
    ((35, 110, 70), (245, 240, 220)), ((225, 180, 40), (50, 30, 20)), ((60, 60, 65), (230, 230, 225)),
)  # fmt: skip
_MARGIN = 8


def draw_screen_text(
    rng: np.random.Generator,
    pixels: Pixels,
    shares: Mapping[Role, float],
    fonts: FontSet,
    taken: Sequence[Box],
) -> tuple[TextLine, ...]:
    """Draw other text onto a picture, in place.

    Parameters
    ----------
    rng
        Source of chance.
    pixels
        The picture; changed.
    shares
        How likely each role is, 0 to 1.
    fonts
        What to draw with.
    taken
        Boxes that stay free.

    Returns
    -------
    tuple of TextLine
        What was drawn, and where.
    """
    drawers: Mapping[Role, Callable[..., tuple[str, Box] | None]] = {
        "sign": _sign, "credits": _credits, "logo": _logo, "clock": _clock,
    }  # fmt: skip
    drawn: list[TextLine] = []
    for role, draw in drawers.items():
        # A generator of its own, so that what one role draws does not move the others.
        inner = np.random.default_rng(rng.integers(1 << 63))
        if inner.random() < shares.get(role, 0.0):
            result = draw(inner, pixels, fonts, [*taken, *(line.box for line in drawn)])
            if result is not None:
                drawn.append(TextLine(*result, role))
    return tuple(drawn)


def _lines(pixels: Pixels) -> float:
    """Return what type goes by: the height, or in a narrow frame that of a wide one of its width."""
    height, width = pixels.shape[:2]
    return float(min(height, width * 9 / 16))


def _choose(rng: np.random.Generator, phrases: Sequence[str], fonts: FontSet) -> tuple[str, Font] | None:
    text = phrases[int(rng.integers(len(phrases)))]
    font = fonts.choose(rng, text)
    return None if font is None else (text, font)


def _is_free(box: Box, pixels: Pixels, taken: Sequence[Box]) -> bool:
    height, width = pixels.shape[:2]
    inside = box[0] >= 0 and box[1] >= 0 and box[2] <= width and box[3] <= height
    wide = (box[0] - _MARGIN, box[1] - _MARGIN, box[2] + _MARGIN, box[3] + _MARGIN)
    return inside and not any(overlap(wide, other) for other in taken)


def _put(pixels: Pixels, mask: LineMask, left: int, top: int, style: Style, taken: Sequence[Box]) -> Box | None:
    width, height = mask.size
    if not _is_free((left, top, left + width, top + height), pixels, taken):
        return None
    return draw_line(pixels, mask, left, top, style)


def _logo(rng: np.random.Generator, pixels: Pixels, fonts: FontSet, taken: Sequence[Box]) -> tuple[str, Box] | None:
    chosen = _choose(rng, LOGOS, fonts)
    if chosen is None:
        return None
    height, width = pixels.shape[:2]
    size = max(8, round(_lines(pixels) * float(rng.uniform(0.028, 0.05))))
    mask = line_mask(chosen[1], size, chosen[0], slant=12.0 if rng.random() < 0.3 else 0.0, tracking=0.03)
    left = round(width * 0.04) if rng.random() < 0.5 else round(width * 0.96) - mask.size[0]
    style = Style(
        opacity=float(rng.uniform(0.45, 0.95)), shadow_x=1, shadow_y=1, shadow_blur=1.0,
        shadow_opacity=0.5 if rng.random() < 0.5 else 0.0, colour=(245, 245, 245),
    )  # fmt: skip
    box = _put(pixels, mask, left, round(height * float(rng.uniform(0.04, 0.08))), style, taken)
    return None if box is None else (chosen[0], box)


def _clock(rng: np.random.Generator, pixels: Pixels, fonts: FontSet, taken: Sequence[Box]) -> tuple[str, Box] | None:
    hour, minute, second = int(rng.integers(24)), int(rng.integers(60)), int(rng.integers(60))
    text = f"{hour:02}:{minute:02}" if rng.random() < 0.6 else f"{hour:02}:{minute:02}:{second:02}"
    font = fonts.choose(rng, text)
    if font is None:
        return None
    height, width = pixels.shape[:2]
    mask = line_mask(font, max(8, round(_lines(pixels) * float(rng.uniform(0.03, 0.05)))), text)
    left = round(width * 0.05) if rng.random() < 0.5 else round(width * 0.95) - mask.size[0]
    top = round(height * (0.06 if rng.random() < 0.7 else 0.72))
    style = Style(colour=(250, 250, 250), box_opacity=0.6 if rng.random() < 0.5 else 0.0, box_padding=4, opacity=0.9)
    box = _put(pixels, mask, left, top, style, taken)
    return None if box is None else (text, box)


def _credits(rng: np.random.Generator, pixels: Pixels, fonts: FontSet, taken: Sequence[Box]) -> tuple[str, Box] | None:
    count = int(rng.integers(1, 4))
    texts = [CREDITS[int(i)] for i in rng.permutation(len(CREDITS))[:count]]
    font = fonts.choose(rng, "".join(texts))
    if font is None:
        return None
    height, width = pixels.shape[:2]
    size = max(8, round(_lines(pixels) * float(rng.uniform(0.03, 0.045))))
    masks = [line_mask(font, size, text, outline=1.0, tracking=0.05) for text in texts]
    broad = max(mask.size[0] for mask in masks)
    left = round(width * 0.07) if rng.random() < 0.5 else round(width * 0.93) - broad
    top = round(height * float(rng.uniform(0.15, 0.6)))
    style = Style(colour=(240, 240, 240), outline_width=1.0, outline_opacity=0.6, opacity=0.95)
    pitch = round(size * 1.5)
    whole = (left, top, left + broad, top + pitch * count)
    if not _is_free(whole, pixels, taken):
        return None
    boxes = [draw_line(pixels, mask, left, top + i * pitch, style) for i, mask in enumerate(masks)]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return "\n".join(texts), (min(lefts), min(tops), max(rights), max(bottoms))


def _sign(rng: np.random.Generator, pixels: Pixels, fonts: FontSet, taken: Sequence[Box]) -> tuple[str, Box] | None:
    import cv2

    chosen = _choose(rng, SIGNS, fonts)
    if chosen is None:
        return None
    height, width = pixels.shape[:2]
    text, font = chosen
    size = max(8, round(_lines(pixels) * float(rng.uniform(0.03, 0.07))))
    mask = line_mask(font, size, text, vertical=rng.random() < 0.3, tracking=0.1)
    ground, paint = _PAINTS[int(rng.integers(len(_PAINTS)))]
    pad = round(size * 0.4)
    board = np.full((mask.size[1] + 2 * pad, mask.size[0] + 2 * pad, 3), ground, np.uint8)
    draw_line(board, mask, pad, pad, Style(colour=paint))
    # Seen from the side, in the light of the scene, and not quite in focus.
    rows, columns = board.shape[:2]
    corners = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], np.float32)
    reach = np.array([size * 2, size], np.float32)
    shifted = corners + np.asarray(rng.uniform(-0.12, 0.12, (4, 2)), np.float32) * reach
    moved = (shifted - shifted.min(axis=0)).astype(np.float32)
    extent = np.ceil(moved.max(axis=0)).astype(int)
    view = cv2.getPerspectiveTransform(corners, moved)
    seen = cv2.warpPerspective(board, view, (int(extent[0]), int(extent[1])), flags=cv2.INTER_AREA)
    cover = cv2.warpPerspective(np.full((rows, columns), 255, np.uint8), view, (int(extent[0]), int(extent[1])))
    if extent[0] >= width or extent[1] >= height * 0.6:
        return None
    left = int(rng.integers(0, width - extent[0]))
    top = int(rng.integers(round(height * 0.12), max(round(height * 0.12) + 1, round(height * 0.72) - int(extent[1]))))
    box = (left, top, left + int(extent[0]), top + int(extent[1]))
    if not _is_free(box, pixels, taken):
        return None
    blur = float(rng.uniform(0.4, 1.6)) * size / 40
    light = float(rng.uniform(0.55, 1.0))
    lit = np.asarray(cv2.GaussianBlur(seen, (0, 0), blur), np.float32) * light
    alpha = np.asarray(cv2.GaussianBlur(cover, (0, 0), blur), np.float32)[:, :, None] / 255
    part = pixels[box[1] : box[3], box[0] : box[2]]
    part[:] = np.clip(part * (1 - alpha) + lit * alpha + 0.5, 0, 255).astype(np.uint8)
    return text, box
