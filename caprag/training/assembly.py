"""A LLaVA out of any vision tower and any language model: the picture's features become tokens of the language model.

Both come with their weights as they are; between them stands a projector of two layers, newly drawn. What a tower
gives is not looked up by family but tried: a picture goes through it, and what comes out is counted. In the same way a
language model is taken only where it says, inside the LLaVA, exactly what it said before. The folder is one that plain
transformers loads, with tokenizer, processor, chat template and generation config. What this module does not know: how
such a model is trained.

References
----------
Liu et al., Visual Instruction Tuning, NeurIPS 2023; Liu et al., Improved Baselines with Visual Instruction Tuning,
CVPR 2024 (the projector of two layers, the layer before the last, the picture's patches without the class token).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
import transformers

from caprag.errors import ModelError
from caprag.training.chat import PLAIN_TEMPLATE, own_template, template_with_pictures, turn_end
from caprag.training.model_folders import new_folder
from caprag.training.saving import folder_size, quiet

_hub: Any = transformers  # its annotations differ from version to version

Fit = Literal["own", "whole"]
"""How a picture becomes the square that the tower sees: as its own processor does it, which for CLIP cuts the left and
right ends of a wide picture off; or the whole picture, squeezed."""

WeightDtype = Literal["auto", "float32", "bfloat16", "float16"]

_TOKENS_TRIED = 12
_TOWERS = "take CLIP, Chinese-CLIP, SigLIP or DINOv2"
_LANGUAGE_MODELS = "take one of the families Qwen2, Qwen3, Llama, Mistral or Phi-3"
_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True, slots=True)
class Assembled:
    """What was put together.

    Attributes
    ----------
    folder
        Where it lies.
    tower, language_model
        Model types, as ``chinese_clip_vision_model`` and ``qwen2``.
    image_tokens
        Tokens that a picture takes.
    parameters, projector_parameters
        Numbers of all parameters, and of those of the projector, which are new.
    new_tokens
        What was added to the vocabulary.
    ends
        Tokens that end an answer.
    size
        Of the folder, in bytes.
    """

    folder: Path
    tower: str
    language_model: str
    image_tokens: int
    parameters: int
    projector_parameters: int
    new_tokens: tuple[str, ...]
    ends: tuple[str, ...]
    size: int


@dataclass(frozen=True, slots=True)
class _View:
    """What a tower makes of a picture: sides of a patch in pixels, patches, and vectors that are no patch."""

    patch_size: int
    patches: int
    extra: int


def assemble(
    tower: str | PathLike[str],
    language_model: str | PathLike[str],
    out: str | PathLike[str],
    *,
    feature_layer: int = -2,
    keep_class_token: bool = False,
    fit: Fit = "own",
    chat_template: str | None = None,
    pad_to_multiple_of: int | None = None,
    dtype: WeightDtype = "auto",
    seed: int = 0,
) -> Assembled:
    """Put a vision tower and a language model together.

    Parameters
    ----------
    tower
        Hub id or folder of CLIP, Chinese-CLIP, SigLIP, DINOv2, ViT, or any model that turns a square picture into one
        vector a patch; of a model of pictures and texts, the part for pictures. Its image processor lies with it.
    language_model
        Hub id or folder of a causal language model with its tokenizer.
    out
        Folder to make.
    feature_layer
        Whose output is taken, counted from the end: -1 is the last layer, -2 (LLaVA's) the one before.
    keep_class_token
        Keep the vector of the class token as a token of its own, where the tower has one; LLaVA leaves it out.
    fit
        See `Fit`.
    chat_template
        Jinja template for messages of text; ``None``: the language model's own, or `PLAIN_TEMPLATE` where it has none.
    pad_to_multiple_of
        Make the rows of the vocabulary a multiple of this, >= 1, which matrix units like.
    dtype
        Of the weights in the folder; ``"auto"`` is the wider one of the two models', so that all weights stay exact.
    seed
        Of the projector.

    Returns
    -------
    Assembled
        What it is made of.

    Raises
    ------
    ModelError
        Where a part can't be loaded, or can't be a part of a LLaVA (the message says why), or `out` is not empty.
    ValueError
        For an unknown `fit` or `dtype`, a `pad_to_multiple_of` below 1, or a `feature_layer` that is not below 0.

    Notes
    -----
    ``<image>`` is added to the tokenizer where it has no picture token, and ``<pad>`` where it has no padding or pads
    with the token that ends a turn: trainers do not learn what is padding, and the model would not learn to stop. Rows
    for them in the embeddings are the mean of all rows; where the language model has spare rows they are taken, as
    they are. An answer ends with what the language model's settings say, and with what ends a turn in its template.

    Parameters of the projector, and no others, have ``projector`` in their names.

    Examples
    --------
    >>> assemble("OFA-Sys/chinese-clip-vit-large-patch14", "Qwen/Qwen2-1.5B-Instruct", "llava")  # doctest: +SKIP
    Assembled(folder=PosixPath('llava'), tower='chinese_clip_vision_model', language_model='qwen2', ...)
    """
    for name, value, known in (("fit", fit, get_args(Fit)), ("dtype", dtype, get_args(WeightDtype))):
        if value not in known:
            raise ValueError(f"{name} is {value!r}; known are {', '.join(known)}")
    if feature_layer >= 0:
        raise ValueError(f"feature_layer is {feature_layer}; it is counted from the end: -1, -2, ...")
    if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
        raise ValueError(f"pad_to_multiple_of is {pad_to_multiple_of}; at least 1 is wanted")
    with new_folder(out) as folder, quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        # What a checkpoint lacks and nobody uses, a pooler say, is drawn: the same each time.
        torch.manual_seed(seed)
        eyes, image_processor = _load_tower(fspath(tower), fit)
        view = _look(fspath(tower), eyes, image_processor, feature_layer)
        speaker, tokenizer = _load_language_model(fspath(language_model))
        vocabulary = set(tokenizer.get_vocab())
        image_token, template = _prepare_tokenizer(tokenizer, chat_template)
        ends = _ends(speaker, tokenizer, turn_end(tokenizer, template))
        drop = view.extra > 0 and not keep_class_token
        strategy = "default" if drop else "full"
        model = _join(
            eyes, speaker, fspath(language_model), seed,
            image_token_index=tokenizer.convert_tokens_to_ids(image_token),
            image_seq_length=view.patches + view.extra - drop,
            vision_feature_layer=feature_layer, vision_feature_select_strategy=strategy,
        )  # fmt: skip
        _make_room(model, len(tokenizer), pad_to_multiple_of)
        model.generation_config = copy.deepcopy(speaker.generation_config)
        model.generation_config.eos_token_id = ends
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        wide = torch.promote_types(eyes.dtype, speaker.dtype)
        model.to(wide if dtype == "auto" else getattr(torch, dtype)).save_pretrained(folder)
        processor = _hub.LlavaProcessor(
            image_processor=image_processor, tokenizer=tokenizer, patch_size=view.patch_size,
            vision_feature_select_strategy=strategy, chat_template=template_with_pictures(template, image_token),
            image_token=image_token, num_additional_image_tokens=view.extra,
        )  # fmt: skip
        processor.save_pretrained(folder)
        size = folder_size(folder)
    added = sorted(set(tokenizer.get_vocab()) - vocabulary, key=tokenizer.convert_tokens_to_ids)
    return Assembled(
        folder=Path(out),
        tower=eyes.config.model_type,
        language_model=speaker.config.model_type,
        image_tokens=model.config.image_seq_length,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        projector_parameters=sum(p.numel() for name, p in model.named_parameters() if "projector" in name),
        new_tokens=tuple(added),
        ends=tuple(tokenizer.convert_ids_to_tokens(ends)),
        size=size,
    )


def _load(name: str, what: str, load: Callable[[], _Loaded]) -> _Loaded:
    """Load a part, or say which one can't be loaded."""
    try:
        return load()
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{name}: {what} can't be loaded ({reason}); give the folder of a saved model, or a hub id"
        ) from error


