"""A data set on disk: written picture by picture, taken up again after any kill, read back.

::

    settings.json                     what decides the pictures
    pictures/00000/000000012.jpg      or pictures/00000.tar with 000000012.jpg, .json and .txt
    pictures/00000/metadata.jsonl     a row a picture
    manifest.parquet                  all rows, once the set is finished

The pictures and their rows are the only truth: how far a run came is read off them, and the manifest is made from
them. Knows nothing of what is in a picture or its row.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, get_args

from caprag.errors import SynthesisError
from caprag.paths import left_over, locked, replacing
from caprag.progress import progress_bar
from caprag.synthesis.containers import Container, Suffix, open_shards
from caprag.synthesis.reading import FORMAT, MANIFEST, SETTINGS, count_rows, read_header

if TYPE_CHECKING:
    import pyarrow as pa

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"

_ROWS_AT_A_TIME = 4096
# Of the first rows of a session each is checked against the schema, later every so many.
_ROWS_CHECKED = 200
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DatasetWriter:
    """Writes a data set, by one process and strictly in the order of the pictures' numbers.

    A run that was killed is gone on with by opening the same folder again: `done` pictures are there. What is not as
    it was written (a power cut, a deleted file) ends the count, and is made again with all that comes after it.

    Parameters
    ----------
    out
        Folder of the data set; it is made where it does not exist, and must be empty or this data set's.
    settings
        All that decides the pictures, as JSON takes it. How many there are to be does not belong to it: a set can be
        made larger.
    schema
        Columns of a row. The writer adds ``file_name``, ``number`` and ``bytes`` itself, whether they are in it or not.
    container
        See `Container`.
    shard_size
        Pictures in a folder or tar, >= 1.

    Attributes
    ----------
    done
        How many pictures are there; the number of the next one.

    Raises
    ------
    SynthesisError
        Where the folder can't be written, holds something else, another writer is in it, or it was begun with other
        settings (each is named).
    TypeError, ValueError
        For settings that are not JSON, an unknown container, or a shard size below 1.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import pyarrow as pa
    >>> folder = pathlib.Path(tempfile.mkdtemp()) / "字幕"
    >>> with DatasetWriter(folder, {"seed": 1}, pa.schema([("text", pa.string())])) as writer:
    ...     writer.write(0, b"...", ".jpg", {"text": "你好"})
    ...     writer.finish().name
    'manifest.parquet'
    >>> from caprag.synthesis.reading import read_dataset
    >>> [(row["number"], row["text"], data) for row, data in read_dataset(folder)]
    [(0, '你好', b'...')]
    """

    def __init__(
        self,
        out: Path,
        settings: Mapping[str, JSON],
        schema: pa.Schema,
        *,
        container: Container = "folders",
        shard_size: int = 1000,
    ) -> None:
        if shard_size < 1:
            raise ValueError(f"shard_size is {shard_size}; at least 1 is wanted")
        self.done: int = 0
        self._opened = False
        self._checked = 0
        self._out = Path(out)
        self._columns = _columns(schema)
        self._shards = open_shards(self._out, container, shard_size)
        # As a file gives it back: tuples are lists, numbers of a kind.
        header: dict[str, Any] = json.loads(
            json.dumps(
                {
                    "format": FORMAT, "container": container, "shard_size": shard_size,
                    "columns": {field.name: str(field.type) for field in self._columns}, "settings": settings,
                },
                allow_nan=False,
            )
        )  # fmt: skip
        with ExitStack() as stack:
            try:
                self._out.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(self._out, SynthesisError))
                stack.callback(self._shards.close)
                self._settle(header)
                self.done = self._shards.take_up()
                self._opened = True
            except OSError as error:
                self._fail(error)
            self._stack = stack.pop_all()

    def _settle(self, header: dict[str, Any]) -> None:
        """Claim an empty folder, or check that it is this data set's."""
        for path in self._out.iterdir():
            if left_over(path):
                path.unlink()
        path = self._out / SETTINGS
        if path.exists():
            differences = _differences(read_header(self._out), header)
            if differences:
                more = f"; and {len(differences) - 8} more" if len(differences) > 8 else ""
                raise SynthesisError(
                    f"{self._out}: was begun with other settings: {'; '.join(differences[:8])}{more}; "
                    "give the same ones, or choose another folder"
                )
        elif others := sorted(path.name for path in self._out.iterdir()):
            raise SynthesisError(
                f"{self._out}: is no data set ({SETTINGS} is missing) and holds {', '.join(others[:3])}"
                f"{' ...' if len(others) > 3 else ''}; choose an empty or a new folder"
            )
        else:
            with replacing(path) as stream:
                stream.write(json.dumps(header, indent=2, ensure_ascii=False).encode() + b"\n")

    def write(self, number: int, data: bytes, suffix: Suffix, row: Mapping[str, object]) -> None:
        """Write the next picture and its row.

        Parameters
        ----------
        number
            Must be `done`.
        data
            The encoded picture.
        suffix
            Says how it is encoded.
        row
            A value for each column of the schema, as JSON takes it.

        Raises
        ------
        SynthesisError
            Where the disk is full or the like; the picture is not there then, all before it are.
        TypeError, ValueError
            For another number, an unknown suffix, or a row that does not fit the schema.
        """
        import pyarrow as pa

        if number != self.done:
            raise ValueError(f"picture {number} was given, picture {self.done} is wanted")
        if suffix not in get_args(Suffix):
            raise ValueError(f"suffix is {suffix!r}; known are {' '.join(get_args(Suffix))}")
        wanted = set(self._columns.names) - _OWN.keys()
        if row.keys() - _OWN.keys() != wanted:
            raise ValueError(f"picture {number}: its row has {sorted(row)}, wanted are {sorted(wanted)}")
        given = {name: value for name, value in row.items() if name not in _OWN}
        try:
            # Now rather than when the run ends: that rows fit. They come from one program, so that a sample tells.
            if self._checked < _ROWS_CHECKED or number % _ROWS_CHECKED == 0:
                self._checked += 1
                (stored,) = pa.RecordBatch.from_pylist([given], schema=self._columns).to_pylist()
                _check_kept(given, stored)
                json.dumps(given, allow_nan=False, ensure_ascii=False).encode()
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ValueError(f"picture {number}: its row does not fit the schema ({error})") from error
        try:
            # A manifest, where there is one, is always of the whole set.
            (self._out / MANIFEST).unlink(missing_ok=True)
            self._shards.append(number, data, suffix, given)
        except OSError as error:
            self._fail(error)
        self.done += 1

    def finish(self, *, progress: bool = False) -> Path:
        """Write the manifest of all pictures that are there: the same rows give the same file.

        Parameters
        ----------
        progress
            Whether to show progress on stderr.

        Returns
        -------
        Path
            The manifest.

        Raises
        ------
        SynthesisError
            Where it can't be written; the pictures are safe then.
        """
        path = self._out / MANIFEST
        try:
            self._shards.finish()
            if count_rows(path) != self.done:
                with replacing(path) as stream:
                    self._write_manifest(stream, progress)
        except OSError as error:
            self._fail(error, path)
        return path

    def _write_manifest(self, stream: Any, progress: bool) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        written = 0
        with (
            pq.ParquetWriter(stream, self._columns, compression="zstd") as table,
            progress_bar(self.done, "manifest", " rows", show=progress) as bar,
        ):
            rows = chain.from_iterable(map(self._shards.rows, range(self._shards.count_shards())))
            while batch := list(islice(rows, _ROWS_AT_A_TIME)):
                named = [{**row, "file_name": self._shards.place(row)} for row in batch]
                table.write_table(pa.Table.from_pylist(named, schema=self._columns), row_group_size=_ROWS_AT_A_TIME)
                bar.update(len(batch))
                written += len(batch)
        if written != self.done:
            raise SynthesisError(f"{self._out}: picture {written} was changed meanwhile; run the same command again")

    def _fail(self, error: OSError, path: Path | None = None) -> NoReturn:
        remedy = "free some space" if error.errno in _FULL else "mend that, or choose another folder"
        safe = f". {self.done} pictures are safe, and the same command goes on after them" if self._opened else ""
        raise SynthesisError(
            f"{path or error.filename or self._out}: can't be written ({error.strerror or error}); {remedy}{safe}"
        ) from error

    def close(self) -> None:
        """Let others write there."""
        try:
            self._stack.close()
        except OSError as error:
            self._fail(error)

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_OWN = {"file_name": "string", "number": "int64", "bytes": "int64"}
"""Columns that the writer fills in."""


