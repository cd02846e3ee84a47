"""What happens to a frame between the editing room and the screenshot.

The order is that of a real chain, and each part may be absent:

1. the studio: the caption half faded in, the scene faded towards black;
2. the raster: the frame made smaller, its edges softened (filter, focus or motion);
3. the signal: fewer samples of colour than of brightness, displaced and rounded; noise or grain; two fields;
4. the encoder: real H.264, where a fresh caption is a residual on the frame before it;
5. the screen: the frame made large again, and the screenshot saved as JPEG.

Knows nothing of texts and where they stand.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from caprag.synthesis.pictures import Pixels

if TYPE_CHECKING:
    import pyarrow as pa

STRENGTHS: Mapping[str, float] = {"none": 0.0, "light": 0.3, "medium": 0.78, "severe": 1.0}
"""Named strengths for `sample_damage`."""

Blur = Literal["gaussian", "defocus", "motion"]
"""A filter's bell, a lens's disk, a movement's line."""

Fields = Literal["moved", "appearing", "bob"]
"""What every other line of an interlaced frame shows: the picture moved on, the one before, or the line above again."""

Interpolation = Literal["nearest", "linear", "cubic", "area"]
"""How a frame is resized."""

Chroma = Literal["4:2:0", "4:1:1"]
"""Colour samples: one for 2 x 2 pixels, or for 4 x 1."""

Preset = Literal["ultrafast", "superfast", "veryfast", "fast"]
"""How much trouble x264 takes."""

