"""Equal and nearly equal pieces, against the plain way of finding them."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from caprag.corpus import deduplication, near
from caprag.corpus.chunks import process_chunk
from caprag.corpus.cleaning import CaptionRules
from caprag.corpus.deduplication import DUPLICATE, KEPT, VARIANT, find_duplicates
from caprag.corpus.forms import duplicate_forms
from caprag.corpus.near import find_near, near_pairs
from caprag.text import match_form, match_forms, normalize

LINES = [
    "你好嗎小明",
    "你好嗎小明!",
    "你好吗小明",
    "今天天氣很好",
    "今天天氣很好",
    "今天天氣, 很好",
    "OK走吧你們",
    "ok走吧你們",
    "裡面有什麼",
    "裏面有什麼",
]


def fingerprints(lines: Sequence[str]) -> io.BytesIO:
    result = process_chunk([(0, i, line) for i, line in enumerate(lines, 1)], CaptionRules(min_chars=1))
    assert result.texts.decode().split("\n")[:-1] == list(lines)
    return io.BytesIO(result.fingerprints.tobytes())


def plain(lines: Sequence[str]) -> list[int]:
    """The same with sets of strings."""
    texts: set[str] = set()
    forms: set[str] = set()
    found = []
    for line in lines:
        found.append(DUPLICATE if line in texts else VARIANT if match_form(line) in forms else KEPT)
        texts.add(line)
        forms.add(match_form(line))
    return found


@pytest.fixture(params=[(1 << 18, 1 << 16), (7, 3), (50, 1), (1, 10)])
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many small parts and blocks, as a huge corpus has them."""
    monkeypatch.setattr(deduplication, "_PART", request.param[0])
    monkeypatch.setattr(deduplication, "_BLOCK", request.param[1])


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("count", [0, 1, 2, 10, 300])
def test_equals_the_plain_way(count: int) -> None:
    generator = random.Random(count)
    lines = generator.choices(LINES, k=count // 2) + [
        "".join(generator.choices("你妳好裡裏aA", k=3)) for _ in range(count - count // 2)
    ]
    generator.shuffle(lines)
    assert find_duplicates(fingerprints(lines), count).tolist() == plain(lines)


@pytest.mark.usefixtures("sizes")
def test_one_line_over_and_over() -> None:
    lines = ["今天天氣很好"] * 200
    assert find_duplicates(fingerprints(lines), 200).tolist() == [KEPT] + [DUPLICATE] * 199


def test_forms_of_many_are_the_forms_of_each() -> None:
    assert match_forms(LINES) == [match_form(line) for line in LINES]


@given(st.lists(st.text(st.sampled_from("aΣσİ好\u0301가\n ,!裡½\ud800"), max_size=6) | st.text(max_size=8), max_size=6))
def test_forms_of_any_texts_are_the_forms_of_each(texts: list[str]) -> None:
    assert match_forms(texts) == [match_form(text) for text in texts]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("價格3.5元整", "價格35元整"),
        ("12:30見面吧", "1230見面吧"),
        ("-5度", "5度"),
        ("氣溫-5度", "氣溫+5度"),
        ("a+b", "a-b"),
        ("a+b", "ab"),
        ("a=b", "ab"),
        ("7-11很近", "711很近"),
        ("3、4個人", "34個人"),
        ("3 4個人", "34個人"),
        ("50%的人", "50的人"),
        ("$5很貴", "5很貴"),
        ("C++很難", "C很難"),
        ("1.23度", "12.3度"),
    ],
)
def test_signs_and_points_tell_pieces_apart(first: str, second: str) -> None:
    assert find_duplicates(fingerprints([first, second]), 2).tolist() == [KEPT, KEPT]
    assert match_form(first) == match_form(second) or "+" in first


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("你好嗎?", "你好吗!"),
        ("你好,再見", "你好 再見"),
        ("a + b很好", "A+B很好"),
        ("1,000元", "1000元"),
        ("3×4很好", "3*4很好"),
        ("《書名》很好", "書名很好"),
        ("OK-走吧", "OK走吧"),
        ("U.S.很大", "US很大"),
        ("-你好", "你好"),
    ],
)
def test_marks_that_say_nothing_do_not(first: str, second: str) -> None:
    assert duplicate_forms([first, second]) == [duplicate_forms([first])[0]] * 2


@given(
    st.lists(st.text(st.sampled_from("aB好裡1 .:,-+%"), min_size=1, max_size=8).map(normalize).filter(bool), max_size=6)
)
def test_forms_have_the_matching_forms_letters(texts: list[str]) -> None:
    found = duplicate_forms(texts)
    assert ["".join(filter(str.isalnum, form)) for form in found] == [match_form(text) for text in texts]
    assert found == [duplicate_forms([text])[0] for text in texts]


# --- nearly equal -------------------------------------------------------------------------------------------------


def packed(forms: Sequence[str]) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    codes = np.frombuffer("".join(forms).encode("utf-32-le"), np.uint32)
    return codes, np.concatenate([[0], np.cumsum([len(form) for form in forms])]).astype(np.int64)


