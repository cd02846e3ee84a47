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


SYSTEMS = {
    "edit": "rapidfuzz, exhaustive",
    "bm25": "BM25 (bm25s)",
    "tfidf": "TF-IDF",
    "symspell": "SymSpell",
    "dense": "dense alone",
    "lexical": "lexical alone",
}
READINGS = {
    "paddle": "lines of four films misread by one engine (paddle)",
    "lens": "by another (lens)",
}


def retrieval(result: dict[str, Any]) -> str:
    """Show how often the first hit is right, for each kind of reading, and how far caprag is from exhaustive search."""
    table = {(row["set"], row["system"]): row for row in result["rows"]}
    sets, systems = (list(dict.fromkeys(key[i] for key in table)) for i in (0, 1))
    head = ["recall@1", "readings", *(SYSTEMS.get(name, name) for name in systems), "caprag - rapidfuzz"]
    lines = [head, ["---"] * len(head)]
    for name in sets:
        cells = [f"{row['recall@1']:.1%} {_range(row['interval'], '.1%')}" for row in (table[name, s] for s in systems)]
        ours = table[name, "caprag"]
        low, high = (f"{100 * end:+.1f}" for end in ours["difference_interval"])
        apart = f"{100 * ours['difference']:+.1f} points [{low}, {high}], p {ours['p']:.4f}"
        lines.append([READINGS.get(name, name), str(ours["queries"]), *cells, apart])
    return _table(lines)


def agreement(result: dict[str, Any]) -> str:
    """Show how often caprag's first hit is as near in edits as any sentence."""
    rows = [row for row in result["rows"] if row["system"] == "caprag" and "agreement" in row]
    head = ["first hit", *(READINGS.get(row["set"], row["set"]) for row in rows)]
    cells = ["as near in edits as any sentence", *(f"{row['agreement']:.1%}" for row in rows)]
    return _table([head, ["---"] * len(head), cells])


def scale(result: dict[str, Any]) -> str:
    """Show speed, memory and disk of each system at each size."""
    head = [
        "sentences", "system", "build, s", "and embed, s", "peak, MB", "disk, MB", "open, s", "open, MB",
        "readings a second", "one by one", "recall@1, 10 %", "recall@1, 30 %", "to exhaustive, 30 %", "added a second",
        "added and found, s",
    ]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for row in result["rows"]:
        name = f"{row['system']}, {row['factory']}" if row["system"] in ("caprag", "FAISS") else row["system"]
        if "failed" in row:
            lines.append([f"{row['size']:,}", name, "failed", *["-"] * (len(head) - 3)])
            continue
        whole = f"{row['build_seconds'] + row['embedding_seconds']:.0f}"
        below = "-"
        if "below_exhaustive_30" in row:
            ends = [100 * end for end in row["below_exhaustive_interval_30"]]
            below = f"{100 * row['below_exhaustive_30']:+.1f} points {_range(ends, '+.1f')}"
        lines.append(
            [
                f"{row['size']:,}",
                name,
                f"{row['build_seconds']:.1f}",
                "-" if row["system"] in ("bm25s", "rapidfuzz") or row["embedded"] < row["size"] else whole,
                *(f"{row[part] / 1e6:,.0f}" for part in ("build_peak", "disk")),
                f"{row['open_seconds']:.2f}",
                *(f"{value:,.0f}" for value in (row["open_rss"] / 1e6, row["rate"], row["single_rate"])),
                *(f"{row[f'recall_{n}']:.1%} {_range(row[f'interval_{n}'], '.1%')}" for n in (10, 30)),
                below,
                f"{row['add_rate']:,.0f}" if row["add_rate"] else "built again",
                f"{row['found_seconds']:.2f}" if row["add_rate"] else "-",
            ]
        )
    return _table(lines)


