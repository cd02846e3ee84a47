"""What a decision is measured against: other ways to answer the same readings from the same sentences.

Always the nearest sentence, and the nearest within the threshold that is best in hindsight; and, where it is installed,
pycorrector's corrector of proper names, which is the one of its engines that needs no download, with the sentences as
names. They know nothing of pictures or of order.
"""

from __future__ import annotations

import contextlib
import importlib
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from caprag.evaluation.metrics import count_errors
from caprag.text import countable, match_form

_THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 11))


class Corrector(Protocol):
    """Answers readings."""

    def answers(self, gone: Collection[str], truths: Sequence[str]) -> dict[str, list[str]]:
        """Return what each of its ways answers to all readings, by its name.

        Parameters
        ----------
        gone
            Letters and digits of sentences that are not there.
        truths
            What the readings should have been: for what is chosen in hindsight.
        """
        ...


class Nearest:
    """Exhaustive search for the nearest sentences: needs no index, and takes 50 ms a reading and million sentences.

    Parameters
    ----------
    read
        The readings.
    corpus
        The sentences.
    most
        Sentences kept for each reading, >= 1: so many may be gone less one.
    """

    def __init__(self, read: Sequence[str], corpus: Sequence[str], most: int = 16) -> None:
        self._read = list(read)
        forms = [match_form(text) for text in corpus]
        queries = [match_form(text) for text in read]
        self._found: list[list[tuple[float, str]]] = []
        for start in range(0, len(queries), 256):
            table = process.cdist(
                queries[start : start + 256],
                forms,
                scorer=Levenshtein.normalized_distance,
                workers=-1,
                dtype=np.float32,
            )
            few = min(most, len(forms))
            for row in table:
                places = np.argpartition(row, few - 1)[:few] if few < len(forms) else np.arange(len(forms))
                order = places[np.lexsort((places, row[places]))]
                self._found.append([(float(row[place]), corpus[place]) for place in order])

    def answers(self, gone: Collection[str], truths: Sequence[str]) -> dict[str, list[str]]:
        """Return the nearest sentences, and the same within the threshold that is best in hindsight."""
        nearest = []
        for read, row in zip(self._read, self._found, strict=True):
            nearest.append(next(((d, text) for d, text in row if countable(text) not in gone), (1.0, read)))

        def within(threshold: float) -> list[str]:
            return [text if d <= threshold else read for (d, text), read in zip(nearest, self._read, strict=True)]

        best = min(_THRESHOLDS, key=lambda threshold: sum(count_errors(within(threshold), truths).edits))
        return {"nearest sentence": within(1.0), f"nearest within {best}": within(best)}


class ProperNames:
    """pycorrector's corrector of proper names, by strokes and pinyin, with sentences as its names.

    It cuts texts at marks and spaces, so both sides are given by their letters and digits; a reading is compared with
    sentences of its own length, as a whole, since with shorter names too it would put names into the middle of
    sentences. Its threshold is its own.

    Parameters
    ----------
    read
        The readings.
    corpus
        The sentences.

    Raises
    ------
    ImportError
        Where it, or what it needs, is not installed.

    References
    ----------
    https://github.com/shibing624/pycorrector
    """

    def __init__(self, read: Sequence[str], corpus: Sequence[str]) -> None:
        self._read = list(read)
        self._sentences = {form: text for text in reversed(corpus) if (form := countable(text))}
        self._corrector: Any = importlib.import_module("pycorrector.proper_corrector").ProperCorrector

    def answers(self, gone: Collection[str], truths: Sequence[str]) -> dict[str, list[str]]:  # noqa: ARG002
        """Return what it makes of the readings, by the name of the package."""
        with tempfile.TemporaryDirectory() as folder:
            names = Path(folder) / "names.txt"
            names.write_text("\n".join(form for form in self._sentences if form not in gone), encoding="utf-8")
            made = self._corrector(proper_name_path=str(names))
        answered = []
        for text in self._read:
            form = countable(text)
            found = made.correct(form, min_word_length=len(form), max_word_length=len(form))["target"] if form else form
            answered.append(text if found == form else self._sentences.get(found, found))
        return {"pycorrector": answered}


def correctors(read: Sequence[str], corpus: Sequence[str]) -> list[Corrector]:
    """Return the peers that are installed, for the same readings and sentences."""
    found: list[Corrector] = [Nearest(read, corpus)]
    with contextlib.suppress(ImportError):
        found.append(ProperNames(read, corpus))
    return found


__all__ = ["Corrector", "Nearest", "ProperNames", "correctors"]
