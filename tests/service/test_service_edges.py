"""What stands between a caller and the calls: HEAD, other origins, a path in front, wrong bodies, logs."""

import io
import json
import sys
from typing import Any

import pytest
import structlog
from pydantic import ValidationError

from sayso.service import logs
from sayso.service.settings import Settings

PAGE = "https://app.example"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization",
}
PROFILES = "/speaker-recognition/verification/text-independent/profiles"


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/models", "/v1/speakers",
     "/v1/speakers/nobody", "/nowhere", "/console/app.js", "/console/nothing.js"],
)  # fmt: skip
@pytest.mark.parametrize("key", [None, ""])
def test_head_is_answered_as_get_without_the_body(service: Any, path: str, key: str | None) -> None:
    get, head = service.get(path, key=key), service.call("HEAD", path, key=key)
    assert (head.status_code, head.content) == (get.status_code, b"")
    changing = {"x-request-id", "date"}
    if path == "/metrics":  # which has counted the request before
        changing.add("content-length")
    assert {k: v for k, v in head.headers.items() if k not in changing} == {
        k: v for k, v in get.headers.items() if k not in changing
    }


def test_head_is_counted_as_head(service: Any) -> None:
    service.call("HEAD", "/v1/speakers")
    metrics = service.get("/metrics").text
    assert 'sayso_requests_total{method="HEAD",route="/v1/speakers",status="200"} 1.0' in metrics


def test_no_other_origin_may_call_unless_it_is_listed(service: Any) -> None:
    for method, headers in (("OPTIONS", PREFLIGHT), ("GET", {"Origin": PAGE})):
        answer = service.call(method, "/v1/speakers", headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("listed", [f"{PAGE}, https://other.example:8443/", "*", PAGE.upper()])
def test_a_listed_origin_may(make_service: Any, monkeypatch: pytest.MonkeyPatch, listed: str) -> None:
    monkeypatch.setenv("SAYSO_CORS_ORIGINS", listed)
    service = make_service()
    allowed = "*" if listed == "*" else PAGE
    before = service.call("OPTIONS", "/v1/identify", key=None, headers=PREFLIGHT)
    assert (before.status_code, before.content) == (204, b"")
    assert before.headers["access-control-allow-origin"] == allowed
    assert "POST" in before.headers["access-control-allow-methods"]
    assert "authorization" in before.headers["access-control-allow-headers"].lower()
    for path, key, status in (("/v1/speakers", "", 200), ("/v1/speakers", None, 401), ("/x", None, 404)):
        answer = service.get(path, key=key, headers={"Origin": PAGE})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, allowed)
        assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
    if listed != "*":
        foreign = service.call("OPTIONS", "/v1/identify", key=None, headers={**PREFLIGHT, "Origin": "null"})
        assert (foreign.status_code, foreign.json()["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in foreign.headers
        assert "access-control-allow-origin" not in service.get("/x", headers={"Origin": "null"}).headers


def test_a_fault_can_be_read_by_a_listed_page(make_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(cors_origins=(PAGE,))
    monkeypatch.setattr(service.engine.store, "speakers", lambda *_: 1 / 0)
    answer = service.get("/v1/speakers", headers={"Origin": PAGE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (500, PAGE)


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/page", "https://", "null"])
def test_what_is_no_origin_is_refused(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("SAYSO_CORS_ORIGINS", origin)
    with pytest.raises(ValidationError, match="is no origin"):
        Settings()


@pytest.mark.parametrize(
    ("settings", "sent", "headers", "prefix"),
    [
        ({}, "", {"X-Forwarded-Prefix": "/voice"}, "/voice"),
        ({}, "", {"X-Forwarded-Prefix": "/a/b/"}, "/a/b"),
        ({}, "", {"X-Forwarded-Prefix": "//evil.example"}, ""),
        ({}, "", {"X-Forwarded-Prefix": "/voice\r\nx: y"[:6]}, "/voice"),
        ({}, "", {}, ""),
        ({"root_path": "/voice"}, "", {}, "/voice"),
        ({"root_path": "/voice/"}, "/voice", {}, "/voice"),
        ({"root_path": "/voice"}, "", {"X-Forwarded-Prefix": "/other"}, "/voice"),
    ],
)
def test_links_keep_the_path_in_front(
    make_service: Any, settings: dict[str, Any], sent: str, headers: dict[str, str], prefix: str
) -> None:
    service = make_service(**settings)
    headers = {**headers, "Ocp-Apim-Subscription-Key": service.key}
    for _ in range(3):
        made = service.client.post(sent + PROFILES, json={"locale": "en-us"}, headers=headers)
        assert made.headers["location"] == f"{prefix}{PROFILES}/{made.json()['profileId']}"
    page = service.client.get(f"{sent}{PROFILES}?maxpagesize=2", headers=headers).json()
    assert page["nextLink"].startswith(f"http://testserver{prefix}{PROFILES}?")
    followed = page["nextLink"].removeprefix("http://testserver")
    rest = service.client.get(sent + followed.removeprefix(prefix), headers=headers).json()
    assert len(rest["value"]) == 1


def test_a_prefix_that_a_caller_names_finds_no_route(service: Any) -> None:
    """Or a rule of the proxy for `/metrics` could be gone around."""
    assert service.get("/x/healthz", headers={"X-Forwarded-Prefix": "/x"}).status_code == 404


@pytest.mark.parametrize("path", ["voice", "/voice//x", "//voice", "/a b", "/voice?x"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="root_path"):
        Settings(root_path=path)


def test_a_slash_at_the_end_is_named(service: Any) -> None:
    for method in ("GET", "POST"):
        answer = service.call(method, "/v1/speakers/")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "leave out the / at its end" in answer.json()["detail"]


@pytest.mark.parametrize("sent", [{"data": {"id": "ann"}}, {"files": {"id": "ann"}}])
def test_fields_as_a_form_are_named(service: Any, sent: dict[str, Any]) -> None:
    answer = service.post("/v1/speakers", **sent)
    assert (answer.status_code, answer.json()["code"]) == (415, "json_required")
    assert "Content-Type: application/json" in answer.json()["detail"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "form", "json_lines"),
    [
        (Terminal, "auto", False),
        (io.StringIO, "auto", True),
        (Terminal, "json", True),
        (io.StringIO, "text", False),
    ],
)
def test_logs_are_for_whoever_reads_them(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], form: logs.Format, json_lines: bool
) -> None:
    written = stream()
    monkeypatch.setattr(sys, "stderr", written)
    try:
        logs.configure("info", form)
        try:
            raise ValueError("why")
        except ValueError as error:
            structlog.get_logger().error("fault", code="internal_error", exc_info=error)
    finally:
        structlog.reset_defaults()
    text = written.getvalue()
    assert "internal_error" in text
    assert "ValueError" in text
    if json_lines:
        assert json.loads(text)["event"] == "fault"
    else:
        with pytest.raises(json.JSONDecodeError):
            json.loads(text.splitlines()[0])
