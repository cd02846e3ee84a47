"""Read badly damaged captions, for the other benchmarks to search by: python benchmarks/readings.py [--out FOLDER].

The frames, and the caption bitmaps pasted on photographs, are shrunk to 160, 200 and 240 lines, sent through H.264 at
CRF 38 and enlarged again; then RapidOCR's network reads them at the box of the caption. The detector misses most of
such captions, so the box is that of the bitmap, or the one that RapidOCR finds in the frame before the damage, where
its text resembles the truth. One file a height, a JSON object a picture:
{"picture": name, "set": "frames" or "bitmaps", "truth": text, "read": text}. What is there is not made again.
"""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from material import DATA, ROOT, require_data, tsv
from PIL import Image
from rapidfuzz import fuzz
from rapidocr import RapidOCR

import caprag
from caprag.evaluation import cer_report, count_errors
from caprag.progress import progress_bar
from caprag.synthesis.damage import Damage, apply_damage
from caprag.workers import available_cpus, map_in_order

SETS = ("frames", "bitmaps")
HEIGHTS = (160, 200, 240)
CRF = 38
READINGS = ROOT / "build/readings"
SIZE = 1280, 720
# The bitmaps are of a film of 1080 lines.
BITMAP_SCALE = 720 / 1080
# Share of a text's letters that the truth must have in their order, for its box to be the caption's.
ALIKE = 60
SEED = 0

Box = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""


@functools.cache
def engine() -> RapidOCR:
    """Return RapidOCR with one thread, loaded once."""
    # One thread each: there are as many processes as cores.
    return RapidOCR(params={"Global.log_level": "error", "EngineConfig.onnxruntime.intra_op_num_threads": 1})


def captions() -> list[tuple[str, str, str]]:
    """Return set, picture and truth of all pictures that have a caption."""
    return [(kind, row[0], row[1]) for kind in SETS for row in tsv(DATA / kind / "captions.tsv") if row[1].strip()]


def paste(name: str, number: int) -> tuple[Image.Image, list[Box]]:
    """Paste a bitmap at the foot of a photograph; return the frame and the caption's box."""
    rng = np.random.default_rng([SEED, number])
    photographs = sorted((DATA / "backgrounds").glob("*.jpg"))
    frame = caprag.open_frame(photographs[rng.integers(len(photographs))]).resize(SIZE)
    with Image.open(DATA / "bitmaps" / name) as picture:
        layer = picture.convert("RGBA")
    layer = layer.resize((round(layer.width * BITMAP_SCALE), round(layer.height * BITMAP_SCALE)))
    left, top = (SIZE[0] - layer.width) // 2, SIZE[1] - layer.height - int(rng.integers(24, 49))
    frame.paste(layer, (left, top), layer)
    return frame, [(left, top, left + layer.width, top + layer.height)]


def find_rows(name: str, truth: str) -> list[Box]:
    """Find the rows of a frame's caption, undamaged: the texts that resemble the truth."""
    found: Any = engine()(np.asarray(caprag.open_frame(DATA / "frames" / name))[:, :, ::-1])
    wanted = caprag.match_form(truth)
    rows: list[Box] = []
    for corners, text in sorted(zip(found.boxes, found.txts, strict=True), key=_top) if found.txts else ():
        form = caprag.match_form(text)
        if not form or fuzz.partial_ratio(form, wanted) < ALIKE:
            continue
        (left, top), (right, bottom) = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
        box = (int(left), int(top), int(right), int(bottom))
        if rows and (top + bottom) / 2 < rows[-1][3]:
            # Side by side: one row.
            box = _around(rows.pop(), box)
        rows.append(box)
    return rows


def _top(found: tuple[npt.NDArray[np.float32], str]) -> float:
    return float(found[0][:, 1].mean())


def _around(one: Box, two: Box) -> Box:
    return min(one[0], two[0]), min(one[1], two[1]), max(one[2], two[2]), max(one[3], two[3])


def locate(job: tuple[int, str, str, str]) -> dict[str, object]:
    """Say where the caption of a picture is."""
    number, kind, name, truth = job
    rows = paste(name, number)[1] if kind == "bitmaps" else find_rows(name, truth)
    return {"picture": f"{kind}/{name}", "rows": rows}


