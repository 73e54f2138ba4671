"""The application: one engine, the routes, and what stands around each request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.routing import APIRoute

from sayso.enroll.errors import InvalidField
from sayso.service import console, errors
from sayso.service.cors import CrossOrigin
from sayso.service.engine import Engine
from sayso.service.limits import BodyBudget
from sayso.service.middleware import AroundRequests
from sayso.service.readiness import Readiness
from sayso.service.routes import azure, decisions, side_by_side, speakers, streaming, system
from sayso.service.schemas import Problem
from sayso.service.upkeep import Upkeep
from sayso.service.work import Admission

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SHORT_CALLS = 8

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The body cannot be read or decoded",
        401: "No valid API key",
        403: "The key lacks the scope",
        408: "The body took too long to arrive",
        404: "No such speaker, enrolment or model",
        409: "The state does not allow it",
        413: "Too large or too long",
        422: "A field is wrong, or the recording is not good enough",
        429: "Too much at once",
        503: "Not ready",
    }.items()
}


class _App(FastAPI):
    """FastAPI documents every answer as application/json; ours to errors are problem documents."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            for methods in super().openapi()["paths"].values():
                for call in methods.values():
                    for status, response in call["responses"].items():
                        if int(status) in _ERRORS and "content" in response:
                            response["content"] = {errors.MEDIA_TYPE: response["content"].popitem()[1]}
        return super().openapi()


def _operation_id(route: APIRoute) -> str:
    """A name for generated clients: `speakers_create`, `decisions_verify`."""
    return "_".join([*map(str, route.tags), route.name]).rstrip("_")


def create_app(engine: Engine) -> FastAPI:
    """Build the app around a running engine, which it closes when it stops."""
    traces = _traces() if engine.settings.traces else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One thread for each admitted recording, and some for the short calls beside them.
        current_default_thread_limiter().total_tokens = admission.limit + SHORT_CALLS
        upkeep.start()
        yield
        upkeep.stop()
        engine.close()
        if traces is not None:
            traces.shutdown()  # sends what is still held

    app = _App(
        title="Sayso",
        version=version("sayso"),
        summary="Self-hosted speaker verification",
        description="Enrol speakers with recordings, then ask: is this Alice, or who is this?",
        lifespan=lifespan,
        generate_unique_id_function=_operation_id,
        docs_url=None,  # the console's, which needs no network
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat a query that may be no UTF-8
        # FastAPI's own spans would hold whole paths, with the ids of speakers.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    upkeep = Upkeep(engine)

    def check() -> None:
        upkeep.check()
        engine.check()

    app.state.engine = engine
    app.state.readiness = Readiness(check)
    admission = app.state.admission = Admission(engine.places, turns=engine.turns)
    app.state.streams = Admission(engine.settings.max_streams, "streams are open")
    app.state.idempotent_in_flight = set()
    app.state.draining = False
    engine.metrics.in_flight.set_function(lambda: admission.taken)
    engine.metrics.places.set(admission.limit)
    engine.metrics.queue_depth.set_function(lambda: admission.waiting + engine.queue_depth)
    errors.install(app)
    # Tried in this order, so what is called most comes first.
    for router in (decisions.router, speakers.router, decisions.vectors, side_by_side.router):
        app.include_router(router, responses=_ERRORS)
    app.include_router(system.keyed, responses=_ERRORS)
    app.include_router(system.router)
    app.include_router(streaming.router)
    app.include_router(azure.router)
    app.include_router(console.router)
    held = app.state.held = BodyBudget(engine.settings.max_held_bytes)
    engine.metrics.held_bytes.set_function(lambda: held.held)
    app.add_middleware(AroundRequests, metrics=engine.metrics, settings=engine.settings, held=held)
    if engine.settings.cors_origins:
        # Outside the rest, so that a page can read every answer, whatever went wrong.
        app.add_middleware(CrossOrigin, origins=engine.settings.cors_origins)
    if traces is not None:
        from sayso.service.tracing import Traced

        app.add_middleware(Traced, provider=traces)
    return app


def _traces() -> TracerProvider:
    """The tracer of the extra `otel`, which most do without."""
    try:
        from sayso.service.tracing import exporting
    except ImportError as error:
        raise InvalidField("SAYSO_TRACES", "install what it needs with pip install '.[otel]'") from error
    return exporting()
