"""Chats and lists in cells: which texts are taken from jsonl and parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caprag.corpus import read_corpus, read_rows
from caprag.corpus.messages import texts_of
from caprag.errors import CorpusError

OPENAI = [
    [
        {"role": "system", "content": "規則"},
        {"role": "user", "content": "在嗎"},
        {"role": "assistant", "content": "在"},
    ],
    [{"role": "user", "content": "走吧"}, {"role": "assistant", "content": "好的"}],
]
SHAREGPT = [
    [
        {"from": {"system": "system", "user": "human", "assistant": "gpt"}[m["role"]], "value": m["content"]}
        for m in chat
    ]
    for chat in OPENAI
]


def write(path: Path, column: str, chats: list[Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(chats)), column: chats}), path, row_group_size=1)
    else:
        rows = (json.dumps({"id": i, column: chat}, ensure_ascii=False) for i, chat in enumerate(chats))
        path.write_text("\n".join(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(("column", "chats"), [("messages", OPENAI), ("conversations", SHAREGPT)])
@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (None, [(1, "規則"), (1, "在嗎"), (1, "在"), (2, "走吧"), (2, "好的")]),
        (["assistant"], [(1, "在"), (2, "好的")]),
        (["gpt"], [(1, "在"), (2, "好的")]),
        (["Human", "gpt"], [(1, "在嗎"), (1, "在"), (2, "走吧"), (2, "好的")]),
        (["tool"], []),
    ],
)
def test_roles(
    tmp_path: Path, suffix: str, column: str, chats: list[Any], roles: list[str] | None, expected: list[tuple[int, str]]
) -> None:
    path = write(tmp_path / f"對話{suffix}", column, chats)
    assert list(read_rows(path, roles=roles)) == expected
    assert list(read_rows(path, column, roles=roles)) == expected
    assert [(s.line, s.text) for s in read_corpus(path, roles=roles)] == expected


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_parts_and_calls_without_text(tmp_path: Path, suffix: str) -> None:
    parts = [{"type": "text", "text": "看"}, {"type": "image_url", "text": None}, {"type": "text", "text": "這張"}]
    path = write(tmp_path / f"a{suffix}", "messages", [[{"role": "user", "content": parts}]])
    assert list(read_rows(path)) == [(1, "看"), (1, "這張")]
    path = write(tmp_path / f"b{suffix}", "messages", [[{"role": "assistant", "content": None}], None])
    assert [item for _, item in read_rows(path) if isinstance(item, str)] == []


def test_image_parts_of_json() -> None:
    content = [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "好"}, "嗎"]
    assert list(texts_of({"role": "user", "content": content})) == ["好", "嗎"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_lists_of_strings(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"詩{suffix}", "lines", [["一", "二"], ["三"], []])
    assert list(read_rows(path, "lines")) == [(1, "一"), (1, "二"), (2, "三")]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_several_columns_in_the_order_asked_for(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    rows = [{"問": "在嗎", "答": "在"}, {"問": "走吧", "答": "好"}]
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == ".csv":
        path.write_text("問,答\n在嗎,在\n走吧,好\n", encoding="utf-8")
    else:
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    texts = [item for _, item in read_rows(path, ["答", "問"])]
    assert texts == ["在", "在嗎", "好", "走吧"]
    assert [item for _, item in read_rows(path, ["答"])] == ["在", "好"]
    wrong = []
    try:
        wrong = [item for _, item in read_rows(path, ["答", "沒有"])]
    except CorpusError as error:
        wrong = [error]
    assert all("has no column '沒有'" in str(error) for error in wrong)
    assert wrong


def test_text_or_chat_where_both_are_there(tmp_path: Path) -> None:
    row = {"messages": OPENAI[1], "text": "全文"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    assert list(read_rows(tmp_path / "a.jsonl")) == [(1, "全文")]
    assert list(read_rows(tmp_path / "a.jsonl", roles=["user"])) == [(1, "走吧")]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([{"role": "user"}], "an object of role is no message"),
        ([{"a": 1}], "an object of a is no message"),
        ([{}], "an object of nothing is no message"),
        ([{"role": "user", "content": 3}], "the text is a int"),
        ([[[1]]], "the text is a int"),
    ],
)
def test_what_is_no_message_is_named_by_its_line(tmp_path: Path, cell: object, message: str) -> None:
    rows = [json.dumps({"messages": OPENAI[1]}), json.dumps({"messages": cell})]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    found = list(read_rows(tmp_path / "a.jsonl"))
    assert [item for _, item in found[:2]] == ["走吧", "好的"]
    assert len(found) == 3
    assert str(found[2][1]).startswith(f"{tmp_path / 'a.jsonl'}, line 2: {message}")


def test_cells_nested_deeper_than_python_may_call() -> None:
    cell: object = "好"
    for _ in range(5000):
        cell = [cell]
    assert list(texts_of(cell)) == ["好"]
