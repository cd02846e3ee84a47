"""A cross-encoder against plain transformers, and its training: laws and a task that can be learnt."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save_tiny_encoder

from caprag.errors import CapragError, CorpusError, ModelError
from caprag.reranking.cross_encoder import CrossEncoderScorer, load_cross_encoder
from caprag.training.cross_encoder import CrossEncoderOptions, train_cross_encoder

PAIRS = [
    ("床前灑滿了月光", "床前明月光"),
    ("床前灑滿了月光", "春眠不覺曉"),
    ("春眠不覺曉", "床前灑滿了月光"),
    ("", "舉頭望明月"),
    ("長" * 200, "短"),
    ("OK啦", "𠮷野家"),
]


def save_tiny_cross_encoder(folder: Path, *, labels: int = 1, kind: str = "bert", seed: int = 0) -> Path:
    """Write a random classifier of pairs with wide weights, so that scores differ."""
    import torch
    import transformers

    hub: Any = transformers  # its annotations differ from version to version
    save_tiny_encoder(folder)
    tokenizer = hub.AutoTokenizer.from_pretrained(folder)
    sizes = {
        "vocab_size": len(tokenizer), "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 64, "num_labels": labels, "initializer_range": 0.5,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "bert":
            model = hub.BertForSequenceClassification(hub.BertConfig(**sizes))
        else:
            tokenizer.model_max_length = 4096
            model = hub.XLMRobertaForSequenceClassification(hub.XLMRobertaConfig(**sizes, pad_token_id=0))
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_cross_encoder(tmp_path_factory.mktemp("cross") / "encoder")


@pytest.fixture(scope="module")
def scorer(folder: Path) -> CrossEncoderScorer:
    return load_cross_encoder(folder, device="cpu", batch_size=2)


def by_transformers(folder: Path, max_length: int) -> np.ndarray[Any, Any]:
    """Score the pairs one at a time, with nothing but transformers."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return np.array(
            [
                model(**tokenizer(*pair, truncation=True, max_length=max_length, return_tensors="pt")).logits.item()
                for pair in PAIRS
            ]
        )


def test_logits_are_those_of_transformers(scorer: CrossEncoderScorer, folder: Path) -> None:
    logits = scorer.score(PAIRS, unit="logit")
    assert logits.shape == (len(PAIRS),)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, by_transformers(folder, 64), atol=1e-5)
    assert len(set(np.round(logits, 4))) == len(PAIRS)


def test_a_length_cuts_as_transformers_does(folder: Path) -> None:
    short = load_cross_encoder(folder, device="cpu", max_length=12)
    assert short.max_length == 12
    np.testing.assert_allclose(short.score(PAIRS, unit="logit"), by_transformers(folder, 12), atol=1e-5)


def test_an_xlm_roberta_is_cut_at_its_last_position(tmp_path: Path) -> None:
    """BGE's rerankers are of this family, whose positions begin behind the padding token."""
    folder = save_tiny_cross_encoder(tmp_path / "xlmr", kind="xlmr")
    scorer = load_cross_encoder(folder, device="cpu")
    assert scorer.max_length == 63
    np.testing.assert_allclose(scorer.score(PAIRS, unit="logit"), by_transformers(folder, 63), atol=1e-5)


