"""Hands the stages of a call to the tracer of its request, where traces are switched on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar

# Takes a stage's name, start and end in nanoseconds since the epoch. Worker threads inherit it.
observer: ContextVar[Callable[[str, int, int], None] | None] = ContextVar("observer", default=None)


def note(stage: str, seconds: float, ended_ago: float = 0.0) -> None:
    """Report a stage that took `seconds` and ended `ended_ago` seconds ago."""
    observe = observer.get()
    if observe is not None:
        end = time.time_ns() - round(ended_ago * 1e9)
        observe(stage, end - round(seconds * 1e9), end)
