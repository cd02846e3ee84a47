"""Backgrounds from files made here by Pillow and PyAV, and the laws that hold for any of them."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from caprag.errors import FrameError
from caprag.synthesis.background_files import probe, read_picture
from caprag.synthesis.background_scenes import SCENES
from caprag.synthesis.backgrounds import BackgroundLabel, Backgrounds, background_schema
from caprag.synthesis.pictures import Pixels

SIZES = [(1280, 720), (640, 360), (360, 640), (64, 36), (17, 31), (1, 1)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(width: int = 160, height: int = 90, seed: int = 0) -> Image.Image:
    return Image.fromarray(rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def draws(backgrounds: Backgrounds, numbers: Iterable[int], size: tuple[int, int]) -> dict[int, Any]:
    found = {}
    for number in numbers:
        pixels, label = backgrounds.draw(rng(number), size)
        found[number] = (pixels.tobytes(), pixels.shape, label)
    return found


def write_video(path: Path, frames: list[Pixels], *, rate: int = 5, aspect: Fraction | None = None) -> None:
    """Write H.264 with a keyframe every ten frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "12", "g": "10", "bf": "0", "threads": "1"})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def counter(frames: int = 40, size: tuple[int, int] = (96, 160)) -> list[Pixels]:
    """Frames whose grey says which they are: 40 + 4 n."""
    return [np.full((*size, 3), 40 + 4 * n, np.uint8) for n in range(frames)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures of several kinds and a video, some in a folder within."""
    inner = tmp_path / "背景" / "第1集"
    inner.mkdir(parents=True)
    noise().save(inner / "é 雨.jpg", quality=90)
    noise(200, 200, 1).save(inner.parent / "2.png")
    noise(700, 400, 2).save(inner.parent / "10.webp")
    write_video(inner.parent / "劇.mp4", counter())
    return inner.parent


def test_files_are_in_natural_order_with_names_within_the_folder(folder: Path) -> None:
    backgrounds = Backgrounds([folder, folder / "10.webp"])
    names = ["2.png", "10.webp", "劇.mp4", "第1集/é 雨.jpg", "10.webp"]
    assert [path.name for path in backgrounds.files] == [name.rpartition("/")[2] for name in names]
    assert {label.file for _, _, label in draws(backgrounds, range(60), (32, 18)).values()} == set(names)


def test_the_generator_alone_decides(folder: Path) -> None:
    size, numbers = (160, 90), range(40)
    wanted = draws(Backgrounds([folder]), numbers, size)
    assert draws(Backgrounds([folder]), reversed(numbers), size) == wanted
    assert draws(Backgrounds([folder], cache_bytes=0), numbers, size) == wanted
    # Two pictures of this size are all that is kept, and other sizes come between.
    small = Backgrounds([folder], cache_bytes=100_000)
    for number in numbers:
        draws(small, [number + 1000], (33, 33))
        assert draws(small, [number], size) == {number: wanted[number]}
    assert draws(pickle.loads(pickle.dumps(small)), numbers, size) == wanted
    # A frame of one grey is the same however it is cut.
    assert len({pixels for pixels, _, _ in wanted.values()}) > 35


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_filled(folder: Path, size: tuple[int, int]) -> None:
    for backgrounds in (Backgrounds([folder]), Backgrounds()):
        for number in range(30):
            pixels, label = backgrounds.draw(rng(number), size)
            assert pixels.shape == (size[1], size[0], 3)
            assert pixels.dtype == np.uint8
            assert pixels.flags.c_contiguous
            assert (label.fit == "generated") == (not backgrounds.files)


def test_what_is_drawn_may_be_written_into(folder: Path) -> None:
    # As large as the picture, so that nothing needs resizing.
    backgrounds = Backgrounds([folder / "2.png"])
    for number in range(10):
        first, _ = backgrounds.draw(rng(number), (200, 200))
        kept = first.copy()
        first[:] = 7
        assert np.array_equal(backgrounds.draw(rng(number), (200, 200))[0], kept)


def test_a_view_is_a_part_of_the_whole(tmp_path: Path) -> None:
    noise(9, 6).resize((900, 600), Image.Resampling.BICUBIC).save(tmp_path / "a.png")
    size, view = (480, 270), (100, 200, 300, 270)
    for backgrounds in (Backgrounds([tmp_path / "a.png"]), Backgrounds()):
        for number in range(60):
            whole, label = backgrounds.draw(rng(number), size)
            part, same = backgrounds.draw(rng(number), size, view)
            assert same == label
            assert part.shape == (70, 200, 3)
            difference = np.abs(part.astype(int) - whole[200:270, 100:300])
            # What a blur takes in from beyond the view is missing near its edges.
            margin = int(3 * label.blur) + 8 if label.blur else 0
            inside = difference[margin : 70 - margin, margin : 200 - margin]
            assert inside.max(initial=0) <= (4 if label.blur else 2)
    for wrong in [(0, 0, 481, 10), (5, 5, 5, 10), (-1, 0, 10, 10)]:
        with pytest.raises(ValueError, match="view"):
            Backgrounds().draw(rng(), size, wrong)


def test_a_crop_keeps_circles_round(tmp_path: Path) -> None:
    # Dots 24 pixels wide every 64 pixels: wherever it is cut, they stay as wide as high.
    for name, (width, height) in {"wide.png": (1400, 500), "high.png": (500, 1400), "large.jpg": (3000, 2000)}.items():
        picture = Image.new("RGB", (width, height), "black")
        draw = ImageDraw.Draw(picture)
        for x in range(0, width, 64):
            for y in range(0, height, 64):
                draw.ellipse((x, y, x + 23, y + 23), fill="white")
        picture.save(tmp_path / name, quality=95)
        for number in range(25):
            size = [(320, 180), (180, 320), (200, 200)][number % 3]
            pixels, label = Backgrounds([tmp_path / name]).draw(rng(number), size)
            assert label.crop is not None
            left, top, right, bottom = label.crop
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            if label.fit == "letterbox":
                continue
            assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1], rel=0.02)
            scale = size[0] / (right - left)
            if 64 * scale > 8:
                across, down = (pitch(pixels, axis) for axis in (0, 1))
                assert across == pytest.approx(64 * scale, rel=0.03)
                assert down == pytest.approx(64 * scale, rel=0.03)


def pitch(pixels: Pixels, axis: int) -> float:
    """Strongest period along an axis, in pixels, by a Fourier transform."""
    profile = pixels[..., 0].astype(float).mean(axis=axis)
    profile -= profile.mean()
    points = 64 * len(profile)
    spectrum = np.abs(np.fft.rfft(profile * np.hanning(len(profile)), points))
    # At least two periods.
    return points / float(128 + int(np.argmax(spectrum[128:])))


def test_letterbox_bars_are_black_and_the_picture_between_keeps_its_shape(tmp_path: Path) -> None:
    picture = Image.new("RGB", (1280, 720), (90, 160, 90))
    picture.save(tmp_path / "a.png")
    seen = set()
    backgrounds = Backgrounds([tmp_path / "a.png"])
    for size in [(320, 180), (180, 320)]:
        for number in range(200):
            pixels, label = backgrounds.draw(rng(number), size)
            lit = pixels.max(axis=2) > 0
            rows, columns = lit.any(axis=1), lit.any(axis=0)
            if label.fit == "crop":
                assert lit.all()
                continue
            inside = np.flatnonzero(rows), np.flatnonzero(columns)
            assert lit[np.ix_(*inside)].all()
            assert int(rows.sum()) < size[1] or int(columns.sum()) < size[0]
            # Bars are equal on both sides.
            assert inside[0][0] == size[1] - 1 - inside[0][-1]
            assert inside[1][0] == size[0] - 1 - inside[1][-1]
            assert label.crop is not None
            left, top, right, bottom = label.crop
            shape = len(inside[1]) / len(inside[0])
            assert (right - left) / (bottom - top) == pytest.approx(shape, rel=0.02)
            seen.add("sides" if int(columns.sum()) < size[0] else "above")
            # A film of another shape is shown whole.
            if size == (180, 320):
                assert label.crop == (0, 0, 1280, 720)
    assert seen == {"sides", "above"}


def test_a_letterbox_is_seldom_and_half_are_flipped(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    backgrounds = Backgrounds([tmp_path / "a.png"])
    labels = [backgrounds.draw(rng(number), (32, 18))[1] for number in range(1000)]
    assert 0.05 < np.mean([label.fit == "letterbox" for label in labels]) < 0.12
    assert 0.45 < np.mean([label.flip for label in labels]) < 0.55


def test_a_picture_of_the_frames_size_is_left_as_it_is(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    backgrounds = Backgrounds([tmp_path / "a.png"], letterbox=0.0, zoom=(1.0, 1.0), light=0.0, soft=0.0, flip=0.0)
    for number in range(40):
        pixels, label = backgrounds.draw(rng(number), (160, 90))
        assert np.array_equal(pixels, np.asarray(noise()))
        assert label == BackgroundLabel("a.png", fit="crop", crop=(0, 0, 160, 90))
        part, _ = backgrounds.draw(rng(number), (160, 90), view=(31, 70, 150, 90))
        assert np.array_equal(part, pixels[70:90, 31:150])


def test_shares_and_zoom_are_as_asked(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.png")
    always = Backgrounds([tmp_path / "a.png"], letterbox=0.0, zoom=(2.0, 4.0), light=1.0, soft=1.0, flip=1.0)
    labels = [always.draw(rng(number), (32, 18))[1] for number in range(300)]
    assert all(label.gain != 1 and label.blur > 0 and label.flip for label in labels)
    assert 0.1 < np.mean([label.gain < 0.5 for label in labels]) < 0.2
    widths = [label.crop[2] - label.crop[0] for label in labels if label.crop is not None]
    assert 40 <= min(widths) < 45
    assert 75 < max(widths) <= 80


def test_the_label_says_what_was_done(tmp_path: Path) -> None:
    source = noise(8, 5).resize((256, 144), Image.Resampling.BICUBIC)
    source.save(tmp_path / "a.png")
    checked = 0
    for number in range(80):
        pixels, label = Backgrounds([tmp_path / "a.png"]).draw(rng(number), (64, 36))
        if label.fit != "crop" or label.blur:
            continue
        part = source.crop(label.crop).resize((64, 36), Image.Resampling.BOX)
        expected = np.asarray(part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if label.flip else part) / 255
        expected = np.clip(255 * label.gain * expected**label.gamma, 0, 255)
        assert np.abs(expected - pixels).mean() < 3
        checked += 1
    assert checked > 40


def test_the_manifest_takes_every_label(folder: Path) -> None:
    labels = [label for _, _, label in draws(Backgrounds([folder]), range(20), (32, 18)).values()]
    labels += [Backgrounds().draw(rng(), (32, 18))[1], BackgroundLabel()]
    rows = [{**asdict(label), "crop": label.crop and list(label.crop)} for label in labels]
    assert pa.Table.from_pylist(rows, schema=background_schema()).to_pylist() == rows


GREY = np.full((70, 90), 51, np.uint8)


def half_clear() -> Image.Image:
    """Grey at half opacity: over black half as bright."""
    return Image.fromarray(np.dstack([np.full((70, 90, 3), 102, np.uint8), np.full((70, 90), 128, np.uint8)]))


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("grey.png", Image.fromarray(GREY)),
        ("grey.jpg", Image.fromarray(GREY)),
        ("rgb.bmp", Image.fromarray(GREY).convert("RGB")),
        ("colour.gif", Image.fromarray(GREY).convert("P")),
        ("alpha.png", half_clear()),
        ("alpha.webp", half_clear()),
        ("deep.png", Image.fromarray(np.full((70, 90), 51 * 257, np.uint16))),
        ("deep.tif", Image.fromarray(np.full((70, 90), 51 * 257, np.uint16))),
        ("print.tif", Image.new("CMYK", (90, 70), (0, 0, 0, 204))),
        ("print.jpg", Image.new("CMYK", (90, 70), (204, 204, 204, 0))),
        ("one bit.png", Image.new("1", (90, 70), 0)),
    ],
)
def test_pictures_of_every_mode_become_rgb(tmp_path: Path, name: str, picture: Image.Image) -> None:
    if name.endswith("webp"):
        picture.save(tmp_path / name, lossless=True)
    else:
        picture.save(tmp_path / name)
    for shrink in (1, 2):
        pixels = read_picture(probe(tmp_path / name, name), shrink).pixels
        assert pixels.shape == (70 // shrink, 90 // shrink, 3)
        assert np.abs(pixels.astype(int) - (0 if name.startswith("one") else 51)).max() <= 2


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, *rest = (Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue"))
    first.save(tmp_path / "a.gif", save_all=True, append_images=rest)
    assert (read_picture(probe(tmp_path / "a.gif", ""), 1).pixels == (255, 0, 0)).all()


@pytest.mark.parametrize(("orientation", "turn"), [(1, None), (3, 180), (6, 270), (8, 90)])
@pytest.mark.parametrize("shrink", [1, 2, 4, 8])
def test_photographs_are_upright_and_shrink_without_moving(
    tmp_path: Path, orientation: int, turn: int | None, shrink: int
) -> None:
    picture = Image.new("RGB", (1203, 801), (30, 60, 200))
    picture.paste((220, 30, 30), (0, 0, 600, 400))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    source = probe(tmp_path / "a.jpg", "a.jpg")
    decoded = read_picture(source, shrink)
    upright = picture.rotate(turn, expand=True) if turn else picture
    assert source.size == decoded.full == upright.size
    height, width = decoded.pixels.shape[:2]
    assert width == pytest.approx(upright.width / shrink, abs=1)
    assert height == pytest.approx(upright.height / shrink, abs=1)
    small = np.asarray(upright.resize((width, height), Image.Resampling.BOX)).astype(int)
    assert np.mean(np.abs(small - decoded.pixels)) < 3


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "ts", "avi"])
def test_a_moment_of_a_video_is_the_one_in_the_label(tmp_path: Path, suffix: str) -> None:
    write_video(tmp_path / f"影片.{suffix}", counter())
    backgrounds = Backgrounds([tmp_path])
    moments = set()
    for number in range(40):
        pixels, label = backgrounds.draw(rng(number), (64, 36))
        assert label.seconds is not None
        if label.fit == "crop" and label.gain == label.gamma == 1.0:
            # Five frames a second; limited range and 8 bits leave a level or two, AVI's clock a frame or two.
            slack = 8 if suffix == "avi" else 2.5
            assert pixels.mean() == pytest.approx(40 + 4 * 5 * label.seconds, abs=slack)
        moments.add(round(label.seconds, 3))
    # Eight seconds have eight moments; a transport stream has no index, and begins where the next keyframe is.
    assert len(moments) == (4 if suffix == "ts" else 8)
    assert min(moments) < 1
    assert 6 <= max(moments) < 8


def test_broad_pixels_of_a_video_are_made_square(tmp_path: Path) -> None:
    frame = np.full((144, 180, 3), 16, np.uint8)
    frame[40:80, 60:90] = 235
    write_video(tmp_path / "dvd.mkv", [frame] * 3, aspect=Fraction(4, 3))
    for number in range(30):
        pixels, label = Backgrounds([tmp_path]).draw(rng(number), (240, 144))
        if label.fit == "crop" and label.blur == 0 and pixels.max() > 100:
            lit = pixels[..., 0] > pixels.max() / 2
            rows, columns = int(lit.any(axis=1).sum()), int(lit.any(axis=0).sum())
            if not (lit[0].any() or lit[-1].any() or lit[:, 0].any() or lit[:, -1].any()):
                assert columns == pytest.approx(rows, abs=3)
                return
    pytest.fail("the square was never whole in the picture")


def test_a_file_that_is_no_picture_is_named_and_left_out(tmp_path: Path) -> None:
    noise().save(tmp_path / "好.png")
    (tmp_path / "壞.jpg").write_bytes(b"not a picture")
    (tmp_path / "空.png").touch()
    (tmp_path / "壞.mp4").write_bytes(b"\0" * 100)
    Image.new("RGB", (200, 63)).save(tmp_path / "小.png")
    errors: list[FrameError] = []
    backgrounds = Backgrounds([tmp_path], on_error=errors.append)
    assert [path.name for path in backgrounds.files] == ["好.png"]
    assert sorted(Path(str(error).partition(": ")[0]).name for error in errors) == [
        "壞.jpg",
        "壞.mp4",
        "小.png",
        "空.png",
    ]
    with pytest.raises(FrameError, match=r"壞\.jpg: not a picture"):
        Backgrounds([tmp_path])


@pytest.mark.parametrize("kind", ["missing", "empty", "broken"])
def test_nothing_usable_is_an_error_with_a_remedy(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "資料"
    if kind != "missing":
        path.mkdir()
    if kind == "broken":
        (path / "a.png").write_bytes(b"x")
    with pytest.raises(FrameError, match=r"資料.*(check the name|no pictures or videos|name other files)"):
        Backgrounds([path], on_error=lambda error: None)


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="one path"):
        Backgrounds(str(tmp_path))
    with pytest.raises(ValueError, match="-1"):
        Backgrounds(cache_bytes=-1)
    for name in ("letterbox", "light", "soft", "flip"):
        with pytest.raises(ValueError, match=f"{name} is 1.5"):
            Backgrounds(**{name: 1.5})  # type: ignore[arg-type]
    for zoom in ((0.9, 1.0), (1.5, 1.2), (1.0, math.inf), (math.nan, 2.0)):
        with pytest.raises(ValueError, match=r"zoom is \("):
            Backgrounds(zoom=zoom)
    with pytest.raises(ValueError, match="0, 5"):
        Backgrounds().draw(rng(), (0, 5))


def cut_short(folder: Path) -> Path:
    """Three sound pictures and two whose headers alone are sound."""
    folder.mkdir()
    for n in range(5):
        noise(300, 200, n).save(folder / f"{n}.jpg")
    for n in (1, 2):
        path = folder / f"{n}.jpg"
        path.write_bytes(path.read_bytes()[:3000])
    return folder


def test_a_file_cut_short_is_told_once_and_the_next_taken(tmp_path: Path) -> None:
    folder = cut_short(tmp_path / "圖")
    errors: list[FrameError] = []
    backgrounds = Backgrounds([folder], on_error=errors.append)
    assert len(backgrounds.files) == 5
    wanted = draws(backgrounds, range(60), (96, 54))
    assert sorted(Path(str(error).partition(": ")[0]).name for error in errors) == ["1.jpg", "2.jpg"]
    # Of the fifths of 1 and 2, both go to 3.
    counts = {name: sum(label.file == name for _, _, label in wanted.values()) for name in ("0.jpg", "3.jpg", "4.jpg")}
    assert sum(counts.values()) == 60
    assert counts["3.jpg"] > counts["0.jpg"] + counts["4.jpg"] - 10
    for cache_bytes in (0, 1 << 28):
        others = Backgrounds([folder], on_error=lambda error: None, cache_bytes=cache_bytes)
        assert draws(others, reversed(range(60)), (96, 54)) == wanted


def test_a_file_cut_short_is_raised_every_time_where_nobody_listens(tmp_path: Path) -> None:
    folder = cut_short(tmp_path / "圖")
    backgrounds = Backgrounds([folder / "1.jpg"])
    for _ in range(2):
        with pytest.raises(FrameError, match=r"1\.jpg: damaged or cut short"):
            backgrounds.draw(rng(), (96, 54))
    with pytest.raises(FrameError, match="nor any other"):
        Backgrounds([folder / "1.jpg"], on_error=lambda error: None).draw(rng(), (96, 54))


def test_a_video_cut_short_gives_the_frames_it_has(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    write_video(path, [np.asarray(noise(160, 96, n)) for n in range(40)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    errors: list[FrameError] = []
    backgrounds = Backgrounds([path], on_error=errors.append)
    wanted = draws(backgrounds, range(20), (64, 36))
    assert not errors
    assert draws(Backgrounds([path], cache_bytes=0), reversed(range(20)), (64, 36)) == wanted


def test_scenes_are_of_every_kind_and_no_two_alike() -> None:
    found = draws(Backgrounds(), range(80), (160, 90))
    assert {label.scene for _, _, label in found.values()} == set(SCENES)
    assert len({pixels for pixels, _, _ in found.values()}) == 80
    assert draws(Backgrounds(), reversed(range(80)), (160, 90)) == found


@pytest.mark.parametrize("kind", list(SCENES))
def test_a_scene_has_light_and_shade(kind: str) -> None:
    spread = [float(SCENES[kind](rng(n), (320, 180)).std()) for n in range(10)]
    assert np.median(spread) > 10


def test_real_photographs(data: Path) -> None:
    backgrounds = Backgrounds([data / "backgrounds"])
    assert len(backgrounds.files) == 38
    means = [pixels.mean() for pixels, _ in (backgrounds.draw(rng(n), (320, 180)) for n in range(20))]
    assert np.std(means) > 10
