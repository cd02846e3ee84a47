"""The table of sentences against a plain dictionary that goes through the same changes."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from caprag.retrieval.sentences import SentenceTable
from caprag.types import Sentence


def same(table: SentenceTable, expected: dict[int, Sentence]) -> bool:
    return (
        len(table) == len(expected)
        and list(table) == sorted(expected)
        and {number: table[number] for number in table} == expected
        and all(table.text(number) == sentence.text for number, sentence in expected.items())
        and all((number in table) == (number in expected) for number in range(-2, table.next_id + 2))
    )


def test_any_sequence_of_changes_agrees_with_a_dictionary(tmp_path: Path) -> None:
    generator = random.Random(0)
    table, expected = SentenceTable(), dict[int, Sentence]()
    for step in range(60):
        action = generator.random()
        if action < 0.5:
            fresh = [Sentence(f"句{step}-{i}", f"檔{step % 3}.txt", i) for i in range(generator.randint(0, 9))]
            ids = table.add(fresh)
            assert ids == list(range(table.next_id - len(fresh), table.next_id))
            assert not set(ids) & expected.keys()
            expected.update(zip(ids, fresh, strict=True))
        elif action < 0.8:
            gone = generator.sample(sorted(expected), min(len(expected), 3))
            table.remove([*gone, *gone])
            for number in gone:
                del expected[number]
        else:
            table.save(tmp_path / f"{step}.arrow")
            table = SentenceTable(tmp_path / f"{step}.arrow", table.next_id)
        assert same(table, expected)


def test_ids_are_never_used_twice(tmp_path: Path) -> None:
    table = SentenceTable()
    table.remove(table.add([Sentence("一"), Sentence("二")]))
    assert table.add([Sentence("三")]) == [2]
    table.save(tmp_path / "a.arrow")
    opened = SentenceTable(tmp_path / "a.arrow", table.next_id)
    opened.remove([2])
    assert opened.add([Sentence("四")]) == [3]
    with pytest.raises(KeyError):
        opened[2]
    with pytest.raises(KeyError):
        opened.text(0)


def test_removing_what_is_not_there_removes_nothing() -> None:
    table = SentenceTable()
    table.add([Sentence("一"), Sentence("二")])
    with pytest.raises(KeyError):
        table.remove([0, 7])
    with pytest.raises(KeyError):
        table.remove([-1])
    assert list(table) == [0, 1]


def test_an_empty_table_and_odd_texts_survive_a_save(tmp_path: Path) -> None:
    SentenceTable().save(tmp_path / "empty.arrow")
    assert list(SentenceTable(tmp_path / "empty.arrow")) == []
    table = SentenceTable()
    odd = [Sentence("長" * 5000, "來源 檔.srt", 2**31 - 1), Sentence("𠮷\n野"), Sentence("a", "", 0)]
    table.add(odd)
    table.save(tmp_path / "odd.arrow")
    opened = SentenceTable(tmp_path / "odd.arrow", 3)
    assert [opened[i] for i in opened] == odd


def test_more_rows_than_a_chunk(tmp_path: Path) -> None:
    table = SentenceTable()
    table.add([Sentence(str(i), f"{i % 7}", i) for i in range(70_000)])
    table.remove(range(0, 70_000, 2))
    table.save(tmp_path / "a.arrow")
    opened = SentenceTable(tmp_path / "a.arrow", 70_000)
    assert len(opened) == 35_000
    assert opened[69_999] == Sentence("69999", str(69_999 % 7), 69_999)
    assert 65_536 not in opened
    # The same rows give the same bytes.
    opened.save(tmp_path / "b.arrow")
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"no arrow at all" * 10])
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises((pa.ArrowException, ValueError)):
        SentenceTable(tmp_path / "a.arrow")


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("x", pa.int64())])):
        pass
    with pytest.raises((pa.ArrowException, ValueError, KeyError)):
        SentenceTable(tmp_path / "a.arrow")
