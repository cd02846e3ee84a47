from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from drawn_fonts import save_font
from hypothesis import given
from hypothesis import strategies as st

from caprag.errors import SynthesisError
from caprag.synthesis.fonts import Font, load_fonts
from caprag.synthesis.layout import fit, overlap, place, split_evenly
from caprag.synthesis.pictures import Kind
from caprag.synthesis.recipe import KINDS, Recipe
from caprag.synthesis.styles import Style

HAN = "我們今天晚上一起去看海邊的日出好嗎大家都說可以"
ROMAN = "".join(map(chr, range(0x21, 0x7F)))


@pytest.fixture(scope="module")
def font(tmp_path_factory: pytest.TempPathFactory) -> Font:
    path = save_font(tmp_path_factory.mktemp("fonts") / "a.ttf", HAN + ROMAN)
    return load_fonts([path]).fonts[0]


def square(text: str, size: int) -> float:
    return len(text) * size


@given(st.text(alphabet="好嗎，。 aB3.「」", min_size=1, max_size=30), st.integers(2, 4))
def test_wrapping_loses_nothing_but_white_space(text: str, parts: int) -> None:
    lines = split_evenly(text.strip(), parts)
    if lines is not None:
        assert "".join("".join(lines).split()) == "".join(text.split())
        assert len(lines) == parts


def test_lines_break_at_inviting_places() -> None:
    assert split_evenly("我們回家吧，天快黑了", 2) == ("我們回家吧，", "天快黑了")
    assert split_evenly("你先走 我馬上就來", 2) == ("你先走", "我馬上就來")
    assert split_evenly("這是iPhone的殼", 2) in (("這是iPhone", "的殼"), ("這是", "iPhone的殼"))
    assert split_evenly("Unbreakable", 2) is None


def test_what_fits_stays_as_it_is() -> None:
    found = fit("我們回家", 50, square, 200)
    assert found is not None
    assert (found.lines, found.size, found.fitted) == (("我們回家",), 50, "as is")


def test_what_is_too_long_is_wrapped_or_shrunk_or_skipped() -> None:
    text = HAN[:10]
    wrapped = fit(text, 50, square, 260)
    assert wrapped is not None
    assert wrapped.fitted == "wrapped"
    assert "".join(wrapped.lines) == text
    assert wrapped.size == 50
    assert max(map(len, wrapped.lines)) * 50 <= 260
    shrunk = fit(text, 50, square, 400, overflow="shrink", smallest=30)
    assert shrunk is not None
    assert (shrunk.lines, shrunk.size, shrunk.fitted) == ((text,), 40, "shrunk")
    assert fit(text, 50, square, 260, overflow="shrink", smallest=30) is None
    assert fit(text, 50, square, 400, overflow="skip") is None
    # What can't be wrapped is shrunk.
    both = fit("Unbreakable", 50, square, 400, smallest=30)
    assert both is not None
    assert (both.lines, both.fitted) == (("Unbreakable",), "shrunk")
    assert fit("Unbreakable", 50, square, 100, smallest=30) is None


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "empty"])
def test_lines_lie_within_the_frame(font: Font, kind: str) -> None:
    rng = np.random.default_rng(7)
    for size in (27, 40, 60):
        for text in (HAN[:4], HAN[:12], HAN):
            placed = place(rng, kind, (text,), font, size, Style(outline_width=3), (1280, 720))  # type: ignore[arg-type]
            assert placed is not None
            lines, found = placed
            assert "".join(line.text for line in lines) == text
            for line in lines:
                long = len(line.text) * line.size
                across, down = (line.size, long) if line.vertical else (long, line.size)
                left = line.x - {"middle": across / 2, "left": 0, "right": across}[line.alignment]
                assert left >= 0
                assert left + across <= 1280
                assert line.y - down / 2 >= 0
                assert line.y + down / 2 <= 720
            assert found.size <= size
            ys = [line.y for line in lines]
            assert ys == sorted(ys) or kind == "vertical"


