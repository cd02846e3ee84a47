"""The model that a training begins with, its processor and its tokenizer; and what must lie beside its weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from caprag.errors import ModelError, require
from caprag.recognition.loading import Dtype, load_model, load_processor, locate, model_place
from caprag.training.recognizer.options import RecognizerOptions

_BESIDE = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
_NOT_BESIDE = ("*.index.json", "adapter_*", "run.json", "trainer_state.json", "config.json", "generation_config.json")


def compute_dtype(options: RecognizerOptions) -> Dtype:
    """Return what is computed in."""
    if options.precision != "auto":
        return options.precision
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def load_base(name: str, options: RecognizerOptions) -> tuple[Any, Any, Any]:
    """Load a model to be trained, its processor and its tokenizer.

    Parameters
    ----------
    name
        Hub id, or folder with weights, tokenizer and processor; ``"caprag"`` for the shipped reader.
    options
        The method decides in what the weights are kept: four bits for qlora, the precision of the computation for
        lora, float32 else.

    Raises
    ------
    ModelError
        Where there is no such model, it is of another kind, or an adapter shall get adapters.
    MissingDependencyError
        Where a package is missing.
    """
    adapters = options.method in ("lora", "qlora")
    if adapters and locate(name).adapter is not None:
        raise ModelError(f"{name} holds adapters; merge them with their model first: caprag merge {name} --out FOLDER")
    kept: Dtype = {"lora": compute_dtype(options), "qlora": "int4"}.get(options.method, "float32")
    place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    processor, tokenizer = load_processor(name)
    model = load_model(name, place, kept)
    if options.method == "qlora":
        peft: Any = require("peft", "train")
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return model, processor, tokenizer


def copy_beside(name: str, out: Path) -> None:
    """Copy what reads text and pictures into the folder of the result, as it lies beside the model's weights.

    A processor that is saved anew can lose what it was loaded without, and the files are not changed by a training.
    """
    folder = Path(model_place(name))
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, allow_patterns=list(_BESIDE)))
    for pattern in _BESIDE:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and not any(path.match(other) for other in _NOT_BESIDE):
                shutil.copyfile(path, out / path.name)
