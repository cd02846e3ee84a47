"""The shipped index, frames and weights together: what a new user sees first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

import caprag
from caprag.reranking import Reranker
from caprag.text import countable
from caprag.types import Hypothesis

DEMO = Path(__file__).resolve().parent.parent / "indexes/demo"
TRUTH = dict(line.split("\t") for line in (DEMO / "frames/captions.tsv").read_text(encoding="utf-8").splitlines())


READERS = {"caprag": 1, "rapidocr": 3}
"""What reads the frames, and how many of them it reads wrongly at the least."""


@pytest.fixture(scope="module", params=READERS)
def reader(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def captions(reader: str) -> dict[str, caprag.Caption]:
    pipeline = caprag.Pipeline.load(DEMO, recognizer=reader)
    return dict(zip(TRUTH, pipeline.read_batch([DEMO / "frames" / name for name in TRUTH]), strict=True))


@pytest.mark.parametrize("name", TRUTH)
def test_every_frame_is_answered_rightly(captions: dict[str, caprag.Caption], name: str) -> None:
    assert countable(captions[name].text) == countable(TRUTH[name])


def test_some_readings_are_wrong_and_mended(captions: dict[str, caprag.Caption], reader: str) -> None:
    mended = [
        name
        for name, caption in captions.items()
        if caption.hit is not None and countable(caption.hypotheses[0].text) != countable(TRUTH[name])
    ]
    assert len(mended) >= READERS[reader]


def test_what_is_not_in_the_corpus_is_kept(captions: dict[str, caprag.Caption]) -> None:
    kept = [name for name, caption in captions.items() if caption.text and caption.hit is None]
    assert kept == ["10-unknown.jpg"]
    two = captions["06-two-lines.jpg"].hit
    assert two is not None
    assert two.behind is not None


def test_the_index_holds_the_corpus_in_story_order() -> None:
    index = caprag.Index.load(DEMO)
    sentences = list(caprag.read_corpus(DEMO / "corpus"))
    assert [index[i].text for i in index] == [sentence.text for sentence in sentences]
    assert len(index) >= 3000


@pytest.fixture(scope="module")
def programmes() -> Sequence[Path]:
    return sorted((DEMO / "corpus").glob("*.txt"))


def test_the_corpus_is_in_traditional_characters(programmes: Sequence[Path]) -> None:
    assert len(programmes) == 4
    for path in programmes:
        path.read_text(encoding="utf-8").encode("cp950")


@pytest.mark.parametrize("logprob", [0.0, -1.0, -3.0, -10.0, -20.0, -math.inf])
@pytest.mark.parametrize(
    "reading", ["月亮今天請假沒有來", "完全不相干的另外一句", "你颗不顾意跟我一起道情", "社交方武發生了變化"]
)
def test_a_doubtful_reader_is_no_reason_to_snap_to_something_else(reading: str, logprob: float) -> None:
    """Whatever the reader thinks of its reading: where no sentence is near, none is the answer."""
    index = caprag.Index.load(DEMO)
    near = {"你颗不顾意跟我一起道情": "妳願不願意跟我一起還債"}.get(reading)
    hits = [hit for hit in index.search(reading) if hit.text != near]
    margins = [-25.0] * len(hits)
    read = (Hypothesis(reading, logprob),)
    (caption,) = Reranker.load().rerank_batch([read], [hits], index.frequency, [margins])
    assert caption.hit is None
    assert caption.text == reading
