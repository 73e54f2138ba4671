"""Enrolments of another voice, and of a recording that is enrolled already: said, or refused on demand."""

from typing import Any

import numpy as np
import pytest
from sounds import encode, voice_of

from sayso.runtime.synthesis import synthetic_voice
from sayso.service.hearing import Heard
from sayso.service.served import ServedModel

LOW, HIGH = (120.0, 1.0), (290.0, 1.35)  # two voices whose cosine is about 0.57 with `baseline`
LIMIT = 0.7


def voice(kind: tuple[float, float], take: int, seconds: float = 8.0, format: str = "WAV") -> bytes:
    samples = (synthetic_voice(seconds, *kind, seed=take) * 32_000).astype(np.int16)
    return encode(samples, format=format)


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Synthetic voices are alike to a network of real ones, so the limit is set between them."""
    monkeypatch.setattr(ServedModel, "unlike_below", LIMIT)


def enroll(service: Any, speaker: str, data: bytes, key: str = "", **headers: str) -> Any:
    if service.get(f"/v1/speakers/{speaker}").status_code == 404:
        service.post("/v1/speakers", json={"id": speaker})
    return service.post(f"/v1/speakers/{speaker}/enrollments", content=data, key=key, headers=headers)


def test_the_limit_is_what_same_speakers_hardly_miss(service: Any) -> None:
    model = service.engine.models["baseline"]
    assert model.unlike_below == model.calibration.cohesion_floor
    assert 0.0 < model.unlike_below < 0.5


@pytest.mark.usefixtures("limited")
def test_another_voice_is_said_to_every_key(service: Any) -> None:
    lesser = service.new_key("default", ("read", "enroll"))
    assert enroll(service, "ann", voice(LOW, 1)).json()["enrollment"]["warnings"] == []
    assert enroll(service, "ann", voice(LOW, 2)).json()["enrollment"]["warnings"] == []
    assert service.get("/v1/speakers/ann").json()["warnings"] == []
    foreign = enroll(service, "ann", voice(HIGH, 3), key=lesser)
    assert foreign.status_code == 201
    assert foreign.json()["enrollment"]["warnings"] == ["unlike_earlier"]
    assert foreign.json()["enrollment"]["cohesion"] is None  # which a warning is not
    for key in (service.key, lesser):
        assert service.get("/v1/speakers/ann", key=key).json()["warnings"] == ["unlike_earlier"]
        listed = service.get("/v1/speakers/ann/enrollments", key=key).json()["items"]
        assert [each["warnings"] for each in listed] == [[], [], ["unlike_earlier"]]
    service.call("DELETE", f"/v1/speakers/ann/enrollments/{foreign.json()['enrollment']['id']}")
    assert service.get("/v1/speakers/ann").json()["warnings"] == []


def test_a_model_without_calibration_warns_of_nothing(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServedModel, "unlike_below", None)
    enroll(service, "ann", voice(LOW, 1))
    assert enroll(service, "ann", voice(HIGH, 3)).json()["enrollment"]["warnings"] == []


@pytest.mark.usefixtures("limited")
def test_a_strict_service_refuses_another_voice(make_service: Any) -> None:
    service = make_service(enroll_strict=True)
    assert enroll(service, "ann", voice(LOW, 1)).status_code == 201
    refused = enroll(service, "ann", voice(HIGH, 3))
    assert (refused.status_code, refused.json()["code"]) == (409, "unlike_earlier")
    assert service.get("/v1/speakers/ann").json()["enrollments"] == 1
    assert enroll(service, "ann", voice(LOW, 2)).status_code == 201


@pytest.mark.parametrize("format", ["WAV", "FLAC"])
def test_a_recording_counts_once_for_a_speaker(service: Any, format: str) -> None:
    first = enroll(service, "ann", voice(LOW, 1, 6.0))
    again = enroll(service, "ann", voice(LOW, 1, 6.0, format))
    assert (again.status_code, again.json()["code"]) == (409, "same_recording")
    assert first.json()["enrollment"]["id"] in again.json()["detail"]
    speaker = service.get("/v1/speakers/ann").json()
    assert (speaker["enrollments"], speaker["net_speech_s"]) == (1, first.json()["net_speech_s"])
    service.call("DELETE", f"/v1/speakers/ann/enrollments/{first.json()['enrollment']['id']}")
    assert enroll(service, "ann", voice(LOW, 1, 6.0)).status_code == 201  # what is deleted is forgotten


def test_a_retry_is_not_the_same_recording_again(service: Any) -> None:
    data = voice(LOW, 1)
    first = enroll(service, "ann", data, **{"Idempotency-Key": "k"})
    service.engine.answers.answer = lambda *_: None  # a crash lost the kept answer
    service.engine.answers.remember = lambda *_: None
    again = enroll(service, "ann", data, **{"Idempotency-Key": "k"})
    assert again.status_code == 201, again.text
    assert again.json()["enrollment"]["id"] == first.json()["enrollment"]["id"]


def test_a_recording_of_somebody_else_is_said(service: Any) -> None:
    data = voice_of("ann", 1, 16)
    for name in ("bob", "cat", "dan"):
        service.enrolled(name, voice_of(name, 1, 16))
    service.enrolled("ann", voice_of("ann", 2, 16), data)
    second = enroll(service, "eve", data)
    assert (second.status_code, second.json()["enrollment"]["warnings"]) == (201, ["same_recording"])
    assert enroll(service, "fay", voice_of("ann", 3, 16)).json()["enrollment"]["warnings"] == []
    other = service.new_key("another-tenant")
    service.post("/v1/speakers", json={"id": "eve"}, key=other)
    assert enroll(service, "eve", data, key=other).json()["enrollment"]["warnings"] == []


def test_a_strict_service_refuses_a_recording_of_somebody_else(make_service: Any) -> None:
    service = make_service(enroll_strict=True)
    data = voice_of("ann", 1, 16)
    service.enrolled("ann", data)
    refused = enroll(service, "eve", data)
    assert (refused.status_code, refused.json()["code"]) == (409, "same_recording")
    assert "ann" not in refused.json()["detail"]
    assert service.get("/v1/speakers/eve").json()["enrollments"] == 0


@pytest.mark.parametrize("strict", [True, False])
def test_several_voices_are_refused_where_that_is_set(
    make_service: Any, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    service = make_service(enroll_strict=strict)
    monkeypatch.setattr(Heard, "several_voices", property(lambda self: True))
    answer = enroll(service, "ann", voice_of("ann", 1))
    if strict:
        assert (answer.status_code, answer.json()["code"]) == (409, "several_voices")
    else:
        assert answer.json()["audio"]["warnings"] == ["several_voices"]


def test_two_real_people_under_one_id_are_noticed(make_service: Any, speech: Any) -> None:
    """The shipped calibration's own limit."""
    import csv
    from collections import defaultdict

    people: dict[str, list[bytes]] = defaultdict(list)
    with (speech / "manifest.csv").open() as manifest:
        for row in csv.DictReader(manifest):
            if row["split"] == "dev" and row["corpus"] == "librispeech" and float(row["seconds"]) > 6:
                people[row["speaker"]].append((speech / row["path"]).read_bytes())
    several = [takes for _, takes in sorted(people.items()) if len(takes) >= 3][:6]
    service = make_service()
    warned = {"own": 0, "foreign": 0}
    for n, takes in enumerate(several):
        for data in takes[:2]:
            added = enroll(service, f"s{n}", data).json()["enrollment"]
            warned["own"] += "unlike_earlier" in added["warnings"]
        added = enroll(service, f"s{n}", several[n - 1][2]).json()["enrollment"]
        warned["foreign"] += "unlike_earlier" in added["warnings"]
    assert warned["own"] == 0, warned
    assert warned["foreign"] >= len(several) // 2, warned