def test_captions_stand_where_their_kind_says(font: Font) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        kinds: tuple[Kind, ...] = ("line", "top", "left", "vertical")
        found = [place(rng, kind, (HAN[:6],), font, 60, Style(), (1280, 720)) for kind in kinds]
        low, high, left, upright = (placed[0][0] for placed in found if placed is not None)
        assert low.x == 640
        assert 0.8 * 720 < low.y < 0.93 * 720
        assert high.y < 0.2 * 720
        assert left.alignment == "left"
        assert left.x <= 128
        assert upright.vertical
        assert upright.x > 1000 or upright.x < 280


def test_a_second_language_is_smaller_and_marked(font: Font) -> None:
    rng = np.random.default_rng(1)
    placed = place(rng, "bilingual", (HAN[:6],), font, 60, Style(), (1280, 720), second=("Is it late?", font))
    assert placed is not None
    roles = {line.role: line for line in placed[0]}
    assert roles["second_language"].text == "Is it late?"
    assert roles["second_language"].size < roles["caption"].size
    assert roles["caption"].text == HAN[:6]


def test_boxes_overlap_when_they_share_a_pixel() -> None:
    assert overlap((0, 0, 10, 10), (9, 9, 20, 20))
    assert not overlap((0, 0, 10, 10), (10, 0, 20, 10))
    assert not overlap((0, 0, 10, 10), (0, 10, 10, 20))


@pytest.mark.parametrize(
    ("frame", "sizes"),
    [((1920, 1080), (75, 100)), ((1280, 720), (50, 70)), ((854, 480), (35, 48)), ((640, 360), (27, 36))],
)
def test_type_has_the_originals_sizes(frame: tuple[int, int], sizes: tuple[int, int]) -> None:
    assert Recipe().type_sizes(*frame) == sizes


def test_type_grows_with_the_frame() -> None:
    heights = [90, 180, 360, 420, 480, 600, 720, 900, 1080, 2160]
    sizes = [Recipe().type_sizes(height * 16 // 9, height) for height in heights]
    assert sizes == sorted(sizes)
    assert sizes[-1] == (150, 200)
    # A portrait frame is set as a landscape one of its width.
    assert Recipe().type_sizes(640, 1136) == (27, 36)
    assert Recipe(type_size=(36, 44)).type_sizes(640, 360) == (36, 44)


def test_a_recipe_goes_through_json(tmp_path: Path) -> None:
    recipe = Recipe(
        kinds={"line": 2.0, "empty": 1.0}, type_size=(36, 44), crop="band", second_language=("Hello",),
        house={"outline_width": 6.0, "colour": (250, 250, 200)},
    )  # fmt: skip
    path = tmp_path / "配方.json"
    path.write_text(json.dumps(recipe.as_dict(), ensure_ascii=False), encoding="utf-8")
    assert Recipe.read(path) == recipe
    path.write_text('{"crop": "line"}', encoding="utf-8")
    assert Recipe.read(path) == Recipe(crop="line")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("[]", "a recipe has kinds"),
        ('{"colour": 1}', "it has not colour"),
        ('{"kinds": {"diagonal": 1}}', "diagonal"),
        ('{"kinds": {"line": 0}}', "above 0"),
        ('{"kinds": {"line": -1}}', "-1"),
        ('{"looks": {"box": "x"}}', "box is 'x'"),
        ('{"italic": 2}', "italic is 2"),
        ('{"lower_edge": [0.9]}', "lower_edge"),
        ('{"house": {"weight": 2}}', "weight"),
        ('{"house": {"colour": [1, 2]}}', "colour is"),
        ('{"house": {"outline_opacity": 3}}', "outline_opacity is 3"),
        ('{"lower_edge": [0.9, 1.2]}', "lower_edge is 0.9, 1.2"),
        ('{"quality": [90, 20]}', r"quality is \[90, 20\]"),
        ('{"type_size": [2, 20]}', "type_size"),
        ('{"overflow": "cut"}', "overflow is 'cut'"),
        ('{"second_language": []}', "second_language is empty"),
        ('{"second_language": "abc"}', "second_language is 'abc'"),
    ],
)
def test_a_wrong_recipe_says_what_is_wrong(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(SynthesisError, match=said) as raised:
        Recipe.read(path)
    assert str(path) in str(raised.value)
    with pytest.raises(SynthesisError, match="can't be read"):
        Recipe.read(tmp_path / "none.json")
