"""Which fonts there are, which characters each can draw, and which one draws a sentence.

A font without a glyph draws a box, so that nothing is drawn before the font's character map was asked. Knows nothing
of sizes on the screen or of styles.
"""

from __future__ import annotations

import functools
import math
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from caprag.errors import FontError
from caprag.paths import walk
from caprag.text import convert

if TYPE_CHECKING:
    import numpy as np
    from PIL import ImageFont

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
"""The kinds of font file that are read, by suffix."""

INSTALLED = (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path.home() / ".local/share/fonts",
             Path("/Library/Fonts"), Path("/System/Library/Fonts"), Path("C:/Windows/Fonts"))  # fmt: skip
"""Where systems keep their fonts."""

Region = Literal["TC", "SC", "HK", "JP", "KR"]
"""Whose forms of the characters: Taiwan, mainland China, Hong Kong, Japan, Korea."""

# How the faces of a collection name their region.
_REGION_NAMES: dict[str, tuple[str, ...]] = {
    "TC": ("TC", "TW"), "SC": ("SC", "CN"), "HK": ("HK",), "JP": ("JP", "J"), "KR": ("KR", "K"),
}  # fmt: skip
_FACES_AT_MOST = 64
# A text that needs none of these is drawn by any font.
_BLANK = frozenset(" \n\u3000")
# How much seldomer than a bold or regular sans a face is seen on television, by its name.
_SELDOM = {
    re.compile(r"serif|song|sung|ming|uming|kai|fang", re.IGNORECASE): 0.2,
    re.compile(r"thin|extra ?light", re.IGNORECASE): 0.1,
    re.compile(r"(?<!demi)light|black", re.IGNORECASE): 0.5,
}


# Of each face, the characters that were found to have a shape, or need none.
_SOLID: dict[tuple[Path, int], set[str]] = {}


@dataclass(frozen=True)
class Font:
    """One face of a font file.

    `weight` is its share among the fonts, `characters` what its character map has.
    """

    path: Path
    face: int
    name: str
    weight: float = 1.0
    characters: frozenset[str] = field(default_factory=frozenset, repr=False)

    def has(self, text: str) -> bool:
        """Say whether every character of a text is in the character map and has a shape."""
        if not self.characters.issuperset(text):
            return False
        solid = _SOLID.setdefault((self.path, self.face), set(_BLANK))
        if not solid.issuperset(text):
            # Some fonts map a character to an empty glyph.
            solid.update(c for c in text if c not in solid and not _is_hollow(self.path, self.face, c))
        return solid.issuperset(text)

    def at(self, size: int) -> ImageFont.FreeTypeFont:
        """Load the face at a size in pixels."""
        return _load(self.path, self.face, size)


