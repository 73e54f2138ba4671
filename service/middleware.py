"""Around every request: an id, a limit on the body, a log line and its metrics."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

import structlog
from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError, unexpected
from service.metrics import Metrics

log = structlog.get_logger()
MAX_JSON_BYTES = 64 * 1024  # parsed on the event loop, before the key is checked
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestContext:
    """Around the whole application; the log holds the route's template, never ids, scores or audio."""

    def __init__(self, app: ASGIApp, metrics: Metrics, max_body_bytes: int) -> None:
        self.app, self.metrics, self.max_body_bytes = app, metrics, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        started, status, sent = time.perf_counter(), 500, False
        limited = self._limited(receive, headers)

        async def identified(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status, sent = message["status"], True
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self.app(scope, limited, identified)
        except Exception as error:
            if sent:  # too late for another answer
                raise
            await unexpected(Request(scope), error)(scope, limited, identified)
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _limited(self, receive: Receive, headers: dict[bytes, bytes]) -> Receive:
        """`receive` that refuses a body over the limit, by its announced length or as it arrives."""
        is_json = headers.get(b"content-type", b"").startswith(b"application/json")
        limit = min(self.max_body_bytes, MAX_JSON_BYTES) if is_json else self.max_body_bytes
        too_large = ServiceError(413, "body_too_large", f"the body is larger than the limit of {limit} bytes")
        content_length = headers.get(b"content-length", b"")
        announced = int(content_length) if content_length.isdigit() else 0
        received = 0

        async def counted() -> Message:
            nonlocal received
            if announced > limit:
                raise too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise too_large
            return message

        return counted

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.requests.labels(scope["method"], route, str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        facts: dict[str, Any] = {"key": scope["state"].get("key_id")} if "key_id" in scope["state"] else {}
        log.info(
            "request",
            request_id=scope["state"]["request_id"],
            method=scope["method"],
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
            **facts,
        )
