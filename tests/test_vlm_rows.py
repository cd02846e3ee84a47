"""Captions that are read part by part, against readings and scores of the single parts, and against brute force."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rapidocr
import torch
from PIL import Image, ImageDraw
from rapidfuzz.distance import Levenshtein

from caprag.recognition.ctc import RapidOCRRecognizer
from caprag.recognition.families import family_of
from caprag.recognition.generation import SequenceModel
from caprag.recognition.parts import Part, combine, split_text
from caprag.recognition.reader import ReaderForConditionalGeneration, ReaderProcessor
from caprag.recognition.reader.processing import SPECIAL
from caprag.recognition.sampling import Sampling
from caprag.recognition.vlm import VLMRecognizer
from caprag.training.reader.initial import ReaderSize, new_reader
from caprag.types import Hypothesis

TEXTS = ("GOODMORNING", "HOWAREYOU", "WHERETO", "HOMENOW")


def frame(*texts: tuple[str, float, float]) -> Image.Image:
    """A scene of soft colours with white, outlined type in Pillow's own face; each text at a share of the sides."""
    across, down = np.meshgrid(np.linspace(0, 1, 1280), np.linspace(0, 1, 720))
    scene = np.stack([90 + 80 * across, 110 + 60 * down, 140 - 50 * across * down], axis=2)
    picture = Image.fromarray(scene.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for text, x, y in texts:
        pen.text(
            (x * 1280, y * 720), text, "white", anchor="mm", font_size=48, stroke_width=3, stroke_fill="black"
        )  # fmt: skip
    return picture


STACKED = frame((TEXTS[0], 0.5, 0.83), (TEXTS[1], 0.5, 0.92))
BESIDE = frame((TEXTS[2], 0.3, 0.92), (TEXTS[3], 0.7, 0.92))
SINGLE = frame((TEXTS[0], 0.5, 0.92))
BARE = frame()
EMPTY_STRIP = BARE.crop((0, 600, 1280, 700))
PICTURES = [STACKED, BARE, BESIDE, EMPTY_STRIP, SINGLE]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def _found_once() -> Iterator[None]:
    """Finding takes most of the time here, and tells the same of the same picture: remember it."""
    find = RapidOCRRecognizer._find
    known: dict[tuple[tuple[int, int], bytes], Any] = {}

    def remembered(self: RapidOCRRecognizer, image: Image.Image) -> Any:
        key = (image.size, image.tobytes())
        if key not in known:
            known[key] = find(self, image)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RapidOCRRecognizer, "_find", remembered)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new reader, which knows nothing: its readings are as random as its weights."""
    made = tmp_path_factory.mktemp("reader") / "new"
    size = ReaderSize(hidden=128, layers=1, heads=4, key_value_heads=2, intermediate=64)
    new_reader(made, "ABCDEFGH abcdefgh01234", size, seed=3)
    # Else most readings would be of tokens that are no text.
    model: Any = ReaderForConditionalGeneration.from_pretrained(made)
    tokens = ReaderProcessor.from_pretrained(made).tokenizer
    with torch.no_grad():
        model.get_input_embeddings().weight[tokens.convert_tokens_to_ids([*SPECIAL, " "])] *= 0.2
    model.save_pretrained(made)
    return made


def reader_of(folder: Path, **options: Any) -> VLMRecognizer:
    return VLMRecognizer(folder, **{"device": "cpu", "max_new_tokens": 5, **options})


@pytest.fixture(scope="module")
def reader(folder: Path) -> VLMRecognizer:
    return reader_of(folder)


@pytest.fixture(scope="module")
def singly(folder: Path) -> VLMRecognizer:
    """The same reader, shown what it is given."""
    return reader_of(folder, crop="frame")


@pytest.fixture(scope="module")
def parts() -> list[list[Part]]:
    return RapidOCRRecognizer(n_threads=1).find_parts_batch(PICTURES)


def assert_same(some: Sequence[Hypothesis], others: Sequence[Hypothesis]) -> None:
    assert [h.text for h in some] == [h.text for h in others]
    assert [h.logprob for h in some] == pytest.approx([h.logprob for h in others], abs=1e-3)


def test_parts_are_the_texts_in_reading_order(parts: list[list[Part]]) -> None:
    """What rapidocr's own recogniser reads in each."""
    engine = rapidocr.RapidOCR(params={"Global.log_level": "critical"})

    def read(part: Part) -> str:
        result: Any = engine(np.asarray(part.image)[:, :, ::-1], use_det=False, use_cls=False, use_rec=True)
        return "".join(result.txts[0].split())

    wanted = [TEXTS[:2], (), TEXTS[2:], (), TEXTS[:1]]
    assert [tuple(map(read, several)) for several in parts] == wanted
    whole = RapidOCRRecognizer(n_threads=1).recognize_batch(PICTURES)
    assert [tuple(hypothesis.text.split()) for (hypothesis,) in whole] == wanted
    assert ["".join(part.separator for part in several) for several in parts] == ["\n\n", "", "\n ", "", "\n"]
    assert all(part.image.mode == "RGB" for several in parts for part in several)


