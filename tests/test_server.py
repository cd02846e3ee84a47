"""ServerRecognizer against servers that really run, and against the same model read here."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
import transformers
from PIL import Image
from tiny_models import SENTENCES, picture

from caprag.errors import ModelError
from caprag.recognition.server import ServerRecognizer
from caprag.recognition.vlm import VLMRecognizer
from caprag.types import Recognizer

hub: Any = transformers  # its annotations differ from version to version

PROMPT = "讀字幕"
PICTURES = [picture(seed) for seed in range(4)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CAPRAG_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA that was taught to read four pictures, and ends a text in one way only."""
    path = tiny_models.llava(tmp_path_factory.mktemp("server") / "model")
    model = hub.AutoModelForImageTextToText.from_pretrained(path)
    processor = hub.AutoProcessor.from_pretrained(path)
    processor.tokenizer.padding_side = "right"
    asked = [{"type": "image"}, {"type": "text", "text": PROMPT}]
    question = processor.apply_chat_template([{"role": "user", "content": asked}], add_generation_prompt=True)
    texts = [f"{question}{sentence}<|im_end|>" for sentence in SENTENCES[: len(PICTURES)]]
    inputs = processor(images=PICTURES, text=texts, padding=True, return_tensors="pt")
    start = processor(images=PICTURES[0], text=question, return_tensors="pt")["input_ids"].shape[1]
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, :start] = -100
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        optimizer.zero_grad()
        model(**inputs, labels=labels).loss.backward()
        optimizer.step()
    model.generation_config = hub.GenerationConfig(eos_token_id=processor.tokenizer.eos_token_id)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def local(folder: Path) -> VLMRecognizer:
    return VLMRecognizer(folder, prompt=PROMPT, max_new_tokens=32, device="cpu")


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """The address of the tests' own server, which has the model too."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(Path(__file__).with_name("chat_server.py")), str(folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            assert port, "the server did not start"
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def log(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url.removesuffix("/v1") + "/log") as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def recognizer(url: str, *, fault: str = "", times: int = 10**9, **options: Any) -> ServerRecognizer:
    extra = {"fault": {"kind": fault, "times": times, "key": time.monotonic()}} if fault else {}
    return ServerRecognizer(url, **{"prompt": PROMPT, "max_new_tokens": 32, "extra": extra, **options})


# What it reads


def test_reads_what_the_same_model_reads_here(url: str, local: VLMRecognizer) -> None:
    reader = recognizer(url)
    assert isinstance(reader, Recognizer)
    assert reader.name == "tiny"
    read, expected = reader.recognize_batch(PICTURES), local.recognize_batch(PICTURES)
    assert [hypotheses[0].text for hypotheses in expected] == list(SENTENCES[:4])
    for (here,), (there,) in zip(expected, read, strict=True):
        assert there.text == here.text
        assert there.logprob == pytest.approx(here.logprob, abs=1e-3)


def test_scores_what_the_same_model_scores_here(url: str, local: VLMRecognizer) -> None:
    texts = [[SENTENCES[0], SENTENCES[1], "社交方武發生了變化"], [], ["x", "", "龜"], [SENTENCES[3]]]
    scores, expected = recognizer(url).score_batch(PICTURES, texts), local.score_batch(PICTURES, texts)
    assert [len(row) for row in scores] == [len(row) for row in texts]
    for there, here in zip(scores, expected, strict=True):
        assert there == pytest.approx(here, abs=1e-3)


def test_readings_and_scores_agree(url: str) -> None:
    reader = recognizer(url, temperature=2.0)
    torch.manual_seed(0)
    read = reader.recognize_batch(PICTURES[:2], n_best=5)
    scores = reader.score_batch(PICTURES[:2], [[h.text for h in hypotheses] for hypotheses in read])
    for hypotheses, values in zip(read, scores, strict=True):
        assert 1 <= len(hypotheses) <= 5
        assert len({hypothesis.text for hypothesis in hypotheses}) == len(hypotheses)
        assert [h.logprob for h in hypotheses] == sorted((h.logprob for h in hypotheses), reverse=True)
        # What was drawn may be written in other tokens than a given text is, or be cut; the greedy reading is not.
        assert hypotheses[0].logprob == pytest.approx(values[0], abs=1e-3)


def test_batch_equals_singles_in_order(url: str) -> None:
    reader = recognizer(url, parallel=3)
    order = [2, 0, 3, 1, 1, 0]
    together = reader.recognize_batch([PICTURES[place] for place in order])
    assert [row[0].text for row in together] == [SENTENCES[place] for place in order]
    for place, row in zip(order, together, strict=True):
        ((alone,),) = reader.recognize_batch([PICTURES[place]])
        assert row[0].logprob == pytest.approx(alone.logprob, abs=1e-5)
    assert reader.recognize_batch([]) == []
    assert reader.score_batch([PICTURES[0]], [[]]) == [[]]


def test_completes_each_picture_with_its_own_prompt(url: str, folder: Path) -> None:
    prompts = [PROMPT, "描述圖片", "幾個字？", PROMPT]
    answers = recognizer(url, prompt="不用").complete_batch(PICTURES, prompts)
    expected = [
        VLMRecognizer(folder, prompt=prompt, max_new_tokens=32, device="cpu").recognize_batch([image])[0][0].text
        for image, prompt in zip(PICTURES, prompts, strict=True)
    ]
    assert answers == expected
    assert answers[0] == SENTENCES[0]


def test_pictures_arrive_whole(url: str) -> None:
    """As PNG nothing is lost, whatever the mode; as JPEG it is less."""
    reader = recognizer(url)
    ((plain,),) = reader.recognize_batch([PICTURES[0]])
    ((paletted,),) = reader.recognize_batch([PICTURES[0].quantize(256)])
    assert paletted.text == plain.text
    large = Image.effect_noise((256, 256), 80.0)
    sizes = {}
    for kind in ("png", "jpeg"):
        recognizer(url, picture_format=kind, max_new_tokens=1).recognize_batch([large])
        sizes[kind] = log(url)["asked"][-1]["bytes"]
    assert sizes["jpeg"] < sizes["png"]


def test_transformers_own_server(folder: Path, tmp_path: Path) -> None:
    """A server that somebody else wrote; it knows no probabilities."""
    missing = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"transformers serve needs {', '.join(missing)}: pip install 'transformers[serving]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "hub").mkdir()
    program = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder), "--device", "cpu"]
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (
        (tmp_path / "log").open("w") as output,
        subprocess.Popen(
            [*program, "--host", "127.0.0.1", "--port", str(port)],
            env=environment, stdout=output, stderr=subprocess.STDOUT,
        ) as process,
    ):  # fmt: skip
        try:
            until = time.monotonic() + 120
            while (tmp_path / "log").read_text().find("Uvicorn running") < 0:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < until
                time.sleep(0.2)
            options: dict[str, Any] = {"prompt": PROMPT, "max_new_tokens": 32, "parallel": 2}
            reader = ServerRecognizer(f"http://127.0.0.1:{port}", str(folder), logprobs=False, **options)
            read = reader.recognize_batch(PICTURES[:3])
            assert [[h.text for h in row] for row in read] == [[sentence] for sentence in SENTENCES[:3]]
            assert [row[0].logprob for row in read] == [0.0] * 3
            assert reader.complete_batch(PICTURES[:1], [PROMPT]) == [SENTENCES[0]]
            with pytest.raises(ModelError, match="logprobs=False"):
                ServerRecognizer(f"http://127.0.0.1:{port}", str(folder), **options).recognize_batch(PICTURES[:1])
            with pytest.raises(ModelError, match="scoring=False"):
                reader.score_batch(PICTURES[:1], [["x"]])
        finally:
            process.kill()


# Servers that know less


def test_without_logprobs_a_reading_has_its_share_of_the_answers(url: str) -> None:
    reader = recognizer(url, fault="plain", logprobs=False, temperature=1e-3)
    ((only,),) = reader.recognize_batch(PICTURES[:1], n_best=4)
    assert (only.text, only.logprob) == (SENTENCES[0], 0.0)
    warm = recognizer(url, fault="plain", logprobs=False, temperature=5.0)
    (read,) = warm.recognize_batch(PICTURES[:1], n_best=6)
    assert len(read) > 1
    assert sum(math.exp(hypothesis.logprob) for hypothesis in read) == pytest.approx(1.0)
    assert all(math.exp(h.logprob) * 6 == pytest.approx(round(math.exp(h.logprob) * 6)) for h in read)


def test_says_what_a_server_without_probabilities_lacks(url: str) -> None:
    with pytest.raises(ModelError, match=r"without log-probabilities; pass logprobs=False"):
        recognizer(url, fault="plain").recognize_batch(PICTURES[:1])
    with pytest.raises(ModelError, match=r"prompt_logprobs.*vLLM.*scoring=False"):
        recognizer(url, fault="plain").score_batch(PICTURES[:1], [["x"]])
    assert recognizer(url, scoring=False).score_batch(PICTURES[:2], [["x", "y"], []]) == [[-math.inf] * 2, []]


# What goes wrong


@pytest.mark.parametrize("fault", ["busy", "broken", "reset", "cut"])
def test_tries_again(url: str, fault: str) -> None:
    before = len(log(url)["asked"])
    reader = recognizer(url, fault=fault, times=1)
    ((read,),) = reader.recognize_batch(PICTURES[:1])
    assert read.text == SENTENCES[0]
    first, second = (asked["at"] for asked in log(url)["asked"][before:])
    if fault == "busy":
        assert second - first >= 1.0  # what Retry-After says; without it the first retry comes at once


def test_waits_no_longer_than_the_timeout(url: str) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"/chat/completions gave no answer, tried 1 times.*timeout"):
        recognizer(url, fault="slow", timeout=0.3, retries=0, model="tiny").recognize_batch(PICTURES[:1])
    assert time.monotonic() - start < 1.5
    ((read,),) = recognizer(url, fault="slow", times=1, timeout=1.0, model="tiny").recognize_batch(PICTURES[:1])
    assert read.text == SENTENCES[0]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("busy", r"429; lower parallel, or raise retries: too many requests"),
        ("broken", r"500; see what it says: the engine died"),
        ("refused", r"400; if it knows no logprobs, pass logprobs=False to read without them: max_tokens is too large"),
        ("key", r"401; give api_key, or set CAPRAG_API_KEY: Unauthorized"),
        ("not json", r"not JSON.*a proxy's page"),
        ("strange", r"another form.*a completion, no chat"),
        ("empty", r"another form.*choices"),
        ("reset", r"gave no answer, tried 2 times"),
        ("cut", r"gave no answer, tried 2 times"),
    ],
)
def test_final_errors_tell_what_and_where(url: str, fault: str, told: str) -> None:
    before = len(log(url)["asked"])
    with pytest.raises(ModelError, match=told) as caught:
        recognizer(url, fault=fault, retries=1).recognize_batch(PICTURES[:1])
    assert url in str(caught.value)
    tries = 2 if fault in ("busy", "broken", "reset", "cut") else 1
    assert len(log(url)["asked"]) - before == tries


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ModelError, match=rf"{address}/v1/models gave no answer, tried 2 times; check that the server"):
        recognizer(address, retries=1).recognize_batch(PICTURES[:1])


def test_one_failure_fails_the_batch_and_starts_nothing_new(url: str) -> None:
    before = len(log(url)["asked"])
    with pytest.raises(ModelError, match="max_tokens"):
        recognizer(url, fault="refused", parallel=2).recognize_batch(PICTURES * 10)
    assert len(log(url)["asked"]) - before < 40


# How it asks


def test_asks_no_more_at_a_time_than_allowed(url: str) -> None:
    for parallel in (1, 4):
        log(url)
        recognizer(url, fault="wait", parallel=parallel, max_new_tokens=1).recognize_batch(PICTURES * 2)
        assert log(url)["most_open"] == parallel


def test_model_is_named_by_the_user_where_there_are_several(url: str) -> None:
    address = url.replace("/v1", "/two/v1")
    with pytest.raises(ModelError, match=r"/models lists 2 models; name one as model: \['large', 'small'\]"):
        recognizer(address).recognize_batch(PICTURES[:1])
    reader = recognizer(address, model="small", max_new_tokens=1)
    reader.recognize_batch(PICTURES[:1])
    assert reader.name == "small"
    assert log(url)["asked"][-1]["model"] == "small"


def test_key_is_sent_where_there_is_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def sent(**options: Any) -> object:
        recognizer(url, max_new_tokens=1, **options).recognize_batch(PICTURES[:1])
        return log(url)["asked"][-1]["key"]

    assert sent() is None
    monkeypatch.setenv("OPENAI_API_KEY", "b")
    assert sent() == "Bearer b"
    monkeypatch.setenv("CAPRAG_API_KEY", "a")
    assert sent() == "Bearer a"
    assert sent(api_key="c") == "Bearer c"


def test_further_fields_are_sent_and_others_left_out(url: str) -> None:
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "temperature": None}
    recognizer(url, extra=extra, max_new_tokens=1).recognize_batch(PICTURES[:1])
    fields = log(url)["asked"][-1]["fields"]
    assert fields == ["chat_template_kwargs", "logprobs", "max_tokens", "messages", "model"]


def test_wrong_arguments(url: str) -> None:
    for address in ("localhost:8000", "ftp://host", "http://"):
        with pytest.raises(ValueError, match="http://"):
            ServerRecognizer(address)
    wrong: tuple[dict[str, Any], ...] = (
        {"retries": -1},
        {"parallel": 0},
        {"max_new_tokens": 0},
        {"timeout": 0},
        {"temperature": 0},
    )
    for options in wrong:
        ((name, value),) = options.items()
        with pytest.raises(ValueError, match=f"{name} must be .* not {value}"):
            recognizer(url, **options)
    with pytest.raises(ValueError, match="'gif'"):
        ServerRecognizer(url, picture_format="gif")  # type: ignore[arg-type]
    reader = recognizer(url)
    with pytest.raises(ValueError, match="n_best"):
        reader.recognize_batch(PICTURES, 0)
    with pytest.raises(ValueError, match="4 pictures, 1 lists"):
        reader.score_batch(PICTURES, [["x"]])
    with pytest.raises(ValueError, match="4 pictures, 1 prompts"):
        reader.complete_batch(PICTURES, ["x"])
    with pytest.raises(TypeError, match="str"):
        reader.recognize_batch(["frame.png"])  # type: ignore[list-item]
