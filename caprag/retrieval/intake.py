"""What comes into an index: sentences in their stored form, without those that are there, in chunks.

Knows the store that they go into; embeds nothing itself.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from caprag.retrieval.store import Store
from caprag.retrieval.vectors import Ids, Vectors
from caprag.text import normalize
from caprag.types import Sentence

# What is looked up and committed at a time: few commits make few segments of postings, which are searched faster.
_LOOKED_UP = 65536
# Vectors kept in half precision are off by less.
_UNIT_WITHIN = 1e-3


class Chunk(NamedTuple):
    """Sentences to be added together.

    Attributes
    ----------
    sentences
        In their stored form.
    rows
        Where vectors are given: the rows of their texts, shape (texts,).
    looked_at
        How many sentences were taken in for it, those that were passed over included.
    repeated
        Of those passed over, the ones from files whose texts came before or are there.
    """

    sentences: list[Sentence]
    rows: Ids
    looked_at: int
    repeated: list[Sentence]


def written(sentence: Sentence | str) -> Sentence:
    """Bring a sentence into the form that is stored: the written form, and a source that can be encoded."""
    if isinstance(sentence, str):
        return Sentence(normalize(sentence))
    source = sentence.source.encode("utf-8", "replace").decode("utf-8")
    aliases = tuple(dict.fromkeys(filter(None, map(normalize, sentence.aliases))))
    return Sentence(normalize(sentence.text), source, sentence.line, aliases)


def check_id(number: object) -> int:
    """Return an id as an int; TypeError for what is none."""
    try:
        return operator.index(number)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"the id {number!r} is of type {type(number).__name__}; an int is wanted") from None


def check_queries(queries: Iterable[object]) -> list[str]:
    """Return queries as a list; TypeError for a single string, and for a query that is none."""
    if isinstance(queries, str | bytes):
        raise TypeError(
            f"queries is the {'string' if isinstance(queries, str) else 'bytes'} {queries[:20]!r}; a list of readings "
            "is wanted (or use search)"
        )
    checked: list[str] = []
    for place, query in enumerate(queries):
        if not isinstance(query, str):
            remedy = "decode it, for example query.decode()" if isinstance(query, bytes) else "a string is wanted"
            raise TypeError(f"query {place} is {query!r:.40} of type {type(query).__name__}; {remedy}")
        checked.append(query)
    return checked


def check_vectors(vectors: npt.ArrayLike | None, dimension: int) -> Vectors | None:
    """Return given vectors as an array, shape (texts, dimension); ValueError where they are no unit vectors of it."""
    if vectors is None:
        return None
    with np.errstate(over="ignore"):
        rows = np.asarray(vectors, np.float32)
        if rows.ndim != 2 or rows.shape[1] != dimension:
            raise ValueError(f"vectors have the shape {rows.shape}; (texts, {dimension}) is wanted")
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    # A comparison with what is no number is false.
    wrong = np.flatnonzero(~(np.abs(lengths - 1.0) <= _UNIT_WITHIN))
    if len(wrong):
        row = int(wrong[0])
        finite = bool(np.isfinite(rows[row]).all())
        raise ValueError(
            f"row {row} of the vectors has the length {lengths[row]:.6g}; rows of length 1 are wanted: divide each by "
            "its length"
            if finite
            else f"row {row} of the vectors holds a number that is not finite; make that vector again"
        )
    return rows


def fresh(store: Store, sentences: Iterable[Sentence | str], given: int | None) -> Iterator[Chunk]:
    """Yield what is not in the store yet, in document order; the store may grow between two chunks.

    Parameters
    ----------
    store
        Where they are looked up.
    sentences
        Empty ones, and texts that came before or are there, are passed over.
    given
        How many vectors there are for their texts; ``None`` for none.

    Raises
    ------
    ValueError
        Where there are more or fewer vectors than texts.
    """
    pending, used = iter(sentences), 0
    while chunk := [written(s) for s in itertools.islice(pending, _LOOKED_UP)]:
        ends = used + np.cumsum([1 + len(s.aliases) for s in chunk])
        starts = np.concatenate([[used], ends[:-1]])
        used = int(ends[-1])
        if given is not None and used > given:
            raise ValueError(f"there are {given} vectors and more texts; there must be one for each")
        first = {s.text: i for i, s in reversed(list(enumerate(chunk))) if s.text}
        order = sorted(first.values())
        known = store.find([chunk[i].text for i in order]) if len(store) else [None] * len(order)
        chosen = [i for i, number in zip(order, known, strict=True) if number is None]
        rows = [np.arange(starts[i], ends[i]) for i in chosen]
        taken = set(chosen)
        repeated = [s for i, s in enumerate(chunk) if s.text and s.source and i not in taken]
        yield Chunk([chunk[i] for i in chosen], np.concatenate([*rows, np.zeros(0, np.int64)]), len(chunk), repeated)
    if given is not None and used != given:
        raise ValueError(f"there are {given} vectors and {used} texts; there must be one for each")


def trained(
    store: Store, chunks: Iterable[Chunk], vectors_of: Callable[[Sequence[Sentence], Ids], Vectors]
) -> Iterator[Chunk]:
    """Yield the chunks; where the store's vectors are to be trained, once that is done on a sample of all.

    Parameters
    ----------
    store
        Whose first segment is trained.
    chunks
        What is going to be added.
    vectors_of
        The vectors of sentences with their rows.

    Raises
    ------
    ValueError
        Where there are too few sentences to train on.
    """
    if store.base.is_trained:
        yield from chunks
        return
    # Texts that are the same in two chunks are told apart only once the first is there.
    whole: dict[str, tuple[Sentence, int]] = {}
    repeated: list[Sentence] = []
    looked_at = 0
    for chunk in chunks:
        looked_at += chunk.looked_at
        repeated += chunk.repeated
        place = 0
        for sentence in chunk.sentences:
            if whole.setdefault(sentence.text, (sentence, int(chunk.rows[place])))[0] is not sentence:
                repeated.append(sentence)
            place += 1 + len(sentence.aliases)
    everything = list(whole.values())
    if not everything:
        yield Chunk([], np.zeros(0, np.int64), looked_at, repeated)
        return
    chosen = np.random.default_rng(0).permutation(len(everything))[: store.base.training_size]
    sample = _chunk([everything[i] for i in np.sort(chosen)], 0, [])
    store.base.train(vectors_of(sample.sentences, sample.rows))
    for start in range(0, len(everything), _LOOKED_UP):
        part = everything[start : start + _LOOKED_UP]
        last = start + _LOOKED_UP >= len(everything)
        yield _chunk(part, looked_at - start if last else len(part), repeated if last else [])


def _chunk(part: Sequence[tuple[Sentence, int]], looked_at: int, repeated: list[Sentence]) -> Chunk:
    rows = [np.arange(start, start + 1 + len(sentence.aliases)) for sentence, start in part]
    texts = [sentence for sentence, _ in part]
    return Chunk(texts, np.concatenate([*rows, np.zeros(0, np.int64)]), looked_at, repeated)
