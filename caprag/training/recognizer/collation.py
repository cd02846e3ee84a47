"""Examples to batches: pictures and questions through the processor, answers behind them, labels on answers alone.

What a model is trained to say is what it would be asked to go on with when it reads: the processor's tokens of the
question, then the answer's tokens and the end. Labels are exact by that: everything before the answer is masked.
Knows how token-shaped inputs go on behind the question; nothing of families.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch

from caprag.errors import ModelError
from caprag.recognition.families import Crop, family_of
from caprag.recognition.generation import special_ids
from caprag.recognition.views import Views
from caprag.training.recognizer.examples import Item
from caprag.training.recognizer.prompts import PromptWriter

IGNORED = -100
"""The label of what is not learnt."""


class Collator:
    """Makes batches for a model.

    Parameters
    ----------
    name
        The model's, for errors.
    model, processor, tokenizer
        The model is looked at, not kept.
    prompt
        What is asked of every picture; ``None``: what each example asks. For a model that takes the picture alone it is
        what its decoder starts with, as in reading.
    crop
        What of a picture is shown; ``"auto"``: what the family expects, as in reading.
    max_length
        Most tokens of a question with its picture, its answer and the end; ``None``: as many as the model has places.

    Attributes
    ----------
    ends, pad, start
        See `caprag.recognition.wording.Wording`; start is empty for a decoder-only model.
    stop
        Texts that end a reading, of the family.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        processor: Any,
        tokenizer: Any,
        *,
        prompt: str | None = None,
        crop: Crop | Literal["auto"] = "auto",
        max_length: int | None = None,
    ) -> None:
        self._name, self._processor, self._tokenizer = name, processor, tokenizer
        self._prompt, self._dtype = prompt, model.dtype
        accepted = set(inspect.signature(model.forward).parameters)
        self.encoder_decoder = bool(model.config.is_encoder_decoder)
        if self.encoder_decoder:
            accepted |= set(inspect.signature(model.get_encoder().forward).parameters)
        self._accepted = accepted - {"labels"}
        self.ends, self.pad, start = special_ids(name, model, tokenizer, processor)
        self._bare = start
        takes_text, family = "input_ids" in accepted, family_of(model.config.model_type)
        self.start: tuple[int, ...] = ()
        if self.encoder_decoder:
            # Donut's task token stands in the start's place, not after it.
            self.start = (() if takes_text else tuple(self._encode(prompt or ""))) or (start,)
        self.stop, self._views = family.stop, Views(family.crop if crop == "auto" else crop)
        self.prompts = PromptWriter(processor, tokenizer, takes_text=takes_text, ends=self.ends, family=family)
        text_config = model.config.get_text_config()
        places = getattr(text_config, "max_position_embeddings", None)
        self.max_length = max_length or (places if isinstance(places, int) and places > 0 else 2**31)
        image_token = getattr(model.config, "image_token_id", None) or getattr(processor, "image_token_id", None)
        self._image_token = image_token if isinstance(image_token, int) else None
        added = tokenizer.added_tokens_decoder.items()
        self._special = {*tokenizer.all_special_ids, *(token for token, kind in added if kind.special)}
        self._contexts: dict[tuple[int, ...], str] = {}

    def __call__(self, items: Sequence[Item]) -> dict[str, torch.Tensor]:
        """Make a batch to train on.

        Parameters
        ----------
        items
            At least one.

        Returns
        -------
        dict of str to torch.Tensor
            The model's inputs, padded on the right, and ``labels`` (row, place) int64: ids of answer and end at their
            own places, `IGNORED` elsewhere. For an encoder-decoder ``decoder_input_ids`` has the same shape.

        Raises
        ------
        ModelError
            Where a picture with its question leaves no place for an answer.
        """
        inputs = self.inputs(items, side="right")
        if self.encoder_decoder:
            return self._with_decoder(inputs, [self._answer((), item.text) for item in items])
        length = inputs["input_ids"].shape[1]
        mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).bool()
        rows = [row[keep].tolist() for row, keep in zip(inputs["input_ids"], mask, strict=True)]
        answers = [self._fitting(row, item.text) for row, item in zip(rows, items, strict=True)]
        longest = max(len(row) + len(answer) for row, answer in zip(rows, answers, strict=True))
        made: dict[str, torch.Tensor] = {}
        for name, value in inputs.items():
            if name == "input_ids":
                full = [torch.tensor([*row, *answer]) for row, answer in zip(rows, answers, strict=True)]
                made[name] = torch.stack([_padded(one, longest, self.pad) for one in full])
            elif value.dim() > 1 and not value.is_floating_point() and value.shape[:2] == (len(items), length):
                # Masks and token types go on as they were at the question's last token.
                made[name] = torch.stack([
                    _padded(torch.cat([one[keep], one[keep][-1:].repeat_interleave(len(answer), 0)]), longest, 0)
                    for one, keep, answer in zip(value, mask, answers, strict=True)
                ])  # fmt: skip
            else:
                made[name] = value
        if "attention_mask" not in made and "attention_mask" in self._accepted:
            lengths = [len(row) + len(answer) for row, answer in zip(rows, answers, strict=True)]
            made["attention_mask"] = torch.tensor([[1] * n + [0] * (longest - n) for n in lengths])
        labels = [torch.tensor([IGNORED] * len(row) + answer) for row, answer in zip(rows, answers, strict=True)]
        made["labels"] = torch.stack([_padded(one, longest, IGNORED) for one in labels])
        return made

    def inputs(self, items: Sequence[Item], *, side: str) -> dict[str, torch.Tensor]:
        """Make the inputs of pictures and questions alone, padded on the ``"right"``, or ``"left"`` to go on from."""
        views = self._views.single([item.image for item in items])
        texts = [self.prompts.text(item.prompt, self._prompt) for item in items]
        before = self._tokenizer.padding_side
        if not self.encoder_decoder:
            self._tokenizer.padding_side = side
        try:
            if texts[0] is not None:
                made = self._processor(
                    images=[[view] for view in views], text=texts, padding=True, return_tensors="pt",
                    **({} if self.encoder_decoder else {"padding_side": side}), **self.prompts.options(texts[0]),
                )  # fmt: skip
            else:
                made = self._processor(images=views, return_tensors="pt")
        finally:
            self._tokenizer.padding_side = before
        inputs = {
            name: value.to(self._dtype) if value.is_floating_point() else value
            for name, value in made.items()
            if name in self._accepted and isinstance(value, torch.Tensor)
        }
        if not self.encoder_decoder and "input_ids" not in inputs:
            inputs["input_ids"] = torch.full((len(items), 1), self._bare)
        return inputs

    def decode(self, row: Sequence[int]) -> str:
        """Return the text of a reading up to its end, or up to a character that is broken off."""
        row = list(row[: next((n for n, token in enumerate(row) if token in self.ends), len(row))])
        return self.decode_roughly(row).partition("\ufffd")[0].strip()

    def decode_roughly(self, row: Sequence[int]) -> str:
        """Return the text of tokens as the tokenizer writes it, special ones left out."""
        return str(self._tokenizer.decode(list(row), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _answer(self, prompt: Sequence[int], text: str) -> list[int]:
        """Return the tokens of an answer as they follow the question, and the end."""
        if self.encoder_decoder:
            # Encoder-decoders are trained on what the tokenizer writes, its special tokens included.
            row = self._encode(text, special=True)
            while row and row[-1] in self.ends:
                row = row[:-1]
            return [*row, self.prompts.end]
        context = self._context(prompt)
        lead = "" if context and context[-1].isspace() else self.prompts.lead
        both, before = self._encode(context + lead + text), self._encode(context)
        # Where answer and question would melt into one token the answer is written alone: it is generated so, too.
        alone = both[: len(before)] != before
        return [*(self._encode(lead + text) if alone else both[len(before) :]), self.prompts.end]

    def _context(self, prompt: Sequence[int]) -> str:
        """Return what stands between the question's last special token and the answer."""
        tail = tuple(prompt[max((n + 1 for n, token in enumerate(prompt) if token in self._special), default=0) :])
        if tail not in self._contexts:
            text = str(self._tokenizer.decode(list(tail), clean_up_tokenization_spaces=False))
            self._contexts[tail] = text if self._encode(text) == list(tail) else ""
        return self._contexts[tail]

    def _encode(self, text: str, *, special: bool = False) -> list[int]:
        return [int(token) for token in self._tokenizer(text, add_special_tokens=special)["input_ids"]]

    def _fitting(self, prompt: Sequence[int], text: str) -> list[int]:
        """Return an answer that fits behind its question: a longer one is cut, and has no end then."""
        room = self.max_length - len(prompt)
        if room < 2:
            pictures = sum(token == self._image_token for token in prompt)
            raise ModelError(
                f"{self._name}: a picture takes {pictures} tokens and its question {len(prompt) - pictures}, which "
                f"leaves {room} of max_length {self.max_length} for the answer; raise max_length, or make the pictures "
                "smaller (in size, or by the model's preprocessor_config.json)"
            )
        return self._answer(prompt, text)[:room]

    def _with_decoder(self, inputs: dict[str, torch.Tensor], answers: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        before = [IGNORED] * (len(self.start) - 1)
        room = self.max_length - len(before)
        if room < 2:
            raise ModelError(
                f"{self._name}: its prompt takes {len(self.start)} tokens, which leaves {room} of max_length "
                f"{self.max_length} for the answer; raise max_length, or make the prompt shorter"
            )
        answers = [answer[:room] for answer in answers]
        longest = max(map(len, answers))
        labels = torch.stack([_padded(torch.tensor(answer), longest, IGNORED) for answer in answers])
        said = torch.stack([_padded(torch.tensor(answer), longest, self.pad) for answer in answers])
        start = torch.tensor([self.start] * len(answers))
        return {
            **inputs,
            "decoder_input_ids": torch.cat([start, said[:, :-1]], dim=1),
            "labels": torch.cat([torch.tensor([before] * len(answers), dtype=torch.int64), labels], dim=1),
        }


def _padded(row: torch.Tensor, length: int, value: int) -> torch.Tensor:
    """Fill up a row (place, ...) on the right."""
    missing = row.new_full((length - len(row), *row.shape[1:]), value)
    return torch.cat([row, missing])


def answer_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None, *, shift: bool
) -> torch.Tensor:
    """Cross-entropy of answers and ends, in nats a token, and what a model adds to it of its own accord.

    Parameters
    ----------
    outputs
        The model's; ``logits`` are (row, place, token), and ``further_loss`` is in nats a token, where there is one.
    labels
        (row, place) int64, `IGNORED` where nothing is learnt.
    num_items_in_batch
        What the sum is divided by: the labels of the whole step; ``None``: those here.
    shift
        Whether logits at a place are about the next one, as without a decoder of its own.
    """
    logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
    if logits.shape[:2] != labels.shape:
        raise ModelError(
            f"the model gives logits of {tuple(logits.shape[:2])} for labels of {tuple(labels.shape)}: it puts "
            "pictures before its tokens in a way that can't be trained here; take a model of another family"
        )
    if shift:
        logits, labels = logits[:, :-1], labels[:, 1:]
    # What a model rules out altogether, such as an unknown character, is not to be learnt.
    least = torch.finfo(logits.dtype).min / 2
    learnt = (labels != IGNORED) & (logits.gather(2, labels.clamp(min=0)[:, :, None])[:, :, 0] > least)
    total = torch.nn.functional.cross_entropy(logits[learnt].float(), labels[learnt], reduction="sum")
    further = outputs.get("further_loss") if isinstance(outputs, dict) else getattr(outputs, "further_loss", None)
    if further is not None:
        total = total + further * learnt.sum()
    return total / (learnt.sum() if num_items_in_batch is None else num_items_in_batch)
