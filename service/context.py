"""What is known of one HTTP request, from its head to its log line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request

from sayso.service.access.keys import ApiKey

_KEY = "context"  # of the ASGI scope's state


@dataclass(slots=True)
class RequestContext:
    """Made by the middleware for each request; each field is set once by the part named here.

    `departed` tells whether the client has gone (the connection). `key` is the caller's (authorization).
    `attempt` names what is tried, so that a retry is the same attempt (idempotency, or the upload).
    """

    request_id: str
    body_limit: int
    recordings_limit: int
    departed: Callable[[], bool]
    key: ApiKey | None = None
    attempt: str | None = None

    def allow_recordings(self) -> None:
        """Let the body be as large as a recording may be; others are held to JSON's size."""
        self.body_limit = self.recordings_limit

    def put(self, state: dict[str, object]) -> None:
        """Leave the context with the request, where `context_of` finds it."""
        state[_KEY] = self


def context_of(request: Request) -> RequestContext:
    """The context of a request that came through the middleware."""
    context: RequestContext = request.scope["state"][_KEY]
    return context
