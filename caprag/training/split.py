"""Which sentences are trained on and which are held out, so that nothing of the one stands in the other.

Whole documents are held out; what is left in training of a sentence that is held out, be it the same or nearly the
same, is taken out. It knows sentences and where they came from, nothing of what is trained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from caprag.corpus.near import check_near, near_pairs
from caprag.text import match_forms
from caprag.types import Sentence

NEAR = 0.8
"""From this edit similarity of the matching forms on, two sentences count as nearly the same."""


@dataclass(frozen=True, slots=True)
class Split:
    """Where each sentence belongs; all are positions in the sentences that were given, ascending.

    Attributes
    ----------
    train, dev, test
        What is trained on, looked at while training, and measured at the end. No two are the same or nearly the same
        across two of them.
    dropped
        What stands in none, because it is nearly the same as what is held out.
    documents
        Number of documents in train, dev and test.
    """

    train: tuple[int, ...]
    dev: tuple[int, ...]
    test: tuple[int, ...]
    dropped: tuple[int, ...]
    documents: tuple[int, int, int]

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {len(getattr(self, name))}" for name in ("train", "dev", "test"))
        documents = ", ".join(map(str, self.documents))
        return f"{sizes} sentences of {documents} documents; {len(self.dropped)} left out as near"


def split_sentences(
    sentences: Sequence[Sentence],
    *,
    dev: float = 0.05,
    test: float = 0.05,
    near: float = NEAR,
    block: int | None = 200,
    seed: int = 0,
) -> Split:
    """Split sentences by document and near-duplicate cluster.

    Documents are drawn for test, then for dev, until their shares are reached; a document is never cut. A cluster is
    all that hangs together by pairs of equal or near sentences. Where one reaches over several parts, it stays in
    test, else in dev, and what of it lies in the other parts is dropped. Of sentences without a source, each cluster
    is a document, and one that is larger than a share is not drawn for it.

    Parameters
    ----------
    sentences
        With their sources where they have one, in document order.
    dev, test
        Shares to hold out, each in [0, 1), together below 1; reached within a document.
    near
        Least edit similarity of near sentences, in [0.7, 1].
    block
        A source with more lines counts as several documents of so many consecutive ones; ``None`` never cuts a
        source.
    seed
        Of the draw. Which documents are held out depends on the seed and their names, not on their order.

    Returns
    -------
    Split
        Positions.

    Raises
    ------
    ValueError
        For shares or a similarity outside their range, or a block below 1.

    Examples
    --------
    >>> lines = ["今天天氣真的很好啊", "他去上班了", "今天天氣真是很好啊", "明天見"]
    >>> split_sentences([Sentence(text, f"{i}.txt") for i, text in enumerate(lines)], dev=0, test=0.5, seed=0)
    Split(train=(1, 3), dev=(), test=(0, 2), dropped=(), documents=(2, 0, 2))
    """
    if not (0 <= dev < 1 and 0 <= test < 1 and dev + test < 1):
        raise ValueError(
            f"dev is {dev} and test is {test}; shares in [0, 1) that leave something to train on are wanted"
        )
    if block is not None and block < 1:
        raise ValueError(f"block is {block}; at least 1 is needed")
    check_near(near)
    clusters = near_clusters([s.text for s in sentences], near)
    names = _documents(sentences, clusters, block)
    part_of = _draw_documents(names, {2: test, 1: dev}, seed)
    parts = np.array([part_of[name] for name in names], np.int64)
    highest = np.zeros(int(clusters.max(initial=-1)) + 1, np.int64)
    np.maximum.at(highest, clusters, parts)
    kept = parts == highest[clusters]
    train, dev_rows, test_rows = (tuple(np.flatnonzero(kept & (parts == i)).tolist()) for i in range(3))
    counts = [sum(part == i for part in part_of.values()) for i in range(3)]
    dropped = tuple(np.flatnonzero(~kept).tolist())
    return Split(train, dev_rows, test_rows, dropped, (counts[0], counts[1], counts[2]))


def _documents(sentences: Sequence[Sentence], clusters: npt.NDArray[np.int64], block: int | None) -> list[str]:
    """Return the name of each sentence's document; those of clusters begin with a zero, and hang on their texts."""
    least: dict[int, str] = {}
    for sentence, cluster in zip(sentences, clusters.tolist(), strict=True):
        if not sentence.source:
            least[cluster] = min(least.get(cluster, sentence.text), sentence.text)
    names = []
    for sentence, cluster in zip(sentences, clusters.tolist(), strict=True):
        part = "" if block is None else f"\0{max(0, sentence.line - 1) // block}"
        names.append(f"{sentence.source}{part}" if sentence.source else f"\0{least[cluster]}")
    return names


def _draw_documents(names: Sequence[str], shares: dict[int, float], seed: int) -> dict[str, int]:
    """Return the part of each document: documents in an order of their own, until each share is reached."""
    sizes: dict[str, int] = {}
    for name in names:
        sizes[name] = sizes.get(name, 0) + 1
    drawn = {name: hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "replace")).digest() for name in sizes}
    order = sorted(sizes, key=lambda name: (drawn[name], name))
    part_of = dict.fromkeys(order, 0)
    place = 0
    for part, share in shares.items():
        wanted, taken = share * len(names), 0
        while place < len(order) and taken < wanted - 1e-9:
            name = order[place]
            place += 1
            if name.startswith("\0") and sizes[name] > max(1, wanted):
                continue
            part_of[name] = part
            taken += sizes[name]
    return part_of


def near_clusters(texts: Sequence[str], near: float = NEAR) -> npt.NDArray[np.int64]:
    """Return the number of each text's cluster: what hangs together by pairs of equal or near matching forms.

    Parameters
    ----------
    texts
        Any strings.
    near
        Least edit similarity of a near pair (1 - Levenshtein distance / the longer length), in [0.7, 1].

    Returns
    -------
    numpy.ndarray
        Shape (len(texts),), int64, numbered from 0 in the order of the texts.

    Examples
    --------
    >>> near_clusters(["今天天氣真的很好", "今天天氣真是很好", "明天見", "今天天氣真是狠好"]).tolist()
    [0, 0, 1, 0]
    """
    check_near(near)
    if not texts:
        return np.zeros(0, np.int64)
    forms, rows = np.unique(np.array(match_forms(texts), dtype=object), return_inverse=True)
    codes = np.frombuffer("".join(forms).encode("utf-32-le", "surrogatepass"), np.uint32)
    offsets = np.cumsum([0, *map(len, forms)])
    # What has one parent hangs together already: it is not compared any more.
    parents = np.arange(len(forms))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = int(parents[row])
        return row

    for pairs in near_pairs(codes, offsets, np.arange(len(forms)), near, parents):
        for left, right in pairs[:, parents[pairs[0]] != parents[pairs[1]]].T.tolist():
            a, b = root(left), root(right)
            parents[max(a, b)] = min(a, b)
        parents[:] = parents[parents]
    roots = np.array([root(row) for row in range(len(forms))], np.int64)[rows]
    firsts, clusters = np.unique(roots, return_index=True)[1], np.unique(roots, return_inverse=True)[1]
    # Numbered as they come.
    rank = np.empty(len(firsts), np.int64)
    rank[np.argsort(firsts, kind="stable")] = np.arange(len(firsts))
    return rank[clusters]
