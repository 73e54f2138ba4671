"""A stream. `_sync_stream.py` is made of this file by `unasync.py`: change this one."""

from __future__ import annotations

import json
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sayso_client.errors import SaysoError, StreamEnded, Unreachable, problem
from sayso_client.models import EVENT, Decision, Enrolled, Event, Speech, Started

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection


class AsyncStream:
    """One recording while it is spoken; use it as a context manager.

    `started` tells what the service wants. `final` is its last word once there is one.
    """

    started: Started
    final: Decision | Enrolled | None = None

    def __init__(self, url: str, key: str, start: dict[str, Any]) -> None:
        self._url, self._key, self._start = url, key, start
        self._socket: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        try:
            from websockets.asyncio.client import connect
            from websockets.exceptions import WebSocketException
        except ImportError as error:
            raise SaysoError("streams need websockets: pip install 'sayso-client[stream]'") from error
        headers = {"Authorization": f"Bearer {self._key}"}
        try:
            self._connecting = connect(self._url, additional_headers=headers, max_size=2**20)
            self._socket = await self._connecting.__aenter__()
        except (OSError, WebSocketException) as error:
            raise Unreachable(f"{self._url} does not answer: {error}") from error
        try:
            await self._socket.send(json.dumps(self._start))
            first = await self._receive()
            if not isinstance(first, Started):
                raise StreamEnded(f"the service began with `{first.type}`")
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        self.started = first
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            await self._connecting.__aexit__(kind, error, trace)

    async def send(self, audio: bytes) -> list[Event]:
        """Send audio (for `opus`, one packet) and give what the service said up to this audio.

        A decision on this audio may come with the next. Once `final` is there, nothing more is sent.
        """
        from websockets.exceptions import ConnectionClosed

        events: list[Event] = []
        if self.final is not None:
            return events
        with suppress(ConnectionClosed):  # it had enough; what it said last is still to be read
            await self._connection().send(audio)
        while self.final is None:
            event = await self._receive()
            if isinstance(event, Started):
                continue
            events.append(event)
            if isinstance(event, Speech):
                break
        return events

    async def stop(self) -> Decision | Enrolled:
        """Say that this was all, and wait for the last word. Raises what the service refuses."""
        from websockets.exceptions import ConnectionClosed

        if self.final is None:
            with suppress(ConnectionClosed):
                await self._connection().send('{"type": "stop"}')
        while self.final is None:
            await self._receive()
        return self.final

    def _connection(self) -> ClientConnection:
        if self._socket is None:
            raise SaysoError("open the stream first: `with client.stream(...) as stream`")
        return self._socket

    async def _receive(self) -> Started | Event:
        from websockets.exceptions import ConnectionClosed

        try:
            text = await self._connection().recv()
        except ConnectionClosed as error:
            raise StreamEnded(f"the stream ended without a last word: {error}") from error
        message = json.loads(text)
        if message["type"] == "error":
            raise problem(message["problem"]["status"], message["problem"])
        event = EVENT.validate_python(message)
        if isinstance(event, (Decision, Enrolled)) and event.final:
            self.final = event
        return event
