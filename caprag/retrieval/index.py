"""The index of a corpus: dense and lexical candidates, ranked by how well they explain a reading.

Puts the parts in a row: vectors, character n-grams, sentences, ranking. It knows readings and sentences as text;
whether a hit is the answer is decided elsewhere.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from caprag.errors import CorpusError, IndexFolderError, ModelError
from caprag.retrieval import intake, ranking, storage
from caprag.retrieval.embedder import load_embedder
from caprag.retrieval.segments import FLAT
from caprag.retrieval.store import Store
from caprag.retrieval.vectors import Ids, Vectors
from caprag.text import match_form, normalize
from caprag.types import Embedder, Hit, Sentence
from caprag.workers import available_cpus

_CHUNK = 16384
_QUERIES_AT_A_TIME = 512
_GREATEST_ID = 2**62

By = Literal["reading", "meaning"]
"""What a query is: a reading of the sentence itself, or words that mean the same."""


class Index:
    """Known sentences, found by readings of them. Build one with `Index.build`, open one with `Index.load`.

    What is added to a stored index goes into a segment of its own, and what is removed is remembered beside it, so that
    neither writes the whole again; `save` merges segments when they are many, `compact` merges all.

    Parameters
    ----------
    embedder
        Makes the vectors of sentences and readings.
    factory
        What kind of FAISS index holds the vectors, as a FAISS factory string.

    Raises
    ------
    ValueError
        For a factory string that FAISS does not know.

    References
    ----------
    Johnson, Douze and Jégou, Billion-scale similarity search with GPUs, IEEE TBD 7(3), 2021; the factory strings are
    those of the FAISS wiki. O'Neil et al., The Log-Structured Merge-Tree, Acta Informatica 33, 1996: the segments.
    """

    def __init__(self, embedder: Embedder, *, factory: str = FLAT) -> None:
        self._given: Embedder | None = embedder
        # What an index that was opened from a folder wants of its embedder.
        self._wanted: storage.EmbedderEntry | None = None
        self._store = Store(embedder.dimension, factory)

    @classmethod
    def build(
        cls,
        sentences: Iterable[Sentence | str],
        embedder: Embedder | None = None,
        *,
        factory: str = FLAT,
        vectors: npt.ArrayLike | None = None,
        progress: bool = False,
    ) -> Index:
        """Build an index in memory.

        Parameters
        ----------
        sentences
            In document order; a text that came before is passed over.
        embedder
            Makes the vectors; ``None`` takes the shipped one.
        factory
            FAISS factory string.
        vectors
            See `add`.
        progress
            Whether to show a progress bar on stderr.

        Returns
        -------
        Index
            Ids count from 0 in document order.

        Raises
        ------
        CorpusError
            Where there is no sentence.
        ValueError
            For a factory string that FAISS does not know or that needs more sentences to train on.

        Examples
        --------
        >>> index = Index.build(["妳在開玩笑嗎", "不會持續太久的"])
        >>> [hit.text for hit in index.search("妳在閒玩笑嗎", k=1)]
        ['妳在開玩笑嗎']
        """
        index = cls(embedder or load_embedder(), factory=factory)
        if not index.add(sentences, vectors=vectors, progress=progress):
            raise CorpusError("the corpus has no sentence; give at least one line of text")
        return index

    @property
    def embedder(self) -> Embedder:
        """The embedder of its vectors; of an index that was opened from a folder it is loaded now.

        Raises
        ------
        IndexFolderError
            Where the embedder that the folder names is not to be had, or has changed.
        """
        if self._given is None:
            place, wanted = self._store.folder, self._wanted
            try:
                embedder = load_embedder(wanted["name"] if wanted else "")
            except ModelError as error:
                raise IndexFolderError(
                    f"{place}: its embedder is not to be had ({error}); "
                    "name it (embedder=..., --embedder), or build the index again"
                ) from error
            self._check_embedder(embedder)
            self._given = embedder
        return self._given

    def _check_embedder(self, embedder: Embedder) -> None:
        wanted = self._wanted
        if wanted is not None and embedder.fingerprint != wanted["fingerprint"]:
            raise IndexFolderError(
                f"{self._store.folder}: was built with the embedder {wanted['name']!r} ({wanted['fingerprint'][:12]}), "
                f"not with {embedder.name!r} ({embedder.fingerprint[:12]}); load that one, or build the index again"
            )

    @property
    def factory(self) -> str:
        """The FAISS factory string it was made with."""
        return self._store.factory

    @property
    def parameters(self) -> str:
        """What FAISS weighs while searching, as it writes it; empty for the defaults. Set it to change them.

        Examples
        --------
        >>> index = Index.build(["妳在開玩笑嗎", "不會持續太久的"], factory="HNSW8")
        >>> index.parameters = "efSearch=64"
        """
        return self._store.parameters

    @parameters.setter
    def parameters(self, parameters: str) -> None:
        self._store.parameters = parameters

    @property
    def segments(self) -> list[int]:
        """The number of sentences in each of its segments, oldest first."""
        return self._store.segments

    @property
    def removed(self) -> list[int]:
        """The number of sentences that were removed from each of its segments and still take room there."""
        return self._store.removed

    def __len__(self) -> int:
        return len(self._store)

    def __iter__(self) -> Iterator[int]:
        """Yield the ids in ascending order."""
        return iter(self._store)

    def __contains__(self, number: object) -> bool:
        return hasattr(number, "__index__") and self._store.get(operator.index(number)) is not None

    def __getitem__(self, number: int) -> Sentence:
        """Return the sentence with this id; KeyError where there is none, TypeError for what is no int."""
        sentence = self._store.get(intake.check_id(number))
        if sentence is None:
            raise KeyError(number)
        return sentence

    def places(self) -> Iterator[tuple[int, str, int]]:
        """Yield id, source and line of each sentence that came from a file."""
        return self._store.places()

    def further_places(self) -> Iterator[tuple[int, str, int]]:
        """Yield id, source and line of each place where a sentence's text stands besides its own.

        What `add` passes over because its text is there is noted. A sentence keeps these places until it is removed or
        gets another text.
        """
        return self._store.further_places()

    def places_of(self, ids: Iterable[int]) -> dict[int, list[tuple[str, int]]]:
        """Return where the texts of sentences stand.

        Parameters
        ----------
        ids
            Of sentences; those that are not there are passed over.

        Returns
        -------
        dict of int to list
            Id to source and line of each of its places, its own first. A sentence that came from no file stands in the
            file ``""``, at the line of its id.
        """
        wanted = np.unique(np.fromiter(ids, np.int64))
        sources, lines = self._store.columns(wanted, "source", "line")
        found = {number: [(source, lines[number] if source else number)] for number, source in sources.items()}
        for number, source, line in self._store.further_places_of(list(found)):
            found[number].append((source, line))
        return found

    def pairs(self, ids: Iterable[int]) -> dict[tuple[int, int], tuple[str, str]]:
        """Return the sentences that stand one behind the other in a file, where `ids` have one of them.

        Parameters
        ----------
        ids
            Of sentences; those that are not there are passed over.

        Returns
        -------
        dict of tuple to tuple
            Ids to texts, ascending. Between the two lie at most two lines that are empty or no sentence; sentences
            that came from no file are taken for one file, in the order of their ids.
        """
        found = self._store.order().pairs(np.fromiter(ids, np.int64))
        (texts,) = self._store.columns(np.unique(np.array(found, np.int64)), "text")
        return {pair: (texts[pair[0]], texts[pair[1]]) for pair in found}

    def forget_places(self, sources: Collection[str]) -> None:
        """Forget the further places in these files; the sentences stay, and so do their own places."""
        self._store.forget(sources)

    @property
    def is_saved(self) -> bool:
        """Whether its folder has all its sentences, and where they stand."""
        return self._store.is_saved

    def texts(self) -> Iterator[tuple[int, str]]:
        """Yield the id and text of each sentence, ids ascending; many times as fast as one by one."""
        return self._store.texts()

    def find(self, text: str) -> int | None:
        """Return the id of the sentence that has this written form, ``None`` where there is none."""
        return self.find_batch([text])[0]

    def find_batch(self, texts: Sequence[str]) -> list[int | None]:
        """Return for each text the id of the sentence that has this written form, ``None`` where there is none."""
        return self._store.find([normalize(text) for text in texts])

    def frequency(self, gram: str) -> int:
        """Return the number of sentences that hold a character or pair of characters, in the matching form, >= 0."""
        return self._store.frequency(gram)

    def add(
        self,
        sentences: Iterable[Sentence | str],
        *,
        vectors: npt.ArrayLike | None = None,
        progress: bool = False,
    ) -> list[int]:
        """Add sentences; they are found at once.

        Parameters
        ----------
        sentences
            In document order; empty ones, and texts that are there already, are passed over, but where else they stand
            is noted (see `further_places`).
        vectors
            Their vectors, if they are known: shape (texts, dimension), rows of length 1, a row for each sentence's text
            followed by those of its aliases. ``None`` embeds them.
        progress
            Whether to show a progress bar on stderr.

        Returns
        -------
        list of int
            The new ids, ascending.

        Raises
        ------
        ValueError
            Where the factory wants training and there are too few sentences for it, or the vectors are not as many or
            as long as they should be, or one is not of length 1 (within 0.001).
        TypeError
            For a single string.
        IndexFolderError
            Where another writer has replaced the folder since the index was opened.
        """
        if isinstance(sentences, str):
            raise TypeError(f"sentences is the string {sentences[:20]!r}; a list of sentences is wanted")
        self._store.check_current()
        rows = intake.check_vectors(vectors, self._store.dimension)
        added: list[int] = []
        with tqdm(desc="index", unit=" sentences", disable=not progress) as bar:

            def vectors_of(given: Sequence[Sentence], places: Ids) -> Vectors:
                return self._embed(given) if rows is None else rows[places]

            chunks = intake.fresh(self._store, sentences, None if rows is None else len(rows))
            for chunk in intake.trained(self._store, chunks, vectors_of):
                ids = list(range(self._store.next_id, self._store.next_id + len(chunk.sentences)))
                found = self._embed(chunk.sentences, bar) if rows is None else rows[chunk.rows]
                self._store.append(ids, chunk.sentences, found)
                again = self._store.find([s.text for s in chunk.repeated])
                held = zip(again, chunk.repeated, strict=True)
                self._store.note([(i, s.source, s.line) for i, s in held if i is not None])
                added += ids
                # What was passed over counts too.
                bar.update(chunk.looked_at - (len(ids) if rows is None else 0))
        return added

    def _embed(self, sentences: Sequence[Sentence], bar: tqdm | None = None) -> Vectors:
        rows = [np.zeros((0, self._store.dimension), np.float32)]
        for start in range(0, len(sentences), _CHUNK):
            part = sentences[start : start + _CHUNK]
            rows.append(self.embedder.embed([text for s in part for text in (s.text, *s.aliases)]))
            if bar is not None:
                bar.update(len(part))
        return np.concatenate(rows)

    def upsert(self, sentences: Mapping[int, Sentence | str], *, vectors: npt.ArrayLike | None = None) -> list[int]:
        """Put sentences under ids of the caller's: those that are there are replaced, the others added.

        Parameters
        ----------
        sentences
            Id (>= 0) to sentence.
        vectors
            As in `add`, in the order of the mapping.

        Returns
        -------
        list of int
            The ids of sentences that are new or have changed, ascending.

        Raises
        ------
        ValueError
            For an id below 0 or from 2**62 on, an empty text, vectors that do not go with the texts, or too few
            sentences where the factory wants training; then nothing is changed.
        TypeError
            For an id that is no int; then nothing is changed.
        IndexFolderError
            As in `add`.

        Examples
        --------
        >>> index = Index.build(["妳在開玩笑嗎", "不會持續太久的"])
        >>> index.upsert({1: "不會再持續太久", 5: "現在終於實現了"})
        [1, 5]
        >>> index[1].text, len(index)
        ('不會再持續太久', 3)
        """
        self._store.check_current()
        given = {intake.check_id(number): intake.written(sentence) for number, sentence in sentences.items()}
        for number, sentence in given.items():
            if not 0 <= number < _GREATEST_ID or not sentence.text:
                raise ValueError(f"sentence {number} is {sentence.text!r}; an id from 0 to 2**62 and a text are wanted")
        counts = [1 + len(s.aliases) for s in given.values()]
        rows = intake.check_vectors(vectors, self._store.dimension)
        if rows is not None and len(rows) != sum(counts):
            raise ValueError(f"there are {len(rows)} vectors and {sum(counts)} texts; there must be one for each")
        starts = dict(zip(given, np.cumsum([0, *counts]).tolist(), strict=False))
        fresh = sorted(i for i, s in given.items() if self._store.get(i) != s)
        picked = [np.arange(starts[i], starts[i] + 1 + len(given[i].aliases)) for i in fresh]
        chosen = None if rows is None or not fresh else rows[np.concatenate(picked)]
        # Embedded before anything is removed: what fails then changes nothing.
        if chosen is None and fresh:
            chosen = self._embed([given[i] for i in fresh])
        if chosen is not None and not self._store.base.is_trained:
            self._store.base.train(chosen)
        before = {i: self._store.get(i) for i in fresh}
        there = {i: sentence.text for i, sentence in before.items() if sentence is not None}
        # A text goes on standing where else it stands.
        further = self._store.further_places_of([i for i, text in there.items() if text == given[i].text])
        self.remove(there)
        if chosen is not None:
            self._store.append(fresh, [given[i] for i in fresh], chosen)
            self._store.note(further)
        return fresh

    def remove(self, ids: Iterable[int]) -> None:
        """Remove sentences; the ids of the others stay.

        Parameters
        ----------
        ids
            Ids of sentences that are there.

        Raises
        ------
        KeyError
            For an id that is not there; then nothing is removed.
        TypeError
            For an id that is no int; then nothing is removed.
        IndexFolderError
            As in `add`.
        """
        self._store.check_current()
        wanted = sorted(set(map(intake.check_id, ids)))
        if wanted and wanted[-1] >= self._store.next_id:
            raise KeyError(wanted[-1])
        if wanted:
            self._store.remove(np.array(wanted, np.int64))

    def compact(self) -> None:
        """Merge all segments into one, without what was removed; BM25 forgets what is gone.

        Takes the time of building the index anew without embedding it; `save` writes the result.

        Raises
        ------
        IndexFolderError
            As in `add`.
        """
        self._store.check_current()
        self._store.compact()

    def search(self, query: str, k: int = 10, *, by: By = "reading") -> list[Hit]:
        """Find sentences for one reading; see `search_batch`."""
        return self.search_batch([query], k, by=by)[0]

    def search_batch(
        self, queries: Iterable[str], k: int = 10, *, by: By = "reading", candidates: int = 32
    ) -> list[list[Hit]]:
        """Find the sentences that readings may stand for.

        Parameters
        ----------
        queries
            Readings.
        k
            At most this many hits for each, >= 1.
        by
            ``"reading"`` ranks by how well a sentence explains the reading (see `caprag.retrieval.ranking`);
            ``"meaning"`` by reciprocal rank fusion of the dense and the lexical search, aliases included.
        candidates
            How many sentences each of the dense and the lexical search proposes, >= 1; `k` where that is more.

        Returns
        -------
        list of list of Hit
            Best first. Empty for a reading that has no letter or digit.

        Raises
        ------
        ValueError
            For `k` or `candidates` below 1, or an unknown `by`.
        TypeError
            For a single string, and for a query that is none.
        """
        queries = intake.check_queries(queries)
        if k < 1 or candidates < 1:
            raise ValueError(f"k is {k} and candidates is {candidates}; both must be at least 1")
        if by not in get_args(By):
            raise ValueError(f"by is {by!r}; known are {', '.join(get_args(By))}")
        results: list[list[Hit]] = [[] for _ in queries]
        depth = min(max(k, candidates), len(self))
        asked = [i for i, query in enumerate(queries) if match_form(query)] if depth else []
        for start in range(0, len(asked), _QUERIES_AT_A_TIME):
            places = asked[start : start + _QUERIES_AT_A_TIME]
            for place, hits in zip(places, self._search([queries[i] for i in places], k, depth, by), strict=True):
                results[place] = hits
        return results

    def _search(self, queries: Sequence[str], k: int, depth: int, by: By) -> list[list[Hit]]:
        written = [normalize(query) for query in queries]
        found = self.candidates(written, depth)
        if by == "meaning":
            return ranking.by_meaning(found, k)
        return ranking.by_reading(written, found, k)

    def candidates(self, queries: Iterable[str], depth: int = 32) -> list[ranking.Proposals]:
        """Return what the dense and the lexical search propose for readings in their written form, by id.

        Parameters
        ----------
        queries
            Readings as `caprag.normalize` returns them.
        depth
            How many sentences each of the two proposes, >= 1.

        Returns
        -------
        list of Proposals
            One for each query; empty where the index is.

        Raises
        ------
        ValueError
            For a `depth` below 1.
        TypeError
            As in `search_batch`.
        """
        queries = intake.check_queries(queries)
        if depth < 1:
            raise ValueError(f"depth is {depth}; it must be at least 1")
        # Postings are searched while the network and FAISS are at work: none of them holds the interpreter's lock.
        parts = np.array_split(np.arange(len(queries)), min(available_cpus(), len(queries)) or 1)
        with ThreadPoolExecutor(max_workers=len(parts)) as beside:
            postings = [beside.submit(self._store.lexical, [queries[i] for i in part], depth) for part in parts]
            dense = self._store.dense(self.embedder.embed(queries), depth)
            lexical = [found for part in postings for found in part.result()]
        numbers = np.array(sorted({i for rows in (dense, lexical) for row in rows for i in row}), np.int64)
        texts, forms = self._store.columns(numbers, "text", "form")
        proposed = []
        for cosines, bm25 in zip(dense, lexical, strict=True):
            # What was removed may stand in the postings of a folder that another writer has replaced.
            ids = [i for i in sorted(cosines.keys() | bm25.keys()) if i in texts]
            proposed.append(
                ranking.Proposals(
                    ids, [texts[i] for i in ids], [forms[i] for i in ids], list(map(cosines.get, ids)),
                    list(map(bm25.get, ids)),
                )
            )  # fmt: skip
        return proposed

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the index to a folder, which is made or whose index is replaced at one stroke.

        To the folder it was opened from only what has changed is written.

        Parameters
        ----------
        folder
            Where to.

        Raises
        ------
        IndexFolderError
            Where the folder can't be written, holds an ``index.json`` of something else, or was changed by another
            writer since this index was opened from it.
        """
        target = Path(folder)
        entry = self._wanted or {
            "name": self.embedder.name,
            "fingerprint": self.embedder.fingerprint,
            "dimension": self._store.dimension,
        }
        try:
            target.mkdir(parents=True, exist_ok=True)
            with storage.locked(target):
                self._store.save(target, entry)
        except (OSError, RuntimeError) as error:
            # FAISS raises the second kind.
            reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[-1]
            raise IndexFolderError(f"{target}: can't be written ({reason}); choose another folder") from error

    @classmethod
    def load(
        cls, folder: str | PathLike[str], *, embedder: Embedder | None = None, verify: bool | None = None
    ) -> Index:
        """Open an index folder; its files are mapped into memory, and read where a search needs them.

        Parameters
        ----------
        folder
            A folder that `save` wrote.
        embedder
            The embedder it was built with; ``None`` loads the one that the folder names, when it is first needed.
        verify
            Whether to read all files and compare their checksums; ``None`` does where they have 64 MB at most.

        Returns
        -------
        Index
            As it was saved; it does not see what other writers save later.

        Raises
        ------
        IndexFolderError
            Where the folder is missing, damaged or foreign, or was built with another embedder.
        """
        place = Path(folder)
        while True:
            before = storage.last_save(place)
            try:
                contents = storage.read_contents(place, verify=verify)
                store = Store.open(place, contents)
            except IndexFolderError:
                # A writer may have replaced it between its table of contents and its files.
                last = storage.last_save(place)
                if before is None or last is None or last["generation"] == before["generation"]:
                    raise
            else:
                break
        index = cls.__new__(cls)
        index._given, index._wanted, index._store = embedder, contents["embedder"], store
        if embedder is not None:
            index._check_embedder(embedder)
        return index

    def refresh(self) -> bool:
        """Open the folder again where another writer has saved to it; changes that were not saved are lost.

        Returns
        -------
        bool
            Whether there was something new.
        """
        if self._store.folder is None or self._store.is_current:
            return False
        opened = self.load(self._store.folder, embedder=self._given)
        self._wanted, self._store = opened._wanted, opened._store
        return True
