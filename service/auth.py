"""Who asks: API keys in the Authorization header, checked for a scope."""

# No `from __future__ import annotations`: before 0.123.10 FastAPI could not read such of a callable object.
from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.concurrency import run_in_threadpool

from sayso.enroll.secrets.transaction import actor
from sayso.service.access.keys import ApiKey
from sayso.service.engine import Engine
from sayso.service.errors import ServiceError
from sayso.service.work import engine_of

CHALLENGE = {"WWW-Authenticate": "Bearer"}


def authorized(engine: Engine, text: str | None, scope: str | None = None) -> ApiKey:
    """The key of this text, which holds the scope; raises a 401, 403 or 429 otherwise."""
    if not text:
        raise ServiceError(401, "key_missing", "send an API key as `Authorization: Bearer <key>`", CHALLENGE)
    key = engine.keys.authenticate(text)
    if key is None:
        raise ServiceError(401, "key_invalid", "this API key is unknown, expired or revoked", CHALLENGE)
    engine.rates.take(key.id)
    return _holding(key, scope)


async def authorized_aside(engine: Engine, text: str | None, scope: str | None = None) -> ApiKey:
    """`authorized`, beside the event loop where a server is asked for it and may be away."""
    if engine.keys.asks_a_server:
        return await run_in_threadpool(authorized, engine, text, scope)
    return authorized(engine, text, scope)


async def bearer(request: Request) -> ApiKey:
    """The request's key, whatever its scopes, looked up and counted once; raises a 401 or 429."""
    known: ApiKey | None = getattr(request.state, "api_key", None)
    if known is None:
        known = await authorized_aside(engine_of(request), token_of(request))
        request.state.api_key, request.state.key_id = known, known.id
    return known


def token_of(request: Request) -> str | None:
    """What the Authorization header carries as a bearer token."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else None


class KeyWith(SecurityBase):
    """A dependency that gives the caller's key, which holds the scope, or answers 401, 403 or 429."""

    def __init__(self, scope: str) -> None:
        self.scope = scope
        # What the OpenAPI document says of it.
        self.scheme_name = "HTTPBearer"
        self.model = HTTPBearer(description="An API key, from `sayso keys create`.")

    async def __call__(self, request: Request) -> ApiKey:
        key = await bearer(request)
        actor.set(f"key:{key.id}")
        return _holding(key, self.scope)


def _holding(key: ApiKey, scope: str | None) -> ApiKey:
    if scope is not None and not key.allows(scope):
        raise ServiceError(403, "scope_missing", f"this API key lacks the scope `{scope}`")
    return key


Reader = Annotated[ApiKey, Depends(KeyWith("read"))]
Enroller = Annotated[ApiKey, Depends(KeyWith("enroll"))]
Verifier = Annotated[ApiKey, Depends(KeyWith("verify"))]
Administrator = Annotated[ApiKey, Depends(KeyWith("admin"))]
Embedder = Annotated[ApiKey, Depends(KeyWith("embed"))]
