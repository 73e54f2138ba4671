"""Recordings out of request bodies: multipart `audio`, or the raw body with its content type."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from sayso.runtime.audio import CHANNEL_PATTERN, MIX, SentAudio
from sayso.service.context import context_of
from sayso.service.errors import ServiceError
from sayso.service.forms import parts_named
from sayso.service.work import admission_of

FIELD = "audio"
MAX_NAME = 256  # characters of a name in a query: longer than any that exists
ATTEMPT = "sayso-attempt"  # how a proxy that may send a request again names it, each time alike
LONGEST_ATTEMPT = 255
_MULTIPART = "multipart/form-data"
_CURL = f"curl --form {FIELD}=@recording.wav"
# What a text begins with; a container, and raw samples, have other bytes among the first 64.
_JSON = re.compile(rb"\s*(\{\s*\"|\[\s*[\[{\"\d-])[\s\x20-\x7e\x80-\xff]*\Z")
_BASE64 = re.compile(rb"\s*\"?(data:[a-z]+/[\x20-\x7e]*|[A-Za-z0-9+/_\s-]{63,}=*\"?\s*)\Z")
_FIELDS = re.compile(rb"[\x20-\x7e]+\Z")
_CONTENT_TYPES = (
    *(
        "audio/wav",
        "audio/flac",
        "audio/mpeg",
        "audio/ogg",
        "audio/mp4",
        "audio/webm",
        "audio/aac",
        "audio/amr",
    ),
    *("audio/basic", "audio/L16", "application/octet-stream"),
)


async def recordings(request: Request, count: int = 1) -> list[SentAudio]:
    """The request's `count` recordings; raises `ServiceError` for a form that lacks them, or a bad `channel`.

    Raises `Overloaded` before reading anything when there is no room to work on them.
    """
    admission_of(request).check()
    sent = await _sent(request, count)
    for recording in sent:
        _refuse_text(request, recording.data)
    context, given = context_of(request), request.headers.get(ATTEMPT)
    if given is not None and context.attempt is None and context.key is not None:
        # The recording belongs to the name: another one under the same header is another guess.
        digest = await run_in_threadpool(_digest, sent)
        context.attempt = f"{context.key.id} {given[:LONGEST_ATTEMPT]} {digest}"
    return sent


def _digest(sent: list[SentAudio]) -> str:
    return hashlib.sha256(b"".join(audio.data for audio in sent)).hexdigest()


async def _sent(request: Request, count: int) -> list[SentAudio]:
    channel = request.query_params.get("channel", MIX)
    if not re.fullmatch(CHANNEL_PATTERN, channel):
        raise ServiceError(422, "invalid_field", "channel: say mix, left, right or a number from 1 to 8")
    context_of(request).allow_recordings()
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith(_MULTIPART):
        if count > 1:
            raise ServiceError(
                415, "multipart_required", f"send {count} recordings as multipart form fields `{FIELD}`"
            )
        return [SentAudio(await request.body(), content_type, channel)]
    parts = await parts_named(FIELD, content_type, request.stream())
    if len(parts) != count:
        code = "audio_missing" if len(parts) < count else "audio_ambiguous"
        detail = f"the form has {len(parts)} parts named `{FIELD}`, {count} expected: {_CURL}"
        raise ServiceError(422, code, detail)
    return [SentAudio(part.content, part.content_type, channel) for part in parts]


def _refuse_text(request: Request, recording: bytes) -> None:
    """Raise a 415 that says what was sent, if it is a text in place of a recording."""
    head = recording[:64]
    way_out = f"send the file's own bytes, as the body or as a form: {_CURL}"
    if _JSON.match(head):
        raise ServiceError(415, "audio_is_text", f"JSON arrived in place of a recording: {way_out}")
    if _BASE64.match(head) and len(set(head)) > 8:  # silence may be one letter over and over
        raise ServiceError(
            415, "audio_is_text", f"base64 text arrived in place of a recording: decode it, and {way_out}"
        )
    form_encoded = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    if form_encoded and _FIELDS.match(head):
        raise ServiceError(
            415, "audio_is_text", f"form-encoded text arrived in place of a recording: {way_out}"
        )


def audio_body(count: int = 1) -> dict[str, Any]:
    """The OpenAPI request body of a route that takes recordings."""
    binary = {"type": "string", "format": "binary"}
    field = binary if count == 1 else {"type": "array", "items": binary, "minItems": 2, "maxItems": 2}
    form = {"schema": {"type": "object", "properties": {FIELD: field}, "required": [FIELD]}}
    content: dict[str, Any] = {_MULTIPART: form}
    if count == 1:
        for kind in _CONTENT_TYPES:
            content[kind] = {"schema": binary}
    parameter = {
        "name": "channel",
        "in": "query",
        "schema": {"type": "string", "pattern": CHANNEL_PATTERN, "default": MIX},
        "description": "The speaker's channel: left, right or a number from 1; mix is the mean of all.",
    }
    return {"requestBody": {"required": True, "content": content}, "parameters": [parameter]}
