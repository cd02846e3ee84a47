"""Training examples as conversations, in the forms that trainers read: written, read back, made from a data set.

======== ==============================================================================================================
llava    ``id``, ``image``, ``conversations`` of human and gpt; ``<image>`` stands in the question (LLaVA)
sharegpt ``conversations`` of human and gpt, ``images`` with one path (LLaMA-Factory)
messages ``messages`` of user and assistant, ``images`` with one path (ms-swift, LLaMA-Factory). Read as well with
         content in parts, where the picture is a part of type image or image_url (TRL, OpenAI)
lines    a line a picture: path, tab, caption, without question
======== ==============================================================================================================

The first three are a JSON array (``.json``) or one object a line (``.jsonl``). Knows no model and opens no picture.

References
----------
LLaVA, docs/Finetune_Custom_Data.md; LLaMA-Factory, data/README.md, multimodal image dataset; ms-swift, custom dataset;
TRL, dataset formats.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

import numpy as np

from caprag.errors import SynthesisError
from caprag.paths import replacing
from caprag.synthesis.json_stream import UNDECODED, open_text, read_values
from caprag.synthesis.reading import read_header, read_manifest

Form = Literal["llava", "sharegpt", "messages", "lines"]
"""How training examples are written; see the module."""

IMAGE = "<image>"
"""Stands for the picture in a question. Trainers count it in answers, too, so that no caption can have it."""

PROMPTS = (
    "請讀出圖中的字幕。只輸出字幕的文字，保留換行，不要翻譯，不要解釋；沒有字幕就什麼都不輸出。\n"
    "Read the caption in the picture. Output only its text, keep line breaks, do not translate or explain; "
    "output nothing where there is no caption.",
    "請讀出圖中的字幕。只輸出字幕的文字，保留換行；沒有字幕就什麼都不輸出。",
    "畫面上的字幕寫了什麼？只回答字幕原文，照原樣換行；沒有字幕就留空。",
    "抄寫這張圖的字幕，不要包含台標、招牌或其他文字，也不要翻譯；沒有字幕就不輸出。",
    "Read the caption in the picture. Output only its text and keep its line breaks; output nothing where there is "
    "no caption.",
    "What does the caption say? Answer with its exact text alone, without logos, signs or translation; leave the "
    "answer empty where there is no caption.",
)
"""What is asked where nothing else is given; the first is what `caprag.recognition.VLMRecognizer` asks."""

_PROMPT_STREAM = 0x70726F6D7074
"""Keeps the choice of the prompt apart from the draws that made the picture of that number."""

_ROLES: dict[Form, tuple[str, str]] = {
    "llava": ("human", "gpt"), "sharegpt": ("human", "gpt"), "messages": ("user", "assistant"),
}  # fmt: skip
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_ESCAPED = re.compile(r"\\([\\nr])")

OnError = Callable[[SynthesisError], None]


@dataclass(frozen=True, slots=True)
class Example:
    """A picture, what is asked about it and what is to be answered.

    Attributes
    ----------
    image
        Path of the picture, as the trainer is to find it.
    text
        The caption, ``"\\n"`` between its lines; empty where there is none.
    prompt
        The question, without the mark for the picture; empty in the form ``lines``.
    """

    image: str
    text: str
    prompt: str = ""


def write_conversations(
    examples: Iterable[Example], path: str | os.PathLike[str], form: Form, *, on_error: OnError | None = None
) -> int:
    """Write examples to a file, which takes its place when it is whole.

    In the form ``lines`` prompts are left out, a line break in a caption is written ``\\n`` (``\\r`` for a carriage
    return) and a backslash ``\\\\``.

    Parameters
    ----------
    examples
        May be larger than memory.
    path
        A ``.json`` or ``.jsonl``; for ``lines`` any other.
    form
        See the module.
    on_error
        Called with the error of each example that the form can't hold, which is left out; ``None`` raises it.

    Returns
    -------
    int
        Number of examples written.

    Raises
    ------
    SynthesisError
        Where the file can't be written or its suffix does not fit, for an example with ``<image>`` in its text or
        prompt, or in the form ``lines`` with a tab or line break in its path, and where there is no example at all.
        What lay there before stays then.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "train.jsonl"
    >>> write_conversations([Example("圖/1.jpg", "你好", "讀出字幕")], path, "sharegpt")
    1
    >>> print(path.read_text(encoding="utf-8"), end="")  # doctest: +NORMALIZE_WHITESPACE
    {"conversations": [{"from": "human", "value": "<image>\\n讀出字幕"}, {"from": "gpt", "value": "你好"}],
     "images": ["圖/1.jpg"]}
    >>> list(read_conversations(path))
    [Example(image='圖/1.jpg', text='你好', prompt='讀出字幕')]
    """
    place = Path(path)
    _check_form(form)
    suffix = place.suffix.lower()
    if (suffix in (".json", ".jsonl")) is (form == "lines"):
        wanted = "a name like captions.txt" if form == "lines" else ".json or .jsonl"
        raise SynthesisError(f"{place}: has the suffix {suffix!r}; for {form} {wanted} is wanted")
    array = suffix == ".json"
    count = 0
    try:
        with replacing(place) as stream:
            for number, example in enumerate(examples, 1):
                trouble = _trouble(example, form)
                if trouble:
                    error = SynthesisError(f"example {number} ({example.image}): {trouble}")
                    if on_error is None:
                        raise error
                    on_error(error)
                    continue
                start = ("[\n" if not count else ",\n") if array else ""
                stream.write((start + _written(example, form) + ("" if array else "\n")).encode())
                count += 1
            if not count:
                raise SynthesisError(f"{place}: there is no example to write")
            stream.write(b"\n]\n" if array else b"")
    except OSError as error:
        raise SynthesisError(f"{place}: can't be written ({error.strerror or error}); choose another file") from error
    return count


def _check_form(form: str) -> None:
    if form not in get_args(Form):
        raise ValueError(f"form is {form!r}; known are {', '.join(get_args(Form))}")


def _trouble(example: Example, form: Form) -> str | None:
    """Say why a form can't hold an example."""
    parts = {"path": example.image, "text": example.text, "prompt": example.prompt}
    for name, part in parts.items():
        if any("\ud800" <= character <= "\udfff" for character in part):
            return f"its {name} can't be written as UTF-8; rename or mend it"
    if not example.image:
        return "has no path"
    if form == "lines":
        if re.search(r"^\ufeff|[\t\n\r]", example.image):
            return "its path has a tab or line break; rename it, or write another form"
        return None
    for name in ("text", "prompt"):
        if IMAGE in parts[name]:
            return f"its {name} has {IMAGE}, which stands for a picture; mend it"
    return None


