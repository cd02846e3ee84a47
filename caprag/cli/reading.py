"""The verbs read and snap: pictures to captions, readings to captions."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from caprag.cli.options import (
    Column,
    Complaints,
    EmbedderName,
    Encoding,
    Explain,
    KeepMarks,
    MaybeIndexFolder,
    NeverTouch,
    NoSnap,
    Out,
    PartsOfCaptions,
    Quiet,
    RerankerFile,
    Risk,
    Words,
    finish,
    hidden,
    open_embedder,
    refuse,
    say,
)
from caprag.errors import CorpusError, FrameError
from caprag.results import CSV_COLUMNS, TEXT_COLUMNS, ResultFile, caption_row, encodable, explained_row, path_name

if TYPE_CHECKING:
    from caprag.pipeline import Pipeline
    from caprag.types import Caption

Item = TypeVar("Item")


def read(
    frames: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    index: MaybeIndexFolder = None,
    recognizer: Annotated[
        str,
        typer.Option(
            help="caprag, rapidocr, id or folder of a vision-language model, a captioner's folder, a server's URL."
        ),
    ] = "caprag",
    served: Annotated[str | None, typer.Option(help="Which of a server's models, where it has several.")] = None,
    n_best: Annotated[int, typer.Option(min=1, help="Hypotheses a picture.")] = 5,
    out: Out = None,
    id_text: Annotated[
        bool,
        typer.Option("--id-text", help="Write --out as CSV of id,text alone; id is the file name less its suffix."),
    ] = False,
    embedder: EmbedderName = None,
    reranker: RerankerFile = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time; halved where memory runs out.")] = 8,
    device: Annotated[str | None, typer.Option(help="Where a vision-language model runs, e.g. cuda or cpu.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Its precision: float32 bfloat16 float16 int8 int4.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Folder or hub id of a PEFT adapter (LoRA) on top.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What it is asked, if not what its family expects.")] = None,
    crop: Annotated[
        str | None, typer.Option(help="What it sees: frame, band (the caption), parts (its rows one by one).")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends a reading; may be given again.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest reading, in tokens.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw hypotheses instead of searching them.")] = False,
    temperature: Annotated[float | None, typer.Option(help="Of the draws, above 0. [default: 1]")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw from the likeliest of this share. [default: 1]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draws. [default: 0]")] = None,
    keep_to: Annotated[
        str | None, typer.Option(help="Search among the index's sentences: soft (preferred) or hard (nothing else).")
    ] = None,
    bonus: Annotated[float | None, typer.Option(min=0, help="Nats a token for --keep-to soft. [default: 1]")] = None,
    risk: Risk = None,
    words: Words = None,
    never_touch: NeverTouch = None,
    keep_marks: KeepMarks = False,
    parts: PartsOfCaptions = False,
    no_snap: NoSnap = False,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Read the captions in pictures.

    One JSON object a picture, in the order of the input: image, text (the answer), read (as read), snapped,
    sentence_id, confidence, hypotheses. With --out a run that was stopped goes on where it was.
    """
    from tqdm import tqdm

    from caprag.pipeline import Pipeline
    from caprag.recognition import list_frames, load_recognizer
    from caprag.reranking import Kept

    complaints = Complaints()
    paths: list[Path] = []
    for given in frames:
        try:
            paths += list_frames([given])
        except FrameError as error:
            complaints(error)
        except OSError as error:
            complaints(FrameError(f"{given}: can't be looked up ({error.strerror}); check the name and its rights"))
    names = {path: path_name(Path(path.stem) if id_text else path) for path in paths}
    if id_text:
        if out is None or out.suffix.lower() != ".csv":
            refuse("--id-text writes CSV; name a file with --out, its suffix .csv")
        _refuse_same_names(names)
    options: dict[str, object] = {
        "device": device, "dtype": dtype, "prompt": prompt, "adapter": adapter, "crop": crop,
        "stop": stop or None, "max_new_tokens": max_new_tokens,
    }  # fmt: skip
    options = {name: value for name, value in options.items() if value is not None}
    _refuse_explained_table(out, explain)
    draws = {"temperature": temperature, "top_p": top_p, "seed": seed}
    draws = {name: value for name, value in draws.items() if value is not None}
    if draws and not sample:
        refuse(f"{', '.join(draws)}: is for draws; ask for them with --sample")
    if keep_to is not None and index is None:
        refuse("--keep-to keeps to the sentences of an index; name one with --index")
    if bonus is not None and keep_to != "soft":
        refuse("--bonus is for --keep-to soft")
    given_names = [*options, *(["sample"] if sample else []), *(["keep-to"] if keep_to else [])]
    if recognizer == "rapidocr" and given_names:
        refuse(f"{', '.join(given_names)}: is for vision-language models; name one with --recognizer")
    refuse_elsewhere(recognizer, given_names, served)
    if no_snap and keep_to is not None:
        refuse("--keep-to reads sentences of the index alone; leave out --no-snap")
    index = None if no_snap else index
    _refuse_without_snapping(index, words, never_touch, keep_marks, parts)
    key = "id" if id_text else "image"
    with ResultFile(out, key, TEXT_COLUMNS if id_text else CSV_COLUMNS) as results:
        waiting = [path for path in paths if names[path] not in results.done]
        if len(waiting) < len(paths):
            say(f"{len(paths) - len(waiting)} of {len(paths)} pictures are in {out} already")
        try:
            if sample:
                from caprag.recognition import Sampling

                options["sampling"] = Sampling(**draws)  # type: ignore[arg-type]
            if served is not None:
                from caprag.recognition.server import ServerRecognizer

                reader: Any = ServerRecognizer(recognizer, served, parallel=batch_size, **options)  # type: ignore[arg-type]
            else:
                needed = bool(options) or keep_to is not None
                reader = load_recognizer(recognizer, batch_size=batch_size, **options) if needed else recognizer
        except (ValueError, RuntimeError) as error:
            refuse(f"{recognizer}: {error}")
        try:
            pipeline = Pipeline.load(
                index, recognizer=reader, embedder=open_embedder(embedder), reranker=reranker, n_best=n_best,
                batch_size=batch_size, risk=risk, kept=Kept.read(words, never_touch), keep_marks=keep_marks,
                parts=parts,
            )  # fmt: skip
        except ValueError as error:
            refuse(str(error))
        if keep_to is not None:
            _keep_to(reader, pipeline.index, keep_to, 1.0 if bonus is None else bonus, (max_new_tokens or 64) - 1)
        paths = _without_broken(paths, lambda path: names[path] in results.done, complaints)
        again = _again(paths, lambda path: names[path] in results.done, pipeline)
        opened: deque[Path] = deque()
        with tqdm(total=len(again), desc="read", unit=" frames", disable=hidden(quiet)) as bar:
            pictures = _opened(again, opened, complaints, bar)
            for caption in pipeline.stream(pictures):
                path = opened.popleft()
                if names[path] not in results.done:
                    results.write({key: names[path], **caption_row(caption), **_explained(pipeline, caption, explain)})
    finish(complaints.count, "pictures")


