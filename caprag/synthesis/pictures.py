"""What the synthesiser makes: a picture, and the label that says all that is in it.

Knows nothing of how pictures are drawn or written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

Pixels = npt.NDArray[np.uint8]
"""A picture: uint8, shape (height, width, 3), RGB, C-contiguous."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are the first outside."""

Kind = Literal[
    "line", "two_lines", "two_speakers", "bilingual", "top", "left", "vertical", "meme_panel", "meme_over", "empty"
]
"""How a caption stands in its frame; ``"empty"``: there is none."""

Role = Literal["caption", "second_language", "logo", "sign", "credits", "clock"]
"""What a text on the screen is; only ``"caption"`` is to be read."""


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass by name, as they are: unlike `dataclasses.asdict`, nothing is copied."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class TextLine:
    """One line of text in a picture: what it says, where its ink is, what it is."""

    text: str
    box: Box
    role: Role = "caption"


@dataclass(frozen=True, slots=True)
class Label:
    """All that decided a picture.

    `text` is the caption in its written form, ``"\\n"`` between lines, empty where there is none; `box` its ink,
    outline included. `quality` is that of the file, where it has one. `sentence` is the row of the sentence in the
    text, `skipped` how many were passed over before it because they did not fit or no font has them, `fitted` what was
    done to make this one fit; `font_size` and `style` are in pixels. `damage` and `background` hold what was applied.
    """

    text: str
    kind: Kind
    width: int
    height: int
    quality: int | None = None
    box: Box | None = None
    sentence: int | None = None
    skipped: int = 0
    fitted: Literal["as is", "wrapped", "shrunk"] = "as is"
    lines: tuple[TextLine, ...] = ()
    screen_text: tuple[TextLine, ...] = ()
    font: str | None = None
    font_size: int | None = None
    style: Mapping[str, object] = field(default_factory=dict)
    background: Mapping[str, object] = field(default_factory=dict)
    damage: Mapping[str, object] = field(default_factory=dict)

    def row(self) -> dict[str, object]:
        """Return the label as a row of a manifest; see `manifest_schema`."""
        row = fields_of(self)
        for name in ("lines", "screen_text"):
            row[name] = [fields_of(line) for line in getattr(self, name)]
        return row


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, its number in the run and its label."""

    number: int
    pixels: Pixels
    label: Label


def manifest_schema(styles: pa.Schema, backgrounds: pa.Schema, damages: pa.Schema) -> pa.Schema:
    """Return the columns of a manifest.

    Parameters
    ----------
    styles, backgrounds, damages
        The columns within `Label.style`, `Label.background` and `Label.damage`.
    """
    import pyarrow as pa

    box = pa.list_(pa.int32())
    line = pa.struct([("text", pa.string()), ("box", box), ("role", pa.string())])
    return pa.schema(
        [
            ("number", pa.int64()),
            ("text", pa.string()),
            ("kind", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("quality", pa.int32()),
            ("box", box),
            ("sentence", pa.int64()),
            ("skipped", pa.int32()),
            ("fitted", pa.string()),
            ("lines", pa.list_(line)),
            ("screen_text", pa.list_(line)),
            ("font", pa.string()),
            ("font_size", pa.int32()),
            ("style", pa.struct(list(styles))),
            ("background", pa.struct(list(backgrounds))),
            ("damage", pa.struct(list(damages))),
        ]
    )
