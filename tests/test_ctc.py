"""The RapidOCR recogniser on drawn and real frames, against rapidocr's own reading, and by its laws."""

from __future__ import annotations

import logging
import math
import os
import socket
import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import rapidocr
from PIL import Image, ImageDraw, ImageFont
from rapidocr.utils.output import RapidOCROutput

from caprag.errors import ModelError
from caprag.recognition import ctc
from caprag.recognition.ctc import RapidOCRRecognizer
from caprag.recognition.frames import open_frame
from caprag.types import Hypothesis, Recognizer

DATA = Path(os.environ.get("CAPRAG_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FONTS = (
    "/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc",
    "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc",
)

Anchor = tuple[float, float, str]


@lru_cache(maxsize=1)
def recognizer() -> RapidOCRRecognizer:
    return RapidOCRRecognizer(n_threads=1)


def draw(*texts: tuple[str, Anchor], size: tuple[int, int] = (1280, 720), height: int = 44) -> Image.Image:
    """A scene of soft colours with white, outlined type; each text at (x share, y share, Pillow's anchor)."""
    path = next((font for font in FONTS if Path(font).exists()), None)
    if path is None:
        pytest.skip("no CJK font: install fonts-noto-cjk or fonts-wqy-microhei")
    font = ImageFont.truetype(path, height)
    across, down = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    scene = np.stack([90 + 80 * across, 110 + 60 * down, 140 - 50 * across * down], axis=2)
    picture = Image.fromarray(scene.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for text, (x, y, anchor) in texts:
        place = (x * size[0], y * size[1])
        pen.text(place, text, "white", font, anchor=anchor, stroke_width=3, stroke_fill="black")
    return picture


def caption(text: str) -> Image.Image:
    return draw((text, (0.5, 0.92, "mm")))


def letters(text: str) -> str:
    """Letters and digits after NFKC, as the targets count them."""
    folded = unicodedata.normalize("NFKC", text)
    return "".join(character for character in folded if unicodedata.category(character)[0] in "LN")


def texts(hypotheses: list[Hypothesis]) -> list[str]:
    return [hypothesis.text for hypothesis in hypotheses]


def test_it_is_a_recognizer() -> None:
    assert isinstance(recognizer(), Recognizer)


@pytest.mark.parametrize("text", ["今天天氣真好", "我只有四十分鐘時間了", "他造成了168億的損失"])
def test_reads_what_was_drawn(text: str) -> None:
    ((hypothesis,),) = recognizer().recognize_batch([caption(text)])
    assert hypothesis.text == text
    assert -1.0 < hypothesis.logprob <= 0.0


def test_stacked_rows_and_two_speakers() -> None:
    stacked = draw(("今天天氣真好", (0.5, 0.84, "mm")), ("我們出去走走吧", (0.5, 0.92, "mm")))
    beside = draw(("你要去哪裡", (0.3, 0.92, "mm")), ("我要回家", (0.7, 0.92, "mm")))
    found = recognizer().recognize_batch([stacked, beside])
    assert [texts(hypotheses) for hypotheses in found] == [["今天天氣真好\n我們出去走走吧"], ["你要去哪裡 我要回家"]]


def test_a_logo_and_a_sign_are_not_the_caption() -> None:
    logo, sign = ("雙星台", (0.9, 0.1, "mm")), ("小心台階", (0.75, 0.55, "mm"))
    picture = draw(logo, sign, ("今天天氣真好", (0.5, 0.92, "mm")))
    assert texts(recognizer().recognize_batch([picture])[0]) == ["今天天氣真好"]
    assert recognizer().recognize_batch([draw(logo, sign)], n_best=3) == [[Hypothesis("", 0.0)]]


def test_a_picture_without_type() -> None:
    bare = draw()
    assert recognizer().recognize_batch([bare], n_best=5) == [[Hypothesis("", 0.0)]]
    assert recognizer().score_batch([bare], [["", " \n", "今天", "𓀀"]]) == [[0.0, 0.0, -math.inf, -math.inf]]


@pytest.mark.parametrize("scale", [0.4, 1.5])
def test_size_of_the_frame(scale: float) -> None:
    picture = caption("我們明天再見")
    size = (round(picture.width * scale), round(picture.height * scale))
    resized = picture.resize(size, Image.Resampling.LANCZOS)
    assert texts(recognizer().recognize_batch([resized])[0]) == ["我們明天再見"]


def test_a_strip_cut_out_around_the_caption() -> None:
    picture = caption("我們明天再見")
    band = picture.crop((0, 610, 1280, 720))
    tight = picture.crop((500, 635, 780, 690))
    assert [texts(found) for found in recognizer().recognize_batch([band, tight])] == [["我們明天再見"]] * 2


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 2), (90, 900)])
def test_odd_sizes_are_read_as_empty(size: tuple[int, int]) -> None:
    assert recognizer().recognize_batch([Image.new("RGB", size, (9, 9, 9))]) == [[Hypothesis("", 0.0)]]


