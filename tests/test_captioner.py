"""Captioners: what the network computes, how it is searched and scored, trained, kept and used."""

from __future__ import annotations

import itertools
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from drawn_fonts import save_font
from PIL import Image, ImageDraw, ImageFont

from caprag import cli, load_recognizer
from caprag.errors import CapragError, CorpusError, ModelError
from caprag.evaluation.metrics import count_errors
from caprag.recognition.captioner import CaptionerRecognizer, canvas
from caprag.recognition.captioner_network import (
    ENCODER_FIELDS,
    UNKNOWN,
    Captioner,
    CaptionerConfig,
    Encoded,
    load_captioner,
)
from caprag.recognition.ctc import RapidOCRRecognizer
from caprag.training.captioner import CaptionerOptions, train_captioner
from caprag.training.recognizer import TrainedRecognizer
from caprag.types import Recognizer

hub: Any = transformers  # its annotations differ from version to version

WORDS = ("早安", "回家吃飯", "OK 走吧", "你在哪裡", "變化", "他不知道", "謝謝", "最後的機會\n走吧")
TINY = CaptionerOptions(
    channels=(16, 32), layers=1, height=32, width=96, crop="frame", max_length=12, embedding=32, hidden=64,
    attention=32, dropout=0.1, epochs=120, batch_size=8, learning_rate=5e-3, checkpoint_steps=40, seed=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of pictures and their texts, and the pictures beside it."""
    folder = tmp_path_factory.mktemp("drawn")
    font = ImageFont.truetype(str(save_font(folder / "squares.ttf", sorted({*"".join(WORDS)} - {"\n"}))), 14)
    rows = []
    for number, word in enumerate(WORDS):
        picture = Image.new("RGB", (100, 36), (10 * number, 40, 90))
        ImageDraw.Draw(picture).text((4, 2), word, (255, 255, 255), font, spacing=0)
        picture.save(folder / f"{number}.png")
        rows.append(f"{number}.png\t" + word.replace("\n", "\\n"))
    (folder / "list.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "list.txt"


def pictures(drawn: Path) -> list[Image.Image]:
    return [Image.open(drawn.parent / f"{number}.png").convert("RGB") for number in range(len(WORDS))]


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRecognizer:
    out = tmp_path_factory.mktemp("trained") / "captioner"
    return train_captioner([drawn], out, TINY, held_out=[drawn], device="cpu")


def network(characters: str = "早安回", seed: int = 0, spread: float = 3.0) -> Captioner:
    """A random one whose answers depend on what it sees and said."""
    encoder = hub.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    config = CaptionerConfig(
        {name: getattr(encoder, name) for name in ENCODER_FIELDS}, 16, 48, "frame", 6, 10, 14, 9, 0.2
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Captioner(config, characters).eval()
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if not name.startswith("encoder."):
                    parameter.mul_(spread)
    return made


def looked_at(made: Captioner, count: int = 3) -> Encoded:
    pixels = torch.from_numpy(np.random.default_rng(5).integers(0, 256, (count, 16, 48, 3), np.uint8))
    with torch.no_grad():
        return made.encode(pixels)


def test_the_decoder_is_that_of_the_paper() -> None:
    """Step by step in NumPy: additive attention, the gate on the context, the LSTM, the output of both and the word."""
    made, said = network(), [5, 2, 4, 3]
    encoded = looked_at(made, 1)
    w = {name: value.double().numpy() for name, value in made.state_dict().items() if not name.startswith("encoder.")}
    places = encoded.places[0].double().numpy()

    def sigmoid(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    h, c = np.split(np.tanh(w["begin.weight"] @ places.mean(0) + w["begin.bias"]), 2)
    expected = []
    for token in said:
        keys = places @ w["keys.weight"].T + w["keys.bias"]
        e = np.tanh(keys + w["query.weight"] @ h) @ w["weight.weight"][0]
        alpha = np.exp(e - e.max())
        z = sigmoid(w["gate.weight"] @ h + w["gate.bias"]) * (alpha / alpha.sum() @ places)
        word = w["embedding.weight"][token]
        gates = w["cell.weight_ih"] @ np.concatenate([word, z]) + w["cell.bias_ih"]
        i, f, g, o = np.split(gates + w["cell.weight_hh"] @ h + w["cell.bias_hh"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        joined = w["joined.weight"] @ np.concatenate([h, z]) + w["joined.bias"]
        expected.append(w["output.weight"] @ np.tanh(word + joined) + w["output.bias"])
    with torch.no_grad():
        found = made.forced(encoded, torch.tensor([said]))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_places_are_told_apart() -> None:
    made = network()
    grey = torch.full((1, 16, 48, 3), 128, dtype=torch.uint8)
    with torch.no_grad():
        places = made.encode(grey).places[0]
    assert places.shape == (2 * 6, 12)  # 16 x 48 pixels, halved three times
    assert torch.pdist(places).min() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_wide_enough_finds_what_trying_all_texts_finds(seed: int) -> None:
    made = network("早安", seed)
    encoded = looked_at(made)
    rows = [row for length in range(4) for row in itertools.product((2, 3), repeat=length)]
    found = made.search(encoded, width=20, n_best=6, max_length=4)
    for picture, texts in enumerate(found):
        owners = torch.full((len(rows),), picture)
        scores = dict(zip(rows, made.logprobs(encoded.pick(owners), rows), strict=True))
        assert sum(map(math.exp, scores.values())) <= 1
        best = sorted(rows, key=lambda row: -scores[row])[:6]
        assert [row for row, _ in texts] == best
        assert [score for _, score in texts] == pytest.approx([scores[row] for row in best], abs=1e-4)


def test_a_beam_of_one_is_greedy() -> None:
    made = network(seed=4)
    encoded = looked_at(made)
    for picture, [(row, score)] in enumerate(made.search(encoded)):
        alone, said, total = encoded.pick(torch.tensor([picture])), [made.teaching([[]])[0].item()], 0.0
        while True:
            with torch.no_grad():
                told = made.forced(alone, torch.tensor([said]))[0, -1].log_softmax(0)
            told[UNKNOWN] = -math.inf
            token = int(told.argmax()) if len(said) < made.config.max_length else 0
            total += float(told[token])
            if token == 0:
                break
            said.append(token)
        assert row == tuple(said[1:])
        assert score == pytest.approx(total, abs=1e-4)


def test_it_learns_eight_pictures_by_heart(trained: TrainedRecognizer, drawn: Path) -> None:
    assert min(trained.rates.values()) == trained.rates[trained.best_step or 0] == 0.0
    assert sorted(trained.losses) == sorted(trained.rates) == [40, 80, 120]
    assert {path.name for path in trained.folder.iterdir()} == {
        "config.json", "vocabulary.json", "model.safetensors", "run.json",
    }  # fmt: skip
    assert json.loads((trained.folder / "run.json").read_text(encoding="utf-8"))["best_cer"] == 0.0
    reader = load_recognizer(str(trained.folder), device="cpu")
    assert isinstance(reader, CaptionerRecognizer)
    assert isinstance(reader, Recognizer)
    read = [hypotheses[0].text for hypotheses in reader.recognize_batch(pictures(drawn))]
    assert count_errors(read, WORDS, characters="all").cer == 0.0
    assert read == list(WORDS)


def test_scores_are_those_of_teacher_forcing_and_hypotheses_are_in_order(
    trained: TrainedRecognizer, drawn: Path
) -> None:
    shown = pictures(drawn)
    found = CaptionerRecognizer(trained.folder, device="cpu").recognize_batch(shown, 4)
    other = CaptionerRecognizer(trained.folder, device="cpu", batch_size=2)
    scores = other.score_batch(shown, [[h.text for h in some] for some in found])
    for some, given in zip(found, scores, strict=True):
        assert len({h.text for h in some}) == len(some) == 4
        assert [h.logprob for h in some] == sorted((h.logprob for h in some), reverse=True)
        assert [h.logprob for h in some] == pytest.approx(given, abs=1e-4)
        assert max(given) <= 0


def test_batches_equal_singles(trained: TrainedRecognizer, drawn: Path) -> None:
    shown = [one.resize((60 + 20 * n, 40)) for n, one in enumerate(pictures(drawn))]
    together = CaptionerRecognizer(trained.folder, device="cpu", batch_size=5).recognize_batch(shown, 3)
    alone = CaptionerRecognizer(trained.folder, device="cpu", batch_size=1)
    for one, some in zip(shown, together, strict=True):
        (single,) = alone.recognize_batch([one], 3)
        assert [h.text for h in some] == [h.text for h in single]
        assert [h.logprob for h in some] == pytest.approx([h.logprob for h in single], abs=1e-4)
    texts = [[], ["早安", "謝謝"], ["早安"], *[[] for _ in shown[3:]]]
    given = CaptionerRecognizer(trained.folder, device="cpu").score_batch(shown, texts)
    assert list(map(len, given)) == list(map(len, texts))
    assert given[1] == pytest.approx([alone.score_batch([shown[1]], [[t]])[0][0] for t in texts[1]], abs=1e-4)


def test_what_was_not_learnt_has_no_probability(trained: TrainedRecognizer, drawn: Path) -> None:
    reader = CaptionerRecognizer(trained.folder, device="cpu")
    ((known, unknown, empty),) = reader.score_batch(pictures(drawn)[:1], [["早安", "早鳥", ""]])
    assert unknown == -math.inf
    assert -1 < known <= 0 > empty > -math.inf
    assert reader.recognize_batch([]) == []
    assert reader.score_batch([], []) == []


def test_the_longest_reading_is_cut_and_scored_as_if_it_ended_there(trained: TrainedRecognizer, drawn: Path) -> None:
    reader = CaptionerRecognizer(trained.folder, device="cpu", beam_width=1, max_new_tokens=3)
    shown = pictures(drawn)
    found = [some[0] for some in reader.recognize_batch(shown)]
    assert found[1].text == "回家"
    scores = [row[0] for row in reader.score_batch(shown, [[h.text] for h in found])]
    assert [h.logprob for h in found] == pytest.approx(scores, abs=1e-4)


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    made = network('早a\n "')
    made.save(tmp_path)
    loaded = load_captioner(tmp_path, "cpu")
    assert (loaded.characters, loaded.config) == (made.characters, made.config)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in made.state_dict().items())
    encoded = looked_at(made)
    assert loaded.search(looked_at(loaded), width=4, n_best=4) == made.search(encoded, width=4, n_best=4)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not(drawn: Path, tmp_path: Path) -> None:
    options = replace(TINY, epochs=3, batch_size=3, checkpoint_steps=1, label_smoothing=0.1, rarest=2)
    whole = train_captioner([drawn], tmp_path / "a", options, held_out=[drawn], device="cpu")
    stopped = train_captioner([drawn], tmp_path / "b", options, held_out=[drawn], device="cpu", seconds=0)
    assert (whole.steps, stopped.steps, stopped.size) == (9, 1, 0)
    assert not (tmp_path / "b").exists()
    resumed = train_captioner([drawn], tmp_path / "b", options, held_out=[drawn], device="cpu")
    assert resumed.rates == whole.rates
    assert resumed.best_step == whole.best_step

    def steps(losses: dict[int, float], start: int) -> Any:
        # The log has means since the start; the loss of each step is the growth of their sums.
        return np.diff([losses[n] * (n - start) for n in range(start + 1, 10)])

    np.testing.assert_allclose(steps(resumed.losses, 1), steps(whole.losses, 0)[1:], atol=1e-5)
    first, second = load_captioner(whole.folder), load_captioner(resumed.folder)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    assert first.characters == ("吧", "謝", "走")  # the others are there once
    with pytest.raises(ModelError, match="other lines or options"):
        train_captioner([drawn], tmp_path / "c", TINY, held_out=[drawn], work=tmp_path / "b.work", device="cpu")
    with pytest.raises(CapragError, match="not empty"):
        train_captioner([drawn], tmp_path / "b", options)


def test_an_encoder_that_was_trained_before(drawn: Path, tmp_path: Path) -> None:
    hub.ResNetModel(
        hub.ResNetConfig(embedding_size=8, hidden_sizes=[16, 32, 48], depths=[1, 1, 1], downsample_in_first_stage=True)
    ).save_pretrained(tmp_path / "resnet")
    options = replace(TINY, encoder=str(tmp_path / "resnet"), stages=2, epochs=1, encoder_rate=1e-12)
    trained = train_captioner([drawn], tmp_path / "out", options, device="cpu")
    assert (trained.steps, trained.best_step, trained.rates) == (1, None, {})
    before = dict(hub.ResNetModel.from_pretrained(tmp_path / "resnet").named_parameters())
    after = dict(load_captioner(trained.folder, "cpu").encoder.named_parameters())
    assert len(after) == len([name for name in before if "stages.2" not in name])
    assert all(torch.allclose(value, before[name], atol=1e-9) for name, value in after.items())
    reader = CaptionerRecognizer(trained.folder, device="cpu", beam_width=1)
    assert len(reader.recognize_batch(pictures(drawn))) == len(WORDS)
    for wrong, error, named in (
        ({"stages": 4}, ValueError, "stages is 4"), ({"encoder": str(tmp_path / "none")}, ModelError, "none"),
    ):  # fmt: skip
        with pytest.raises(error, match=named):
            train_captioner([drawn], tmp_path / "o", replace(options, **wrong), work=tmp_path / "w", device="cpu")


def test_the_band_is_what_is_cut_out(trained: TrainedRecognizer, drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, without = Image.new("RGB", (300, 200), (30, 60, 30)), Image.new("RGB", (300, 200), (90, 60, 30))
    frame.paste(pictures(drawn)[4], (150, 120))
    bands = {frame.tobytes(): (150, 120, 250, 156), without.tobytes(): None}
    # Where the band is, is the finder's word, and is tested with it.
    monkeypatch.setattr(RapidOCRRecognizer, "find_batch", lambda _, images: [bands[one.tobytes()] for one in images])
    seen = CaptionerRecognizer(trained.folder, crop="band", device="cpu").recognize_batch([frame, without], 3)
    plain = CaptionerRecognizer(trained.folder, device="cpu").recognize_batch([pictures(drawn)[4], without], 3)
    assert seen[0][0].text == WORDS[4]
    for some, other in zip(seen, plain, strict=True):
        assert [h.text for h in some] == [h.text for h in other]
        assert [h.logprob for h in some] == pytest.approx([h.logprob for h in other], abs=1e-4)
    options = replace(TINY, crop="band", epochs=1)
    frame.save(drawn.parent / "frame.png")
    (drawn.parent / "frames.txt").write_text("frame.png\t變化\n", encoding="utf-8")
    train_captioner([drawn.parent / "frames.txt"], trained.folder.parent / "band", options, device="cpu")
    scaled = np.load(trained.folder.parent / "band.work" / "pictures" / "000000000.npy")
    assert (scaled == canvas(pictures(drawn)[4], 32, 96)).all()


@pytest.mark.parametrize(("size", "shown"), [((300, 10), (1, 3, 96)), ((10, 300), (0, 32, 1)), ((60, 20), (0, 32, 96))])
def test_pictures_keep_their_shape(size: tuple[int, int], shown: tuple[int, int, int]) -> None:
    seen = canvas(Image.new("RGB", size, (255, 255, 255)), 32, 96)
    white = (seen == 255).all(2)
    assert seen.shape == (32, 96, 3)
    assert (int(white[:, 0].argmax()) > 0, int(white[:, 0].sum()), int(white[16].sum())) == shown


def test_broken_folders_and_wrong_values_are_named(trained: TrainedRecognizer, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no captioner"):
        CaptionerRecognizer(tmp_path)
    network().save(tmp_path / "one")
    (tmp_path / "one" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ModelError, match="can't be loaded"):
        CaptionerRecognizer(tmp_path / "one")
    network().save(tmp_path / "two")
    (tmp_path / "two" / "vocabulary.json").write_text('["<end>", "<unknown>", "早"]', encoding="utf-8")
    with pytest.raises(ModelError, match="size mismatch"):
        load_recognizer(str(tmp_path / "two"))
    for wrong in ({"batch_size": 0}, {"beam_width": 0}, {"max_new_tokens": 0}, {"crop": "parts"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CaptionerRecognizer(trained.folder, **wrong)
    with pytest.raises(ValueError, match="prompt: is for"):
        load_recognizer(str(trained.folder), prompt="讀")
    reader = CaptionerRecognizer(trained.folder, device="cpu")
    with pytest.raises(ValueError, match="n_best"):
        reader.recognize_batch([], 0)
    with pytest.raises(ValueError, match="1 pictures, 0 lists"):
        reader.score_batch(pictures(drawn)[:1], [])
    with pytest.raises(TypeError, match="str"):
        reader.recognize_batch(["a.png"])  # type: ignore[list-item]
    values: list[tuple[str, Any]] = [
        ("channels", ()), ("epochs", 0), ("learning_rate", 0.0), ("warmup", -1.0), ("label_smoothing", 1.0),
    ]  # fmt: skip
    for name, value in values:
        with pytest.raises(ValueError, match=name):
            CaptionerOptions(**{name: value})
    (tmp_path / "list.txt").write_text("missing.png\t早安\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="none of the 1 pictures"):
        train_captioner([tmp_path / "list.txt"], tmp_path / "out", TINY)


def test_the_verb_trains_what_read_reads(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["caprag", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return int(stop.value.code or 0), *capfd.readouterr()

    rows = drawn.read_text(encoding="utf-8")
    (drawn.parent / "more.txt").write_text(rows + "broken.png\t早安\n", encoding="utf-8")
    (drawn.parent / "broken.png").write_bytes(b"no picture")
    small = (
        "--size", "96x32", "--crop", "frame", "--channels", "8,16", "--layers", 1, "--hidden", 32, "--attention", 16,
        "--embedding", 16, "--epochs", 2, "--batch-size", 4, "--device", "cpu", "--quiet",
    )  # fmt: skip
    out = tmp_path / "captioner"
    code, _, said = call("train", "captioner", drawn.parent / "more.txt", "--out", out, "--held-out", drawn, *small)
    assert code == 1
    assert "not a picture in a known format" in said
    assert "4 steps, last loss" in said
    assert "CER" in said
    code, found, _ = call("read", drawn.parent / "0.png", "--recognizer", out, "--n-best", 2, "--device", "cpu")
    (hypotheses,) = CaptionerRecognizer(out, device="cpu").recognize_batch(pictures(drawn)[:1], 2)
    assert code == 0
    assert [h["text"] for h in json.loads(found)["hypotheses"]] == [h.text for h in hypotheses]
    for given, named in (
        (("--size", "96"), "--size 96"), (("--channels", "a,b"), "--channels a,b"), (("--learning-rate", 0), "rate"),
    ):  # fmt: skip
        code, _, said = call("train", "captioner", drawn, "--out", tmp_path / "other", *given)
        assert code == 2
        assert named in said
    code, _, said = call("read", drawn.parent / "0.png", "--recognizer", out, "--prompt", "讀")
    assert code == 2
    assert "prompt: is for vision-language models" in said
