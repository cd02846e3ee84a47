"""How fast others make pictures of text: python benchmarks/synthesis_peers.py --text F --font F --backgrounds DIR.

TextRecognitionDataGenerator and SynthTIGER make line crops, 64 pixels high, white type with a black outline on a cut of
a photograph, JPEG at quality 90 in a folder: one after the other, each in an environment of its own, on one core. Plain
Pillow makes whole frames of 1280x720 the way that is written first, all anew for each picture: from the backgrounds as
they are, and from copies of 3840x2160 as cameras and wallpapers have them. A peer that does not install or run is
reported with the reason; it stops nothing.

This file is run in the peers' environments too, so it imports nothing but the standard library at its top.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

HEIGHT = 64
OUTLINE = 3
QUALITY = 90
FRAME = (1280, 720)
LARGE = (3840, 2160)
TYPE = (50, 70)
# Made before the clock starts: what is loaded once is not counted.
WARM_UP = 5
PYTHON = "3.11"


@dataclass(frozen=True)
class Job:
    """What is to be made: a line of text a picture, into a folder."""

    texts: list[str]
    font: Path
    backgrounds: Path
    out: Path


@dataclass(frozen=True)
class Peer:
    """A package to compare with: what it needs, which of it without its own dependencies, and how it is run."""

    package: str
    requirements: tuple[str, ...]
    without_dependencies: tuple[str, ...]
    make: Callable[[Job], Iterator[bool]]


def make_trdg(job: Job) -> Iterator[bool]:
    """Make line crops by TextRecognitionDataGenerator; it leaves out what has too little contrast for it."""
    from trdg.generators import GeneratorFromStrings  # type: ignore[import-not-found]

    random.seed(0)
    pictures = GeneratorFromStrings(
        job.texts,
        count=len(job.texts),
        fonts=[str(job.font)],
        size=HEIGHT,
        background_type=3,
        image_dir=str(job.backgrounds),
        text_color="#FFFFFF",
        stroke_width=OUTLINE,
        stroke_fill="#000000",
    )
    for number, (picture, _) in enumerate(pictures):
        if picture is not None:
            picture.save(job.out / f"{number:06}.jpg", quality=QUALITY)
        yield picture is not None


def make_synthtiger(job: Job) -> Iterator[bool]:
    """Make line crops by SynthTIGER, by the template below."""
    import synthtiger  # type: ignore[import-not-found]

    config = {"texts": job.texts, "font": str(job.font), "backgrounds": str(job.backgrounds)}
    script, name = str(Path(__file__).resolve()), synthtiger_template.__name__
    template = synthtiger.read_template(script, name, config)
    template.init_save(str(job.out))
    # Without a second try at what fails: that would go on for ever, and hide the reason.
    pictures = synthtiger.generator(
        script, name, config=config, count=len(job.texts), worker=0, seed=0, retry=False, verbose=True
    )
    for number, picture in pictures:
        if picture is not None:
            template.save(str(job.out), picture, number)
        yield picture is not None
    template.end_save(str(job.out))


def synthtiger_template(config: dict[str, Any]) -> Any:
    """Return SynthTIGER's template of a line: text with a border on a cut of a texture of the same size."""
    import numpy as np
    from PIL import Image
    from synthtiger import components, layers, templates

    class Template(templates.Template):  # type: ignore[misc]
        def __init__(self) -> None:
            size = round((HEIGHT - 2 * OUTLINE) / 1.45)
            self.texts = iter(config["texts"])
            self.font = components.BaseFont(paths=[config["font"]], weights=[1], size=(size, size))
            self.border = components.TextBorder(size=(OUTLINE, OUTLINE), rgb=((0, 0), (0, 0), (0, 0)))
            self.texture = components.BaseTexture(paths=[config["backgrounds"]], weights=[1])

        def generate(self) -> Any:
            line = layers.TextLayer(next(self.texts), color=(255, 255, 255, 255), **self.font.sample())
            self.border.apply([line])
            width, height = (int(side) for side in line.size)
            ground = layers.RectLayer((width, height))
            meta = self.texture.sample()
            across, down = min(width, meta["w"]), min(height, meta["h"])
            meta["x"] = np.random.randint(meta["w"] - across + 1)  # noqa: NPY002
            meta["y"] = np.random.randint(meta["h"] - down + 1)  # noqa: NPY002
            self.texture.apply([ground], {**meta, "w": across, "h": down})
            ground.center = line.center
            return (line + ground).merge().output()

        def init_save(self, root: str) -> None:
            Path(root).mkdir(parents=True, exist_ok=True)

        def save(self, root: str, data: Any, number: int) -> None:
            image = Image.fromarray(data[..., :3].astype(np.uint8))
            image = image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.BILINEAR)
            image.save(Path(root) / f"{number:06}.jpg", quality=QUALITY)

        def end_save(self, root: str) -> None:
            pass

    return Template()