def negatives(result: dict[str, Any]) -> str:
    """Show what an embedder gains from mined negatives, and from negatives drawn at random."""
    names = {"base": "before", "random": "random negatives", "mined": "mined negatives"}
    lines = [["embedder", "recall@1", "recall@10", "MRR"], ["---"] * 4]
    for kind, figures in result["figures"].items():
        means = {name: sum(row[name] for row in figures) / len(figures) for name in figures[0]}
        lines.append([names[kind], *(f"{100 * means[name]:.2f} %" for name in ("recall@1", "recall@10", "mrr"))])
    differences = []
    for name in ("recall@1", "mrr"):
        value, *ends = (100 * number for number in result["mined minus random"][name])
        differences.append(f"{value:+.2f} points {_range(ends, '+.2f')}")
    lines.append(["mined - random", differences[0], "-", differences[1]])
    return _table(lines)


def poems(result: dict[str, Any]) -> str:
    """Show how well each system finds a verse by its translation, in both corpora."""
    metrics = ("ndcg@1", "ndcg@10", "recall@5", "recall@10", "mrr")
    lines = [["corpus", "system", *metrics], ["---"] * (2 + len(metrics))]
    found: dict[tuple[str, str], dict[str, float]] = {}
    for row in result["rows"]:
        found.setdefault((row["corpus"], row["system"]), {})[row["name"]] = row["value"]
    for (corpus, system), values in found.items():
        lines.append([corpus, system, *(f"{values[name]:.3f}" for name in metrics)])
    return _table(lines)


CONDITIONS = {
    "clean": "as they are", "severe": "severe damage", "240": "240 lines, CRF 38", "160": "160 lines, CRF 38",
}  # fmt: skip


def reader(result: dict[str, Any]) -> str:
    """CER of the shipped reader and of RapidOCR on the same crops."""
    lines = [
        ["captions", "damage", "reader", "RapidOCR", "ratio", "without an error", "RapidOCR"],
        ["---"] * 7,
    ]  # fmt: skip
    lines += [
        [
            f"{row['set']} ({row['captions']})",
            CONDITIONS[row["condition"]],
            *(f"{row[name]:.2%} {_range(row[f'{name}_interval'], '.2%')}" for name in ("reader", "rapidocr")),
            f"{row['ratio']:.2f} {_range(row['interval'], '.2f')}",
            *(f"{row[f'{name}_exact']:.1%}" for name in ("reader", "rapidocr")),
        ]
        for row in result["rows"]
    ]
    return _table(lines)


def reader_speed(result: dict[str, Any]) -> str:
    """Rows a second on two cores."""
    rates = result["rates"]
    names = {"rapidocr": "RapidOCR's recogniser", "greedy": "reader", "five": "reader, five hypotheses"}
    lines = [["rows in batches", "a second", "ratio"], ["---"] * 3]
    for name, title in names.items():
        lines.append([title, f"{rates[name]:.1f}", f"{rates[name] / rates['rapidocr']:.2f}"])
    return _table(lines)


def style(result: dict[str, Any]) -> str:
    """CER of a style that the reader never saw, before and after a few minutes of training."""
    lines = [["captions in a style never seen", "before", "after", "ratio", "training"], ["---"] * 5]
    cells = [f"{result[name]:.2%} {_range(result[f'{name}_interval'], '.2%')}" for name in ("before", "after")]
    lines.append(
        [
            f"{result['asked']} in {result['font']}, thick edge in colour", *cells,
            f"{result['ratio']:.2f} {_range(result['interval'], '.2f')}",
            f"{result['learnt']} captions, {result['seconds'] / 60:.1f} min",
        ]
    )  # fmt: skip
    return _table(lines)


def areas(result: dict[str, Any]) -> str:
    """Area under risk over coverage by film: of the stated confidence, and of the best feature by itself."""
    lines = [["film", "caprag's confidence", "the best single feature", "ratio"], ["---"] * 4]
    for film, by in result["areas"].items():
        name, area = min(((name, area) for name, area in by.items() if name != "confidence"), key=lambda pair: pair[1])
        own = by["confidence"]
        lines.append([film, f"{own:.4f}", f"{area:.4f} (`{name}`)", f"{own / area:.2f}" if area else "-"])
    return _table(lines)


JUDGED = {"known": "has it", "unknown": "lacks it", "mixed": "both together"}


