"""Where the benchmarks' material lies and how it is read: CAPRAG_DATA, or shared/data beside the checkout."""

from __future__ import annotations

import csv
import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import pysubs2

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("CAPRAG_DATA", ROOT.parent / "shared" / "data"))
RESULTS = ROOT / "benchmarks" / "results"
FILMS = ("acoptc", "kob", "mlamd", "tmm")


def require_data() -> None:
    """Leave with a word on what is missing, where the material is absent."""
    if not DATA.is_dir():
        sys.exit(f"{DATA}: the benchmarks' material is not there; name its folder in CAPRAG_DATA")


def tsv(path: Path) -> list[list[str]]:
    """Read the rows of a tab-separated file."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


def lines(film: str, name: str) -> list[str]:
    """Read the captions of one of a film's subtitle files, line for line with the others."""
    events = pysubs2.load(str(DATA / "subtitles" / film / f"{name}.srt"), encoding="utf-8-sig").events
    return [event.plaintext for event in events]


def machine() -> dict[str, object]:
    """Return the versions that something is measured with."""
    packages = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "rapidocr", "rapidfuzz", "tantivy")
    return {"python": platform.python_version(), "cpus": os.cpu_count(), **{p: version(p) for p in packages}}


def write(name: str, result: dict[str, object]) -> Path:
    """Write a result with the versions it was measured with."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**result, "machine": machine()}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
