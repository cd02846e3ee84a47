"""Judgements, runs and test collections on disk, in the forms of TREC and of BEIR.

Every file may be gzipped (``.gz``). A line that is wrong ends the reading with its number: figures over what is left
would be figures of something else.

References
----------
Thakur, Reimers, Rücklé, Srivastava and Gurevych, BEIR: a heterogeneous benchmark for zero-shot evaluation of
information retrieval models, NeurIPS 2021 (folders of a corpus, queries and judgements). The forms of TREC's
judgements and runs are those that trec_eval reads.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from caprag.errors import CorpusError
from caprag.evaluation.ranking import Run, rank_documents
from caprag.paths import replacing


@dataclass(frozen=True, slots=True)
class BeirFolder:
    """A test collection in BEIR's form; the corpus stays on disk.

    Attributes
    ----------
    folder
        Where it lies.
    queries
        Id to text, of the judged queries, in the order of their file.
    qrels
        Query to document to grade.
    """

    folder: Path
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    def corpus(self) -> Iterator[tuple[str, str]]:
        """Yield each document's id and text (title and text, where it has both), in the order of the file.

        Raises
        ------
        CorpusError
            For a line that is no such object, an id that comes twice, and a judged document that is not there.
        """
        path = _there(self.folder / "corpus.jsonl")
        seen: set[str] = set()
        for number, row in _objects(path):
            document = _text(row, "_id", path, number)
            if document in seen:
                raise CorpusError(f"{path}, line {number}: the id {document!r} came before; make the ids distinct")
            seen.add(document)
            title = row.get("title") or ""
            yield document, f"{title} {_text(row, 'text', path, number)}".strip()
        missing = next((d for grades in self.qrels.values() for d in grades if d not in seen), None)
        if missing is not None:
            raise CorpusError(f"{path}: has no document {missing!r}, which is judged; complete the corpus")


def read_beir(folder: str | PathLike[str], split: str = "test") -> BeirFolder:
    """Open a test collection: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``.

    Parameters
    ----------
    folder
        Where it lies; each of its files may be gzipped.
    split
        Which judgements: the name of a file in its folder ``qrels``.

    Raises
    ------
    CorpusError
        Where a file is missing or a line is wrong; the message names both.
    """
    place = Path(folder)
    path = _there(place / "qrels" / f"{split}.tsv")
    qrels: dict[str, dict[str, int]] = {}
    for number, line in lines_of(path):
        fields = line.split("\t")
        if number == 1 and len(fields) == 3 and not _is_integer(fields[2]):
            continue  # the header
        if len(fields) != 3:
            raise CorpusError(f"{path}, line {number}: wanted are query, document and grade between tabs")
        _judge(qrels, fields[0].strip(), fields[1].strip(), fields[2], path, number)
    path = _there(place / "queries.jsonl")
    queries: dict[str, str] = {}
    for number, row in _objects(path):
        query = _text(row, "_id", path, number)
        if query in queries:
            raise CorpusError(f"{path}, line {number}: the id {query!r} came before; make the ids distinct")
        if query in qrels:
            queries[query] = _text(row, "text", path, number)
    missing = next((query for query in qrels if query not in queries), None)
    if missing is not None:
        raise CorpusError(f"{path}: has no query {missing!r}, which is judged; complete it")
    return BeirFolder(place, queries, qrels)


def read_qrels(path: str | PathLike[str]) -> dict[str, dict[str, int]]:
    """Read TREC judgements: lines of query, iteration, document, grade.

    Returns
    -------
    dict
        Query to document to grade.

    Raises
    ------
    CorpusError
        Where the file can't be read, holds nothing, or a line is wrong or judges a document again.
    """
    path = Path(path)
    qrels: dict[str, dict[str, int]] = {}
    for number, line in lines_of(path):
        fields = line.split()
        if len(fields) != 4:
            raise CorpusError(
                f"{path}, line {number}: has {len(fields)} fields; wanted are query, iteration, document and grade"
            )
        _judge(qrels, fields[0], fields[2], fields[3], path, number)
    if not qrels:
        raise CorpusError(f"{path}: holds no judgement; a line is query, iteration, document and grade")
    return qrels


def read_run(path: str | PathLike[str]) -> dict[str, dict[str, float]]:
    """Read a TREC run: lines of query, Q0, document, rank, score, tag. The rank is not looked at, as in trec_eval.

    Returns
    -------
    dict
        Query to document to score.

    Raises
    ------
    CorpusError
        Where the file can't be read, holds nothing, or a line is wrong or has a document again.
    """
    path = Path(path)
    run: dict[str, dict[str, float]] = {}
    for number, line in lines_of(path):
        fields = line.split()
        if len(fields) != 6:
            raise CorpusError(
                f"{path}, line {number}: has {len(fields)} fields; wanted are query, Q0, document, rank, score and tag"
            )
        try:
            score = float(fields[4])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise CorpusError(f"{path}, line {number}: the score is {fields[4]!r}; a number is wanted")
        found = run.setdefault(fields[0], {})
        if fields[2] in found:
            raise CorpusError(f"{path}, line {number}: query {fields[0]} has the document {fields[2]} again; keep one")
        found[fields[2]] = score
    if not run:
        raise CorpusError(f"{path}: holds no result; a line is query, Q0, document, rank, score and tag")
    return run


def write_qrels(path: str | PathLike[str], qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements as `read_qrels` reads them, in their order, at one stroke.

    Raises
    ------
    ValueError
        For an id that is empty or has white space.
    OSError
        Where the file can't be written.
    """

    def lines() -> Iterator[str]:
        for query, grades in qrels.items():
            for document, grade in grades.items():
                yield f"{_word(query)} 0 {_word(document)} {grade}\n"

    _write(Path(path), lines())


