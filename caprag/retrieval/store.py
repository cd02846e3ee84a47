"""What an index consists of: segments of sentences with vectors, and the postings of all; in memory and in a folder.

Knows nothing of embedders and of ranking: vectors come in with the sentences, candidates go out.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from caprag.errors import IndexFolderError
from caprag.retrieval import storage
from caprag.retrieval.lexical import META, LexicalIndex
from caprag.retrieval.order import Order
from caprag.retrieval.places import Place, Places
from caprag.retrieval.segments import FLAT, Segment, merge
from caprag.retrieval.sentences import SentenceTable
from caprag.retrieval.vectors import Ids, VectorIndex, Vectors
from caprag.types import Sentence

_CHUNK = 16384
# Small segments cost a little at each search: so many are kept apart, and of a share of the first one's size at most.
_MOST_SEGMENTS = 8
_LARGEST_SHARE = 1 / 16
_SMALL = 4096


class Store:
    """Sentences with vectors and postings.

    Parameters
    ----------
    dimension
        Length of a vector.
    factory
        FAISS factory string of the first segment; the others are small and exact.
    """

    def __init__(self, dimension: int, factory: str) -> None:
        self.dimension = dimension
        self.factory = factory
        self.next_id = 0
        self._parameters = ""
        self._segments = [Segment.empty(dimension, factory)]
        self._lexical = LexicalIndex()
        self._places = Places()
        self._order: Order | None = None
        # The folder that it was last opened from or saved to, and which save that was.
        self._opened: tuple[Path, int] | None = None
        # Every folder that it has been in, with the save of it that it knows.
        self._seen: dict[Path, int] = {}

    @classmethod
    def open(cls, folder: Path, contents: storage.Contents) -> Store:
        """Open what a table of contents names; IndexFolderError where it does not go together."""
        store = cls.__new__(cls)
        store.dimension = contents["embedder"]["dimension"]
        store.factory, store.next_id = contents["factory"], contents["next_id"]
        store._parameters = contents["search"]
        store._opened = (folder.resolve(), contents["generation"])
        store._seen = {folder.resolve(): contents["generation"]}
        try:
            store._segments = [_open_segment(folder, entry) for entry in contents["segments"]]
            if not len(store._segments[0].sentences):
                # What it was trained to, if anything, can't be added to where it lies.
                store._segments[0] = Segment.empty(store.dimension, store.factory)
            store._segments[0].vectors.tune(contents["search"])
            store._lexical = LexicalIndex(_postings(folder, contents))
            store._places = Places(folder / contents["places"] if contents["places"] else None)
            store._places.saved(contents["places"])
            store._order = None
        except (RuntimeError, ValueError, OSError, IndexError, pa.ArrowException) as error:
            reason = str(error).strip().split("\n")[-1]
            raise IndexFolderError(f"{folder}: can't be opened ({reason}); build the index again") from error
        if sum(store.segments) != contents["count"] or not store._is_sound:
            raise IndexFolderError(
                f"{folder}: its parts hold {sum(store.segments)} and {len(store._lexical)} sentences and not "
                f"{contents['count']}; build the index again"
            )
        return store

    @property
    def _is_sound(self) -> bool:
        """Whether sentences, vectors and postings go together; a change that was interrupted may leave them apart."""
        return (
            len(self._lexical) >= len(self)
            and max(self._places.last_id, *(segment.sentences.last_id for segment in self._segments)) < self.next_id
            and all(
                len(segment.vectors) >= len(segment.sentences) and segment.vectors.dimension == self.dimension
                for segment in self._segments
            )
        )

    @property
    def folder(self) -> Path | None:
        """The folder it was opened from or saved to."""
        return None if self._opened is None else self._opened[0]

    @property
    def is_current(self) -> bool:
        """Whether no other writer has saved to its folder since."""
        if self._opened is None:
            return True
        last = storage.last_save(self._opened[0])
        return last is not None and last["generation"] == self._opened[1]

    @property
    def is_saved(self) -> bool:
        """Whether its folder has all its sentences, and where they stand."""
        return (
            self._opened is not None
            and not self._places.changed
            and all(segment.entry is not None and not segment.changed for segment in self._segments)
        )

    @property
    def parameters(self) -> str:
        """What FAISS weighs while searching the first segment, as it writes it."""
        return self._parameters

    @parameters.setter
    def parameters(self, parameters: str) -> None:
        self._segments[0].vectors.tune(parameters)
        self._parameters = parameters

    @property
    def first(self) -> Segment:
        """The segment that has the factory."""
        return self._segments[0]

    @property
    def base(self) -> VectorIndex:
        """The vectors of the first segment."""
        return self.first.vectors

    @property
    def segments(self) -> list[int]:
        """The number of sentences in each segment, oldest first."""
        return [len(segment) for segment in self._segments]

    @property
    def removed(self) -> list[int]:
        """The number of rows of each segment that were removed."""
        return [len(segment.removed) for segment in self._segments]

    def __len__(self) -> int:
        return sum(self.segments)

    def __iter__(self) -> Iterator[int]:
        """Yield the ids in ascending order."""
        return iter(self.ids.tolist())

    @property
    def ids(self) -> Ids:
        """All ids, ascending."""
        return np.sort(np.concatenate([segment.ids for segment in self._segments]))

    def get(self, number: int) -> Sentence | None:
        """Return the sentence with this id, ``None`` where there is none."""
        # Greater ones may not even fit into the columns.
        for segment in self._segments if 0 <= number < self.next_id else ():
            row = int(segment.find([number])[0])
            if row >= 0:
                return segment.sentences.row(row)
        return None

    def columns(self, ids: Ids, *names: str) -> list[dict[int, Any]]:
        """Return for each named column a map from the ids that are there to its values."""
        columns: list[dict[int, Any]] = [{} for _ in names]
        for segment in self._segments:
            rows = segment.find(ids)
            there = rows >= 0
            for name, column in zip(names, columns, strict=True):
                column.update(zip(ids[there].tolist(), segment.sentences.column(name, rows[there]), strict=True))
        return columns

    def places(self) -> Iterator[tuple[int, str, int]]:
        """Yield id, source and line of each sentence that came from a file."""
        for segment in self._segments:
            gone = set(segment.removed.tolist())
            yield from (row for row in segment.sentences.places() if row[0] not in gone)

    def further_places(self) -> Iterator[Place]:
        """Yield id, source and line of each place where a text stands besides its sentence's own."""
        return iter(self._places)

    def further_places_of(self, ids: Sequence[int]) -> list[Place]:
        """Return those of some sentences."""
        return self._places.of(ids)

    def order(self) -> Order:
        """Return the sentences in the order of their files; made when it is first wanted, and after changes."""
        if self._order is None:
            sources, lines = self.columns(self.ids, "source", "line")
            # What came from no file stands in the order in which it came.
            own = ((number, source, lines[number] if source else number) for number, source in sources.items())
            self._order = Order(itertools.chain(own, self.further_places()))
        return self._order

    def note(self, places: Sequence[Place]) -> None:
        """Note where texts stand; what their sentences say of themselves is passed over."""
        self._order = None
        sources, lines = self.columns(np.unique([i for i, _, _ in places]).astype(np.int64), "source", "line")
        own = {(number, source, lines[number]) for number, source in sources.items()}
        self._places.add(place for place in places if place[0] in sources and place[1] and place not in own)

    def forget(self, sources: Collection[str]) -> None:
        """Forget that these files hold texts besides the sentences' own."""
        self._order = None
        self._places.forget(sources)

    def texts(self) -> Iterator[tuple[int, str]]:
        """Yield id and text of each sentence, ids ascending."""
        ids = self.ids
        for start in range(0, len(ids), _CHUNK):
            (texts,) = self.columns(ids[start : start + _CHUNK], "text")
            yield from sorted(texts.items())

    def find(self, texts: Sequence[str]) -> list[int | None]:
        """Return the id of the sentence with each written form, ``None`` where there is none."""
        candidates = self._lexical.find(texts)
        numbers = np.array(sorted({i for row in candidates for i in row}), np.int64)
        (known,) = self.columns(numbers, "text")
        return [
            next((i for i in row if known.get(i) == text), None) for text, row in zip(texts, candidates, strict=True)
        ]

    def frequency(self, gram: str) -> int:
        """Return the number of sentences that hold a character or pair of characters, in the matching form, >= 0."""
        if not self._has_aliases:
            return self._lexical.frequency(gram)
        # Postings tell aliases from sentences' own texts no more.
        (forms,) = self.columns(np.array(self._lexical.holding(gram), np.int64), "form")
        return sum(gram in form for form in forms.values())

    @property
    def _has_aliases(self) -> bool:
        return any(len(segment.vectors) > len(segment.sentences) for segment in self._segments)

    def append(self, ids: Sequence[int], sentences: Sequence[Sentence], vectors: Vectors) -> None:
        """Add sentences in their written form under ascending ids that are not in use.

        Parameters
        ----------
        ids
            Ascending.
        sentences
            As many.
        vectors
            Shape (texts, dimension): a row for each sentence's text, followed by those of its aliases.
        """
        if not sentences:
            return
        self._order = None
        # Postings first: it is their disk that may be full, and a posting without its sentence does no harm.
        self.next_id = max(self.next_id, ids[-1] + 1)
        self._lexical.add(ids, [s.text for s in sentences], [s.aliases for s in sentences])
        last = self._segments[-1]
        if last.entry is not None or not last.takes(ids[0]):
            last = Segment.empty(self.dimension, FLAT)
            self._segments.append(last)
        last.append(ids, sentences)
        last.vectors.add(np.repeat(np.asarray(ids, np.int64), [1 + len(s.aliases) for s in sentences]), vectors)

    def remove(self, ids: Ids) -> None:
        """Remove sentences; KeyError for an id that is not there, and then nothing is removed."""
        rows = np.array([segment.find(ids) >= 0 for segment in self._segments])
        if not rows.any(0).all():
            raise KeyError(int(ids[~rows.any(0)][0]))
        self._order = None
        self._lexical.remove(ids.tolist())
        for segment, there in zip(self._segments, rows, strict=True):
            segment.remove(ids[there].tolist())
        self._places.remove(ids)

    def check_current(self) -> None:
        """Refuse a change to what another writer has replaced on disk."""
        if self._opened is not None and not self.is_current:
            folder = self._opened[0]
            if not (folder / storage.CONTENTS).exists():
                raise IndexFolderError(f"{folder}: is gone since it was opened; save the index, and then change it")
            raise IndexFolderError(f"{folder}: was changed since it was opened; open it again and repeat the change")

    def dense(self, vectors: Vectors, k: int) -> list[dict[int, float]]:
        """Return for each query the ids and cosines of the nearest `k` sentences, best first."""
        rows = sum(len(segment.sentences) for segment in self._segments)
        texts = sum(len(segment.vectors) for segment in self._segments)
        wanted, depth = min(k, len(self)), k
        found = self._nearest(vectors, depth, k)
        # A sentence with aliases may be found by several of its texts: then ask for more.
        while texts > rows and depth < texts and any(len(best) < wanted for best in found):
            depth *= 2
            found = self._nearest(vectors, depth, k)
        return found

    def _nearest(self, vectors: Vectors, depth: int, k: int) -> list[dict[int, float]]:
        parts = [segment.search(vectors, depth) for segment in self._segments if len(segment)]
        if not parts:
            return [{} for _ in vectors]
        ids, cosines = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        order = np.argsort(-cosines, axis=1, kind="stable")
        ids, cosines = np.take_along_axis(ids, order, 1), np.take_along_axis(cosines, order, 1)
        found: list[dict[int, float]] = []
        for row, scores in zip(ids.tolist(), cosines.tolist(), strict=True):
            best: dict[int, float] = {}
            for number, cosine in zip(row, scores, strict=True):
                if number >= 0 and len(best) < k:
                    best.setdefault(number, cosine)
            found.append(best)
        return found

    def lexical(self, texts: Sequence[str], k: int) -> list[dict[int, float]]:
        """Return for each text the ids and BM25 scores of `k` sentences, best first."""
        return [dict(row) for row in self._lexical.search(texts, k)]

    def compact(self) -> None:
        """Merge all segments into one, without what was removed."""
        removed = any(len(segment.removed) for segment in self._segments)
        if len(self._segments) > 1 or removed:
            self._merge(len(self._segments))
        # A save may have merged segments before, and the postings remember more than these.
        if self._lexical.has_deleted():
            self._lexical = self._posted()

    def _posted(self) -> LexicalIndex:
        """Make the postings anew of the sentences."""
        postings = LexicalIndex()
        for segment in self._segments:
            ids = segment.ids
            for start in range(0, len(ids), _CHUNK):
                part = ids[start : start + _CHUNK]
                sentences = segment.sentences.take(segment.find(part))
                postings.add(part.tolist(), [s.text for s in sentences], [s.aliases for s in sentences])
        return postings

    def _merge(self, count: int) -> None:
        """Merge the first segments into the first one, or all but the first into one where `count` is 0."""
        if not count:
            self._segments[1:] = [merge(self._segments[1:])]
            return
        first = self._segments[0]
        vectors = first.vectors
        if first.entry is not None and self._opened is not None:
            path = self._opened[0] / first.entry["vectors"]
            # What is mapped can still be read where its file is gone.
            vectors = VectorIndex.load(path, first.factory, mapped=False) if path.exists() else vectors.copied()
        self._segments[:count] = [merge(self._segments[:count], vectors)]
        self.base.tune(self._parameters)

    def _tidy(self) -> None:
        """Merge segments where they are many, or have grown large beside the first."""
        others = sum(len(segment.sentences) for segment in self._segments[1:])
        if others > max(_SMALL, _LARGEST_SHARE * len(self._segments[0].sentences)):
            self._merge(len(self._segments))
        elif len(self._segments) > _MOST_SEGMENTS:
            self._merge(0)

    def save(self, folder: Path, embedder: storage.EmbedderEntry) -> None:
        """Write to a folder whose lock is held; to its own folder only what has changed.

        Raises
        ------
        IndexFolderError
            Where the folder holds something else, or was changed by another writer since.
        OSError, RuntimeError
            Where it can't be written.
        """
        if storage.is_anothers(folder):
            raise IndexFolderError(f"{folder}: its {storage.CONTENTS} is no index's; choose another folder")
        here = self._opened is not None and self._opened[0] == folder.resolve()
        last = storage.last_save(folder)
        seen = self._seen.get(folder.resolve())
        gone = not (folder / storage.CONTENTS).exists()
        if seen is not None and not gone and (last is None or last["generation"] != seen):
            raise IndexFolderError(f"{folder}: was changed since it was opened; open it again and repeat the change")
        if not self._is_sound:
            raise IndexFolderError(
                f"{folder}: is left as it was, since a change was interrupted; open it again and repeat the change"
            )
        known = last["files"] if here and last else {}
        # Greater than that of a save that is gone, which another reader may have open.
        generation = max(storage.last_generation(folder), seen or 0) + 1
        storage.clear(folder, last["files"].keys() if last else ())
        self._tidy()
        if not self._lexical.intact():
            # Its files went with the folder that it was opened from.
            self._lexical = self._posted()
        entries = [
            self._save_segment(folder, segment, f"{generation}-{place}", known)
            for place, segment in enumerate(self._segments)
        ]
        files = self._lexical.save(folder / storage.LEXICAL, {Path(name).name for name in known})
        meta = f"postings-{generation}.json"
        self._lexical.save_meta(folder / meta)
        places = self._save_places(folder / f"places-{generation}.arrow", known)
        contents: storage.Contents = {
            "format": storage.FORMAT,
            "generation": generation,
            "embedder": embedder,
            "factory": self.factory,
            "search": self._parameters,
            "count": len(self),
            "next_id": self.next_id,
            "segments": entries,
            "postings": {"meta": meta, "files": [f"{storage.LEXICAL}/{name}" for name in files]},
            "places": places,
            "files": {},
        }
        storage.commit(folder, contents, known)
        self._opened = (folder.resolve(), generation)
        self._seen[folder.resolve()] = generation
        for segment, entry in zip(self._segments, entries, strict=True):
            segment.entry, segment.changed = entry, False
        self._places.saved(places)
        if not here or not self._lexical.intact():
            # It was opened from a save that has just been replaced, or from another folder, which may go.
            self._lexical = LexicalIndex(_postings(folder, contents))

    def _save_places(self, path: Path, known: Mapping[str, storage.File]) -> str:
        """Write the further places, unless they are on disk; return the name of their file, empty where none are."""
        if not len(self._places):
            return ""
        if self._places.changed or self._places.entry not in known:
            self._places.save(path)
            return path.name
        return self._places.entry

    def _save_segment(
        self, folder: Path, segment: Segment, name: str, known: Mapping[str, storage.File]
    ) -> storage.SegmentEntry:
        """Write what is not on disk yet of one segment."""
        entry = segment.entry
        if entry is None or entry["sentences"] not in known or entry["vectors"] not in known:
            sentences, vectors = f"sentences-{name}.arrow", f"vectors-{name}.faiss"
            segment.save(folder / sentences, folder / vectors)
        else:
            sentences, vectors = entry["sentences"], entry["vectors"]
        removed = entry["removed"] if entry is not None else ""
        if len(segment.removed) and (segment.changed or removed not in known):
            removed = f"removed-{name}.npy"
            np.save(folder / removed, segment.removed, allow_pickle=False)
        return {"sentences": sentences, "vectors": vectors, "removed": removed, "factory": segment.factory}


def _open_segment(folder: Path, entry: storage.SegmentEntry) -> Segment:
    removed = np.load(folder / entry["removed"], allow_pickle=False) if entry["removed"] else np.zeros(0, np.int64)
    vectors = VectorIndex.load(folder / entry["vectors"], entry["factory"])
    segment = Segment(SentenceTable(folder / entry["sentences"]), vectors, entry["factory"], removed.tolist())
    segment.entry = entry
    return segment


def _postings(folder: Path, contents: storage.Contents) -> dict[str, Path]:
    files = {Path(name).name: folder / name for name in contents["postings"]["files"]}
    return {META: folder / contents["postings"]["meta"], **files}
