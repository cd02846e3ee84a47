from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from caprag.errors import CorpusError
from caprag.evaluation.queries import Query, read_queries, resolve
from caprag.evaluation.trec import read_beir, read_qrels, read_run, write_qrels, write_run

words = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8)


@given(st.dictionaries(words, st.dictionaries(words, st.floats(allow_nan=False, width=32).filter(abs), max_size=4)))
def test_a_run_comes_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, run: dict[str, dict[str, float]]
) -> None:
    path = tmp_path_factory.mktemp("run") / "a.run"
    run = {q: {d: s for d, s in found.items() if abs(s) < 1e38} for q, found in run.items()}
    write_run(path, run)
    kept = {query: found for query, found in run.items() if found}
    if kept:
        assert read_run(path) == kept
        # trec_eval's own reader takes the same.
        with path.open(encoding="utf-8") as stream:
            assert pytrec_eval.parse_run(stream) == kept


def test_lists_are_written_in_their_order_and_judgements_as_they_are(tmp_path: Path) -> None:
    write_run(tmp_path / "a.run", {"q": ["z", "a", "m"]}, tag="mine")
    lines = (tmp_path / "a.run").read_text().splitlines()
    assert [line.split()[2:4] for line in lines] == [["z", "1"], ["a", "2"], ["m", "3"]]
    assert lines[0].split()[5] == "mine"
    run = read_run(tmp_path / "a.run")["q"]
    assert sorted(run, key=run.__getitem__, reverse=True) == ["z", "a", "m"]
    qrels = {"q": {"a": 1, "b": -1}, "p": {"中": 3}}
    write_qrels(tmp_path / "qrels", qrels)
    assert read_qrels(tmp_path / "qrels") == qrels
    with (tmp_path / "qrels").open(encoding="utf-8") as stream:
        assert pytrec_eval.parse_qrel(stream) == qrels


def test_gzipped_files_are_read_and_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    run = {"q": {"a": 1.5}}
    for name in ("a.run.gz", "b.run.gz"):
        write_run(tmp_path / name, run)
        assert read_run(tmp_path / name) == run
    assert (tmp_path / "a.run.gz").read_bytes() == (tmp_path / "b.run.gz").read_bytes()


@pytest.mark.parametrize("word", ["", "a b", "a\t", "\n"])
def test_an_id_that_would_part_a_line_is_not_written(tmp_path: Path, word: str) -> None:
    with pytest.raises(ValueError, match="white space"):
        write_run(tmp_path / "a", {"q": {word: 1.0}})
    with pytest.raises(ValueError, match="white space"):
        write_qrels(tmp_path / "a", {word: {"a": 1}})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "words_"),
    [
        ("q Q0 a 1 2.0 t\nq Q0 b 2 1.0\n", "line 2: has 5 fields"),
        ("q Q0 a 1 good t\n", "line 1: the score is 'good'"),
        ("q Q0 a 1 nan t\n", "line 1: the score is 'nan'"),
        ("\nq Q0 a 1 2 t\nq Q0 a 2 1 t\n", "line 3: query q has the document a again"),
        ("\n\n", "holds no result"),
    ],
)
def test_a_wrong_line_of_a_run_is_named(tmp_path: Path, content: str, words_: str) -> None:
    path = tmp_path / "排名.run"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=words_) as caught:
        read_run(path)
    assert "排名.run" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words_"),
    [
        ("q 0 a 1\nq 0 b\n", "line 2: has 3 fields"),
        ("q 0 a x\n", "line 1: the grade is 'x'"),
        ("q 0 a 1.0\n", "line 1: the grade is '1.0'"),
        ("q 0 a 1\nq 0 a 2\n", "line 2: query q judges the document a again"),
        ("", "holds no judgement"),
    ],
)
def test_a_wrong_line_of_judgements_is_named(tmp_path: Path, content: str, words_: str) -> None:
    (tmp_path / "q").write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=words_):
        read_qrels(tmp_path / "q")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"none\.run: can't be read"):
        read_run(tmp_path / "none.run")
    (tmp_path / "big5.run").write_bytes(b"q Q0 a 1 2 t\n" + "查 Q0 a 1 2 t\n".encode("big5"))
    with pytest.raises(CorpusError, match=r"big5\.run, line 1: is not UTF-8|big5\.run, line 2: is not UTF-8"):
        read_run(tmp_path / "big5.run")
    packed = gzip.compress(b"q Q0 a 1 2.0 t\n" * 500)
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(CorpusError, match="damaged gzip"):
        read_run(tmp_path / "cut.gz")
    (tmp_path / "no.gz").write_bytes(b"q Q0 a 1 2.0 t\n")
    with pytest.raises(CorpusError, match="damaged gzip"):
        read_run(tmp_path / "no.gz")


def write_beir(folder: Path, *, header: bool = True, packed: bool = False) -> Path:
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": "d1", "title": "書名", "text": "你好"},
        {"_id": "d2", "text": "再見"},
        {"_id": "d3", "title": "", "text": "謝謝"},
    ]
    queries = [{"_id": "7", "text": "妳好"}, {"_id": "8", "text": "沒人評過"}, {"_id": "9", "text": "謝了"}]
    rows = ["7\td1\t2", "9\td3\t1", "9\td2\t0"]
    files = {
        "corpus.jsonl": "".join(json.dumps(row) + "\n" for row in corpus),
        "queries.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in queries),
        "qrels/test.tsv": "\n".join(["query-id\tcorpus-id\tscore", *rows] if header else rows) + "\n",
    }
    for name, content in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
        else:
            (folder / name).write_text(content, encoding="utf-8")
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("header", [False, True])
def test_a_beir_folder_is_read(tmp_path: Path, header: bool, packed: bool) -> None:
    collection = read_beir(write_beir(tmp_path / "a", header=header, packed=packed))
    assert collection.queries == {"7": "妳好", "9": "謝了"}
    assert collection.qrels == {"7": {"d1": 2}, "9": {"d3": 1, "d2": 0}}
    assert list(collection.corpus()) == [("d1", "書名 你好"), ("d2", "再見"), ("d3", "謝謝")]


