"""The index of a corpus: dense and lexical candidates, ranked by exact edit similarity.

Puts three parts in a row: vectors, character n-grams, sentences. It knows readings and sentences as text; whether a
hit is the answer is decided elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path

import pyarrow as pa
from rapidfuzz.distance import Levenshtein
from tqdm import tqdm

from caprag.errors import CorpusError, IndexFolderError, ModelError
from caprag.retrieval import storage
from caprag.retrieval.embedder import load_embedder
from caprag.retrieval.lexical import LexicalIndex
from caprag.retrieval.sentences import SentenceTable
from caprag.retrieval.vectors import VectorIndex
from caprag.text import match_form, normalize
from caprag.types import Embedder, Hit, Sentence

_CHUNK = 16384


class Index:
    """Known sentences, found by readings of them. Build one with `Index.build`, open one with `Index.load`.

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
    those of the FAISS wiki.
    """

    def __init__(self, embedder: Embedder, *, factory: str = "Flat") -> None:
        self._embedder = embedder
        self._factory = factory
        self._vectors = VectorIndex(embedder.dimension, factory)
        self._lexical = LexicalIndex()
        self._sentences = SentenceTable()
        # The folder that it was last opened from or saved to, and which save that was.
        self._opened: tuple[Path, int] | None = None

    @classmethod
    def build(
        cls,
        sentences: Iterable[Sentence | str],
        embedder: Embedder | None = None,
        *,
        factory: str = "Flat",
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
        if not index.add(sentences, progress=progress):
            raise CorpusError("the corpus has no sentence; give at least one line of text")
        return index

    @property
    def embedder(self) -> Embedder:
        """The embedder of its vectors."""
        return self._embedder

    @property
    def factory(self) -> str:
        """The FAISS factory string it was made with."""
        return self._factory

    def __len__(self) -> int:
        return len(self._sentences)

    def __iter__(self) -> Iterator[int]:
        """Yield the ids in document order."""
        return iter(self._sentences)

    def __contains__(self, number: int) -> bool:
        return number in self._sentences

    def __getitem__(self, number: int) -> Sentence:
        """Return the sentence with this id; KeyError where there is none."""
        return self._sentences[number]

    def find(self, text: str) -> int | None:
        """Return the id of the sentence that has this written form, ``None`` where there is none."""
        wanted = normalize(text)
        (candidates,) = self._lexical.find([wanted])
        return next((i for i in candidates if self._sentences.text(i) == wanted), None)

    def frequency(self, gram: str) -> int:
        """Return the number of sentences that hold a character or pair of characters, in the matching form, >= 0."""
        return self._lexical.frequency(gram)

    def add(self, sentences: Iterable[Sentence | str], *, progress: bool = False) -> list[int]:
        """Add sentences; they are found at once.

        Parameters
        ----------
        sentences
            In document order; empty ones, and texts that are there already, are passed over.
        progress
            Whether to show a progress bar on stderr.

        Returns
        -------
        list of int
            The new ids, ascending.

        Raises
        ------
        ValueError
            Where the factory wants training and there are too few sentences for it.
        TypeError
            For a single string.
        IndexFolderError
            Where another writer has replaced the folder since the index was opened.
        """
        if isinstance(sentences, str):
            raise TypeError(f"sentences is the string {sentences[:20]!r}; a list of sentences is wanted")
        self._check_current()
        added: list[int] = []
        pending = iter(sentences)
        with tqdm(desc="index", unit=" sentences", disable=not progress) as bar:
            # What trains needs all that comes first; what does not is fed in chunks that fit in memory.
            size = _CHUNK if self._vectors.is_trained else None
            while chunk := list(itertools.islice(pending, size)):
                fresh = self._new_sentences(chunk)
                if fresh:
                    vectors = self._embedder.embed([s.text for s in fresh])
                    if not self._vectors.is_trained:
                        self._vectors.train(vectors)
                    ids = self._sentences.add(fresh)
                    self._vectors.add(ids, vectors)
                    self._lexical.add(ids, [s.text for s in fresh])
                    added += ids
                bar.update(len(chunk))
        return added

    def _check_current(self) -> None:
        """Refuse a change to what another writer has replaced on disk."""
        if self._opened is not None and not self._lexical.intact():
            raise IndexFolderError(
                f"{self._opened[0]}: was changed since it was opened; open it again and repeat the change"
            )

    def _new_sentences(self, chunk: Sequence[Sentence | str]) -> list[Sentence]:
        given = [_written(s) for s in chunk]
        unique = {s.text: s for s in reversed(given) if s.text}
        texts = list(reversed(unique))
        known = self._lexical.find(texts) if len(self) else [[] for _ in texts]
        return [
            unique[text]
            for text, candidates in zip(texts, known, strict=True)
            if not any(self._sentences.text(i) == text for i in candidates)
        ]

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
        """
        self._check_current()
        wanted = list(dict.fromkeys(ids))
        self._sentences.remove(wanted)
        self._lexical.remove(wanted)
        self._vectors.remove(wanted)

    def search(self, query: str, k: int = 10) -> list[Hit]:
        """Find sentences for one reading; see `search_batch`."""
        return self.search_batch([query], k)[0]

    def search_batch(self, queries: Sequence[str], k: int = 10, *, candidates: int = 32) -> list[list[Hit]]:
        """Find the sentences that readings may stand for.

        Parameters
        ----------
        queries
            Readings.
        k
            At most this many hits for each, >= 1.
        candidates
            How many sentences each of the dense and the lexical search proposes, >= 1; `k` where that is more.

        Returns
        -------
        list of list of Hit
            Best first: by edit similarity, then by edit similarity of the written forms, cosine, and id. Empty for a
            reading that has no letter or digit.

        Raises
        ------
        ValueError
            For `k` or `candidates` below 1.
        TypeError
            For a single string.
        """
        if isinstance(queries, str):
            raise TypeError(f"queries is the string {queries[:20]!r}; a list of readings is wanted (or use search)")
        if k < 1 or candidates < 1:
            raise ValueError(f"k is {k} and candidates is {candidates}; both must be at least 1")
        depth = min(max(k, candidates), len(self))
        forms = [match_form(query) for query in queries]
        asked = [i for i, form in enumerate(forms) if form]
        results: list[list[Hit]] = [[] for _ in queries]
        if not asked or not len(self):
            return results
        written = [normalize(queries[i]) for i in asked]
        dense = self._dense(written, depth)
        lexical = self._lexical.search(written, depth)
        for place, text, by_vector, by_gram in zip(asked, written, dense, lexical, strict=True):
            bm25 = dict(by_gram)
            ranked = []
            for number in sorted(by_vector.keys() | bm25.keys()):
                sentence = self._sentences.text(number)
                edit = Levenshtein.normalized_similarity(forms[place], match_form(sentence))
                hit = Hit(number, sentence, edit, by_vector.get(number), bm25.get(number))
                ranked.append((-edit, -Levenshtein.normalized_similarity(text, sentence), -(hit.dense or 0.0), hit))
            ranked.sort(key=lambda entry: (*entry[:3], entry[3].id))
            results[place] = [entry[3] for entry in ranked[:k]]
        return results

    def _dense(self, texts: Sequence[str], depth: int) -> list[dict[int, float]]:
        # Vectors whose sentence was removed stay in some kinds of index: ask for as many more.
        stale = len(self._vectors) - len(self)
        rows = self._vectors.search(self._embedder.embed(texts), depth + stale)
        return [dict([(i, cosine) for i, cosine in row if i in self][:depth]) for row in rows]

    def save(self, folder: str | PathLike[str]) -> None:
        """Write the index to a folder, which is made or whose index is replaced at one stroke.

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
        try:
            target.mkdir(parents=True, exist_ok=True)
            with storage.locked(target):
                self._save(target)
        except (OSError, RuntimeError) as error:
            # FAISS raises the second kind.
            reason = getattr(error, "strerror", None) or str(error).strip().split("\n")[-1]
            raise IndexFolderError(f"{target}: can't be written ({reason}); choose another folder") from error

    def _save(self, target: Path) -> None:
        if storage.is_anothers(target):
            raise IndexFolderError(f"{target}: its {storage.CONTENTS} is no index's; choose another folder")
        last, parts = storage.last_save(target)
        if self._opened is not None and self._opened[0] == target.resolve() and self._opened[1] != last:
            raise IndexFolderError(f"{target}: was changed since it was opened; open it again and repeat the change")
        storage.clear_parts(target, parts)
        parts = storage.part_names(last + 1)
        self._vectors.save(target / parts["vectors"])
        self._sentences.save(target / parts["sentences"])
        self._lexical.save(target / parts["lexical"])
        storage.commit(
            target,
            {
                "format": storage.FORMAT,
                "generation": last + 1,
                "embedder": {
                    "name": self._embedder.name,
                    "fingerprint": self._embedder.fingerprint,
                    "dimension": self._embedder.dimension,
                },
                "factory": self._factory,
                "count": len(self),
                "next_id": self._sentences.next_id,
                "parts": parts,
                "files": {},
            },
        )
        self._opened = (target.resolve(), last + 1)
        if not self._lexical.intact():
            # It was opened from the save that has just been replaced.
            self._lexical = LexicalIndex(target / parts["lexical"])

    @classmethod
    def load(cls, folder: str | PathLike[str], *, embedder: Embedder | None = None) -> Index:
        """Open an index folder.

        Parameters
        ----------
        folder
            A folder that `save` wrote.
        embedder
            The embedder it was built with; ``None`` loads the one that the folder names.

        Returns
        -------
        Index
            Its sentences are mapped into memory.

        Raises
        ------
        IndexFolderError
            Where the folder is missing, damaged or foreign, or was built with another embedder.
        """
        place = Path(folder)
        contents = storage.read_contents(place)
        entry = contents["embedder"]
        if embedder is None:
            try:
                embedder = load_embedder(entry["name"])
            except ModelError as error:
                raise IndexFolderError(
                    f"{place}: its embedder is not to be had ({error}); "
                    "name it (embedder=..., --embedder), or build the index again"
                ) from error
        if embedder.fingerprint != entry["fingerprint"]:
            raise IndexFolderError(
                f"{place}: was built with the embedder {entry['name']!r} ({entry['fingerprint'][:12]}), not with "
                f"{embedder.name!r} ({embedder.fingerprint[:12]}); load that one, or build the index again"
            )
        index = cls.__new__(cls)
        index._embedder = embedder
        index._factory = contents["factory"]
        index._opened = (place.resolve(), contents["generation"])
        try:
            index._vectors = VectorIndex.load(place / contents["parts"]["vectors"], contents["factory"])
            index._sentences = SentenceTable(place / contents["parts"]["sentences"], contents["next_id"])
            index._lexical = LexicalIndex(place / contents["parts"]["lexical"])
        except (RuntimeError, ValueError, OSError, pa.ArrowException) as error:
            reason = str(error).strip().split("\n")[-1]
            raise IndexFolderError(f"{place}: can't be opened ({reason}); build the index again") from error
        counts = (len(index._sentences), len(index._lexical), contents["count"])
        if len(set(counts)) > 1 or len(index._vectors) < len(index) or index._sentences.last_id >= contents["next_id"]:
            raise IndexFolderError(f"{place}: its parts hold {counts} sentences; build the index again")
        return index


def _written(sentence: Sentence | str) -> Sentence:
    """Bring a sentence into the form that is stored: the written form, and a source that can be encoded."""
    if isinstance(sentence, str):
        return Sentence(normalize(sentence))
    source = sentence.source.encode("utf-8", "replace").decode("utf-8")
    return Sentence(normalize(sentence.text), source, sentence.line)
