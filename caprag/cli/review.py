"""The verbs review and explain: look over what a run answered, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caprag.cli.options import EmbedderName, IndexFolder, RerankerFile, read_truths, refuse, say
from caprag.errors import CapragError

_SHOWN = 12


def review(
    results: Annotated[Path, typer.Argument(help="JSON lines that caprag read or snap wrote, best with --explain.")],
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("review.html"),
    pictures: Annotated[
        Path | None, typer.Option(help="Folder that the names of pictures begin at; the working folder if not given.")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(help="What they say: name, tab, text; csv, jsonl with id and text; or a line each."),
    ] = None,
    key: Annotated[str | None, typer.Option("--id", help="Column or key of the id in --truth. [default: id]")] = None,
    column: Annotated[str | None, typer.Option(help="Column or key of the text in --truth. [default: text]")] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Put the pictures into the page, made smaller.")] = False,
    title: Annotated[str | None, typer.Option(help="Of the page; the name of RESULTS if not given.")] = None,
) -> None:
    """Make a page of a run: picture, reading and answer side by side, what differs coloured, the doubtful ones first.

    One HTML file for a browser, used with the mouse or the keyboard alone. Captions are marked right, or typed anew;
    "Save corrections" writes them as JSON lines (key, read, truth) that caprag train reranker learns from.
    """
    from caprag.review import read_results, write_page

    truths = {} if truth is None else read_truths(truth, key, column)
    rows = read_results(results, pictures=pictures, truths=truths)
    if not rows:
        refuse(f"{results}: has no result")
    try:
        write_page(rows, out, title=title or results.stem, embed=embed)
    except OSError as error:
        raise CapragError(f"{out}: can't be written ({error.strerror}); choose another file") from error
    say(f"{out}: {len(rows)} captions")


def explain(
    readings: Annotated[list[str], typer.Argument(help="Readings, or pictures.")],
    index: IndexFolder,
    recognizer: Annotated[str, typer.Option(help="What reads pictures; see caprag read.")] = "caprag",
    embedder: EmbedderName = None,
    reranker: RerankerFile = None,
) -> None:
    """Say why a reading is snapped or kept: what was found, the runner-up, and each feature's share.

    Each reading or picture is decided by itself. Shares are nats for the sentence against the reading; together they
    are its log odds. Where a reading is kept, those of the reading say how sure it is.
    """
    from caprag.cli.options import open_embedder
    from caprag.pipeline import Pipeline
    from caprag.reranking.features import FEATURES
    from caprag.reranking.surety import ABOUT

    pipeline = Pipeline.load(
        index, recognizer=recognizer, embedder=open_embedder(embedder), reranker=reranker, in_order=False
    )
    for given in readings:
        caption = pipeline.read(given) if _is_file(given) else pipeline.snap([given])[0]
        typer.echo(f"{given}")
        for hypothesis in caption.hypotheses:
            typer.echo(f"  read       {hypothesis.text}  ({hypothesis.logprob:.2f} nats)")
        for name, hit in zip(("found", "runner-up"), caption.considered, strict=False):
            typer.echo(f"  {name:<10} {hit.text}  (sentence {hit.id})")
        what = "snapped to the sentence" if caption.hit is not None else "kept as read"
        if caption.parts:
            what = "in two parts"
        threshold = pipeline.reranker.weighed_by(caption.evidence).threshold
        typer.echo(f"  answer     {caption.text}  ({what}; {caption.confidence:.1%} sure, snaps from {threshold:.1%})")
        for part in caption.parts:
            typer.echo(f"  part       {part.text}  ({'kept' if part.hit is None else f'sentence {part.hit.id}'})")
        for name, share in list(pipeline.reranker.shares(caption.evidence).items())[:_SHOWN]:
            value = f" = {caption.evidence[name]:.2f}" if name in caption.evidence else ""
            typer.echo(f"  {share:+8.2f}   {name}{value}  {FEATURES.get(name, '')}")
        for name, (told, share) in pipeline.reranker.of_reading(caption).items():
            typer.echo(f"  {share:+8.2f}   reading: {name} = {told:.2f}  {ABOUT[name]}")


def _is_file(given: str) -> bool:
    try:
        return Path(given).is_file()
    except OSError:  # too long for a name
        return False
