"""Recordings out of request bodies: multipart `audio`, or the raw body with its content type."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sayso.runtime.audio import CHANNEL_PATTERN, MIX, SentAudio
from sayso.service.errors import ServiceError
from sayso.service.middleware import allow_recordings

FIELD = "audio"
MAX_NAME = 256  # characters of a name in a query: longer than any that exists
ATTEMPT = "sayso-attempt"  # how a proxy that may send a request again names it, each time alike
_MULTIPART = "multipart/form-data"
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


class _InMemoryParser(MultiPartParser):
    """Keeps recordings out of temporary files: a voice must not be left on a disk by the way."""

    spool_max_size = 2**31  # the body limit comes first


async def recordings(request: Request, count: int = 1) -> list[SentAudio]:
    """The request's `count` recordings; raises `ServiceError` for a form that lacks them, or a bad `channel`.

    Raises `Overloaded` before reading anything when there is no room to work on them. Their digest is left
    in `request.state.recorded`.
    """
    request.app.state.admission.check()
    sent = await _sent(request, count)
    if ATTEMPT in request.headers:
        request.state.recorded = await run_in_threadpool(_digest, sent)
    return sent


def _digest(sent: list[SentAudio]) -> str:
    return hashlib.sha256(b"".join(audio.data for audio in sent)).hexdigest()


async def _sent(request: Request, count: int) -> list[SentAudio]:
    channel = request.query_params.get("channel", MIX)
    if not re.fullmatch(CHANNEL_PATTERN, channel):
        raise ServiceError(422, "invalid_field", "channel: say mix, left, right or a number from 1 to 8")
    allow_recordings(request)
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith(_MULTIPART):
        if count > 1:
            raise ServiceError(
                415, "multipart_required", f"send {count} recordings as multipart form fields `{FIELD}`"
            )
        return [SentAudio(await request.body(), content_type, channel)]
    try:
        form = await _InMemoryParser(request.headers, request.stream(), max_files=4, max_fields=16).parse()
    except (MultiPartException, KeyError, UnicodeError) as error:
        reason = getattr(error, "message", "the content type has no usable boundary or charset")
        raise ServiceError(400, "malformed_multipart", f"the form cannot be read: {reason}") from error
    try:
        files = [value for value in form.getlist(FIELD) if isinstance(value, UploadFile)]
        if len(files) != count:
            raise ServiceError(
                422,
                "audio_missing" if len(files) < count else "audio_ambiguous",
                f"the form has {len(files)} files named `{FIELD}`, {count} expected: "
                f"curl --form {FIELD}=@recording.wav",
            )
        return [SentAudio(await file.read(), file.content_type, channel) for file in files]
    finally:
        await form.close()


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
