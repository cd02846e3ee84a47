"""What trainings by FlagEmbedding share: the rows they are given, and the folder that a stopped one goes on from.

Knows nothing of what is trained.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from caprag.errors import CapragError, CorpusError
from caprag.paths import replacing

_STATE = "caprag.json"


@dataclass(frozen=True, slots=True)
class Rows:
    """What the files of a training hold.

    Attributes
    ----------
    count
        Number of rows.
    digest
        SHA-256 of all files.
    """

    count: int
    digest: str


def check_files(files: Sequence[Path], group_size: int) -> Rows:
    """Look at every line; CorpusError where a file holds no row, or something else.

    Parameters
    ----------
    files
        JSON lines.
    group_size
        Passages of each query: with more than one, every row needs negatives.
    """
    if not files:
        raise ValueError("data names no file; at least one of mined negatives is needed")
    digest, count = hashlib.sha256(), 0
    for path in files:
        before = count
        try:
            with path.open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    digest.update(line)
                    count += 1
                    if not _is_row(line, group_size):
                        raise CorpusError(
                            f"{path}:{number}: holds no training row; "
                            '{"query": "...", "pos": ["..."], "neg": ["..."]} is wanted, as caprag mine writes it'
                        )
        except OSError as error:
            raise CorpusError(f"{path}: can't be read ({error.strerror}); name a file of mined negatives") from error
        if count == before:
            raise CorpusError(f"{path}: is empty; leave it out, or let caprag mine write training rows to it")
    return Rows(count, digest.hexdigest())


def check_batch(rows: int, batch: int) -> None:
    """Raise ValueError where there are fewer rows than a step takes on all devices: incomplete batches are left out."""
    if rows < batch:
        raise ValueError(
            f"data holds {rows} rows and a step takes {batch}: there would be none; make --batch-size (batch_size) "
            "smaller, or give more rows"
        )


def _is_row(line: bytes, group_size: int) -> bool:
    try:
        row = json.loads(line)
        return (
            isinstance(row["query"], str)
            and all(isinstance(row[name], list) for name in ("pos", "neg"))
            and all(isinstance(text, str) for text in [*row["pos"], *row["neg"]])
            and len(row["pos"]) > 0
            and (len(row["neg"]) > 0 or group_size == 1)
        )
    except (ValueError, KeyError, TypeError):
        return False


def claim(folder: Path, settings: object, base: str, rows: Rows) -> None:
    """Note whose checkpoints these are; CapragError, naming what differs, where they are another training's."""
    note = folder / _STATE
    wanted = {**asdict(cast(Any, settings)), "base": base, "data": rows.digest}
    # As it reads when it comes back from the file.
    wanted = json.loads(json.dumps(wanted, sort_keys=True, default=str))
    if note.exists():
        try:
            known = json.loads(note.read_text(encoding="utf-8"))["settings"]
            names = sorted(name for name in {*known, *wanted} if known.get(name) != wanted.get(name))
            differing = [f"{name} {known.get(name)!r}, not {wanted.get(name)!r}" for name in names]
        except (ValueError, KeyError, TypeError, AttributeError):
            differing = ["settings that can't be read"]
        if differing:
            raise CapragError(
                f"{folder}: holds a training on other data, base or options ({'; '.join(differing)}); choose another "
                "folder for the result (--out), or delete this one to begin anew"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise CapragError(f"{folder}: is not empty, and holds no training; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(note) as stream:
        stream.write((json.dumps({"settings": wanted}, ensure_ascii=False) + "\n").encode("utf-8", "replace"))


def last_checkpoint(folder: Path) -> str | None:
    """Return the folder of the last whole checkpoint, ``None`` without one; later ones that a kill cut are removed.

    transformers writes a checkpoint in its place, and its ``trainer_state.json`` last.
    """
    numbered = {
        int(found[1]): path
        for path in (folder / "checkpoints").glob("checkpoint-*")
        if path.is_dir() and (found := re.fullmatch(r"checkpoint-(\d+)", path.name))
    }
    for _, path in sorted(numbered.items(), reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            # One process is enough; the others pass it over.
            if os.environ.get("RANK", "0") == "0":
                shutil.rmtree(path)
        else:
            return str(path)
    return None


@contextmanager
def unobtrusive() -> Iterator[None]:
    """Keep FlagEmbedding from setting up the program's logging (it does where there is no handler), and from bars."""
    import logging

    from FlagEmbedding.abc.finetune.embedder import AbsDataset

    AbsDataset.datasets.disable_progress_bars()
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