# A loaded face takes megabytes, and loading one a fraction of a millisecond.
@functools.lru_cache(maxsize=64)
def _load(path: Path, face: int, size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    # Basic layout: the same on every machine, whether or not Raqm is there.
    return ImageFont.truetype(path, size, index=face, layout_engine=ImageFont.Layout.BASIC)


def _is_hollow(path: Path, face: int, character: str) -> bool:
    try:
        left, top, right, bottom = _load(path, face, 16).getbbox(character)
    except OSError:
        # Its outline is damaged.
        return True
    return right <= left or bottom <= top


class FontSet:
    """The fonts of a run.

    Parameters
    ----------
    fonts
        At least one.

    Raises
    ------
    FontError
        Where there is none.
    """

    def __init__(self, fonts: Sequence[Font]) -> None:
        import numpy as np

        if not fonts:
            raise FontError("no font; name font files or folders")
        self.fonts = tuple(fonts)
        self._weights = np.array([font.weight for font in fonts], dtype=np.float64)

    def characters(self) -> frozenset[str]:
        """Return what at least one of the fonts has."""
        return frozenset().union(*(font.characters for font in self.fonts))

    def covers(self, text: str) -> bool:
        """Say whether one of the fonts has every character of a text."""
        return any(font.has(text) for font in self.fonts)

    def choose(self, rng: np.random.Generator, text: str) -> Font | None:
        """Draw a font that has every character of a text, by weight; ``None`` where none has.

        The fonts that lack a character are passed over for the next one in a random order, so that one number is
        drawn whatever the text.
        """
        import numpy as np

        # Weighted order without replacement: Efraimidis and Spirakis, Information Processing Letters 97 (2006).
        keys = np.log(rng.random(len(self.fonts))) / self._weights
        order: list[int] = np.argsort(-keys, kind="stable").tolist()
        return next((self.fonts[i] for i in order if self.fonts[i].has(text)), None)


def load_fonts(
    paths: Iterable[str | Path] = (),
    *,
    region: Region | None = None,
    sample: Sequence[str] = (),
    on_error: Callable[[FontError], None] | None = None,
) -> FontSet:
    """Find fonts and read which characters they have.

    Parameters
    ----------
    paths
        Font files and folders, each followed by ``=weight`` if it is to count more or less than the others (a
        folder's weight goes to each of its fonts), and by ``#face`` to name one face of a collection; without any,
        the fonts that are installed and can draw the sample; then regular and bold sans faces weigh more than serif,
        brush, thin and black ones.
    region
        Whose forms of the characters are taken from a collection of faces; ``None`` takes that of the sample:
        ``"SC"`` where it is written in Simplified characters, ``"TC"`` else.
    sample
        Sentences that will be drawn. A font that has not one of them is passed over with an error.
    on_error
        Called with the error of each font that can't be used, after which the others are read; ``None`` raises it.

    Returns
    -------
    FontSet

    Raises
    ------
    FontError
        For a file that can't be used (unless `on_error` takes it), and where no font is left.

    Examples
    --------
    >>> load_fonts(["no such file.ttf"])
    Traceback (most recent call last):
        ...
    caprag.errors.FontError: no such file.ttf: does not exist; name a font file or a folder of them
    """
    if region is not None and region not in get_args(Region):
        raise ValueError(f"region is {region!r}; known are {', '.join(get_args(Region))}")
    region = region or _region_of(sample)
    given = [str(path) for path in paths]

    def complain(error: FontError) -> None:
        # Of what happens to be installed, most was not made for this text.
        if not given:
            return
        if on_error is None:
            raise error
        on_error(error)

    fonts: list[Font] = []
    for path in given or map(str, INSTALLED):
        try:
            files = _expand(path)
        except FontError as error:
            complain(error)
            continue
        for file, face, weight in files:
            try:
                font = _read(file, face, weight, region)
                if sample and not any(map(font.has, sample)):
                    raise FontError(f"{file}: has the characters of none of the sentences; name another font")
                fonts.append(font if given else _weighed(font))
            except FontError as error:
                complain(error)
    if not fonts:
        raise FontError(
            "no font that can be used; name fonts that have the text's characters, "
            "or install one (on Debian: apt-get install fonts-noto-cjk)"
        )
    return FontSet(sorted(dict.fromkeys(fonts), key=lambda font: (str(font.path), font.face)))


def _region_of(sample: Sequence[str]) -> Region:
    text = "".join(sample)
    simplified = sum(a != b for a, b in zip(text, convert(text, "s"), strict=False))
    traditional = sum(a != b for a, b in zip(text, convert(text, "tw"), strict=False))
    return "SC" if traditional > simplified else "TC"


def _weighed(font: Font) -> Font:
    name = f"{font.name} {font.path.stem}"
    return replace(font, weight=math.prod(share for pattern, share in _SELDOM.items() if pattern.search(name)))


def _expand(given: str) -> list[tuple[Path, int | None, float]]:
    """Take a path, its face and its weight apart, and list a folder's files."""
    text, weight, face = given, 1.0, None
    if not Path(text).exists() and (match := re.fullmatch(r"(.+)=([0-9.eE+-]+)", text)):
        text = match[1]
        try:
            weight = float(match[2])
        except ValueError:
            weight = -1.0
        if not 0 < weight < float("inf"):
            raise FontError(f"{given}: the weight {match[2]} is not a number above 0; write for example {text}=2")
    if not Path(text).exists() and (match := re.fullmatch(r"(.+)#(\d+)", text)):
        text, face = match[1], int(match[2])
    path = Path(text)
    if path.is_dir():
        try:
            files = walk(path, SUFFIXES)
        except OSError as error:
            raise FontError(f"{error.filename}: can't be listed ({error.strerror}); check its rights") from error
        if not files:
            raise FontError(f"{path}: holds no font; a font is {' '.join(SUFFIXES)}")
        return [(file, None, weight) for file in files]
    if not path.exists():
        raise FontError(f"{path}: does not exist; name a font file or a folder of them")
    return [(path, face, weight)]


def _read(path: Path, face: int | None, weight: float, region: Region) -> Font:
    """Read the character map of a file's face, or of a collection's face for the region."""
    from fontTools.ttLib import TTCollection, TTFont, TTLibError

    try:
        # Opened here, because fontTools leaves a file open that it can't read.
        with path.open("rb") as stream:
            if stream.read(4) == b"ttcf":
                faces = TTCollection(stream, lazy=True).fonts[:_FACES_AT_MOST]
                names = [_name(font) for font in faces]
                face = _face_for(names, region) if face is None else face
                if face >= len(names):
                    raise FontError(f"{path}: has {len(names)} faces, the one asked for is {face}; the first is 0")
                name, characters = names[face], _characters(faces[face])
            else:
                font = TTFont(stream, lazy=True)
                face, name, characters = 0, _name(font), _characters(font)
    except FontError:
        raise
    except OSError as error:
        raise FontError(f"{path}: can't be read ({error.strerror or error}); name another font") from error
    # fontTools meets damaged tables with whatever its parsers stumble over.
    except (TTLibError, ValueError, KeyError, IndexError, AttributeError, AssertionError, TypeError, ArithmeticError,
            EOFError, struct.error) as error:  # fmt: skip
        raise FontError(f"{path}: is not read as a font ({error or type(error).__name__}); name another") from error
    try:
        _load(path, face, 16).getbbox("A")
    except OSError as error:
        raise FontError(f"{path}: can't be drawn with ({error}); name another font") from error
    return Font(path, face, name or path.stem, weight, characters)


def _name(font: object) -> str:
    return font["name"].getDebugName(4) or ""  # type: ignore[index]


def _characters(font: object) -> frozenset[str]:
    cmap = font.getBestCmap() or {}  # type: ignore[attr-defined]
    found = {chr(code) for code, glyph in cmap.items() if glyph != ".notdef" and not 0xD800 <= code < 0xE000}
    return frozenset(found | _BLANK)


def _face_for(names: Sequence[str], region: Region) -> int:
    wanted = _REGION_NAMES[region]
    for i, name in enumerate(names):
        words = name.split()
        if "Mono" not in words and any(word in wanted for word in words):
            return i
    return 0
