"""Where the pictures of a data set lie: in folders with a journal each, or in WebDataset tars.

Each keeps its own books: what is there is the longest run of whole pictures from number 0 on, read off the disk.
Knows nothing of settings, manifests and what is in a picture or its row.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from caprag.errors import SynthesisError
from caprag.synthesis.appending import Appender

Container = Literal["folders", "tar"]
"""Folders of pictures, each with a ``metadata.jsonl``; or tars of picture, ``.json`` and ``.txt``."""

Row = dict[str, Any]
"""What is known of a picture, as JSON takes it."""

Suffix = Literal[".jpg", ".png", ".webp"]

AGAIN = "the command that made the data set makes again what is damaged"
"""The remedy for all that is missing or not as it was written."""

JOURNAL = "metadata.jsonl"
_PICTURE = re.compile(r"(\d{9,})\.(?:jpg|png|webp)")
_SHARD = re.compile(r"(\d{5,})(\.tar)?")
_BLOCK = 512
# Two empty blocks end a tar.
_END = bytes(2 * _BLOCK)


class Shards(Protocol):
    """Pictures in shards of equal size, the last one excepted."""

    def take_up(self) -> int:
        """Cut off what is not whole, delete what comes after, and return how many pictures are left."""
        ...

    def append(self, number: int, data: bytes, suffix: Suffix, row: Row) -> None:
        """Add the next picture and its row; where that fails with an OSError, neither is there."""
        ...

    def finish(self) -> None:
        """See all to the disk."""
        ...

    def close(self) -> None:
        """Let go of open files."""
        ...

    def read(self, shard: int) -> Iterator[tuple[Row, bytes]]:
        """Read the whole pictures of a shard and their rows, in order; none where there is no such shard."""
        ...

    def rows(self, shard: int) -> Iterator[Row]:
        """Read the rows of a shard's whole pictures, in order, without the pictures where that is cheaper."""
        ...

    def place(self, row: Row) -> str:
        """Return where a picture lies, as a path from the data set's folder with ``/``."""
        ...

    def count_shards(self) -> int:
        """Return the number of shards, from 0 on, without looking into them."""
        ...


def open_shards(folder: Path, container: Container, size: int) -> Shards:
    """Return the shards within a data set's folder, `size` pictures each."""
    if container not in get_args(Container):
        raise ValueError(f"container is {container!r}; known are {', '.join(get_args(Container))}")
    kinds: dict[Container, type[FolderShards] | type[TarShards]] = {"folders": FolderShards, "tar": TarShards}
    return kinds[container](folder / "pictures", size)


