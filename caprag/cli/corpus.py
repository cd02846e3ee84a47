"""The verb corpus: raw text to a corpus of captions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caprag.cli.options import Complaints, Corpus, Encoding, Quiet, finish, hidden, refuse, say


def corpus(
    sources: Corpus,
    out: Annotated[
        Path, typer.Option("--out", help="File to write: .txt, or with source and line .tsv .csv .jsonl .parquet.")
    ],
    max_chars: Annotated[int, typer.Option(min=1, help="Most characters of a caption; longer text is split.")] = 15,
    min_chars: Annotated[
        int, typer.Option(min=1, help="Least characters of a caption; shorter pieces are dropped.")
    ] = 5,
    connectives: Annotated[str, typer.Option(help="Cut a long clause after or before a connective.")] = "after",
    column: Annotated[
        list[str] | None,
        typer.Option(help="Column or key of the text in csv, tsv, jsonl and parquet; may be given several times."),
    ] = None,
    roles: Annotated[
        str | None,
        typer.Option(help="Roles to take of chats in jsonl and parquet, e.g. assistant,user; all if not given."),
    ] = None,
    encoding: Encoding = None,
    convert: Annotated[
        str | None,
        typer.Option(help="Rewrite for Taiwan (tw; twp: with its words), Hong Kong (hk), or in Simplified (s)."),
    ] = None,
    charset: Annotated[
        str | None,
        typer.Option(help="Drop pieces with other characters than: those in this file, this encoding's (big5), these."),
    ] = None,
    drop_speakers: Annotated[
        bool,
        typer.Option("--drop-speakers", help="Drop lines with a speaker and a colon; else the speaker is stripped."),
    ] = False,
    brackets: Annotated[
        str, typer.Option(help="What goes of brackets: marks (and directions: 笑), content (all in them), or keep.")
    ] = "marks",
    near: Annotated[
        float | None,
        typer.Option(help="Drop what is so similar to an earlier line, e.g. 0.9 (1 - edits / length); 0.7 at least."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one for each CPU if not given.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print lengths and characters of what was kept.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw them to this png file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    quiet: Quiet = False,
) -> None:
    """Make a corpus of captions out of raw text: split, cleaned, without duplicates.

    List marks, Markdown, speaker tags, brackets and quotes are stripped. Text is cut at sentence ends, then (where it
    is too long) at commas, at connectives, and at the length itself, never within a Latin word or a number. What was
    dropped or changed is printed with reasons, counts and examples. The output is the same for any number of workers.
    """
    from caprag.corpus import CaptionRules, character_set, draw_statistics, prepare_corpus
    from caprag.errors import require

    if out.exists() and not force:
        refuse(f"{out} is there already; choose another file, or replace it (--force)")
    if plot is not None:
        if plot.suffix.lower() != ".png":
            refuse(f"{plot}: has the suffix {plot.suffix!r}; draw to .png")
        require("matplotlib", "plot")
    complaints = Complaints()
    try:
        rules = CaptionRules(
            max_chars=max_chars, min_chars=min_chars, drop_speakers=drop_speakers,
            charset=None if charset is None else character_set(charset),
            connectives=connectives, convert=convert, brackets=brackets,  # type: ignore[arg-type] # checked there
        )  # fmt: skip
        report = prepare_corpus(
            sources, out, rules, column=column or None, roles=_names(roles), encoding=encoding, near=near,
            workers=workers, on_error=complaints, progress=not hidden(quiet),
        )  # fmt: skip
    except ValueError as error:
        refuse(str(error))
    say(f"{report}\n{out}: {report.kept} lines")
    if stats:
        say(f"\n{report.statistics}")
    if plot is not None:
        draw_statistics(report.statistics, plot)
        say(f"{plot}: drawn")
    finish(complaints.count, "files or lines")


def _names(roles: str | None) -> list[str] | None:
    names = [name.strip() for name in (roles or "").split(",") if name.strip()]
    if roles is not None and not names:
        raise ValueError(f"roles is {roles!r}; name them, for example assistant,user")
    return names or None
