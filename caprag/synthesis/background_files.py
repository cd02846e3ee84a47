"""The files behind backgrounds: which there are, whether they open, and their pixels.

Knows the picture formats that Pillow decodes by itself and the videos of FFmpeg. Knows nothing of the size that is
wanted, but for a power of two by which a picture may come smaller.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from caprag.errors import FrameError
from caprag.paths import walk
from caprag.synthesis.pictures import Pixels

if TYPE_CHECKING:
    import av

PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
"""Suffixes of the pictures looked for in a folder."""

VIDEOS = (
    *(".mp4", ".m4v", ".mkv", ".mov", ".avi", ".webm", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob"),
    *(".flv", ".wmv", ".3gp", ".ogv"),
)
"""Suffixes of the videos; any other file is taken for a picture."""

MIN_SIDE = 64
"""Shorter side in pixels of the smallest picture that is taken."""

MAX_PIXELS = 64_000_000
"""A picture with more is refused by its header."""

_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# What Pillow's decoders raise on bytes that are not as the format says.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError),
    *(RuntimeError, struct.error, zlib.error, Image.DecompressionBombError),
)
# From the keyframe on, at most so many frames are decoded.
_FRAMES_DECODED = 24
# Length that is supposed of a video that does not say.
_UNKNOWN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Source:
    """A file that opens.

    `name` is its path within the folder given, or its own name; `size` width and height in pixels by its header, before
    a video is turned upright; `seconds` the length of a video, ``None`` for a picture.
    """

    path: Path
    name: str
    size: tuple[int, int]
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture upright, perhaps smaller, with the size it has in full, and its second in a video."""

    pixels: Pixels
    full: tuple[int, int]
    seconds: float | None = None


def list_files(paths: Sequence[str | os.PathLike[str]]) -> list[tuple[Path, str]]:
    """List files with their names: files as given, folders walked for pictures and videos, in natural order.

    Raises
    ------
    FrameError
        Where a path is missing, or a folder can't be listed or holds none.
    """
    found: list[tuple[Path, str]] = []
    for path in map(Path, paths):
        if path.is_dir():
            try:
                files = walk(path, PICTURES + VIDEOS)
            except OSError as error:
                raise FrameError(f"{error.filename}: can't be listed ({error.strerror}); check its rights") from error
            if not files:
                raise FrameError(
                    f"{path}: no pictures or videos in this folder; looked for .jpg, .png, .mp4 and others"
                )
            found += [(file, file.relative_to(path).as_posix()) for file in files]
        elif path.exists():
            found.append((path, path.name))
        else:
            raise FrameError(f"{path}: no such file or folder; check the name")
    return found


def probe(path: Path, name: str) -> Source:
    """Open a file as far as its header.

    Raises
    ------
    FrameError
        Where the file is not what its suffix says, damaged, too small or too large.
    """
    if not path.is_file():
        raise FrameError(f"{path}: not a regular file; save the picture to a file first")
    if path.stat().st_size == 0:
        raise FrameError(f"{path}: the file is empty; copy or export it again")
    source = _probe_video(path, name) if path.suffix.lower() in VIDEOS else _probe_picture(path, name)
    width, height = source.size
    if min(width, height) < MIN_SIDE:
        raise FrameError(f"{path}: {width} x {height} pixels are too small, {MIN_SIDE} are the least; leave it out")
    if width * height > MAX_PIXELS:
        raise FrameError(f"{path}: {width} x {height} pixels are more than {MAX_PIXELS}; scale it down first")
    return source


def _probe_picture(path: Path, name: str) -> Source:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_known_formats()) as picture:
                turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                width, height = picture.size
    except UnidentifiedImageError as error:
        raise FrameError(f"{path}: not a picture in a known format; convert it to PNG or JPEG") from error
    except _DAMAGE as error:
        raise _broken(path, error) from error
    return Source(path, name, (height, width) if turned else (width, height))


def _known_formats() -> tuple[str, ...]:
    # Not every build of Pillow has all; asking loads its plugins.
    return tuple(sorted(set(_FORMATS).intersection(Image.registered_extensions().values())))


def _broken(path: Path, error: Exception) -> FrameError:
    if isinstance(error, PermissionError):
        return FrameError(f"{path}: may not be read ({error.strerror}); give yourself read permission")
    return FrameError(f"{path}: damaged or cut short ({error}); copy or export it again")


