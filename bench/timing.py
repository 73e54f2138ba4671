"""Times jobs in turn, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Spread:
    """Milliseconds: median, 95th and 99th percentile of the runs taken."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, milliseconds: NDArray[np.float64] | list[float]) -> Spread:
        return cls(*(round(float(q), 3) for q in np.percentile(milliseconds, (50, 95, 99))))


def interleave(
    jobs: Mapping[K, Callable[[], object]],
    rounds: int,
    warm_up: int = 3,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[K, NDArray[np.float64]]:
    """Milliseconds `[rounds]` of each job, every round running each job once after `warm_up` unkept ones.

    Each run is preceded by one that is not kept: the job before leaves the caches full of its own
    weights, which a server that runs one model would not meet.
    """
    taken: dict[K, list[float]] = {key: [] for key in jobs}
    for turn in range(-warm_up, rounds):
        for key, job in jobs.items():
            if turn >= 0:
                job()
            started = time.perf_counter()
            job()
            if turn >= 0:
                taken[key].append((time.perf_counter() - started) * 1000.0)
        progress(max(0, turn + 1), rounds)
    return {key: np.array(values) for key, values in taken.items()}
