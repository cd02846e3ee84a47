"""Character n-grams against BM25 written out with NumPy, and what adding, deleting and saving must not change."""

from __future__ import annotations

import gc
import math
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from caprag.retrieval.lexical import META, LexicalIndex, grams
from caprag.text import match_form

GENERATOR = random.Random(0)
TEXTS = list(dict.fromkeys("".join(GENERATOR.choices("一二三四五六七八九十上中下", k=12)) for _ in range(120)))


def bm25(query: str, texts: list[str]) -> dict[int, float]:
    """BM25 with Lucene's constants, each gram of query and text counted once, over texts of one length."""
    documents = [set(grams(text)) for text in texts]
    lengths = [len(grams(text)) for text in texts]
    mean = sum(lengths) / len(lengths)
    frequency = Counter(gram for document in documents for gram in document)
    scores: dict[int, float] = {}
    for i, document in enumerate(documents):
        score = sum(
            math.log(1 + (len(texts) - frequency[gram] + 0.5) / (frequency[gram] + 0.5))
            * 2.2
            / (1 + 1.2 * (0.25 + 0.75 * lengths[i] / mean))
            for gram in grams(query)
            if gram in document
        )
        if score:
            scores[i] = score
    return scores


@pytest.fixture
def index() -> LexicalIndex:
    made = LexicalIndex()
    made.add(range(len(TEXTS)), TEXTS)
    return made


def test_grams_are_characters_and_pairs() -> None:
    assert grams("好啊！") == ["好", "啊", "好啊"]
    assert grams("哈哈哈") == ["哈", "哈哈"]
    assert grams("……") == grams("") == []
    assert grams("A裡") == ["a", match_form("裡"), "a" + match_form("裡")]


def test_scores_are_bm25(index: LexicalIndex) -> None:
    for query in ("一二三", "上中", TEXTS[7], "下下下九"):
        expected = bm25(query, TEXTS)
        found = dict(index.search([query], len(TEXTS))[0])
        assert found.keys() == expected.keys()
        # The engine keeps a text's length in one byte: 23 grams or fewer are exact.
        assert found == pytest.approx(expected, rel=1e-4)


def test_best_first_and_at_most_k(index: LexicalIndex) -> None:
    everything = index.search(["一二三四"], len(TEXTS))[0]
    assert everything == sorted(everything, key=lambda pair: (-pair[1], pair[0]))
    assert [s for _, s in index.search(["一二三四"], 5)[0]] == [s for _, s in everything[:5]]
    assert all(score > 0 for _, score in everything)


def test_a_batch_equals_its_singles(index: LexicalIndex) -> None:
    queries = [*TEXTS[:5], "", "……", "沒有", "\ud800", "一" * 5000]
    assert index.search(queries, 7) == [index.search([query], 7)[0] for query in queries]
    assert index.search(["", "……", "x"], 3) == [[], [], []]
    assert index.search([], 3) == []


def test_find_knows_the_very_text(index: LexicalIndex) -> None:
    assert index.find([TEXTS[3], TEXTS[3] + "。", ""]) == [[3], [], []]
    index.add([1000, 1001], ["。。", "𠮷野家"])
    assert index.find(["。。", "𠮷野家", "𠮷野"]) == [[1000], [1001], []]


def test_frequency_counts_sentences_that_are_there(index: LexicalIndex) -> None:
    for gram in ("一", "上中", "下下", "無", ""):
        assert index.frequency(gram) == sum(gram in grams(text) for text in TEXTS)
    index.remove(range(60))
    for gram in ("一", "上中", "下下"):
        assert index.frequency(gram) == sum(gram in grams(text) for text in TEXTS[60:])


def test_removed_sentences_are_not_found(index: LexicalIndex) -> None:
    index.remove([3, 999])
    assert len(index) == len(TEXTS) - 1
    assert index.find([TEXTS[3]]) == [[]]
    assert 3 not in dict(index.search([TEXTS[3]], len(TEXTS))[0])
    index.add([500], [TEXTS[3]])
    assert index.find([TEXTS[3]]) == [[500]]


def saved(index: LexicalIndex, folder: Path, meta: str = "meta-1.json") -> dict[str, Path]:
    """Save whole, and return what `LexicalIndex` opens."""
    names = index.save(folder)
    index.save_meta(folder / meta)
    return {META: folder / meta, **{name: folder / name for name in names}}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.iterdir())}


def test_saved_and_opened_it_is_the_same(index: LexicalIndex, tmp_path: Path) -> None:
    index.remove([2])
    opened = LexicalIndex(saved(index, tmp_path / "lexical"))
    assert len(opened) == len(index) == len(TEXTS) - 1
    assert opened.search(TEXTS, 10) == index.search(TEXTS, 10)
    assert opened.intact()