class FolderShards:
    """Pictures as files; a picture counts when its line is in the journal.

    So a picture can be written where it stays: without its line it is not there, and is written again.
    """

    def __init__(self, pictures: Path, size: int) -> None:
        self._pictures, self._size = pictures, size
        self._journal = Appender()

    def _folder(self, shard: int) -> Path:
        return self._pictures / f"{shard:05d}"

    def take_up(self) -> int:
        """See `Shards.take_up`."""
        done = end = 0
        for shard in range(self.count_shards()):
            # The bytes that hold the lines of whole pictures.
            end = 0
            for row, after in self._lines(shard):
                if not self._is_whole(shard, row):
                    break
                done, end = done + 1, after
            if done < (shard + 1) * self._size:
                break
        self._cut(done, end)
        return done

    def _cut(self, done: int, end: int) -> None:
        last = done // self._size
        for shard, path in _numbered(self._pictures):
            if shard < last or not path.is_dir():
                continue
            for file in sorted(path.iterdir()):
                match = _PICTURE.fullmatch(file.name)
                if match and int(match[1]) >= done:
                    file.unlink()
            journal = path / JOURNAL
            if journal.exists():
                keep = end if shard == last and done % self._size else 0
                if not keep:
                    journal.unlink()
                elif journal.stat().st_size != keep:
                    os.truncate(journal, keep)
            # What is not ours keeps its folder.
            with suppress(OSError):
                path.rmdir()

    def _is_whole(self, shard: int, row: Row) -> bool:
        try:
            size = (self._folder(shard) / row["file_name"]).stat().st_size
        except FileNotFoundError:
            return False
        return bool(size == row["bytes"])

    def _lines(self, shard: int) -> Iterator[tuple[Row, int]]:
        """Read a journal up to the first line that is not as it was written; each with the bytes up to its end."""
        end = 0
        try:
            stream = (self._folder(shard) / JOURNAL).open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return
        with stream:
            for number, line in zip(range(shard * self._size, (shard + 1) * self._size), stream, strict=False):
                row = _parse_row(line, number) if line.endswith(b"\n") else None
                if row is None:
                    return
                end += len(line)
                yield row, end

    def append(self, number: int, data: bytes, suffix: Suffix, row: Row) -> None:
        """See `Shards.append`."""
        folder = self._folder(number // self._size)
        journal = folder / JOURNAL
        line = _dump({"file_name": f"{number:09d}{suffix}", "number": number, "bytes": len(data), **row}) + b"\n"
        if self._journal.path != journal:
            folder.mkdir(parents=True, exist_ok=True)
            self._journal.open(journal)
        picture = folder / f"{number:09d}{suffix}"
        try:
            picture.write_bytes(data)
            self._journal.append(line)
        except OSError:
            with suppress(OSError):
                picture.unlink()
            raise

    def finish(self) -> None:
        """See `Shards.finish`."""
        if self._journal.path is not None:
            self._journal.sync()

    def close(self) -> None:
        """See `Shards.close`."""
        self._journal.close()

    def rows(self, shard: int) -> Iterator[Row]:
        """See `Shards.rows`."""
        return (row for row, _ in self._lines(shard))

    def read(self, shard: int) -> Iterator[tuple[Row, bytes]]:
        """See `Shards.read`."""
        for row in self.rows(shard):
            path = self._folder(shard) / row["file_name"]
            try:
                data = path.read_bytes()
            except OSError as error:
                raise SynthesisError(f"{path}: can't be read ({error.strerror}); {AGAIN}") from error
            if len(data) != row["bytes"]:
                raise SynthesisError(f"{path}: has {len(data)} bytes instead of {row['bytes']}; {AGAIN}")
            yield row, data

    def place(self, row: Row) -> str:
        """See `Shards.place`."""
        return f"pictures/{row['number'] // self._size:05d}/{row['file_name']}"

    def count_shards(self) -> int:
        """See `Shards.count_shards`."""
        return _count([number for number, path in _numbered(self._pictures) if path.is_dir()])


class TarShards:
    """Pictures in tars; a picture counts when its last member, the text, is whole."""

    def __init__(self, pictures: Path, size: int) -> None:
        self._pictures, self._size = pictures, size
        self._tar = Appender()
        # A tar that is not full, and where its pictures end.
        self._last: tuple[Path, int] | None = None

    def _path(self, shard: int) -> Path:
        return self._pictures / f"{shard:05d}.tar"

    def take_up(self) -> int:
        """See `Shards.take_up`."""
        done = 0
        # Where the pictures of each tar end.
        ends = []
        for shard in range(self.count_shards()):
            ends.append(0)
            for _, _, after in self._samples(shard):
                done, ends[-1] = done + 1, after
            if done < (shard + 1) * self._size:
                break
        last = done // self._size
        for shard, path in _numbered(self._pictures):
            if path.suffix != ".tar":
                continue
            if shard < last:
                if _tail(path, ends[shard]) != _END:
                    self._end(path, ends[shard])
            elif shard == last and done % self._size:
                if _tail(path, ends[shard]) not in (b"", _END):
                    os.truncate(path, ends[shard])
                self._last = (path, ends[shard])
            else:
                path.unlink()
        return done

    def _end(self, path: Path, end: int) -> None:
        """Write the end of a full tar, which a kill can have torn off the last of its pictures."""
        os.truncate(path, end)
        self._tar.open(path, end)
        self._tar.append(_END)
        self._tar.close()

    def _samples(self, shard: int) -> Iterator[tuple[Row, tuple[int, int], int]]:
        """Read a tar up to the first picture that is not whole: rows, where each picture lies, and where it ends."""
        try:
            tar = tarfile.open(self._path(shard), "r:")  # noqa: SIM115
        except (tarfile.TarError, FileNotFoundError, IsADirectoryError, EOFError):
            return
        with tar:
            for number in range(shard * self._size, (shard + 1) * self._size):
                try:
                    picture, label, text = tar.next(), tar.next(), tar.next()
                    if picture is None or label is None or text is None:
                        return
                    content, said = tar.extractfile(label), tar.extractfile(text)
                    if content is None or said is None or len(said.read()) < text.size:
                        return
                    row = _parse_row(content.read(), number)
                except (tarfile.TarError, EOFError, OSError, ValueError):
                    return
                names = [picture.name, label.name, text.name]
                if row is None or names != [row["file_name"], f"{number:09d}.json", f"{number:09d}.txt"]:
                    return
                if picture.size != row["bytes"]:
                    return
                # Nothing of it is needed any more, and a tar of many members remembers all.
                tar.members.clear()  # type: ignore[attr-defined]
                yield row, (picture.offset_data, picture.size), text.offset_data + -(-text.size // _BLOCK) * _BLOCK

    def append(self, number: int, data: bytes, suffix: Suffix, row: Row) -> None:
        """See `Shards.append`."""
        path = self._path(number // self._size)
        name = f"{number:09d}"
        row = {"file_name": f"{name}{suffix}", "number": number, "bytes": len(data), **row}
        text = row.get("text") or ""
        sample = b"".join(
            _member(member, content)
            for member, content in (
                (f"{name}{suffix}", data), (f"{name}.json", _dump(row)), (f"{name}.txt", text.encode()),
            )
        )  # fmt: skip
        if self._tar.path != path:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._tar.open(*(self._last or (path,)))
            self._last = None
        full = number % self._size == self._size - 1
        self._tar.append(sample + _END if full else sample)
        if full:
            self._tar.close()

    def finish(self) -> None:
        """See `Shards.finish`."""
        if self._last is not None and _tail(*self._last) != _END:
            self._tar.open(*self._last)
            self._last = None
        if self._tar.path is not None:
            self._tar.append(_END, stay=True)
            self._tar.sync()

    def close(self) -> None:
        """See `Shards.close`."""
        self._tar.close()

    def rows(self, shard: int) -> Iterator[Row]:
        """See `Shards.rows`."""
        return (row for row, _, _ in self._samples(shard))

    def read(self, shard: int) -> Iterator[tuple[Row, bytes]]:
        """See `Shards.read`."""
        path = self._path(shard)
        if not path.is_file():
            return
        with path.open("rb") as stream:
            for row, (start, size), _ in self._samples(shard):
                stream.seek(start)
                yield row, stream.read(size)

    def place(self, row: Row) -> str:
        """See `Shards.place`."""
        return f"pictures/{row['number'] // self._size:05d}.tar/{row['file_name']}"

    def count_shards(self) -> int:
        """See `Shards.count_shards`."""
        return _count([number for number, path in _numbered(self._pictures) if path.suffix == ".tar"])


def _dump(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode()


def _parse_row(content: bytes, number: int) -> Row | None:
    """Read back the row of a picture; ``None`` where it is not one, or another's."""
    try:
        row = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or row.get("number") != number or type(row.get("bytes")) is not int:
        return None
    match = _PICTURE.fullmatch(str(row.get("file_name")))
    return row if match and match[1] == f"{number:09d}" else None


def _member(name: str, content: bytes) -> bytes:
    """Return a member of a tar, header and padding included; the same content gives the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % _BLOCK)


def _tail(path: Path, start: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(start)
        return stream.read(len(_END) + 1)


def _numbered(pictures: Path) -> list[tuple[int, Path]]:
    """List the shards in a folder, of either kind, by number."""
    if not pictures.is_dir():
        return []
    found = [(match[1], path) for path in pictures.iterdir() if (match := _SHARD.fullmatch(path.name))]
    return sorted((int(number), path) for number, path in found if number == f"{int(number):05d}")


def _count(numbers: list[int]) -> int:
    """Count on from 0 to the first number that is not there."""
    there = set(numbers)
    return next(number for number in itertools.count() if number not in there)
