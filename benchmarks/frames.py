"""Read real TV frames: python benchmarks/frames.py.

Two readers without an index, the shipped one and RapidOCR's networks with a beam search of ours, each of which is shown
whole frames and finds the caption by itself, on three sets of frames, and on pictures without a caption: photographs,
and the upper three quarters of the frames with their logos and signs. Peers in the same run: RapidOCR's own answer,
once all of its texts, once those in a fixed box at the foot.
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
READERS = {"caprag": "caprag", "caprag, RapidOCR's networks": "rapidocr"}
PEERS = ("RapidOCR, all texts", "RapidOCR, fixed box")


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
    readers = {way: caprag.load_recognizer(name) for way, name in READERS.items()}
    ways = (*READERS, *PEERS)
    seconds = dict.fromkeys(ways, 0.0)

    def read(picture: Image.Image) -> tuple[str, ...]:
        ours = []
        for way, reader in readers.items():
            start = time.perf_counter()
            ours.append(reader.recognize_batch([picture])[0][0].text)
            seconds[way] += time.perf_counter() - start
        start = time.perf_counter()
        theirs = peer_texts(engine, picture)
        for way in PEERS:
            seconds[way] += time.perf_counter() - start
        return *ours, *theirs

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
    count = len(readings) + sum(row["pictures"] for row in empty if row["way"] == ways[0])
    errors = [
        {"way": way, "image": n, "truth": truth[n], "read": readings[n][i]}
        for i, way in enumerate(READERS)
        for n in truth
        if count_errors([readings[n][i]], [truth[n]]).wrong_lines
    ]
    path = write(
        "frames",
        {
            "rows": rows,
            "empty": empty,
            "errors": errors,
            "seconds_a_picture": {way: total / count for way, total in seconds.items()},
        },
    )
    for row in rows:
        print(
            f"{row['set']:6} {row['way']:28} CER {row['cer']:.3%}  wrong lines {row['wrong_lines']} of {row['lines']}"
        )
    for row in empty:
        print(f"{row['set']:36} {row['way']:28} wrong {row['wrong']} of {row['pictures']}")
    print(path)


if __name__ == "__main__":
    main()
