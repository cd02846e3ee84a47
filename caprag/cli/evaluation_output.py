"""How eval retrieval shows its figures: a table, and the values of every query."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from caprag.evaluation.report import Comparison, RetrievalReport
    from caprag.evaluation.sweep import Cell


def print_table(
    reports: Sequence[tuple[RetrievalReport, Cell | None]], base: RetrievalReport | None, samples: int
) -> list[Sequence[Comparison]]:
    """Print reports below each other, compared with one of them, and then their signatures."""
    against = "" if base is None else f"× {Path(base.name).name}"
    header = ["system", "metric", "value [95 % interval]", against, "difference [95 % interval]", "p", "queries/s"]
    rows = [header]
    compared: list[Sequence[Comparison]] = []
    for report, cell in reports:
        comparisons = () if base is None or report is base else report.compare(base, samples=10 * samples)
        compared.append(comparisons)
        seconds = math.nan if cell is None else cell.seconds.get("search", math.nan)
        speed = f"{len(report.queries) / seconds:,.0f}" if seconds > 0 else ""
        for number, (metric, figure) in enumerate(report.reports.items()):
            low, high = figure.interval
            row = [
                report.name,
                metric,
                f"{figure.value:.4f} [{low:.4f}, {high:.4f}]",
                "",
                "",
                "",
                "" if number else speed,
            ]
            if comparisons:
                test = comparisons[number].test
                low, high = test.interval
                row[3:6] = [
                    f"{comparisons[number].ratio:.3f}", f"{test.difference:+.4f} [{low:+.4f}, {high:+.4f}]",
                    f"{test.p_randomization:.4f}",
                ]  # fmt: skip
            rows.append(row)
    used = [i for i in range(len(header)) if any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in used}
    for row in rows:
        typer.echo("  ".join(row[i].ljust(widths[i]) for i in used).rstrip())
    for line in _signatures([report for report, _ in reports]):
        typer.echo(line)
    typer.echo("")
    return compared


def _signatures(reports: Sequence[RetrievalReport]) -> list[str]:
    """Say once what the signatures have in common, and then what each has of its own."""
    parts = [report.signature.split() for report in reports]
    common = [part for part in parts[0] if all(part in other for other in parts)] if parts else []
    lines = [f"signature: {' '.join(common)}"]
    for report, own in zip(reports, parts, strict=True):
        if rest := " ".join(part for part in own if part not in common):
            lines.append(f"  {report.name}: {rest}")
    return lines


def query_rows(
    report: RetrievalReport, names: Sequence[str], extra: Mapping[str, object], texts: Sequence[str] = ()
) -> list[dict[str, object]]:
    """Return a row for each query: the system, what else is known, and its values."""
    return [
        {
            "system": report.name, **extra, "query": name, **({"text": texts[i]} if texts else {}),
            **{metric: values[i] for metric, values in report.values.items()},
        }
        for i, name in enumerate(names)
    ]  # fmt: skip


def write_lines(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows as JSON lines, at one stroke."""
    from caprag.paths import replacing

    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        stream.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace") for row in rows)
