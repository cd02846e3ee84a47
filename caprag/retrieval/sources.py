"""Keeps an index as its files are: what to replace, add and remove when some of them have changed.

A sentence stays as long as one file holds its text; which one it is said to be from is settled here. Knows an index
and sentences, and reads no file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import NamedTuple

from caprag.retrieval.index import Index
from caprag.types import Sentence


class Changes(NamedTuple):
    """How many sentences were changed.

    Attributes
    ----------
    replaced
        Got another text under their id.
    added
        Are new.
    removed
        Are gone.
    moved
        Stand elsewhere now: on another line, or in another file.
    """

    replaced: int
    added: int
    removed: int
    moved: int


class _Plan(NamedTuple):
    """What makes an index hold what its files hold now; what is wholly new is not in it."""

    moved: dict[int, Sentence]
    replaced: dict[int, Sentence]
    gone: list[int]


def follow_sources(
    index: Index,
    sources: Collection[str],
    sentences: Sequence[Sentence],
    *,
    remove: bool = True,
    progress: bool = False,
) -> Changes:
    """Bring an index up to date with files that have changed since their sentences were added.

    A text that is there still keeps its id, wherever in the files it stands now. A line of which the text has changed
    keeps its id too, unless its old text stands elsewhere. A sentence is removed once no file is known to hold its
    text; one that came from no file stays.

    Parameters
    ----------
    index
        The index; it needs room for old and new together, and where an error is raised it may hold a part of both.
    sources
        Names of the files, as they were when they were added.
    sentences
        All that they hold, in their written form, with source and line; a text that several files hold for each of
        them.
    remove
        Whether what no file holds any more is removed; set it to False where a part of them could not be read.
    progress
        Whether to show a progress bar on stderr.

    Returns
    -------
    Changes
        What was done.

    Examples
    --------
    >>> from caprag.types import Sentence
    >>> first = [Sentence("好啊", "一.txt", 1), Sentence("走吧", "一.txt", 2)]
    >>> index = Index.build([*first, Sentence("好啊", "二.txt", 1)])
    >>> follow_sources(index, ["一.txt"], [Sentence("等一下", "一.txt", 2)])
    Changes(replaced=1, added=0, removed=0, moved=1)
    >>> [(index[i].text, index[i].source) for i in index]
    [('好啊', '二.txt'), ('等一下', '一.txt')]
    """
    plan = _plan(index, sources, sentences, remove)
    if remove:
        index.forget_places(sources)
    index.remove(plan.gone)
    index.upsert({**plan.moved, **plan.replaced})
    # Notes where those stand that are there.
    added = index.add(sentences, progress=progress)
    return Changes(len(plan.replaced), len(added), len(plan.gone), len(plan.moved))


def _plan(index: Index, sources: Collection[str], sentences: Sequence[Sentence], remove: bool) -> _Plan:
    there = {number: (source, line) for number, source, line in index.places() if source in sources}
    held: dict[int, tuple[str, int]] = {}
    new: dict[str, Sentence] = {}
    for sentence, number in zip(sentences, index.find_batch([s.text for s in sentences]), strict=True):
        if number is None:
            new.setdefault(sentence.text, sentence)
        elif number in there and (number not in held or sentence.source == there[number][0]):
            held[number] = (sentence.source, sentence.line)
    if remove:
        # What these files have lost may stand in others.
        for number, source, line in index.further_places():
            if number in there and source not in sources:
                held.setdefault(number, (source, line))
    moved = {
        number: dataclasses.replace(index[number], source=source, line=line)
        for number, (source, line) in held.items()
        if (source, line) != there[number]
    }
    free = {place: number for number, place in there.items() if number not in held}
    replaced = {
        free.pop(place): sentence for sentence in new.values() if (place := (sentence.source, sentence.line)) in free
    }
    gone = sorted(there.keys() - held.keys() - replaced.keys()) if remove else []
    return _Plan(moved, replaced, gone)
