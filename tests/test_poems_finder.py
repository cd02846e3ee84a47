"""Finding verses: against the index's own rankings, with a recognizer that answers as told and with a real one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny_models
from PIL import Image
from test_cross_encoder import save_tiny_cross_encoder

from caprag import Index, load_recognizer
from caprag.poems import Poem, PoemFinder, Verse, VersePair, make_verses
from caprag.poems.finder import PROMPT, Description, parse_reply
from caprag.reranking.cross_encoder import CrossEncoderScorer, load_cross_encoder
from caprag.retrieval.embedder import SentenceEmbedder
from caprag.types import Hypothesis, Recognizer

POEMS: list[Poem | VersePair] = [
    Poem("靜夜思", "李白", ("床前明月光，疑是地上霜。", "舉頭望明月，低頭思故鄉。")),
    Poem("春曉", "孟浩然", ("春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少。")),
    Poem("登鸛雀樓", "王之渙", ("白日依山盡，黃河入海流。", "欲窮千里目，更上一層樓。")),
    VersePair("床前灑滿了月光", "床前明月光"),
    VersePair("抬頭看那輪圓月", "舉頭望明月"),
    VersePair("太陽靠著山落下去", "白日依山盡"),
    VersePair("到處聽見鳥叫", "處處聞啼鳥"),
]


class Says:
    """A recognizer that answers each picture as told, by the picture's width."""

    def __init__(self, *replies: str) -> None:
        self.replies = replies

    def recognize_batch(self, images: Sequence[Image.Image], n_best: int = 1) -> list[list[Hypothesis]]:
        return [[Hypothesis(self.replies[image.width - 1], -1.0)] for image in images]

    def score_batch(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        return [[0.0] * len(several) for several in texts]


def picture(number: int) -> Image.Image:
    return Image.new("RGB", (number + 1, 1))


@pytest.fixture(scope="module")
def index(tiny_embedder: SentenceEmbedder) -> Index:
    return Index.build(make_verses(POEMS, unit="clause")[0], tiny_embedder)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> CrossEncoderScorer:
    return load_cross_encoder(save_tiny_cross_encoder(tmp_path_factory.mktemp("cross") / "encoder"), device="cpu")


# --- replies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "text", "line"),
    [
        ("月光照在床前。\n詩：床前明月光", "月光照在床前。", "床前明月光"),
        ("月光照在床前。\n\n**詩句**：「床前明月光，疑是地上霜。」", "月光照在床前。", "床前明月光,疑是地上霜。"),
        ("诗: 《床前明月光》\n一張床", "一張床", "床前明月光"),
        ("A bed in moonlight.\nVerse: 床前明月光", "A bed in moonlight.", "床前明月光"),
        ("這首詩很美：月光", "這首詩很美:月光", ""),
        ("a bed in moonlight", "a bed in moonlight", ""),
        ("詩：", "詩:", ""),
        ("", "", ""),
    ],
)
def test_replies_are_taken_apart(reply: str, text: str, line: str) -> None:
    assert parse_reply(reply) == Description(text, line)


# --- words --------------------------------------------------------------------------------------------------------


def test_the_translation_answers_with_the_verse_and_its_poem(index: Index) -> None:
    (best, *_) = PoemFinder(index).find("床前灑滿了月光")
    assert (best.text, best.title, best.author, best.line) == ("床前明月光", "靜夜思", "李白", 1)
    assert best.origins == ("words",)
    assert best.known
    assert best.id is not None
    assert index[best.id].text == best.text


def test_without_a_cross_encoder_the_order_is_the_index_s(index: Index) -> None:
    queries = ["到處聽見鳥叫", "月亮", "想家"]
    ranked = index.search_batch(queries, 50, by="meaning")
    for verses, hits in zip(PoemFinder(index).find_batch(queries, k=50), ranked, strict=True):
        assert [verse.id for verse in verses] == [hit.id for hit in hits]
        assert [verse.score for verse in verses] == pytest.approx([1 / (60 + i + 1) for i in range(len(hits))])


def test_a_batch_equals_its_singles(index: Index, scorer: CrossEncoderScorer) -> None:
    texts = ["月亮", None, "想家", None]
    images = [None, picture(0), picture(1), picture(1)]
    finder = PoemFinder(index, Says("一輪明月\n詩：舉頭望明月", "有人站在樓上"), scorer)
    together = finder.find_batch(texts, images, k=4)
    for text, image, verses in zip(texts, images, together, strict=True):
        alone = finder.find(text, image, k=4)
        assert [(v.text, v.origins, v.id) for v in alone] == [(v.text, v.origins, v.id) for v in verses]
        assert [v.score for v in alone] == pytest.approx([v.score for v in verses], abs=1e-5)


def test_words_without_a_letter_find_nothing(index: Index) -> None:
    assert PoemFinder(index).find("？！") == []


# --- pictures -----------------------------------------------------------------------------------------------------