def plain_near(forms: Sequence[str], ids: Sequence[int], least: float) -> list[int]:
    """Compare each with all that are kept before it."""
    kept: list[int] = []
    dropped = []
    for i in ids:
        a = forms[i]
        if any(Levenshtein.distance(a, forms[j]) <= (1 - least) * max(len(a), len(forms[j])) + 1e-9 for j in kept):
            dropped.append(i)
        else:
            kept.append(i)
    return dropped


@pytest.mark.parametrize("least", [0.7, 0.75, 0.8, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("letters", ["ab", "abcdefgh"])
def test_near_equals_the_plain_way(least: float, letters: str) -> None:
    generator = random.Random(int(least * 100))
    forms = []
    for _ in range(60):
        seed = generator.choices(letters, k=generator.randint(1, 24))
        for _ in range(generator.randint(1, 4)):
            form = list(seed)
            for _ in range(generator.randint(0, 3)):
                place = generator.randrange(len(form) + 1)
                form[place : place + generator.randint(0, 1)] = generator.choices(letters, k=generator.randint(0, 1))
            forms.append("".join(form))
    generator.shuffle(forms)
    forms = list(dict.fromkeys(filter(None, forms)))
    ids = [i for i in range(len(forms)) if i % 10]
    found = find_near(*packed(forms), np.array(ids), least)
    assert found.tolist() == plain_near(forms, ids, least)
    assert bool(len(found)) == (least < 1)


@given(st.lists(st.text("你我他", min_size=1, max_size=12), max_size=15, unique=True), st.sampled_from([0.7, 0.8, 0.9]))
def test_near_equals_the_plain_way_on_any_forms(forms: list[str], least: float) -> None:
    ids = list(range(len(forms)))
    assert find_near(*packed(forms), np.array(ids, np.int64), least).tolist() == plain_near(forms, ids, least)


def test_pairs_in_small_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(0)
    forms = list(dict.fromkeys("".join(generator.choices("你我", k=10)) for _ in range(300)))
    whole = find_near(*packed(forms), np.arange(len(forms)), 0.8)
    monkeypatch.setattr(near, "_PAIRS_AT_A_TIME", 7)
    assert find_near(*packed(forms), np.arange(len(forms)), 0.8).tolist() == whole.tolist()


@pytest.mark.parametrize("wrong", [0.0, 0.69, 1.01, -1.0, float("nan")])
def test_similarities_that_are_not_on_offer(wrong: float) -> None:
    with pytest.raises(ValueError, match=r"near is .*between 0\.7 and 1"):
        find_near(*packed(["a"]), np.arange(1), wrong)


@pytest.mark.parametrize("least", [0.75, 0.8, 0.9])
def test_near_in_halves_equals_the_plain_way(least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with lines made from one template: too many pairs to keep."""
    generator = random.Random(2)
    forms = [f"這是我們的故事第{i}集" for i in generator.sample(range(10_000), 150)]
    forms += ["".join(generator.choices("你我他", k=generator.randint(4, 9))) for _ in range(150)]
    forms = list(dict.fromkeys(forms))
    generator.shuffle(forms)
    monkeypatch.setattr(near, "_MANY_EACH", 0)
    monkeypatch.setattr(near, "_MANY", 20)
    monkeypatch.setattr(near, "_PAIRS_AT_A_TIME", 50)
    told: list[int] = []
    found = find_near(*packed(forms), np.arange(len(forms)), least, told.append)
    assert found.tolist() == plain_near(forms, range(len(forms)), least)
    assert sum(told) == len(forms)


@pytest.mark.parametrize("labelled", [False, True])
def test_near_pairs_are_all_there_are(labelled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "_PAIRS_AT_A_TIME", 50)
    generator = random.Random(3)
    forms = list(dict.fromkeys("".join(generator.choices("你我", k=generator.randint(1, 11))) for _ in range(300)))
    labels = np.array([generator.randrange(3) for _ in forms])
    blocks = near_pairs(*packed(forms), np.arange(len(forms)), 0.8, labels if labelled else None)
    wanted = {
        (i, j)
        for j in range(len(forms))
        for i in range(j)
        if Levenshtein.normalized_similarity(forms[i], forms[j]) >= 0.8 - 1e-9
        and not (labelled and labels[i] == labels[j])
    }
    assert {tuple(pair) for block in blocks for pair in block.T.tolist()} == wanted
    assert len(wanted) > 100


def test_many_lines_of_one_template_are_not_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pairs would be eighteen millions."""
    forms = [f"本節目由好朋友電視台獨家贊助播出第{i:04d}集謝謝大家的收看" for i in range(6000)]
    compared = 0
    measure = near._within

    def counting(left: npt.NDArray[np.uint32], right: npt.NDArray[np.uint32], edits: int) -> npt.NDArray[np.bool_]:
        nonlocal compared
        compared += len(left)
        return measure(left, right, edits)

    monkeypatch.setattr(near, "_within", counting)
    assert find_near(*packed(forms), np.arange(6000), 0.8).tolist() == list(range(1, 6000))
    assert compared < 200 * len(forms)
