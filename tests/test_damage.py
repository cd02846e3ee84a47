"""Damage against arithmetic, moments of filters, and the same frame in another process."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, get_args

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from caprag.synthesis.damage import (
    STRENGTHS,
    Blur,
    Chroma,
    Damage,
    Fields,
    Interpolation,
    apply_damage,
    damage_schema,
    sample_damage,
)
from caprag.synthesis.pictures import Pixels


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def scene(width: int = 320, height: int = 180, seed: int = 0) -> Pixels:
    """A smooth picture with some edges, as television is."""
    coarse = rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    ImageDraw.Draw(picture).ellipse((width // 3, 5, width // 2, height // 2), fill=(200, 180, 40))
    return np.array(picture)


def captioned(before: Pixels) -> Pixels:
    """The same with white strokes and black edges low in the middle."""
    picture = Image.fromarray(before)
    draw = ImageDraw.Draw(picture)
    width, height = picture.size
    for x in range(width // 4, 3 * width // 4, 12):
        draw.rectangle((x, height * 8 // 10, x + 5, height * 9 // 10), fill="white", outline="black")
    return np.array(picture)


def psnr(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    error = float(np.mean((a.astype(float) - b.astype(float)) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-3)))


def test_no_strength_gives_the_same_pixels_in_a_new_array() -> None:
    frame = captioned(scene())
    damage = sample_damage(rng(), 0.0)
    damaged = apply_damage(frame, damage, rng(), scene())
    assert damage == Damage()
    assert np.array_equal(damaged, frame)
    assert not np.shares_memory(damaged, frame)


def test_mean_psnr_falls_with_the_strength() -> None:
    quality = []
    for name in ("none", "light", "medium", "severe"):
        values = []
        for i in range(60):
            before = scene(seed=i % 5)
            frame = captioned(before)
            chance = rng(i)
            values.append(psnr(apply_damage(frame, sample_damage(chance, STRENGTHS[name]), chance, before), frame))
        quality.append(np.mean(values))
    assert STRENGTHS["none"] == 0.0
    assert STRENGTHS["severe"] == 1.0
    assert list(STRENGTHS) == ["none", "light", "medium", "severe"]
    assert all(better > worse + 1 for better, worse in itertools.pairwise(quality)), quality


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        sample_damage(rng(), strength)


def test_what_is_sampled_is_of_the_closed_kinds_and_in_range() -> None:
    seen = [sample_damage(rng(i), 1.0) for i in range(300)]
    assert {d.blur for d in seen} == {None, *get_args(Blur)}
    assert {d.fields for d in seen} == {None, *get_args(Fields)}
    assert {d.shrink for d in seen} <= {None, *get_args(Interpolation)}
    assert {d.h264_frames for d in seen} == {None, 1, 2, 3}
    for d in seen:
        assert d.scale is None or 0.15 < d.scale < 1
        assert d.h264_crf is None or 12 <= d.h264_crf <= 51
        assert d.jpeg_quality is None or 5 <= d.jpeg_quality <= 95
        assert d.caption_opacity is None or 0.1 < d.caption_opacity < 1
        assert (d.blur is None) == (d.blur_size is None)
        assert (d.fields == "moved") == (d.field_shift is not None)
    assert seen == [sample_damage(rng(i), 1.0) for i in range(300)]


@pytest.mark.parametrize("strength", [0.3, 0.78, 1.0])
def test_fades_leave_contrast_and_the_encoder_goes_by_it(strength: float) -> None:
    seen = [sample_damage(rng(i), strength) for i in range(2000)]
    contrasts = [(d.caption_opacity or 1.0) * (d.brightness or 1.0) for d in seen]
    assert min(contrasts) >= 1 - 0.6 * strength - 1e-9
    assert all(d.brightness is None or d.brightness <= 1.0 for d in seen)
    assert sum(d.caption_opacity is not None and d.brightness is not None for d in seen) > 0
    # The quantiser's step doubles every 6: it must fall at least as fast as the contrast.
    for whole, faded in ((0.85, 1.0), (0.6, 0.85)):
        rates = [
            np.mean([d.h264_crf for d, c in zip(seen, contrasts, strict=True) if d.h264_crf and low < c <= high])
            for low, high in ((whole, faded), (faded - 1e-9, 1.0))
            if any(d.h264_crf and low < c <= high for d, c in zip(seen, contrasts, strict=True))
        ]
        assert rates == sorted(rates)


def test_no_damage_wipes_a_caption_out() -> None:
    before = np.full((360, 640, 3), 110, np.uint8)
    frame = before.copy()
    # The upright stroke of a character of 30 pixels and the bar across it, and again.
    for x in range(200, 440, 32):
        frame[300:330, x + 12 : x + 16] = frame[312:316, x : x + 28] = 255
    box = np.s_[300:330, 200:440]
    for i in range(300):
        damage = sample_damage(rng(i), 1.0)
        with_caption, without = (apply_damage(pixels, damage, rng(i), before) for pixels in (frame, before))
        difference = np.abs(with_caption[box].astype(float) - without[box]).mean(axis=2)
        assert np.percentile(difference, 95) >= 10, (i, damage)


def test_the_manifest_takes_every_damage() -> None:
    rows = [asdict(sample_damage(rng(i), i / 49)) for i in range(50)]
    assert pa.Table.from_pylist(rows, schema=damage_schema()).to_pylist() == rows


@pytest.mark.parametrize("size", [(641, 359), (1, 1), (3, 50), (720, 1280)])
def test_every_part_keeps_any_size(size: tuple[int, int]) -> None:
    before = rng().integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    frame = 255 - before
    kept = before.copy()
    worst = [
        Damage(h264_crf=40, h264_frames=2),
        Damage(scale=0.3, h264_crf=30, h264_frames=3, jpeg_quality=30, chroma="4:1:1", chroma_shift=3.0),
        *(Damage(fields=kind, field_shift=4.0, noise=9.0, noise_size=2.0) for kind in get_args(Fields)),
        *(Damage(scale=0.5, blur=kind, blur_size=6.0, blur_angle=30.0) for kind in get_args(Blur)),
    ]
    for damage in worst:
        damaged = apply_damage(frame, damage, rng(), before)
        assert damaged.shape == frame.shape
        assert damaged.dtype == np.uint8
        assert damaged.flags.c_contiguous
        assert damaged.flags.writeable
    assert np.array_equal(before, kept)
    assert np.array_equal(frame, 255 - kept)


@pytest.mark.parametrize(
    ("pixels", "before"),
    [
        (np.zeros((4, 4, 3), np.float32), None),
        (np.zeros((4, 4), np.uint8), None),
        (np.zeros((0, 4, 3), np.uint8), None),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)),
    ],
)
def test_other_arrays_are_refused(pixels: Any, before: Any) -> None:
    with pytest.raises(ValueError, match=r"wanted is uint8|the same frame"):
        apply_damage(pixels, Damage(), rng(), before)


def test_a_caption_half_faded_in_is_the_mean_of_both_frames() -> None:
    before, frame = np.full((4, 4, 3), 40, np.uint8), np.full((4, 4, 3), 240, np.uint8)
    assert set(apply_damage(frame, Damage(caption_opacity=0.25), rng(), before).ravel()) == {90}
    assert set(apply_damage(frame, Damage(caption_opacity=0.25), rng()).ravel()) == {240}
    assert set(apply_damage(frame, Damage(brightness=0.5), rng(), before).ravel()) == {120}


@pytest.mark.parametrize(
    ("kind", "size", "variance"),
    # A bell's is its own, a disk's r^2/4 along each axis, a line's L^2/12 (and 1/6 for its edge of a pixel).
    [("gaussian", 3.0, 9.0), ("defocus", 6.0, 9.0), ("motion", 12.0, 12.0)],
)
def test_blur_has_the_variance_of_its_shape(kind: Blur, size: float, variance: float) -> None:
    edge = np.zeros((720, 1280, 3), np.uint8)
    edge[:, 640:] = 255
    row = apply_damage(edge, Damage(blur=kind, blur_size=size, blur_angle=0.0), rng())[360, :, 0].astype(float)
    spread = np.diff(row) / 255
    x = np.arange(len(spread))
    centre = (x * spread).sum()
    assert spread.sum() == pytest.approx(1.0)
    assert centre == pytest.approx(639, abs=0.1)
    assert ((x - centre) ** 2 * spread).sum() == pytest.approx(variance, rel=0.05)


def test_lengths_grow_with_the_frame() -> None:
    def width_of_edge(height: int) -> int:
        edge = np.zeros((height, height * 16 // 9, 3), np.uint8)
        edge[:, edge.shape[1] // 2 :] = 255
        row = apply_damage(edge, Damage(blur="gaussian", blur_size=4.0), rng())[height // 2, :, 0]
        return int(((row > 12) & (row < 243)).sum())

    assert width_of_edge(1080) == pytest.approx(2 * width_of_edge(540), abs=2)


def test_motion_up_and_down_leaves_an_upright_edge() -> None:
    edge = np.zeros((720, 1280, 3), np.uint8)
    edge[:, 640:] = 255
    assert np.array_equal(apply_damage(edge, Damage(blur="motion", blur_size=15.0, blur_angle=90.0), rng()), edge)


@pytest.mark.parametrize("chroma", get_args(Chroma))
def test_colour_is_lost_within_a_block_and_brightness_is_not(chroma: Chroma) -> None:
    grey = np.repeat(rng().integers(0, 256, (16, 16, 1), dtype=np.uint8), 3, axis=2)
    kept = apply_damage(grey, Damage(chroma=chroma, chroma_shift=720.0), rng())
    assert np.abs(kept.astype(int) - grey).max() <= 1
    assert len(np.unique(apply_damage(ramp(), Damage(chroma=chroma), rng()))) == 220
    # Pixels of red and of a green as bright, in turn: what is left is their mean.
    red, green = (200, 0, 0), (0, 102, 0)
    mixed = np.empty((16, 16, 3), np.uint8)
    pattern = np.indices((16, 16))[1] % 2
    mixed[pattern == 0], mixed[pattern == 1] = red, green
    damaged = apply_damage(mixed, Damage(chroma=chroma), rng()).astype(int)
    assert np.abs(damaged[:, 1:] - damaged[:, :-1]).max() <= 3
    # Columns of eight are wider than a sample of either.
    broad = np.where(np.indices((16, 32))[1][..., None] // 8 % 2 == 0, red, green).astype(np.uint8)
    middle = apply_damage(broad, Damage(chroma=chroma), rng())[:, 12].astype(int)
    assert np.abs(middle - green).max() <= 4


def ramp() -> Pixels:
    return np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 256, 1), 3, axis=2)


def test_colour_moves_by_the_shift() -> None:
    frame = np.full((720, 1280, 3), 128, np.uint8)
    frame[:, 600:640] = (178, 103, 128)
    plain, moved = (
        cv2.cvtColor(apply_damage(frame, Damage(chroma="4:2:0", chroma_shift=s), rng()), cv2.COLOR_RGB2YCrCb)[360, :, 1]
        for s in (0.0, 7.0)
    )
    assert np.array_equal(moved[7:], plain[:-7])


@pytest.mark.parametrize("colour", [False, True])
def test_noise_has_the_deviation_asked_for(colour: bool) -> None:
    grey = np.full((400, 600, 3), 128, np.uint8)
    noise = apply_damage(grey, Damage(noise=10.0, noise_colour=colour), rng()).astype(float) - 128
    assert noise.std() == pytest.approx(10.0, rel=0.03)
    assert noise.mean() == pytest.approx(0.0, abs=0.2)
    flat = noise.reshape(-1, 3)
    # Gaussian: 68.3 % within one standard deviation (and half a level), kurtosis 3.
    assert np.mean(np.abs(flat) <= 10.5) == pytest.approx(0.706, abs=0.01)
    assert np.mean((flat / flat.std()) ** 4) == pytest.approx(3.0, abs=0.15)
    between = np.corrcoef(flat[:, 0], flat[:, 1])[0, 1]
    assert between == pytest.approx(0.0 if colour else 1.0, abs=0.02)
    along = np.corrcoef(noise[:, 1:, 0].ravel(), noise[:, :-1, 0].ravel())[0, 1]
    assert along == pytest.approx(0.0, abs=0.02)


def test_noise_is_of_the_generator() -> None:
    grey = np.full((900, 2100, 3), 128, np.uint8)
    first, again, other = (apply_damage(grey, Damage(noise=10.0), rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first[..., 0].ravel(), other[..., 0].ravel())[0, 1]) < 0.02


def test_grain_is_noise_that_neighbours_share() -> None:
    grey = np.full((300, 400, 3), 128, np.uint8)
    grain = apply_damage(grey, Damage(noise=20.0, noise_size=3.0), rng())[..., 0].astype(float)
    assert np.corrcoef(grain[:, 1:].ravel(), grain[:, :-1].ravel())[0, 1] > 0.6


def test_interlacing_leaves_one_field() -> None:
    before, frame = scene(), captioned(scene())
    appearing = apply_damage(frame, Damage(fields="appearing"), rng(), before)
    assert np.array_equal(appearing[::2], frame[::2])
    assert np.array_equal(appearing[1::2], before[1::2])
    bob = apply_damage(frame, Damage(fields="bob"), rng(), before)
    assert np.array_equal(bob[::2], frame[::2])
    assert np.array_equal(bob[1::2], frame[::2])
    # 12 pixels at 720 lines are 3 at 180.
    moved = apply_damage(frame, Damage(fields="moved", field_shift=12.0), rng(), before)
    assert np.array_equal(moved[::2], frame[::2])
    assert np.array_equal(moved[1::2, 3:], frame[1::2, :-3])


def test_a_raster_can_hold_no_finer_detail() -> None:
    comb = np.zeros((180, 320, 3), np.uint8)
    comb[:, ::2] = 255
    damaged = apply_damage(comb, Damage(scale=0.25, shrink="area", enlarge="linear"), rng())
    assert np.abs(damaged.astype(int) - 128).max() <= 1
    nearest = apply_damage(scene(), Damage(scale=0.25, shrink="nearest", enlarge="nearest"), rng())
    assert len(np.unique(nearest.reshape(-1, 3), axis=0)) <= 80 * 45


@pytest.mark.parametrize("name", ["h264_crf", "jpeg_quality"])
def test_coarser_coding_loses_more(name: str) -> None:
    frame = captioned(scene())
    rates = (20, 30, 40, 50) if name == "h264_crf" else (95, 60, 30, 8)
    quality = [psnr(apply_damage(frame, Damage(**{name: rate}), rng()), frame) for rate in rates]  # type: ignore[arg-type]
    assert quality == sorted(quality, reverse=True)
    assert quality[0] > 30
    assert quality[0] > quality[-1] + 5


def test_a_fresh_caption_is_worse_than_one_that_stood_and_mends_with_the_next_frame() -> None:
    before = scene(640, 360)
    frame = captioned(before)
    band = slice(280, 330)

    def quality(frames: int, earlier: Pixels) -> float:
        damage = Damage(h264_crf=44, h264_frames=frames)
        return psnr(apply_damage(frame, damage, rng(), earlier)[band], frame[band])

    assert quality(2, before) < quality(3, before)
    assert quality(2, before) < quality(2, frame)


def test_the_encoder_writes_nothing_on_the_screen(capfd: pytest.CaptureFixture[str]) -> None:
    apply_damage(captioned(scene()), Damage(h264_crf=40, h264_frames=2), rng(), scene())
    assert capfd.readouterr() == ("", "")


_DIGEST = """
import sys
sys.path.insert(0, sys.argv[1])
import test_damage
print(test_damage.digest())
"""


def digest() -> str:
    """Fingerprint of frames with all kinds of damage."""
    total = hashlib.blake2b(digest_size=16)
    before = scene(641, 359)
    for i in range(12):
        chance = rng(i)
        damage = sample_damage(chance, 1.0)
        damage = replace(damage, h264_crf=damage.h264_crf or 33, h264_frames=1 + i % 3)
        total.update(apply_damage(captioned(before), damage, chance, before).tobytes())
    return total.hexdigest()


@pytest.fixture
def threads() -> Iterator[None]:
    number = cv2.getNumThreads()
    yield
    cv2.setNumThreads(number)


@pytest.mark.usefixtures("threads")
def test_bytes_are_the_same_in_any_process_and_with_any_number_of_threads() -> None:
    cv2.setNumThreads(1)
    one = digest()
    cv2.setNumThreads(4)
    assert digest() == one
    folder = __file__.rpartition("/")[0]
    other = subprocess.run([sys.executable, "-c", _DIGEST, folder], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == one
