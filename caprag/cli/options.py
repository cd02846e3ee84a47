"""What the verbs share: options, complaints, and how they end."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from caprag.errors import CapragError
from caprag.results import Row

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
Risk = Annotated[
    float | None,
    typer.Option(
        help="Share of captions, of those the corpus lacks, that may be right as read and wrong as answered, such as "
        "0.002. [default: the reranker's]"
    ),
]
Words = Annotated[
    Path | None,
    typer.Option("--words", help="File of names and terms, one a line: no answer loses one that was read."),
]
NeverTouch = Annotated[
    Path | None, typer.Option("--never-touch", help="File of readings, one a line, that stay as they are.")
]
KeepMarks = Annotated[bool, typer.Option("--keep-marks", help="Give sentences the marks and spaces that were read.")]
PartsOfCaptions = Annotated[
    bool,
    typer.Option("--parts", help="Try any two sentences in a caption; harms more where none fits."),
]
NoSnap = Annotated[bool, typer.Option("--no-snap", help="Give every reading as it was read.")]
Explain = Annotated[
    bool, typer.Option("--explain", help="Add the sentences weighed and what spoke for the best (.jsonl).")
]
Column = Annotated[str | None, typer.Option(help="Column or key of the text in csv, tsv, jsonl and parquet.")]
Encoding = Annotated[str | None, typer.Option(help="Encoding of text files, e.g. big5; UTF-8 if not given.")]
K = Annotated[int, typer.Option("-k", "--k", min=1, help="Sentences to weigh or show.")]
Corpus = Annotated[
    list[Path], typer.Argument(help="Files, folders or patterns: txt srt vtt ass csv tsv jsonl parquet.")
]
HeldOut = Annotated[
    list[Path] | None,
    typer.Option("--held-out", help="Like DATA: read at each checkpoint, of which the best is kept; repeatable."),
]
PicturesFolder = Annotated[
    Path | None,
    typer.Option("--pictures", help="Folder that paths in files begin at; the file's own if not given."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


_SHOWN = 10
"""Lines of a file that are complained of for one reason."""
_OF_A_LINE = re.compile(r", line \d+")
_VARIES = re.compile(r"\d+|'[^']*'|0x[0-9a-f]+")


class Complaints:
    """Counts and prints errors that a batch goes on after; of those about lines of one file the first of a kind."""

    def __init__(self) -> None:
        self.count = 0
        self._kinds: Counter[str] = Counter()

    def __call__(self, error: CapragError) -> None:
        """Print an error and count it."""
        self.count += 1
        text = str(error)
        # What differs from line to line are numbers and what is quoted.
        kind = _VARIES.sub("", text) if _OF_A_LINE.search(text) else text
        self._kinds[kind] += 1
        if self._kinds[kind] <= _SHOWN:
            complain(text)
        elif self._kinds[kind] == _SHOWN + 1:
            complain(f"{text.partition(', line ')[0]}: has more lines like these; they are counted and not shown")


def open_embedder(name: str | None) -> SentenceEmbedder | None:  # type: ignore[name-defined] # noqa: F821
    """Load the embedder that was asked for, or None."""
    from caprag.retrieval import load_embedder

    return None if name is None else load_embedder(name)


def read_truths(path: Path, key: str | None = None, column: str | None = None) -> dict[str, str]:
    """Read what pictures or lines say: csv, jsonl and json by id and text; else name, tab, text, or a line each.

    Raises
    ------
    CapragError
        Where the file can't be read, or only some of its lines have a tab.
    """
    from caprag.evaluation.texts.reading import read_texts

    if path.suffix.lower() in (".csv", ".jsonl", ".json") or key is not None or column is not None:
        return {name: texts[0] for name, texts in read_texts(path, key=key, column=column).items()}
    try:
        lines = [line.rstrip("\r") for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise CapragError(f"{path}: can't be read ({error}); name a file of name, tab, text in UTF-8") from error
    tabs = [line.count("\t") for line in lines if line.strip()]
    if not any(tabs):
        return {str(number): line for number, line in enumerate(lines, 1) if line.strip()}
    if 0 in tabs:
        raise CapragError(f"{path}, line {tabs.index(0) + 1}: has no tab; wanted are name, tab, text")
    rows = [line.split("\t") for line in lines if line.strip()]
    return {row[0]: row[1] for row in rows}


def finish(failures: int, what: str) -> None:
    """End with status 1 where some items failed."""
    if failures:
        complain(f"{what}: {failures} failed, as said above")
        raise typer.Exit(1)


def hidden(quiet: bool) -> bool:
    """Say whether the progress bar stays away: where it is not wanted, or nobody looks."""
    return quiet or not sys.stderr.isatty()


def print_json(row: Row) -> None:
    """Print one object as one line."""
    sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")


def refuse(message: str) -> NoReturn:
    """Complain and end with status 2."""
    complain(message)
    raise typer.Exit(2)


def complain(message: str) -> None:
    """Print what is wrong."""
    sys.stderr.write(f"caprag: {message}\n")


def say(message: str) -> None:
    """Print a note."""
    sys.stderr.write(f"{message}\n")
