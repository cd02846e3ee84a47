"""Pictures labelled by a model that is asked several times: agreement, refusals, and going on after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rapidfuzz.distance import Levenshtein
from tiny_models import llava, pictures, trocr

from caprag.errors import CapragError, FrameError, ModelError, SynthesisError
from caprag.recognition.server import ServerRecognizer
from caprag.recognition.vlm import VLMRecognizer
from caprag.retrieval.embedder import SentenceEmbedder
from caprag.synthesis.conversations import Example, read_conversations
from caprag.text import match_form
from caprag.training.agreement import choose, disagreement, is_refusal, spoken
from caprag.training.describers import Describer, LocalDescriber, load_describer
from caprag.training.labelling import LabelReport, answers_file, label_pictures

PROMPTS = ("讀出字幕", "字幕寫了什麼？", "Read the caption.")

# What is said of a picture of that width: once a prompt.
SAID = {
    10: ("午餐吃什麼?", "午餐吃什么", "午餐吃什麼"),
    11: ("明天見", "明天見", "後天見面"),
    12: ("", "", ""),
    13: ("", "抱歉，我無法識別圖片中的文字。", "今天天氣很好"),
    14: ("There is no text in the image.", "", "圖片中沒有字幕"),
    15: ("<think>I see...</think>走吧", "走吧", "走吧。"),
    16: ("<image>", "<image>再見", ""),
}


class Scripted:
    """Says what `SAID` has, so that what must come out is known; can die at a call."""

    def __init__(self, dies_at: int | None = None, name: str = "scripted", **settings: int) -> None:
        self.name = name
        self.settings: Mapping[str, str | int] = {"max_new_tokens": 8, **settings}
        self.calls: list[tuple[int, ...]] = []
        self.dies_at = dies_at

    def complete_batch(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        if len(self.calls) == self.dies_at:
            raise ModelError("the server is gone")
        self.calls.append(tuple(image.width for image in images))
        return [SAID[image.width][PROMPTS.index(p)] for image, p in zip(images, prompts, strict=True)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "frames"
    place.mkdir()
    for width in SAID:
        Image.new("RGB", (width, 8), (width, 0, 0)).save(place / f"{width}.png")
    return place


def frames(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def label(folder: Path, out: Path, describer: Describer, **options: Any) -> LabelReport:
    return label_pictures(frames(folder), describer, PROMPTS, out, **{"batch_size": 2, **options})


def test_what_agrees_is_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    report = label(folder, out, Scripted())
    examples = list(read_conversations(out))
    assert [(example.image, example.text) for example in examples] == [
        ("frames/10.png", "午餐吃什麼"), ("frames/15.png", "走吧"),
    ]  # fmt: skip
    assert {example.prompt for example in examples} <= set(PROMPTS)
    assert report == LabelReport(pictures=7, kept=2, disagreeing=2, empty=3, unreadable=0, examples=2, refusals=5)
    assert "7 pictures: 2 kept, 2 disagreeing, 3 empty, 0 unreadable" in str(report)


def test_the_limit_decides(folder: Path, tmp_path: Path) -> None:
    """Three of four characters of the longer text stand for 明天見 against 後天見面: two edits."""
    assert disagreement("明天見", "後天見面") == 0.5
    for limit, kept in ((0.49, 2), (0.5, 3)):
        out = tmp_path / f"{limit}.jsonl"
        assert label(folder, out, Scripted(), disagreement=limit).kept == kept
    assert [e.text for e in read_conversations(out)] == ["午餐吃什麼", "明天見", "走吧"]


def test_descriptions_stand_each_with_its_question(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.json"
    report = label(folder, out, Scripted(), task="describe", form="messages")
    wanted = [
        Example(f"frames/{width}.png", spoken(text), prompt)
        for width, said in SAID.items()
        for prompt, text in zip(PROMPTS, said, strict=True)
        if spoken(text) and not is_refusal(text) and "<image>" not in text
    ]
    assert list(read_conversations(out)) == wanted
    assert (report.examples, report.kept, report.empty, report.disagreeing) == (len(wanted), 4, 3, 0)


def test_descriptions_are_compared_by_an_embedder(
    folder: Path, tmp_path: Path, tiny_embedder: SentenceEmbedder
) -> None:
    least = {}
    for width, said in SAID.items():
        left = [spoken(text) for text in said if spoken(text) and not is_refusal(text) and "<image>" not in text]
        if left:
            vectors = tiny_embedder.embed(left)
            least[width] = min(float(a @ b) for a in vectors for b in vectors)
    middle = sorted(least.values())[1] + 1e-4
    out = tmp_path / "labels.jsonl"
    report = label(folder, out, Scripted(), task="describe", embedder=tiny_embedder, similarity=middle)
    wanted = [f"frames/{width}.png" for width, cosine in least.items() if cosine >= middle]
    assert list(dict.fromkeys(example.image for example in read_conversations(out))) == wanted
    assert (report.kept, report.disagreeing) == (2, 2)


@pytest.mark.parametrize("dies_at", range(12))
def test_a_stopped_run_goes_on(dies_at: int, folder: Path, tmp_path: Path) -> None:
    whole = Scripted()
    label(folder, tmp_path / "whole.jsonl", whole)
    out = tmp_path / "labels.jsonl"
    with pytest.raises(ModelError, match="gone"):
        label(folder, out, Scripted(dies_at))
    assert not out.exists()
    # And the last line was cut by the kill.
    notes = answers_file(out)
    lines = notes.read_bytes()
    kept = lines[:-3] if lines.count(b"\n") > 1 else lines
    notes.write_bytes(kept)
    second = Scripted()
    label(folder, out, second)
    # What was noted is not asked again, but for the call whose last line was cut; calls have the same pictures.
    assert second.calls == whole.calls[max(0, dies_at - 1) :]
    for name in ("labels.jsonl", "labels.answers.jsonl"):
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("labels", "whole")).read_bytes()
    third = Scripted()
    label(folder, out, third)
    assert third.calls == []


def test_new_prompts_and_pictures_are_asked_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    options: dict[str, Any] = {"batch_size": 2}
    label_pictures(frames(folder)[:4], Scripted(), PROMPTS[:2], out, **options)
    second = Scripted()
    label_pictures(frames(folder), second, PROMPTS, out, **options)
    assert second.calls == [(10, 11), (12, 13), (14, 15), (14, 15), (14, 15), (16,), (16,), (16,)]
    label(folder, tmp_path / "whole.jsonl", Scripted())
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_bad_picture_is_told_and_passed_over(folder: Path, tmp_path: Path) -> None:
    (folder / "100.png").write_bytes(b"no picture")
    out = tmp_path / "labels.jsonl"
    for _ in range(2):
        errors: list[CapragError] = []
        report = label(folder, out, Scripted(), on_error=errors.append)
        assert (report.pictures, report.unreadable, report.kept) == (8, 1, 2)
        assert ["100.png" in str(error) for error in errors] == [True]
    with pytest.raises(FrameError, match=r"100\.png"):
        label(folder, tmp_path / "other.jsonl", Scripted())


def test_notes_of_others_are_not_mixed_in(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    label(folder, out, Scripted())
    with pytest.raises(ModelError, match=r"holds answers of scripted \(.*\), not of another \("):
        label(folder, out, Scripted(name="another"))
    with pytest.raises(ModelError, match=r"\(max_new_tokens 8\), not of scripted \(max_new_tokens 9\)"):
        label(folder, out, Scripted(max_new_tokens=9))
    answers_file(out).write_text('{"image": "a.png"}\n')
    with pytest.raises(ModelError, match=r"labels\.answers\.jsonl:1"):
        label(folder, out, Scripted())


def test_one_run_at_a_time(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"

    class Intruder(Scripted):
        def complete_batch(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
            with pytest.raises(ModelError, match="another run"):
                label(folder, out, Scripted())
            return super().complete_batch(images, prompts)

    assert label(folder, out, Intruder()).kept == 2


def test_nothing_left_is_said(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    with pytest.raises(SynthesisError, match="2 empty"):
        label_pictures([folder / "12.png", folder / "14.png"], Scripted(), PROMPTS, out)
    assert not out.exists()


def test_wrong_use_is_refused(folder: Path, tmp_path: Path) -> None:
    for wrong in ({"task": "read"}, {"disagreement": 1.5}, {"similarity": -2}, {"batch_size": 0}, {"form": "other"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            label(folder, tmp_path / "labels.jsonl", Scripted(), **wrong)
    for prompts in ((), ("a", "a"), ("<image> a",), (" ",)):
        with pytest.raises(ValueError, match="prompt"):
            label_pictures(frames(folder), Scripted(), prompts, tmp_path / "a.jsonl")


REFUSALS = (
    "抱歉，我無法識別圖片中的文字。", "对不起，我无法读取该图像", "很抱歉，我不能查看圖片", "我無法看到字幕",
    "這張圖片中沒有任何文字。", "畫面上沒有字幕", "沒有字幕", "沒有可見的文字", "作為一個AI語言模型，我...",
    "I'm sorry, but I can't assist with that.", "I am sorry, I cannot read the text in this image.",
    "There is no visible text in the image.", "The image does not contain any text.", "As an AI language model, I",
    "I'm unable to identify the caption.",
)  # fmt: skip
CAPTIONS = (
    "抱歉，我不能陪你去", "對不起 我來晚了", "我無法忍受了", "沒有人知道", "沒有字幕的電影我看不懂",
    "I'm sorry, I can't stay.", "I can't see you anymore", "There is no time", "圖片很好看", "作為一個父親",
    "The picture has faded", "",
)  # fmt: skip


def test_refusals_are_told_from_captions() -> None:
    assert [text for text in REFUSALS if not is_refusal(text)] == []
    assert [text for text in CAPTIONS if is_refusal(text)] == []


@given(st.lists(st.text("午餐吃什麼a ", max_size=6), min_size=1, max_size=4), st.floats(0, 1))
def test_the_choice_by_its_definition(answers: list[str], limit: float) -> None:
    def rate(a: str, b: str) -> float:
        one, other = match_form(a), match_form(b)
        return Levenshtein.distance(one, other) / max(len(one), len(other), 1)

    chosen = choose(answers, limit)
    if any(rate(a, b) > limit for a in answers for b in answers):
        assert chosen is None
    else:
        assert chosen is not None
        sums = [sum(rate(a, b) for b in answers) for a in answers]
        assert sums[chosen] == pytest.approx(min(sums))
        assert answers[choose(answers[::-1], limit) or 0] is not None
        assert disagreement(answers[0], answers[-1]) == disagreement(answers[-1], answers[0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("labelling") / "llava")


def test_a_local_model_says_what_the_recognizer_reads(model: Path) -> None:
    """Two ways to the same: its greedy reading under that prompt, alone."""
    describer = LocalDescriber(model, device="cpu", batch_size=2, max_new_tokens=8)
    assert (describer.name, describer.settings) == (str(model), {"max_new_tokens": 8, "dtype": "float32"})
    images = pictures(4)
    asked = [PROMPTS[0], PROMPTS[1], PROMPTS[0], PROMPTS[0]]
    said = describer.complete_batch(images, asked)
    for image, prompt, text in zip(images, asked, said, strict=True):
        reader = VLMRecognizer(model, prompt=prompt, device="cpu", max_new_tokens=8)
        assert reader.recognize_batch([image])[0][0].text == text
    assert len(set(said)) > 1
    assert describer.complete_batch([], []) == []
    with pytest.raises(ValueError, match="one prompt a picture"):
        describer.complete_batch(images, asked[:1])


def test_an_encoder_decoder_answers(tmp_path: Path) -> None:
    folder = trocr(tmp_path / "trocr")
    images = pictures(3)
    said = LocalDescriber(folder, device="cpu", max_new_tokens=8).complete_batch(images, [""] * 3)
    reader = VLMRecognizer(folder, device="cpu", max_new_tokens=8)
    assert [h[0].text for h in reader.recognize_batch(images)] == said


def test_a_server_labels(model: Path, tmp_path: Path) -> None:
    """Its labels are what it answers when it is asked once for each."""
    paths, out = [tmp_path / f"{number}.png" for number in range(4)], tmp_path / "labels.jsonl"
    for path, picture in zip(paths, pictures(4), strict=True):
        picture.save(path)
    program = [sys.executable, str(Path(__file__).with_name("chat_server.py")), str(model)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            describer = load_describer(address, max_new_tokens=8, batch_size=4)
            assert isinstance(describer, Describer)
            label_pictures(paths, describer, PROMPTS, out, task="describe")
            alone = ServerRecognizer(address, max_new_tokens=8)
            assert alone.name not in (address, "")  # what the server calls it
            said = [
                Example(path.name, alone.complete_batch([picture], [prompt])[0], prompt)
                for path, picture in zip(paths, pictures(4), strict=True)
                for prompt in PROMPTS
            ]
        finally:
            server.kill()
    wanted = [example for example in said if example.text and "<image>" not in example.text]
    assert wanted
    assert list(read_conversations(out)) == wanted
    rows = answers_file(out).read_text(encoding="utf-8").splitlines()
    header = {"model": alone.name, "max_new_tokens": 8, "picture_format": "png"}
    assert json.loads(rows[0]) == {"notes": "caprag label", **header}
    assert len(rows) == 1 + 4 * 3


def test_what_is_no_describer_is_refused(model: Path) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        LocalDescriber(model, batch_size=0)
    with pytest.raises(ModelError, match="no folder"):
        load_describer("no/such/folder")
    with pytest.raises(ValueError, match="served is 'x'"):
        load_describer(str(model), served="x")