def _load_tower(name: str, fit: Fit) -> tuple[Any, Any]:
    """Load what turns pictures into vectors, and what turns pictures into its input."""
    config = _load(name, "the configuration of the vision tower", lambda: _hub.AutoConfig.from_pretrained(name))
    part = getattr(config, "vision_config", None) or config
    kind = _hub.MODEL_MAPPING.get(type(part), None)
    if kind is None:
        raise ModelError(f"{name}: transformers has no vision tower for {config.model_type}; {_TOWERS}")
    eyes, info = _load(
        name, "the vision tower", lambda: kind.from_pretrained(name, dtype="auto", output_loading_info=True)
    )
    # A pooler stands behind the layers that are used, and some checkpoints have none.
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing or info["mismatched_keys"]:
        raise ModelError(
            f"{name}: lacks weights of the vision tower, {(missing or sorted(info['mismatched_keys']))[0]} among them; "
            f"take a checkpoint of {config.model_type} that has them"
        )
    what = "the image processor of the vision tower"
    found = _load(name, what, lambda: _hub.AutoImageProcessor.from_pretrained(name))
    if fit == "whole":
        sides = {"height": 0, "width": 0}
        for given in (found.crop_size if getattr(found, "do_center_crop", False) else None, found.size):
            if given is not None and given["height"] and given["width"]:
                sides = {"height": given["height"], "width": given["width"]}
                break
        else:
            edge = getattr(part, "image_size", None)
            height, width = edge if isinstance(edge, list | tuple) else (edge, edge)
            if not height:
                raise ModelError(f"{name}: neither processor nor tower says how large a picture is; take fit 'own'")
            sides = {"height": height, "width": width}
        given_options = {"size": sides, "do_center_crop": False}
        found = _load(name, what, lambda: _hub.AutoImageProcessor.from_pretrained(name, **given_options))
    return eyes.eval(), found


