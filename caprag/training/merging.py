"""Adapters put into the weights for good: a folder that needs no PEFT, with all that lies beside a model.

The merging is PEFT's, in float32, and is tried on a picture and a question each time: merged and unmerged must say the
same. Quantised saving is by bitsandbytes, whose 8 and 4 bits can be made, saved and loaded on a CPU as on a GPU, and
which transformers loads without being told. What this module does not know: how well such a model reads.

References
----------
Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022. Dettmers et al., LLM.int8(), NeurIPS 2022, and
QLoRA, NeurIPS 2023 (NormalFloat in four bits).
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
import transformers
from PIL import Image
from safetensors import SafetensorError

from caprag.errors import ModelError, require
from caprag.recognition.families import family_of
from caprag.recognition.loading import few_bits, load_config, load_model, load_processor, locate
from caprag.recognition.wording import Wording
from caprag.training.model_folders import new_folder
from caprag.training.recognizer.base import copy_beside
from caprag.training.saving import folder_size, quiet

_hub: Any = transformers  # its annotations differ from version to version

MergedDtype = Literal["auto", "float32", "bfloat16", "float16"]
Bits = Literal["int8", "int4"]
"""Linear layers of the language model in 8 bits (LLM.int8) or 4 (NormalFloat, quantised twice)."""

TOLERANCE = 1e-4
"""By how much logits may differ between merged and unmerged, where they are at most 1; in proportion where larger."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What was merged.

    Attributes
    ----------
    folder
        Where it lies.
    base
        What the adapters were put into.
    adapters
        In their order.
    difference
        Largest difference between logits of the merged and the unmerged model, in float32.
    dtype
        Of the weights: float32, bfloat16 or float16; of those that are not quantised.
    quantize
        Bits of the language model's linear layers, ``None`` where they are as `dtype` says.
    size
        Of the folder, in bytes.
    """

    folder: Path
    base: str
    adapters: tuple[str, ...]
    difference: float
    dtype: str
    quantize: Bits | None
    size: int


def merge(
    adapters: Sequence[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    base: str | PathLike[str] | None = None,
    dtype: MergedDtype = "auto",
    quantize: Bits | None = None,
    device: str = "cpu",
) -> Merged:
    """Merge adapters into their base model.

    Parameters
    ----------
    adapters
        Hub ids or folders of PEFT adapters, at least one. Each is put into what those before it made, as when it was
        trained on that.
    out
        Folder to make. Tokenizer, processor, chat template and the like are copied from the base, and from an adapter
        that has its own.
    base
        Hub id or folder of the model; ``None``: what the first adapter names.
    dtype
        Of the weights in the folder; ``"auto"`` is that of the base. Half precision rounds what was merged.
    quantize
        See `Bits`.
    device
        Where it is computed: the base needs four bytes a parameter there.

    Returns
    -------
    Merged
        What it is made of.

    Raises
    ------
    ModelError
        Where base or adapter can't be loaded or do not fit, merged and unmerged differ, or `out` is not empty.
    MissingDependencyError
        Where a package is missing: peft, and bitsandbytes to quantise.
    ValueError
        For an unknown `dtype` or `quantize`, or no adapter.

    Examples
    --------
    >>> merge(["adapters/captions"], "models/captions", quantize="int8")  # doctest: +SKIP
    Merged(folder=PosixPath('models/captions'), base='llava', adapters=('adapters/captions',), ...)
    """
    if isinstance(adapters, (str, PathLike)) or not adapters:
        raise ValueError(f"adapters is {adapters!r}; a list of one or more folders is wanted")
    if dtype not in get_args(MergedDtype):
        raise ValueError(f"dtype is {dtype!r}; known are {', '.join(get_args(MergedDtype))}")
    if quantize is not None and quantize not in get_args(Bits):
        raise ValueError(f"quantize is {quantize!r}; known are {', '.join(get_args(Bits))}")
    require("peft", "lora")
    if quantize is not None:
        require("bitsandbytes", "quantize")
    names = [fspath(adapter) for adapter in adapters]
    first = locate(names[0]).base if base is None else fspath(base)
    for name in names:
        if locate(first, name).adapter is None:
            raise ModelError(f"{name} is no adapter")
    with new_folder(out) as folder, quiet(), torch.no_grad():
        config = load_config(locate(first))
        stored = getattr(config, "dtype", None) if dtype == "auto" else getattr(torch, dtype)
        model = load_model(first, device, "float32")
        inputs = _question(first, model)
        difference = 0.0
        for name in names:
            model, by = _merged(model, name, inputs)
            difference = max(difference, by)
        kind = stored if isinstance(stored, torch.dtype) else torch.float32
        model.to(kind)
        if quantize is None:
            model.save_pretrained(folder)
        else:
            whole = folder / "whole"
            model.save_pretrained(whole)
            del model
            _quantised(whole, quantize, kind, device).save_pretrained(folder)
            shutil.rmtree(whole)
        for name in (first, *names):
            copy_beside(name, folder)
        size = folder_size(folder)
    return Merged(Path(out), first, tuple(names), difference, str(kind).removeprefix("torch."), quantize, size)


def _question(name: str, model: Any) -> dict[str, torch.Tensor]:
    """Make inputs of a picture and the question that the model's family expects."""
    processor, tokenizer = load_processor(name)
    wording = Wording(name, model, processor, tokenizer, None, family_of(model.config.model_type))
    blocks = np.random.default_rng(0).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    inputs = wording.inputs([Image.fromarray(blocks).resize((256, 128), Image.Resampling.NEAREST)])
    if wording.start:
        inputs["decoder_input_ids"] = torch.tensor([wording.start], device=model.device)
    return inputs


def _merged(model: Any, name: str, inputs: dict[str, torch.Tensor]) -> tuple[Any, float]:
    """Merge one adapter, and return by how much logits changed in that."""
    peft: Any = require("peft", "lora")
    try:
        with warnings.catch_warnings():
            # Weights that find no place would leave the model as it was, without a word.
            warnings.filterwarnings("error", "Found missing adapter keys", UserWarning)
            # PEFT asks transformers by an old name.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            tuned = peft.PeftModel.from_pretrained(model, name).eval()
        before = tuned(**inputs).logits
        merged = tuned.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, UserWarning) as error:
        raise ModelError(
            f"the adapter {name} can't be merged into {type(model).__name__}; give the base that it was made for, and "
            f"adapters in the order in which they were trained: {error}"
        ) from error
    difference = float((merged(**inputs).logits - before).abs().max())
    bound = TOLERANCE * max(1.0, float(before.abs().max()))
    if not difference <= bound:
        raise ModelError(
            f"the adapter {name} is not the same merged: logits differ by {difference:.2g}, and {bound:.2g} is what "
            "rounding explains; use it unmerged"
        )
    return merged, difference


def _quantised(folder: Path, bits: Bits, kind: torch.dtype, device: str) -> Any:
    """Load a model with its language model in few bits; tower, projector and head stay as they are."""
    config = _hub.AutoConfig.from_pretrained(folder)
    settings = few_bits(config, {"int8": 8, "int4": 4}[bits], kind)
    try:
        return _hub.AutoModelForImageTextToText.from_pretrained(
            folder, dtype=kind, quantization_config=settings, device_map={"": device}
        )
    except (ImportError, RuntimeError, ValueError) as error:
        raise ModelError(f"bitsandbytes can't quantise to {bits} on {device}: {error}; leave quantize away") from error
