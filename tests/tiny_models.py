"""Tiny random models of several families, saved as a user would find them: weights, tokenizer and processor.

Each function writes one model folder. The weights are random (drawn with a wide spread, so that the picture
and the position of a token really change the probabilities), the tokenizer is a real byte-level BPE trained
on a few sentences, so that one Chinese character is often two or three tokens, and the processors are the
families' own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

hub: Any = transformers  # its annotations differ from version to version

SENTENCES = (
    "社交方式發生了變化",
    "今天天氣很好，我們出去走走吧。",
    "你為什麼不告訴我真相？",
    "我不知道他在哪裡",
    "這是我們最後的機會",
    "OK, let's go 回家吃飯\n媽媽在等我們",
)
"""What the tokenizer is trained on, and what the tests score."""

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<image>",
    "<|vision_start|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_end|>",
    "<img>",
    "<imgpad>",
    "</img>",
    "<|IMAGE_PLACEHOLDER|>",
    "<s>",
    "</s>",
    "<fake>",
    "<global>",
    "<slice>",
    "</slice>",
    "<image_id>",
    "</image_id>",
)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}IMAGE{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def picture(seed: int, size: tuple[int, int] = (64, 32)) -> Image.Image:
    """Random coloured blocks, `size` wide and high in pixels."""
    blocks = np.random.default_rng(seed).integers(0, 256, size=(4, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def tokenizer(
    template: str | None = None, *, image_token: str = "<image>", wrap: tuple[str, str] | None = None, **named: str
) -> Any:
    """A byte-level BPE; `wrap` = special tokens that it writes before and after a text, `named` = its attributes."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=336,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    if wrap is not None:
        before, after = wrap
        backend.post_processor = TemplateProcessing(
            single=f"{before} $A {after}",
            special_tokens=[(token, backend.token_to_id(token)) for token in wrap],
        )
    made = hub.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>" if wrap else "<|im_end|>",
        bos_token="<s>" if wrap else None,
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIALS),
        extra_special_tokens={"image_token": image_token, **named},
        clean_up_tokenization_spaces=False,
    )
    if template is not None:
        made.chat_template = template
    return made


def _spread(model: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0.0, 1.6 / fan_in**0.5, generator=generator)
            elif name.endswith("image_newline"):
                # Drawn where the model is made, from whatever state chance is in there.
                parameter.normal_(0.0, 1.0 / parameter.numel() ** 0.5, generator=generator)


def _save(folder: Path, model: Any, processor: Any, *, seed: int = 0, **generation: Any) -> Path:
    _spread(model, seed)
    tokens = getattr(processor, "tokenizer", processor)
    head = model.get_output_embeddings()
    if head is not None:
        # Else most texts would begin with a piece of a character, which is no text.
        broken = [token for token in range(len(tokens)) if "\ufffd" in tokens.decode([token])]
        with torch.no_grad():
            head.weight[broken] *= 0.5
            # Nor may it write the token of a picture, for which there is none.
            for name in ("image_token_id", "image_token_index"):
                if isinstance(token := getattr(model.config, name, None), int) and token < len(head.weight):
                    head.weight[token] = 0.0
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": False,
}


WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128}
"""Sizes of a language model whose weights fit into four bits: bitsandbytes rounds narrower ones wrongly on CPUs."""


