"""Who asks: API keys in the Authorization header, checked for a scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from enroll.keys import ApiKey
from service.errors import ServiceError
from service.work import engine_of

_bearer = HTTPBearer(auto_error=False, description="An API key, from `sayso keys create`.")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


def require(scope: str) -> Callable[..., Awaitable[ApiKey]]:
    """A dependency that gives the caller's key, or answers 401 or 403."""

    async def caller(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> ApiKey:
        if credentials is None:
            raise ServiceError(
                401, "key_missing", "send an API key as `Authorization: Bearer <key>`", _CHALLENGE
            )
        key = engine_of(request).store.keys.authenticate(credentials.credentials)
        if key is None:
            raise ServiceError(401, "key_invalid", "this API key is unknown, expired or revoked", _CHALLENGE)
        request.state.key_id = key.id
        if not key.allows(scope):
            raise ServiceError(403, "scope_missing", f"this API key lacks the scope `{scope}`")
        return key

    return caller


Reader = Annotated[ApiKey, Depends(require("read"))]
Enroller = Annotated[ApiKey, Depends(require("enroll"))]
Verifier = Annotated[ApiKey, Depends(require("verify"))]
Embedder = Annotated[ApiKey, Depends(require("embed"))]
