"""Every endpoint by every wrong credential, from the application's own routes: none can be forgotten."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from routes import every_route
from sounds import voice_of
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from sayso.service.access.keys import SCOPES
from sayso.service.streaming import Start

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
PAGES = {"GET /", "GET /docs", "GET /console/{path:path}", "GET /openapi.json"}  # the same for everybody
AZURE = {
    f"{method} /speaker-recognition/{{kind}}/text-independent{path}": scope
    for method, path, scope in (
        ("POST", "/profiles", "enroll"),
        ("GET", "/profiles", "read"),
        ("GET", "/profiles/{profile_id}", "read"),
        ("DELETE", "/profiles/{profile_id}", "enroll"),
        ("POST", "/profiles/{profile_id}:reset", "enroll"),
        ("POST", "/profiles/{profile_id}/enrollments", "enroll"),
        ("POST", "/profiles/{profile_id}:verify", "verify"),
        ("POST", "/profiles:identifySingleSpeaker", "verify"),
        ("GET", "/phrases/{locale}", "read"),
    )
}
STREAM = {"verify": "verify", "identify": "verify", "enroll": "enroll"}
PROFILE = "49a36324-fc4b-4387-aa06-090cfbf0064f"
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
    sockets, answered = set(), set()
    for route in every_route(service.client.app.routes):
        if isinstance(route, WebSocketRoute):
            sockets.add(route.path)
        else:
            answered |= {f"{method} {route.path}" for method in route.methods - {"HEAD"}}
    assert answered == set(NEEDED) | PUBLIC | PAGES | set(AZURE)
    assert sockets == {"/v1/stream"}
    assert set(get_args(Start.model_fields["call"].annotation)) == set(STREAM)


def request_of(operation: str, speaker: str = "ann", enrollment: str = "none") -> dict[str, Any]:
    """A request that would be good with a good key."""
    method, path = operation.split(" ")
    kind = "identification" if "identify" in path else "verification"
    ids = {"speaker_id": speaker, "enrollment_id": enrollment, "kind": kind, "profile_id": PROFILE}
    made: dict[str, Any] = {"method": method, "path": path.format(locale="en-us", **ids)}
    if operation == "POST /v1/speakers":
        made["json"] = {"id": "new"}
    elif method == "PATCH":
        made["json"] = {"name": "Mallory"}
    elif method == "POST" and path.endswith("/profiles"):
        made["json"] = {"locale": "en-us"}
    elif path == "/v1/compare":
        made["files"] = [("audio", ("1.wav", VOICE)), ("audio", ("2.wav", VOICE))]
    elif method == "POST" and not path.endswith(("unlock", "reset")):
        made["content"] = VOICE
    if path.endswith("identifySingleSpeaker"):
        made["params"] = {"profileIds": PROFILE}
    return made


def carried(operation: str, text: str | bytes) -> dict[str, str | bytes]:
    """The header that an API key travels in."""
    if operation in AZURE:
        return {"Ocp-Apim-Subscription-Key": text}
    return {"Authorization": b"Bearer " + text if isinstance(text, bytes) else f"Bearer {text}"}


@pytest.fixture
def peopled(service: Any) -> Any:
    """A service with the speaker `ann`, and one that Azure's calls see."""
    service.post("/v1/speakers", json={"id": "ann"})
    service.engine.store.create_speaker(
        "default", PROFILE, groups=["azure-verification", "azure-identification"]
    )
    return service


def expired(service: Any) -> str:
    text: str
    past = datetime.now(UTC) - timedelta(seconds=1)
    _, text = service.engine.keys.create_key("default", SCOPES, "old", past)
    return text


def revoked(service: Any) -> str:
    key, text = service.engine.keys.create_key("default", SCOPES, "lost")
    service.engine.keys.revoke_key(key.id)
    return str(text)


