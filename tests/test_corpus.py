"""Files as users have them, good and bad: what is read, in which order, and what is said of the rest."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caprag.corpus import SUFFIXES, decode_lines, files, list_files, read_corpus, read_rows
from caprag.errors import CorpusError
from caprag.text import normalize
from caprag.types import Sentence

LINES = ["妳在開玩笑嗎?", "不會持續太久的", "OK, 走吧"]
ASS_HEAD = "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname\n\n[Events]\n"
ASS_FORMAT = "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"


def read(path: Path, content: bytes | str, **options: str) -> tuple[list[tuple[int, str]], list[str]]:
    """Write a file and read it: (line, text) of each sentence, and what was complained of."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    errors: list[CorpusError] = []
    found = [(s.line, s.text) for s in read_corpus(path, on_error=errors.append, **options)]
    return found, [str(error) for error in errors]


def texts(path: Path, content: bytes | str, **options: str) -> list[str]:
    """Read a file that must be without fault."""
    found, errors = read(path, content, **options)
    assert errors == []
    return [text for _, text in found]


def ass_line(text: str, kind: str = "Dialogue") -> str:
    return f"{kind}: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{text}\n"


def cue(number: int, text: str, mark: str = ",") -> str:
    return f"{number}\n00:00:{number:02}{mark}000 --> 00:00:{number:02}{mark}900\n{text}\n\n"


# --- every kind of file -------------------------------------------------------------------------------------------


