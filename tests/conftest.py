"""What several test files need: the real data, and a small random embedder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from caprag.retrieval.embedder import SentenceEmbedder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real material, which lives outside the project."""
    folder = Path(os.environ.get("CAPRAG_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real material: {folder} does not exist (set CAPRAG_DATA)")
    return folder


def save_tiny_encoder(folder: Path, *, seed: int = 0) -> None:
    """Write a random BERT of one layer that reads characters, as transformers would."""
    import torch
    import transformers

    hub: Any = transformers  # its annotations differ from version to version

    characters = [chr(c) for c in [*range(0x21, 0x7F), *range(0x4E00, 0x9FA6)]]
    # A character is a word piece: alone in Chinese, behind "##" within a Latin word.
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{chr(c)}" for c in range(0x21, 0x7F))]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    tokenizer = hub.BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)}, model_max_length=64)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = hub.BertModel(
            hub.BertConfig(
                vocab_size=len(pieces),
                hidden_size=24,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=64,
                initializer_range=0.5,
            )
        )
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the small random encoder."""
    folder = tmp_path_factory.mktemp("tiny") / "encoder"
    save_tiny_encoder(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_embedder(tiny_folder: Path) -> SentenceEmbedder:
    """An embedder that is random, but the same in every run."""
    import caprag

    return caprag.load_embedder(tiny_folder, device="cpu")
