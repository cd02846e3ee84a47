"""Sizes and token ids of the shipped reader, as transformers keeps them."""

from __future__ import annotations

from typing import Any

import transformers

_hub: Any = transformers  # its annotations differ from version to version


class ReaderConfig(_hub.PreTrainedConfig):  # type: ignore[misc]
    """Sizes of the neck, the language model and the tower's changes; tokens for the picture and for no character.

    `ctc_share` is the power that CTC's own probability of what comes next has in the product with the language model's,
    0 or more. `ctc_weight` is the weight of CTC's loss, in nats a token, beside the cross-entropy, 0 or more.
    """

    model_type = "caprag_reader"
    sub_configs = {"text_config": _hub.Qwen3Config, "neck_config": _hub.PPOCRV6SmallRecConfig}  # noqa: RUF012

    def __init__(
        self,
        text_config: dict[str, Any] | Any = None,
        neck_config: dict[str, Any] | Any = None,
        *,
        image_token_id: int = 0,
        blank_token_id: int = 4,
        tower_rank: int = 0,
        ctc_share: float = 0.0,
        ctc_weight: float = 0.5,
        **kwargs: Any,
    ) -> None:
        text = text_config or {}
        neck = neck_config or {}
        self.text_config = _hub.Qwen3Config(**text) if isinstance(text, dict) else text
        self.neck_config = _hub.PPOCRV6SmallRecConfig(**neck) if isinstance(neck, dict) else neck
        self.image_token_id = image_token_id
        self.blank_token_id = blank_token_id
        self.tower_rank = tower_rank
        self.ctc_share = ctc_share
        self.ctc_weight = ctc_weight
        kwargs.setdefault("tie_word_embeddings", True)
        super().__init__(**kwargs)

    def get_text_config(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        """Return the language model's part."""
        return self.text_config


__all__ = ["ReaderConfig"]
