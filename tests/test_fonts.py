from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from drawn_fonts import save_font
from fontTools.ttLib import TTCollection, TTFont

from caprag.errors import FontError
from caprag.synthesis.fonts import Font, FontSet, load_fonts

ROMAN = "".join(map(chr, range(0x21, 0x7F)))


def test_a_font_has_what_its_character_map_has(tmp_path: Path) -> None:
    path = save_font(tmp_path / "字體" / "一.ttf", "你好嗎" + ROMAN)
    (font,) = load_fonts([path]).fonts
    assert font.has("你好 OK")
    assert not font.has("妳好")
    assert font.has("")
    with TTFont(path) as file:
        assert font.characters == {chr(code) for code in file.getBestCmap()} | {"\n"}


def test_a_character_without_a_shape_is_not_drawn(tmp_path: Path) -> None:
    (font,) = load_fonts([save_font(tmp_path / "a.ttf", "你好", empty="嗎")]).fonts
    assert "嗎" in font.characters
    assert not font.has("你好嗎")
    assert font.has("你 好")


def test_only_a_font_that_has_every_character_is_chosen(tmp_path: Path) -> None:
    fonts = load_fonts([save_font(tmp_path / "a.ttf", "你好"), save_font(tmp_path / "b.ttf", "你好嗎")])
    rng = np.random.default_rng(0)
    assert {font.path.name for _ in range(40) if (font := fonts.choose(rng, "你好"))} == {"a.ttf", "b.ttf"}
    assert {font.path.name for _ in range(40) if (font := fonts.choose(rng, "好嗎"))} == {"b.ttf"}
    assert fonts.choose(rng, "龜") is None
    assert fonts.covers("嗎")
    assert not fonts.covers("龜")


def test_fonts_are_drawn_by_weight(tmp_path: Path) -> None:
    a, b = save_font(tmp_path / "a.ttf", "你"), save_font(tmp_path / "b.ttf", "你")
    fonts = load_fonts([a, f"{b}=3"])
    rng = np.random.default_rng(1)
    seen = Counter(font.path.name for _ in range(4000) if (font := fonts.choose(rng, "你")))
    # Three standard deviations of a binomial with 4000 draws and p = 3/4.
    assert abs(seen["b.ttf"] - 3000) < 3 * (4000 * 0.75 * 0.25) ** 0.5


def test_the_order_in_which_fonts_are_named_changes_nothing(tmp_path: Path) -> None:
    a, b = save_font(tmp_path / "a.ttf", "你"), save_font(tmp_path / "b.ttf", "你")
    one, other = load_fonts([a, b]), load_fonts([b, a, a])
    assert one.fonts == other.fonts
    assert load_fonts([tmp_path]).fonts == one.fonts


def _collection(folder: Path, names: list[str]) -> Path:
    collection = TTCollection()
    collection.fonts = [
        TTFont(save_font(folder / f"{i}.ttf", "你好" + chr(0x4E00 + i), name=name)) for i, name in enumerate(names)
    ]
    path = folder / "all.ttc"
    collection.save(path)
    return path


def test_a_collection_gives_the_face_of_the_region(tmp_path: Path) -> None:
    path = _collection(tmp_path / "x", ["Sans JP", "Sans SC", "Sans Mono TC", "Sans TC"])
    assert load_fonts([path]).fonts[0].name == "Sans TC"
    assert load_fonts([path], sample=["你好"], region="SC").fonts[0].face == 1
    assert load_fonts([f"{path}#0"]).fonts[0].name == "Sans JP"
    assert load_fonts([f"{path}#2=0.5"]).fonts[0].weight == 0.5
    with pytest.raises(FontError, match="4 faces, the one asked for is 9"):
        load_fonts([f"{path}#9"])


def test_a_simplified_text_takes_simplified_forms(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    collection = TTCollection()
    both = "这还没们說還沒們"
    collection.fonts = [TTFont(save_font(folder / f"{n}.ttf", both, name=f"Sans {n}")) for n in ("TC", "SC")]
    collection.save(folder / "all.ttc")
    assert load_fonts([folder / "all.ttc"], sample=["这还没", "们"]).fonts[0].name == "Sans SC"
    assert load_fonts([folder / "all.ttc"], sample=["說還沒", "們"]).fonts[0].name == "Sans TC"


def test_fonts_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    good = save_font(tmp_path / "good.ttf", "你好")
    roman = save_font(tmp_path / "roman.ttf", ROMAN)
    broken = tmp_path / "壞.ttf"
    broken.write_bytes(b"\0\1\0\0" + bytes(200))
    cut = tmp_path / "cut.otf"
    cut.write_bytes(good.read_bytes()[:300])
    empty = tmp_path / "empty.ttc"
    empty.write_bytes(b"")
    errors: list[FontError] = []
    fonts = load_fonts([tmp_path], sample=["你好"], on_error=errors.append)
    assert [font.path.name for font in fonts.fonts] == ["good.ttf"]
    said = "\n".join(map(str, errors))
    for path in (roman, broken, cut, empty):
        assert str(path) in said
    assert "has the characters of none of the sentences" in said
    with pytest.raises(FontError, match="壞"):
        load_fonts([broken])


@pytest.mark.parametrize("damaged_at", range(0, 2400, 97))
def test_a_damaged_font_is_an_error_or_a_font(tmp_path: Path, damaged_at: int) -> None:
    path = save_font(tmp_path / "a.ttf", "你好")
    content = bytearray(path.read_bytes())
    for i in range(damaged_at, min(damaged_at + 24, len(content))):
        content[i] ^= 0xFF
    path.write_bytes(content)
    try:
        (font,) = load_fonts([path]).fonts
    except FontError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert font.has("")


def test_a_character_with_a_damaged_outline_is_not_drawn(tmp_path: Path) -> None:
    path = save_font(tmp_path / "a.ttf", "你好嗎")
    with TTFont(path) as file:
        start = file.reader.tables["glyf"].offset
    content = bytearray(path.read_bytes())
    content[start + 100 :] = b"\xff" * (len(content) - start - 100)
    path.write_bytes(content)
    try:
        fonts = load_fonts([path])
    except FontError as error:
        assert "a.ttf" in str(error)  # noqa: PT017
    else:
        assert fonts.choose(np.random.default_rng(0), "你好嗎") is None


def test_nothing_to_draw_with(tmp_path: Path) -> None:
    with pytest.raises(FontError, match="holds no font"):
        load_fonts([tmp_path])
    with pytest.raises(FontError, match="is not a number above 0"):
        load_fonts([f"{save_font(tmp_path / 'a.ttf', '你')}=-2"])
    with pytest.raises(FontError, match="no font that can be used"):
        load_fonts([save_font(tmp_path / "a.ttf", "你")], sample=["好"], on_error=lambda _: None)
    with pytest.raises(ValueError, match="region"):
        load_fonts(region="XX")  # type: ignore[arg-type]
    with pytest.raises(FontError):
        FontSet([])


def test_fonts_travel_to_another_process(tmp_path: Path) -> None:
    fonts = load_fonts([save_font(tmp_path / "a.ttf", "你好")])
    there = pickle.loads(pickle.dumps(fonts))
    assert there.fonts == fonts.fonts
    assert isinstance(there.fonts[0], Font)
    assert there.choose(np.random.default_rng(0), "你") == fonts.choose(np.random.default_rng(0), "你")
