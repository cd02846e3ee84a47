"""What a user knows to be right: words that no answer may lose, and lines that stay as they were read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from caprag.errors import CorpusError
from caprag.text import countable
from caprag.types import Hit


class Kept:
    """Says which sentences a reading may be snapped to.

    Letters and digits count, marks and spaces do not; characters that differ by region are different.

    Parameters
    ----------
    words
        Names and terms. A reading that has one is only snapped to a sentence that has it as often.
    lines
        Whole readings that are never snapped.

    Raises
    ------
    ValueError
        For a word or line without a letter or digit.

    Examples
    --------
    >>> kept = Kept(words=["麥兜"])
    >>> [hit.text for hit in kept.allowed("麥兜來了", [Hit(0, "麥嘜來了", 0.9), Hit(1, "麥兜來嗎", 0.8)])]
    ['麥兜來嗎']
    """

    def __init__(self, words: Iterable[str] = (), lines: Iterable[str] = ()) -> None:
        self._words = tuple(dict.fromkeys(map(_letters, words)))
        self._lines = frozenset(map(_letters, lines))

    @classmethod
    def read(cls, words: Path | None = None, lines: Path | None = None, *, encoding: str | None = None) -> Kept:
        """Read text files of one word or reading a line; empty lines are passed over.

        Raises
        ------
        CorpusError
            Where a file can't be read, or a line of it has no letter or digit.
        """
        return cls(*(() if path is None else list(_entries(path, encoding)) for path in (words, lines)))

    def allowed(self, reading: str, hits: Sequence[Hit]) -> list[Hit]:
        """Return the hits that a reading may be snapped to, in their order."""
        read = countable(reading)
        if read in self._lines:
            return []
        wanted = self._wanted(read)
        return [hit for hit in hits if _has(countable(hit.text), wanted)] if wanted else list(hits)

    def allows(self, reading: str, answer: str) -> bool:
        """Say whether a reading may have an answer."""
        read = countable(reading)
        return read not in self._lines and _has(countable(answer), self._wanted(read))

    def _wanted(self, read: str) -> dict[str, int]:
        return {word: read.count(word) for word in self._words if word in read}


def _has(text: str, wanted: Mapping[str, int]) -> bool:
    return all(text.count(word) >= times for word, times in wanted.items())


def _letters(text: str) -> str:
    found = countable(text)
    if not found:
        raise ValueError(f"{text!r} has no letter or digit, and so says nothing that could be kept")
    return found


def _entries(path: Path, encoding: str | None) -> Iterable[str]:
    from caprag.corpus import decode_lines

    for number, line in decode_lines(path, encoding):
        if isinstance(line, CorpusError):
            raise line
        if line.strip():
            if not countable(line):
                raise CorpusError(f"{path}, line {number}: {line.strip()!r} has no letter or digit; remove the line")
            yield line


__all__ = ["Kept"]
