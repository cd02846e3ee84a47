"""Models that answer free questions about pictures: one loaded here, or one behind a URL.

Knows nothing of what is done with the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
import transformers

from caprag.recognition.families import family_of
from caprag.recognition.loading import Dtype, load_model, load_processor
from caprag.recognition.wording import Wording

if TYPE_CHECKING:
    from PIL import Image

_hub: Any = transformers  # its annotations differ from version to version


@runtime_checkable
class Describer(Protocol):
    """Answers questions about pictures."""

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    @property
    def settings(self) -> Mapping[str, str | int]:
        """What else its answers depend on."""
        ...

    def complete_batch(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """Answer one question about each picture.

        Parameters
        ----------
        images
            RGB, any size.
        prompts
            One for each picture.

        Returns
        -------
        list of str
            In the order of the pictures, as the model says it.
        """
        ...


class LocalDescriber:
    """A transformers image-text-to-text model that is asked anything, without sampling.

    Parameters
    ----------
    model
        Hub id or folder of a model or of a PEFT adapter.
    device, dtype
        See `caprag.recognition.loading.load_model`.
    batch_size
        Pictures answered at once, >= 1.
    max_new_tokens
        At most this many tokens an answer, >= 1.

    Raises
    ------
    ModelError
        Where the model can't be loaded.
    ValueError
        For a `batch_size` or `max_new_tokens` below 1.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        dtype: Dtype = "auto",
        batch_size: int = 8,
        max_new_tokens: int = 256,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.name = str(model)
        self._batch_size = batch_size
        self._max_new_tokens = max_new_tokens
        self._model = load_model(model, device, dtype)
        self._processor, self._tokenizer = load_processor(model)
        self.settings: Mapping[str, str | int] = MappingProxyType(
            {
                "max_new_tokens": max_new_tokens,
                "dtype": str(self._model.dtype).removeprefix("torch.") if dtype == "auto" else dtype,
            }
        )
        self._wordings: dict[str, Wording] = {}
        # What its makers set for chatting (sampling, penalties) would bend a transcription: only its tokens are kept.
        own = self._model.generation_config
        names = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
        self._model.generation_config = _hub.GenerationConfig(**{name: getattr(own, name) for name in names})

    def complete_batch(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """Answer one question about each picture; see `Describer`.

        Raises
        ------
        ValueError
            Where `images` and `prompts` differ in length.
        """
        if len(images) != len(prompts):
            raise ValueError(f"one prompt a picture: {len(images)} pictures, {len(prompts)} prompts")
        answers = [""] * len(images)
        for prompt in dict.fromkeys(prompts):
            places = [place for place, asked in enumerate(prompts) if asked == prompt]
            for first in range(0, len(places), self._batch_size):
                batch = places[first : first + self._batch_size]
                for place, answer in zip(batch, self._answer([images[p] for p in batch], prompt), strict=True):
                    answers[place] = answer
        return answers

    def _wording(self, prompt: str) -> Wording:
        if prompt not in self._wordings:
            family = family_of(self._model.config.model_type)
            made = Wording(self.name, self._model, self._processor, self._tokenizer, prompt, family)
            self._wordings[prompt] = made
        return self._wordings[prompt]

    def _answer(self, images: Sequence[Image.Image], prompt: str) -> list[str]:
        wording = self._wording(prompt)
        inputs = wording.inputs(images)
        length = len(wording.start) or inputs["input_ids"].shape[1]
        settings: dict[str, Any] = {"eos_token_id": list(wording.ends), "pad_token_id": wording.pad}
        if wording.start:
            settings["decoder_start_token_id"] = wording.start[0]
            start = torch.tensor([wording.start] * len(images), device=self._model.device)
            inputs["decoder_input_ids"] = start
        config = _hub.GenerationConfig(**settings, max_new_tokens=self._max_new_tokens, do_sample=False)
        with torch.no_grad():
            rows = self._model.generate(**inputs, generation_config=config)[:, length:].tolist()
        ends = set(wording.ends)
        stops = [next((place for place, token in enumerate(row) if token in ends), len(row)) for row in rows]
        return [wording.decode(row[:stop]) for row, stop in zip(rows, stops, strict=True)]


def load_describer(
    model: str,
    *,
    served: str | None = None,
    device: str | None = None,
    dtype: Dtype = "auto",
    batch_size: int = 8,
    max_new_tokens: int = 256,
) -> Describer:
    """Load a model by its name.

    Parameters
    ----------
    model
        Hub id or folder of an image-text-to-text model or of a PEFT adapter, or the address (``http://`` or
        ``https://``) of a server that speaks OpenAI's protocol; its key is in the environment, see
        `caprag.recognition.server.ServerRecognizer`.
    served
        Which of a server's models, where it has several.
    device, dtype
        Of a local model.
    batch_size
        Pictures answered at once, >= 1.
    max_new_tokens
        At most this many tokens an answer, >= 1.

    Raises
    ------
    ModelError
        Where it can't be loaded.
    ValueError
        For an argument out of range, or `served` without a server.
    """
    if model.startswith(("http://", "https://")):
        from caprag.recognition.server import ServerRecognizer

        return ServerRecognizer(model, served, parallel=batch_size, max_new_tokens=max_new_tokens)
    if served is not None:
        raise ValueError(f"served is {served!r}, which is for a server, and {model} is none; leave it away")
    return LocalDescriber(model, device=device, dtype=dtype, batch_size=batch_size, max_new_tokens=max_new_tokens)
