"""One request on its way through the engine: its limits, its clock, and whether anybody waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.requests import ClientDisconnect

from sayso.runtime.errors import TookTooLong
from sayso.service import spans
from sayso.service.access.keys import ApiKey
from sayso.service.settings import Settings


@dataclass
class Call:
    """One request: whose speakers it may touch, what it may see, its id, and how long its stages took.

    `attempt` names what the caller tries: requests of one name count as one guess at a speaker and as one use
    of a recording. The `operator` is not held to limits on guesses. `alone` tells whether no other request
    needs the cores, `departed` whether the client has gone.
    """

    tenant: str
    request_id: str
    attempt: str
    scores: bool = False
    operator: bool = False
    time_limit_s: float | None = None
    alone: bool = True
    departed: Callable[[], bool] = lambda: False
    stages: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def of(cls, key: ApiKey, request_id: str, settings: Settings, attempt: str) -> Call:
        """A call by this key."""
        scores, limit_s = key.allows("scores"), settings.request_timeout_s
        return cls(key.tenant, request_id, attempt, scores, time_limit_s=limit_s)

    def left_s(self) -> float | None:
        """Seconds left to work in, None without a limit; raises `TookTooLong` when there are none.

        Raises `ClientDisconnect` when nobody waits for the answer any more.
        """
        if self.departed():
            raise ClientDisconnect
        if self.time_limit_s is None:
            return None
        left = self.time_limit_s - (time.perf_counter() - self.started)
        if left <= 0:
            raise TookTooLong(f"the request was not done after {self.time_limit_s:g} s: try again shortly")
        return left

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.left_s()
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float, ended_ago: float = 0.0) -> None:
        """Add to a stage: a call may decode two recordings, or embed with two models."""
        self.stages[name] = self.stages.get(name, 0.0) + seconds
        spans.note(name, seconds, ended_ago)
