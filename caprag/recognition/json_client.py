"""Sends a request to a server and brings back its JSON, trying again what fails for the moment.

Knows nothing of models and pictures. The client is urllib3's: it has retries, back-off and ``Retry-After``, its pool
may be shared by threads, and it is there already, below what caprag needs anyway.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3

from caprag.errors import ModelError

_KEYS = ("CAPRAG_API_KEY", "OPENAI_API_KEY")
_PASSING = (408, 429, 500, 502, 503, 504)
_REFUSED = (400, 422)
_REMEDIES = {
    401: f"give api_key, or set {_KEYS[0]}",
    403: f"give api_key, or set {_KEYS[0]}",
    404: "check the address, which ends in /v1 for most servers, and the model's name",
    429: "lower parallel, or raise retries",
}


class JsonClient:
    """What asks one server.

    Parameters
    ----------
    url
        Where the server's API begins; ``/v1`` is added to a bare host.
    api_key, timeout, retries
        See `caprag.recognition.server.ServerRecognizer`.
    connections
        Kept open at most, >= 1.

    Attributes
    ----------
    url
        Without a slash at its end.

    Raises
    ------
    ValueError
        For an address without http or https.
    """

    def __init__(self, url: str, *, api_key: str | None, timeout: float, retries: int, connections: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url must begin with http:// or https:// and name a host, not {url!r}")
        self.url = url.rstrip("/") if parts.path.strip("/") else f"{url.rstrip('/')}/v1"
        self._retries = retries
        key = api_key or next((os.environ[name] for name in _KEYS if os.environ.get(name)), None)
        self._pool = urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=timeout, read=timeout),
            headers={"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})},
            retries=urllib3.Retry(
                retries,
                allowed_methods=None,  # a request for an answer can be made twice
                status_forcelist=_PASSING,
                backoff_factor=0.5,
                backoff_jitter=0.5,
                backoff_max=30.0,
                raise_on_status=False,
            ),
        )

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, refused: str = "see what it says"
    ) -> dict[str, Any]:
        """Send one request, with its retries.

        Parameters
        ----------
        method, path
            ``"GET"`` or ``"POST"``, and what comes after the address.
        body
            Sent as JSON.
        refused
            What to do where the server does not take the request's fields (status 400 or 422).

        Returns
        -------
        dict
            The JSON object of the answer.

        Raises
        ------
        ModelError
            Where there is no answer, one of another status than 200, or none in JSON.
        """
        url = self.url + path
        data = None if body is None else json.dumps(body).encode("ascii")
        try:
            response = self._pool.request(method, url, body=data, redirect=False)
        except urllib3.exceptions.MaxRetryError as error:
            raise ModelError(
                f"{url} gave no answer, tried {self._retries + 1} times; check that the server runs there, or raise "
                f"timeout: {error.reason}"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise ModelError(f"{url} can't be asked; check the address: {error}") from error
        if response.status != 200:
            remedy = _REMEDIES.get(response.status, refused if response.status in _REFUSED else "see what it says")
            raise ModelError(f"{url} answered {response.status}; {remedy}: {_message(response.data)}")
        try:
            given = json.loads(response.data)
        except ValueError as error:
            raise ModelError(
                f"{url} answered with what is not JSON; is it an OpenAI-compatible API? {_message(response.data)}"
            ) from error
        if not isinstance(given, dict):
            raise ModelError(f"{url} answered with JSON that is no object: {_message(response.data)}")
        return given


def _message(body: bytes) -> str:
    """Find what an error's body says."""
    text = body.decode("utf-8", "replace").strip()
    try:
        found = json.loads(text)
    except ValueError:
        return text[:300]
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return (found if isinstance(found, str) else json.dumps(found, ensure_ascii=False))[:300]
