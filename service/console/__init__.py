"""The web console and the API's page: static files, which need no key; the calls that they make do."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

FILES = Path(str(files("sayso.service.console") / "static"))
# Only this service: the console works without internet, and no foreign script can read the key.
_POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; style-src 'self'{styles}; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # browsers ask again at each load, so an upgrade shows at once
}
_CONSOLE = {
    **_COMMON,
    "Content-Security-Policy": _POLICY.format(styles=""),
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
}
# Swagger UI writes style attributes.
_DOCS = {**_COMMON, "Content-Security-Policy": _POLICY.format(styles=" 'unsafe-inline'")}

router = APIRouter(include_in_schema=False)


_files = StaticFiles(directory=FILES)


@router.get("/")
async def console() -> FileResponse:
    return FileResponse(FILES / "index.html", headers=_CONSOLE)


@router.get("/docs")
async def docs() -> FileResponse:
    return FileResponse(FILES / "docs.html", headers=_DOCS)


@router.get("/console/{path:path}")
async def file(request: Request, path: str) -> Response:
    response = await _files.get_response(path, request.scope)
    response.headers.update(_COMMON)
    return response
