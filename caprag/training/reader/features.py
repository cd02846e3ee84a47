"""Lines drawn once and kept: their pixels, what stands still of the tower makes of them, and the tower's features.

To draw them and to run the tower is most of the work of training.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from caprag.progress import progress_bar
from caprag.recognition.reader import ReaderForConditionalGeneration
from caprag.recognition.reader.tower import (
    CHANNELS,
    HEIGHT,
    LAST_STAGES,
    STRIDE,
    LineBytes,
    Tower,
    line_bytes,
    line_pixels,
)
from caprag.training.reader.lines import CaptionLines
from caprag.training.reader.stores import LineStore, claim, write_shard
from caprag.workers import map_in_order

SHARD = 500
"""Captions whose lines are kept in one file."""


def make_pixels(
    lines: Callable[[], CaptionLines], count: int, folder: Path, *, about: str, workers: int = 1, progress: bool = False
) -> LineStore:
    """Draw lines and keep their pixels, going on where it was stopped.

    Parameters
    ----------
    lines
        Makes the source, in each process anew: a function of a module or a `functools.partial` of one.
    count
        Number of captions.
    folder
        Where the shards go.
    about
        What the lines depend on; other lines are not mixed in.
    workers
        Number of processes.
    progress
        Whether to show how far it is on stderr.

    Returns
    -------
    LineStore
        Of (steps, 8, 48, 3), uint8: the columns of each step; 70 kB for a line of ten characters.

    Raises
    ------
    ValueError
        Where the folder has other lines.
    """
    claim(folder, f"{count} captions, {about}")
    paths = [folder / f"{start:09}.json" for start in range(0, count, SHARD)]
    missing = [path for path in paths if not path.exists()]
    work = functools.partial(_draw_shard, lines, count)
    with progress_bar(len(paths), "lines", " shards", initial=len(paths) - len(missing), show=progress) as bar:
        for _ in map_in_order(work, missing, workers):
            bar.update()
    return LineStore(paths)


@functools.lru_cache(maxsize=1)
def _source(lines: Callable[[], CaptionLines]) -> CaptionLines:
    return lines()


def _draw_shard(lines: Callable[[], CaptionLines], count: int, path: Path) -> None:
    source, start = _source(lines), int(path.stem)
    made = [line for number in range(start, min(start + SHARD, count)) for line in source.make(number)]
    columns = [line_bytes(line.image).transpose(1, 0, 2).reshape(-1, STRIDE, HEIGHT, 3) for line in made]
    write_shard(path, [line.text for line in made], columns, np.zeros((0, STRIDE, HEIGHT, 3), np.uint8))


def picture_of(columns: npt.NDArray[np.uint8]) -> LineBytes:
    """Return the picture, (48, width, 3), of a line's columns as a store of pixels has them."""
    picture: LineBytes = columns.reshape(-1, HEIGHT, 3).transpose(1, 0, 2)
    return picture


def make_maps(pixels: LineStore, folder: Path, *, workers: int = 1, progress: bool = False) -> LineStore:
    """Run what stands still of the tower, going on where it was stopped.

    Parameters
    ----------
    pixels
        What `make_pixels` returned.
    folder
        Where the shards go.
    workers, progress
        As in `make_pixels`.

    Returns
    -------
    LineStore
        Of (steps, 2, 12, 96), float16: what the tower's last two stages begin with; 180 kB for ten characters.

    Raises
    ------
    ValueError
        Where the folder has maps of other lines.
    """
    return _made_of(pixels, folder, _map_shard, "maps", workers, progress)


def maps_of(store: LineStore, rows: Sequence[int]) -> torch.Tensor:
    """Return the maps of lines of equal widths as `LastStages` takes them, (n, 96, 12, 2 steps)."""
    columns = np.stack([store[row].reshape(-1, *store[row].shape[2:]) for row in rows])
    return torch.from_numpy(columns.astype(np.float32)).permute(0, 3, 2, 1)


def make_features(
    pixels: LineStore, folder: Path, *, reader: Path | None = None, workers: int = 1, progress: bool = False
) -> LineStore:
    """Describe lines by the tower, going on where it was stopped.

    Parameters
    ----------
    pixels
        What `make_pixels` returned.
    folder
        Where the shards go.
    reader
        Folder of a reader whose changes to the tower are meant; ``None`` for the tower as it is.
    workers, progress
        As in `make_pixels`.

    Returns
    -------
    LineStore
        Of (steps, 384), float16.

    Raises
    ------
    ValueError
        Where the folder has features of other lines.
    """
    return _made_of(pixels, folder, functools.partial(_describe_shard, reader), "features", workers, progress)


def _made_of(
    store: LineStore, folder: Path, work: Callable[[Path, Path], None], name: str, workers: int, progress: bool
) -> LineStore:
    notes = {(path.parent / "about.txt").read_text(encoding="utf-8").strip() for path in store.paths}
    claim(folder, "; ".join(sorted(notes)))
    missing = [path for path in store.paths if not (folder / path.name).exists()]
    done = len(store.paths) - len(missing)
    with progress_bar(len(store.paths), name, " shards", initial=done, show=progress) as bar:
        for _ in map_in_order(functools.partial(work, folder), missing, workers):
            bar.update()
    return LineStore([folder / path.name for path in store.paths])


@functools.lru_cache(maxsize=1)
def _stem() -> Tower:
    return Tower(1, end=LAST_STAGES)


def _map_shard(folder: Path, path: Path) -> None:
    store, found = LineStore([path]), []
    for place in range(len(store)):
        columns = _stem().maps([line_pixels(picture_of(store[place]))])[0].transpose(2, 1, 0)
        found.append(columns.reshape(-1, 2, *columns.shape[1:]).astype(np.float16))
    write_shard(folder / path.name, store.texts, found, np.zeros((0, 2, 12, 96), np.float16))


@functools.lru_cache(maxsize=1)
def _tower(reader: Path | None) -> Tower:
    model = ReaderForConditionalGeneration.from_pretrained(reader, dtype=torch.float32) if reader else None
    changes = model.tower_changes if model is not None else None
    return Tower(1, changes=None if changes is None else changes.weights())


def _describe_shard(reader: Path | None, folder: Path, path: Path) -> None:
    store = LineStore([path])
    lines = [line_pixels(picture_of(store[place])) for place in range(len(store))]
    found = [features.astype(np.float16) for features in _tower(reader).features(lines)]
    write_shard(folder / path.name, store.texts, found, np.zeros((0, CHANNELS), np.float16))