def make_frames(job: Job) -> Iterator[bool]:
    """Make whole frames by Pillow: background, font and text anew for each."""
    from PIL import Image, ImageDraw, ImageFont

    rng = random.Random(0)
    paths = _pictures(job.backgrounds)
    for number, text in enumerate(job.texts):
        with Image.open(rng.choice(paths)) as picture:
            frame = picture.convert("RGB").resize(FRAME, Image.Resampling.LANCZOS)
        font = ImageFont.truetype(str(job.font), rng.randint(*TYPE))
        ImageDraw.Draw(frame).text(
            (FRAME[0] / 2, FRAME[1] * 0.9), text, (255, 255, 255), font, "mm",
            stroke_width=OUTLINE, stroke_fill=(0, 0, 0),
        )  # fmt: skip
        frame.save(job.out / f"{number:06}.jpg", quality=QUALITY)
        yield True


PEERS = {
    "trdg": Peer(
        "trdg",
        # Its generators import its reader of Wikipedia, and the Arabic reshaper pkg_resources, which setuptools had up
        # to 81. The newest Pillow that has what it calls is of the 9 series.
        ("pillow==9.5.0", "numpy==1.26.4", "opencv-python-headless==4.11.0.86", "tqdm", "requests", "beautifulsoup4",
         "wikipedia==1.4.0", "setuptools<81", "arabic-reshaper==2.1.3", "python-bidi==0.4.2"),
        # It asks for diffimg 0.2.3, which asks for NumPy 1.16, and uses neither.
        ("trdg==1.8.0",),
        make_trdg,
    ),
    "synthtiger": Peer("synthtiger", ("synthtiger==1.2.1", "pillow==9.5.0", "numpy==1.26.4"), (), make_synthtiger),
}  # fmt: skip
WAYS: dict[str, tuple[str, Callable[[Job], Iterator[bool]]]] = {
    "frames by Pillow": ("pillow", make_frames),
    "frames by Pillow, large backgrounds": ("pillow", make_frames),
    **{name: (peer.package, peer.make) for name, peer in PEERS.items()},
}


def peer_rates(text_file: Path, font: Path, backgrounds: Path, count: int, cache: Path) -> dict[str, dict[str, Any]]:
    """Measure all ways one after the other, each on one core in a process of its own.

    Parameters
    ----------
    text_file
        UTF-8, a sentence a line; used from the first, again from there where there are fewer than `count`.
    font
        Font with all its characters; its first face is taken.
    backgrounds
        Folder of pictures (jpg, png) and nothing else.
    count
        Pictures that each way makes, 1 or more.
    cache
        Folder for the environments and large backgrounds, some 1 GB; made where it does not exist, and used again.

    Returns
    -------
    dict of str to dict
        For each of `WAYS`: ``pictures``, ``seconds`` of the clock, ``cpu_seconds``, ``rate`` (pictures a second of the
        clock), ``cpu_rate``, ``left_out`` (pictures that were asked for and not made) and ``version``; or ``failed``,
        the reason why there are none.
    """
    rates: dict[str, dict[str, Any]] = {}
    for name in WAYS:
        try:
            python = _environment(PEERS[name], cache / name) if name in PEERS else Path(sys.executable)
            folder = enlarge(backgrounds, cache / "large") if "large" in name else backgrounds
            with tempfile.TemporaryDirectory(prefix="caprag-peer-") as out:
                rates[name] = _measure_apart(python, name, text_file, font, folder, count, Path(out))
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            rates[name] = {"failed": _reason(error)}
    return rates


