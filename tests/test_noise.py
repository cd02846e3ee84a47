"""The reading-noise channel: its laws, its strengths against an independent distance, and the shipped parameters."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from caprag.errors import ModelError
from caprag.noise import NoiseChannel
from caprag.noise.draws import philox, uniforms
from caprag.noise.parameters import SHIPPED
from caprag.noise.rates import log_probability, misread_rate_quantiles, rate_quantiles
from caprag.text import countable

CHANNEL = NoiseChannel.load()
ODD = [
    "", "。", "……", "好", "\ud800", "\U0001f600\U00020000", "OK啦!", "a\nb", "是的... 我⋯⋯明白", "好好好", "一" * 300,
    "…", ".", "女子", " ", "「我」,你?", "ㄅㄆ", "ｱ", "1,000.5", "\0好",
]  # fmt: skip
MODES: list[dict[str, float | bool | None]] = [
    {}, {"misread_only": True}, {"strength": 0.05}, {"strength": 0.3}, {"strength": 0.6}, {"strength": 1.0},
]  # fmt: skip


def sentences(number: int, seed: int = 0, longest: int = 14) -> list[str]:
    """Random lines whose letters are as frequent as in the films, with a sign here and there."""
    random = np.random.default_rng(seed)
    letters, counts = zip(*sorted(CHANNEL.parameters.seen.items()), strict=True)
    shares = np.array(counts, float) / sum(counts)
    lines = []
    for _ in range(number):
        line = list(random.choice(letters, size=random.integers(1, longest + 1), p=shares))
        if random.random() < 0.3:
            line.insert(int(random.integers(0, len(line) + 1)), str(random.choice(list(",?! ⋯"))))
        lines.append("".join(line).strip() or "好")
    return lines


LINES = sentences(5000)


def error_rate(readings: list[str], truths: list[str]) -> float:
    pairs = [(countable(r), countable(t)) for r, t in zip(readings, truths, strict=True)]
    return sum(Levenshtein.distance(r, t) for r, t in pairs) / sum(len(t) for _, t in pairs)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers(counter: tuple[int, ...], key: int, expected: tuple[int, ...]) -> None:
    """The vectors that the Random123 library is tested with."""
    a, b, c, d = (np.array([word], np.uint64) for word in counter)
    assert tuple(int(word[0]) for word in philox((a, b, c, d), key)) == expected


def test_draws_are_uniform_and_of_their_place() -> None:
    numbers, places = np.arange(40_000) // 20, np.arange(40_000) % 20
    draws = uniforms(7, numbers, places, 2)
    assert 0 < draws.min() < draws.max() < 1
    np.testing.assert_allclose(draws.mean(1), 0.5, atol=0.006)
    np.testing.assert_allclose(np.corrcoef(draws), np.eye(4), atol=0.02)
    np.testing.assert_array_equal(uniforms(7, numbers[777:], places[777:], 2), draws[:, 777:])
    for other in (
        uniforms(8, numbers, places, 2),
        uniforms(7, numbers, places, 3),
        uniforms(7, numbers + 1, places, 2),
    ):
        assert abs(np.corrcoef(draws[0], other[0])[0, 1]) < 0.02


@pytest.mark.parametrize("shape", [0.05, 0.3, 1.0, 4.0, 50.0])
def test_rates_are_gamma(shape: float) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    at = np.linspace(0.001, 0.999, 400)
    expected = stats.gamma.ppf(at, shape, scale=0.02 / shape)
    np.testing.assert_allclose(rate_quantiles(0.0, shape, 0.02, at), expected, rtol=2e-2, atol=1e-9)
    # A quarter of clean lines moves the rest.
    np.testing.assert_allclose(rate_quantiles(0.25, shape, 0.02, 0.25 + 0.75 * at), expected, rtol=2e-2, atol=1e-9)
    assert not rate_quantiles(0.25, shape, 0.02, 0.249 * at).any()
    for k in range(4):
        n, p = shape, 1 / (1 + 0.02 * 9 / shape)
        assert log_probability(k, 9, 0.0, shape, 0.02) == pytest.approx(stats.nbinom.logpmf(k, n, p), abs=1e-6)


def test_rates_of_misread_lines_are_those_of_lines_with_an_event() -> None:
    random = np.random.default_rng(0)
    rates = random.gamma(0.4, 0.02 / 0.4, 400_000)
    kept = rates[random.random(len(rates)) < -np.expm1(-rates * 9)]
    at = np.linspace(0.05, 0.95, 19)
    found = misread_rate_quantiles(0.4, 0.02, np.full(19, 9.0), at)
    np.testing.assert_allclose(found, np.quantile(kept, at), rtol=0.05)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_any_batches_give_the_same(mode: dict[str, float | bool | None]) -> None:
    texts = [*ODD, *LINES[:2500]]
    whole = CHANNEL.corrupt(texts, seed=3, **mode)  # type: ignore[arg-type]
    assert len(whole) == len(texts)
    for size in (1, 97):
        first = 0 if size == 97 else 1900
        pieces = [
            reading
            for start in range(first, len(texts), size)
            for reading in CHANNEL.corrupt(texts[start : start + size], seed=3, start=start, **mode)  # type: ignore[arg-type]
        ]
        assert pieces == whole[first:]
    assert CHANNEL.corrupt([], **mode) == []  # type: ignore[arg-type]


def test_seed_and_number_say_all() -> None:
    same = ["你在這裡幹甚麼,我不明白"] * 400
    readings = CHANNEL.corrupt(same, seed=1, strength=0.3)
    assert NoiseChannel.load().corrupt(same, seed=1, strength=0.3) == readings
    assert len(set(readings)) > 200
    assert CHANNEL.corrupt(same, seed=2, strength=0.3) != readings
    assert CHANNEL.corrupt(same, seed=1, strength=0.3, start=100)[:300] == readings[100:]


def test_another_process_gives_the_same() -> None:
    """What was asked before, and how strings hash, change nothing."""
    code = (
        "import sys, json; from caprag.noise import NoiseChannel; texts = json.load(sys.stdin);"
        "json.dump(NoiseChannel.load().corrupt(texts[::-1], seed=5, strength=0.4), sys.stdout)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(LINES[:300]), capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == CHANNEL.corrupt(LINES[:300][::-1], seed=5, strength=0.4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=4), st.integers(0, 2**40), st.sampled_from(MODES))
def test_any_text_can_be_read(texts: list[str], seed: int, mode: dict[str, float | bool | None]) -> None:
    readings = CHANNEL.corrupt(texts, seed=seed, start=seed, **mode)  # type: ignore[arg-type]
    assert len(readings) == len(texts)
    for text, reading in zip(texts, readings, strict=True):
        assert any(c.isalnum() for c in reading) or not any(c.isalnum() for c in text)
        assert "\0" not in reading or "\0" in text


@pytest.mark.parametrize("strength", [0.05, 0.1, 0.2, 0.3, 0.45, 0.6])
def test_the_strength_is_the_error_rate(strength: float) -> None:
    """Within a twentieth and three standard errors; the errors of a line come in clusters, whence the two."""
    readings = CHANNEL.corrupt(LINES, seed=11, strength=strength)
    letters = sum(len(countable(line)) for line in LINES)
    error = (2 * strength / letters) ** 0.5
    assert error_rate(readings, LINES) == pytest.approx(strength, abs=0.05 * strength + 3 * error)


def test_the_strength_is_the_error_rate_on_real_sentences(data: Path) -> None:
    lines = (data / "text" / "zh-TW").glob("*.txt")
    texts = [line.strip() for path in sorted(lines) for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [line for line in texts if countable(line)][:6000]
    if not texts:
        pytest.skip("no sentences in text/zh-TW")
    for strength in (0.05, 0.2, 0.6):
        found = error_rate(CHANNEL.corrupt(texts, seed=4, strength=strength), texts)
        assert found == pytest.approx(strength, rel=0.08)


def test_no_strength_changes_nothing_and_the_greatest_leaves_little() -> None:
    assert CHANNEL.corrupt([*ODD, *LINES], strength=0.0) == [*ODD, *LINES]
    assert error_rate(CHANNEL.corrupt(LINES, strength=1.0), LINES) > 0.9


def test_misread_lines_are_the_misread_ones_among_all() -> None:
    """Of one text read often, the misread readings have the edits that `misread_only` gives."""
    text = "你在這裡幹甚麼,我的天"
    often, only = [text] * 120_000, [text] * 8_000
    among = [r for r in CHANNEL.corrupt(often, seed=1) if countable(r) != countable(text)]
    given_only = [r for r in CHANNEL.corrupt(only, seed=2, misread_only=True) if countable(r) != countable(text)]
    assert len(among) > 3000
    assert len(given_only) > 0.97 * len(only)

    def shares(readings: list[str]) -> dict[str, float]:
        steps = [Levenshtein.editops(countable(text), countable(r)) for r in readings]
        counts = Counter(step.tag for row in steps for step in row)
        places = Counter(row.as_list()[0][1] for row in steps)
        return {
            "one": sum(len(row) == 1 for row in steps) / len(steps),
            "mean": sum(map(len, steps)) / len(steps) / 4,
            **{tag: counts[tag] / counts.total() for tag in ("replace", "delete", "insert")},
            **{str(j): places[j] / len(steps) for j in range(len(countable(text)))},
        }

    a, b = shares(among), shares(given_only)
    for name, value in a.items():
        # Four standard errors of the difference.
        error = (value * (1 - value) * (1 / len(among) + 1 / len(given_only))) ** 0.5
        assert b[name] == pytest.approx(value, abs=4 * error + 0.003), name


def test_halves_part_and_join() -> None:
    splits = CHANNEL.parameters.splits
    assert splits["好"] == "女子"
    assert splits["明"] == "日月"
    assert len(splits) > 1000
    good = Counter(CHANNEL.corrupt(["好"] * 30_000, strength=0.6))
    assert good["女子"] > 20
    assert good["女"] > 2
    joined = CHANNEL.corrupt(["女子"] * 10_000, strength=0.6)
    assert sum("好" in reading for reading in joined) > 200


def test_every_kind_of_error_happens() -> None:
    """Look-alikes, variants, Simplified, counted confusions, doubled and invented letters, lost ends, signs."""
    readings = CHANNEL.corrupt(["睛"] * 20_000, strength=0.5)
    counts = Counter(readings)
    assert counts["晴"] > 100
    assert Counter(CHANNEL.corrupt(["幹"] * 5000, strength=0.3))["乾"] > 100
    assert Counter(CHANNEL.corrupt(["說"] * 20_000, strength=0.5))["说"] > 100
    lines = CHANNEL.corrupt(["今天,天氣很好!"] * 40_000, strength=0.3)
    assert sum("天 天氣" in r or ",天天" in r for r in lines) > 20
    assert sum(any(c.isascii() and c.isalpha() for c in r) for r in lines) > 100
    assert sum(r.startswith(("天氣", "氣")) for r in lines) > 20
    assert sum(r.endswith(("天氣", "天")) for r in lines) > 20
    assert sum("," not in r for r in lines) > 1000
    assert sum(", " in r for r in lines) > 1000
    assert not any("\n" in r for r in lines)


def test_two_lines_in_one() -> None:
    texts, others = LINES[:2000], LINES[2000:4000]
    readings = CHANNEL.corrupt(texts, joins=0.25, neighbours=others, strength=0.0, seed=9)
    whole = sum(len(r) > len(t) for r, t in zip(readings, texts, strict=True))
    assert whole == pytest.approx(500, abs=80)
    for reading, text, other in zip(readings, texts, others, strict=True):
        parts = {f"{a}{sign}{b}" for a, b in ((text, other), (other, text)) for sign in ("", " ")}
        assert reading in {text, *parts}
    singles = [
        CHANNEL.corrupt([t], joins=0.25, neighbours=[o], strength=0.3, seed=9, start=i)[0]
        for i, (t, o) in enumerate(zip(texts[:200], others, strict=False))
    ]
    assert singles == CHANNEL.corrupt(texts, joins=0.25, neighbours=others, strength=0.3, seed=9)[:200]
    assert set(CHANNEL.corrupt(["好", "的"], joins=1.0, strength=0.0)) <= {
        a + sign + b for a, b in (("好", "的"), ("的", "好")) for sign in ("", " ")
    }
    assert CHANNEL.corrupt(["好"], joins=1.0, strength=0.0) == ["好"]


def test_a_reading_is_one_line() -> None:
    texts = [f"{text},{other} {text}" for text, other in zip(LINES[:1000], LINES[1000:2000], strict=True)]
    for mode in MODES:
        for joins in (0.0, 0.5):
            readings = CHANNEL.corrupt(texts, joins=joins, **mode)  # type: ignore[arg-type]
            assert not any("\n" in reading or "  " in reading for reading in readings)
    # Readers keep the lines of a caption that has two.
    two = CHANNEL.corrupt(["上面一行\n下面一行"] * 1000, strength=0.05)
    assert sum(reading.count("\n") == 1 for reading in two) > 800


@pytest.mark.parametrize("number", [np.int64(5), np.uint64(2**64 - 1), np.int32(7), np.uint8(200)])
def test_seeds_of_numpy_are_seeds(number: np.integer) -> None:
    start = number % type(number)(100)
    expected = CHANNEL.corrupt(LINES[:50], seed=int(number), start=int(start), strength=0.5, joins=0.3)
    assert CHANNEL.corrupt(LINES[:50], seed=number, start=start, strength=0.5, joins=0.3) == expected  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        CHANNEL.corrupt(["好"], seed=1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": 1.5}, "strength is 1.5"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"strength": 0.5, "misread_only": True}, "misread_only is True"),
        ({"joins": -0.1}, "joins is -0.1"),
        ({"seed": -1}, "seed is -1"),
        ({"start": -2}, "start is -2"),
        ({"neighbours": []}, "1 texts and 0 neighbours"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CHANNEL.corrupt(["好"], **arguments)  # type: ignore[arg-type]


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    CHANNEL.save(tmp_path / "a.json")
    again = NoiseChannel.load(tmp_path / "a.json")
    assert again.parameters == CHANNEL.parameters
    assert again.corrupt(LINES, strength=0.4) == CHANNEL.corrupt(LINES, strength=0.4)
    again.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes() == SHIPPED.read_bytes()


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"format": 0}', '{"format": 1}', '{"format": 1, "x": 2}'])
def test_what_is_no_channel_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "channel.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"channel\.json"):
        NoiseChannel.load(path)


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    stored = json.loads(SHIPPED.read_text(encoding="utf-8"))
    stored["rate"]["mean"] = -1.0
    (tmp_path / "channel.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(ModelError, match="negative"):
        NoiseChannel.load(tmp_path / "channel.json")


def test_the_shipped_parameters_hold_counts_of_characters_only() -> None:
    assert SHIPPED.stat().st_size < 300_000
    p = CHANNEL.parameters
    assert all(len(c) == 1 for c in (*p.seen, *p.readings, *p.alphabet, *p.signs, *p.splits))
    assert all(len(what) <= 2 for readings in p.readings.values() for what in readings)
    # What a sign was read as may hold a letter, never a word.
    signs = {what for readings in p.signs.values() for what in readings} | set(p.stray)
    assert all(sum(c.isalnum() for c in what) <= 1 and len(what) <= 6 for what in signs)
    assert [x for x, _ in p.strengths] == sorted(x for x, _ in p.strengths)
    assert [y for _, y in p.strengths] == sorted(y for _, y in p.strengths)


def test_importing_it_is_light() -> None:
    code = "import sys, caprag.noise; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("rapidfuzz", "opencc", "torch", "PIL", "cv2", "scipy", "faiss", "transformers"):
        assert f"'{heavy}'" not in loaded
