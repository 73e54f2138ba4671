"""Decisions while somebody still speaks: one WebSocket, one recording, answered as it arrives.

The caller sends a `start` message, then audio in binary messages, then `stop`. The service sends `speech`
with the net speech so far and, as soon as that is enough, `decision`, refined as more arrives. The last
message is `decision` or `enrolled` with `"final": true`, or `error` with a problem document.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from sayso.enroll.errors import EnrollError
from sayso.enroll.secrets.transaction import actor
from sayso.runtime.audio import Recording
from sayso.runtime.errors import Overloaded, RuntimeFault
from sayso.runtime.live import LiveRecording
from sayso.service import errors
from sayso.service.access.keys import ApiKey
from sayso.service.auth import authorized
from sayso.service.call import Call
from sayso.service.engine import Engine
from sayso.service.errors import ServiceError
from sayso.service.schemas import EnrollmentAdded, Identification, Verification
from sayso.service.uploads import MAX_NAME
from sayso.service.work import Admission

log = structlog.get_logger()
router = APIRouter()

PATH = "/v1/stream"
MAX_MESSAGE_BYTES = 2**20
MAX_TEXT = 256 * 1024  # characters: a search among 1000 named candidates fits, as in a request's head
START_WITHIN_S = 10.0
PATIENCE = 4  # times its longest audio that a stream may take, however steadily it sends
GROWTH = 1.5  # a decision is made again whenever net speech has grown so much: few, and ever better
ENOUGH_S = 30.0  # ten windows, all that is ever embedded
CLOSE = 4000  # plus the HTTP status of the problem

Result = Verification | Identification | EnrollmentAdded
Name = Annotated[str, Field(max_length=MAX_NAME)]


class Start(BaseModel):
    """The first message: who asks, what for, and how the audio is encoded."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["start"]
    call: Literal["verify", "identify", "enroll"]
    key: str | None = None
    speaker_id: Name | None = None
    model: Name | None = None
    encoding: Literal["pcm_s16le", "mulaw", "alaw", "opus", "ogg_opus"] = "pcm_s16le"
    sample_rate: int = 16_000
    group: Name | None = None
    candidates: Annotated[list[Name], Field(max_length=1000)] | None = None
    top_k: Annotated[int, Field(ge=1, le=100)] = 5


@dataclass
class _Stream:
    """One open stream: what it wants, what it has heard, and when that was enough."""

    engine: Engine
    start: Start
    key: ApiKey
    request_id: str
    live: LiveRecording
    required_s: float
    decide: Callable[[Call, Recording], Result] | None
    model: str
    next_at_s: float = field(init=False)
    enough_at: float | None = None
    answered: bool = False

    def __post_init__(self) -> None:
        self.next_at_s = self.required_s

    def call(self) -> Call:
        return Call.of(self.key, self.request_id, self.engine.settings, self.request_id)

    def speech(self) -> dict[str, Any]:
        """The `speech` message."""
        live = self.live
        return {
            "type": "speech",
            "audio_s": round(live.duration_s, 3),
            "net_speech_s": round(live.net_speech_s, 3),
            "remaining_speech_s": round(max(0.0, self.required_s - live.net_speech_s), 3),
            "speaking": live.speaking,
            "level_db": live.level_db,
            "peak_db": live.peak_db,
            "clipping": round(live.clipping, 5),
        }


@router.websocket(PATH)
async def stream(socket: WebSocket) -> None:
    """Listen to one recording as it is spoken; the module's head describes the messages."""
    engine: Engine = socket.app.state.engine
    request_id = uuid.uuid4().hex
    await socket.accept()
    try:
        listening = await _started(socket, engine, request_id)
        with socket.app.state.streams:  # a place is for those whose key is good
            engine.metrics.streams.set(socket.app.state.streams.taken)
            await _serve(socket, listening)
        await socket.close()
    except WebSocketDisconnect:
        pass
    except Exception as error:
        await _refuse(socket, engine, request_id, error)
    finally:
        engine.metrics.streams.set(socket.app.state.streams.taken)


async def _serve(socket: WebSocket, listening: _Stream) -> None:
    settings = listening.engine.settings
    await socket.send_json(
        {
            "type": "started",
            "request_id": listening.request_id,
            "call": listening.start.call,
            "model": listening.model,
            "required_speech_s": round(listening.required_s, 3),
            "max_stream_s": settings.max_stream_s,
        }
    )
    until = time.monotonic() + PATIENCE * settings.max_stream_s
    while True:
        message = await _receive(socket, settings.stream_idle_s, until)
        if isinstance(message, str):
            if _parsed(message).get("type") != "stop":
                raise ServiceError(422, "invalid_request", 'after `start`, send audio or {"type": "stop"}')
            await run_in_threadpool(listening.live.finish)
            return await _finish(socket, listening, "stopped")
        arrived = time.perf_counter()
        await run_in_threadpool(listening.live.push, message)
        await socket.send_json(listening.speech())
        if listening.live.net_speech_s >= listening.required_s and listening.enough_at is None:
            listening.enough_at = arrived
        if listening.live.full:
            return await _finish(socket, listening, "limit")
        if listening.decide is not None:
            if listening.live.net_speech_s >= ENOUGH_S:
                return await _finish(socket, listening, "enough")
            if listening.live.net_speech_s >= listening.next_at_s:
                await _refine(socket, listening, listening.decide)


