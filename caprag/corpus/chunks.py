"""What is done to some rows at a time: written form, conversion, stripping, splitting, judging, fingerprints.

A chunk's result depends on its rows and the rules alone, so that chunks may be worked on in any process and in any
order.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from caprag.corpus.cleaning import CaptionRules, Change, Reason, clean_line, refusal, strip_row
from caprag.corpus.forms import duplicate_forms
from caprag.corpus.splitting import split_line
from caprag.text import convert, normalize

EXAMPLES = 5
"""Dropped pieces and changed lines that are kept of each kind, to show."""

FINGERPRINT = np.dtype([("high", "<u8"), ("low", "<u8"), ("text", "<u4")])
"""128 bits of a piece's form (`caprag.corpus.forms`; BLAKE2b), and the CRC-32 of its text, which tells equal forms
apart."""

ORIGIN = np.dtype([("source", "<u4"), ("line", "<u4")])
"""Number of the file, in the order of reading, and of the line in it."""

Row = tuple[int, int, str]
"""Number of the file, number of the line, and what it holds."""


@dataclass(slots=True)
class ChunkResult:
    """What came of a chunk.

    Attributes
    ----------
    texts
        The pieces that are captions, UTF-8, each with a line break after it.
    origins
        Shape (pieces,), `ORIGIN`.
    fingerprints
        Shape (pieces,), `FINGERPRINT`.
    forms, lengths
        The forms one after the other in UTF-32-LE, and the number of characters in each, uint32; empty
        unless asked for.
    dropped, examples
        Refused pieces by reason, and the first few of each with file and line.
    changed, changes
        Lines that lost more than marks by kind, and the first few of each with file and line.
    """

    texts: bytes
    origins: npt.NDArray[np.void]
    fingerprints: npt.NDArray[np.void]
    forms: bytes
    lengths: npt.NDArray[np.uint32]
    dropped: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, list[Row]] = field(default_factory=dict)
    changed: Counter[Change] = field(default_factory=Counter)
    changes: dict[Change, list[Row]] = field(default_factory=dict)


class _Line(NamedTuple):
    source: int
    number: int
    text: str
    # What its row lost; on the first line of a row.
    changes: dict[Change, str]
    # A row of which nothing was left, as it may be shown.
    row: str = ""


def process_chunk(rows: list[Row], rules: CaptionRules, *, forms: bool = False) -> ChunkResult:
    """Make captions of rows.

    Parameters
    ----------
    rows
        As they were read.
    rules
        What a caption is.
    forms
        Whether the matching forms are wanted.
    """
    dropped: Counter[Reason] = Counter()
    examples: dict[Reason, list[Row]] = {}

    def drop(reason: Reason, source: int, number: int, text: str) -> None:
        dropped[reason] += 1
        kept = examples.setdefault(reason, [])
        if len(kept) < EXAMPLES:
            kept.append((source, number, text[:200]))

    changed: Counter[Change] = Counter()
    changes: dict[Change, list[Row]] = {}
    places: list[tuple[int, int]] = []
    texts: list[str] = []
    for source, number, line, before, row in _written(rows, rules):
        cleaned = clean_line(line, rules.brackets)
        if cleaned.spoken and rules.drop_speakers:
            drop("speaker", source, number, line)
            continue
        pieces = split_line(cleaned.text, rules.max_chars, rules.min_chars, rules.connectives)
        if not pieces:
            drop("empty", source, number, line or row)
            continue
        if before or cleaned.changes:
            for change, shown in {**cleaned.changes, **before}.items():
                changed[change] += 1
                kept = changes.setdefault(change, [])
                if len(kept) < EXAMPLES:
                    kept.append((source, number, shown))
        for piece in pieces:
            if reason := refusal(piece, rules):
                drop(reason, source, number, piece)
            else:
                places.append((source, number))
                texts.append(piece)
    matching = duplicate_forms(texts)
    return ChunkResult(
        texts="".join(f"{text}\n" for text in texts).encode(),
        origins=np.array(places, ORIGIN),
        fingerprints=_fingerprints(texts, matching),
        forms="".join(matching).encode("utf-32-le") if forms else b"",
        lengths=np.array([len(form) for form in matching] if forms else [], np.uint32),
        dropped=dropped,
        examples=examples,
        changed=changed,
        changes=changes,
    )


def _written(rows: list[Row], rules: CaptionRules) -> list[_Line]:
    """Return the lines of rows in their written form, converted where asked."""
    lines: list[_Line] = []
    for source, number, text in rows:
        left, changes = strip_row(text)
        if written := normalize(left):
            for line in written.split("\n"):
                lines.append(_Line(source, number, line, changes))
                changes = {}
        elif text.strip():
            lines.append(_Line(source, number, "", {}, _visible(text)))
    if rules.convert is None or not lines:
        return lines
    # Line by line, but in one call.
    converted = convert("\n".join(line.text for line in lines), rules.convert).split("\n")
    return [line._replace(text=normalize(text)) for line, text in zip(lines, converted, strict=True)]


def _visible(row: str, most: int = 40) -> str:
    """Return the beginning of a row, with what can't be seen escaped."""
    shown = " ".join(row[: 4 * most].split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)[:most]


def _fingerprints(texts: list[str], matching: list[str]) -> npt.NDArray[np.void]:
    digest = hashlib.blake2b
    forms = b"".join([digest(form.encode(), digest_size=16).digest() for form in matching])
    fingerprints = np.empty(len(texts), FINGERPRINT)
    fingerprints["high"], fingerprints["low"] = np.frombuffer(forms, "<u8").reshape(-1, 2).T
    fingerprints["text"] = np.fromiter((zlib.crc32(text.encode()) for text in texts), np.uint32, len(texts))
    return fingerprints
