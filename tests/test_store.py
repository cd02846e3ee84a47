"""An index as it grows: any order of changes against a dictionary, the files of each, readers at its side."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hashing_embedder import HashingEmbedder

from caprag import Index
from caprag.errors import IndexFolderError
from caprag.retrieval import intake, store
from caprag.retrieval.index import By
from caprag.types import Hit, Sentence

EMBEDDER = HashingEmbedder()
WORDS = "天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏閏餘成歲律呂調陽"
QUERIES = ["".join(random.Random(-i).choices(WORDS, k=3 + i % 7)) for i in range(40)]


def text_of(i: int) -> str:
    generator = random.Random(i)
    return "".join(generator.choices(WORDS, k=generator.randint(3, 12))) + f"{i:x}"


def texts(*numbers: int) -> list[str]:
    return [text_of(i) for i in range(*numbers)]


def anew(expected: Mapping[int, Sentence]) -> Index:
    made = Index(EMBEDDER)
    made.upsert(expected)
    return made


def same(index: Index, expected: Mapping[int, Sentence], *, bm25: bool = False) -> None:
    """Equal to the dictionary, and in its answers to an index of it that is made anew."""
    assert list(index) == sorted(expected)
    assert len(index) == len(expected)
    assert [index[i] for i in index] == [expected[i] for i in sorted(expected)]
    assert sorted(index.places()) == [(i, s.source, s.line) for i, s in sorted(expected.items()) if s.source]
    fresh = anew(expected)
    bys: tuple[By, ...] = ("reading", "meaning")
    for by in bys:
        # All sentences are candidates, so that BM25 decides nothing but their order.
        one, other = (each.search_batch(QUERIES, 2000, by=by) for each in (index, fresh))
        for a, b in zip(one, other, strict=True):
            assert not bm25 or [hit.id for hit in a] == [hit.id for hit in b]
            assert len(a) == len(b)
            for x, y in zip(sorted(a, key=lambda hit: hit.id), sorted(b, key=lambda hit: hit.id), strict=True):
                assert (x.id, x.text, x.edit) == (y.id, y.text, y.edit)
                assert x.dense == (None if y.dense is None else pytest.approx(y.dense, abs=1e-5))
                assert (x.lexical is None) == (y.lexical is None)
                assert not bm25 or y.lexical is None or x.lexical == pytest.approx(y.lexical, rel=1e-4)
    for gram in WORDS[:4]:
        assert index.frequency(gram) == fresh.frequency(gram)
    for i in sorted(expected)[::7]:
        assert expected[index.find(expected[i].text) or 0].text == expected[i].text


def stamps(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Inode, time and content of each file."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = (
                path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes(),
            )  # fmt: skip
    return found


# --- any order of changes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_changes_agrees_with_a_dictionary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(store, "_SMALL", 30)
    monkeypatch.setattr(store, "_MOST_SEGMENTS", 3)
    generator = random.Random(seed)
    folder = tmp_path / "index"
    expected = {i: Sentence(text, "甲.txt", i + 1) for i, text in enumerate(texts(40))}
    index = Index.build(expected.values(), EMBEDDER)
    # What is on disk, and what another one who looks on has seen of it.
    index.save(folder)
    saved, next_id, number, saves, looked = dict(expected), 40, 100, 0, 0
    reader, seen = Index.load(folder, embedder=EMBEDDER), dict(expected)
    for step in range(40):
        action = generator.choice(["add", "add", "upsert", "remove", "save", "save", "load", "compact", "refresh"])
        if action == "add":
            number += 20
            fresh = [Sentence(text_of(number + i), f"{step}", i) for i in range(generator.randint(1, 12))]
            ids = index.add([*fresh, fresh[0], *generator.sample(sorted(expected.values(), key=lambda s: s.text), 3)])
            assert ids == list(range(next_id, next_id + len(fresh)))
            expected.update(zip(ids, fresh, strict=True))
            next_id += len(fresh)
        elif action == "upsert":
            number += 20
            ids = sorted({*generator.sample(sorted(expected), 3), next_id + generator.randint(0, 5)})
            given = {i: Sentence(text_of(number + place)) for place, i in enumerate(ids)}
            kept = generator.choice(sorted(expected.keys() - given.keys()))
            assert index.upsert({**given, kept: expected[kept]}) == ids
            expected.update(given)
            next_id = max(next_id, ids[-1] + 1)
        elif action == "remove":
            gone = generator.sample(sorted(expected), min(8, len(expected) - 10))
            index.remove(gone)
            for i in gone:
                del expected[i]
        elif action == "save":
            index.save(folder)
            saved, saves = dict(expected), saves + 1
        elif action == "load":
            # What was not saved is lost.
            index, expected = Index.load(folder, embedder=EMBEDDER), dict(saved)
            next_id = index._store.next_id
        elif action == "compact":
            index.compact()
            assert index.segments == [len(expected)]
            same(index, expected, bm25=True)
        else:
            assert {i: reader[i] for i in reader} == seen
            assert reader.refresh() == (saves > looked)
            looked = saves
            seen = dict(saved)
            assert {i: reader[i] for i in reader} == seen
        if step % 10 == 0:
            same(index, expected)
    index.save(folder)
    index.compact()
    index.save(folder)
    same(Index.load(folder, embedder=EMBEDDER), expected, bm25=True)


FACTORIES = [
    "Flat", "HNSW16", "IVF16,Flat", "IVF16,SQ8", "PQ8np", "SQ8", "IVF16,PQ8x4fs", "OPQ8,IVF16,PQ8np", "IVF16,SQ8,RFlat",
    "PCA16,IVF16,SQ8", "PCA16,SQ8", "IVF16_HNSW8,SQ8",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("factory", FACTORIES)
def test_every_kind_of_vectors_goes_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    monkeypatch.setattr(store, "_SMALL", 10)
    folder = tmp_path / "index"
    expected = dict(enumerate(texts(600)))
    Index.build(expected.values(), EMBEDDER, factory=factory).save(folder)

    def check(index: Index) -> None:
        assert index.factory == factory
        assert {i: index[i].text for i in index} == expected
        asked = sorted(expected)[::9]
        hits = index.search_batch([expected[i] for i in asked], 1)
        assert [hit.id for (hit,) in hits] == asked
        # The vectors alone: those of the very texts are near the top.
        dense = index._store.dense(EMBEDDER.embed([expected[i] for i in asked]), 10)
        assert np.mean([i in row for i, row in zip(asked, dense, strict=True)]) > 0.85
        assert not {i for row in dense for i in row} - expected.keys()

    index = Index.load(folder, embedder=EMBEDDER)
    check(index)
    for i in index.add(texts(1000, 1005)):
        expected[i] = text_of(i + 400)
    index.remove(range(0, 600, 11))
    expected = {i: text for i, text in expected.items() if i % 11 or i >= 600}
    check(index)
    index.save(folder)
    assert index.segments == [545, 5]
    index = Index.load(folder, embedder=EMBEDDER)
    check(index)
    index.upsert({3: "改了的一句", 700: "新的一句"})
    expected.update({3: "改了的一句", 700: "新的一句"})
    check(index)
    index.compact()
    assert index.segments == [len(expected)]
    check(index)
    index.save(folder)
    index = Index.load(folder, embedder=EMBEDDER)
    check(index)
    # More than the largest share: saving merges by itself.
    for i in index.add(texts(2000, 2060)):
        expected[i] = text_of(i - 701 + 2000)
    index.save(folder)
    assert index.segments == [len(expected)]
    check(index)
    check(Index.load(folder, embedder=EMBEDDER))


# --- segments on disk ---------------------------------------------------------------------------------------------


def test_what_is_added_leaves_the_other_files_alone(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Index.build(texts(300), EMBEDDER).save(folder)
    before = stamps(folder)
    index = Index.load(folder, embedder=EMBEDDER)
    index.add(texts(300, 310))
    index.remove([5])
    index.save(folder)
    after = stamps(folder)
    assert index.segments == [299, 10]
    # Only the postings' own table of contents is another.
    assert {name: after.get(name) for name in before.keys() - {"index.json", "postings-1.json"}} == {
        name: stamp for name, stamp in before.items() if name not in ("index.json", "postings-1.json")
    }
    new = {name for name in after.keys() - before.keys() if not name.startswith("lexical/")}
    assert new == {"sentences-2-1.arrow", "vectors-2-1.faiss", "removed-2-0.npy", "postings-2.json"}
    # A save without a change writes the two tables of contents.
    Index.load(folder, embedder=EMBEDDER).save(folder)
    assert stamps(folder).keys() - after.keys() == {"postings-3.json"}
    assert {n: s for n, s in stamps(folder).items() if n in after and n != "index.json"} == {
        n: s for n, s in after.items() if n not in ("index.json", "postings-2.json")
    }


def test_small_segments_are_merged_when_they_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_MOST_SEGMENTS", 3)
    folder = tmp_path / "index"
    index = Index.build(texts(300), EMBEDDER)
    index.save(folder)
    first = stamps(folder)
    seen = []
    for round_ in range(8):
        index.add(texts(1000 + 3 * round_, 1003 + 3 * round_))
        index.save(folder)
        seen.append(index.segments)
        assert index.segments == Index.load(folder, embedder=EMBEDDER).segments
    assert seen == [
        [300, 3], [300, 3, 3], [300, 9], [300, 9, 3], [300, 15], [300, 15, 3], [300, 21], [300, 21, 3],
    ]  # fmt: skip
    for name in ("sentences-1-0.arrow", "vectors-1-0.faiss"):
        assert stamps(folder)[name] == first[name]
    same(index, dict(enumerate(map(Sentence, [*texts(300), *texts(1000, 1024)]))))


def test_a_large_share_is_merged_into_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_SMALL", 20)
    index = Index.build(texts(160), EMBEDDER)
    index.save(tmp_path / "index")
    index.add(texts(160, 180))
    index.save(tmp_path / "index")
    assert index.segments == [160, 20]
    index.remove([0])
    index.add(["再一句"])
    index.save(tmp_path / "index")
    assert index.segments == [180]
    same(index, {i: s for i, s in enumerate(map(Sentence, [*texts(180), "再一句"])) if i})


def test_compacting_after_a_save_has_merged_forgets_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and vectors no longer know of it then, the postings still do."""
    monkeypatch.setattr(store, "_SMALL", 5)
    index = Index.build(texts(100), EMBEDDER)
    index.save(tmp_path / "index")
    index.remove(range(50))
    index.add(texts(100, 110))
    index.save(tmp_path / "index")
    assert index.segments == [60]
    index.compact()
    same(index, {i: Sentence(text_of(i)) for i in range(50, 110)}, bm25=True)


