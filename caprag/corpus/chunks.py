"""What is done to some rows at a time: written form, conversion, stripping, splitting, judging, fingerprints.

A chunk's result depends on its rows and the rules alone, so that chunks may be worked on in any process and in any
order.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from caprag.corpus.cleaning import CaptionRules, Reason, clean_and_tell, refusal, strip_row
from caprag.corpus.splitting import split_line
from caprag.text import convert, match_forms, normalize

EXAMPLES = 5
"""Dropped pieces that are kept of each reason, to show."""

FINGERPRINT = np.dtype([("high", "<u8"), ("low", "<u8"), ("text", "<u4")])
"""128 bits of a piece's matching form (BLAKE2b), and the CRC-32 of its text, which tells equal forms apart."""

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
        The matching forms one after the other in UTF-32-LE, and the number of characters in each, uint32; empty
        unless asked for.
    dropped, examples
        Refused pieces by reason, and the first few of each with file and line.
    """

    texts: bytes
    origins: npt.NDArray[np.void]
    fingerprints: npt.NDArray[np.void]
    forms: bytes
    lengths: npt.NDArray[np.uint32]
    dropped: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, list[Row]] = field(default_factory=dict)


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

    places: list[tuple[int, int]] = []
    texts: list[str] = []
    for source, number, line in _written(rows, rules):
        cleaned, spoken = clean_and_tell(line, rules.brackets)
        if spoken and rules.drop_speakers:
            drop("speaker", source, number, line)
            continue
        pieces = split_line(cleaned, rules.max_chars, rules.min_chars, rules.connectives)
        if not pieces:
            drop("empty", source, number, line)
        for piece in pieces:
            if reason := refusal(piece, rules):
                drop(reason, source, number, piece)
            else:
                places.append((source, number))
                texts.append(piece)
    matching = match_forms(texts)
    return ChunkResult(
        texts="".join(f"{text}\n" for text in texts).encode(),
        origins=np.array(places, ORIGIN),
        fingerprints=_fingerprints(texts, matching),
        forms="".join(matching).encode("utf-32-le") if forms else b"",
        lengths=np.array([len(form) for form in matching] if forms else [], np.uint32),
        dropped=dropped,
        examples=examples,
    )


def _written(rows: list[Row], rules: CaptionRules) -> list[Row]:
    """Return the lines of rows in their written form, converted where asked."""
    lines: list[Row] = []
    for source, number, text in rows:
        # A row without any letter is named as it was read.
        written = normalize(strip_row(text))
        lines += [(source, number, line) for line in written.split("\n")] if written else []
        if not written and text.strip():
            lines.append((source, number, ""))
    if rules.convert is None or not lines:
        return lines
    # Line by line, but in one call.
    converted = convert("\n".join(line for _, _, line in lines), rules.convert).split("\n")
    return [(source, number, normalize(text)) for (source, number, _), text in zip(lines, converted, strict=True)]


def _fingerprints(texts: list[str], matching: list[str]) -> npt.NDArray[np.void]:
    digest = hashlib.blake2b
    forms = b"".join([digest(form.encode(), digest_size=16).digest() for form in matching])
    fingerprints = np.empty(len(texts), FINGERPRINT)
    fingerprints["high"], fingerprints["low"] = np.frombuffer(forms, "<u8").reshape(-1, 2).T
    fingerprints["text"] = np.fromiter((zlib.crc32(text.encode()) for text in texts), np.uint32, len(texts))
    return fingerprints
