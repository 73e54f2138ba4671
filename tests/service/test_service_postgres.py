"""The service on PostgreSQL: two servers of one store, and what callers are told while it is away."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pgserver import MASTER_KEY, Server, serving

from sayso.runtime.synthesis import synthetic_voice

RECOVERY_S = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from serving()


@pytest.fixture
def shared(server: Server) -> dict[str, Any]:
    """The settings of servers that share a store."""
    return {"store": server.url(server.database()), "master_key": MASTER_KEY}


@pytest.fixture
def voice() -> Callable[[int], dict[str, Any]]:
    """A body of 20 s of speech, another one for each number."""

    def spoken(number: int) -> dict[str, Any]:
        samples = synthetic_voice(20.0)[number * 1000 :]
        content = (samples * 32767).astype("<i2").tobytes()
        return {"content": wav(content), "headers": {"Content-Type": "audio/wav"}}

    return spoken


def wav(samples: bytes) -> bytes:
    size = len(samples)
    head = b"RIFF" + (36 + size).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = (1).to_bytes(2, "little") * 2 + (16_000).to_bytes(4, "little") + (32_000).to_bytes(4, "little")
    bits = (2).to_bytes(2, "little") + (16).to_bytes(2, "little")
    return head + form + bits + b"data" + size.to_bytes(4, "little") + samples


def test_what_one_server_stored_the_other_knows_at_once(
    make_service: Callable[..., Any], shared: dict[str, Any], voice: Callable[[int], dict[str, Any]]
) -> None:
    one, other = make_service(**shared), make_service(**shared)
    other.key = one.key
    assert one.post("/v1/speakers", json={"id": "alice"}).status_code == 201
    added = one.post("/v1/speakers/alice/enrollments", **voice(0))
    assert added.status_code == 201, added.text
    assert added.json()["status"] == "enrolled"
    verified = other.post("/v1/speakers/alice/verify", **voice(1))
    assert verified.json()["decision"] == "accept", verified.text
    identified = other.post("/v1/identify", **voice(2)).json()
    assert (identified["speaker_id"], identified["searched"]) == ("alice", 1)
    replayed = one.post("/v1/speakers/alice/verify", **voice(1))  # heard by the other
    assert (replayed.status_code, replayed.json()["code"]) == (409, "recording_replayed")
    assert one.call("DELETE", "/v1/speakers/alice").status_code == 204
    assert other.post("/v1/speakers/alice/verify", **voice(3)).status_code == 404
    assert other.post("/v1/identify", **voice(3)).json()["searched"] == 0


def test_a_retry_at_the_other_server_gets_the_first_answer(
    make_service: Callable[..., Any], shared: dict[str, Any], voice: Callable[[int], dict[str, Any]]
) -> None:
    one, other = make_service(**shared), make_service(**shared)
    other.key = one.key
    one.post("/v1/speakers", json={"id": "alice"})
    body = voice(0)
    body["headers"] = {**body["headers"], "Idempotency-Key": "k1"}
    first = one.post("/v1/speakers/alice/enrollments", **body)
    again = other.post("/v1/speakers/alice/enrollments", **body)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == first.json()
    assert other.get("/v1/speakers/alice").json()["enrollments"] == 1


def test_a_key_draws_on_one_bucket_at_both_servers(
    make_service: Callable[..., Any], shared: dict[str, Any]
) -> None:
    rates = {"rate_limit": 0.01, "rate_burst": 5}
    one, other = make_service(**shared, **rates), make_service(**shared, **rates)
    other.key = one.key
    answers = [(one, other)[turn % 2].get("/v1/speakers") for turn in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 3
    assert answers[-1].json()["code"] == "rate_limited"
    assert int(answers[-1].headers["Retry-After"]) > 50


def test_while_the_store_is_away_callers_are_told_to_come_back(
    make_service: Callable[..., Any], shared: dict[str, Any], server: Server
) -> None:
    service = make_service(**shared)
    assert service.get("/readyz", key=None).status_code == 200
    service.post("/v1/speakers", json={"id": "alice"})
    server.kill()
    try:
        assert service.get("/healthz", key=None).status_code == 200
        for answer in (service.get("/v1/speakers/alice"), service.post("/v1/speakers", json={"id": "bob"})):
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["code"] == "store_unavailable"
            assert int(answer.headers["Retry-After"]) > 0
        time.sleep(2.1)  # what was found ready is believed for two seconds
        unready = service.get("/readyz", key=None)
        assert (unready.status_code, unready.json()["code"]) == (503, "not_ready")
        assert "store" in unready.json()["detail"]
        assert "127.0.0.1" not in unready.text  # told to everybody: not where it is
    finally:
        server.start()
    deadline = time.monotonic() + RECOVERY_S
    while (answer := service.get("/v1/speakers/alice")).status_code == 503:
        assert time.monotonic() < deadline
    assert answer.status_code == 200
    assert service.get("/v1/speakers/bob").status_code == 404  # nothing half-written
    while service.get("/readyz", key=None).status_code == 503:
        assert time.monotonic() < deadline
