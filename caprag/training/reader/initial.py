"""A new reader whose neck and characters begin where the tower's own recogniser stands.

The recogniser decides on characters by a linear map of 120 features; those weights become the characters' embeddings,
carried into the language model's width by a map that keeps angles and lengths. So the new reader's CTC scores are the
recogniser's own, and what the picture says lies near what the text says from the first step on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from caprag.recognition.reader import (
    ReaderConfig,
    ReaderForConditionalGeneration,
    ReaderImageProcessor,
    ReaderProcessor,
)
from caprag.recognition.reader.processing import BLANK, END, IMAGE, START, character_tokenizer
from caprag.recognition.reader.tower import network_file

_WIDTH = 120

Weights = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class ReaderSize:
    """Sizes of the language model, in Qwen3's layout, and of the changes to the tower.

    Attributes
    ----------
    hidden, layers, heads, key_value_heads, intermediate
        Width, depth, attention heads, heads of keys and values, and width of the feed-forward part.
    tower_rank
        Of the changes to each convolution of single pixels in the tower's last two stages; 0 for none.
    """

    hidden: int = 256
    layers: int = 4
    heads: int = 8
    key_value_heads: int = 4
    intermediate: int = 704
    tower_rank: int = 0


@dataclass(frozen=True, slots=True)
class RecognizerWeights:
    """What PP-OCRv6's recogniser knows beyond the tower.

    Attributes
    ----------
    neck
        State of the neck, by the names of transformers' class.
    characters
        Those that it tells apart, in the order of its classes; class 0 is CTC's blank.
    head, bias
        Shape (classes, 120) and (classes,): its linear map from the neck's features to characters.
    """

    neck: dict[str, torch.Tensor]
    characters: tuple[str, ...]
    head: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def load_recognizer_weights() -> RecognizerWeights:
    """Read the recogniser of the installed rapidocr."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(network_file()))
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    text = next(entry.value for entry in model.metadata_props if entry.key == "character")
    # As rapidocr reads them: one a line; the blank before them, the space behind.
    characters = ("", *text.split("\n"), " ")
    head = stored["linear_8.w_0"].T
    if len(characters) != len(head):
        raise ValueError(f"{network_file()}: has {len(head)} classes and {len(characters)} characters")
    return RecognizerWeights(_neck(model.graph, stored), characters, head, stored["linear_8.b_0"])


def _neck(graph: Any, stored: Weights) -> dict[str, torch.Tensor]:
    state: dict[str, npt.NDArray[np.float32]] = {}
    parts = (
        (0, "conv2d_67", "batch_norm2d_57"),
        (1, "conv2d_65", "batch_norm2d_55"),
        (2, "conv2d_66", "batch_norm2d_56"),
    )
    for place, convolution, norm in parts:
        state[f"conv_block.{place}.convolution.weight"] = stored[f"{convolution}.w_0"]
        names = {"weight": "w_0", "bias": "b_0", "running_mean": "w_1", "running_var": "w_2"}
        state |= {f"conv_block.{place}.normalization.{ours}": stored[f"{norm}.{its}"] for ours, its in names.items()}
    linears = ("self_attn.qkv", "self_attn.projection", "mlp.fc1", "mlp.fc2")
    for place in range(8):
        name = f"svtr_block.{place // 4}.{linears[place % 4]}"
        state[f"{name}.weight"], state[f"{name}.bias"] = stored[f"linear_{place}.w_0"].T, stored[f"linear_{place}.b_0"]
    # Layer normalisations are spelt out: divided, scaled, shifted, in the order in which they are used.
    made_by = {output: node for node in graph.node for output in node.output}
    scaled = [
        node for node in graph.node if node.op_type == "Mul" and node.input[1] in stored
        and stored[node.input[1]].shape == (120,) and made_by[node.input[0]].op_type == "Div"
    ]  # fmt: skip
    shifted = {node.input[0]: node.input[1] for node in graph.node if node.op_type == "Add"}
    norms = [f"svtr_block.{block}.layer_norm{number}" for block in (0, 1) for number in (1, 2)] + ["norm"]
    for name, node in zip(norms, scaled, strict=True):
        state[f"{name}.weight"], state[f"{name}.bias"] = stored[node.input[1]], stored[shifted[node.output[0]]]
    return {name: torch.tensor(np.array(value)) for name, value in state.items()}


def new_reader(folder: Path, characters: Iterable[str], size: ReaderSize | None = None, *, seed: int = 0) -> None:
    """Make a reader and save it.

    Parameters
    ----------
    folder
        Gets weights, configuration, tokenizer and processor.
    characters
        Those that it can write, each once.
    size
        Of the language model.
    seed
        Of what is drawn by chance: the language model, and the embeddings of characters that the recogniser lacks.
    """
    size = size or ReaderSize()
    if size.hidden < _WIDTH:
        raise ValueError(f"hidden is {size.hidden}; the neck's {_WIDTH} features must fit into it")
    torch.manual_seed(seed)
    known = load_recognizer_weights()
    tokenizer = character_tokenizer(characters)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in (IMAGE, START, END, BLANK)}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": size.hidden, "intermediate_size": size.intermediate,
        "num_hidden_layers": size.layers, "num_attention_heads": size.heads,
        "num_key_value_heads": size.key_value_heads, "head_dim": size.hidden // size.heads,
        "max_position_embeddings": 1024, "tie_word_embeddings": True, "bos_token_id": ids[START],
        "eos_token_id": ids[END], "pad_token_id": ids[END],
    }  # fmt: skip
    model = ReaderForConditionalGeneration(
        ReaderConfig(
            text, image_token_id=ids[IMAGE], blank_token_id=ids[BLANK], bos_token_id=ids[START],
            tower_rank=size.tower_rank,
        )
    )  # fmt: skip
    missing, unexpected = model.neck.load_state_dict(known.neck, strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise ValueError(f"the neck's weights are not those of transformers' class: {missing}, {unexpected}")
    with torch.no_grad():
        _give_characters(model, tokenizer, known)
    model.generation_config.update(bos_token_id=ids[START], eos_token_id=ids[END], pad_token_id=ids[END])
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    ReaderProcessor(ReaderImageProcessor(), tokenizer).save_pretrained(folder)


def _give_characters(model: ReaderForConditionalGeneration, tokenizer: Any, known: RecognizerWeights) -> None:
    """Set the embeddings, the map into their space and the CTC scores from the recogniser's head."""
    width, hidden = known.head.shape[1], model.config.text_config.hidden_size
    turned, _ = np.linalg.qr(np.random.default_rng(model.config.text_config.vocab_size).normal(size=(hidden, width)))
    carry = torch.tensor(turned, dtype=torch.float32)
    model.projector.to_text.weight.copy_(carry)
    classes = {character: number for number, character in enumerate(known.characters)}
    classes[BLANK] = 0
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    pairs = [(number, classes[token]) for token, number in vocabulary.items() if token in classes]
    ours, theirs = (list(column) for column in zip(*sorted(pairs), strict=True))
    rows = torch.tensor(known.head[theirs]) @ carry.T
    length = float(rows.norm(dim=1).mean())
    table: Any = model.get_input_embeddings().weight
    torch.nn.init.normal_(table, std=hidden**-0.5)
    # Embeddings of length 1 on average; CTC's scores take the rest of the recogniser's lengths back.
    table[ours] = rows / length
    model.projector.scale.fill_(length)
    model.ctc_bias.fill_(float(known.bias.min()) - 10.0)
    model.ctc_bias[ours] = torch.tensor(known.bias[theirs])