def test_compacting_what_is_compact_changes_nothing(tmp_path: Path) -> None:
    index = Index.build(texts(100), EMBEDDER)
    index.save(tmp_path / "index")
    before = stamps(tmp_path / "index")
    index.compact()
    index.save(tmp_path / "index")
    kept = {n: s for n, s in stamps(tmp_path / "index").items() if n in before and n != "index.json"}
    assert kept == {n: s for n, s in before.items() if n not in ("index.json", "postings-1.json")}


def test_an_index_emptied_and_filled_again(tmp_path: Path) -> None:
    index = Index.build(texts(100), EMBEDDER, factory="IVF2,Flat")
    index.save(tmp_path / "index")
    index.remove(range(100))
    index.compact()
    index.save(tmp_path / "index")
    index = Index.load(tmp_path / "index", embedder=EMBEDDER)
    assert (len(index), index.search("天地"), index.segments) == (0, [], [0])
    assert index.add(texts(100, 300)) == list(range(100, 300))
    index.save(tmp_path / "index")
    opened = Index.load(tmp_path / "index", embedder=EMBEDDER)
    # The cells are the first segment's, and hold what was added.
    assert opened.segments == [200]
    assert opened.factory == "IVF2,Flat"
    assert [hits[0].id for hits in opened.search_batch(texts(100, 300, 9), 1)] == list(range(100, 300, 9))


