"""Lines drawn once and kept as pixels, and the tower's features of them: both are most of the work of training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from caprag.progress import progress_bar
from caprag.recognition.reader import ReaderForConditionalGeneration
from caprag.recognition.reader.tower import CHANNELS, HEIGHT, STRIDE, LineBytes, Tower, line_bytes, line_pixels
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
    notes = {(path.parent / "about.txt").read_text(encoding="utf-8").strip() for path in pixels.paths}
    claim(folder, "; ".join(sorted(notes)))
    missing = [path for path in pixels.paths if not (folder / path.name).exists()]
    work = functools.partial(_describe_shard, reader, folder)
    with progress_bar(
        len(pixels.paths), "features", " shards", initial=len(pixels.paths) - len(missing), show=progress
    ) as bar:
        for _ in map_in_order(work, missing, workers):
            bar.update()
    return LineStore([folder / path.name for path in pixels.paths])


@functools.lru_cache(maxsize=1)
def _tower(reader: Path | None) -> Tower:
    model = ReaderForConditionalGeneration.from_pretrained(reader) if reader else None
    changes = model.tower_changes if model is not None else None
    return Tower(1, changes=changes.weights() if changes is not None else None)


def _describe_shard(reader: Path | None, folder: Path, path: Path) -> None:
    tower, store = _tower(reader), LineStore([path])
    found = [
        tower.features([line_pixels(picture_of(store[place]))])[0].astype(np.float16) for place in range(len(store))
    ]
    write_shard(folder / path.name, store.texts, found, np.zeros((0, CHANNELS), np.float16))