def enlarge(backgrounds: Path, folder: Path) -> Path:
    """Copy pictures at the size of `LARGE` into a folder, unless they are there, and return it."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for path in _pictures(backgrounds):
        copy = folder / f"{path.stem}.jpg"
        if not copy.exists():
            with Image.open(path) as picture:
                picture.convert("RGB").resize(LARGE, Image.Resampling.LANCZOS).save(copy, quality=QUALITY)
    return folder


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))


def _environment(peer: Peer, folder: Path) -> Path:
    """Make a peer's environment unless it is there already, and return its Python."""
    python = folder / "bin" / "python"
    # Written last, so a half-made one is made again.
    done = folder / "installed.txt"
    wanted = "\n".join((*peer.requirements, *peer.without_dependencies))
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv:
        _run([uv, "venv", "--quiet", "--python", PYTHON, str(folder)])
        install = [uv, "pip", "install", "--quiet", "--python", str(python)]
    else:
        _run([sys.executable, "-m", "venv", str(folder)])
        install = [str(python), "-m", "pip", "install", "--quiet"]
    _run([*install, *peer.requirements])
    if peer.without_dependencies:
        _run([*install, "--no-deps", *peer.without_dependencies])
    done.write_text(wanted, encoding="utf-8")
    return python


def _measure_apart(
    python: Path, name: str, text_file: Path, font: Path, backgrounds: Path, count: int, out: Path
) -> dict[str, Any]:
    paths = {"--text": text_file, "--font": font, "--backgrounds": backgrounds, "--out": out}
    options = [word for option, path in paths.items() for word in (option, str(path.resolve()))]
    printed = _run([str(python), __file__, "--inside", name, "--count", str(count), *options])
    # The peers print too.
    result = json.loads(printed.splitlines()[-1])
    for rate, seconds in (("rate", "seconds"), ("cpu_rate", "cpu_seconds")):
        result[rate] = result["pictures"] / result[seconds]
    return dict(result)


def _run(command: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": "", "VIRTUAL_ENV": "", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    environment.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800, env=environment)
    return done.stdout


def _reason(error: Exception) -> str:
    """Return the last lines that a program said before it failed, or the error itself."""
    said = [getattr(error, stream, None) for stream in ("stdout", "stderr")]
    lines = [line.strip() for part in said for line in str(part or "").splitlines() if line.strip()]
    return " / ".join(lines[-3:]) or f"{type(error).__name__}: {error}"


def measure_here(name: str, text_file: Path, font: Path, backgrounds: Path, count: int, out: Path) -> dict[str, Any]:
    """Measure one way in this process, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    lines = [line.strip() for line in text_file.read_text(encoding="utf-8").splitlines() if line.strip()]
    package, make = WAYS[name]
    texts = list(islice(cycle(lines), WARM_UP + count))
    made = make(Job(texts, font, backgrounds, out))
    for _ in range(WARM_UP):
        next(made)
    start, cpu = time.perf_counter(), time.process_time()
    pictures = sum(made)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    if not pictures:
        sys.exit(f"{name}: made none of {count} pictures")
    return {
        "pictures": pictures,
        "left_out": count - pictures,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "version": version(package),
    }


def main() -> None:
    """Measure all, or, in a peer's environment, this one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="sentences, one a line")
    parser.add_argument("--font", type=Path, required=True)
    parser.add_argument("--backgrounds", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "caprag-peers")
    parser.add_argument("--inside", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside:
        result = measure_here(args.inside, args.text, args.font, args.backgrounds, args.count, args.out)
        print("\n" + json.dumps(result))
        return
    for name, result in peer_rates(args.text, args.font, args.backgrounds, args.count, args.cache).items():
        made = "{rate:8.1f} pictures a second, {cpu_rate:.1f} of processor time, {left_out} left out, version {version}"
        print(f"{name:36}", ("failed: {failed}" if "failed" in result else made).format(**result))


if __name__ == "__main__":
    main()
