"""The verb eval retrieval: how well sentences are found, beside the baselines, in one run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from caprag.cli.evaluation_output import print_table, query_rows, write_lines
from caprag.cli.evaluation_sources import Source, numbers, of_beir, of_corpus, of_index
from caprag.cli.options import (
    Column,
    Complaints,
    EmbedderName,
    Encoding,
    Quiet,
    complain,
    finish,
    open_embedder,
    refuse,
    say,
)
from caprag.errors import CapragError, require

if TYPE_CHECKING:
    from caprag.evaluation.ranking import Metric
    from caprag.evaluation.retrieval import Task
    from caprag.evaluation.sweep import Cell, Point

_SYSTEMS = "caprag,edit"
_NOISES = "0.05,0.1,0.2,0.4,0.6"


# What goes with some ways to evaluate alone. All else goes with each.
_ONLY_WITH: dict[tuple[str, ...], tuple[str, ...]] = {
    ("--qrels",): ("--run", "--against"),
    ("--index",): ("--queries",),
    ("--beir",): ("--split",),
    ("--corpus",): ("--noise", "--count", "--corpus-size", "--column", "--encoding"),
    ("--beir", "--index"): ("--same-text",),
    ("--beir", "--index", "--corpus"): (
        "--systems", "--baseline", "--k", "--embedder", "--factory", "--workers", "--save-run", "--out", "--plot",
    ),
}  # fmt: skip


def retrieval(
    context: typer.Context,
    beir: Annotated[
        Path | None, typer.Option(help="Test collection: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which judgements of --beir.")] = "test",
    qrels: Annotated[Path | None, typer.Option(help="TREC judgements, to measure --run with.")] = None,
    run: Annotated[Path | None, typer.Option(help="TREC run; no index is needed.")] = None,
    against: Annotated[Path | None, typer.Option(help="Second TREC run, which --run is compared with.")] = None,
    index: Annotated[Path | None, typer.Option(help="Index folder, to be asked --queries.")] = None,
    queries: Annotated[
        Path | None,
        typer.Option(help='Readings and truth: .tsv (query, tab, text or id) or .jsonl ({"query", "truth"}).'),
    ] = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option(help="Text files; the queries are their own sentences with noise. May be given several times."),
    ] = None,
    noise: Annotated[
        str | None, typer.Option(help=f"Character error rates of the queries of --corpus. [default: {_NOISES}]")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Queries of --corpus, for each noise.")] = 1000,
    corpus_size: Annotated[
        str | None, typer.Option(help="Sentences drawn of --corpus, e.g. 10000,100000; all if not given.")
    ] = None,
    systems: Annotated[
        str,
        typer.Option(help="caprag edit bm25 tfidf symspell dense lexical, and dense:MODEL or caprag:MODEL; by commas."),
    ] = _SYSTEMS,
    baseline: Annotated[
        str | None, typer.Option(help="The system that the others are compared with; edit if it is among them.")
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="recall@k precision@k success@k ndcg@k map@k mrr@k; by commas.")
    ] = "recall@1,recall@10,mrr@10,ndcg@10",
    k: Annotated[
        int | None, typer.Option("-k", "--k", min=1, help="Sentences to look at; as many as the metrics want.")
    ] = None,
    same_text: Annotated[
        bool | None,
        typer.Option(
            "--same-text/--ids-only",
            help="Whether sentences with the letters of a relevant one are relevant too; with --beir not, else yes.",
        ),
    ] = None,
    embedder: EmbedderName = None,
    factory: Annotated[str, typer.Option(help="FAISS factory string of caprag.")] = "Flat",
    workers: Annotated[int, typer.Option(min=1, help="Threads of edit.")] = 1,
    column: Column = None,
    encoding: Encoding = None,
    per_query: Annotated[Path | None, typer.Option(help="Write the values of every query (.jsonl).")] = None,
    save_run: Annotated[
        Path | None, typer.Option(help="Folder for what each system found, as TREC runs, with their judgements.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file of the results; what it holds is not measured again.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="NAME.png: draws NAME-k.png, and over several noises or sizes those too.")
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Resamplings of an interval; of a test ten times as many.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of drawing, noise, and resampling.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Measure how well sentences are found, with 95 % intervals, beside baselines.

    Give one of: --qrels and --run; --beir; --index and --queries; --corpus. Each figure comes with its interval over
    queries, its ratio to the baseline's, and the probability of their difference by chance (randomization test,
    two-sided, not corrected for the number of comparisons). Equal scores in TREC runs are ranked as trec_eval does;
    else the order of what was found counts.
    """
    from caprag.evaluation.ranking import parse_metrics

    sources = {"--qrels": qrels, "--beir": beir, "--index": index, "--corpus": corpus}
    given = [name for name, value in sources.items() if value]
    if len(given) != 1:
        refuse(f"{' and '.join(given) or 'nothing'} is given to evaluate; give one of {', '.join(sources)}")
    _belongs(given[0], _given(context))
    for needing, name, value in (("--qrels", "--run", run), ("--index", "--queries", queries)):
        if needing == given[0] and value is None:
            refuse(f"{needing} is given without {name}; give both")
    if plot is not None:
        if plot.suffix.lower() != ".png":
            refuse(f"{plot}: has the suffix {plot.suffix!r}; draw to .png")
        require("matplotlib", "eval")
    try:
        wanted = parse_metrics(_parts(metrics))
        if qrels is not None:
            _evaluate_runs(qrels, run, against, wanted, samples, seed, per_query)
            return
        # What is wrong is said before a large corpus is read.
        plan = _Plan(_parts(systems), baseline, wanted, k, out)
        complaints = Complaints()
        if beir is not None:
            source = of_beir(beir, split, bool(same_text))
        elif index is not None:
            source = of_index(index, queries, embedder, same_text is not False, complaints)
        else:
            source = of_corpus(
                corpus or [], column, encoding, numbers(corpus_size, "--corpus-size"), noise or _NOISES, count, seed,
                complaints,
            )  # fmt: skip
        _evaluate(
            source, plan,
            embedder=embedder, factory=factory, workers=workers, samples=samples, seed=seed, per_query=per_query,
            save_run=save_run, plot=plot, quiet=quiet,
        )  # fmt: skip
    except ValueError as error:
        refuse(str(error))
    except KeyboardInterrupt:
        complain(f"stopped; {'nothing is kept' if out is None else f'what was measured is in {out}, go on with it'}")
        raise typer.Exit(130) from None
    finish(complaints.count, "lines or queries")


