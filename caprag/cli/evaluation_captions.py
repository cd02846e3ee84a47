"""The verb eval captions: how far each step takes captions, and what answering does to them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from caprag.cli.options import (
    Complaints,
    EmbedderName,
    IndexFolder,
    Quiet,
    RerankerFile,
    Risk,
    finish,
    hidden,
    open_embedder,
    read_truths,
    refuse,
    say,
)
from caprag.errors import CapragError, FrameError

if TYPE_CHECKING:
    from caprag.evaluation.ladder import Ladder
    from caprag.pipeline import Pipeline
    from caprag.reranking import Found

_NAMES = {"known": "corpus as it is", "unknown": "without the captions' sentences", "mixed": "without half of them"}


def captions(
    data: Annotated[
        Path, typer.Argument(help="Readings and truth in their order: reading, tab, truth, or .jsonl; or pictures.")
    ],
    index: IndexFolder,
    truth: Annotated[
        Path | None, typer.Option(help="What pictures say: name, tab, caption; or csv, jsonl with id and text.")
    ] = None,
    recognizer: Annotated[str, typer.Option(help="What reads pictures; see caprag read.")] = "caprag",
    conditions: Annotated[
        str,
        typer.Option(help="known, unknown, mixed: the corpus has their sentences, lacks them, has half; by commas."),
    ] = "known,unknown,mixed",
    n_best: Annotated[int, typer.Option(min=1, help="Hypotheses a picture.")] = 5,
    line_by_line: Annotated[
        bool, typer.Option("--line-by-line", help="Decide each by itself, as if the order meant nothing.")
    ] = False,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers/--no-peers",
            help="Answer by the nearest sentence, and by pycorrector where it is installed; read pictures by RapidOCR.",
        ),
    ] = True,
    embedder: EmbedderName = None,
    reranker: RerankerFile = None,
    risk: Risk = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of reliability, and of risk over coverage.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Resamplings of an interval.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling, and of the half that is left out.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Measure readings or pictures whose truth is known: as read, as found, as answered, and what was harmed.

    CER counts letters and digits, with its 95 % interval over lines. "Best" rungs choose by the truth: what a perfect
    decision could reach. Harm is the share of all lines that were right as read and are wrong as answered.
    """
    from caprag.evaluation.ladder import CONDITIONS, evaluate_captions
    from caprag.pipeline import Pipeline

    chosen = [name.strip() for name in conditions.split(",") if name.strip()]
    if not chosen or not set(chosen) <= set(CONDITIONS):
        refuse(f"--conditions is {conditions!r}; wanted are some of {','.join(CONDITIONS)}")
    complaints = Complaints()
    try:
        pipeline = Pipeline.load(
            index, recognizer=recognizer, embedder=open_embedder(embedder), reranker=reranker, n_best=n_best,
            risk=risk,
        )  # fmt: skip
        readers: dict[str, list[str]] = {}
        if data.is_dir() or truth is not None:
            other = "rapidocr" if peers and recognizer != "rapidocr" else None
            found, truths, readers = _of_pictures(data, truth, pipeline, other, complaints, quiet)
        else:
            found, truths = _of_pairs(data, pipeline)
        if pipeline.index is None or not found:
            refuse(f"{data}: has no caption whose truth is known")
        corpus = [text for _, text in pipeline.index.texts()]
        ladders = evaluate_captions(
            found, truths, pipeline.reranker, corpus, frequency=pipeline.index.frequency, conditions=chosen,  # type: ignore[arg-type]
            in_order=not line_by_line, peers=peers, readers=readers, samples=samples, seed=seed,
        )  # fmt: skip
    except ValueError as error:
        refuse(str(error))
    for ladder in ladders:
        _show(ladder, len(truths))
    if json_out is not None:
        _write(json_out, json.dumps([_figures(ladder) for ladder in ladders], ensure_ascii=False, indent=1) + "\n")
    if plot is not None:
        _draw(ladders, truths, plot)
    finish(complaints.count, "pictures")


def _of_pairs(path: Path, pipeline: Pipeline) -> tuple[list[Found], list[str]]:
    from caprag.training.reranker import read_pairs

    pairs = read_pairs(path)
    return list(pipeline.found_for([pair.read for pair in pairs])), [pair.truth for pair in pairs]


