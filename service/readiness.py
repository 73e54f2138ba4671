"""Whether the service can work, checked at most once in a while whoever asks: `/readyz` needs no key."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable

import structlog
from starlette.concurrency import run_in_threadpool

READY_FOR_S = 2.0
log = structlog.get_logger()


class Readiness:
    """Remembers the outcome of a check, good or bad, for `every_s` seconds from its end.

    Only touched from the event loop. Callers who come while a check runs wait for it, without a thread each.
    """

    def __init__(self, check: Callable[[], None], every_s: float = READY_FOR_S) -> None:
        self._check, self._every_s = check, every_s
        self._running: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._checked_at = -math.inf

    async def failure(self) -> Exception | None:
        """What the last check raised, None if it went well."""
        if self._running is None and time.monotonic() - self._checked_at >= self._every_s:
            self._running = asyncio.create_task(self._run())
        if self._running is not None:
            await asyncio.shield(self._running)  # a caller who leaves must not end it for the others
        return self._failure

    async def _run(self) -> None:
        try:
            await run_in_threadpool(self._check)
            self._failure = None
        except Exception as error:
            self._failure = error
            log.error("not_ready", exc_info=error)
        finally:
            self._checked_at, self._running = time.monotonic(), None
