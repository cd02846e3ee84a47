"""A BERT as fast as training it on a CPU can be made, with its vectors unchanged.

It knows texts and weights, nothing of losses.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from caprag.errors import ModelError
from caprag.training.saving import quiet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LeanEncoder:
    """A BERT whose last layer is computed for the first token alone; the vectors are those of the whole.

    Parameters
    ----------
    model
        A `transformers.BertModel` without dropout.
    tokenizer
        Its tokenizer.
    group_size
        Texts of like length that go through together, >= 1.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, group_size: int = 96) -> None:
        self.model: Any = model  # its layers have no types
        self.tokenizer = tokenizer
        self._group_size = group_size
        self._pieces = tokenizer.backend_tokenizer
        self._pieces.no_padding()
        self._pieces.enable_truncation(min(tokenizer.model_max_length, model.config.max_position_embeddings))

    @classmethod
    def load(cls, folder: str | PathLike[str], group_size: int = 96) -> LeanEncoder:
        """Load a BERT; ModelError where the folder holds none. It goes to the GPU where there is one."""
        import torch
        from transformers import AutoTokenizer, BertModel

        with quiet():
            try:
                kind = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("model_type")
                if kind != "bert":
                    raise ModelError(f"{folder}: is a {kind!r}; training from scratch takes a BERT")
                with torch.random.fork_rng():
                    # What the folder lacks, a pooler say, is drawn.
                    torch.manual_seed(0)
                    model: Any = BertModel.from_pretrained(folder, dtype=torch.float32)
                tokenizer = AutoTokenizer.from_pretrained(folder)
            except (OSError, ValueError) as error:
                raise ModelError(f"{folder}: is not loaded as a BERT ({error}); check the folder") from error
        if model.config.hidden_dropout_prob or model.config.attention_probs_dropout_prob:
            raise ModelError(f"{folder}: has dropout, which this loop does not know; set it to 0 in its config.json")
        model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model, tokenizer, group_size)

    def save(self, folder: Path) -> None:
        """Write it as transformers loads it."""
        self._pieces.no_truncation()
        with quiet():
            self.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)

    def embed(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the vectors of texts: shape (len(texts), hidden), rows of length 1, with their gradients."""
        import torch

        rows = [encoding.ids for encoding in self._pieces.encode_batch_fast(list(texts))]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        parts = []
        for start in range(0, len(order), self._group_size):
            group = [rows[i] for i in order[start : start + self._group_size]]
            tokens = np.zeros((len(group), len(group[-1])), np.int64)
            mask = np.zeros(tokens.shape, bool)
            for place, row in enumerate(group):
                tokens[place, : len(row)] = row
                mask[place, : len(row)] = True
            device = self.model.device
            parts.append(self.first_token(torch.from_numpy(tokens).to(device), torch.from_numpy(mask).to(device)))
        back = torch.tensor(order, device=parts[0].device).argsort()
        return torch.nn.functional.normalize(torch.cat(parts)[back], dim=1)

    def first_token(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the last hidden state of the first token: shape (texts, hidden).

        Parameters
        ----------
        tokens, mask
            Shape (texts, length): ids, and whether they count.
        """
        import torch

        config = self.model.config
        states = self.model.embeddings(input_ids=tokens)
        texts, width = len(tokens), config.hidden_size

        for number, layer in enumerate(self.model.encoder.layer):
            attention = layer.attention.self
            asking = states[:, :1] if number == config.num_hidden_layers - 1 else states
            query, key, value = (
                part(source).view(texts, source.shape[1], config.num_attention_heads, -1).transpose(1, 2)
                for part, source in ((attention.query, asking), (attention.key, states), (attention.value, states))
            )
            seen = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
            joined = layer.attention.output(seen.transpose(1, 2).reshape(texts, -1, width), asking)
            states = layer.output(layer.intermediate(joined), joined)
        first: torch.Tensor = states[:, 0]
        return first
