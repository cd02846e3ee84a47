"""Which parts of a model are trained, and how fast: tower, projector and language model told apart by their names.

Names are those of transformers' families; others are given as regular expressions. Knows nothing of data.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from caprag.errors import ModelError, require
from caprag.training.recognizer.options import RecognizerOptions

Role = Literal["tower", "projector", "language"]

_PROJECTOR = (
    r"(^|\.)(multi_modal_projector|multimodal_projector|mm_projector|visual_projector|vision_projector|image_projector|"
    r"projector|connector|aligner|resampler|mlp1|mlp_AR|merger|deepstack_merger_list|enc_to_dec_proj|"
    r"visual_projection)(\.|$)"
)
_TOWER = (
    r"(^|\.)(vision_tower|vision_model|visual|vision_encoder|image_tower|image_encoder|vpm|vision_embed_tokens)(\.|$)"
    r"|^(encoder|tower_changes|neck)(\.|$)"
)
_WRAPPED = re.compile(r"(^|\.)(module|_fsdp_wrapped_module|_orig_mod|base_layer)(?=\.|$)")
_ADAPTED = re.compile(r"\.(lora_[A-Z]\w*|lora_magnitude_vector|modules_to_save)\.default(?=\.|$)")


def plain_name(name: str) -> str:
    """Return a parameter's name in the model itself, whatever wraps it.

    Examples
    --------
    >>> plain_name("base_model.model.model.projector.modules_to_save.default.linear.weight")
    'model.projector.linear.weight'
    >>> plain_name("base_model.model.lm.q_proj.lora_A.default.weight")
    'lm.q_proj.lora_A.weight'
    """
    name = _WRAPPED.sub("", name).lstrip(".").removeprefix("base_model.model.")
    return _ADAPTED.sub(lambda found: "" if found[1] == "modules_to_save" else f".{found[1]}", name)


def role_of(name: str, options: RecognizerOptions) -> Role:
    """Return what a module or parameter of that plain name belongs to; a projector may lie within the tower."""
    if re.search(options.projector_modules or _PROJECTOR, name):
        return "projector"
    return "tower" if re.search(options.tower_modules or _TOWER, name) else "language"


def _roots(model: nn.Module, role: Role, options: RecognizerOptions) -> list[str]:
    """Return the outermost modules that are wholly of a role and have weights."""
    found: list[str] = []
    for name, module in model.named_modules():
        if not name or any(name.startswith(f"{outer}.") for outer in found) or isinstance(module, nn.ModuleList):
            continue
        inner = [role_of(f"{name}.{own}", options) for own, _ in module.named_parameters()]
        if inner and role_of(name, options) == role and all(one == role for one in inner):
            found.append(name)
    return found


def prepare(model: Any, options: RecognizerOptions) -> Any:
    """Freeze and wrap a model as a training wants it.

    Parameters
    ----------
    model
        A transformers image-text-to-text model; it is changed.
    options
        See there.

    Returns
    -------
    torch.nn.Module
        The model, or PEFT's model around it. What is trained is in float32.

    Raises
    ------
    ModelError
        Where the model has no part that the options name.
    MissingDependencyError
        Where PEFT is not installed and adapters are wanted.
    ValueError
        For adapters on what is trained in full.
    """
    roles = {name: role_of(name, options) for name, _ in model.named_parameters()}
    wanted: set[Role] = set()
    if options.projector == "full":
        wanted.add("projector")
    if options.tower == "tuned":
        wanted.add("tower")
    for role in sorted(wanted | ({"tower"} if options.tower == "frozen" else set())):
        # An encoder-decoder without a projector joins its parts by cross-attention.
        if role not in roles.values() and not (role == "projector" and options.method in ("lora", "full", "qlora")):
            raise ModelError(
                f"{type(model).__name__} has no {role} among {_children(model)}; name its modules by {role}_modules"
            )
    if options.method in ("lora", "qlora"):
        return _adapted(model, options, wanted)
    if options.method == "full":
        wanted.add("language")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(roles[name] in wanted)
    _widen(model)
    return model


def _children(model: nn.Module) -> str:
    names = sorted({".".join(name.split(".")[:2]) for name, _ in model.named_parameters()})
    return ", ".join(names[:12])


def _widen(model: nn.Module) -> None:
    """Keep what is trained in float32: steps of 1e-5 are lost in half precision."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if any(parameter.requires_grad and parameter.is_floating_point() for parameter in own):
            # What a module has counted beside its weights is used with them.
            for tensor in (*(one for one in own if one.requires_grad), *module.buffers(recurse=False)):
                if tensor.is_floating_point():
                    tensor.data = tensor.data.float()


