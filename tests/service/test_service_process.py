"""The real process over HTTP: started, used, killed, started again."""

import csv
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process import Server
from sounds import voice_of

from sayso.enroll.store import Store
from sayso.enroll.types import NewEnrollment

TEN = 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "data")
    yield running
    running.close()


def test_an_acknowledged_enrolment_survives_sigkill(server: Server) -> None:
    for take in range(3):
        server.enroll(f"ann{take}", [voice_of("ann", take, 16)])
        server.kill()
        server.start()
        speaker = server.client.get(f"/v1/speakers/ann{take}").json()
        assert (speaker["status"], speaker["enrollments"]) == ("enrolled", 1)
        found = server.post("/v1/identify", voice_of("ann", 9))
        assert found["searched"] == take + 1


def test_a_deleted_speaker_stays_deleted_after_sigkill(server: Server) -> None:
    server.enroll("ann", [voice_of("ann", 1, 16)])
    assert server.client.delete("/v1/speakers/ann").status_code == 204
    server.kill()
    server.start()
    assert server.client.get("/v1/speakers/ann").status_code == 404
    assert server.post("/v1/identify", voice_of("ann", 9))["searched"] == 0


def test_it_stops_on_sigterm_and_never_logs_a_voice_or_a_key(server: Server) -> None:
    server.enroll("ann-the-speaker", [voice_of("ann", 1, 16)])
    verified = server.post("/v1/speakers/ann-the-speaker/verify", voice_of("ann", 2))
    assert server.stop() in (0, -signal.SIGTERM)
    log = server.log.read_text()
    assert '"route": "/v1/speakers/{speaker_id}/verify"' in log
    announced, _, logged = log.partition("Try it with any recording")
    assert server.key in announced
    for secret in ("ann-the-speaker", str(verified["score"])):
        assert secret not in log
    assert logged.count(server.key) == 2  # the two commands of the announcement


def test_a_request_under_way_is_answered_before_it_stops(server: Server) -> None:
    long = voice_of("ann", 1, 60)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.post, "/v1/embeddings", long)
        while b"sayso_in_flight 1.0" not in server.client.get("/metrics").content:
            time.sleep(0.002)
        assert not answer.done()
        server.stop()
        assert len(answer.result()["embedding"]) == 512


def test_a_second_start_makes_no_second_key(server: Server) -> None:
    server.kill()
    server.start()
    assert server.log.read_text().count("export SAYSO_KEY=") == 1


@pytest.fixture(scope="module")
def people(speech: Path) -> dict[str, list[bytes]]:
    """Recordings of dev speakers that bring enough to enrol and something to hold out."""
    seconds: dict[str, list[tuple[float, Path]]] = defaultdict(list)
    with (speech / "manifest.csv").open() as manifest:
        for row in csv.DictReader(manifest):
            long = float(row["seconds"]) >= 5 and row["corpus"] in ("librispeech", "thuyg20")
            if row["split"] == "dev" and long:
                seconds[row["speaker"]].append((float(row["seconds"]), speech / row["path"]))
    rich = {name: rows for name, rows in seconds.items() if sum(s for s, _ in rows) > 30 and len(rows) >= 4}
    return {name: [path.read_bytes() for _, path in rows] for name, rows in sorted(rich.items())}


def test_real_speakers_from_enrolment_to_decision(server: Server, people: dict[str, list[bytes]]) -> None:
    names = list(people)
    enrolled, stranger = names[:TEN], names[TEN]
    held_out = {name: people[name][-1] for name in enrolled}
    for name in enrolled:
        assert server.enroll(name, people[name][:-1])["status"] == "enrolled", name

    def verified(speaker: str, data: bytes) -> Any:
        return server.post(f"/v1/speakers/{speaker}/verify", data)

    targets = [verified(name, held_out[name]) for name in enrolled]
    others = [verified(a, held_out[b]) for a, b in zip(enrolled, enrolled[1:] + enrolled[:1], strict=True)]
    strangers = [verified(name, people[stranger][0]) for name in enrolled]
    assert sum(v["decision"] == "accept" for v in targets) >= 9, [v["score"] for v in targets]
    assert sum(v["decision"] == "reject" for v in others) >= 9, [v["score"] for v in others]
    assert sum(v["decision"] == "reject" for v in strangers) >= 9, [v["score"] for v in strangers]

    identified = {name: server.post("/v1/identify", held_out[name]) for name in enrolled}
    first = [name for name, found in identified.items() if found["candidates"][0]["speaker_id"] == name]
    assert len(first) >= 9
    wrong = [n for n, found in identified.items() if found["decision"] == "match" and n not in first]
    assert not wrong
    assert all(found["searched"] == TEN for found in identified.values())
    unknown = server.post("/v1/identify", people[stranger][0])
    assert unknown["decision"] in ("no_match", "ambiguous", "inconclusive"), unknown
    assert unknown["speaker_id"] is None

    gone = first[0]
    assert server.client.delete(f"/v1/speakers/{gone}").status_code == 204
    again = server.post("/v1/identify", held_out[gone])
    assert again["searched"] == TEN - 1
    assert gone not in [c["speaker_id"] for c in again["candidates"]]

    newcomer = names[TEN + 1]
    server.enroll(newcomer, people[newcomer][:-1])
    server.kill()  # right after the acknowledged enrolment
    server.start()
    found = server.post("/v1/identify", people[newcomer][-1])
    assert found["searched"] == TEN
    assert found["candidates"][0]["speaker_id"] == newcomer


def test_a_damaged_file_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "data" / "sayso.db"
    with Store(path, 1.0) as store:
        store.create_speaker("default", "ann")
        new = NewEnrollment(2.0, 2.0, 20.0, 0.0, {"a" * 64: np.ones(1, np.float32)})
        store.add_enrollment("default", "ann", new, "the-only-enrolment")  # no start reads it
    whole = path.read_bytes()
    page = whole.index(b"the-only-enrolment") // 4096 * 4096
    path.write_bytes(whole[:page] + b"\xa5" * 4096 + whole[page + 4096 :])
    with pytest.raises(AssertionError, match="is damaged"):
        Server(tmp_path / "data")