def test_a_folder_copied_and_changed_on_both_sides(tmp_path: Path) -> None:
    """Postings have the same names in both; saved from one to the other, each stays whole."""
    one, other = tmp_path / "one", tmp_path / "other"
    Index.build(texts(100), EMBEDDER).save(one)
    shutil.copytree(one, other)
    looking = Index.load(other, embedder=EMBEDDER)
    index = Index.load(one, embedder=EMBEDDER)
    index.add(texts(100, 120))
    index.save(other)
    assert len(looking.search_batch(QUERIES, 3)) == len(QUERIES)
    assert len(Index.load(one, embedder=EMBEDDER)) == 100
    assert len(Index.load(other, embedder=EMBEDDER, verify=True)) == 120
    # From now on it is the other folder's.
    shutil.rmtree(one)
    index.add(texts(120, 130))
    index.save(other)
    assert len(Index.load(other, embedder=EMBEDDER)) == 130
    assert index.find(text_of(5)) == 5


# --- aliases, vectors, upsert, parameters -------------------------------------------------------------------------


def test_a_sentence_is_found_by_its_aliases(tmp_path: Path) -> None:
    poem = Sentence("牀前明月光", "靜夜思", 1, ("moonlight before my bed", "李白想家的時候", "思鄉的詩"))
    index = Index.build([*texts(50), poem, *texts(50, 80)], EMBEDDER)
    index.save(tmp_path / "index")
    for each in (index, Index.load(tmp_path / "index", embedder=EMBEDDER)):
        for alias in (*poem.aliases, poem.text):
            hits = each.search(alias, 5, by="meaning")
            assert hits[0].id == 50
            assert hits[0].dense == pytest.approx(1.0, abs=1e-5)
            assert len({hit.id for hit in hits}) == len(hits) == 5
        assert each[50] == poem
        assert each.find("思鄉的詩") is None
        # An alias says nothing of how a reading looks.
        assert each.search("牀前明目光", 1)[0].edit == pytest.approx(0.8)
    index.remove([50])
    index.compact()
    index.save(tmp_path / "index")
    for each in (index, Index.load(tmp_path / "index", embedder=EMBEDDER)):
        for alias in (*poem.aliases, poem.text):
            assert 50 not in {hit.id for hit in each.search(alias, 80, by="meaning")}
    assert len(index._store.base) == len(index) == 80


