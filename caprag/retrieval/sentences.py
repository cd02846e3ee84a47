"""The sentences of an index: a memory-mapped Arrow file, with what was added and removed since.

Ids grow and are never used twice, so that a row's place is found by bisection.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from caprag.types import Sentence

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("text", pa.string()),
        ("source", pa.dictionary(pa.int32(), pa.string())),
        ("line", pa.int32()),
    ]
)
_ROWS_AT_A_TIME = 65536


class SentenceTable:
    """Sentences by id.

    Parameters
    ----------
    stored
        The Arrow file to start from, mapped into memory; ``None`` starts empty.
    next_id
        The id that the next sentence gets.

    Raises
    ------
    pyarrow.ArrowException
        Where the file is not an Arrow file of sentences.
    """

    def __init__(self, stored: Path | None = None, next_id: int = 0) -> None:
        if stored is None:
            self._table = SCHEMA.empty_table()
        else:
            # The map outlives this scope: the table's buffers hold on to it.
            self._table = pa.ipc.open_file(pa.memory_map(str(stored))).read_all().cast(SCHEMA)
        self._ids = np.asarray(self._table["id"].combine_chunks())
        self._added: dict[int, Sentence] = {}
        self._removed: set[int] = set()
        self.next_id = next_id

    def __len__(self) -> int:
        return len(self._ids) + len(self._added) - len(self._removed)

    def __contains__(self, number: int) -> bool:
        return number in self._added or self._row(number) is not None

    def __getitem__(self, number: int) -> Sentence:
        if number in self._added:
            return self._added[number]
        row = self._row(number)
        if row is None:
            raise KeyError(number)
        return Sentence(*(self._table[name][row].as_py() for name in ("text", "source", "line")))

    def text(self, number: int) -> str:
        """Return the text of a sentence; KeyError for an id that is not there."""
        if number in self._added:
            return self._added[number].text
        row = self._row(number)
        if row is None:
            raise KeyError(number)
        return str(self._table["text"][row].as_py())

    def _row(self, number: int) -> int | None:
        if number in self._removed:
            return None
        row = int(np.searchsorted(self._ids, number))
        return row if row < len(self._ids) and self._ids[row] == number else None

    def __iter__(self) -> Iterator[int]:
        """Yield the ids in ascending order."""
        yield from (int(i) for i in self._ids if int(i) not in self._removed)
        yield from self._added

    @property
    def last_id(self) -> int:
        """The greatest id in the stored file; -1 for an empty one."""
        return int(self._ids[-1]) if len(self._ids) else -1

    def add(self, sentences: Sequence[Sentence]) -> list[int]:
        """Append sentences and return their ids."""
        ids = list(range(self.next_id, self.next_id + len(sentences)))
        self._added.update(zip(ids, sentences, strict=True))
        self.next_id += len(sentences)
        return ids

    def remove(self, ids: Iterable[int]) -> None:
        """Remove sentences; KeyError for an id that is not there, and then nothing is removed."""
        wanted = list(dict.fromkeys(ids))
        for number in wanted:
            if number not in self:
                raise KeyError(number)
        for number in wanted:
            if self._added.pop(number, None) is None:
                self._removed.add(number)

    def save(self, path: Path) -> None:
        """Write the sentences that are there to a new Arrow file, uncompressed so that it can be mapped."""
        keep = self._table
        if self._removed:
            gone = np.fromiter(self._removed, np.int64)
            keep = keep.filter(pa.array(~np.isin(self._ids, gone)))
        added = pa.table(
            {
                "id": list(self._added),
                "text": [s.text for s in self._added.values()],
                "source": pa.array([s.source for s in self._added.values()], pa.string()).dictionary_encode(),
                "line": [s.line for s in self._added.values()],
            }
        ).cast(SCHEMA)
        whole = pa.concat_tables([keep, added]).unify_dictionaries().combine_chunks()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
            writer.write_table(whole, max_chunksize=_ROWS_AT_A_TIME)