_METHODS = {name: getattr(cv2, f"INTER_{name.upper()}") for name in get_args(Interpolation)}
_Plane = npt.NDArray[Any]
# Standard deviation of the noise tile in its own steps: int8 holds 4 of them.
_NOISE_SPREAD = 32


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to one frame; ``None`` (and ``False``) means not at all.

    Lengths are in pixels of a frame of 720 lines, and grow with the frame.

    Attributes
    ----------
    strength
        What was asked for, 0 to 1; decides nothing by itself.
    caption_opacity, brightness
        How far the caption has faded in, the rest being the frame before it; what a fade towards black has left of
        every level; both 0 to 1.
    scale
        Width and height of the raster as a share of the frame's, above 0 to 1.
    shrink, enlarge
        How the frame was brought to the raster and back.
    blur, blur_size, blur_angle
        Kind; standard deviation of the bell, radius of the disk or length of the line; direction of the line, degrees.
    chroma, chroma_shift
        Colour samples; how far colour lies to the right of the brightness.
    noise, noise_size, noise_colour
        Standard deviation in levels (of 255); width of a grain in pixels of the raster; whether colours are hit apart.
    fields, field_shift
        Kind of interlacing; how far the picture moved on between two fields, to the right.
    h264_crf, h264_preset, h264_frames
        Constant rate factor (0 lossless to 51 worst); preset; frames encoded: 1 for the caption's alone, 2 for the one
        before and the caption's, 3 with the caption's sent twice.
    jpeg_quality
        Pillow's scale, 1 to 95; with 4:2:0 colour.
    """

    strength: float = 0.0
    caption_opacity: float | None = None
    brightness: float | None = None
    scale: float | None = None
    shrink: Interpolation | None = None
    enlarge: Interpolation | None = None
    blur: Blur | None = None
    blur_size: float | None = None
    blur_angle: float | None = None
    chroma: Chroma | None = None
    chroma_shift: float | None = None
    noise: float | None = None
    noise_size: float | None = None
    noise_colour: bool = False
    fields: Fields | None = None
    field_shift: float | None = None
    h264_crf: int | None = None
    h264_preset: Preset | None = None
    h264_frames: int | None = None
    jpeg_quality: int | None = None


def damage_schema() -> pa.Schema:
    """Return the columns of a damage in a manifest."""
    import pyarrow as pa

    kinds = {"noise_colour": pa.bool_()}
    kinds |= dict.fromkeys(("shrink", "enlarge", "blur", "chroma", "fields", "h264_preset"), pa.string())
    kinds |= dict.fromkeys(("h264_crf", "h264_frames", "jpeg_quality"), pa.int32())
    return pa.schema([(name, kinds.get(name, pa.float64())) for name in Damage.__dataclass_fields__])


def sample_damage(rng: np.random.Generator, strength: float) -> Damage:
    """Draw a damage.

    More strength makes each part likelier and worse, but fades leave some contrast, and the encoder is the milder the
    less they left. The ranges were set by eye, and by what RapidOCR gets wrong of white captions with black edges:
    hardly a character at "light", not a tenth at "medium", a third at "severe".

    Parameters
    ----------
    rng
        Source of chance.
    strength
        0 for none to 1 for the worst that a person still reads mostly; see `STRENGTHS`.

    Raises
    ------
    ValueError
        Where the strength is not from 0 to 1.

    Examples
    --------
    >>> sample_damage(np.random.default_rng(0), 0.0) == Damage()
    True
    """
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"strength is {strength!r}; wanted is a number from 0 to 1")
    if (s := strength) == 0.0:
        return Damage()

    def happens(weakest: float, worst: float) -> bool:
        return rng.random() < weakest + s * (worst - weakest)

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def one_of(kind: object, weights: tuple[float, ...]) -> str:
        return str(rng.choice(get_args(kind), p=weights))

    parts: dict[str, object] = {"strength": float(s)}
    contrast, least = 1.0, 1.0 - 0.6 * s
    if happens(0.0, 0.15):
        contrast = parts["caption_opacity"] = between(least, 1.0 - 0.45 * s)
    if happens(0.0, 0.15):
        brightness = parts["brightness"] = max(between(least, 1.0 - 0.3 * s), least / contrast)
        contrast *= brightness
    scale, blur = 1.0, None
    if happens(0.2, 0.95):
        scale = parts["scale"] = 1.0 / between(1.0 + 1.1 * s, 1.0 + 5.4 * s)
        parts["shrink"] = one_of(Interpolation, (0.25 * s, 0.25, 0.2, 0.55 - 0.25 * s))
        parts["enlarge"] = one_of(Interpolation, (0.1 * s, 0.45, 0.55 - 0.1 * s, 0.0))
    if happens(0.1, 0.9):
        parts["blur"] = blur = one_of(Blur, (0.5, 0.25, 0.25))
        reach = {"gaussian": 3.6, "defocus": 5.5, "motion": 13.0}[blur] * (0.6 + 0.4 * scale)
        parts["blur_size"] = between(0.5, 1.0) * reach * s
        if blur == "motion":
            # Things on the screen move sideways more than up and down.
            parts["blur_angle"] = between(-25.0, 25.0) if rng.random() < 0.7 else between(-90.0, 90.0)
    if happens(0.3, 0.6):
        parts["chroma"] = one_of(Chroma, (0.7, 0.3))
        if rng.random() < 0.4:
            parts["chroma_shift"] = between(-6.0, 6.0) * s
    if happens(0.1, 0.6):
        parts["noise"] = between(5.0, 22.0) * s
        parts["noise_size"] = 1.0 if rng.random() < 0.5 else between(1.2, 2.5)
        parts["noise_colour"] = bool(rng.random() < 0.3)
    # A raster of few lines was never sent in fields.
    if scale > 0.4 and happens(0.0, 0.3):
        parts["fields"] = kind = one_of(Fields, (0.45, 0.2, 0.35))
        if kind == "moved":
            parts["field_shift"] = between(2.0, 12.0) * s * float(rng.choice((-1, 1)))
    if happens(0.1, 0.85):
        # Small rasters have more bits to the pixel; of a faded or blurred caption coarse steps would leave nothing.
        crf = between(22.0 + 12.0 * s, 26.0 + 17.0 * s) - 1.35 * (1.0 / scale - 1.0)
        parts["h264_crf"] = round(crf + 8.0 * math.log2(contrast) - {None: 0, "motion": 4}.get(blur, 2))
        parts["h264_preset"] = one_of(Preset, (0.15, 0.15, 0.5, 0.2))
        parts["h264_frames"] = int(rng.choice((1, 2, 3), p=(0.25, 0.45, 0.3)))
    if happens(0.4, 0.8):
        parts["jpeg_quality"] = round(between(92.0 - 78.0 * s, 95.0 - 45.0 * s))
    return Damage(**parts)  # type: ignore[arg-type]


def apply_damage(pixels: Pixels, damage: Damage, rng: np.random.Generator, before: Pixels | None = None) -> Pixels:
    """Damage a frame.

    Parameters
    ----------
    pixels
        The frame, with its caption.
    damage
        What to do.
    rng
        Source of chance, for the noise.
    before
        The same frame before the caption appeared; ``None`` means that the caption has been standing all the time.

    Returns
    -------
    numpy.ndarray
        A new frame of the same size.

    Raises
    ------
    ValueError
        Where a frame is not uint8 of shape (height, width, 3), or `before` is of another size.

    Examples
    --------
    >>> frame = np.full((4, 6, 3), 200, np.uint8)
    >>> int(apply_damage(frame, Damage(brightness=0.5), np.random.default_rng(0)).max())
    100
    """
    before = pixels if before is None else before
    for name, frame in (("pixels", pixels), ("before", before)):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
            raise ValueError(f"{name} is {frame.dtype} of shape {frame.shape}; wanted is uint8 of (height, width, 3)")
    if before.shape != pixels.shape:
        raise ValueError(f"before has the shape {before.shape}, pixels {pixels.shape}; both must be the same frame")
    shown: _Plane = pixels
    if damage.caption_opacity is not None:
        shown = cv2.addWeighted(pixels, damage.caption_opacity, before, 1.0 - damage.caption_opacity, 0.0)
    count = (damage.h264_frames or 1) if damage.h264_crf is not None else 1
    needed = count > 1 or damage.fields == "appearing"
    frames = [_send(frame, damage, rng) for frame in ([before, shown] if needed else [shown])]
    if damage.fields is not None:
        frames = [_interlace(frame, frames[0], damage) for frame in frames]
    sent = frames[-1]
    if damage.h264_crf is not None:
        sent = _encode([frames[0], sent, sent][:count] if count > 1 else [sent], damage)
    if sent.shape != pixels.shape:
        sent = cv2.resize(sent, pixels.shape[1::-1], interpolation=_METHODS[damage.enlarge or "linear"])
    if damage.jpeg_quality is not None:
        file = io.BytesIO()
        Image.fromarray(sent).save(file, "JPEG", quality=damage.jpeg_quality, subsampling="4:2:0")
        sent = np.array(Image.open(file))
    return np.array(sent) if sent is pixels else np.ascontiguousarray(sent)


def _send(frame: _Plane, damage: Damage, rng: np.random.Generator) -> _Plane:
    """Do all that is done to one frame by itself, until its fields are woven."""
    height, width = frame.shape[:2]
    if damage.brightness is not None:
        frame = cv2.convertScaleAbs(frame, alpha=damage.brightness)
    if damage.scale is not None:
        # A few pixels are left of the smallest frame.
        size = max(2, round(width * damage.scale)), max(2, round(height * damage.scale))
        frame = cv2.resize(frame, size, interpolation=_METHODS[damage.shrink or "area"])
    if damage.blur is not None:
        frame = _blur(frame, damage.blur, (damage.blur_size or 0.0) * _pixel(frame), damage.blur_angle or 0.0)
    if damage.chroma is not None:
        frame = _subsample(frame, damage.chroma, round((damage.chroma_shift or 0.0) * _pixel(frame)))
    if damage.noise is not None:
        frame = _add_noise(frame, damage, rng)
    return frame


def _pixel(frame: _Plane) -> float:
    """Return the length of a pixel of a frame of 720 lines, in this frame; a narrow one goes by its width."""
    height, width = frame.shape[:2]
    return float(min(height, width * 9 / 16)) / 720


def _blur(frame: _Plane, kind: Blur, size: float, angle: float) -> _Plane:
    if size < 0.2:
        return frame
    if kind == "gaussian":
        return cv2.GaussianBlur(frame, (0, 0), size)
    reach = math.ceil(0.5 + (size if kind == "defocus" else size / 2))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    # How far the middle of each pixel lies outside the disk or line; what is within counts in full.
    outside = np.hypot(x, y) - size
    if kind == "motion":
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        along, across = x * cosine + y * sine, y * cosine - x * sine
        outside = np.maximum(np.abs(along) - size / 2, np.abs(across) - 0.5)
    kernel = np.clip(0.5 - outside, 0.0, 1.0)
    blurred: _Plane = cv2.filter2D(frame, -1, kernel / kernel.sum())
    return blurred


def _subsample(frame: _Plane, chroma: Chroma, shift: int) -> _Plane:
    """Keep fewer samples of colour, and as many levels as ITU-R BT.601 has."""
    height, width = frame.shape[:2]
    across, down = {"4:2:0": (2, 2), "4:1:1": (4, 1)}[chroma]
    few = math.ceil(width / across), math.ceil(height / down)
    luma, *colours = cv2.split(cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb))
    planes: list[_Plane] = [cv2.LUT(luma, _limited(219))]
    for colour in colours:
        samples = cv2.LUT(cv2.resize(colour, few, interpolation=cv2.INTER_AREA), _limited(224))
        planes.append(_move(cv2.resize(samples, (width, height)), shift))
    return cv2.cvtColor(cv2.merge(planes), cv2.COLOR_YCrCb2RGB)


@functools.lru_cache
def _limited(span: int) -> _Plane:
    """Return the levels 0 to 255 rounded to `span` steps, about 128 where they are colour."""
    middle = 128.0 if span == 224 else 0.0
    return _levels(np.rint((np.arange(256) - middle) * span / 255) * 255 / span + middle)


def _levels(values: _Plane) -> _Plane:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _move(plane: _Plane, shift: int) -> _Plane:
    """Move to the right by whole pixels; the edge is drawn out."""
    width = plane.shape[1]
    return plane[:, np.clip(np.arange(width) - shift, 0, width - 1)] if shift else plane


@functools.lru_cache(maxsize=1)
def _noise_tile() -> npt.NDArray[np.int8]:
    """Return Gaussian noise to cut pieces from: to draw it anew for each frame takes ten times as long."""
    normal = np.random.default_rng(720).standard_normal((1024, 2048), dtype=np.float32)
    return np.clip(np.rint(normal * _NOISE_SPREAD), -127, 127).astype(np.int8)


def _noise_piece(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Cut a piece from the tile at random, mirrored at random; 128 is the middle."""
    tile = _noise_tile()
    top, left = (int(rng.integers(side)) for side in tile.shape)
    down, across = (1 - 2 * int(turned) for turned in rng.integers(2, size=2))
    rows = (top + down * np.arange(height)) % tile.shape[0]
    columns = (left + across * np.arange(width)) % tile.shape[1]
    piece: npt.NDArray[np.uint8] = tile[rows][:, columns].view(np.uint8) + np.uint8(128)
    return piece


