"""Negatives are hard, never positives, and the same however the work was cut up."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

import caprag
from caprag import match_form
from caprag.errors import CapragError, CorpusError
from caprag.retrieval.embedder import SentenceEmbedder
from caprag.training import MiningOptions, Pair, VariedNoise, mine_negatives, noisy_pairs, read_pairs
from caprag.training import negatives as module
from caprag.training.candidates import dense_ranks
from caprag.training.guard import Guard, same_meaning

LETTERS = "天地人你我他來去吃喝看聽說讀寫大小多少上下午晚早餐飯茶水"


def made(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(LETTERS, k=draw.randint(4, 9))) for _ in range(count)]


CORPUS = made(200)


def some_pairs(count: int = 30) -> list[Pair]:
    draw = random.Random(1)
    pairs = []
    for text in draw.sample(CORPUS, count):
        reading = list(text)
        reading[draw.randrange(len(reading))] = draw.choice(LETTERS)
        pairs.append(Pair("".join(reading), (text,)))
    return pairs


def mined(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        ("午餐吃什麼?", "the same text"),
        ("午餐, 吃什麼", "the same but for signs or case"),
        ("午餐吃什么", "a variant"),
        ("午餐吃什麼啊", "the same meaning, one edit apart"),
        ("牛餐吃什麼", "equal to the query"),
        ("……", "no text"),
        ("快餐吃什麼", None),
        ("午餐吃什麼嗎", None),
    ],
)
def test_the_guard_names_its_reason(candidate: str, reason: str | None) -> None:
    assert Guard("牛餐吃什麼", ["午餐吃什麼?", "明天見"]).check(candidate) == reason


def test_the_guard_knows_the_margin_and_what_was_taken() -> None:
    guard = Guard("牛餐", ["午餐"], ceiling=0.5)
    assert guard.check("晚餐", 0.6) == "above the margin"
    assert guard.check("晚餐", 0.5) is None
    guard.take("晚餐")
    assert guard.check("晚餐!", 0.1) == "twice among the negatives"


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("跑的快", "跑得快", True), ("好啊", "好", True), ("好喔", "好哦", True), ("你来", "妳来", True),
        ("好", "好吗", False), ("他来", "她来", False), ("午餐", "晚餐", False), ("跑的快的", "跑得快得", False),
        ("啊好", "好", False), ("好", "好", False),
    ],
)  # fmt: skip
def test_same_meaning_is_narrow(a: str, b: str, same: bool) -> None:
    assert same_meaning(match_form(a), match_form(b)) is same


def test_dense_ranks_are_those_of_brute_force(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    pairs = some_pairs()
    options = MiningOptions(ranks=(3, 6), negatives=4, margin=None, fill=False)
    mine_negatives(pairs, CORPUS, tmp_path / "a.jsonl", options, embedder=tiny_embedder)
    texts = list(dict.fromkeys(CORPUS))
    cosines = tiny_embedder.embed([p.query for p in pairs]) @ tiny_embedder.embed(texts).T
    rows = mined(tmp_path / "a.jsonl")
    assert len(rows) == len(pairs)
    for pair, row, scores in zip(pairs, rows, cosines, strict=True):
        order = np.argsort(-scores, kind="stable")[2:6]
        guard = Guard(pair.query, pair.positives)
        assert set(row["neg"]) == {texts[i] for i in order if guard.check(texts[i]) is None}


def test_edit_ranks_are_those_of_brute_force(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    """In a corpus all of which is proposed, the nearest by distance are taken; equal distances in document order."""
    pairs, corpus = some_pairs(10), list(dict.fromkeys(CORPUS[:30]))
    options = MiningOptions(methods={"edit": 1}, ranks=(1, 4), negatives=4, margin=None, fill=False)
    mine_negatives(pairs, corpus, tmp_path / "a.jsonl", options, embedder=tiny_embedder)
    for pair, row in zip(pairs, mined(tmp_path / "a.jsonl"), strict=True):
        form = match_form(pair.query)
        nearest = sorted(corpus, key=lambda text: Levenshtein.distance(form, match_form(text)))[:4]
        guard = Guard(pair.query, pair.positives)
        assert set(row["neg"]) == {text for text in nearest if guard.check(text) is None}


def test_glyph_ranks_prefer_look_alikes(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    corpus = ["今天很晴朗", "今天很睛朗", "今天很快朗", "今天很一朗", "明天再來吧"]
    options = MiningOptions(methods={"glyph": 1}, ranks=(2, 2), negatives=1, margin=None)
    mine_negatives([Pair("今天很晴朗", ("今天很晴朗",))], corpus, tmp_path / "a", options, embedder=tiny_embedder)
    assert mined(tmp_path / "a")[0]["neg"] == ["今天很睛朗"]


def test_shares_and_quotas() -> None:
    assert MiningOptions(methods={"dense": 2, "edit": 1, "glyph": 1}, negatives=9).quotas() == {
        "dense": 5, "edit": 2, "glyph": 2,
    }  # fmt: skip
    assert MiningOptions(methods={"random": 1, "dense": 1}, negatives=3).quotas() == {"random": 1, "dense": 2}


@pytest.mark.parametrize("methods", [{"dense": 1}, {"dense": 1, "edit": 1, "glyph": 1}, {"random": 1}])
def test_every_line_is_full_distinct_and_clean(
    methods: dict[str, float], tiny_embedder: SentenceEmbedder, tmp_path: Path
) -> None:
    corpus = [*CORPUS, *(text + "!" for text in CORPUS[:50])]
    pairs = some_pairs()
    options = MiningOptions(methods=methods, ranks=(1, 12), negatives=9)  # type: ignore[arg-type]
    report = mine_negatives(pairs, corpus, tmp_path / "a.jsonl", options, embedder=tiny_embedder)
    rows = mined(tmp_path / "a.jsonl")
    assert [(row["query"], row["pos"]) for row in rows] == [(p.query, list(p.positives)) for p in pairs]
    for row in rows:
        forms = [match_form(text) for text in row["neg"]]
        assert len(forms) == len(set(forms)) == 9
        assert not {match_form(text) for text in row["pos"]} & set(forms)
    assert report.pairs == report.written == len(pairs)
    assert sum(report.negatives.values()) == 9 * len(pairs)


def test_the_margin_holds(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    options = MiningOptions(ranks=(1, 50), negatives=5, margin=0.9, fill=False)
    report = mine_negatives(some_pairs(), CORPUS, tmp_path / "a.jsonl", options, embedder=tiny_embedder)
    for row in mined(tmp_path / "a.jsonl"):
        query, positive, *others = tiny_embedder.embed([row["query"], row["pos"][0], *row["neg"]])
        assert all(query @ other <= 0.9 * (query @ positive) + 1e-3 for other in others)
    assert report.refused["above the margin"] > 0
    assert len(report.examples["above the margin"]) <= 3
    assert "above the margin" in str(report)


def test_the_embedders_batches_change_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    options = MiningOptions(methods={"dense": 1, "edit": 1}, ranks=(1, 10), negatives=4)
    contents = []
    for size in (1, 7, 256):
        embedder = caprag.load_embedder(tiny_folder, device="cpu", batch_size=size)
        mine_negatives(some_pairs(), CORPUS, tmp_path / f"{size}.jsonl", options, embedder=embedder)
        contents.append((tmp_path / f"{size}.jsonl").read_bytes())
    assert len(set(contents)) == 1


def test_the_seed_decides(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        options = MiningOptions(ranks=(1, 20), negatives=3, seed=seed)
        mine_negatives(some_pairs(), CORPUS, tmp_path / name, options, embedder=tiny_embedder)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1] != contents[2]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop", [3, 8, 13, 29])
def test_a_stop_changes_nothing(
    stop: int, tiny_embedder: SentenceEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 8)
    options = MiningOptions(ranks=(1, 10), negatives=4)
    pairs = some_pairs()

    def broken() -> Iterator[Pair]:
        yield from pairs[:stop]
        raise StoppedError

    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    report = mine_negatives(pairs, CORPUS, whole, options, embedder=tiny_embedder)
    with pytest.raises(StoppedError):
        mine_negatives(broken(), CORPUS, part, options, embedder=tiny_embedder)
    with part.open("ab") as stream:
        # As a kill in the middle of a line leaves it.
        stream.write('{"query": "午'.encode()[:-1])
    assert mine_negatives(pairs, CORPUS, part, options, embedder=tiny_embedder) == report
    assert part.read_bytes() == whole.read_bytes()
    assert Path(f"{part}.report.json").read_bytes() == Path(f"{whole}.report.json").read_bytes()
    # A third run finds all done.
    assert mine_negatives(pairs, CORPUS, part, options, embedder=tiny_embedder) == report


def test_a_kill_changes_nothing(tiny_folder: Path, tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys, time\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import caprag, test_negatives as t\n"
        "t.module._CHUNK = 4\n"
        "def slow():\n"
        "    for pair in t.some_pairs():\n"
        "        time.sleep(0.05)\n"
        "        yield pair\n"
        "options = t.MiningOptions(ranks=(1, 10), negatives=4)\n"
        "t.mine_negatives(slow(), t.CORPUS, Path(sys.argv[2]), options,\n"
        "                 embedder=caprag.load_embedder(sys.argv[3], device='cpu'))\n",
        encoding="utf-8",
    )
    out = tmp_path / "a.jsonl"
    arguments = [sys.executable, str(script), str(Path(__file__).parent), str(out), str(tiny_folder)]
    process = subprocess.Popen(arguments)
    try:
        while process.poll() is None and not (out.exists() and out.stat().st_size):
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    options = MiningOptions(ranks=(1, 10), negatives=4)
    mine_negatives(some_pairs(), CORPUS, out, options, embedder=tiny_embedder)
    mine_negatives(some_pairs(), CORPUS, tmp_path / "b.jsonl", options, embedder=tiny_embedder)
    assert out.read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_other_work_is_not_taken_up(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    out, options = tmp_path / "a.jsonl", MiningOptions(negatives=2)
    mine_negatives(some_pairs(5), CORPUS, out, options, embedder=tiny_embedder)
    with pytest.raises(CapragError, match="another corpus, embedder or options"):
        mine_negatives(some_pairs(5), CORPUS[1:], out, options, embedder=tiny_embedder)
    (tmp_path / "b.jsonl").write_text("mine\n", encoding="utf-8")
    with pytest.raises(CapragError, match=r"b\.jsonl: is there already"):
        mine_negatives(some_pairs(5), CORPUS, tmp_path / "b.jsonl", options, embedder=tiny_embedder)


def test_other_pairs_are_not_taken_up(
    tiny_embedder: SentenceEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)
    pairs = some_pairs(6)

    def broken() -> Iterator[Pair]:
        yield from pairs[:4]
        raise StoppedError

    with pytest.raises(StoppedError):
        mine_negatives(broken(), CORPUS, tmp_path / "a", embedder=tiny_embedder)
    with pytest.raises(CapragError, match="other pairs"):
        mine_negatives(pairs[1:], CORPUS, tmp_path / "a", embedder=tiny_embedder)


def test_finished_work_is_not_that_of_other_pairs(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    path, pairs = tmp_path / "train.jsonl", some_pairs(12)
    options = MiningOptions(ranks=(1, 5), negatives=2)
    done = mine_negatives(pairs, CORPUS, path, options, embedder=tiny_embedder)
    assert mine_negatives(pairs, CORPUS, path, options, embedder=tiny_embedder) == done
    for others in (pairs[:11], pairs[::-1], [*pairs, pairs[0]]):
        with pytest.raises(CapragError, match="choose another file, or remove it"):
            mine_negatives(others, CORPUS, path, options, embedder=tiny_embedder)


def test_a_pair_without_negatives_is_left_out(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    pairs = [Pair("午餐", ("午餐",))]
    report = mine_negatives(pairs, ["午餐", "午餐!"], tmp_path / "a.jsonl", embedder=tiny_embedder)
    assert (report.pairs, report.written) == (1, 0)
    assert (tmp_path / "a.jsonl").read_text(encoding="utf-8") == ""


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"methods": {"sound": 1}}, "sound"), ({"methods": {}}, "shares above 0"), ({"methods": {"edit": 0}}, "edit"),
        ({"ranks": (0, 5)}, "0-5"), ({"ranks": (5, 4)}, "5-4"), ({"negatives": 0}, "0"), ({"margin": -1}, "-1"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(given: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        MiningOptions(**given)  # type: ignore[arg-type]


def test_no_corpus(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no sentence"):
        mine_negatives(some_pairs(1), ["", " "], tmp_path / "a", embedder=tiny_embedder)


def test_pairs_are_read_in_all_their_forms(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    rows = [
        '{"query": "牛餐", "pos": ["午餐", "中飯"], "neg": []}', '{"read": "明天貝", "truth": "明天見"}', "",
        '{"query": "好", "positive": "好啊"}',
    ]  # fmt: skip
    lines.write_text("\n".join(rows), encoding="utf-8")
    assert list(read_pairs(lines)) == [
        Pair("牛餐", ("午餐", "中飯")), Pair("明天貝", ("明天見",)), Pair("好", ("好啊",)),
    ]  # fmt: skip
    table = tmp_path / "a.tsv"
    table.write_text("牛餐\t午餐\t中飯\n明天貝\t明天見\n", encoding="utf-8")
    assert list(read_pairs(table)) == [Pair("牛餐", ("午餐", "中飯")), Pair("明天貝", ("明天見",))]


@pytest.mark.parametrize(
    "line", ['{"query": "a"}', '{"query": 1, "pos": ["b"]}', '{"query": "a", "pos": []}', "a", "[1]"]
)
def test_a_line_that_is_no_pair_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"query": "a", "pos": "b"}\n' + line, encoding="utf-8")
    with pytest.raises(CorpusError, match=r"a\.jsonl:2: is no pair"):
        list(read_pairs(path))


def test_unreadable_pairs_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="can't be read"):
        list(read_pairs(tmp_path / "none.tsv"))
    (tmp_path / "a.tsv").write_bytes("好\t好".encode("big5"))
    with pytest.raises(CorpusError, match=r"a\.tsv:1: is not UTF-8"):
        list(read_pairs(tmp_path / "a.tsv"))
    with pytest.raises(CorpusError, match="suffix"):
        list(read_pairs(tmp_path / "a.txt"))


class Doubling:
    """Noise that says what it was asked."""

    def corrupt(
        self, texts: Sequence[str], *, seed: int = 0, strength: float | None = None, start: int = 0
    ) -> list[str]:
        return [f"{text}{seed}{start + i}" if text != "空" else "" for i, text in enumerate(texts)]


def test_noisy_pairs_number_their_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = list(noisy_pairs(["甲", "空", "乙"], Doubling(), seed=7, copies=2))
    assert [(p.query, p.positives) for p in pairs] == [
        ("甲70", ("甲",)), ("甲71", ("甲",)), ("乙74", ("乙",)), ("乙75", ("乙",)),
    ]  # fmt: skip
    monkeypatch.setattr("caprag.training.pairs._AT_A_TIME", 1)
    assert list(noisy_pairs(["甲", "空", "乙"], Doubling(), seed=7, copies=2)) == pairs


def test_varied_noise_depends_on_place_alone() -> None:
    texts = ["你在這裡嗎?", "我說了算!"] * 30
    noise = VariedNoise(Doubling(), simplified=0.3, taiwan=0.3, unsigned=0.3)
    whole = noise.corrupt(texts, seed=3)
    assert whole == [noise.corrupt([text], seed=3, start=i)[0] for i, text in enumerate(texts)]
    assert any(reading.startswith("你在这里") for reading in whole)
    assert any(reading.startswith("你在這裡嗎3") for reading in whole)
    with pytest.raises(ValueError, match=r"0\.9"):
        VariedNoise(Doubling(), simplified=0.9, taiwan=0.9)


def test_dense_ranks_count_who_is_nearer(tiny_embedder: SentenceEmbedder) -> None:
    texts = list(dict.fromkeys(CORPUS))
    pairs = some_pairs()
    ranks = dense_ranks(tiny_embedder, texts, [p.query for p in pairs], [p.positives[0] for p in pairs])
    for pair, rank in zip(pairs, ranks, strict=True):
        cosines = tiny_embedder.embed(texts) @ tiny_embedder.embed([pair.query])[0]
        assert rank == 1 + (cosines > cosines[texts.index(pair.positives[0])] + 1e-5).sum()
    with pytest.raises(ValueError, match="不在"):
        dense_ranks(tiny_embedder, texts, ["a"], ["不在"])


def test_queries_without_a_text_are_left_out_and_counted(tiny_embedder: SentenceEmbedder, tmp_path: Path) -> None:
    pairs = some_pairs(6)
    with_empty = [Pair("", (CORPUS[0],)), *pairs[:3], Pair(" ……", (CORPUS[1],)), *pairs[3:]]
    options = MiningOptions(ranks=(1, 10), negatives=3)
    report = mine_negatives(with_empty, CORPUS, tmp_path / "a.jsonl", options, embedder=tiny_embedder)
    assert [row["query"] for row in mined(tmp_path / "a.jsonl")] == [pair.query for pair in pairs]
    assert (report.pairs, report.written, report.empty) == (8, 6, 2)
    assert "8 pairs, 6 written, 2 without a text in the query" in str(report)
