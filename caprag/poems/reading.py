"""Files of poems and of translated verses, row by row.

Two kinds of rows are known, and may stand in one file:

* a poem, as the chinese-poetry collections have it: ``title`` (or ``rhythmic``), ``author``, ``lines`` (or
  ``paragraphs`` or ``content``), and perhaps a ``translation``: a text, or a list of lines;
* a translated verse, as CCPM has it: ``translation``, ``choices``, and in ``answer`` the place of the right one.

Knows nothing of how poems are cut into verses.

References
----------
Li et al., CCPM: A Chinese Classical Poetry Matching Dataset, 2021, arXiv 2106.01979.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from caprag.corpus.files import decode_lines
from caprag.errors import CorpusError
from caprag.paths import replacing
from caprag.text import Variant, convert, match_form, normalize

_LINES = ("lines", "paragraphs", "content")
_TITLES = ("title", "rhythmic")


@dataclass(frozen=True, slots=True)
class Poem:
    """A poem, all texts in their written form.

    Attributes
    ----------
    title, author
        Empty where they are not known.
    lines
        As the file has them; at least one.
    translation
        Its lines, in plain words; may be fewer or more than `lines`, or none.
    source, line
        The file, and the 1-based number of the line in it.

    Raises
    ------
    TypeError
        Where lines or translation are one string.
    """

    title: str
    author: str
    lines: tuple[str, ...]
    translation: tuple[str, ...] = ()
    source: str = ""
    line: int = 0

    def __post_init__(self) -> None:
        for name, value in (("lines", self.lines), ("translation", self.translation)):
            if isinstance(value, str):
                raise TypeError(
                    f"{name} is the string {value[:20]!r}; a tuple of lines is wanted: "
                    f"{name}=({value[:20]!r},), or tuple(text.splitlines())"
                )


@dataclass(frozen=True, slots=True)
class VersePair:
    """A verse and what it says in plain words, in their written form.

    Attributes
    ----------
    translation
        The plain words.
    verse
        The verse.
    negatives
        Verses that look alike and say something else.
    source, line
        The file, and the 1-based number of the line in it.
    """

    translation: str
    verse: str
    negatives: tuple[str, ...] = ()
    source: str = ""
    line: int = 0


def read_poems(
    paths: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    variant: Variant | None = None,
    encoding: str | None = None,
    on_error: Callable[[CorpusError], object] | None = None,
) -> Iterator[Poem | VersePair]:
    """Read poems and translated verses from JSON lines.

    Parameters
    ----------
    paths
        Files, in order.
    variant
        Rewrite what is Simplified in this region's characters (see `caprag.text.convert`). A row that is Traditional
        already stays as it is; a row counts as Simplified where making it Traditional changes more of its characters
        than making it Simplified.
    encoding
        Of the files; ``None`` is UTF-8.
    on_error
        Called with the error of a row that is wrong, and reading goes on; ``None`` raises it.

    Yields
    ------
    Poem or VersePair
        In the order of the rows; blank lines are passed over.

    Raises
    ------
    CorpusError
        Naming the file, the line and what is wanted; also where a file can't be read.
    """
    for given in [paths] if isinstance(paths, str | PathLike) else paths:
        path = Path(given)
        for number, line in decode_lines(path, encoding):
            try:
                if isinstance(line, CorpusError):
                    raise line
                if line.strip():
                    yield _parse(line, str(path), number, variant)
            except CorpusError as error:
                if on_error is None:
                    raise
                on_error(error)


def _parse(line: str, source: str, number: int, variant: Variant | None) -> Poem | VersePair:
    place = f"{source}, line {number}"
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{place}: is no JSON ({error}); one object a line is wanted") from None
    if not isinstance(row, Mapping):
        raise CorpusError(f"{place}: is {type(row).__name__}; an object with lines, or with translation and choices, "
                          "is wanted")  # fmt: skip
    write = _writer(line, variant)
    if "choices" in row:
        return _pair(row, place, source, number, write)
    lines = next((row[name] for name in _LINES if name in row), None)
    if lines is None:
        raise CorpusError(f"{place}: has neither lines ({', '.join(_LINES)}) nor choices; its keys are "
                          f"{', '.join(map(str, row)) or 'none'}")  # fmt: skip
    title = next((row[name] for name in _TITLES if row.get(name) is not None), "")
    author, translation = row.get("author") or "", row.get("translation") or []
    if not isinstance(title, str) or not isinstance(author, str):
        raise CorpusError(f"{place}: title or author is no text; both are texts, or absent")
    verses = _texts(lines, f"{place}: lines", write)
    if not verses:
        raise CorpusError(f"{place}: the poem has no line with a character; remove it")
    return Poem(
        write(title), write(author), verses, _texts(translation, f"{place}: translation", write), source, number
    )


def _pair(
    row: Mapping[str, object], place: str, source: str, number: int, write: Callable[[str], str]
) -> VersePair:  # fmt: skip
    translation, choices, answer = row.get("translation"), row["choices"], row.get("answer")
    if not isinstance(translation, str) or not match_form(translation):
        raise CorpusError(f"{place}: translation is {translation!r}; a text is wanted")
    if not isinstance(choices, list) or not choices or not all(isinstance(c, str) and match_form(c) for c in choices):
        raise CorpusError(f"{place}: choices is {choices!r}; a list of verses is wanted")
    if answer is None:
        raise CorpusError(f"{place}: has no answer (which of the choices is right); take a file that has them")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise CorpusError(f"{place}: answer is {answer!r}; a place from 0 to {len(choices) - 1} is wanted")
    verses = [write(choice) for choice in choices]
    form = match_form(verses[answer])
    # A choice that is the right one in other characters is not wrong.
    wrong = dict.fromkeys(verse for verse in verses if match_form(verse) != form)
    return VersePair(write(translation), verses[answer], tuple(wrong), source, number)


def _texts(given: object, place: str, write: Callable[[str], str]) -> tuple[str, ...]:
    rows = given.split("\n") if isinstance(given, str) else given
    if not isinstance(rows, list) or not all(isinstance(text, str) for text in rows):
        raise CorpusError(f"{place} is {type(given).__name__}; a text or a list of texts is wanted")
    return tuple(written for text in rows if match_form(written := write(text)))


def _writer(line: str, variant: Variant | None) -> Callable[[str], str]:
    """Return what brings a row's texts into the wanted form."""
    if variant is None or not _is_simplified(line):
        return normalize
    return lambda text: normalize(convert(text, variant))


def _is_simplified(text: str) -> bool:
    """Say whether more characters change on the way to Traditional than on the way to Simplified."""

    def changes(variant: Variant) -> int:
        return sum(a != b for a, b in zip(text, convert(text, variant), strict=False))

    return changes("tw") > changes("s")


def write_training(pairs: Iterable[VersePair], path: str | PathLike[str]) -> int:
    """Write pairs as FlagEmbedding's training rows: ``query`` (plain words), ``pos`` and ``neg``.

    Parameters
    ----------
    pairs
        Translated verses.
    path
        File to write, at one stroke.

    Returns
    -------
    int
        Number of rows; a pair without a negative is written with none, for mining.

    Raises
    ------
    OSError
        Where the file can't be written.
    """
    count = 0
    with replacing(Path(fspath(path))) as stream:
        for pair in pairs:
            row = {"query": pair.translation, "pos": [pair.verse], "neg": list(pair.negatives)}
            stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
            count += 1
    return count
