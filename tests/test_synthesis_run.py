from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from drawn_fonts import save_font
from PIL import Image

from caprag.errors import FrameError, SynthesisError
from caprag.synthesis.backgrounds import Backgrounds
from caprag.synthesis.dataset import CaptionPictures
from caprag.synthesis.fonts import FontSet, load_fonts
from caprag.synthesis.generator import Synthesizer
from caprag.synthesis.pictures import Picture
from caprag.synthesis.reading import read_dataset, read_manifest
from caprag.synthesis.recipe import Recipe
from caprag.synthesis.run import Sentences, synthesize

TEXTS = [f"第{a}話{b}好嗎" for a in "一二三四五六七" for b in "你我他"]
CHARACTERS = sorted(set("".join(TEXTS)) | set(map(chr, range(0x21, 0x7F))))


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> FontSet:
    return load_fonts([save_font(tmp_path_factory.mktemp("字體") / "a.ttf", CHARACTERS)])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("背景")
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 255, (90, 160, 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def make(out: Path, fonts: FontSet, scenes: Path, **options: object) -> Path:
    synthesizer = Synthesizer(Backgrounds([scenes]), fonts, sizes=[(160, 90), (200, 120)], seed=4, damage=0.6)
    return synthesize(Sentences(TEXTS, synthesizer, count=70), synthesizer, out, **options).manifest  # type: ignore[arg-type]


@pytest.mark.parametrize("container", ["folders", "tar"])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, fonts: FontSet, scenes: Path, container: str) -> None:
    made = {n: make(tmp_path / str(n), fonts, scenes, workers=n, container=container, shard_size=30).parent
            for n in (1, 2, 4)}  # fmt: skip
    one = digests(made[1])
    assert len(one) == 2 + (3 if container == "tar" else 3 + 70)
    assert digests(made[2]) == one
    assert digests(made[4]) == one


def test_any_picture_can_be_made_alone(tmp_path: Path, fonts: FontSet, scenes: Path) -> None:
    manifest = make(tmp_path / "out", fonts, scenes)
    rows = list(read_manifest(manifest.parent))
    assert [row["number"] for row in rows] == list(range(70))
    synthesizer = Synthesizer(Backgrounds([scenes]), fonts, sizes=[(160, 90), (200, 120)], seed=4, damage=0.6)
    sentences = Sentences(TEXTS, synthesizer, count=70)
    written = {row["number"]: data for row, data in read_dataset(manifest.parent)}
    for number in (69, 0, 33):
        picture = synthesizer.make(number, sentences.for_picture(number))
        assert synthesizer.encode(picture) == written[number]
        assert picture.label.text == rows[number]["text"]


def pictures_in(folder: Path) -> int:
    """Count pictures while folders come and go under other names."""
    return sum(name.endswith(".jpg") for _, _, names in os.walk(folder) for name in names)


def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    """SIGKILL at ten random moments, and the same files in the end as without."""
    font = save_font(tmp_path / "a.ttf", CHARACTERS)
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS), encoding="utf-8")

    def command(out: str) -> list[str]:
        return [
            sys.executable, "-m", "caprag", "synth", "--text", str(text), "--out", str(tmp_path / out),
            "--count", "600", "--fonts", str(font), "--size", "160x90", "--workers", "2",
            "--shard-size", "100", "--quiet",
        ]  # fmt: skip

    chance = random.Random(3)
    kills = 0
    while kills < 10:
        # A group of its own: the workers have to notice by themselves that their parent is gone.
        process = subprocess.Popen(command("killed"), stderr=subprocess.DEVNULL)
        there = pictures_in(tmp_path / "killed")
        limit = time.monotonic() + 60
        wanted = there + chance.randrange(1, 40)
        while pictures_in(tmp_path / "killed") < wanted and time.monotonic() < limit:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kills += 1
    assert pictures_in(tmp_path / "killed") < 600
    for out in ("killed", "calm"):
        assert subprocess.run(command(out), check=False, stderr=subprocess.DEVNULL).returncode == 0
    assert digests(tmp_path / "killed") == digests(tmp_path / "calm")


