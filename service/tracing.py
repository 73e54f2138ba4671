"""OpenTelemetry traces, with `SAYSO_TRACES`: a span for each request, and in it one for each stage.

Like the log, a span holds the route's template and the request id, never ids of speakers, scores or keys;
OpenTelemetry's own instrumentation of ASGI would send whole paths. Where spans go, and how many of them,
is said in OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, …).
"""

from __future__ import annotations

import os
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sayso.service.context import context_of
from sayso.service.spans import observer


def exporting() -> TracerProvider:
    """Spans to the collector of OpenTelemetry's variables, by OTLP over HTTP."""
    name = os.environ.get("OTEL_SERVICE_NAME", "sayso")
    provider = TracerProvider(
        resource=Resource.create({"service.name": name, "service.version": version("sayso")})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Traced:
    """Around the whole application: goes on with the caller's trace where `traceparent` names one."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self.app = app
        self.tracer = provider.get_tracer("sayso")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parent = TraceContextTextMapPropagator().extract(given)
        method = scope.get("method", "WEBSOCKET")
        status: int | None = None

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        with self.tracer.start_as_current_span(method, context=parent, kind=SpanKind.SERVER) as span:
            inside = set_span_in_context(span)

            def stage(name: str, start: int, end: int) -> None:
                self.tracer.start_span(name, context=inside, start_time=start).end(end)

            token = observer.set(stage)
            try:
                await self.app(scope, receive, watched)
            finally:
                observer.reset(token)
                route = getattr(scope.get("route"), "path", "unmatched")
                span.update_name(f"{method} {route}")
                span.set_attributes({"http.request.method": method, "http.route": route})
                if scope["type"] == "http":
                    span.set_attribute("sayso.request_id", context_of(Request(scope)).request_id)
                if status is not None:
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        span.set_status(StatusCode.ERROR)
