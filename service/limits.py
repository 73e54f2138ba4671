"""What one caller, and all of them together, may take: requests by key, and bytes of bodies in memory."""

from __future__ import annotations

import math
import threading
import time

from service.errors import ServiceError


class RateLimits:
    """A token bucket for each key: `per_s` requests a second, `burst` at once; 0 a second is no limit."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s, self._burst = per_s, float(burst)
        self._buckets: dict[str, tuple[float, float]] = {}  # key id -> tokens left, and when
        self._lock = threading.Lock()

    def take(self, key_id: str) -> None:
        """Take one request's token; raises a 429 that says when there is one again."""
        if not self._per_s:
            return
        with self._lock:
            now = time.monotonic()
            tokens, at = self._buckets.get(key_id, (self._burst, now))
            tokens = min(self._burst, tokens + (now - at) * self._per_s)
            enough = tokens >= 1.0
            self._buckets[key_id] = (tokens - 1.0 if enough else tokens, now)
        if not enough:
            wait_s = math.ceil((1.0 - tokens) / self._per_s)
            detail = (
                f"this API key makes more than {self._per_s:g} requests a second: try again in {wait_s} s"
            )
            raise ServiceError(429, "rate_limited", detail, {"Retry-After": str(wait_s)})


class BodyBudget:
    """Bytes of request bodies held now; only touched from the event loop, so it needs no lock."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    def take(self, size: int) -> None:
        """Count bytes that arrived; raises a 429 when there are too many in all."""
        if self.held + size > self.limit:
            detail = "the service holds as many bytes of other requests as it may: try again shortly"
            raise ServiceError(429, "overloaded", detail)
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size