def _of_pictures(
    folder: Path, truth: Path | None, pipeline: Pipeline, other: str | None, complaints: Complaints, quiet: bool
) -> tuple[list[Found], list[str], dict[str, list[str]]]:
    """Return what is known of each picture, its truth, and what another recognizer reads of all."""
    from tqdm import tqdm

    from caprag.recognition import list_frames, load_recognizer, open_frame

    if truth is None:
        refuse("pictures want their truth: name a file with --truth")
    known = read_truths(truth)
    paths = list_frames([folder])
    names = [next((name for name in (path.name, str(path), path.stem) if name in known), None) for path in paths]
    wanted = [(path, known[name]) for path, name in zip(paths, names, strict=True) if name is not None]
    if len(wanted) < len(paths):
        say(f"{len(paths) - len(wanted)} of {len(paths)} pictures have no truth in {truth}, and are left out")
    truths: list[str] = []
    reader = None if other is None else load_recognizer(other)
    told: list[str] = []

    def images() -> Iterator[Any]:
        for path, text in wanted:
            try:
                image = open_frame(path)
            except FrameError as error:
                complaints(error)
                continue
            truths.append(text)
            if reader is not None:
                told.append(reader.recognize_batch([image], 1)[0][0].text)
            yield image

    with tqdm(total=len(wanted), desc="read", unit=" frames", disable=hidden(quiet)) as bar:
        found = list(pipeline.found_in(images(), on_read=bar.update))
    return found, truths, {} if other is None else {f"{other} alone": told}


def _show(ladder: Ladder, count: int) -> None:
    typer.echo(f"{_NAMES[ladder.condition]} ({count} captions)")
    for name, report in ladder.rungs.items():
        low, high = report.interval
        harm = f"   harmed {ladder.harms[name]:.2%}" if name in ladder.harms else ""
        typer.echo(f"  {name:<22} CER {report.value:7.2%} [{low:.2%}, {high:.2%}]{harm}")
    done = ladder.outcomes
    typer.echo(
        f"  snapped: {done.snapped_right} right, {done.snapped_wrong} wrong; kept: {done.kept_right} right, "
        f"{done.kept_wrong} wrong; mended {done.mended}, harmed {done.harmed}"
    )
    typer.echo(f"  area under risk over coverage {ladder.risk_area:.5f}; calibration error {ladder.calibration:.4f}")
    for (low_end, high_end), (lines, read, answered) in ladder.by_length.items():
        span = f"{low_end} to {high_end}" if high_end < 1000 else f"{low_end} or more"
        typer.echo(f"  {span:>10} characters: {lines} captions, CER {read:.2%} as read, {answered:.2%} as answered")


def _figures(ladder: Ladder) -> dict[str, Any]:
    return {
        "condition": ladder.condition,
        "rungs": {
            name: {"cer": _finite(report.value), "interval": [_finite(end) for end in report.interval],
                   "signature": report.signature, **({"harm": ladder.harms[name]} if name in ladder.harms else {})}
            for name, report in ladder.rungs.items()
        },
        "snapped_right": ladder.outcomes.snapped_right, "snapped_wrong": ladder.outcomes.snapped_wrong,
        "kept_right": ladder.outcomes.kept_right, "kept_wrong": ladder.outcomes.kept_wrong,
        "mended": ladder.outcomes.mended, "harmed": ladder.outcomes.harmed,
        "risk_area": ladder.risk_area, "calibration_error": ladder.calibration,
        "by_length": [
            {"from": low, "to": high, "captions": lines, "read": _finite(read), "answered": _finite(answered)}
            for (low, high), (lines, read, answered) in ladder.by_length.items()
        ],
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _draw(ladders: Sequence[Ladder], truths: Sequence[str], path: Path) -> None:
    from caprag.evaluation.plots import draw_decisions
    from caprag.text import countable

    answers = [
        (
            _NAMES[ladder.condition], [caption.confidence for caption in ladder.captions],
            [countable(c.text) == countable(t) for c, t in zip(ladder.captions, truths, strict=True)],
        )
        for ladder in ladders
    ]  # fmt: skip
    draw_decisions(answers, path)
    say(f"{path}: drawn")


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise CapragError(f"{path}: can't be written ({error.strerror}); choose another file") from error