def test_other_options_are_refused_and_the_set_stays(tmp_path: Path, fonts: FontSet, scenes: Path) -> None:
    make(tmp_path / "out", fonts, scenes)
    before = digests(tmp_path / "out")
    # Another picture under the old name is another background.
    other = tmp_path / "b"
    other.mkdir()
    for path in scenes.iterdir():
        Image.new("RGB", (160, 90)).save(other / path.name)
    with pytest.raises(SynthesisError, match=r"other settings.*backgrounds"):
        make(tmp_path / "out", fonts, other)
    plain = Synthesizer(Backgrounds([scenes]), fonts, seed=4)
    with pytest.raises(SynthesisError, match=r"other settings.*damage"):
        synthesize(Sentences(TEXTS, plain, count=70), plain, tmp_path / "out")
    with pytest.raises(SynthesisError, match=r"other settings.*text"):
        synthesize(Sentences(TEXTS[1:], plain, count=70), plain, tmp_path / "out")
    assert digests(tmp_path / "out") == before


def test_sentences_that_no_font_can_draw_are_left_out(fonts: FontSet) -> None:
    synthesizer = Synthesizer(Backgrounds(), fonts)
    sentences = Sentences(["龜", "你好", "", "好龍", "他好"], synthesizer, mode="each")
    assert sentences.rows == [1, 4]
    assert sentences.left_out == 3
    assert sentences.left_out_examples == ("龜", "", "好龍")
    assert [sentences.for_picture(i)[0] for i in range(2)] == [(1, "你好"), (4, "他好")]
    with pytest.raises(SynthesisError, match="no font has the characters of any of 1 sentences"):
        Sentences(["龜"], synthesizer)
    with pytest.raises(SynthesisError, match="no sentence"):
        Sentences([], synthesizer)


def test_pictures_without_a_caption_take_nothing_from_the_plan(fonts: FontSet) -> None:
    synthesizer = Synthesizer(Backgrounds(), fonts, recipe=Recipe(kinds={"line": 3, "empty": 1}))
    sentences = Sentences(TEXTS, synthesizer, count=28)
    for turn in (0, 1, 5):
        shown = [sentences.for_picture(turn * 28 + i) for i in range(28)]
        assert sum(not texts for texts in shown) == 7
        # Each sentence once in the 21 that are left.
        assert sorted(texts[0][1] for texts in shown if texts) == sorted(TEXTS)
        assert [sentences.for_picture(turn * 28 + i) for i in reversed(range(28))] == shown[::-1]
    each = Sentences(TEXTS, synthesizer, mode="each")
    assert [each.for_picture(i)[0] for i in range(len(TEXTS))] == list(enumerate(TEXTS))
    nothing = Sentences(TEXTS, Synthesizer(Backgrounds(), fonts, recipe=Recipe(kinds={"empty": 1})), count=5)
    assert [nothing.for_picture(i) for i in range(5)] == [[]] * 5


def test_a_floor_is_kept_in_what_is_drawn(tmp_path: Path, fonts: FontSet) -> None:
    recipe = Recipe(kinds={"line": 4, "empty": 1}, screen_text={}, type_size=(10, 12))
    synthesizer = Synthesizer(Backgrounds(), fonts, sizes=[(160, 90)], recipe=recipe)
    report = synthesize(Sentences(TEXTS * 9, synthesizer, count=200, floor=20), synthesizer, tmp_path / "a")
    drawn = Counter(c for row in read_manifest(tmp_path / "a") for c in set("".join(row["text"].split())))
    assert report.characters == drawn
    assert min(drawn.values()) >= 20
    assert report.kinds == {"empty": 40, "line": 160}


