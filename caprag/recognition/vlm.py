"""Reads captions with any image-text-to-text model that transformers can load.

There are no branches by model family. What a model wants is read off the model: a chat template where there
is one, the prompt that the processor writes itself (GOT-OCR2), the image token and a prompt, or the picture
alone (TrOCR, Donut); the tokens that end a text; whether it is an encoder-decoder. What this module does not
know: how to find the caption in a frame, and whether a reading makes sense.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import transformers
from PIL import Image
from safetensors import SafetensorError

from caprag.errors import MissingDependencyError, ModelError
from caprag.recognition.generation import Row, SequenceModel, special_ids
from caprag.types import Hypothesis

_hub: Any = transformers  # its annotations differ from version to version

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

PROMPT = (
    "請讀出圖中的字幕。只輸出字幕的文字，保留換行，不要翻譯，不要解釋；沒有字幕就什麼都不輸出。\n"
    "Read the caption in the picture. Output only its text, keep line breaks, do not translate or explain; "
    "output nothing where there is no caption."
)
"""What a model that follows instructions is asked, unless the user asks something else."""

_HAN_GAP = re.compile(r"(?<=[\u2E80-\u9FFF\uF900-\uFAFF\uFF00-\uFFEF]) +(?=[\u2E80-\u9FFF\uF900-\uFAFF\uFF00-\uFFEF])")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_TORCHVISION = "pip install torchvision, in the build that belongs to your torch (its version and CPU or CUDA)"


class VLMRecognizer:
    """A reader of captions: any transformers image-text-to-text model.

    Parameters
    ----------
    model
        Id on the Hugging Face hub, or a local folder with weights, tokenizer and processor.
    prompt
        What the model is asked. ``None``: `PROMPT` for a model with a chat template or an image token; the
        processor's own prompt where it writes one; nothing for a model that takes the picture alone. A text
        given for a model that takes the picture alone is what its decoder starts with (Donut's task token).
    device
        A torch device; ``None``: the first CUDA device, or the CPU where there is none.
    dtype
        Of the weights; ``"auto"``: float32 on a CPU, elsewhere what the weights were saved in.
    batch_size
        Pictures read at once, and texts scored at once, >= 1.
    max_new_tokens
        At most this many tokens a reading, its end included, >= 1. Readings that reach it are cut there.

    Raises
    ------
    ModelError
        Where there is no such model, or it is of another kind.
    MissingDependencyError
        Where the model's processor needs a package that is not installed.
    ValueError
        For an unknown `dtype`, or a `batch_size` or `max_new_tokens` below 1.

    Notes
    -----
    The log-probability of a text is that of the tokens its tokenizer writes for it after the prompt, and the
    end after them, by teacher forcing; several end tokens count as one, their probabilities added.
    `recognize_batch` uses beam search only to find texts, and scores them as `score_batch` does: so the two
    agree, and neither length nor any setting in the model's generation config bends a score. Where a text can
    begin in two ways that read alike (with or without a space after a prompt like ``ASSISTANT:``; with or
    without the start token that an encoder-decoder's tokenizer writes) both count, their probabilities added.

    Examples
    --------
    >>> recognizer = VLMRecognizer("models/captions")  # doctest: +SKIP
    >>> recognizer.recognize_batch([Image.open("caption.png")], n_best=3)  # doctest: +SKIP
    [[Hypothesis(text='社交方式發生了變化', logprob=-0.31), ...]]
    """

    def __init__(
        self,
        model: str | Path,
        *,
        prompt: str | None = None,
        device: str | None = None,
        dtype: Dtype = "auto",
        batch_size: int = 8,
        max_new_tokens: int = 64,
    ) -> None:
        if dtype not in get_args(Dtype):
            raise ValueError(f"dtype must be one of {', '.join(get_args(Dtype))}, not {dtype!r}")
        for name, value in (("batch_size", batch_size), ("max_new_tokens", max_new_tokens)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.name = str(model)
        self._batch_size = batch_size
        self._max_new_tokens = max_new_tokens
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        config = _load_config(model)
        self._processor, self._tokenizer = _load_processor(self.name, config)
        self._model = _load_model(self.name, place, dtype)
        parameters = set(inspect.signature(self._model.forward).parameters)
        self._takes_text = "input_ids" in parameters
        encoder_decoder = bool(config.is_encoder_decoder)
        self._accepted = set(parameters)
        if encoder_decoder:
            self._accepted |= set(inspect.signature(self._model.get_encoder().forward).parameters)
        else:
            self._tokenizer.padding_side = "left"
        ends, pad, start = special_ids(self.name, self._model, self._tokenizer, self._processor)
        self._start: Row = ()
        if encoder_decoder:
            # Donut's task token stands in the start's place, not after it.
            self._start = (self._encode(prompt or "") if not self._takes_text else ()) or (start,)
        self._bare_start = start
        self._ends = ends
        self._text = self._prompt_text(prompt)
        self._context = self._find_context()
        self._sequences = SequenceModel(self._model, ends=ends, pad=pad, start=self._start, batch_size=batch_size)

    def recognize_batch(self, images: Sequence[Image.Image], n_best: int = 1) -> list[list[Hypothesis]]:
        r"""Read each picture.

        Parameters
        ----------
        images
            Frames or crops, any size; turned into RGB.
        n_best
            At most this many hypotheses a picture, >= 1. It is also the width of the beam; 1 is greedy.

        Returns
        -------
        list of list of Hypothesis
            One list a picture, best first, texts distinct, never empty; log-probabilities in nats, of the
            whole text and its end. Lines are parted by ``"\n"``; outer white space is gone. Beams with the
            same text are one hypothesis. A reading that breaks off inside a character ends before it, so
            there is never a U+FFFD.

        Raises
        ------
        ValueError
            For `n_best` below 1.
        ModelError
            Where the model can't be scored.
        """
        if n_best < 1:
            raise ValueError(f"n_best must be at least 1, not {n_best}")
        found: list[list[Hypothesis]] = []
        for first in range(0, len(images), self._batch_size):
            batch = images[first : first + self._batch_size]
            beams = self._sequences.generate(
                self._inputs(batch), count=len(batch), n_best=n_best, max_new_tokens=self._max_new_tokens
            )
            texts = [list(dict.fromkeys(self._decode(row) for row in rows)) for rows in beams]
            for wordings, scores in zip(texts, self.score_batch(batch, texts), strict=True):
                read = [Hypothesis(text, score) for text, score in zip(wordings, scores, strict=True)]
                found.append(sorted(read, key=lambda hypothesis: -hypothesis.logprob))
        return found

    def score_batch(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Score given texts for each picture.

        Parameters
        ----------
        images
            Frames or crops, any size; turned into RGB.
        texts
            For each picture the texts to score, as they are; may differ in number, also none.

        Returns
        -------
        list of list of float
            ln p(text and then the end | picture, prompt) in nats, each <= 0, in the order of `texts`;
            ``-inf`` for a text that the tokenizer can't write.

        Raises
        ------
        ValueError
            Where `images` and `texts` differ in length.
        ModelError
            Where the model can't be scored.
        """
        if len(images) != len(texts):
            raise ValueError(f"one list of texts a picture: {len(images)} pictures, {len(texts)} lists")
        scores: list[list[float]] = []
        for image, wordings in zip(images, texts, strict=True):
            spellings = [self._spellings(text) for text in wordings]
            rows = [row for several in spellings for row in several]
            found = iter(self._sequences.logprobs(self._inputs([image]), rows) if rows else [])
            scores.append([_log_sum([next(found) for _ in several]) for several in spellings])
        return scores

    def _inputs(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        """Turn pictures into the model's inputs, on its device, padded on the left."""
        for image in images:
            if not isinstance(image, Image.Image):
                raise TypeError(f"a picture must be a PIL.Image.Image, not {type(image).__name__}")
        pictures = [image.convert("RGB") for image in images]
        if self._text is not None:
            made = self._processor(
                images=[[picture] for picture in pictures],
                text=[self._text] * len(pictures),
                padding=True,
                return_tensors="pt",
                **self._text_options(),
            )
        else:
            made = self._processor(images=pictures, return_tensors="pt")
        tensors = made.to(self._model.device, self._model.dtype)
        inputs = {
            name: value
            for name, value in tensors.items()
            if name in self._accepted and isinstance(value, torch.Tensor) and name != "labels"
        }
        if not self._start and "input_ids" not in inputs:
            inputs["input_ids"] = torch.full((len(pictures), 1), self._bare_start, device=self._model.device)
        return inputs

    def _text_options(self) -> dict[str, Any]:
        """Keep a template that writes the start token itself from getting a second one."""
        begin = self._tokenizer.bos_token
        return {"add_special_tokens": False} if begin and self._text and self._text.startswith(begin) else {}

    def _prompt_text(self, prompt: str | None) -> str | None:
        """Make the text that the processor gets; ``None`` where it gets none."""
        if not self._takes_text or not isinstance(self._processor, _hub.ProcessorMixin):
            return None
        image_token = getattr(self._processor, "image_token", None) or ""
        asked = PROMPT if prompt is None else prompt
        template = getattr(self._processor, "chat_template", None) or self._tokenizer.chat_template
        if template is not None:
            text = self._render(template, [{"type": "image"}, {"type": "text", "text": asked}])
            # A template for text alone has no place for the picture.
            return text if image_token in text else self._render(template, f"{image_token}\n{asked}")
        if prompt is None and self._accepts() is not None:
            return None
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

    def _decode(self, row: Row) -> str:
        """Turn token ids into a text without broken characters, outer white space and invented spaces."""
        text = str(self._tokenizer.decode(list(row), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        text = text.partition("\ufffd")[0].strip()
        closed = _HAN_GAP.sub("", text)
        # WordPiece decoders put a space between all tokens. A space that the tokenizer does not see is none.
        return closed if closed != text and self._encode(closed) == self._encode(text) else text

    def _find_context(self) -> str:
        """Find what stands between the prompt's last special token and the answer, as the model sees it."""
        if self._start:
            return ""
        prompt: list[int] = self._inputs([_blank()])["input_ids"][0].tolist()
        added = self._tokenizer.added_tokens_decoder.items()
        special = {*self._tokenizer.all_special_ids, *(token for token, kind in added if kind.special)}
        tail = prompt[max((place + 1 for place, token in enumerate(prompt) if token in special), default=0) :]
        context = str(self._tokenizer.decode(tail, clean_up_tokenization_spaces=False))
        return context if self._encode(context) == tuple(tail) else ""

    def _spellings(self, text: str) -> list[Row]:
        """Write `text` in each way of tokens that reads as it; none where the tokenizer can't write it."""
        if self._start:
            # Encoder-decoders are trained on what the tokenizer writes, its special tokens included.
            full = self._encode(text, special=True)
            while full and full[-1] in self._ends:
                full = full[:-1]
            rows = [full, self._encode(text)]
        else:
            closed = not self._context or self._context[-1].isspace()
            rows = [self._after_prompt(lead + text) for lead in ("", " ")[: 1 if closed else 2]]
        unknown = self._tokenizer.unk_token_id
        writable = [row for row in dict.fromkeys(rows) if unknown is None or unknown not in row]
        return [] if "\ufffd" in text else writable

    def _after_prompt(self, text: str) -> Row:
        """Tokens of `text` as they follow the prompt, which can differ from those of the text alone."""
        prompt, both = self._encode(self._context), self._encode(self._context + text)
        return both[len(prompt) :] if both[: len(prompt)] == prompt else self._encode(text)


def _blank() -> Image.Image:
    """Make a picture for questions whose answer does not depend on it."""
    return Image.new("RGB", (64, 64))


def _log_sum(values: Sequence[float]) -> float:
    """Logarithm of the sum of the exponentials; ``-inf`` for none."""
    top = max(values, default=-math.inf)
    if top == -math.inf:
        return top
    return min(0.0, top + math.log(sum(math.exp(value - top) for value in values)))


def _load_config(model: str | Path) -> Any:
    """Read the model's configuration, or say what is wrong with the name."""
    name = str(model)
    local = Path(model).is_dir()
    if not local and (isinstance(model, Path) or not _HUB_ID.fullmatch(name)):
        raise ModelError(f"no folder {name}; give the folder of a saved model, or a hub id such as owner/name")
    try:
        config = _hub.AutoConfig.from_pretrained(name)
    except OSError as error:
        remedy = (
            "save config.json, weights, tokenizer and processor into it" if local else "check the id and the network"
        )
        raise ModelError(f"no model can be loaded from {name}; {remedy}: {error}") from error
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"transformers {transformers.__version__} does not know the model {name}; "
            f"update transformers, or take another model: {error}"
        ) from error
    if type(config) not in _hub.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ModelError(
            f"{name} is a {config.model_type} model; reading pictures needs an image-text-to-text model "
            "(LLaVA, Qwen-VL, GOT-OCR2, PaddleOCR-VL, TrOCR, ...)"
        )
    return config


def _load_model(name: str, device: torch.device, dtype: Dtype) -> Any:
    chosen: Any = dtype
    if dtype == "auto" and device.type == "cpu":
        chosen = "float32"
    try:
        model = _hub.AutoModelForImageTextToText.from_pretrained(
            name, dtype=chosen if chosen == "auto" else getattr(torch, chosen)
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the weights of {name} can't be loaded; save or download them again: {error}") from error
    except ImportError as error:
        raise MissingDependencyError(f"{name} needs a package that is not installed: {error}") from error
    return model.to(device).eval()


def _load_processor(name: str, config: Any) -> tuple[Any, Any]:
    """Load what turns pictures and prompts into inputs, and the tokenizer."""
    try:
        try:
            processor = _hub.AutoProcessor.from_pretrained(name)
        except (ImportError, ValueError) as error:
            if "torchvision" not in str(error).lower():
                raise
            processor = _without_video(name, config, error)
        if isinstance(processor, _hub.ProcessorMixin):
            return processor, processor.tokenizer
        # A folder with the parts and no processor: put them side by side.
        return _hub.AutoImageProcessor.from_pretrained(name), _hub.AutoTokenizer.from_pretrained(name)
    except ImportError as error:
        missing = f"install it with: {_TORCHVISION}" if "torchvision" in str(error).lower() else "install it"
        raise MissingDependencyError(
            f"the processor of {name} ({config.model_type}) needs a package that is not installed; {missing}: {error}"
        ) from error
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ModelError(
            f"the processor of {name} can't be loaded; save tokenizer and processor into the folder of the "
            f"weights: {error}"
        ) from error


def _without_video(name: str, config: Any, reason: Exception) -> Any:
    """Build a processor without its video part, which is what needs torchvision in most families."""
    loaders = {
        "tokenizer": _hub.AutoTokenizer,
        "image_processor": _hub.AutoImageProcessor,
        "feature_extractor": _hub.AutoFeatureExtractor,
    }
    kind = _hub.models.auto.processing_auto.PROCESSOR_MAPPING.get(type(config), None)
    parts = kind.get_attributes() if kind is not None else []
    if "video_processor" not in parts or not set(parts) <= {"video_processor", *loaders}:
        raise ImportError(str(reason)) from reason

    class ImagesOnly(kind):  # type: ignore[misc, valid-type]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name == "video_processor" and argument is None:
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    settings, _ = kind.get_processor_dict(name)
    made = [None if part == "video_processor" else loaders[part].from_pretrained(name) for part in parts]
    return ImagesOnly.from_args_and_dict(made, settings)