def mixed(model: nn.Module) -> AbstractContextManager[object]:
    """Return the context in which a model runs that is kept in half precision, but for what is trained."""
    floats = [parameter for parameter in model.parameters() if parameter.is_floating_point()]
    half = next((one for one in floats if one.dtype in (torch.bfloat16, torch.float16)), None)
    if half is None or all(one.dtype == half.dtype for one in floats):
        return nullcontext()
    return torch.autocast(half.device.type, half.dtype)


def _adapted(model: Any, options: RecognizerOptions, wanted: set[Role]) -> Any:
    peft: Any = require("peft", "train")
    whole = [root for role in sorted(wanted) for root in _roots(model, role, options)]
    targets = lora_targets(model, options)
    clash = [name for name in targets if any(name == root or name.startswith(f"{root}.") for root in whole)]
    if clash:
        raise ValueError(f"lora_targets has {clash[0]}, which is trained in full; freeze that part, or name others")
    config = peft.LoraConfig(
        r=options.lora_rank, lora_alpha=options.lora_alpha, lora_dropout=options.lora_dropout,
        target_modules=targets, modules_to_save=whole or None, bias="none",
    )  # fmt: skip
    with torch.random.fork_rng(), warnings.catch_warnings():
        # PEFT asks transformers in a way that will go.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(options.seed)
        adapted = peft.get_peft_model(model, config)
    _widen(adapted)
    return adapted


def lora_targets(model: Any, options: RecognizerOptions) -> list[str]:
    """Return the names of the linear layers that get adapters.

    Raises
    ------
    ModelError
        Where none has a name that was asked for.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    if not options.lora_targets:
        return [name for name in linear if role_of(name, options) == "language"]
    chosen: list[str] = []
    for target in options.lora_targets:
        ending = re.compile(rf"(^|.*\.){re.escape(target)}")
        found = [name for name in linear if ending.fullmatch(name)]
        found = found or [name for name in linear if re.fullmatch(target, name)]
        if not found:
            kinds = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
            raise ModelError(
                f"lora_targets has {target!r}, which no linear layer of {type(model).__name__} has; known: {kinds}"
            )
        chosen += found
    return list(dict.fromkeys(chosen))


def optimizer_groups(
    parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    rate: float,
    module_rates: Mapping[str, float],
    weight_decay: float,
    decaying: Collection[str],
) -> list[dict[str, Any]]:
    """Sort what is trained by learning rate and decay.

    Parameters
    ----------
    parameters
        Names and parameters of the model; frozen ones are left out.
    rate, module_rates
        See `RecognizerOptions`.
    weight_decay
        Of the parameters in `decaying`; the others have none.
    decaying
        Names, as in `parameters`.

    Returns
    -------
    list of dict
        Groups for a torch optimizer with ``params``, ``lr``, ``weight_decay``, and ``names`` for the logs; each
        parameter is in one.

    Raises
    ------
    ValueError
        For an expression in `module_rates` that fits no trained parameter.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    used: set[str] = set()
    for name, parameter in parameters:
        if not parameter.requires_grad:
            continue
        plain = plain_name(name)
        fitting = next((pattern for pattern in module_rates if re.search(pattern, plain)), None)
        used |= {fitting} if fitting is not None else set()
        chosen = rate if fitting is None else module_rates[fitting]
        decay = weight_decay if name in decaying else 0.0
        empty = {"params": [], "lr": chosen, "weight_decay": decay, "names": []}
        group = groups.setdefault((chosen, decay), empty)
        group["params"].append(parameter)
        group["names"].append(plain)
    idle = [pattern for pattern in module_rates if pattern not in used]
    if idle:
        raise ValueError(f"module_rates has {idle[0]!r}, which no trained parameter has in its name; mend or drop it")
    return [groups[key] for key in sorted(groups)]
