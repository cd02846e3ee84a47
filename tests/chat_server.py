"""A chat server for tests, run as a process of its own: ``python tests/chat_server.py FOLDER``.

It answers with the model in the folder, in OpenAI's form and with vLLM's extra fields (``prompt_logprobs``,
``add_generation_prompt``, ``continue_final_message``), computed in the plainest way. A request that has a field
``fault`` meets it; ``GET /log`` tells what was asked, and how much at once since it was
last asked. Below ``/two/v1`` it claims to have two models. The first line it prints is its port.

References
----------
https://platform.openai.com/docs/api-reference/chat/create
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
import transformers
from PIL import Image

hub: Any = transformers  # its annotations differ from version to version


class Model:
    """A picture-reading model and its processor, one question at a time."""

    def __init__(self, folder: str) -> None:
        self.processor = hub.AutoProcessor.from_pretrained(folder)
        self.model = hub.AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.end = self.processor.tokenizer.eos_token_id
        self.special = {self.end, *self.processor.tokenizer.all_special_ids}
        self.model.generation_config = hub.GenerationConfig()
        self.lock = threading.Lock()

    def inputs(self, messages: list[dict[str, Any]], **template: Any) -> Any:
        turns = []
        for message in messages:
            parts = message["content"]
            if isinstance(parts, str):
                parts = [{"type": "text", "text": parts}]
            turns.append({"role": message["role"], "content": [_part(part) for part in parts]})
        return self.processor.apply_chat_template(
            turns, tokenize=True, return_dict=True, return_tensors="pt", **template
        )

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        template = {
            "add_generation_prompt": body.get("add_generation_prompt", True),
            "continue_final_message": body.get("continue_final_message", False),
        }
        inputs = self.inputs(body["messages"], **template)
        length = inputs["input_ids"].shape[1]
        warmth = body.get("temperature", 1.0)
        drawing = {"do_sample": True, "temperature": warmth, "top_k": 0} if warmth else {"do_sample": False}
        with self.lock, torch.no_grad():
            made = self.model.generate(
                **inputs,
                generation_config=hub.GenerationConfig(
                    max_new_tokens=body["max_tokens"], num_return_sequences=body.get("n", 1), eos_token_id=self.end,
                    pad_token_id=self.processor.tokenizer.pad_token_id, output_logits=True,
                    return_dict_in_generate=True, **drawing,
                ),
            )  # fmt: skip
            weighed = self.weigh(inputs) if body.get("prompt_logprobs") is not None else None
        table = torch.stack(made.logits, dim=1).log_softmax(-1)
        choices = []
        for place, row in enumerate(made.sequences[:, length:].tolist()):
            row = row[: row.index(self.end) + 1] if self.end in row else row
            tokens = [
                {"token": self.text([token]), "logprob": float(table[place, step, token])}
                for step, token in enumerate(row)
            ]
            # As vLLM does unless told otherwise: a random model may write the token of a picture.
            content = self.text([token for token in row if token not in self.special])
            choices.append(
                {
                    "index": place,
                    "message": {"role": "assistant", "content": content},
                    "logprobs": {"content": tokens} if body.get("logprobs") else None,
                    "finish_reason": "stop" if row[-1] == self.end else "length",
                }
            )
        return {"object": "chat.completion", "choices": choices, "prompt_logprobs": weighed}

    def weigh(self, inputs: Any) -> list[dict[str, Any] | None]:
        table = self.model(**inputs).logits[0].log_softmax(-1)
        ids = inputs["input_ids"][0].tolist()
        return [None] + [
            {str(token): {"logprob": float(table[place, token]), "rank": 1, "decoded_token": self.text([token])}}
            for place, token in enumerate(ids[1:])
        ]

    def text(self, row: list[int]) -> str:
        return str(self.processor.tokenizer.decode(row, clean_up_tokenization_spaces=False))


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] != "image_url":
        return part
    data = base64.b64decode(part["image_url"]["url"].partition("base64,")[2])
    return {"type": "image", "image": Image.open(io.BytesIO(data))}


class Handler(BaseHTTPRequestHandler):
    """One connection; what is shared stands at the server."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if self.path == "/log":
            self.send(200, self.server.log)
            self.server.log["most_open"] = 0
        else:
            names = ["large", "small"] if self.path.startswith("/two") else ["tiny"]
            self.send(200, {"object": "list", "data": [{"id": name} for name in names]})

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        server = self.server
        with server.guard:
            server.open += 1
            server.log["most_open"] = max(server.log["most_open"], server.open)
            server.log["asked"].append(
                {"path": self.path, "at": time.monotonic(), "key": self.headers.get("Authorization"),
                 "fields": sorted(body), "model": body.get("model"), "bytes": len(raw)}
            )  # fmt: skip
        try:
            fault = body.get("fault") or {}
            with server.guard:
                server.met[fault.get("key")] += 1
                strikes = fault.get("kind") if server.met[fault.get("key")] <= fault.get("times", 10**9) else None
            self.respond(body, strikes)
        finally:
            with server.guard:
                server.open -= 1

    def respond(self, body: dict[str, Any], fault: str | None) -> None:
        if fault == "busy":
            self.send(429, {"error": {"message": "too many requests"}}, {"Retry-After": "1"})
        elif fault == "broken":
            self.send(500, {"error": {"message": "the engine died", "type": "InternalServerError"}})
        elif fault == "refused":
            self.send(400, {"error": "max_tokens is too large"})
        elif fault == "key":
            self.send(401, {"detail": "Unauthorized"})
        elif fault == "not json":
            self.send_raw(200, b"<html>a proxy's page</html>")
        elif fault == "strange":
            self.send(200, {"choices": [{"text": "a completion, no chat"}]})
        elif fault == "empty":
            self.send(200, {"choices": []})
        elif fault == "slow":
            time.sleep(1.5)
            self.send(200, self.server.model.answer(body))
        elif fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif fault == "cut":
            self.send_raw(200, b'{"choices": [', {"Content-Length": "1000"})
            self.close_connection = True
        else:
            if fault == "wait":
                time.sleep(0.2)
            answer = self.server.model.answer(body)
            if fault == "plain":  # a server that knows of no probabilities, and ignores what it does not know
                answer.pop("prompt_logprobs")
                for choice in answer["choices"]:
                    choice.pop("logprobs")
            self.send(200, answer)

    def send(self, status: int, body: object, headers: dict[str, str] | None = None) -> None:
        self.send_raw(status, json.dumps(body).encode(), headers)

    def send_raw(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """What the connections share."""

    def __init__(self, folder: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model = Model(folder)
        self.guard = threading.Lock()
        self.open = 0
        self.met: Counter[object] = Counter()
        self.log: dict[str, Any] = {"most_open": 0, "asked": []}


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = Server(sys.argv[1])
    sys.stdout.write(f"{made.server_port}\n")
    sys.stdout.flush()
    made.serve_forever()
