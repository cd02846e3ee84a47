"""Data sets on disk: any kill is gone on after, other readers open them, and every trouble names file and remedy."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
import pytest

from caprag.errors import SynthesisError
from caprag.paths import locked, replacing
from caprag.synthesis.containers import Container
from caprag.synthesis.output import DatasetWriter
from caprag.synthesis.reading import count_pictures, read_dataset, read_header, read_manifest, read_picture

SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("text", pa.string()),
        ("box", pa.list_(pa.int32())),
        ("style", pa.struct([("size", pa.int32()), ("fill", pa.string())])),
    ]
)
SETTINGS: dict[str, Any] = {"seed": 7, "size": (640, 360), "damage": {"name": "light", "strength": 0.25}}
CONTAINERS: list[Container] = ["folders", "tar"]
SHARD = 7


def payload(number: int) -> bytes:
    """Bytes that stand for a picture: as long and as various as pictures are."""
    return b"\xff\xd8" + random.Random(number).randbytes(300 + number * 37 % 2000) + b"\xff\xd9"


def label(number: int) -> dict[str, Any]:
    if number % 5 == 4:
        return {"text": "", "box": None, "style": None}
    text = f'第{number}句 "😀"\n第二行\t\u2028<image>'
    return {"text": text, "box": (1, 2, 3, number), "style": {"size": number, "fill": "白"}}


def suffix(number: int) -> Any:
    return (".jpg", ".png", ".webp")[number % 3]


def fill(folder: Path, count: int, container: Container = "folders", **options: Any) -> DatasetWriter:
    with DatasetWriter(folder, SETTINGS, SCHEMA, container=container, shard_size=SHARD, **options) as writer:
        for number in range(writer.done, count):
            writer.write(number, payload(number), suffix(number), label(number))
        writer.finish()
    return writer


def tree(folder: Path) -> dict[str, str]:
    """What lies in a folder: name to SHA-256, folders too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(params=CONTAINERS)
def container(request: pytest.FixtureRequest) -> Any:
    return request.param


# --- what lies there ----------------------------------------------------------------------------------------------


