"""Rows of sentences: Arrow tables, in memory or mapped from a file, found by id.

Knows nothing of vectors and postings. Rows are appended and never changed; what was removed since is its owner's to
remember.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caprag.text import match_forms
from caprag.types import Sentence

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("text", pa.large_string()),
        # What readings are compared with; kept, since making it costs more than all else in a search.
        ("form", pa.large_string()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("line", pa.int32()),
        ("aliases", pa.list_(pa.string())),
    ]
)

Ids = npt.NDArray[np.int64]


class SentenceTable:
    """Sentences in the order of their ids.

    Parameters
    ----------
    stored
        The Arrow file to start from, mapped into memory; ``None`` starts empty.

    Raises
    ------
    pyarrow.ArrowException
        Where the file is not an Arrow file of sentences.
    """

    def __init__(self, stored: Path | None = None) -> None:
        # Each part is at least twice as long as the next, so that there are few of them and appending stays cheap.
        self._parts: list[pa.Table] = []
        self._ids: list[Ids] = []
        if stored is not None:
            # The map outlives this scope: the table's buffers hold on to it.
            table = pa.ipc.open_file(pa.memory_map(str(stored))).read_all()
            if table.schema != SCHEMA:
                raise pa.ArrowInvalid(f"its columns are {table.schema.names}, not {SCHEMA.names}")
            self._keep(table)

    def _keep(self, table: pa.Table) -> None:
        if len(table):
            self._parts.append(table)
            self._ids.append(np.asarray(table["id"].combine_chunks()))

    def __len__(self) -> int:
        return sum(map(len, self._ids))

    @property
    def ids(self) -> Ids:
        """All ids, ascending."""
        return np.concatenate([*self._ids, np.zeros(0, np.int64)])

    @property
    def last_id(self) -> int:
        """The greatest id; -1 without a row."""
        return int(self._ids[-1][-1]) if self._ids else -1

    def append(self, ids: Sequence[int], sentences: Sequence[Sentence]) -> None:
        """Append sentences in their written form, under ids that ascend and are greater than the last one."""
        texts = [s.text for s in sentences]
        columns = {
            "id": list(ids),
            "text": texts,
            "form": match_forms(texts) if texts else [],
            "source": pa.array([s.source for s in sentences], pa.string()).dictionary_encode(),
            "line": [s.line for s in sentences],
            "aliases": pa.array([list(s.aliases) for s in sentences], pa.list_(pa.string())),
        }
        self._keep(pa.table(columns).cast(SCHEMA))
        while len(self._ids) > 1 and len(self._ids[-2]) < 2 * len(self._ids[-1]):
            pair = [self._parts.pop(-2), self._parts.pop()]
            del self._ids[-2:]
            self._keep(_joined(pair))

    def find(self, ids: npt.ArrayLike) -> Ids:
        """Return the row of each id, -1 for an id that is not there: shape (len(ids),)."""
        wanted = np.asarray(ids, np.int64)
        rows = np.full(len(wanted), -1, np.int64)
        offset = 0
        for known in self._ids:
            places = np.searchsorted(known, wanted)
            inside = places < len(known)
            inside[inside] = known[places[inside]] == wanted[inside]
            rows[inside] = offset + places[inside]
            offset += len(known)
        return rows

    def column(self, name: str, rows: Ids) -> list[Any]:
        """Return the values of the column ``"text"``, ``"form"``, ``"source"`` or ``"line"`` in these rows."""
        values = np.empty(len(rows), object)
        offset = 0
        for part in self._parts:
            inside = (rows >= offset) & (rows < offset + len(part))
            if inside.any():
                values[inside] = part[name].take(pa.array(rows[inside] - offset)).to_pylist()
            offset += len(part)
        return list(values)

    def row(self, row: int) -> Sentence:
        """Return the sentence in a row."""
        for part in self._parts:
            if row < len(part):
                # Faster than `take`.
                (found,) = part.slice(row, 1).to_pylist()
                return Sentence(found["text"], found["source"], found["line"], tuple(found["aliases"]))
            row -= len(part)
        raise IndexError(row)

    def take(self, rows: Ids) -> list[Sentence]:
        """Return the sentences in these rows, which ascend."""
        found: list[Sentence] = []
        offset = 0
        for part in self._parts:
            inside = rows[(rows >= offset) & (rows < offset + len(part))] - offset
            values = part.take(pa.array(inside)).to_pylist() if len(inside) else []
            found += [Sentence(v["text"], v["source"], v["line"], tuple(v["aliases"])) for v in values]
            offset += len(part)
        return found

    def places(self) -> Iterator[tuple[int, str, int]]:
        """Yield id, source and line of each row that came from a file."""
        for part in self._parts:
            for batch in part.select(["id", "source", "line"]).to_batches():
                columns = [batch.column(i).to_pylist() for i in range(3)]
                yield from (row for row in zip(*columns, strict=True) if row[1])

    @classmethod
    def merge(cls, tables: Sequence[SentenceTable], keep: Sequence[npt.NDArray[np.bool_]]) -> SentenceTable:
        """Join tables into a new one, in the order of the ids.

        Parameters
        ----------
        tables
            What to join.
        keep
            For each of them which rows go along, shape (len(table),); no id twice among these.

        Returns
        -------
        SentenceTable
            In memory.
        """
        parts = [part for table in tables for part in table._parts]
        mask = np.concatenate([*keep, np.zeros(0, np.bool_)])
        whole = _joined(parts) if parts else SCHEMA.empty_table()
        if not mask.all():
            whole = whole.filter(pa.array(mask))
        ids = np.asarray(whole["id"].combine_chunks())
        if (ids[1:] < ids[:-1]).any():
            whole = whole.take(pa.array(np.argsort(ids, kind="stable")))
        merged = cls()
        merged._keep(whole.combine_chunks())
        return merged

    def save(self, path: Path) -> None:
        """Write a new Arrow file, in one uncompressed piece, so that it is mapped as it is."""
        whole = _joined(self._parts) if self._parts else SCHEMA.empty_table()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            writer.write_table(whole)


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()
