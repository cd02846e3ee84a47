"""Texts to unit vectors, by any SentenceTransformer or BGE model.

The one owner of sentence_transformers. It knows nothing of indexes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caprag.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

SHIPPED = "shipped"
_SHIPPED_FOLDER = Path(__file__).with_name("embedder")


class SentenceEmbedder:
    """An `caprag.types.Embedder` around a SentenceTransformer.

    Parameters
    ----------
    model
        The loaded model; its last step need not normalise, the vectors are normalised here.
    name
        What it was loaded by; an index stores it to load the model again.
    batch_size
        Texts embedded at a time, >= 1.

    Raises
    ------
    ValueError
        For a batch size below 1.
    """

    def __init__(self, model: SentenceTransformer, name: str, *, batch_size: int = 256) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
        self._model = model
        self._name = name
        self._batch_size = batch_size

    @property
    def name(self) -> str:
        """The id or folder it was loaded from; ``"shipped"`` for the one that comes with caprag."""
        return self._name

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.get_embedding_dimension() or 0)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, vocabulary, modules and window; the precision they are loaded in does not change it."""
        digest = hashlib.sha256()
        for module in self._model:
            digest.update(f"{type(module).__name__} {getattr(module, 'pooling_mode', '')}".encode())
        digest.update(f"{self._model.max_seq_length}".encode())
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        vocabulary = self._model.tokenizer.get_vocab()
        digest.update("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Embed texts.

        Parameters
        ----------
        texts
            Any strings; what is longer than the model's window is cut by the model, a lone surrogate is read as "?".
        progress
            Whether to show a progress bar on stderr.

        Returns
        -------
        numpy.ndarray
            Shape (len(texts), dimension), float32, rows of Euclidean length 1.
        """
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        vectors = self._model.encode(
            # Tokenizers refuse lone surrogates.
            [text.encode("utf-8", "replace").decode("utf-8") for text in texts],
            batch_size=self._batch_size,
            show_progress_bar=progress,
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        return np.ascontiguousarray(vectors, np.float32)


def load_embedder(
    model: str | PathLike[str] = SHIPPED, *, device: str | None = None, batch_size: int = 256
) -> SentenceEmbedder:
    """Load an embedder.

    Parameters
    ----------
    model
        ``"shipped"``, or the hub id or folder of a SentenceTransformer or BGE model. A folder of a plain transformers
        encoder is read as BGE is: the vector of the first token, normalised.
    device
        Where it runs, as torch names it; ``None`` takes a GPU where there is one.
    batch_size
        Texts embedded at a time, >= 1.

    Returns
    -------
    SentenceEmbedder
        Ready to embed.

    Raises
    ------
    ModelError
        Where the model can't be loaded.

    Examples
    --------
    >>> embedder = load_embedder()
    >>> vectors = embedder.embed(["你在開玩笑嗎", "你在閒玩笑嗎", "今天天氣很好"])
    >>> bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
    True
    """
    import torch
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers.utils import logging

    name = fspath(model)
    folder = _SHIPPED_FOLDER if name == SHIPPED else Path(name)
    # A relative or absolute path is never meant as a hub id.
    looks_local = name == SHIPPED or folder.is_absolute() or name.startswith(".") or name.count("/") > 1
    if looks_local and not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; name an embedder's folder, a hub id, or {SHIPPED!r}")
    # Half precision saves disk; on a CPU it is slow and less exact than it need be.
    precision = {"dtype": torch.float32}
    bars = logging.is_progress_bar_enabled()
    # A bar for each file of a small model says nothing.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        if folder.is_dir() and not (folder / "modules.json").exists():
            encoder = Transformer(str(folder), model_kwargs=precision)
            head = Pooling(encoder.get_embedding_dimension(), pooling_mode="cls")
            loaded = SentenceTransformer(modules=[encoder, head, Normalize()], device=device)
        else:
            loaded = SentenceTransformer(
                str(folder) if folder.is_dir() else name, device=device, model_kwargs=precision
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"{name}: is not loaded as an embedder ({reason}); check the id or folder") from error
    finally:
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    return SentenceEmbedder(loaded.float(), name, batch_size=batch_size)
