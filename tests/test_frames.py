"""Good and bad picture files, written by Pillow or by hand, against values worked out here."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caprag.errors import FrameError
from caprag.recognition import frames
from caprag.recognition.frames import MATTE, MAX_PIXELS, SUFFIXES, list_frames, open_frame

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def noise(width: int = 60, height: int = 40, channels: int = 3) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_lossless_formats_give_the_pixels_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"畫面 é.{suffix}"
    noise().save(path)
    frame = open_frame(path)
    assert (frame.mode, frame.size) == ("RGB", (60, 40))
    assert frame.tobytes() == noise().tobytes()
    assert open_frame(str(path)).tobytes() == frame.tobytes()


@pytest.mark.parametrize("suffix", ["jpg", "webp", "jp2"])
def test_lossy_formats_open(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (32, 32), (200, 100, 50)).save(path)
    assert np.abs(np.asarray(open_frame(path), dtype=int) - (200, 100, 50)).max() <= 6


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "really_a_bitmap.jpg"
    noise().save(path, format="BMP")
    assert open_frame(path).tobytes() == noise().tobytes()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_the_first_frame(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "moving"
    first, *rest = (Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE))
    options = {"lossless": True} if kind == "WEBP" else {}
    first.save(path, format=kind, save_all=True, append_images=rest, duration=50, **options)
    with Image.open(path) as moving:
        assert moving.n_frames == 3
    assert open_frame(path).getcolors() == [(256, RED)]


def test_cmyk(tmp_path: Path) -> None:
    path = tmp_path / "print.tif"
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path)
    assert open_frame(path).getcolors() == [(64, RED)]


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    levels = np.array([[0, 128, 129, 257, 32896, 65406, 65407, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(path)
    expected = np.rint(levels / 257).astype(np.uint8)
    np.testing.assert_array_equal(np.asarray(open_frame(path))[:, :, 0], expected)
    every = np.arange(256, dtype=np.uint16)[np.newaxis] * 257
    Image.fromarray(every).save(path)
    np.testing.assert_array_equal(np.asarray(open_frame(path))[0, :, 1], np.arange(256))


def test_grey_without_a_range_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(path)
    with pytest.raises(FrameError, match=r"float\.tif.*8 or 16 bits"):
        open_frame(path)
    Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)).save(path)
    with pytest.raises(FrameError, match="range"):
        open_frame(path)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_black_and_white_and_palette(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "few.png"
    picture = Image.new("RGB", (2, 1))
    picture.putpixel((1, 0), (255, 255, 255))
    picture.convert(mode).save(path)
    assert list(np.asarray(open_frame(path))[0].tolist()) == [[0, 0, 0], [255, 255, 255]]


def test_transparency_lets_the_matte_through(tmp_path: Path) -> None:
    path = tmp_path / "alpha.png"
    grey = [MATTE] * 3
    pixels = np.array([[[255, 255, 255, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    white, through, half = np.asarray(open_frame(path))[0].tolist()
    assert (white, through) == ([255] * 3, grey)
    assert half == pytest.approx([MATTE * 127 / 255] * 3, abs=1)
    Image.fromarray(np.array([[[255, 255], [0, 0]]], dtype=np.uint8)).save(path)
    assert np.asarray(open_frame(path))[0].tolist() == [[255] * 3, grey]
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    palette.save(path, transparency=1)
    assert np.asarray(open_frame(path))[0].tolist() == [list(RED), grey]
    palette.save(path, transparency=bytes([255, 0]))
    assert np.asarray(open_frame(path))[0].tolist() == [list(RED), grey]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_carried_out(tmp_path: Path, orientation: int) -> None:
    # What each value of tag 0x0112 asks for (EXIF 2.3, 4.6.4), done with NumPy.
    stored = np.asarray(noise(6, 4))
    turned = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(stored),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "camera.png"
    Image.fromarray(stored).save(path, exif=exif)
    np.testing.assert_array_equal(np.asarray(open_frame(path)), turned[orientation])


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"nowhere\.png.*no such file"):
        open_frame(tmp_path / "nowhere.png")
    with pytest.raises(FrameError, match=r"is a folder.*list_frames"):
        open_frame(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    with pytest.raises(FrameError, match="regular file"):
        open_frame(path)


def test_an_empty_file_and_a_text_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.touch()
    with pytest.raises(FrameError, match=r"a\.png.*empty"):
        open_frame(path)
    path.write_text("這不是圖片\n" * 100, encoding="utf-8")
    with pytest.raises(FrameError, match=r"a\.png.*convert it"):
        open_frame(path)


def test_programs_in_picture_clothes_are_not_run(tmp_path: Path) -> None:
    path = tmp_path / "vector.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(FrameError, match="known format"):
        open_frame(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_cut_short_anywhere(tmp_path: Path, kind: str) -> None:
    stream = io.BytesIO()
    noise().save(stream, format=kind)
    data = stream.getvalue()
    path = tmp_path / "cut"
    for share in (0.05, 0.3, 0.6):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(FrameError, match="cut"):
            open_frame(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM", "TIFF"])
def test_damage_gives_a_picture_or_a_frame_error(tmp_path: Path, kind: str) -> None:
    stream = io.BytesIO()
    noise().save(stream, format=kind)
    generator = np.random.default_rng(1)
    path = tmp_path / "hurt"
    opened = refused = 0
    for _ in range(60):
        data = bytearray(stream.getvalue())
        for place in generator.integers(0, len(data), 3):
            data[place] = generator.integers(0, 256)
        path.write_bytes(data)
        try:
            opened += open_frame(path).mode == "RGB"
        except FrameError as error:
            refused += str(path) in str(error)
    assert opened + refused == 60


def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    for width, height in [(MAX_PIXELS // 1000 + 1, 1000), (60_000, 60_000), (12_000, 8_000)]:
        path.write_bytes(png_header(width, height))
        with pytest.raises(FrameError, match=r"bomb\.png: too large"):
            open_frame(path)
    # The limit is our own: it holds where Pillow's has been switched off.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(FrameError, match="too large"):
        open_frame(path)
    monkeypatch.setattr(frames, "MAX_PIXELS", 2400)
    noise(60, 40).save(path)
    assert open_frame(path).size == (60, 40)
    noise(61, 40).save(path)
    with pytest.raises(FrameError, match="61 x 40"):
        open_frame(path)


def test_the_file_is_closed_and_pillow_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise().save(path)
    before = Image.MAX_IMAGE_PIXELS
    frame = open_frame(path)
    path.unlink()
    assert frame.getpixel((0, 0)) == noise().getpixel((0, 0))
    assert before == Image.MAX_IMAGE_PIXELS


def test_folders_are_walked_in_natural_order(tmp_path: Path) -> None:
    names = [
        "10.png",
        "9.PNG",
        "b/2.webp",
        "b/10.JPG",
        "a1.bmp",
        "a.bmp",
        "a01.bmp",
        "notes.txt",
        ".hidden.png",
        ".git/x.png",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in list_frames([tmp_path])]
    assert found == ["9.PNG", "10.png", "a.bmp", "a01.bmp", "a1.bmp", "b/2.webp", "b/10.JPG"]


def test_files_stay_as_given(tmp_path: Path) -> None:
    odd, other = tmp_path / "z.data", tmp_path / "字幕.png"
    odd.touch()
    other.touch()
    assert list_frames([str(odd), tmp_path, odd]) == [odd, other, odd]
    assert list_frames([]) == []


def test_what_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=r"gone\.png.*no such"):
        list_frames([tmp_path / "gone.png"])
    with pytest.raises(FrameError, match="no pictures"):
        list_frames([tmp_path])
    with pytest.raises(TypeError, match="sequence"):
        list_frames(str(tmp_path))


def test_every_suffix_is_one_that_pillow_writes_or_reads() -> None:
    known = Image.registered_extensions()
    assert {suffix for suffix in SUFFIXES if suffix not in known} <= {".avif"}
