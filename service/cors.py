"""Pages of other origins: a browser lets them call the service where `SAYSO_CORS_ORIGINS` lists them."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from sayso.service import errors

_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST")
_SENT = ("Authorization", "Content-Type", "Idempotency-Key", "Ocp-Apim-Subscription-Key", "X-Request-Id")
_READ = ("Idempotent-Replayed", "Location", "Retry-After", "Sayso-Backups", "X-Request-Id")


class CrossOrigin(CORSMiddleware):
    """Starlette's CORS, whose preflights are answered 204 without a body, or 403 with a problem document."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        super().__init__(app, origins, _METHODS, _SENT, expose_headers=_READ)

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        headers = {k: v for k, v in answer.headers.items() if not k.startswith("content-")}
        if answer.status_code < 300:
            return Response(status_code=204, headers=headers)
        detail = (
            f"{bytes(answer.body).decode()}: SAYSO_CORS_ORIGINS lists the origins whose pages may call this"
        )
        body = errors.document(403, "origin_not_allowed", detail, "", None)
        return JSONResponse(body, 403, headers, media_type=errors.MEDIA_TYPE)
