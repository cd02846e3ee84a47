"""Queries with their truth from files: readings, and the sentences that were meant, by text or by id.

Knows the forms of the files, not the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from caprag.errors import CorpusError
from caprag.evaluation.trec import lines_of
from caprag.text import match_form

Truth = tuple[int | str, ...]
_FORM = "a line is query, tab, truth"
_OBJECT = 'an object is {"query": "...", "truth": a text, an id, or a list of them}'


@dataclass(frozen=True, slots=True)
class Query:
    """A reading and what was meant.

    Attributes
    ----------
    text
        The reading.
    truth
        Ids (int) or texts (str) of the relevant sentences, at least one.
    line
        1-based number of its line in the file.
    """

    text: str
    truth: Truth
    line: int


def read_queries(path: str | PathLike[str], *, on_error: Callable[[CorpusError], None] | None = None) -> list[Query]:
    """Read queries with their truth.

    Parameters
    ----------
    path
        ``.tsv`` or ``.txt``: lines of query, tab, truth; the truths are ids where all of the file's are whole
        numbers, else texts. ``.jsonl``: objects with ``query`` and ``truth``, which is a text, an id (a number), or a
        list of them. Either may be gzipped (``.gz``).
    on_error
        Called with the error of each line that is wrong, after which reading goes on; ``None`` raises it.

    Raises
    ------
    CorpusError
        Naming file, line and remedy: where the file can't be read or holds no query (always), and for a line that is
        wrong (unless `on_error` takes it).
    """
    path = Path(path)
    suffix = Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()
    if suffix not in (".tsv", ".txt", ".jsonl"):
        raise CorpusError(f"{path}: has the suffix {suffix!r}; queries are .tsv (query, tab, truth) or .jsonl")
    found = []
    for number, line in lines_of(path):
        try:
            found.append(_of_object(line, number) if suffix == ".jsonl" else _of_line(line, number))
        except ValueError as error:
            complaint = CorpusError(f"{path}, line {number}: {error}")
            if on_error is None:
                raise complaint from None
            on_error(complaint)
    if not found:
        raise CorpusError(f"{path}: holds no query; {_OBJECT if suffix == '.jsonl' else _FORM}")
    if suffix != ".jsonl" and all(_is_id(str(query.truth[0])) for query in found):
        return [Query(query.text, (int(query.truth[0]),), query.line) for query in found]
    return found


def resolve(
    queries: list[Query], sentences: Iterator[tuple[int, str]], *, on_error: Callable[[Query, int | str], None]
) -> list[tuple[Query, tuple[int, ...]]]:
    """Find the ids of what is relevant.

    Parameters
    ----------
    queries
        With ids or texts as truth.
    sentences
        Ids and texts of the corpus, read through once. A text is found by its matching form, in every sentence that
        has it.
    on_error
        Called with a query and its truth that is not in the corpus; the query is left out.

    Returns
    -------
    list of (Query, tuple of int)
        The queries of which all truths are there, with their ids, ascending.
    """
    wanted = {text: match_form(text) for query in queries for text in query.truth if isinstance(text, str)}
    numbers = {number for query in queries for number in query.truth if isinstance(number, int)}
    ids: dict[str, list[int]] = {form: [] for form in wanted.values() if form}
    there: set[int] = set()
    for number, sentence in sentences:
        if number in numbers:
            there.add(number)
        if ids and (form := match_form(sentence)) in ids:
            ids[form].append(number)
    kept = []
    for query in queries:
        found: set[int] = set()
        for truth in query.truth:
            of_truth = ids.get(wanted[truth], []) if isinstance(truth, str) else [truth] if truth in there else []
            if not of_truth:
                on_error(query, truth)
                break
            found.update(of_truth)
        else:
            kept.append((query, tuple(sorted(found))))
    return kept


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _of_line(line: str, number: int) -> Query:
    fields = line.split("\t")
    if len(fields) != 2 or not all(field.strip() for field in fields):
        raise ValueError(f"has {len(fields)} fields; {_FORM}")
    return Query(fields[0], (fields[1].strip(),), number)


def _of_object(line: str, number: int) -> Query:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"is no JSON ({error}); {_OBJECT}") from None
    if not isinstance(row, Mapping) or not isinstance(row.get("query"), str):
        raise ValueError(f"has no text under 'query'; {_OBJECT}")
    truth = row.get("truth")
    several = tuple(truth) if isinstance(truth, list) else (truth,)
    if not several or any(isinstance(one, bool) or not isinstance(one, int | str) for one in several):
        raise ValueError(f"has {truth!r} under 'truth'; {_OBJECT}")
    return Query(row["query"], several, number)
