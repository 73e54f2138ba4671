"""A stop that nobody notices: the real process is told to end while it is being used."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from process import Server
from sounds import voice_of
from websockets.sync.client import connect

VOICE = voice_of("ann", 1, 3.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "data", SAYSO_DRAIN_S="3")
    yield running
    running.close()


def test_it_says_so_first_and_finishes_what_was_begun(server: Server) -> None:
    server.enroll("ann", [voice_of("ann", 2, 16)])
    start = {"type": "start", "call": "verify", "speaker_id": "ann", "key": server.key}
    with connect(f"ws://127.0.0.1:{server.port}/v1/stream") as stream:
        stream.send(json.dumps(start))
        assert json.loads(stream.recv(30))["type"] == "started"
        server.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        while (ready := server.client.get("/readyz")).status_code == 200:
            assert time.monotonic() < told + 30
            time.sleep(0.02)
        assert (ready.status_code, ready.json()["code"]) == (503, "shutting_down")
        assert ready.headers["retry-after"] == "5"
        served = server.client.post("/v1/embeddings", content=VOICE)  # on a new connection, as before
        assert served.status_code == 200
        assert served.headers["connection"] == "close"
        while True:  # the stream goes on when nobody new is let in any more
            try:
                server.client.get("/healthz")
            except httpx2.ConnectError:
                break
            time.sleep(0.1)
        stream.send(voice_of("ann", 5, 3.0)[44:])
        stream.send(json.dumps({"type": "stop"}))
        while not (message := json.loads(stream.recv(30))).get("final"):
            assert message["type"] in ("speech", "decision"), message
    assert server.process.wait(30) in (0, -signal.SIGTERM)
    assert "took_too_long" not in server.log.read_text()


def test_a_person_at_the_keyboard_does_not_wait(tmp_path: Path) -> None:
    server = Server(tmp_path / "data", SAYSO_DRAIN_S="3600")
    try:
        server.process.send_signal(signal.SIGINT)
        server.process.wait(120)
    finally:
        server.close()