def _written(example: Example, form: Form) -> str:
    if form == "lines":
        return example.image + "\t" + "".join(_ESCAPES.get(character, character) for character in example.text)
    asked = f"{IMAGE}\n{example.prompt}"
    if form == "messages":
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": example.text}]
        row: dict[str, Any] = {"messages": turns, "images": [example.image]}
    else:
        turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": example.text}]
        if form == "llava":
            name = hashlib.sha256(example.image.encode()).hexdigest()
            row = {"id": name, "image": example.image, "conversations": turns}
        else:
            row = {"conversations": turns, "images": [example.image]}
    return json.dumps(row, ensure_ascii=False)


def read_conversations(
    path: str | os.PathLike[str],
    form: Form | None = None,
    *,
    encoding: str | None = None,
    on_error: OnError | None = None,
) -> Iterator[Example]:
    """Read examples from a file of any of the forms, without taking it into memory as a whole.

    A line of the form ``lines`` is parted at its first tab, or at its first space where it has no tab.

    Parameters
    ----------
    path
        A JSON array, JSON objects one a line, or lines.
    form
        ``None``: ``.json`` and ``.jsonl`` hold conversations, told apart by their keys; other files hold lines.
    encoding
        Of the file; ``None`` means UTF-8, or UTF-16 where the file says so itself.
    on_error
        Called with the error of each example that can't be read, after which reading goes on; ``None`` raises it.

    Yields
    ------
    Example
        In the order of the file.

    Raises
    ------
    SynthesisError
        Naming file, line or element and remedy: for a file that can't be read, is empty or is broken JSON (always),
        and for an example that is not of the form (unless `on_error` takes it).
    """
    return (example for _, example in locate_conversations(path, form, encoding=encoding, on_error=on_error))


def locate_conversations(
    path: str | os.PathLike[str],
    form: Form | None = None,
    *,
    encoding: str | None = None,
    on_error: OnError | None = None,
) -> Iterator[tuple[str, Example]]:
    """Read examples as `read_conversations` does, each with its place in the file.

    Yields
    ------
    tuple of str and Example
        The place is ``line 3``, or ``element 3`` of a JSON array.
    """
    place = Path(path)
    if form is not None:
        _check_form(form)
    plain = form == "lines" or (form is None and place.suffix.lower() not in (".json", ".jsonl"))
    with open_text(place, encoding) as stream:
        found = False
        for where, value in _lines(stream) if plain else read_values(place, stream):
            found = True
            try:
                if isinstance(value, SynthesisError):
                    raise value
                example = _line_example(value) if plain else _example(value, form)
            except (SynthesisError, ValueError) as reason:
                error = reason if isinstance(reason, SynthesisError) else SynthesisError(f"{place}, {where}: {reason}")
                if on_error is None:
                    raise error from None
                on_error(error)
            else:
                yield where, example
    if not found:
        raise SynthesisError(f"{place}: is empty; name a file of training examples")


def _lines(stream: TextIO) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(stream, 1):
        # A path of white space is one, too.
        path, tab, _ = line.partition("\t")
        if line.strip() or (path and tab):
            yield f"line {number}", line.rstrip("\r\n")


def _line_example(line: str) -> Example:
    if UNDECODED.search(line):
        raise ValueError("does not decode; name the file's encoding (--encoding), or mend the line")
    image, tab, caption = line.partition("\t")
    if not tab:
        image, tab, caption = line.partition(" ")
    if not image or not tab:
        raise ValueError("has no caption; path, tab and caption are wanted")
    unescaped = {written: character for character, written in _ESCAPES.items()}
    return Example(image, _ESCAPED.sub(lambda match: unescaped[match[0]], caption))