def write_run(path: str | PathLike[str], run: Run, *, tag: str = "caprag") -> None:
    """Write a run as `read_run` and trec_eval read it, at one stroke.

    Parameters
    ----------
    path
        Where to; gzipped where it ends in ``.gz``.
    run
        Query to document to score, or to documents, best first; these get the scores 1, 1/2, 1/3 and so on, so that
        their order is kept.
    tag
        The name of what made it.

    Raises
    ------
    ValueError
        For an id or tag that is empty or has white space, and as `caprag.evaluation.ranking.rank_documents` does.
    OSError
        Where the file can't be written.
    """

    def lines() -> Iterator[str]:
        for query, ranking in run.items():
            for rank, document in enumerate(rank_documents(ranking), 1):
                score = ranking[document] if isinstance(ranking, Mapping) else 1 / rank
                yield f"{_word(query)} Q0 {_word(document)} {rank} {score!r} {_word(tag)}\n"

    _write(Path(path), lines())


def _write(path: Path, lines: Iterator[str]) -> None:
    with replacing(path) as stream:
        if path.suffix.lower() == ".gz":
            # Neither name nor time goes into the file: the same run, the same bytes.
            with gzip.GzipFile(fileobj=stream, mode="wb", filename="", mtime=0) as packed:
                packed.writelines(line.encode("utf-8", "surrogateescape") for line in lines)
        else:
            stream.writelines(line.encode("utf-8", "surrogateescape") for line in lines)


def _word(text: str) -> str:
    if len(text.split()) != 1 or text != text.strip():
        raise ValueError(
            f"{text!r} is empty or has white space, which parts the fields of these files; give another id"
        )
    return text


def _judge(qrels: dict[str, dict[str, int]], query: str, document: str, grade: str, path: Path, number: int) -> None:
    if not _is_integer(grade):
        raise CorpusError(f"{path}, line {number}: the grade is {grade!r}; a whole number is wanted")
    grades = qrels.setdefault(query, {})
    if document in grades:
        raise CorpusError(f"{path}, line {number}: query {query} judges the document {document} again; keep one")
    grades[document] = int(grade)


def _is_integer(text: str) -> bool:
    text = text.strip()
    return text.removeprefix("-").isdecimal() and text.isascii()


def _there(path: Path) -> Path:
    """Return the file, or its gzipped form."""
    packed = path.with_name(path.name + ".gz")
    if path.is_file():
        return path
    if packed.is_file():
        return packed
    raise CorpusError(f"{path}: no such file; a BEIR folder has corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv")


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines_of(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise CorpusError(f"{path}, line {number}: is no JSON ({error}); one object a line is wanted") from None
        if not isinstance(row, dict):
            raise CorpusError(f"{path}, line {number}: is no JSON object; one a line is wanted")
        yield number, row


def _text(row: Mapping[str, Any], key: str, path: Path, number: int) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise CorpusError(f"{path}, line {number}: has no text under {key!r}; an object has _id and text")
    return value


def _opened(path: Path) -> gzip.GzipFile | BinaryIO:
    return gzip.GzipFile(path) if path.suffix.lower() == ".gz" else path.open("rb")


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are not blank, with their numbers; CorpusError where it can't be read."""
    number = 0
    try:
        with _opened(path) as stream:
            for number, raw in enumerate(stream, 1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}, line {number}: is not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorpusError(f"{path}, after line {number}: is a damaged gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise CorpusError(f"{path}: can't be read ({error.strerror or error}); name another file") from error