def _again(items: Sequence[Item], done: Callable[[Item], bool], pipeline: Pipeline) -> Sequence[Item]:
    """Return what has to be read: what is missing, and what has a say in it."""
    missing = [place for place, item in enumerate(items) if not done(item)]
    if not missing or not pipeline.listens:
        return [items[place] for place in missing]
    return items[pipeline.heard_from(missing[0]) :]


def _without_broken(paths: Sequence[Path], done: Callable[[Path], bool], complaints: Complaints) -> list[Path]:
    """Leave out pictures that an earlier run went past, where they still can't be opened.

    They have no place among the captions, and nothing need be read again for them.
    """
    from caprag.recognition import open_frame

    last = max((place for place, path in enumerate(paths) if done(path)), default=-1)
    kept = []
    for place, path in enumerate(paths):
        if place < last and not done(path):
            try:
                open_frame(path)
            except FrameError as error:
                complaints(error)
                continue
        kept.append(path)
    return kept


def _refuse_explained_table(out: Path | None, wanted: bool) -> None:
    if wanted and out is not None and out.suffix.lower() == ".csv":
        refuse("--explain adds to JSON lines; name a file that ends in .jsonl with --out")


def _refuse_without_snapping(
    index: Path | None, words: Path | None, never_touch: Path | None, keep_marks: bool, parts: bool
) -> None:
    given = {
        "--words": words is not None, "--never-touch": never_touch is not None, "--keep-marks": keep_marks,
        "--parts": parts,
    }  # fmt: skip
    if index is None and (useless := [name for name, wanted in given.items() if wanted]):
        refuse(f"{', '.join(useless)}: is for snapping; name an index with --index, and leave out --no-snap")


def _explained(pipeline: Pipeline, caption: Caption, wanted: bool) -> dict[str, object]:
    return explained_row(caption, pipeline.reranker.shares(caption.evidence)) if wanted else {}


def _opened(paths: Iterable[Path], opened: deque[Path], complaints: Complaints, bar: Any) -> Iterator[Any]:
    """Open pictures as they are wanted, note those that could be, and go on past the others."""
    from caprag.recognition import open_frame

    for path in paths:
        try:
            picture = open_frame(path)
            opened.append(path)
            yield picture
        except FrameError as error:
            complaints(error)
        bar.update()