@pytest.mark.parametrize(
    ("name", "old", "new", "words_"),
    [
        ("qrels/test.tsv", "9\td2\t0", "9\td2", r"test\.tsv, line 4: wanted are query"),
        ("qrels/test.tsv", "9\td2\t0", "9\td3\t0", r"test\.tsv, line 4: query 9 judges the document d3 again"),
        ("qrels/test.tsv", "9\td2\t0", "1\td2\t0", r"queries\.jsonl: has no query '1'"),
        ("qrels/test.tsv", "9\td2\t0", "9\td4\t0", r"corpus\.jsonl: has no document 'd4'"),
        ("queries.jsonl", '"9"', '"7"', r"queries\.jsonl, line 3: the id '7' came before"),
        ("queries.jsonl", '"text": "謝了"', '"body": "謝了"', r"queries\.jsonl, line 3: has no text under 'text'"),
        ("corpus.jsonl", '"d2"', '"d1"', r"corpus\.jsonl, line 2: the id 'd1' came before"),
        ("corpus.jsonl", '{"_id": "d2"', '{"_id": 2', r"corpus\.jsonl, line 2: has no text under '_id'"),
        ("corpus.jsonl", '{"_id": "d2"', '["_id": "d2"', r"corpus\.jsonl, line 2: is no JSON"),
    ],
)
def test_what_is_wrong_in_a_beir_folder_is_named(tmp_path: Path, name: str, old: str, new: str, words_: str) -> None:
    folder = write_beir(tmp_path / "a")
    content = (folder / name).read_text(encoding="utf-8")
    assert old in content
    (folder / name).write_text(content.replace(old, new), encoding="utf-8")
    with pytest.raises(CorpusError, match=words_):
        list(read_beir(folder).corpus())


def test_a_split_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"dev\.tsv: no such file; a BEIR folder has"):
        read_beir(write_beir(tmp_path / "a"), "dev")


def test_queries_have_ids_or_texts_as_truth(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("妳在閒玩笑嗎\t0\n現在終于實現了\t12\n", encoding="utf-8")
    assert read_queries(tmp_path / "a.tsv") == [Query("妳在閒玩笑嗎", (0,), 1), Query("現在終于實現了", (12,), 2)]
    # One that is no number, and all are texts.
    (tmp_path / "b.tsv").write_text("二〇一二\t2012\n\n妳好\t你好\n", encoding="utf-8")
    assert read_queries(tmp_path / "b.tsv") == [Query("二〇一二", ("2012",), 1), Query("妳好", ("你好",), 3)]
    rows = [{"query": "一", "truth": "壹"}, {"query": "二", "truth": 2}, {"query": "三", "truth": [3, "參"]}]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    assert [query.truth for query in read_queries(tmp_path / "c.jsonl.gz")] == [("壹",), (2,), (3, "參")]


@pytest.mark.parametrize(
    ("name", "content", "words_"),
    [
        ("a.tsv", "甲\t乙\n丙\n", "line 2: has 1 fields; a line is query, tab, truth"),
        ("a.tsv", "甲\t乙\t丙\n", "line 1: has 3 fields"),
        ("a.jsonl", '{"query": "甲", "truth": "乙"}\n{"query": "甲"}\n', "line 2: has None under 'truth'"),
        ("a.jsonl", '{"query": "甲", "truth": []}\n', r"line 1: has \[\] under 'truth'"),
        ("a.jsonl", '{"query": "甲", "truth": true}\n', "line 1: has True under 'truth'"),
        ("a.jsonl", '{"reading": "甲", "truth": 1}\n', "line 1: has no text under 'query'"),
        ("a.jsonl", "甲\n", "line 1: is no JSON"),
        ("a.xml", "甲\t乙\n", "has the suffix '.xml'"),
        ("a.tsv", "\n", "holds no query"),
    ],
)
def test_a_wrong_query_is_named(tmp_path: Path, name: str, content: str, words_: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(CorpusError, match=words_):
        read_queries(tmp_path / name)


def test_reading_queries_goes_on_past_a_wrong_line(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("甲\n甲\t乙\n", encoding="utf-8")
    errors: list[CorpusError] = []
    assert [query.line for query in read_queries(tmp_path / "a.tsv", on_error=errors.append)] == [2]
    assert len(errors) == 1


def test_truths_are_found_by_their_matching_form() -> None:
    sentences = [(3, "妳好嗎?"), (5, "妳好吗"), (8, "再見"), (9, "…")]
    queries = [
        Query("a", ("妳好嗎",), 1), Query("b", (8,), 2), Query("c", ("不在",), 3), Query("d", (4,), 4),
        Query("e", ("…",), 5), Query("f", (8, "妳好嗎"), 6), Query("g", (8, "不在"), 7),
    ]  # fmt: skip
    left_out: list[tuple[str, int | str]] = []
    found = resolve(queries, iter(sentences), on_error=lambda query, truth: left_out.append((query.text, truth)))
    assert [(query.text, ids) for query, ids in found] == [("a", (3, 5)), ("b", (8,)), ("f", (3, 5, 8))]
    assert left_out == [("c", "不在"), ("d", 4), ("e", "…"), ("g", "不在")]
