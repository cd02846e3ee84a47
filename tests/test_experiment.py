"""From text to a scored submission, as a user calls it: a small run that is killed, gone on with, and called again."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_models
import torch
from drawn_fonts import save_font
from safetensors.torch import load_file
from tiny_models import SENTENCES, picture

from caprag.evaluation.metrics import count_errors
from caprag.recognition.vlm import VLMRecognizer
from caprag.synthesis.reading import read_manifest
from caprag.training.recognizer import RecognizerOptions, train_recognizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
sys.path.append(str(SCRIPTS))

import experiment  # noqa: E402

CHARACTERS = "你我他在這裡有沒看天今明海水山風雨花草樹人家門車馬書字夜日月"
ORDER = ("frame-3.png", "frame-0", "frame-2.png", "frame-1")
TRUTH = {f"frame-{n}": SENTENCES[n] for n in range(4)}


@dataclass(frozen=True)
class Done:
    """A run that came to its end: where it is, how it was called, and what it said."""

    run: Path
    arguments: tuple[str, ...]
    printed: str
    told: str

    def elsewhere(self, run: Path) -> tuple[str, ...]:
        """Return the call for another folder."""
        return tuple(str(run) if one == str(self.run) else one for one in self.arguments)


def call(arguments: tuple[str, ...]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SCRIPTS / "experiment.py"), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, encoding="utf-8", start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("experiment")
    base = tiny_models.llava(folder / "llava")
    draw = random.Random(0)
    lines = ["".join(draw.sample(CHARACTERS, draw.randint(6, 9))) for _ in range(24)]
    (folder / "text.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    save_font(folder / "font.ttf", CHARACTERS + "".join(map(chr, range(0x21, 0x7F))) + "，。？")
    (folder / "frames").mkdir()
    for number in range(4):
        picture(number).save(folder / "frames" / f"frame-{number}.png")
    (folder / "order.csv").write_text("id,text\n" + "".join(f"{name},?\n" for name in ORDER), encoding="utf-8")
    (folder / "truth.csv").write_text(
        "id,caption\n" + "".join(f"{name},{text}\n" for name, text in TRUTH.items()), encoding="utf-8"
    )
    arguments = tuple(
        map(
            str,
            [
                folder / "text.txt", "--model", base, "--out", folder / "run", "--seed", 3, "--quiet",
                "--held-out-count", 4, "--held-out-share", 0.2, "--synth-count", 8, "--synth-size", "160x90",
                "--synth-fonts", folder / "font.ttf", "--train-max-steps", 8, "--train-save-steps", 1,
                "--train-keep-checkpoints", 9, "--train-batch-size", 2, "--train-lora-rank", 2,
                "--train-learning-rate", 0.01, "--train-max-new-tokens", 4, "--read-max-new-tokens", 12,
                "--read-n-best", 1, "--read-device", "cpu", "--pictures", folder / "frames", "--order",
                folder / "order.csv", "--truth", folder / "truth.csv", "--text-column", "caption",
            ],
        )
    )  # fmt: skip
    process = call(arguments)
    first = folder / "run/training/checkpoints/checkpoint-1/trainer_state.json"
    while not first.exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / "run/model").exists()
    process = call(arguments)
    printed, told = process.communicate()
    assert process.returncode == 0, told
    return Done(folder / "run", arguments, printed, told)


def submission(run: Path) -> dict[str, str]:
    with (run / "submission.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["id", "text"]
    return {row[0]: row[1] for row in rows}


def contents(run: Path) -> Mapping[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.rglob("*") if path.is_file()}


def figures(printed: str, name: str) -> dict[str, float]:
    (line,) = re.findall(rf"^{name} .*$", printed, re.MULTILINE)
    return {metric: float(value) for metric, value in re.findall(r"(cer|mean-edits) ([\d.]+) \[", line)}


def test_the_submission_is_what_the_model_reads_in_the_order_asked_for(done: Done) -> None:
    found = submission(done.run)
    assert tuple(found) == ORDER
    reader = VLMRecognizer(done.run / "model", device="cpu", max_new_tokens=12)
    read = reader.recognize_batch([picture(n) for n in (3, 0, 2, 1)])
    assert [one[0].text for one in read] == list(found.values())
    assert any(found.values())


def test_the_figures_are_those_of_the_evaluation(done: Done) -> None:
    found = submission(done.run)
    truth = [TRUTH[name.removesuffix(".png")] for name in found]
    letters, every = (count_errors(list(found.values()), truth, characters=kind) for kind in ("letters", "all"))
    assert figures(done.printed, "pictures") == {
        "cer": pytest.approx(letters.cer, abs=1e-4), "mean-edits": pytest.approx(every.mean_edits, abs=1e-4),
    }  # fmt: skip
    rows = {row["file_name"]: row["text"] for row in read_manifest(done.run / "pictures/held-out")}
    lines = (done.run / "readings-held-out.jsonl").read_text(encoding="utf-8").splitlines()
    read = {Path(row["image"]): row["text"] for row in map(json.loads, lines)}
    pairs = [(read[done.run / "pictures/held-out" / name], text) for name, text in rows.items()]
    assert len(pairs) == 4
    held = count_errors([text for text, _ in pairs], [text for _, text in pairs])
    assert figures(done.printed, "held-out")["cer"] == pytest.approx(held.cer, abs=1e-4)


def test_nothing_held_out_is_trained_on_and_options_reach_their_verbs(done: Done) -> None:
    train, held = (
        {row["text"] for row in read_manifest(done.run / "pictures" / name)} - {""} for name in ("train", "held-out")
    )
    assert train
    assert held
    sentences = (done.run / "corpus/train.txt").read_text(encoding="utf-8").split()
    assert not {line for text in held for line in text.split()} & set(sentences)
    options = json.loads((done.run / "model/run.json").read_text(encoding="utf-8"))["options"]
    assert (options["lora_rank"], options["max_steps"], options["learning_rate"], options["seed"]) == (2, 8, 0.01, 3)


def test_a_second_call_does_nothing_anew(done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(done.run)
    assert experiment.main(done.arguments) == 0
    printed, told = capsys.readouterr()
    assert printed == done.printed
    assert "$ caprag" not in told
    assert contents(done.run) == before


@pytest.mark.parametrize(
    ("given", "named", "removed"),
    [
        (["--train-lora-rank", "4"], "--train-lora-rank was 2 and is 4", "training"),
        (["--synth-damage", "light"], "--synth-damage was 'none' and is 'light'", "pictures/held-out"),
        (["--corpus-max-chars", "9"], "--corpus-max-chars was 15 and is 9", "corpus/all.jsonl"),
        (["--held-out-count", "5"], "--held-out-count was 4 and is 5", "model"),
        (["--read-n-best", "2"], "--read-n-best was 1 and is 2", "submission.csv"),
        (["--metrics", "cer"], "--metrics was 'cer,mean-edits' and is 'cer'", "scores-held-out.json"),
    ],
)
def test_another_option_is_refused_by_name(
    done: Done, given: list[str], named: str, removed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(done.run)
    assert experiment.main([*done.arguments, *given]) == 2
    told = capsys.readouterr().err
    assert named in told
    assert f" {done.run / removed}" in told.partition("rm -r")[2]
    assert "caprag read" not in told
    assert contents(done.run) == before


def test_another_text_is_noticed(done: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(done.run.parent, tmp_path / "all", dirs_exist_ok=True)
    moved = [one.replace(str(done.run.parent), str(tmp_path / "all")) for one in done.arguments]
    with (tmp_path / "all/text.txt").open("a", encoding="utf-8") as stream:
        stream.write("海水山風雨花\n")
    assert experiment.main(moved) == 2
    assert "TEXT was" in capsys.readouterr().err


def test_a_killed_run_ends_as_the_library_does_in_one_go(done: Done, tmp_path: Path) -> None:
    assert done.told.count("done before") == 3
    assert "$ caprag train recognizer" in done.told
    options = RecognizerOptions(
        max_steps=8, save_steps=1, keep_checkpoints=9, batch_size=2, lora_rank=2, learning_rate=0.01, max_new_tokens=4,
        seed=3,
    )  # fmt: skip
    files = done.run / "conversations"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as there
    try:
        train_recognizer(
            [files / "train.json"],
            done.run.parent / "llava",
            tmp_path / "out",
            options,
            held_out=[files / "held-out.json"],
        )
    finally:
        torch.set_num_threads(threads)
    ours, theirs = (
        load_file(folder / "adapter_model.safetensors") for folder in (done.run / "model", tmp_path / "out")
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"--model": ""}, "--model is missing"), ({"--model": "./no-such"}, "./no-such: there is no such folder"),
        ({"--train-lora-rank": "0"}, "lora_rank is 0"), ({"--synth-count": "many"}, "experiment: --synth-count: "),
        ({"--synth-count": "0"}, "experiment: --synth-count: "), ({"--recipe": "no-such"}, "minicpmv-lora"),
        ({"--id-column": "number"}, "has the columns id, text"), ({"--text-column": "text"}, "caption"),
    ],
)  # fmt: skip
def test_wrong_use_is_refused_before_anything_is_done(
    done: Done, tmp_path: Path, change: dict[str, str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = list(done.elsewhere(tmp_path / "new"))
    assert experiment.main([*given, *(part for pair in change.items() for part in pair)]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_help_has_every_option_of_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        experiment.main(["--help"])
    told = capsys.readouterr().out
    for option in (
        "--corpus-near", "--synth-letterbox", "--conversations-prompts", "--train-lora-targets", "--train-set",
        "--train-no-gradient-checkpointing", "--read-top-p", "--order", "--launch",
    ):  # fmt: skip
        assert f"  {option}" in told
    assert "--recipe minicpmv-lora" in told
