"""Read damaged captions with the shipped reader and with RapidOCR: python benchmarks/reader.py [--reader FOLDER].

The frames, and the caption bitmaps pasted on photographs, are left as they are, damaged by the synthesiser to severe
strength, or brought to 240 and 160 lines and sent through H.264 at CRF 38. The rows of a caption are cut out as
benchmarks/readings.py finds them, and both read the same crops. The same rows are then read against the clock by
RapidOCR's recogniser and by the reader, greedily and five hypotheses each, on all cores.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import readings
import torch
from material import DATA, ROOT, require_data, write
from PIL import Image

import caprag
from caprag.evaluation import cer_report, count_errors
from caprag.evaluation.metrics import ErrorCounts
from caprag.progress import progress_bar
from caprag.recognition.vlm import VLMRecognizer
from caprag.synthesis.damage import Damage, apply_damage, sample_damage
from caprag.workers import available_cpus, map_in_order

CONDITIONS = ("clean", "severe", "240", "160")
BATCH = 16
TIMED = 300
RESAMPLES = 10_000

Job = tuple[int, str, str, str, list[readings.Box]]


def damage_of(condition: str, number: int, height: int) -> Damage:
    """Return what is done to a picture."""
    if condition == "clean":
        return Damage()
    if condition == "severe":
        return sample_damage(np.random.default_rng([readings.SEED, number, 1]), 1.0)
    return Damage(scale=min(1.0, int(condition) / height), shrink="area", enlarge="cubic", h264_crf=readings.CRF)


def crops_of(condition: str, job: Job) -> list[Image.Image]:
    """Damage a picture and cut out its caption's rows."""
    number, kind, name, _, rows = job
    frame = readings.paste(name, number)[0] if kind == "bitmaps" else caprag.open_frame(DATA / kind / name)
    damage = damage_of(condition, number, frame.height)
    pixels = apply_damage(np.asarray(frame.convert("RGB")), damage, np.random.default_rng([readings.SEED, number, 2]))
    return [cut_out(pixels, row) for row in rows]


def cut_out(pixels: npt.NDArray[np.uint8], row: readings.Box) -> Image.Image:
    """Cut out a caption's row, with a sixth of its height around it."""
    left, top, right, bottom = row
    room = (bottom - top) // 6
    crop = pixels[max(0, top - room) : bottom + room, max(0, left - room) : right + room]
    return Image.fromarray(np.ascontiguousarray(crop))


def draw(task: tuple[str, Job, Path]) -> None:
    """Write a picture's crops, and what RapidOCR reads in them, into a folder."""
    condition, job, folder = task
    read = []
    for place, crop in enumerate(crops_of(condition, job)):
        crop.save(folder / f"{job[0]:04}-{place}.png")
        pixels = np.ascontiguousarray(np.asarray(crop)[:, :, ::-1])
        found: Any = readings.engine()(pixels, use_det=False, use_cls=False, use_rec=True)
        read.append("".join(found.txts or ()))
    (folder / f"{job[0]:04}.json").write_text(json.dumps(read, ensure_ascii=False), encoding="utf-8")


def load_crops(folder: Path, jobs: Sequence[Job]) -> tuple[list[int], list[Image.Image]]:
    """Return all rows' crops, and the place of the caption that each belongs to."""
    owners, crops = [], []
    for place, job in enumerate(jobs):
        for row in range(len(job[4])):
            with Image.open(folder / f"{job[0]:04}-{row}.png") as picture:
                crops.append(picture.convert("RGB"))
            owners.append(place)
    return owners, crops


def read_crops(reader: VLMRecognizer, crops: Sequence[Image.Image]) -> list[str]:
    """Read greedily, rows of like widths together."""
    order = sorted(range(len(crops)), key=lambda place: crops[place].width / crops[place].height)
    read = [""] * len(crops)
    with progress_bar(len(crops), "read", " rows") as bar:
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            for place, found in zip(places, reader.recognize_batch([crops[p] for p in places]), strict=True):
                read[place] = found[0].text
            bar.update(len(places))
    return read


def ratio_interval(ours: ErrorCounts, theirs: ErrorCounts) -> tuple[float, list[float]]:
    """Return the ratio of two error rates of the same lines, and its 95 % interval by drawing lines anew."""
    one, two = np.array(ours.edits, float), np.array(theirs.edits, float)
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(one), size=(RESAMPLES, len(one)))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = one[drawn].sum(1) / two[drawn].sum(1)
    return float(one.sum() / two.sum()), [float(value) for value in np.nanquantile(ratios, (0.025, 0.975))]


