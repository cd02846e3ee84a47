"""The reading-noise channel: from sentences, the readings that a recognizer might have made of their pictures.

Every letter has a rate of events: its line's, times its own, times its place's. An event misreads the letter, drops
it, splits it, merges it with the next, or puts letters before it. Signs are misread beside that, and a line may lose
an end or be joined with another. The numbers are fitted on readings with their truth (caprag.noise.fitting). It knows
nothing of meaning or of pictures: that an error is likelier where the picture is bad is in the lines' rates alone.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Sequence
from os import PathLike

import numpy as np

from caprag.noise.draws import uniforms
from caprag.noise.lines import LINE, Lines
from caprag.noise.parameters import Parameters
from caprag.noise.tables import Tables, draw

_BLOCK = 2048
_BREAK = re.compile(r" *\n *")


class NoiseChannel:
    """Makes readings from sentences.

    Attributes
    ----------
    parameters
        What it was fitted to.

    Examples
    --------
    >>> channel = NoiseChannel.load()
    >>> readings = channel.corrupt(["妳在開玩笑嗎?", "是的,我明白了。"], seed=1, strength=0.3)
    >>> readings == [channel.corrupt([text], seed=1, strength=0.3, start=i)[0]
    ...              for i, text in enumerate(["妳在開玩笑嗎?", "是的,我明白了。"])]
    True
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._tables = Tables(parameters)

    @classmethod
    def load(cls, path: str | PathLike[str] | None = None) -> NoiseChannel:
        """Load the shipped channel, or one that `save` wrote.

        Raises
        ------
        ModelError
            Where the file is missing or is no channel of this version.
        """
        return cls(Parameters.load(path))

    @classmethod
    def fit(
        cls,
        pairs: Iterable[tuple[str, str]],
        *,
        sources: Sequence[str] | None = None,
        splits: dict[str, str] | None = None,
        provenance: dict[str, object] | None = None,
    ) -> NoiseChannel:
        """Fit a channel on readings with their truth.

        Parameters
        ----------
        pairs
            Reading and truth of lines, any form.
        sources
            What each pair is from, such as its film: misreadings that are told by other sources weigh more. ``None``
            sees four sources, one behind the other.
        splits
            Letter to the two letters that it looks like; ``None`` takes the shipped ones.
        provenance
            What the pairs are, for the record.

        Raises
        ------
        ValueError
            Where no truth has a letter, and where the sources are not as many as the pairs.
        """
        from caprag.noise.fitting import fit_parameters

        return cls(fit_parameters(pairs, sources=sources, splits=splits, provenance=provenance))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the parameters as JSON; equal channels give equal bytes."""
        self.parameters.save(path)

    def corrupt(
        self,
        texts: Sequence[str],
        *,
        seed: int = 0,
        strength: float | None = None,
        misread_only: bool = False,
        start: int = 0,
        joins: float = 0.0,
        neighbours: Sequence[str] | None = None,
    ) -> list[str]:
        """Read each text as a recognizer might.

        A reading depends on the seed, on the text's number and on the text alone (and on its neighbour, where they are
        joined), so that any batches give the same. A text with a letter or digit never becomes one without: where all
        would be gone one is left as it was. (Lines of which a reader saw nothing at all are known by their share,
        ``parameters.single["lost"]``, and not played.) With one seed, a greater strength adds errors to those of a
        smaller one, for the most part.

        Parameters
        ----------
        texts
            Sentences in their written form (`caprag.text.normalize`).
        seed
            Any int >= 0.
        strength
            ``None``: misread as often as the pairs it was fitted on, most lines not at all. Else the character error
            rate over letters and digits that many lines have together, in [0, 1]; a sign is then misread with the same
            probability.
        misread_only
            Only where `strength` is ``None``: each text with a letter has an event, as the misread lines among the
            pairs have; a few events leave a text as it is, such as one of two equal letters dropped and doubled.
        start
            Number of the first text, >= 0.
        joins
            Probability that a text is read together with its neighbour, in [0, 1].
        neighbours
            The neighbour of each text, as many; ``None``: the text that follows (of the last one, that stands before).

        Returns
        -------
        list of str
            One reading a text, in one line: where the readers of the pairs broke a line stands a space, and so between
            two lines that are joined. Line breaks that a text alone has itself stay.

        Raises
        ------
        ValueError
            For a number that is out of its range, and where the neighbours are not as many as the texts.
        TypeError
            For a seed or start that is no whole number.
        """
        if strength is not None and not 0 <= strength <= 1:
            raise ValueError(f"strength is {strength}; it must lie in [0, 1]")
        if strength is not None and misread_only:
            raise ValueError(f"strength is {strength} and misread_only is True; a strength has clean lines too")
        if not 0 <= joins <= 1:
            raise ValueError(f"joins is {joins}; it must lie in [0, 1]")
        # Numbers of NumPy overflow.
        seed, start = operator.index(seed), operator.index(start)
        if seed < 0 or start < 0:
            raise ValueError(f"seed is {seed} and start is {start}; both must be >= 0")
        if neighbours is not None and len(neighbours) != len(texts):
            raise ValueError(f"there are {len(texts)} texts and {len(neighbours)} neighbours")
        if joins:
            joined = self._join(texts, neighbours, joins, seed, start)
            readings = self._read(joined, seed, strength, misread_only, start)
            # Two lines that were read as one: they stood below each other, and a reading is one line.
            return [
                reading if text == whole else _BREAK.sub(" ", reading)
                for text, whole, reading in zip(texts, joined, readings, strict=True)
            ]
        return self._read(texts, seed, strength, misread_only, start)

    def _read(
        self, texts: Sequence[str], seed: int, strength: float | None, misread_only: bool, start: int
    ) -> list[str]:
        if strength == 0:
            return list(texts)
        found: list[str] = []
        for first in range(0, len(texts), _BLOCK):
            block = Lines(texts[first : first + _BLOCK], self._tables, self.parameters, seed, start + first)
            found += block.read(strength, misread_only=misread_only)
        return found

    def _join(
        self, texts: Sequence[str], neighbours: Sequence[str] | None, joins: float, seed: int, start: int
    ) -> list[str]:
        if neighbours is None:
            neighbours = [*texts[1:], *texts[-2:-1]] if len(texts) > 1 else [""] * len(texts)
        numbers = np.arange(start, start + len(texts))
        draws = uniforms(seed, numbers, np.full(len(texts), LINE), 3).T.tolist()
        joined = []
        for text, other, (whether, order, between, _) in zip(texts, neighbours, draws, strict=True):
            if whether < joins and text and other:
                sign = draw(self._tables.joins, between)
                joined.append(f"{text}{sign}{other}" if order < 0.5 else f"{other}{sign}{text}")
            else:
                joined.append(text)
        return joined
