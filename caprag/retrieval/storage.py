"""An index folder's table of contents, and the errors of a folder that is not one.

The data files of each save have names of their own; ``index.json`` names those that belong together, with sizes and
checksums, and is replaced last and at one stroke. A writer that was killed leaves the last good state.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypedDict, cast

from caprag import paths
from caprag.errors import IndexFolderError

FORMAT = 1
CONTENTS = "index.json"
_BLOCK = 1 << 20
# Nothing else in a folder is ever deleted.
_OURS = re.compile(r"vectors-\d+\.faiss|sentences-\d+\.arrow|lexical-\d+|index\.json\.new")


class File(TypedDict):
    """One data file: bytes and BLAKE2b-128 of its content."""

    size: int
    checksum: str


class EmbedderEntry(TypedDict):
    """The embedder that made the vectors."""

    name: str
    fingerprint: str
    dimension: int


class Contents(TypedDict):
    """What ``index.json`` holds."""

    format: int
    generation: int
    embedder: EmbedderEntry
    factory: str
    count: int
    next_id: int
    parts: dict[str, str]
    files: dict[str, File]


def read_contents(folder: Path) -> Contents:
    """Read and check the table of contents and the files it names.

    Parameters
    ----------
    folder
        An index folder.

    Returns
    -------
    Contents
        All its files are there and as they were written.

    Raises
    ------
    IndexFolderError
        Naming the folder or file and what to do about it.
    """
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
    contents = _checked(path, stored)
    for name, file in contents["files"].items():
        _check_file(folder, name, file)
    return contents


def _checked(path: Path, stored: dict[str, Any]) -> Contents:
    """Check that a table of contents has all its entries, and that its parts are names of our own making."""
    missing = sorted(Contents.__required_keys__ - stored.keys())
    if missing:
        raise IndexFolderError(f"{path}: lacks {', '.join(missing)}; build the index again")
    entry, parts, files = stored["embedder"], stored["parts"], stored["files"]
    sound = (
        all(type(stored[name]) is int and stored[name] >= 0 for name in ("generation", "count", "next_id"))
        and isinstance(stored["factory"], str)
        and isinstance(entry, dict)
        and all(isinstance(entry.get(name), str) for name in ("name", "fingerprint"))
        and type(entry.get("dimension")) is int
        and parts == part_names(stored["generation"])
        and isinstance(files, dict)
        and all(isinstance(file, dict) and file.keys() == File.__required_keys__ for file in files.values())
        # Each part has a checksum, itself or for what is in it.
        and {name.partition("/")[0] for name in files} == set(parts.values())
    )
    if not sound:
        raise IndexFolderError(f"{path}: has entries that no save wrote; build the index again")
    return cast(Contents, stored)


def _check_file(folder: Path, name: str, file: File) -> None:
    path = folder / name
    if "\0" in name or folder.resolve() not in path.resolve().parents:
        raise IndexFolderError(f"{folder / CONTENTS}: names a file outside the folder ({name}); build the index again")
    if not path.is_file() or not os.access(path, os.R_OK):
        raise IndexFolderError(
            f"{path}: is missing or can't be read; copy the whole folder again, or build the index again"
        )
    size = path.stat().st_size
    if size != file["size"]:
        raise IndexFolderError(
            f"{path}: has {size} bytes instead of {file['size']}; copy the folder again, or build the index again"
        )
    if checksum(path) != file["checksum"]:
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


def last_save(folder: Path) -> tuple[int, dict[str, str]]:
    """Return the number of the last finished save in a folder and the names of its parts; 0 and none without one."""
    try:
        stored = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        contents = _checked(folder / CONTENTS, stored)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, IndexFolderError):
        return 0, {}
    return contents["generation"], contents["parts"]


def is_anothers(folder: Path) -> bool:
    """Return whether the file that a save replaces was written by somebody else; a damaged one of ours was not."""
    contents = folder / CONTENTS
    return contents.exists() and not last_save(folder)[1] and not any(_OURS.fullmatch(p.name) for p in folder.iterdir())


def part_names(generation: int) -> dict[str, str]:
    """Return the file or folder name of each part of a save."""
    return {
        "vectors": f"vectors-{generation}.faiss",
        "sentences": f"sentences-{generation}.arrow",
        "lexical": f"lexical-{generation}",
    }


def clear_parts(folder: Path, keep: dict[str, str]) -> None:
    """Delete the parts of other saves in a folder; what else lies there is left alone."""
    for path in sorted(folder.iterdir()):
        if _OURS.fullmatch(path.name) and path.name not in keep.values():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def commit(folder: Path, contents: Contents) -> None:
    """Checksum the parts, replace the table of contents at one stroke, and delete what it no longer names."""
    files: dict[str, File] = {}
    for part in contents["parts"].values():
        whole = folder / part
        for path in sorted(whole.iterdir()) if whole.is_dir() else [whole]:
            _flush(path)
            name = path.relative_to(folder).as_posix()
            files[name] = {"size": path.stat().st_size, "checksum": checksum(path)}
        _flush(whole)
    contents["files"] = files
    beside = folder / f"{CONTENTS}.new"
    beside.write_text(json.dumps(contents, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _flush(beside)
    beside.replace(folder / CONTENTS)
    _flush(folder)
    clear_parts(folder, contents["parts"])


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