def test_probabilities_are_the_logistic_of_the_logits(scorer: CrossEncoderScorer) -> None:
    logits = scorer.score(PAIRS, unit="logit").astype(np.float64)
    np.testing.assert_allclose(scorer.score(PAIRS), 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_a_batch_equals_its_singles(scorer: CrossEncoderScorer) -> None:
    singles = np.concatenate([scorer.score([pair], unit="logit") for pair in PAIRS])
    np.testing.assert_allclose(scorer.score(PAIRS, unit="logit"), singles, atol=1e-5)
    back = scorer.score(PAIRS[::-1], unit="logit")[::-1]
    np.testing.assert_allclose(back, singles, atol=1e-5)


def test_no_pair_gives_no_score(scorer: CrossEncoderScorer) -> None:
    scores = scorer.score([])
    assert scores.shape == (0,)
    assert scores.dtype == np.float32


def test_a_lone_surrogate_is_a_question_mark(scorer: CrossEncoderScorer) -> None:
    np.testing.assert_array_equal(scorer.score([("好\ud800", "a")]), scorer.score([("好?", "a")]))


def test_the_fingerprint_knows_the_weights_and_the_window(
    scorer: CrossEncoderScorer, folder: Path, tmp_path: Path
) -> None:
    assert load_cross_encoder(folder, device="cpu").fingerprint == scorer.fingerprint
    assert load_cross_encoder(folder, device="cpu", max_length=12).fingerprint != scorer.fingerprint
    other = load_cross_encoder(save_tiny_cross_encoder(tmp_path / "other", seed=1), device="cpu")
    assert other.fingerprint != scorer.fingerprint


def test_what_is_no_cross_encoder_is_refused(folder: Path, tmp_path: Path) -> None:
    save_tiny_encoder(tmp_path / "encoder")
    with pytest.raises(ModelError, match="BertModel, not a sequence classifier"):
        load_cross_encoder(tmp_path / "encoder")
    with pytest.raises(ModelError, match="3 labels"):
        load_cross_encoder(save_tiny_cross_encoder(tmp_path / "three", labels=3))
    with pytest.raises(ModelError, match="no such folder"):
        load_cross_encoder(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="is not loaded"):
        load_cross_encoder(tmp_path / "empty")
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\x08" + bytes(40))
    with pytest.raises(ModelError, match="is not loaded"):
        load_cross_encoder(damaged)


def test_wrong_arguments_are_named(scorer: CrossEncoderScorer, folder: Path) -> None:
    with pytest.raises(ValueError, match="unit is 'percent'"):
        scorer.score(PAIRS, unit="percent")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'ab'"):
        scorer.score(["ab"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="two texts"):
        scorer.score([("a", "b", "c")])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="batch_size is 0"):
        load_cross_encoder(folder, batch_size=0)
    with pytest.raises(ValueError, match="max_length is 3"):
        load_cross_encoder(folder, max_length=3)


# --- training -----------------------------------------------------------------------------------------------------

WORDS = "天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏"
SMALL = CrossEncoderOptions(
    epochs=2, batch_size=8, group_size=3, learning_rate=3e-3, query_max_length=12, passage_max_length=12, save_steps=4,
    logging_steps=1, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task that a classifier of single texts can't do: the positive has the query's first character."""
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    generator = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(64):
            first, *others = (WORDS[i] for i in generator.permutation(len(WORDS))[:6])
            row = {"query": f"{first}{others[0]}", "pos": [f"{first}{others[1]}"], "neg": others[2:]}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(folder / "model.safetensors"))


@pytest.fixture(scope="module")
def trained(rows: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, float]]:
    out = tmp_path_factory.mktemp("trained") / "whole"
    result = train_cross_encoder([rows], tiny_folder, out, SMALL)
    assert result.folder == out
    assert result.steps == 16
    assert result.size == sum(path.stat().st_size for path in out.rglob("*"))
    return out, result.losses


def test_training_goes_on_after_a_stop_as_if_there_was_none(
    rows: Path, tiny_folder: Path, tmp_path: Path, trained: tuple[Path, dict[int, float]]
) -> None:
    out = tmp_path / "stopped"
    half = train_cross_encoder([rows], tiny_folder, out, SMALL, stop_after=10)
    assert half.steps == 10
    assert half.size == 0
    assert not out.exists()
    again = train_cross_encoder([rows], tiny_folder, out, SMALL)
    assert again.steps == 16
    assert again.losses == trained[1]
    whole, resumed = weights(trained[0]), weights(out)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(value, resumed[name])


def test_the_result_opens_as_a_cross_encoder_without_pickles(trained: tuple[Path, dict[int, float]]) -> None:
    scorer = load_cross_encoder(trained[0], device="cpu")
    assert scorer.score([("天地", "天玄"), ("天地", "秋收")]).shape == (2,)
    assert not [path for path in trained[0].rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_what_is_told_by_both_texts_together_is_learnt(rows: Path, tiny_folder: Path, tmp_path: Path) -> None:
    options = CrossEncoderOptions(
        epochs=12, batch_size=8, group_size=5, learning_rate=3e-3, query_max_length=12, passage_max_length=12
    )
    train_cross_encoder([rows], tiny_folder, tmp_path / "out", options)
    scorer = load_cross_encoder(tmp_path / "out", device="cpu")
    right = 0
    for line in rows.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        scores = scorer.score([(row["query"], text) for text in [*row["pos"], *row["neg"]]], unit="logit")
        right += int(scores.argmax()) == 0
    # By chance it is 13 of 64, and 24 or more in one of a thousand cases.
    assert right >= 24


def test_a_base_in_half_precision_is_trained_in_full(rows: Path, tiny_folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(tiny_folder, dtype=torch.float16).save_pretrained(tmp_path / "half")
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path / "half")
    options = CrossEncoderOptions(epochs=0.25, batch_size=8, group_size=2, save_steps=100)
    train_cross_encoder([rows], tmp_path / "half", tmp_path / "out", options)
    assert {str(value.dtype) for value in weights(tmp_path / "out").values()} == {"float32"}


def test_another_training_s_folder_is_not_taken_up(
    rows: Path, tiny_folder: Path, trained: tuple[Path, dict[int, float]]
) -> None:
    with pytest.raises(CapragError, match="other data, base or options"):
        train_cross_encoder([rows], tiny_folder, trained[0], CrossEncoderOptions(seed=4))


def test_wrong_rows_and_options_are_named(rows: Path, tiny_folder: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"query": "a", "pos": ["b"], "neg": ["c"]}\n{"query": "a", "pos": ["b"], "neg": []}\n')
    with pytest.raises(CorpusError, match=r"bad\.jsonl:2"):
        train_cross_encoder([bad], tiny_folder, tmp_path / "out")
    with pytest.raises(CorpusError, match="can't be read"):
        train_cross_encoder([tmp_path / "none.jsonl"], tiny_folder, tmp_path / "out")
    with pytest.raises(ModelError, match="is not loaded"):
        train_cross_encoder([rows], tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(ValueError, match="'wings'"):
        train_cross_encoder([rows], tiny_folder, tmp_path / "other", CrossEncoderOptions(others={"wings": 2}))
    with pytest.raises(ValueError, match="group_size is 1"):
        CrossEncoderOptions(group_size=1)
    with pytest.raises(ValueError, match="epochs is 0"):
        CrossEncoderOptions(epochs=0)


def test_too_few_rows_are_named_and_nothing_is_written(tiny_folder: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text('{"query": "a", "pos": ["b"], "neg": ["c"]}\n' * 7, encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds 7 rows and a step takes 8.*--batch-size"):
        train_cross_encoder([few], tiny_folder, tmp_path / "out", SMALL)
    few.write_text("")
    with pytest.raises(CorpusError, match=r"few\.jsonl: is empty"):
        train_cross_encoder([few], tiny_folder, tmp_path / "out", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]


def test_the_last_step_is_logged_whatever_the_interval(rows: Path, tiny_folder: Path, tmp_path: Path) -> None:
    options = CrossEncoderOptions(epochs=0.25, batch_size=8, group_size=2)
    assert list(train_cross_encoder([rows], tiny_folder, tmp_path / "out", options).losses) == [2]
