"""Scores of pairs of texts by a cross-encoder: any BGE reranker, or another sequence classifier with one label.

The model reads both texts at once, which is slow and tells more than two vectors do: it is for tens of candidates, not
for a corpus. Knows nothing of what the texts are.

References
----------
Nogueira and Cho, Passage Re-ranking with BERT, 2019, arXiv 1901.04085.
Xiao et al., C-Pack: Packed Resources For General Chinese Embeddings, SIGIR 2024: BGE's rerankers.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from caprag.errors import ModelError
from caprag.progress import progress_bar

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

ScoreUnit = Literal["logit", "probability"]
"""What the model's last layer says, any number; or its logistic function, in (0, 1)."""

# Pairs of like length go through together within so many.
_CHUNK = 2048
# These number positions from behind the padding token on.
_OFFSET_POSITIONS = ("camembert", "roberta", "xlm-roberta", "xlm-roberta-xl")


class CrossEncoderScorer:
    """Scores pairs of texts.

    Parameters
    ----------
    model
        The loaded model, with one label.
    name
        What it was loaded by.
    batch_size
        Pairs that go through the model at a time, >= 1.

    Raises
    ------
    ValueError
        For a batch size below 1, or a model with more than one label.
    """

    def __init__(self, model: CrossEncoder, name: str, *, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
        if model.num_labels != 1:
            raise ValueError(f"model has {model.num_labels} labels; a reranker has 1")
        self._model = model
        self._name = name
        self._batch_size = batch_size

    @property
    def name(self) -> str:
        """The id or folder it was loaded from."""
        return self._name

    @property
    def max_length(self) -> int:
        """Most tokens of a pair, special ones included; longer pairs are cut, the longer text first."""
        return int(self._model.max_seq_length or 0)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, vocabulary and window."""
        digest = hashlib.sha256(f"{self.max_length}".encode())
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        vocabulary = self._model.tokenizer.get_vocab()
        digest.update("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()

    def score(
        self, pairs: Sequence[tuple[str, str]], *, unit: ScoreUnit = "probability", progress: bool = False
    ) -> npt.NDArray[np.float32]:
        """Score pairs.

        Parameters
        ----------
        pairs
            Query and candidate; which is which matters. A lone surrogate is read as "?".
        unit
            Of the scores. Both rank alike; a probability near 0 or 1 may have lost its digits.
        progress
            Whether to show on stderr how far it is.

        Returns
        -------
        numpy.ndarray
            Shape (len(pairs),), float32, in the order of the pairs, higher is better.

        Raises
        ------
        ValueError
            For an unknown unit.
        TypeError
            For what is no pair of texts.

        Examples
        --------
        >>> scorer = load_cross_encoder("BAAI/bge-reranker-v2-m3")  # doctest: +SKIP
        >>> scorer.score([("床前灑滿了月光", "床前明月光"), ("床前灑滿了月光", "春眠不覺曉")])  # doctest: +SKIP
        array([0.98, 0.01], dtype=float32)
        """
        import torch

        if unit not in get_args(ScoreUnit):
            raise ValueError(f"unit is {unit!r}; known are {', '.join(get_args(ScoreUnit))}")
        texts = [_clean(pair) for pair in pairs]
        activation = torch.nn.Sigmoid() if unit == "probability" else torch.nn.Identity()
        # Neighbours in length share a batch: what is short is not padded to what is long.
        order = sorted(range(len(texts)), key=lambda i: -sum(map(len, texts[i])))
        scores = np.zeros(len(texts), np.float32)
        with progress_bar(len(texts), "score", " pairs", show=progress) as bar:
            for start in range(0, len(order), _CHUNK):
                chunk = order[start : start + _CHUNK]
                scores[chunk] = self._model.predict(
                    [texts[i] for i in chunk], batch_size=self._batch_size, activation_fn=activation,
                    show_progress_bar=False,
                )  # fmt: skip
                bar.update(len(chunk))
        return scores


def _clean(pair: Sequence[str]) -> tuple[str, str]:
    if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
        raise TypeError(f"a pair is {pair!r}; two texts are wanted")
    # Tokenizers refuse lone surrogates.
    query, candidate = (text.encode("utf-8", "replace").decode("utf-8") for text in pair)
    return query, candidate


def load_cross_encoder(
    model: str | PathLike[str], *, device: str | None = None, batch_size: int = 32, max_length: int | None = None
) -> CrossEncoderScorer:
    """Load a cross-encoder.

    Parameters
    ----------
    model
        Hub id or folder of a sequence classifier with one label, such as ``BAAI/bge-reranker-base``, ``-large`` and
        ``-v2-m3``, those of sentence_transformers, and those that `caprag.training.cross_encoder` writes.
    device
        Where it runs, as torch names it; ``None`` takes a GPU where there is one.
    batch_size
        Pairs that go through the model at a time, >= 1.
    max_length
        Most tokens of a pair, >= 4; ``None`` takes all that the model knows, at most 512.

    Returns
    -------
    CrossEncoderScorer
        Ready to score.

    Raises
    ------
    ModelError
        Where the model can't be loaded, is of another kind, has not one label, or lacks its last layer.
    ValueError
        For a batch size or length that is too small.
    """
    import torch
    from safetensors import SafetensorError
    from sentence_transformers import CrossEncoder
    from transformers import AutoConfig
    from transformers.utils import logging

    if max_length is not None and max_length < 4:
        raise ValueError(f"max_length is {max_length}; at least 4 is needed: one token of each text and their marks")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
    name = fspath(model)
    # A relative or absolute path is never meant as a hub id.
    looks_local = Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1
    if looks_local and not Path(name).is_dir():
        raise ModelError(f"{name}: no such folder; name a cross-encoder's folder or hub id")
    bars = logging.is_progress_bar_enabled()
    # A bar for each file of a small model says nothing.
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        config = AutoConfig.from_pretrained(name)
        # Without these checks transformers would make up the missing layer, and all scores with it.
        kind = (config.architectures or ["model of no known kind"])[0]
        if not kind.endswith("ForSequenceClassification"):
            raise ModelError(f"{name}: is a {kind}, not a sequence classifier; name a cross-encoder, or train one")
        if config.num_labels != 1:
            raise ModelError(f"{name}: has {config.num_labels} labels; a cross-encoder that ranks has 1")
        loaded = CrossEncoder(name, device=device, max_length=max_length, model_kwargs={"dtype": torch.float32})
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(f"{name}: is not loaded as a cross-encoder ({reason}); check the id or folder") from error
    finally:
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    known = getattr(config, "max_position_embeddings", 512)
    if config.model_type in _OFFSET_POSITIONS:
        known -= int(config.pad_token_id or 0) + 1
    loaded.max_seq_length = min(max_length or 512, known, loaded.max_seq_length or known)
    return CrossEncoderScorer(loaded, name, batch_size=batch_size)
