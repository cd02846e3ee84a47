"""The text side of a model: pictures and a prompt into inputs, token ids into texts, texts into token ids.

There are no branches by model family. What a model wants is read off its processor: a chat template where there
is one, the prompt that the processor writes itself (GOT-OCR2), the image token and a prompt, or the picture
alone (TrOCR, Donut). Knows nothing of probabilities.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from PIL import Image

from caprag.recognition.families import PROMPT, Family
from caprag.recognition.generation import special_ids
from caprag.recognition.greedy import Row

_hub: Any = transformers  # its annotations differ from version to version

_HAN_GAP = re.compile(r"(?<=[\u2E80-\u9FFF\uF900-\uFAFF\uFF00-\uFFEF]) +(?=[\u2E80-\u9FFF\uF900-\uFAFF\uFF00-\uFFEF])")


class Wording:
    """Pictures, prompts and texts in the terms of one model.

    Parameters
    ----------
    name
        What errors call the model.
    model
        The model; it is only looked at.
    processor, tokenizer
        As `caprag.recognition.loading.load_processor` gives them.
    prompt
        What the model is asked; ``None``: what its family expects.
    family
        What models of its family expect.

    Attributes
    ----------
    ends
        Ids of the tokens that end a text, at least one.
    pad
        Id that fills up short rows.
    start
        For an encoder-decoder, the ids its decoder starts from; empty for a decoder-only model.
    context
        What stands between the prompt's last special token and the answer; may be empty.
    """

    def __init__(
        self, name: str, model: Any, processor: Any, tokenizer: Any, prompt: str | None, family: Family
    ) -> None:
        self._model, self._processor, self._tokenizer = model, processor, tokenizer
        self._accepted = set(inspect.signature(model.forward).parameters)
        self._takes_text = "input_ids" in self._accepted
        self.ends, self.pad, self._bare_start = special_ids(name, model, tokenizer, processor)
        self.start: Row = ()
        if model.config.is_encoder_decoder:
            self._accepted |= set(inspect.signature(model.get_encoder().forward).parameters)
            # Donut's task token stands in the start's place, not after it.
            self.start = (self._encode(prompt or "") if not self._takes_text else ()) or (self._bare_start,)
        else:
            tokenizer.padding_side = "left"
        self._text = self._prompt_text(prompt, family)
        self.context = self._find_context()

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """Turn pictures and the prompt into the model's inputs.

        Parameters
        ----------
        images
            RGB, any size, at least one.

        Returns
        -------
        dict of str to torch.Tensor
            On the model's device, padded on the left.
        """
        if self._text is not None:
            made = self._processor(
                images=[[image] for image in images],
                text=[self._text] * len(images),
                padding=True,
                return_tensors="pt",
                **self._text_options(),
            )
        else:
            made = self._processor(images=list(images), return_tensors="pt")
        tensors = made.to(self._model.device, self._model.dtype)
        inputs = {
            name: value
            for name, value in tensors.items()
            if name in self._accepted and isinstance(value, torch.Tensor) and name != "labels"
        }
        if not self.start and "input_ids" not in inputs:
            inputs["input_ids"] = torch.full((len(images), 1), self._bare_start, device=self._model.device)
        # Where the number of a picture's tokens depends on what it shows, the model must look first.
        look = getattr(self._model, "look", None)
        if look is not None:
            with torch.inference_mode():
                inputs = look(**inputs)
        return inputs

    def decode(self, row: Sequence[int]) -> str:
        """Turn token ids into a text without broken characters, outer white space and invented spaces."""
        text = self.decode_roughly(row).partition("\ufffd")[0].strip()
        closed = _HAN_GAP.sub("", text)
        # WordPiece decoders put a space between all tokens. A space that the tokenizer does not see is none.
        return closed if closed != text and self._encode(closed) == self._encode(text) else text

    def decode_roughly(self, row: Sequence[int]) -> str:
        """Turn token ids into a text as the tokenizer does, special tokens left out."""
        return str(self._tokenizer.decode(list(row), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def spellings(self, text: str) -> list[Row]:
        """Write a text in each way of tokens that reads as it; none where the tokenizer can't write it."""
        if self.start:
            # Encoder-decoders are trained on what the tokenizer writes, its special tokens included.
            full = self._encode(text, special=True)
            while full and full[-1] in self.ends:
                full = full[:-1]
            rows = [full, self._encode(text)]
        else:
            closed = not self.context or self.context[-1].isspace()
            rows = [self._after_prompt(lead + text) for lead in ("", " ")[: 1 if closed else 2]]
        unknown = self._tokenizer.unk_token_id
        writable = [row for row in dict.fromkeys(rows) if unknown is None or unknown not in row]
        return [] if "\ufffd" in text else writable

    def _text_options(self) -> dict[str, Any]:
        """Keep a template that writes the start token itself from getting a second one."""
        begin = self._tokenizer.bos_token
        return {"add_special_tokens": False} if begin and self._text and self._text.startswith(begin) else {}

    def _prompt_text(self, prompt: str | None, family: Family) -> str | None:
        """Make the text that the processor gets; ``None`` where it gets none."""
        if not self._takes_text or not isinstance(self._processor, _hub.ProcessorMixin):
            return None
        template = getattr(self._processor, "chat_template", None) or self._tokenizer.chat_template
        unasked = family.prompt is None or (template is None and family.prompt == PROMPT)
        if prompt is None and unasked and self._accepts() is not None:
            return None  # it writes the prompt itself
        image_token = getattr(self._processor, "image_token", None) or ""
        asked = next(text for text in (prompt, family.prompt, PROMPT) if text is not None)
        if template is not None:
            text = self._render(template, [{"type": "image"}, {"type": "text", "text": asked}])
            # A template for text alone has no place for the picture.
            return text if image_token in text else self._render(template, f"{image_token}\n{asked}")
        # Some processors put the image token in themselves, and refuse a second one.
        return image_token + asked if self._accepts(text=[image_token + asked]) is not None else asked

    def _render(self, template: Any, content: Any) -> str:
        # Where a template asks whether the model shall think aloud first: no.
        quiet = {"enable_thinking": False} if "enable_thinking" in str(template) else {}
        message = [{"role": "user", "content": content}]
        named = {} if isinstance(template, dict) else {"chat_template": template}
        rendered = self._processor.apply_chat_template(
            message, add_generation_prompt=True, tokenize=False, **named, **quiet
        )
        return str(rendered)

    def _accepts(self, **text: list[str]) -> list[int] | None:
        """Ask for the processor's token ids for a picture and this text; ``None`` where it gives none."""
        try:
            made = self._processor(images=[[_blank()]] if text else [_blank()], return_tensors="pt", **text)
        except (AttributeError, StopIteration, TypeError, ValueError):
            return None  # it wants another text
        return [int(token) for token in made["input_ids"][0]] if "input_ids" in made else None

    def _encode(self, text: str, *, special: bool = False) -> Row:
        return tuple(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def _find_context(self) -> str:
        """Find what stands between the prompt's last special token and the answer, as the model sees it."""
        if self.start:
            return ""
        prompt: list[int] = self.inputs([_blank()])["input_ids"][0].tolist()
        added = self._tokenizer.added_tokens_decoder.items()
        special = {*self._tokenizer.all_special_ids, *(token for token, kind in added if kind.special)}
        tail = prompt[max((place + 1 for place, token in enumerate(prompt) if token in special), default=0) :]
        context = str(self._tokenizer.decode(tail, clean_up_tokenization_spaces=False))
        return context if self._encode(context) == tuple(tail) else ""

    def _after_prompt(self, text: str) -> Row:
        """Tokens of `text` as they follow the prompt, which can differ from those of the text alone."""
        prompt, both = self._encode(self.context), self._encode(self.context + text)
        return both[len(prompt) :] if both[: len(prompt)] == prompt else self._encode(text)


def _blank() -> Image.Image:
    """Make a picture for questions whose answer does not depend on it."""
    return Image.new("RGB", (64, 64))
