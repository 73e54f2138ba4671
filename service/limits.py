"""What one caller, and all of them together, may take: requests by key, and bytes of bodies in memory."""

from __future__ import annotations

import math
import threading
import time

from sayso.service.access.shared_buckets import Buckets
from sayso.service.errors import ServiceError


class RateLimits:
    """A token bucket for each key: `per_s` requests a second, `burst` at once; 0 a second is no limit.

    The buckets are this process's, or those that several servers share.
    """

    def __init__(self, per_s: float, burst: int, shared: Buckets | None = None) -> None:
        self._per_s, self._burst, self._shared = per_s, float(burst), shared
        self._buckets: dict[str, tuple[float, float]] = {}  # key id -> tokens left, and when
        self._lock = threading.Lock()

    def take(self, key_id: str) -> None:
        """Take one request's token; raises a 429 with the seconds until the next if there is none."""
        if not self._per_s:
            return
        remaining = self._left(key_id)
        if remaining < 0:
            wait_s = math.ceil(-remaining / self._per_s)
            detail = (
                f"this API key makes more than {self._per_s:g} requests a second: try again in {wait_s} s"
            )
            raise ServiceError(429, "rate_limited", detail, {"Retry-After": str(wait_s)})

    def _left(self, key_id: str) -> float:
        """Take a token; returns the number left, negative if there was none to take."""
        if self._shared is not None:
            return self._shared.take(key_id, self._per_s, self._burst)
        with self._lock:
            now = time.monotonic()
            tokens, at = self._buckets.get(key_id, (self._burst, now))
            tokens = min(self._burst, tokens + (now - at) * self._per_s)
            self._buckets[key_id] = (tokens - 1.0 if tokens >= 1.0 else tokens, now)
        return tokens - 1.0


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