def test_other_modes_are_converted() -> None:
    picture = caption("今天天氣真好").convert("L")
    found = recognizer().recognize_batch([picture, picture.convert("RGB")])
    assert found[0] == found[1]
    assert texts(found[0]) == ["今天天氣真好"]


def test_best_reading_equals_rapidocr_where_it_is_sure() -> None:
    # rapidocr decodes greedily; where it is sure of every character the most probable labelling is the same.
    picture = caption("這種狀況不會持續太久")
    engine = rapidocr.RapidOCR(params={"Global.log_level": "critical", "Global.use_cls": False})
    theirs = engine(np.asarray(picture)[:, :, ::-1])
    assert isinstance(theirs, RapidOCROutput)
    assert theirs.txts is not None
    assert theirs.scores is not None
    assert min(theirs.scores) > 0.98
    assert texts(recognizer().recognize_batch([picture])[0]) == list(theirs.txts)


def test_n_best_is_distinct_sorted_and_sums_to_at_most_one() -> None:
    pictures = [caption("慫恿買水晶"), draw(("別說謊", (0.3, 0.92, "mm")), ("起鬨的", (0.7, 0.92, "mm")))]
    for picture in pictures:
        (found,) = recognizer().recognize_batch([picture], n_best=8)
        logprobs = [hypothesis.logprob for hypothesis in found]
        assert 1 < len(found) <= 8
        assert logprobs == sorted(logprobs, reverse=True)
        assert len({"".join(text.split()) for text in texts(found)}) == len(found)
        assert math.fsum(map(math.exp, logprobs)) <= 1 + 1e-6
        assert recognizer().recognize_batch([picture], n_best=1) == [found[:1]]


def test_scores_of_hypotheses_are_their_logprobs() -> None:
    stacked = draw(("今天天氣真好", (0.5, 0.84, "mm")), ("我們出去走走吧", (0.5, 0.92, "mm")))
    pictures = [caption("他造成了168億的損失"), stacked]
    for picture, found in zip(pictures, recognizer().recognize_batch(pictures, n_best=6), strict=True):
        (scores,) = recognizer().score_batch([picture], [texts(found)])
        assert scores == [hypothesis.logprob for hypothesis in found]


def test_the_right_text_scores_above_wrong_ones() -> None:
    picture = caption("他造成了168億的損失")
    right = ["他造成了168億的損失", "他造成了１６８億的損失", " 他造成了 168 億的\n損失 "]
    wrong = ["他造成了168億的失損", "他造成了168億的損", "他造成", "", "今天天氣真好"]
    (scores,) = recognizer().score_batch([picture], [right + wrong])
    assert scores[0] == scores[1] == scores[2] > -1.0
    assert all(-math.inf < score < scores[0] - 3 for score in scores[3:])


def test_lines_are_matched_however_they_are_broken() -> None:
    stacked = draw(("今天天氣真好", (0.5, 0.84, "mm")), ("我們出去走走吧", (0.5, 0.92, "mm")))
    ways = ["今天天氣真好\n我們出去走走吧", "今天天氣真好我們出去走走吧", "今天天氣\n真好 我們出去\n走走吧"]
    (scores,) = recognizer().score_batch([stacked], [[*ways, "我們出去走走吧\n今天天氣真好"]])
    assert scores[0] == scores[1] == scores[2] > -1.0
    assert scores[3] < scores[0] - 10


def test_characters_beyond_the_alphabet() -> None:
    picture = caption("等一下…")
    (scores,) = recognizer().score_batch([picture], [["等一下…", "等一下⋯", "等一下𓀀", "等一下\ue000"]])
    assert scores[0] == scores[1] > -5.0
    assert scores[2:] == [-math.inf, -math.inf]


def test_a_text_too_long_for_the_picture_is_impossible() -> None:
    (scores,) = recognizer().score_batch([caption("好")], [["好" * 500]])
    assert scores == [-math.inf]


def test_batches_equal_singles_in_any_order() -> None:
    pictures = [draw(), caption("他造成了168億的損失"), caption("好耶")]
    wanted = [[], ["他造成了168億的損失", ""], ["好"]]
    fresh = RapidOCRRecognizer(n_threads=1, cache_size=0)
    together = fresh.recognize_batch(pictures, n_best=3)
    assert together == [fresh.recognize_batch([picture], n_best=3)[0] for picture in pictures]
    assert together[::-1] == fresh.recognize_batch(pictures[::-1], n_best=3)
    scores = fresh.score_batch(pictures, wanted)
    assert [len(row) for row in scores] == [0, 2, 1]
    assert scores == [fresh.score_batch([picture], [row])[0] for picture, row in zip(pictures, wanted, strict=True)]
    assert fresh.recognize_batch([]) == []
    assert fresh.score_batch([], []) == []