def _look(name: str, eyes: Any, image_processor: Any, layer: int) -> _View:
    """Show the tower two pictures, one wide and one high, and count what it makes of them."""
    patch = getattr(eyes.config, "patch_size", None)
    sides = set(patch) if isinstance(patch, list | tuple) else {patch}
    if len(sides) != 1 or not isinstance(side := sides.pop(), int):
        raise ModelError(f"{name}: its patch size is {patch}; one number is wanted, take a tower with square patches")
    ramps = [np.linspace(0, 255, 64 * 32 * 3).astype(np.uint8).reshape(shape) for shape in ((64, 32, 3), (32, 64, 3))]
    shapes = []
    for picture in ramps:
        try:
            pixels = image_processor(images=picture, return_tensors="pt")["pixel_values"].to(eyes.dtype)
            seen = eyes(pixels, output_hidden_states=True, return_dict=True).hidden_states[layer]
        except (IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(
                f"{name}: does not turn a picture into vectors in the way of a LLaVA "
                f"({type(error).__name__}: {error}); {_TOWERS}"
            ) from error
        shapes.append((tuple(pixels.shape), tuple(seen.shape)))
    (pixels_shape, seen_shape), other = shapes[0], shapes[1]
    if other != shapes[0]:
        raise ModelError(
            f"{name}: gives pictures of different form different numbers of vectors ({seen_shape}, {other[1]}); "
            "take fit 'whole', which makes them one size"
        )
    patches = (pixels_shape[-2] // side) * (pixels_shape[-1] // side) if len(pixels_shape) == 4 else 0
    extra = seen_shape[1] - patches if len(seen_shape) == 3 else -1
    # Some towers add vectors of their own before the patches: a class token, registers.
    if not patches or not 0 <= extra < patches or seen_shape[2] != eyes.config.hidden_size:
        raise ModelError(
            f"{name}: makes vectors of shape {seen_shape} of a picture of {pixels_shape} with patches of {side} "
            f"pixels; one vector a patch is wanted, {_TOWERS}"
        )
    return _View(side, patches, extra)


def _load_language_model(name: str) -> tuple[Any, Any]:
    config = _load(name, "the configuration of the language model", lambda: _hub.AutoConfig.from_pretrained(name))
    if type(config) not in _hub.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{name}: is a {config.model_type} model; a causal language model is wanted, {_LANGUAGE_MODELS}"
        )
    speaker, info = _load(
        name,
        "the language model",
        lambda: _hub.AutoModelForCausalLM.from_pretrained(name, dtype="auto", output_loading_info=True),
    )
    if missing := sorted({*info["missing_keys"], *info["mismatched_keys"]}, key=str):
        raise ModelError(f"{name}: lacks weights, {missing[0]} among them; save or download it again")
    return speaker.eval(), _load(name, "the tokenizer", lambda: _hub.AutoTokenizer.from_pretrained(name))


def _prepare_tokenizer(tokenizer: Any, given: str | None) -> tuple[str, str]:
    """Give the tokenizer a picture token and a padding that means nothing else; return the token and the template."""
    token = getattr(tokenizer, "image_token", None) or "<image>"
    template = given or own_template(tokenizer) or PLAIN_TEMPLATE
    if tokenizer(token, add_special_tokens=False)["input_ids"] != [tokenizer.get_vocab().get(token)]:
        tokenizer.add_tokens([_hub.AddedToken(token, normalized=False, special=True)], special_tokens=True)
    stop = turn_end(tokenizer, template)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == stop:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.chat_template = template_with_pictures(template, token)
    return token, template


def _ends(speaker: Any, tokenizer: Any, stop: int | None) -> list[int]:
    own = speaker.generation_config.eos_token_id
    known = [stop, *(own if isinstance(own, list) else [own]), tokenizer.eos_token_id]
    if not (found := [token for token in dict.fromkeys(known) if token is not None]):
        raise ModelError(
            "the language model names no token that ends a text; set eos_token_id in its generation config"
        )
    return found


def _join(eyes: Any, speaker: Any, name: str, seed: int, **settings: Any) -> Any:
    """Put the two into a LLaVA as they are, with a new projector between them."""
    config = _hub.LlavaConfig(vision_config=eyes.config, text_config=speaker.config, **settings)
    with torch.device("meta"):
        model = _hub.LlavaForConditionalGeneration(config)
    wanted = set(model.state_dict())
    ids = torch.arange(_TOKENS_TRIED)[None] % speaker.config.vocab_size
    before = speaker(input_ids=ids, use_cache=False).logits
    body, head = speaker.base_model, speaker.get_output_embeddings()
    torch.manual_seed(seed)
    # PyTorch's own draw for a linear layer, as LLaVA's first stage begins.
    model.model.multi_modal_projector = type(model.model.multi_modal_projector)(config)
    if type(body) is not type(model.model.language_model) or type(eyes) is not type(model.model.vision_tower):
        raise ModelError(
            f"{name}: a LLaVA would take {type(model.model.language_model).__name__} for {type(body).__name__}; "
            f"{_LANGUAGE_MODELS}"
        )
    model.model.vision_tower, model.model.language_model, model.lm_head = eyes, body, head
    model.eval()
    difference = wanted ^ set(model.state_dict())
    after = model(input_ids=ids, use_cache=False).logits if not difference else None
    if after is None or after.shape != before.shape or not torch.equal(after, before):
        reason = (
            f"a LLaVA has no place for {sorted(difference)[0]}" if difference else "inside a LLaVA its logits differ"
        )
        raise ModelError(
            f"{name}: the head of {type(speaker).__name__} does more than multiply, and {reason}; {_LANGUAGE_MODELS}"
        )
    return model


def _make_room(model: Any, tokens: int, multiple: int | None) -> None:
    """Give new tokens rows in the embeddings, each the mean of the old ones."""
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]
    old = tables[0].weight.shape[0]
    means = [table.weight.to(torch.float32).mean(dim=0) for table in tables]
    if tokens <= old and (multiple is None or old % multiple == 0):
        return
    model.resize_token_embeddings(max(tokens, old), pad_to_multiple_of=multiple, mean_resizing=False)
    for table, mean in zip((model.get_input_embeddings(), model.get_output_embeddings()), means, strict=True):
        table.weight[old:] = mean.to(table.weight.dtype)