def test_a_caption_reads_as_its_parts(
    reader: VLMRecognizer, singly: VLMRecognizer, parts: list[list[Part]]
) -> None:  # fmt: skip
    found = reader.recognize_batch(PICTURES, 4)
    for (hypothesis, *_), several in zip(found, [*parts[:3], [Part(EMPTY_STRIP)], parts[4]], strict=True):
        read = [singly.recognize_batch([part.image], 4)[0][0] for part in several]
        joined = "".join(part.separator + one.text for part, one in zip(several, read, strict=True) if one.text)
        assert hypothesis.text == joined.strip()
        assert hypothesis.logprob == pytest.approx(sum(one.logprob for one in read), abs=1e-3)
    assert "\n" in found[0][0].text
    assert found[1] == [Hypothesis("", 0.0)]


def test_n_best_are_the_likeliest_combinations(
    reader: VLMRecognizer, singly: VLMRecognizer, parts: list[list[Part]]
) -> None:  # fmt: skip
    (found,) = reader.recognize_batch([STACKED], 4)
    rows = [singly.recognize_batch([part.image], 4)[0] for part in parts[0]]
    pairs = sorted(itertools.product(*rows), key=lambda pair: -pair[0].logprob - pair[1].logprob)[:4]
    wanted = [Hypothesis("\n".join(row.text for row in pair), sum(row.logprob for row in pair)) for pair in pairs]
    assert all(row.text for pair in pairs for row in pair)
    assert_same(found, wanted)


def test_hypotheses_score_what_they_say(folder: Path, reader: VLMRecognizer) -> None:
    found = reader.recognize_batch(PICTURES, 5)
    texts = [[h.text for h in hypotheses] for hypotheses in found]
    assert [len(several) for several in texts] == [5, 1, 5, 5, 5]
    for scores in (reader.score_batch(PICTURES, texts), reader_of(folder).score_batch(PICTURES, texts)):
        for hypotheses, scored in zip(found, scores, strict=True):
            assert [h.logprob for h in hypotheses] == pytest.approx(scored, abs=1e-3)
            assert sum(map(math.exp, scored)) <= 1 + 1e-6


def test_a_text_scores_as_its_pieces(reader: VLMRecognizer, singly: VLMRecognizer, parts: list[list[Part]]) -> None:
    for picture, several in ((STACKED, parts[0]), (BESIDE, parts[2])):
        # However unlike the reading: as many lines as parts are theirs.
        one, other = singly.score_batch([part.image for part in several], [["AB c"], ["12"]])
        (scores,) = reader.score_batch([picture], [["AB c\n12", " AB c \n\n12 "]])
        assert scores == pytest.approx([one[0] + other[0]] * 2, abs=1e-3)
        read = [found[0].text for found in singly.recognize_batch([part.image for part in several])]
        ((best,),) = reader.recognize_batch([picture])
        ways = [separator.join(read) for separator in ("\n", " ", "")]
        assert reader.score_batch([picture], [ways])[0] == pytest.approx([best.logprob] * 3, abs=1e-3)
    ((broken, plain),) = reader.score_batch([SINGLE], [["AB\nC", "AB C"]])
    assert broken == plain > -math.inf


def test_a_picture_without_parts_has_no_caption(reader: VLMRecognizer, singly: VLMRecognizer) -> None:
    texts = ["", " \n", "AB"]
    assert reader.recognize_batch([BARE], 3) == [[Hypothesis("", 0.0)]]
    assert reader.score_batch([BARE], [texts]) == [[0.0, 0.0, -math.inf]]
    # A strip was cut out because something stands in it.
    assert_same(reader.recognize_batch([EMPTY_STRIP], 3)[0], singly.recognize_batch([EMPTY_STRIP], 3)[0])


@pytest.mark.parametrize("sampling", [None, Sampling(temperature=0.7, seed=2)])
def test_batches_equal_singles(folder: Path, reader: VLMRecognizer, sampling: Sampling | None) -> None:
    used = reader if sampling is None else reader_of(folder, sampling=sampling)
    pictures, texts = PICTURES[:4], [["AB C", "", "H\nA"]] * 4
    together, scores = used.recognize_batch(pictures, 3), used.score_batch(pictures, texts)
    for picture, found, scored in zip(pictures, together, scores, strict=True):
        assert_same(used.recognize_batch([picture], 3)[0], found)
        assert used.score_batch([picture], texts[:1])[0] == pytest.approx(scored, abs=1e-3)
    used.recognize_batch(pictures[3:])  # else the last batch is known
    for found, others in zip(used.recognize_batch(pictures[::-1], 3)[::-1], together, strict=True):
        assert_same(found, others)


