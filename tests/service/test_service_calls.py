"""The HTTP calls, on synthetic voices through the shipped model."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sounds import voice_of


def test_enrolment_adds_up_until_enrolled(service: Any) -> None:
    created = service.post("/v1/speakers", json={"id": "ann", "name": "Ann", "groups": ["a"]}).json()
    assert created["status"] == "enrolling"
    assert created["remaining_speech_s"] == 10.0
    first = service.post("/v1/speakers/ann/enrollments", content=voice_of("ann", 1)).json()
    assert first["status"] == "enrolling"
    assert first["enrollment"]["cohesion"] is None
    assert math.isclose(first["remaining_speech_s"], 10.0 - first["net_speech_s"], abs_tol=0.01)
    early = service.post("/v1/speakers/ann/verify", content=voice_of("ann", 9))
    assert (early.status_code, early.json()["code"]) == (409, "speaker_not_enrolled")
    assert early.json()["remaining_speech_s"] > 0
    second = service.post("/v1/speakers/ann/enrollments", content=voice_of("ann", 2, 8)).json()
    assert (second["status"], second["remaining_speech_s"]) == ("enrolled", 0.0)
    assert second["enrollment"]["cohesion"] > 0.5
    listed = service.get("/v1/speakers/ann/enrollments").json()["items"]
    assert [item["id"] for item in listed] == [first["enrollment"]["id"], second["enrollment"]["id"]]
    gone = service.call("DELETE", f"/v1/speakers/ann/enrollments/{listed[0]['id']}")
    assert (gone.json()["status"], gone.json()["enrollments"]) == ("enrolling", 1)


def test_verify_tells_two_voices_apart(make_service: Any) -> None:
    """Synthetic voices are alike to a network of real ones, so the threshold is set between them."""
    calibrated = make_service(replay_days=0)
    calibrated.enrolled("ann", voice_of("ann", 1), voice_of("ann", 2, 8))
    takes = [voice_of(name, 3) for name in ("ann", "bob")]
    same, other = (calibrated.post("/v1/speakers/ann/verify", content=data).json() for data in takes)
    assert same["score"] > other["score"] + 0.1
    assert same["llr"] > other["llr"]
    for answer in (same, other):
        threshold = answer["threshold"]
        assert (answer["decision"] == "accept") == (answer["llr"] >= threshold["llr"])
        assert (threshold["source"], threshold["operating_point"]) == ("calibrated", "fmr=0.01")
        assert answer["template"]["enrollments"] == 2
        stages = {"queue", "store", "decode", "speech", "embed", "search", "total"}
        assert stages == answer["timings_ms"].keys()
        assert answer["model"]["sha256"] == calibrated.engine.models["baseline"].embedder.sha256

    between = make_service(replay_days=0, thresholds={"baseline": (same["score"] + other["score"]) / 2})
    answers = [between.post("/v1/speakers/ann/verify", content=data).json() for data in takes]
    assert [answer["decision"] for answer in answers] == ["accept", "reject"]


def test_multipart_and_raw_bodies_are_the_same_recording(make_service: Any) -> None:
    service = make_service(replay_days=0)
    service.enrolled("ann", voice_of("ann", 1), voice_of("ann", 2, 8))
    data = voice_of("ann", 3)
    raw = service.post("/v1/speakers/ann/verify", content=data, headers={"Content-Type": "audio/wav"})
    form = service.post("/v1/speakers/ann/verify", files={"audio": ("a.wav", data)})
    assert raw.json()["score"] == form.json()["score"]


def test_identify_finds_knows_and_narrows(service: Any) -> None:
    for name in ("ann", "bob", "cat"):
        service.enrolled(name, voice_of(name, 1), voice_of(name, 2, 8))
    found = service.post("/v1/identify", content=voice_of("cat", 5)).json()
    assert found["candidates"][0]["speaker_id"] == "cat"
    assert [c["rank"] for c in found["candidates"]] == [1, 2, 3]
    assert found["searched"] == 3
    assert found["threshold"]["fpir"] == 0.05
    assert found["margin"] == pytest.approx(found["llr"] - found["candidates"][1]["llr"])
    among = service.post("/v1/identify?candidates=ann&candidates=bob", content=voice_of("cat", 5)).json()
    assert among["searched"] == 2
    assert {c["speaker_id"] for c in among["candidates"]} == {"ann", "bob"}
    grouped = service.post("/v1/identify?group=nobody", content=voice_of("cat", 5)).json()
    assert (grouped["decision"], grouped["searched"], grouped["candidates"]) == ("no_match", 0, [])
    unknown = service.post("/v1/identify?candidates=zed", content=voice_of("cat", 5))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "speaker_not_found")


def test_a_deleted_speaker_is_gone_everywhere(service: Any) -> None:
    service.enrolled("ann", voice_of("ann", 1), voice_of("ann", 2, 8))
    assert service.post("/v1/identify", content=voice_of("ann", 3)).json()["searched"] == 1
    assert service.call("DELETE", "/v1/speakers/ann").status_code == 204
    assert service.post("/v1/identify", content=voice_of("ann", 3)).json()["searched"] == 0
    for method, path in (("GET", ""), ("POST", "/verify"), ("POST", "/enrollments"), ("DELETE", "")):
        answer = service.call(method, f"/v1/speakers/ann{path}", content=voice_of("ann", 3))
        assert (answer.status_code, answer.json()["code"]) == (404, "speaker_not_found"), path


def test_an_opted_out_speaker_is_left_alone(service: Any) -> None:
    service.enrolled("ann", voice_of("ann", 1), voice_of("ann", 2, 8))
    out = service.call("PATCH", "/v1/speakers/ann", json={"status": "opted_out"}).json()
    assert out["status"] == "opted_out"
    for path in ("verify", "enrollments"):
        answer = service.post(f"/v1/speakers/ann/{path}", content=voice_of("ann", 3))
        assert (answer.status_code, answer.json()["code"]) == (409, "speaker_opted_out")
    assert service.post("/v1/identify", content=voice_of("ann", 3)).json()["searched"] == 0
    back = service.call("PATCH", "/v1/speakers/ann", json={"status": "enrolled"}).json()
    assert back["status"] == "enrolled"


def test_compare_is_symmetric_and_stores_nothing(service: Any) -> None:
    def score(first: bytes, second: bytes) -> float:
        files = [("audio", ("1.wav", first)), ("audio", ("2.wav", second))]
        answer = service.post("/v1/compare", files=files)
        assert answer.status_code == 200, answer.text
        return float(answer.json()["score"])

    a, b = voice_of("ann", 1), voice_of("bob", 1)
    assert score(a, b) == pytest.approx(score(b, a), abs=1e-6)
    assert score(a, a) == pytest.approx(1.0, abs=1e-5)
    assert service.get("/v1/speakers").json()["items"] == []


def test_the_vector_is_unit_length_and_repeatable(service: Any) -> None:
    first, second = (service.post("/v1/embeddings", content=voice_of("ann", 1)).json() for _ in range(2))
    assert first["embedding"] == second["embedding"]
    assert np.linalg.norm(first["embedding"]) == pytest.approx(1.0, abs=1e-5)
    assert first["windows"] == 2


def test_pages_walk_through_all_speakers_once(service: Any) -> None:
    names = [f"s{i}" for i in range(7)]
    for name in names:
        service.post("/v1/speakers", json={"id": name})
    seen, cursor = [], ""
    while True:
        page = service.get(f"/v1/speakers?limit=3{cursor}").json()
        seen += [s["id"] for s in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == names


def test_another_tenant_sees_nothing(service: Any) -> None:
    service.enrolled("ann", voice_of("ann", 1), voice_of("ann", 2, 8))
    other = service.new_key("other")
    assert service.get("/v1/speakers", key=other).json()["items"] == []
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/verify"), ("POST", "/enrollments")):
        answer = service.call(method, f"/v1/speakers/ann{path}", key=other, content=voice_of("ann", 3))
        assert (answer.status_code, answer.json()["code"]) == (404, "speaker_not_found")
    assert service.post("/v1/identify", key=other, content=voice_of("ann", 3)).json()["searched"] == 0
    assert service.get("/v1/speakers/ann").status_code == 200


def test_an_idempotency_key_gives_the_first_answer_again(service: Any) -> None:
    retry = {"Idempotency-Key": "abc"}
    service.post("/v1/speakers", json={"id": "ann"})
    sent = {"files": {"audio": ("a.wav", voice_of("ann", 1))}, "headers": retry}
    first = service.post("/v1/speakers/ann/enrollments", **sent)
    again = service.post("/v1/speakers/ann/enrollments", **sent)  # with another multipart boundary
    assert first.content == again.content
    assert again.headers["idempotent-replayed"] == "true"
    assert service.get("/v1/speakers/ann").json()["enrollments"] == 1
    reused = service.post("/v1/speakers/ann/enrollments", content=voice_of("ann", 2), headers=retry)
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    refused = {"Idempotency-Key": "def"}
    assert service.post("/v1/speakers/ann/enrollments", content=b"", headers=refused).status_code == 400
    fixed = service.post("/v1/speakers/ann/enrollments", content=b"", headers=refused)
    assert "idempotent-replayed" not in fixed.headers  # errors are not kept


def test_a_retry_after_a_crash_adds_nothing_twice(service: Any) -> None:
    service.post("/v1/speakers", json={"id": "ann"})
    headers = {"Idempotency-Key": "abc"}
    first = service.post("/v1/speakers/ann/enrollments", content=voice_of("ann", 1), headers=headers).json()
    # As if the process had died between storing the enrolment and keeping the answer.
    with service.engine.store._database.write() as connection:
        connection.execute("DELETE FROM answers")
    again = service.post("/v1/speakers/ann/enrollments", content=voice_of("ann", 1), headers=headers).json()
    assert again["enrollment"] == first["enrollment"]
    assert again["net_speech_s"] == first["net_speech_s"]


def test_a_reused_key_with_another_recording_is_never_dropped(service: Any) -> None:
    service.post("/v1/speakers", json={"id": "ann"})
    headers = {"Idempotency-Key": "abc"}
    for take in (1, 2):
        data = voice_of("ann", take)
        assert service.post("/v1/speakers/ann/enrollments", content=data, headers=headers).status_code == 201
        with service.engine.store._database.write() as connection:  # as after 24 hours
            connection.execute("DELETE FROM answers")
    assert service.get("/v1/speakers/ann").json()["enrollments"] == 2


def test_a_speaker_made_twice_after_a_crash_is_one(service: Any) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = service.post("/v1/speakers", json={"name": "Ann"}, headers=headers).json()
    with service.engine.store._database.write() as connection:
        connection.execute("DELETE FROM answers")
    assert service.post("/v1/speakers", json={"name": "Ann"}, headers=headers).json() == first
    assert len(service.get("/v1/speakers").json()["items"]) == 1


def test_deleting_forgets_this_tenants_answers_about_the_speaker_only(service: Any) -> None:
    other = service.new_key("other")
    headers = {"Idempotency-Key": "abc"}
    theirs = service.post("/v1/speakers", key=other, json={"id": "status"}, headers=headers)
    service.post("/v1/speakers", json={"id": "status"}, headers=headers)
    service.call("DELETE", "/v1/speakers/status")
    again = service.post("/v1/speakers", key=other, json={"id": "status"}, headers=headers)
    assert again.content == theirs.content
    assert service.post("/v1/speakers", json={"id": "status"}, headers=headers).status_code == 201


def test_concurrent_calls_answer_what_single_ones_do(make_service: Any) -> None:
    service = make_service(replay_days=0, attempts_before_delay=0)
    service.enrolled("ann", voice_of("ann", 1), voice_of("ann", 2, 8))
    takes = [voice_of(name, take, 6) for name in ("ann", "bob") for take in (1, 2, 3, 5)]

    def score(data: bytes) -> float:
        answer = service.post("/v1/speakers/ann/verify", content=data)
        assert answer.status_code == 200, answer.text
        return float(answer.json()["score"])

    alone = [score(data) for data in takes]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(score, takes))
    assert together == pytest.approx(alone, abs=1e-5)


def test_too_much_at_once_is_refused_with_retry_after(make_service: Any) -> None:
    service = make_service(max_concurrency=1)
    with service.client.app.state.admission:
        answer = service.post("/v1/embeddings", content=voice_of("ann"))
    assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
    assert int(answer.headers["retry-after"]) >= 1
    assert service.post("/v1/embeddings", content=voice_of("ann")).status_code == 200


def test_metrics_show_stages_decisions_and_the_study(service: Any) -> None:
    service.enrolled("ann", voice_of("ann", 1), voice_of("ann", 2, 8))
    service.post("/v1/speakers/ann/verify", content=voice_of("ann", 3))
    service.post("/v1/identify", content=b"nothing")
    text = service.get("/metrics", key=None).text
    for line in (
        'sayso_decisions_total{call="verify",decision="accept",model="baseline"} 1.0',
        'sayso_stage_seconds_count{call="verify",model="baseline",stage="embed"} 1.0',
        'sayso_stage_seconds_count{call="enroll",model="all",stage="embed"} 2.0',
        'sayso_study_latency_seconds{network="nested"} 0.02883',
        'sayso_requests_total{method="POST",route="/v1/identify",status="400"} 1.0',
        'sayso_refusals_total{code="audio_undecodable"} 1.0',
        "sayso_queue_depth 0.0",
    ):
        assert line in text, line
    assert 'provider="CPUExecutionProvider"' in text
    assert "ann" not in text.replace("channels", "")


def test_models_tell_their_cards(service: Any) -> None:
    (model,) = service.get("/v1/models").json()["items"]
    assert model["name"] == "baseline"
    assert model["default"]
    assert model["calibrated"]
    assert model["card"]["architecture"] == "ResNetSE34L"


def test_request_ids_are_kept_or_made(service: Any) -> None:
    assert service.get("/healthz", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = service.get("/healthz", headers={"X-Request-Id": "bad id\t"}).headers["x-request-id"]
    assert len(made) == 32
