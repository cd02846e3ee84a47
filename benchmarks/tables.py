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


PEERS = {
    "frames by Pillow": "plain Pillow, everything anew",
    "frames by Pillow, large backgrounds": "plain Pillow, everything anew",
    "trdg": "TextRecognitionDataGenerator",
    "synthtiger": "SynthTIGER",
}


def synthesis(result: dict[str, Any]) -> str:
    """Pictures a second on one core, beside those of others."""
    ours = {row["way"]: row["rate"] for row in result["rates"]}
    peers = result["peers"]
    lines = [["what is made", "caprag", "others", "ratio"], ["---"] * 4]
    large = next(way for way in ours if "photographs" in way)
    beside = {
        "frame, outline": ["frames by Pillow"],
        large: ["frames by Pillow, large backgrounds"],
        "the same, each photograph read anew": ["frames by Pillow, large backgrounds"],
        "line": ["trdg", "synthtiger"],
    }
    for way, rate in ours.items():
        rates = {PEERS[name]: peers[name].get("rate") for name in beside.get(way, [])}
        known = {name: other for name, other in rates.items() if other}
        lines.append(
            [
                way,
                f"{rate:.0f} a second",
                "; ".join(f"{name} {other:.0f}" for name, other in known.items()) or "-",
                "; ".join(f"× {rate / other:.1f}" for other in known.values()) or "-",
            ]
        )
    return _table(lines)


def damage(result: dict[str, Any]) -> str:
    """Show what RapidOCR gets wrong of damaged lines."""
    rows = result["readings"]
    head = ["damage", *(row["damage"] for row in rows)]
    return _table([head, ["---"] * len(head), ["CER of RapidOCR", *(_percent(row) for row in rows)]])


def _table(lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "frames": ("frames", frames),
    "subtitles": ("subtitles", subtitles),
    "synthesis": ("synthesis", synthesis),
    "damage": ("synthesis", damage),
}
"""Table to the result that it shows and the function that makes it."""


def render(readme: str) -> str:
    """Return the README with its tables made anew from the results."""
    for name, (source, make) in TABLES.items():
        path = RESULTS / f"{source}.json"
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