def _example(value: object, form: Form | None) -> Example:
    """Turn an object into an example; ValueError says what is wrong with it."""
    if not isinstance(value, dict):
        raise ValueError(f"is a {type(value).__name__}; an object with a conversation is wanted")
    if form is None:
        form = "messages" if "messages" in value else "llava" if "image" in value else "sharegpt"
    turns = _get(value, "messages" if form == "messages" else "conversations", list)
    role, content = ("role", "content") if form == "messages" else ("from", "value")
    roles = [turn.get(role) if isinstance(turn, dict) else None for turn in turns]
    if roles != [*_ROLES[form]]:
        shown = ", ".join(map(str, roles)) or "nobody"
        raise ValueError(f"has turns of {shown}; one question of {_ROLES[form][0]} and one answer of "
                         f"{_ROLES[form][1]} are wanted")  # fmt: skip
    (asked, images), (text, more) = (_content(turn, content) for turn in turns)
    if form == "llava":
        images = [_get(value, "image", str)]
    elif "images" in value or not images:
        images = _get(value, "images", list)
    if more or len(images) != 1 or not isinstance(images[0], str) or not images[0]:
        raise ValueError(f"has {len(images) + len(more)} pictures or one that is no path; one path is wanted")
    if IMAGE in text:
        raise ValueError(f"has {IMAGE} in the answer; take it out")
    if asked.count(IMAGE) != 1:
        raise ValueError(f"has {IMAGE} {asked.count(IMAGE)} times in the question; once is wanted")
    before, _, after = asked.partition(IMAGE)
    if before and after:
        raise ValueError(f"has {IMAGE} amid the question; put it first")
    return Example(images[0], text, before.removesuffix("\n") or after.removeprefix("\n"))


def _get(value: dict[str, Any], key: str, kind: type[Any]) -> Any:
    if key not in value:
        raise ValueError(f"lacks {key!r}; it has {', '.join(map(repr, value)) or 'nothing'}")
    if not isinstance(value[key], kind):
        wanted = "string" if kind is str else "list"
        raise ValueError(f"{key!r} is a {type(value[key]).__name__}; a {wanted} is wanted")
    return value[key]


def _content(turn: dict[str, Any], key: str) -> tuple[str, list[Any]]:
    """Return what a turn says, with `IMAGE` for each picture among its parts, and the paths these name."""
    said = turn.get(key)
    if isinstance(said, str):
        return said, []
    if not isinstance(said, list) or not all(isinstance(part, dict) for part in said):
        raise ValueError(f"{key!r} is a {type(said).__name__}; a string is wanted")
    texts, images = [], []
    for part in said:
        kind = part.get("type")
        if kind == "text":
            texts.append(_get(part, "text", str))
        elif kind in ("image", "image_url"):
            texts.append(IMAGE)
            named = part.get(kind)
            images += [] if named is None else [named.get("url") if isinstance(named, dict) else named]
        else:
            raise ValueError(f"has a part of type {kind!r}; text and image are wanted")
    return "\n".join(texts), images


def choose_prompt(prompts: Sequence[str], seed: int, number: int) -> str:
    """Choose the prompt of a picture: the same for the same list, seed and number, whatever came before.

    Parameters
    ----------
    prompts
        At least one.
    seed, number
        >= 0.
    """
    if not prompts:
        raise ValueError("the list of prompts is empty; at least one is wanted")
    return prompts[int(np.random.default_rng([seed, number, _PROMPT_STREAM]).integers(len(prompts)))]


def examples_from_dataset(
    folder: str | os.PathLike[str],
    prompts: Sequence[str] = PROMPTS,
    seed: int = 0,
    *,
    empty_text: str = "",
    absolute: bool = False,
) -> Iterator[Example]:
    """Make an example of each picture of a finished data set.

    Parameters
    ----------
    folder
        The data set. Where its pictures are in tars these must be unpacked beside, each in a folder of its name.
    prompts, seed
        See `choose_prompt`.
    empty_text
        What is to be answered where a picture has no caption.
    absolute
        Whether paths begin at the root; else at the data set's folder.

    Yields
    ------
    Example
        By number.

    Raises
    ------
    SynthesisError
        Where the folder is no finished data set, or its tars are not unpacked.
    """
    place = Path(folder)
    tars = read_header(place)["container"] == "tar"
    base = os.path.abspath(place)  # noqa: PTH100 - links stay as they are
    for row in read_manifest(place, ["file_name", "number", "text"]):
        name = row["file_name"]
        if tars:
            name = name.replace(".tar/", "/")
            if not (place / name).exists():
                raise SynthesisError(
                    f"{place / name}: is only in a tar, where trainers do not find it; unpack them: "
                    'for tar in pictures/*.tar; do mkdir -p "${tar%.tar}" && tar -xf "$tar" -C "${tar%.tar}"; done'
                )
        image = f"{base}/{name}" if absolute else name
        yield Example(image, row["text"] or empty_text, choose_prompt(prompts, seed, row["number"]))
