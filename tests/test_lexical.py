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

from caprag.retrieval.lexical import LexicalIndex, grams
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


def test_saved_and_opened_it_is_the_same(index: LexicalIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "lexical")
    opened = LexicalIndex(tmp_path / "lexical")
    assert len(opened) == len(index)
    assert opened.search(TEXTS, 10) == index.search(TEXTS, 10)
    assert opened.intact()


def test_what_is_on_disk_changes_only_by_saving(index: LexicalIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "lexical")
    before = {path: path.read_bytes() for path in (tmp_path / "lexical").iterdir()}
    opened = LexicalIndex(tmp_path / "lexical")
    for i in range(12):
        opened.add([1000 + i], [f"新句子{i}"])
    opened.remove(range(100))
    assert {path: path.read_bytes() for path in (tmp_path / "lexical").iterdir()} == before
    opened.save(tmp_path / "again")
    assert len(LexicalIndex(tmp_path / "again")) == len(TEXTS) + 12 - 100


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_it_opens_from_a_folder_that_may_not_be_written(index: LexicalIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "lexical")
    (tmp_path / "lexical").chmod(0o500)
    opened = LexicalIndex(tmp_path / "lexical")
    opened.add([1000], ["新"])
    assert opened.find(["新"]) == [[1000]]


def test_saving_does_not_overwrite(index: LexicalIndex, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        index.save(tmp_path)


def test_it_knows_when_its_files_have_gone(index: LexicalIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "lexical")
    opened = LexicalIndex(tmp_path / "lexical")
    for path in (tmp_path / "lexical").iterdir():
        path.unlink()
    assert not opened.intact()
    # What is open stays open.
    assert opened.search(TEXTS[:3], 5) == index.search(TEXTS[:3], 5)


def test_no_temporary_folder_is_left_behind() -> None:
    def folders() -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob("caprag-lexical-*"))

    before = folders()
    # A warning in a finaliser would fail this test.
    LexicalIndex().add([0], ["好"])
    gc.collect()
    assert folders() - before == set()
    script = (
        "from caprag.retrieval.lexical import LexicalIndex\nkept = LexicalIndex()\nkept.add([0], ['a'])\n"
        "print(kept._folder)"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert not Path(run.stdout.strip()).exists()
