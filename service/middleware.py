"""Around every request: an id, a limit on the body, a log line and its metrics."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import ServiceError
from service.metrics import Metrics

log = structlog.get_logger()
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestContext:
    """The outermost layer; the log holds the route's template, never ids, scores or audio."""

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
        started, status = time.perf_counter(), 500
        limited = self._limited(receive, headers.get(b"content-length", b""))

        async def identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self.app(scope, limited, identified)
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _limited(self, receive: Receive, content_length: bytes) -> Receive:
        """`receive` that refuses a body over the limit, by its announced length or as it arrives."""
        too_large = ServiceError(
            413, "body_too_large", f"the body is larger than the limit of {self.max_body_bytes} bytes"
        )
        announced = int(content_length) if content_length.isdigit() else 0
        received = 0

        async def counted() -> Message:
            nonlocal received
            if announced > self.max_body_bytes:
                raise too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_body_bytes:
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
