"""Every endpoint by every wrong credential, from the OpenAPI document: no route can be forgotten."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.routing import APIRoute
from sounds import voice_of

from enroll.keys import SCOPES

# What each call needs. A route that is missing here fails the first test.
NEEDED = {
    "POST /v1/speakers": "enroll",
    "GET /v1/speakers": "read",
    "GET /v1/speakers/{speaker_id}": "read",
    "PATCH /v1/speakers/{speaker_id}": "enroll",
    "DELETE /v1/speakers/{speaker_id}": "enroll",
    "POST /v1/speakers/{speaker_id}/unlock": "enroll",
    "GET /v1/speakers/{speaker_id}/export": "admin",
    "POST /v1/speakers/{speaker_id}/enrollments": "enroll",
    "GET /v1/speakers/{speaker_id}/enrollments": "read",
    "DELETE /v1/speakers/{speaker_id}/enrollments/{enrollment_id}": "enroll",
    "POST /v1/speakers/{speaker_id}/verify": "verify",
    "POST /v1/identify": "verify",
    "POST /v1/compare": "verify",
    "POST /v1/models/compare": "verify",
    "POST /v1/embeddings": "embed",
    "GET /v1/models": "read",
}
PUBLIC = {"GET /healthz", "GET /readyz", "GET /metrics"}
UNDOCUMENTED = {"/", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc"}
VOICE = voice_of("ann", 3)


def operations(service: Any) -> dict[str, dict[str, Any]]:
    paths = service.client.get("/openapi.json").json()["paths"]
    return {
        f"{method.upper()} {path}": call for path, calls in paths.items() for method, call in calls.items()
    }


def test_no_route_is_forgotten(service: Any) -> None:
    documented = operations(service)
    assert set(documented) == set(NEEDED) | PUBLIC
    assert {name for name, call in documented.items() if call.get("security")} == set(NEEDED)
    listed = {name.partition(" ")[2] for name in documented}
    for route in service.client.app.routes:
        if isinstance(route, APIRoute):
            assert route.path in listed | UNDOCUMENTED
        elif hasattr(route, "path"):  # documentation pages, and whatever is neither: mounts, WebSockets
            assert route.path in UNDOCUMENTED, route.path


def request_of(operation: str, speaker: str = "ann", enrollment: str = "none") -> dict[str, Any]:
    """A request that would be good with a good key."""
    method, path = operation.split(" ")
    made: dict[str, Any] = {
        "method": method,
        "path": path.format(speaker_id=speaker, enrollment_id=enrollment),
    }
    if operation == "POST /v1/speakers":
        made["json"] = {"id": "new"}
    elif method == "PATCH":
        made["json"] = {"name": "Mallory"}
    elif path == "/v1/compare":
        made["files"] = [("audio", ("1.wav", VOICE)), ("audio", ("2.wav", VOICE))]
    elif method == "POST" and not path.endswith("unlock"):
        made["content"] = VOICE
    return made


def expired(service: Any) -> str:
    text: str
    past = datetime.now(UTC) - timedelta(seconds=1)
    _, text = service.engine.store.keys.create_key("default", SCOPES, "old", past)
    return text


def revoked(service: Any) -> str:
    key, text = service.engine.store.keys.create_key("default", SCOPES, "lost")
    service.engine.store.keys.revoke_key(key.id)
    return str(text)


WRONG: dict[str, Callable[[Any], dict[str, Any]]] = {
    "none": lambda service: {},
    "empty": lambda service: {"headers": {"Authorization": ""}},
    "scheme alone": lambda service: {"headers": {"Authorization": "Bearer "}},
    "no scheme": lambda service: {"headers": {"Authorization": service.key}},
    "other scheme": lambda service: {"headers": {"Authorization": f"Basic {service.key}"}},
    "in the URL": lambda service: {"params": {"key": service.key, "access_token": service.key}},
    "in another header": lambda service: {"headers": {"X-API-Key": service.key}},
    "in a cookie": lambda service: {"headers": {"Cookie": f"Authorization=Bearer {service.key}"}},
    "malformed": lambda service: {"headers": {"Authorization": "Bearer nonsense"}},
    "binary": lambda service: {"headers": {"Authorization": b"Bearer \xff\xfe\x80"}},
    "unknown": lambda service: {"headers": {"Authorization": f"Bearer sayso_00000000_{'x' * 43}"}},
    "another secret": lambda service: {"headers": {"Authorization": f"Bearer {service.key[:-43]}{'x' * 43}"}},
    "cut short": lambda service: {"headers": {"Authorization": f"Bearer {service.key[:-1]}"}},
    "too long": lambda service: {"headers": {"Authorization": f"Bearer {service.key}x"}},
    "upper case": lambda service: {"headers": {"Authorization": f"Bearer {service.key.upper()}"}},
    "enormous": lambda service: {"headers": {"Authorization": "Bearer " + "x" * 100_000}},
    "expired": lambda service: {"headers": {"Authorization": f"Bearer {expired(service)}"}},
    "revoked": lambda service: {"headers": {"Authorization": f"Bearer {revoked(service)}"}},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_key_opens_nothing(service: Any, wrong: str) -> None:
    service.post("/v1/speakers", json={"id": "ann"})
    credential = WRONG[wrong](service)
    for operation in NEEDED:
        for retry in ({}, {"Idempotency-Key": "abc"}):
            sent = {**request_of(operation), **credential}
            sent["headers"] = {**credential.get("headers", {}), **retry}
            answer = service.call(sent.pop("method"), sent.pop("path"), key=None, **sent)
            assert answer.status_code == 401, (operation, answer.text)
            assert answer.json()["code"] in ("key_missing", "key_invalid")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert service.key not in answer.text
    assert [s["id"] for s in service.get("/v1/speakers").json()["items"]] == ["ann"]
    assert service.get("/v1/speakers/ann").json()["name"] is None


@pytest.mark.parametrize("operation", NEEDED)
def test_a_key_without_the_scope_is_refused(service: Any, operation: str) -> None:
    service.post("/v1/speakers", json={"id": "ann"})
    for scope in SCOPES:
        sent = request_of(operation)
        key = service.new_key("default", (scope,))
        answer = service.call(sent.pop("method"), sent.pop("path"), key=key, **sent)
        if scope in (NEEDED[operation], "admin"):
            assert answer.status_code not in (401, 403), (operation, scope, answer.text)
            service.post("/v1/speakers", json={"id": "ann"})  # where the call deleted her
        else:
            assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), (operation, scope)


def test_another_tenants_key_reaches_nobody(service: Any) -> None:
    service.enrolled("ann", voice_of("ann", 1), voice_of("ann", 2, 8))
    mine = service.get("/v1/speakers/ann").json()
    enrolments = service.get("/v1/speakers/ann/enrollments").json()["items"]
    theirs = service.new_key("other")
    for operation in NEEDED:
        sent = request_of(operation, enrollment=enrolments[0]["id"])
        answer = service.call(sent.pop("method"), sent.pop("path"), key=theirs, **sent)
        if "{speaker_id}" in operation:
            assert (answer.status_code, answer.json()["code"]) == (404, "speaker_not_found"), operation
        else:
            assert answer.status_code < 300, answer.text
            assert '"ann"' not in answer.text
            assert answer.json().get("searched", 0) == 0
    assert service.get("/v1/speakers/ann").json() == mine
    assert service.get("/v1/speakers/ann/enrollments").json()["items"] == enrolments


def test_a_rotated_key_works_until_its_successor_has_taken_over(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = service.engine.store.keys
    old, text = keys.create_key("default", ("read",), "door")
    new, successor = keys.rotate_key(old.id, timedelta(hours=1))
    assert (new.tenant, new.scopes, new.label) == (old.tenant, old.scopes, old.label)
    for key in (text, successor):
        assert service.get("/v1/speakers", key=key).status_code == 200
    later = datetime.now(UTC) + timedelta(hours=1, seconds=1)
    monkeypatch.setattr("enroll.clock.now", lambda: later)
    assert service.get("/v1/speakers", key=text).status_code == 401
    assert service.get("/v1/speakers", key=successor).status_code == 200


def test_metrics_can_be_closed(make_service: Any) -> None:
    service = make_service(metrics_key="m" * 16)
    for key in (None, service.key, "m" * 15):
        answer = service.get("/metrics", key=key)
        assert (answer.status_code, answer.json()["code"]) == (401, "key_invalid")
    assert service.get("/metrics", key="m" * 16).status_code == 200