def test_folders_are_read_by_others(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.parquet", "pictures", "settings.json"]
    for shard, numbers in enumerate([range(7), range(7, 14), range(14, 20)]):
        folder = tmp_path / "pictures" / f"{shard:05d}"
        lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").split("\n")
        rows = [json.loads(line) for line in lines[:-1]]
        assert lines[-1] == ""
        assert all(next(iter(row)) == "file_name" for row in rows)
        assert [row["number"] for row in rows] == list(numbers)
        assert {path.name for path in folder.iterdir()} == {"metadata.jsonl", *(row["file_name"] for row in rows)}
        for row in rows:
            assert (folder / row["file_name"]).read_bytes() == payload(row["number"])
            assert row["text"] == label(row["number"])["text"]
        # As Hugging Face's imagefolder reads it.
        table = pyarrow.json.read_json(folder / "metadata.jsonl")
        assert table["file_name"].to_pylist() == [row["file_name"] for row in rows]
        assert table["text"].to_pylist() == [row["text"] for row in rows]


def test_tars_are_webdataset_shards(tmp_path: Path) -> None:
    fill(tmp_path, 20, "tar")
    paths = sorted((tmp_path / "pictures").iterdir())
    assert [path.name for path in paths] == ["00000.tar", "00001.tar", "00002.tar"]
    samples: dict[str, dict[str, bytes]] = {}
    order: list[str] = []
    for path in paths:
        with tarfile.open(path) as tar:
            for member in tar:
                assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
                # A sample is what shares the name up to its first dot, and lies together.
                key, _, kind = member.name.partition(".")
                if key not in samples:
                    order.append(key)
                assert key == order[-1]
                stream = tar.extractfile(member)
                assert stream is not None
                samples.setdefault(key, {})[kind] = stream.read()
        # Ended as the format wants it.
        assert path.read_bytes()[-1024:] == bytes(1024)
        assert path.stat().st_size % 512 == 0
    assert order == [f"{number:09d}" for number in range(20)]
    for number, sample in enumerate(samples.values()):
        assert sample[suffix(number)[1:]] == payload(number)
        assert sample["txt"].decode() == label(number)["text"]
        assert json.loads(sample["json"])["text"] == label(number)["text"]
    listed = subprocess.run(["tar", "-tf", paths[2]], capture_output=True, text=True, check=True)
    assert len(listed.stdout.split()) == 18
    assert listed.stderr == ""


def test_the_manifest_has_all_rows(tmp_path: Path, container: Container) -> None:
    fill(tmp_path, 20, container)
    rows = pq.read_table(tmp_path / "manifest.parquet").to_pylist()
    for number, row in enumerate(rows):
        place = f"pictures/{number // SHARD:05d}" + (".tar" if container == "tar" else "")
        made = label(number)
        assert row == {
            "file_name": f"{place}/{number:09d}{suffix(number)}", "number": number, "bytes": len(payload(number)),
            "text": made["text"], "box": made["box"] and list(made["box"]), "style": made["style"],
        }  # fmt: skip
    assert len(rows) == 20
    assert list(read_manifest(tmp_path)) == rows
    assert list(read_manifest(tmp_path, ["text"])) == [{"text": row["text"]} for row in rows]
    with pytest.raises(ValueError, match="no column"):
        list(read_manifest(tmp_path, ["txt"]))


def test_it_is_read_back(tmp_path: Path, container: Container) -> None:
    fill(tmp_path / "資料 集", 20, container)
    read = list(read_dataset(tmp_path / "資料 集"))
    assert [data for _, data in read] == [payload(number) for number in range(20)]
    assert [row["text"] for row, _ in read] == [label(number)["text"] for number in range(20)]
    for number in (0, 6, 7, 19):
        assert read_picture(tmp_path / "資料 集", number) == read[number]
    for number in (20, -1, 10**9):
        with pytest.raises(SynthesisError, match=f"no whole picture {number}"):
            read_picture(tmp_path / "資料 集", number)
    assert count_pictures(tmp_path / "資料 集") == 20
    assert read_header(tmp_path / "資料 集")["settings"] == json.loads(json.dumps(SETTINGS))


@pytest.mark.parametrize("count", [0, 1, SHARD, SHARD + 1])
def test_counts_at_the_edges_of_shards(tmp_path: Path, container: Container, count: int) -> None:
    fill(tmp_path / "a", count, container)
    assert count_pictures(tmp_path / "a") == count == len(list(read_dataset(tmp_path / "a")))
    assert pq.read_table(tmp_path / "a/manifest.parquet").num_rows == count
    # Opening it again writes nothing, making it larger is as making it large at once.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    assert fill(tmp_path / "a", count, container).done == count
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")} == before
    fill(tmp_path / "a", 20, container)
    fill(tmp_path / "b", 20, container)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_an_unfinished_set_is_read(tmp_path: Path, container: Container) -> None:
    fill(tmp_path, 9, container)
    with DatasetWriter(tmp_path, SETTINGS, SCHEMA, container=container, shard_size=SHARD) as writer:
        writer.write(9, payload(9), ".jpg", label(9))
        # The manifest was of nine.
        with pytest.raises(SynthesisError, match=r"manifest\.parquet: is missing; the command"):
            list(read_manifest(tmp_path))
        assert len(list(read_dataset(tmp_path))) == 10


# --- kills --------------------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_output import *
with DatasetWriter(Path(sys.argv[2]), SETTINGS, SCHEMA, container=sys.argv[3], shard_size=31) as writer:
    print(writer.done, flush=True)
    for number in range(writer.done, 300):
        writer.write(number, payload(number) * 9, suffix(number), label(number))
        print(number, flush=True)
    writer.finish()
print("end", flush=True)
"""


def child(folder: Path, container: Container) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(folder), container]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_ten_kills_leave_no_trace(tmp_path: Path, container: Container) -> None:
    rng = random.Random(3)
    with child(tmp_path / "calm", container) as whole:
        assert whole.communicate()[0].split()[-1] == "end"
    reached = []
    for kill in range(10):
        with child(tmp_path / "killed", container) as process:
            assert process.stdout is not None
            reached.append(int(process.stdout.readline()))
            # The last two fall into the writing of the manifest.
            for _ in range(rng.randrange(60) if kill < 8 else 300):
                if process.stdout.readline() == "299\n":
                    break
            time.sleep(rng.random() * 0.003)
            process.send_signal(signal.SIGKILL)
    with child(tmp_path / "killed", container) as last:
        assert last.communicate()[0].split()[-1] == "end"
    assert reached == sorted(reached)
    assert 0 < reached[4] < 300 == reached[9]
    assert tree(tmp_path / "killed") == tree(tmp_path / "calm")


def last_book(folder: Path, container: Container) -> Path:
    return sorted((folder / "pictures").glob("*.tar" if container == "tar" else "*/metadata.jsonl"))[-1]


@pytest.mark.parametrize("count", [SHARD, SHARD + 3])
def test_a_kill_at_any_byte(tmp_path: Path, container: Container, count: int) -> None:
    """Wherever the last write stopped, what is whole stays and the rest is made again."""
    fill(tmp_path / "calm", count, container)
    calm = tree(tmp_path / "calm")
    size = last_book(tmp_path / "calm", container).stat().st_size
    cuts = {0, 1, 511, 512, 513, size - 1025, size - 1024, size - 1023, size - 1, *range(0, size, size // 15)}
    for cut in sorted(cut for cut in cuts if 0 <= cut <= size):
        shutil.copytree(tmp_path / "calm", tmp_path / "cut")
        book = last_book(tmp_path / "cut", container)
        os.truncate(book, cut)
        (tmp_path / "cut/manifest.parquet").unlink()
        with DatasetWriter(tmp_path / "cut", SETTINGS, SCHEMA, container=container, shard_size=SHARD) as writer:
            assert (count - 1) // SHARD * SHARD <= writer.done <= count
            assert len(list(read_dataset(tmp_path / "cut"))) == writer.done
        assert fill(tmp_path / "cut", count, container).done == count
        assert tree(tmp_path / "cut") == calm
        shutil.rmtree(tmp_path / "cut")


def _line(path: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[number] = change(lines[number])
    path.write_bytes(b"\n".join(lines))


FOLDER_DAMAGE: dict[str, tuple[int, Callable[[Path], object]]] = {
    "picture missing": (9, lambda p: (p / "00001/000000009.jpg").unlink()),
    "picture cut": (9, lambda p: os.truncate(p / "00001/000000009.jpg", 17)),
    "picture empty": (0, lambda p: os.truncate(p / "00000/000000000.jpg", 0)),
    "line is no JSON": (10, lambda p: _line(p / "00001/metadata.jsonl", 3, lambda line: line[:-5])),
    "line is zeros": (10, lambda p: _line(p / "00001/metadata.jsonl", 3, lambda line: bytes(len(line)))),
    "line is not UTF-8": (10, lambda p: _line(p / "00001/metadata.jsonl", 3, lambda line: line + b"\xff")),
    "line is nested": (10, lambda p: _line(p / "00001/metadata.jsonl", 3, lambda line: b"[" * 200_000)),
    "line of another": (
        10,
        lambda p: _line(p / "00001/metadata.jsonl", 3, lambda line: line.replace(b'"number": 10', b'"number": 11')),
    ),
    "line leads outside": (
        10,
        lambda p: _line(p / "00001/metadata.jsonl", 3, lambda line: line.replace(b"000000010", b"../../../etc")),
    ),
    "journal missing": (7, lambda p: (p / "00001/metadata.jsonl").unlink()),
    "shard missing": (7, lambda p: shutil.rmtree(p / "00001")),
    "all missing": (0, lambda p: shutil.rmtree(p)),
    "a picture without a line": (20, lambda p: (p / "00002/000000020.webp").write_bytes(b"half")),
    "a shard without a line": (20, lambda p: (p / "00003").mkdir()),
}


def _tear(path: Path, start: int, what: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(start)
        stream.write(what)


def _offset(path: Path, member: str) -> int:
    with tarfile.open(path) as tar:
        return tar.getmember(member).offset


TAR_DAMAGE: dict[str, tuple[int, Callable[[Path], object]]] = {
    "tar cut in the middle": (10, lambda p: os.truncate(p / "00001.tar", _offset(p / "00001.tar", "000000010.json"))),
    "header torn": (10, lambda p: _tear(p / "00001.tar", _offset(p / "00001.tar", "000000010.txt"), b"\xff" * 9)),
    "header empty": (10, lambda p: _tear(p / "00001.tar", _offset(p / "00001.tar", "000000010.json"), bytes(512))),
    "row torn": (10, lambda p: _tear(p / "00001.tar", _offset(p / "00001.tar", "000000010.json") + 512, b"\xff" * 9)),
    "tar empty": (7, lambda p: os.truncate(p / "00001.tar", 0)),
    "tar is none": (7, lambda p: (p / "00001.tar").write_bytes(b"x" * 5000)),
    "tar missing": (7, lambda p: (p / "00001.tar").unlink()),
    "all missing": (0, lambda p: shutil.rmtree(p)),
    "an empty one more": (20, lambda p: (p / "00003.tar").touch()),
    "end of a full tar cut": (20, lambda p: os.truncate(p / "00001.tar", (p / "00001.tar").stat().st_size - 1024)),
    "end of a full tar torn": (20, lambda p: _tear(p / "00000.tar", (p / "00000.tar").stat().st_size - 9, b"\xff" * 9)),
    "something after a full tar": (20, lambda p: _tear(p / "00000.tar", (p / "00000.tar").stat().st_size, b"\xff" * 9)),
}
DAMAGE = [("folders", name) for name in FOLDER_DAMAGE] + [("tar", name) for name in TAR_DAMAGE]


@pytest.mark.parametrize(("container", "name"), DAMAGE)
def test_what_is_damaged_is_made_again(tmp_path: Path, container: Container, name: str) -> None:
    fill(tmp_path, 20, container)
    calm = tree(tmp_path)
    good, damage = (FOLDER_DAMAGE if container == "folders" else TAR_DAMAGE)[name]
    damage(tmp_path / "pictures")
    if good < 20:
        with pytest.raises(SynthesisError, match="makes again what is damaged"):
            list(read_dataset(tmp_path))
    with DatasetWriter(tmp_path, SETTINGS, SCHEMA, container=container, shard_size=SHARD) as writer:
        assert writer.done == good
    fill(tmp_path, 20, container)
    assert tree(tmp_path) == calm


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"x" * 1000])
def test_a_manifest_that_is_gone_or_damaged_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    fill(tmp_path, 20)
    calm = tree(tmp_path)
    path = tmp_path / "manifest.parquet"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(SynthesisError, match=r"manifest\.parquet: .*the command that made the data set finishes it"):
        list(read_manifest(tmp_path))
    fill(tmp_path, 20)
    assert tree(tmp_path) == calm


def test_what_others_put_there_stays(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    for name in ("README.md", "pictures/notes.txt", "pictures/00002/mine.jpg", "pictures/00002/1.jpg"):
        (tmp_path / name).write_text("mine", encoding="utf-8")
    (tmp_path / "pictures/00001/metadata.jsonl").unlink()
    fill(tmp_path, 5)
    for name in ("README.md", "pictures/notes.txt", "pictures/00002/mine.jpg", "pictures/00002/1.jpg"):
        assert (tmp_path / name).read_text(encoding="utf-8") == "mine"


def test_left_over_files_of_a_kill_go(tmp_path: Path) -> None:
    (tmp_path / ".caprag-0123abcd.new").write_text("{")
    fill(tmp_path, 3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["manifest.parquet", "pictures", "settings.json"]


# --- settings and folders -----------------------------------------------------------------------------------------


def test_other_settings_are_named(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    before = tree(tmp_path)
    other: dict[str, Any] = {
        "seed": 8,
        "size": [640, 360],
        "damage": {"name": "light", "strength": 0.5},
        "fonts": ["明體"],
    }
    with pytest.raises(SynthesisError) as caught:
        DatasetWriter(tmp_path, other, pa.schema([("text", pa.int32())]), shard_size=SHARD)
    message = str(caught.value)
    for part in ("seed is 7 there, 8 now", "damage.strength is 0.25 there, 0.5 now", 'fonts is absent there, ["明體"]',
                 "columns.text is", "columns.box is", "choose another folder"):  # fmt: skip
        assert part in message
    assert "size is" not in message
    assert "damage.name" not in message
    with pytest.raises(SynthesisError, match=r'container is "folders" there, "tar" now; shard_size is 7 there, 1000'):
        DatasetWriter(tmp_path, SETTINGS, SCHEMA, container="tar")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 200_000, b'{"format": 1}', b'{"format": 9}', b'{"format": "x"}',
     b'{"format": 1, "container": "zip", "shard_size": 7, "settings": {}}',
     b'{"format": 1, "container": "tar", "shard_size": 0, "settings": {}}'],
)  # fmt: skip
def test_damaged_settings_are_named(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, 3)
    (tmp_path / "settings.json").write_bytes(content)
    before = tree(tmp_path)
    for use in (lambda: fill(tmp_path, 4), lambda: list(read_dataset(tmp_path)), lambda: list(read_manifest(tmp_path))):
        with pytest.raises(SynthesisError, match=r"settings\.json: .*(restore|use the caprag|rights)"):
            use()
    assert tree(tmp_path) == before


def test_a_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "論文.docx").write_text("mine")
    with pytest.raises(SynthesisError, match=r"holds 論文\.docx; choose an empty or a new folder"):
        fill(tmp_path, 1)
    for use in (read_dataset, read_manifest):
        with pytest.raises(SynthesisError, match="is no data set"):
            list(use(tmp_path))
        with pytest.raises(SynthesisError, match="no such data set"):
            list(use(tmp_path / "none"))
    assert [path.name for path in tmp_path.iterdir()] == ["論文.docx"]


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(SynthesisError, match="can't be written"):
            fill(out, 1)


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "大 碟").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "大 碟")
    fill(tmp_path / "link", 9)
    assert (tmp_path / "link").is_symlink()
    assert len(list(read_dataset(tmp_path / "大 碟"))) == 9


def test_two_writers_at_once(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, SETTINGS, SCHEMA), pytest.raises(SynthesisError, match="another writer is at work"):
        DatasetWriter(tmp_path, SETTINGS, SCHEMA)
    DatasetWriter(tmp_path, SETTINGS, SCHEMA).close()


def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    code = """
import os, sys, time, signal
from pathlib import Path
from caprag.paths import locked
with locked(Path(sys.argv[1]), OSError):
    child = os.fork()
    if not child:
        os.close(1)
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    orphan = int(done.stdout)
    try:
        with locked(tmp_path, SynthesisError):
            os.kill(orphan, 0)  # it is still there
    finally:
        os.kill(orphan, signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(SynthesisError, match="can't be written"):
            fill(tmp_path, 1)
    finally:
        tmp_path.chmod(0o755)


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="container is 'zip'"):
        DatasetWriter(tmp_path, {}, SCHEMA, container="zip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shard_size is 0"):
        DatasetWriter(tmp_path, {}, SCHEMA, shard_size=0)
    for settings, kind in (({"path": tmp_path}, TypeError), ({"share": float("nan")}, ValueError)):
        with pytest.raises(kind):
            DatasetWriter(tmp_path, settings, SCHEMA)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    row = label(0)
    with DatasetWriter(tmp_path, {}, SCHEMA) as writer:
        for bad in ({**row, "box": "left"}, {**row, "text": 3}, {**row, "text": "\ud800"}, {"text": ""},
                    {**row, "box": [0.5]}, {**row, "more": 1}, {**row, "style": {"size": tmp_path}},
                    {**row, "style": {"sise": 3}}, {**row, "style": {"size": 3.5}}):  # fmt: skip
            with pytest.raises(ValueError, match="picture 0: its row"):
                writer.write(0, b"", ".jpg", bad)
        with pytest.raises(ValueError, match="picture 1 was given, picture 0 is wanted"):
            writer.write(1, b"", ".jpg", row)
        with pytest.raises(ValueError, match=r"suffix is '\.gif'"):
            writer.write(0, b"", ".gif", row)  # type: ignore[arg-type]
        writer.write(0, b"", ".jpg", {**row, "number": 0})
    assert count_pictures(tmp_path) == 1


# --- full disks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", disk], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk(small_disk: Path, tmp_path: Path, container: Container) -> None:
    fill(tmp_path / "calm", 60, container)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(80 * 1024))
    done = 0
    for attempt in range(3):
        with pytest.raises(SynthesisError, match=r"No space left on device.*free some space") as caught:
            fill(small_disk / "set", 60, container)
        assert str(caught.value).startswith(str(small_disk / "set"))
        if attempt:
            assert f"{done} pictures are safe" in str(caught.value)
        done = count_pictures(small_disk / "set")
        assert 0 < done < 60
        assert [data for _, data in read_dataset(small_disk / "set")] == [payload(number) for number in range(done)]
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    fill(small_disk / "set", 60, container)
    assert tree(small_disk / "set") == tree(tmp_path / "calm")


