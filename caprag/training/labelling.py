"""Pictures without captions made into training examples: a vision-language model is asked several times about each.

Transcriptions of a picture must agree, and the one in the middle is kept; descriptions are kept each with its question.
What is answered is noted as it comes, beside the output, and a run that was stopped goes on from there. What this
module does not know: whether answers that agree are right, and whether a picture's file has changed between two runs.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

from caprag.errors import CapragError, FrameError, ModelError, SynthesisError
from caprag.progress import progress_bar
from caprag.recognition.frames import open_frame
from caprag.synthesis.conversations import IMAGE, Example, Form, choose_prompt, write_conversations
from caprag.training.agreement import choose, is_refusal, spoken

if TYPE_CHECKING:
    from caprag.training.describers import Describer
    from caprag.types import Embedder

Task = Literal["transcribe", "describe"]
"""Read the text in a picture, where there is one right answer; or say anything about it."""

_KIND = "caprag label"


@dataclass(frozen=True, slots=True)
class LabelReport:
    """What became of the pictures.

    Attributes
    ----------
    pictures
        All that were given, each once; the sum of the next four.
    kept
        Gave at least one example.
    disagreeing
        Whose answers differ too much, or of several of which one was left.
    empty
        Without any answer, or with refusals only.
    unreadable
        Which can't be opened.
    examples
        Written.
    refusals
        Answers that tell that there is none, or hold the mark of a picture, which none may; dropped.
    """

    pictures: int
    kept: int
    disagreeing: int
    empty: int
    unreadable: int
    examples: int
    refusals: int

    def __str__(self) -> str:
        return (
            f"{self.pictures} pictures: {self.kept} kept, {self.disagreeing} disagreeing, {self.empty} empty, "
            f"{self.unreadable} unreadable; {self.examples} examples, {self.refusals} refusals dropped"
        )


def answers_file(out: str | os.PathLike[str]) -> Path:
    """Return where answers are noted: ``labels.answers.jsonl`` beside ``labels.jsonl``."""
    place = Path(out)
    return place.with_name(f"{place.stem}.answers.jsonl")


def label_pictures(
    pictures: Sequence[str | os.PathLike[str]],
    describer: Describer,
    prompts: Sequence[str],
    out: str | os.PathLike[str],
    form: Form = "llava",
    *,
    task: Task = "transcribe",
    disagreement: float = 0.1,
    embedder: Embedder | None = None,
    similarity: float = 0.5,
    batch_size: int = 8,
    absolute: bool = False,
    seed: int = 0,
    on_error: Callable[[CapragError], None] | None = None,
    progress: bool = False,
) -> LabelReport:
    """Ask a model about pictures, and write its answers as training examples.

    Parameters
    ----------
    pictures
        Files; the order of the examples.
    describer
        Who answers; answers of another, or of the same with other settings, are not mixed in.
    prompts
        Questions, at least one, all different; each picture is asked all of them.
    out
        File to write, see `caprag.synthesis.conversations`. Answers are noted in `answers_file`.
    form
        Of the file.
    task
        See `Task`. A transcription makes one example a picture, whose question is drawn from `prompts`; descriptions
        make one a question.
    disagreement
        Of transcriptions: the most that two may disagree, in [0, 1]; see `caprag.training.agreement.disagreement`.
        One prompt has nothing to agree with: all its answers are kept.
    embedder
        Of descriptions: compares those of one picture; ``None`` keeps all.
    similarity
        Least cosine of any two descriptions of a picture, in [-1, 1]; below, none of them is kept.
    batch_size
        Pictures asked at a time, >= 1.
    absolute
        Write paths from the root on; else from the folder of `out`.
    seed
        Of the draw of questions, >= 0.
    on_error
        Called with the error of each picture that can't be opened and each example that can't be written; ``None``
        raises it.
    progress
        Whether to show how far it is.

    Returns
    -------
    LabelReport
        Counts.

    Raises
    ------
    ModelError
        Where the notes are of another model, of other settings, or of another run that is still at work, or the
        describer fails. What was answered before is kept.
    SynthesisError
        Where the file can't be written, or nothing is left to write.
    ValueError
        For a wrong argument.

    Notes
    -----
    Whenever a run is stopped, the file is in the end the same, byte for byte, as that of one that was not: each call of
    the describer has the same pictures in it.
    """
    if task not in get_args(Task):
        raise ValueError(f"task is {task!r}; known are {', '.join(get_args(Task))}")
    if not prompts or len(set(prompts)) < len(prompts):
        raise ValueError(f"prompts are {list(prompts)!r}; at least one is wanted, and each once")
    for prompt in prompts:
        if IMAGE in prompt or not prompt.strip():
            raise ValueError(f"a prompt is {prompt!r}; wanted is a text without {IMAGE}, which is put before it")
    for name, value, low in (("disagreement", disagreement, 0.0), ("similarity", similarity, -1.0)):
        if not low <= value <= 1:
            raise ValueError(f"{name} is {value}; {low:g} to 1 is wanted")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    paths = {_name(path, out, absolute): Path(path) for path in pictures}
    with _Notes(answers_file(out), describer) as notes:
        unreadable = _ask(paths, describer, prompts, notes, batch_size, on_error, progress)
        said = {name: [spoken(notes.answers[name, p]) for p in prompts] for name in paths if name not in unreadable}
    usable = {
        name: ["" if is_refusal(answer) or IMAGE in answer else answer for answer in answers]
        for name, answers in said.items()
    }
    refusals = sum(usable[name].count("") - answers.count("") for name, answers in said.items())
    empty = sum(not any(answers) for answers in usable.values())
    if task == "transcribe":
        found = _transcriptions(usable, prompts, disagreement, seed, list(paths))
    else:
        found = _descriptions(usable, prompts, embedder, similarity, progress)
    kept = len({example.image for example in found})
    counts = {"pictures": len(paths), "kept": kept, "disagreeing": len(usable) - empty - kept, "empty": empty,
              "unreadable": len(unreadable), "refusals": refusals}  # fmt: skip
    if not found:
        raise SynthesisError(
            f"{out}: no example is left to write ({LabelReport(examples=0, **counts)}); see {answers_file(out)}"
        )
    return LabelReport(examples=write_conversations(found, out, form, on_error=on_error), **counts)


def _name(path: str | os.PathLike[str], out: str | os.PathLike[str], absolute: bool) -> str:
    """Return a picture's path as examples have it; links stay as they are."""
    whole = os.path.abspath(path)  # noqa: PTH100
    return whole if absolute else os.path.relpath(whole, Path(os.path.abspath(out)).parent)  # noqa: PTH100


