"""Every error of the client, by what a caller can do about it.

SaysoError
├── Unreachable                  the service did not answer, retries included
├── StreamEnded                  a stream broke off without a last word
└── Problem                      the service refused; `code` is stable, `str(error)` is for people
    ├── Unauthorized             401, 403: the key
    ├── NotFound                 404: speaker, enrolment, model
    ├── Conflict                 409: the state of things
    ├── BadRecording             400, 413, 415 and 422 about audio: record again
    │   └── TooLittleSpeech      with `net_speech_s` and `required_speech_s`
    ├── InvalidRequest           any other 400, 413, 415, 422: mend the call
    └── Unavailable              429, 5xx: try again later
"""

from __future__ import annotations

from typing import Any


class SaysoError(Exception):
    """Base of them all."""


class Unreachable(SaysoError):
    """The service did not answer."""


class StreamEnded(SaysoError):
    """The connection closed before the last message."""


class Problem(SaysoError):
    """What the service said in a problem document (RFC 9457), kept whole in `document`."""

    def __init__(self, status: int, document: dict[str, Any]) -> None:
        super().__init__(document.get("detail") or f"the service answered {status}")
        self.status, self.document = status, document
        self.code: str = document.get("code", "unknown")
        self.request_id: str | None = document.get("request_id")
        self.net_speech_s: float | None = document.get("net_speech_s")
        self.required_speech_s: float | None = document.get("required_speech_s")
        self.retry_after_s: float | None = document.get("retry_after_s")
        self.remaining_speech_s: float | None = document.get("remaining_speech_s")


class Unauthorized(Problem):
    """The key is missing, unknown, expired, or lacks the scope."""


class NotFound(Problem):
    """No such speaker, enrolment or model for this key."""


class Conflict(Problem):
    """The state does not allow it: a taken id, a speaker not enrolled yet or opted out."""


class BadRecording(Problem):
    """The recording cannot be used."""


class TooLittleSpeech(BadRecording):
    """Less net speech than the call needs."""


class InvalidRequest(Problem):
    """The call itself is wrong."""


class Unavailable(Problem):
    """Too busy, stopping, or faulty."""


def problem(status: int, document: dict[str, Any]) -> Problem:
    """The error that fits an answer."""
    code = str(document.get("code", ""))
    if code == "too_little_speech":
        return TooLittleSpeech(status, document)
    if code.startswith("audio_") and code not in ("audio_missing", "audio_ambiguous"):
        return BadRecording(status, document)
    if code in ("too_noisy", "too_clipped"):
        return BadRecording(status, document)
    kinds = {401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict, 429: Unavailable}
    kind = kinds.get(status) or (Unavailable if status >= 500 else InvalidRequest)
    return kind(status, document)
