"""Vectors with ids, searched by cosine.

The one owner of faiss; its factory strings say what kind of index it is. Knows nothing of texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

# Queries from which matrix products are faster than one distance at a time; measured with faiss-cpu 1.15.
_BLAS_FROM = 20
# FAISS looks at no more vectors for each cell when it trains.
_FOR_EACH_CELL = 256
_TO_TRAIN_CODES = 65_536
_ROWS_AT_A_TIME = 65_536
# FAISS's own values; cells have ours, see `VectorIndex.tune`.
_AT_FIRST = ("efSearch=16", "k_factor_rf=1")

Vectors = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


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
        self._parameters = ""
        self.tune("")

    @classmethod
    def load(cls, path: Path, factory: str, *, mapped: bool = True) -> VectorIndex:
        """Open a file that `save` wrote, mapped into memory or read whole; RuntimeError where FAISS can't."""
        loaded = cls.__new__(cls)
        # Mapped, pages are read when a search first needs them; such an index takes no new vectors.
        loaded._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        loaded._factory, loaded._parameters = factory, ""
        loaded.tune("")
        return loaded

    def copied(self) -> VectorIndex:
        """Return a copy in memory, which takes new vectors even where this one is mapped; needs twice the room."""
        copy = VectorIndex.__new__(VectorIndex)
        copy._index = faiss.deserialize_index(faiss.serialize_index(self._index))
        copy._factory, copy._parameters = self._factory, ""
        copy.tune(self._parameters)
        return copy

    def tune(self, parameters: str) -> None:
        """Set what is weighed while searching, as FAISS writes it: ``"nprobe=32"``, ``"efSearch=64"``, with commas.

        What is not named is as at first: as many cells as the square root of their number (FAISS would search one, and
        miss a lot), the rest as FAISS has it.

        Raises
        ------
        ValueError
            Where this kind of index has no such parameter, or the value is not a number >= 1.
        """
        for parameter in (*_AT_FIRST, f"nprobe={max(1, round(math.sqrt(self.cells)))}"):
            self._set(parameter)
        for parameter in parameters.split(",") if parameters else ():
            if not self._set(parameter):
                self.tune(self._parameters)
                raise ValueError(
                    f"search parameters {parameters!r}: {parameter!r} does not go with the factory {self._factory!r}; "
                    "nprobe is for IVF, efSearch for HNSW, k_factor_rf for RFlat, each with a number >= 1"
                )
        self._parameters = parameters

    def _set(self, parameter: str) -> bool:
        """Set one parameter; return whether there is such a one, and the value is one."""
        name, _, value = parameter.partition("=")
        try:
            number = float(value)
            if not 1 <= number < 2**31:
                return False
            faiss.ParameterSpace().set_index_parameter(self._index, name, number)
        except (ValueError, RuntimeError):
            return False
        return True

    def tunable(self) -> list[str]:
        """Return the names of the parameters that weigh its accuracy against its speed."""
        # What quantizer_efSearch sets in cells over a graph, efSearch sets too.
        names = [name for name in ("nprobe", "efSearch", "k_factor_rf") if self._set(f"{name}=1")]
        self.tune(self._parameters)
        return names

    @property
    def cells(self) -> int:
        """The number of its inverted lists; 0 for a kind that has none."""
        cells = faiss.try_extract_index_ivf(self._index)
        return 0 if cells is None else int(cells.nlist)

    def save(self, path: Path) -> None:
        """Write to a file in FAISS's own format; RuntimeError where FAISS can't."""
        faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        """Return the number of vectors, those whose sentences were removed since included."""
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._index.d)

    @property
    def is_trained(self) -> bool:
        """Whether it takes vectors without `train`."""
        return bool(self._index.is_trained)

    @property
    def training_size(self) -> int:
        """The number of vectors that training looks at; more are of no use."""
        return max(_TO_TRAIN_CODES, self.cells * _FOR_EACH_CELL)

    def train(self, vectors: Vectors) -> None:
        """Fit cells and codes to vectors, shape (n, dimension); ValueError where they are too few."""
        try:
            self._index.train(vectors)
        except RuntimeError as error:
            raise ValueError(
                f"factory {self._factory!r} can't be trained on {len(vectors)} sentences ({_reason(error)}); "
                "use Flat, or fewer cells"
            ) from None

    def add(self, ids: Sequence[int] | Ids, vectors: Vectors) -> None:
        """Add vectors, shape (len(ids), dimension); an id may stand for several."""
        self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.asarray(ids, np.int64))

    def blocks(self) -> Iterator[tuple[Ids, Vectors]]:
        """Yield ids and vectors (as near as their codes keep them) in blocks, in the order in which they lie.

        Raises
        ------
        RuntimeError
            For an index with inverted lists, which keeps no order.
        """
        if not isinstance(self._index, faiss.IndexIDMap):
            raise RuntimeError(f"factory {self._factory!r} keeps its vectors in inverted lists, in no order")
        ids, inner = faiss.vector_to_array(self._index.id_map), faiss.downcast_index(self._index.index)
        for start in range(0, len(ids), _ROWS_AT_A_TIME):
            count = min(_ROWS_AT_A_TIME, len(ids) - start)
            yield ids[start : start + count], inner.reconstruct_n(start, count)

    def remove(self, ids: Sequence[int] | Ids) -> None:
        """Take vectors out; a graph can't, and is made anew of the others."""
        gone = np.asarray(ids, np.int64)
        try:
            self._index.remove_ids(faiss.IDSelectorBatch(gone))
        except RuntimeError:
            kept = [(rows[keep], vectors[keep]) for rows, vectors in self.blocks() for keep in [~np.isin(rows, gone)]]
            # What it was trained to stays.
            self._index.reset()
            for rows, vectors in kept:
                self.add(rows, vectors)

    def search(self, vectors: Vectors, k: int) -> tuple[Ids, Vectors]:
        """Find the nearest vectors.

        Parameters
        ----------
        vectors
            Queries, shape (n, dimension), float32, rows of length 1.
        k
            At most this many for each, >= 1.

        Returns
        -------
        ids
            Shape (n, min(k, len(self))), best first; -1 where fewer were found.
        cosines
            Same shape, in [-1, 1].
        """
        with _matrix_products():
            cosines, ids = self._index.search(vectors, max(1, min(k, len(self))))
        # Rounding and quantised vectors overshoot.
        return ids, np.clip(cosines, -1.0, 1.0)


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
    return re.split(r"Error: | at \S+:\d+: ", str(error))[-1].strip()
