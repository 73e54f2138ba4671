"""Hands a request to the engine on a worker thread, if there is room for it and when it is its turn."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from sayso.runtime.errors import Overloaded, TookTooLong
from sayso.service.access.keys import ApiKey
from sayso.service.call import Call
from sayso.service.engine import Engine
from sayso.service.uploads import ATTEMPT

LONGEST_ATTEMPT = 255
P = ParamSpec("P")
R = TypeVar("R")


class Admission:
    """Counts what was admitted; only touched from the event loop, so it needs no lock.

    Of those `turns` are worked on at a time, first come, first served (0: all of them): as many as the cores
    can do. More at once would only take the cores from each other, and finish later.
    """

    def __init__(self, limit: int, what: str = "recordings are being worked on", turns: int = 0) -> None:
        self.limit, self.what, self.taken, self.waiting = limit, what, 0, 0
        self._turns = asyncio.Semaphore(turns or limit)

    def check(self) -> None:
        """Raise `Overloaded` when all places are taken."""
        if self.taken >= self.limit:
            raise Overloaded(f"{self.limit} {self.what}: try again shortly")

    def __enter__(self) -> None:
        self.check()
        self.taken += 1

    def __exit__(self, *exc: object) -> None:
        self.taken -= 1

    async def run(
        self, do: Callable[Concatenate[Call, P], R], call: Call, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Admit a call, wait for its turn, do it on a thread; raises `Overloaded` or `TookTooLong`."""

        def begin() -> R:
            call.add("queue", time.perf_counter() - call.started)  # to have come to a thread is part of it
            return do(call, *args, **kwargs)

        with self:
            self.waiting += 1
            try:
                async with asyncio.timeout(call.left_s()):
                    await self._turns.acquire()
            except TimeoutError:
                raise TookTooLong("the recording waited too long for its turn: try again shortly") from None
            finally:
                self.waiting -= 1
            try:
                call.alone = self.taken == 1
                return await run_in_threadpool(begin)
            finally:
                self._turns.release()


def engine_of(request: Request) -> Engine:
    """The running engine."""
    engine: Engine = request.app.state.engine
    return engine


async def work(
    request: Request, key: ApiKey, do: Callable[Concatenate[Call, P], R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Run one of the engine's methods for the caller; raises `Overloaded` when all places are taken."""
    call = Call.of(key, request.state.request_id, engine_of(request).settings, _attempt(request, key))
    call.departed = getattr(request.state, "departed", call.departed)
    admission: Admission = request.app.state.admission
    return await admission.run(do, call, *args, **kwargs)


def _attempt(request: Request, key: ApiKey) -> str:
    """A name for what is tried, which its retries share: by its Idempotency-Key, or by a proxy's header.

    The recording belongs to the name: another one under the same header is another guess.
    """
    state, given = request.state, request.headers.get(ATTEMPT)
    named: str | None = getattr(state, "attempt", None)
    if named is None and given is not None and hasattr(state, "recorded"):
        named = f"{key.id} {given[:LONGEST_ATTEMPT]} {state.recorded}"
    return named or uuid.uuid4().hex