def _ask(
    paths: Mapping[str, Path],
    describer: Describer,
    prompts: Sequence[str],
    notes: _Notes,
    batch_size: int,
    on_error: Callable[[CapragError], None] | None,
    progress: bool,
) -> set[str]:
    """Ask what is not answered yet; return the names of pictures that can't be opened."""
    unreadable: set[str] = set()
    names = list(paths)
    with progress_bar(len(names) * len(prompts), "label", " answers", show=progress) as bar:
        for first in range(0, len(names), batch_size):
            group = names[first : first + batch_size]
            if not all((name, prompt) in notes.answers for name in group for prompt in prompts):
                images = {}
                for name in group:
                    try:
                        images[name] = open_frame(paths[name])
                    except FrameError as error:
                        if on_error is None:
                            raise
                        on_error(error)
                        unreadable.add(name)
                for prompt in prompts:
                    missing = [name for name in images if (name, prompt) not in notes.answers]
                    if missing:
                        # All of the group, though a killed run may have noted some: a batch of others could answer
                        # otherwise in the last bits, and so in words.
                        answers = describer.complete_batch(list(images.values()), [prompt] * len(images))
                        by_name = dict(zip(images, answers, strict=True))
                        notes.add([(name, prompt, by_name[name]) for name in missing])
            bar.update(len(group) * len(prompts))
    return unreadable


def _transcriptions(
    said: Mapping[str, Sequence[str]], prompts: Sequence[str], disagreement: float, seed: int, names: Sequence[str]
) -> list[Example]:
    numbers = {name: number for number, name in enumerate(names)}
    found = []
    for name, answers in said.items():
        left = [answer for answer in answers if answer]
        # One answer that is left of several agrees with nobody.
        if not left or (len(left) == 1 < len(prompts)) or (place := choose(left, disagreement)) is None:
            continue
        found.append(Example(name, left[place], choose_prompt(prompts, seed, numbers[name])))
    return found


def _descriptions(
    said: Mapping[str, Sequence[str]],
    prompts: Sequence[str],
    embedder: Embedder | None,
    similarity: float,
    progress: bool,
) -> list[Example]:
    made = [
        [Example(name, answer, prompt) for answer, prompt in zip(answers, prompts, strict=True) if answer]
        for name, answers in said.items()
    ]
    if embedder is not None:
        vectors = embedder.embed([example.text for several in made for example in several], progress=progress)
        place = 0
        for number, several in enumerate(made):
            part = vectors[place : place + len(several)]
            place += len(several)
            if several and float((part @ part.T).min()) < similarity:
                made[number] = []
    return [example for several in made for example in several]


class _Notes:
    """Answers as they come: a line that names the model and its settings, then one JSON object a line.

    A line cut off by a kill is dropped.
    """

    def __init__(self, path: Path, describer: Describer) -> None:
        self._path = path
        self._header = {"notes": _KIND, "model": describer.name, **describer.settings}
        self.answers: dict[tuple[str, str], str] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: IO[bytes] = path.open("a+b")
        except OSError as error:
            raise SynthesisError(
                f"{path}: can't be written ({error.strerror or error}); choose another file"
            ) from error
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_up(self._stream)
        except BlockingIOError:
            self._stream.close()
            raise ModelError(f"{path}: another run is at work there; wait for it, or choose another file") from None
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> _Notes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _take_up(self, stream: IO[bytes]) -> None:
        stream.seek(0)
        end = 0
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                break
            row = self._row(line, number)
            if number == 1 and row != self._header:
                raise ModelError(
                    f"{self._path}: holds answers of {_told(row)}, not of {_told(self._header)}; choose another file, "
                    "or remove it"
                )
            if number > 1:
                self.answers[row["image"], row["prompt"]] = row["answer"]
            end += len(line)
        stream.truncate(end)
        if not end:
            self._write([self._header])

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
            if row.get("notes") == _KIND if number == 1 else {"image", "prompt", "answer"} <= row.keys():
                return dict(row)
        except (ValueError, AttributeError):
            pass
        raise ModelError(f"{self._path}:{number}: is no answer that was noted; choose another file, or remove it")

    def add(self, rows: Sequence[tuple[str, str, str]]) -> None:
        """Note answers: picture, prompt, answer."""
        self._write([{"image": image, "prompt": prompt, "answer": answer} for image, prompt, answer in rows])
        self.answers.update({(image, prompt): answer for image, prompt, answer in rows})

    def _write(self, rows: Sequence[Mapping[str, object]]) -> None:
        self._stream.write(b"".join(_line(row) for row in rows))
        self._stream.flush()


def _told(header: Mapping[str, object]) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in header.items() if name not in ("notes", "model"))
    return f"{header.get('model')} ({settings})"


def _line(row: Mapping[str, object]) -> bytes:
    # Names that are not UTF-8 are written as escapes, and read back as they were.
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row) + "\n").encode()