def llava(folder: Path, **sizes: Any) -> Path:
    """LLaVA: CLIP eyes, Llama mouth. Its generation config tries to distort the probabilities."""
    tokens = tokenizer()
    template = CHAT_TEMPLATE.replace("IMAGE", "<image>\n")
    ids = tokens.convert_tokens_to_ids
    config = hub.LlavaConfig(
        vision_config=hub.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=24,
            patch_size=8,
            projection_dim=32,
        ),
        text_config=hub.LlamaConfig(
            vocab_size=len(tokens),
            bos_token_id=None,
            eos_token_id=ids("<|im_end|>"),
            pad_token_id=ids("<|endoftext|>"),
            **{**_TEXT, **sizes},
        ),
        image_token_id=ids("<image>"),
        image_seq_length=9,
    )
    processor = hub.LlavaProcessor(
        image_processor=hub.CLIPImageProcessorPil(
            size={"height": 24, "width": 24}, crop_size={"height": 24, "width": 24}
        ),
        tokenizer=tokens,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    return _save(
        folder,
        hub.LlavaForConditionalGeneration(config),
        processor,
        repetition_penalty=1.7,
        no_repeat_ngram_size=2,
        min_new_tokens=3,
        num_beams=2,
        length_penalty=3.0,
        eos_token_id=[ids("<|im_end|>"), ids("<|endoftext|>")],
    )


def _qwen_template() -> str:
    return CHAT_TEMPLATE.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")


def _qwen_ids(tokens: Any) -> dict[str, int]:
    return {
        "image_token_id": tokens.convert_tokens_to_ids("<|image_pad|>"),
        "video_token_id": tokens.convert_tokens_to_ids("<|video_pad|>"),
        "vision_start_token_id": tokens.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokens.convert_tokens_to_ids("<|vision_end|>"),
    }


def _save_without_video(
    folder: Path, model: Any, image_processor: Any, tokens: Any, name: str, more: Mapping[str, Any] | None = None
) -> Path:
    """Save as the hub has these models, though the video part can't be built without torchvision.

    `more` = further settings of the processor.
    """
    _save(folder, model, tokens)
    if more is not None:
        settings = {"processor_class": name, **more}
        (folder / "processor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    image_processor.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["processor_class"] = name
    settings["image_processor_type"] = settings["image_processor_type"].removesuffix("Pil")
    path.write_text(json.dumps(settings), encoding="utf-8")
    return folder


def qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL: three-axis positions, pictures of any size."""
    tokens = tokenizer(_qwen_template(), image_token="<|image_pad|>")
    config = hub.Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokens),
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "bos_token_id": None,
            "eos_token_id": tokens.eos_token_id,
            "pad_token_id": tokens.pad_token_id,
            **_TEXT,
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2,
                       "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2},
        **_qwen_ids(tokens),
    )  # fmt: skip
    eyes = hub.Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, min_pixels=256, max_pixels=4096
    )
    return _save_without_video(
        folder, hub.Qwen2VLForConditionalGeneration(config), eyes, tokens, hub.Qwen2VLProcessor.__name__
    )


def qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL: as Qwen2-VL, with eyes that look through windows."""
    tokens = tokenizer(_qwen_template(), image_token="<|image_pad|>")
    config = hub.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokens),
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "bos_token_id": None,
            "eos_token_id": tokens.eos_token_id,
            "pad_token_id": tokens.pad_token_id,
            **_TEXT,
        },
        vision_config={"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 48,
                       "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 32,
                       "fullatt_block_indexes": [1]},
        **_qwen_ids(tokens),
    )  # fmt: skip
    eyes = hub.Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, min_pixels=256, max_pixels=4096
    )
    return _save_without_video(
        folder, hub.Qwen2_5_VLForConditionalGeneration(config), eyes, tokens, "Qwen2_5_VLProcessor"
    )


def qwen3_vl(folder: Path) -> Path:
    """Qwen3-VL: as Qwen2-VL, with features of several depths."""
    tokens = tokenizer(_qwen_template(), image_token="<|image_pad|>")
    config = hub.Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokens),
            "head_dim": 8,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0},
            "bos_token_id": None,
            "eos_token_id": tokens.eos_token_id,
            "pad_token_id": tokens.pad_token_id,
            **_TEXT,
        },
        vision_config={"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
                       "out_hidden_size": 32, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size":
                       2, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        **_qwen_ids(tokens),
    )  # fmt: skip
    eyes = hub.Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 256, "longest_edge": 4096}
    )
    return _save_without_video(folder, hub.Qwen3VLForConditionalGeneration(config), eyes, tokens, "Qwen3VLProcessor")


