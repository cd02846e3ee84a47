"""JSON values from a file larger than memory: the elements of an array, or one value a line.

Knows nothing of what the values mean.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from caprag.errors import SynthesisError

UNDECODED = re.compile("[\udc80-\udcff]")
"""Stands in a text of `open_text` where a byte did not decode."""

_CHUNK = 1 << 16
# What is wrong farther from the end of what was read is wrong for good: no word or escape is longer.
_NEAR = 16


@contextmanager
def open_text(path: Path, encoding: str | None = None) -> Iterator[TextIO]:
    """Open a file for reading; lines end with ``"\\n"`` alone, and bytes that do not decode are `UNDECODED`.

    Parameters
    ----------
    path
        The file.
    encoding
        ``None`` means UTF-8, or UTF-16 where the file says so by its byte order mark.

    Raises
    ------
    SynthesisError
        Where it can't be opened or read, the encoding is unknown or does not fit at all.
    """
    try:
        if encoding is not None:
            codecs.lookup(encoding)
            "".encode(encoding)
    except (LookupError, ValueError):
        raise SynthesisError(f"encoding {encoding!r} is unknown; try utf-8, big5 or gb18030") from None
    try:
        if encoding is None:
            with path.open("rb") as raw:
                encoding = "utf-16" if raw.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
        with path.open(encoding=encoding, errors="surrogateescape", newline="\n") as stream:
            yield stream
    except UnicodeError as error:
        raise SynthesisError(f"{path}: is not {encoding} ({error}); name its encoding") from error
    except OSError as error:
        raise SynthesisError(f"{path}: can't be read ({error.strerror}); name a file of training examples") from error


def read_values(path: Path, stream: TextIO) -> Iterator[tuple[str, Any]]:
    """Read the elements of an array, or one value a line where the file does not begin with ``[``.

    Parameters
    ----------
    path
        Names the file in errors.
    stream
        From `open_text`.

    Yields
    ------
    tuple of str and object
        Where it is (``element 3`` or ``line 3``) and the value; a SynthesisError for a line that is no JSON.

    Raises
    ------
    SynthesisError
        Where an array is broken; what comes after can't be found then.
    """
    buffer = ""
    while not buffer.strip():
        chunk = stream.read(_CHUNK)
        if not chunk:
            return
        buffer += chunk
    if buffer.lstrip()[0] == "[":
        yield from _elements(path, stream, buffer)
    else:
        stream.seek(0)
        yield from _rows(path, stream)


def _rows(path: Path, stream: TextIO) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        value: Any
        try:
            _check_decoded(line)
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            remedy = "one object a line is wanted, or an array"
            value = SynthesisError(f"{path}, line {number}: is not JSON ({error}); {remedy}")
        yield f"line {number}", value


def _elements(path: Path, stream: TextIO, buffer: str) -> Iterator[tuple[str, Any]]:
    window = _Window(stream, buffer, buffer.index("[") + 1)
    number = 1
    try:
        mark = window.sign()
        while mark != "]":
            value, source = window.value()
            try:
                _check_decoded(source)
            except ValueError as error:
                value = SynthesisError(f"{path}, element {number}: {error}")
            mark = window.sign()
            if mark not in (",", "]"):
                raise ValueError(f"{mark or 'the end of the file'!r} stands where a comma or ] is wanted")
            window.place += 1
            yield f"element {number}", value
            number += 1
        window.place += number == 1
        if mark := window.sign():
            raise ValueError(f"{mark!r} stands after the array")
    except (ValueError, RecursionError) as error:
        raise SynthesisError(
            f"{path}, element {number}: is not JSON ({error}); mend it, or write the file again"
        ) from error


class _Window:
    """The part of a file that is being looked at."""

    def __init__(self, stream: TextIO, text: str, place: int) -> None:
        self._stream, self._text, self.place = stream, text, place
        self._decoder = json.JSONDecoder()

    def _fill(self) -> bool:
        """Read on and forget what lies behind; twice as much where a value is long. Say whether there was more."""
        chunk = self._stream.read(max(_CHUNK, len(self._text) - self.place))
        if chunk:
            self._text, self.place = self._text[self.place :] + chunk, 0
        return bool(chunk)

    def sign(self) -> str:
        """Go to the next character that means something, and return it; empty at the end of the file."""
        while True:
            while self.place < len(self._text):
                if self._text[self.place] not in " \t\r\n":
                    return self._text[self.place]
                self.place += 1
            if not self._fill():
                return ""

    def value(self) -> tuple[Any, str]:
        """Read a value of an array and go behind it; return it and its source."""
        self.sign()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self.place)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _NEAR
                if not cut or not self._fill():
                    raise ValueError(error.msg) from None
            else:
                # A number may go on: 0 may be the beginning of 0.5.
                if end + _NEAR > len(self._text) and self._text[end : end + 1] not in (",", "]") and self._fill():
                    continue
                if end < len(self._text):
                    source, self.place = self._text[self.place : end], end
                    return value, source
                raise ValueError("the array does not end")


def _check_decoded(text: str) -> None:
    if UNDECODED.search(text):
        raise ValueError("a byte in it does not decode; name the file's encoding (--encoding), or mend it")
