"""Where else texts stand: a sentence is kept once, and all further lines that say the same are noted here.

A sentence's own source and line lie in its row. Knows ids, sources and lines, not texts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SCHEMA = pa.schema([("id", pa.int64()), ("source", pa.dictionary(pa.int32(), pa.string())), ("line", pa.int32())])

_ROW = np.dtype([("id", np.int64), ("source", np.int32), ("line", np.int32)])

Place = tuple[int, str, int]
"""Id, source and line."""


class Places:
    """Further places of sentences, each once; 16 bytes each.

    Parameters
    ----------
    stored
        The Arrow file to start from; ``None`` starts empty.

    Raises
    ------
    pyarrow.ArrowException
        Where the file is not an Arrow file of places.

    Examples
    --------
    >>> places = Places()
    >>> places.add([(7, "二.txt", 3), (7, "二.txt", 9), (2, "三.txt", 1)])
    >>> list(places)
    [(2, '三.txt', 1), (7, '二.txt', 3), (7, '二.txt', 9)]
    """

    def __init__(self, stored: Path | None = None) -> None:
        self._names: dict[str, int] = {}
        self._rows = np.zeros(0, _ROW)
        self._new: list[Place] = []
        self.entry = ""
        """The file it was opened from or saved to."""
        if stored is not None:
            with pa.OSFile(str(stored), "rb") as file:
                table = pa.ipc.open_file(file).read_all()
            if table.schema != SCHEMA:
                raise pa.ArrowInvalid(f"its columns are {table.schema.names}, not {SCHEMA.names}")
            table = table.unify_dictionaries().combine_chunks()
            if len(table):
                source = table["source"].chunk(0)
                self._names = {name: code for code, name in enumerate(source.dictionary.to_pylist())}
                self._rows = np.zeros(len(table), _ROW)
                for name, column in (("id", table["id"]), ("source", source.indices), ("line", table["line"])):
                    self._rows[name] = np.asarray(column)
        self._saved = self._rows

    def __len__(self) -> int:
        return len(self._settled())

    def __iter__(self) -> Iterator[Place]:
        """Yield the places by id, those of one id in the order in which their sources were first noted, and by line."""
        rows = self._settled()
        names = list(self._names)
        for number, source, line in rows.tolist():
            yield number, names[source], line

    @property
    def last_id(self) -> int:
        """The greatest id; -1 without a place."""
        rows = self._settled()
        return int(rows["id"][-1]) if len(rows) else -1

    @property
    def changed(self) -> bool:
        """Whether places came or went since it was opened or saved."""
        # Names keep their codes, so that what went and came again is the same.
        return not np.array_equal(self._settled(), self._saved)

    def of(self, ids: npt.ArrayLike) -> list[Place]:
        """Return the places of these sentences."""
        rows, names = self._settled(), list(self._names)
        chosen = rows[np.isin(rows["id"], np.asarray(ids, np.int64))]
        return [(number, names[source], line) for number, source, line in chosen.tolist()]

    def add(self, places: Iterable[Place]) -> None:
        """Note further places; one that is known is passed over."""
        self._new += places

    def _settled(self) -> npt.NDArray[np.void]:
        """Return all rows, sorted by id, source and line."""
        if self._new:
            names = self._names
            new = np.array([(i, names.setdefault(source, len(names)), n) for i, source, n in self._new], _ROW)
            whole = np.concatenate([self._rows, new])
            whole = whole[np.lexsort((whole["line"], whole["source"], whole["id"]))]
            first = np.ones(len(whole), bool)
            first[1:] = whole[1:] != whole[:-1]
            self._rows, self._new = whole[first], []
        return self._rows

    def forget(self, sources: Collection[str]) -> None:
        """Drop the places in these sources."""
        rows = self._settled()
        codes = [self._names[name] for name in sources if name in self._names]
        self._rows = rows[~np.isin(rows["source"], codes)]

    def remove(self, ids: npt.ArrayLike) -> None:
        """Drop the places of these sentences."""
        rows = self._settled()
        self._rows = rows[~np.isin(rows["id"], np.asarray(ids, np.int64))]

    def save(self, path: Path) -> None:
        """Write a new Arrow file."""
        rows = self._settled()
        used, codes = np.unique(rows["source"], return_inverse=True)
        names = list(self._names)
        source = pa.DictionaryArray.from_arrays(
            pa.array(codes, pa.int32()), pa.array([names[code] for code in used.tolist()], pa.string())
        )
        columns = {"id": pa.array(rows["id"]), "source": source, "line": pa.array(rows["line"])}
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            writer.write_table(pa.table(columns).cast(SCHEMA))

    def saved(self, name: str) -> None:
        """Remember that a file of this name holds all of them; empty for none."""
        self.entry, self._saved = name, self._settled()
