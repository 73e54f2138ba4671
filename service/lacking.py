"""Enrolled people whom a served model cannot compare, since they were enrolled without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from threading import Lock

from sayso.enroll.recordings import Recordings


class Lacking:
    """Counts them by tenant and model. Thread-safe.

    Every enrolment embeds with every served model, so while a service runs their number only falls: by
    embedding kept recordings, by enrolling again, by deletion. It is therefore counted when it is first asked
    for, and afterwards by `refresh` as long as there are any.
    """

    def __init__(self, recordings: Recordings, models: Collection[str]) -> None:
        self._recordings, self._models = recordings, models
        self._counts: dict[str, Counter[str]] = {}
        self._lock = Lock()

    def of(self, tenant: str, model_sha256: str) -> int:
        """How many of the tenant's enrolled speakers have no complete template of the model."""
        with self._lock:
            if model_sha256 not in self._counts:
                self._count(model_sha256)
            return self._counts[model_sha256][tenant]

    def refresh(self) -> None:
        """Count again where there were any, and where nobody has counted yet."""
        for model_sha256 in self._models:
            with self._lock:
                if model_sha256 not in self._counts or self._counts[model_sha256].total():
                    self._count(model_sha256)

    def _count(self, model_sha256: str) -> None:
        outdated = self._recordings.outdated(model_sha256)
        self._counts[model_sha256] = Counter(speaker.tenant for speaker in outdated)
