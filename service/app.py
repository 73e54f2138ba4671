"""The application: one engine, the routes, and what stands around each request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI

from service import errors
from service.engine import Engine
from service.middleware import RequestContext
from service.routes import decisions, speakers, system
from service.schemas import Problem
from service.work import Admission

SHORT_CALLS = 8

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The body cannot be read or decoded",
        401: "No valid API key",
        403: "The key lacks the scope",
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


def create_app(engine: Engine) -> FastAPI:
    """Build the app around a running engine, which it closes when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # One thread for each admitted recording, and some for the short calls beside them.
        current_default_thread_limiter().total_tokens = engine.settings.max_concurrency + SHORT_CALLS
        yield
        engine.close()

    app = _App(
        title="Sayso",
        version=version("sayso"),
        summary="Self-hosted speaker verification",
        description="Enrol speakers with recordings, then ask: is this Alice, or who is this?",
        lifespan=lifespan,
    )
    app.state.engine = engine
    app.state.admission = Admission(engine.settings.max_concurrency)
    app.state.idempotent_in_flight = set()
    engine.metrics.in_flight.set_function(lambda: app.state.admission.taken)
    errors.install(app)
    for router in (speakers.router, decisions.router, decisions.vectors):
        app.include_router(router, responses=_ERRORS)
    app.include_router(system.keyed, responses=_ERRORS)
    app.include_router(system.router)
    app.add_middleware(RequestContext, metrics=engine.metrics, max_body_bytes=engine.settings.max_body_bytes)
    return app