def _siglip(size: int) -> dict[str, Any]:
    return {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": size, "patch_size": 8, "vision_use_head": False}  # fmt: skip


def tinyllava(folder: Path) -> Path:
    """What TinyLLaVA is made of, in LLaVA's class: SigLIP eyes, a small Qwen2 mouth, and a text for a template."""
    tokens = tokenizer("USER: <image>\n{{ messages[0].content[1].text }} ASSISTANT:")
    ids = tokens.convert_tokens_to_ids
    config = hub.LlavaConfig(
        vision_config=_siglip(24),
        text_config={"model_type": "qwen2", "vocab_size": len(tokens), "bos_token_id": None,
                     "eos_token_id": ids("<|endoftext|>"), "pad_token_id": ids("<|endoftext|>"), **_TEXT},
        image_token_id=ids("<image>"),
        image_seq_length=9,
        vision_feature_select_strategy="full",
    )  # fmt: skip
    tokens.eos_token = "<|endoftext|>"
    processor = hub.LlavaProcessor(
        image_processor=hub.SiglipImageProcessorPil(size={"height": 24, "width": 24}),
        tokenizer=tokens,
        patch_size=8,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=tokens.chat_template,
    )
    return _save(folder, hub.LlavaForConditionalGeneration(config), processor, eos_token_id=ids("<|endoftext|>"))


def llava_onevision(folder: Path) -> Path:
    """LLaVA-OneVision: a picture as a whole and in tiles, so that the prompt's length goes by the size."""
    tokens = tokenizer(CHAT_TEMPLATE.replace("IMAGE", "<image>\n"), video_token="<|video_pad|>")
    ids = tokens.convert_tokens_to_ids
    grid = [[24, 24], [24, 48], [48, 24], [48, 48]]
    config = hub.LlavaOnevisionConfig(
        vision_config=_siglip(24),
        text_config={"model_type": "qwen2", "vocab_size": len(tokens), "bos_token_id": None,
                     "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id, **_TEXT},
        image_token_index=ids("<image>"),
        video_token_index=ids("<|video_pad|>"),
        image_grid_pinpoints=grid,
    )  # fmt: skip
    eyes = hub.LlavaOnevisionImageProcessorPil(size={"height": 24, "width": 24}, image_grid_pinpoints=grid)
    model = hub.LlavaOnevisionForConditionalGeneration(config)
    more = {"num_image_tokens": 9, "vision_feature_select_strategy": "full"}
    return _save_without_video(folder, model, eyes, tokens, "LlavaOnevisionProcessor", more)


def internvl(folder: Path) -> Path:
    """InternVL: tiles, a quarter of whose features are left."""
    template = CHAT_TEMPLATE.replace("IMAGE", "<image>\n")
    named: dict[str, Any] = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<image>",
    }
    tokens = tokenizer(template, video_token="<|video_pad|>", **named)
    config = hub.InternVLConfig(
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": [32, 32], "patch_size": [8, 8]},
        text_config={"model_type": "qwen2", "vocab_size": len(tokens), "bos_token_id": None,
                     "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id, **_TEXT},
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )  # fmt: skip
    eyes = hub.GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, min_patches=1, max_patches=4)
    model = hub.InternVLForConditionalGeneration(config)
    return _save_without_video(folder, model, eyes, tokens, "InternVLProcessor", {"image_seq_length": 4})


def smolvlm(folder: Path) -> Path:
    """SmolVLM: small tiles, their pixels shuffled into fewer features."""
    template = CHAT_TEMPLATE.replace("IMAGE", "<image>")
    named: dict[str, Any] = {
        "fake_image_token": "<fake>",
        "global_image_token": "<global>",
        "end_of_utterance_token": "<|im_end|>",
    }
    tokens = tokenizer(template, **named)
    config = hub.SmolVLMConfig(
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 32, "patch_size": 8},
        text_config={"model_type": "llama", "vocab_size": len(tokens), "bos_token_id": None,
                     "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id, **_TEXT},
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=tokens.pad_token_id,
    )  # fmt: skip
    eyes = hub.SmolVLMImageProcessorPil(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, do_image_splitting=True
    )
    model = hub.SmolVLMForConditionalGeneration(config)
    return _save_without_video(folder, model, eyes, tokens, "SmolVLMProcessor", {"image_seq_len": 4})


def glm_ocr(folder: Path) -> Path:
    """GLM-OCR: three-axis positions, half of each head turned."""
    tokens = tokenizer(_qwen_template(), image_token="<|image_pad|>", video_token="<|video_pad|>")
    ids = _qwen_ids(tokens)
    config = hub.GlmOcrConfig(
        text_config={"vocab_size": len(tokens), "head_dim": 8, "bos_token_id": None,
                     "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id,
                     "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2],
                                         "rope_theta": 10000.0}, **_TEXT},
        vision_config={"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 2, "intermediate_size": 48,
                       "image_size": 64, "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2},
        image_token_id=ids["image_token_id"],
        video_token_id=ids["video_token_id"],
        image_start_token_id=ids["vision_start_token_id"],
        image_end_token_id=ids["vision_end_token_id"],
        video_start_token_id=tokens.convert_tokens_to_ids("<slice>"),
        video_end_token_id=tokens.convert_tokens_to_ids("</slice>"),
    )  # fmt: skip
    eyes = hub.Glm46VImageProcessorPil(
        patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 512, "longest_edge": 8192}
    )
    return _save_without_video(folder, hub.GlmOcrForConditionalGeneration(config), eyes, tokens, "Glm46VProcessor")


