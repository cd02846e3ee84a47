"""A data set read back: its settings, its pictures with their rows, its manifest. `caprag.synthesis.output` wrote it.

Knows nothing of what is in a picture or its row.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from caprag.errors import SynthesisError
from caprag.synthesis.containers import AGAIN, Container, Row, Shards, open_shards

FORMAT = 1
SETTINGS = "settings.json"
MANIFEST = "manifest.parquet"
_ROWS_AT_A_TIME = 4096


def read_header(folder: Path) -> dict[str, Any]:
    """Read and check what a data set says of itself: format, container, shard size, columns, settings.

    Raises
    ------
    SynthesisError
        Where the folder is no data set, or this is damaged.
    """
    path = folder / SETTINGS
    if not folder.is_dir():
        raise SynthesisError(f"{folder}: no such data set; make one with: caprag synth --out {folder}")
    if not path.exists():
        raise SynthesisError(f"{folder}: is no data set ({SETTINGS} is missing); make one with: caprag synth")
    remedy = "restore the file, or make the set anew in another folder"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SynthesisError(f"{path}: can't be read ({error.strerror}); see to its rights") from error
    except (ValueError, RecursionError) as error:
        raise SynthesisError(f"{path}: is not JSON ({error}); {remedy}") from error
    if isinstance(header, dict) and header.get("format") not in (None, FORMAT):
        raise SynthesisError(
            f"{path}: has format {header['format']!r}, this caprag knows {FORMAT}; use the caprag it was made with"
        )
    sound = (
        isinstance(header, dict)
        and type(header.get("format")) is int
        and header.get("container") in get_args(Container)
        and type(header.get("shard_size")) is int
        and header["shard_size"] >= 1
        and isinstance(header.get("settings"), dict)
    )
    if not sound:
        raise SynthesisError(f"{path}: has entries that no data set has; {remedy}")
    return dict(header)


def _open(folder: Path) -> tuple[Shards, int]:
    header = read_header(folder)
    return open_shards(folder, header["container"], header["shard_size"]), header["shard_size"]


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    """Name the file where one can't be read."""
    try:
        yield
    except OSError as error:
        raise SynthesisError(f"{error.filename or folder}: can't be read ({error.strerror}); {AGAIN}") from error


def count_rows(manifest: Path) -> int | None:
    """Return the number of rows that a manifest says it has; ``None`` where there is no sound one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(manifest).num_rows)
    except (pa.ArrowException, OSError):
        return None


def read_dataset(folder: Path) -> Iterator[tuple[Row, bytes]]:
    """Read a data set picture by picture, finished or not.

    Parameters
    ----------
    folder
        Either container.

    Yields
    ------
    tuple of dict and bytes
        Row and encoded picture, by number. The row has ``file_name`` (within its folder or tar), ``number`` and
        ``bytes`` beside the columns of the schema.

    Raises
    ------
    SynthesisError
        Where the folder is no data set, or a picture is damaged or missing.
    """
    folder = Path(folder)
    shards, size = _open(folder)
    expected, count = count_rows(folder / MANIFEST), 0
    with _named(folder):
        last = shards.count_shards() - 1
    for shard in range(last + 1):
        with _named(folder):
            for row, data in shards.read(shard):
                count += 1
                yield row, data
        if count < (shard + 1) * size and (shard < last or count < (expected or 0)):
            raise SynthesisError(f"{folder}: picture {count} is damaged or missing; {AGAIN}")
    if count < (expected or 0):
        raise SynthesisError(f"{folder}: picture {count} is missing; {AGAIN}")


def read_picture(folder: Path, number: int) -> tuple[Row, bytes]:
    """Read one picture of a data set and its row; only its shard is looked through.

    Raises
    ------
    SynthesisError
        Where the folder is no data set, or the picture is not in it or damaged.
    """
    folder = Path(folder)
    shards, size = _open(folder)
    if number >= 0:
        with _named(folder):
            for row, data in shards.read(number // size):
                if row["number"] == number:
                    return row, data
    raise SynthesisError(f"{folder}: has no whole picture {number}; {AGAIN}")


def count_pictures(folder: Path) -> int:
    """Return how many pictures a data set has, finished or not; only its last shard is looked into.

    Raises
    ------
    SynthesisError
        Where the folder is no data set.
    """
    folder = Path(folder)
    shards, size = _open(folder)
    with _named(folder):
        last = max(0, shards.count_shards() - 1)
        return last * size + sum(1 for _ in shards.rows(last))


def read_manifest(folder: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Read the manifest of a finished data set row by row.

    Parameters
    ----------
    folder
        A data set.
    columns
        Those wanted; ``None`` gives all.

    Yields
    ------
    dict
        ``file_name`` is the path from the data set's folder: ``pictures/00000/000000012.jpg``, or
        ``pictures/00000.tar/000000012.jpg`` for a member of a tar.

    Raises
    ------
    SynthesisError
        Where the folder is no data set, has no manifest (it is not finished), or it is damaged.
    ValueError
        For a column that it does not have.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    read_header(Path(folder))
    path = Path(folder) / MANIFEST
    again = "the command that made the data set finishes it and writes this file"
    if not path.exists():
        raise SynthesisError(f"{path}: is missing; {again}")
    try:
        with pq.ParquetFile(path) as table:
            missing = set(columns or ()) - set(table.schema_arrow.names)
            if missing:
                raise ValueError(f"{path}: has no column {sorted(missing)}; it has {table.schema_arrow.names}")
            for batch in table.iter_batches(_ROWS_AT_A_TIME, columns=columns):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise SynthesisError(f"{path}: can't be read ({error}); delete it: {again}") from error
