"""Vectors with ids, searched by cosine.

The one owner of faiss; its factory strings say what kind of index it is. Knows nothing of texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

# Queries from which matrix products are faster than one distance at a time; measured with faiss-cpu 1.15.
_BLAS_FROM = 20


class VectorIndex:
    """An index of unit vectors.

    Parameters
    ----------
    dimension
        Length of a vector.
    factory
        FAISS factory string.

    Raises
    ------
    ValueError
        For a factory string that FAISS does not know, or that maps ids itself.
    """

    def __init__(self, dimension: int, factory: str) -> None:
        try:
            inner = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
        except RuntimeError as error:
            raise ValueError(
                f"factory {factory!r} is unknown to FAISS ({_reason(error)}); try Flat or IVF256,Flat"
            ) from None
        if isinstance(inner, faiss.IndexIDMap):
            raise ValueError(f"factory {factory!r} maps ids, which caprag does itself; leave IDMap away")
        # Inverted lists keep ids themselves. A map beside them would count places, which removing does not shift there.
        has_ids = faiss.try_extract_index_ivf(inner) is not None and not isinstance(inner, faiss.IndexRefine)
        self._index: faiss.Index = inner if has_ids else faiss.IndexIDMap2(inner)
        self._factory = factory
        self._look_around()

    @classmethod
    def load(cls, path: Path, factory: str) -> VectorIndex:
        """Read a file that `save` wrote; RuntimeError where FAISS can't."""
        loaded = cls.__new__(cls)
        loaded._index = faiss.read_index(str(path))
        loaded._factory = factory
        loaded._look_around()
        return loaded

    def _look_around(self) -> None:
        """Search as many cells as the square root of their number; FAISS would search one, and miss a lot."""
        cells = faiss.try_extract_index_ivf(self._index)
        if cells is not None:
            cells.nprobe = max(1, round(math.sqrt(cells.nlist)))

    def save(self, path: Path) -> None:
        """Write to a file in FAISS's own format; RuntimeError where FAISS can't."""
        faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        """Return the number of vectors, those that could not be removed included."""
        return int(self._index.ntotal)

    @property
    def is_trained(self) -> bool:
        """Whether it takes vectors without `train`."""
        return bool(self._index.is_trained)

    def train(self, vectors: npt.NDArray[np.float32]) -> None:
        """Fit cells and codes to vectors, shape (n, dimension); ValueError where they are too few."""
        try:
            self._index.train(vectors)
        except RuntimeError as error:
            raise ValueError(
                f"factory {self._factory!r} can't be trained on {len(vectors)} sentences ({_reason(error)}); "
                "use Flat, or fewer cells"
            ) from None

    def add(self, ids: Sequence[int], vectors: npt.NDArray[np.float32]) -> None:
        """Add vectors, shape (len(ids), dimension), under ids that are not in use."""
        self._index.add_with_ids(vectors, np.asarray(ids, np.int64))

    def remove(self, ids: Sequence[int]) -> None:
        """Remove vectors where this kind of index can; graph indexes keep them, and go on returning their ids."""
        try:
            self._index.remove_ids(faiss.IDSelectorBatch(np.asarray(ids, np.int64)))
        except RuntimeError:
            return

    def search(self, vectors: npt.NDArray[np.float32], k: int) -> list[list[tuple[int, float]]]:
        """Find the nearest vectors.

        Parameters
        ----------
        vectors
            Queries, shape (n, dimension), float32, rows of length 1.
        k
            At most this many for each, >= 1.

        Returns
        -------
        list of list of (int, float)
            Ids and cosines in [-1, 1], best first.
        """
        with _matrix_products():
            cosines, ids = self._index.search(vectors, min(k, len(self)))
        # Rounding and quantised vectors overshoot.
        return [
            [(int(i), min(max(float(s), -1.0), 1.0)) for i, s in zip(row, scores, strict=True) if i >= 0]
            for row, scores in zip(ids, cosines, strict=True)
        ]


@contextmanager
def _matrix_products() -> Iterator[None]:
    """Let FAISS use matrix products for small batches too, where its own rule would not."""
    before = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = min(before, _BLAS_FROM)
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = before


def _reason(error: RuntimeError) -> str:
    return str(error).split("Error: ")[-1].strip()
