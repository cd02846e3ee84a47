"""Pictures in: open one safely as upright 8-bit RGB, and list those of a folder.

Knows the picture formats that Pillow decodes by itself (no EPS, no PDF: those start other programs), and what
can be wrong with a file. Does not know what a picture shows, and leaves colour profiles alone.
"""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from caprag.errors import FrameError
from caprag.paths import walk

MAX_PIXELS = 64_000_000
"""A picture with more pixels is refused by its header alone; twice a frame of 8K television (7680 x 4320)."""

SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"),
)
"""The names that `list_frames` takes for pictures in a folder; `open_frame` goes by the content instead."""

MATTE = 128
"""Grey level, 0 to 255, that shows through transparent pixels: light type and its dark outline stand out from
it."""

_FORMATS = frozenset({"AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"})
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError),
    *(RuntimeError, UserWarning, struct.error, zlib.error),
)
"""What Pillow's decoders raise on bytes that are not as the format says."""


def open_frame(path: str | os.PathLike[str]) -> Image.Image:
    """Open a picture as upright 8-bit RGB.

    The content decides on the format, not the suffix. An animation gives its first frame; a rotation noted in
    the EXIF data is carried out; 16-bit grey is scaled to 8 bits; transparent pixels let the grey `MATTE`
    through.

    Parameters
    ----------
    path
        A picture file.

    Returns
    -------
    PIL.Image.Image
        Mode RGB, decoded; the file is closed.

    Raises
    ------
    FrameError
        Where the file is missing, a folder, empty, not a picture, damaged, cut short, larger than
        `MAX_PIXELS`, or holds numbers that have no known range (float or 32-bit grey).

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("L", (4, 2), 255).save(f"{folder}/white.png")
    ...     frame = open_frame(f"{folder}/white.png")
    >>> frame.mode, frame.size, frame.getpixel((0, 0))
    ('RGB', (4, 2), (255, 255, 255))
    """
    path = Path(path)
    if path.is_dir():
        raise FrameError(f"{path}: is a folder; give its pictures, list_frames([folder]) lists them")
    if not path.exists():
        raise FrameError(f"{path}: no such file; check the name")
    if not path.is_file():
        raise FrameError(f"{path}: not a regular file; save the picture to a file first")
    try:
        if path.stat().st_size == 0:
            raise FrameError(f"{path}: the file is empty; copy or export it again")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=_known_formats())
        with opened as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise FrameError(_too_large(path, f"{width} x {height} pixels"))
            picture.seek(0)
            return to_rgb(picture, str(path))
    except _BOMBS as error:
        raise FrameError(_too_large(path, "more than Pillow takes")) from error
    except UnidentifiedImageError as error:
        raise FrameError(f"{path}: not a picture in a known format; convert it to PNG or JPEG") from error
    except PermissionError as error:
        raise FrameError(f"{path}: may not be read ({error.strerror}); give yourself read permission") from error
    except _DAMAGE as error:
        raise FrameError(f"{path}: damaged or cut short ({error}); copy or export it again") from error


def list_frames(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """List picture files: files as given, folders walked.

    Parameters
    ----------
    paths
        Files, kept whatever their suffix, and folders, walked to the bottom for files with one of `SUFFIXES`
        in either case. Names that begin with a dot are passed over; links to folders are not followed.

    Returns
    -------
    list of pathlib.Path
        In the order of `paths`; within a folder in natural order of the parts of the name (``2`` before
        ``10``).

    Raises
    ------
    FrameError
        Where a path is missing, or a folder holds no picture.
    TypeError
        Where `paths` is one path instead of a sequence of paths.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("10.png", "2.PNG", "notes.txt"):
    ...         Path(folder, name).touch()
    ...     [path.name for path in list_frames([folder])]
    ['2.PNG', '10.png']
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise TypeError(f"paths must be a sequence of paths, got one path: {paths!r}; write [path]")
    frames: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            try:
                found = walk(path, SUFFIXES)
            except OSError as error:
                raise FrameError(f"{error.filename}: can't be listed ({error.strerror}); check its rights") from error
            if not found:
                raise FrameError(f"{path}: no pictures in this folder; looked for {' '.join(SUFFIXES)}")
            frames += found
        elif path.exists():
            frames.append(path)
        else:
            raise FrameError(f"{path}: no such file or folder; check the name")
    return frames


def _known_formats() -> tuple[str, ...]:
    """Give those of `_FORMATS` that this build of Pillow has; asking loads its plugins."""
    return tuple(sorted(_FORMATS.intersection(Image.registered_extensions().values())))


def _too_large(path: Path, size: str) -> str:
    return f"{path}: too large ({size}, the limit is {MAX_PIXELS} pixels); scale it down first"


def to_rgb(picture: Image.Image, name: str = "picture") -> Image.Image:
    """Bring a picture of any mode to upright 8-bit RGB.

    Parameters
    ----------
    picture
        A PIL picture; the EXIF rotation is applied, 16-bit grey is scaled, what is transparent becomes `MATTE`.
    name
        What errors call it.

    Returns
    -------
    PIL.Image.Image
        RGB, of the same size, or turned.

    Raises
    ------
    FrameError
        For float or 32-bit grey, whose range nobody knows.
    """
    picture.load()
    upright = ImageOps.exif_transpose(picture)
    if upright.mode == "F" or upright.mode == "I" or upright.mode.startswith("I;"):
        return _scale_grey(upright, name)
    if upright.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in upright.info:
        layer = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (MATTE, MATTE, MATTE, 255)), layer).convert("RGB")
    return upright.convert("RGB")


def _scale_grey(picture: Image.Image, name: str) -> Image.Image:
    """Scale grey of more than 8 bits from 0..65535 to 0..255, rounding to the nearest level."""
    levels = np.asarray(picture)
    if picture.mode == "F" or levels.min() < 0 or levels.max() > 65535:
        raise FrameError(f"{name}: float or 32-bit grey has no known range; save it with 8 or 16 bits")
    return Image.fromarray(((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