def test_a_background_that_cannot_be_decoded_is_reported_once(tmp_path: Path, fonts: FontSet, scenes: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    (folder / "good.png").write_bytes((scenes / "0.png").read_bytes())
    # Its header is sound, its pixels are cut off.
    (folder / "壞.png").write_bytes((scenes / "1.png").read_bytes()[:400])
    for workers in (1, 2):
        errors: list[FrameError] = []
        backgrounds = Backgrounds([folder], on_error=errors.append)
        synthesizer = Synthesizer(backgrounds, fonts, sizes=[(160, 90)])
        report = synthesize(
            Sentences(TEXTS, synthesizer, count=40), synthesizer, tmp_path / str(workers), workers=workers,
            on_error=errors.append,
        )  # fmt: skip
        assert report.pictures == 40
        assert ["壞.png" in str(error) for error in errors] == [True]
    assert digests(tmp_path / "1") == digests(tmp_path / "2")


def test_a_full_disk_stops_the_run_and_nothing_is_lost(tmp_path: Path, fonts: FontSet, scenes: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        with pytest.raises(SynthesisError, match=r"No space left.*pictures are safe"):
            make(disk / "out", fonts, scenes, workers=2)
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        make(disk / "out", fonts, scenes, workers=2)
        make(tmp_path / "calm", fonts, scenes)
        assert digests(disk / "out") == digests(tmp_path / "calm")
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_the_stream_gives_what_the_folder_holds(tmp_path: Path, fonts: FontSet, scenes: Path) -> None:
    from torch.utils.data import DataLoader

    synthesizer = Synthesizer(
        Backgrounds([scenes]), fonts, sizes=[(160, 90), (200, 120)], seed=4, damage=0.6, format="png"
    )
    synthesize(Sentences(TEXTS, synthesizer, count=70), synthesizer, tmp_path / "out")
    rows = list(read_manifest(tmp_path / "out"))
    sentences = Sentences(TEXTS, synthesizer, count=70)
    stream = CaptionPictures(sentences, synthesizer)
    items = list(stream)
    assert len(items) == len(stream) == 70
    assert [item["text"] for item in items] == [row["text"] for row in rows]
    for item, (_, data) in zip(items, read_dataset(tmp_path / "out"), strict=True):
        with Image.open(io.BytesIO(data)) as image:
            np.testing.assert_array_equal(np.asarray(item["image"]), np.asarray(image))

    def texts(picture: Picture) -> tuple[int, str]:
        return picture.number, picture.label.text

    shares = [
        CaptionPictures(sentences, synthesizer, start=3, stop=90, rank=rank, world_size=2, transform=texts)
        for rank in range(2)
    ]
    seen = [item for share in shares for item in share]
    assert sorted(number for number, _ in seen) == list(range(3, 90))
    assert {number: text for number, text in seen if number < 70} == {i: rows[i]["text"] for i in range(3, 70)}
    assert [len(share) for share in shares] == [44, 43]
    # Worker processes of a loader share the numbers.
    numbers = CaptionPictures(sentences, synthesizer, stop=20, transform=_number)
    loader = DataLoader(numbers, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    assert sorted(loader) == list(range(20))
    for wrong in ({"start": 71}, {"rank": 1}, {"start": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            CaptionPictures(sentences, synthesizer, **wrong)  # type: ignore[arg-type]


def _number(picture: Picture) -> int:
    return picture.number


def test_workers_end_with_their_parent(tmp_path: Path, fonts: FontSet, scenes: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from caprag.synthesis.backgrounds import Backgrounds\n"
        "from caprag.synthesis.fonts import load_fonts\n"
        "from caprag.synthesis.generator import Synthesizer\n"
        "from caprag.synthesis.run import Sentences, synthesize\n"
        "if __name__ == '__main__':\n"
        f"    fonts = load_fonts([{str(fonts.fonts[0].path)!r}])\n"
        "    synthesizer = Synthesizer(Backgrounds(), fonts)\n"
        f"    sentences = Sentences({TEXTS!r}, synthesizer, count=100000)\n"
        f"    synthesize(sentences, synthesizer, Path({str(tmp_path / 'out')!r}), workers=2)\n",
        encoding="utf-8",
    )
    process = subprocess.Popen([sys.executable, str(script)])
    limit = time.monotonic() + 60
    while not pictures_in(tmp_path / "out") and time.monotonic() < limit:
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    while time.monotonic() < limit and any(_runs(child) for child in children):
        time.sleep(0.02)
    assert not any(_runs(child) for child in children)


def _runs(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
