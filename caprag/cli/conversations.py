"""The verb conversations: a data set or training examples to training examples of another form."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from caprag.cli.options import Complaints, Encoding, Quiet, finish, hidden, refuse, say

if TYPE_CHECKING:
    from caprag.synthesis.conversations import Example

# Typer reads the choices off this; caprag.synthesis.conversations.Form has the same.
FormName = Literal["llava", "sharegpt", "messages", "lines"]


def conversations(
    source: Annotated[Path, typer.Argument(help="Data set folder, or file of training examples of any of the forms.")],
    to: Annotated[FormName, typer.Option(help="The form: lines is path, tab, caption.")],
    out: Annotated[Path, typer.Option(help="File to write: .json (an array), .jsonl, or .txt for lines.")],
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="What is asked; may be given several times, one is chosen for each picture."),
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="File of such prompts, UTF-8, one a line.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides which prompt a picture gets.")] = 0,
    empty_text: Annotated[str, typer.Option(help="Answer for a picture of a data set without a caption.")] = "",
    relative_to: Annotated[
        Path | None, typer.Option(help="Write paths from this folder on. Those in a file begin at the file's folder.")
    ] = None,
    absolute: Annotated[bool, typer.Option("--absolute", help="Write paths from the root on.")] = False,
    source_form: Annotated[
        FormName | None, typer.Option("--from", help="Form of the source file, if its name and keys do not say it.")
    ] = None,
    encoding: Encoding = None,
    quiet: Quiet = False,
) -> None:
    """Write training examples for vision-language models.

    Without --prompt and --prompts a source's own prompts are kept; where it has none, one is chosen from a list in
    Chinese and English that asks for the caption alone.
    """
    from tqdm import tqdm

    from caprag.synthesis.conversations import PROMPTS, examples_from_dataset, read_conversations, write_conversations

    if prompt and prompts is not None:
        refuse("--prompt and --prompts are both given; give one of them")
    if absolute and relative_to is not None:
        refuse("--absolute and --relative-to are both given; give one of them")
    given = list(prompt) if prompt else _read_prompts(prompts) if prompts is not None else []
    for one in given:
        if not one.strip() or "<image>" in one:
            refuse(f"--prompt {one!r}: wanted is a text without <image>, which is put before it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        refuse(f"{out.parent}: can't be made ({error.strerror}); name another folder")
    complaints = Complaints()
    if source.is_dir():
        if source_form is not None:
            refuse(f"{source}: is a data set; --from is for files")
        base = source
        examples = examples_from_dataset(source, given or PROMPTS, seed, empty_text=empty_text)
    else:
        base = source.parent
        read = read_conversations(source, source_form, encoding=encoding, on_error=complaints)
        examples = _with_prompts(read, given, seed)
    if absolute or relative_to is not None:
        examples = _moved(examples, base, relative_to)
    with tqdm(examples, desc="conversations", unit=" examples", disable=hidden(quiet)) as bar:
        count = write_conversations(bar, out, to, on_error=complaints)
    say(f"{out}: {count} examples")
    finish(complaints.count, "examples")


def _read_prompts(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        refuse(f"{path}: can't be read ({error.strerror}); name a file of prompts")
    except UnicodeDecodeError as error:
        refuse(f"{path}: is not UTF-8 ({error}); save it as UTF-8")
    found = [line.strip() for line in lines if line.strip()]
    return found or refuse(f"{path}: holds no prompt; write one a line")


def _with_prompts(examples: Iterable[Example], given: list[str], seed: int) -> Iterator[Example]:
    from caprag.synthesis.conversations import PROMPTS, choose_prompt

    for number, example in enumerate(examples):
        if given or not example.prompt:
            yield replace(example, prompt=choose_prompt(given or PROMPTS, seed, number))
        else:
            yield example


def _moved(examples: Iterable[Example], base: Path, start: Path | None) -> Iterator[Example]:
    """Write paths from another folder on, or from the root; links stay as they are."""
    for example in examples:
        path = os.path.abspath(base / example.image)  # noqa: PTH100
        yield replace(example, image=path if start is None else os.path.relpath(path, start))
