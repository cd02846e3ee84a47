"""What a noise channel has learnt: counts and a few fitted numbers, and the JSON file they lie in.

Statistics only: counts of single characters and of what they were read as, never a sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from pathlib import Path

from caprag.errors import ModelError
from caprag.paths import replacing

FORMAT = 1
SHIPPED = Path(__file__).with_name("parameters.json")
Counts = Mapping[str, int]

BASE = ("drop", "split", "part", "glyph", "variant", "background")
"""The ways in which a letter is misread without anything counted."""

_NUMBERS = {
    "rate": ("clean", "shape", "mean"),
    "places": ("first", "last"),
    "gaps": ("start", "after_sign", "inner", "end"),
    "base": BASE,
    "insertion": ("share", "double", "more", "space"),
    "truncation": ("left", "right", "more"),
    "smoothing": ("concentration", "susceptibility", "habit", "temperature", "frequency", "signs"),
    "single": ("merge", "drop_more", "repeat", "lost", "stray", "spread"),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """The numbers of a channel; all shares and probabilities lie in [0, 1].

    Attributes
    ----------
    rate
        A line's rate of events is 0 with probability ``clean``, else gamma with ``shape`` and ``mean`` (events a
        letter).
    places
        Weight of the ``first`` and ``last`` letter of a line against the others, for misreading what is there.
    gaps
        Weight of each kind of gap before a letter (and of the ``end``) against the ``inner`` ones, for invented
        letters.
    base
        Shares of the ways in which a letter is misread of which nothing was counted: dropped (``drop``), ``split`` in
        two or read as one half (``part``; both of letters that have halves), as a look-alike (``glyph``), a
        ``variant``, any letter (``background``).
    insertion
        ``share`` of insertions among events; of these the share of doubled letters (``double``); the probability of
        each further letter (``more``) and of a ``space`` behind.
    truncation
        Probability that a line loses letters at its ``left`` or ``right`` end, and of each further letter beyond two
        (``more``).
    smoothing
        ``concentration``: how many counts the base is worth; ``susceptibility``: shape of the gamma distribution of
        letters' own rates, and ``habit``: how much these count against a rate that all share; ``temperature`` of
        similarities and exponent of ``frequency`` for look-alikes; ``signs``: how many counts the mean sign is worth.
    single
        ``merge``: probability that a misread pair of letters which can be read as one is; ``drop_more``: of each
        further letter dropped; ``repeat``: that a letter which recurs in a line meets the same fate; ``lost``: share
        of lines of which nothing was read (known, never played); ``stray``: probability of a sign behind a letter;
        ``spread``: shape of the gamma distribution of lines' rates about a given strength (chosen, not fitted).
    readings
        Letter -> what it was misread as -> count; ``""`` for dropped.
    seen
        Letter -> count in the true sentences.
    alphabet
        Invented letter -> count.
    signs
        Sign -> what was read for it, itself included -> count.
    stray
        Signs read behind a letter where none is -> count.
    joins
        What stands between two lines in one -> count.
    splits
        Letter -> the two letters that it looks like.
    strengths
        Rising pairs (events a letter, measured character error rate).
    provenance
        What the numbers were fitted on.
    """

    rate: Mapping[str, float]
    places: Mapping[str, float]
    gaps: Mapping[str, float]
    base: Mapping[str, float]
    insertion: Mapping[str, float]
    truncation: Mapping[str, float]
    smoothing: Mapping[str, float]
    single: Mapping[str, float]
    readings: Mapping[str, Counts]
    seen: Counts
    alphabet: Counts
    signs: Mapping[str, Counts]
    stray: Counts
    joins: Counts
    splits: Mapping[str, str]
    strengths: tuple[tuple[float, float], ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, keys in _NUMBERS.items():
            values = getattr(self, name)
            if sorted(values) != sorted(keys):
                raise ValueError(f"{name} has {', '.join(sorted(values))}; it must have {', '.join(sorted(keys))}")
            if not all(math.isfinite(value) and value >= 0 for value in values.values()):
                raise ValueError(f"{name} has a value that is negative or not finite: {dict(values)}")
        if not self.seen:
            raise ValueError("seen is empty: there is no letter to draw")
        if any(len(c) != 1 or len(parts) != 2 for c, parts in self.splits.items()):
            raise ValueError("splits must map one letter to two")

    @classmethod
    def load(cls, path: str | PathLike[str] | None = None) -> Parameters:
        """Load what `save` wrote; ``None`` takes the shipped file.

        Raises
        ------
        ModelError
            Where the file is missing or holds no parameters of this version.
        """
        place = SHIPPED if path is None else Path(path)
        try:
            stored = json.loads(place.read_text(encoding="utf-8"))
            version = stored.pop("format")
            if version != FORMAT:
                raise ModelError(f"{place}: has format {version}, this caprag reads {FORMAT}; fit it again")
            stored["strengths"] = tuple((float(x), float(y)) for x, y in stored["strengths"])
            return cls(**stored)
        except OSError as error:
            raise ModelError(f"{place}: can't be read ({error.strerror}); name a file of noise parameters") from error
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ModelError(f"{place}: holds no noise parameters ({error}); fit them again") from error

    def save(self, path: str | PathLike[str]) -> None:
        """Write as JSON, keys sorted: equal parameters give equal bytes."""
        stored = {"format": FORMAT, **asdict(self)}
        # One line for each attribute: the file is long, and read by few.
        rows = [
            f"{json.dumps(name)}: {json.dumps(stored[name], ensure_ascii=False, sort_keys=True)}"
            for name in ("format", *(f.name for f in fields(self)))
        ]
        with replacing(Path(path)) as stream:
            stream.write(("{\n" + ",\n".join(rows) + "\n}\n").encode("utf-8"))
