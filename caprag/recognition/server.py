"""Reads captions with a model that runs elsewhere: vLLM, or any server that speaks OpenAI's chat protocol.

Pictures go over the line as data, several at once, and what fails for the moment is tried again. What this module
does not know: how the server makes its answers. Probabilities are the server's own, and a server may have none.
"""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar, get_args

from PIL import Image

from caprag.errors import ModelError
from caprag.recognition.families import PROMPT
from caprag.recognition.json_client import JsonClient
from caprag.text import normalize
from caprag.types import Hypothesis

Format = Literal["png", "jpeg"]

_PROBE = "字"
_NO_LOGPROBS = "pass logprobs=False to read without them"
_NO_SCORING = "serve the model with vLLM, or pass scoring=False to do without"

Item = TypeVar("Item")
Result = TypeVar("Result")


class ServerRecognizer:
    """A reader of captions behind an address.

    Parameters
    ----------
    url
        Where the server's API begins: ``"http://localhost:8000/v1"``; ``/v1`` is added to a bare host.
    model
        Which of the server's models; ``None``: the only one it has, asked for at the first use.
    prompt
        What the model is asked; ``None``: `caprag.recognition.families.PROMPT`.
    api_key
        ``None``: that in the environment's ``CAPRAG_API_KEY``, else ``OPENAI_API_KEY``; without one, none is sent.
    timeout
        Seconds to wait for a connection, and for each part of an answer, > 0.
    retries
        How often a request is sent again that met no server, no answer in time, or the status 408, 429, 500, 502,
        503 or 504; >= 0. The wait doubles from half a second to half a minute, with some chance in it, unless
        the server says in ``Retry-After`` how long it is to be.
    parallel
        Requests at a time, >= 1.
    max_new_tokens
        At most this many tokens an answer, >= 1.
    temperature
        At which readings after the first are drawn, > 0.
    logprobs
        Whether to ask for the probabilities of readings. Without: see `recognize_batch`.
    scoring
        Whether the server can score given texts. Without, `score_batch` gives ``-inf`` for each, by which a
        pipeline knows that there is nothing to go by.
    picture_format
        ``"png"`` loses nothing; ``"jpeg"`` is several times smaller.
    extra
        Further fields of each request, or others instead of those sent; ``None`` leaves a field out. For example
        ``{"chat_template_kwargs": {"enable_thinking": False}}``.

    Raises
    ------
    ValueError
        For an address without http or https, or a number or format out of range.

    Notes
    -----
    Proxies named in the environment are not used. It may be shared by threads, and keeps its connections open.

    The log-probability of a reading is the sum of those that the server lists: with vLLM the end's is among them,
    with OpenAI's own servers it is not. They are the model's before any temperature with vLLM's default
    ``--logprobs-mode``.

    Examples
    --------
    >>> recognizer = ServerRecognizer("http://localhost:8000/v1")  # doctest: +SKIP
    >>> recognizer.recognize_batch([Image.open("caption.png")], n_best=3)  # doctest: +SKIP
    [[Hypothesis(text='社交方式發生了變化', logprob=-0.31), ...]]
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        prompt: str | None = None,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 4,
        parallel: int = 8,
        max_new_tokens: int = 64,
        temperature: float = 1.0,
        logprobs: bool = True,
        scoring: bool = True,
        picture_format: Format = "png",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        for name, number, least in (
            ("retries", retries, 0),
            ("parallel", parallel, 1),
            ("max_new_tokens", max_new_tokens, 1),
        ):
            if number < least:
                raise ValueError(f"{name} must be at least {least}, not {number}")
        for name, value in (("timeout", timeout), ("temperature", temperature)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0 and finite, not {value}")
        if picture_format not in get_args(Format):
            raise ValueError(f"picture_format must be one of {', '.join(get_args(Format))}, not {picture_format!r}")
        self._client = JsonClient(url, api_key=api_key, timeout=timeout, retries=retries, connections=parallel)
        self.url = self._client.url
        self._model = model
        self._prompt = PROMPT if prompt is None else prompt
        self._parallel = parallel
        self._max_new_tokens = max_new_tokens
        self._temperature = temperature
        self._logprobs = logprobs
        self._scoring = scoring
        self._format = picture_format
        self._extra = dict(extra or {})
        self._tail: list[int] | None = None

    @property
    def name(self) -> str:
        """The model's name, as the server has it.

        Raises
        ------
        ModelError
            Where none was given, and the server can't be asked or has not just one.
        """
        if self._model is None:
            listed = self._client.ask("GET", "/models").get("data")
            known = [entry.get("id") for entry in listed or [] if isinstance(entry, dict)]
            if len(known) != 1:
                raise ModelError(f"{self.url}/models lists {len(known)} models; name one as model: {known}")
            self._model = str(known[0])
        return self._model

    @property
    def settings(self) -> Mapping[str, str | int]:
        """What the answers of `complete_batch` depend on, beside the model."""
        extra = {"extra": json.dumps(self._extra, sort_keys=True)} if self._extra else {}
        return {"max_new_tokens": self._max_new_tokens, "picture_format": self._format, **extra}

    def recognize_batch(self, images: Sequence[Image.Image], n_best: int = 1) -> list[list[Hypothesis]]:
        r"""Read each picture.

        Parameters
        ----------
        images
            Frames or crops, any size; turned into RGB.
        n_best
            At most this many hypotheses a picture, >= 1: the greedy reading, and ``n_best - 1`` that are drawn.

        Returns
        -------
        list of list of Hypothesis
            One list a picture, best first, texts distinct, never empty; log-probabilities in nats as the server
            gives them. Without `logprobs` it is ln of the share of the answers that have the text: 0 where all
            agree. Outer white space is gone, and an answer that breaks off inside a character ends before it.

        Raises
        ------
        ValueError
            For `n_best` below 1.
        ModelError
            Where the server can't be reached, refuses, or answers without what was asked for.
        """
        if n_best < 1:
            raise ValueError(f"n_best must be at least 1, not {n_best}")
        return self._map(lambda image: self._read(image, n_best), images)

    def score_batch(self, images: Sequence[Image.Image], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Score given texts for each picture, with vLLM's ``prompt_logprobs``.

        Parameters
        ----------
        images
            Frames or crops, any size; turned into RGB.
        texts
            For each picture the texts to score, as they are; may differ in number, also none.

        Returns
        -------
        list of list of float
            ln p(text and then the end | picture, prompt) in nats, each <= 0, in the order of `texts`; ``-inf``
            for each where `scoring` is off. The end is the first token that the chat template writes after an
            answer.

        Raises
        ------
        ValueError
            Where `images` and `texts` differ in length.
        ModelError
            As in `recognize_batch`, and where the server does not score prompts, or its chat template does not
            write an answer as one that was asked for.

        Notes
        -----
        One request a text and one a picture, and two once to learn how an answer ends.
        """
        if len(images) != len(texts):
            raise ValueError(f"one list of texts a picture: {len(images)} pictures, {len(texts)} lists")
        if not self._scoring:
            return [[-math.inf] * len(wordings) for wordings in texts]
        jobs = [(place, text) for place, wordings in enumerate(texts) for text in wordings]
        asked = sorted({place for place, _ in jobs})
        if not asked:
            return [[] for _ in texts]
        questions = dict(zip(asked, self._map(lambda place: self._question(images[place]), asked), strict=True))
        tail = self._find_tail(questions[asked[0]])
        before = dict(zip(asked, self._map(lambda place: self._weigh(questions[place], None)[0], asked), strict=True))
        scores = iter(self._map(lambda job: self._score(questions[job[0]], before[job[0]], tail, job[1]), jobs))
        return [[next(scores) for _ in wordings] for wordings in texts]

    def complete_batch(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
        """Ask something of each picture.

        Parameters
        ----------
        images
            Pictures, any size; turned into RGB.
        prompts
            What is asked of each, instead of `prompt`.

        Returns
        -------
        list of str
            The likeliest answers, token by token, in the order given; outer white space is gone.

        Raises
        ------
        ValueError
            Where `images` and `prompts` differ in length.
        ModelError
            As in `recognize_batch`.
        """
        if len(images) != len(prompts):
            raise ValueError(f"one prompt a picture: {len(images)} pictures, {len(prompts)} prompts")

        def answer(pair: tuple[Image.Image, str]) -> str:
            ((text, _),) = self._answers(self._question(*pair), {"temperature": 0.0}, logprobs=False)[:1]
            return text

        return self._map(answer, list(zip(images, prompts, strict=True)))

    def _map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Do the work for several items at a time; the results keep their order."""
        if not items:
            return []
        _ = self.name  # asked for once, not by each thread
        pool = ThreadPoolExecutor(min(self._parallel, len(items)))
        try:
            return list(pool.map(work, items))
        finally:
            pool.shutdown(cancel_futures=True)

    def _question(self, image: Image.Image, prompt: str | None = None) -> dict[str, Any]:
        if not isinstance(image, Image.Image):
            raise TypeError(f"a picture must be a PIL.Image.Image, not {type(image).__name__}")
        file = io.BytesIO()
        image.convert("RGB").save(file, self._format, **({"quality": 95} if self._format == "jpeg" else {}))
        data = f"data:image/{self._format};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
        asked = {"type": "text", "text": self._prompt if prompt is None else prompt}
        return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data}}, asked]}

    def _read(self, image: Image.Image, n_best: int) -> list[Hypothesis]:
        question = self._question(image)
        answers = self._answers(question, {"temperature": 0.0}, logprobs=self._logprobs)[:1]
        if n_best > 1:
            drawn = {"temperature": self._temperature, "n": n_best - 1}
            answers += self._answers(question, drawn, logprobs=self._logprobs)
        if not self._logprobs:
            shares = Counter(normalize(text) for text, _ in answers)
            answers = [(text, math.log(shares[normalize(text)] / len(answers))) for text, _ in answers]
        read: dict[str, Hypothesis] = {}
        for text, logprob in sorted(answers, key=lambda answer: -answer[1]):
            read.setdefault(normalize(text), Hypothesis(text, logprob))
        return list(read.values())

    def _answers(
        self, question: Mapping[str, Any], settings: Mapping[str, Any], *, logprobs: bool
    ) -> list[tuple[str, float]]:
        """Ask, and give each answer with the sum of its log-probabilities; 0.0 where they were not asked for."""
        body = {"messages": [question], "max_tokens": self._max_new_tokens, **settings}
        given = (
            self._complete(body | {"logprobs": True}, refused=f"if it knows no logprobs, {_NO_LOGPROBS}")
            if logprobs
            else self._complete(body)
        )
        try:
            choices = given["choices"]
            texts = [(choice["message"]["content"] or "").partition("\ufffd")[0].strip() for choice in choices]
            listed: list[Any] = [
                (choice.get("logprobs") or {}).get("content") if logprobs else [] for choice in choices
            ]
            if None in listed:
                raise ModelError(f"{self.url} answered without log-probabilities; {_NO_LOGPROBS}")
            sums = [min(0.0, math.fsum(float(token["logprob"]) for token in tokens)) for tokens in listed]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._strange(given) from error
        if not texts:
            raise self._strange(given)
        return list(zip(texts, sums, strict=True))

    def _weigh(
        self, question: Mapping[str, Any], answer: str | None, *, whole: bool = True
    ) -> tuple[list[int], list[float]]:
        """Have the server read a question, or a question and its answer; token ids and their log-probabilities."""
        said = [] if answer is None else [{"role": "assistant", "content": answer}]
        given = self._complete(
            {
                "messages": [question, *said],
                "add_generation_prompt": answer is None,
                "continue_final_message": not whole,
                "prompt_logprobs": 0,
                "max_tokens": 1,
                "temperature": 0.0,
            },
            refused=f"if it knows no prompt_logprobs, {_NO_SCORING}",
        )
        listed = given.get("prompt_logprobs")
        if not listed:
            raise ModelError(
                f"{self.url} does not say how likely a given text is (no prompt_logprobs in its answer); {_NO_SCORING}"
            )
        try:
            # The first token follows nothing, so it has no probability. Of several, the prompt's own comes first.
            first = [next(iter(entry.items())) if entry else ("-1", {"logprob": 0.0}) for entry in listed]
            return [int(token) for token, _ in first], [float(entry["logprob"]) for _, entry in first]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._strange(given) from error

    def _find_tail(self, question: Mapping[str, Any]) -> list[int]:
        """Learn what the chat template writes after an answer."""
        if self._tail is None:
            open_, _ = self._weigh(question, _PROBE, whole=False)
            closed, _ = self._weigh(question, _PROBE)
            if closed[: len(open_)] != open_ or len(closed) == len(open_):
                raise ModelError(f"{self.url}: the model's chat template writes no end after an answer; {_NO_SCORING}")
            self._tail = closed[len(open_) :]
        return self._tail

    def _score(self, question: Mapping[str, Any], before: list[int], tail: list[int], text: str) -> float:
        ids, logprobs = self._weigh(question, text)
        end = len(ids) - len(tail)
        if ids[: len(before)] != before or ids[end:] != tail or end < len(before):
            raise ModelError(
                f"{self.url}: the model's chat template does not write the answer {text!r} as one that it asks for; "
                f"{_NO_SCORING}"
            )
        return min(0.0, math.fsum(logprobs[len(before) : end + 1]))

    def _complete(self, body: Mapping[str, Any], *, refused: str = "see what it says") -> dict[str, Any]:
        whole = {"model": self.name, **body, **self._extra}
        sent = {name: value for name, value in whole.items() if value is not None}
        return self._client.ask("POST", "/chat/completions", sent, refused=refused)

    def _strange(self, given: object) -> ModelError:
        start = json.dumps(given, ensure_ascii=False)[:200]
        return ModelError(
            f"{self.url} answered in another form than OpenAI's chat protocol has; check the address and what the "
            f"server speaks: {start}"
        )