def _columns(schema: pa.Schema) -> pa.Schema:
    import pyarrow as pa

    own = [(name, pa.type_for_alias(kind)) for name, kind in _OWN.items()]
    return pa.schema([*own, *(field for field in schema if field.name not in _OWN)])


def _check_kept(given: object, stored: object, place: str = "") -> None:
    """Raise ValueError where Arrow dropped what the schema does not know, or cut a number to a whole one."""
    if isinstance(given, Mapping) and isinstance(stored, Mapping):
        for name, value in given.items():
            if name not in stored:
                raise ValueError(f"{place}{name} is not in it")
            _check_kept(value, stored[name], f"{place}{name}.")
    elif isinstance(given, (list, tuple)) and isinstance(stored, list):
        for value, kept in zip(given, stored, strict=True):
            _check_kept(value, kept, place)
    elif isinstance(stored, int) and given != stored:
        raise ValueError(f"{place.rstrip('.')} is {given!r}, a whole number is wanted")


def _differences(there: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name the settings that differ, with both values."""
    found = []
    for name in dict.fromkeys([*there, *now]):
        values = [side.get(name, _ABSENT) for side in (there, now)]
        if all(isinstance(value, dict) for value in values):
            inner = "" if not prefix and name == "settings" else f"{prefix}{name}."
            found += _differences(values[0], values[1], inner)
        elif values[0] != values[1] or type(values[0]) is not type(values[1]):
            shown = ["absent" if value is _ABSENT else _short(value) for value in values]
            found.append(f"{prefix}{name} is {shown[0]} there, {shown[1]} now")
    return found


_ABSENT = object()


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
