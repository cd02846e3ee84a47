"""What the shipped reader needs of pictures and texts: scaled lines, token ids, and characters from ids again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import transformers

from caprag.recognition.reader.tower import HEIGHT, line_pixels, steps_of

_hub: Any = transformers  # its annotations differ from version to version

IMAGE, START, END, UNKNOWN, BLANK = SPECIAL = ("<image>", "<s>", "</s>", "<unk>", "<blank>")
"""The first tokens, in this order: the picture, a text's start and end, what has no token, and CTC's blank."""


def character_tokenizer(characters: Iterable[str]) -> Any:
    """Make a tokenizer whose tokens are characters.

    Parameters
    ----------
    characters
        One by one; their order decides their ids, which follow those of `SPECIAL`.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
        Writes no special token by itself.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    known = list(dict.fromkeys(characters))
    if long := [c for c in known if len(c) != 1]:
        raise ValueError(f"{long[0]!r} is not one character")
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *known])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return _hub.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=START, eos_token=END, unk_token=UNKNOWN, pad_token=END,
        additional_special_tokens=[IMAGE, BLANK], clean_up_tokenization_spaces=False, padding_side="left",
    )  # fmt: skip


class ReaderImageProcessor(_hub.BaseImageProcessor):  # type: ignore[misc]
    """Scales lines to the tower's height and fills them up to one width."""

    model_input_names = ["pixel_values", "pixel_widths"]  # noqa: RUF012

    def preprocess(self, images: Sequence[Any] | Any, return_tensors: str | None = "pt", **_: Any) -> Any:
        """Return ``pixel_values``, (n, 3, 48, width) in [-1, 1], and ``pixel_widths``, (n,), in pixels."""
        flat = images if isinstance(images, list | tuple) else [images]
        pictures: list[Any] = [one[0] if isinstance(one, list | tuple) else one for one in flat]
        lines = [line_pixels(picture) for picture in pictures]
        widths = [line.shape[2] for line in lines]
        pixels = np.zeros((len(lines), 3, HEIGHT, max(widths, default=0)), np.float32)
        for row, line in zip(pixels, lines, strict=True):
            row[:, :, : line.shape[2]] = line
        return _hub.BatchFeature({"pixel_values": pixels, "pixel_widths": np.array(widths)}, tensor_type=return_tensors)


class ReaderProcessor(_hub.ProcessorMixin):  # type: ignore[misc]
    """Pictures of lines, and texts for training, to the inputs of the reader.

    A prompt is an image token for each step of a line and the start token; no words can be asked.
    """

    attributes = ["image_processor", "tokenizer"]  # noqa: RUF012
    image_processor_class = "ReaderImageProcessor"
    tokenizer_class = "PreTrainedTokenizerFast"

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **kwargs: Any) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)

    def __call__(self, images: Any = None, text: Any = None, return_tensors: str | None = "pt", **_: Any) -> Any:
        """Return pixels, widths, ``input_ids`` and ``attention_mask``, padded on the left.

        Raises
        ------
        ValueError
            For a text: the reader takes no prompt.
        """
        if text is not None:
            raise ValueError("the shipped reader reads the line as it is; it takes no prompt")
        inputs = self.image_processor.preprocess(images, return_tensors=None)
        image, start, pad = (self.tokenizer.convert_tokens_to_ids(token) for token in (IMAGE, START, END))
        rows = [[image] * steps_of(int(width)) + [start] for width in inputs["pixel_widths"]]
        longest = max(map(len, rows), default=0)
        inputs["input_ids"] = np.array([[pad] * (longest - len(row)) + row for row in rows])
        inputs["attention_mask"] = np.array([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        return _hub.BatchFeature(dict(inputs), tensor_type=return_tensors)

    @classmethod
    def _get_arguments_from_pretrained(cls, name: str, processor_dict: Any = None, **kwargs: Any) -> list[Any]:  # noqa: ARG003
        # The library's own way looks the parts up by name among its own classes.
        return [ReaderImageProcessor(), _hub.AutoTokenizer.from_pretrained(name)]

    @property
    def model_input_names(self) -> list[str]:
        """Names of what is returned."""
        return ["pixel_values", "pixel_widths", "input_ids", "attention_mask"]
