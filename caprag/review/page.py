"""A page of a run's captions: picture, reading and answer side by side, the doubtful ones first.

One HTML file that needs nothing else but the pictures it names, made of what `caprag read` or `caprag snap` wrote. What
a person corrects in it is kept by the browser and saved as a file that `caprag train reranker` learns from. Knows
result rows, not how they came about.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rapidfuzz.distance import Levenshtein

from caprag.errors import CapragError
from caprag.paths import replacing
from caprag.text import countable

_PAGE = Path(__file__).with_name("page.html")
_EDGE = 480
"""Width in pixels that pictures are embedded with, at most."""


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """A caption on the page.

    Attributes
    ----------
    key
        Name of its picture, or number of its line.
    read, text
        The reading and the answer.
    snapped
        Whether the answer is a sentence of the corpus.
    confidence
        Probability that the answer is right, in [0, 1].
    picture
        The picture; ``None`` where there is none.
    truth
        What it says; ``None`` where that is not known.
    considered
        The sentences that were weighed, the best first.
    shares
        What spoke for the best of them: feature to nats.
    """

    key: str
    read: str
    text: str
    snapped: bool
    confidence: float
    picture: Path | None = None
    truth: str | None = None
    considered: tuple[str, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)


def read_results(
    path: Path, *, pictures: Path | None = None, truths: Mapping[str, str] | None = None
) -> list[ReviewRow]:
    """Read the rows that `caprag read` or `caprag snap` wrote.

    Parameters
    ----------
    path
        The JSON lines.
    pictures
        Folder that names of pictures begin at; ``None``: the working folder.
    truths
        Key, or the name of a picture without its folder, to what it says.

    Returns
    -------
    list of ReviewRow
        In the order of the file.

    Raises
    ------
    CapragError
        Where the file can't be read, or a line is no result.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CapragError(f"{path}: can't be read ({error}); name a .jsonl that caprag read or snap wrote") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(json.loads(line), pictures, truths or {}))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CapragError(
                f"{path}, line {number}: is no result of caprag read or snap ({error!r}); name a .jsonl of theirs"
            ) from error
    return rows


def _row(stored: Mapping[str, Any], pictures: Path | None, truths: Mapping[str, str]) -> ReviewRow:
    key = str(stored["image"] if "image" in stored else stored["line"])
    picture = (pictures or Path()) / key if "image" in stored else None
    truth = truths.get(key, truths.get(Path(key).name))
    return ReviewRow(
        key, str(stored["read"]), str(stored["text"]), bool(stored["snapped"]), float(stored["confidence"]), picture,
        truth, tuple(map(str, stored.get("considered", ()))), dict(stored.get("shares", {})),
    )  # fmt: skip


def write_page(rows: Sequence[ReviewRow], path: Path, *, title: str = "caprag", embed: bool = False) -> None:
    """Write the page.

    Parameters
    ----------
    rows
        The captions.
    path
        HTML file.
    title
        Of the page.
    embed
        Whether pictures are put into the page, made smaller, instead of being named; then it can be sent alone.

    Raises
    ------
    CapragError
        Where a picture that shall be embedded can't be opened.
    OSError
        Where the file can't be written.
    """
    data = [_shown(row, path.parent, embed=embed) for row in rows]
    # Nothing in a text may end the script.
    # What was corrected is kept by the browser for this run alone.
    same = hashlib.sha256(json.dumps([[row.key, row.read, row.text] for row in rows]).encode()).hexdigest()[:16]
    content = json.dumps({"title": title, "id": same, "rows": data}, ensure_ascii=False).replace("<", "\\u003c")
    page = _PAGE.read_text(encoding="utf-8").replace("/*DATA*/null", content)
    with replacing(path) as stream:
        stream.write(page.encode("utf-8", "replace"))


def _shown(row: ReviewRow, home: Path, *, embed: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "key": row.key, "read": row.read, "text": row.text, "snapped": row.snapped,
        "confidence": round(row.confidence, 4), "parts": differences(row.read, row.text),
    }  # fmt: skip
    if row.picture is not None:
        shown["picture"] = _embedded(row.picture) if embed else quote(os.path.relpath(row.picture, home))
    if row.truth is not None:
        shown |= {"truth": row.truth, "right": countable(row.text) == countable(row.truth)}
    if row.considered:
        shown["considered"] = list(row.considered)
    if row.shares:
        shown["shares"] = {name: round(value, 2) for name, value in row.shares.items()}
    return shown


def _embedded(picture: Path) -> str:
    from caprag.recognition import open_frame

    image = open_frame(picture)
    image.thumbnail((_EDGE, _EDGE))
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def differences(read: str, text: str) -> list[tuple[str, str, str]]:
    """Cut a reading and an answer into what is the same and what is not.

    Returns
    -------
    list of tuple of str
        What happened (``"equal"``, ``"replace"``, ``"delete"`` or ``"insert"``), the reading's part, the answer's.

    Examples
    --------
    >>> differences("太稠了鍋鐘", "太稠了鍋鏟")
    [('equal', '太稠了鍋', '太稠了鍋'), ('replace', '鐘', '鏟')]
    """
    steps: Iterable[Any] = Levenshtein.opcodes(read, text)
    return [(s.tag, read[s.src_start : s.src_end], text[s.dest_start : s.dest_end]) for s in steps]
