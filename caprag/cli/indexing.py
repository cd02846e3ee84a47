"""The verbs search and index: look at an index, build one, change it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from caprag.types import Sentence

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from caprag.retrieval import Index
    from caprag.retrieval.tuning import TuningReport


def search(query: Annotated[str, typer.Argument(help="A reading.")], index: IndexFolder, k: K = 10,
           embedder: EmbedderName = None) -> None:  # fmt: skip
    """Show the sentences of an index that a reading may stand for, best first."""
    from caprag.text import match_form

    if not match_form(query):
        refuse(f"{query!r} has no letter or digit; give a reading that has one")
    opened = _open_with_embedder(index, embedder)
    for hit in opened.search(query, k):
        row = {
            "sentence_id": hit.id,
            "text": hit.text,
            "edit": hit.edit,
            "dense": hit.dense,
            "lexical": hit.lexical,
        }
        print_json(row)


def _open_with_embedder(folder: Path, embedder: str | None) -> Index:
    """Open an index whose embedder is needed: that it is not to be had is said before anything is read."""
    from caprag.retrieval import Index

    opened = Index.load(folder, embedder=open_embedder(embedder))
    _ = opened.embedder
    return opened


def _list_files(corpus: Sequence[Path]) -> list[Path]:
    from caprag.corpus import list_files

    return list(dict.fromkeys(list_files(corpus)))


def _read_files(
    files: Sequence[Path], column: str | None, encoding: str | None, complaints: Complaints
) -> Iterator[Sentence]:
    """Read the sentences of files; a text that several of them hold comes from each, so that none is its only one."""
    from caprag.corpus import read_corpus

    for path in files:
        yield from read_corpus(path, column=column, encoding=encoding, on_error=complaints)


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
    from caprag.retrieval import Index

    if (out / "index.json").exists() and not force:
        refuse(f"{out} holds an index already; add to it (caprag index add), or replace it (--force)")
    if not (out / "index.json").exists() and out.is_dir() and any(out.iterdir()):
        say(f"{out} holds other files, which stay; the index is written beside them")
    complaints = Complaints()
    sentences = _read_files(_list_files(corpus), column, encoding, complaints)
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
    """Add the sentences of text files to an index; of those that are there already note where else they stand."""
    complaints = Complaints()
    sentences = _read_files(_list_files(corpus), column, encoding, complaints)
    opened = _open_with_embedder(index, embedder)
    added = opened.add(sentences, progress=not hidden(quiet))
    if not opened.is_saved:
        opened.save(index)
    say(f"{index}: {len(added)} sentences added, {len(opened)} in all")
    finish(complaints.count, "lines")


def index_upsert(
    corpus: Corpus,
    index: IndexFolder,
    embedder: EmbedderName = None,
    column: Column = None,
    encoding: Encoding = None,
    quiet: Quiet = False,
) -> None:
    """Bring an index up to date with text files that have changed since they were added.

    Lines that have changed are replaced under their ids, new ones added, and those that are gone from these files
    removed; a text that only moved keeps its id, and one that another file of the index holds stays. Name the files as
    they were named when they were added. After lines that can't be read nothing is removed.
    """
    from caprag.retrieval.sources import follow_sources

    complaints = Complaints()
    files = _list_files(corpus)
    sentences = list(_read_files(files, column, encoding, complaints))
    opened = _open_with_embedder(index, embedder)
    changes = follow_sources(
        opened, {str(path) for path in files}, sentences, remove=not complaints.count, progress=not hidden(quiet)
    )
    # Nothing is written where anything fails.
    if not opened.is_saved:
        opened.save(index)
    say(
        f"{index}: {changes.replaced} sentences replaced, {changes.added} added, {changes.removed} removed, "
        f"{changes.moved} moved, {len(opened)} in all"
    )
    finish(complaints.count, "lines")


def index_remove(
    ids: Annotated[list[int], typer.Argument(help="Ids of sentences, as search shows them.")], index: IndexFolder
) -> None:
    """Remove sentences from an index; the ids of the others stay, and no embedder is needed."""
    from caprag.retrieval import Index

    opened = Index.load(index)
    there = [number for number in dict.fromkeys(ids) if number in opened]
    missing = [number for number in dict.fromkeys(ids) if number not in opened]
    for number in missing:
        complain(f"{index}: has no sentence {number}")
    if there:
        opened.remove(there)
        opened.save(index)
    say(f"{index}: {len(there)} sentences removed, {len(opened)} left")
    finish(len(missing), "ids")


def index_compact(index: Annotated[Path, typer.Argument(help="Index folder.")]) -> None:
    """Merge all segments of an index into one, and forget what was removed; nothing is embedded again."""
    from caprag.retrieval import Index

    opened = Index.load(index)
    before = len(opened.segments)
    opened.compact()
    opened.save(index)
    say(f"{index}: {before} segments merged into one of {len(opened)} sentences")


def index_check(index: Annotated[Path, typer.Argument(help="Index folder.")], quiet: Quiet = False) -> None:
    """Read all of an index, compare its checksums, and say what is wrong and what to do about it."""
    from caprag.retrieval import Index
    from caprag.retrieval.storage import damages

    found = damages(index, progress=not hidden(quiet))
    for error in found:
        complain(str(error))
    if not found:
        # The parts are as they were written; this says whether they go together.
        opened = Index.load(index, verify=False)
        say(f"{index}: {len(opened)} sentences in {len(opened.segments)} segments, all as they were written")
    finish(len(found), "files")


def index_tune(
    index: Annotated[Path, typer.Argument(help="Index folder.")],
    recall: Annotated[float, typer.Option(help="Take the fastest setting with this recall, in (0, 1].")] = 0.99,
    ms: Annotated[float | None, typer.Option(help="Take the most exact within these milliseconds a query.")] = None,
    factories: Annotated[
        str | None, typer.Option(help='Compare kinds of index instead, e.g. "IVF1024,SQ8;HNSW32;PQ32x4fs".')
    ] = None,
    memory: Annotated[str | None, typer.Option(help="What the vectors may take, e.g. 8GB; with --factories.")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="File of readings; without one, sentences of its own are misread.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Nearest sentences that recall counts.")] = 1,
    sample: Annotated[int, typer.Option(min=1, help="Queries at most.")] = 1000,
    sentences: Annotated[int, typer.Option(min=1, help="Sentences to compare --factories on at most.")] = 100_000,
    vectors: Annotated[
        Path | None, typer.Option(help="Vectors of all texts (.npy), by ascending id; spares embedding them again.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="File to write what was measured to, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Picture of recall over time to draw (.png).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure only; change nothing.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Chooses and misreads the queries.")] = 0,
    embedder: EmbedderName = None,
    quiet: Quiet = False,
) -> None:
    """Find the search parameters of an index that give the recall or the speed wanted, and store them.

    The dense search is measured against exact search over the same vectors, on this machine.
    """
    from caprag.retrieval.tuning import compare_factories, tune_index

    opened = _open_with_embedder(index, embedder)
    asked = _readings(opened, queries, sample, seed)
    progress = not hidden(quiet)
    try:
        if factories is None:
            if memory is not None:
                refuse("--memory goes with --factories; the search parameters do not change the size")
            rows = None if vectors is None else _open_vectors(vectors)
            report = tune_index(
                opened, asked, sample=sample, k=k, target_recall=recall, max_milliseconds=ms, vectors=rows, seed=seed,
                progress=progress,
            )  # fmt: skip
        else:
            report = compare_factories(
                opened, [name.strip() for name in factories.split(";") if name.strip()], asked, sample=sample,
                sentences=sentences, k=k, target_recall=recall, max_milliseconds=ms,
                max_bytes=None if memory is None else _bytes(memory), seed=seed, progress=progress,
            )  # fmt: skip
    except ValueError as error:
        refuse(str(error))
    sys.stdout.write(f"{report}\n")
    best = report.chosen
    words = f"{best.factory} {best.parameters}".strip()
    if not report.reached:
        say(f"{index}: none is as wanted; the nearest to it is {words}, recall {best.recall:.4f}")
    if factories is not None:
        say(f"{index}: is as it was; a new index takes it with: caprag index build ... --factory {best.factory!r}")
    elif not dry_run:
        opened.save(index)
        say(f"{index}: searches with {best.parameters or 'nothing to weigh'} from now on")
    if out is not None:
        _write_report(report, out)
    if plot is not None:
        _plot_report(report, plot, k)


def _readings(index: Index, queries: Path | None, sample: int, seed: int) -> list[str]:
    """Read the queries from a file, or misread sentences of the index."""
    if queries is not None:
        from caprag.corpus import read_corpus

        return [sentence.text for sentence in read_corpus(queries)]
    import numpy as np

    from caprag.noise import NoiseChannel

    ids = np.random.default_rng(seed).permutation(np.array(list(index), np.int64))[:sample]
    return NoiseChannel.load().corrupt([index[i].text for i in ids.tolist()], seed=seed, misread_only=True)


def _open_vectors(path: Path) -> npt.NDArray[np.float32]:
    import numpy as np

    try:
        rows: npt.NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        refuse(f"{path}: is no file of vectors ({error}); write one with numpy.save")
    return rows


def _bytes(size: str) -> int:
    """Read a size: 8GB, 500 MB, 1000."""
    found = re.fullmatch(r"\s*([\d.]+)\s*([kMGT]?)(i?)B?\s*", size, re.IGNORECASE)
    if found is None or found[1].count(".") > 1 or found[1] == ".":
        refuse(f"{size!r} is no size; write it like 8GB, 500MB or 1GiB")
    return int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))


def _write_report(report: TuningReport, path: Path) -> None:
    import dataclasses
    import json

    from caprag.paths import replacing

    with replacing(path) as stream:
        text = json.dumps(dataclasses.asdict(report), indent=2, ensure_ascii=False)
        stream.write(f"{text}\n".encode())


def _plot_report(report: TuningReport, path: Path, k: int) -> None:
    from caprag.evaluation.plots import Curve, draw_curves

    curves = []
    for factory in dict.fromkeys(row.factory for row in report.rows):
        rows = sorted((row for row in report.rows if row.factory == factory), key=lambda row: row.milliseconds)
        columns = [(r.milliseconds, r.recall, *r.interval) for r in rows]
        x, y, low, high = (tuple(column) for column in zip(*columns, strict=True))
        curves.append(Curve(factory, x, y, low, high))
    draw_curves([("", curves)], path, x_label="milliseconds a query", y_label=f"recall@{k}", log=True)


def index_info(index: Annotated[Path, typer.Argument(help="Index folder.")]) -> None:
    """Describe an index without reading it: one JSON object. `caprag index check` reads all of it."""
    from caprag.retrieval import Index
    from caprag.retrieval.storage import read_contents

    contents = read_contents(index, verify=False)
    opened = Index.load(index, verify=False)
    print_json(
        {
            "index": str(index),
            "sentences": contents["count"],
            "segments": opened.segments,
            "removed": opened.removed,
            "factory": contents["factory"],
            "parameters": contents["search"],
            "embedder": contents["embedder"],
            "bytes": sum(file["size"] for file in contents["files"].values()),
            "format": contents["format"],
        }
    )