def damaged_reading(job: tuple[int, str, str, str, list[Box], int]) -> dict[str, object]:
    """Damage a picture, and read the rows of its caption."""
    number, kind, name, truth, rows, lines = job
    frame = paste(name, number)[0] if kind == "bitmaps" else caprag.open_frame(DATA / kind / name)
    damage = Damage(scale=min(1.0, lines / frame.height), shrink="area", enlarge="cubic", h264_crf=CRF)
    pixels = apply_damage(np.asarray(frame), damage, np.random.default_rng(0))
    read = []
    for left, top, right, bottom in rows:
        room = (bottom - top) // 6
        crop = pixels[max(0, top - room) : bottom + room, max(0, left - room) : right + room, ::-1]
        result: Any = engine()(np.ascontiguousarray(crop), use_det=False, use_cls=False, use_rec=True)
        read.append("".join(result.txts or ()))
    return {"picture": f"{kind}/{name}", "set": kind, "truth": truth, "read": "\n".join(filter(None, read))}


def resumed(
    path: Path, jobs: Sequence[Any], names: Sequence[str], work: Callable[[Any], dict[str, object]], workers: int
) -> dict[str, dict[str, Any]]:
    """Return a row a job, by name, from a file; those that it lacks are worked out and added to it."""
    rows = {row["picture"]: row for row in _rows(path)}
    missing = [job for job, name in zip(jobs, names, strict=True) if name not in rows]
    with path.open("a", encoding="utf-8") as stream, progress_bar(
        len(jobs), path.stem, " pictures", initial=len(jobs) - len(missing)
    ) as bar:  # fmt: skip
        for row in map_in_order(work, missing, workers):
            rows[str(row["picture"])] = row
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            stream.flush()
            bar.update()
    return {name: rows[name] for name in names}


def _rows(path: Path) -> Iterable[dict[str, Any]]:
    """Read the whole lines of a file; what a kill cut off is taken away."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.decode("utf-8").split("\n") if line]


def reading_file(folder: Path, lines: int) -> Path:
    """Return the file of the readings at so many lines."""
    return folder / f"h{lines}-crf{CRF}.jsonl"


def load_readings(folder: Path, lines: int) -> list[dict[str, str]]:
    """Read what `main` wrote; an empty list where it has not."""
    return list(_rows(reading_file(folder, lines)))


def main() -> None:
    """Make the readings that are missing, and print how bad all of them are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=READINGS, help="folder of the readings")
    parser.add_argument("--heights", type=int, nargs="+", default=list(HEIGHTS))
    parser.add_argument("--workers", type=int, default=available_cpus())
    arguments = parser.parse_args()
    require_data()
    arguments.out.mkdir(parents=True, exist_ok=True)
    known = captions()
    names = [f"{kind}/{name}" for kind, name, _ in known]
    jobs = [(number, *caption) for number, caption in enumerate(known)]
    located = resumed(arguments.out / "boxes.jsonl", jobs, names, locate, arguments.workers)
    found = [(job, name) for job, name in zip(jobs, names, strict=True) if located[name]["rows"]]
    print(f"{len(found)} of {len(jobs)} captions were found")
    for lines in arguments.heights:
        path = reading_file(arguments.out, lines)
        tasks = [(*job, located[name]["rows"], lines) for job, name in found]
        rows = resumed(path, tasks, [name for _, name in found], damaged_reading, arguments.workers)
        for kind in SETS:
            of_set = [row for row in rows.values() if row["set"] == kind]
            empty = sum(not caprag.match_form(row["read"]) for row in of_set)
            counts = count_errors([row["read"] for row in of_set], [row["truth"] for row in of_set])
            low, high = cer_report(counts).interval
            print(
                f"{path}  {kind:8} {len(of_set)} readings, {empty} empty, {counts.wrong_lines} wrong, "
                f"CER {counts.cer:.1%} [{low:.1%}, {high:.1%}]"
            )


if __name__ == "__main__":
    main()