WRONG: dict[str, Callable[[Any], str | bytes]] = {
    "empty": lambda service: "",
    "malformed": lambda service: "nonsense",
    "binary": lambda service: b"\xff\xfe\x80",
    "unknown": lambda service: f"sayso_00000000_{'x' * 43}",
    "another secret": lambda service: f"{service.key[:-43]}{'x' * 43}",
    "cut short": lambda service: service.key[:-1],
    "too long": lambda service: f"{service.key}x",
    "upper case": lambda service: service.key.upper(),
    "enormous": lambda service: "x" * 100_000,
    "expired": expired,
    "revoked": revoked,
}
# A good key in the wrong place, for both families of calls.
MISPLACED: dict[str, Callable[[str], dict[str, Any]]] = {
    "none": lambda key: {},
    "no scheme": lambda key: {"headers": {"Authorization": key}},
    "other scheme": lambda key: {"headers": {"Authorization": f"Basic {key}"}},
    "in the URL": lambda key: {"params": {"key": key, "access_token": key, "subscription-key": key}},
    "in another header": lambda key: {"headers": {"X-API-Key": key}},
    "in a cookie": lambda key: {"headers": {"Cookie": f"Authorization=Bearer {key}"}},
}


def attempts(service: Any, operation: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What to send with each wrong credential, by its name."""
    for name, text in WRONG.items():
        yield name, {"headers": carried(operation, text(service))}
    for name, misplaced in MISPLACED.items():
        yield name, misplaced(service.key)
    other = "POST /v1/identify" if operation in AZURE else next(iter(AZURE))
    yield "in the other family's header", {"headers": carried(other, service.key)}


@pytest.mark.parametrize("operation", [*NEEDED, *AZURE])
def test_a_wrong_key_opens_nothing(peopled: Any, operation: str) -> None:
    before = [s["id"] for s in peopled.get("/v1/speakers").json()["items"]]
    for name, credential in attempts(peopled, operation):
        for retry in ({}, {"Idempotency-Key": "abc"}):
            sent = request_of(operation)
            sent["headers"] = {**credential.get("headers", {}), **retry}
            sent["params"] = {**sent.get("params", {}), **credential.get("params", {})}
            answer = peopled.call(sent.pop("method"), sent.pop("path"), key=None, **sent)
            assert answer.status_code == 401, (operation, name, answer.text)
            assert peopled.key not in answer.text
            assert answer.headers["www-authenticate"] == "Bearer"
            if operation in AZURE:
                assert answer.json()["error"]["code"] == "Unauthorized"
            else:
                assert answer.json()["code"] in ("key_missing", "key_invalid")
    assert [s["id"] for s in peopled.get("/v1/speakers").json()["items"]] == before
    assert peopled.get("/v1/speakers/ann").json()["name"] is None


def streamed(service: Any, call: str, key: str | None, header: str | bytes | None = None) -> dict[str, Any]:
    """The first message of a stream that is started with this key."""
    start = {"type": "start", "call": call, "speaker_id": "ann", "key": key}
    headers = {} if header is None else {"Authorization": header}
    with service.client.websocket_connect("/v1/stream", headers=headers) as socket:
        socket.send_text(json.dumps({name: value for name, value in start.items() if value is not None}))
        message: dict[str, Any] = socket.receive_json()
        if message["type"] == "error":
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_json()
            assert closed.value.code == 4000 + message["problem"]["status"]
    return message


@pytest.mark.parametrize("call", STREAM)
def test_a_wrong_key_opens_no_stream(peopled: Any, call: str) -> None:
    key = peopled.key
    refused = [streamed(peopled, call, None), streamed(peopled, call, None, f"Basic {key}")]
    for wrong in WRONG.values():
        text = wrong(peopled)
        if isinstance(text, str):
            refused.append(streamed(peopled, call, text))
            refused.append(streamed(peopled, call, text, f"Bearer {key}" if text else None))
        else:
            refused.append(streamed(peopled, call, None, b"Bearer " + text))
    for message in refused:
        assert message["type"] == "error", message
        assert message["problem"]["status"] == 401
        assert message["problem"]["code"] in ("key_missing", "key_invalid")
        assert key not in json.dumps(message)


@pytest.mark.parametrize("call", STREAM)
def test_a_stream_needs_the_scope(peopled: Any, call: str) -> None:
    for scope in SCOPES:
        message = streamed(peopled, call, peopled.new_key("default", (scope,)))
        code = message["problem"]["code"] if message["type"] == "error" else "started"
        if scope in (STREAM[call], "admin"):
            assert code in ("started", "speaker_not_enrolled"), (call, scope)
        else:
            assert code == "scope_missing", (call, scope)


@pytest.mark.parametrize("operation", [*NEEDED, *AZURE])
def test_a_key_without_the_scope_is_refused(peopled: Any, operation: str) -> None:
    needed = {**NEEDED, **AZURE}[operation]
    for scope in SCOPES:
        sent = request_of(operation)
        sent["headers"] = carried(operation, peopled.new_key("default", (scope,)))
        answer = peopled.call(sent.pop("method"), sent.pop("path"), key=None, **sent)
        if scope in (needed, "admin"):
            assert answer.status_code not in (401, 403), (operation, scope, answer.text)
            peopled.post("/v1/speakers", json={"id": "ann"})  # where the call deleted her
        else:
            code = answer.json()["error"]["code"] if operation in AZURE else answer.json()["code"]
            wanted = "Forbidden" if operation in AZURE else "scope_missing"
            assert (answer.status_code, code) == (403, wanted), (operation, scope)


def test_another_tenants_key_reaches_nobody(peopled: Any) -> None:
    for take in (1, 2):
        data = voice_of("ann", take, 8)
        assert peopled.post("/v1/speakers/ann/enrollments", content=data).status_code == 201
    mine = [peopled.get(f"/v1/speakers/{who}").json() for who in ("ann", PROFILE)]
    enrolments = peopled.get("/v1/speakers/ann/enrollments").json()["items"]
    theirs = peopled.new_key("other")
    for operation in (*NEEDED, *AZURE):
        sent = request_of(operation, enrollment=enrolments[0]["id"])
        sent["headers"] = carried(operation, theirs)
        answer = peopled.call(sent.pop("method"), sent.pop("path"), key=None, **sent)
        if "{profile_id}" in operation or "identifySingle" in operation:
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NotFound"), operation
        elif "{speaker_id}" in operation:
            assert (answer.status_code, answer.json()["code"]) == (404, "speaker_not_found"), operation
        else:
            assert answer.status_code < 300, answer.text
            assert '"ann"' not in answer.text
            assert PROFILE not in answer.text
            assert answer.json().get("searched", 0) == 0
    for call in ("verify", "enroll"):
        assert streamed(peopled, call, theirs)["problem"]["code"] == "speaker_not_found"
    assert [peopled.get(f"/v1/speakers/{who}").json() for who in ("ann", PROFILE)] == mine
    assert peopled.get("/v1/speakers/ann/enrollments").json()["items"] == enrolments


def test_a_rotated_key_works_until_its_successor_has_taken_over(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = service.engine.keys
    old, text = keys.create_key("default", ("read",), "door")
    new, successor = keys.rotate_key(old.id, timedelta(hours=1))
    assert (new.tenant, new.scopes, new.label) == (old.tenant, old.scopes, old.label)
    for key in (text, successor):
        assert service.get("/v1/speakers", key=key).status_code == 200
    later = datetime.now(UTC) + timedelta(hours=1, seconds=1)
    monkeypatch.setattr("sayso.enroll.clock.now", lambda: later)
    assert service.get("/v1/speakers", key=text).status_code == 401
    assert service.get("/v1/speakers", key=successor).status_code == 200


def test_metrics_can_be_closed(make_service: Any) -> None:
    service = make_service(metrics_key="m" * 16)
    for key in (None, service.key, "m" * 15):
        answer = service.get("/metrics", key=key)
        assert (answer.status_code, answer.json()["code"]) == (401, "key_invalid")
    assert service.get("/metrics", key="m" * 16).status_code == 200
