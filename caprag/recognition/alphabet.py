"""What characters are to RapidOCR's recogniser: classes of its network that NFKC makes equal count as one.

Their probabilities are added and the likeliest spelling is written. Knows nothing of pictures or of decoding.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from caprag.recognition.ctc_decoding import log_probabilities

Labels = tuple[int, ...]
"""A text in groups."""

DOUBLES = {"⋯": "…", "‧": "·", "─": "—", "﹣": "-", "﹑": "、"}
"""Signs the network lacks, and the ones it reads where they are drawn."""


class Alphabet:
    """The classes of the recogniser, in groups that NFKC makes equal; group 0 is the blank.

    Parameters
    ----------
    characters
        The character of each class, white space among them; the first is not one but the blank's name.

    Attributes
    ----------
    characters
        As given.
    space
        The group of white space.
    """

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = tuple(characters)
        self._groups: dict[str, int] = {}
        group_of = [self._groups.setdefault(_fold(character), len(self._groups)) for character in characters]
        self._leaders = np.array([group_of.index(group) for group in range(len(self._groups))], dtype=np.int64)
        self._others = np.setdiff1d(np.arange(len(group_of)), self._leaders)
        self._groups_of_others = np.array(group_of, dtype=np.int64)[self._others]
        self.space = self._groups[" "]

    def fold(self, matrix: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Add up the classes of each group.

        Parameters
        ----------
        matrix
            Probabilities, shape (T, classes), each row summing to 1.

        Returns
        -------
        numpy.ndarray
            Logarithms of the groups' probabilities, shape (T, groups), float32, nats.
        numpy.ndarray
            The likeliest class of each group, shape (groups,), int64.
        """
        folded = matrix[:, self._leaders]
        np.add.at(folded.T, self._groups_of_others, matrix[:, self._others].T)
        spelling, peaks = self._leaders.copy(), matrix.max(axis=0)
        for group, label in zip(self._groups_of_others.tolist(), self._others.tolist(), strict=True):
            if peaks[label] > peaks[spelling[group]]:
                spelling[group] = label
        return log_probabilities(folded).astype(np.float32), spelling

    def labellings(self, text: str) -> list[Labels]:
        """Give the ways to write a text in groups, with white space and without; none where impossible."""
        words = [self._word(word) for word in text.split()]
        if any(word is None for word in words):
            return []
        known = [word for word in words if word is not None]
        spaced = tuple(itertools.chain.from_iterable((self.space, *word) for word in known))[1:]
        return list(dict.fromkeys([spaced, self.letters(spaced)]))

    def letters(self, labels: Labels) -> Labels:
        """Leave out the white space."""
        return tuple(label for label in labels if label != self.space)

    def _word(self, word: str) -> Labels | None:
        labels: list[int] = []
        for character in word:
            folded = _fold(character)
            for spelling in ([folded], list(DOUBLES.get(folded, "")), list(unicodedata.normalize("NFKC", folded))):
                if spelling and all(one in self._groups for one in spelling):
                    labels += [self._groups[one] for one in spelling]
                    break
            else:
                return None
        return tuple(labels)


def _fold(character: str) -> str:
    folded = unicodedata.normalize("NFKC", character)
    return folded if len(folded) == 1 else character
