"""An embedder without a model: texts that share characters and pairs of characters have near vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


class HashingEmbedder:
    """Adds a random vector, drawn by its hash, for each character and pair of neighbours."""

    name = "hashing"

    def __init__(self, dimension: int = 24) -> None:
        self.dimension = dimension
        self.fingerprint = f"hashing-{dimension}"
        self.texts = 0
        """How many texts it has embedded."""
        self._drawn: dict[str, npt.NDArray[np.float64]] = {}

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> npt.NDArray[np.float32]:
        self.texts += len(texts)
        vectors = np.zeros((len(texts), self.dimension))
        for row, text in zip(vectors, texts, strict=True):
            for gram in (*text, *(text[i : i + 2] for i in range(len(text) - 1)), "^" + text[:1]):
                if gram not in self._drawn:
                    digest = hashlib.blake2b(gram.encode("utf-8", "replace"), digest_size=8).digest()
                    generator = np.random.default_rng(int.from_bytes(digest, "big"))
                    self._drawn[gram] = generator.standard_normal(self.dimension)
                row += self._drawn[gram]
        unit: npt.NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit
