"""Sentences as captions have them and lists of sentences do not: with marks, quotes, figures, names, and said twice.

A reader that never saw them loses its place where one comes. Knows nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

_WORDS = (
    "Miss", "Mr", "OK", "DJ", "TV", "CD", "MV", "Live", "Band", "Ave", "Rock",
    "Sorry", "Hello", "Hi", "Yes", "No", "Bye", "Baby", "Love", "Party", "Cafe", "Coffee",
    "Pizza", "Sofa", "Email", "LINE", "WiFi", "App", "iPad", "VIP", "NG", "Chan", "Wong",
    "Lee", "Tom", "Mary", "May", "John", "Peter", "Amy", "Tokyo", "Paris", "London", "A",
    "B", "X", "Q",
)  # fmt: skip
_ENDS = ("!", "?", "...", "。", "!!", "?!", "⋯")
_WITHIN = (",", "...", "、", " ", "! ", "? ", "⋯", "-", "・", "~")
_QUOTES = (("「", "」"), ('"', '"'), ("『", "』"), ("(", ")"), ("《", "》"))


def vary(texts: Sequence[str], share: float, *, longest: int, seed: int = 0) -> list[str]:
    """Return the texts, and varied ones of some of them behind.

    Parameters
    ----------
    texts
        Sentences.
    share
        Of the sentences that come again in another form, 0 or more.
    longest
        Characters that a varied one has at most.
    seed
        Of what is drawn by chance.
    """
    rng = np.random.default_rng(seed)
    made = (_variant(texts[int(rng.integers(len(texts)))], rng) for _ in range(round(share * len(texts))))
    return list(dict.fromkeys([*texts, *(text for text in made if len(text) <= longest)]))


def _variant(text: str, rng: np.random.Generator) -> str:
    # Most captions with one oddity have no other.
    for _ in range(1 if rng.random() < 0.7 else 2):
        text = _CHANGES[int(rng.choice(len(_CHANGES), p=_WEIGHTS))](text, rng)
    return text


def _one_of(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


def _ended(text: str, rng: np.random.Generator) -> str:
    return text.rstrip("!?.。⋯…") + _one_of(rng, _ENDS)


def _parted(text: str, rng: np.random.Generator) -> str:
    place = int(rng.integers(1, max(2, len(text))))
    return text[:place] + _one_of(rng, _WITHIN) + text[place:]


def _quoted(text: str, rng: np.random.Generator) -> str:
    left, right = _QUOTES[int(rng.integers(len(_QUOTES)))]
    start, stop = _span(text, rng, len(text))
    return f"{text[:start]}{left}{text[start:stop]}{right}{text[stop:]}"


def _said_twice(text: str, rng: np.random.Generator) -> str:
    start, stop = _span(text, rng, 1 if rng.random() < 0.5 else 4)
    times = int(rng.integers(2, 5 if stop - start == 1 else 3))
    return text[:start] + text[start:stop] * times + text[stop:]


def _named(text: str, rng: np.random.Generator) -> str:
    start, stop = _span(text, rng, 3)
    words = _one_of(rng, _WORDS)
    if rng.random() < 0.3:
        words += " " + _one_of(rng, _WORDS)
    return text[:start] + words + text[stop:]


def _counted(text: str, rng: np.random.Generator) -> str:
    start, stop = _span(text, rng, 3)
    digits = int(rng.choice((1, 2, 3, 4), p=(0.3, 0.3, 0.15, 0.25)))
    figure = str(int(rng.integers(10 ** (digits - 1), 10**digits)))
    chance = rng.random()
    if chance < 0.15:
        figure = f"{figure}{_one_of(rng, ('%', '.5', ':30', '/2', ',000'))}"
    elif chance < 0.25:
        figure = _one_of(rng, ("A", "B", "No.", "F", "$")) + figure
    return text[:start] + figure + text[stop:]


def _span(text: str, rng: np.random.Generator, longest: int) -> tuple[int, int]:
    length = int(rng.integers(1, max(1, min(longest, len(text))) + 1))
    start = int(rng.integers(len(text) - length + 1)) if len(text) > length else 0
    return start, min(len(text), start + length)


_CHANGES: tuple[Callable[[str, np.random.Generator], str], ...] = (
    _ended, _parted, _quoted, _said_twice, _named, _counted
)  # fmt: skip
_WEIGHTS = (0.24, 0.26, 0.1, 0.16, 0.12, 0.12)

__all__ = ["vary"]
