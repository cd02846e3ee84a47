"""The question as a model gets it, and how its answer begins and ends: read off the processor, as reading does.

Knows no picture's content and no training.
"""

from __future__ import annotations

from typing import Any

import transformers
from PIL import Image

from caprag.recognition.families import PROMPT, Family

_hub: Any = transformers  # its annotations differ from version to version

_PROBE = "字幕"


class PromptWriter:
    """Writes questions for one model.

    Parameters
    ----------
    processor, tokenizer
        The model's.
    takes_text
        Whether its forward has ``input_ids``.
    ends
        Ids of the tokens that end a text.
    family
        What models of its family expect.

    Attributes
    ----------
    lead
        What the template puts between question and answer: a space in ``ASSISTANT: ...``, mostly nothing.
    end
        Id of the token that ends an answer: the one that the template writes there, or the first of `ends`.
    """

    def __init__(
        self, processor: Any, tokenizer: Any, *, takes_text: bool, ends: tuple[int, ...], family: Family
    ) -> None:
        self._processor, self._tokenizer = processor, tokenizer
        self._image_token = getattr(processor, "image_token", None) or ""
        self._silent = not takes_text or not isinstance(processor, _hub.ProcessorMixin)
        self._template = getattr(processor, "chat_template", None) or tokenizer.chat_template
        self._follows = family.prompt == PROMPT and self._template is not None
        unasked = family.prompt is None or (self._template is None and family.prompt == PROMPT)
        self._own = not self._silent and unasked and self._accepts() is not None
        self._usual = PROMPT if family.prompt is None else family.prompt
        self._written: dict[str | None, str | None] = {}
        self.lead, self.end = "", ends[0]
        if not self._silent and self._template is not None:
            self._read_template(ends)

    def text(self, asked: str, instead: str | None = None) -> str | None:
        """Return what the processor gets beside a picture; ``None`` where it writes the question itself, or has none.

        Parameters
        ----------
        asked
            What an example asks. Empty, or for a model that does not follow instructions, it is what such a model is
            asked in reading.
        instead
            What is asked whatever the example asks.
        """
        prompt = instead if instead is not None else (asked or None) if self._follows else None
        if prompt not in self._written:
            self._written[prompt] = self._write(prompt)
        return self._written[prompt]

    def options(self, text: str) -> dict[str, Any]:
        """Keep a template that writes the start token itself from getting a second one."""
        begin = self._tokenizer.bos_token
        return {"add_special_tokens": False} if begin and text.startswith(begin) else {}

    def _write(self, prompt: str | None) -> str | None:
        if self._silent or (prompt is None and self._own):
            return None
        prompt = self._usual if prompt is None else prompt
        if self._template is not None:
            text = self._render([{"type": "image"}, {"type": "text", "text": prompt}])
            # A template for text alone has no place for the picture.
            return text if self._image_token in text else self._render(f"{self._image_token}\n{prompt}")
        # Some processors put the image token in themselves, and refuse a second one.
        marked = self._image_token + prompt
        return marked if self._accepts(text=[marked]) is not None else prompt

    def _render(self, content: Any, answer: str | None = None) -> str:
        # Where a template asks whether the model shall think aloud first: no.
        quiet = {"enable_thinking": False} if "enable_thinking" in str(self._template) else {}
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer is not None:
            whole = answer if isinstance(content, str) else [{"type": "text", "text": answer}]
            messages.append({"role": "assistant", "content": whole})
        named = {} if isinstance(self._template, dict) else {"chat_template": self._template}
        return str(
            self._processor.apply_chat_template(
                messages, add_generation_prompt=answer is None, tokenize=False, **named, **quiet
            )
        )

    def _read_template(self, ends: tuple[int, ...]) -> None:
        content: Any = [{"type": "image"}, {"type": "text", "text": "?"}]
        if self._image_token not in self._render(content):
            content = f"{self._image_token}\n?"
        asked, answered = self._render(content), self._render(content, _PROBE)
        before, found, after = answered.rpartition(_PROBE)
        if not found:
            return
        lead = before.removeprefix(asked) if before.startswith(asked) else ""
        self.lead = lead if not lead.strip() else ""
        written = self._tokenizer(after, add_special_tokens=False)["input_ids"]
        self.end = next((token for token in written if token in ends), self.end)

    def _accepts(self, **text: list[str]) -> Any:
        """Ask for the processor's ids for a picture and this text; ``None`` where it gives none."""
        blank = Image.new("RGB", (64, 64))
        try:
            made = self._processor(images=[[blank]] if text else [blank], return_tensors="pt", **text)
        except (AttributeError, StopIteration, TypeError, ValueError):
            return None  # it wants another text
        return made.get("input_ids")
