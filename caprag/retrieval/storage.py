"""An index folder's table of contents, and the errors of a folder that is not one.

Data files are written once, under names of their own, and never changed; ``index.json`` names those that belong
together, with sizes and checksums, and is replaced last and at one stroke. A writer that was killed leaves the last
good state, and a reader that has opened one keeps it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypedDict, cast

from caprag import paths
from caprag.errors import IndexFolderError
from caprag.progress import progress_bar

FORMAT = 2
CONTENTS = "index.json"
LEXICAL = "lexical"
VERIFIED = 64 << 20
"""Bytes up to which an index is read through when it is opened, to compare checksums; it takes a tenth of a second."""
_BLOCK = 1 << 20
# Nothing else in a folder is ever deleted. The last ones are those of format 1.
_OURS = re.compile(
    r"(vectors|sentences|removed|postings|places)-\d+(-\d+)?\.(faiss|arrow|npy|json)|index\.json\.new"
    rf"|{LEXICAL}/[0-9a-f]{{32}}\.[\w.]+|lexical-\d+/[\w.-]+"
)


class File(TypedDict):
    """One data file: bytes and BLAKE2b-128 of its content."""

    size: int
    checksum: str


class EmbedderEntry(TypedDict):
    """The embedder that made the vectors."""

    name: str
    fingerprint: str
    dimension: int


class SegmentEntry(TypedDict):
    """The files of one segment, and the factory of its vectors; ``removed`` is empty where nothing was removed."""

    sentences: str
    vectors: str
    removed: str
    factory: str


class PostingsEntry(TypedDict):
    """The lexical engine's own table of contents, and its files."""

    meta: str
    files: list[str]


class Contents(TypedDict):
    """What ``index.json`` holds; ``places`` is empty where no text stands in a further file."""

    format: int
    generation: int
    embedder: EmbedderEntry
    factory: str
    search: str
    count: int
    next_id: int
    segments: list[SegmentEntry]
    postings: PostingsEntry
    places: str
    files: dict[str, File]


def read_contents(folder: Path, *, verify: bool | None = None) -> Contents:
    """Read and check the table of contents and the files it names.

    Parameters
    ----------
    folder
        An index folder.
    verify
        Whether to read all files and compare their checksums; ``None`` does where they are `VERIFIED` bytes at most
        together. Sizes are always compared.

    Returns
    -------
    Contents
        All its files are there.

    Raises
    ------
    IndexFolderError
        Naming the folder or file and what to do about it.
    """
    contents = read_table(folder)
    if verify is None:
        verify = sum(file["size"] for file in contents["files"].values()) <= VERIFIED
    for name, file in contents["files"].items():
        _check_file(folder, name, file, verify=verify)
    return contents


def damages(folder: Path, *, progress: bool = False) -> list[IndexFolderError]:
    """Read all files of an index, and return what is wrong with each that is damaged; empty where all are well.

    Raises
    ------
    IndexFolderError
        Where the table of contents itself can't be read.
    """
    contents = read_table(folder)
    found: list[IndexFolderError] = []
    total = sum(file["size"] for file in contents["files"].values())
    with progress_bar(total, "check", " bytes", show=progress) as bar:
        for name, file in contents["files"].items():
            try:
                _check_file(folder, name, file, verify=True)
            except IndexFolderError as error:
                found.append(error)
            bar.update(file["size"])
    return found


def read_table(folder: Path) -> Contents:
    """Read and check the table of contents alone; IndexFolderError where it is none."""
    path = folder / CONTENTS
    if not folder.is_dir():
        raise IndexFolderError(
            f"{folder}: no such index folder; build one with: caprag index build CORPUS --out {folder}"
        )
    if not path.is_file():
        raise IndexFolderError(f"{folder}: is no index ({CONTENTS} is missing); build one with: caprag index build")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        version = stored["format"]
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise IndexFolderError(f"{path}: is not readable ({error!r}); build the index again") from error
    if version != FORMAT:
        raise IndexFolderError(f"{path}: has format {version}, this caprag reads {FORMAT}; build the index again")
    return _checked(path, stored)


def _checked(path: Path, stored: dict[str, Any]) -> Contents:
    """Check that a table of contents has all its entries, and that it names files of our own making."""
    # Folders of the first saves of this format do not say.
    stored.setdefault("places", "")
    missing = sorted(Contents.__required_keys__ - stored.keys())
    if missing:
        raise IndexFolderError(f"{path}: lacks {', '.join(missing)}; build the index again")
    entry, segments, postings, files = (stored[name] for name in ("embedder", "segments", "postings", "files"))
    sound = (
        all(type(stored[name]) is int and stored[name] >= 0 for name in ("generation", "count", "next_id"))
        and all(isinstance(stored[name], str) for name in ("factory", "search", "places"))
        and isinstance(entry, dict)
        and all(isinstance(entry.get(name), str) for name in ("name", "fingerprint"))
        and type(entry.get("dimension")) is int
        and isinstance(segments, list)
        and all(isinstance(s, dict) and s.keys() == SegmentEntry.__required_keys__ for s in segments)
        and all(isinstance(value, str) for s in segments for value in s.values())
        and isinstance(postings, dict)
        and postings.keys() == PostingsEntry.__required_keys__
        and isinstance(postings["meta"], str)
        and isinstance(postings["files"], list)
        and all(isinstance(name, str) for name in postings["files"])
        and isinstance(files, dict)
        and all(
            isinstance(file, dict)
            and file.keys() == File.__required_keys__
            and type(file["size"]) is int
            and isinstance(file["checksum"], str)
            for file in files.values()
        )
        # Each part has a checksum.
        and files.keys() == _named(cast(Contents, stored))
    )
    if not sound:
        raise IndexFolderError(f"{path}: has entries that no save wrote; build the index again")
    return cast(Contents, stored)


