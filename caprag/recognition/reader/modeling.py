"""The shipped reader: a vision tower, a neck, and a small causal language model that reads on after the picture.

In LLaVA's way the picture's features stand before the text as if they were tokens. They begin in the space of the
characters' embeddings: a step that the tower took for a character lies near that character, so that reading is at
first copying. Knows features and token ids, no files and no pictures. Plain transformers loads and generates with it
once this package is imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from caprag.recognition.reader.tower import STRIDE, Tower

_hub: Any = transformers  # its annotations differ from version to version

STEPS_A_TOKEN = 2
"""Steps of the tower that are one token of the prefix: 16 of a line's 48 pixels."""


class ReaderConfig(_hub.PreTrainedConfig):  # type: ignore[misc]
    """Sizes of the neck and of the language model, and which tokens stand for the picture and for no character."""

    model_type = "caprag_reader"
    sub_configs = {"text_config": _hub.Qwen3Config, "neck_config": _hub.PPOCRV6SmallRecConfig}  # noqa: RUF012

    def __init__(
        self,
        text_config: dict[str, Any] | Any = None,
        neck_config: dict[str, Any] | Any = None,
        *,
        image_token_id: int = 0,
        blank_token_id: int = 4,
        **kwargs: Any,
    ) -> None:
        text = text_config or {}
        neck = neck_config or {}
        self.text_config = _hub.Qwen3Config(**text) if isinstance(text, dict) else text
        self.neck_config = _hub.PPOCRV6SmallRecConfig(**neck) if isinstance(neck, dict) else neck
        self.image_token_id = image_token_id
        self.blank_token_id = blank_token_id
        kwargs.setdefault("tie_word_embeddings", True)
        super().__init__(**kwargs)

    def get_text_config(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Return the language model's part."""
        return self.text_config


class Projector(nn.Module):
    """From the neck's steps to tokens of the prefix, and to scores of characters.

    Steps lie in the space of the characters' embeddings by `to_text`. The steps of one token are summed, each by how
    little it looks like no character at all; what the sum loses is added by `detail`, which begins at zero.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.to_text = nn.Linear(width, hidden, bias=False)
        self.blank = nn.Linear(width, 1)
        self.detail = nn.Linear(width * STEPS_A_TOKEN, hidden)
        self.scale = nn.Parameter(torch.ones(()))
        for linear in (self.blank, self.detail):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, steps: torch.Tensor) -> torch.Tensor:
        """Return the prefix, (n, steps / 2, hidden), of steps (n, steps, width)."""
        rows, length, width = steps.shape
        told = self.to_text(steps) * torch.sigmoid(-self.blank(steps))
        summed = told.view(rows, length // STEPS_A_TOKEN, STEPS_A_TOKEN, -1).sum(2)
        prefix: torch.Tensor = summed + self.detail(steps.reshape(rows, length // STEPS_A_TOKEN, width * STEPS_A_TOKEN))
        return prefix


class ReaderForConditionalGeneration(_hub.PreTrainedModel, _hub.GenerationMixin):  # type: ignore[misc]
    """Reads lines of text from pictures or from the tower's features.

    The tower is no part of the state: it comes from the installed rapidocr when the first picture does.
    """

    config_class = ReaderConfig
    config: Any
    base_model_prefix = "language_model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    _tied_weights_keys = {"language_model.lm_head.weight": "language_model.model.embed_tokens.weight"}  # noqa: RUF012
    _supports_sdpa = True

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__(config)
        from transformers.models.pp_ocrv6_small_rec.modeling_pp_ocrv6_small_rec import PPOCRV6SmallRecEncoderWithSVTR

        self.neck = PPOCRV6SmallRecEncoderWithSVTR(config.neck_config)
        self.projector = Projector(config.neck_config.hidden_size, config.text_config.hidden_size)
        self.ctc_bias = nn.Parameter(torch.zeros(config.text_config.vocab_size))
        self.language_model = _hub.Qwen3ForCausalLM(config.text_config)
        self._tower: Tower | None = None
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the characters' embeddings."""
        return self.language_model.get_input_embeddings()  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> ReaderForConditionalGeneration:
        """Switch to training; the neck's normalisation goes on with what the tower was trained with."""
        super().train(mode)
        for module in self.neck.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def steps(self, features: torch.Tensor) -> torch.Tensor:
        """Return the neck's description, (n, steps, 120), of the tower's features (n, steps, 384) of equal widths."""
        found: torch.Tensor = self.neck(features.transpose(1, 2).unsqueeze(2)).last_hidden_state
        return found

    def ctc_logits(self, steps: torch.Tensor, tokens: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores of tokens, or of those named, at each step: (n, steps, tokens); the blank is one too."""
        text = self.projector.to_text(steps) * self.projector.scale
        table: Any = self.get_input_embeddings().weight
        bias: torch.Tensor = self.ctc_bias
        if tokens is not None:
            table, bias = table[tokens], bias[tokens]
        return nn.functional.linear(text, table, bias)

    def picture_features(self, pixel_values: torch.Tensor, pixel_widths: torch.Tensor) -> list[torch.Tensor]:
        """Run the tower: a tensor of (width / 8, 384) for each of the lines, cut to their widths in pixels."""
        if self._tower is None:
            self._tower = Tower()
        pixels = pixel_values.detach().to("cpu", torch.float32).numpy()
        lines = [line[:, :, :width] for line, width in zip(pixels, pixel_widths.tolist(), strict=True)]
        # A beam's paths share a picture, and stand side by side.
        fresh = [not place or not np.array_equal(line, lines[place - 1]) for place, line in enumerate(lines)]
        found = self._tower.features([line for line, new in zip(lines, fresh, strict=True) if new])
        tensors = [torch.from_numpy(one).to(self.device, self.dtype) for one in found]
        return [tensors[place - 1] for place in np.cumsum(fresh).tolist()]

    def _embeddings(self, input_ids: torch.Tensor, features: list[torch.Tensor]) -> torch.Tensor:
        """Put the prefixes of lines of any widths where the ids have image tokens."""
        embeddings = self.get_input_embeddings()(input_ids)
        by_length: dict[int, list[int]] = {}
        for place, found in enumerate(features):
            by_length.setdefault(len(found), []).append(place)
        prefixes: list[Any] = [None] * len(features)
        for places in by_length.values():
            made = self.projector(self.steps(torch.stack([features[place] for place in places])))
            for place, prefix in zip(places, made, strict=True):
                prefixes[place] = prefix
        image = input_ids == self.config.image_token_id
        counts, wanted = image.sum(1).tolist(), [len(prefix) for prefix in prefixes]
        if counts != wanted:
            raise ValueError(
                f"the text has places for {counts} tokens of the pictures, whose features are {wanted}; "
                "let the reader's processor make the inputs"
            )
        joined = torch.cat(prefixes).to(embeddings.dtype)
        filled: torch.Tensor = embeddings.masked_scatter(image.unsqueeze(-1), joined)
        return filled

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        pixel_widths: torch.Tensor | None = None,
        features: list[torch.Tensor] | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predict the next token.

        Parameters
        ----------
        input_ids
            (n, length): one image token for each 16 pixels of a line's width, the start token, and the text.
        pixel_values, pixel_widths
            Lines as `line_pixels` makes them, filled up to one width, (n, 3, 48, width), and their widths, (n,).
        features
            In their place the tower's features of the lines, (width / 8, 384) each.
        labels
            (n, length), -100 where nothing is to be learnt.

        Returns
        -------
        CausalLMOutputWithPast
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("the reader needs input_ids or inputs_embeds")
            if features is None and pixel_values is not None:
                if pixel_widths is None:
                    pixel_widths = torch.full((len(pixel_values),), pixel_values.shape[-1])
                features = self.picture_features(pixel_values, pixel_widths)
            if features is None:
                inputs_embeds = self.get_input_embeddings()(input_ids)
            else:
                inputs_embeds = self._embeddings(input_ids, features)
        found: CausalLMOutputWithPast = self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, labels=labels, use_cache=use_cache, logits_to_keep=logits_to_keep,
            **kwargs,
        )  # fmt: skip
        return found

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        """Give the picture with the prompt, and not again with each further token."""
        picture = {name: kwargs.pop(name, None) for name in ("pixel_values", "pixel_widths", "features")}
        first = kwargs.get("is_first_iteration", False)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(input_ids, **kwargs)
        if first or not kwargs.get("use_cache", True):
            inputs |= {name: value for name, value in picture.items() if value is not None}
        return inputs


def tokens_of(width: int) -> int:
    """Return how many tokens of the prefix a line of so many pixels has."""
    return width // (STRIDE * STEPS_A_TOKEN)


__all__ = ["ReaderConfig", "ReaderForConditionalGeneration", "tokens_of"]