def _given(context: typer.Context) -> dict[str, object]:
    """Return the options that stand on the command line, by their long names, with their values."""
    on_line = (name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE"))
    return {f"--{name.replace('_', '-')}": context.params[name] for name in on_line}


def _belongs(source: str, options: Mapping[str, object]) -> None:
    """Refuse options that the source would not look at."""
    for sources, names in _ONLY_WITH.items():
        for name in names:
            if name in options and source not in sources:
                refuse(f"{name} goes with {' or '.join(sources)}; {source} is given")
    systems = str(options.get("--systems", _SYSTEMS))
    if source == "--index" and "--factory" in options and "caprag:" not in systems:
        refuse("--factory goes with systems that are built, such as caprag:MODEL; --index has its own factory")


def _evaluate_runs(
    qrels: Path, run: Path | None, against: Path | None, metrics: Sequence[Metric], samples: int, seed: int,
    per_query: Path | None,
) -> None:  # fmt: skip
    from caprag.evaluation.report import evaluate_run
    from caprag.evaluation.trec import read_qrels, read_run

    judged = read_qrels(qrels)
    paths = [path for path in (run, against) if path is not None]
    reports = [
        evaluate_run(judged, read_run(path), metrics, name=str(path), samples=samples, seed=seed) for path in paths
    ]
    print_table([(report, None) for report in reports], reports[1] if against else None, samples)
    if per_query is not None:
        write_lines(per_query, (row for report in reports for row in query_rows(report, report.queries, {})))


class _Plan:
    """Which systems, by which metrics, how deep, and where finished results lie."""

    def __init__(
        self, names: list[str], baseline: str | None, metrics: Sequence[Metric], k: int | None, out: Path | None
    ) -> None:
        from caprag.evaluation.retrieval import check_depth
        from caprag.evaluation.sweep import Store
        from caprag.evaluation.systems import check_system

        for name in names:
            check_system(name)
        if baseline is not None and baseline not in names:
            refuse(f"--baseline {baseline} is not among the systems; --systems are {', '.join(names)}")
        self.names, self.metrics = names, metrics
        self.baseline = baseline or ("edit" if "edit" in names and len(names) > 1 else None)
        self.depth = check_depth(metrics, k)
        self.store = None if out is None else Store(out)


def _evaluate(
    source: Source, plan: _Plan, *, embedder: str | None, factory: str, workers: int, samples: int, seed: int,
    per_query: Path | None, save_run: Path | None, plot: Path | None, quiet: bool,
) -> None:  # fmt: skip
    from caprag.evaluation.baselines import Ranking
    from caprag.evaluation.sweep import measure_points
    from caprag.evaluation.systems import System, open_system

    metrics, depth, store = plan.metrics, plan.depth, plan.store
    loaded = open_embedder(embedder) if source.index is None else source.index.embedder
    opened = [
        open_system(name, embedder=loaded, factory=factory, workers=workers, index=source.index) for name in plan.names
    ]

    def run_file(system: System, point: Point) -> Path:
        parts = [re.sub(r"[^\w.-]+", "_", system.name), str(len(point.texts)), f"{point.noise or 0:g}"]
        return (save_run or Path()) / f"{'-'.join(parts)}.run"

    def save_hits(system: System, point: Point, hits: Sequence[Ranking]) -> None:
        if save_run is not None:
            _save_run(source, run_file(system, point), point.task, hits)

    measured: list[tuple[Cell, Task]] = []
    rows: list[dict[str, object]] = []
    for points in source.points:
        cells = measure_points(
            points, opened, depth=depth, store=store, on_left_out=say, progress=not quiet, on_hits=save_hits,
            wanted=lambda system, point: save_run is not None and not run_file(system, point).exists(),
        )  # fmt: skip
        for point in points:
            here = [cell for cell in cells if cell.noise == point.noise]
            reports = [cell.report(point.task, metrics, samples=samples, seed=seed) for cell in here]
            base = next((report for report in reports if report.name == plan.baseline), None)
            say_point = f"{len(point.texts)} sentences, {len(point.task.queries)} queries"
            typer.echo(say_point + ("" if point.noise is None else f", noise {point.noise:g}"))
            compared = print_table(list(zip(reports, here, strict=True)), base, samples)
            for cell, report, comparisons in zip(here, reports, compared, strict=True):
                if store is not None:
                    store.figure(cell, report, plan.baseline or "", comparisons)
                if per_query is not None:
                    extra = {"size": cell.size, "noise": cell.noise}
                    rows += query_rows(report, source.queries, extra, point.task.queries)
            measured += [(cell, point.task) for cell in here]
    if store is not None:
        store.save()
    if per_query is not None:
        write_lines(per_query, rows)
    if plot is not None:
        from caprag.evaluation.plots import draw_sweep

        for path in draw_sweep(measured, metrics, plot, depth=depth, samples=samples, seed=seed):
            say(f"{path}: drawn")


def _save_run(source: Source, path: Path, task: Task, hits: Sequence[Sequence[tuple[int, float]]]) -> None:
    from caprag.evaluation.trec import write_qrels, write_run

    path.parent.mkdir(parents=True, exist_ok=True)
    name = source.sentence
    write_qrels(
        path.parent / "qrels.txt",
        {q: {name(i): grade for i, grade in g.items()} for q, g in zip(source.queries, task.grades, strict=True)},
    )
    run = {q: [name(i) for i, _ in found] for q, found in zip(source.queries, hits, strict=True)}
    write_run(path, run, tag=path.stem)


def _parts(given: str) -> list[str]:
    parts = list(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
    return parts or _nothing(given)


def _nothing(given: str) -> NoReturn:
    raise CapragError(f"{given!r} names nothing; give names parted by commas")
