"""Character n-grams by BM25: finds sentences that share characters and pairs of characters with a reading.

The one owner of tantivy, which keeps the postings on disk, adds and deletes, and skips blocks that can't reach the
best k. Texts are compared in `caprag.text.match_form`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tantivy

from caprag.errors import IndexFolderError
from caprag.text import match_form, match_forms

_WRITER_BYTES = 64_000_000
# Postings looked at for a text: the rarest n-grams say the most, the commonest cost the most.
_MOST_POSTINGS = 150_000
_MOST_COUNTS = 1 << 18
META = "meta.json"


def grams(text: str) -> list[str]:
    """Return the single characters and pairs of neighbours of a text's matching form, each once, in order.

    Examples
    --------
    >>> grams("好啊！")
    ['好', '啊', '好啊']
    """
    return _grams(match_form(text))


def _grams(form: str) -> list[str]:
    return list(dict.fromkeys([*form, *map("".join, itertools.pairwise(form))]))


class LexicalIndex:
    """An index of character n-grams.

    It works in a private temporary folder, into which stored files are linked: what is on disk is never changed, and
    may be read-only.

    Parameters
    ----------
    stored
        The files to start from, by the names that `files` gave them; ``None`` starts empty.
    """

    def __init__(self, stored: Mapping[str, Path] | None = None) -> None:
        self._folder = work = Path(tempfile.mkdtemp(prefix="caprag-lexical-"))
        # Goes without saying, where TemporaryDirectory would warn.
        weakref.finalize(self, _clear, work, os.getpid())
        for name, file in (stored or {}).items():
            (work / name).symlink_to(file.resolve())
        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("id", indexed=True, fast=True)
        builder.add_integer_field("digest", indexed=True, fast=False)
        builder.add_text_field("grams", tokenizer_name="whitespace", index_option="freq")
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema, path=str(work))
        self._index.reload()
        # Sentences with an n-gram: asking the engine costs as much as a short search.
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return self._index.searcher().num_docs

    def add(self, ids: Sequence[int], texts: Sequence[str], aliases: Sequence[Sequence[str]] | None = None) -> None:
        """Add sentences; they are found at once.

        Parameters
        ----------
        ids
            Their ids, not in use so far.
        texts
            Their texts, as many.
        aliases
            For each of them the further texts that stand for it.
        """
        # One thread, so that the same sentences give the same postings.
        writer = self._index.writer(_WRITER_BYTES, 1)
        rows = [(number, text, True) for number, text in zip(ids, texts, strict=True)]
        # Only a sentence's own text is looked up by `find`.
        rows += [(n, alias, False) for n, row in zip(ids, aliases or (), strict=aliases is not None) for alias in row]
        for (number, text, own), form in zip(rows, match_forms([text for _, text, _ in rows]), strict=True):
            document = tantivy.Document()
            document.add_integer("id", number)
            if own:
                document.add_integer("digest", _digest(text))
            document.add_text("grams", " ".join(_grams(form)))
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
        try:
            writer.commit()
            writer.wait_merging_threads()
        except ValueError as error:
            raise self._unwritable(error) from error
        self._index.reload()
        self._counts = {}

    def _unwritable(self, error: ValueError) -> IndexFolderError:
        reason = str(error).strip().split("\n")[0]
        return IndexFolderError(
            f"{self._folder}: postings can't be written there ({reason}); free some space, or name another folder for "
            "temporary files in TMPDIR"
        )

    def find(self, texts: Sequence[str]) -> list[list[int]]:
        """Return for each text the ids under which that very text may stand (by its digest)."""
        searcher = self._index.searcher()
        found: list[list[int]] = []
        for text in texts:
            digest = _digest(text)
            # A count is a look into the dictionary, a search costs ten times as much; most texts are new.
            if not searcher.doc_freq("digest", digest):
                found.append([])
                continue
            query = tantivy.Query.term_query(self._schema, "digest", digest)
            addresses = [address for _, address in searcher.search(query, limit=8, count=False).hits]
            found.append(sorted(int(i) for i in searcher.fast_field_values("id", addresses) if i is not None))
        return found

    def frequency(self, gram: str) -> int:
        """Return the number of texts with a character or pair of characters, in the matching form; aliases count."""
        # Not the engine's own document frequency, which counts deleted ones too.
        query = tantivy.Query.term_query(self._schema, "grams", gram, "freq")
        result: Any = self._index.searcher().search(query, limit=1, count=True)
        return int(result.count)

    def holding(self, gram: str) -> list[int]:
        """Return the ids of the sentences that `frequency` counts a text of, ascending."""
        searcher = self._index.searcher()
        query = tantivy.Query.term_query(self._schema, "grams", gram, "freq")
        hits = searcher.search(query, limit=max(1, self.frequency(gram)), count=False).hits
        ids = searcher.fast_field_values("id", [address for _, address in hits])
        return sorted({int(number) for number in ids if number is not None})

    def search(
        self, texts: Sequence[str], k: int, *, most_postings: int = _MOST_POSTINGS
    ) -> list[list[tuple[int, float]]]:
        """Find sentences for each text.

        Parameters
        ----------
        texts
            Readings.
        k
            At most this many sentences for each, >= 1.
        most_postings
            How many sentences with one of its n-grams are weighed for each text, counted by n-gram, >= 0: the rarest
            n-grams come first, one always. Bounds the time in large corpora.

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
                for gram in self._telling(searcher, grams(text), most_postings)
            ]
            best: dict[int, float] = {}
            limit = k
            while terms:
                hits = searcher.search(tantivy.Query.boolean_query(terms), limit=limit, count=False).hits
                ids = searcher.fast_field_values("id", [address for _, address in hits])
                for number, (score, _) in zip(ids, hits, strict=True):
                    if number is not None:
                        best[int(number)] = max(float(score), best.get(int(number), 0.0))
                # A sentence with aliases may be found by several of its texts.
                if len(best) >= k or len(hits) < limit:
                    break
                limit *= 2
            results.append(sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:k])
        return results

    def _telling(self, searcher: tantivy.Searcher, given: Sequence[str], most_postings: int) -> list[str]:
        """Choose the rarest n-grams, as long as their postings are few enough to look at."""
        if not given:
            return []
        # Other threads search and add meanwhile: what is known is only looked up, and replaced as a whole.
        known = self._counts
        counts = []
        for gram in given:
            count = known.get(gram)
            if count is None:
                count = known[gram] = searcher.doc_freq("grams", gram)
            counts.append(count)
        if len(known) > _MOST_COUNTS:
            self._counts = {}
        order = sorted(range(len(given)), key=lambda i: (counts[i], i))
        chosen: list[int] = []
        total = 0
        for place in order:
            total += counts[place]
            if chosen and total > most_postings:
                break
            if counts[place]:
                chosen.append(place)
        return [given[i] for i in sorted(chosen)]

    def has_deleted(self) -> bool:
        """Return whether the statistics still know of sentences that were removed."""
        meta = json.loads((self._folder / META).read_text(encoding="utf-8"))
        return any(segment["deletes"] is not None for segment in meta["segments"])

    def intact(self) -> bool:
        """Return whether all the files it works on are still there."""
        return (self._folder / META).exists() and all(path.exists() for path in self.files().values())

    def files(self) -> dict[str, Path]:
        """Return name and place of each file of its present state; all but ``meta.json`` never change."""
        meta = json.loads((self._folder / META).read_text(encoding="utf-8"))
        found = {META: self._folder / META}
        for segment in meta["segments"]:
            name = segment["segment_id"].replace("-", "")
            deletes = segment["deletes"]
            kept = None if deletes is None else f"{name}.{deletes['opstamp']}.del"
            for path in sorted(self._folder.glob(f"{name}.*")):
                if path.suffix != ".del" or path.name == kept:
                    found[path.name] = path
        return found

    def save(self, folder: Path, known: Collection[str] = ()) -> list[str]:
        """Copy its files into a folder, ``meta.json`` and those that are there already left out.

        Parameters
        ----------
        folder
            Where to; made if it is not there.
        known
            Names of files that lie there already.

        Returns
        -------
        list of str
            The names of all its files but ``meta.json``, sorted.
        """
        folder.mkdir(exist_ok=True)
        files = self.files()
        names = sorted(files.keys() - {META})
        for name in names:
            if name not in known:
                # Contents only: the engine's own files are private to the user that made them. At one stroke, since the
                # folder may be a copy of the one it was opened from, whose files have the same names.
                beside = folder / f"{name}.new"
                shutil.copyfile(files[name], beside)
                beside.replace(folder / name)
        return names

    def save_meta(self, path: Path) -> None:
        """Copy ``meta.json``, which says what the other files are, to a new file."""
        shutil.copyfile(self._folder / META, path)


def _clear(folder: Path, owner: int) -> None:
    """Delete a temporary folder, unless this is a forked child of the process that made it."""
    for _ in range(3):
        # The engine may write a lock while it is deleted.
        if os.getpid() == owner and folder.exists():
            shutil.rmtree(folder, ignore_errors=True)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)
