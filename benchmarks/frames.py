"""Read real TV frames: python benchmarks/frames.py.

caprag's own reader (RapidOCR's networks, caption finding and beam search of ours) without an index, on three sets of
frames, and on pictures without a caption: photographs, and the upper three quarters of the frames with their logos and
signs. Peers in the same run: RapidOCR's own answer, once all of its texts, once those in a fixed box at the foot.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from material import DATA, require_data, tsv, write
from PIL import Image
from rapidocr import RapidOCR
from tqdm import tqdm

import caprag
from caprag.evaluation import cer_report, count_errors

SETS = ("ave", "mygo", "snail")
# The fixed box: texts whose middle lies in the lowest quarter and the middle three fifths of the width.
BOX_TOP, BOX_SIDE = 0.75, 0.3


def peer_texts(engine: RapidOCR, picture: Image.Image) -> tuple[str, str]:
    """Return RapidOCR's texts, all of them and those in the fixed box."""
    result: Any = engine(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1]))
    if result.boxes is None:
        return "", ""
    middles = [np.mean(box, axis=0) / picture.size for box in result.boxes]
    boxed = [
        text
        for text, (x, y) in zip(result.txts, middles, strict=True)
        if y > BOX_TOP and abs(x - 0.5) < BOX_SIDE
    ]  # fmt: skip
    return "\n".join(result.txts), "\n".join(boxed)


def score(readings: Sequence[str], truth: Sequence[str]) -> dict[str, object]:
    """Measure the character error rate with its interval, and the lines that are wrong."""
    counts = count_errors(readings, truth)
    report = cer_report(counts)
    return {
        "cer": report.value,
        "interval": report.interval,
        "signature": report.signature,
        "wrong_lines": counts.wrong_lines,
        "lines": len(truth),
    }


def empty_pictures() -> dict[str, list[Image.Image]]:
    """Return pictures that have no caption."""
    photographs = [caprag.open_frame(path) for path in sorted((DATA / "backgrounds").glob("*.jpg"))]
    frames = [caprag.open_frame(DATA / "frames" / row[0]) for row in tsv(DATA / "frames/captions.tsv")]
    upper = [frame.crop((0, 0, frame.width, frame.height * 3 // 4)) for frame in frames]
    return {"photographs": photographs, "upper three quarters of the frames": upper}


def main() -> None:
    """Measure caprag and its peers on all sets."""
    require_data()
    engine = RapidOCR(params={"Global.log_level": "error"})
    recognizer = caprag.load_recognizer("rapidocr")
    ways = ("caprag", "RapidOCR, all texts", "RapidOCR, fixed box")
    seconds = dict.fromkeys(("caprag", "RapidOCR"), 0.0)

    def read(picture: Image.Image) -> tuple[str, ...]:
        start = time.perf_counter()
        ours = recognizer.recognize_batch([picture])[0][0].text
        middle = time.perf_counter()
        theirs = peer_texts(engine, picture)
        seconds["caprag"] += middle - start
        seconds["RapidOCR"] += time.perf_counter() - middle
        return ours, *theirs

    truth = {row[0]: row[1] for row in tsv(DATA / "frames/captions.tsv")}
    sets = {row[0]: row[1] for row in tsv(DATA / "frames/meta.tsv")}
    readings = {name: read(caprag.open_frame(DATA / "frames" / name)) for name in tqdm(truth, desc="frames")}
    rows = []
    for kind in SETS:
        names = [name for name in truth if sets[name] == kind]
        for i, way in enumerate(ways):
            result = score([readings[n][i] for n in names], [truth[n] for n in names])
            rows.append({"set": kind, "way": way, **result})
    empty: list[dict[str, Any]] = []
    for kind, pictures in empty_pictures().items():
        answers = [read(picture) for picture in tqdm(pictures, desc=kind)]
        empty += [
            {"set": kind, "way": way, "pictures": len(answers), "wrong": sum(bool(a[i].strip()) for a in answers)}
            for i, way in enumerate(ways)
        ]
    count = len(readings) + sum(row["pictures"] for row in empty if row["way"] == "caprag")
    errors = [
        {"image": n, "truth": truth[n], "read": readings[n][0]}
        for n in truth
        if count_errors([readings[n][0]], [truth[n]]).wrong_lines
    ]
    path = write(
        "frames",
        {
            "rows": rows,
            "empty": empty,
            "errors": errors,
            "seconds_a_picture": {way: total / count for way, total in seconds.items()},
            "time_ratio": seconds["caprag"] / seconds["RapidOCR"],
        },
    )
    for row in rows:
        print(
            f"{row['set']:6} {row['way']:22} CER {row['cer']:.3%}  wrong lines {row['wrong_lines']} of {row['lines']}"
        )
    for row in empty:
        print(f"{row['set']:36} {row['way']:22} wrong {row['wrong']} of {row['pictures']}")
    print(path)


if __name__ == "__main__":
    main()
