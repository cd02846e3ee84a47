"""Index folders: every damage is named with its remedy, and a killed writer leaves the last good state."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import save_tiny_encoder

from caprag import Index, load_embedder
from caprag.errors import IndexFolderError
from caprag.retrieval import storage
from caprag.retrieval.embedder import SentenceEmbedder

OLD = [f"舊的第{i}句" for i in range(30)]
NEW = [f"新的第{i}句話" for i in range(40)]


@pytest.fixture(scope="module")
def good(tiny_embedder: SentenceEmbedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "index"
    Index.build(OLD, tiny_embedder).save(folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "index"))


def contents(folder: Path) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return stored


def rewrite(folder: Path, **changes: object) -> None:
    (folder / "index.json").write_text(json.dumps({**contents(folder), **changes}), encoding="utf-8")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- what lies there ----------------------------------------------------------------------------------------------


def test_the_table_of_contents_says_the_truth(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    import hashlib

    stored = contents(folder)
    assert stored["format"] == storage.FORMAT
    assert stored["embedder"] == {
        "name": tiny_embedder.name, "fingerprint": tiny_embedder.fingerprint, "dimension": 24,
    }  # fmt: skip
    assert (stored["factory"], stored["count"], stored["next_id"]) == ("Flat", len(OLD), len(OLD))
    on_disk = snapshot(folder)
    assert stored["files"].keys() == on_disk.keys() - {"index.json"}
    assert stored["segments"] == [
        {"sentences": "sentences-1-0.arrow", "vectors": "vectors-1-0.faiss", "removed": "", "factory": "Flat"}
    ]
    assert stored["postings"]["meta"] == "postings-1.json"
    for name, file in stored["files"].items():
        digest = hashlib.blake2b(on_disk[name], digest_size=16).hexdigest()
        assert file == {"size": len(on_disk[name]), "checksum": digest}


def test_the_parts_are_of_the_formats_promised(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    """FAISS's and Arrow's own readers open them; nothing is a pickle."""
    import faiss
    import pyarrow as pa

    (parts,) = contents(folder)["segments"]
    vectors = faiss.read_index(str(folder / parts["vectors"]))
    assert (vectors.ntotal, vectors.d) == (len(OLD), 24)
    np.testing.assert_allclose(vectors.reconstruct(3), tiny_embedder.embed([OLD[3]])[0], atol=1e-5)
    table = pa.ipc.open_file(str(folder / parts["sentences"])).read_all()
    assert table["text"].to_pylist() == OLD
    assert table["id"].to_pylist() == list(range(len(OLD)))


def test_it_loads_without_naming_the_embedder(folder: Path) -> None:
    index = Index.load(folder)
    assert [hit.text for hit in index.search(OLD[4], k=1)] == [OLD[4]]


def test_a_copy_and_a_moved_folder_load(folder: Path, tmp_path: Path, tiny_embedder: SentenceEmbedder) -> None:
    moved = folder.rename(tmp_path / "anderswo 索引")
    assert len(Index.load(str(moved), embedder=tiny_embedder)) == len(OLD)


def test_loading_changes_nothing_on_disk(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    before = snapshot(folder)
    index = Index.load(folder, embedder=tiny_embedder)
    index.search_batch(OLD)
    index.add(NEW)
    index.remove([0, 1])
    index.search_batch(NEW)
    assert snapshot(folder) == before


def test_unknown_files_beside_an_index_stay(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    (folder / "README.md").write_text("mine", encoding="utf-8")
    (folder / "sentences-mine.arrow").write_text("mine", encoding="utf-8")
    (folder / "lexical-notes").mkdir()
    index = Index.load(folder, embedder=tiny_embedder)
    index.add(NEW)
    index.save(folder)
    assert (folder / "README.md").read_text(encoding="utf-8") == "mine"
    assert (folder / "sentences-mine.arrow").exists()
    assert (folder / "lexical-notes").is_dir()


# --- saving -------------------------------------------------------------------------------------------------------


def test_saving_over_itself(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    index = Index.load(folder, embedder=tiny_embedder)
    for round_ in range(3):
        index.add([f"第{round_}輪", *NEW[round_ * 10 : round_ * 10 + 10]])
        index.remove([round_])
        index.save(folder)
        opened = Index.load(folder, embedder=tiny_embedder)
        assert [opened[i] for i in opened] == [index[i] for i in index]
        queries = [*OLD, *NEW]
        assert opened.search_batch(queries, k=5) == index.search_batch(queries, k=5)
        # Only what the last save names lies there.
        assert snapshot(folder).keys() == {"index.json", *contents(folder)["files"]}
        assert contents(folder)["generation"] == round_ + 2


def test_a_reader_of_the_old_save_goes_on(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    reader = Index.load(folder, embedder=tiny_embedder)
    expected = reader.search_batch(OLD, k=3)
    Index.build(NEW, tiny_embedder).save(folder)
    assert reader.search_batch(OLD, k=3) == expected
    assert [hit.text for hit in Index.load(folder, embedder=tiny_embedder).search(NEW[0], k=1)] == NEW[:1]


def test_saving_elsewhere_leaves_the_first_alone(folder: Path, tmp_path: Path, tiny_embedder: SentenceEmbedder) -> None:
    before = snapshot(folder)
    index = Index.load(folder, embedder=tiny_embedder)
    index.add(NEW)
    index.save(tmp_path / "a" / "b")
    assert snapshot(folder) == before
    shutil.rmtree(folder)
    assert len(Index.load(tmp_path / "a" / "b", embedder=tiny_embedder)) == len(OLD) + len(NEW)


@pytest.mark.parametrize("name", ["thesis.docx", "vectors.faiss", "sentences-final.arrow", "lexical-x"])
def test_other_files_in_the_folder_are_left_alone(tmp_path: Path, tiny_embedder: SentenceEmbedder, name: str) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / name).write_text("mine", encoding="utf-8")
    for sentences in (OLD, NEW):
        Index.build(sentences, tiny_embedder).save(target)
        assert (target / name).read_text(encoding="utf-8") == "mine"
        assert len(Index.load(target, embedder=tiny_embedder)) == len(sentences)


def test_the_table_of_contents_of_something_else_is_not_replaced(
    tmp_path: Path, tiny_embedder: SentenceEmbedder
) -> None:
    (tmp_path / "index.json").write_text('{"name": "a web site"}', encoding="utf-8")
    before = snapshot(tmp_path)
    with pytest.raises(IndexFolderError, match="choose another folder"):
        Index.build(OLD, tiny_embedder).save(tmp_path)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("content", ["", "{", '{"format": 99}', "null", "[" * 100_000])
def test_a_damaged_index_can_be_built_again(folder: Path, tiny_embedder: SentenceEmbedder, content: str) -> None:
    (folder / "index.json").write_text(content, encoding="utf-8")
    with pytest.raises(IndexFolderError, match="build the index again"):
        Index.load(folder, embedder=tiny_embedder)
    Index.build(NEW, tiny_embedder).save(folder)
    assert len(Index.load(folder, embedder=tiny_embedder)) == len(NEW)


def test_a_change_by_another_writer_is_not_lost(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    one, other = (Index.load(folder, embedder=tiny_embedder) for _ in range(2))
    one.add(NEW[:1])
    one.save(folder)
    before = snapshot(folder)
    with pytest.raises(IndexFolderError, match="open it again"):
        other.add(NEW[1:2])
    with pytest.raises(IndexFolderError, match="open it again"):
        other.save(folder)
    assert snapshot(folder) == before
    one.add(NEW[1:2])
    one.save(folder)
    assert len(Index.load(folder, embedder=tiny_embedder)) == len(OLD) + 2


def test_two_writers_at_once(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    index = Index.load(folder, embedder=tiny_embedder)
    with storage.locked(folder), pytest.raises(IndexFolderError, match="another writer"):
        index.save(folder)
    index.save(folder)
    assert len(Index.load(folder, embedder=tiny_embedder)) == len(OLD)


def test_a_path_that_is_a_file(tmp_path: Path, tiny_embedder: SentenceEmbedder) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(IndexFolderError, match="choose another folder"):
            Index.build(OLD, tiny_embedder).save(target)
        with pytest.raises(IndexFolderError, match="no such index folder"):
            Index.load(target)


AS_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everywhere")


@AS_ROOT
def test_a_read_only_folder_opens_and_is_not_written(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        index = Index.load(folder, embedder=tiny_embedder)
        index.add(NEW)
        assert index.search(NEW[0], k=1)[0].text == NEW[0]
        with pytest.raises(IndexFolderError, match="can't be written"):
            index.save(folder)
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@AS_ROOT
def test_a_file_that_may_not_be_read(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    next(folder.glob("vectors-*")).chmod(0)
    with pytest.raises(IndexFolderError, match="missing or can't be read"):
        Index.load(folder, embedder=tiny_embedder)


# --- damage -------------------------------------------------------------------------------------------------------

FILES = [
    "vectors-1-0.faiss", "sentences-1-0.arrow", "removed-2-0.npy", "postings-2.json", "lexical/*.store",
    "lexical/*.idx", "lexical/*.del",
]  # fmt: skip


def one(folder: Path, pattern: str) -> Path:
    return sorted(folder.glob(pattern))[0]


@pytest.mark.parametrize("pattern", FILES)
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "longer", "one bit", "folder", "other file"])
def test_a_damaged_file_is_named(folder: Path, tiny_embedder: SentenceEmbedder, pattern: str, damage: str) -> None:
    index = Index.load(folder, embedder=tiny_embedder)
    index.remove([3])
    index.save(folder)
    path = one(folder, pattern)
    content = path.read_bytes()
    # A new file in its place: cutting the one that the index still maps would end the program (SIGBUS).
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(
            {"cut": content[:-1], "empty": b"", "longer": content + b"\0", "one bit": flipped,
             "other file": bytes(len(content))}[damage]
        )  # fmt: skip
    with pytest.raises(IndexFolderError, match="build the index again") as caught:
        Index.load(folder, embedder=tiny_embedder)
    assert str(caught.value).startswith(str(path))


def test_a_large_index_is_read_whole_only_if_asked(
    folder: Path, tiny_embedder: SentenceEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = one(folder, "vectors-*")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    assert sum(p.stat().st_size for p in folder.rglob("*.*")) <= storage.VERIFIED
    for small in (True, False):
        if not small:
            monkeypatch.setattr(storage, "VERIFIED", 1000)
            # Sizes are right, and nothing else is looked at.
            assert len(Index.load(folder, embedder=tiny_embedder)) == len(OLD)
        for verify in (True, None) if small else (True,):
            with pytest.raises(IndexFolderError, match="its content has changed; copy the folder again") as caught:
                Index.load(folder, embedder=tiny_embedder, verify=verify)
            assert str(caught.value).startswith(str(path))
        assert len(Index.load(folder, embedder=tiny_embedder, verify=False)) == len(OLD)
    assert [error.split(":")[0] for error in map(str, storage.damages(folder))] == [str(path)]


def test_every_damage_is_listed(folder: Path) -> None:
    assert storage.damages(folder) == []
    missing, cut, flipped = one(folder, "vectors-*"), one(folder, "sentences-*"), one(folder, "lexical/*.idx")
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:-1])
    flipped.write_bytes(bytes([flipped.read_bytes()[0] ^ 1]) + flipped.read_bytes()[1:])
    found = {str(error).split(":")[0]: str(error) for error in storage.damages(folder)}
    assert found.keys() == {str(missing), str(cut), str(flipped)}
    assert "is missing" in found[str(missing)]
    assert "bytes instead of" in found[str(cut)]
    assert "its content has changed" in found[str(flipped)]
    (folder / "index.json").write_text("{", encoding="utf-8")
    with pytest.raises(IndexFolderError, match="build the index again"):
        storage.damages(folder)


def test_no_folder_and_no_index(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match=r"no such index folder; build one with: caprag index build CORPUS"):
        Index.load(tmp_path / "nothing")
    with pytest.raises(IndexFolderError, match=r"is no index \(index.json is missing\)"):
        Index.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"{", b"[]", b"null", b"3", b'"format"', b"{}", b'{"format": null}', b"[" * 100_000,
     b'{"format": 1}', b"\0" * 100],
)  # fmt: skip
def test_a_table_of_contents_that_is_none(folder: Path, content: bytes) -> None:
    (folder / "index.json").write_bytes(content)
    with pytest.raises(IndexFolderError, match="build the index again"):
        Index.load(folder)


@pytest.mark.parametrize("version", [0, 1, 3, "2", None, [2]])
def test_another_format_number_is_named(folder: Path, version: object) -> None:
    rewrite(folder, format=version)
    with pytest.raises(IndexFolderError, match="this caprag reads 2; build the index again"):
        Index.load(folder)


@pytest.mark.parametrize("name", sorted(storage.Contents.__required_keys__))
@pytest.mark.parametrize("value", [None, -1, "x", [], {}, [{}], {"a": "../../etc/passwd"}, {"a": {"size": 1}}, 10**30])
def test_no_entry_of_the_wrong_kind_gets_through(
    folder: Path, tiny_embedder: SentenceEmbedder, name: str, value: object
) -> None:
    if name == "factory" and isinstance(value, str):
        pytest.skip("a factory is any string")
    if name == "search" and isinstance(value, str):
        value = "nprobe=4"
    if name in ("generation", "next_id") and value == 10**30:
        pytest.skip("any greater number is right")
    rewrite(folder, **{name: value})
    with pytest.raises(IndexFolderError, match="build the index again"):
        Index.load(folder, embedder=tiny_embedder)


def test_a_missing_entry_is_named(folder: Path) -> None:
    stored = contents(folder)
    del stored["factory"], stored["segments"]
    (folder / "index.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(IndexFolderError, match="lacks factory, segments"):
        Index.load(folder)


@pytest.mark.parametrize("outside", ["../secret", "/etc/hostname", "a/../../secret", "", ".", "vectors-1-0.faiss\0"])
def test_files_outside_the_folder_are_never_read(folder: Path, tiny_embedder: SentenceEmbedder, outside: str) -> None:
    (folder.parent / "secret").write_bytes(b"x")
    files = {**contents(folder)["files"], outside: {"size": 1, "checksum": storage.checksum(folder.parent / "secret")}}
    rewrite(folder, files=files)
    with pytest.raises(IndexFolderError, match="build the index again"):
        Index.load(folder, embedder=tiny_embedder)
    stored = contents(folder)
    for changed in (
        {"segments": [{**stored["segments"][0], "vectors": outside}]},
        {"postings": {**stored["postings"], "meta": outside}},
        {"postings": {**stored["postings"], "files": [*stored["postings"]["files"], outside]}},
    ):
        (folder / "index.json").write_text(json.dumps({**stored, **changed}), encoding="utf-8")
        with pytest.raises(IndexFolderError, match="build the index again"):
            Index.load(folder, embedder=tiny_embedder)


def test_a_link_out_of_the_folder_is_not_followed(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    path = one(folder, "vectors-*")
    shutil.move(path, folder.parent / "moved")
    path.symlink_to(folder.parent / "moved")
    with pytest.raises(IndexFolderError, match="outside the folder"):
        Index.load(folder, embedder=tiny_embedder)


def test_parts_of_two_saves_do_not_go_together(folder: Path, tmp_path: Path, tiny_embedder: SentenceEmbedder) -> None:
    """A folder whose checksums are right and whose parts are not of one index."""
    Index.build(NEW, tiny_embedder).save(tmp_path / "other")
    stored, other = contents(folder), contents(tmp_path / "other")
    for part in ("vectors-1-0.faiss", "sentences-1-0.arrow"):
        shutil.copy(tmp_path / "other" / part, folder / part)
        stored["files"][part] = other["files"][part]
    rewrite(folder, files=stored["files"])
    with pytest.raises(IndexFolderError, match=r"its parts hold 40 and 30 sentences and not 30"):
        Index.load(folder, embedder=tiny_embedder)


def test_another_embedder_is_refused(folder: Path, tmp_path: Path, tiny_embedder: SentenceEmbedder) -> None:
    save_tiny_encoder(tmp_path / "other", seed=1)
    other = load_embedder(tmp_path / "other", device="cpu")
    with pytest.raises(IndexFolderError, match="load that one, or build the index again") as caught:
        Index.load(folder, embedder=other)
    assert tiny_embedder.name in str(caught.value)
    assert other.name in str(caught.value)


def test_an_embedder_that_has_gone_is_named(folder: Path) -> None:
    """It is named when it is first needed; what needs none goes on."""
    rewrite(folder, embedder={**contents(folder)["embedder"], "name": "/no/such/embedder"})
    index = Index.load(folder)
    index.remove([0])
    index.save(folder)
    opened = Index.load(folder)
    assert (len(opened), opened[1].text, opened.find(OLD[2])) == (len(OLD) - 1, OLD[1], 2)
    needing: list[Callable[[], object]] = [
        lambda: opened.embedder,
        lambda: opened.search(OLD[4]),
        lambda: opened.add(NEW),
        lambda: opened.upsert({1: "新"}),
    ]
    for use in needing:
        with pytest.raises(IndexFolderError, match=r"its embedder is not to be had.*name it"):
            use()
    assert list(opened) == list(range(1, len(OLD)))


def test_an_embedder_that_has_changed_is_named(folder: Path, tmp_path: Path) -> None:
    save_tiny_encoder(tmp_path / "other", seed=1)
    rewrite(folder, embedder={**contents(folder)["embedder"], "name": str(tmp_path / "other")})
    index = Index.load(folder)
    with pytest.raises(IndexFolderError, match="load that one, or build the index again"):
        index.search(OLD[0])


# --- killed writers -----------------------------------------------------------------------------------------------

WRITER = """
import hashlib, os, signal, sys, threading, time
import numpy as np
from caprag.retrieval.index import Index
from caprag.text import match_form

