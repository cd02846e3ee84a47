"""The tower's features of many lines, made once and kept on disk: the tower is frozen, and it is most of the work."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caprag.paths import replacing
from caprag.progress import progress_bar
from caprag.recognition.reader.tower import CHANNELS, Tower, line_pixels
from caprag.training.reader.lines import CaptionLines
from caprag.workers import map_in_order

SHARD = 500
"""Captions whose lines are kept in one file."""

Features = npt.NDArray[np.float16]


class FeatureStore:
    """Features and texts of lines, in a folder of shards.

    Parameters
    ----------
    paths
        The shards that `make_features` wrote, in order.

    Raises
    ------
    FileNotFoundError
        Where a shard is missing.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.texts: list[str] = []
        self._tables: list[Features] = []
        self._places: list[tuple[int, int, int]] = []
        for path in paths:
            table = np.load(path.with_suffix(".npy"), mmap_mode="r")
            start = 0
            for text, steps in json.loads(path.read_text(encoding="utf-8")):
                self._places.append((len(self._tables), start, start + steps))
                self.texts.append(text)
                start += steps
            self._tables.append(table)

    def first(self, count: int) -> FeatureStore:
        """Return a store of the first lines."""
        few = FeatureStore(())
        few.texts, few._tables, few._places = self.texts[:count], self._tables, self._places[:count]
        return few

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.texts)

    def steps(self) -> npt.NDArray[np.int64]:
        """Return the number of steps of each line."""
        return np.array([stop - start for _, start, stop in self._places])

    def __getitem__(self, place: int) -> Features:
        """Return the features of a line: (steps, 384)."""
        table, start, stop = self._places[place]
        return self._tables[table][start:stop]


def make_features(
    lines: Callable[[], CaptionLines],
    count: int,
    folder: Path,
    *,
    about: str,
    workers: int = 1,
    progress: bool = False,
) -> FeatureStore:
    """Draw lines and describe them, going on where it was stopped.

    Parameters
    ----------
    lines
        Makes the source, in each process anew: a function of a module or a `functools.partial` of one.
    count
        Number of captions.
    folder
        Where the shards go.
    about
        What the lines depend on; features of other lines are not mixed in.
    workers
        Number of processes.
    progress
        Whether to show how far it is on stderr.

    Raises
    ------
    ValueError
        Where the folder has features of other lines.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note, wanted = folder / "about.txt", f"{count} captions, {about}\n"
    if note.exists() and note.read_text(encoding="utf-8") != wanted:
        raise ValueError(
            f"{folder}: has features of other lines ({note.read_text(encoding='utf-8').strip()}); remove it"
        )
    note.write_text(wanted, encoding="utf-8")
    starts = range(0, count, SHARD)
    missing = [start for start in starts if not _path(folder, start).exists()]
    work = functools.partial(_make_shard, lines, count, folder)
    with progress_bar(len(starts), "features", " shards", initial=len(starts) - len(missing), show=progress) as bar:
        for _ in map_in_order(work, missing, workers):
            bar.update()
    return FeatureStore([_path(folder, start) for start in starts])


def _path(folder: Path, start: int) -> Path:
    return folder / f"{start:09}.json"


@functools.lru_cache(maxsize=1)
def _source(lines: Callable[[], CaptionLines]) -> tuple[CaptionLines, Tower]:
    return lines(), Tower(1)


def _make_shard(lines: Callable[[], CaptionLines], count: int, folder: Path, start: int) -> int:
    source, tower = _source(lines)
    made = [line for number in range(start, min(start + SHARD, count)) for line in source.make(number)]
    found = [tower.features([line_pixels(line.image)])[0] for line in made]
    path = _path(folder, start)
    table = np.concatenate(found).astype(np.float16) if found else np.zeros((0, CHANNELS), np.float16)
    with replacing(path.with_suffix(".npy")) as stream:
        np.save(stream, table)
    # The list of texts comes last: a shard is there when it is whole.
    rows = [[line.text, len(one)] for line, one in zip(made, found, strict=True)]
    with replacing(path) as stream:
        stream.write(json.dumps(rows, ensure_ascii=False).encode())
    return len(made)


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
