"""The verbs search and index: look at an index, build one, change it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caprag.cli.options import (
    Column,
    Complaints,
    Corpus,
    EmbedderName,
    Encoding,
    IndexFolder,
    K,
    Quiet,
    complain,
    finish,
    hidden,
    open_embedder,
    print_json,
    refuse,
    say,
)


def search(query: Annotated[str, typer.Argument(help="A reading.")], index: IndexFolder, k: K = 10,
           embedder: EmbedderName = None) -> None:  # fmt: skip
    """Show the sentences of an index that a reading may stand for, best first."""
    from caprag.retrieval import Index

    for hit in Index.load(index, embedder=open_embedder(embedder)).search(query, k):
        row = {
            "sentence_id": hit.id,
            "text": hit.text,
            "edit": hit.edit,
            "dense": hit.dense,
            "lexical": hit.lexical,
        }
        print_json(row)


def index_build(
    corpus: Corpus,
    out: Annotated[Path, typer.Option("--out", help="Index folder to make.")],
    factory: Annotated[str, typer.Option(help="FAISS factory string, e.g. Flat, HNSW32 or IVF1024,Flat.")] = "Flat",
    embedder: Annotated[str, typer.Option(help="shipped, or the folder or hub id of an embedder.")] = "shipped",
    column: Column = None,
    encoding: Encoding = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an index that is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Build an index of the sentences of text files."""
    from caprag.corpus import read_corpus
    from caprag.retrieval import Index

    if (out / "index.json").exists() and not force:
        refuse(f"{out} holds an index already; add to it (caprag index add), or replace it (--force)")
    complaints = Complaints()
    sentences = read_corpus(corpus, column=column, encoding=encoding, on_error=complaints)
    loaded = open_embedder(embedder)
    try:
        index = Index.build(sentences, loaded, factory=factory, progress=not hidden(quiet))
    except ValueError as error:
        refuse(str(error))
    index.save(out)
    say(f"{out}: {len(index)} sentences")
    finish(complaints.count, "lines")


def index_add(
    corpus: Corpus,
    index: IndexFolder,
    embedder: EmbedderName = None,
    column: Column = None,
    encoding: Encoding = None,
    quiet: Quiet = False,
) -> None:
    """Add the sentences of text files to an index; those that are there already are passed over."""
    from caprag.corpus import read_corpus
    from caprag.retrieval import Index

    complaints = Complaints()
    sentences = read_corpus(corpus, column=column, encoding=encoding, on_error=complaints)
    opened = Index.load(index, embedder=open_embedder(embedder))
    added = opened.add(sentences, progress=not hidden(quiet))
    if added:
        opened.save(index)
    say(f"{index}: {len(added)} sentences added, {len(opened)} in all")
    finish(complaints.count, "lines")


def index_remove(
    ids: Annotated[list[int], typer.Argument(help="Ids of sentences, as search shows them.")],
    index: IndexFolder,
    embedder: EmbedderName = None,
) -> None:
    """Remove sentences from an index; the ids of the others stay."""
    from caprag.retrieval import Index

    opened = Index.load(index, embedder=open_embedder(embedder))
    there = [number for number in dict.fromkeys(ids) if number in opened]
    missing = [number for number in dict.fromkeys(ids) if number not in opened]
    for number in missing:
        complain(f"{index}: has no sentence {number}")
    if there:
        opened.remove(there)
        opened.save(index)
    say(f"{index}: {len(there)} sentences removed, {len(opened)} left")
    finish(len(missing), "ids")


def index_info(index: Annotated[Path, typer.Argument(help="Index folder.")]) -> None:
    """Describe an index after checking its files: one JSON object."""
    from caprag.retrieval.storage import read_contents

    contents = read_contents(index)
    size = sum(file["size"] for file in contents["files"].values())
    print_json(
        {
            "index": str(index),
            "sentences": contents["count"],
            "factory": contents["factory"],
            "embedder": contents["embedder"],
            "bytes": size,
            "format": contents["format"],
        }
    )
