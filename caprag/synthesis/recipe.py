"""What a run of the synthesiser is asked for: one value that decides every picture, and its JSON form.

Knows nothing of texts, fonts and backgrounds: these are given beside it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from caprag.errors import SynthesisError
from caprag.synthesis.phrases import SECOND_LANGUAGE
from caprag.synthesis.pictures import Kind, Role
from caprag.synthesis.styles import LOOKS, Look, Style

Overflow = Literal["wrap", "shrink", "skip"]
"""What becomes of a sentence wider than the frame: set in several lines, set smaller, or left out for another."""

Crop = Literal["frame", "band", "line"]
"""What is kept of a frame: all; the band of the caption, in full width; the caption's box with a margin."""

KINDS: Mapping[Kind, float] = {
    "line": 0.74, "two_lines": 0.05, "two_speakers": 0.04, "bilingual": 0.04, "top": 0.02, "left": 0.02,
    "vertical": 0.02, "meme_panel": 0.01, "meme_over": 0.01, "empty": 0.05,
}  # fmt: skip
"""How often each kind of picture is made."""

SCREEN_TEXT: Mapping[Role, float] = {"logo": 0.3, "sign": 0.08, "credits": 0.05, "clock": 0.05}
"""How often other text stands on the screen."""

# The originals' type sizes: pixels for a frame of so many lines.
_TYPE_SIZES = {360: (27, 36), 480: (35, 48), 720: (50, 70), 1080: (75, 100)}