def _named(contents: Contents) -> set[str]:
    """Return the names of the files that make up an index."""
    parts = {s[kind] for s in contents["segments"] for kind in ("sentences", "vectors", "removed")}
    return (parts | {contents["postings"]["meta"], contents["places"], *contents["postings"]["files"]}) - {""}


def _check_file(folder: Path, name: str, file: File, *, verify: bool) -> None:
    path = folder / name
    if "\0" in name or folder.resolve() not in path.resolve().parents:
        raise IndexFolderError(f"{folder / CONTENTS}: names a file outside the folder ({name}); build the index again")
    try:
        readable = path.is_file() and os.access(path, os.R_OK)
        size = path.stat().st_size if readable else 0
        changed = readable and verify and size == file["size"] and checksum(path) != file["checksum"]
    except OSError:
        # It may go while it is looked at, when a writer replaces it.
        readable = False
    if not readable:
        raise IndexFolderError(
            f"{path}: is missing or can't be read; copy the whole folder again, or build the index again"
        )
    if size != file["size"]:
        raise IndexFolderError(
            f"{path}: has {size} bytes instead of {file['size']}; copy the folder again, or build the index again"
        )
    if changed:
        raise IndexFolderError(f"{path}: its content has changed; copy the folder again, or build the index again")


def checksum(path: Path) -> str:
    """Return the BLAKE2b-128 of a file's content as hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def locked(folder: Path) -> AbstractContextManager[None]:
    """Keep other writers out of a folder; IndexFolderError where one is in it."""
    return paths.locked(folder, IndexFolderError)


def last_save(folder: Path) -> Contents | None:
    """Return the table of contents of the last finished save in a folder, unchecked files included."""
    try:
        stored = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        return _checked(folder / CONTENTS, stored)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, IndexFolderError):
        return None


def last_generation(folder: Path) -> int:
    """Return a number that no file of a finished or unfinished save in a folder has passed; 0 for a new folder."""
    found = re.findall(r"-(\d+)", " ".join(path.name for path in ours(folder)))
    last = last_save(folder)
    return max([0 if last is None else last["generation"], *map(int, found)])


def is_anothers(folder: Path) -> bool:
    """Return whether the file that a save replaces was written by somebody else; a damaged one of ours was not."""
    return (folder / CONTENTS).exists() and last_save(folder) is None and not ours(folder)


def ours(folder: Path) -> list[Path]:
    """Return the data files in a folder, of this and of other saves."""
    inner = [
        path for part in folder.glob("lexical*") if part.is_dir() and not part.is_symlink() for path in part.iterdir()
    ]
    return [p for p in sorted([*folder.iterdir(), *inner]) if _OURS.fullmatch(p.relative_to(folder).as_posix())]


def clear(folder: Path, keep: Collection[str]) -> None:
    """Delete the data files in a folder that are not among those to keep; what else lies there is left alone."""
    for path in ours(folder):
        if path.relative_to(folder).as_posix() not in keep and not path.is_dir():
            path.unlink()
    for part in folder.glob("lexical*"):
        named = re.fullmatch(rf"{LEXICAL}(-\d+)?", part.name)
        if named and part.is_dir() and not part.is_symlink() and not any(part.iterdir()):
            part.rmdir()


def commit(folder: Path, contents: Contents, known: dict[str, File]) -> None:
    """Checksum the new files, replace the table of contents at one stroke, and delete what it no longer names.

    Parameters
    ----------
    folder
        Where the files lie.
    contents
        Names them; its ``files`` are filled in here.
    known
        Files of the save before, whose checksums are known.
    """
    files: dict[str, File] = {}
    for name in sorted(_named(contents)):
        path = folder / name
        if name not in known:
            _flush(path)
        files[name] = known.get(name) or {"size": path.stat().st_size, "checksum": checksum(path)}
    for part in sorted({(folder / name).parent for name in files}):
        _flush(part)
    contents["files"] = files
    beside = folder / f"{CONTENTS}.new"
    beside.write_text(json.dumps(contents, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _flush(beside)
    beside.replace(folder / CONTENTS)
    _flush(folder)
    clear(folder, files.keys())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
