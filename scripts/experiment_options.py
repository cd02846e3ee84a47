"""The options of scripts/experiment: its own, and those of the verbs that it calls, read off the verbs themselves.

Knows no step's work.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import typer.main

import caprag.cli
from caprag.errors import CapragError

VERBS = {
    "corpus": ("corpus",), "synth": ("synth",), "conversations": ("conversations",), "train": ("train", "recognizer"),
    "read": ("read",),
}  # fmt: skip
"""The steps that are verbs."""

SET_HERE = {
    "corpus": {"out", "force", "quiet"},
    "synth": {"text", "out", "each", "show_recipe", "preview", "column", "encoding", "container", "quiet"},
    "conversations": {"out", "relative_to", "absolute", "source_form", "encoding", "quiet"},
    "train": {
        "out", "model", "recipe", "held_out", "pictures", "work", "text", "count", "backgrounds", "fonts", "size",
        "damage", "looks", "quiet",
    },
    "read": {"recognizer", "served", "adapter", "out", "id_text", "quiet"},
}  # fmt: skip
"""Options of the verbs that the experiment gives itself, and those for other ways than its own."""

EXAMPLES = """examples:
  scripts/experiment scripts/*.srt --recipe minicpmv-lora --out runs/first --synth-count 100000 --synth-damage light
  scripts/experiment text/ --model llava-hf/llava-1.5-7b-hf --out runs/lora --train-lora-rank 64 --train-epochs 2 \\
      --train-module-rate multi_modal_projector=1e-3 --pictures test/ --order sample_submission.csv
  scripts/experiment text/ --model models/reader --out runs/full --train-method full --train-learning-rate 3e-4 \\
      --synth-crop line --train-crop frame --read-crop frame --pictures valid/ --truth valid.csv
  scripts/experiment text/ --model MODEL --out runs/many --launch "torchrun --nproc-per-node 8" --train-deepspeed zero2
"""


@functools.cache
def _command(step: str) -> Any:
    found: Any = typer.main.get_command(caprag.cli.app)
    for name in VERBS[step]:
        found = found.commands[name]
    return found


@functools.cache
def known(step: str) -> dict[str, Any]:
    """Return the options of a step's verb that are options here, by their names in Python."""
    options = [one for one in _command(step).params if one.param_type_name == "option"]
    return {one.name: one for one in options if one.name not in SET_HERE[step]}


def option_name(step: str, name: str) -> str:
    """Return an option as users write it here."""
    return f"--{step}-{known(step)[name].opts[-1].lstrip('-')}" if name in known(step) else f"--{name}"


def parse_verb(step: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return all options of a verb, by their names in Python, as it will have them.

    Raises
    ------
    CapragError
        For a value that the verb refuses.
    """
    try:
        return dict(_command(step).make_context(step, list(arguments)).params)
    except typer.BadParameter as error:
        name = getattr(getattr(error, "param", None), "name", None) or step
        raise CapragError(f"{option_name(step, name)}: {error.message}") from error


def parse(arguments: Sequence[str] | None, description: str) -> argparse.Namespace:
    """Read the command line; each verb's options stand together, as it takes them, under the step's name."""
    parser = argparse.ArgumentParser(
        prog="scripts/experiment", description=description, epilog=EXAMPLES, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="scripts/experiment TEXT... --out RUN (--model MODEL | --recipe RECIPE) [--pictures FOLDER] [options]",
    )  # fmt: skip
    _add_own(parser.add_argument)
    for step, verb in VERBS.items():
        group = parser.add_argument_group(f"{step}, options of caprag {' '.join(verb)}")
        for one in known(step).values():
            told = str(one.help or "")
            if one.default not in (None, False, "", [], ()) and "[default" not in told:
                told += f" [default: {one.default}]"
            flag: dict[str, Any] = {"nargs": 0} if one.is_flag else {"metavar": "VALUE"}
            for option in (*one.opts, *one.secondary_opts):
                group.add_argument(
                    f"--{step}-{option.lstrip('-')}", dest=step, action=_Passed, const=option,
                    help=told.replace("%", "%%"), **flag,
                )  # fmt: skip
    parser.set_defaults(**{step: [] for step in VERBS})
    return parser.parse_args(arguments)


def _add_own(add: Callable[..., Any]) -> None:
    add("text", nargs="+", type=Path, metavar="TEXT", help="files or folders of text, as for caprag corpus")
    add("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    add("--model", help="hub id or folder of the model to train; the recipe's if not given")
    add("--recipe", help="JSON file of model and training options, or a name of scripts/recipes; options win over it")
    add("--pictures", nargs="+", type=Path, metavar="FOLDER", help="pictures to read for submission.csv")
    add("--order", type=Path, metavar="FILE", help="ids in the order wanted (.csv .tsv .txt); by name if not given")
    add("--truth", type=Path, metavar="FILE", help="what is true of the pictures (.csv .tsv .jsonl), to score with")
    add("--id-column", default="id", metavar="NAME", help="of --order and --truth [default: id]")
    add("--text-column", default="text", metavar="NAME", help="of --truth [default: text]")
    add(
        "--held-out-count", type=_at_least(0), default=200, metavar="N",
        help="pictures drawn of sentences held out, read at each checkpoint and at the end [default: 200]",
    )  # fmt: skip
    add(
        "--held-out-share", type=_share, default=0.05, metavar="SHARE",
        help="of the sentences, by whole documents, above 0 and below 1 [default: 0.05]",
    )  # fmt: skip
    add("--metrics", default="cer,mean-edits", help="as for caprag eval text [default: cer,mean-edits]")
    add("--samples", type=_at_least(1), default=1000, metavar="N", help="resamplings of an interval [default: 1000]")
    add("--seed", type=_at_least(0), metavar="N", help="of all steps; a step's own wins over it")
    add("--launch", metavar="COMMAND", help='what starts the training, as "torchrun --nproc-per-node 8"')
    add("--quiet", action="store_true", help="no progress bars")


class _Passed(argparse.Action):
    """Keeps an option for the verb that it is of."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        del parser, option
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*before, self.const, *([] if values == [] else [values])])


def _at_least(least: int) -> Callable[[str], int]:
    def number(given: str) -> int:
        if int(given) < least:
            raise argparse.ArgumentTypeError(f"is {given}; at least {least} is wanted")
        return int(given)

    return number


def _share(given: str) -> float:
    if not 0 < float(given) < 1:
        raise argparse.ArgumentTypeError(f"is {given}; wanted is a share above 0 and below 1")
    return float(given)
