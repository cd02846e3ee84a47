"""Encoders from scratch, the first phase, FlagEmbedding's recipe, and the folder that comes out."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caprag import load_embedder
from caprag.errors import CapragError, CorpusError, ModelError
from caprag.glyphs import GlyphTable
from caprag.training import (
    Architecture,
    PretrainingOptions,
    TrainingOptions,
    new_encoder,
    pretrain_embedder,
    save_embedder,
    train_embedder,
)
from caprag.training.lean import LeanEncoder
from caprag.training.pretraining import contrastive_loss
from caprag.training.scratch import character_vocabulary, initial_embeddings, vocabulary

pytest.importorskip("FlagEmbedding")
torch: Any = pytest.importorskip("torch")

TEXTS = [
    "今天天氣很好", "明天見", "妳在開玩笑嗎", "OK啦", "午餐吃什麼", "快餐吃什麼", "他去上班了", "這是一句比較長的話",
    "不會持續太久的", "現在終於實現了", "昨天還很喜歡", "今天就膩了", "ありがとう", "ㄅㄆㄇ", "12345", "好",
]  # fmt: skip
SMALL = Architecture(hidden=64, layers=2, heads=2, intermediate=64, max_length=32)


class Swapping:
    """Noise for tests: one character is replaced, found by seed and place."""

    def corrupt(
        self, texts: Sequence[str], *, seed: int = 0, strength: float | None = None, start: int = 0
    ) -> list[str]:
        readings = []
        for i, text in enumerate(texts, start):
            draw = random.Random(f"{seed} {i} {strength}")
            place = draw.randrange(len(text))
            readings.append(text[:place] + draw.choice("天地玄黃宇宙洪荒") + text[place + 1 :])
        return readings


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scratch") / "new"
    new_encoder(folder, SMALL, seed=1)
    return folder


def test_the_vocabulary_covers_the_scripts() -> None:
    known = set(character_vocabulary())
    wanted = {chr(c) for c in (*range(0x3041, 0x3097), *range(0x30A1, 0x30FB), *range(0x3105, 0x3130))}
    wanted |= set("abcdefghijklmnopqrstuvwxyz0123456789")
    for charset in ("big5", "gb2312"):
        for high in range(0xA1, 0xFF):
            for low in range(0x40, 0xFF):
                text = bytes([high, low]).decode(charset, "ignore")
                wanted |= {c for c in text if "\u4e00" <= c <= "\u9fff"}
    assert len(wanted) > 15000
    assert wanted <= known
    assert set("喺嘅啲嗰嘢咗嚟哋") <= known


def test_every_character_has_a_piece_wherever_it_stands(scratch: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(scratch)
    for text in ("ありがとう", "ㄅㄆㄇ喺度", "Café123啦", "ёлка", "你好!「再見」…"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert len(ids) == len(text) + 2


def test_word_pieces_are_for_what_is_not_cut_apart() -> None:
    tokens = vocabulary(["a", "あ", "中", "ㄅ", "!"])
    assert list(tokens)[5:] == ["a", "あ", "中", "ㄅ", "!", "##a", "##あ", "##ㄅ"]
    assert list(tokens.values()) == list(range(len(tokens)))


def test_look_alikes_and_variants_start_near() -> None:
    tokens = {c: i for i, c in enumerate("睛晴一說说講")}
    table = initial_embeddings(tokens, 128, seed=0)
    table /= np.linalg.norm(table, axis=1, keepdims=True)

    def cosine(a: str, b: str) -> float:
        return float(table[tokens[a]] @ table[tokens[b]])

    assert cosine("睛", "晴") > 0.3 > abs(cosine("睛", "一"))
    assert cosine("說", "说") > cosine("說", "講") + 0.2
    with pytest.raises(ValueError, match="32"):
        initial_embeddings(tokens, 32)


def test_glyph_similarities_survive_the_start() -> None:
    """The vectors' products follow those of the shapes."""
    glyphs = GlyphTable.load()
    characters = random.Random(0).sample([c for c in glyphs.characters if "\u4e00" <= c <= "\u9fff"], 80)
    table = initial_embeddings({c: i for i, c in enumerate(characters)}, 192, seed=0)
    shapes = glyphs.vectors[[glyphs.index[c] for c in characters]]
    upper = np.triu_indices(len(characters), 1)
    assert np.corrcoef((table @ table.T)[upper], (shapes @ shapes.T)[upper])[0, 1] > 0.7