def minicpm_v(folder: Path) -> Path:
    """MiniCPM-V 4.6: slices, and a mouth that remembers in a state of fixed size in most of its layers."""
    named: dict[str, Any] = {
        "video_token": "<|video_pad|>",
        "image_start_token": "<img>",
        "image_end_token": "</img>",
        "slice_start_token": "<slice>",
        "slice_end_token": "</slice>",
        "image_id_start_token": "<image_id>",
        "image_id_end_token": "</image_id>",
    }
    tokens = tokenizer(CHAT_TEMPLATE.replace("IMAGE", "<image>\n"), **named)
    config = hub.MiniCPMV4_6Config(
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
                       "image_size": 64, "patch_size": 8},
        text_config={"model_type": "qwen3_5_text", "vocab_size": len(tokens), "head_dim": 8, "bos_token_id": None,
                     "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id,
                     "linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8,
                     "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"], **_TEXT},
        image_size=64,
        insert_layer_id=0,
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        video_token_id=tokens.convert_tokens_to_ids("<|video_pad|>"),
    )  # fmt: skip
    eyes = hub.MiniCPMV4_6ImageProcessorPil(patch_size=8, scale_resolution=64, max_slice_nums=4)
    # How fast its state forgets is drawn where it is made.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hub.MiniCPMV4_6ForConditionalGeneration(config)
    return _save_without_video(folder, model, eyes, tokens, "MiniCPMV4_6Processor")


def got_ocr2(folder: Path) -> Path:
    """GOT-OCR2: the processor writes the prompt itself."""
    tokens = tokenizer(image_token="<imgpad>")
    ids = tokens.convert_tokens_to_ids
    config = hub.GotOcr2Config(
        vision_config={"hidden_size": 32, "output_channels": 16, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": 256, "patch_size": 4, "mlp_dim": 48,
                       "window_size": 8, "global_attn_indexes": []},
        text_config={"model_type": "qwen2", "vocab_size": len(tokens), "bos_token_id": None,
                     "eos_token_id": ids("<|endoftext|>"), "pad_token_id": ids("<|endoftext|>"), **_TEXT},
        image_token_id=ids("<imgpad>"),
        image_seq_length=1,
    )  # fmt: skip
    processor = hub.GotOcr2Processor(
        image_processor=hub.GotOcr2ImageProcessorPil(size={"height": 256, "width": 256}), tokenizer=tokens
    )
    return _save(folder, hub.GotOcr2ForConditionalGeneration(config), processor)


def paddleocr_vl(folder: Path) -> Path:
    """PaddleOCR-VL."""
    template = CHAT_TEMPLATE.replace("IMAGE", "<|IMAGE_PLACEHOLDER|>")
    tokens = tokenizer(image_token="<|IMAGE_PLACEHOLDER|>")
    ids = tokens.convert_tokens_to_ids
    config = hub.PaddleOCRVLConfig(
        text_config={"vocab_size": len(tokens), "head_dim": 8, "bos_token_id": None, "use_bias": False,
                     "eos_token_id": tokens.eos_token_id, "pad_token_id": tokens.pad_token_id,
                     "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2],
                                         "rope_theta": 10000.0}, **_TEXT},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": 64, "patch_size": 8, "spatial_merge_size": 2},
        image_token_id=ids("<|IMAGE_PLACEHOLDER|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
    )  # fmt: skip
    processor = hub.PaddleOCRVLProcessor(
        image_processor=hub.PaddleOCRVLImageProcessorPil(
            patch_size=8,
            merge_size=2,
            temporal_patch_size=1,
            size={"shortest_edge": 256, "longest_edge": 4096},
        ),
        tokenizer=tokens,
        chat_template=template,
    )
    return _save(folder, hub.PaddleOCRVLForConditionalGeneration(config), processor)


def _wordpiece() -> Any:
    """A BERT-style tokenizer: one character a token, [UNK] for what it does not know, spaces when it decodes."""
    characters = sorted({character for sentence in SENTENCES for character in sentence.lower()} - {" ", "\n"})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters]
    backend = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    backend.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return hub.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        clean_up_tokenization_spaces=False,
    )


def trocr_wordpiece(folder: Path) -> Path:
    """TrOCR with a character tokenizer, as manga-ocr has it."""
    return trocr(folder, _wordpiece())


