"""The verb eval text: how good generated texts are against references."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caprag.cli.options import Quiet, hidden, refuse
from caprag.errors import CapragError


def text(
    predictions: Annotated[Path, typer.Argument(help="Generated texts: csv, tsv, jsonl, json (COCO) or txt.")],
    references: Annotated[
        list[Path], typer.Argument(help="Their references; several files are several references of each.")
    ],
    metrics: Annotated[
        str | None,
        typer.Option(
            help="bleu sacrebleu meteor rouge-l cider spice bertscore cer mean-edits, or figures such as bleu-4; by "
            "commas. [default: all but sacrebleu, and bertscore with --bertscore-model]"
        ),
    ] = None,
    tokenize: Annotated[
        str,
        typer.Option(
            help="auto characters words 13a zh ptb; auto: characters for mostly Chinese references, else 13a. ptb is "
            "what COCO captions are scored on (Java)."
        ),
    ] = "auto",
    lowercase: Annotated[bool, typer.Option("--lowercase", help="Drop case before splitting into tokens.")] = False,
    key: Annotated[str | None, typer.Option("--id", help="Column or key of the id. [default: id]")] = None,
    column: Annotated[str | None, typer.Option(help="Column or key of the text. [default: text]")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Texts of a second system, which PREDICTIONS are compared with.")
    ] = None,
    bertscore_model: Annotated[
        str | None, typer.Option(help="Folder or hub id of an encoder, e.g. bert-base-chinese.")
    ] = None,
    bertscore_layer: Annotated[
        int | None, typer.Option(min=0, help="Whose vectors are compared; bert-score's own or the last if not given.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where the encoder runs, e.g. cpu or cuda.")] = None,
    per_item: Annotated[Path | None, typer.Option(help="Write the values of every item (.jsonl or .csv).")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the figures (.json or .csv).")] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Resamplings of an interval; of a test ten times as many.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Measure generated texts against references, with 95 % intervals over items.

    Texts and references are matched by id; in .txt the id is the number of the line. BLEU-1 to 4, METEOR, ROUGE-L,
    CIDEr and SPICE are those of pycocoevalcap, in [0, 1], CIDEr in [0, 10]; sacrebleu is in [0, 100]. cer counts
    letters and digits, mean-edits all characters but white space, both against the nearest reference. What needs Java
    or files that are absent is left out by name. --compare tests each difference (exchanging items at random,
    two-sided, not corrected for the number of comparisons).
    """
    from caprag.evaluation.texts import evaluate_text, match_texts, read_texts

    # What is wrong is said before anything is measured.
    for path, kinds in ((per_item, (".jsonl", ".csv")), (json_out, (".json", ".csv"))):
        if path is not None and path.suffix.lower() not in kinds:
            refuse(f"{path}: has the suffix {path.suffix!r}; write to {' or '.join(kinds)}")
    truths = read_texts(references[0], key=key, column=column)
    for path in references[1:]:
        more = read_texts(path, key=key, column=column)
        if more.keys() != truths.keys():
            other = sorted(more.keys() ^ truths.keys())
            refuse(f"{path}: has not the ids of {references[0]} ({len(other)} differ, such as {other[0]!r})")
        truths = {name: [*texts, *more[name]] for name, texts in truths.items()}
    systems = [path for path in (predictions, compare) if path is not None]
    named = ", ".join(map(str, references))
    texts = [match_texts(read_texts(path, key=key, column=column), truths, (str(path), named)) for path in systems]
    wanted = None if metrics is None else [part.strip() for part in metrics.split(",") if part.strip()]
    try:
        reports = [
            evaluate_text(
                candidates, list(truths.values()), wanted, ids=list(truths), tokenize=tokenize, lowercase=lowercase,
                bertscore_model=bertscore_model, bertscore_layer=bertscore_layer, device=device, name=str(path),
                samples=samples, seed=seed, progress=not hidden(quiet),
            )
            for path, candidates in zip(systems, texts, strict=True)
        ]  # fmt: skip
    except CapragError:
        raise
    except ValueError as error:
        refuse(str(error))
    typer.echo(str(reports[0]))
    if len(reports) == 2:
        typer.echo(f"\n{predictions} - {compare}: difference [95 % interval], ratio, p of the randomization test")
        for comparison in reports[0].compare(reports[1], samples=10 * samples):
            typer.echo(str(comparison))
    if json_out is not None:
        reports[0].save(json_out)
    if per_item is not None:
        reports[0].save_items(per_item, texts=texts[0])