def _keep_to(reader: Any, index: Any, mode: str, bonus: float, most: int) -> None:
    from caprag.recognition import VLMRecognizer
    from caprag.recognition.constrained import SentenceConstraint

    if not isinstance(reader, VLMRecognizer):
        refuse("keep-to: is for vision-language models, and this is none; leave it away")
    texts = (text for _, text in index.texts())
    try:
        made = SentenceConstraint(texts, reader.tokenizer, mode, bonus, context=reader.context, max_tokens=max(1, most))  # type: ignore[arg-type]
    except ValueError as error:
        refuse(f"--keep-to {mode}: {error}")
    reader.constraint = made
    if made.left_out:
        say(
            f"{made.left_out} sentences of the index are longer than --max-new-tokens, or can't be written by the model"
        )


def refuse_elsewhere(recognizer: str, given: Iterable[str], served: str | None) -> None:
    """Refuse what a server does not understand, and --served without one.

    Parameters
    ----------
    recognizer
        What was given as --recognizer.
    given
        Names of the options that were given.
    served
        What was given as --served.
    """
    if not recognizer.startswith(("http://", "https://")):
        if served is not None:
            refuse(f"served: is for servers, and {recognizer} is none; leave it away")
    elif local := [name for name in given if name not in ("prompt", "max_new_tokens")]:
        refuse(f"{', '.join(local)}: is for models that run here, and {recognizer} is a server; leave it away")


def _refuse_same_names(names: Mapping[Path, str]) -> None:
    seen: dict[str, Path] = {}
    for path, name in names.items():
        if (other := seen.setdefault(name, path)) != path:
            refuse(f"{other} and {path} would have the same id, {name}; rename one, or leave out --id-text")


def snap(
    readings: Annotated[str, typer.Argument(help="File of readings (txt srt ass csv jsonl parquet), or - for stdin.")],
    index: MaybeIndexFolder = None,
    out: Out = None,
    embedder: EmbedderName = None,
    reranker: RerankerFile = None,
    column: Column = None,
    encoding: Encoding = None,
    risk: Risk = None,
    words: Words = None,
    never_touch: NeverTouch = None,
    keep_marks: KeepMarks = False,
    parts: PartsOfCaptions = False,
    no_snap: NoSnap = False,
    explain: Explain = False,
    quiet: Quiet = False,
) -> None:
    """Snap readings that come from elsewhere to the sentences of an index.

    One JSON object a line, caption or row, in the order of the input: line, text (the answer), read, snapped,
    sentence_id, confidence. With --out a run that was stopped goes on where it was.
    """
    from tqdm import tqdm

    from caprag.pipeline import Pipeline
    from caprag.reranking import Kept

    _refuse_explained_table(out, explain)
    if index is None and not no_snap:
        refuse("readings are snapped to the sentences of an index; name one with --index")
    _refuse_without_snapping(None if no_snap else index, words, never_touch, keep_marks, parts)
    rows, failures = _readings(readings, column, encoding)
    with ResultFile(out, "line") as results:
        for number, text in rows:
            if results.done.get(str(number), encodable(text)) != encodable(text):
                refuse(f"{out}: its line {number} was made from another reading; choose another file")
        waiting = [(number, text) for number, text in rows if str(number) not in results.done]
        if len(waiting) < len(rows):
            say(f"{len(rows) - len(waiting)} of {len(rows)} readings are in {out} already")
        try:
            pipeline = Pipeline.load(
                None if no_snap else index, embedder=open_embedder(embedder), reranker=reranker, risk=risk,
                kept=Kept.read(words, never_touch, encoding=encoding), keep_marks=keep_marks, parts=parts,
            )  # fmt: skip
        except ValueError as error:
            refuse(str(error))
        again = _again(rows, lambda row: str(row[0]) in results.done, pipeline)
        with tqdm(total=len(again), desc="snap", unit=" lines", disable=hidden(quiet)) as bar:
            for (number, _), caption in zip(
                again, pipeline.snap_stream([text for _, text in again], on_read=bar.update), strict=True
            ):
                if str(number) not in results.done:
                    results.write({"line": number, **caption_row(caption), **_explained(pipeline, caption, explain)})
    finish(failures, "readings")


def _readings(source: str, column: str | None, encoding: str | None) -> tuple[list[tuple[int, str]], int]:
    from caprag.corpus import decode_lines, read_rows

    if source == "-":
        items = list(decode_lines(Path("stdin"), encoding, sys.stdin.buffer))
    elif Path(source).is_file():
        items = list(read_rows(Path(source), column, encoding))
    else:
        raise CorpusError(f"{source}: no such file; name a file of readings, or - for stdin")
    complaints = Complaints()
    rows = []
    for number, item in items:
        if isinstance(item, str):
            rows.append((number, item))
        else:
            complaints(item)
    return rows, complaints.count
