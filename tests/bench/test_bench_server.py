"""Benches against the real server: stages of a call, rates of arrivals, and what cannot be started."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from sayso.bench import load, path, peers
from sayso.bench.costs import Costs
from sayso.bench.path import wav
from sayso.bench.server import ServerFailed, ServerProcess
from sayso.runtime.audio import SAMPLE_RATE, decode
from sayso.service.settings import SHIPPED_MODELS

NESTED = SHIPPED_MODELS / "nested.onnx"


def test_a_call_is_told_apart_by_its_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "SOURCES", ((3.0, 16_000), (3.0, 48_000)))
    served = path.measure({"nested": NESTED}, "cpu", 5)
    assert [(row.seconds, row.sample_rate) for row in served.rows] == [(3.0, 16_000), (3.0, 48_000)]
    for row in served.rows:
        assert {"decode", "speech", "embed", "search", "total"} <= row.stages.keys()
        assert row.http.p50 > row.stages["embed"]
    assert served.ready_s > 0
    text = path.table(served)
    assert "| nested | 3 s at 48 kHz |" in text


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(ServerFailed, match="SAYSO_MODELS"):
        ServerProcess(SAYSO_MODELS="{bad")


def test_a_refused_call_is_an_error() -> None:
    with ServerProcess() as server, server.connection() as caller:
        assert server.resident_bytes > 2**20
        with pytest.raises(ServerFailed, match="404"):
            caller.expect("GET", "/v1/speakers/nobody")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="server and callers need a core each")
def test_arrivals_are_served_or_refused_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "RISING", (0.2,))
    monkeypatch.setattr(load, "_PERIOD_S", 1.0)
    monkeypatch.setattr(load, "_BARE_S", 1.0)
    monkeypatch.setattr(load, "_CALLS", 30)
    found = load.measure("nested", NESTED, "cpu", 3.0)
    (step,) = found.rising
    assert found.bare > 0
    assert step.served > 0
    assert step.statuses.keys() <= {200, 429}
    assert step.sent == pytest.approx(step.rate, rel=0.7)
    assert found.saturation == step.served
    assert found.over.rate == pytest.approx(load.OVER * step.served, rel=0.01)
    facts, text = found.to_dict(), load.table(found)
    assert facts["saturation_over_bare"] == pytest.approx(step.served / found.bare, abs=0.001)
    assert facts["over"]["refused"] == found.over.refused
    assert f"bare loop {found.bare:.1f}" in text
    assert "200 and 429 only" in text
    assert text.count("\n| ") == 1 + 3
    facts = json.loads(json.dumps(facts))
    costs = Costs.read(facts["costs"])
    assert costs == found.costs
    assert len(costs.calls) == 20  # without the warm-up
    inside = np.mean([call.embed_ms for call in costs.calls])
    assert 0 < costs.batches[0].cpu_ms < costs.cpu_ms  # a call is its network and more
    assert inside > 0
    assert [batch.windows for batch in costs.batches] == [1, 2, 4, 8, 16]
    assert costs.batches[-1].cpu_ms > 4 * costs.batches[0].cpu_ms  # sixteen times the work


def test_recordings_are_of_the_rate_and_length_asked_for() -> None:
    recording = decode(wav(2.0, 48_000), 10.0)
    assert recording.source_rate == 48_000
    assert len(recording.samples) == 2 * SAMPLE_RATE


WORKER = """
import sys
print("ready", flush=True)
for number, line in enumerate(sys.stdin):
    print(float(number), flush=True)
"""


def test_peers_are_timed_by_their_own_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    monkeypatch.setattr(peers, "_WORKER", worker)
    monkeypatch.setattr(peers, "install", lambda name, folder: Path(sys.executable))
    times = peers.compare({"nested": NESTED}, "cpu", tmp_path, rounds=5)
    assert set(times) == {"nested", "campplus", "resemblyzer"}
    # three to warm up, then two a round of which the second counts: 4, 6, 8, 10, 12
    assert times["campplus"].p50 == 8.0
    assert "| resemblyzer | 8.00 |" in peers.table(times)


def test_a_peer_that_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("raise SystemExit(3)")
    monkeypatch.setattr(peers, "_WORKER", worker)
    monkeypatch.setattr(peers, "install", lambda name, folder: Path(sys.executable))
    with pytest.raises(peers.PeerFailed, match="campplus ended with status 3"):
        peers.Peer("campplus", tmp_path)
