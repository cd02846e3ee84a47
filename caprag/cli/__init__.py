"""The command `caprag`: one verb for each thing a user does, in the order of the data.

Results go to stdout or --out, one JSON object a line; progress and complaints go to stderr. Exit status: 0 all well,
1 some items failed (each was named), 2 wrong use.
"""

from __future__ import annotations

import io
import sys

import typer

from caprag.cli import conversations, corpus, indexing, reading, synthesis
from caprag.cli.options import complain
from caprag.errors import CapragError

app = typer.Typer(
    help="Read the captions burnt into TV pictures and snap each to the sentence that was meant.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
index_app = typer.Typer(
    help="Build, change and describe indexes of known sentences.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(index_app, name="index")

# In the order of --help: where it belongs, its name, what it does, an example.
for group, name, verb, example in (
    (app, "corpus", corpus.corpus, "caprag corpus scripts/ --out corpus.txt"),
    (app, "synth", synthesis.synth,
     "caprag synth --text corpus.txt --backgrounds photos/ --out pictures --count 100000 --workers 2 --damage light"),
    (app, "conversations", conversations.conversations, "caprag conversations pictures/ --to llava --out train.json"),
    (app, "read", reading.read, "caprag read frames/ --index indexes/demo --out captions.jsonl"),
    (app, "snap", reading.snap,
     "caprag snap readings.txt --index indexes/demo, or ... | caprag snap - --index indexes/demo"),
    (app, "search", indexing.search, "caprag search 妳在閒玩笑嗎 --index indexes/demo -k 3"),
    (index_app, "build", indexing.index_build, "caprag index build scripts/*.srt --out indexes/drama --factory Flat"),
    (index_app, "add", indexing.index_add, "caprag index add episode12.srt --index indexes/drama"),
    (index_app, "remove", indexing.index_remove, "caprag index remove 17 18 --index indexes/drama"),
    (index_app, "info", indexing.index_info, "caprag index info indexes/demo"),
):  # fmt: skip
    group.command(name, epilog=f"Example: {example}")(verb)


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
        complain(str(error))
        sys.exit(2)
    except OSError as error:
        complain(f"{error.filename or 'the output'}: {error.strerror or error}; what was written before is kept")
        sys.exit(1)
