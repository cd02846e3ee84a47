from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from drawn_fonts import save_font
from PIL import Image

from caprag.errors import SynthesisError
from caprag.synthesis.backgrounds import Backgrounds, background_schema
from caprag.synthesis.damage import damage_schema
from caprag.synthesis.fonts import FontSet, load_fonts
from caprag.synthesis.generator import Synthesizer
from caprag.synthesis.phrases import CREDITS, LOGOS, SECOND_LANGUAGE, SIGNS
from caprag.synthesis.pictures import Box, Picture, Pixels, manifest_schema
from caprag.synthesis.recipe import KINDS, Recipe
from caprag.synthesis.screen_text import draw_screen_text
from caprag.synthesis.styles import style_schema
from caprag.text import normalize

TEXTS = ["你好嗎", "我很好，謝謝", "今天晚上一起去看海邊的日出", "OK 3點見", "走吧", "他說\n不必了"]
SENTENCES = list(enumerate(TEXTS))
ROMAN = "".join(map(chr, range(0x21, 0x7F)))


@pytest.fixture(scope="module")
def fonts(tmp_path_factory: pytest.TempPathFactory) -> FontSet:
    characters = "".join([*TEXTS, *SECOND_LANGUAGE, *LOGOS, *CREDITS, *SIGNS, ROMAN]).replace("\n", "")
    folder = tmp_path_factory.mktemp("fonts")
    return load_fonts([save_font(folder / "a.ttf", characters), save_font(folder / "b.ttf", characters)])


def only(kind: str, **more: object) -> Recipe:
    return Recipe(kinds={kind: 1.0}, **more)  # type: ignore[dict-item, arg-type]


def test_a_picture_depends_on_seed_and_number_alone(fonts: FontSet) -> None:
    def make(seed: int, numbers: list[int]) -> dict[int, Picture]:
        synthesizer = Synthesizer(Backgrounds(), fonts, seed=seed, sizes=[(640, 360), (320, 180)], damage=0.5)
        return {number: synthesizer.make(number, SENTENCES) for number in numbers}

    forth, back = make(1, [0, 1, 2, 3]), make(1, [3, 1, 0, 2])
    for number, picture in forth.items():
        np.testing.assert_array_equal(picture.pixels, back[number].pixels)
        assert picture.label == back[number].label
    assert not np.array_equal(make(2, [0])[0].pixels[:90], forth[0].pixels[:90])


class WithoutCaption(Synthesizer):
    """Makes the same pictures, but for the captions."""

    def _draw(self, pixels: Pixels, caption: Any, view: Box) -> Any:
        return super()._draw(pixels.copy(), caption, view)


