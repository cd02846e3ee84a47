"""What a recognizer is trained on: pictures with question and answer, from files or drawn on the spot.

Each example is found by its number, so that a training that was stopped goes on with the same ones. Pictures are opened
when they are asked for. Knows no model.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Protocol

from PIL import Image

from caprag.errors import CapragError, CorpusError, FrameError
from caprag.recognition.frames import open_frame
from caprag.synthesis.conversations import PROMPTS, choose_prompt, examples_from_dataset, locate_conversations
from caprag.synthesis.generator import Synthesizer
from caprag.synthesis.run import Sentences

_IN_A_ROW = 100


@dataclass(frozen=True, slots=True)
class Item:
    """A picture to learn from.

    Attributes
    ----------
    image
        RGB.
    text
        What is to be answered; empty where there is no caption.
    prompt
        What is asked; empty leaves it to the training.
    """

    image: Image.Image
    text: str
    prompt: str


@dataclass(frozen=True, slots=True, order=True)
class Skipped:
    """A picture that could not be had.

    Attributes
    ----------
    source
        File or folder that names it.
    where
        Line or element there.
    reason
        What is wrong with which picture.
    """

    source: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source}, {self.where}: {self.reason}"


class ExampleSource(Protocol):
    """Numbered examples; those that `train_recognizer` takes."""

    epoch: int
    notes: Path | None

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, number: int) -> Item:
        """Return one of them."""
        ...

    def set_epoch(self, epoch: int) -> None:
        """Note which pass this is."""
        ...

    def signature(self) -> str:
        """Return a text that differs where other examples would come."""
        ...


class _Source:
    """What the sources share: the pass, and notes of what was skipped.

    The notes are lines that any process adds to one file: a data loader's workers are processes of their own.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.notes: Path | None = None

    def set_epoch(self, epoch: int) -> None:
        """Note which pass this is; the trainer says it."""
        self.epoch = epoch

    def _note(self, skipped: Skipped) -> None:
        if self.notes is not None:
            line = json.dumps([skipped.source, skipped.where, skipped.reason], ensure_ascii=False) + "\n"
            with self.notes.open("ab", buffering=0) as stream:
                stream.write(line.encode("utf-8", errors="backslashreplace"))


def read_notes(path: Path) -> list[Skipped]:
    """Read what was skipped: each once, in the order of files and places."""
    if not path.exists():
        return []
    found = set()
    for line in path.read_bytes().splitlines():
        try:
            found.add(Skipped(*json.loads(line)))
        except ValueError:
            continue  # cut by a kill
    return sorted(found)


class FileExamples(_Source):
    """The examples of conversation files, and of folders that `caprag synth` wrote.

    A picture that is missing or broken is noted, and the next one in order that can be had takes its place, so that
    batches stay full.

    Parameters
    ----------
    paths
        Files of any form of `caprag.synthesis.conversations`, or data set folders.
    pictures
        Folder that the paths in files begin at; ``None``: the file's own.
    on_error
        Called with the error of each example that can't be read; ``None`` raises it.

    Raises
    ------
    CorpusError
        Where there is no example at all.
    SynthesisError
        For a file or folder that can't be read.
    TypeError
        Where `paths` is one path instead of a sequence of paths.
    """

    def __init__(
        self,
        paths: Sequence[str | PathLike[str]],
        *,
        pictures: str | PathLike[str] | None = None,
        on_error: Callable[[CapragError], None] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(paths, (str, bytes, PathLike)):
            raise TypeError(f"wanted is a sequence of paths, and one path was given: {paths!r}; write [path]")
        self._rows: list[tuple[int, str, str, str, str]] = []
        self._sources = [str(path) for path in paths]
        self._broken: set[int] = set()
        digest = hashlib.sha256()
        for source, path in enumerate(map(Path, paths)):
            if path.is_dir():
                base, found = path, ((f"row {n}", e) for n, e in enumerate(examples_from_dataset(path), 1))
            else:
                base = path.parent if pictures is None else Path(pictures)
                found = ((where, e) for where, e in locate_conversations(path, on_error=on_error))
            for where, example in found:
                row = (source, where, os.path.join(base, example.image), example.text, example.prompt)  # noqa: PTH118
                digest.update(json.dumps(row[2:]).encode())
                self._rows.append(row)
        if not self._rows:
            raise CorpusError(f"{', '.join(self._sources) or 'data'}: has no example; name a file of conversations")
        self._digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def signature(self) -> str:
        """Return a hash of paths, texts and prompts."""
        return self._digest

    def texts(self) -> list[str]:
        """Return the answers, in order."""
        return [row[3] for row in self._rows]

    def open(self, number: int) -> Item | None:
        """Return an example, or ``None`` where its picture can't be had, which is noted once."""
        if number in self._broken:
            return None
        source, where, path, text, prompt = self._rows[number]
        try:
            return Item(open_frame(path), text, prompt)
        except FrameError as error:
            reason = str(error)
        if not Path(path).exists():
            reason = f"{path} does not exist; restore it, or name the folder that paths begin at"
        self._broken.add(number)
        self._note(Skipped(self._sources[source], where, reason))
        return None

    def __getitem__(self, number: int) -> Item:
        for step in range(min(_IN_A_ROW, len(self))):
            item = self.open((number + step) % len(self))
            if item is not None:
                return item
        source, where, path, *_ = self._rows[number]
        raise FrameError(
            f"{self._sources[source]}, {where}: neither {path} nor any of the {step} pictures after it can be read; "
            "name the folder that paths begin at (--pictures)"
        )


class DrawnExamples(_Source):
    """Pictures straight from the synthesiser, never written to a disk; each pass has new ones.

    Parameters
    ----------
    sentences
        What is drawn; their count is that of a pass.
    synthesizer
        How it is drawn.
    prompts
        One of them is asked of each picture.
    """

    def __init__(self, sentences: Sentences, synthesizer: Synthesizer, prompts: Sequence[str] = PROMPTS) -> None:
        super().__init__()
        self._sentences, self._prompts = sentences, tuple(prompts)
        self._synthesizer = copy.copy(synthesizer)
        self._synthesizer.backgrounds = copy.copy(synthesizer.backgrounds)
        self._synthesizer.backgrounds.on_error = lambda error: self._note(Skipped("backgrounds", "", str(error)))

    def __len__(self) -> int:
        return self._sentences.count

    def signature(self) -> str:
        """Return a hash of a few pictures of the first pass."""
        digest = hashlib.sha256(str(len(self)).encode())
        for number in sorted({0, len(self) // 2, len(self) - 1}):
            item = self[number]
            digest.update(item.text.encode() + item.prompt.encode() + item.image.tobytes())
        return digest.hexdigest()

    def __getitem__(self, number: int) -> Item:
        drawn = self.epoch * len(self) + number
        picture = self._synthesizer.make(drawn, self._sentences.for_picture(drawn))
        prompt = choose_prompt(self._prompts, self._synthesizer.seed, drawn)
        return Item(Image.fromarray(picture.pixels), picture.label.text, prompt)
