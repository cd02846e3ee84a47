"""Made-up scenes, where no pictures are given: light, blur, clouds, stripes, rooms and drawn landscapes.

They look like something without being anything; soft ones are painted small and made large.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from caprag.synthesis.pictures import Pixels

_Plane = npt.NDArray[Any]
_Size = tuple[int, int]
# Painted with a sixteenth of a pixel, so that edges have no steps.
_SHIFT = 4


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Pixels, str]:
    """Draw a scene.

    Parameters
    ----------
    rng
        Source of chance.
    size
        Width and height in pixels, each >= 1.

    Returns
    -------
    pixels : numpy.ndarray
        A picture to write into.
    kind : str
        One of `SCENES`.

    Examples
    --------
    >>> draw_scene(np.random.default_rng(0), (32, 18))[0].shape
    (18, 32, 3)
    """
    kind = tuple(SCENES)[int(rng.integers(len(SCENES)))]
    return SCENES[kind](rng, size), kind


def _colour(rng: np.random.Generator, dark: float = 0.1, bright: float = 0.95) -> tuple[int, int, int]:
    # Few things are of a pure colour.
    saturation = float(rng.beta(1.6, 2.4))
    red, green, blue = colorsys.hsv_to_rgb(float(rng.random()), saturation, float(rng.uniform(dark, bright)))
    return round(255 * red), round(255 * green), round(255 * blue)


def _small(size: _Size, step: int) -> _Size:
    return max(4, -(-size[0] // step)), max(4, -(-size[1] // step))


def _canvas(rng: np.random.Generator, size: _Size, **light: float) -> _Plane:
    """Give a picture of one colour."""
    return np.full((size[1], size[0], 3), _colour(rng, **light), np.uint8)


def _polygon(canvas: _Plane, points: object, colour: tuple[int, int, int]) -> None:
    """Fill a polygon; points are shares of width and height."""
    height, width = canvas.shape[:2]
    corners = np.rint(np.asarray(points) * (width << _SHIFT, height << _SHIFT)).astype(np.int32)
    cv2.fillPoly(canvas, [corners], colour, cv2.LINE_AA, _SHIFT)


def _light(rng: np.random.Generator, canvas: _Plane, share: float) -> _Plane:
    """Lay a soft change of colour over a picture."""
    height, width = canvas.shape[:2]
    return cv2.addWeighted(canvas, 1 - share, _gradient(rng, (width, height)), share, 0.0)


def _gradient(rng: np.random.Generator, size: _Size) -> _Plane:
    across, down = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    colours = np.array([[_colour(rng) for _ in range(across)] for _ in range(down)], np.uint8)
    # Linear from few points shows its corners, so the middle step is cubic.
    middle = cv2.resize(colours, _small(size, 8), interpolation=cv2.INTER_CUBIC)
    return cv2.resize(middle, size, interpolation=cv2.INTER_LINEAR)


def _bokeh(rng: np.random.Generator, size: _Size) -> _Plane:
    small = _small(size, 4)
    canvas = cv2.convertScaleAbs(_gradient(rng, small), alpha=float(rng.uniform(0.2, 0.6)))
    largest = float(rng.uniform(0.06, 0.16)) * small[1]
    for _ in range(int(rng.integers(8, 40))):
        spot = np.zeros_like(canvas)
        centre = int(rng.integers(small[0])), int(rng.integers(small[1]))
        cv2.circle(
            spot, centre, max(1, round(largest * rng.uniform(0.3, 1.0))), _colour(rng, 0.6, 1.0), -1, cv2.LINE_AA
        )
        canvas = cv2.addWeighted(canvas, 1.0, spot, float(rng.uniform(0.15, 0.6)), 0.0)
    canvas = cv2.GaussianBlur(canvas, (0, 0), max(0.5, 0.08 * largest))
    return cv2.resize(canvas, size, interpolation=cv2.INTER_LINEAR)


def _clouds(rng: np.random.Generator, size: _Size) -> _Plane:
    """Sum noise of twice the frequency and a share of the height, as 1/f noise is made."""
    small = _small(size, 3)
    total: _Plane = np.zeros((small[1], small[0]), np.float32)
    height, roughness, cells = 1.0, float(rng.uniform(0.45, 0.7)), int(rng.integers(2, 5))
    while cells < small[1]:
        noise = rng.random((cells + 1, cells * small[0] // small[1] + 1), dtype=np.float32)
        total = cv2.scaleAdd(cv2.resize(noise, small, interpolation=cv2.INTER_CUBIC), height, total)
        height, cells = height * roughness, cells * 2
    low, high = float(total.min()), float(total.max())
    levels = cv2.convertScaleAbs(total - low, alpha=255 / max(high - low, 1e-6))
    stops = np.array([[_colour(rng) for _ in range(int(rng.integers(2, 4)))]], np.uint8)
    palette = cv2.resize(stops, (256, 1), interpolation=cv2.INTER_LINEAR)
    coloured = cv2.LUT(cv2.cvtColor(levels, cv2.COLOR_GRAY2RGB), palette)
    return cv2.resize(coloured, size, interpolation=cv2.INTER_LINEAR)


def _stripes(rng: np.random.Generator, size: _Size) -> _Plane:
    small = _small(size, 2)
    canvas = _canvas(rng, small)
    lean, x = float(rng.uniform(-1.0, 1.0)), -1.0
    colours = [_colour(rng) for _ in range(int(rng.integers(1, 5)))]
    across, gap = (float(value) for value in rng.uniform(0.02, 0.15, 2))
    place = 0
    while x < 2.0:
        end = x + across * float(rng.uniform(0.7, 1.3))
        corners = np.array([(x, 0.0), (end, 0.0), (end + lean, 1.0), (x + lean, 1.0)])
        _polygon(canvas, corners, colours[place % len(colours)])
        x, place = end + gap, place + 1
    # As often they lie.
    if rng.random() < 0.4:
        canvas = cv2.resize(cv2.rotate(canvas, cv2.ROTATE_90_CLOCKWISE), small)
    return cv2.resize(_light(rng, canvas, float(rng.uniform(0.1, 0.6))), size)


def _room(rng: np.random.Generator, size: _Size) -> _Plane:
    """Look into a box: back wall, floor, ceiling, side walls, and things with straight edges."""
    canvas = _canvas(rng, _small(size, 2), dark=0.4)
    left, top = float(rng.uniform(0.05, 0.35)), float(rng.uniform(0.02, 0.25))
    right, bottom = float(rng.uniform(0.65, 0.95)), float(rng.uniform(0.6, 0.85))
    _polygon(canvas, [(0, 1), (left, bottom), (right, bottom), (1, 1)], _colour(rng, 0.15, 0.6))
    _polygon(canvas, [(0, 0), (left, top), (left, bottom), (0, 1)], _colour(rng, 0.3, 0.8))
    _polygon(canvas, [(1, 0), (right, top), (right, bottom), (1, 1)], _colour(rng, 0.3, 0.8))
    _polygon(canvas, [(0, 0), (left, top), (right, top), (1, 0)], _colour(rng, 0.6, 1.0))
    for _ in range(int(rng.integers(1, 6))):
        # Windows and pictures hang on the wall; what is lower stands on the floor.
        x, wide = float(rng.uniform(left, right)), float(rng.uniform(0.04, 0.25))
        hangs = rng.random() < 0.5
        y = float(rng.uniform(top, 0.5)) if hangs else float(rng.uniform(0.4, 0.8))
        end = y + float(rng.uniform(0.1, 0.3)) if hangs else float(rng.uniform(y + 0.05, 1.1))
        _polygon(canvas, [(x, y), (x + wide, y), (x + wide, end), (x, end)], _colour(rng, 0.1, 1.0))
    return cv2.resize(_light(rng, canvas, float(rng.uniform(0.15, 0.5))), size)


def _drawn(rng: np.random.Generator, size: _Size) -> _Plane:
    """Draw as animation does: a sky, hills of one colour each, and round shapes with a line around them."""
    canvas = _gradient(rng, size) if rng.random() < 0.6 else _canvas(rng, size)
    x = np.linspace(0.0, 1.0, 24)
    level = float(rng.uniform(0.3, 0.6))
    for _ in range(int(rng.integers(1, 4))):
        wave = float(rng.uniform(0.01, 0.12)) * np.sin(2 * math.pi * (float(rng.uniform(0.5, 3)) * x + rng.random()))
        edge = np.stack([x, level + wave], axis=1)
        _polygon(canvas, [*edge, (1.0, 1.0), (0.0, 1.0)], _colour(rng))
        level += float(rng.uniform(0.08, 0.25))
    thick = max(1, round(min(size) / 300))
    for _ in range(int(rng.integers(1, 7))):
        centre = int(rng.integers(size[0])), int(rng.integers(size[1]))
        axes = tuple(max(1, round(float(r) * min(size))) for r in rng.uniform(0.05, 0.35, 2))
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(canvas, centre, axes, turn, 0, 360, _colour(rng), -1, cv2.LINE_AA)
        cv2.ellipse(canvas, centre, axes, turn, 0, 360, _colour(rng, 0.0, 0.2), thick, cv2.LINE_AA)
    return canvas


SCENES: Mapping[str, Callable[[np.random.Generator, tuple[int, int]], Pixels]] = {
    "gradient": _gradient, "bokeh": _bokeh, "clouds": _clouds, "stripes": _stripes, "room": _room, "drawn": _drawn,
}  # fmt: skip
"""The kinds of scenes, all as likely."""