def test_what_is_on_disk_changes_only_by_saving(index: LexicalIndex, tmp_path: Path) -> None:
    files = saved(index, tmp_path / "lexical")
    before = contents(tmp_path / "lexical")
    opened = LexicalIndex(files)
    for i in range(12):
        opened.add([1000 + i], [f"新句子{i}"])
    opened.remove(range(100))
    assert contents(tmp_path / "lexical") == before
    assert len(LexicalIndex(saved(opened, tmp_path / "again"))) == len(TEXTS) + 12 - 100


def test_only_what_is_new_is_copied(index: LexicalIndex, tmp_path: Path) -> None:
    """A save adds files beside those of the save before, which stay as they are."""
    folder = tmp_path / "lexical"
    files = saved(index, folder)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}
    opened = LexicalIndex(files)
    opened.add([1000], ["新句子"])
    names = opened.save(folder, files.keys())
    assert set(names) > files.keys() - {META}
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before} == before
    opened.save_meta(folder / "meta-2.json")
    again = LexicalIndex({META: folder / "meta-2.json", **{name: folder / name for name in names}})
    assert again.find(["新句子", TEXTS[0]]) == [[1000], [0]]


def test_files_of_the_same_name_are_replaced_at_one_stroke(index: LexicalIndex, tmp_path: Path) -> None:
    """The folder may be a copy of the one it was opened from, and somebody may have its files mapped."""
    folder = tmp_path / "lexical"
    saved(index, folder)
    held = {path: path.open("rb") for path in folder.iterdir()}
    before = contents(folder)
    index.save(folder)
    for path, stream in held.items():
        with stream:
            assert stream.read() == before[path] == path.read_bytes()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_it_opens_from_a_folder_that_may_not_be_written(index: LexicalIndex, tmp_path: Path) -> None:
    files = saved(index, tmp_path / "lexical")
    (tmp_path / "lexical").chmod(0o500)
    opened = LexicalIndex(files)
    opened.add([1000], ["新"])
    assert opened.find(["新"]) == [[1000]]


def test_it_knows_when_its_files_have_gone(index: LexicalIndex, tmp_path: Path) -> None:
    opened = LexicalIndex(saved(index, tmp_path / "lexical"))
    for path in (tmp_path / "lexical").iterdir():
        path.unlink()
    assert not opened.intact()
    # What is open stays open.
    assert opened.search(TEXTS[:3], 5) == index.search(TEXTS[:3], 5)


def test_it_knows_what_its_statistics_remember(index: LexicalIndex, tmp_path: Path) -> None:
    assert not index.has_deleted()
    index.remove([999])
    assert not index.has_deleted()
    index.remove([3])
    assert index.has_deleted()
    assert LexicalIndex(saved(index, tmp_path / "lexical")).has_deleted()


def test_aliases_stand_for_their_sentence() -> None:
    index = LexicalIndex()
    index.add([5, 9], ["窗前明月光", "疑是地上霜"], [["moonlight before my bed", "靜夜思"], []])
    assert [number for number, _ in index.search(["moonlight"], 5)[0]] == [5]
    assert [number for number, _ in index.search(["靜夜思 明月"], 5)[0]] == [5]
    # Only the text itself is what stands there.
    assert index.find(["靜夜思", "窗前明月光"]) == [[], [5]]
    index.remove([5])
    assert index.search(["moonlight", "靜夜思", "明月"], 5) == [[], [], []]
    assert [number for number, _ in index.search(["地上霜"], 5)[0]] == [9]


def test_the_rarest_grams_are_looked_at(index: LexicalIndex) -> None:
    """A bound on postings leaves out the commonest n-grams, and one n-gram at least is looked at."""
    query = TEXTS[7]
    counts = {gram: index.frequency(gram) for gram in grams(query)}
    order = sorted(counts, key=lambda gram: (counts[gram], grams(query).index(gram)))
    for most in (0, counts[order[0]] + counts[order[1]], 10**9):
        chosen, total = order[:1], counts[order[0]]
        for gram in order[1:]:
            total += counts[gram]
            if total > most:
                break
            chosen.append(gram)
        holders = {i for i, text in enumerate(TEXTS) if set(chosen) & set(grams(text))}
        assert {number for number, _ in index.search([query], len(TEXTS), most_postings=most)[0]} == holders


def test_no_temporary_folder_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # A warning in a finaliser would fail this test.
    made = LexicalIndex()
    made.add([0], ["好"])
    assert len(list(tmp_path.iterdir())) == 1
    del made
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    script = (
        "from caprag.retrieval.lexical import LexicalIndex\nkept = LexicalIndex()\nkept.add([0], ['a'])\n"
        "print(kept._folder)"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert not Path(run.stdout.strip()).exists()
