"""Queries and what they stand for: read from files, or made of sentences by a noise channel."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from caprag.errors import CorpusError
from caprag.training.pretraining import Noise

_QUERIES = ("query", "read", "reading")
_POSITIVES = ("positives", "positive", "pos", "truth")
_AT_A_TIME = 1024


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and the sentences it may stand for.

    Attributes
    ----------
    query
        A reading.
    positives
        What is right for it; at least one.
    """

    query: str
    positives: tuple[str, ...]


def read_pairs(path: str | PathLike[str]) -> Iterator[Pair]:
    """Read pairs from a file, one a line.

    Parameters
    ----------
    path
        ``.jsonl`` with a query (``query``, ``read`` or ``reading``) and a text or list of texts (``positives``,
        ``positive``, ``pos`` or ``truth``), so that FlagEmbedding's training files serve too; or ``.tsv`` without a
        head, query and positives in columns.

    Yields
    ------
    Pair
        In the order of the lines.

    Raises
    ------
    CorpusError
        Naming the file, the line and what is wanted.
    """
    place = Path(path)
    if place.suffix.lower() not in (".jsonl", ".json", ".tsv"):
        raise CorpusError(f"{place}: has the suffix {place.suffix!r}; pairs are read from .jsonl and .tsv")
    for number, line in enumerate(_lines(place), 1):
        if line.strip():
            pair = _from_tsv(line) if place.suffix.lower() == ".tsv" else _from_json(line)
            if pair is None:
                raise CorpusError(
                    f"{place}:{number}: is no pair; a query and at least one positive are wanted, as "
                    '{"query": "...", "pos": ["..."]} or with a tab between them'
                )
            yield pair


def _lines(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise CorpusError(f"{path}:{number}: is not UTF-8 ({error.reason}); write it as UTF-8") from error
    except OSError as error:
        raise CorpusError(f"{path}: can't be read ({error.strerror}); check the path") from error


def _from_tsv(line: str) -> Pair | None:
    query, *positives = line.split("\t")
    return _pair(query, positives)


def _from_json(line: str) -> Pair | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, Mapping):
        return None
    query = next((row[name] for name in _QUERIES if name in row), None)
    positives = next((row[name] for name in _POSITIVES if name in row), None)
    return _pair(query, [positives] if isinstance(positives, str) else positives)


def _pair(query: object, positives: object) -> Pair | None:
    if not isinstance(query, str) or not isinstance(positives, list):
        return None
    if not positives or not all(isinstance(text, str) and text for text in positives):
        return None
    return Pair(query, tuple(positives))


def noisy_pairs(
    sentences: Iterable[str], noise: Noise, *, seed: int = 0, strength: float | None = None, copies: int = 1
) -> Iterator[Pair]:
    """Make pairs of sentences and readings of them.

    Parameters
    ----------
    sentences
        Written forms; drawn as they are needed.
    noise
        Makes the readings.
    seed, strength
        Of the noise.
    copies
        Readings of each sentence, >= 1.

    Yields
    ------
    Pair
        `copies` for each sentence. A reading of which nothing is left is left out.

    Raises
    ------
    ValueError
        For less than one copy.
    """
    if copies < 1:
        raise ValueError(f"copies is {copies}; at least 1 is needed")
    rest, start = iter(sentences), 0
    while chunk := list(itertools.islice(rest, _AT_A_TIME)):
        texts = [text for text in chunk for _ in range(copies)]
        for text, reading in zip(texts, noise.corrupt(texts, seed=seed, strength=strength, start=start), strict=True):
            if reading:
                yield Pair(reading, (text,))
        start += len(texts)


def write_pairs(pairs: Iterable[Pair], path: str | PathLike[str]) -> int:
    """Write pairs as JSON lines that `read_pairs` reads, and return how many there were."""
    count = 0
    with Path(fspath(path)).open("w", encoding="utf-8") as stream:
        for pair in pairs:
            stream.write(json.dumps({"query": pair.query, "pos": list(pair.positives)}, ensure_ascii=False) + "\n")
            count += 1
    return count