def judging(result: dict[str, Any]) -> str:
    """CER of real captions answered with and without the recognizer's word on the sentences, and what was harmed."""
    lines = [
        ["reader", "damage", "the corpus", "as read", "by text alone", "with the picture", "difference in points",
         "harmed by text", "with the picture", "at 1 in 500"],
        ["---"] * 10,
    ]  # fmt: skip
    for row in result["rows"]:
        ends = [100 * end for end in row["interval"]]
        lines.append([
            row["reader"], row["strength"], JUDGED[row["corpus"]],
            *(f"{row[name]:.2%}" for name in ("read", "without", "with")),
            f"{100 * row['difference']:+.2f} {_range(ends, '+.2f')}",
            *(f"{row['harm'][name]:.2%}" for name in ("without", "with", "0.002")),
        ])  # fmt: skip
    return _table(lines)


def parts(result: dict[str, Any]) -> str:
    """CER and harm of captions that are no single sentence, film by film."""
    kinds = {
        "as_they_are": "as they are", "two_in_one": "each fifth put together with the next",
        "one_in_two": "each fifth cut in two",
    }  # fmt: skip
    films = list(dict.fromkeys(row["film"] for row in result["rows"]))
    lines = [["corpus", "captions", "way", *films], ["---"] * (3 + len(films))]
    found = {(row["corpus"], row["captions"], row["way"], row["film"]): row for row in result["rows"]}
    for corpus, captions, way in dict.fromkeys(key[:3] for key in found):
        cells = [found[corpus, captions, way, film] for film in films]
        shown = [f"{row['cer']:.2%}" + ("" if way == "as read" else f", {row['harm']:.2%}") for row in cells]
        lines.append([corpus, kinds[captions], WAYS[way], *shown])
    return _table(lines)


WAYS = {"as read": "as read", "whole": "caprag", "parts": "with --parts"}


def snapping(result: dict[str, Any]) -> str:
    """Milliseconds a line on one core."""
    columns = ("search", "line by line", "in order", "one by one")
    lines = [["sentences", "index", *(f"{name}, ms" for name in columns)], ["---"] * (2 + len(columns))]
    lines += [
        [f"{row['sentences']:,}", row["factory"], *(f"{row[name]:.1f}" for name in columns)] for row in result["lines"]
    ]
    return _table(lines)


def pretraining(result: dict[str, Any]) -> str:
    """CER of the reader's language model with and without learning from text alone."""
    steps = sorted(set.intersection(*({row["step"] for row in rows} for rows in result["ways"].values())))
    lines = [["steps on pictures", *(f"{step}" for step in steps)], ["---"] * (1 + len(steps))]
    for way, rows in result["ways"].items():
        found = {row["step"]: row["cer"] for row in rows}
        lines.append([way, *(f"{found[step]:.2%}" for step in steps)])
    return _table(lines)


def _range(ends: list[float], form: str) -> str:
    return f"[{ends[0]:{form}}, {ends[1]:{form}}]"


def _table(lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "frames": ("frames", frames),
    "subtitles": ("subtitles", subtitles),
    "synthesis": ("synthesis", synthesis),
    "damage": ("synthesis", damage),
    "retrieval": ("retrieval", retrieval),
    "agreement": ("retrieval", agreement),
    "scale": ("scale", scale),
    "negatives": ("negatives", negatives),
    "poems": ("poems", poems),
    "reader": ("reader", reader),
    "reader speed": ("reader", reader_speed),
    "style": ("style", style),
    "pretraining": ("pretraining", pretraining),
    "areas": ("subtitles", areas),
    "judging": ("judging", judging),
    "parts": ("parts", parts),
    "snapping": ("snapping", snapping),
}
"""Table to the result that it shows and the function that makes it."""


def render(readme: str) -> str:
    """Return the README with its tables made anew from the results."""
    for name, (source, make) in TABLES.items():
        mark = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not mark.search(readme):
            continue
        path = RESULTS / f"{source}.json"
        table = make(json.loads(path.read_text(encoding="utf-8")))
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