def read_picture(source: Source, shrink: int) -> Decoded:
    """Decode a picture to upright 8-bit RGB; transparent parts let black through, an animation gives its first frame.

    Parameters
    ----------
    source
        From `probe`.
    shrink
        1, 2, 4 or 8: into how many pixels of the file, each way, one pixel goes.

    Raises
    ------
    FrameError
        Where the pixels can't be decoded, or are float or 32-bit grey, whose range nobody knows.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(source.path, formats=_known_formats()) as picture:
                width = picture.width
                # JPEG gives an eighth, a quarter or a half of its width and height for less work.
                picture.draft(None, (max(1, width // shrink), max(1, picture.height // shrink)))
                rest = max(1, shrink // round(width / picture.width))
                upright = _to_rgb(ImageOps.exif_transpose(picture), source.path)
    except _DAMAGE as error:
        raise _broken(source.path, error) from error
    return Decoded(np.array(upright.reduce(rest) if rest > 1 else upright), source.size)


def _to_rgb(picture: Image.Image, path: Path) -> Image.Image:
    picture.load()
    if picture.mode in ("F", "I") or picture.mode.startswith("I;"):
        levels = np.asarray(picture)
        if picture.mode == "F" or levels.min() < 0 or levels.max() > 65535:
            raise FrameError(f"{path}: float or 32-bit grey has no known range; save it with 8 or 16 bits")
        return Image.fromarray(((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer).convert("RGB")
    return picture.convert("RGB")


def _probe_video(path: Path, name: str) -> Source:
    import av

    try:
        with _open(path) as container:
            if not container.streams.video:
                raise FrameError(f"{path}: has no video in it; leave it out")
            stream = container.streams.video[0]
            length = stream.duration and float(stream.duration * (stream.time_base or 0))
            seconds = length or (container.duration or 0) / av.time_base or _UNKNOWN_SECONDS
            # Pixels may be wider than high, as on DVD.
            aspect = float(stream.sample_aspect_ratio or 1)
            return Source(path, name, (round(stream.width * aspect), stream.height), seconds)
    except (av.FFmpegError, *_DAMAGE) as error:
        raise _broken(path, error) from error


def _open(path: Path) -> av.container.InputContainer:
    import av

    # From PyAV 19 on there is no such option any more.
    options: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
    # As a name within a folder it can't be taken for a protocol.
    opened: av.container.InputContainer = av.open(str(path.absolute()), **options)
    return opened


def read_video(source: Source, shrink: int, moment: float) -> Decoded:
    """Decode the frame at a moment of a video, or, where keyframes are far between, one after the keyframe before it.

    Parameters
    ----------
    source
        From `probe`.
    shrink
        By how much width and height are divided.
    moment
        Seconds from the beginning.

    Raises
    ------
    FrameError
        Where neither this frame nor the first can be decoded.
    """
    import av

    last: Exception | None = None
    for place in (moment, 0.0):
        try:
            with _open(source.path) as container:
                stream = container.streams.video[0]
                start = float((stream.start_time or 0) * (stream.time_base or 0))
                frame = _find_frame(container, stream, place, start)
                if frame is not None:
                    return _to_pixels(frame, source, shrink, start)
        except (av.FFmpegError, *_DAMAGE) as error:
            last = error
    raise _broken(source.path, last or ValueError("no frame in it"))


def _find_frame(
    container: av.container.InputContainer, stream: av.VideoStream, moment: float, start: float
) -> av.VideoFrame | None:
    import av

    stream.codec_context.thread_count = 1
    if moment > 0:
        container.seek(int((start + moment) * av.time_base))
    chosen: av.VideoFrame | None = None
    try:
        for count, frame in enumerate(container.decode(stream), 1):
            if not frame.is_corrupt:
                chosen = frame
            if count >= _FRAMES_DECODED or (frame.pts is not None and frame.time >= start + moment):
                break
    except (av.FFmpegError, *_DAMAGE):
        # What came before the damage is sound.
        if chosen is None:
            raise
    return chosen


def _to_pixels(frame: av.VideoFrame, source: Source, shrink: int, start: float) -> Decoded:
    width, height = source.size
    small = frame.reformat(max(1, width // shrink), max(1, height // shrink), "rgb24")
    turns = round(frame.rotation / 90) % 4
    pixels: Pixels = np.ascontiguousarray(np.rot90(small.to_ndarray(), turns), dtype=np.uint8)
    seconds = None if frame.pts is None else max(0.0, float(frame.time) - start)
    return Decoded(pixels, (height, width) if turns % 2 else (width, height), seconds)
