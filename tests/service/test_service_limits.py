"""Every limit: what is over it is refused with a clear answer, and costs nothing afterwards."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sounds import encode, voice_of

from sayso.runtime.synthesis import synthetic_voice
from sayso.service.context import RequestContext
from sayso.service.errors import ServiceError
from sayso.service.limits import BodyBudget, RateLimits
from sayso.service.middleware import MAX_JSON_BYTES, _Body

JSON = {"Content-Type": "application/json"}
ID = "x" * (MAX_JSON_BYTES + 1)


def refused(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert len(answer.content) < 25_000
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=x", "application/a+json", "text/plain", ""],
)
def test_json_is_small_whatever_it_calls_itself(service: Any, content_type: str) -> None:
    for method, path in (("POST", "/v1/speakers"), ("PATCH", "/v1/speakers/ann")):
        for content in (f'{{"id": "{ID}"}}'.encode(), iter([ID.encode()] * 3)):
            answer = service.call(method, path, content=content, headers={"Content-Type": content_type})
            assert refused(answer) in ((413, "body_too_large"), (422, "invalid_request"))
            assert service.client.app.state.held.held == 0


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 60_000,
        b'{"metadata":' + b'{"x":' * 9_000 + b"1" + b"}" * 9_001,
        b'{"metadata": {"x": ' + b"9" * 5_000 + b"}}",
        b'{"\\ud800": 1}',
        b'{"id": "\\ud800"}',
        b'{"name": "\\udfff"}',
        b'{"metadata": {"x": "\\ud800"}}',
        b'{"metadata": {"x": NaN}}',
        b'{"metadata": {"x": 1e999}}',
        json.dumps({"groups": list(range(9_000))}).encode(),
        json.dumps({str(i): i for i in range(4_000)}).encode(),
        b'{"id": "a", "id": null, "groups": {}}',
        b"[]",
        b"null",
        b'"x"',
        b"",
    ],
)
def test_strange_json_is_refused_briefly(service: Any, body: bytes) -> None:
    status, _ = refused(service.post("/v1/speakers", content=body, headers=JSON))
    assert status in (400, 422)
    assert service.get("/v1/speakers").json()["items"] == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/speakers/" + "a" * 50_000,
        "/v1/speakers/%ED%A0%80%ff%00",
        "/v1/speakers?cursor=" + "a" * 300,
        "/v1/speakers?group=" + "a" * 300,
        "/v1/speakers?limit=" + "9" * 5_000,
        "/v1/speakers?limit=1001",
        "/" + "%ff" * 5_000,
    ],
)
def test_strange_addresses_are_refused_briefly(service: Any, path: str) -> None:
    assert refused(service.get(path))[0] in (404, 422)


@pytest.mark.parametrize(
    "query",
    [
        "model=" + "a" * 300,
        "group=" + "a" * 300,
        "candidates=" + "a" * 300,
        "&".join(f"candidates=c{i}" for i in range(1001)),
        "top_k=101",
        "top_k=0",
    ],
)
def test_a_search_is_held_to_its_limits(service: Any, query: str) -> None:
    assert refused(service.post(f"/v1/identify?{query}", content=voice_of("ann")))[0] == 422


def test_a_kilobyte_cannot_cost_seconds(service: Any) -> None:
    silence = encode(np.zeros((200 * 48_000, 8), np.int16), 48_000, "FLAC")
    assert len(silence) < 300_000
    answer = service.post("/v1/identify", content=silence)
    assert refused(answer) == (413, "audio_over_compressed")
    voice = np.tile(synthetic_voice(10.0), 9)
    for format, subtype in (("OGG", "OPUS"), ("MP3", None), ("FLAC", None)):
        sent = encode(voice, format=format, subtype=subtype)
        assert service.post("/v1/embeddings", content=sent).status_code == 200, format


def test_a_key_has_its_own_rate(make_service: Any) -> None:
    service = make_service(rate_limit=0.01, rate_burst=3)
    other = service.new_key("default")
    assert [service.get("/v1/speakers").status_code for _ in range(3)] == [200] * 3
    answer = service.get("/v1/speakers")
    assert refused(answer) == (429, "rate_limited")
    assert 1 <= int(answer.headers["retry-after"]) <= 100
    for _ in range(2):  # a request with an Idempotency-Key is one request too
        made = service.post("/v1/speakers", json={"id": "a"}, headers={"Idempotency-Key": "a"}, key=other)
        assert made.status_code == 201
    assert service.get("/v1/speakers", key=other).status_code == 200
    assert refused(service.get("/v1/speakers", key=other)) == (429, "rate_limited")
    assert service.get("/healthz").status_code == 200
    wrong = service.get("/v1/speakers", key="nonsense")
    assert wrong.status_code == 401


def test_tokens_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    rates = RateLimits(2.0, 4)

    def taken() -> int:
        for count in range(100):
            try:
                rates.take("a")
            except ServiceError:
                return count
        raise AssertionError("no limit")

    assert taken() == 4
    now += 1.0
    assert taken() == 2
    now += 1_000.0
    assert taken() == 4
    for _ in range(1_000):
        RateLimits(0.0, 1).take("a")


def test_a_rate_holds_between_threads() -> None:
    rates, passed = RateLimits(1e-9, 50), []

    def hammer() -> None:
        for _ in range(40):
            try:
                rates.take("a")
            except ServiceError:
                continue
            passed.append(1)

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 50


def test_bodies_share_a_budget_and_give_it_back(make_service: Any) -> None:
    service = make_service(max_held_bytes=2**20)
    held = service.client.app.state.held
    data = voice_of("ann", 1, 30)  # 960 kB
    assert service.post("/v1/embeddings", content=data).status_code == 200
    held.take(2**18)  # as another request would
    answer = service.post("/v1/embeddings", content=data)
    assert refused(answer) == (429, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    answer = service.post("/v1/identify", files={"audio": ("a.wav", data)})
    assert refused(answer) == (429, "overloaded")
    assert refused(service.post("/v1/embeddings", content=b"nothing"))[0] == 400
    assert held.held == 2**18
    held.give_back(2**18)
    assert service.post("/v1/embeddings", content=data).status_code == 200
    assert held.held == 0
    assert "sayso_held_bytes 0.0" in service.get("/metrics").text


def body(parts: list[bytes], limit: int, held: BodyBudget, timeout_s: float, **headers: str) -> _Body:
    context = RequestContext("id", limit, limit, lambda: False)
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]

    async def receive() -> Any:
        if messages:
            return messages.pop(0)
        return await asyncio.Event().wait()  # a client that has stopped sending

    return _Body(receive, {k.encode(): v.encode() for k, v in headers.items()}, context, held, timeout_s)


@pytest.mark.parametrize(
    ("parts", "headers", "status"),
    [
        ([b"x" * 11], {}, 413),
        ([b"x" * 6, b"x" * 6], {}, 413),
        ([], {"content-length": "11"}, 413),
        ([], {"content-length": "9" * 5_000}, 408),
        ([b"x" * 9], {}, 408),
        ([b"x" * 8, b"x" * 2], {}, 408),
        ([], {}, 408),
    ],
)
def test_a_body_is_held_to_size_and_time(parts: list[bytes], headers: dict[str, str], status: int) -> None:
    held = BodyBudget(100)
    reader = body(parts, 10, held, 0.05, **headers)

    async def read() -> None:
        while True:
            await reader.receive()

    with pytest.raises(ServiceError) as refusal:
        asyncio.run(read())
    assert refusal.value.status == status
    assert held.held == reader.received <= 10


def test_work_ends_when_its_time_is_over(make_service: Any) -> None:
    """Whoever waits for a turn too long is told so, and whoever gets one too late is not begun."""
    service = make_service(request_timeout_s=1.0, max_concurrency=2)
    engine, go, held = service.engine, threading.Event(), threading.Semaphore(0)
    detect = engine.ear.detector.detect

    def slow(recording: Any) -> Any:
        held.release()
        return go.wait(30) and detect(recording)

    engine.ear.detector.detect = slow
    service.client.app.state.admission._turns = asyncio.Semaphore(1)
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(service.post, "/v1/embeddings", content=voice_of("ann", 1, 2))
        assert held.acquire(timeout=30)
        answer = service.post("/v1/embeddings", content=voice_of("ann", 1, 2))
        assert refused(answer) == (503, "took_too_long")
        assert int(answer.headers["retry-after"]) >= 1
        go.set()
        assert refused(stuck.result()) == (503, "took_too_long")
    assert service.client.app.state.admission.taken == 0


HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@pytest.mark.parametrize(
    "path", ["/healthz", "/v1/speakers", "/nowhere", "/docs", "/", "/openapi.json", "/metrics"]
)
def test_security_headers_are_on_every_answer(service: Any, path: str) -> None:
    # Pages hold nothing of anybody: they may be kept, and are asked for again each time.
    expected = {**HEADERS, "cache-control": "no-cache"} if path in ("/", "/docs") else HEADERS
    for key in (None, service.key):
        answer = service.get(path, key=key)
        assert expected.items() <= dict(answer.headers).items()
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "strict-transport-security" not in answer.headers
        assert "server" not in answer.headers