async def _started(socket: WebSocket, engine: Engine, request_id: str) -> _Stream:
    """Read the first message and check everything that can be wrong before there is audio."""
    message = await _receive(socket, START_WITHIN_S)
    if not isinstance(message, str):
        raise ServiceError(422, "invalid_request", "the first message is a JSON text of type `start`")
    start = Start.model_validate(_parsed(message))
    scheme, _, header = socket.headers.get("authorization", "").partition(" ")
    text = start.key or (header if scheme.lower() == "bearer" else None)
    key = await run_in_threadpool(authorized, engine, text, "enroll" if start.call == "enroll" else "verify")
    actor.set(f"key:{key.id}")
    settings = engine.settings
    live = LiveRecording(engine.detector, start.encoding, start.sample_rate, settings.max_stream_s)
    if start.call != "identify" and start.speaker_id is None:
        raise ServiceError(422, "invalid_request", f"`speaker_id` is needed to {start.call}")
    if start.call == "enroll":
        speaker = await run_in_threadpool(engine.store.speaker, key.tenant, start.speaker_id or "")
        required = max(speaker.remaining_speech_s, settings.enroll_min_speech_s)
        return _Stream(engine, start, key, request_id, live, required, None, "all")
    model = engine.model(start.model)
    model.decides()
    decide: Callable[[Call, Recording], Result]
    if start.speaker_id is not None and start.call == "verify":
        await run_in_threadpool(engine.store.template, key.tenant, start.speaker_id, model.embedder.sha256)
        decide = partial(_verify, engine, start.speaker_id, model.name)
    else:
        decide = partial(_identify, engine, start, model.name)
    return _Stream(
        engine, start, key, request_id, live, settings.verify_required_speech_s, decide, model.name
    )


def _verify(engine: Engine, speaker_id: str, model: str, call: Call, recording: Recording) -> Verification:
    return engine.verify(call, speaker_id, recording, model)


def _identify(engine: Engine, start: Start, model: str, call: Call, recording: Recording) -> Identification:
    return engine.identify(call, recording, model, start.top_k, start.group, start.candidates)


async def _refine(socket: WebSocket, listening: _Stream, decide: Callable[[Call, Recording], Result]) -> None:
    """A decision on what was heard so far; on a busy service it is put off to the next audio."""
    try:
        admission: Admission = socket.app.state.admission
        admission.check()  # before the copy that is worked on is made
        result = await admission.run(decide, listening.call(), listening.live.recording())
    except (Overloaded, RuntimeFault) as error:
        if isinstance(error, Overloaded) or getattr(error, "required_speech_s", None):
            return  # too noisy or clipped so far, or short by a frame: what follows may be better
        raise
    listening.next_at_s = listening.live.net_speech_s * GROWTH
    await _send(socket, listening, result, final=False)


async def _finish(socket: WebSocket, listening: _Stream, ended: str) -> None:
    """The answer to the whole of it, which is the one that a posted recording would get."""
    admission: Admission = socket.app.state.admission
    admission.check()
    call, recording = listening.call(), listening.live.recording()
    if listening.decide is not None:
        result: Result = await admission.run(listening.decide, call, recording)
    else:
        enroll = listening.engine.enroll
        result = await admission.run(enroll, call, listening.start.speaker_id or "", recording)
    await _send(socket, listening, result, final=True, ended=ended)


async def _send(socket: WebSocket, listening: _Stream, result: Result, **facts: Any) -> None:
    """A `decision` or `enrolled` message; the first decision tells how long it took from enough speech."""
    waited = None
    if listening.enough_at is not None and listening.decide is not None and not listening.answered:
        seconds = time.perf_counter() - listening.enough_at
        listening.engine.metrics.stream_seconds.labels(listening.start.call, listening.model).observe(seconds)
        waited = round(seconds * 1000, 3)
        listening.answered = True
    kind = "decision" if listening.decide is not None else "enrolled"
    body = result.model_dump(mode="json")
    await socket.send_json({"type": kind, **facts, "after_enough_speech_ms": waited, "result": body})


async def _receive(socket: WebSocket, within_s: float, until: float = math.inf) -> str | bytes:
    """The next message; raises a 408 when none comes in time and a 413 for one that is too large."""
    if time.monotonic() > until:
        raise ServiceError(408, "stream_too_slow", "the audio arrives too slowly: the stream is closed")
    try:
        message = await asyncio.wait_for(socket.receive(), within_s)
    except TimeoutError:
        raise ServiceError(
            408, "stream_idle", f"nothing arrived for {within_s:g} s: the stream is closed"
        ) from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    content: str | bytes | None = message.get("text")
    if content is None:
        content = message.get("bytes") or b""
    limit = MAX_TEXT if isinstance(content, str) else MAX_MESSAGE_BYTES
    if len(content) > limit:
        raise ServiceError(413, "body_too_large", f"a message is larger than {limit} bytes")
    return content


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ServiceError(400, "malformed_json", "the message is not a JSON object")
    return value


async def _refuse(socket: WebSocket, engine: Engine, request_id: str, error: Exception) -> None:
    """Send what went wrong as a problem document, and close."""
    extra: dict[str, Any] = {}
    if isinstance(error, ServiceError):
        status, code, detail = error.status, error.code, str(error)
    elif isinstance(error, ValidationError):
        found = errors.problems(error.errors())
        status, code, extra = 422, "invalid_request", {"errors": found}
        detail = errors.sentence(found)
    elif isinstance(error, (RuntimeFault, EnrollError)):
        status, code, detail, extra = errors.status_of(error), error.code, str(error), errors.details(error)
    else:
        status, code = 500, "internal_error"
        detail = f"an unexpected error happened; the log has it under the request id {request_id}"
    if status >= 500:
        log.error("stream fault", code=code, request_id=request_id, exc_info=error)
    engine.metrics.refusals.labels(code).inc()
    problem = errors.document(status, code, detail, PATH, request_id, **extra)
    try:
        await socket.send_json({"type": "error", "problem": problem})
        await socket.close(CLOSE + status)
    except (RuntimeError, WebSocketDisconnect):
        pass  # the caller has gone
