"""Write the README's result tables from benchmarks/results: python benchmarks/tables.py [--check]."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks/results"


def _percent(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['cer']:.2%} [{low:.2%}, {high:.2%}]"


def frames(result: dict[str, Any]) -> str:
    """CER on real frames, and wrong answers on pictures without a caption."""
    sets = list(dict.fromkeys(row["set"] for row in result["rows"]))
    ways = list(dict.fromkeys(row["way"] for row in result["rows"]))
    empty = list(dict.fromkeys(row["set"] for row in result["empty"]))
    head = ["CER of the reading", *sets, *(f"no caption: {name}" for name in empty), "time"]
    base = result["seconds_a_picture"]["RapidOCR"]
    lines = [head, ["---"] * len(head)]
    for way in ways:
        cells = [_percent(row) for s in sets for row in result["rows"] if (row["set"], row["way"]) == (s, way)]
        for s in empty:
            row = next(row for row in result["empty"] if (row["set"], row["way"]) == (s, way))
            cells.append(f"{row['wrong']} of {row['pictures']} wrong")
        ratio = result["seconds_a_picture"]["caprag" if way == "caprag" else "RapidOCR"] / base
        lines.append([way, *cells, f"{ratio:.2f}"])
    return _table(lines)


def subtitles(result: dict[str, Any]) -> str:
    """CER and harm of each film, with and without its sentences in the corpus."""
    table = {(row["corpus"], row["film"], row["way"]): row for row in result["rows"]}
    ways = list(dict.fromkeys(way for _, _, way in table))
    lines = [["corpus", "film", *ways], ["---"] * (2 + len(ways))]
    for corpus, film in sorted({(corpus, film) for corpus, film, _ in table}):
        read = table[corpus, film, ways[0]]["cer"]
        cells = [f"{read:.2%}"]
        for way in ways[1:]:
            row = table[corpus, film, way]
            cells.append(f"{row['cer']:.2%} (× {row['cer'] / read:.2f}), {row['harm']:.1%}")
        lines.append([corpus, film, *cells])
    return _table(lines)


def _table(lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"frames": frames, "subtitles": subtitles}


def render(readme: str) -> str:
    """Return the README with its tables made anew from the results."""
    for name, make in TABLES.items():
        path = RESULTS / f"{name}.json"
        table = make(json.loads(path.read_text(encoding="utf-8")))
        mark = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        readme = mark.sub(lambda m, t=table: f"{m[1]}{t}\n{m[2]}", readme)  # type: ignore[misc]
    return readme


def main() -> None:
    """Write the tables, or with --check fail where they are not what the results say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = render(before)
    if arguments.check:
        sys.exit("README.md: its tables are not those of benchmarks/results" if before != after else 0)
    path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
