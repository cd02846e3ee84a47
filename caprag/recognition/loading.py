"""Loads image-text-to-text models: configuration, weights, adapters on top, processor.

Everything goes through transformers' Auto classes, and every failure names the remedy. Does not know what a
model is asked, or what is done with it.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import transformers
from safetensors import SafetensorError
from transformers.utils.peft_utils import find_adapter_config_file

from caprag.errors import MissingDependencyError, ModelError, require

_hub: Any = transformers  # its annotations differ from version to version

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"]
"""Of the weights; int8 and int4 keep the language model's linear layers in 8 or 4 bits (bitsandbytes)."""

SHIPPED = "caprag"
"""Name of the reader that is shipped, wherever a model is named."""

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
_TORCHVISION = "pip install torchvision, in the build that belongs to your torch (its version and CPU or CUDA)"
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes
    ----------
    base
        Hub id or folder of the model itself.
    adapter
        Hub id or folder of a PEFT adapter on top; ``None`` for none.
    """

    base: str
    adapter: str | None = None


def locate(model: str | Path, adapter: str | Path | None = None) -> Source:
    """Find out what has to be loaded.

    Parameters
    ----------
    model
        Hub id or folder of a model, or of a PEFT adapter, which names its base itself; or `SHIPPED`.
    adapter
        Hub id or folder of a PEFT adapter for `model`.

    Returns
    -------
    Source
        Base and adapter.

    Raises
    ------
    ModelError
        Where there is no such folder, `adapter` is no adapter, or `model` is one beside a given `adapter`.
    """
    name = model_place(model)
    found = _adapter_config(name)
    if adapter is None:
        if found is None:
            return Source(name)
        base = found.get("base_model_name_or_path")
        if not base or (not Path(base).is_dir() and not _HUB_ID.fullmatch(base)):
            raise ModelError(
                f"the adapter {name} was made for the model {base}, which is not there; give the folder where it is "
                "now as the model, and this one as its adapter"
            )
        return Source(model_place(base), name)
    if found is not None:
        raise ModelError(
            f"{name} is an adapter itself; give its base as the model (several adapters have to be merged first)"
        )
    if _adapter_config(model_place(adapter)) is None:
        raise ModelError(f"{adapter} holds no adapter_config.json; give a folder that peft has saved an adapter to")
    return Source(name, str(adapter))


def load_config(source: Source) -> Any:
    """Read a model's configuration.

    Parameters
    ----------
    source
        What `locate` gave.

    Returns
    -------
    transformers.PretrainedConfig
        That of the base.

    Raises
    ------
    ModelError
        Where there is no such model, or it is of another kind.
    """
    name = source.base
    try:
        if _hub.PreTrainedConfig.get_config_dict(name)[0].get("model_type") == "caprag_reader":
            # Makes its classes known to transformers.
            import caprag.recognition.reader  # noqa: F401
        config = _hub.AutoConfig.from_pretrained(name)
    except OSError as error:
        remedy = "check the id and the network"
        if Path(name).is_dir():
            remedy = "save config.json, weights, tokenizer and processor into it"
        elif source.adapter is not None:
            remedy = f"the adapter {source.adapter} was made for it: give the base as the model, where it is now"
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


def load_model(
    name: str | Path,
    device: str | torch.device | None = None,
    dtype: Dtype = "auto",
    *,
    adapter: str | Path | None = None,
) -> Any:
    """Load an image-text-to-text model, ready to generate.

    Parameters
    ----------
    name
        Hub id or folder of a model or of a PEFT adapter.
    device
        A torch device; ``None``: the first CUDA device, or the CPU where there is none.
    dtype
        Of the weights; ``"auto"``: float32 on a CPU, elsewhere what the weights were saved in.
    adapter
        Hub id or folder of a PEFT adapter, put on top. It is merged into the weights, unless those have 8 or 4 bits.

    Returns
    -------
    transformers.PreTrainedModel
        On the device, in evaluation mode.

    Raises
    ------
    ModelError
        Where the model can't be loaded, the adapter does not fit it, or the device can't have the `dtype`.
    MissingDependencyError
        Where a package is missing: peft for adapters, bitsandbytes for 8 and 4 bits.
    ValueError
        For an unknown `dtype`.
    """
    if dtype not in get_args(Dtype):
        raise ValueError(f"dtype must be one of {', '.join(get_args(Dtype))}, not {dtype!r}")
    source = locate(name, adapter)
    config = load_config(source)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    bits = {"int8": 8, "int4": 4}.get(dtype)
    settings = _quantised(config, bits, place) if bits else {"dtype": _torch_dtype(dtype, place)}
    try:
        model = _hub.AutoModelForImageTextToText.from_pretrained(source.base, **settings)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"the weights of {source.base} can't be loaded; save or download them again: {error}"
        ) from error
    except ImportError as error:
        raise MissingDependencyError(f"{source.base} needs a package that is not installed: {error}") from error
    if not bits:
        model = model.to(place)
    for module in model.modules():
        # On some CPUs it would pack weights at the first reading, in a form that can't be trained, nor have any width.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if source.adapter is not None:
        model = _with_adapter(model, source.adapter, merge=not bits)
    return model.eval()


def load_processor(name: str | Path, *, adapter: str | Path | None = None) -> tuple[Any, Any]:
    """Load what turns pictures and prompts into inputs.

    Parameters
    ----------
    name
        Hub id or folder of a model or of a PEFT adapter. An adapter's folder that holds a processor gives that one:
        the model was tuned with it.
    adapter
        Hub id or folder of a PEFT adapter.

    Returns
    -------
    processor
        A processor, or an image processor where the model has the parts only.
    tokenizer
        The processor's, or the model's.

    Raises
    ------
    ModelError
        Where it is missing or damaged.
    MissingDependencyError
        Where it needs a package that is not installed.
    """
    source = locate(name, adapter)
    config = load_config(source)
    home = source.base
    if source.adapter is not None and any((Path(source.adapter) / file).is_file() for file in _PROCESSOR_FILES):
        home = source.adapter
    try:
        try:
            processor = _hub.AutoProcessor.from_pretrained(home)
        except (ImportError, ValueError) as error:
            if "torchvision" not in str(error).lower():
                raise
            processor = _without_video(home, config, error)
        if isinstance(processor, _hub.ProcessorMixin):
            return processor, processor.tokenizer
        # A folder with the parts and no processor: put them side by side.
        return _hub.AutoImageProcessor.from_pretrained(home), _hub.AutoTokenizer.from_pretrained(home)
    except ImportError as error:
        missing = f"install it with: {_TORCHVISION}" if "torchvision" in str(error).lower() else "install it"
        raise MissingDependencyError(
            f"the processor of {home} ({config.model_type}) needs a package that is not installed; {missing}: {error}"
        ) from error
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ModelError(
            f"the processor of {home} can't be loaded; save tokenizer and processor into the folder of the "
            f"weights: {error}"
        ) from error


def model_place(name: str | Path) -> str:
    """Return a model's folder or hub id: for ``"caprag"`` the folder of the reader that is shipped.

    Raises
    ------
    ModelError
        For what is neither a folder nor can be a hub id.
    """
    if name == SHIPPED:
        return str(Path(__file__).parent / "reader" / "weights")
    if not Path(name).is_dir() and (isinstance(name, Path) or not _HUB_ID.fullmatch(name)):
        raise ModelError(f"no folder {name}; give the folder of a saved model, or a hub id such as owner/name")
    return str(name)


def _adapter_config(name: str) -> dict[str, Any] | None:
    """Read what an adapter says of itself; ``None`` for what is none."""
    try:
        path = find_adapter_config_file(name)
    except (OSError, ValueError):
        return None  # no name for the hub either, which is told when the model is looked for
    if path is None:
        return None
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is damaged; save or download the adapter again: {error}") from error
    return found if isinstance(found, dict) else {}


def _torch_dtype(dtype: str, place: torch.device) -> Any:
    if dtype == "auto" and place.type == "cpu":
        return torch.float32
    return dtype if dtype == "auto" else getattr(torch, dtype)


def few_bits(config: Any, bits: int, compute: torch.dtype) -> Any:
    """Say how a model's language model is kept in few bits; tower, projector and head stay as they are.

    Parameters
    ----------
    config
        The model's configuration.
    bits
        8 (LLM.int8) or 4 (NormalFloat, quantised twice).
    compute
        What is computed in.

    Returns
    -------
    transformers.BitsAndBytesConfig
        For ``from_pretrained``.
    """
    with torch.device("meta"):
        plan = _hub.AutoModelForImageTextToText.from_config(config)
    inner = plan.base_model
    prefix = "" if inner is plan else f"{plan.base_model_prefix}."
    parts = [name for name, _ in inner.named_children()]
    # Eyes are a small part of the bytes, and what they see wrongly no language model mends. Where no part is called the
    # language model, transformers decides.
    kept = [*(f"{prefix}{name}" for name in parts if name != "language_model"), "lm_head"]
    return _hub.BitsAndBytesConfig(
        load_in_8bit=bits == 8, load_in_4bit=bits == 4, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute, llm_int8_skip_modules=kept if "language_model" in parts else None,
    )  # fmt: skip


def _quantised(config: Any, bits: int, place: torch.device) -> dict[str, Any]:
    if place.type not in ("cuda", "cpu"):
        raise ModelError(f"int{bits} needs a CUDA device or a CPU, and this is {place}; take dtype bfloat16 there")
    require("bitsandbytes", "quantize")
    require("accelerate", "quantize")
    if bits == 8:
        # It says at every layer of every reading that its inputs become float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    on_cpu = place.type == "cpu"
    settings = few_bits(config, bits, torch.float32 if on_cpu else torch.bfloat16)
    # What stays out of the few bits is in single precision on a CPU, as all of a model is.
    return {
        "quantization_config": settings, "device_map": {"": place}, "dtype": torch.float32 if on_cpu else "auto",
    }  # fmt: skip


def _with_adapter(model: Any, adapter: str, *, merge: bool) -> Any:
    peft: Any = require("peft", "lora")
    try:
        with warnings.catch_warnings():
            # Weights that find no place would leave the model as it was, without a word.
            warnings.filterwarnings("error", "Found missing adapter keys", UserWarning)
            # What peft asks transformers is not the user's to mend.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            tuned = peft.PeftModel.from_pretrained(model, adapter)
        return tuned.merge_and_unload() if merge else tuned.get_base_model()
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, UserWarning) as error:
        raise ModelError(
            f"the adapter {adapter} does not fit {type(model).__name__}; give the base that it was made for: {error}"
        ) from error


class _NoVideo(dict[str, Any]):
    """Stands where a processor wants its video part; has no settings, and is printed as none."""

    model_input_names: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _without_video(name: str, config: Any, reason: Exception) -> Any:
    """Build a processor without its video part, which is what needs torchvision in most families."""
    loaders = {
        "tokenizer": _hub.AutoTokenizer,
        "image_processor": _hub.AutoImageProcessor,
        "feature_extractor": _hub.AutoFeatureExtractor,
    }
    kind = _hub.models.auto.processing_auto.PROCESSOR_MAPPING.get(type(config), None)
    if kind is None:
        # Some families borrow another one's processor, and only their files say which.
        settings, _ = _hub.image_processing_utils.ImageProcessingMixin.get_image_processor_dict(name)
        kind = getattr(_hub, str(settings.get("processor_class")), None)
    parts = kind.get_attributes() if kind is not None else []
    if "video_processor" not in parts or not set(parts) <= {"video_processor", *loaders}:
        raise ImportError(str(reason)) from reason

    class ImagesOnly(kind):  # type: ignore[misc, valid-type]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if isinstance(argument, _NoVideo):
                return None
            return super().check_argument_for_proper_class(argument_name, argument)

    settings, _ = kind.get_processor_dict(name)
    made = [_NoVideo() if part == "video_processor" else loaders[part].from_pretrained(name) for part in parts]
    return ImagesOnly.from_args_and_dict(made, settings)
