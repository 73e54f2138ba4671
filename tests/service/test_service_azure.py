"""Requests as Azure's public REST reference 2021-09-05 writes them, and answers of its shapes."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sounds import encode, voice_of

ROOT = "/speaker-recognition/{}/text-independent"
VERSION = {"api-version": "2021-09-05"}
PROFILE = {
    "profileId",
    "locale",
    "profileStatus",
    "enrollmentStatus",
    "createdDateTime",
    "lastUpdatedDateTime",
    "enrollmentsCount",
    "enrollmentsLengthInSec",
    "enrollmentsSpeechLengthInSec",
    "remainingEnrollmentsSpeechLengthInSec",
    "modelVersion",
}
ENROLLMENT = {
    "profileId",
    "enrollmentStatus",
    "enrollmentsCount",
    "enrollmentsLengthInSec",
    "enrollmentsSpeechLengthInSec",
    "remainingEnrollmentsSpeechLengthInSec",
    "audioLengthInSec",
    "audioSpeechLengthInSec",
}
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
WAV = {"Content-Type": "audio/wav; codecs=audio/pcm"}


class Azure:
    """What a program written for Azure sends, after its URL was changed."""

    def __init__(self, service: Any, kind: str, key: str | None = None) -> None:
        self.service, self.root = service, ROOT.format(kind)
        self.headers = {"Ocp-Apim-Subscription-Key": key or service.key}

    def send(self, method: str, path: str, **kwargs: Any) -> Any:
        headers = {**self.headers, **kwargs.pop("headers", {})}
        params = {**VERSION, **kwargs.pop("params", {})}
        return self.service.client.request(method, self.root + path, headers=headers, params=params, **kwargs)

    def profile(self, *recordings: bytes) -> str:
        made = self.send("POST", "/profiles", json={"locale": "en-us"})
        assert made.status_code == 201, made.text
        profile_id: str = made.json()["profileId"]
        for data in recordings:
            assert self.enroll(profile_id, data).status_code == 201
        return profile_id

    def enroll(self, profile_id: str, data: bytes) -> Any:
        return self.send("POST", f"/profiles/{profile_id}/enrollments", content=data, headers=WAV)


@pytest.fixture
def parted(make_service: Callable[..., Any]) -> Any:
    """A service whose threshold parts the synthetic voices, which are more alike than people are."""
    return make_service(thresholds={"baseline": 0.95})


def test_verification_from_profile_to_deletion(parted: Any) -> None:
    azure = Azure(parted, "verification")
    made = azure.send("POST", "/profiles", json={"locale": "en-us"})
    profile = made.json()
    assert profile.keys() == PROFILE
    assert GUID.fullmatch(profile["profileId"])
    assert made.headers["location"].endswith(f"/profiles/{profile['profileId']}")
    assert (profile["locale"], profile["enrollmentStatus"], profile["profileStatus"]) == (
        "en-us",
        "Enrolling",
        "Active",
    )
    assert (profile["enrollmentsCount"], profile["remainingEnrollmentsSpeechLengthInSec"]) == (0, 10.0)
    assert profile["lastUpdatedDateTime"] is None

    first = azure.enroll(profile["profileId"], voice_of("ann", 1, 6))
    assert first.status_code == 201
    assert first.json().keys() == ENROLLMENT
    assert first.json()["enrollmentStatus"] == "Enrolling"
    second = azure.enroll(profile["profileId"], voice_of("ann", 2, 8)).json()
    assert (second["enrollmentStatus"], second["enrollmentsCount"]) == ("Enrolled", 2)
    assert second["enrollmentsLengthInSec"] == pytest.approx(14.0)
    assert (second["audioLengthInSec"], second["remainingEnrollmentsSpeechLengthInSec"]) == (8.0, 0.0)

    where = f"/profiles/{profile['profileId']}:verify"
    accepted = azure.send("POST", where, content=voice_of("ann", 3), headers=WAV)
    assert accepted.status_code == 200
    assert accepted.json().keys() == {"recognitionResult", "score"}
    assert accepted.json()["recognitionResult"] == "Accept"
    rejected = azure.send(
        "POST", where, content=voice_of("bob", 3), params={"ignoreMinLength": "true"}
    ).json()
    assert rejected["recognitionResult"] == "Reject"
    assert 0 <= rejected["score"] < accepted.json()["score"] <= 1

    fetched = azure.send("GET", f"/profiles/{profile['profileId'].upper()}").json()
    assert (fetched["enrollmentsCount"], fetched["lastUpdatedDateTime"] is None) == (2, False)
    reset = azure.send("POST", f"/profiles/{profile['profileId']}:reset")
    assert reset.status_code == 200
    assert (reset.json()["enrollmentStatus"], reset.json()["enrollmentsSpeechLengthInSec"]) == (
        "Enrolling",
        0.0,
    )
    enrolled = azure.enroll(profile["profileId"], voice_of("ann", 5, 16)).json()
    assert enrolled["enrollmentStatus"] == "Enrolled"
    parted.engine.index.warm()
    assert [mirror for mirror in parted.engine.index._mirrors.values() if mirror._roster._ids]
    assert azure.send("DELETE", f"/profiles/{profile['profileId']}").status_code == 204
    assert not [mirror for mirror in parted.engine.index._mirrors.values() if mirror._roster._ids]
    assert azure.send("GET", f"/profiles/{profile['profileId']}").status_code == 404


def test_identification_ranks_and_names_nobody_when_nobody_fits(parted: Any) -> None:
    azure = Azure(parted, "identification")
    ann, bob = azure.profile(voice_of("ann", 1, 16)), azure.profile(voice_of("bob", 1, 16))
    where, ids = "/profiles:identifySingleSpeaker", {"profileIds": f"{ann},{bob}"}
    found = azure.send("POST", where, content=voice_of("ann", 2), params=ids).json()
    assert found.keys() == {"identifiedProfile", "profilesRanking"}
    assert found["identifiedProfile"]["profileId"] == ann
    assert [one["profileId"] for one in found["profilesRanking"]] == [ann, bob]
    assert found["identifiedProfile"] == found["profilesRanking"][0]
    strange = azure.send("POST", where, content=voice_of("cat", 2), params={"profileIds": bob}).json()
    assert strange["identifiedProfile"] == {"profileId": "00000000-0000-0000-0000-000000000000", "score": 0.0}
    assert len(strange["profilesRanking"]) == 1
    for wrong in ("", "not-a-guid", ",".join([ann[:-4] + f"{i:04x}" for i in range(51)])):
        answer = azure.send("POST", where, content=voice_of("ann", 2), params={"profileIds": wrong})
        assert answer.status_code == 400, wrong
    unknown = azure.send("POST", where, content=b"x", params={"profileIds": "0" * 8 + ann[8:]})
    assert unknown.status_code == 404


def test_profiles_are_listed_by_id_page_by_page_and_by_kind(service: Any) -> None:
    azure, other = Azure(service, "verification"), Azure(service, "identification")
    made = sorted(azure.profile() for _ in range(5))
    other.profile()
    first = azure.send("GET", "/profiles", params={"maxpagesize": 3}).json()
    assert [one["profileId"] for one in first["value"]] == made[:3]
    rest = service.client.get(first["nextLink"], headers=azure.headers).json()
    assert [one["profileId"] for one in rest["value"]] == made[3:]
    assert "nextLink" not in rest
    assert other.send("GET", f"/profiles/{made[0]}").status_code == 404
    assert len(service.get("/v1/speakers?group=azure-verification").json()["items"]) == 5


def _short() -> bytes:
    return encode(np.zeros(16_000, np.float32))


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code"),
    [
        ("POST", "/profiles", {"json": {"locale": "english"}}, 400, "InvalidRequest"),
        ("POST", "/profiles", {"content": b"{"}, 400, "InvalidRequest"),
        ("GET", "/profiles?maxpagesize=501", {}, 400, "InvalidRequest"),
        ("GET", "/profiles/not-a-guid", {}, 400, "InvalidRequest"),
        ("GET", f"/profiles?$skiptoken={'a' * 300}", {}, 400, "InvalidRequest"),
        ("GET", f"/profiles?api-version={'a' * 300}", {}, 400, "InvalidRequest"),
        ("GET", "/profiles/49a36324-fc4b-4387-aa06-090cfbf0064f", {}, 404, "NotFound"),
        ("POST", "/profiles/{}/enrollments", {"content": b"no audio"}, 400, "InvalidAudioFormat"),
        ("POST", "/profiles/{}/enrollments", {"content": _short()}, 400, "AudioTooShort"),
        ("POST", "/profiles/{}/enrollments", {"content": b""}, 400, "AudioTooShort"),
        ("POST", "/profiles/{}:verify", {"content": voice_of("ann", 1)}, 409, "Conflict"),
    ],
)
def test_errors_have_azures_shape(
    service: Any, method: str, path: str, sent: dict[str, Any], status: int, code: str
) -> None:
    azure = Azure(service, "verification")
    where, _, query = path.format(azure.profile()).partition("?")
    params = dict(pair.split("=") for pair in query.split("&") if pair)
    answer = azure.send(method, where, params=params, **sent)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == answer.headers["x-ms-error-code"] == code
    assert 0 < len(answer.json()["error"]["message"]) <= 1000
    assert answer.json().keys() == {"error"}


def test_keys_scopes_and_versions(service: Any) -> None:
    nobody = Azure(service, "verification", key="wrong").send("GET", "/profiles")
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (401, "Unauthorized")
    assert service.client.get(ROOT.format("verification") + "/profiles").status_code == 401
    reader = Azure(service, "verification", key=service.new_key("default", ("read",)))
    assert reader.send("POST", "/profiles", json={"locale": "en-us"}).status_code == 403
    old = Azure(service, "verification").send("GET", "/profiles", params={"api-version": "2019-01-01"})
    assert old.status_code == 400
    theirs = Azure(service, "verification", key=service.new_key("other"))
    profile = Azure(service, "verification").profile()
    assert theirs.send("GET", f"/profiles/{profile}").status_code == 404


def test_phrases_are_there_for_those_who_ask(service: Any) -> None:
    said = Azure(service, "verification").send("GET", "/phrases/en-us").json()
    assert said["value"][0]["activationPhrase"]
