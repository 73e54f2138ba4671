"""Around every request: an id, limits on the body, security headers, a log line and its metrics."""

from __future__ import annotations

import asyncio
import re
import time
import uuid

import structlog
from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sayso.service.connection import DEPARTED
from sayso.service.context import RequestContext
from sayso.service.errors import ServiceError, unexpected
from sayso.service.limits import BodyBudget
from sayso.service.metrics import Metrics
from sayso.service.settings import Settings

log = structlog.get_logger()
MAX_JSON_BYTES = 64 * 1024  # parsed on the event loop, before the key is checked
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),  # decisions and voices are nobody's to keep
)
_DATA_POLICY = b"default-src 'none'; frame-ancestors 'none'"
# Pages may use what this service itself serves, and play what they recorded.
_PAGE_POLICY = (
    b"default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; media-src 'self' blob:; "
    b"worker-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_TLS_ONLY = (b"strict-transport-security", b"max-age=31536000")


def _still_there() -> bool:
    return False


class AroundRequests:
    """Around the whole application; the log holds the route's template, never ids, scores or audio."""

    def __init__(self, app: ASGIApp, metrics: Metrics, settings: Settings, held: BodyBudget) -> None:
        self.app, self.metrics, self.held = app, metrics, held
        self.root_path = settings.root_path
        self.max_body_bytes, self.timeout_s = settings.max_body_bytes, settings.client_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.root_path and "path" in scope:
            scope["root_path"] = self.root_path
            if not scope["path"].startswith(f"{self.root_path}/"):  # a proxy took it off
                scope["path"] = self.root_path + scope["path"]
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        context = RequestContext(
            request_id=request_id,
            body_limit=min(self.max_body_bytes, MAX_JSON_BYTES),
            recordings_limit=self.max_body_bytes,
            departed=state.pop(DEPARTED, _still_there),
        )
        context.put(state)
        started, status, sent = time.perf_counter(), 500, False
        body = _Body(receive, headers, context, self.held, self.timeout_s)
        # A GET has no body to read. While a file is sent, the framework listens only for the client to leave.
        receiving = body.gone if scope["method"] in ("GET", "HEAD") else body.receive
        # HEAD is answered as GET is, without the body. A copy, since the server has to see HEAD.
        inner = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope

        async def identified(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status, sent = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                message["headers"] += _missing(message["headers"], scope)
                if scope["app"].state.draining:  # the caller's next request belongs to another process
                    message["headers"].append((b"connection", b"close"))
            elif inner is not scope:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self.app(inner, receiving, identified)
        except Exception as error:
            if sent:  # too late for another answer
                raise
            await unexpected(Request(inner), error)(inner, receiving, identified)
        finally:
            scope.update({name: inner[name] for name in ("route", "app") if name in inner})
            self.held.give_back(body.received)
            self._record(scope, context, status, time.perf_counter() - started)

    def _record(self, scope: Scope, context: RequestContext, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self.metrics.requests.labels(scope["method"], route, str(status)).inc()
        self.metrics.request_seconds.labels(route).observe(seconds)
        facts = {} if context.key is None else {"key": context.key.id}
        log.info(
            "request",
            request_id=context.request_id,
            method=scope["method"],
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
            **facts,
        )


class _Body:
    """A request's body as it arrives, held to its limit, to that of all bodies, and to a time."""

    def __init__(
        self,
        receive: Receive,
        headers: dict[bytes, bytes],
        context: RequestContext,
        held: BodyBudget,
        timeout_s: float,
    ) -> None:
        self._receive, self._context, self._held = receive, context, held
        announced = headers.get(b"content-length", b"")
        self._announced = int(announced) if announced.isdigit() and len(announced) < 20 else 0
        self._until, self._timeout_s = time.monotonic() + timeout_s, timeout_s
        self._whole = False
        self.received = 0

    async def receive(self) -> Message:
        """The next part; raises a 408, 413 or 429."""
        if self._whole:  # only the client's departure can follow
            return await self._receive()
        self._check(self._announced)
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            detail = f"the body did not arrive within {self._timeout_s:g} s"
            raise ServiceError(408, "upload_too_slow", detail, {"Connection": "close"}) from None
        size = len(message.get("body", b""))
        self._check(self.received + size)
        self._held.take(size)
        self.received += size
        self._whole = not message.get("more_body", False)
        return message

    async def gone(self) -> Message:
        """Drop what still arrives, until the client has gone."""
        while (message := await self._receive())["type"] != "http.disconnect":
            pass
        return message

    def _check(self, size: int) -> None:
        limit = self._context.body_limit
        if size > limit:
            raise ServiceError(413, "body_too_large", f"the body is larger than the limit of {limit} bytes")


def _missing(given: list[tuple[bytes, bytes]], scope: Scope) -> list[tuple[bytes, bytes]]:
    """The security headers that an answer does not set itself."""
    headers = {name.lower(): value for name, value in given}
    is_page = headers.get(b"content-type", b"").startswith(b"text/html")
    policy = _PAGE_POLICY if is_page else _DATA_POLICY
    due = [*_HEADERS, (b"content-security-policy", policy)]
    if scope.get("scheme") == "https":
        due.append(_TLS_ONLY)
    return [(name, value) for name, value in due if name not in headers]
