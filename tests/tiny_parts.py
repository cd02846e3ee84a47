"""Tiny random vision towers and language models, saved as the hub has them: what a LLaVA is put together from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_models import SENTENCES
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

hub: Any = transformers  # its annotations differ from version to version

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

_EYES: dict[str, Any] = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 24,
    "patch_size": 8, "initializer_range": 0.3,
}  # fmt: skip
_READER: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20,
    "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
_MOUTH: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3,
}  # fmt: skip


def _squares(kind: Any, **more: Any) -> Any:
    return kind(size={"height": 24, "width": 24}, **more)


def tower(folder: Path, name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Save a vision tower, or a model of pictures and texts that has one, with its image processor."""
    torch.manual_seed(seed)
    projected = {"projection_dim": 16}
    cropped = {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}}
    dino = {key: value for key, value in _EYES.items() if key != "intermediate_size"} | {"mlp_ratio": 2}
    if name == "clip":
        model = hub.CLIPModel(
            hub.CLIPConfig(vision_config=_EYES | projected, text_config=_READER | projected, **projected)
        )
        processor = hub.CLIPImageProcessorPil(**cropped)
    elif name == "chinese_clip":
        # As OFA-Sys has it: the whole model, its processor squeezes.
        model = hub.ChineseCLIPModel(
            hub.ChineseCLIPConfig(vision_config=_EYES | projected, text_config=_READER, **projected)
        )
        processor = _squares(hub.ChineseCLIPImageProcessorPil, do_center_crop=False)
    elif name == "chinese_clip_alone":
        model = hub.ChineseCLIPVisionModel(hub.ChineseCLIPVisionConfig(**_EYES, **projected))
        processor = _squares(hub.ChineseCLIPImageProcessorPil, do_center_crop=False)
    elif name == "siglip":
        model = hub.SiglipModel(hub.SiglipConfig(vision_config=_EYES, text_config=_READER))
        processor = _squares(hub.SiglipImageProcessorPil)
    elif name == "siglip2":
        sides = {key: value for key, value in _EYES.items() if key != "image_size"} | {"num_patches": 9}
        model = hub.Siglip2Model(hub.Siglip2Config(vision_config=sides, text_config=_READER))
        processor = hub.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=9)
    elif name == "dinov2":
        model = hub.Dinov2Model(hub.Dinov2Config(**dino))
        processor = hub.BitImageProcessorPil(**cropped)
    elif name == "dinov2_registers":
        model = hub.Dinov2WithRegistersModel(hub.Dinov2WithRegistersConfig(**dino, num_register_tokens=2))
        processor = hub.BitImageProcessorPil(**cropped)
    elif name == "swin":
        model = hub.SwinModel(hub.SwinConfig(image_size=24, patch_size=4, embed_dim=8, depths=[1, 1],
                                             num_heads=[2, 2], window_size=3))  # fmt: skip
        processor = _squares(hub.ViTImageProcessorPil)
    else:
        raise ValueError(name)
    model.to(dtype).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def tokenizer(specials: tuple[str, ...], template: str | None, **named: str) -> Any:
    """A byte-level BPE that knows no pictures."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    made = hub.PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False, **named)
    made.chat_template = template
    return made


def language_model(folder: Path, name: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Save a causal language model with its tokenizer."""
    torch.manual_seed(seed)
    if name in ("qwen2", "qwen3"):
        # Tied, with spare rows, and the base model's end beside that of a turn.
        tokens = tokenizer(
            ("<|endoftext|>", "<|im_start|>", "<|im_end|>"), CHATML, eos_token="<|im_end|>", pad_token="<|endoftext|>"
        )
        kind, family = (
            ("Qwen2ForCausalLM", hub.Qwen2Config) if name == "qwen2" else ("Qwen3ForCausalLM", hub.Qwen3Config)
        )
        more: dict[str, Any] = {"tie_word_embeddings": True, "vocab_size": len(tokens) + 9}
        ends: Any = [2, 0]
    elif name == "llama":
        specials = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
        tokens = tokenizer(specials, LLAMA3, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
        kind, family, more, ends = "LlamaForCausalLM", hub.LlamaConfig, {"vocab_size": len(tokens)}, [1, 4]
    else:
        tokens = tokenizer(("<unk>", "<s>", "</s>"), None, bos_token="<s>", eos_token="</s>", pad_token="</s>")
        others: dict[str, tuple[str, Any, dict[str, Any]]] = {
            "plain": ("LlamaForCausalLM", hub.LlamaConfig, {}),
            "phi": ("PhiForCausalLM", hub.PhiConfig, {}),
            "phi3": ("Phi3ForCausalLM", hub.Phi3Config, {"pad_token_id": None}),
            "cohere": ("CohereForCausalLM", hub.CohereConfig, {"logit_scale": 0.5}),
        }
        kind, family, more = others[name]
        ends, more = 2, {"vocab_size": len(tokens), **more}
    config = family(**{**_MOUTH, "bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id,
                       "pad_token_id": tokens.pad_token_id, **more})  # fmt: skip
    model = getattr(hub, kind)(config)
    model.generation_config.eos_token_id = ends
    model.to(dtype).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder
