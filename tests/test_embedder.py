"""Any encoder on disk: unit vectors, batches equal to singles, a fingerprint that knows the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import save_tiny_encoder

from caprag import load_embedder
from caprag.errors import ModelError
from caprag.retrieval.embedder import SentenceEmbedder
from caprag.types import Embedder

TEXTS = ["妳在開玩笑嗎", "你在閒玩笑嗎", "今天天氣很好", "OK啦", "", "長" * 5000, "𠮷野家", "a\nb"]


def test_it_is_an_embedder(tiny_embedder: SentenceEmbedder) -> None:
    assert isinstance(tiny_embedder, Embedder)
    assert tiny_embedder.dimension == 24


def test_vectors_are_float32_of_length_one(tiny_embedder: SentenceEmbedder) -> None:
    vectors = tiny_embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), 24)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_no_text_gives_no_row(tiny_embedder: SentenceEmbedder) -> None:
    vectors = tiny_embedder.embed([])
    assert vectors.shape == (0, 24)
    assert vectors.dtype == np.float32


def test_a_batch_equals_its_singles(tiny_embedder: SentenceEmbedder) -> None:
    singles = np.vstack([tiny_embedder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(tiny_embedder.embed(TEXTS), singles, atol=1e-5)


def test_different_texts_get_different_vectors(tiny_embedder: SentenceEmbedder) -> None:
    a, b, c = tiny_embedder.embed(["妳在開玩笑嗎", "妳在開玩笑", "嗎笑玩開在妳"])
    assert abs(float(a @ b)) < 0.9999
    assert abs(float(a @ c)) < 0.9999


def test_a_lone_surrogate_is_a_question_mark(tiny_embedder: SentenceEmbedder) -> None:
    np.testing.assert_array_equal(tiny_embedder.embed(["好\ud800"]), tiny_embedder.embed(["好?"]))


def test_vectors_are_those_of_transformers(tiny_folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    """A plain encoder is read as BGE is: the last hidden state of the first token, normalised."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    model = AutoModel.from_pretrained(tiny_folder).eval()
    with torch.no_grad():
        hidden = model(**tokenizer(["今天天氣很好"], return_tensors="pt")).last_hidden_state[0, 0].numpy()
    np.testing.assert_allclose(tiny_embedder.embed(["今天天氣很好"])[0], hidden / np.linalg.norm(hidden), atol=1e-5)


def test_the_fingerprint_is_the_models(tiny_folder: Path, tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(tiny_folder, moved)
    again = load_embedder(moved, device="cpu", batch_size=1)
    assert again.fingerprint == tiny_embedder.fingerprint
    assert again.name == str(moved)
    save_tiny_encoder(tmp_path / "other", seed=1)
    assert load_embedder(tmp_path / "other", device="cpu").fingerprint != tiny_embedder.fingerprint


def test_the_fingerprint_knows_pooling_and_window(
    tiny_folder: Path, tiny_embedder: SentenceEmbedder, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    prints = {tiny_embedder.fingerprint}
    for mode, window in (("mean", 64), ("max", 64), ("mean", 8)):
        encoder = Transformer(str(tiny_folder))
        model = SentenceTransformer(modules=[encoder, Pooling(24, pooling_mode=mode)], device="cpu")
        model.max_seq_length = window
        prints.add(SentenceEmbedder(model, "x").fingerprint)
    assert len(prints) == 4


def test_a_saved_sentence_transformer_loads_the_same(tiny_folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    encoder = Transformer(str(tiny_folder))
    model = SentenceTransformer(modules=[encoder, Pooling(24, pooling_mode="mean")], device="cpu")
    model.save(str(tmp_path / "saved"))
    # The last step does not normalise: the embedder does.
    expected = model.encode(TEXTS)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    loaded = load_embedder(tmp_path / "saved", device="cpu")
    np.testing.assert_allclose(loaded.embed(TEXTS), expected, atol=1e-5)
    # Half precision on disk is a different model, read in full precision.
    model.half().save(str(tmp_path / "half"))
    half = load_embedder(tmp_path / "half", device="cpu")
    assert half.fingerprint != loaded.fingerprint
    np.testing.assert_allclose(half.embed(TEXTS), expected, atol=0.05)


@pytest.mark.parametrize("damage", ["cut weights", "no weights", "garbage config", "empty", "garbage modules"])
def test_a_broken_folder_is_named(tiny_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    weights = folder / "model.safetensors"
    if damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "garbage config":
        (folder / "config.json").write_text("{", encoding="utf-8")
    elif damage == "garbage modules":
        (folder / "modules.json").write_text("[{", encoding="utf-8")
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    with pytest.raises(ModelError, match=r"broken.*check the id or folder"):
        load_embedder(folder, device="cpu")


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_a_missing_folder_is_named_without_asking_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        load_embedder(name)


def test_weights_of_another_shape_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shape"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["hidden_size"] = 48
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="shape"):
        load_embedder(folder, device="cpu")


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_at_least_one(tiny_folder: Path, batch_size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}"):
        load_embedder(tiny_folder, device="cpu", batch_size=batch_size)


def test_progress_goes_to_stderr(tiny_embedder: SentenceEmbedder, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_embedder.embed(["好"])
    assert capsys.readouterr() == ("", "")
    tiny_embedder.embed(["好"], progress=True)
    assert capsys.readouterr().out == ""
