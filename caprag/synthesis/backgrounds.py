"""What is behind a caption: pictures, moments of videos, or scenes made up.

Knows how a frame is cut out of a picture and lit; knows nothing of captions, nor what a picture shows.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from caprag.errors import FrameError
from caprag.synthesis.background_files import Decoded, Source, list_files, probe, read_picture, read_video
from caprag.synthesis.background_scenes import draw_scene
from caprag.synthesis.pictures import Box, Pixels

if TYPE_CHECKING:
    import pyarrow as pa

Fit = Literal["crop", "letterbox", "generated"]
"""Filled by a part of the source; the source between black bars; no source at all."""

# Videos are drawn at so many moments at most, so far apart at least: a frame decoded once can serve again.
_MOMENTS = 256
_SECONDS_APART = 1.0
# Shapes of a letterboxed picture beside the frame's: of 16:9 these are 4:3, 2:1 and 2.39:1.
_SHAPES = (0.75, 1.125, 1.344)

# Share of nights among the scenes whose light is changed.
_NIGHTS = 0.15

_Plane = npt.NDArray[Any]
_Key = tuple[int, int, "float | None"]


@dataclass(frozen=True, slots=True)
class BackgroundLabel:
    """Where a background is from and what was done to it.

    Attributes
    ----------
    file
        Path within the folder given, with ``/``, or the name of a file given by itself; empty where generated.
    seconds
        Moment of a video, by the clock of its file.
    fit
        See `Fit`.
    crop
        The part of the source that is seen, in its pixels, upright.
    flip
        Whether left and right changed places, after the cut.
    scene
        Kind of a generated scene.
    gain, gamma
        Factor and exponent that a level from 0 to 1 went through: ``gain * level ** gamma``.
    blur
        Standard deviation in pixels of the frame.
    """

    file: str = ""
    seconds: float | None = None
    fit: Fit = "generated"
    crop: Box | None = None
    flip: bool = False
    scene: str | None = None
    gain: float = 1.0
    gamma: float = 1.0
    blur: float = 0.0


def background_schema() -> pa.Schema:
    """Return the columns of a background in a manifest."""
    import pyarrow as pa

    kinds = {"flip": pa.bool_(), "crop": pa.list_(pa.int32()), **dict.fromkeys(("file", "fit", "scene"), pa.string())}
    return pa.schema([(name, kinds.get(name, pa.float64())) for name in BackgroundLabel.__dataclass_fields__])


@dataclass(frozen=True, slots=True)
class _Plan:
    """All chances of one background, drawn before a file is opened: a broken one moves no other choice.

    `zoom` is a factor; numbers beside it are chances, 0 to 1.
    """

    file: float
    moment: float
    letterbox: bool
    shape: float
    zoom: float
    left: float
    top: float
    flip: bool
    night: bool
    lit: bool
    gain: float
    gamma: float
    soft: bool
    blur: float


class Backgrounds:
    """A source of backgrounds.

    What is drawn depends on the files and the generator of chance alone: not on what was drawn before, nor on what is
    still in the cache.

    Parameters
    ----------
    paths
        Picture and video files, and folders, walked to the bottom in natural order; none for generated scenes. The
        suffix tells videos from pictures.
    on_error
        Called with the error of each file that can't be used; ``None`` raises it. A file whose header is sound and
        whose rest is not is found while drawing, told once, and the next one taken instead.
    letterbox
        Share of frames that show a picture whole between black bars, 0 to 1; the others are filled by a part of it.
    zoom
        Least and most that the largest part of the frame's shape is enlarged by, each >= 1; ``(1, 1)`` leaves the
        pixels of a picture of the frame's size as they are.
    light, soft, flip
        Shares of backgrounds whose light is changed (about one in seven of them into a night), that are out of focus,
        and in which left and right change places, 0 to 1.
    cache_bytes
        Decoded pictures kept, in bytes; 0 keeps none.

    Raises
    ------
    FrameError
        Where a path is missing, a folder holds neither pictures nor videos, or no file can be used; for each file that
        can't be, unless `on_error` takes it.
    TypeError
        Where `paths` is one path instead of a sequence of paths.
    ValueError
        Where `cache_bytes` is negative, a share is not from 0 to 1, or `zoom` is not two numbers >= 1, smaller first.

    Examples
    --------
    >>> pixels, label = Backgrounds().draw(np.random.default_rng(0), (64, 36))
    >>> pixels.shape, label.fit
    ((36, 64, 3), 'generated')
    """

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]] = (),
        *,
        on_error: Callable[[FrameError], None] | None = None,
        letterbox: float = 0.08,
        zoom: tuple[float, float] = (1.0, 1.5),
        light: float = 0.4,
        soft: float = 0.15,
        flip: float = 0.5,
        cache_bytes: int = 256 << 20,
    ) -> None:
        if isinstance(paths, (str, bytes, os.PathLike)):
            raise TypeError(f"paths must be a sequence of paths, got one path: {paths!r}; write [path]")
        if cache_bytes < 0:
            raise ValueError(f"cache_bytes must be >= 0, got {cache_bytes}")
        for name, share in (("letterbox", letterbox), ("light", light), ("soft", soft), ("flip", flip)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}; it goes from 0 to 1")
        if not 1 <= zoom[0] <= zoom[1] < math.inf:
            raise ValueError(f"zoom is {zoom}; wanted are two numbers of at least 1, smaller first")
        self.cache_bytes, self.letterbox, self.zoom = cache_bytes, letterbox, zoom
        self.light, self.soft, self.flip = light, soft, flip
        self.on_error = on_error
        self._cache: OrderedDict[_Key, Decoded] = OrderedDict()
        self._cached = 0
        self._undecodable: set[_Key] = set()
        self._told: set[int] = set()
        self._sources: list[Source] = []
        for path, name in list_files(paths):
            try:
                self._sources.append(probe(path, name))
            except FrameError as error:
                if on_error is None:
                    raise
                on_error(error)
        if paths and not self._sources:
            raise FrameError(f"{', '.join(map(str, paths))}: nothing can be used as a background; name other files")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files in use; empty where scenes are generated."""
        return tuple(source.path for source in self._sources)

    @property
    def names(self) -> tuple[str, ...]:
        """The files in use as labels name them."""
        return tuple(source.name for source in self._sources)

    def __getstate__(self) -> dict[str, object]:
        """Leave decoded pictures and `on_error` behind: another process has its own."""
        return {**self.__dict__, "_cache": OrderedDict(), "_cached": 0, "on_error": None}

    def draw(
        self, rng: np.random.Generator, size: tuple[int, int], view: Box | None = None
    ) -> tuple[Pixels, BackgroundLabel]:
        """Draw a background.

        Parameters
        ----------
        rng
            Source of chance.
        size
            Width and height in pixels, each >= 1.
        view
            The part of it that is wanted, within it; ``None`` for all. Drawn alone a part is faster, and its levels are
            those of the whole but for rounding and for what a blur takes in at its edges.

        Returns
        -------
        pixels : numpy.ndarray
            A picture to write into.
        label : BackgroundLabel
            What it is.

        Raises
        ------
        FrameError
            For a file that can't be decoded, unless `on_error` takes it; where none can be.
        ValueError
            Where the size is below 1, or the view is empty or leaves the frame.
        """
        if min(size) < 1:
            raise ValueError(f"size must be at least 1 x 1, got {size}")
        view = view or (0, 0, *size)
        if not (0 <= view[0] < view[2] <= size[0] and 0 <= view[1] < view[3] <= size[1]):
            raise ValueError(f"view must lie within {size[0]} x {size[1]}, got {view}")
        plan = self._plan(rng)
        if not self._sources:
            pixels, scene = draw_scene(rng, size)
            return _viewed(*_finish(pixels, size, plan, BackgroundLabel(scene=scene)), view)
        first = int(plan.file * len(self._sources))
        for step in range(len(self._sources)):
            index = (first + step) % len(self._sources)
            source = self._sources[index]
            shrink = _shrink(source.size, size)
            decoded = self._decode(index, shrink, _moment(source, plan.moment))
            if decoded is not None:
                label = BackgroundLabel(source.name, decoded.seconds)
                return _cut(decoded, plan, size, view, label)
        raise FrameError(f"{self._sources[first].path}: can't be decoded, nor any other file; name sound ones")

    def _plan(self, rng: np.random.Generator) -> _Plan:
        file, moment, fit, shape, zoom, left, top, flip, light, gain, gamma, soft, blur = rng.random(13).tolist()
        least, most = self.zoom
        return _Plan(
            file, moment, fit < self.letterbox, shape, least + (most - least) * zoom, left, top, flip < self.flip,
            light < _NIGHTS * self.light, light < self.light, gain, gamma, soft < self.soft, blur,
        )  # fmt: skip

    def _decode(self, index: int, shrink: int, moment: float | None) -> Decoded | None:
        """Return a picture, from the cache where it is there; ``None`` where it can't be decoded."""
        key = index, shrink, moment
        if key in self._undecodable:
            return None
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        source = self._sources[index]
        try:
            decoded = read_picture(source, shrink) if moment is None else read_video(source, shrink, moment)
        except FrameError as error:
            if self.on_error is None:
                raise
            self._undecodable.add(key)
            if index not in self._told:
                self._told.add(index)
                self.on_error(error)
            return None
        if decoded.pixels.nbytes > self.cache_bytes:
            return decoded
        self._cache[key] = decoded
        self._cached += decoded.pixels.nbytes
        while self._cached > self.cache_bytes:
            self._cached -= self._cache.popitem(last=False)[1].pixels.nbytes
        return decoded


