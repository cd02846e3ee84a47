"""How alike two characters look, and a distance between texts that knows it.

The table holds the shape of each character as a vector: drawn in two faces, blurred, shrunk, reduced by principal
components (scripts/make_glyphs.py). It knows nothing of meaning or sound, and nothing of characters that it was not
made for: those are as unlike as can be. What readers were seen to mix up can be added (`GlyphTable.counted`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein

_SHIPPED = Path(__file__).with_name("glyphs.npz")
_ROWS_AT_A_TIME = 512
_MOST_PAIRS = 40_000
_PAIRS_AT_A_TIME = 4096
_MOST_LONG = 128
_WORTH = 2.0
"""Counts that a shape's word is worth; see benchmarks/LOG.md for others."""
# Two characters may be drawn alike, and still are two.
_MOST_ALIKE = 0.999


@dataclass(frozen=True, slots=True, eq=False)
class GlyphTable:
    """The shapes of characters.

    Attributes
    ----------
    characters
        The characters it knows, sorted.
    vectors
        Shape (len(characters), 64), float32, rows of length 1; the cosine of two is how alike they look.
    index
        Character to row.
    factors
        What a substitution's cost is multiplied by, in (0, 1), by the two characters, both ways; 1 where there is none.
    """

    characters: list[str]
    vectors: npt.NDArray[np.float32]
    index: dict[str, int]
    factors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @staticmethod
    @functools.cache
    def load(path: Path = _SHIPPED) -> GlyphTable:
        """Load the shipped table, or another one made by scripts/make_glyphs.py; kept for the next call."""
        with np.load(path, allow_pickle=False) as stored:
            characters = [chr(c) for c in stored["characters"]]
            vectors = stored["shapes"].astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return GlyphTable(characters, vectors, {c: i for i, c in enumerate(characters)})

    def counted(self, counts: Mapping[str, int], worth: float = _WORTH) -> GlyphTable:
        """Return the same shapes with substitutions that are the cheaper the more often they were seen.

        A pair that was seen n times costs worth / (worth + n) of what it costs by its shapes: the mean of that cost
        and of n sightings that cost nothing.

        Parameters
        ----------
        counts
            Two characters, in whatever order, to how often one was read for the other, >= 0. They take the place of
            what was counted before.
        worth
            Sightings that the shapes count for, > 0.

        Raises
        ------
        ValueError
            For a worth or a count out of range, or a name that is not two characters.

        Examples
        --------
        >>> table = GlyphTable.load()
        >>> seen = table.counted({"乾幹": 6}, worth=2.0)
        >>> round((1 - seen.similarity("幹", "乾")) / (1 - table.similarity("幹", "乾")), 3)
        0.25
        """
        if not 0 < worth < math.inf:
            raise ValueError(f"worth is {worth}; it must be above 0, and finite")
        both: Counter[tuple[str, ...]] = Counter()
        for pair, count in counts.items():
            if len(pair) != 2 or count < 0:
                raise ValueError(f"{pair!r} was seen {count} times; wanted are two characters, and 0 times or more")
            both[tuple(sorted(pair))] += count
        factors: dict[str, dict[str, float]] = {}
        for (one, other), count in both.items():
            factors.setdefault(one, {})[other] = factors.setdefault(other, {})[one] = worth / (worth + count)
        return replace(self, factors=factors)

    def similarity(self, a: str, b: str) -> float:
        """Return how alike two characters look, in [0, 1]; 1 for equal ones only.

        Without counts it is 0 where one is unknown.

        Examples
        --------
        >>> table = GlyphTable.load()
        >>> table.similarity("睛", "晴") > 0.9 > 0.2 > table.similarity("睛", "一")
        True
        """
        if a == b:
            return 1.0
        i, j = self.index.get(a), self.index.get(b)
        alike = 0.0 if i is None or j is None else float(self.vectors[i] @ self.vectors[j])
        cost = (1.0 - min(max(0.0, alike), _MOST_ALIKE)) * self.factors.get(a, {}).get(b, 1.0)
        return 1.0 - cost

    def distance(self, a: str, b: str) -> float:
        """Return the edit distance of two texts in which a look-alike costs less than a stranger.

        An insertion or deletion costs 1; a substitution costs 1 minus the similarity of the two characters.

        Parameters
        ----------
        a, b
            Any texts.

        Returns
        -------
        float
            In [0, max(len(a), len(b))]; symmetric; 0 for equal texts only; never above the Levenshtein distance.
            Where what differs is longer than any caption (more than 40,000 pairs of characters) it is that distance.

        References
        ----------
        Wagner and Fischer, The String-to-String Correction Problem, JACM 21(1), 1974.
        """
        while a and b and a[0] == b[0]:
            a, b = a[1:], b[1:]
        while a and b and a[-1] == b[-1]:
            a, b = a[:-1], b[:-1]
        if len(a) * len(b) > _MOST_PAIRS:
            return float(Levenshtein.distance(a, b))
        previous = [float(j) for j in range(len(b) + 1)]
        for i, row in enumerate(self.substitutions(a, b).tolist(), 1):
            current = [float(i)]
            for j, cost in enumerate(row):
                current.append(min(previous[j] + cost, previous[j + 1] + 1.0, current[j] + 1.0))
            previous = current
        return previous[-1]

    def distances(self, a: Sequence[str], b: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return `distance` of each pair of two lists of texts, many times faster than one by one.

        Parameters
        ----------
        a, b
            Texts, as many; of each the first 128 characters count.

        Returns
        -------
        numpy.ndarray
            Shape (len(a),), float32, in [0, 128].

        Raises
        ------
        ValueError
            Where the lists differ in length.
        """
        if len(a) != len(b):
            raise ValueError(f"there are {len(a)} and {len(b)} texts; they must be as many")
        distances = np.zeros(len(a), np.float32)
        # Pairs of like length go through together, so that little is spent on padding.
        order = np.lexsort((list(map(len, b)), list(map(len, a)))).tolist()
        for start in range(0, len(order), _PAIRS_AT_A_TIME):
            rows = order[start : start + _PAIRS_AT_A_TIME]
            distances[rows] = self._distances([a[i][:_MOST_LONG] for i in rows], [b[i][:_MOST_LONG] for i in rows])
        return distances

    def _distances(self, a: Sequence[str], b: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return the distances of pairs, all of which go through the same steps."""
        rows, columns = _codes(a), _codes(b)
        ours, row_places = np.unique(rows, return_inverse=True)
        theirs, column_places = np.unique(columns, return_inverse=True)
        costs = self.substitutions("".join(map(chr, ours)), "".join(map(chr, theirs))).ravel()
        # Where a pair of characters lies in them; characters by row, so that what is added up lies side by side.
        row_places, column_places = row_places.reshape(rows.shape) * len(theirs), column_places.reshape(columns.shape)
        lengths, ends = (np.array(list(map(len, texts))) for texts in (a, b))
        current = np.repeat(np.arange(len(columns) + 1, dtype=np.float32)[:, None], len(a), 1)
        result: npt.NDArray[np.float32] = current[ends, np.arange(len(a))]
        for i, places in enumerate(row_places, 1):
            swapped = current[:-1] + costs[places + column_places]
            current += 1.0
            np.minimum(current[1:], swapped, out=current[1:])
            for before, now in itertools.pairwise(current):
                np.minimum(now, before + 1.0, out=now)
            done = np.flatnonzero(lengths == i)
            result[done] = current[ends[done], done]
        return result

    def substitutions(self, a: str, b: str) -> npt.NDArray[np.float32]:
        """Return what it costs to read each character of `b` for each of `a`: shape (len(a), len(b)), in [0, 1]."""
        rows, columns = ([self.index.get(c, -1) for c in text] for text in (a, b))
        costs: npt.NDArray[np.float32] = self.vectors[rows] @ self.vectors[columns].T
        np.subtract(1.0, np.clip(costs, 0.0, _MOST_ALIKE, out=costs), out=costs)
        costs[np.equal(rows, -1)] = 1.0
        costs[:, np.equal(columns, -1)] = 1.0
        seen: dict[str, list[int]] = {}
        for place, c in enumerate(b):
            seen.setdefault(c, []).append(place)
        for row, c in enumerate(a):
            for place in seen.get(c, ()):
                costs[row, place] = 0.0
            for other in self.factors.get(c, {}).keys() & seen.keys():
                for place in seen[other]:
                    costs[row, place] *= self.factors[c][other]
        return costs

    def neighbours(self, characters: Sequence[str], k: int) -> dict[str, list[str]]:
        """Return for each known character the `k` others among `characters` that look most like it, best first."""
        known = [c for c in characters if c in self.index]
        vectors = self.vectors[[self.index[c] for c in known]]
        k = min(k, len(known) - 1)
        found: dict[str, list[str]] = {}
        for start in range(0, len(known), _ROWS_AT_A_TIME):
            similarity = vectors[start : start + _ROWS_AT_A_TIME] @ vectors.T
            similarity[np.arange(len(similarity)), np.arange(start, start + len(similarity))] = -2.0
            best = np.argpartition(-similarity, k, axis=1)[:, :k]
            for row, columns in enumerate(best, start):
                ranked = sorted(columns, key=lambda j: (-similarity[row - start, j], j))
                found[known[row]] = [known[j] for j in ranked]
        return found


def _codes(texts: Sequence[str]) -> npt.NDArray[np.uint32]:
    """Return the code points of texts, filled up with 0: shape (longest, len(texts))."""
    longest = max(map(len, texts), default=0)
    filled = "".join(text.ljust(longest, "\0") for text in texts)
    codes = np.frombuffer(filled.encode("utf-32-le", "surrogatepass"), "<u4")
    return np.ascontiguousarray(codes.reshape(len(texts), longest).T)
