"""A graceful stop: `/readyz` turns red, serving goes on for a while, running requests and streams finish.

uvicorn's own stop closes the listening socket at once, which refuses the requests of a load balancer that has
not asked `/readyz` since, and closes open WebSockets.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

GRACE_S = 30.0  # for what was begun, after the listening socket is closed


class DrainingServer(uvicorn.Server):
    """`config.app` is the service's application; its `state.draining` tells `/readyz` and every answer.

    After SIGTERM it goes on serving for `drain_s`, each answer with `Connection: close`, and then closes the
    listening socket and waits up to GRACE_S for requests and streams. Ctrl-C skips the first part.
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
        left = GRACE_S - (time.monotonic() - started)
        self.config.timeout_graceful_shutdown = max(1, round(left))
        await super().shutdown(sockets)

    async def _while_needed(self, at_most_s: float, needed: Callable[[], bool]) -> None:
        """Wait, serving, until it is not needed any more; a second Ctrl-C ends that too."""
        until = time.monotonic() + at_most_s
        while time.monotonic() < until and needed() and not self.force_exit:
            await asyncio.sleep(0.05)
