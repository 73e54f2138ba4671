"""A graceful stop: `/readyz` fails, the server goes on for a while, then running requests and streams finish.

uvicorn's own stop closes the listening socket and open WebSockets at once. A load balancer that has not asked
`/readyz` since then would have its requests refused.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

GRACE_S = 30.0  # for running requests and streams to finish, after the listening socket is closed


class DrainingServer(uvicorn.Server):
    """A uvicorn server that stops in two steps. `app` is the service's application, without its wrappers.

    1. After SIGTERM it goes on serving for `drain_s` seconds. `app.state.draining` is set, so `/readyz` fails
       and every answer carries `Connection: close`. Ctrl-C skips this step.
    2. It closes the listening socket and waits up to GRACE_S for running requests and streams.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, drain_s: float) -> None:
        super().__init__(config)
        self._app, self._drain_s = app, drain_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.draining = True
        if signal.SIGTERM in self._captured_signals:
            await self._while_needed(self._drain_s, lambda: True)
        for server in self.servers:
            server.close()
        started = time.monotonic()
        await self._while_needed(GRACE_S, lambda: self._app.state.streams.taken > 0)
        remaining_s = GRACE_S - (time.monotonic() - started)
        self.config.timeout_graceful_shutdown = max(1, round(remaining_s))
        await super().shutdown(sockets)

    async def _while_needed(self, at_most_s: float, needed: Callable[[], bool]) -> None:
        """Go on serving while `needed()` is true, at most `at_most_s`. A forced exit ends it at once."""
        until = time.monotonic() + at_most_s
        while time.monotonic() < until and needed() and not self.force_exit:
            await asyncio.sleep(0.05)