match_form("")  # what each child would have to set up

class Hashing:
    name, fingerprint, dimension = "hashing", "0", 8
    def embed(self, texts, *, progress=False):
        rows = [np.frombuffer(hashlib.blake2b(t.encode(), digest_size=8).digest(), np.uint8) for t in texts]
        vectors = np.array(rows, np.float32).reshape(-1, 8) - 127.5
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

def change(folder):
    # Old contents to new ones or back, by adding and removing.
    index = Index.load(folder, embedder=Hashing())
    kind = "new" if index.find("old 0") is not None else "old"
    gone = list(index)
    index.add(f"{kind} {i}" for i in range(80 if kind == "new" else 60))
    index.remove(gone)
    return index

def look(folder):
    index = Index.load(folder, embedder=Hashing())
    texts = [index[i].text for i in index]
    kind = texts[0].split()[0]
    assert texts == [f"{kind} {i}" for i in range(80 if kind == "new" else 60)]
    assert all(index.search(text, k=1)[0].text == text for text in texts[::40])
    print(kind, flush=True)

seen = 0

def die_at(step):
    def watch(event, arguments):
        global seen
        if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "shutil.rmtree"):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)

folder = sys.argv[1]
for line in sys.stdin:
    order, number = (*line.split(), "0")[:2]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if order == "build":
                Index.build([f"old {i}" for i in range(60)], Hashing()).save(folder)
            elif order == "look":
                look(folder)
            elif order == "step":
                index = change(folder)
                die_at(int(number))
                index.save(folder)
                print(seen, flush=True)
            elif order == "delay":
                index = change(folder)
                timer = threading.Timer(float(number), os.kill, (os.getpid(), signal.SIGKILL))
                timer.daemon = True
                timer.start()
                index.save(folder)
                while True:
                    index.save(folder)
            status = 0
        except BaseException as error:
            print("failed:", repr(error), flush=True)
        finally:
            os._exit(status)
    print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Writer:
    """A process that forks others, which save and are killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def order(self, line: str) -> tuple[list[str], int]:
        """Return what the child printed and how it ended (-9 = killed)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        printed: list[str] = []
        while answer := self.process.stdout.readline().split():
            if answer[0] == "status":
                return printed, int(answer[1])
            printed += answer
        raise AssertionError("the writer is gone")

    def look(self) -> str:
        printed, status = self.order("look")
        assert status == 0, printed
        return printed[0]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path / "index")
    with made.process:
        assert made.order("build") == ([], 0)
        yield made