def test_other_aliases_are_a_change() -> None:
    index = Index.build([Sentence("一句", aliases=("舊的別名",)), *texts(20)], EMBEDDER)
    assert index.upsert({0: Sentence("一句", aliases=("舊的別名",))}) == []
    assert index.upsert({0: Sentence("一句", aliases=("新的問法", "", "新的問法"))}) == [0]
    assert index[0].aliases == ("新的問法",)
    assert index.search("新的問法", 1, by="meaning")[0].id == 0
    assert index.search("舊的別名", 1, by="meaning")[0].dense != pytest.approx(1.0, abs=1e-3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat"])
def test_vectors_given_equal_vectors_made(factory: str) -> None:
    given = [Sentence(text, aliases=(text[::-1], "別名")[: i % 3]) for i, text in enumerate(texts(200))]
    # What is passed over has its row too.
    given += [given[3], Sentence(""), Sentence("末了")]
    every = [text for s in given for text in (s.text, *s.aliases)]
    vectors = EMBEDDER.embed([text or "x" for text in every])
    embedder = HashingEmbedder()
    one = Index.build(given, embedder, factory=factory, vectors=vectors)
    other = Index.build(given, EMBEDDER, factory=factory)
    assert embedder.texts == 0
    assert one.search_batch(QUERIES, 5, by="meaning") == other.search_batch(QUERIES, 5, by="meaning")
    for wrong in (vectors[:-1], np.concatenate([vectors, vectors[:1]]), vectors[:, :5], vectors[0]):
        with pytest.raises(ValueError, match="vectors"):
            Index.build(given, EMBEDDER, factory=factory, vectors=wrong)
    changed: dict[int, Sentence | str] = {0: "換了的一句", 500: given[7]}
    rows = EMBEDDER.embed(["換了的一句", given[7].text, *given[7].aliases])
    assert one.upsert(changed, vectors=rows) == other.upsert(changed) == [0, 500]
    assert one.search_batch(QUERIES, 5, by="meaning") == other.search_batch(QUERIES, 5, by="meaning")
    with pytest.raises(ValueError, match="one for each"):
        one.upsert({1: "x"}, vectors=rows)


def test_an_upsert_that_fails_changes_nothing(tmp_path: Path) -> None:
    index = Index.build(texts(20), EMBEDDER)

    class Failing(HashingEmbedder):
        def embed(self, texts: object, *, progress: bool = False) -> np.ndarray:
            raise RuntimeError("out of memory")

    wrongs: list[dict[int, Sentence | str]] = [
        {0: "好", -1: "壞"}, {0: "好", 1: " "}, {0: "好", 2**62: "遠"}, {0: "好", 10**30: "遠"},
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(ValueError, match="an id from 0"):
            index.upsert(wrong)
    index._given = Failing()
    with pytest.raises(RuntimeError, match="out of memory"):
        index.upsert({0: "好", 30: "新"})
    index._given = EMBEDDER
    same(index, dict(enumerate(map(Sentence, texts(20)))))
    with pytest.raises(KeyError):
        index.remove([0, 10**30])
    assert 10**30 not in index
    assert index.upsert({2**62 - 1: "遠方"}) == [2**62 - 1]
    index.save(tmp_path / "index")
    assert Index.load(tmp_path / "index", embedder=EMBEDDER)[2**62 - 1].text == "遠方"


@pytest.mark.filterwarnings("ignore")
def test_upsert_into_an_index_that_wants_training() -> None:
    index = Index(EMBEDDER, factory="IVF4,Flat")
    with pytest.raises(ValueError, match="can't be trained on 2 sentences"):
        index.upsert({0: "一", 1: "二"})
    assert len(index) == 0
    assert index.upsert(dict(enumerate(texts(200)))) == list(range(200))
    assert index.search(text_of(7), 1)[0].id == 7


@pytest.mark.filterwarnings("ignore")
def test_parameters_are_kept_on_disk(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    index = Index.build(texts(500), EMBEDDER, factory="IVF64,Flat")
    index.save(folder)
    before = stamps(folder)
    queries = EMBEDDER.embed(QUERIES)

    def cosines(each: Index) -> float:
        return sum(max(row.values()) for row in each._store.dense(queries, 1))

    usual = cosines(index)
    index.parameters = "nprobe=64"
    best = cosines(index)
    assert best > usual
    index.save(folder)
    # No vector was written for it.
    assert stamps(folder)["vectors-1-0.faiss"] == before["vectors-1-0.faiss"]
    for change in (lambda _: None, lambda opened: opened.remove([0]), Index.compact):
        opened = Index.load(folder, embedder=EMBEDDER)
        assert opened.parameters == "nprobe=64"
        change(opened)
        assert cosines(opened) == pytest.approx(best, abs=0.05)
        opened.save(folder)
    opened.parameters = ""
    assert cosines(opened) == pytest.approx(usual, abs=0.5)
    assert cosines(opened) < best
    for wrong in ("efSearch=3", "nprobe=0", "nonsense"):
        with pytest.raises(ValueError, match="search parameters"):
            opened.parameters = wrong
    assert opened.parameters == ""


# --- readers at a writer's side -----------------------------------------------------------------------------------


def test_a_reader_keeps_its_state_until_it_looks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_SMALL", 20)
    folder = tmp_path / "index"
    index = Index.build(texts(100), EMBEDDER)
    assert not index.refresh()
    index.save(folder)
    reader = Index.load(folder, embedder=EMBEDDER)

    def state(each: Index) -> tuple[list[Sentence], list[list[Hit]], int]:
        return [each[i] for i in each], each.search_batch(QUERIES, 5), each.frequency("天")

    for change in (
        lambda: index.add(texts(100, 110)), lambda: index.remove([0, 7]), lambda: index.upsert({3: "換了", 200: "新"}),
        lambda: index.add(texts(300, 340)), index.compact, lambda: index.remove(range(50, 60)),
    ):  # fmt: skip
        before = state(reader)
        change()
        assert not reader.refresh()
        index.save(folder)
        assert state(reader) == before
        with pytest.raises(IndexFolderError, match="open it again and repeat the change"):
            reader.add(["讀者的一句"])
        assert reader.refresh()
        assert not reader.refresh()
        assert state(reader)[0] == state(index)[0]
        assert [[hit.id for hit in hits] for hits in state(reader)[1]] == [
            [hit.id for hit in hits] for hits in state(index)[1]
        ]
        assert list(reader) == list(Index.load(folder, embedder=EMBEDDER))


CHILD = """
import random, sys, time
from pathlib import Path
from hashing_embedder import HashingEmbedder
from caprag.errors import IndexFolderError
from caprag.retrieval import Index, store

store._SMALL, store._MOST_SEGMENTS = 30, 3
embedder, folder, role, seconds = HashingEmbedder(8), sys.argv[1], sys.argv[2], float(sys.argv[3])

def batch(number):
    return [f"批{number} 句{i} 字{(number * 31 + i * 17) % 997}" for i in range(10)]
"""
WRITES = """
generator, index = random.Random(0), Index.load(folder, embedder=embedder)
stop, number, saves = time.monotonic() + seconds, 1, 0
while time.monotonic() < stop:
    action = generator.choice(["add", "add", "upsert", "remove", "compact", "load"])
    if action == "add" or len(index) < 30:
        index.add(batch(number))
        number += 1
    elif action == "upsert":
        # A whole batch under the ids of another.
        first = generator.randrange(len(index) // 10) * 10
        index.upsert(dict(zip(list(index)[first:first + 10], batch(number))))
        number += 1
    elif action == "remove":
        first = generator.randrange(len(index) // 10) * 10
        index.remove(list(index)[first:first + 10])
    elif action == "compact":
        index.compact()
    else:
        index = Index.load(folder, embedder=embedder)
    index.save(folder)
    saves += 1
print(saves)
"""
READS = """
stop, opened, seen = time.monotonic() + seconds, 0, set()
kept = Index.load(folder, embedder=embedder)
while time.monotonic() < stop:
    for index in (Index.load(folder, embedder=embedder), kept):
        if index is kept:
            kept.refresh()
        texts = [index[i].text for i in index]
        # Whole batches, each once, and all that is there is found.
        numbers = {int(text.split()[0][1:]) for text in texts}
        assert sorted(texts) == sorted(t for n in numbers for t in batch(n)), sorted(texts)
        hits = index.search_batch(texts[::23], 1)
        assert [h[0].text for h in hits] == texts[::23], (texts[::23], hits)
        opened += 1
    seen.add(tuple(sorted(numbers)))
print(opened, len(seen))
"""


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    path = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parent.parent}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", CHILD + code, *map(str, arguments)]
    return subprocess.Popen(command, env=path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_writer_and_readers_at_once(tmp_path: Path) -> None:
    """A writer changes and saves without a pause, readers open without a pause: no error, and always a whole state."""
    folder = tmp_path / "index"
    Index.build([f"批0 句{i} 字{i * 17 % 997}" for i in range(10)], HashingEmbedder(8)).save(folder)
    processes = [child(WRITES, folder, "write", 6), *(child(READS, folder, "read", 6) for _ in range(3))]
    results = [process.communicate(timeout=120) for process in processes]
    assert [(process.returncode, err) for process, (_, err) in zip(processes, results, strict=True)] == [(0, "")] * 4
    assert int(results[0][0]) > 5
    for out, _ in results[1:]:
        opened, states = map(int, out.split())
        assert opened > states > 2


KILLED = """
import os, signal

def forked(work):
    # What a child prints, and whether it was killed. Nothing of an index is ever opened in the parent.
    out, into = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(out)
            work(lambda line: os.write(into, f"{line}\\n".encode()))
            status = 0
        finally:
            os._exit(status)
    os.close(into)
    return child, os.fdopen(out)

def add(tell):
    index = Index.load(folder, embedder=embedder)
    for number in range((len(index) - 1) // 200, 50):
        assert len(index.add(f"批{number} 句{i}" for i in range(200))) == 200
        index.save(folder)
        tell(number)

def look(tell):
    index = Index.load(folder, embedder=embedder, verify=True)
    count, rest = divmod(len(index) - 1, 200)
    there = [index[i].text for i in index]
    assert rest == 0 and there == ["開頭", *(f"批{n} 句{i}" for n in range(count) for i in range(200))]
    asked = there[::max(1, len(there) // 5)]
    assert [hits[0].text for hits in index.search_batch(asked, 1)] == asked
    tell(count)

generator, accepted, kills = random.Random(0), 0, 0
while accepted < 50:
    # Now and then at once, now and then after a batch or two; after so many kills it comes to its end.
    wanted = generator.randint(0, 2) if kills < 25 else 1000
    child, lines = forked(add)
    for place in range(wanted):
        line = lines.readline()
        if not line:
            break
        accepted = int(line) + 1
    else:
        time.sleep(generator.uniform(0, 0.08))
        os.kill(child, signal.SIGKILL)
    with lines:
        rest = [int(line) + 1 for line in lines]
    accepted = max([accepted, *rest])
    kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    child, lines = forked(look)
    with lines:
        (count,) = map(int, lines)
    assert os.waitpid(child, 0)[1] == 0
    # Not less than it was told of; one batch more, where it was killed before it could tell.
    assert accepted <= count <= accepted + 1, (accepted, count)
    accepted = count
print(kills)
"""


def test_ten_thousand_sentences_and_many_kills(tmp_path: Path) -> None:
    """Fifty batches of two hundred; whenever it is killed, whole batches are there, and all that were accepted."""
    folder = tmp_path / "index"
    Index.build(["開頭"], HashingEmbedder(8)).save(folder)
    out, err = child(KILLED, folder, "killed", 0).communicate(timeout=300)
    assert err == ""
    assert int(out) >= 20
    index = Index.load(folder, embedder=HashingEmbedder(8))
    assert len(index) == 10_001
    assert index.find("批49 句199") == 10_000
    names = {re.sub(r"\d+", "N", path.name) for path in folder.iterdir()}
    assert names <= {"index.json", "lexical", "sentences-N-N.arrow", "vectors-N-N.faiss", "postings-N.json"}


OPENS = """
def resident():
    fields = Path("/proc/self/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) * 1024

class Wide(HashingEmbedder):
    def __init__(self):
        super().__init__(256)

Index.load(sys.argv[4], embedder=Wide()).search("批0")
before = resident()
index = Index.load(folder, embedder=Wide())
opened = resident() - before
assert len(index) == 60_000
assert index[59_999].text == "句59999"
looked = resident() - before
index.search_batch(["句777 字"], 1)
print(opened, looked, resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc")
def test_opening_does_not_read_the_whole(tmp_path: Path) -> None:
    """60 MB of vectors and as much of postings; a search reads all vectors, opening none."""
    folder, small = tmp_path / "index", tmp_path / "small"
    embedder = HashingEmbedder(256)
    vectors = np.random.default_rng(0).standard_normal((60_000, 256)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = Index.build((f"句{i}" for i in range(60_000)), embedder, vectors=vectors)
    index.save(folder)
    Index.build(["批0"], embedder).save(small)
    assert vectors.nbytes > 60_000_000
    process = child(OPENS, folder, "open", 0, small)
    out, err = process.communicate(timeout=120)
    assert err == ""
    opened, looked, searched = map(int, out.split())
    assert opened <= looked < 20_000_000
    # The measure is not blind.
    assert searched > vectors.nbytes * 0.9


# --- found in review ----------------------------------------------------------------------------------------------


def test_saving_elsewhere_does_not_hide_another_writer(tmp_path: Path) -> None:
    Index.build(texts(20), EMBEDDER).save(tmp_path / "a")
    one, other = (Index.load(tmp_path / "a", embedder=EMBEDDER) for _ in range(2))
    one.save(tmp_path / "copy")
    other.add(["另一個寫的句子"])
    other.save(tmp_path / "a")
    with pytest.raises(IndexFolderError, match="was changed since it was opened"):
        one.save(tmp_path / "a")
    assert Index.load(tmp_path / "a", embedder=EMBEDDER).find("另一個寫的句子") is not None


def test_a_change_that_failed_half_way_never_replaces_a_good_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    Index.build(texts(20), EMBEDDER).save(folder)
    index = Index.load(folder, embedder=EMBEDDER)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("caprag.retrieval.lexical.LexicalIndex._commit", full)
        with pytest.raises(OSError, match="No space"):
            index.add(texts(20, 40))
    assert len(index) == 20
    with monkeypatch.context() as patch:
        patch.setattr("caprag.retrieval.vectors.VectorIndex.add", full)
        with pytest.raises(OSError, match="No space"):
            index.add(texts(40, 60))
    with pytest.raises(IndexFolderError, match="a change was interrupted"):
        index.save(folder)
    assert len(Index.load(folder, embedder=EMBEDDER)) == 20


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW8"])
@pytest.mark.filterwarnings("ignore")
def test_an_index_whose_folder_is_gone_is_saved(tmp_path: Path, factory: str) -> None:
    expected = dict(enumerate(map(Sentence, texts(300))))
    built = Index.build(expected.values(), EMBEDDER, factory=factory)
    built.remove([7])
    del expected[7]
    built.save(tmp_path / "a")
    hits = built.search_batch(QUERIES, 5, by="meaning")
    one, other = (Index.load(tmp_path / "a", embedder=EMBEDDER) for _ in range(2))
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(IndexFolderError, match="a: is gone since it was opened; save the index, and then change it"):
        one.add(["新的"])
    one.save(tmp_path / "b")
    # Under the old name too, with a number that no other reader takes for its own.
    other.save(tmp_path / "a")
    with pytest.raises(IndexFolderError, match="was changed since it was opened"):
        built.add(["新的"])
    for index in (one, other, Index.load(tmp_path / "a", embedder=EMBEDDER), Index.load(tmp_path / "b")):
        index._given = EMBEDDER
        assert list(index) == sorted(expected)
        assert [index[i] for i in index] == [expected[i] for i in sorted(expected)]
        found = index.search_batch(QUERIES, 5, by="meaning")
        assert [[hit.dense for hit in row[:1]] for row in found] == [[hit.dense for hit in row[:1]] for row in hits]
    # And it goes on from there.
    assert one.add(["新的一句話"]) == [300]
    one.compact()
    one.save(tmp_path / "b")
    assert Index.load(tmp_path / "b", embedder=EMBEDDER).search("新的一句話", 1)[0].id == 300


@pytest.mark.filterwarnings("ignore")
def test_segments_are_merged_where_the_folder_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_SMALL", 10)
    index = Index.build(texts(100), EMBEDDER, factory="IVF4,Flat")
    index.save(tmp_path / "a")
    index = Index.load(tmp_path / "a", embedder=EMBEDDER)
    index.parameters = "nprobe=4"
    index.add(texts(100, 150))
    shutil.rmtree(tmp_path / "a")
    index.save(tmp_path / "b")
    assert index.segments == [150]
    same(Index.load(tmp_path / "b", embedder=EMBEDDER), dict(enumerate(map(Sentence, texts(150)))))
    assert Index.load(tmp_path / "b").parameters == "nprobe=4"


def test_vectors_that_are_no_unit_vectors_are_refused() -> None:
    given = texts(50)
    good = EMBEDDER.embed(given)
    index = Index.build(given, EMBEDDER, vectors=good.astype(np.float16))
    for row, wrong, words in (
        (3, good[3] * 1.01, "row 3 of the vectors has the length 1.01; rows of length 1 are wanted: divide"),
        (0, good[0] * 0, "row 0 of the vectors has the length 0"),
        (49, np.full(24, np.nan), "row 49 of the vectors holds a number that is not finite"),
        (5, np.full(24, 1e300), "row 5 of the vectors holds a number that is not finite"),
    ):
        vectors = good.astype(np.float64)
        vectors[row] = wrong
        with pytest.raises(ValueError, match=re.escape(words)):
            Index.build(given, EMBEDDER, vectors=vectors)
        with pytest.raises(ValueError, match=re.escape(words)):
            index.add(given, vectors=vectors)
        with pytest.raises(ValueError, match=re.escape(words)):
            index.upsert(dict(enumerate(given)), vectors=vectors)
    assert len(index) == 50


def test_checking_vectors_is_quick() -> None:
    vectors = np.random.default_rng(0).standard_normal((10_000, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    begin = time.perf_counter()
    assert intake.check_vectors(vectors, 128) is vectors
    assert time.perf_counter() - begin < 0.1


def test_frequency_counts_sentences_own_texts(tmp_path: Path) -> None:
    given = [
        Sentence("床前明月光", aliases=("床前的月光明亮", "月下")), Sentence("低頭思故鄉", aliases=("月",)),
        Sentence("月月月"), Sentence("舉頭望明月"),
    ]  # fmt: skip
    index = Index.build(given, EMBEDDER)
    index.remove([3])
    index.save(tmp_path)
    for each in (index, Index.load(tmp_path)):
        assert [each.frequency(gram) for gram in ("月", "明月", "月光", "月下", "故", "月月", "無")] == [
            2,
            1,
            1,
            0,
            1,
            1,
            0,
        ]


def test_texts_are_the_sentences_one_by_one() -> None:
    index = Index.build(texts(100), EMBEDDER)
    index.upsert({500: "遠處", 3: "換了的一句"})
    index.remove([7, 8])
    assert list(index.texts()) == [(i, index[i].text) for i in index]
    assert index.find_batch([index[3].text, "沒有", index[500].text]) == [3, None, 500]
    assert list(Index(EMBEDDER).texts()) == []


def test_aliases_leave_room_for_the_other_sentences() -> None:
    crowded = [Sentence(text, aliases=tuple(f"{text}別名{i}" for i in range(40))) for text in texts(3)]
    index = Index.build([*crowded, *texts(3, 30)], EMBEDDER)
    for by in ("reading", "meaning"):
        hits = index.search_batch([crowded[0].text], 10, by=by, candidates=10)[0]
        assert len({hit.id for hit in hits}) == 10


FORKS = """
import os
index = Index.load(folder, embedder=embedder)
number = os.fork()
if not number:
    sys.exit(0)
os.waitpid(number, 0)
index.add(["孩子走了以後"])
print(index.find("孩子走了以後"))
"""


def test_a_forked_child_leaves_its_parent_s_postings(tmp_path: Path) -> None:
    Index.build(texts(20), HashingEmbedder(8)).save(tmp_path / "index")
    assert child(FORKS, tmp_path / "index", "fork", 0).communicate(timeout=60) == ("20\n", "")
