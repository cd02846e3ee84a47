"""The steps of scripts/experiment, done one after another in a folder that remembers them.

A step whose result is there is not done again; one that was stopped is gone on with. What was made with other options
is never mixed up with what is asked for now. Knows no step's work.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment_files import shown

from caprag.errors import CapragError
from caprag.paths import left_over, replacing

NOTES = "experiment.json"


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the way.

    Attributes
    ----------
    name, after
        Its name, and that of the step whose result it takes.
    options
        All that decides its result, as JSON takes it, by the names that users know.
    makes, begins
        What is there when it is done, and what may be there before.
    work
        Does it, or goes on with it.
    active
        Whether it is asked for.
    """

    name: str
    after: str
    options: Mapping[str, Any]
    makes: tuple[Path, ...]
    work: Callable[[], None]
    begins: tuple[Path, ...] = ()
    active: bool = True

    @property
    def there(self) -> list[Path]:
        """What it has left so far."""
        return [path for path in (*self.makes, *self.begins) if path.exists()]


class RunFolder:
    """A folder, and notes in it of what was done with which options.

    Attributes
    ----------
    lock
        Descriptor of the lock while steps are done; a program that is given it keeps the folder locked, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = -1
        self._notes: dict[str, Any] = {}

    def go(self, steps: Sequence[Step]) -> None:
        """Do those steps that are asked for and not done yet.

        Raises
        ------
        CapragError
            Before anything is done: where the folder holds something else, another call is at work in it, or a result
            was made with other options, which are named.
        """
        with self._locked():
            self._notes = self._read()
            wanted = [step for step in steps if step.active]
            self._check(steps)
            for number, step in enumerate(wanted, 1):
                if self._is_done(step):
                    say(f"[{number}/{len(wanted)}] {step.name}: done before")
                    continue
                say(f"[{number}/{len(wanted)}] {step.name}")
                self._note(step, done=False)
                step.work()
                self._note(step, done=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise CapragError(f"{self.path}: can't be made ({error.strerror}); name another folder (--out)") from error
        try:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CapragError(f"{self.path}: another call is at work there; try again when it is done") from None
            yield
        finally:
            os.close(self.lock)

    def _read(self) -> dict[str, Any]:
        path = self.path / NOTES
        if not path.exists():
            if not all(map(left_over, self.path.iterdir())):
                raise CapragError(f"{self.path}: is not empty, and holds no experiment; name another folder (--out)")
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise CapragError(f"{path}: is damaged ({error}); name another folder (--out)") from error

    def _note(self, step: Step, *, done: bool) -> None:
        self._notes[step.name] = {"options": step.options, "done": done}
        with replacing(self.path / NOTES) as stream:
            stream.write((json.dumps(self._notes, ensure_ascii=False, indent=1) + "\n").encode("utf-8", "replace"))

    def _is_done(self, step: Step) -> bool:
        return bool(self._notes.get(step.name, {}).get("done")) and all(path.exists() for path in step.makes)

    def _check(self, steps: Sequence[Step]) -> None:
        """Raise CapragError where what is there was made with other options, or from what is not there any more."""
        changed = [step for step in steps if step.active and step.there and self._before(step) != _as_read(step)]
        if changed:
            differing = {
                f"{name} was {before.get(name)!r} and is {now.get(name)!r}": None
                for before, now in ((self._before(step), _as_read(step)) for step in changed)
                for name in sorted({*before, *now})
                if before.get(name) != now.get(name)
            }
            raise CapragError(
                f"{self.path}: {', '.join(step.name for step in changed)}: begun or done with other options: "
                f"{'; '.join(differing)}. Give them as they were, name another folder (--out), or do it anew "
                f"{_remedy(changed, steps)}"
            )
        for step in steps:
            left = [path for one in _following([step], steps)[1:] for path in one.there]
            if step.active and left and not self._is_done(step):
                raise CapragError(
                    f"{self.path}: {step.name} is still to be done, but {shown([str(path) for path in left])} came of "
                    f"what it made before; put that back, name another folder (--out), or do it anew "
                    f"{_remedy([step], steps)}"
                )

    def _before(self, step: Step) -> dict[str, Any]:
        return dict(self._notes.get(step.name, {}).get("options", {}))


def _as_read(step: Step) -> dict[str, Any]:
    """Return a step's options as they read when they come back from the notes."""
    return dict(json.loads(json.dumps(step.options)))


def _following(first: Sequence[Step], steps: Sequence[Step]) -> list[Step]:
    """Return some steps, and all whose results hang on theirs."""
    names = {step.name for step in first}
    for step in steps:
        if step.after in names:
            names.add(step.name)
    return [step for step in steps if step.name in names]


def _remedy(first: Sequence[Step], steps: Sequence[Step]) -> str:
    found = [path for step in _following(first, steps) for path in step.there]
    outermost = [str(path) for path in found if not any(other in path.parents for other in found)]
    return f"with all that follows from it, after: rm -r {shlex.join(dict.fromkeys(outermost))}"


def say(message: str) -> None:
    """Print a note."""
    print(message, file=sys.stderr, flush=True)
