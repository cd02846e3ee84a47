"""BERTScore: how near the tokens of two texts are in the vectors of a language model, in their contexts.

The values are those of the package bert-score, without weights of rarity or a baseline to rescale them by: they lie
close together, and are of no meaning beside those of another model or layer. Owns the model; knows nothing of
corpora.

References
----------
Zhang et al., BERTScore: Evaluating Text Generation with BERT, ICLR 2020.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caprag.errors import ModelError
from caprag.progress import progress_bar

_LAYERS = {
    "bert-base-chinese": 8, "bert-base-multilingual-cased": 9, "bert-base-uncased": 9, "bert-large-uncased": 18,
    "distilbert-base-uncased": 5, "roberta-base": 10, "roberta-large": 17, "xlm-roberta-base": 9,
    "xlm-roberta-large": 17, "deberta-xlarge-mnli": 40,
}  # fmt: skip
"""The layer that bert-score takes by default, by the last part of a model's name: best on human judgements of WMT16."""

# These number positions from behind the padding token on, and know no word without a space before it.
_OFFSET_POSITIONS = ("camembert", "roberta", "xlm-roberta", "xlm-roberta-xl")
_SPACE_BEFORE = ("gpt2", "roberta")
_CHUNK = 256  # items whose vectors are held at a time


@dataclass(frozen=True, slots=True)
class BertScores:
    """Scores of items, each in [-1, 1]: the best over the references, each by itself.

    Attributes
    ----------
    precision
        How near the candidate's tokens are to their nearest in the reference, on average.
    recall
        The same the other way round.
    f1
        Their harmonic mean.
    signature
        Model, layer and a hash of the weights, without white space.
    """

    precision: tuple[float, ...]
    recall: tuple[float, ...]
    f1: tuple[float, ...]
    signature: str


def bert_score(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    model: str | PathLike[str],
    *,
    layer: int | None = None,
    device: str | None = None,
    batch_size: int = 64,
    progress: bool = False,
) -> BertScores:
    """Compute BERTScore of each item.

    Parameters
    ----------
    candidates
        Texts, one an item. One without a token has 0.
    references
        For each item at least one.
    model
        Hub id or folder of an encoder that transformers loads.
    layer
        Whose vectors are compared: 0 are the embeddings, and then each layer. ``None`` takes bert-score's own for
        models that it is known for, by their name, and else the last.
    device
        Where it runs, as torch names it; ``None`` takes a GPU where there is one.
    batch_size
        Texts that go through the model at a time, >= 1.
    progress
        Whether to show on stderr how far it is.

    Returns
    -------
    BertScores
        In the order of the items.

    Raises
    ------
    ModelError
        Where the model can't be loaded.
    ValueError
        For a layer that the model has not, or a batch size below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; at least 1 is needed")
    encoder = _Encoder(model, layer, device, batch_size)
    rows: list[tuple[float, float, float]] = []
    with progress_bar(len(candidates), "bertscore", " items", show=progress) as bar:
        for start in range(0, len(candidates), _CHUNK):
            part = slice(start, start + _CHUNK)
            pairs = list(zip(candidates[part], references[part], strict=True))
            found = encoder.encode(sorted({text for one, others in pairs for text in (one, *others)}))
            for candidate, truths in pairs:
                scored = [_match(found[candidate], found[truth]) for truth in truths]
                precision, recall, f1 = (max(column) for column in zip(*scored, strict=True))
                rows.append((precision, recall, f1))
            bar.update(len(pairs))
    columns = [tuple(row[i] for row in rows) for i in range(3)]
    return BertScores(columns[0], columns[1], columns[2], encoder.signature)


@dataclass(frozen=True, slots=True)
class _Encoded:
    vectors: npt.NDArray[np.float32]  # (tokens, dimension), of length 1
    counted: npt.NDArray[np.bool_]  # (tokens,): not the marks at both ends, which others may be near to all the same


def _match(candidate: _Encoded, reference: _Encoded) -> tuple[float, float, float]:
    if not candidate.counted.any() or not reference.counted.any():
        return 0.0, 0.0, 0.0
    near = candidate.vectors @ reference.vectors.T
    precision = float(near.max(axis=1)[candidate.counted].mean())
    recall = float(near.max(axis=0)[reference.counted].mean())
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0


class _Encoder:
    """Texts to the vectors of their tokens."""

    def __init__(
        self, model: str | PathLike[str], layer: int | None, device: str | None, batch_size: int
    ) -> None:  # fmt: skip
        import torch
        import transformers
        from safetensors import SafetensorError
        from transformers.utils import logging

        hub: Any = transformers  # its annotations differ from version to version
        name = fspath(model)
        # A relative or absolute path is never meant as a hub id.
        if (Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1) and not Path(name).is_dir():
            raise ModelError(f"{name}: no such folder; name an encoder's folder or hub id")
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            self._tokenizer = hub.AutoTokenizer.from_pretrained(name)
            loaded = hub.AutoModel.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ModelError(f"{name}: is not loaded as an encoder ({reason}); check the id or folder") from error
        finally:
            if bars:
                logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        config = loaded.config
        self._model = loaded.get_encoder() if config.is_encoder_decoder else loaded
        layers = int(config.num_hidden_layers)
        self._layer = _LAYERS.get(Path(name).name.lower(), layers) if layer is None else layer
        if not 0 <= self._layer <= layers:
            raise ValueError(f"layer is {self._layer} and {name} has {layers}; 0 to {layers} are possible")
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device).eval()
        known = int(getattr(config, "max_position_embeddings", 512))
        if config.model_type in _OFFSET_POSITIONS:
            known -= int(config.pad_token_id or 0) + 1
        # Models of relative positions say -1 or nothing.
        self._longest = min(self._tokenizer.model_max_length, known if known > 0 else 512)
        self._space = " " if config.model_type in _SPACE_BEFORE else ""
        self._batch_size = batch_size
        digest = hashlib.sha256()
        for key, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{key} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        self.signature = f"{'_'.join(Path(name).name.split())},layer={self._layer}/{layers},{digest.hexdigest()[:12]}"

    def encode(self, texts: Sequence[str]) -> dict[str, _Encoded]:
        """Encode texts, which are distinct."""
        import torch

        marks = {self._tokenizer.cls_token_id, self._tokenizer.sep_token_id}
        padding = self._tokenizer.pad_token_id or 0
        # Tokenizers refuse lone surrogates.
        clean = [self._space + text.strip().encode("utf-8", "replace").decode("utf-8") for text in texts]
        ids = [self._tokenizer(text, truncation=True, max_length=self._longest)["input_ids"] for text in clean]
        found: dict[str, _Encoded] = {}
        # Neighbours in length share a batch: what is short is not padded to what is long.
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            width = max(1, len(ids[batch[-1]]))
            padded = torch.tensor([ids[i] + [padding] * (width - len(ids[i])) for i in batch])
            mask = torch.tensor([[1] * len(ids[i]) + [0] * (width - len(ids[i])) for i in batch])
            with torch.inference_mode():
                states = self._model(
                    padded.to(self._device), attention_mask=mask.to(self._device), output_hidden_states=True
                ).hidden_states[self._layer]
                vectors = torch.nn.functional.normalize(states, dim=-1).cpu().numpy()
            for row, i in zip(vectors, batch, strict=True):
                counted = np.array([token not in marks for token in ids[i]], np.bool_)
                found[texts[i]] = _Encoded(row[: len(ids[i])], counted)
        return found
