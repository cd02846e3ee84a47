from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
from PIL import Image

import caprag
from caprag.types import Embedder, Hypothesis

SENTENCES = ["妳在開玩笑嗎", "不會持續太久的", "昨天還很喜歡 今天就膩了", "因為再也沒有這種機會了嘛", "現在終於實現了"]


class Labels:
    """A recognizer that reads a picture's colour: real behaviour to hang laws on, no stand-in for one of ours."""

    def __init__(self, readings: dict[int, list[tuple[str, float]]]) -> None:
        self.readings = readings

    def recognize_batch(self, images: Sequence[Image.Image], n_best: int = 1) -> list[list[Hypothesis]]:
        return [[Hypothesis(*r) for r in self._of(image)[:n_best]] for image in images]

    def score_batch(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        tables = [dict(self._of(image)) for image in images]
        return [[table.get(t, -math.inf) for t in row] for table, row in zip(tables, texts, strict=True)]

    def _of(self, image: Image.Image) -> list[tuple[str, float]]:
        value = image.getpixel((0, 0))
        return self.readings[value[0] if isinstance(value, tuple) else 0]


@pytest.fixture(scope="module")
def index(tiny_embedder: Embedder) -> caprag.Index:
    return caprag.Index.build(SENTENCES, tiny_embedder)


def picture(red: int) -> Image.Image:
    return Image.new("RGB", (8, 8), (red, 0, 0))


@pytest.fixture
def pipeline(index: caprag.Index) -> caprag.Pipeline:
    readings = {
        1: [("妳在閒玩笑嗎", -0.5), ("妳在開玩笑嗎", -1.5)],
        2: [("完全不相干的另外一句", -0.01)],
        3: [("", -0.2)],
        4: [("現在終於實現了", -0.1)],
    }
    return caprag.Pipeline(index, recognizer=Labels(readings), batch_size=2)


def same(some: Sequence[caprag.Caption], others: Sequence[caprag.Caption]) -> bool:
    """Vectors of a batch differ from those of singles in the last bits; nothing else may."""

    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one.evidence == pytest.approx(other.evidence, abs=1e-5)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
    return [(c.text, c.hit and c.hit.id, c.hypotheses) for c in some] == [
        (c.text, c.hit and c.hit.id, c.hypotheses) for c in others
    ]


def test_batch_equals_singles(pipeline: caprag.Pipeline) -> None:
    frames = [picture(red) for red in (1, 2, 3, 4, 1)]
    assert same(pipeline.read_batch(frames), [pipeline.read(frame) for frame in frames])


def test_snapping_a_batch_equals_singles(pipeline: caprag.Pipeline) -> None:
    readings = ["妳在閒玩笑嗎", "", "!?", "完全不相干的另外一句", "不會持續太久的"]
    assert same(pipeline.snap(readings), [pipeline.snap([reading])[0] for reading in readings])


def test_the_outcomes(pipeline: caprag.Pipeline) -> None:
    mended, kept, empty, exact = pipeline.read_batch([picture(red) for red in (1, 2, 3, 4)])
    assert mended.hit is not None
    assert mended.text == "妳在開玩笑嗎"
    assert mended.evidence["margin"] == pytest.approx(-1.0)
    assert mended.evidence["doubt"] == 0.5
    assert (kept.text, kept.hit) == ("完全不相干的另外一句", None)
    assert (empty.text, empty.hit) == ("", None)
    assert empty.confidence == pytest.approx(math.exp(-0.2))
    assert exact.hit is not None
    assert exact.hit.id == 4
    assert all(0 <= c.confidence <= 1 for c in (mended, kept, empty, exact))


def test_a_kept_reading_is_kept_to_the_letter(pipeline: caprag.Pipeline) -> None:
    reading = "　ＯＫ　這句話　誰也沒說過！！"
    (caption,) = pipeline.snap([reading])
    assert caption.hit is None
    assert caption.text == reading


def test_without_an_index_every_reading_is_kept() -> None:
    pipeline = caprag.Pipeline(None, recognizer=Labels({1: [("妳在閒玩笑嗎", -0.5)]}))
    caption = pipeline.read(picture(1))
    assert (caption.text, caption.hit, caption.evidence) == ("妳在閒玩笑嗎", None, {})
    assert caption.confidence == pytest.approx(math.exp(-0.5))


def test_hits_of_several_hypotheses_come_together_once(pipeline: caprag.Pipeline) -> None:
    (hits,) = pipeline.find([[Hypothesis("妳在閒玩笑嗎"), Hypothesis("妳在開玩笑嗎")]])
    assert sorted(hit.id for hit in hits) == list(range(len(SENTENCES)))
    # The first hypothesis found it first: its scores count.
    assert next(hit for hit in hits if hit.id == 0).edit < 1


def test_a_picture_judges_letters_not_marks(tiny_embedder: Embedder) -> None:
    """How the corpus writes marks is nothing that a picture refuses; the reading's stand in either."""
    index = caprag.Index.build(["〝他來了嗎⋯〞", "她走了"], tiny_embedder)
    readings = {1: [("他來了馬?", -0.5), ("他來了嗎?", -1.5)]}
    pipeline = caprag.Pipeline(index, recognizer=Labels(readings), in_order=False)
    (found,) = pipeline.found_in([picture(1)])
    assert dict(zip([hit.text for hit in found.hits], found.margins or [], strict=True))["〝他來了嗎⋯〞"] == -1.0


@pytest.mark.parametrize("name", ["n_best", "k", "batch_size"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        caprag.Pipeline(None, **{name: 0})  # type: ignore[arg-type]


def test_a_script_in_order_is_snapped_as_a_stream_is(tiny_embedder: Embedder) -> None:
    """Whole, one by one and taken up in the middle are the same; what two lines fit alike is never the wrong one."""
    rng = random.Random(0)
    script = ["".join(rng.sample("天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏", 6)) for _ in range(150)]
    # Two lines of the script alike but for one character, far apart, and what both are misread as.
    script[20], script[120] = "他昨天來過了嗎", "他昨晚來過了嗎"
    index = caprag.Index.build(script, tiny_embedder)
    read = [text if place % 3 else text[:2] + "口" + text[3:] for place, text in enumerate(script)]
    read[20] = read[120] = "他昨口來過了嗎"
    pipeline = caprag.Pipeline(index, recognizer=Labels({}))
    whole = pipeline.snap(read)
    right = [caption.text == text for caption, text in zip(whole, script, strict=True)]
    assert sum(right) >= 148  # all but what two lines fit alike
    assert all(good or caption.hit is None for good, caption in zip(right, whole, strict=True))
    assert sum(caption.evidence.get("story", 0.0) > 5 for caption in whole) > 140
    assert same(list(pipeline.snap_stream(iter(read))), whole)
    first = pipeline.heard_from(110)
    assert 0 < first <= 110 - 64
    assert same(pipeline.snap(read[first:])[110 - first :], whole[110:])
    alone = caprag.Pipeline(index, recognizer=Labels({}), in_order=False)
    assert alone.heard_from(110) == 110
    answers = {alone.snap([read[20]])[0].text, alone.snap(read)[20].text, alone.snap(read)[120].text}
    assert len(answers) == 1


def test_captions_of_another_programme_are_left_alone(tiny_embedder: Embedder) -> None:
    index = caprag.Index.build([f"這是第{number}個完全不同的句子" for number in range(50)], tiny_embedder)
    read = [f"這是第{number}集完全不同的故事" for number in range(100, 140)]
    captions = caprag.Pipeline(index, recognizer=Labels({})).snap(read)
    assert [caption.text for caption in captions] == read


def test_sentences_can_be_passed_over_as_if_the_corpus_lacked_them(tiny_embedder: Embedder) -> None:
    rng = random.Random(3)
    script = ["".join(rng.sample("天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏", 6)) for _ in range(60)]
    others = ["".join(rng.sample("天地玄黃宇宙洪荒日月盈昃辰宿列張寒來暑往秋收冬藏", 6)) for _ in range(300)]
    read = [text[:2] + "口" + text[3:] for text in script] + [script[4] + script[5]]
    whole = caprag.Pipeline(caprag.Index.build([*script, *others], tiny_embedder), recognizer=Labels({}))
    lacking = caprag.Pipeline(caprag.Index.build(others, tiny_embedder), recognizer=Labels({}))
    left, wanted = list(whole.found_for(read, without=frozenset(script))), list(lacking.found_for(read))
    nearest = [[max(hit.edit for hit in one.hits) for one in found] for found in (left, wanted)]
    assert sum(a == b for a, b in zip(*nearest, strict=True)) > 50  # but for what the searches pass on
    assert not any(hit.text in script for one in left for hit in one.hits)
    both = f"{script[4]} {script[5]}"
    assert both in [hit.text for hit in next(whole.found_for([read[-1]])).hits]
    for gone in (script[4], script[4] + script[5]):
        assert both not in [hit.text for hit in next(whole.found_for([read[-1]], without={gone})).hits]
    halves = [script[9][:3], script[9][3:]]
    for one, half in zip(whole.found_for(halves), halves, strict=True):
        assert half in [hit.text for hit in one.hits]
    for one, half in zip(whole.found_for(halves, without=set(halves)), halves, strict=True):
        assert half not in [hit.text for hit in one.hits]


def test_a_risk_that_nobody_can_vouch_for_is_refused(index: caprag.Index) -> None:
    with pytest.raises(ValueError, match="lines can vouch for"):
        caprag.Pipeline(index, risk=1e-9)
    careful, bold = (caprag.Pipeline(index, risk=risk).reranker.picture for risk in (0.001, 0.05))
    assert careful is not None
    assert bold is not None
    assert careful.threshold > bold.threshold >= 0.5