LONG = [(i, "".join(TEXTS[:3])[:length]) for i, length in enumerate(range(8, 22))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("crop", ["frame", "band", "line"])
def test_labels_say_where_the_ink_is(fonts: FontSet, kind: str, crop: str) -> None:
    """The same picture without its caption differs from it within the boxes, up to their edges, and there only."""
    recipe = only(kind, crop=crop, screen_text={}, looks={"outline": 1.0}, italic=0.3, lower_edge=(0.2, 1.0))
    given = {"recipe": recipe, "sizes": [(640, 360)]}
    synthesizer, without = (make(Backgrounds(), fonts, **given) for make in (Synthesizer, WithoutCaption))  # type: ignore[arg-type]
    for number in range(12):
        sentences = [] if kind == "empty" else [LONG[number], LONG[(number + 5) % 12]] if number % 2 else SENTENCES
        picture, bare = synthesizer.make(number, sentences), without.make(number, sentences)
        label = picture.label
        assert label == bare.label
        assert picture.pixels.shape == (label.height, label.width, 3)
        assert (label.width, label.height) == (640, 360) or crop != "frame"
        assert label.kind == kind or (kind in ("vertical", "bilingual", "meme_panel") and label.kind == "line")
        changed = np.abs(picture.pixels.astype(int) - bare.pixels).max(axis=2) > 24
        if kind == "empty":
            assert (label.text, label.box, label.lines, label.sentence) == ("", None, (), None)
            assert not changed.any()
            continue
        for line in label.lines:
            left, top, right, bottom = line.box
            assert 0 <= left < right <= label.width
            assert 0 <= top < bottom <= label.height
            inside = changed[top:bottom, left:right]
            # Some column and row near each side has ink; half-covered edges may fall short of it by a little.
            rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            assert rows[0] <= 3
            assert rows[-1] >= bottom - top - 4
            assert columns[0] <= 3
            assert columns[-1] >= right - left - 4
        for line in label.lines:
            left, top, right, bottom = line.box
            changed[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = False
        assert not changed.any()
        captions = [line for line in label.lines if line.role == "caption"]
        assert label.text == "\n".join(normalize(line.text) for line in captions)
        own = [line.box for line in captions]
        assert label.box == (
            min(b[0] for b in own), min(b[1] for b in own), max(b[2] for b in own), max(b[3] for b in own),
        )  # fmt: skip
        if crop == "line" and kind != "bilingual":
            assert label.box is not None
            assert label.box[0] <= label.height
            assert label.width - label.box[2] <= label.height


def test_the_order_of_shares_changes_nothing(fonts: FontSet) -> None:
    one = Recipe(kinds={"line": 1.0, "top": 1.0}, looks={"box": 1.0, "outline": 2.0})
    other = Recipe(kinds={"top": 1.0, "line": 1.0}, looks={"outline": 2.0, "box": 1.0})
    labels = [[Synthesizer(Backgrounds(), fonts, recipe=recipe, sizes=[(160, 90)]).make(i, SENTENCES).label
               for i in range(20)] for recipe in (one, other)]  # fmt: skip
    assert labels[0] == labels[1]
    assert {label.kind for label in labels[0]} == {"line", "top"}


def test_a_bilingual_caption_has_two_languages(fonts: FontSet, tmp_path: Path) -> None:
    few = load_fonts([save_font(tmp_path / "few.ttf", "".join(TEXTS).replace("\n", "") + "ありがとう，")])
    recipe = only("bilingual", second_language=("Hello there", "ありがとう"), screen_text={})
    for number in range(6):
        lines = Synthesizer(Backgrounds(), few, recipe=recipe).make(number, SENTENCES).label.lines
        assert [line.text for line in lines if line.role == "second_language"] == ["ありがとう"]
    none = only("bilingual", second_language=("Hello",), screen_text={})
    assert Synthesizer(Backgrounds(), few, recipe=none).make(0, SENTENCES).label.kind == "line"


def test_captions_hold_the_sentence(fonts: FontSet) -> None:
    for kind in set(KINDS) - {"empty", "two_speakers", "two_lines"}:
        synthesizer = Synthesizer(Backgrounds(), fonts, recipe=only(kind, screen_text={}), sizes=[(640, 360)])
        for number, (row, text) in enumerate(SENTENCES):
            label = synthesizer.make(number, [(row, text)]).label
            assert "".join(label.text.split()) == "".join(text.replace("，", ",").split())
            assert label.sentence == row
            assert label.skipped == 0


def test_two_speakers_and_two_lines(fonts: FontSet) -> None:
    speakers = Synthesizer(Backgrounds(), fonts, recipe=only("two_speakers", screen_text={}))
    texts = {speakers.make(i, [(0, "你好嗎"), (4, "走吧")]).label.text for i in range(20)}
    assert texts == {"你好嗎 走吧", "-你好嗎 -走吧"}
    # What is too long for one line has a line for each, and no dash is left alone.
    narrow = Synthesizer(Backgrounds(), fonts, recipe=only("two_speakers", screen_text={}), sizes=[(640, 360)])
    pair = [(2, TEXTS[2]), (1, TEXTS[1])]
    texts = {narrow.make(i, pair).label.text for i in range(20)}
    assert texts == {f"{TEXTS[2]}\n我很好,謝謝", f"-{TEXTS[2]}\n-我很好,謝謝"}
    lines = Synthesizer(Backgrounds(), fonts, recipe=only("two_lines", screen_text={}))
    assert lines.make(0, [(0, "你好嗎"), (4, "走吧")]).label.text == "你好嗎\n走吧"
    long = lines.make(0, [(2, TEXTS[2]), (4, "走吧")]).label
    assert long.text.replace("\n", "") == TEXTS[2]
    assert len(long.lines) == 2


def test_a_sentence_that_does_not_fit_makes_way_and_is_counted(fonts: FontSet) -> None:
    recipe = only("line", overflow="skip", type_size=(60, 60))
    synthesizer = Synthesizer(Backgrounds(), fonts, recipe=recipe, sizes=[(640, 360)])
    label = synthesizer.make(0, [(2, TEXTS[2]), (7, "龜"), (0, TEXTS[0])]).label
    assert (label.sentence, label.skipped, label.text) == (0, 2, TEXTS[0])
    # Without another one it is set as small as it must be: a run does not stop for a long sentence.
    alone = synthesizer.make(5, [(2, TEXTS[2])]).label
    assert (alone.sentence, alone.skipped, alone.text.replace("\n", "")) == (2, 0, TEXTS[2])
    assert alone.fitted in ("wrapped", "shrunk")
    endless = synthesizer.make(5, [(0, TEXTS[2] * 30)]).label
    assert endless.text.replace("\n", "") == TEXTS[2] * 30
    with pytest.raises(SynthesisError, match="picture 5: none of 1 sentences fits 640 x 360"):
        synthesizer.make(5, [(2, TEXTS[2] * 400)])
    wrapping = Synthesizer(Backgrounds(), fonts, recipe=only("line", type_size=(60, 60)), sizes=[(640, 360)])
    wrapped = wrapping.make(0, [(2, TEXTS[2])]).label
    assert (wrapped.fitted, len(wrapped.lines)) == ("wrapped", 2)
    shrinking = Synthesizer(
        Backgrounds(), fonts, recipe=only("line", type_size=(50, 50), overflow="shrink"), sizes=[(640, 360)]
    )
    shrunk = shrinking.make(0, [(2, TEXTS[2])]).label
    assert (shrunk.fitted, len(shrunk.lines)) == ("shrunk", 1)
    assert shrunk.font_size is not None
    assert 30 <= shrunk.font_size < 50


def test_kinds_and_sizes_follow_their_weights(fonts: FontSet) -> None:
    recipe = Recipe(kinds={"line": 3.0, "top": 1.0, "empty": 5.0}, screen_text={})
    synthesizer = Synthesizer(Backgrounds(), fonts, recipe=recipe, sizes=[(80, 45), (160, 90)])
    labels = [synthesizer.make(i, SENTENCES).label for i in range(400)]
    assert {label.kind for label in labels} == {"line", "top"}
    for share, count in ((0.25, sum(label.kind == "top" for label in labels)),
                         (0.5, sum(label.width == 80 for label in labels))):  # fmt: skip
        assert abs(count - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5


def test_marks_are_drawn_wide_or_narrow_and_labelled_narrow(fonts: FontSet) -> None:
    text = "我很好,謝謝"
    for share, drawn in ((1.0, "我很好，謝謝"), (0.0, text)):
        synthesizer = Synthesizer(Backgrounds(), fonts, recipe=only("line", wide_marks=share))
        label = synthesizer.make(0, [(0, text)]).label
        assert (label.lines[0].text, label.text) == (drawn, text)
    # No font has this one wide.
    synthesizer = Synthesizer(Backgrounds(), fonts, recipe=only("line", wide_marks=1.0))
    assert synthesizer.make(0, [(0, "走吧;走吧")]).label.lines[0].text == "走吧;走吧"


def test_a_memes_panel_holds_its_text(fonts: FontSet) -> None:
    synthesizer = Synthesizer(Backgrounds(), fonts, recipe=only("meme_panel"), sizes=[(640, 360)])
    for number in range(8):
        picture = synthesizer.make(number, SENTENCES)
        box = picture.label.box
        assert box is not None
        # Black on white, and white beside it in the whole width.
        rows = picture.pixels[box[1] : box[3]]
        assert (rows[:, :5] == 255).all()
        assert rows.min() < 40


def test_manifest_rows_fit_the_schema(fonts: FontSet) -> None:
    schema = manifest_schema(style_schema(), background_schema(), damage_schema())
    synthesizer = Synthesizer(Backgrounds(), fonts, sizes=[(320, 180)], damage=1.0)
    rows = [{"number": i, **synthesizer.make(i, SENTENCES).label.row()} for i in range(30)]
    table = pa.Table.from_pylist(rows, schema=schema)
    assert table.column("text").to_pylist() == [row["text"] for row in rows]
    for name in ("style", "background", "damage"):
        for given, got in zip(rows, table.column(name).to_pylist(), strict=True):
            # Everything in a label has its column.
            assert set(given[name]) <= set(got)  # type: ignore[call-overload]


@pytest.mark.parametrize("format", ["jpg", "png", "webp"])
def test_pictures_are_encoded(fonts: FontSet, format: str) -> None:
    synthesizer = Synthesizer(Backgrounds(), fonts, sizes=[(320, 180)], format=format)  # type: ignore[arg-type]
    picture = synthesizer.make(0, SENTENCES)
    data = synthesizer.encode(picture)
    if format == "jpg":
        stream = io.BytesIO()
        Image.fromarray(picture.pixels).save(stream, "JPEG", quality=picture.label.quality)
        assert data == stream.getvalue()
    assert (picture.label.quality is None) == (format == "png")
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[format]
        decoded = np.asarray(image.convert("RGB")).astype(int)
    difference = np.abs(decoded - picture.pixels)
    assert difference.max() == 0 if format == "png" else difference.mean() < 4
    assert synthesizer.encode(picture) == data


def test_other_text_stays_clear_of_the_caption_and_is_labelled(fonts: FontSet) -> None:
    taken = (100, 250, 540, 330)
    seen = set()
    for seed in range(40):
        grey = np.full((360, 640, 3), 128, np.uint8)
        pixels = grey.copy()
        drawn = draw_screen_text(
            np.random.default_rng(seed), pixels, {"logo": 1, "sign": 1, "credits": 1, "clock": 1}, fonts, [taken]
        )
        seen |= {line.role for line in drawn}
        assert (pixels[250:330, 100:540] == 128).all()
        changed = (pixels != grey).any(axis=2)
        for line in drawn:
            left, top, right, bottom = line.box
            assert line.text
            assert changed[top:bottom, left:right].any()
            # Shadows and boxes reach a little further than the ink.
            changed[max(0, top - 8) : bottom + 8, max(0, left - 8) : right + 8] = False
        assert not changed.any()
        for i, one in enumerate(drawn):
            for other in drawn[i + 1 :]:
                assert one.box[0] >= other.box[2] or other.box[0] >= one.box[2] or (
                    one.box[1] >= other.box[3] or other.box[1] >= one.box[3]
                )  # fmt: skip
    assert seen == {"logo", "sign", "credits", "clock"}
    quiet = np.full((360, 640, 3), 128, np.uint8)
    assert draw_screen_text(np.random.default_rng(0), quiet, {}, fonts, []) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"sizes": []},
        {"sizes": [(20, 20)]},
        {"sizes": [(9000, 100)]},
        {"damage": 1.5},
        {"seed": -1},
        {"format": "gif"},
    ],
)
def test_wrong_arguments_are_refused(fonts: FontSet, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Synthesizer(Backgrounds(), fonts, **wrong)  # type: ignore[arg-type]


def test_real_fonts_draw_what_they_say(data: Path) -> None:
    """RapidOCR reads the lines at their boxes, with installed fonts on photographs."""
    from rapidocr import RapidOCR

    from caprag.errors import FontError
    from caprag.evaluation import count_errors

    texts = [t for t in (data / "text/zh-TW/setences.txt").read_text(encoding="utf-8").split("\n") if 4 < len(t) < 13]
    try:
        fonts = load_fonts(sample=texts[:50])
    except FontError as error:
        pytest.skip(f"no font for Chinese is installed: {error}")
    kinds = {kind: weight for kind, weight in KINDS.items() if kind not in ("empty", "vertical")}
    synthesizer = Synthesizer(Backgrounds([data / "backgrounds"]), fonts, seed=5, recipe=Recipe(kinds=kinds))
    engine = RapidOCR(params={"Global.log_level": "error"})
    readings, references = [], []
    for number in range(25):
        picture = synthesizer.make(number, [(i, texts[i]) for i in range(number * 9, number * 9 + 4)])
        for line in picture.label.lines:
            if line.role == "caption":
                left, top, right, bottom = line.box
                crop = picture.pixels[max(0, top - 8) : bottom + 8, max(0, left - 8) : right + 8, ::-1]
                result: Any = engine(np.ascontiguousarray(crop), use_det=False, use_cls=False, use_rec=True)
                readings.append("".join(result.txts or ()))
                references.append(line.text)
    assert count_errors(readings, references).cer < 0.02
