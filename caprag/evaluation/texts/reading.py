"""Generated texts and references from files, matched by id.

Knows the forms of the files, not what is measured.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

from caprag.errors import CorpusError

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".txt")
_SHOWN = 5


def read_texts(path: str | PathLike[str], *, key: str | None = None, column: str | None = None) -> dict[str, list[str]]:
    """Read texts by id.

    Parameters
    ----------
    path
        ``.csv`` and ``.tsv`` with a header; ``.jsonl``, an object a line; ``.json`` of COCO: a list of objects, or one
        under ``"annotations"``; ``.txt``, a text a line, whose ids are the numbers of the lines. UTF-8.
    key
        Column or key of the id; ``None`` is ``"id"``, in COCO's ``"image_id"``.
    column
        Column or key of the text; ``None`` is ``"text"``, of objects also ``"references"`` (a list of texts), in
        COCO's ``"caption"``.

    Returns
    -------
    dict of str to list of str
        In the order of the file; rows of one id are several texts of it.

    Raises
    ------
    CorpusError
        Naming file, line and remedy.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise CorpusError(f"{path}: has the suffix {path.suffix!r}; known are {' '.join(_SUFFIXES)}")
    content = _content(path)
    found: dict[str, list[str]] = {}
    if suffix == ".txt":
        lines = content.split("\n")
        found = {str(i): [line.rstrip("\r")] for i, line in enumerate(lines[: len(lines) - (not lines[-1])], 1)}
    else:
        if suffix in (".csv", ".tsv"):
            rows = _table(path, content, "," if suffix == ".csv" else "\t", key or "id", column or "text")
        else:
            rows = _objects(path, content, key, column, coco=suffix == ".json")
        for name, texts in rows:
            found.setdefault(name, []).extend(texts)
    if not found:
        raise CorpusError(f"{path}: holds no text; name another file")
    return found


def match_texts(
    candidates: Mapping[str, Sequence[str]], references: Mapping[str, Sequence[str]], names: tuple[str, str]
) -> list[str]:
    """Return the candidates in the order of the references.

    Parameters
    ----------
    candidates, references
        As `read_texts` reads them.
    names
        What both are called in errors.

    Raises
    ------
    CorpusError
        Naming ids: where one is missing on either side, or has several candidates.
    """
    for some, others, known, wanting in (
        (references, candidates, names[1], names[0]), (candidates, references, names[0], names[1]),
    ):  # fmt: skip
        if lost := [name for name in some if name not in others]:
            raise CorpusError(
                f"{wanting}: lacks {len(lost)} of the {len(some)} ids of {known}: {_shown(lost)}; "
                "both must have the same"
            )
    if several := [name for name, texts in candidates.items() if len(texts) != 1]:
        raise CorpusError(f"{names[0]}: has several texts for {_shown(several)}; one for each id is wanted")
    return [candidates[name][0] for name in references]


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def _content(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        raise CorpusError(f"{path}, line {number}: is not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except OSError as error:
        raise CorpusError(f"{path}: can't be read ({error.strerror or error}); name another file") from error


def _table(path: Path, content: str, separator: str, key: str, column: str) -> Iterator[tuple[str, list[str]]]:
    # In .tsv a quote is a character like others.
    lines = io.StringIO(content, newline="")
    reader = (
        csv.reader(lines, strict=True)
        if separator == ","
        else csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE, strict=True)
    )
    try:
        header = next(reader, [])
        for wanted, option in ((key, "--id"), (column, "--column")):
            if header.count(wanted) != 1:
                raise CorpusError(
                    f"{path}: has {header.count(wanted)} columns {wanted!r} in its header ({', '.join(header)}); "
                    f"name one with {option}"
                )
        places = header.index(key), header.index(column)
        for row in reader:
            if len(row) != len(header) and row:
                raise CorpusError(
                    f"{path}, line {reader.line_num}: has {len(row)} fields and the header {len(header)}; mend the line"
                )
            if row:
                yield row[places[0]], [row[places[1]]]
    except csv.Error as error:
        raise CorpusError(f"{path}, line {reader.line_num}: is no table ({error}); mend the line") from error


def _objects(
    path: Path, content: str, key: str | None, column: str | None, *, coco: bool
) -> Iterator[tuple[str, list[str]]]:
    if coco:
        key, column = key or "image_id", column or "caption"
        loaded = _loaded(path, content, None)
        listed = loaded.get("annotations") if isinstance(loaded, Mapping) else loaded
        if not isinstance(listed, list):
            raise CorpusError(f'{path}: is no list of objects, nor has one under "annotations"; see COCO\'s captions')
        rows: Iterable[tuple[str, object]] = ((f"object {i}", row) for i, row in enumerate(listed, 1))
    else:
        rows = (
            (f"line {number}", _loaded(path, line, number))
            for number, line in enumerate(content.split("\n"), 1)
            if line.strip()
        )
    for place, row in rows:
        if not isinstance(row, Mapping):
            raise CorpusError(f"{path}, {place}: is no object; wanted is one with an id and a text")
        name = row.get(key or "id")
        if isinstance(name, bool) or not isinstance(name, int | str):
            raise CorpusError(
                f"{path}, {place}: has {name!r} under {key or 'id'!r}; wanted is an id, whose key --id names"
            )
        field = column or ("references" if "references" in row else "text")
        texts = row.get(field)
        several = [text for text in (texts if isinstance(texts, list) else [texts]) if isinstance(text, str)]
        if not several or (isinstance(texts, list) and len(several) != len(texts)):
            raise CorpusError(
                f"{path}, {place}: has {texts!r} under {field!r}; wanted is a text or a list of them, whose key "
                "--column names"
            )
        yield str(name), several


def _loaded(path: Path, text: str, number: int | None) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        place = path if number is None else f"{path}, line {number}"
        raise CorpusError(f"{place}: is no JSON ({error}); mend it") from error