@dataclass(frozen=True)
class Recipe:
    """How pictures are to look.

    Parameters
    ----------
    kinds, looks
        Weights, 0 or more, not all 0; see `Kind` and `Look`.
    house
        Values of a `Style` (not its look) that every caption has, whatever else is drawn, lengths for type of 60 px:
        one programme's own style.
    wide_marks
        Share of captions with full-width marks (，！？) and ellipses (…), as typesetters write them, 0 to 1; labels
        have the written form, in which they are narrow.
    screen_text
        Share of pictures with each other text on the screen, 0 to 1.
    type_size
        Smallest and largest type in pixels; ``None`` goes by the frame's height: 75 to 100 at 1080 lines, 50 to 70
        at 720, 35 to 48 at 480, 27 to 36 at 360, and in proportion between and beyond.
    lower_edge
        Where the lower edge of the last line's type stands: lowest and highest share of the frame's height.
    italic, coloured
        Share of captions that are slanted, and of those that are not white, 0 to 1.
    overflow
        See `Overflow`; what can't be wrapped is shrunk, what can't be shrunk is left out.
    crop
        See `Crop`.
    quality
        Lowest and highest JPEG or WebP quality that pictures are written with, 1 to 100.
    second_language
        What the second line of a bilingual caption says, one of these.

    Raises
    ------
    ValueError
        For a value out of its range.
    """

    kinds: Mapping[Kind, float] = field(default_factory=lambda: dict(KINDS))
    looks: Mapping[Look, float] = field(default_factory=lambda: dict(LOOKS))
    house: Mapping[str, Any] = field(default_factory=dict)
    wide_marks: float = 0.5
    screen_text: Mapping[Role, float] = field(default_factory=lambda: dict(SCREEN_TEXT))
    type_size: tuple[int, int] | None = None
    lower_edge: tuple[float, float] = (0.88, 0.965)
    italic: float = 0.04
    coloured: float = 0.14
    overflow: Overflow = "wrap"
    crop: Crop = "frame"
    quality: tuple[int, int] = (85, 95)
    second_language: tuple[str, ...] = SECOND_LANGUAGE

    def __post_init__(self) -> None:
        _check_shares("kinds", self.kinds, get_args(Kind), weights=True)
        _check_shares("looks", self.looks, get_args(Look), weights=True)
        _check_shares("screen_text", self.screen_text, ("logo", "sign", "credits", "clock"), weights=False)
        for name, order in (("kinds", get_args(Kind)), ("looks", get_args(Look)), ("screen_text", get_args(Role))):
            # In one order, since equal recipes are to draw equal pictures.
            given = getattr(self, name)
            object.__setattr__(self, name, {key: given[key] for key in order if key in given})
        for name in ("wide_marks", "italic", "coloured"):
            _check_shares(name, {name: getattr(self, name)}, (name,), weights=False)
        low, high = _check_pair("lower_edge", self.lower_edge)
        if not 0.2 <= low <= high <= 1:
            raise ValueError(f"lower_edge is {low}, {high}; wanted are two shares from 0.2 to 1, smaller first")
        _check_house(self.house)
        for name, kind in (("overflow", Overflow), ("crop", Crop)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}; known are {', '.join(get_args(kind))}")
        _check_range("quality", self.quality, 1, 100)
        if self.type_size is not None:
            _check_range("type_size", self.type_size, 6, 1000)
        phrases: Any = self.second_language
        if not isinstance(phrases, tuple) or not all(isinstance(phrase, str) for phrase in phrases):
            raise ValueError(f"second_language is {phrases!r}; wanted is a list of texts")
        if self.kinds.get("bilingual") and not self.second_language:
            raise ValueError("second_language is empty; bilingual captions need some lines, or a weight of 0")

    @property
    def empty(self) -> float:
        """The share of pictures without a caption."""
        return self.kinds.get("empty", 0.0) / sum(self.kinds.values())

    def type_sizes(self, width: int, height: int) -> tuple[int, int]:
        """Return the smallest and largest type for a frame, in pixels."""
        if self.type_size is not None:
            return self.type_size
        # A narrow frame is set as a wide one of its width would be.
        lines = min(height, width * 9 / 16)
        known = list(_TYPE_SIZES)
        low, high = zip(*_TYPE_SIZES.values(), strict=True)
        if lines <= known[0] or lines >= known[-1]:
            edge = 0 if lines <= known[0] else -1
            scale = lines / known[edge]
            return max(6, round(low[edge] * scale)), max(6, round(high[edge] * scale))
        return round(float(np.interp(lines, known, low))), round(float(np.interp(lines, known, high)))

    def as_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON takes it."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe from a JSON file; what it does not name stays as it is by default.

        Raises
        ------
        SynthesisError
            Where the file is not a recipe, naming what is wrong in it.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SynthesisError(f"{path}: can't be read ({error.strerror}); name a recipe in JSON") from error
        except ValueError as error:
            raise SynthesisError(f"{path}: is not JSON ({error}); caprag synth --show-recipe prints one") from error
        try:
            return cls.from_dict(values)
        except (TypeError, ValueError) as error:
            raise SynthesisError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, values: object) -> Recipe:
        """Make a recipe of what `as_dict` gave, or of some of it.

        Raises
        ------
        TypeError, ValueError
            For an unknown name or a value out of its range.
        """
        known = [item.name for item in dataclasses.fields(cls)]
        if not isinstance(values, Mapping) or not set(values) <= set(known):
            odd = ", ".join(sorted(set(values) - set(known))) if isinstance(values, Mapping) else repr(values)
            raise ValueError(f"a recipe has {', '.join(known)}; it has not {odd}")
        lists = ("type_size", "lower_edge", "quality", "second_language")
        if isinstance(values.get("house"), Mapping):
            colours = {k: tuple(v) if isinstance(v, list) else v for k, v in values["house"].items()}
            values = {**values, "house": colours}
        plain: dict[str, Any] = {k: tuple(v) if k in lists and isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _check_shares(name: str, shares: Any, known: tuple[str, ...], *, weights: bool) -> None:
    if not isinstance(shares, Mapping) or not set(shares) <= set(known):
        raise ValueError(f"{name} is {shares!r}; wanted are numbers for some of {', '.join(known)}")
    for key, share in shares.items():
        number = isinstance(share, (int, float)) and not isinstance(share, bool) and math.isfinite(share)
        if not number or share < 0 or (share > 1 and not weights):
            raise ValueError(f"{name}: {key} is {share!r}; wanted is a number from 0{'' if weights else ' to 1'}")
    if weights and not any(shares.values()):
        raise ValueError(f"{name} is {dict(shares)!r}; at least one must be above 0")


def _check_house(house: Any) -> None:
    known = [name for name in Style.__dataclass_fields__ if name != "look"]
    if not isinstance(house, Mapping) or not set(house) <= set(known):
        raise ValueError(f"house is {house!r}; wanted are values for some of {', '.join(known)}")
    for name, value in house.items():
        if name.endswith("colour"):
            levels = value if isinstance(value, tuple) else ()
            if len(levels) != 3 or not all(isinstance(level, int) and 0 <= level <= 255 for level in levels):
                raise ValueError(f"house: {name} is {value!r}; wanted are red, green and blue from 0 to 255")
        elif not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError(f"house: {name} is {value!r}; wanted is a number")
        elif name not in ("shadow_x", "shadow_y", "slant") and (value < 0 or ("opacity" in name and value > 1)):
            raise ValueError(
                f"house: {name} is {value!r}; wanted is a number from 0{' to 1' if 'opacity' in name else ''}"
            )


def _check_range(name: str, pair: Any, low: int, high: int) -> None:
    small, large = _check_pair(name, pair)
    if not (isinstance(small, int) and isinstance(large, int) and low <= small <= large <= high):
        raise ValueError(f"{name} is {list(pair)}; wanted are two whole numbers from {low} to {high}, smaller first")


def _check_pair(name: str, pair: Any) -> tuple[float, float]:
    numbers = isinstance(pair, tuple) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in pair
    )
    if not numbers or len(pair) != 2:
        raise ValueError(f"{name} is {pair!r}; wanted are two numbers")
    return pair[0], pair[1]
