"""Problem documents (RFC 9457): every error of every route leaves through here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from sayso.domain.errors import SaysoError
from sayso.enroll import errors as enroll_errors
from sayso.runtime import errors as runtime_errors
from sayso.service.context import context_of

log = structlog.get_logger()
MEDIA_TYPE = "application/problem+json"


class ServiceError(SaysoError):
    """An error that belongs to HTTP itself: who asks, how much, with what."""

    def __init__(self, status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.code, self.headers = status, code, headers or {}


# Looked up along each error's base classes, so the nearest entry wins.
STATUS: dict[type[Exception], int] = {
    runtime_errors.UndecodableAudio: 400,
    runtime_errors.EmptyAudio: 400,
    runtime_errors.InputError: 422,
    runtime_errors.AudioTooLong: 413,
    runtime_errors.AudioOverCompressed: 413,
    runtime_errors.UnsupportedSampleRate: 415,
    runtime_errors.Overloaded: 429,
    runtime_errors.ShuttingDown: 503,
    runtime_errors.TookTooLong: 503,
    runtime_errors.RuntimeFault: 500,
    enroll_errors.SpeakerNotFound: 404,
    enroll_errors.EnrollmentNotFound: 404,
    enroll_errors.KeyNotFound: 404,
    enroll_errors.InvalidField: 422,
    enroll_errors.IdempotencyKeyReused: 422,
    enroll_errors.AttemptsDelayed: 429,
    enroll_errors.InvalidEmbedding: 500,
    enroll_errors.StoreError: 503,
    enroll_errors.EnrollError: 409,
}
_EXTRA_FIELDS = ("net_speech_s", "required_speech_s", "remaining_speech_s", "retry_after_s")
LONGEST_DETAIL, MOST_PROBLEMS = 1000, 10  # what a small body can get wrong in thousands of places
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
CLIENT_CLOSED_REQUEST = 499  # as nginx calls it
RETRY_AFTER = {429: "1", 503: "5"}


def status_of(error: Exception) -> int:
    """The HTTP status of one of our errors."""
    return next(STATUS[base] for base in type(error).__mro__ if base in STATUS)


def document(
    status: int, code: str, detail: str, instance: str, request_id: str | None, **extra: Any
) -> dict[str, Any]:
    """One problem document; `code` is stable, `detail` is a sentence a person can act on."""
    return {
        "type": f"urn:sayso:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": shown(detail),
        "instance": shown(instance),  # request.url fails on a query that is no UTF-8
        "request_id": request_id,
        **extra,
    }


def retry_after(error: Exception) -> dict[str, str] | None:
    """The header of an error that knows when to try again."""
    wait_s = getattr(error, "retry_after_s", None)
    return None if wait_s is None else {"Retry-After": str(math.ceil(wait_s))}


def details(error: Exception) -> dict[str, Any]:
    """The fields that an error of the rooms carries: seconds of speech, seconds to wait."""
    return {name: round(getattr(error, name), 3) for name in _EXTRA_FIELDS if hasattr(error, name)}


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> JSONResponse:
    """The answer that carries a problem document, counted."""
    request_id = context_of(request).request_id
    body = document(status, code, detail, request.scope["path"], request_id, **extra)
    request.app.state.engine.metrics.refusals.labels(code).inc()
    sent = dict(headers or {})
    if status in RETRY_AFTER:
        sent.setdefault("Retry-After", RETRY_AFTER[status])
    return JSONResponse(body, status, sent, media_type=MEDIA_TYPE)


def shown(text: str) -> str:
    """Text that may repeat what the caller sent: cut, and without characters that UTF-8 cannot encode."""
    return text[:LONGEST_DETAIL].encode(errors="replace").decode()


def problems(reported: Sequence[Any]) -> list[dict[str, str]]:
    """The first MOST_PROBLEMS errors that pydantic reports: the field and the problem of each."""
    return [
        {"field": shown(".".join(str(part) for part in error["loc"])), "problem": shown(error["msg"])}
        for error in reported[:MOST_PROBLEMS]
    ]


def sentence(listed: list[dict[str, str]]) -> str:
    """Those problems as one line for people."""
    return "; ".join(f"{each['field']}: {each['problem']}" for each in listed)


def _nothing_at(path: str) -> str:
    way_out = ": leave out the / at its end" if path.endswith("/") and path != "/" else ""
    return f"there is nothing at {path}{way_out}"


def install(app: FastAPI) -> None:
    """Register the handlers."""

    @app.exception_handler(ServiceError)
    async def from_service(request: Request, error: ServiceError) -> JSONResponse:
        return problem(request, error.status, error.code, str(error), error.headers)

    @app.exception_handler(runtime_errors.RuntimeFault)
    @app.exception_handler(enroll_errors.EnrollError)
    async def from_rooms(request: Request, error: Any) -> JSONResponse:
        status = status_of(error)
        if status >= 500:
            request_id = context_of(request).request_id
            log.error("fault", code=error.code, detail=str(error), request_id=request_id, exc_info=error)
        return problem(request, status, error.code, str(error), retry_after(error), **details(error))

    @app.exception_handler(RequestValidationError)
    async def from_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        if any(e["type"] == "json_invalid" for e in error.errors()):
            detail = f"the body is not valid JSON: {error.errors()[0]['ctx']['error']}"
            return problem(request, 400, "malformed_json", detail)
        content_type = request.headers.get("content-type", "").lower()
        if content_type.startswith(_FORMS) and any(e["loc"][:1] == ("body",) for e in error.errors()):
            detail = "send the fields as JSON with the header `Content-Type: application/json`, not as a form"
            return problem(request, 415, "json_required", detail)
        listed = problems(error.errors())
        return problem(request, 422, "invalid_request", sentence(listed), errors=listed)

    @app.exception_handler(HTTPException)
    async def from_framework(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error.__cause__, ServiceError):  # raised while the framework read a body
            return await from_service(request, error.__cause__)
        codes = {404: "not_found", 405: "method_not_allowed", 400: "malformed_request"}
        code = codes.get(error.status_code, "http_error")
        detail = error.detail if error.status_code != 404 else _nothing_at(request.scope["path"])
        return problem(request, error.status_code, code, detail, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def from_departed(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)  # for the metrics: the client has gone


def unexpected(request: Request, error: Exception) -> JSONResponse:
    """A bug of ours: the log has it, the caller gets its request id."""
    request_id = context_of(request).request_id
    log.error("unexpected", error=type(error).__name__, request_id=request_id, exc_info=error)
    detail = f"an unexpected error happened; the log has it under the request id {request_id}"
    return problem(request, 500, "internal_error", detail)
