"""From text to a scored submission: scripts/experiment TEXT... --model MODEL --out RUN.

Prepares a corpus and holds a part of it out, draws pictures of captions of both, writes them as conversations, trains a
model on them, reads the pictures that were held out and those of a folder, writes submission.csv, and scores.

Each step is a verb of caprag, shown as it is called; its options are options here, with the step's name in front.
RUN keeps what every step made. The same call goes on where it was stopped, within a step too, and does nothing twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiment_files import absolute, find_recipe, noted, read_ids, read_readings, shown, write_submission
from experiment_options import VERBS, known, option_name, parse, parse_verb
from experiment_steps import RunFolder, Step, say

from caprag.corpus import list_files
from caprag.errors import CapragError, FrameError
from caprag.evaluation.texts import evaluate_text, match_texts, read_texts
from caprag.paths import replacing
from caprag.recognition import list_frames, open_frame
from caprag.recognition.frames import SUFFIXES
from caprag.results import path_name
from caprag.synthesis.conversations import examples_from_dataset
from caprag.training import split_sentences
from caprag.training.recognizer import Recipe, RecognizerOptions
from caprag.types import Sentence

FREE = {"workers", "stats", "plot"}
"""Options of the verbs that change no result."""

LARGEST_BLOCK = 200
"""Lines of a source that are held out together, at most."""


class StoppedError(CapragError):
    """A verb came to no end; `status` is what it ended with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Experiment:
    """One run: its options and its steps. What can be found wrong is found before anything is done."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        run = absolute(given.out)
        self.folder, self.parts = RunFolder(run), ("train", "held-out") if given.held_out_count else ("train",)
        self.corpus, self.model = run / "corpus/all.jsonl", run / "model"
        self.texts = {name: run / "corpus" / f"{name}.txt" for name in self.parts}
        self.drawn = {name: run / "pictures" / name for name in self.parts}
        self.readings = {"pictures": run / "readings.jsonl", "held-out": run / "readings-held-out.jsonl"}
        self.scores = {"pictures": run / "scores.json", "held-out": run / "scores-held-out.json"}
        self.submission = run / "submission.csv"
        # A run may be gone on with from another folder.
        self.pictures = [absolute(path) for path in given.pictures or ()]
        self.sources = list_files(given.text)
        seed = [] if given.seed is None else ["--seed", str(given.seed)]
        # Where an option is given twice, the later wins.
        self.passed = {
            "corpus": given.corpus, "synth": [*seed, *given.synth],
            "conversations": ["--to", "llava", *seed, *given.conversations], "train": [*seed, *given.train],
            "read": given.read,
        }  # fmt: skip
        needed = {"synth": [], "read": ["x"]}
        self.options = {
            step: parse_verb(step, [*needed.get(step, ["x", "--out", "x"]), *passed])
            for step, passed in self.passed.items()
        }
        suffix = ".txt" if self.options["conversations"]["to"] == "lines" else ".json"
        self.files = {name: run / "conversations" / f"{name}{suffix}" for name in self.parts}
        self.recipe = None if given.recipe is None else find_recipe(given.recipe)
        self.base = self._base()
        self.rows: dict[str, Path] = {}
        self.truth: dict[str, list[str]] = {}
        if self.pictures:
            self._take_rows()
        elif given.order is not None or given.truth is not None:
            raise CapragError("--order and --truth are for --pictures, which is missing; name a folder of pictures")

    def _base(self) -> str:
        """Return the model to train, and look through the options of the training."""
        plan = Recipe("", "", {}) if self.recipe is None else Recipe.read(self.recipe)
        names = {one.name for one in dataclasses.fields(RecognizerOptions)}
        chosen = {name: value for name, value in self.options["train"].items() if name in names}
        try:
            plan.options(**{name: value for name, value in chosen.items() if value not in (None, [], ())})
        except (TypeError, ValueError) as error:
            raise CapragError(f"--train-...: {error}") from error
        base = str(self.given.model or plan.model)
        if not base:
            raise CapragError("--model is missing; name the model to train, or a --recipe that names one")
        if not Path(base).is_dir() and (base.count("/") > 1 or base.startswith((".", "/"))):
            raise CapragError(f"{base}: there is no such folder; give that of a saved model, or a hub id as owner/name")
        # Adapters note where their base is.
        return str(absolute(Path(base))) if Path(base).is_dir() else base

    def _take_rows(self) -> None:
        """Find the picture of each row of the submission, and what is true of it."""
        given, named = self.given, dict[str, Path]()
        for path in list_frames(self.pictures):
            if (other := named.setdefault(path_name(Path(path.stem)), path)) != path:
                raise CapragError(f"{other} and {path} would have the same id, {path.stem}; rename one")
        folders = ", ".join(map(str, self.pictures))

        def plain(name: str) -> str:
            """Return the id of a picture that may be named with its suffix."""
            path = Path(name)
            return path.stem if name not in named and path.suffix.lower() in SUFFIXES else name

        ids = list(named) if given.order is None else read_ids(given.order, given.id_column)
        if lost := [name for name in ids if plain(name) not in named]:
            raise CapragError(
                f"{given.order}: {len(lost)} of its {len(ids)} ids have no picture in {folders}: {shown(lost)}; name "
                "the folder that has them, or the column that the ids are in (--id-column)"
            )
        self.rows = {name: named[plain(name)] for name in ids}
        if given.truth is not None:
            written = {plain(name): name for name in ids}
            truth = read_texts(given.truth, key=given.id_column, column=given.text_column)
            self.truth = {written.get(plain(name), name): texts for name, texts in truth.items()}
            match_texts({name: [""] for name in ids}, self.truth, (str(given.order or folders), str(given.truth)))

    def steps(self) -> list[Step]:
        """Return the way, those parts with it that are not asked for."""
        given, run, held = self.given, self.folder.path, bool(self.given.held_out_count)
        base = Path(self.base)
        scoring = {"--metrics": given.metrics, "--samples": given.samples, "--seed": given.seed}
        share = {"--held-out-share": given.held_out_share} if held else {"--held-out-count": 0}
        return [
            Step(
                "corpus", "", {"TEXT": noted(self.sources), **share, "--seed": given.seed, **self._noted("corpus")},
                (self.corpus, *self.texts.values()), self.prepare,
            ),
            Step(
                "synth", "corpus", {"--held-out-count": given.held_out_count, **self._noted("synth")},
                tuple(folder / "manifest.parquet" for folder in self.drawn.values()), self.draw,
                begins=tuple(self.drawn.values()),
            ),
            Step("conversations", "synth", self._noted("conversations"), tuple(self.files.values()), self.converse),
            Step(
                "train", "conversations",
                {"--model": noted(base) if base.is_dir() else self.base, "--recipe": noted(self.recipe),
                 **self._noted("train")},
                (self.model,), self.train, begins=(run / "training",),
            ),
            Step(
                "read held-out", "train", self._noted("read"), (self.readings["held-out"],), self.read_held_out,
                active=held,
            ),
            Step(
                "score held-out", "read held-out", scoring, (self.scores["held-out"],), self.score_held_out, active=held
            ),
            Step(
                "read", "train", {"--pictures": noted(self.pictures), **self._noted("read")},
                (self.readings["pictures"],), self.read, active=bool(self.pictures),
            ),
            Step(
                "submit", "read", {"--order": noted(given.order), "--id-column": given.id_column}, (self.submission,),
                self.submit, active=bool(self.pictures),
            ),
            Step(
                "score", "submit", {"--truth": noted(given.truth), "--text-column": given.text_column, **scoring},
                (self.scores["pictures"],), self.score, active=given.truth is not None,
            ),
        ]  # fmt: skip

    def _noted(self, step: str) -> dict[str, Any]:
        options = self.options[step]
        return {option_name(step, name): noted(options[name]) for name in sorted(known(step)) if name not in FREE}

    def prepare(self) -> None:
        """Make the corpus, and hold a part of it out: whole documents, and nothing that is nearly the same."""
        self._call("corpus", [*self.given.text, "--out", self.corpus, "--force"], self.corpus)
        with self.corpus.open(encoding="utf-8") as lines:
            read = [Sentence(row["text"], row["source"], row["line"]) for row in map(json.loads, lines)]
        share = self.given.held_out_share if "held-out" in self.parts else 0.0
        block = max(1, min(LARGEST_BLOCK, int(len(read) * share)))
        split = split_sentences(read, dev=0.0, test=share, block=block, seed=self.given.seed or 0)
        for name, places in (("train", split.train), ("held-out", split.test)):
            if name in self.parts:
                if not places:
                    raise CapragError(f"of {len(read)} sentences none is left for {name}; give more text")
                with replacing(self.texts[name]) as stream:
                    stream.writelines(f"{read[place].text}\n".encode() for place in places)
        say(f"{len(split.train)} sentences to train on, {len(split.test)} held out, {len(split.dropped)} near these")

    def draw(self) -> None:
        """Draw the pictures; other ones of what is held out, not those with other text."""
        seed = int(self.options["synth"]["seed"]) + 1
        own = {"held-out": ["--count", self.given.held_out_count, "--seed", seed]}
        for name, folder in self.drawn.items():
            arguments = ["--text", self.texts[name], "--out", folder]
            self._call("synth", arguments, folder / "manifest.parquet", own.get(name, []))

    def converse(self) -> None:
        """Write the pictures as conversations, with paths from there, so that a run can be moved."""
        for name, path in self.files.items():
            self._call("conversations", [self.drawn[name], "--out", path, "--relative-to", path.parent], path)

    def train(self) -> None:
        """Train the model, or its adapters."""
        if self.model.exists():
            return  # it is laid there whole
        arguments: list[object] = [self.files["train"], "--model", self.base, "--out", self.model]
        arguments += ["--work", self.folder.path / "training"]
        if self.recipe is not None:
            arguments += ["--recipe", self.recipe]
        if "held-out" in self.files:
            arguments += ["--held-out", self.files["held-out"]]
        self._call("train", arguments, self.model)

    def read_held_out(self) -> None:
        """Read what was drawn to be held out."""
        self._read([self.drawn["held-out"] / "pictures"], self.readings["held-out"], list(self._held_out()))

    def read(self) -> None:
        """Read the pictures that were given."""
        self._read(self.pictures, self.readings["pictures"], [path_name(path) for path in self.rows.values()])

    def submit(self) -> None:
        """Write the readings in the order that was asked for."""
        texts = read_readings(self.readings["pictures"])
        write_submission(self.submission, ((name, texts.get(path_name(path), "")) for name, path in self.rows.items()))

    def score_held_out(self) -> None:
        """Score what was read of the pictures that were held out."""
        texts, truth = read_readings(self.readings["held-out"]), self._held_out()
        self._score("held-out", [texts.get(name, "") for name in truth], {name: [truth[name]] for name in truth})

    def score(self) -> None:
        """Score the submission."""
        texts = read_texts(self.submission)
        self._score("pictures", match_texts(texts, self.truth, (str(self.submission), "the truth")), self.truth)

    def show(self) -> None:
        """Print what came of it."""
        print(f"model       {self.model}")
        if self.pictures:
            print(f"submission  {self.submission}, {len(self.rows)} rows")
        for name, wanted in (("held-out", "held-out" in self.parts), ("pictures", self.given.truth is not None)):
            if wanted:
                report = json.loads(self.scores[name].read_text(encoding="utf-8"))
                figures = ", ".join(
                    f"{one['metric']} {one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}]"
                    for one in report["figures"]
                )
                print(f"{name:<11} {figures}, {report['items']} pictures")

    def _call(self, step: str, arguments: Sequence[object], result: Path, more: Sequence[object] = ()) -> None:
        """Call a verb; where it could not use all of its input, which it names, the way goes on."""
        words = [*VERBS[step], *map(str, arguments), *self.passed[step], *map(str, more)]
        words += ["--quiet"] if self.given.quiet else []
        say(f"$ caprag {shlex.join(words)}")
        launch = shlex.split(self.given.launch) if step == "train" and self.given.launch else [sys.executable]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        try:
            # The lock stays with the verb where this program is killed.
            status = subprocess.run(
                [*launch, "-m", "caprag", *words], env={**os.environ, "PATH": path}, pass_fds=[self.folder.lock],
                check=False,
            ).returncode  # fmt: skip
        except OSError as error:
            raise CapragError(f"{launch[0]}: can't be started ({error.strerror}); see to --launch") from error
        if status == 1 and result.exists():
            say(f"{step}: goes on without what is named above")
        elif status:
            raise StoppedError(
                f"{step} came to no end (status {status}); what was made is kept, and the same call goes on after it",
                status if status > 0 else 128 - status,
            )

    def _read(self, folders: Sequence[Path], out: Path, wanted: Sequence[str]) -> None:
        self._call("read", [*folders, "--recognizer", self.model, "--out", out], out)
        texts = read_readings(out)
        lost = [name for name in wanted if name not in texts]
        for name in lost:
            try:
                open_frame(name)
            except FrameError:
                continue
            raise StoppedError(f"{name} was not read; the same call goes on", 1)
        if lost:
            say(f"{len(lost)} pictures can't be opened, and count as read without a text: {shown(lost)}")

    def _held_out(self) -> dict[str, str]:
        """Return the captions of the pictures that were held out, by their paths."""
        folder, empty = self.drawn["held-out"], self.options["conversations"]["empty_text"]
        return {path_name(folder / one.image): one.text for one in examples_from_dataset(folder, empty_text=empty)}

    def _score(self, name: str, texts: Sequence[str], truth: Mapping[str, Sequence[str]]) -> None:
        metrics = [part.strip() for part in self.given.metrics.split(",") if part.strip()]
        try:
            report = evaluate_text(
                texts, list(truth.values()), metrics, ids=list(truth), name=name, samples=self.given.samples,
                seed=self.given.seed or 0,
            )  # fmt: skip
        except ValueError as error:
            raise CapragError(f"{name} can't be scored: {error}") from error
        report.save(self.scores[name])


def main(arguments: Sequence[str] | None = None) -> int:
    """Go the way; return the exit status."""
    given = parse(arguments, __doc__ or "")
    try:
        experiment = Experiment(given)
        experiment.folder.go(experiment.steps())
        experiment.show()
    except KeyboardInterrupt:
        say("experiment: stopped; what was made is kept, and the same call goes on after it")
        return 130
    except StoppedError as error:
        say(f"experiment: {error}")
        return error.status
    except CapragError as error:
        say(f"experiment: {error}")
        return 2
    except OSError as error:
        say(f"experiment: {error.filename or 'the output'}: {error.strerror or error}; what was made before is kept")
        return 1
    return 0


if __name__ == "__main__":
    # The verb that is at work ends with this program, however it is asked to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
