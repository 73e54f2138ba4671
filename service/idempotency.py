"""`Idempotency-Key` on POST: a retry gets the first answer again instead of a second effect."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from sayso.service.auth import bearer
from sayso.service.errors import ServiceError
from sayso.service.middleware import allow_recordings
from sayso.service.work import engine_of

HEADER = "idempotency-key"
_BOUNDARY = re.compile(r'boundary="?([^";,]+)"?', re.IGNORECASE)
_LONGEST_KEY = 255


def id_from(prefix: str, *parts: str | bytes) -> str:
    """An id that follows from what it is given, so that a retry after a crash finds what was stored."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part if isinstance(part, bytes) else part.encode()).digest())
    return f"{prefix}_{digest.hexdigest()[:20]}"


class IdempotentRoute(APIRoute):
    """A route whose successful POST answers are kept for 24 hours under the caller's key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_recordings = bool(self.openapi_extra)

        async def once(request: Request) -> Response:
            key = request.headers.get(HEADER)
            if key is None or request.method != "POST":
                return await handle(request)
            if takes_recordings:
                allow_recordings(request)
            return await _once(request, key, handle)

        return once


async def _once(
    request: Request, key: str, handle: Callable[[Request], Coroutine[Any, Any, Response]]
) -> Response:
    if not 0 < len(key) <= _LONGEST_KEY:
        raise ServiceError(
            422, "idempotency_key_invalid", f"an Idempotency-Key has 1 to {_LONGEST_KEY} characters"
        )
    answers, caller = engine_of(request).answers, await bearer(request)
    request.app.state.admission.check()
    fingerprint = await run_in_threadpool(_fingerprint, request, await request.body())
    scope = caller.id
    request.state.attempt = f"{scope} {key} {fingerprint}"  # the same key with another recording is a guess
    busy: set[tuple[str, str]] = request.app.state.idempotent_in_flight
    if (scope, key) in busy:
        raise ServiceError(
            409, "idempotency_in_progress", "a request with this Idempotency-Key is still being worked on"
        )
    busy.add((scope, key))
    try:
        kept = await run_in_threadpool(answers.answer, scope, key, fingerprint)
        if kept is not None:
            return Response(kept.body, kept.status, {"Idempotent-Replayed": "true"}, "application/json")
        response = await handle(request)
        if response.status_code < 300:
            body, about = bytes(response.body), request.path_params.get("speaker_id")
            kept_as = (caller.tenant, scope, key, fingerprint, response.status_code, body, about)
            await run_in_threadpool(answers.remember, *kept_as)
        return response
    finally:
        busy.discard((scope, key))


def _fingerprint(request: Request, body: bytes) -> str:
    """What the request asks for; a multipart boundary differs between retries and does not count."""
    boundary = _BOUNDARY.search(request.headers.get("content-type", ""))
    if boundary:
        body = body.replace(boundary[1].encode(), b"")
    asked = request.scope["path"].encode(errors="replace") + b"?" + request.scope["query_string"] + b"\n"
    return hashlib.sha256(asked + body).hexdigest()
