"""Character n-grams by BM25: finds sentences that share characters and pairs of characters with a reading.

The one owner of tantivy, which keeps the postings on disk, adds and deletes, and skips blocks that can't reach the
best k. Texts are compared in `caprag.text.match_form`.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tantivy

from caprag.text import match_form

_WRITER_BYTES = 64_000_000
_LOCKS = (".tantivy-meta.lock", ".tantivy-writer.lock")


def grams(text: str) -> list[str]:
    """Return the single characters and pairs of neighbours of a text's matching form, each once, in order.

    Examples
    --------
    >>> grams("好啊！")
    ['好', '啊', '好啊']
    """
    form = match_form(text)
    return list(dict.fromkeys([*form, *(form[i : i + 2] for i in range(len(form) - 1))]))


class LexicalIndex:
    """An index of character n-grams.

    It works in a private temporary folder; a stored index is linked into it, so that what is on disk is never
    changed but by `save`, and may be read-only.
    """

    def __init__(self, stored: Path | None = None) -> None:
        self._folder = work = Path(tempfile.mkdtemp(prefix="caprag-lexical-"))
        # Goes without saying, where TemporaryDirectory would warn.
        weakref.finalize(self, shutil.rmtree, work, ignore_errors=True)
        if stored is not None:
            for file in stored.iterdir():
                (work / file.name).symlink_to(file.resolve())
        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("id", indexed=True, fast=True)
        builder.add_integer_field("digest", indexed=True, fast=False)
        builder.add_text_field("grams", tokenizer_name="whitespace", index_option="freq")
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema, path=str(work))
        self._index.reload()

    def __len__(self) -> int:
        return self._index.searcher().num_docs

    def add(self, ids: Sequence[int], texts: Sequence[str]) -> None:
        """Add sentences; they are found at once.

        Parameters
        ----------
        ids
            Their ids, not in use so far.
        texts
            Their texts, as many.
        """
        # One thread, so that the same sentences give the same postings.
        writer = self._index.writer(_WRITER_BYTES, 1)
        for number, text in zip(ids, texts, strict=True):
            document = tantivy.Document()
            document.add_integer("id", number)
            document.add_integer("digest", _digest(text))
            document.add_text("grams", " ".join(grams(text)))
            writer.add_document(document)
        self._commit(writer)

    def remove(self, ids: Iterable[int]) -> None:
        """Delete sentences by their ids; an unknown id is passed over.

        The statistics of BM25 forget them only when the engine next merges its segments.
        """
        writer = self._index.writer(_WRITER_BYTES, 1)
        for number in ids:
            writer.delete_documents_by_term("id", number)
        self._commit(writer)

    def _commit(self, writer: tantivy.IndexWriter) -> None:
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()

    def find(self, texts: Sequence[str]) -> list[list[int]]:
        """Return for each text the ids under which that very text may stand (by its digest)."""
        searcher = self._index.searcher()
        found: list[list[int]] = []
        for text in texts:
            query = tantivy.Query.term_query(self._schema, "digest", _digest(text))
            addresses = [address for _, address in searcher.search(query, limit=8, count=False).hits]
            found.append(sorted(int(i) for i in searcher.fast_field_values("id", addresses) if i is not None))
        return found

    def frequency(self, gram: str) -> int:
        """Return the number of sentences with a character or pair of characters, in the matching form."""
        # Not the engine's own document frequency, which counts deleted ones too.
        query = tantivy.Query.term_query(self._schema, "grams", gram, "freq")
        result: Any = self._index.searcher().search(query, limit=1, count=True)
        return int(result.count)

    def search(self, texts: Sequence[str], k: int) -> list[list[tuple[int, float]]]:
        """Find sentences for each text.

        Parameters
        ----------
        texts
            Readings.
        k
            At most this many sentences for each, >= 1.

        Returns
        -------
        list of list of (int, float)
            Ids and BM25 scores (> 0), best first; empty for a text that has no letter or digit.

        References
        ----------
        Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009.
        """
        searcher = self._index.searcher()
        results: list[list[tuple[int, float]]] = []
        for text in texts:
            terms = [
                (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "grams", gram, "freq"))
                for gram in grams(text)
            ]
            hits = searcher.search(tantivy.Query.boolean_query(terms), limit=k, count=False).hits if terms else []
            ids = searcher.fast_field_values("id", [address for _, address in hits])
            scored = [(int(i), float(hit[0])) for i, hit in zip(ids, hits, strict=True) if i is not None]
            results.append(sorted(scored, key=lambda pair: (-pair[1], pair[0])))
        return results

    def intact(self) -> bool:
        """Return whether all the files it works on are still there."""
        return all(file.exists() for file in self._folder.iterdir())

    def save(self, folder: Path) -> None:
        """Copy the index into a new folder."""
        folder.mkdir()
        for file in sorted(self._folder.iterdir()):
            if file.name not in _LOCKS:
                # Contents only: the engine's own files are private to the user that made them.
                shutil.copyfile(file, folder / file.name)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
