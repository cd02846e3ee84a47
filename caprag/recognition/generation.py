"""Token ids in, token ids and log-probabilities out: a generating transformers model without its text side.

Knows the two shapes such a model can have (decoder only, encoder-decoder) and nothing of families, pictures,
prompts or characters. Everything in a model's own generation settings that bends the probabilities
(repetition penalty, forced tokens, least length, sampling) is left out: what is searched and what is scored
is the model's own distribution.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import transformers

from caprag.errors import ModelError
from caprag.recognition.greedy import Generated, Row, Watcher
from caprag.recognition.memory import out_of_memory

_hub: Any = transformers  # its annotations differ from version to version

Inputs = Mapping[str, torch.Tensor]

_TRIAL_TOKENS = 6
_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
"""Nats a token by which two ways of computing the same log-probability may differ: rounding, no more."""

_MISFITS = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What a forward raises that wants other inputs than a way of scoring has for it."""


class Constraint(Protocol):
    """What texts the search keeps to; their scores stay the model's own."""

    def processor(self, *, prompt_length: int, eos_token_ids: Sequence[int]) -> Any:
        """Make a transformers ``LogitsProcessor`` for one search.

        Parameters
        ----------
        prompt_length
            Tokens that stand before the text in each row, padding included, >= 0.
        eos_token_ids
            Ids of the tokens that end a text, at least one.

        Returns
        -------
        transformers.LogitsProcessor
            Gets token ids, shape (rows, places), and scores, shape (rows, vocabulary).
        """

    def adjustment(self, tokens: Sequence[int]) -> float:
        """Say what the search adds to a finished text's log-probability.

        Parameters
        ----------
        tokens
            Ids of the text, without prompt and end.

        Returns
        -------
        float
            Nats; ``-inf`` for what only fills up a beam, and is no reading.
        """


@dataclass(frozen=True, slots=True)
class Prefix:
    """Pictures and prompts as the model has taken them in: what search and scoring share.

    Attributes
    ----------
    inputs
        The model's inputs, padded on the left.
    count
        Number of pictures, >= 1.
    cache
        Keys and values of the prompts, one row a picture; ``None`` where the model's can't be shared.
    logits
        What may follow each prompt, shape (count, vocabulary).
    encoded
        What an encoder made of the pictures, one row a picture.
    state
        What the model keeps of the prompts beside the cache: module and its position offsets, one row a picture.
    resumes
        Whether ``generate`` can go on from the cache; scoring always can.
    """

    inputs: Inputs
    count: int
    cache: Any = None
    logits: Any = None
    encoded: torch.Tensor | None = None
    state: tuple[tuple[torch.nn.Module, str, torch.Tensor], ...] = ()
    resumes: bool = False


