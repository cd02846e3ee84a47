"""How captions look: what a style is made of, and how often television shows which.

Sizes grow with the type, so that a style is the same at every frame size. Knows nothing of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

Look = Literal["outline", "adaptive", "soft", "faint", "shadow", "box", "glow", "plain"]
"""``"outline"``: a hard dark edge; ``"adaptive"``: one of 1 to 3 px at 720 lines, thicker where the picture below is
brighter; ``"soft"``: a broad blurred edge, spaced wide, as on animation; ``"faint"``: a hair line, spaced wide, as on
drama; ``"shadow"``: fallen to the lower right; ``"box"``: a translucent box; ``"glow"``: a coloured halo;
``"plain"``: nothing."""

LOOKS: Mapping[Look, float] = {
    "outline": 0.3, "adaptive": 0.2, "soft": 0.22, "faint": 0.12, "shadow": 0.07, "box": 0.05, "glow": 0.03,
    "plain": 0.01,
}  # fmt: skip
"""How often each look is drawn."""

ADAPTED = ("adaptive", "plain", "shadow")
"""Looks whose outline goes by the picture below."""

BLACK: Colour = (0, 0, 0)
# Type in pixels, at 720 lines, that lengths are given for.
_TYPE = 60
_YELLOWS: tuple[Colour, ...] = ((255, 240, 80), (255, 225, 40), (250, 235, 130))
_TINTS: tuple[Colour, ...] = ((190, 255, 255), (190, 255, 190), (255, 200, 220), (200, 215, 255), (255, 210, 160))
_HALOES: tuple[Colour, ...] = ((0, 0, 0), (20, 40, 140), (140, 20, 40), (90, 20, 120), (10, 90, 50), (180, 80, 10))


@dataclass(frozen=True, slots=True)
class Style:
    """How one caption looks.

    Lengths are in pixels, opacities 0 to 1, colours 0 to 255, `slant` in degrees, `tracking` (extra space after each
    character) in em; `outline_width` is in quarters of a pixel.
    """

    look: Look = "plain"
    colour: Colour = (255, 255, 255)
    opacity: float = 1.0
    softness: float = 0.0
    outline_width: float = 0.0
    outline_colour: Colour = BLACK
    outline_blur: float = 0.0
    outline_opacity: float = 1.0
    shadow_x: float = 0.0
    shadow_y: float = 0.0
    shadow_blur: float = 0.0
    shadow_opacity: float = 0.0
    box_padding: int = 0
    box_colour: Colour = BLACK
    box_opacity: float = 0.0
    glow_radius: float = 0.0
    glow_colour: Colour = BLACK
    glow_opacity: float = 0.0
    slant: float = 0.0
    tracking: float = 0.0

    def scaled(self, factor: float) -> Style:
        """Return the style for type of another size."""
        lengths = ("softness", "outline_blur", "shadow_x", "shadow_y", "shadow_blur", "glow_radius")
        return replace(
            self,
            outline_width=round(self.outline_width * factor * 4) / 4,
            box_padding=round(self.box_padding * factor),
            **{name: getattr(self, name) * factor for name in lengths},
        )

    @property
    def reach(self) -> int:
        """How far beyond a line's mask the style changes the picture."""
        blurred = 3 * max(self.outline_blur, self.softness, self.glow_radius)
        shadow = max(abs(self.shadow_x), abs(self.shadow_y)) + 3 * self.shadow_blur if self.shadow_opacity else 0.0
        return math.ceil(max(blurred, shadow, self.box_padding))


def style_schema() -> pa.Schema:
    """Return the columns of a style in a manifest."""
    import pyarrow as pa

    colour = pa.list_(pa.int16())
    kinds = {"look": pa.string(), "box_padding": pa.int32()}
    names = Style.__dataclass_fields__
    return pa.schema([(name, kinds.get(name, colour if name.endswith("colour") else pa.float32())) for name in names])


def sample_style(
    rng: np.random.Generator,
    size: int,
    *,
    looks: Mapping[Look, float] = LOOKS,
    italic: float = 0.04,
    coloured: float = 0.14,
    house: Mapping[str, object] | None = None,
) -> Style:
    """Draw a style.

    Parameters
    ----------
    rng
        Source of chance.
    size
        Type size in pixels.
    looks
        Weight of each look.
    italic, coloured
        Share of captions that are slanted, and of those that are not white, 0 to 1.
    house
        Values of a `Style`, lengths for type of 60 px, that stand whatever was drawn: one programme's own style.
    """
    style = _sample(rng, size, looks, italic, coloured)
    if not house:
        return style
    fixed = replace(Style(), **house).scaled(size / _TYPE)  # type: ignore[arg-type]
    return replace(style, **{name: getattr(fixed, name) for name in house})