def rates(reader: VLMRecognizer, crops: Sequence[Image.Image]) -> dict[str, float]:
    """Return rows a second: of RapidOCR's recogniser, and of the reader with one and with five hypotheses."""
    from rapidocr import RapidOCR
    from rapidocr.ch_ppocr_rec.typings import TextRecInput

    engine: Any = RapidOCR(
        params={"Global.log_level": "error", "EngineConfig.onnxruntime.intra_op_num_threads": available_cpus()}
    )
    pixels: list[npt.NDArray[Any]] = [np.ascontiguousarray(np.asarray(crop)[:, :, ::-1]) for crop in crops]
    # Its recogniser is loaded with the first picture.
    engine(pixels[0], use_det=False, use_cls=False)
    ways: dict[str, Callable[[], object]] = {
        "rapidocr": lambda: engine.text_rec(TextRecInput(img=pixels)),
        "greedy": lambda: in_batches(reader, crops, 1),
        "five": lambda: in_batches(reader, crops, 5),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(3):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - begin)
    return {name: len(crops) / min(took) for name, took in seconds.items()}


def in_batches(reader: VLMRecognizer, crops: Sequence[Image.Image], n_best: int) -> None:
    """Read in the order of widths, as RapidOCR does."""
    order = sorted(crops, key=lambda crop: crop.width / crop.height)
    for start in range(0, len(order), BATCH):
        reader.recognize_batch(order[start : start + BATCH], n_best)


def main() -> None:
    """Make the crops that are missing, read them, and write down both error rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reader", type=Path, default=ROOT / "caprag/recognition/reader/weights")
    parser.add_argument("--out", type=Path, default=ROOT / "build/reader", help="folder of the crops")
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=CONDITIONS)
    parser.add_argument("--limit", type=int, help="for development: every so manieth picture")
    parser.add_argument("--workers", type=int, default=available_cpus())
    parser.add_argument("--name", default="reader", help="of the result file")
    arguments = parser.parse_args()
    require_data()
    wanted = located(arguments.out, arguments.workers)[:: arguments.limit or 1]
    for condition in arguments.conditions:
        folder = arguments.out / condition
        folder.mkdir(parents=True, exist_ok=True)
        missing = [(condition, job, folder) for job in wanted if not (folder / f"{job[0]:04}.json").exists()]
        with progress_bar(len(wanted), condition, " pictures", initial=len(wanted) - len(missing)) as bar:
            for _ in map_in_order(draw, missing, arguments.workers):
                bar.update()
    reader = VLMRecognizer(arguments.reader, crop="frame", batch_size=BATCH, max_new_tokens=48)
    rows: list[dict[str, Any]] = []
    for condition in arguments.conditions:
        folder = arguments.out / condition
        owners, crops = load_crops(folder, wanted)
        theirs = ["".join(json.loads((folder / f"{job[0]:04}.json").read_text(encoding="utf-8"))) for job in wanted]
        ours = [""] * len(wanted)
        for owner, text in zip(owners, read_crops(reader, crops), strict=True):
            ours[owner] += text
        for kind in (*readings.SETS, "all"):
            chosen = [place for place, job in enumerate(wanted) if kind in (job[1], "all")]
            truths = [wanted[place][3] for place in chosen]
            counts = {
                name: count_errors([read[place] for place in chosen], truths)
                for name, read in (("reader", ours), ("rapidocr", theirs))
            }
            ratio, interval = ratio_interval(counts["reader"], counts["rapidocr"])
            row = {"condition": condition, "set": kind, "captions": len(chosen), "ratio": ratio, "interval": interval}
            for name, counted in counts.items():
                row |= {name: counted.cer, f"{name}_interval": list(cer_report(counted).interval)}
                row[f"{name}_exact"] = 1 - counted.wrong_lines / len(chosen)
            rows.append(row)
            print(
                f"{condition:7}{kind:8} {len(chosen)} captions: reader {counts['reader'].cer:.2%}, RapidOCR "
                f"{counts['rapidocr'].cer:.2%}, ratio {ratio:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]",
                flush=True,
            )
    _, crops = load_crops(arguments.out / arguments.conditions[0], wanted[:TIMED])
    torch.set_num_threads(available_cpus())
    speed = rates(reader, crops)
    print({name: round(value, 1) for name, value in speed.items()})
    print(write(arguments.name, {"rows": rows, "rates": speed, "batch": BATCH}))


def located(folder: Path, workers: int) -> list[Job]:
    """Return all captions whose rows are known."""
    folder.mkdir(parents=True, exist_ok=True)
    known = readings.captions()
    numbered = [(number, *caption) for number, caption in enumerate(known)]
    names = [f"{kind}/{name}" for kind, name, _ in known]
    boxes = readings.resumed(folder / "boxes.jsonl", numbered, names, readings.locate, workers)
    found = [(*job, [tuple(box) for box in boxes[name]["rows"]]) for job, name in zip(numbered, names, strict=True)]
    return [job for job in found if job[4]]


if __name__ == "__main__":
    main()
