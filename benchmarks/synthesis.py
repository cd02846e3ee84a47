"""Make pictures of captions, and prepare a corpus: python benchmarks/synthesis.py [--cache FOLDER].

Pictures a second on one core, whole frames and lines cut out, beside the plain Pillow way, TextRecognitionDataGenerator
and SynthTIGER (each in an environment of its own under --cache); what RapidOCR reads of them at every strength of
damage, at the boxes of their labels; and the time and memory that a million lines take to prepare. Everything that is
timed runs pinned to one core, except the corpus, which has two processes.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from material import DATA, require_data, write
from rapidocr import RapidOCR
from synthesis_peers import LARGE, enlarge, peer_rates
from tqdm import tqdm

import caprag
from caprag.evaluation import cer_report, count_errors
from caprag.synthesis.backgrounds import Backgrounds
from caprag.synthesis.damage import STRENGTHS
from caprag.synthesis.fonts import FontSet, load_fonts
from caprag.synthesis.generator import Synthesizer
from caprag.synthesis.recipe import KINDS, Recipe
from caprag.synthesis.run import Sentences, synthesize

FONT = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc")
TEXTS = DATA / "text/zh-TW"
SCENES = DATA / "backgrounds"
LINE_HEIGHT = 64


def rate(
    texts: Sequence[str], fonts: FontSet, count: int, scenes: Path = SCENES, cache_bytes: int = 256 << 20,
    **options: Any,
) -> dict[str, float]:  # fmt: skip
    """Make so many pictures, written to a folder by one process, and return pictures a second."""
    with tempfile.TemporaryDirectory() as folder:
        synthesizer = Synthesizer(Backgrounds([scenes], cache_bytes=cache_bytes), fonts, seed=1, **options)
        # What is kept after first use (photographs, glyphs) is kept for days in a real run.
        synthesize(Sentences(texts, synthesizer, count=200), synthesizer, Path(folder, "warm"))
        start = time.perf_counter()
        synthesize(Sentences(texts, synthesizer, count=count), synthesizer, Path(folder, "out"))
        seconds = time.perf_counter() - start
    return {"pictures": count, "seconds": seconds, "rate": count / seconds}


def rates(texts: Sequence[str], count: int, cache: Path) -> list[dict[str, Any]]:
    """Time what is asked for most."""
    bold = load_fonts([FONT], sample=texts[:50])
    every = load_fonts(sample=texts[:50])
    outline = {"kinds": {"line": 1.0}, "looks": {"outline": 1.0}, "screen_text": {}, "italic": 0.0}
    height = round(LINE_HEIGHT * 0.8)
    ways: list[tuple[str, FontSet, int, dict[str, Any]]] = [
        ("frame, outline", bold, count, {"recipe": Recipe(**outline)}),  # type: ignore[arg-type]
        (
            f"frame, outline, photographs of {LARGE[0]} x {LARGE[1]}", bold, count,
            {"recipe": Recipe(**outline), "scenes": enlarge(SCENES, cache / "large")},  # type: ignore[arg-type]
        ),
        (
            "the same, each photograph read anew", bold, count // 4,
            {"recipe": Recipe(**outline), "scenes": enlarge(SCENES, cache / "large"),  # type: ignore[arg-type]
             "cache_bytes": 0},
        ),
        ("frame, default recipe, all fonts", every, count, {}),
        (
            "line", bold, count * 3,
            {"recipe": Recipe(**outline, crop="line", type_size=(height, height))},  # type: ignore[arg-type]
        ),
        *((f"frame, default recipe, {name} damage", every, count // 4, {"damage": STRENGTHS[name]})
          for name in ("light", "medium", "severe")),
    ]  # fmt: skip
    return [{"way": name, **rate(texts, fonts, n, **options)} for name, fonts, n, options in tqdm(ways, desc="rates")]


def readings(texts: Sequence[str], count: int) -> list[dict[str, Any]]:
    """Let RapidOCR read the lines at the boxes of the labels, for each strength of damage."""
    fonts = load_fonts(sample=texts[:50])
    # Its network reads from left to right.
    recipe = Recipe(kinds={kind: weight for kind, weight in KINDS.items() if kind not in ("empty", "vertical")})
    engine = RapidOCR(params={"Global.log_level": "error"})
    rows = []
    for name, strength in STRENGTHS.items():
        synthesizer = Synthesizer(Backgrounds([SCENES]), fonts, seed=2, recipe=recipe, damage=strength)
        plan = Sentences(texts, synthesizer, count=count)
        read, truth = [], []
        for number in tqdm(range(count), desc=f"read, {name}"):
            picture = synthesizer.make(number, plan.for_picture(number))
            for line in picture.label.lines:
                if line.role != "caption":
                    continue
                left, top, right, bottom = line.box
                room = max(3, (bottom - top) // 7)
                crop = picture.pixels[max(0, top - room) : bottom + room, max(0, left - room) : right + room, ::-1]
                result: Any = engine(np.ascontiguousarray(crop), use_det=False, use_cls=False, use_rec=True)
                read.append("".join(result.txts or ()))
                truth.append(line.text)
        report = cer_report(count_errors(read, truth))
        rows.append({"damage": name, "lines": len(truth), "cer": report.value, "interval": report.interval,
                     "signature": report.signature})  # fmt: skip
    return rows


def corpus(count: int) -> dict[str, Any]:
    """Prepare so many lines with two processes; seconds, and the memory of all processes together."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "lines.txt")
        material = [s.text for s in caprag.read_corpus(sorted((DATA / "text").rglob("*.txt")))]
        rng = np.random.default_rng(0)
        with source.open("w", encoding="utf-8") as stream:
            for i in range(count):
                # Two halves of two lines: new lines of the same kind, and a few that come twice.
                one, two = (material[int(j)] for j in rng.integers(len(material), size=2))
                stream.write(one if i % 10 == 0 else one[: len(one) // 2] + two[len(two) // 2 :])
                stream.write("\n")
        command = [sys.executable, "-m", "caprag", "corpus", str(source), "--out", str(Path(folder, "out.txt")),
                   "--workers", "2", "--quiet"]  # fmt: skip
        start = time.perf_counter()
        peak = _run_and_watch(command)
        seconds = time.perf_counter() - start
        kept = Path(folder, "out.txt").read_bytes().count(b"\n")
    return {"lines": count, "kept": kept, "seconds": seconds, "megabytes": peak / 1e6}


def _run_and_watch(command: list[str]) -> int:
    """Run a command and return the most memory that it and its children held at one time, in bytes."""
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(map(_resident, _family(process.pid))))
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: ended with {process.returncode}")
    return peak


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return [pid]
    return [pid, *(member for child in children for member in _family(int(child)))]


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def main() -> None:
    """Measure everything, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir(), "caprag-peers"))
    parser.add_argument("--count", type=int, default=1000, help="pictures for each rate")
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines of corpus")
    arguments = parser.parse_args()
    require_data()
    if not FONT.exists():
        sys.exit(f"{FONT}: is not there; apt-get install fonts-noto-cjk")
    texts = [s.text for s in caprag.read_corpus(sorted(TEXTS.glob("*.txt"))) if 5 <= len(s.text) <= 15]
    result: dict[str, Any] = {"corpus": corpus(arguments.lines)}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    result["rates"] = rates(texts, arguments.count, arguments.cache)
    with tempfile.TemporaryDirectory() as folder:
        text_file = Path(folder, "texts.txt")
        text_file.write_text("\n".join(texts) + "\n", encoding="utf-8")
        result["peers"] = peer_rates(text_file, FONT, SCENES, arguments.count, arguments.cache)
    os.sched_setaffinity(0, cores)
    result["readings"] = readings(texts, 250)
    path = write("synthesis", result)
    for row in result["rates"]:
        print(f"{row['way']:40} {row['rate']:8.1f} a second")
    for name, row in result["peers"].items():
        print(f"{name:40} {row}")
    for row in result["readings"]:
        print(f"{row['damage']:8} CER {row['cer']:.2%}")
    print(result["corpus"])
    print(path)


if __name__ == "__main__":
    main()
