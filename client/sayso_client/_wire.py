"""What both clients share: how calls are written and answers read, without doing either."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from sayso_client.errors import Problem, problem

Recording = bytes | str | os.PathLike[str] | BinaryIO
RETRIED = frozenset({429, 502, 503, 504})
_LONGEST_WAIT_S = 10.0  # a service that asks for more, after failed attempts say, is not waited for


def audio(recording: Recording) -> bytes:
    """The bytes of a recording."""
    if isinstance(recording, bytes):
        return recording
    if isinstance(recording, (str, os.PathLike)):
        return Path(recording).read_bytes()
    return recording.read()


def path(*parts: str) -> str:
    """A path of the API; each part is quoted."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def given(**values: Any) -> dict[str, Any]:
    """The arguments that were given."""
    return {name: value for name, value in values.items() if value is not None}


def failure(response: httpx.Response) -> Problem:
    """The error in an answer."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"detail": f"the server answered {response.status_code} without a problem document"}
    return problem(response.status_code, document)


def worth_retrying(response: httpx.Response) -> bool:
    """Whether the same call may get another answer soon."""
    if response.status_code in RETRIED:
        return _asked_s(response) <= _LONGEST_WAIT_S
    return response.status_code == 409 and failure(response).code == "idempotency_in_progress"


def wait_s(attempt: int, response: httpx.Response | None) -> float:
    """How long to wait before the next try: what the service asks for, or 0.25 s doubled each time."""
    if response is not None and _asked_s(response):
        return _asked_s(response)
    return float(min(0.25 * 2**attempt, _LONGEST_WAIT_S) * random.uniform(0.5, 1.0))  # noqa: S311


def _asked_s(response: httpx.Response) -> float:
    asked = response.headers.get("retry-after", "")
    return float(asked) if asked.isdigit() else 0.0


def stream_url(base_url: str) -> str:
    return "ws" + str(httpx.URL(base_url)).removeprefix("http").rstrip("/") + path("stream")
