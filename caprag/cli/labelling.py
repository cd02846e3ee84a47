"""The verb label: pictures without captions to training examples, by a model that is asked about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from caprag.cli.conversations import FormName
from caprag.cli.options import Complaints, Quiet, finish, hidden, open_embedder, refuse, say
from caprag.errors import FrameError

# Typer reads the choices off this; caprag.training.labelling.Task has the same.
TaskName = Literal["transcribe", "describe"]


def label(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    model: Annotated[str, typer.Option(help="Hub id or folder of a vision-language model, or the URL of a server.")],
    out: Annotated[Path, typer.Option(help="File to write: .jsonl, .json, or .txt for lines.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="What is asked; repeatable: each picture is asked all of them.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="File of such prompts, UTF-8, one a line.")] = None,
    form: Annotated[FormName, typer.Option("--format", help="The form: lines is path, tab, caption.")] = "llava",
    task: Annotated[
        TaskName, typer.Option(help="transcribe: answers must agree, one is kept. describe: all are kept.")
    ] = "transcribe",
    disagreement: Annotated[
        float, typer.Option(min=0, max=1, help="Most edits a character between any two transcriptions of a picture.")
    ] = 0.1,
    embedder: Annotated[
        str | None, typer.Option(help="With --task describe: hub id or folder of an embedder that compares answers.")
    ] = None,
    similarity: Annotated[
        float, typer.Option(min=-1, max=1, help="With --embedder: least cosine of any two descriptions of a picture.")
    ] = 0.5,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at a time.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    served: Annotated[str | None, typer.Option(help="Which of a server's models, where it has several.")] = None,
    device: Annotated[str | None, typer.Option(help="Where a local model runs, e.g. cuda or cpu.")] = None,
    dtype: Annotated[str, typer.Option(help="Precision of a local model: auto, float32, bfloat16, float16.")] = "auto",
    absolute: Annotated[
        bool, typer.Option("--absolute", help="Write paths from the root on; else from the output's folder.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides which prompt stands with a transcription.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Let a vision-language model transcribe or describe pictures, and write training examples.

    Without --prompt and --prompts three questions for the caption are asked. Answers are noted beside the output
    (NAME.answers.jsonl) as they come: a run that was stopped goes on where it was, and later prompts ask only what is
    new. At the end: how many pictures were kept, disagreeing, empty and unreadable.
    """
    from caprag.recognition import list_frames
    from caprag.synthesis.conversations import PROMPTS
    from caprag.training.describers import load_describer
    from caprag.training.labelling import label_pictures

    if prompt and prompts is not None:
        refuse("--prompt and --prompts are both given; give one of them")
    if embedder is not None and task != "describe":
        refuse("--embedder compares descriptions; add --task describe, or leave it away")
    asked = list(prompt) if prompt else _read_prompts(prompts) if prompts is not None else list(PROMPTS[1:4])
    complaints = Complaints()
    paths: list[Path] = []
    for given in pictures:
        try:
            paths += list_frames([given])
        except FrameError as error:
            complaints(error)
    try:
        describer = load_describer(
            model, served=served, device=device, dtype=dtype,  # type: ignore[arg-type] # checked there
            batch_size=batch_size, max_new_tokens=max_new_tokens,
        )  # fmt: skip
        report = label_pictures(
            paths, describer, asked, out, form, task=task, disagreement=disagreement,
            embedder=open_embedder(embedder), similarity=similarity, batch_size=batch_size, absolute=absolute,
            seed=seed, on_error=complaints, progress=not hidden(quiet),
        )  # fmt: skip
    except ValueError as error:
        refuse(str(error))
    say(f"{out}: {report}")
    finish(complaints.count, "pictures or examples")


def _read_prompts(path: Path) -> list[str]:
    from caprag.corpus import decode_lines

    if not path.is_file():
        refuse(f"{path}: no such file; name a file of prompts, one a line")
    lines = list(decode_lines(path, None))
    for _, line in lines:
        if not isinstance(line, str):
            raise line
    found = [line.strip() for _, line in lines if isinstance(line, str) and line.strip()]
    return found or refuse(f"{path}: holds no prompt; write one a line")
