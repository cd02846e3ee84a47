"""Results as lines that survive a kill: JSON lines or CSV, taken up again where they stopped.

Knows the form of a result row, not where captions come from.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from caprag.errors import CapragError
from caprag.types import Caption

Row = Mapping[str, object]

CSV_COLUMNS = ("text", "read", "snapped", "sentence_id", "confidence")
"""What a CSV file of results has beside the key."""

TEXT_COLUMNS = ("text",)
"""What a file of answers alone has beside the key."""


def caption_row(caption: Caption) -> dict[str, object]:
    """Return what a result line says of a caption, in the order in which it is written."""
    row: dict[str, object] = {
        "text": encodable(caption.text),
        "read": encodable(caption.hypotheses[0].text),
        "snapped": caption.hit is not None,
        "sentence_id": None if caption.hit is None else caption.hit.id,
        **({"behind_id": caption.hit.behind} if caption.hit is not None and caption.hit.behind is not None else {}),
        "confidence": round(caption.confidence, 6),
        "hypotheses": [
            {"text": encodable(h.text), "logprob": round(h.logprob, 6) if math.isfinite(h.logprob) else None}
            for h in caption.hypotheses
        ],
    }  # fmt: skip
    if caption.parts:
        row["parts"] = [
            {"text": encodable(part.text), "sentence_id": None if part.hit is None else part.hit.id}
            for part in caption.parts
        ]
    return row


def explained_row(caption: Caption, shares: Mapping[str, float]) -> dict[str, object]:
    """Return what a result line says besides where it is explained: sentences weighed, and what spoke for the best."""
    return {
        "considered": [encodable(hit.text) for hit in caption.considered],
        "shares": {name: round(value, 4) for name, value in shares.items()},
    }


def path_name(path: Path) -> str:
    """Return a path as it is written in results: bytes of a name that are not UTF-8 as ``\\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def encodable(text: str) -> str:
    """Return a text that can be written as UTF-8: a question mark stands for each lone surrogate."""
    return text.encode("utf-8", "replace").decode("utf-8")


class ResultFile:
    """Where result rows go: a file that is added to, or stdout.

    Rows are written in order, as each batch is done. A row cut off by a kill is dropped when the file is taken up
    again.

    Parameters
    ----------
    path
        Its suffix says the form, ``.csv`` or ``.jsonl``; ``None`` writes JSON lines to stdout.
    key
        The field that tells items apart.
    columns
        What a CSV file has beside the key; ``"text"`` at least.

    Raises
    ------
    CapragError
        Where the suffix is another, or the file holds something else.
    """

    def __init__(self, path: Path | None, key: str, columns: Sequence[str] = CSV_COLUMNS) -> None:
        self._key = key
        self._columns = tuple(columns)
        self._csv = path is not None and path.suffix.lower() == ".csv"
        self.done: dict[str, str] = {}
        self._stream: IO[str] = sys.stdout
        if path is None:
            return
        if path.suffix.lower() not in (".csv", ".jsonl"):
            raise CapragError(f"{path}: has the suffix {path.suffix!r}; write to .jsonl or .csv")
        try:
            if path.exists() and not path.is_file():
                raise CapragError(f"{path}: is no file; choose another")
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = self._take_up(path) if path.exists() else 0
            self._stream = path.open("r+" if path.exists() else "w", encoding="utf-8", newline="")
            self._stream.seek(kept)
            self._stream.truncate()
        except OSError as error:
            raise CapragError(f"{path}: can't be written ({error.strerror}); choose another file") from error
        if self._csv and not kept:
            self._write_csv([key, *columns])

    def _take_up(self, path: Path) -> int:
        """Note what is done and return the number of bytes that hold whole rows."""
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        begin = (",".join([self._key, *self._columns]) if self._csv else f'{{"{self._key}": ').encode()
        if not whole and not begin.startswith(content[: len(begin)]):
            raise CapragError(f"{path}: holds no results of this command; choose another file")
        try:
            text = whole.decode("utf-8")
            if self._csv:
                return self._take_up_csv(path, text)
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
            self.done = {str(row[self._key]): str(row["read"]) for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise CapragError(f"{path}: holds no results of this command ({error!r}); choose another file") from error
        return len(whole)

    def _take_up_csv(self, path: Path, text: str) -> int:
        # A field may hold line breaks: a kill can leave an open quote, and what follows it is not whole.
        end = 0
        known = 1 + self._columns.index("read" if "read" in self._columns else "text")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        # Lines as the reader counts them: a text may hold other kinds of line break.
        lines = list(io.StringIO(text, newline=""))
        try:
            for number, row in enumerate(reader):
                if number == 0 and row != [self._key, *self._columns]:
                    raise CapragError(f"{path}: has the columns {', '.join(row)}; choose another file")
                if number and row:
                    self.done[row[0]] = row[known]
                end = reader.line_num
        except csv.Error:
            pass
        return len("".join(lines[:end]).encode())

    def write(self, row: Row) -> None:
        """Write one row and see it out of the process."""
        if self._csv:
            self._write_csv([row[self._key], *(row[name] for name in self._columns)])
        else:
            self._stream.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()

    def _write_csv(self, values: list[object]) -> None:
        # With this line end, which is the standard's, both of its characters are quoted in a text.
        csv.writer(self._stream, lineterminator="\r\n").writerow(values)

    def __enter__(self) -> ResultFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not sys.stdout:
            self._stream.close()
