"""Traces: a span a request and a stage, on with the caller's trace, and nothing of whom it was about."""

import gzip
import http.server
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from process import Server
from sounds import voice_of

from sayso.service import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(tracing, "exporting", lambda: provider)
    return kept


def test_a_call_is_a_span_with_its_stages_inside(
    make_service: Callable[..., Any], spans: InMemorySpanExporter
) -> None:
    service = make_service(traces=True)
    service.enrolled("alice-secret", voice_of("ann", 1, 14))
    spans.clear()
    answer = service.post(
        "/v1/speakers/alice-secret/verify", content=voice_of("ann", 2), headers={"traceparent": PARENT}
    )
    done = spans.get_finished_spans()
    (request,) = [span for span in done if span.name.startswith("POST")]
    assert request.name == "POST /v1/speakers/{speaker_id}/verify"
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/speakers/{speaker_id}/verify",
        "http.response.status_code": 200,
        "sayso.request_id": answer.json()["request_id"],
    }
    assert request.context.trace_id == int(PARENT.split("-")[1], 16)
    assert request.parent is not None
    assert request.parent.span_id == int(PARENT.split("-")[2], 16)
    stages = {span.name: span for span in done if span is not request}
    timings = answer.json()["timings_ms"]
    known = {"queue", "store", "decode", "speech", "embed", "search"}
    assert set(stages) == set(timings) - {"total"} == known
    for name, span in stages.items():
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert span.start_time is not None
        assert span.end_time is not None
        assert (span.end_time - span.start_time) / 1e6 == pytest.approx(timings[name], abs=0.01)
        assert request.start_time <= span.start_time + 5e6  # two clocks, read one after the other
        assert span.end_time <= request.end_time + 5e6
    assert "alice-secret" not in repr([span.to_json() for span in done])


def test_fastapi_tells_nothing_beside_it(
    make_service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """FastAPI has spans of its own, with whole paths, wherever somebody set a provider for the process."""
    kept = InMemorySpanExporter()
    theirs = TracerProvider()
    theirs.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: theirs)
    make_service().get("/v1/speakers/alice-secret")
    assert kept.get_finished_spans() == ()


def test_failures_and_strangers_are_told_apart(
    make_service: Callable[..., Any], spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = make_service(traces=True)
    service.get("/v1/speakers/nobody")
    service.get("/nowhere")
    monkeypatch.setattr(service.engine, "check", lambda: 1 / 0)
    service.get("/readyz")
    told = [
        (s.name, s.attributes["http.response.status_code"], s.status.status_code.name)
        for s in spans.get_finished_spans()
    ]
    assert told == [
        ("GET /v1/speakers/{speaker_id}", 404, "UNSET"),
        ("GET unmatched", 404, "UNSET"),
        ("GET /readyz", 503, "ERROR"),
    ]


def test_nothing_is_traced_unless_asked(service: Any, spans: InMemorySpanExporter) -> None:
    service.get("/healthz")
    assert spans.get_finished_spans() == ()


class Collector(http.server.BaseHTTPRequestHandler):
    """Takes OTLP over HTTP, as a collector does."""

    taken: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.taken.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_real_server_sends_to_a_collector(tmp_path: Path) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        server = Server(
            tmp_path / "data",
            SAYSO_TRACES="1",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector.server_address[1]}",
            OTEL_SERVICE_NAME="sayso-here",
        )
        try:
            server.client.get("/healthz")
            server.stop()  # sends what is held
        finally:
            server.close()
        until = time.monotonic() + 30
        while not Collector.taken and time.monotonic() < until:
            time.sleep(0.1)
        collector.shutdown()
    sent = [
        (span.name, {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"])
        for _, request in Collector.taken
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert {path for path, _ in Collector.taken} == {"/v1/traces"}
    assert ("GET /healthz", "sayso-here") in sent