def test_killed_at_any_step_it_loads_with_old_or_new_contents(writer: Writer) -> None:
    """SIGKILL before one file operation of a save; the save after it clears up."""
    before = writer.look()
    printed, status = writer.order("step 0")
    assert status == 0
    operations = int(printed[0])
    assert operations > 40
    after = writer.look()
    assert after != before
    before = after
    # All steps around the one at which the contents change, and a sample of those before. Clearing up after a killed
    # save takes steps too: go on until a save comes to its end.
    outcomes = []
    for step in [*range(1, operations - 12, 9), *range(operations - 12, 2 * operations)]:
        _, status = writer.order(f"step {step}")
        now = writer.look()
        if status == 0:
            break
        assert status == -signal.SIGKILL
        outcomes.append(now != before)
        before = now
    # Early steps leave the old contents, late ones the new.
    assert outcomes == sorted(outcomes)
    assert status == 0
    assert any(outcomes)
    assert writer.order("step 0")[1] == 0
    # Nothing is left of all those that were killed.
    assert snapshot(writer.folder).keys() == {"index.json", *contents(writer.folder)["files"]}


def test_killed_at_random_moments_it_loads(writer: Writer) -> None:
    generator = random.Random(0)
    seen = set()
    for _ in range(6):
        _, status = writer.order(f"delay {generator.uniform(0, 0.1)}")
        assert status == -signal.SIGKILL
        seen.add(writer.look())
    assert seen <= {"old", "new"}


def test_leftovers_of_a_killed_writer_are_cleared(folder: Path, tiny_embedder: SentenceEmbedder) -> None:
    # Those of the format before, too.
    (folder / "lexical-2").mkdir()
    left = ["vectors-2.faiss", "vectors-2-0.faiss", "removed-2-1.npy", "postings-2.json", "index.json.new",
            "lexical-2/meta.json", f"lexical/{'0' * 32}.store", f"lexical/{'0' * 32}.idx.new"]  # fmt: skip
    for name in left:
        (folder / name).write_bytes(b"half")
    assert len(Index.load(folder, embedder=tiny_embedder)) == len(OLD)
    Index.build(NEW, tiny_embedder).save(folder)
    assert len(Index.load(folder, embedder=tiny_embedder)) == len(NEW)
    assert not any((folder / name).exists() for name in left)
    assert not (folder / "lexical-2").exists()