def _moment(source: Source, chance: float) -> float | None:
    """Return the middle of one of the equal parts of a video, in seconds."""
    if source.seconds is None:
        return None
    parts = min(_MOMENTS, max(1, int(source.seconds / _SECONDS_APART)))
    return (int(chance * parts) + 0.5) / parts * source.seconds


def _shrink(source: tuple[int, int], size: tuple[int, int]) -> int:
    """Return the largest power of two up to 8 that leaves a picture at least as wide and high as the frame."""
    ratio = min(source[0] / size[0], source[1] / size[1])
    return next(power for power in (8, 4, 2, 1) if ratio >= power or power == 1)


def _viewed(pixels: Pixels, label: BackgroundLabel, view: Box) -> tuple[Pixels, BackgroundLabel]:
    left, top, right, bottom = view
    return np.ascontiguousarray(pixels[top:bottom, left:right]), label


def _cut(
    decoded: Decoded, plan: _Plan, size: tuple[int, int], view: Box, label: BackgroundLabel
) -> tuple[Pixels, BackgroundLabel]:
    """Cut a frame, or a part of it, out of a picture."""
    height, width = decoded.pixels.shape[:2]
    aspect, zoom, inner = size[0] / size[1], plan.zoom, size
    fit: Fit = "letterbox" if plan.letterbox and min(size) >= 8 else "crop"
    if fit == "letterbox":
        # As a film is shown: whole where its shape is another, else cut to one.
        own = width / height
        shape = own if abs(own / aspect - 1) > 0.05 else aspect * _SHAPES[int(plan.shape * len(_SHAPES))]
        inner = _within(size, shape)
        aspect, zoom = shape, 1.0
    # The largest part of that aspect ratio, or somewhat less.
    wide = max(1, round(min(width, height * aspect) / zoom))
    high = max(1, round(min(height, width / aspect) / zoom))
    left, top = int(plan.left * (width - wide + 1)), int(plan.top * (height - high + 1))
    part = decoded.pixels[top : top + high, left : left + wide]
    across, down = decoded.full[0] / width, decoded.full[1] / height
    crop = round(left * across), round(top * down), round((left + wide) * across), round((top + high) * down)
    # Linear interpolation skips pixels where a frame is much smaller than the part.
    method = cv2.INTER_AREA if wide > 2 * inner[0] else cv2.INTER_LINEAR
    label = replace(label, fit=fit, crop=crop)
    whole = view == (0, 0, *size)
    if inner == size and not whole and method == cv2.INTER_LINEAR:
        seen = _resize_part(part, size, _turned(view, size) if plan.flip else view)
        return _finish(seen, size, plan, label)
    pixels, label = _finish(cv2.resize(part, inner, interpolation=method), inner, plan, label)
    if inner != size:
        beside, above = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
        framed = np.zeros((size[1], size[0], 3), np.uint8)
        framed[above : above + inner[1], beside : beside + inner[0]] = pixels
        pixels = framed
    return (pixels, label) if whole else _viewed(pixels, label, view)


