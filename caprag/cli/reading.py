"""The verbs read and snap: pictures to captions, readings to captions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from caprag.cli.options import (
    Column,
    Complaints,
    EmbedderName,
    Encoding,
    IndexFolder,
    MaybeIndexFolder,
    Out,
    Quiet,
    RerankerFile,
    finish,
    hidden,
    open_embedder,
    refuse,
    say,
)
from caprag.errors import CorpusError, FrameError
from caprag.results import ResultFile, caption_row, encodable, path_name


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

    complaints = Complaints()
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
            say(f"{len(paths) - len(waiting)} of {len(paths)} pictures are in {out} already")
        given_options = {"device": device, "dtype": dtype, "prompt": prompt}
        options = {name: value for name, value in given_options.items() if value is not None}
        if options and recognizer == "rapidocr":
            refuse(f"{', '.join(options)}: is for vision-language models; name one with --recognizer")
        try:
            reader = load_recognizer(recognizer, batch_size=batch_size, **options) if options else recognizer
        except (ValueError, RuntimeError) as error:
            refuse(f"{recognizer}: {error}")
        pipeline = Pipeline.load(
            index, recognizer=reader, embedder=open_embedder(embedder), reranker=reranker, n_best=n_best,
            batch_size=batch_size,
        )  # fmt: skip
        with tqdm(total=len(waiting), desc="read", unit=" frames", disable=hidden(quiet)) as bar:
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
    finish(complaints.count, "pictures")


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
                refuse(f"{out}: its line {number} was made from another reading; choose another file")
        waiting = [(number, text) for number, text in rows if str(number) not in results.done]
        if len(waiting) < len(rows):
            say(f"{len(rows) - len(waiting)} of {len(rows)} readings are in {out} already")
        pipeline = Pipeline.load(index, embedder=open_embedder(embedder), reranker=reranker)
        with tqdm(total=len(waiting), desc="snap", unit=" lines", disable=hidden(quiet)) as bar:
            for start in range(0, len(waiting), 512):
                batch = waiting[start : start + 512]
                for (number, _), caption in zip(batch, pipeline.snap([text for _, text in batch]), strict=True):
                    results.write({"line": number, **caption_row(caption)})
                bar.update(len(batch))
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
