"""What trainings by FlagEmbedding share: the rows they are given, and the folder that a stopped one goes on from.

Knows nothing of what is trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

from caprag.errors import CapragError, CorpusError
from caprag.paths import replacing

_STATE = "caprag.json"


class Options(Protocol):
    """A dataclass of settings; what rows must hold depends on this one of them."""

    @property
    def group_size(self) -> int:
        """Passages of each query."""
        ...


def check_files(files: Sequence[Path], settings: Options, base: str) -> str:
    """Look at every line, and return a hash of data, base and options."""
    if not files:
        raise ValueError("data names no file; at least one of mined negatives is needed")
    digest = hashlib.sha256(
        json.dumps({**asdict(cast(Any, settings)), "base": base}, sort_keys=True, default=str).encode()
    )
    for path in files:
        try:
            with path.open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    digest.update(line)
                    if not _is_row(line, settings.group_size):
                        raise CorpusError(
                            f"{path}:{number}: holds no training row; "
                            '{"query": "...", "pos": ["..."], "neg": ["..."]} is wanted, as caprag mine writes it'
                        )
        except OSError as error:
            raise CorpusError(f"{path}: can't be read ({error.strerror}); name a file of mined negatives") from error
    return digest.hexdigest()


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


def claim(folder: Path, signature: str) -> None:
    """Note whose checkpoints these are; CapragError where they are another training's."""
    note = folder / _STATE
    if note.exists():
        if json.loads(note.read_text(encoding="utf-8")).get("signature") != signature:
            raise CapragError(
                f"{folder}: holds a training on other data, base or options; choose another folder, or remove it"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise CapragError(f"{folder}: is not empty, and holds no training; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(note) as stream:
        stream.write((json.dumps({"signature": signature}) + "\n").encode())


def last_checkpoint(folder: Path) -> str | None:
    """Return the folder of the last whole checkpoint, ``None`` without one."""
    from transformers.trainer_utils import get_last_checkpoint

    place = folder / "checkpoints"
    found = get_last_checkpoint(str(place)) if place.is_dir() else None  # type: ignore[no-untyped-call]
    return None if found is None else str(found)


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