def write_kind(path: Path, lines: list[str]) -> Path:
    """Write the same sentences in the format that the suffix says."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        pq.write_table(pa.table({"id": range(len(lines)), "text": lines}), path)
        return path
    stream = io.StringIO()
    if suffix in (".srt", ".vtt"):
        stream.write("WEBVTT\n\n" if suffix == ".vtt" else "")
        stream.writelines(cue(i, line, "." if suffix == ".vtt" else ",") for i, line in enumerate(lines, 1))
    elif suffix in (".ass", ".ssa"):
        stream.write(ASS_HEAD + ASS_FORMAT + "".join(ass_line(line) for line in lines))
    elif suffix in (".csv", ".tsv"):
        rows = csv.writer(stream, delimiter="\t" if suffix == ".tsv" else ",")
        rows.writerow(["id", "text"])
        # Python 3.10 can't write a NUL.
        rows.writerows((i, line.replace("\0", "\ue00f")) for i, line in enumerate(lines))
    elif suffix == ".jsonl":
        stream.writelines(json.dumps({"id": i, "text": line}) + "\n" for i, line in enumerate(lines))
    else:
        stream.writelines(line + "\n" for line in lines)
    path.write_text(stream.getvalue().replace("\ue00f", "\0"), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_gives_the_same_sentences(tmp_path: Path, suffix: str) -> None:
    path = write_kind(tmp_path / f"劇本 第1集{suffix}", LINES)
    sentences = list(read_corpus(path))
    assert [s.text for s in sentences] == LINES
    assert {s.source for s in sentences} == {str(path)}
    assert [s.line for s in sentences] == sorted({s.line for s in sentences})
    upper = write_kind(tmp_path / f"UPPER{suffix.upper()}", LINES)
    assert [s.text for s in read_corpus(str(upper))] == LINES


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s != ".parquet"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_line_ends_and_byte_order_marks(tmp_path: Path, suffix: str, ends: str, encoding: str) -> None:
    path = write_kind(tmp_path / f"a{suffix}", LINES)
    content = path.read_text(encoding="utf-8").replace("\n", ends)
    assert texts(path, content.encode(encoding)) == LINES


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s not in (".parquet", ".jsonl")])
@pytest.mark.parametrize(
    ("encoding", "said"),
    [("big5", "big5"), ("big5hkscs", "Big5-HKSCS"), ("gb18030", "GB18030"), ("utf-16-le", "UTF_16LE"),
     ("utf-16", "utf16"), ("utf-16", "U16"), ("utf-32", "utf_32")],
)  # fmt: skip
def test_other_encodings_by_name(tmp_path: Path, suffix: str, encoding: str, said: str) -> None:
    path = write_kind(tmp_path / f"a{suffix}", LINES)
    assert texts(path, path.read_text(encoding="utf-8").encode(encoding), encoding=said) == LINES


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s != ".parquet"])
@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"\xef\xbb\xbf", b"\xff\xfe"])
def test_an_empty_file_is_no_error(tmp_path: Path, suffix: str, content: bytes) -> None:
    assert read(tmp_path / f"leer{suffix}", content) == ([], [])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_long_lines_come_whole(tmp_path: Path, suffix: str) -> None:
    line = "".join(chr(0x4E00 + i % 20000) for i in range(5000))
    assert [s.text for s in read_corpus(write_kind(tmp_path / f"lang{suffix}", [line]))] == [normalize(line)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_control_characters_go(tmp_path: Path, suffix: str) -> None:
    line = "好\0\x07\u200b\u202e嗎\ufeff"
    assert [s.text for s in read_corpus(write_kind(tmp_path / f"a{suffix}", [line]))] == ["好嗎"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_duplicates_are_given_once(tmp_path: Path, suffix: str) -> None:
    path = write_kind(tmp_path / f"a{suffix}", ["一", "二", "一", "Ｏ", "O", " 二 "])
    assert [s.text for s in read_corpus([path, path])] == ["一", "二", "O"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bytes_that_are_something_else_never_escape(tmp_path: Path, suffix: str) -> None:
    """Whatever the bytes are, reading gives sentences or CorpusErrors."""
    generator = random.Random(0)
    source = write_kind(tmp_path / f"a{suffix}", LINES).read_bytes()
    for _ in range(120):
        content = bytearray(source)
        for _ in range(generator.randint(1, 5)):
            place = generator.randrange(len(content))
            kind = generator.random()
            if kind < 0.4:
                content[place] = generator.randrange(256)
            elif kind < 0.7:
                del content[place : place + generator.randint(1, 20)]
            else:
                content[place:place] = bytes(generator.choices(b'0123456789:,.{}\\<>-"\n\r\0 p', k=4))
            content = content or bytearray(b"?")
        found, errors = read(tmp_path / f"b{suffix}", bytes(content))
        assert all(normalize(text) == text for _, text in found)
        assert all(f"b{suffix}" in error for error in errors)


# --- which files --------------------------------------------------------------------------------------------------


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    names = ["2.txt", "10.txt", "1.txt", "第10集.srt", "第9集.srt", "a/1.txt", "a/b/3.csv", "01.txt"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_kind(tmp_path / name, [f"在{name}"])
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    expected = ["01.txt", "1.txt", "2.txt", "10.txt", "a/1.txt", "a/b/3.csv", "第9集.srt", "第10集.srt"]
    assert [str(p.relative_to(tmp_path)) for p in list_files(tmp_path)] == expected
    assert [s.text for s in read_corpus(tmp_path)] == [normalize(f"在{name}") for name in expected]


def test_patterns_and_order_given(tmp_path: Path) -> None:
    for name in ("b/2.txt", "b/10.txt", "a/1.txt", "[x].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")

    def names(*paths: str) -> list[str]:
        return [str(p.relative_to(tmp_path)) for p in list_files([tmp_path / p for p in paths])]

    assert names("**/*.txt") == ["[x].txt", "a/1.txt", "b/2.txt", "b/10.txt"]
    assert names("b/*.txt", "a") == ["b/2.txt", "b/10.txt", "a/1.txt"]
    assert names("[x].txt") == ["[x].txt"]


@pytest.mark.parametrize("missing", ["nothing.txt", "*.srt", "nothing/", "\0", "好" * 2000, "a" * 5000])
def test_what_is_not_there_is_named_at_once(tmp_path: Path, missing: str) -> None:
    # At the call, not at the first sentence.
    with pytest.raises(CorpusError):
        read_corpus(os.path.join(tmp_path, missing), on_error=lambda error: None)  # noqa: PTH118


def test_an_empty_path_is_not_the_working_directory() -> None:
    with pytest.raises(CorpusError, match="a path is empty"):
        read_corpus("")


def test_a_folder_without_text_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(CorpusError, match=r"holds no file of a known kind; a corpus is made of \.txt"):
        list_files(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write_kind(tmp_path / "a.txt", LINES)
    path.chmod(0)
    with pytest.raises(CorpusError, match="can't be read"):
        list(read_corpus(path))


# --- lines that do not decode -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "content", "expected", "line"),
    [
        (".txt", b"ok\n\xa7\x41x\nend\n", [(1, "ok"), (3, "end")], 2),
        (".txt", b"\xef\xbb\xbf\xff\nend\n", [(2, "end")], 1),
        (".csv", b"id,text\n1,ok\n2,\xff\n3,end\n", [(2, "ok"), (4, "end")], 3),
        (".csv", b"id,text\n1,ok\n2,\xff", [(2, "ok")], 3),
        (".jsonl", b'"ok"\n"\xff"\n"end"\n', [(1, "ok"), (3, "end")], 2),
        (".srt", b"1\n00:00:01,000 --> 00:00:02,000\nok\n\xff\n", [(1, "ok")], 4),
    ],
)
def test_wrong_bytes_are_named_and_passed_over(
    tmp_path: Path, suffix: str, content: bytes, expected: list[tuple[int, str]], line: int
) -> None:
    path = tmp_path / f"falsch{suffix}"
    found, errors = read(path, content)
    assert found == expected
    assert len(errors) == 1
    assert errors[0].startswith(f"{path}, line {line}: byte 0x")
    assert "big5" in errors[0]
    with pytest.raises(CorpusError, match=f"line {line}: byte"):
        list(read_corpus(path))


def test_the_byte_and_its_column_are_named(tmp_path: Path) -> None:
    _, errors = read(tmp_path / "a.txt", "好\n好".encode() + b"\xe5\xa5" + b"\n")
    assert "line 2: byte 0xe5 at column 4 is not utf-8" in errors[0]


def test_a_cut_utf_16_file_is_named(tmp_path: Path) -> None:
    found, errors = read(tmp_path / "a.txt", b"\xff\xfe\x00")
    assert found == []
    assert "is not utf-16-le" in errors[0]


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "utf-8\0"])
def test_an_unknown_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    path = write_kind(tmp_path / "a.txt", LINES)
    with pytest.raises(CorpusError, match="try utf-8, big5 or gb18030"):
        list(read_corpus(path, encoding=encoding))


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "1.parquet").write_bytes(b"PAR1 no")
    write_kind(tmp_path / "2.txt", ["好"])
    errors: list[CorpusError] = []
    assert [s.text for s in read_corpus(tmp_path, on_error=errors.append)] == ["好"]
    assert len(errors) == 1
    with pytest.raises(CorpusError, match="is not read as parquet"):
        list(read_corpus(tmp_path))


def test_reading_is_lazy(tmp_path: Path) -> None:
    write_kind(tmp_path / "1.txt", ["好"])
    (tmp_path / "2.parquet").write_bytes(b"no")
    sentences = read_corpus(tmp_path)
    assert next(sentences) == Sentence("好", str(tmp_path / "1.txt"), 1)


# --- tables -------------------------------------------------------------------------------------------------------


def test_csv_quotes_commas_and_line_breaks(tmp_path: Path) -> None:
    rows = ['他說:"好"', "一,二", "上\n下", "末"]
    assert texts(write_kind(tmp_path / "a.csv", rows), (tmp_path / "a.csv").read_bytes()) == rows


def test_csv_agrees_with_the_module_of_the_standard_library(tmp_path: Path) -> None:
    generator = random.Random(1)
    rows = list(dict.fromkeys("".join(generator.choices('好嗎",\n1 ', k=6)) for _ in range(200)))
    path = write_kind(tmp_path / "a.csv", rows)
    with path.open(encoding="utf-8", newline="") as stream:
        expected = [normalize(row["text"]) for row in csv.DictReader(stream)]
    assert [s.text for s in read_corpus(path)] == list(dict.fromkeys(filter(None, expected)))


def test_rows_that_lack_the_column_are_named(tmp_path: Path) -> None:
    found, errors = read(tmp_path / "a.csv", "id,text\n1,好\n2\n\n3,嗎,more\n")
    assert found == [(2, "好"), (5, "嗎")]
    assert len(errors) == 1
    assert "line 3: has 1 columns, the header has 2; mend the line" in errors[0]


def test_a_quote_that_is_never_closed_is_not_a_sentence(tmp_path: Path) -> None:
    found, errors = read(tmp_path / "a.csv", 'id,text\n1,好\n2,"嗎\n3,了\n')
    assert found == [(2, "好")]
    assert len(errors) == 1
    assert "line 3: opens a quote that is never closed" in errors[0]


def test_a_row_that_is_not_csv_is_passed_over(tmp_path: Path) -> None:
    found, errors = read(tmp_path / "a.csv", "id,text\n1,a\r,b\n2,好\n")
    assert found == [(3, "好")]
    assert len(errors) == 1
    assert "line 2: is not csv" in errors[0]


def test_blank_lines_before_the_header(tmp_path: Path) -> None:
    assert texts(tmp_path / "a.csv", "\n\nid,text\n1,好\n") == ["好"]


@pytest.mark.parametrize(
    "name", ["text", " Text ", "sentence", "caption", "content", "subtitle", "字幕", "文字", "句子"]
)
def test_known_columns(tmp_path: Path, name: str) -> None:
    assert texts(tmp_path / "a.tsv", f"id\t{name}\n1\t好\n") == ["好"]
    assert texts(tmp_path / "a.jsonl", json.dumps({"id": 1, name: "好"})) == ["好"]
    pq.write_table(pa.table({"id": [1], name: ["好"]}), tmp_path / "a.parquet")
    assert [s.text for s in read_corpus(tmp_path / "a.parquet")] == ["好"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_column_by_name(tmp_path: Path, suffix: str) -> None:
    path = write_kind(tmp_path / f"a{suffix}", LINES)
    first = list(read_corpus(path, column="text"))
    assert [s.text for s in first] == LINES
    with pytest.raises(CorpusError, match="has no column 'line'; it has id, text"):
        list(read_corpus(path, column="line"))


@pytest.mark.parametrize("content", ["a,b\n1,2\n", ",\n1,2\n"])
def test_no_column_to_choose(tmp_path: Path, content: str) -> None:
    found, errors = read(tmp_path / "a.csv", content)
    assert found == []
    assert "name the text's column (column=..., --column); it has" in errors[0]


def test_json_lines_good_and_broken(tmp_path: Path) -> None:
    rows = ['{"text": "一"}', "{", '"二"', '{"text": 3}', "[1]", "null", "", '{"a": "x", "b": "y"}', '{"only": "三"}',
            "[" * 100_000, '{"text": "\\ud800四"}']  # fmt: skip
    found, errors = read(tmp_path / "a.jsonl", "\n".join(rows))
    assert found == [(1, "一"), (3, "二"), (9, "三"), (11, "四")]
    named = [int(match) for match in re.findall(r"a\.jsonl, line (\d+):", "\n".join(errors))]
    assert named == [2, 4, 5, 6, 8, 10]


def test_parquet_large_and_null_strings(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array(["一", None, "二"], pa.large_string())}), tmp_path / "a.parquet")
    assert [(s.line, s.text) for s in read_corpus(tmp_path)] == [(1, "一"), (3, "二")]


def test_parquet_of_many_row_groups(tmp_path: Path) -> None:
    rows = [f"第{i}句" for i in range(20_000)]
    pq.write_table(pa.table({"text": rows}), tmp_path / "a.parquet", row_group_size=999)
    assert [text for _, text in read_rows(tmp_path / "a.parquet")] == rows


def test_parquet_columns_that_are_not_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="column 'text' holds int64; name a column of strings"):
        list(read_corpus(tmp_path))


def test_parquet_of_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    raw = pa.array([b"ok", b"\xff\xfe"])
    pq.write_table(pa.table({"text": pa.Array.from_buffers(pa.string(), 2, raw.buffers())}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="is not read as parquet"):
        list(read_corpus(tmp_path))


@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"PAR1" + b[4:-8] + b"\0" * 8])
def test_corrupt_parquet(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = write_kind(tmp_path / "a.parquet", LINES)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CorpusError, match=r"a\.parquet: is not read as parquet"):
        list(read_corpus(path))


# --- subtitles ----------------------------------------------------------------------------------------------------


def test_srt_tags_lines_and_order(tmp_path: Path) -> None:
    content = cue(1, "<i>你好</i>\n<font color=red>嗎</font>") + cue(9, "{\\an8}後") + cue(3, "先") + cue(4, "")
    found, errors = read(tmp_path / "a.srt", content)
    assert (found, errors) == ([(1, "你好\n嗎"), (2, "後"), (3, "先")], [])


@pytest.mark.parametrize("last", ["他今年\n18", "1997", "2\n3\n4"])
@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_lines_of_digits_are_text(tmp_path: Path, suffix: str, last: str) -> None:
    path = write_kind(tmp_path / f"a{suffix}", ["一", last])
    assert [s.text for s in read_corpus(path)] == ["一", last]
    path = write_kind(path, [last, "一"])
    assert [s.text for s in read_corpus(path)] == [last, "一"]
    if suffix == ".vtt":
        bare = "WEBVTT\n\n00:01.000 --> 00:02.000\n" + last + "\n\n00:03.000 --> 00:04.000\n一\n"
        assert texts(path, bare) == [last, "一"]


def test_vtt_notes_styles_and_names_are_not_text(tmp_path: Path) -> None:
    content = (
        "WEBVTT - title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE a note\nof two lines\n\n"
        "first\n00:00:01.000 --> 00:00:02.000 align:start\n<v 小明>你好<c.loud>嗎</c>\n二\n\nNOTE x\n\n"
        "00:03.000 --> 00:04.000\n走\n\n第三\n00:05.000 --> 00:06.000\n了"
    )
    assert texts(tmp_path / "a.vtt", content) == ["你好嗎\n二", "走", "了"]


def test_ass_leaves_comments_drawings_and_tags(tmp_path: Path) -> None:
    content = ASS_HEAD + ASS_FORMAT
    content += ass_line("{\\pos(1,2)\\fad(1,2)}你好\\N嗎, 是") + ass_line("注", "Comment")
    content += ass_line("{\\p1}m 0 0 l 10 10{\\p0}") + ass_line("一\\h二")
    assert read(tmp_path / "a.ass", content) == ([(1, "你好\n嗎, 是"), (4, "一 二")], [])


def test_ass_with_odd_numbers_is_read_without_a_warning(tmp_path: Path) -> None:
    assert texts(tmp_path / "a.ass", ASS_HEAD + ASS_FORMAT + ass_line("好").replace(" 0,", " x,")) == ["好"]


@pytest.mark.parametrize("suffix", [".srt", ".vtt", ".ass", ".ssa"])
def test_subtitles_that_are_none(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_text("只是文字\n沒有時間\n", encoding="utf-8")
    with pytest.raises(CorpusError, match=rf"has no caption; check that it is {suffix[1:]}, or rename it to \.txt"):
        list(read_corpus(tmp_path))


def test_ass_with_broken_times(tmp_path: Path) -> None:
    content = ASS_HEAD + ASS_FORMAT + ass_line("好").replace("0:00:01.00", "soon")
    found, errors = read(tmp_path / "a.ass", content)
    assert found == []
    assert "is not read as ass" in errors[0]


# --- real material ------------------------------------------------------------------------------------------------


def test_real_subtitles_give_every_caption(data: Path) -> None:
    for path in sorted((data / "subtitles").glob("*/truth.srt")):
        captions = path.read_text(encoding="utf-8-sig").count(" --> ")
        rows = list(read_rows(path))
        assert len(rows) == captions
        sentences = list(read_corpus(path))
        assert len({s.text for s in sentences}) == len(sentences) <= captions
        assert not any("-->" in s.text or re.search(r"\n\d+$", s.text) for s in sentences)


# --- large files, a part at a time ---------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "big5", "gb18030"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_lines_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, ends: str) -> None:
    monkeypatch.setattr(files, "_BLOCK", 7)
    lines = ["", "好", "妳在開玩笑嗎", "", "OK", "好" * 50]
    path = tmp_path / "a.txt"
    path.write_bytes(ends.join([*lines, ""]).encode(encoding))
    sizes: list[int] = []
    found = list(decode_lines(path, None if encoding == "utf-8-sig" else encoding, on_bytes=sizes.append))
    assert found == list(enumerate(lines, 1))
    assert sum(sizes) == path.stat().st_size


def test_utf_16_is_read_up_to_what_is_wrong(tmp_path: Path) -> None:
    content = "\ufeff一\n二\n".encode("utf-16-le") + b"\x00\xdc" + "三\n".encode("utf-16-le")
    found, errors = read(tmp_path / "a.txt", content)
    assert found == [(1, "一"), (2, "二")]
    assert len(errors) == 1
    assert "line 3: byte 0x00 at column 1 is not utf-16-le" in errors[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_line_longer_than_any_is_refused_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 100)
    monkeypatch.setattr(files, "_BLOCK", 30)
    found, errors = read(tmp_path / "a.txt", f"一\n{'好' * 500}\n三\n".encode(encoding))
    assert found == [(1, "一"), (3, "三")]
    assert len(errors) == 1
    assert "a.txt, line 2: is longer than" in errors[0]


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl", ".parquet", ".srt"])
def test_bytes_read_add_up_to_the_file(tmp_path: Path, suffix: str) -> None:
    path = write_kind(tmp_path / f"a{suffix}", [f"第{i}句" for i in range(90)])
    sizes: list[int] = []
    assert len(list(read_rows(path, on_bytes=sizes.append))) == 90
    assert sum(sizes) == path.stat().st_size
