"""Training examples: what trainers' own readers want of them, round trips between all forms, and bad files named."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import hypothesis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caprag import cli
from caprag.cli.conversations import FormName
from caprag.errors import SynthesisError
from caprag.synthesis import json_stream
from caprag.synthesis.conversations import (
    PROMPTS,
    Example,
    Form,
    choose_prompt,
    examples_from_dataset,
    read_conversations,
    write_conversations,
)
from caprag.synthesis.output import DatasetWriter

FORMS: tuple[Form, ...] = get_args(Form)
WAYS: list[tuple[Form, str]] = [
    *((form, suffix) for form in FORMS[:3] for suffix in (".json", ".jsonl")), ("lines", ".txt")
]  # fmt: skip
EXAMPLES = [
    Example("pictures/00000/000000000.jpg", "妳在開玩笑嗎", "這張圖的字幕？"),
    Example("圖 片/a b.png", '他說："走\\n嘞"\n第二行\t😀\u2028\x85', "Read\nit."),
    Example("/abs/c.webp", "", PROMPTS[0]),
]


def reads(path: Path, content: str | bytes, form: Form | None = None, **options: Any) -> list[Example]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_conversations(path, form, **options))


# --- forms --------------------------------------------------------------------------------------------------------


def test_llava_is_as_its_reader_wants_it(tmp_path: Path) -> None:
    assert write_conversations(EXAMPLES, tmp_path / "a.json", "llava") == 3
    rows = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    for row, example in zip(rows, EXAMPLES, strict=True):
        assert row == {
            "id": hashlib.sha256(example.image.encode()).hexdigest(),
            "image": example.image,
            "conversations": [
                {"from": "human", "value": f"<image>\n{example.prompt}"},
                {"from": "gpt", "value": example.text},
            ],
        }
        assert json.dumps(row).count("<image>") == 1
    assert "\\u59b3" not in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_sharegpt_has_as_many_pictures_as_marks(tmp_path: Path) -> None:
    """The check that LLaMA-Factory makes, with the columns its data set description names."""
    write_conversations(EXAMPLES, tmp_path / "a.json", "sharegpt")
    for row, example in zip(json.loads((tmp_path / "a.json").read_bytes()), EXAMPLES, strict=True):
        assert row["images"] == [example.image]
        assert sum(turn["value"].count("<image>") for turn in row["conversations"]) == len(row["images"])
        assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"]


def test_messages_alternate(tmp_path: Path) -> None:
    write_conversations(EXAMPLES, tmp_path / "a.jsonl", "messages")
    lines = (tmp_path / "a.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    for line, example in zip(lines, EXAMPLES, strict=True):
        assert json.loads(line) == {
            "messages": [
                {"role": "user", "content": f"<image>\n{example.prompt}"},
                {"role": "assistant", "content": example.text},
            ],
            "images": [example.image],
        }


def test_lines_are_path_tab_caption(tmp_path: Path) -> None:
    write_conversations(EXAMPLES, tmp_path / "a.txt", "lines")
    assert (tmp_path / "a.txt").read_bytes().decode() == (
        "pictures/00000/000000000.jpg\t妳在開玩笑嗎\n"
        '圖 片/a b.png\t他說："走\\\\n嘞"\\n第二行\t😀\u2028\x85\n'
        "/abs/c.webp\t\n"
    )


@pytest.mark.parametrize(("form", "suffix"), WAYS)
@pytest.mark.parametrize("named", [True, False])
def test_what_is_written_is_read(tmp_path: Path, form: Form, suffix: str, named: bool) -> None:
    path = tmp_path / f"訓 練{suffix}"
    write_conversations(EXAMPLES, path, form)
    back = list(read_conversations(path, form if named else None))
    assert back == ([replace(example, prompt="") for example in EXAMPLES] if form == "lines" else EXAMPLES)


CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXTS = st.text(CHARACTERS | st.sampled_from("\n\r\t\\\"' nr\u2028\x85\x00\x1c好😀<>")).filter(
    lambda text: "<image>" not in text
)


@hypothesis.example([Example("\x0c", "", ""), Example(" ", "", "")])
@settings(max_examples=60, deadline=None)
@given(st.lists(st.builds(Example, TEXTS.filter(bool), TEXTS, TEXTS), min_size=1, max_size=4))
def test_every_form_gives_back_what_it_took(tmp_path_factory: pytest.TempPathFactory, examples: list[Example]) -> None:
    folder = tmp_path_factory.getbasetemp()
    for form, suffix in WAYS:
        good = [e for e in examples if form != "lines" or not (set("\t\n\r") & set(e.image) or e.image[0] == "\ufeff")]
        refused: list[SynthesisError] = []
        path = folder / f"round{suffix}"
        if not good:
            with pytest.raises(SynthesisError):
                write_conversations(examples, path, form)
            continue
        assert write_conversations(examples, path, form, on_error=refused.append) == len(good)
        assert len(refused) == len(examples) - len(good)
        back = list(read_conversations(path))
        # A path of spaces is a line all the same.
        assert back == ([replace(example, prompt="") for example in good] if form == "lines" else good)


@pytest.mark.parametrize("source", WAYS)
@pytest.mark.parametrize("target", WAYS)
def test_every_form_turns_into_every_other(tmp_path: Path, source: tuple[Form, str], target: tuple[Form, str]) -> None:
    write_conversations(EXAMPLES, tmp_path / f"a{source[1]}", source[0])
    write_conversations(read_conversations(tmp_path / f"a{source[1]}"), tmp_path / f"b{target[1]}", target[0])
    keep = "lines" not in (source[0], target[0])
    wanted = EXAMPLES if keep else [replace(example, prompt="") for example in EXAMPLES]
    assert list(read_conversations(tmp_path / f"b{target[1]}")) == wanted


def test_what_others_write_is_read(tmp_path: Path) -> None:
    one = Example("a.jpg", "好", "讀")
    for content in (
        # LLaVA's own data: the mark after the question; more keys.
        '[{"id": "1", "image": "a.jpg", "source": "x", "conversations": [{"from": "human", "value": "讀\\n<image>"},'
        '{"from": "gpt", "value": "好"}]}]',
        # LLaMA-Factory's demo: no line break after the mark.
        '{"conversations": [{"from": "human", "value": "<image>讀"}, {"from": "gpt", "value": "好"}],'
        '"images": ["a.jpg"]}\n',
        # TRL: parts, the picture beside.
        '{"messages": [{"role": "user", "content": [{"index": 0, "text": null, "type": "image"},'
        '{"type": "text", "text": "讀"}]}, {"role": "assistant", "content": [{"type": "text", "text": "好"}]}],'
        '"images": ["a.jpg"]}',
        # OpenAI: the picture within.
        '{"messages": [{"role": "user", "content": [{"type": "text", "text": "讀"},'
        '{"type": "image_url", "image_url": {"url": "a.jpg"}}]}, {"role": "assistant", "content": "好"}]}',
        # Qwen.
        '{"messages": [{"role": "user", "content": [{"type": "image", "image": "a.jpg"},'
        '{"type": "text", "text": "讀"}]}, {"role": "assistant", "content": "好"}]}',
    ):
        assert reads(tmp_path / "a.json", content) == [one]
        assert reads(tmp_path / "a.jsonl", content) == [one]
    # A line of spaces and returns, a mark of the byte order, and a space for a tab.
    assert reads(tmp_path / "a.txt", "\ufeffa.jpg 好 的\r\n\r\n \nb c.jpg\t好\n") == [
        Example("a.jpg", "好 的"), Example("b c.jpg", "好"),
    ]  # fmt: skip


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", None), ("big5", "big5"), ("utf-16-le", "UTF_16LE")])
def test_other_encodings(tmp_path: Path, encoding: str, said: str | None) -> None:
    for (form, suffix), name in zip(WAYS, "abcdefg", strict=True):
        path = tmp_path / (name + suffix)
        write_conversations(EXAMPLES[:1], path, form)
        text = path.read_text(encoding="utf-8")
        assert [e.text for e in reads(path, text.encode(encoding), encoding=said)] == [EXAMPLES[0].text]


# --- large files --------------------------------------------------------------------------------------------------


def test_an_array_is_not_taken_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    count = write_conversations((Example(f"{n}.jpg", "字" * 300, "讀") for n in range(30_000)), path, "llava")
    assert path.stat().st_size > 30_000_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_conversations(path)) == count
        assert tracemalloc.get_traced_memory()[1] < 15_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("chunk", [1, 2, 7, 64])
def test_arrays_of_all_kinds_wherever_they_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """The same values as the json module gives for the whole file."""
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    for text in (
        "[]", " [ ] ", "[1]", "[12345, -0.5e-3 ,true,null,false]", '["\\u597d\\ud83d\\ude00", "a\\\\", "好"]',
        '[{"a": [1, {"b": "]},["}]},\n\t{"c": -1234.5}, NaN, -Infinity, "' + "字" * 100 + '"]\n\n',
    ):  # fmt: skip
        path = tmp_path / "a.json"
        path.write_text(text, encoding="utf-8")
        with json_stream.open_text(path) as stream:
            found = list(json_stream.read_values(path, stream))
        assert repr([value for _, value in found]) == repr(json.loads(text))
        assert [where for where, _ in found] == [f"element {n}" for n in range(1, len(found) + 1)]


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "element 1"), ("[1", "element 1: is not JSON (the array does not end)"), ("[1,", "element 2"),
        ("[1,]", "element 2"), ("[,1]", "element 1"), ("[1 2]", "element 1: is not JSON ('2' stands where a comma"),
        ("[1]]", "']' stands after the array"), ("[1] x", "'x' stands after"), ('["a', "Unterminated"),
        ('[{"a" 1}]', "element 1"), ("[1, {'a': 1}]", "element 2"), ("[tru]", "element 1"), ('["\\x"]', "element 1"),
        ('["\\u12"]', "element 1"), ("[" * 200_000, "element 1"), ('["a\nb"]', "Invalid control character"),
    ],
)  # fmt: skip
def test_a_broken_array_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str, chunk: int
) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    with pytest.raises((ValueError, RecursionError)):
        json.loads(text)
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SynthesisError) as caught, json_stream.open_text(path) as stream:
        list(json_stream.read_values(path, stream))
    assert str(caught.value).startswith(f"{path}, ")
    assert words in str(caught.value)
    assert "write the file again" in str(caught.value)


# --- bad input ----------------------------------------------------------------------------------------------------


def turns(asked: object = "<image>\n讀", text: object = "好", **more: object) -> dict[str, Any]:
    row = {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": text}], "image": "a.jpg"}
    return {key: value for key, value in {**row, **more}.items() if value is not None}


BAD: list[tuple[object, str]] = [
    (turns("讀"), "has <image> 0 times in the question; once is wanted"),
    (turns("<image>讀<image>"), "has <image> 2 times in the question"),
    (turns("讀<image>出"), "amid the question; put it first"),
    (turns(text="好<image>"), "has <image> in the answer; take it out"),
    (turns(text=3), "'value' is a int; a string is wanted"),
    (turns(["a"]), "'value' is a list; a string is wanted"),
    (turns([{"type": "audio"}]), "part of type 'audio'"),
    (turns(image=5), "'image' is a int; a string is wanted"),
    (turns(image=""), "one path is wanted"),
    (turns(image=None), "lacks 'images'; it has 'conversations'"),
    (turns(image=None, images="a.jpg"), "'images' is a str; a list is wanted"),
    (turns(image=None, images=["a.jpg", "b.jpg"]), "has 2 pictures"),
    (turns(image=None, images=[{"bytes": ""}]), "that is no path"),
    (turns(conversations=None), "lacks 'conversations'; it has 'image'"),
    (turns(conversations={}), "'conversations' is a dict; a list is wanted"),
    (turns(conversations=[]), "has turns of nobody; one question of human and one answer of gpt"),
    (turns(conversations=["a", "b"]), "has turns of None, None"),
    (turns(conversations=turns()["conversations"] * 2), "has turns of human, gpt, human, gpt"),
    ({"messages": [{"role": "system", "content": "x"}]}, "has turns of system; one question of user"),
    ([], "is a list; an object with a conversation is wanted"),
    (None, "is a NoneType"),
    ({}, "lacks 'conversations'; it has nothing"),
]


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_bad_examples_are_named_and_the_rest_goes_on(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    values = [turns(), *(value for value, _ in BAD), turns()]
    texts = [json.dumps(value) for value in values]
    path.write_text("\n".join(texts) if suffix == ".jsonl" else f"[{','.join(texts)}]", encoding="utf-8")
    with pytest.raises(SynthesisError):
        list(read_conversations(path))
    errors: list[SynthesisError] = []
    assert len(list(read_conversations(path, on_error=errors.append))) == 2
    word = "line" if suffix == ".jsonl" else "element"
    for number, (error, (_, words)) in enumerate(zip(errors, BAD, strict=True), 2):
        assert str(error).startswith(f"{path}, {word} {number}: ")
        assert words in str(error)


def test_bad_lines_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = json.dumps(turns()).encode()
    errors: list[SynthesisError] = []
    content = b"\n".join([good, b"{", b"\xff" + good, good, b"", b"[1, 2"])
    assert len(reads(tmp_path / "a.jsonl", content, on_error=errors.append)) == 2
    assert [f"line {n}: is not JSON" in str(e) for n, e in zip((2, 3, 6), errors, strict=True)] == [True] * 3
    assert "encoding" in str(errors[1])
    errors.clear()
    content = b"a.jpg\tx\n\xff.jpg\ty\nz.jpg\n\tcaption\nb.jpg\t\n"
    assert reads(tmp_path / "a.txt", content, on_error=errors.append) == [Example("a.jpg", "x"), Example("b.jpg", "")]
    for number, word, error in zip((2, 3, 4), ("encoding", "no caption", "no caption"), errors, strict=True):
        assert str(error).startswith(f"{tmp_path / 'a.txt'}, line {number}: ")
        assert word in str(error)


def test_bad_files_are_named(tmp_path: Path) -> None:
    for name, content in [("a.json", b""), ("a.jsonl", b" \n\n"), ("a.txt", b""), ("b.json", b"[]")]:
        with pytest.raises(SynthesisError, match="is empty; name a file"):
            reads(tmp_path / name, content, on_error=lambda _: None)
    with pytest.raises(SynthesisError, match=r"none\.json: can't be read \(No such file"):
        list(read_conversations(tmp_path / "none.json"))
    with pytest.raises(SynthesisError, match="Is a directory"):
        list(read_conversations(tmp_path))
    with pytest.raises(SynthesisError, match="encoding 'klingon' is unknown"):
        reads(tmp_path / "a.json", b"[1]", encoding="klingon")
    with pytest.raises(SynthesisError, match="is not utf-16"):
        reads(tmp_path / "a.json", b"\xff\xfe\x00", encoding=None)
    with pytest.raises(ValueError, match="form is 'alpaca'"):
        reads(tmp_path / "a.json", b"[1]", "alpaca")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "example", "words"),
    [
        ("llava", Example("a.jpg", "<image>", "讀"), "its text has <image>"),
        ("sharegpt", Example("a.jpg", "好", "<image>讀"), "its prompt has <image>"),
        ("messages", Example("", "好", "讀"), "has no path"),
        ("messages", Example("\udcff.jpg", "好", "讀"), "its path can't be written as UTF-8"),
        ("lines", Example("a\tb.jpg", "好"), "its path has a tab"),
    ],
)
def test_what_a_form_can_not_hold_is_refused(tmp_path: Path, form: Form, example: Example, words: str) -> None:
    path = tmp_path / ("a.txt" if form == "lines" else "a.json")
    path.write_text("old", encoding="utf-8")
    with pytest.raises(SynthesisError, match=words):
        write_conversations([EXAMPLES[0], example], path, form)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(path.name, "old")]
    errors: list[SynthesisError] = []
    assert write_conversations([example, EXAMPLES[0]], path, form, on_error=errors.append) == 1
    assert str(errors[0]).startswith("example 1 (")
    assert len(list(read_conversations(path))) == 1


def test_what_can_not_be_written(tmp_path: Path) -> None:
    cases: list[tuple[Path, Form, str]] = [
        (tmp_path / "a.txt", "llava", r"\.json or \.jsonl is wanted"),
        (tmp_path / "a.json", "lines", r"a name like captions\.txt is wanted"),
        (tmp_path / "none" / "a.json", "llava", "No such file"),
        (tmp_path / "folder.json", "llava", "can't be written"),
    ]
    (tmp_path / "folder.json").mkdir()
    for path, form, words in cases:
        with pytest.raises(SynthesisError, match=words):
            write_conversations(EXAMPLES, path, form)
    with pytest.raises(SynthesisError, match="there is no example"):
        write_conversations([], tmp_path / "a.json", "llava")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.json"]


def test_a_source_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_conversations(EXAMPLES, path, "llava")
    before = path.read_bytes()

    def failing() -> Iterator[Example]:
        yield EXAMPLES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_conversations(failing(), path, "llava")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert path.read_bytes() == before
    # From itself to itself.
    assert write_conversations(read_conversations(path), path, "sharegpt") == 3
    assert list(read_conversations(path)) == EXAMPLES


# --- prompts and data sets ----------------------------------------------------------------------------------------


def test_the_first_prompt_is_what_the_recognizer_asks() -> None:
    source = Path(__file__).resolve().parent.parent / "caprag/recognition/families.py"
    found = [
        ast.literal_eval(node.value)
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PROMPT"
    ]
    assert found == [PROMPTS[0]]
    assert len(set(PROMPTS)) == len(PROMPTS)
    assert get_args(FormName) == get_args(Form)


def test_prompts_are_chosen_by_number_and_seed() -> None:
    chosen = [choose_prompt("abcd", 3, number) for number in range(2000)]
    assert [choose_prompt("abcd", 3, number) for number in reversed(range(2000))] == chosen[::-1]
    assert [choose_prompt("abcd", 4, number) for number in range(2000)] != chosen
    # Four standard deviations of a fair die.
    assert all(abs(count - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5 for count in Counter(chosen).values())
    with pytest.raises(ValueError, match="list of prompts is empty"):
        choose_prompt([], 0, 0)


SCHEMA = pa.schema([("text", pa.string())])


def make_set(folder: Path, container: Any = "folders") -> Path:
    with DatasetWriter(folder, {}, SCHEMA, container=container, shard_size=3) as writer:
        for number in range(5):
            writer.write(number, b"x", ".jpg", {"text": None if number == 2 else f"第{number}句\n二"})
        writer.finish()
    return folder


def test_examples_of_a_data_set(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "資料 集")
    examples = list(examples_from_dataset(folder, ["a", "b", "c"], 5, empty_text="無"))
    assert [e.image for e in examples] == [f"pictures/{n // 3:05d}/{n:09d}.jpg" for n in range(5)]
    assert [e.text for e in examples] == ["第0句\n二", "第1句\n二", "無", "第3句\n二", "第4句\n二"]
    assert [e.prompt for e in examples] == [choose_prompt("abc", 5, n) for n in range(5)]
    assert all(Path(e.image).is_file() for e in examples_from_dataset(folder, absolute=True))
    assert {e.prompt for e in examples_from_dataset(folder)} <= set(PROMPTS)
    (folder / "manifest.parquet").unlink()
    with pytest.raises(SynthesisError, match=r"manifest\.parquet: is missing"):
        list(examples_from_dataset(folder))


def test_examples_of_tars_want_them_unpacked(tmp_path: Path) -> None:
    folder = make_set(tmp_path / "資料 集", "tar")
    with pytest.raises(SynthesisError, match="unpack them: for tar in") as caught:
        list(examples_from_dataset(folder))
    assert os.system(f"cd '{folder}' && {str(caught.value).partition('unpack them: ')[2]}") == 0
    examples = list(examples_from_dataset(folder))
    assert [e.image for e in examples] == [f"pictures/{n // 3:05d}/{n:09d}.jpg" for n in range(5)]
    assert all((folder / e.image).read_bytes() == b"x" for e in examples)
    # And the writer still knows its own.
    with DatasetWriter(folder, {}, SCHEMA, container="tar", shard_size=3) as writer:
        assert writer.done == 5


# --- the verb -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["caprag", "conversations", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return int(stop.value.code or 0), out, err

    return call


def test_the_verb_writes_a_data_set(run: Any, tmp_path: Path) -> None:
    folder = make_set(tmp_path / "資料 集")
    (tmp_path / "prompts.txt").write_text("\ufeff問一\n\n 問二 \n", encoding="utf-8")
    code, out, err = run(folder, "--to", "llava", "--out", tmp_path / "a.json", "--prompts", tmp_path / "prompts.txt")
    assert (code, out) == (0, "")
    assert "5 examples" in err
    wanted = list(examples_from_dataset(folder, ["問一", "問二"]))
    assert list(read_conversations(tmp_path / "a.json", "llava")) == wanted
    run(folder, "--to", "lines", "--out", tmp_path / "b.txt", "--relative-to", tmp_path, "--empty-text", "無")
    lines = (tmp_path / "b.txt").read_text(encoding="utf-8").split("\n")
    assert lines[2] == "資料 集/pictures/00000/000000002.jpg\t無"
    run(folder, "--to", "messages", "--out", tmp_path / "c.jsonl", "--absolute", "--prompt", "x", "--prompt", "y")
    assert [e.image for e in read_conversations(tmp_path / "c.jsonl")] == [str(folder / e.image) for e in wanted]
    assert {e.prompt for e in read_conversations(tmp_path / "c.jsonl")} == {"x", "y"}


def test_the_verb_keeps_prompts_or_gives_new_ones(run: Any, tmp_path: Path) -> None:
    write_conversations(EXAMPLES, tmp_path / "a.json", "llava")
    assert run(tmp_path / "a.json", "--to", "sharegpt", "--out", tmp_path / "b.jsonl")[0] == 0
    assert list(read_conversations(tmp_path / "b.jsonl")) == EXAMPLES
    run(tmp_path / "a.json", "--to", "sharegpt", "--out", tmp_path / "b.jsonl", "--prompt", "讀")
    assert {e.prompt for e in read_conversations(tmp_path / "b.jsonl")} == {"讀"}
    run(tmp_path / "a.json", "--to", "lines", "--out", tmp_path / "c.txt")
    run(tmp_path / "c.txt", "--to", "messages", "--out", tmp_path / "d.json", "--seed", 4, "--absolute")
    read = list(read_conversations(tmp_path / "d.json"))
    assert [e.prompt for e in read] == [choose_prompt(PROMPTS, 4, n) for n in range(3)]
    assert [e.image for e in read] == [str(tmp_path / e.image) for e in EXAMPLES]
    (tmp_path / "captions.lst").write_bytes("a.jpg 走嘞\n".encode("big5", "replace"))
    code, *_ = run(tmp_path / "captions.lst", "--encoding", "big5", "--to", "lines", "--out", tmp_path / "e.txt")
    assert code == 0


def test_the_verb_goes_on_past_bad_examples(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(turns())}\n{{\n", encoding="utf-8")
    code, _, err = run(tmp_path / "a.jsonl", "--to", "lines", "--out", tmp_path / "b.txt")
    assert code == 1
    assert "a.jsonl, line 2: is not JSON" in err
    assert "examples: 1 failed" in err
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "a.jpg\t好\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{tmp}/none.json", "--to", "llava", "--out", "{tmp}/b.json"], "No such file"),
        (["{tmp}", "--to", "llava", "--out", "{tmp}/b.json"], "is no data set"),
        (["{tmp}/a.json", "--to", "alpaca", "--out", "{tmp}/b.json"], "alpaca"),
        (["{tmp}/a.json", "--to", "llava", "--out", "{tmp}/b.txt"], ".json or .jsonl"),
        (["{tmp}/a.json", "--to", "llava", "--out", "{tmp}"], "suffix ''"),
        (["{tmp}/a.json", "--to", "lines", "--out", "{tmp}"], "can't be written"),
        (["{tmp}/a.json", "--to", "llava", "--out", "/proc/b.json"], "can't be written"),
        (["{tmp}/a.json", "--to", "llava", "--out", "{tmp}/b.json", "--encoding", "klingon"], "klingon"),
        (["{tmp}/a.json", "--to", "llava", "--out", "{tmp}/b.json", "--seed", "-1"], "seed"),
        (["{tmp}/a.json", "--to", "llava", "--out", "{tmp}/b.json", "--prompts", "{tmp}/none"], "file of prompts"),
        (["{tmp}/a.json", "--to", "llava", "--out", "{tmp}/b.json", "--prompts", "{tmp}/empty"], "holds no prompt"),
        (["{tmp}/a.json", "--to", "llava", "--out", "{tmp}/b.json", "--prompts", "{tmp}/empty", "--prompt", "x"],
         "give one of them"),
        (["{tmp}/a.json", "--to", "llava", "--out", "{tmp}/b.json", "--absolute", "--relative-to", "x"],
         "give one of them"),
        (["{tmp}/a.json", "--to", "llava", "--out", "{tmp}/b.json", "--prompt", "<image>"], "without <image>"),
        (["{tmp}/empty", "--to", "llava", "--out", "{tmp}/b.json"], "is empty"),
    ],
)  # fmt: skip
def test_wrong_use_says_what_to_do(run: Any, tmp_path: Path, arguments: list[str], words: str) -> None:
    write_conversations(EXAMPLES, tmp_path / "a.json", "llava")
    (tmp_path / "empty").touch()
    code, out, err = run(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert (code, out) == (2, "")
    assert words in err
    assert not (tmp_path / "b.json").exists()


def test_help_has_an_example(run: Any) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "Example: caprag conversations" in out


@pytest.mark.parametrize("prompt", ["", " ", "<image>讀"])
def test_the_verb_refuses_a_prompt_before_it_writes(run: Any, tmp_path: Path, prompt: str) -> None:
    source = tmp_path / "a.txt"
    source.write_text("a.jpg 你好\n", encoding="utf-8")
    status, _, err = run(source, "--to", "llava", "--out", tmp_path / "new" / "o.json", "--prompt", prompt)
    assert status == 2
    assert "--prompt" in err
    assert not (tmp_path / "new").exists()
    assert run(source, "--to", "llava", "--out", tmp_path / "new" / "o.json", "--prompt", "讀")[0] == 0
