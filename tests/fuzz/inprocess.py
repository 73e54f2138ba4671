"""The service in this process, called as an ASGI server would, without a socket or a client library."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from sounds import encode

from sayso.runtime.synthesis import synthetic_voice
from sayso.service.access.keys import SCOPES
from sayso.service.app import create_app
from sayso.service.engine import Engine
from sayso.service.metrics import Metrics
from sayso.service.settings import SHIPPED_MODELS, Settings, only_models

HANG_S = 30.0
PROFILE = "49a36324-fc4b-4387-aa06-090cfbf0064f"


@dataclass
class Sent:
    """One request: `parts` of the body as they arrive; `leaves` hangs up where the body would end."""

    method: str
    path: str
    query: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    parts: list[bytes] = field(default_factory=list)
    leaves: bool = False


@dataclass
class Talk:
    """One WebSocket: the messages as they are sent; then it hangs up, or waits for the last word."""

    headers: list[tuple[bytes, bytes]]
    messages: list[str | bytes]
    leaves: bool = False
    method: str = "WS"
    path: str = "/v1/stream"


@dataclass
class Answer:
    """What came back; a status of 0 is none at all. Of a stream: its close code and its last message."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class Service:
    """A running service with one enrolled speaker, `ann`, and one that Azure's calls see; `close` it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
        models = only_models({"baseline": SHIPPED_MODELS / "baseline.onnx"})
        chosen = {"data_dir": folder / "data", "models": models, "rate_limit": 0, "threads": 1, **settings}
        self.engine = Engine(Settings(**chosen), Metrics())
        self.app = create_app(self.engine)
        self.key = self.engine.keys.create_key("default", SCOPES, "fuzz")[1]
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._start())
        profile = {"id": PROFILE, "groups": ["azure-verification", "azure-identification"]}
        for path, content in (
            ("/v1/speakers", json.dumps({"id": "ann"}).encode()),
            ("/v1/speakers", json.dumps(profile).encode()),
            ("/v1/speakers/ann/enrollments", encode(synthetic_voice(16.0, 205.0, 1.16))),
        ):
            made = self.call(Sent("POST", path, b"", self.good_headers("application/json"), [content]))
            assert made.status == 201, made

    def good_headers(self, content_type: str) -> list[tuple[bytes, bytes]]:
        return [
            (b"authorization", f"Bearer {self.key}".encode()),
            (b"content-type", content_type.encode()),
            (b"host", b"fuzz"),
        ]

    def call(self, sent: Sent | Talk) -> Answer:
        """Its answer; raises TimeoutError for a hang, and whatever the application lets out."""
        answering = self._talk(sent) if isinstance(sent, Talk) else self._call(sent)
        return self.loop.run_until_complete(asyncio.wait_for(answering, HANG_S))

    async def _talk(self, talk: Talk) -> Answer:
        messages, answer, closed = list(talk.messages), Answer(0, {}, b""), asyncio.Event()
        opened = False

        async def receive() -> dict[str, Any]:
            nonlocal opened
            if not opened:
                opened = True
                return {"type": "websocket.connect"}
            if messages:
                content = messages.pop(0)
                return {"type": "websocket.receive", "text" if isinstance(content, str) else "bytes": content}
            if not talk.leaves:
                await closed.wait()  # the service may take its time; a hang is seen by the caller
            return {"type": "websocket.disconnect", "code": 1006}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "websocket.send":
                answer.body = (message.get("text") or "").encode()
            elif message["type"] == "websocket.close":
                answer.status = message["code"]
                closed.set()

        scope = self._scope(Sent("GET", talk.path, headers=talk.headers))
        del scope["method"]
        await self.app({**scope, "type": "websocket", "scheme": "ws", "subprotocols": []}, receive, send)
        return answer

    async def _call(self, sent: Sent) -> Answer:
        parts = list(sent.parts)
        answer, answered = Answer(0, {}, b""), asyncio.Event()
        ended = False

        async def receive() -> dict[str, Any]:
            nonlocal ended
            if ended:
                if not sent.leaves:
                    await answered.wait()  # who has sent all stays until it is answered
                return {"type": "http.disconnect"}
            body = parts.pop(0) if parts else b""
            ended = not parts
            if ended and sent.leaves:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": body, "more_body": not ended}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status, answer.headers = message["status"], dict(message["headers"])
            else:
                answer.body += message.get("body", b"")
                if not message.get("more_body", False):
                    answered.set()

        await self.app(self._scope(sent), receive, send)
        return answer

    def _scope(self, sent: Sent) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": sent.method,
            "scheme": "http",
            "path": sent.path,
            "raw_path": sent.path.encode(errors="replace"),
            "query_string": sent.query,
            "root_path": "",
            "headers": sent.headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
            "state": {},
        }

    async def _start(self) -> None:
        self._stop = asyncio.Event()
        started, stopped = asyncio.Event(), asyncio.Event()
        first = True

        async def receive() -> dict[str, Any]:
            nonlocal first
            if first:
                first = False
                return {"type": "lifespan.startup"}
            await self._stop.wait()
            return {"type": "lifespan.shutdown"}

        async def send(message: dict[str, Any]) -> None:
            (started if message["type"].startswith("lifespan.startup") else stopped).set()

        self._life = asyncio.ensure_future(self.app({"type": "lifespan", "state": {}}, receive, send))
        await started.wait()

    def close(self) -> None:
        async def stop() -> None:
            self._stop.set()
            await self._life

        self.loop.run_until_complete(stop())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