def test_a_picture_is_searched_and_looked_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    find, read = RapidOCRRecognizer.find_parts_batch, SequenceModel.read

    def found(self: RapidOCRRecognizer, images: Sequence[Image.Image]) -> list[list[Part]]:
        seen.append(len(images))
        return find(self, images)

    def taken_in(self: SequenceModel, inputs: Any, count: int) -> Any:
        seen.append(count)
        return read(self, inputs, count)

    monkeypatch.setattr(RapidOCRRecognizer, "find_parts_batch", found)
    monkeypatch.setattr(SequenceModel, "read", taken_in)
    reader = reader_of(folder)
    hypotheses = reader.recognize_batch(PICTURES, 3)
    reader.score_batch(PICTURES, [[h.text for h in several] + ["ABCDEF"] for several in hypotheses])
    reader.score_batch(PICTURES[2:3], [["AB C"]])
    assert seen == [5, 6]


def test_a_full_memory_halves_the_batch(folder: Path, reader: VLMRecognizer) -> None:
    small = reader_of(folder, batch_size=4)

    def fill(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        if len(named["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    small._sequences._model.register_forward_pre_hook(fill, with_kwargs=True)
    with pytest.warns(UserWarning, match="no memory for batches of 4 pictures"):
        found = small.recognize_batch(PICTURES)
    for some, others in zip(found, reader.recognize_batch(PICTURES), strict=True):
        assert_same(some, others)


def test_the_shipped_reader_is_shown_parts_unless_told(folder: Path, reader: VLMRecognizer) -> None:
    assert family_of("caprag_reader").crop == "parts"
    (told,) = reader_of(folder, crop="parts").recognize_batch([STACKED], 2)
    assert_same(reader.recognize_batch([STACKED], 2)[0], told)


def test_a_whole_frame_reads_as_plain_generation_says(folder: Path, singly: VLMRecognizer) -> None:
    model: Any = ReaderForConditionalGeneration.from_pretrained(folder).eval()
    processor = ReaderProcessor.from_pretrained(folder)
    seen = model.look(**processor([STACKED]))
    made = model.generate(**seen, max_new_tokens=5, do_sample=False)
    said = processor.tokenizer.decode(made[0][seen["input_ids"].shape[1] :], skip_special_tokens=True)
    assert said
    assert singly.recognize_batch([STACKED])[0][0].text == said.strip()


def test_a_split_is_the_nearest_of_all() -> None:
    chance = random.Random(5)

    def word(longest: int) -> str:
        return "".join(chance.choice("ab ") for _ in range(chance.randrange(longest))).strip()

    for count in (2, 2, 3) * 40:
        readings, text = [word(5) for _ in range(count)], word(9)
        pieces = split_text(text, ["\n"] + [" "] * (count - 1), partial(list, readings))
        cuts = itertools.combinations_with_replacement(range(len(text) + 1), count - 1)
        ways = [
            [text[i:j].strip() for i, j in itertools.pairwise([0, *cut, len(text)])] for cut in cuts
        ]  # fmt: skip
        assert pieces in ways
        near = [sum(map(Levenshtein.distance, way, readings)) for way in ways]
        assert near[ways.index(pieces)] == min(near)


def test_lines_go_to_rows_before_anything_is_near() -> None:
    def unasked() -> list[str]:
        raise AssertionError("the lines tell")

    assert split_text("A b\nC", ["\n", "\n"], unasked) == ["A b", "C"]
    assert split_text("A\nB\nC", ["\n", " ", "\n"], unasked) == ["A", "B", "C"]
    assert split_text("A\nB", ["\n"], unasked) == ["A B"]
    assert split_text("", ["\n"], unasked) == [""]
    # Two lines are two rows, though the first would be nearer as a whole to the first part.
    assert split_text("ab\ncd", ["\n", " ", "\n"], lambda: ["a", "b", "x"]) == ["a", "b", "cd"]
    assert split_text("ab cd", ["\n", "\n"], lambda: ["abc", "d"]) == ["ab c", "d"]
    # As near either way: at the white space.
    assert split_text("ab cd", ["\n", "\n"], lambda: ["abxc", "cd"]) == ["ab", "cd"]


def test_combinations_are_those_of_brute_force() -> None:
    chance = random.Random(8)
    for _ in range(20):
        readings = [
            [Hypothesis(text, -chance.expovariate(1)) for text in ("a", "", "A", "ab")] for _ in range(3)
        ]  # fmt: skip
        best: dict[str, float] = {}
        for one, two, three in itertools.product(*readings):
            text = "/".join(part.text for part in (one, two, three) if part.text)
            form, logprob = text.lower(), one.logprob + two.logprob + three.logprob
            best[form] = max(best.get(form, -math.inf), logprob)
        # Wide enough that nothing is lost on the way.
        found = combine(readings, "/" * 3, 99, str.lower)
        wanted = sorted(best.items(), key=lambda item: -item[1])
        assert [h.text.lower() for h in found] == [text for text, _ in wanted]
        assert [h.logprob for h in found] == pytest.approx([logprob for _, logprob in wanted])
        assert combine(readings, "/" * 3, 2, str.lower)[0] == found[0]
    assert combine([], [], 3, str.lower) == [Hypothesis("", 0.0)]
