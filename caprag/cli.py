"""The command `caprag`: one verb for each thing a user does, in the order of the data.

Results go to stdout or --out, one JSON object a line; progress and complaints go to stderr. Exit status: 0 all well,
1 some items failed (each was named), 2 wrong use.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from caprag.errors import CapragError, CorpusError, FrameError
from caprag.results import ResultFile, Row, caption_row, encodable, path_name

app = typer.Typer(
    help="Read the captions burnt into TV pictures and snap each to the sentence that was meant.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
index_app = typer.Typer(
    help="Build, change and describe indexes of known sentences.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(index_app, name="index")

IndexFolder = Annotated[Path, typer.Option("--index", help="Index folder.", show_default=False)]
MaybeIndexFolder = Annotated[
    Path | None, typer.Option("--index", help="Index folder; without one every reading is kept.")
]
Out = Annotated[Path | None, typer.Option("--out", help="File to write (.jsonl or .csv); what it holds is kept.")]
EmbedderName = Annotated[
    str | None,
    typer.Option("--embedder", help="Folder or hub id of the embedder, if not the one the index names."),
]
RerankerFile = Annotated[Path | None, typer.Option("--reranker", help="File of a reranker, if not the shipped one.")]
Column = Annotated[str | None, typer.Option(help="Column or key of the text in csv, tsv, jsonl and parquet.")]
Encoding = Annotated[str | None, typer.Option(help="Encoding of text files, e.g. big5; UTF-8 if not given.")]
K = Annotated[int, typer.Option("-k", "--k", min=1, help="Sentences to weigh or show.")]
Corpus = Annotated[
    list[Path], typer.Argument(help="Files, folders or patterns: txt srt vtt ass csv tsv jsonl parquet.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def main() -> None:
    """Run the command and exit with its status."""
    if sys.stdout is None or sys.stderr is None:
        sys.exit(2)
    for stream in (sys.stdout, sys.stderr):
        # Whatever the locale says: captions and file names are not ASCII.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        app()
    except CapragError as error:
        _complain(str(error))
        sys.exit(2)
    except OSError as error:
        _complain(f"{error.filename or 'the output'}: {error.strerror}; what was written before is kept")
        sys.exit(1)


@app.command(epilog="Example: caprag read frames/ --index indexes/demo --out captions.jsonl")
def read(
    frames: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    index: MaybeIndexFolder = None,
    recognizer: Annotated[
        str, typer.Option(help="rapidocr, or the folder or hub id of a vision-language model.")
    ] = "rapidocr",
    n_best: Annotated[int, typer.Option(min=1, help="Hypotheses a picture.")] = 5,
    out: Out = None,
    embedder: EmbedderName = None,
    reranker: RerankerFile = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 8,
    device: Annotated[str | None, typer.Option(help="Where a vision-language model runs, e.g. cuda or cpu.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Its precision: float32, bfloat16 or float16.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What it is asked, if not for the caption.")] = None,
    quiet: Quiet = False,
) -> None:
    """Read the captions in pictures.

    One JSON object a picture, in the order of the input: image, text (the answer), read (as read), snapped,
    sentence_id, confidence, hypotheses. With --out a run that was stopped goes on where it was.
    """
    from tqdm import tqdm

    from caprag.pipeline import Pipeline
    from caprag.recognition import list_frames, load_recognizer, open_frame

    complaints = _Complaints()
    paths: list[Path] = []
    for given in frames:
        try:
            paths += list_frames([given])
        except FrameError as error:
            complaints(error)
        except OSError as error:
            complaints(FrameError(f"{given}: can't be looked up ({error.strerror}); check the name and its rights"))
    with ResultFile(out, "image") as results:
        waiting = [path for path in paths if path_name(path) not in results.done]
        if len(waiting) < len(paths):
            _say(f"{len(paths) - len(waiting)} of {len(paths)} pictures are in {out} already")
        given_options = {"device": device, "dtype": dtype, "prompt": prompt}
        options = {name: value for name, value in given_options.items() if value is not None}
        if options and recognizer == "rapidocr":
            _refuse(f"{', '.join(options)}: is for vision-language models; name one with --recognizer")
        try:
            reader = load_recognizer(recognizer, batch_size=batch_size, **options) if options else recognizer
        except (ValueError, RuntimeError) as error:
            _refuse(f"{recognizer}: {error}")
        pipeline = Pipeline.load(
            index, recognizer=reader, embedder=_embedder(embedder), reranker=reranker, n_best=n_best,
            batch_size=batch_size,
        )  # fmt: skip
        with tqdm(total=len(waiting), desc="read", unit=" frames", disable=_hide(quiet)) as bar:
            for start in range(0, len(waiting), batch_size):
                named, images = [], []
                for path in waiting[start : start + batch_size]:
                    try:
                        images.append(open_frame(path))
                        named.append(path)
                    except FrameError as error:
                        complaints(error)
                for path, caption in zip(named, pipeline.read_batch(images), strict=True):
                    results.write({"image": path_name(path), **caption_row(caption)})
                bar.update(min(batch_size, len(waiting) - start))
    _finish(complaints.count, "pictures")


@app.command(
    epilog="Example: caprag snap readings.txt --index indexes/demo   or   ... | caprag snap - --index indexes/demo"
)
def snap(
    readings: Annotated[str, typer.Argument(help="File of readings (txt srt ass csv jsonl parquet), or - for stdin.")],
    index: IndexFolder,
    out: Out = None,
    embedder: EmbedderName = None,
    reranker: RerankerFile = None,
    column: Column = None,
    encoding: Encoding = None,
    quiet: Quiet = False,
) -> None:
    """Snap readings that come from elsewhere to the sentences of an index.

    One JSON object a line, caption or row, in the order of the input: line, text (the answer), read, snapped,
    sentence_id, confidence. With --out a run that was stopped goes on where it was.
    """
    from tqdm import tqdm

    from caprag.pipeline import Pipeline

    rows, failures = _readings(readings, column, encoding)
    with ResultFile(out, "line") as results:
        for number, text in rows:
            if results.done.get(str(number), encodable(text)) != encodable(text):
                _refuse(f"{out}: its line {number} was made from another reading; choose another file")
        waiting = [(number, text) for number, text in rows if str(number) not in results.done]
        if len(waiting) < len(rows):
            _say(f"{len(rows) - len(waiting)} of {len(rows)} readings are in {out} already")
        pipeline = Pipeline.load(index, embedder=_embedder(embedder), reranker=reranker)
        with tqdm(total=len(waiting), desc="snap", unit=" lines", disable=_hide(quiet)) as bar:
            for start in range(0, len(waiting), 512):
                batch = waiting[start : start + 512]
                for (number, _), caption in zip(batch, pipeline.snap([text for _, text in batch]), strict=True):
                    results.write({"line": number, **caption_row(caption)})
                bar.update(len(batch))
    _finish(failures, "readings")


@app.command(epilog="Example: caprag search 妳在閒玩笑嗎 --index indexes/demo -k 3")
def search(query: Annotated[str, typer.Argument(help="A reading.")], index: IndexFolder, k: K = 10,
           embedder: EmbedderName = None) -> None:  # fmt: skip
    """Show the sentences of an index that a reading may stand for, best first."""
    from caprag.retrieval import Index

    for hit in Index.load(index, embedder=_embedder(embedder)).search(query, k):
        row = {
            "sentence_id": hit.id,
            "text": hit.text,
            "edit": hit.edit,
            "dense": hit.dense,
            "lexical": hit.lexical,
        }
        _print_json(row)


@index_app.command("build", epilog="Example: caprag index build scripts/*.srt --out indexes/drama --factory Flat")
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
        _refuse(f"{out} holds an index already; add to it (caprag index add), or replace it (--force)")
    complaints = _Complaints()
    sentences = read_corpus(corpus, column=column, encoding=encoding, on_error=complaints)
    loaded = _embedder(embedder)
    try:
        index = Index.build(sentences, loaded, factory=factory, progress=not _hide(quiet))
    except ValueError as error:
        _refuse(str(error))
    index.save(out)
    _say(f"{out}: {len(index)} sentences")
    _finish(complaints.count, "lines")


@index_app.command("add", epilog="Example: caprag index add episode12.srt --index indexes/drama")
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

    complaints = _Complaints()
    sentences = read_corpus(corpus, column=column, encoding=encoding, on_error=complaints)
    opened = Index.load(index, embedder=_embedder(embedder))
    added = opened.add(sentences, progress=not _hide(quiet))
    if added:
        opened.save(index)
    _say(f"{index}: {len(added)} sentences added, {len(opened)} in all")
    _finish(complaints.count, "lines")


@index_app.command("remove", epilog="Example: caprag index remove 17 18 --index indexes/drama")
def index_remove(
    ids: Annotated[list[int], typer.Argument(help="Ids of sentences, as search shows them.")],
    index: IndexFolder,
    embedder: EmbedderName = None,
) -> None:
    """Remove sentences from an index; the ids of the others stay."""
    from caprag.retrieval import Index

    opened = Index.load(index, embedder=_embedder(embedder))
    there = [number for number in dict.fromkeys(ids) if number in opened]
    missing = [number for number in dict.fromkeys(ids) if number not in opened]
    for number in missing:
        _complain(f"{index}: has no sentence {number}")
    if there:
        opened.remove(there)
        opened.save(index)
    _say(f"{index}: {len(there)} sentences removed, {len(opened)} left")
    _finish(len(missing), "ids")


@index_app.command("info", epilog="Example: caprag index info indexes/demo")
def index_info(index: Annotated[Path, typer.Argument(help="Index folder.")]) -> None:
    """Describe an index after checking its files: one JSON object."""
    from caprag.retrieval.storage import read_contents

    contents = read_contents(index)
    size = sum(file["size"] for file in contents["files"].values())
    _print_json(
        {
            "index": str(index),
            "sentences": contents["count"],
            "factory": contents["factory"],
            "embedder": contents["embedder"],
            "bytes": size,
            "format": contents["format"],
        }
    )


class _Complaints:
    """Counts and prints errors that a batch goes on after."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: CapragError) -> None:
        self.count += 1
        _complain(str(error))


