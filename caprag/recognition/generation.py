"""Token ids in, token ids and log-probabilities out: a generating transformers model without its text side.

Knows the two shapes such a model can have (decoder only, encoder-decoder) and nothing of families, pictures,
prompts or characters. Everything in a model's own generation settings that bends the probabilities
(repetition penalty, forced tokens, least length, sampling) is left out: what is searched and what is scored
is the model's own distribution.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import transformers

from caprag.errors import ModelError

_hub: Any = transformers  # its annotations differ from version to version

Inputs = Mapping[str, torch.Tensor]
Row = tuple[int, ...]

_TRIAL_TOKENS = 6
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
"""Nats a token by which two ways of computing the same log-probability may differ: rounding, no more."""


class SequenceModel:
    """Beam search and exact log-probabilities of token sequences.

    Parameters
    ----------
    model
        A transformers model with ``generate``, in evaluation mode.
    ends
        Ids of the tokens that end a sequence, at least one. The probability of the end is the sum of theirs.
    pad
        Id that fills up short rows.
    start
        For an encoder-decoder, the ids its decoder starts from; empty for a decoder-only model.
    batch_size
        At most this many rows are scored at once.

    Notes
    -----
    Scores come from one pass over the prompt, whose key-value cache all the sequences of a picture then
    share; the prompt of a picture is hundreds of tokens long and a caption ten. Whether a model's cache may
    be shared that way is not looked up by family but tried, once: the score of a few tokens must agree with
    the logits that the model's own ``generate`` had for them. Where it does not, whole sequences are scored
    without a cache, and where that does not agree either the model is refused.
    """

    def __init__(
        self, model: Any, *, ends: Sequence[int], pad: int, start: Sequence[int] = (), batch_size: int = 8
    ) -> None:
        self._model = model
        self._ends = list(ends)
        self._start = list(start)
        self._batch_size = batch_size
        self._ids: dict[str, Any] = {"eos_token_id": self._ends, "pad_token_id": pad}
        if start:
            self._ids["decoder_start_token_id"] = self._start[0]
        model.generation_config = _hub.GenerationConfig(**self._ids)
        forward = inspect.signature(model.forward).parameters
        self._prefill_options = {"logits_to_keep": 1} if "logits_to_keep" in forward else {}
        self._route: Callable[[Inputs, Sequence[Row]], list[tuple[float, float]]] | None = None

    def generate(self, inputs: Inputs, *, count: int, n_best: int, max_new_tokens: int) -> list[list[Row]]:
        """Search the most probable sequences.

        Parameters
        ----------
        inputs
            The model's inputs for `count` pictures, padded on the left.
        count
            Number of pictures in `inputs`.
        n_best
            Width of the beam and number of sequences a picture.
        max_new_tokens
            At most this many tokens a sequence, the end included.

        Returns
        -------
        list of list of tuple of int
            For each picture `n_best` sequences without prompt and end, in the order of their probability as
            far as the search knows it.
        """
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": n_best, "do_sample": False}
        if n_best > 1:
            # Length penalty 0: sequences compete by the probability of the whole, not by a mean per token.
            settings |= {"num_return_sequences": n_best, "length_penalty": 0.0, "early_stopping": False}
        sequences = self._generate(inputs, count, settings)
        rows = [self._until_end(row) for row in sequences[:, self._prompt_length(inputs) :].tolist()]
        return [rows[first : first + n_best] for first in range(0, len(rows), n_best)]

    @torch.no_grad()
    def logprobs(self, inputs: Inputs, rows: Sequence[Row]) -> list[float]:
        """Score token sequences for one picture.

        Parameters
        ----------
        inputs
            The model's inputs for one picture, not padded.
        rows
            Sequences without prompt and end; may be empty, and of any lengths.

        Returns
        -------
        list of float
            ln p(row and then the end | prompt and picture) in nats, each <= 0.

        Raises
        ------
        ModelError
            Where no way of scoring agrees with what the model does when it generates.
        """
        if not rows:
            return []
        if self._route is None:
            self._route = self._find_route(inputs)
        return [min(0.0, said + end) for said, end in self._route(inputs, rows)]

    def _generate(self, inputs: Inputs, count: int, settings: Mapping[str, Any]) -> Any:
        extra = {}
        if self._start:
            extra["decoder_input_ids"] = self._tensor([self._start] * count)
        config = _hub.GenerationConfig(**self._ids, **settings)
        with torch.no_grad():
            return self._model.generate(**inputs, **extra, generation_config=config)

    def _prompt_length(self, inputs: Inputs) -> int:
        return len(self._start) or inputs["input_ids"].shape[1]

    def _until_end(self, row: Sequence[int]) -> Row:
        stop = next((place for place, token in enumerate(row) if token in self._ends), len(row))
        return tuple(row[:stop])

    def _tensor(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.long, device=self._model.device)

    def _padded(self, rows: Sequence[Row]) -> torch.Tensor:
        longest = max(len(row) for row in rows)
        # What stands after a row's own tokens can't change their probabilities: attention looks back only.
        return self._tensor([[*row, *[self._ends[0]] * (longest - len(row))] for row in rows])

    def _sums(self, logits: torch.Tensor, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """Sum each row's log-probabilities; beside the sum, the end's. `logits`: (row, place, token)."""
        sums = []
        for table, row in zip(logits, rows, strict=True):
            wide = table[: len(row) + 1].to(torch.float32)
            norm = wide.logsumexp(dim=-1)
            said = wide[:-1].gather(1, self._tensor([row]).T)[:, 0] - norm[:-1]
            end = wide[-1, self._ends].logsumexp(dim=0) - norm[-1]
            sums.append((float(said.sum(dtype=torch.float64)), float(end)))
        return sums

    def _chunks(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        return [rows[first : first + self._batch_size] for first in range(0, len(rows), self._batch_size)]

    def _by_cache(self, inputs: Inputs, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """Read the prompt once, then let every row go on from copies of its cache."""
        prompt: dict[str, Any] = dict(inputs)
        if self._start:
            prompt["decoder_input_ids"] = self._tensor([self._start])
        prefill = self._model(**prompt, **self._prefill_options, use_cache=True)
        sums: list[tuple[float, float]] = []
        for chunk in self._chunks(rows):
            ids = self._padded(chunk)
            logits = prefill.logits[:, -1:].expand(len(chunk), -1, -1)
            if ids.shape[1]:
                copies = torch.zeros(len(chunk), dtype=torch.long, device=ids.device)
                cache = copy.deepcopy(prefill.past_key_values)
                cache.reorder_cache(copies)
                following: dict[str, Any] = {"input_ids": ids}
                if self._start:
                    encoded = prefill.encoder_last_hidden_state.index_select(0, copies)
                    following = {
                        "decoder_input_ids": ids,
                        "encoder_outputs": _hub.modeling_outputs.BaseModelOutput(last_hidden_state=encoded),
                    }
                    if "attention_mask" in inputs:
                        following["attention_mask"] = inputs["attention_mask"].index_select(0, copies)
                further = self._model(**following, past_key_values=cache, use_cache=True).logits
                logits = torch.cat([logits, further], dim=1)
            sums += self._sums(logits, chunk)
        return sums

    def _by_whole(self, inputs: Inputs, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """Read prompt and row in one pass, the prompt anew for every row."""
        length = self._prompt_length(inputs)
        sums: list[tuple[float, float]] = []
        for chunk in self._chunks(rows):
            ids = self._padded(chunk)
            # Repeated, not interleaved: right for one picture's patches on the first axis as well.
            whole = {name: value.repeat(len(chunk), *[1] * (value.dim() - 1)) for name, value in inputs.items()}
            if self._start:
                start = self._tensor([self._start] * len(chunk))
                whole["decoder_input_ids"] = torch.cat([start, ids], dim=1)
            else:
                for name, value in whole.items():
                    if name == "input_ids":
                        whole[name] = torch.cat([value, ids], dim=1)
                    elif value.dim() > 1 and not value.is_floating_point() and value.shape[1] == length:
                        # Masks and token types go on as they were at the prompt's last token.
                        last = value[:, -1:].repeat_interleave(ids.shape[1], dim=1)
                        whole[name] = torch.cat([value, last], dim=1)
            sums += self._sums(self._model(**whole, use_cache=False).logits[:, length - 1 :], chunk)
        return sums

    def _find_route(self, inputs: Inputs) -> Callable[[Inputs, Sequence[Row]], list[tuple[float, float]]]:
        """Take the first way of scoring that agrees with the model's own generation."""
        settings = {
            "max_new_tokens": _TRIAL_TOKENS,
            "min_new_tokens": _TRIAL_TOKENS,
            "do_sample": False,
            "output_logits": True,
            "return_dict_in_generate": True,
        }
        made = self._generate(inputs, 1, settings)
        row: Row = tuple(made.sequences[0, self._prompt_length(inputs) :].tolist())
        said, _ = self._sums(torch.stack([*made.logits, made.logits[-1]], dim=1), [row])[0]
        tolerance = _TOLERANCE.get(self._model.dtype, max(_TOLERANCE.values())) * len(row)
        differences: list[str] = []
        cause: Exception | None = None
        for route in (self._by_cache, self._by_whole):
            try:
                # Rows of two lengths: the longer one is compared, the shorter one makes the cache be shared.
                _, (found, _) = route(inputs, [row[:2], row])
            except (
                AttributeError,
                IndexError,
                KeyError,
                NotImplementedError,
                RuntimeError,
                TypeError,
                ValueError,
            ) as error:
                # A forward that has other inputs than this way assumes; the next way may fit.
                differences.append(f"{type(error).__name__}: {error}")
                cause = error
                continue
            if abs(found - said) <= tolerance:
                return route
            differences.append(f"{found:.4f} nats for what generate gave {said:.4f}")
        raise ModelError(
            f"{type(self._model).__name__} can't be scored by teacher forcing, so its readings have no "
            f"probability: with a shared cache {differences[0]}; without one {differences[1]}. "
            "Take a model of another family."
        ) from cause


def special_ids(name: str, model: Any, tokenizer: Any, processor: Any) -> tuple[tuple[int, ...], int, int]:
    """Ids of the ends of a text, of the padding, and of the start where there is no prompt."""
    settings = model.generation_config
    own = settings.eos_token_id
    ends = list(own) if isinstance(own, list | tuple) else [own]
    ends.append(tokenizer.eos_token_id)
    # GOT-OCR2's processor names the token that ends a turn, and neither its tokenizer nor its settings do.
    if (turn := getattr(processor, "message_end_token", None)) is not None:
        ends.append(tokenizer.convert_tokens_to_ids(turn))
    known = tuple(dict.fromkeys(end for end in ends if end is not None))
    if not known:
        raise ModelError(f"{name} names no token that ends a text; set eos_token_id in its generation_config.json")
    pad = next(found for found in (settings.pad_token_id, tokenizer.pad_token_id, known[0]) if found is not None)
    starts = (
        settings.decoder_start_token_id,
        getattr(model.config, "decoder_start_token_id", None),
        settings.bos_token_id,
        tokenizer.bos_token_id,
        tokenizer.cls_token_id,
        known[0],
    )
    return known, pad, next(found for found in starts if found is not None)