def test_same_seed_same_bytes(scratch: Path, tmp_path: Path) -> None:
    new_encoder(tmp_path / "again", SMALL, seed=1)
    for file in sorted(scratch.iterdir()):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


@pytest.mark.parametrize(("given", "named"), [({"hidden": 65}, "65"), ({"layers": 0}, "0"), ({"max_length": 2}, "2")])
def test_sizes_out_of_range_are_refused(given: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Architecture(**given)


def test_the_lean_encoder_is_the_whole_one(scratch: Path) -> None:
    """The last layer for the first token alone, texts in groups: the vectors and gradients are transformers' own."""
    from transformers import AutoTokenizer, BertModel

    lean = LeanEncoder.load(scratch, group_size=3)
    vectors = lean.embed(TEXTS)
    model: Any = BertModel.from_pretrained(scratch)
    model.to(lean.model.device)
    tokens = AutoTokenizer.from_pretrained(scratch)(TEXTS, padding=True, return_tensors="pt").to(lean.model.device)
    whole = torch.nn.functional.normalize(model(**tokens).last_hidden_state[:, 0], dim=1)
    assert torch.allclose(vectors, whole, atol=1e-5)
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0)).to(vectors.device)
    (vectors * weights).sum().backward()
    (whole * weights).sum().backward()
    theirs = dict(model.named_parameters())
    for name, parameter in lean.model.named_parameters():
        if "pooler" not in name:
            assert torch.allclose(parameter.grad, theirs[name].grad, atol=1e-4), name


def test_long_texts_are_cut(scratch: Path) -> None:
    lean = LeanEncoder.load(scratch)
    assert torch.allclose(*lean.embed(["天" * 30, "天" * 300]), atol=1e-5)


def test_the_loss_is_that_of_the_definition() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(10, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    keys = np.array([0, 1, 2, 1, 4])
    wanted = 0.0
    for i in range(5):
        scores = {j: float(vectors[i] @ vectors[5 + j]) / 0.05 for j in range(5) if j == i or keys[j] != keys[i]}
        wanted -= scores[i] - math.log(sum(math.exp(s) for s in scores.values()))
    assert contrastive_loss(torch.from_numpy(vectors), keys, 0.05).item() == pytest.approx(wanted / 5, rel=1e-4)


OPTIONS = PretrainingOptions(
    epochs=4, batch_size=8, learning_rate=5e-3, warmup_steps=2, checkpoint_steps=3, seed=2, strengths=(0.1, 0.2)
)


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize("stop", [1, 2, 5])
def test_pretraining_goes_on_as_if_never_stopped(stop: int, scratch: Path, tmp_path: Path) -> None:
    whole = pretrain_embedder(TEXTS, scratch, tmp_path / "whole", Swapping(), OPTIONS, logs=tmp_path / "logs")
    assert len(whole) == 8
    parts: list[float] = []
    while len(parts) < 8:
        parts += pretrain_embedder(TEXTS, scratch, tmp_path / "parts", Swapping(), OPTIONS, stop_after=stop)
    assert parts == whole
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert list((tmp_path / "logs").iterdir())
    assert not (tmp_path / "parts/logs").exists()


def test_pretraining_brings_readings_to_their_sentences(scratch: Path, tmp_path: Path) -> None:
    options = PretrainingOptions(epochs=20, batch_size=16, learning_rate=3e-3, warmup_steps=5)
    losses = pretrain_embedder(TEXTS, scratch, tmp_path, Swapping(), options)
    assert np.mean(losses[-3:]) < 0.5 * losses[0]


def test_another_training_is_not_taken_up(scratch: Path, tmp_path: Path) -> None:
    pretrain_embedder(TEXTS, scratch, tmp_path, Swapping(), OPTIONS, stop_after=1)
    with pytest.raises(ModelError, match="other sentences or options"):
        pretrain_embedder(TEXTS[:-1], scratch, tmp_path, Swapping(), OPTIONS)
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="is no checkpoint"):
        pretrain_embedder(TEXTS, scratch, tmp_path, Swapping(), OPTIONS)


