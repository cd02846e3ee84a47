"""Lines kept on disk in shards, to be read in any order: what they look like or what the tower makes of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from caprag.paths import replacing

Table = npt.NDArray[Any]


class LineStore:
    """Texts of lines, and an array for each, whose first axis are the tower's steps of 8 pixels.

    Parameters
    ----------
    paths
        The shards that `write_shard` wrote, in order.

    Raises
    ------
    FileNotFoundError
        Where a shard is missing.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self.texts: list[str] = []
        self._tables: list[Table] = []
        self._places: list[tuple[int, int, int]] = []
        for path in paths:
            table = np.load(path.with_suffix(".npy"), mmap_mode="r")
            start = 0
            for text, steps in json.loads(path.read_text(encoding="utf-8")):
                self._places.append((len(self._tables), start, start + steps))
                self.texts.append(text)
                start += steps
            self._tables.append(table)

    def first(self, count: int) -> LineStore:
        """Return a store of the first lines."""
        few = LineStore(())
        few.texts, few._tables, few._places = self.texts[:count], self._tables, self._places[:count]
        return few

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.texts)

    def steps(self) -> npt.NDArray[np.int64]:
        """Return the number of steps of each line."""
        return np.array([stop - start for _, start, stop in self._places])

    def __getitem__(self, place: int) -> Table:
        """Return the array of a line: (steps, ...)."""
        table, start, stop = self._places[place]
        return self._tables[table][start:stop]


def write_shard(path: Path, texts: Sequence[str], arrays: Sequence[Table], empty: Table) -> None:
    """Write lines with their arrays; `empty` is what none would be.

    Beside the JSON of texts and numbers of steps stands one array of all, with the suffix ``.npy``.
    """
    with replacing(path.with_suffix(".npy")) as stream:
        np.save(stream, np.concatenate(arrays) if len(arrays) else empty)
    # The list of texts comes last: a shard is there when it is whole.
    rows = [[text, len(one)] for text, one in zip(texts, arrays, strict=True)]
    with replacing(path) as stream:
        stream.write(json.dumps(rows, ensure_ascii=False).encode())


def claim(folder: Path, about: str) -> None:
    """Make a folder for shards, or check that it holds what belongs to these.

    Raises
    ------
    ValueError
        Where it has something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "about.txt"
    if note.exists() and note.read_text(encoding="utf-8").strip() != about:
        raise ValueError(f"{folder}: is of other lines ({note.read_text(encoding='utf-8').strip()}); remove it")
    note.write_text(about + "\n", encoding="utf-8")


def batches(steps: npt.NDArray[np.int64], size: int, rng: np.random.Generator) -> Iterator[Sequence[int]]:
    """Yield batches of places of lines with equally many steps, each line once, in an order drawn by chance.

    Parameters
    ----------
    steps
        Of each line.
    size
        Most lines in a batch.
    rng
        Source of chance.
    """
    order = rng.permutation(len(steps))
    order = order[np.argsort(steps[order], kind="stable")]
    cuts = np.flatnonzero(np.diff(steps[order])) + 1
    groups = [group[start : start + size] for group in np.split(order, cuts) for start in range(0, len(group), size)]
    for place in rng.permutation(len(groups)):
        yield groups[place].tolist()