def _readings(source: str, column: str | None, encoding: str | None) -> tuple[list[tuple[int, str]], int]:
    from caprag.corpus import decode_lines, read_rows

    if source == "-":
        items = list(decode_lines(Path("stdin"), encoding, sys.stdin.buffer))
    elif Path(source).is_file():
        items = list(read_rows(Path(source), column, encoding))
    else:
        raise CorpusError(f"{source}: no such file; name a file of readings, or - for stdin")
    complaints = _Complaints()
    rows = []
    for number, item in items:
        if isinstance(item, str):
            rows.append((number, item))
        else:
            complaints(item)
    return rows, complaints.count


def _embedder(name: str | None) -> SentenceEmbedder | None:  # type: ignore[name-defined] # noqa: F821
    from caprag.retrieval import load_embedder

    return None if name is None else load_embedder(name)


def _finish(failures: int, what: str) -> None:
    if failures:
        _complain(f"{failures} {what} failed; each is named above")
        raise typer.Exit(1)


def _hide(quiet: bool) -> bool:
    return quiet or not sys.stderr.isatty()


def _print_json(row: Row) -> None:
    sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


def _refuse(message: str) -> NoReturn:
    _complain(message)
    raise typer.Exit(2)


def _complain(message: str) -> None:
    sys.stderr.write(f"caprag: {message}\n")


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
