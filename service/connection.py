"""Limits on connections: a client that sends its request slowly, or does not read its answer, is cut off.

uvicorn limits only the time between two requests. `service.middleware` limits the time that a body takes.
"""

from __future__ import annotations

import asyncio
from asyncio import TimerHandle

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

MAX_HEAD_BYTES = 256 * 1024  # a search among 1000 named candidates fits
DEPARTED = "departed"  # in the scope's state: a function that tells whether the client has gone
_TICKS = 4  # looks at a connection within its timeout
_PATIENCE = 4  # timeouts that a client may take over one answer, however steadily it reads


def _canned(status: str) -> bytes:
    body = status.partition(" ")[2].encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n"
    return f"{head}retry-after: 5\r\nconnection: close\r\n\r\n".encode() + body


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits on the connection itself.

    A request's head must be whole after `timeout_s` and within MAX_HEAD_BYTES; an answer must go on being
    read. Beyond `max_connections` (0: no limit) further ones are answered 503.
    """

    timeout_s = 60.0
    max_connections = 0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._tick: TimerHandle | None = None
        self._head_bytes, self._in_head = 0, True
        self._asked = self._drained = self._moved = self.loop.time()
        self._unread = 0
        self._upgraded = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.max_connections and len(self.connections) > self.max_connections:
            self._refuse("503 Service Unavailable")
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        # Pings find a client that has gone. One that is there and does not read is found here: a connection
        # closes only after everything was read.
        self._upgraded = True
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head:
            self._head_bytes = 0
        elif self._head_bytes > MAX_HEAD_BYTES:
            self._refuse("431 Request Header Fields Too Large")

    def on_headers_complete(self) -> None:
        self._in_head, self._asked = False, self.loop.time()
        super().on_headers_complete()

        # Work for a client that has gone is dropped; the application may ask for it from any thread.
        self.scope["state"][DEPARTED] = self.transport.is_closing

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._asked = self.loop.time()
        super().on_response_complete()

    def _refuse(self, status: str) -> None:
        self.transport.write(_canned(status))
        self.transport.close()

    def _watch(self) -> None:
        """Check that the client still sends or reads, also while the connection is closing."""
        now, unread = self.loop.time(), self.transport.get_write_buffer_size()
        if self._upgraded and unread == 0 and self.transport.is_closing():
            return
        if unread == 0:
            self._drained = now
        if unread == 0 or unread < self._unread:
            self._moved = now
        self._unread = unread
        stalled = now - self._moved >= self.timeout_s or now - self._drained >= _PATIENCE * self.timeout_s
        answered = self.cycle is None or self.cycle.response_complete
        silent = answered and not self._upgraded and unread == 0 and now - self._asked >= self.timeout_s
        if stalled or silent:
            self.transport.abort()
        else:
            self._tick = self.loop.call_later(self.timeout_s / _TICKS, self._watch)

    def _unwatch(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None


def guarded(timeout_s: float, max_connections: int) -> type[GuardedProtocol]:
    """The protocol class with these limits, as uvicorn's `http` wants it."""
    limits = {"timeout_s": timeout_s, "max_connections": max_connections}
    return type("GuardedProtocol", (GuardedProtocol,), limits)