def _sample(rng: np.random.Generator, size: int, looks: Mapping[Look, float], italic: float, coloured: float) -> Style:
    names = list(looks)
    look = names[pick(rng, list(looks.values()))]
    # The originals' outlines are in pixels at 720 lines, where type is about 60 px.
    scale = size / _TYPE
    soft = float(rng.uniform(0.0, 0.8)) * scale
    slant = float(rng.uniform(8, 16)) if rng.random() < italic else 0.0
    colour = _colour(rng, coloured)
    # Wide spacing is as common as none.
    tracking = float(rng.uniform(0.0, 0.1)) if rng.random() < 0.5 else 0.0
    style = Style(look, colour=colour, softness=soft, slant=slant, tracking=tracking)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def width(low: float, high: float) -> float:
        # In steps, so that drawn glyphs can be used again.
        return round(between(low, high) * scale * 4) / 4

    if look == "outline":
        return replace(style, outline_width=width(1.5, 4.0), outline_colour=_dark(rng))
    if look == "soft":
        shadow = between(0.0, 0.6)
        return replace(
            style,
            outline_width=width(3.5, 7.0), outline_blur=between(0.6, 1.5) * scale, outline_opacity=between(0.9, 1.0),
            shadow_x=between(0, 2.5) * scale, shadow_y=between(0, 2.5) * scale, shadow_blur=between(0.8, 2.0) * scale,
            shadow_opacity=shadow if shadow > 0.3 else 0.0,
            tracking=between(0.02, 0.1),
        )  # fmt: skip
    if look == "faint":
        return replace(
            style,
            outline_width=width(1.2, 2.4), outline_blur=between(0.0, 0.6) * scale, outline_opacity=between(0.8, 1.0),
            opacity=between(0.95, 1.0), tracking=between(0.04, 0.16),
        )  # fmt: skip
    if look == "shadow":
        return replace(
            style,
            outline_width=width(0.0, 1.2),
            shadow_x=between(1.5, 4.0) * scale, shadow_y=between(1.5, 4.0) * scale,
            shadow_blur=between(0.8, 2.5) * scale, shadow_opacity=between(0.6, 1.0),
        )  # fmt: skip
    if look == "box":
        grey = int(rng.integers(0, 40))
        return replace(
            style,
            box_padding=round(between(4, 14) * scale), box_colour=(grey, grey, grey), box_opacity=between(0.45, 0.9),
        )  # fmt: skip
    if look == "glow":
        return replace(
            style,
            outline_width=width(1.0, 2.5), glow_radius=between(3, 7) * scale,
            glow_colour=_HALOES[int(rng.integers(len(_HALOES)))], glow_opacity=between(0.6, 1.0),
        )  # fmt: skip
    return style


def adapt(style: Style, size: int, brightness: float) -> Style:
    """Give a style of the adaptive look its outline, and one that would be lost on a bright picture enough of one.

    Parameters
    ----------
    style
        From `sample_style`.
    size
        Type size in pixels.
    brightness
        Mean brightness of the picture under the text, 0 to 1.
    """
    if style.look == "adaptive":
        step = 1.0 + (brightness > 0.35) + (brightness > 0.65)
    elif style.look in ADAPTED and brightness > 0.6 and min(style.colour) > 128:
        step = max(1.5, style.outline_width * _TYPE / size)
    else:
        return style
    return replace(style, outline_width=round(step * size / _TYPE * 4) / 4)


def pick(rng: np.random.Generator, weights: list[float]) -> int:
    """Draw a place in a list by weight."""
    point = rng.random() * sum(weights)
    for i, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return i
    # Rounding at the upper end.
    return max(i for i, weight in enumerate(weights) if weight > 0)


def _colour(rng: np.random.Generator, coloured: float) -> Colour:
    if rng.random() >= coloured:
        white = int(rng.integers(250, 256))
        return white, white, white
    chance = rng.random()
    if chance < 0.3:
        grey = int(rng.integers(215, 250))
        return grey, grey, grey
    shades = _YELLOWS if chance < 0.7 else _TINTS
    return shades[int(rng.integers(len(shades)))]


def _dark(rng: np.random.Generator) -> Colour:
    if rng.random() < 0.8:
        return BLACK
    red, green, blue = (int(rng.integers(0, 60)) for _ in range(3))
    return red, green, blue