def _add_noise(frame: _Plane, damage: Damage, rng: np.random.Generator) -> _Plane:
    (height, width), grain = frame.shape[:2], max(1.0, damage.noise_size or 1.0)
    size = math.ceil(height / grain), math.ceil(width / grain)
    pieces = [_noise_piece(rng, *size) for _ in range(3 if damage.noise_colour else 1)]
    noise = cv2.merge(pieces) if damage.noise_colour else cv2.cvtColor(pieces[0], cv2.COLOR_GRAY2RGB)
    if noise.shape != frame.shape:
        noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    # uint8 sums stop at 0 and 255 by themselves, so what brightens and what darkens goes apart.
    steps = (np.arange(256) - 128) * ((damage.noise or 0.0) / _NOISE_SPREAD)
    return cv2.subtract(cv2.add(frame, cv2.LUT(noise, _levels(steps))), cv2.LUT(noise, _levels(-steps)))


def _interlace(frame: _Plane, earlier: _Plane, damage: Damage) -> _Plane:
    woven: _Plane = frame.copy()
    if damage.fields == "appearing":
        woven[1::2] = earlier[1::2]
    elif damage.fields == "bob":
        woven[1::2] = frame[: len(frame) // 2 * 2 : 2]
    else:
        shift = (damage.field_shift or 0.0) * _pixel(frame)
        # Less than a pixel would be no interlacing.
        woven[1::2] = _move(frame[1::2], round(shift) or int(math.copysign(1, shift)))
    return woven


def _encode(frames: list[_Plane], damage: Damage) -> _Plane:
    """Send frames through x264 and back, and return the last."""
    import av

    height, width = frames[0].shape[:2]
    # yuv420p takes even sizes only.
    odd = height % 2, width % 2
    encoder = av.VideoCodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width + odd[1], height + odd[0], "yuv420p"
    encoder.time_base = Fraction(1, 25)
    # More than one thread changes what x264 decides. Without scene cuts the caption stays a residual.
    encoder.thread_count = 1
    encoder.options = {"crf": str(damage.h264_crf), "tune": "zerolatency", "sc_threshold": "0"}
    encoder.options |= {"preset": damage.h264_preset or "veryfast"}
    packets = []
    for i, pixels in enumerate(frames):
        padded = cv2.copyMakeBorder(pixels, 0, odd[0], 0, odd[1], cv2.BORDER_REPLICATE)
        planes: _Plane = cv2.cvtColor(padded, cv2.COLOR_RGB2YUV_I420)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = i
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.VideoCodecContext.create("h264", "r")
    decoder.thread_count = 1
    *_, decoded = (frame for packet in [*packets, None] for frame in decoder.decode(packet))
    last: _Plane = cv2.cvtColor(decoded.to_ndarray(), cv2.COLOR_YUV2RGB_I420)
    return last[:height, :width]