class SequenceModel:
    """Beam search, sampling and exact log-probabilities of token sequences.

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
        At most this many rows are scored at once; may be set anew.

    Notes
    -----
    Pictures and prompts are read once (`read`); beams, draws and scored sequences all go on from copies of that
    cache: the prompt of a picture is hundreds of tokens long and a caption ten. Whether a model's cache may be
    shared that way is not looked up by family but tried, once for batches with padding and once for those
    without: a few tokens must get the same probability as in a plain ``generate``. Where they do not, ``generate``
    reads the prompt itself and whole sequences are scored without a cache, and where that does not agree either
    the model is refused.
    """

    def __init__(
        self, model: Any, *, ends: Sequence[int], pad: int, start: Sequence[int] = (), batch_size: int = 8
    ) -> None:
        self.batch_size = batch_size
        self._model = model
        self._ends = list(ends)
        self._start = list(start)
        self._ids: dict[str, Any] = {"eos_token_id": self._ends, "pad_token_id": pad}
        if start:
            self._ids["decoder_start_token_id"] = self._start[0]
        model.generation_config = _hub.GenerationConfig(**self._ids)
        self._misfit: dict[bool, str] = {}
        """Why the cache can't be shared, for batches without and with padding; empty: it can."""
        self._resumes: dict[bool, bool] = {}
        self._whole_fits = False

    @torch.no_grad()
    def read(self, inputs: Inputs, count: int) -> Prefix:
        """Take pictures and prompts in, once for all that follows.

        Parameters
        ----------
        inputs
            The model's inputs for `count` pictures, padded on the left.
        count
            Number of pictures in `inputs`, >= 1.

        Returns
        -------
        Prefix
            For `search` and `logprobs`.
        """
        padded = any(self._padding(inputs, place) for place in range(count))
        if self._misfit.get(padded):
            return Prefix(inputs, count)
        try:
            prefix = self._take_in(inputs, count)
            if padded not in self._misfit:
                misfit = self._differs(prefix, plain=True)
                resumes = not misfit and self._can_resume(prefix)
                # Both or none: the memory may run out in either.
                self._misfit[padded], self._resumes[padded] = misfit, resumes
        except _MISFITS as error:
            if padded in self._misfit or out_of_memory(error):
                raise
            self._misfit[padded] = f"{type(error).__name__}: {error}"
        if self._misfit[padded]:
            return Prefix(inputs, count)
        return replace(prefix, resumes=self._resumes[padded])

    def search(
        self,
        prefix: Prefix,
        *,
        n_best: int,
        max_new_tokens: int,
        constraint: Constraint | None = None,
        draw: Any = None,
        stop: Any = None,
    ) -> list[list[Generated]]:
        """Find probable sequences.

        Parameters
        ----------
        prefix
            What `read` gave.
        n_best
            Number of sequences a picture, and width of the beam; 1 is greedy.
        max_new_tokens
            At most this many tokens a sequence, the end included.
        constraint
            What the sequences keep to.
        draw
            A logits processor that leaves one token of each row, drawn: sequences are drawn instead of searched.
        stop
            A stopping criterion, which tells of each row of ids whether it is done.

        Returns
        -------
        list of list of Generated
            For each picture `n_best` sequences without prompt and end, in the order of their probability as
            far as the search knows it. A greedy search knows it exactly, where a sequence came to its end.
        """
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": 1, "do_sample": False}
        if draw is not None:
            settings |= {"do_sample": True, "top_k": 0, "num_return_sequences": n_best}
        elif n_best > 1:
            # Length penalty 0: sequences compete by the probability of the whole, not by a mean per token.
            settings |= {"num_beams": n_best, "num_return_sequences": n_best, "length_penalty": 0.0}
            settings["early_stopping"] = False
        length = self._prompt_length(prefix.inputs)
        bounds = constraint and constraint.processor(prompt_length=length, eos_token_ids=tuple(self._ends))
        watcher = Watcher(length, self._ends) if n_best == 1 and draw is None else None
        processors = [processor for processor in (watcher, bounds, draw) if processor is not None]
        tools: dict[str, Any] = {"logits_processor": _hub.LogitsProcessorList(processors)} if processors else {}
        if stop is not None:
            tools["stopping_criteria"] = _hub.StoppingCriteriaList([stop])
        sequences = self._go_on(prefix, settings, copies=n_best, **tools)
        rows = [Generated(self._until_end(row)) for row in sequences[:, length:].tolist()]
        if watcher is not None:
            known = watcher.logprobs(sequences)
            rows = [found._replace(logprob=value) for found, value in zip(rows, known, strict=True)]
        return [rows[first : first + n_best] for first in range(0, len(rows), n_best)]

    @torch.no_grad()
    def logprobs(self, prefix: Prefix, place: int, rows: Sequence[Row], alone: Callable[[], Inputs]) -> list[float]:
        """Score token sequences for one picture.

        Parameters
        ----------
        prefix
            What `read` gave.
        place
            Which of its pictures, from 0.
        rows
            Sequences without prompt and end; may be empty, and of any lengths.
        alone
            Makes the model's inputs for that picture by itself, not padded; asked only where the model's cache
            can't be shared.

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
        if prefix.cache is None:
            # Where padding is what can't be dealt with, a picture by itself can.
            prefix, place = self.read(alone(), 1), 0
        if prefix.cache is not None:
            sums = self._by_cache(prefix, place, rows)
        else:
            self._check_whole(prefix.inputs)
            sums = self._by_whole(prefix.inputs, rows)
        return [min(0.0, said + end) for said, end in sums]

    def _take_in(self, inputs: Inputs, count: int) -> Prefix:
        if self._start:
            start = self._tensor([self._start] * count)
            made = self._model(**inputs, decoder_input_ids=start, use_cache=True)
            encoded = made.encoder_last_hidden_state
            return Prefix(inputs, count, made.past_key_values, made.logits[:, -1].clone(), encoded)
        # One step of the model's own generation: it knows how the family counts places where rows are padded.
        settings = {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        made = self._generate(inputs, count, settings)
        if not isinstance(made.past_key_values, _hub.Cache):
            raise NotImplementedError(f"{type(self._model).__name__} gives no cache")
        found = [
            (module, name, getattr(module, name, None))
            for module in self._model.modules() for name in getattr(module, "kept_beside_cache", ("rope_deltas",))
        ]  # fmt: skip
        state = tuple((module, name, value.clone()) for module, name, value in found if isinstance(value, torch.Tensor))
        return Prefix(inputs, count, made.past_key_values, made.logits[0], state=state)

    def _go_on(self, prefix: Prefix, settings: Mapping[str, Any], *, copies: int = 1, **tools: Any) -> Any:
        """Run ``generate`` from a prefix, or from the inputs where it can't be shared."""
        inputs = prefix.inputs
        if not prefix.resumes:
            return self._generate(inputs, prefix.count, settings, **tools)
        if self._start:
            tools["encoder_outputs"] = _hub.modeling_outputs.BaseModelOutput(last_hidden_state=prefix.encoded)
            return self._generate(inputs, prefix.count, settings, **tools)
        length = self._prompt_length(inputs)
        cache = copy.deepcopy(prefix.cache)
        cache.crop(-1)  # the prompt's last token is read again: generate wants one to go on from
        if copies > 1:
            cache.batch_repeat_interleave(copies)
        _restore(prefix.state)
        texts = {name: value for name, value in inputs.items() if _along_text(value, length)}
        return self._generate(texts, prefix.count, settings, past_key_values=cache, **tools)

    def _generate(self, inputs: Inputs, count: int, settings: Mapping[str, Any], **extra: Any) -> Any:
        if self._start:
            extra["decoder_input_ids"] = self._tensor([self._start] * count)
        config = _hub.GenerationConfig(**self._ids, **settings)
        with torch.no_grad():
            return self._model.generate(**inputs, **extra, generation_config=config)

    def _prompt_length(self, inputs: Inputs) -> int:
        return len(self._start) or inputs["input_ids"].shape[1]

    def _padding(self, inputs: Inputs, place: int) -> int:
        if self._start or "attention_mask" not in inputs:
            return 0
        return int((inputs["attention_mask"][place] == 0).sum())

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
        return [rows[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size)]

    def _by_cache(self, prefix: Prefix, place: int, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """Let every row go on from copies of the picture's cache."""
        sums: list[tuple[float, float]] = []
        for chunk in self._chunks(rows):
            ids = self._padded(chunk)
            logits = prefix.logits[place].expand(len(chunk), 1, -1)
            if ids.shape[1]:
                copies = torch.full((len(chunk),), place, dtype=torch.long, device=ids.device)
                following: dict[str, Any] = {"input_ids": ids}
                if prefix.encoded is not None:
                    encoded = prefix.encoded.index_select(0, copies)
                    following = {
                        "decoder_input_ids": ids,
                        "encoder_outputs": _hub.modeling_outputs.BaseModelOutput(last_hidden_state=encoded),
                    }
                    if "attention_mask" in prefix.inputs:
                        following["attention_mask"] = prefix.inputs["attention_mask"].index_select(0, copies)
                _restore(prefix.state, place)
                cache = _select(prefix.cache, copies, self._padding(prefix.inputs, place))
                further = self._model(**following, past_key_values=cache, use_cache=True).logits
                logits = torch.cat([logits.to(further.dtype), further], dim=1)
            sums += self._sums(logits, chunk)
        return sums

    def _by_whole(self, inputs: Inputs, rows: Sequence[Row]) -> list[tuple[float, float]]:
        """Read prompt and row in one pass, each row by itself: not all inputs can be repeated."""
        length = self._prompt_length(inputs)
        sums: list[tuple[float, float]] = []
        for row in rows:
            ids = self._tensor([row])
            whole: dict[str, torch.Tensor] = dict(inputs)
            if self._start:
                whole["decoder_input_ids"] = torch.cat([self._tensor([self._start]), ids], dim=1)
            else:
                for name, value in inputs.items():
                    if name == "input_ids":
                        whole[name] = torch.cat([value, ids], dim=1)
                    elif _along_text(value, length):
                        # Masks and token types go on as they were at the prompt's last token.
                        whole[name] = torch.cat([value, value[:, -1:].repeat(1, len(row))], dim=1)
            sums += self._sums(self._model(**whole, use_cache=False).logits[:, length - 1 :], [row])
        return sums

    def _trial(self, prefix: Prefix) -> tuple[list[Row], list[float]]:
        """Generate a few tokens for each picture; the rows and their log-probabilities by generation's own logits."""
        settings = {
            "max_new_tokens": _TRIAL_TOKENS,
            "min_new_tokens": _TRIAL_TOKENS,
            "do_sample": False,
            "output_logits": True,
            "return_dict_in_generate": True,
        }
        made = self._go_on(prefix, settings)
        rows = [tuple(row) for row in made.sequences[:, self._prompt_length(prefix.inputs) :].tolist()]
        said = self._sums(torch.stack([*made.logits, made.logits[-1]], dim=1), rows)
        return rows, [total for total, _ in said]

    def _near(self, found: float, said: float) -> bool:
        loosest = max(_TOLERANCE.values())
        # Weights in few bits are multiplied in fewer bits than the model's dtype says.
        few = getattr(self._model, "is_quantized", False)
        tolerance = loosest if few else _TOLERANCE.get(self._model.dtype, loosest)
        return abs(found - said) <= tolerance * _TRIAL_TOKENS

    def _differs(self, prefix: Prefix, *, plain: bool) -> str:
        """Say where scores from the cache differ from generation, plain or from the cache; empty where nowhere."""
        for place, (row, said) in enumerate(zip(*self._trial(replace(prefix, resumes=not plain)), strict=True)):
            # Rows of two lengths: the longer one is compared, the shorter one makes the cache be shared.
            _, (found, _) = self._by_cache(prefix, place, [row[:2], row])
            if not self._near(found, said):
                return f"{found:.4f} nats for what generate gave {said:.4f}"
        return ""

    def _can_resume(self, prefix: Prefix) -> bool:
        """Tell whether ``generate`` can go on from the cache: not from one that forgets what can't be taken back."""
        try:
            return not self._differs(prefix, plain=False)
        except _MISFITS as error:
            if out_of_memory(error):
                raise
            return False

    def _check_whole(self, inputs: Inputs) -> None:
        """Make sure, once, that whole sequences score as they are generated."""
        if self._whole_fits:
            return
        cause: Exception | None = None
        rows, (said,) = self._trial(Prefix(inputs, 1))
        try:
            _, (found, _) = self._by_whole(inputs, [rows[0][:2], rows[0]])
            self._whole_fits = self._near(found, said)
            difference = f"{found:.4f} nats for what generate gave {said:.4f}"
        except _MISFITS as error:
            if out_of_memory(error):
                raise
            difference, cause = f"{type(error).__name__}: {error}", error
        if not self._whole_fits:
            raise ModelError(
                f"{type(self._model).__name__} can't be scored by teacher forcing, so its readings have no "
                f"probability: with a shared cache {next(filter(None, self._misfit.values()))}; without one "
                f"{difference}. Take a model of another family."
            ) from cause


def _along_text(value: torch.Tensor, length: int) -> bool:
    """Tell a mask or a kind for each of the prompt's tokens from pictures and their sizes."""
    return value.dim() > 1 and not value.is_floating_point() and value.shape[1] == length


def _restore(state: Sequence[tuple[torch.nn.Module, str, torch.Tensor]], place: int | None = None) -> None:
    """Put back what the model kept beside the cache, of all pictures or of one."""
    for module, name, value in state:
        setattr(module, name, value if place is None else value[place : place + 1])


def _select(cache: Any, rows: torch.Tensor, padding: int) -> Any:
    """Copy rows of a cache, without the `padding` places at their left."""
    if isinstance(cache, _hub.EncoderDecoderCache):
        parts = (cache.self_attention_cache, cache.cross_attention_cache)
        return _hub.EncoderDecoderCache(*(_select(part, rows, padding) for part in parts))
    chosen = copy.copy(cache)
    # A plain layer's tensors are replaced, never written into; what other layers do is not known.
    plain = [type(layer) is _hub.cache_utils.DynamicLayer for layer in cache.layers]
    chosen.layers = [
        copy.copy(layer) if is_plain else copy.deepcopy(layer)
        for layer, is_plain in zip(cache.layers, plain, strict=True)
    ]
    chosen.reorder_cache(rows)
    if padding:
        if not all(plain):
            raise NotImplementedError("padding can't be cut from this kind of cache")
        for layer in chosen.layers:
            layer.keys, layer.values = layer.keys[..., padding:, :], layer.values[..., padding:, :]
    return chosen


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