def test_words_and_description_are_searched_alone_and_together(index: Index) -> None:
    (found,) = PoemFinder(index, Says("床前灑滿了月光")).find_batch(["到處聽見鳥叫"], [picture(0)], k=50)
    searches = ["到處聽見鳥叫", "床前灑滿了月光", "到處聽見鳥叫\n床前灑滿了月光"]
    ranks = [{hit.id: i for i, hit in enumerate(hits, 1)} for hits in index.search_batch(searches, 50, by="meaning")]
    for verse in found:
        assert verse.id is not None
        assert verse.score == pytest.approx(sum(1 / (60 + r[verse.id]) for r in ranks if verse.id in r))
        alone = {name for name, r in zip(("words", "description"), ranks, strict=False) if verse.id in r}
        assert set(verse.origins) == (alone or {"words", "description"})
    assert [verse.score for verse in found] == sorted((verse.score for verse in found), reverse=True)


def of_line(verses: list[Verse]) -> list[Verse]:
    return [verse for verse in verses if "line" in verse.origins]


def test_a_line_that_is_known_is_tagged_and_keeps_its_poem(index: Index) -> None:
    # In other characters, and as a couplet where the index has clauses.
    verses = PoemFinder(index, Says("晚上\n诗：举头望明月，低头思故乡。")).find(None, picture(0), k=50)
    lines = of_line(verses)
    assert {verse.text for verse in lines} == {"舉頭望明月", "低頭思故鄉"}
    assert all(verse.known and verse.title == "靜夜思" for verse in lines)
    # Each text comes once, with all that it came from.
    assert len({verse.text for verse in verses}) == len(verses)
    assert any(set(verse.origins) == {"description", "line"} for verse in lines)


def test_a_line_that_is_made_up_is_tagged_as_unknown(index: Index) -> None:
    lines = of_line(PoemFinder(index, Says("晚上\n詩：清風徐來滿袖香")).find(None, picture(0), k=50))
    assert [(verse.text, verse.known, verse.id, verse.title) for verse in lines] == [
        ("清風徐來滿袖香", False, None, "")
    ]


def test_a_line_that_is_misquoted_brings_the_real_one(index: Index) -> None:
    lines = of_line(PoemFinder(index, Says("晚上\n詩：窗前明月光")).find(None, picture(0), k=50))
    assert {(verse.text, verse.known) for verse in lines} == {("床前明月光", True), ("窗前明月光", False)}


def test_a_real_model_goes_all_the_way(index: Index, tmp_path: Path) -> None:
    """What a random model says makes no sense; that it is asked, read and looked up is all that counts."""
    reader = load_recognizer(
        str(tiny_models.llava(tmp_path / "llava")), device="cpu", prompt=PROMPT, max_new_tokens=12, batch_size=2
    )
    assert isinstance(reader, Recognizer)
    finder = PoemFinder(index, reader)
    images = tiny_models.pictures(3)
    said = finder.describe(images)
    assert said == [parse_reply(read[0].text) for read in reader.recognize_batch(images)]
    assert finder.find_batch([None] * 3, images) == finder.find_described([None] * 3, said)


# --- the cross-encoder --------------------------------------------------------------------------------------------


def test_the_cross_encoder_puts_all_candidates_in_order(index: Index, scorer: CrossEncoderScorer) -> None:
    finder = PoemFinder(index, Says("一輪明月\n詩：清風徐來滿袖香"), scorer)
    verses = finder.find("想家", picture(0), k=50)
    plain = PoemFinder(index, Says("一輪明月\n詩：清風徐來滿袖香")).find("想家", picture(0), k=50)
    assert {verse.text for verse in verses} == {verse.text for verse in plain}
    expected = scorer.score([("想家\n一輪明月", verse.text) for verse in verses])
    assert [verse.score for verse in verses] == pytest.approx(expected.tolist(), abs=1e-5)
    assert list(expected) == sorted(expected, reverse=True)
    assert [verse.text for verse in verses] != [verse.text for verse in plain]


# --- wrong use ----------------------------------------------------------------------------------------------------


def test_wrong_use_is_named(index: Index) -> None:
    finder = PoemFinder(index)
    with pytest.raises(ValueError, match="neither text nor image"):
        finder.find()
    with pytest.raises(ValueError, match="no recognizer"):
        finder.find("月亮", picture(0))
    with pytest.raises(ValueError, match="k is 0"):
        finder.find("月亮", k=0)
    with pytest.raises(ValueError, match="2 texts and 1 images"):
        finder.find_batch(["月亮", "想家"], [None])
    with pytest.raises(ValueError, match="2 texts and 1 descriptions"):
        finder.find_described(["月亮", "想家"], [None])
    with pytest.raises(TypeError, match="月亮"):
        finder.find_batch("月亮")
    with pytest.raises(ValueError, match="candidates is 0"):
        PoemFinder(index, candidates=0)
