"""Models, health and metrics."""

from __future__ import annotations

from hmac import compare_digest

from fastapi import APIRouter, Request, Response

from sayso.enroll.errors import StoreError
from sayso.service.auth import CHALLENGE, Reader, token_of
from sayso.service.errors import ServiceError
from sayso.service.readiness import Readiness
from sayso.service.schemas import Health, ModelList, ModelOut
from sayso.service.work import engine_of

router = APIRouter(tags=["system"])
keyed = APIRouter(tags=["system"])


@keyed.get("/v1/models", summary="Served models")
def models(request: Request, key: Reader) -> ModelList:
    """Each model's name, network sha256, provider and card."""
    engine = engine_of(request)
    items = [
        ModelOut(
            **model.ref.model_dump(),
            default=name == engine.default_model,
            calibrated=model.embedder.card.calibration is not None,
            card=model.embedder.card.to_dict(),
        )
        for name, model in engine.models.items()
    ]
    return ModelList(items=items)


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Health:
    """Answers as long as the event loop runs."""
    return Health(status="ok")


@router.get("/readyz", summary="Can it decide?")
async def readyz(request: Request) -> Health:
    """Runs a synthetic voice through the real pipeline of every model, and reads the store."""
    if request.app.state.draining:
        raise ServiceError(503, "shutting_down", "this process is stopping: try another, or again shortly")
    readiness: Readiness = request.app.state.readiness
    failure = await readiness.failure()
    if isinstance(failure, ServiceError):
        raise failure
    if failure is not None:
        detail = "the service cannot work through its own example: its log says why"
        if isinstance(failure, StoreError):
            detail = "the store cannot be used now: the log says why"
        raise ServiceError(503, "not_ready", detail) from failure
    return Health(status="ok")


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Per-stage and per-model latencies, decisions, scores, queue and batches, in Prometheus' text format."""
    engine = engine_of(request)
    expected = engine.settings.metrics_key
    if expected is not None and not compare_digest(
        (token_of(request) or "").encode(errors="replace"), expected.get_secret_value().encode()
    ):
        raise ServiceError(401, "key_invalid", "metrics are shown to SAYSO_METRICS_KEY only", CHALLENGE)
    text = engine.metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")