def test_the_cache_changes_no_result_and_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = 0
    find = RapidOCRRecognizer._find_and_read

    def counted(self: RapidOCRRecognizer, image: Image.Image) -> tuple[ctc._Part, ...]:
        nonlocal passes
        passes += 1
        return find(self, image)

    monkeypatch.setattr(RapidOCRRecognizer, "_find_and_read", counted)
    one, two = caption("今天天氣真好"), draw()
    reader = RapidOCRRecognizer(n_threads=1, cache_size=1)
    first = reader.recognize_batch([one])
    assert reader.score_batch([one.copy()], [[first[0][0].text]]) == [[first[0][0].logprob]]
    assert passes == 1
    one.paste((0, 0, 0), (0, 0, *one.size))
    assert reader.recognize_batch([one, two]) == [[Hypothesis("", 0.0)]] * 2
    assert passes == 3
    assert reader.recognize_batch([caption("今天天氣真好")]) == first
    assert passes == 4


def test_pictures_are_not_written_to() -> None:
    picture = caption("今天天氣真好")
    before = picture.tobytes()
    recognizer().recognize_batch([picture])
    assert picture.tobytes() == before


def test_nothing_is_printed_fetched_or_set(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("went to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    root = logging.getLogger()
    before = (root.level, list(root.handlers), dict(os.environ))
    RapidOCRRecognizer(n_threads=1).recognize_batch([caption("好耶")])
    assert (root.level, list(root.handlers), dict(os.environ)) == before
    assert capfd.readouterr() == ("", "")


def test_a_missing_network_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ctc._MODELS, "Rec", "elsewhere.onnx")
    with pytest.raises(ModelError, match=r"elsewhere\.onnx.*pip install"):
        RapidOCRRecognizer()


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    for name, value in [("beam_width", 0), ("n_threads", 0), ("cache_size", -1)]:
        with pytest.raises(ValueError, match=f"{name}.*{value}"):
            RapidOCRRecognizer(**{name: value})
    with pytest.raises(ValueError, match="n_best"):
        recognizer().recognize_batch([draw()], n_best=0)
    with pytest.raises(ValueError, match="1 and 0"):
        recognizer().score_batch([draw()], [])
    with pytest.raises(ValueError, match="pixels"):
        recognizer().recognize_batch([Image.new("RGB", (0, 5))])
    with pytest.raises(TypeError, match="open_frame"):
        recognizer().recognize_batch([tmp_path / "frame.png"])  # type: ignore[list-item]


REAL = {
    "ave_014.webp": "乞求吧",  # red serif
    "ave_150.webp": "記得要強調是史上最快喔",  # in a camera's finder
    "mygo_012.jpg": "今後不要再和我扯上關係了",  # 288 lines
    "mygo_065.jpg": "那些不是重點吧?",  # a poster behind
    "snail_050.jpg": "刚从乡下过来",  # a jersey beside
    "rvo_001.jpg": "空间里面他绝对赢不了的",  # 2.4 : 1
}


@pytest.mark.parametrize("name", REAL)
def test_real_frames(name: str) -> None:
    path = DATA / "frames" / "images" / name
    if not path.exists():
        pytest.skip(f"no real frames: {path.parent} is missing; set CAPRAG_DATA")
    frame = open_frame(path)
    bare = frame.crop((0, 0, frame.width, frame.height * 3 // 4))
    found, nothing = recognizer().recognize_batch([frame, bare])
    assert letters(found[0].text) == letters(REAL[name])
    assert nothing == [Hypothesis("", 0.0)]


def test_a_real_bitmap_with_two_speakers() -> None:
    path = DATA / "bitmaps" / "images" / "0143.png"
    if not path.exists():
        pytest.skip(f"no caption bitmaps: {path.parent} is missing; set CAPRAG_DATA")
    ((hypothesis,),) = recognizer().recognize_batch([open_frame(path)])
    assert letters(hypothesis.text) == "魚蛋粗麵麻煩你粗麵買光了"


@pytest.mark.parametrize("size", [(200_000, 60), (60, 200_000), (5000, 10), (1, 1)])
def test_a_thread_of_a_picture_is_read_as_nothing(size: tuple[int, int]) -> None:
    recognizer = RapidOCRRecognizer(n_threads=1)
    assert recognizer.recognize_batch([Image.new("RGB", size)]) == [[Hypothesis("", 0.0)]]
