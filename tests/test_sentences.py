"""Rows of sentences against a plain dictionary."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from caprag.retrieval.sentences import SCHEMA, SentenceTable
from caprag.text import match_form
from caprag.types import Sentence


def made(rows: dict[int, Sentence]) -> SentenceTable:
    table = SentenceTable()
    table.append(sorted(rows), [rows[i] for i in sorted(rows)])
    return table


def check(table: SentenceTable, expected: dict[int, Sentence]) -> None:
    ids = sorted(expected)
    assert len(table) == len(expected)
    assert table.ids.tolist() == ids
    assert table.last_id == (ids[-1] if ids else -1)
    rows = table.find(ids)
    assert rows.tolist() == list(range(len(ids)))
    assert table.take(rows) == [expected[i] for i in ids]
    there = [i for i in range(-2, table.last_id + 3) if i in expected]
    assert (table.find(range(-2, table.last_id + 3)) >= 0).sum() == len(there)
    shuffled = np.random.default_rng(0).permutation(rows)
    assert table.column("text", shuffled) == [expected[ids[i]].text for i in shuffled]
    assert table.column("form", shuffled) == [match_form(expected[ids[i]].text) for i in shuffled]
    assert table.column("source", shuffled) == [expected[ids[i]].source for i in shuffled]
    assert [table.row(i) for i in shuffled[:5]] == [expected[ids[i]] for i in shuffled[:5]]
    assert list(table.places()) == [(i, s.source, s.line) for i, s in sorted(expected.items()) if s.source]


def test_any_sequence_of_appends_agrees_with_a_dictionary(tmp_path: Path) -> None:
    generator = random.Random(0)
    table, expected = SentenceTable(), dict[int, Sentence]()
    for step in range(80):
        if generator.random() < 0.8:
            ids = sorted(generator.sample(range(table.last_id + 1, table.last_id + 30), generator.randint(0, 9)))
            fresh = [
                Sentence(f"句{step}-{i}!", f"檔{step % 3}.txt" if step % 4 else "", i, ("別名",) * (i % 3)) for i in ids
            ]
            table.append(ids, fresh)
            expected.update(zip(ids, fresh, strict=True))
        else:
            table.save(tmp_path / f"{step}.arrow")
            table = SentenceTable(tmp_path / f"{step}.arrow")
        check(table, expected)


def test_merged_in_the_order_of_the_ids() -> None:
    """Any split of rows over tables, with rows that have gone, merges into the rows that are left."""
    generator = random.Random(1)
    for _ in range(20):
        parts: list[dict[int, Sentence]] = [{} for _ in range(generator.randint(1, 4))]
        for i in generator.sample(range(200), 60):
            generator.choice(parts)[i] = Sentence(f"句{i}", generator.choice(["", "甲", "乙"]), i)
        gone = set(generator.sample(range(200), 50))
        tables = [made(part) for part in parts]
        keep = [np.array([i not in gone for i in sorted(part)], np.bool_) for part in parts]
        merged = SentenceTable.merge(tables, keep)
        check(merged, {i: s for part in parts for i, s in part.items() if i not in gone})
        for table, part in zip(tables, parts, strict=True):
            check(table, part)
    check(SentenceTable.merge([], []), {})


def test_a_merged_table_takes_more() -> None:
    merged = SentenceTable.merge([made({1: Sentence("一"), 5: Sentence("五")})], [np.array([True, True])])
    merged.append([6, 9], [Sentence("六"), Sentence("九")])
    check(merged, {1: Sentence("一"), 5: Sentence("五"), 6: Sentence("六"), 9: Sentence("九")})


def test_an_empty_table_and_odd_texts_survive_a_save(tmp_path: Path) -> None:
    SentenceTable().save(tmp_path / "empty.arrow")
    check(SentenceTable(tmp_path / "empty.arrow"), {})
    odd = {
        0: Sentence("長" * 5000, "來源 檔.srt", 2**31 - 1),
        7: Sentence("𠮷\n野"),
        2**61: Sentence("a", "", 0, ("", "b")),
    }
    made(odd).save(tmp_path / "odd.arrow")
    opened = SentenceTable(tmp_path / "odd.arrow")
    assert opened.take(opened.find(sorted(odd))) == list(odd.values())
    assert opened.last_id == 2**61


def test_many_rows(tmp_path: Path) -> None:
    table = SentenceTable()
    for start in range(0, 70_000, 7000):
        ids = range(start, start + 7000)
        table.append(ids, [Sentence(str(i), f"{i % 7}", i) for i in ids])
    table.save(tmp_path / "a.arrow")
    opened = SentenceTable(tmp_path / "a.arrow")
    assert len(opened) == 70_000
    assert opened.row(69_999) == Sentence("69999", str(69_999 % 7), 69_999)
    # Written in one piece, which is what makes it mapped as it is; and the same rows give the same bytes.
    assert pa.ipc.open_file(str(tmp_path / "a.arrow")).num_record_batches == 1
    opened.save(tmp_path / "b.arrow")
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_opening_maps_the_file(tmp_path: Path) -> None:
    """No row is copied: Arrow has allocated less than a hundredth of the file."""
    made({i: Sentence("字" * 200, "甲", i) for i in range(20_000)}).save(tmp_path / "a.arrow")
    before = pa.total_allocated_bytes()
    opened = SentenceTable(tmp_path / "a.arrow")
    assert opened.row(19_999).line == 19_999
    assert pa.total_allocated_bytes() - before < (tmp_path / "a.arrow").stat().st_size / 100


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"no arrow at all" * 10])
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.arrow").write_bytes(content)
    with pytest.raises((pa.ArrowException, ValueError)):
        SentenceTable(tmp_path / "a.arrow")


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    for schema in (pa.schema([("x", pa.int64())]), SCHEMA.remove(2)):
        with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema):
            pass
        with pytest.raises(pa.ArrowInvalid, match="its columns are"):
            SentenceTable(tmp_path / "a.arrow")
