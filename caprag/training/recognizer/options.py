"""How a recognizer is trained: every hyperparameter with its default, and recipes, which are files of them.

Knows no model and no data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from caprag.errors import CapragError

Method = Literal["lora", "qlora", "full", "projector"]
"""What is trained: adapters, adapters on four-bit weights, everything, or what joins eyes and language alone."""

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True, slots=True)
class RecognizerOptions:
    r"""How a recognizer is trained; the defaults are LLaVA's for adapters.

    Attributes
    ----------
    method
        See `Method`. Adapters go to the language model unless `lora_targets` says otherwise.
    tower
        ``"tuned"`` trains the whole vision tower, of the shipped reader what may change in it and the neck behind it;
        ``"frozen"`` leaves it as it is, and puts no adapters there.
    projector
        Whether what joins tower and language model is trained in full.
    tower_modules, projector_modules
        Regular expressions for the names of their modules; ``None`` knows the usual ones.
    lora_rank, lora_alpha, lora_dropout
        Rank >= 1, scale (the adapter's part is alpha / rank), share dropped in [0, 1).
    lora_targets
        Names or regular expressions of the linear layers that get adapters: a text matches at the end of a module's
        name, or all of it as an expression. Empty: all of the language model.
    learning_rate
        The highest, > 0.
    module_rates
        Regular expression to a learning rate for the parameters whose names it is found in; the first that fits
        counts, the rest have `learning_rate`. ``{"multi_modal_projector": 1e-3}`` for example.
    weight_decay, adam_beta1, adam_beta2, max_grad_norm
        Of AdamW; biases and norms do not decay.
    warmup
        Steps on the way up: a share of all in [0, 1), or a number of steps.
    schedule
        The way down.
    epochs, max_steps
        Times that each example is seen, > 0; or a number of steps, which then counts.
    batch_size, accumulation
        Examples at once on each device, and how many such batches make a step, >= 1.
    gradient_checkpointing
        Compute activations twice instead of keeping them: slower, less memory.
    max_length
        Most tokens of an example, the picture's included; ``None`` is as many as the model has places. A longer answer
        is cut; a picture never is.
    precision
        What is computed in; ``"auto"`` is bfloat16 on a GPU that can, else float32. What is trained is kept in float32.
    prompt
        What is asked of every picture; ``None`` leaves that to the data, or to the family for a model that does not
        follow instructions. For a model that takes the picture alone it is what its decoder starts with.
    crop
        What of a picture is shown: the whole ``"frame"``, or the caption ``"band"`` that is found in it (anew in each
        pass); ``"auto"`` is what the family is shown in reading. Pictures that are crops already want ``"frame"``.
    save_steps, keep_checkpoints
        Steps between two checkpoints, and how many to keep, >= 1. Held-out pictures are read at each.
    patience
        Stop after so many held-out readings without a better one; ``None`` never does.
    max_new_tokens
        Most tokens of a held-out reading, >= 1.
    logging_steps
        Steps between two entries in the logs, >= 1.
    workers
        Processes that load pictures; 0 is none beside this one.
    seed
        Of order, adapters and dropout.
    deepspeed
        ``"zero2"``, ``"zero3"``, ``"zero3-offload"`` or a file of DeepSpeed.
    fsdp
        ``"fsdp"`` or a file: transformers' ``fsdp_config``.
    others
        Any other of transformers' training arguments, by its name there.
    """

    method: Method = "lora"
    tower: Literal["frozen", "tuned"] = "frozen"
    projector: Literal["full", "frozen"] = "full"
    tower_modules: str | None = None
    projector_modules: str | None = None
    lora_rank: int = 128
    lora_alpha: float = 256
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = ()
    learning_rate: float = 2e-5
    module_rates: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    max_grad_norm: float = 1.0
    warmup: float = 0.03
    schedule: Schedule = "cosine"
    epochs: float = 1.0
    max_steps: int | None = None
    batch_size: int = 4
    accumulation: int = 1
    gradient_checkpointing: bool = False
    max_length: int | None = None
    precision: Precision = "auto"
    prompt: str | None = None
    crop: Literal["auto", "frame", "band"] = "auto"
    save_steps: int = 500
    keep_checkpoints: int = 2
    patience: int | None = None
    max_new_tokens: int = 64
    logging_steps: int = 10
    workers: int = 0
    seed: int = 42
    deepspeed: str | None = None
    fsdp: str | None = None
    others: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if not _is_a(value, kind):
                wanted = str(getattr(kind, "__name__", kind) if get_origin(kind) is None else kind).replace(
                    "typing.", ""
                )
                raise TypeError(f"{name} is {value!r}, a {type(value).__name__}; wanted is {wanted}")
        choices = {"method": Method, "precision": Precision, "schedule": Schedule}
        known = {name: get_args(kind) for name, kind in choices.items()}
        known |= {"tower": ("frozen", "tuned"), "projector": ("full", "frozen")}
        known |= {"crop": ("auto", "frame", "band")}
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {getattr(self, name)!r}; known are {', '.join(values)}")
        for name in (
            "lora_rank", "batch_size", "accumulation", "save_steps", "keep_checkpoints", "logging_steps", "max_steps",
            "max_length", "patience", "max_new_tokens",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; at least 1 is needed")
        rates = {"learning_rate": self.learning_rate, **{f"module_rates {k}": v for k, v in self.module_rates.items()}}
        for name, value in {**rates, "epochs": self.epochs, "lora_alpha": self.lora_alpha}.items():
            if not value > 0:
                raise ValueError(f"{name} is {value}; it must be above 0")
        if not 0 <= self.lora_dropout < 1 or self.warmup < 0 or self.workers < 0:
            raise ValueError(
                f"lora_dropout is {self.lora_dropout}, warmup {self.warmup}, workers {self.workers}; the first goes "
                "from 0 to below 1, the others are at least 0"
            )
        if self.deepspeed is not None and self.fsdp is not None:
            raise ValueError(f"deepspeed is {self.deepspeed!r} and fsdp {self.fsdp!r}; give one of them")
        if self.method == "projector" and self.projector == "frozen":
            raise ValueError("method is 'projector' and projector is 'frozen': nothing would be trained; unfreeze it")
        for pattern in (*self.module_rates, *self.lora_targets, self.tower_modules or "", self.projector_modules or ""):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {**asdict(self), "lora_targets": [*self.lora_targets]}


def _is_a(value: Any, kind: Any) -> bool:
    """Say whether a value is of the type of an option; what a choice may be is looked at elsewhere."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin is Literal:
        return isinstance(value, str)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_a(one, parts[0]) for one in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_is_a(k, parts[0]) and _is_a(v, parts[1]) for k, v in value.items())
    if parts:
        return any(_is_a(value, part) for part in parts)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return isinstance(value, kind)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training that was thought out once: which model, and how.

    Attributes
    ----------
    about
        What it is for, and where its figures come from.
    model
        Hub id or folder that it was made for; another of the family may be given instead.
    settings
        Names of `RecognizerOptions` with their values.
    """

    about: str
    model: str
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Recipe:
        """Read a recipe: a JSON object with ``about``, ``model`` and options by name.

        Raises
        ------
        CapragError
            For a file that can't be read, for a name that is no option, and for a value that none may have.
        """
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CapragError(f"{path}: can't be read ({error.strerror}); name a recipe") from error
        except ValueError as error:
            raise CapragError(f"{path}: is not JSON ({error}); mend it") from error
        if not isinstance(given, dict):
            raise CapragError(f"{path}: is a {type(given).__name__}; an object with options by name is wanted")
        about, model = str(given.pop("about", "")), str(given.pop("model", ""))
        unknown = sorted(set(given) - {one.name for one in fields(RecognizerOptions)})
        if unknown:
            raise CapragError(f"{path}: has {', '.join(unknown)}, which no training knows; take it out, or mend it")
        recipe = cls(about, model, given)
        try:
            recipe.options()
        except (TypeError, ValueError) as error:
            raise CapragError(f"{path}: {error}") from error
        return recipe

    def options(self, **changes: Any) -> RecognizerOptions:
        """Return the options of this recipe, with changes that win over it.

        Raises
        ------
        ValueError, TypeError
            For a value out of its range or of another type.
        """
        chosen = {**self.settings, **changes}
        if isinstance(chosen.get("lora_targets"), list):
            chosen["lora_targets"] = tuple(chosen["lora_targets"])
        return RecognizerOptions(**chosen)
