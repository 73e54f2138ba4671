"""Recordings out of request bodies: multipart `audio`, or the raw body with its content type."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from sayso.service.errors import ServiceError
from sayso.service.middleware import allow_recordings

FIELD = "audio"
MAX_NAME = 256  # characters of a name in a query: longer than any that exists
ATTEMPT = "sayso-attempt"  # how a proxy that may send a request again names it, each time alike
_MULTIPART = "multipart/form-data"


class _InMemoryParser(MultiPartParser):
    """Keeps recordings out of temporary files: a voice must not be left on a disk by the way."""

    spool_max_size = 2**31  # the body limit comes first


async def recordings(request: Request, count: int = 1) -> list[bytes]:
    """The request's `count` recordings; raises `ServiceError` for a form that lacks them.

    Raises `Overloaded` before reading anything when there is no room to work on them. Their digest is left
    in `request.state.recorded`.
    """
    request.app.state.admission.check()
    sent = await _sent(request, count)
    if ATTEMPT in request.headers:
        request.state.recorded = await run_in_threadpool(_digest, sent)
    return sent


def _digest(sent: list[bytes]) -> str:
    return hashlib.sha256(b"".join(sent)).hexdigest()


async def _sent(request: Request, count: int) -> list[bytes]:
    allow_recordings(request)
    if not request.headers.get("content-type", "").lower().startswith(_MULTIPART):
        if count > 1:
            raise ServiceError(
                415, "multipart_required", f"send {count} recordings as multipart form fields `{FIELD}`"
            )
        return [await request.body()]
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
        return [await file.read() for file in files]
    finally:
        await form.close()


def audio_body(count: int = 1) -> dict[str, Any]:
    """The OpenAPI request body of a route that takes recordings."""
    binary = {"type": "string", "format": "binary"}
    field = binary if count == 1 else {"type": "array", "items": binary, "minItems": 2, "maxItems": 2}
    form = {"schema": {"type": "object", "properties": {FIELD: field}, "required": [FIELD]}}
    content: dict[str, Any] = {_MULTIPART: form}
    if count == 1:
        for kind in ("audio/wav", "audio/flac", "audio/mpeg", "audio/ogg", "application/octet-stream"):
            content[kind] = {"schema": binary}
    return {"requestBody": {"required": True, "content": content}}
