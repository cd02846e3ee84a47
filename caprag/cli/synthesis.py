"""The verb synth: text to pictures of captions."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from caprag.cli.options import Column, Complaints, Encoding, Quiet, complain, finish, refuse, say

_SIZES = ("1920x1080", "1280x720", "854x480", "640x360")


def synth(
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="Sentences: files or folders, as caprag corpus writes them.")
    ] = None,
    backgrounds: Annotated[
        list[Path] | None,
        typer.Option("--backgrounds", help="Pictures, videos or folders of them; generated ones if not given."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the data set; a stopped run goes on.")] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Pictures; as many as there are sentences if not given.")
    ] = None,
    each: Annotated[
        bool,
        typer.Option("--each", help="One picture of each line, in order; none without a caption."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same pictures.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes; does not change the pictures.")] = 1,
    size: Annotated[
        list[str] | None, typer.Option(help=f"Frame, e.g. {', '.join(_SIZES)}; several are mixed. [default: 1280x720]")
    ] = None,
    damage: Annotated[str, typer.Option(help="none, light, medium, severe, or a number from 0 to 1.")] = "none",
    letterbox: Annotated[
        float, typer.Option(min=0, max=1, help="Share of frames with a background whole between black bars.")
    ] = 0.08,
    fonts: Annotated[
        list[str] | None,
        typer.Option(
            "--fonts",
            help="Font files or folders, FILE=2 for twice as often, FILE.ttc#3 for a face of a "
            "collection; what is installed if not given.",
        ),
    ] = None,
    type_size: Annotated[
        str | None, typer.Option(help="Type in pixels, e.g. 36-44; 50-70 at 720 lines, in proportion at others.")
    ] = None,
    kinds: Annotated[
        str | None, typer.Option(help="Shares of kinds of caption, e.g. line=8,vertical=1,empty=1.")
    ] = None,
    looks: Annotated[str | None, typer.Option(help="Shares of looks, e.g. outline=3,soft=2,box=1.")] = None,
    crop: Annotated[str | None, typer.Option(help="frame, band (the caption's band) or line (its box).")] = None,
    overflow: Annotated[
        str | None, typer.Option(help="What a sentence wider than the frame is: wrap, shrink or skip.")
    ] = None,
    lengths: Annotated[
        Path | None, typer.Option(help="File of captions whose lengths are to be imitated, e.g. an srt.")
    ] = None,
    floor: Annotated[int, typer.Option(min=0, help="Draw each character in at least so many pictures.")] = 0,
    recipe: Annotated[
        Path | None, typer.Option(help="JSON file with all of how pictures look; see --show-recipe.")
    ] = None,
    show_recipe: Annotated[bool, typer.Option("--show-recipe", help="Print the recipe as JSON and stop.")] = False,
    container: Annotated[str, typer.Option(help="folders, or tar (WebDataset shards).")] = "folders",
    shard_size: Annotated[int, typer.Option(min=1, help="Pictures a folder or tar.")] = 1000,
    format: Annotated[str, typer.Option(help="jpg, png or webp.")] = "jpg",
    preview: Annotated[
        Path | None, typer.Option(help="Draw a contact sheet of the first pictures; without --out, only that.")
    ] = None,
    column: Column = None,
    encoding: Encoding = None,
    quiet: Quiet = False,
) -> None:
    """Make pictures of captions for training.

    Writes pictures, a manifest.parquet with the label of each (text, boxes, font, style, background, damage), and
    settings.json. The same options, text, fonts and backgrounds make the same bytes, whatever the number of workers.
    """
    from caprag.synthesis.recipe import Recipe

    changes = {
        "type_size": None if type_size is None else _range(type_size, "--type-size"),
        "kinds": None if kinds is None else _shares(kinds, "--kinds"),
        "looks": None if looks is None else _shares(looks, "--looks"),
        "crop": crop,
        "overflow": overflow,
    }
    try:
        given = (Recipe() if recipe is None else Recipe.read(recipe)).as_dict()
        plan = Recipe.from_dict({**given, **{name: value for name, value in changes.items() if value is not None}})
    except ValueError as error:
        refuse(str(error))
    if show_recipe:
        sys.stdout.write(json.dumps(plan.as_dict(), ensure_ascii=False, indent=1) + "\n")
        return
    if container not in ("folders", "tar"):
        refuse(f"--container {container}: known are folders and tar")
    if not text:
        refuse("--text is missing; name a file of sentences, one a line (caprag corpus makes one)")
    if out is None and preview is None:
        refuse("--out is missing; name the folder to make, or --preview sheet.png to have a look first")

    if each and (count is not None or lengths is not None or floor):
        refuse("--each makes one picture of each sentence; leave out --count, --lengths and --floor")

    from caprag.corpus import read_corpus
    from caprag.synthesis.backgrounds import Backgrounds
    from caprag.synthesis.fonts import load_fonts
    from caprag.synthesis.generator import Synthesizer
    from caprag.synthesis.preview import contact_sheet
    from caprag.synthesis.run import Sentences, synthesize
    from caprag.synthesis.sampling import measure_lengths

    complaints = Complaints()
    if each:
        texts = _captions(text, column, encoding, complaints)
    else:
        texts = [s.text for s in read_corpus(text, column=column, encoding=encoding, on_error=complaints)]
    measured = None
    if lengths is not None:
        try:
            measured = measure_lengths(_captions([lengths], None, encoding, complaints))
        except ValueError as error:
            refuse(f"{lengths}: {error}")
    found = load_fonts(fonts or (), sample=texts[:: max(1, len(texts) // 200)], on_error=complaints)
    scenes = Backgrounds(backgrounds or (), on_error=complaints, letterbox=letterbox)
    try:
        synthesizer = Synthesizer(
            scenes, found, sizes=[_size(one) for one in size or ["1280x720"]], damage=_strength(damage), seed=seed,
            recipe=plan, format=format,  # type: ignore[arg-type]
        )  # fmt: skip
        sentences = Sentences(
            texts, synthesizer, count=count, mode="each" if each else "random", lengths=measured, floor=floor
        )
    except ValueError as error:
        refuse(str(error))
    if sentences.left_out:
        shown = ", ".join(sentences.left_out_examples)
        say(f"{sentences.left_out} of {len(texts)} sentences are left out: no font has their characters ({shown})")
    if measured or floor:
        say(str(sentences.plan.report()))
    if preview is not None:
        shown_first = [synthesizer.make(i, sentences.for_picture(i)) for i in range(min(24, sentences.count))]
        sheet = contact_sheet(((p.pixels, p.label.text) for p in shown_first), font=found.fonts[0].at(18))
        try:
            preview.parent.mkdir(parents=True, exist_ok=True)
            sheet.save(preview)
        except ValueError as error:
            refuse(f"{preview}: {error}; name a .png or .jpg file")
        say(f"{preview}: {len(shown_first)} pictures")
    if out is not None:
        try:
            report = synthesize(
                sentences, synthesizer, out,
                workers=workers, container=container, shard_size=shard_size,  # type: ignore[arg-type]
                progress=not quiet, on_error=complaints,
            )  # fmt: skip
        except KeyboardInterrupt:
            complain(f"{out}: stopped; what was made is kept, and the same command goes on after it")
            raise typer.Exit(130) from None
        say(str(report))
    finish(complaints.count, "items")


def _captions(paths: list[Path], column: str | None, encoding: str | None, complaints: Complaints) -> list[str]:
    """Read all captions of files, those that come again too."""
    from caprag.corpus import list_files, read_rows
    from caprag.text import normalize

    captions = []
    for file in list_files(paths):
        for _, item in read_rows(file, column, encoding):
            if not isinstance(item, str):
                complaints(item)
            elif caption := normalize(item):
                captions.append(caption)
    return captions


def _size(given: str) -> tuple[int, int]:
    width, cross, height = given.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal()):
        refuse(f"--size {given}: wanted is width x height in pixels, such as {_SIZES[1]}")
    return int(width), int(height)


def _strength(given: str) -> float:
    from caprag.synthesis.damage import STRENGTHS

    if given in STRENGTHS:
        return STRENGTHS[given]
    try:
        return float(given)
    except ValueError:
        refuse(f"--damage {given}: known are {', '.join(STRENGTHS)}, and numbers from 0 to 1")


def _range(given: str, option: str) -> list[int]:
    low, _, high = given.partition("-")
    if not (low.isdecimal() and (high or low).isdecimal()):
        refuse(f"{option} {given}: wanted is a number of pixels or two, such as 36-44")
    return [int(low), int(high or low)]


def _shares(given: str, option: str) -> dict[str, float]:
    shares = {}
    for part in given.split(","):
        name, _, share = part.strip().partition("=")
        try:
            shares[name] = float(share or 1)
        except ValueError:
            refuse(f"{option} {given}: {share} is not a number; wanted is for example line=8,vertical=1")
    return shares