def test_pretraining_refuses_what_it_cannot_do(scratch: Path, tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 sentences"):
        pretrain_embedder(TEXTS[:3], scratch, tmp_path, Swapping(), OPTIONS)
    with pytest.raises(ModelError, match="has dropout"):
        pretrain_embedder(TEXTS, tiny_folder, tmp_path, Swapping(), OPTIONS)
    with pytest.raises(ModelError, match="none"):
        pretrain_embedder(TEXTS, tmp_path / "none", tmp_path / "out", Swapping(), OPTIONS)
    with pytest.raises(ValueError, match="temperature is 0"):
        PretrainingOptions(temperature=0)


@pytest.mark.parametrize("half", [False, True])
def test_sentence_transformer_and_flag_model_agree(half: bool, scratch: Path, tmp_path: Path) -> None:
    from FlagEmbedding import FlagModel
    from sentence_transformers import SentenceTransformer

    size = save_embedder(scratch, tmp_path, half=half, max_length=32)
    assert size == sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())
    ours = SentenceTransformer(str(tmp_path), device="cpu")
    flag = FlagModel(str(tmp_path), use_fp16=False, devices="cpu")
    vectors = ours.float().encode(TEXTS)
    np.testing.assert_allclose(vectors, flag.encode(TEXTS), atol=1e-4)
    np.testing.assert_allclose(vectors, load_embedder(tmp_path, device="cpu").embed(TEXTS), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    plain = LeanEncoder.load(scratch).embed(TEXTS).detach().cpu().numpy()
    np.testing.assert_allclose(vectors, plain, atol=5e-3 if half else 1e-4)


def test_half_precision_is_half_the_size_and_the_bytes_are_the_same(scratch: Path, tmp_path: Path) -> None:
    sizes = [save_embedder(scratch, tmp_path / str(i), half=half) for i, half in enumerate((False, True, True))]
    assert sizes[1] < 0.6 * sizes[0]
    assert (tmp_path / "1/model.safetensors").read_bytes() == (tmp_path / "2/model.safetensors").read_bytes()


def test_saving_refuses_what_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not loaded as an encoder"):
        save_embedder(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="max"):
        save_embedder(tmp_path, tmp_path / "out", pooling="max")  # type: ignore[arg-type]


@pytest.fixture
def mined(tmp_path: Path) -> Path:
    """Rows with more negatives than a group takes, so that some are drawn."""
    draw = random.Random(0)
    path = tmp_path / "mined.jsonl"
    rows = [
        {"query": reading, "pos": [text], "neg": draw.sample([t for t in TEXTS if t != text], 6)}
        for text, reading in zip(TEXTS, Swapping().corrupt(TEXTS), strict=True)
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


RECIPE = TrainingOptions(
    epochs=3, batch_size=4, group_size=3, learning_rate=1e-3, save_steps=5, logging_steps=1, seed=3,
    query_max_length=32, passage_max_length=32, others={"use_cpu": True},
)  # fmt: skip


def test_fine_tuning_goes_on_as_if_never_stopped(tiny_folder: Path, mined: Path, tmp_path: Path) -> None:
    """With dropout, draws of negatives and an epoch's end between: the losses and the weights are the same."""
    whole = train_embedder([mined], tiny_folder, tmp_path / "whole", RECIPE)
    assert (whole.steps, sorted(whole.losses)) == (12, list(range(1, 13)))
    for stop in (3, 6):
        part = train_embedder([mined], tiny_folder, tmp_path / "parts", RECIPE, stop_after=stop)
        assert (part.steps, part.size) == (stop, 0)
        assert not (tmp_path / "parts").exists()
    parts = train_embedder([mined], tiny_folder, tmp_path / "parts", RECIPE)
    assert parts.losses == whole.losses
    one, other = weights(whole.folder), weights(parts.folder)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(
        one["embeddings.word_embeddings.weight"], weights(tiny_folder)["embeddings.word_embeddings.weight"]
    )
    # And again when all is done.
    assert train_embedder([mined], tiny_folder, tmp_path / "parts", RECIPE).losses == whole.losses


def test_the_first_loss_is_that_of_the_recipe(scratch: Path, mined: Path, tmp_path: Path) -> None:
    """One batch of all rows and all negatives: InfoNCE over all passages, by a model loaded apart."""
    options = TrainingOptions(
        batch_size=16, group_size=7, temperature=0.05, logging_steps=1, query_max_length=32, passage_max_length=32,
        others={"use_cpu": True},
    )  # fmt: skip
    trained = train_embedder([mined], scratch, tmp_path / "out", options)
    rows = [json.loads(line) for line in mined.read_text(encoding="utf-8").splitlines()]
    lean = LeanEncoder.load(scratch)
    queries = lean.embed([row["query"] for row in rows])
    passages = lean.embed([text for row in rows for text in (*row["pos"], *row["neg"])])
    wanted = torch.nn.functional.cross_entropy(queries @ passages.T / 0.05, 7 * torch.arange(16).to(queries.device))
    assert trained.losses[1] == pytest.approx(wanted.item(), rel=1e-3)


def test_the_result_is_opened_by_both_and_logged(tiny_folder: Path, mined: Path, tmp_path: Path) -> None:
    from FlagEmbedding import FlagModel
    from sentence_transformers import SentenceTransformer
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained = train_embedder([mined], tiny_folder, tmp_path / "out", RECIPE, work=tmp_path / "work")
    vectors = SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(TEXTS)
    flag = FlagModel(str(tmp_path / "out"), use_fp16=False, devices="cpu")
    np.testing.assert_allclose(vectors, flag.encode(TEXTS), atol=1e-4)
    events = EventAccumulator(str(tmp_path / "work/logs"))
    events.Reload()
    logged = {event.step: event.value for event in events.Scalars("train/loss")}
    assert logged == pytest.approx(trained.losses, rel=1e-3)


def test_other_arguments_reach_flag_embedding(scratch: Path, mined: Path, tmp_path: Path) -> None:
    options = TrainingOptions(batch_size=8, group_size=2, others={"max_steps": 1, "use_cpu": True})
    assert train_embedder([mined], scratch, tmp_path / "a", options).steps == 1
    options = TrainingOptions(others={"sound": 1})
    with pytest.raises(ValueError, match="sound"):
        train_embedder([mined], scratch, tmp_path / "b", options)


def test_another_fine_tuning_is_not_taken_up(scratch: Path, mined: Path, tmp_path: Path) -> None:
    train_embedder([mined], scratch, tmp_path / "out", RECIPE, stop_after=1)
    with pytest.raises(CapragError, match="other data, base or options"):
        train_embedder([mined], scratch, tmp_path / "out", replace(RECIPE, seed=9))
    with pytest.raises(CapragError, match="holds no training"):
        train_embedder([mined], scratch, tmp_path / "out", RECIPE, work=tmp_path)


@pytest.mark.parametrize(
    "line", ['{"query": "a", "pos": ["b"], "neg": []}', '{"query": "a", "pos": "b", "neg": ["c"]}', "a"]
)
def test_a_row_that_cannot_be_trained_on_is_named(line: str, scratch: Path, mined: Path, tmp_path: Path) -> None:
    with mined.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    with pytest.raises(CorpusError, match=r"mined\.jsonl:17: holds no training row"):
        train_embedder([mined], scratch, tmp_path / "out", RECIPE)
    with pytest.raises(CorpusError, match="can't be read"):
        train_embedder([tmp_path / "none.jsonl"], scratch, tmp_path / "out", RECIPE)


def test_a_base_that_is_none_is_named(mined: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    with pytest.raises(ModelError, match="base: is not loaded as an encoder"):
        train_embedder([mined], tmp_path / "base", tmp_path / "out", RECIPE)


def test_training_leaves_logging_alone(scratch: Path, mined: Path, tmp_path: Path) -> None:
    import logging

    before = (list(logging.getLogger().handlers), logging.getLogger().level)
    train_embedder([mined], scratch, tmp_path / "out", RECIPE, stop_after=1)
    assert (list(logging.getLogger().handlers), logging.getLogger().level) == before


def test_what_differs_from_the_work_folder_is_named(scratch: Path, mined: Path, tmp_path: Path) -> None:
    train_embedder([mined], SMALL, tmp_path / "out", RECIPE, stop_after=1)
    for base, options, named in (
        (Architecture(hidden=64, layers=1, heads=2), RECIPE, r"base .*'layers': 2.* not .*'layers': 1"),
        (scratch, RECIPE, r"base "),
        (SMALL, replace(RECIPE, seed=4, temperature=0.5), r"\(seed 3, not 4; temperature 0\.02, not 0\.5\)"),
    ):
        with pytest.raises(CapragError, match=f"{named}.*--out.*delete"):
            train_embedder([mined], base, tmp_path / "out", options)
    with pytest.raises(CapragError, match=r"\(data "):
        train_embedder([mined, mined], SMALL, tmp_path / "out", RECIPE)


def test_an_untrained_base_is_made_by_its_size(mined: Path, tmp_path: Path) -> None:
    new_encoder(tmp_path / "new", SMALL, seed=RECIPE.seed)
    made = train_embedder([mined], SMALL, tmp_path / "a", RECIPE)
    assert made.losses == train_embedder([mined], tmp_path / "new", tmp_path / "b", RECIPE).losses


@pytest.mark.parametrize(("count", "named"), [(3, "holds 3 rows and a step takes 4.*--batch-size"), (0, "is empty")])
def test_too_few_rows_are_named_and_nothing_is_written(count: int, named: str, scratch: Path, tmp_path: Path) -> None:
    rows = tmp_path / "few.jsonl"
    rows.write_text('{"query": "a", "pos": ["b"], "neg": ["c"]}\n' * count, encoding="utf-8")
    for base in (scratch, SMALL):
        with pytest.raises((ValueError, CorpusError), match=named):
            train_embedder([rows], base, tmp_path / "out", RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]


def test_an_unknown_pooling_is_named_before_all_else() -> None:
    with pytest.raises(ValueError, match="pooling is 'max'; known are cls, mean"):
        TrainingOptions(pooling="max")  # type: ignore[arg-type]


def test_the_last_step_is_logged_whatever_the_interval(scratch: Path, mined: Path, tmp_path: Path) -> None:
    often = train_embedder([mined], scratch, tmp_path / "a", replace(RECIPE, logging_steps=1)).losses
    seldom = train_embedder([mined], scratch, tmp_path / "b", replace(RECIPE, logging_steps=100)).losses
    assert list(seldom) == [12]
    assert seldom[12] == pytest.approx(np.mean(list(often.values())), rel=1e-3)


class Louder(Swapping):
    def corrupt(
        self, texts: Sequence[str], *, seed: int = 0, strength: float | None = None, start: int = 0
    ) -> list[str]:
        return [text + "!" for text in super().corrupt(texts, seed=seed, strength=strength, start=start)]


def test_pretraining_is_not_taken_up_with_another_base_or_noise(scratch: Path, tmp_path: Path) -> None:
    new_encoder(tmp_path / "other", SMALL, seed=2)
    out = tmp_path / "out"
    pretrain_embedder(TEXTS, scratch, out, Swapping(), OPTIONS, stop_after=1)
    with pytest.raises(ModelError, match=r"checkpoint\.pt: belongs to a training with another base"):
        pretrain_embedder(TEXTS, tmp_path / "other", out, Swapping(), OPTIONS)
    with pytest.raises(ModelError, match="with another noise"):
        pretrain_embedder(TEXTS, scratch, out, Louder(), OPTIONS)
    # An earlier version's checkpoint says nothing of either.
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    torch.save({name: value for name, value in state.items() if name not in ("base", "noise")}, out / "checkpoint.pt")
    assert len(pretrain_embedder(TEXTS, scratch, out, Swapping(), OPTIONS)) == 7