def test_a_disk_full_for_the_manifest(small_disk: Path) -> None:
    with DatasetWriter(small_disk / "set", SETTINGS, SCHEMA, container="tar") as writer:
        for number in range(20):
            writer.write(number, payload(number), ".jpg", label(number))
        space = os.statvfs(small_disk)
        with (small_disk / "ballast").open("wb") as stream:
            stream.write(bytes(space.f_bavail * space.f_bsize))
        with pytest.raises(SynthesisError, match=r"manifest\.parquet: can't be written .*20 pictures are safe"):
            writer.finish()
        (small_disk / "ballast").unlink()
        assert pq.read_table(writer.finish()).num_rows == 20


def test_a_file_that_may_not_grow(tmp_path: Path, container: Container) -> None:
    code = f"""
import resource, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_output import *
resource.setrlimit(resource.RLIMIT_FSIZE, (700, -1))
try:
    fill(Path(sys.argv[1]), 20, sys.argv[2])
except SynthesisError as error:
    print(error)
"""
    assert resource.RLIM_INFINITY == -1
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "set", container], capture_output=True, text=True, check=True
    )
    assert "File too large" in done.stdout
    safe = count_pictures(tmp_path / "set")
    assert f"{safe} pictures are safe" in done.stdout
    assert safe < 20
    fill(tmp_path / "set", 20, container)
    fill(tmp_path / "calm", 20, container)
    assert tree(tmp_path / "set") == tree(tmp_path / "calm")


def test_replacing_keeps_the_old_file_where_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyError), replacing(path) as stream:
        raise KeyError(stream.write(b"new"))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "old")]
    (tmp_path / "link").symlink_to(path)
    with replacing(tmp_path / "link") as stream:
        stream.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert path.read_text() == "new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="no file"), replacing(tmp_path / "folder"):
        pass