def _turned(view: Box, size: tuple[int, int]) -> Box:
    """Return where a view lies before left and right are changed."""
    return size[0] - view[2], view[1], size[0] - view[0], view[3]


def _resize_part(picture: _Plane, size: tuple[int, int], view: Box) -> _Plane:
    """Return a view of what a picture would be at a size, without making the rest of it."""
    across, down = picture.shape[1] / size[0], picture.shape[0] / size[1]
    # Pixels have their middles at halves.
    move = np.array(
        [[across, 0, (view[0] + 0.5) * across - 0.5], [0, down, (view[1] + 0.5) * down - 0.5]], dtype=np.float64
    )
    return cv2.warpAffine(
        picture, move, (view[2] - view[0], view[3] - view[1]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def _within(size: tuple[int, int], aspect: float) -> tuple[int, int]:
    """Return the largest size of an aspect ratio within another; the bars are equal."""
    width, height = size
    if aspect > width / height:
        return width, max(1, height - 2 * round((height - width / aspect) / 2))
    return max(1, width - 2 * round((width - height * aspect) / 2)), height


def _finish(
    pixels: _Plane, size: tuple[int, int], plan: _Plan, label: BackgroundLabel
) -> tuple[Pixels, BackgroundLabel]:
    """Turn a frame of a size, or a part of one, around, light it and put it out of focus, as chance has it."""
    gain, gamma, blur = 1.0, 1.0, 0.0
    if plan.night:
        gain, gamma = 0.15 + 0.3 * plan.gain, 1.0 + 0.4 * plan.gamma
    elif plan.lit:
        gain, gamma = 0.75 + 0.4 * plan.gain, 0.7 + 0.7 * plan.gamma
    if plan.soft:
        blur = (0.002 + 0.012 * plan.blur) * min(size)
        pixels = _soften(pixels, blur)
    if gain != 1.0 or gamma != 1.0:
        levels = gain * (np.arange(256) / 255) ** gamma * 255
        pixels = cv2.LUT(pixels, np.clip(np.rint(levels), 0, 255).astype(np.uint8))
    if plan.flip:
        pixels = cv2.flip(pixels, 1)
    return pixels, replace(label, flip=plan.flip, gain=gain, gamma=gamma, blur=blur)


def _soften(pixels: _Plane, blur: float) -> _Plane:
    """Blur on a smaller picture where that is as good: a small bell is drawn faster than a large one."""
    height, width = pixels.shape[:2]
    step = next((step for step in (4, 2) if blur >= 1.2 * step and min(width, height) >= 8 * step), 1)
    small = cv2.resize(pixels, (width // step, height // step), interpolation=cv2.INTER_AREA) if step > 1 else pixels
    small = cv2.GaussianBlur(small, (0, 0), max(0.1, blur / step))
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR) if step > 1 else small
