"""Fitting the decision to one's own readings, and the commands around it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from test_cross_encoder import save_tiny_cross_encoder
from typer.testing import CliRunner

import caprag
from caprag.cli import app
from caprag.errors import CorpusError, ModelError
from caprag.reranking import Reranker
from caprag.reranking.cross_encoder import load_cross_encoder
from caprag.training.reranker import Pair, read_pairs, train_reranker
from caprag.types import Embedder

pytest.importorskip("sklearn", reason="the train extra is not installed")
LETTERS = "天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏閏餘成歲律呂調陽雲騰致雨露結為霜"


def script(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.sample(LETTERS, rng.randint(5, 9))) for _ in range(count)]


def misread(texts: list[str], seed: int) -> list[Pair]:
    rng = random.Random(seed)
    pairs = []
    for text in texts:
        read = list(text)
        if rng.random() < 0.5:
            read[rng.randrange(len(read))] = rng.choice(LETTERS)
        pairs.append(Pair("".join(read), text))
    return pairs


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return script(260, 1)


@pytest.fixture(scope="module")
def index(texts: list[str], tiny_embedder: Embedder) -> caprag.Index:
    return caprag.Index.build([*texts, *script(200, 2)], tiny_embedder)


def test_two_hundred_lines_move_the_shipped_decision(texts: list[str], index: caprag.Index) -> None:
    """It stays the shipped one, scaled and shifted, and is counted on what the corpus was made to lack."""
    shipped = Reranker.load()
    moved = train_reranker([misread(texts[:200], 3)], index)
    old, new = shipped.line.weights.snap, moved.line.weights.snap
    ratios = {new[name] / weight for name, weight in old.items() if abs(weight) > 1e-9}
    assert max(ratios) == pytest.approx(min(ratios))
    assert moved.line.lines == 200
    assert moved.exact == shipped.exact
    assert moved.provenance["readings"] == 200
    fresh = misread(texts[200:], 4)
    answers = [caption.text for caption in caprag.Pipeline(index, reranker=moved).snap([pair.read for pair in fresh])]
    assert sum(one == pair.truth for one, pair in zip(answers, fresh, strict=True)) >= 58
    others = misread(script(60, 9), 5)
    kept = caprag.Pipeline(index, reranker=moved).snap([pair.read for pair in others])
    assert sum(caption.text == pair.read for caption, pair in zip(kept, others, strict=True)) >= 58
    assert train_reranker([misread(texts[:200], 3)], index) == moved


def test_thousands_fit_all_weights(texts: list[str], index: caprag.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caprag.training.reranker.ENOUGH", 300)
    fitted = train_reranker([misread(texts, seed) for seed in range(3)], index, risk=0.01)
    assert fitted.order is not None
    assert fitted.provenance == {"readings": 780, "episodes": 3, "corpus_sentences": len(index)}
    assert fitted.line.lines == 780


def test_how_sure_kept_readings_are_follows_one_s_own(index: caprag.Index) -> None:
    """Of lines that the corpus lacks half are right as read; the shipped decision has learnt of nineteen in twenty."""
    moved = train_reranker([misread(script(200, 11), 12)], index)
    fresh = misread(script(200, 13), 14)
    kept = [
        (caption.confidence, pair.read == pair.truth)
        for caption, pair in zip(
            caprag.Pipeline(index, reranker=moved).snap([p.read for p in fresh]), fresh, strict=True
        )
        if caption.hit is None
    ]
    assert len(kept) > 180
    sure, right = (sum(column) / len(kept) for column in zip(*kept, strict=True))
    assert sure == pytest.approx(right, abs=0.12)
    shipped = caprag.Pipeline(index).snap([p.read for p in fresh])
    assert sum(caption.confidence for caption in shipped) / 200 > sure + 0.15


def test_a_cross_encoder_has_a_say_where_the_decision_was_fitted_with_one(
    texts: list[str], index: caprag.Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_cross_encoder(save_tiny_cross_encoder(tmp_path / "排序"), device="cpu")
    episodes = [misread(texts, 3)]
    with pytest.raises(ValueError, match="260 readings"):
        train_reranker(episodes, index, cross_encoder=encoder)
    monkeypatch.setattr("caprag.training.reranker.ENOUGH", 200)
    fitted = train_reranker(episodes, index, cross_encoder=encoder)
    assert fitted.cross_encoder == encoder.name
    assert fitted.line.weights.snap["cross"] != 0.0
    fitted.save(tmp_path / "r.json")
    pipeline = caprag.Pipeline.load(None, reranker=tmp_path / "r.json")
    pipeline.index = index
    read = misread(texts[:20], 4)
    captions = pipeline.snap([pair.read for pair in read])
    for caption in captions:
        (logit,) = encoder.score([(caption.hypotheses[0].text, caption.considered[0].text)], unit="logit")
        assert caption.evidence["cross"] == pytest.approx(max(-10.0, min(10.0, float(logit))), abs=1e-4)
    plain = caprag.Pipeline(index, reranker=replace(fitted, cross_encoder="")).snap([pair.read for pair in read])
    assert all(caption.evidence["cross"] == 0.0 for caption in plain)
    again = train_reranker(episodes, index, base=fitted)
    assert again.cross_encoder == encoder.name
    assert again.line == fitted.line
    missing = caprag.Pipeline(index, reranker=replace(fitted, cross_encoder=str(tmp_path / "fort")))
    with pytest.raises(ModelError, match="no such folder"):
        missing.snap([read[0].read])


def test_pairs_of_both_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("\ufeff閒玩笑\t開玩笑\r\n\n好\t好\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"key": "x", "read": "閒", "truth": "開"}\n', encoding="utf-8")
    assert read_pairs(tmp_path / "a.tsv") == [Pair("閒玩笑", "開玩笑"), Pair("好", "好")]
    assert read_pairs(tmp_path / "b.jsonl") == [Pair("閒", "開")]
    (tmp_path / "c.tsv").write_text("好\t好\n沒有\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"c\.tsv, line 2: is no pair \(0 tabs\)"):
        read_pairs(tmp_path / "c.tsv")
    told: list[str] = []
    assert read_pairs(tmp_path / "c.tsv", on_error=lambda error: told.append(str(error))) == [Pair("好", "好")]
    assert len(told) == 1
    (tmp_path / "d.tsv").write_text("\n", encoding="utf-8")
    for name, wanted in (("d.tsv", "has no pair"), ("e.tsv", "can't be read")):
        with pytest.raises(CorpusError, match=wanted):
            read_pairs(tmp_path / name)


def test_from_a_run_to_a_decision_of_ones_own(
    texts: list[str], index: caprag.Index, tmp_path: Path, tiny_folder: Path
) -> None:
    """snap --explain, review, what a person corrected, train reranker, snap again."""
    run = CliRunner()
    index.save(tmp_path / "index")
    given = ["--index", str(tmp_path / "index"), "--embedder", str(tiny_folder)]
    pairs = misread(texts[:80], 6)
    (tmp_path / "read.txt").write_text("".join(f"{pair.read}\n" for pair in pairs), encoding="utf-8")
    out = tmp_path / "out.jsonl"
    done = run.invoke(
        app, ["snap", str(tmp_path / "read.txt"), *given, "--out", str(out), "--explain", "--risk", "0.01"]
    )
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 80
    snapped = next(row for row in rows if row["snapped"] and row["text"] != row["read"])
    assert snapped["considered"][0] == snapped["text"]
    assert set(snapped["shares"]) >= {"bias", "edits", "story"}
    whole = out.read_bytes()
    out.write_bytes(b"".join(whole.splitlines(keepends=True)[:70]) + b'{"line": 71, "te')
    assert (
        run.invoke(
            app, ["snap", str(tmp_path / "read.txt"), *given, "--out", str(out), "--explain", "--risk", "0.01"]
        ).exit_code
        == 0
    )
    assert out.read_bytes() == whole
    page = tmp_path / "page.html"
    assert run.invoke(app, ["review", str(out), "--out", str(page)]).exit_code == 0
    assert page.stat().st_size > 10_000
    corrections = tmp_path / "corrections.jsonl"
    corrections.write_text(
        "".join(json.dumps({"key": "1", "read": p.read, "truth": p.truth}) + "\n" for p in pairs), encoding="utf-8"
    )
    made = run.invoke(app, ["train", "reranker", str(corrections), *given, "--out", str(tmp_path / "mine.json")])
    assert made.exit_code == 0, made.output
    cross = str(save_tiny_cross_encoder(tmp_path / "cross"))
    few = run.invoke(
        app, ["train", "reranker", str(corrections), *given, "--out", str(tmp_path / "x"), "--cross-encoder", cross]
    )
    assert few.exit_code == 2
    assert "80 readings" in few.output
    assert "80 readings" in made.output
    assert "a line in order snaps from a probability of" in made.output
    assert "so few lines can vouch for a risk of 0.012" in made.output
    assert Reranker.load(tmp_path / "mine.json").provenance["readings"] == 80
    told = run.invoke(app, ["explain", pairs[0].read, "好", *given, "--reranker", str(tmp_path / "mine.json")])
    assert told.exit_code == 0, told.output
    assert "runner-up" in told.output
    assert "snaps from" in told.output
    kept = run.invoke(app, ["explain", "完全 是別的話", *given])
    assert "kept as read" in kept.output
    assert "reading: gaps = 1.00" in kept.output
    for wrong, message in (
        (["review", str(tmp_path / "nothing.jsonl")], "can't be read"),
        (["train", "reranker", str(tmp_path / "no.tsv"), *given, "--out", "x.json"], "can't be read"),
        (["snap", str(tmp_path / "read.txt"), *given, "--risk", "2"], "must lie between 0 and 1"),
    ):
        failed = run.invoke(app, wrong)
        assert failed.exit_code != 0
        assert message in failed.output + str(failed.exception)


def test_a_run_that_goes_on_reads_no_more_than_it_must(
    texts: list[str], index: caprag.Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing where all is done; from two blocks before where something is missing; broken pictures have no place."""
    from PIL import Image

    from caprag.cli.options import Complaints
    from caprag.cli.reading import _again, _without_broken

    listening, alone = caprag.Pipeline(index), caprag.Pipeline(index, in_order=False)
    items = list(range(200))
    assert _again(items, lambda _: True, listening) == []
    assert _again(items, lambda item: item < 150, listening) == items[64:]
    assert _again(items, lambda item: item != 0, listening) == items
    assert _again(items, lambda item: item < 150, alone) == items[150:]
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"{number}.png")
        if number in (1, 5):
            paths[-1].write_bytes(b"no picture")
        else:
            Image.new("RGB", (8, 8)).save(paths[-1])
    complaints = Complaints()
    done = {paths[0], paths[3]}
    kept = _without_broken(paths, done.__contains__, complaints)
    # The first broken one was met before, the last is still to come.
    assert kept == [path for path in paths if path != paths[1]]
    assert complaints.count == 1
    assert "1.png" in capsys.readouterr().err