def trocr(folder: Path, tokens: Any = None) -> Path:
    """TrOCR: an encoder-decoder without a prompt; its tokenizer wraps a text in <s> and </s>."""
    tokens = tokenizer(wrap=("<s>", "</s>")) if tokens is None else tokens
    eyes = hub.ViTModel(
        hub.ViTConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                  image_size=32, patch_size=8),
    )  # fmt: skip
    mouth = hub.TrOCRForCausalLM(
        hub.TrOCRConfig(vocab_size=len(tokens), d_model=32, decoder_layers=2, decoder_attention_heads=2,
                    decoder_ffn_dim=48, max_position_embeddings=256, cross_attention_hidden_size=32,
                    bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id,
                    pad_token_id=tokens.pad_token_id, decoder_start_token_id=tokens.eos_token_id)
    )  # fmt: skip
    model = hub.VisionEncoderDecoderModel(encoder=eyes, decoder=mouth)
    model.config.decoder_start_token_id = tokens.eos_token_id
    model.config.pad_token_id = tokens.pad_token_id
    processor = hub.TrOCRProcessor(
        image_processor=hub.ViTImageProcessorPil(size={"height": 32, "width": 32}), tokenizer=tokens
    )
    return _save(
        folder,
        model,
        processor,
        decoder_start_token_id=tokens.eos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )


def florence2(folder: Path) -> Path:
    """Florence-2: an encoder-decoder with a prompt, whose processor puts the image token in itself."""
    tokens = tokenizer(wrap=("<s>", "</s>"))
    ids = {
        "pad_token_id": tokens.pad_token_id,
        "eos_token_id": tokens.eos_token_id,
        "bos_token_id": tokens.bos_token_id,
        "decoder_start_token_id": tokens.eos_token_id,
    }
    config = hub.Florence2Config(
        text_config={"model_type": "bart", "vocab_size": len(tokens), "d_model": 32, "encoder_layers": 2,
                     "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                     "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 300, **ids},
        vision_config={"embed_dim": [8, 16, 32, 32], "num_heads": [2] * 4, "num_groups": [2] * 4,
                       "depths": [1] * 4, "window_size": 4, "projection_dim": 32,
                       "max_temporal_embeddings": 4, "max_position_embeddings": 8},
        image_token_id=tokens.convert_tokens_to_ids("<image>"),
        is_encoder_decoder=True,
    )  # fmt: skip
    eyes = hub.CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    eyes.image_seq_length = 5
    processor = hub.Florence2Processor(eyes, tokens, num_additional_image_tokens=1)
    model = hub.Florence2ForConditionalGeneration(config)
    forced = {"forced_bos_token_id": tokens.bos_token_id, "no_repeat_ngram_size": 3}
    return _save(folder, model, processor, **ids, **forced)


def paligemma(folder: Path) -> Path:
    """PaliGemma: its prompt sees all of itself, the answer only what went before."""
    tokens = tokenizer(wrap=("<s>", "</s>"))
    config = hub.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48,
                       "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
        text_config={"model_type": "gemma", "vocab_size": len(tokens), "head_dim": 8,
                     "pad_token_id": tokens.pad_token_id, "eos_token_id": tokens.eos_token_id,
                     "bos_token_id": tokens.bos_token_id, **_TEXT},
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        projection_dim=32,
    )  # fmt: skip
    eyes = hub.SiglipImageProcessorPil(size={"height": 32, "width": 32})
    eyes.image_seq_length = 16
    model = hub.PaliGemmaForConditionalGeneration(config)
    return _save(folder, model, hub.PaliGemmaProcessor(eyes, tokens))


def git(folder: Path) -> Path:
    """GIT: a decoder that takes the picture as a prefix, in a way that teacher forcing does not repeat."""
    tokens = tokenizer(wrap=("<s>", "</s>"))
    config = hub.GitConfig(
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
        vocab_size=len(tokens), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )  # fmt: skip
    square = {"height": 32, "width": 32}
    processor = hub.GitProcessor(hub.CLIPImageProcessorPil(size=square, crop_size=square), tokens)
    return _save(folder, hub.GitForCausalLM(config), processor)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "llava": llava,
    "tinyllava": tinyllava,
    "llava_onevision": llava_onevision,
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "minicpm_v": minicpm_v,
    "internvl": internvl,
    "smolvlm": smolvlm,
    "glm_ocr": glm_ocr,
    "got_ocr2": got_ocr2,
    "paddleocr_vl": paddleocr_vl,
    "trocr": trocr,
    "florence2": florence2,
}


def pictures(count: int, sizes: Sequence[tuple[int, int]] = ((64, 32), (48, 48), (96, 24))) -> list[Image.Image]:
    """`count` random pictures, of `sizes` in turn."""
    return [picture(seed, sizes[seed % len(sizes)]) for seed in range(count)]
