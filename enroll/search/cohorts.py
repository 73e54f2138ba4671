"""The cohort of each tenant, kept in step with the store.

The cohort is the tenant's oldest speakers, 400 at most. So its cost does not grow with the tenant, and
whoever enrols later into a tenant of that size cannot move what others are compared with.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np

from sayso.enroll.cohort import Cohort, Floats
from sayso.enroll.search.feed import OldRow, TemplateFeed, has_passed

LARGEST = 400
_REMEMBERED = 2048  # cohorts of tenants and models, some 30 kB each


@dataclass
class _Kept:
    """A cohort with what tells whether it still is the tenant's."""

    cohort: Cohort = field(default_factory=Cohort)
    revision: int = -1
    last: int = -1  # the highest number of its speakers, if there are as many as there may be
    next_expiry: str | None = None


class Cohorts:
    """The cohorts of a store's tenants under each model. Thread-safe; made on first use, by revision."""

    def __init__(self, feed: TemplateFeed, largest: int = LARGEST) -> None:
        self._feed, self._largest = feed, largest
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    def of(self, tenant: str, model_sha256: str) -> Cohort:
        """The tenant's cohort with every change that was committed before this call."""
        key = (tenant, model_sha256)
        with self._lock:
            kept = self._kept.get(key, _Kept())
        known = -1 if has_passed(kept.next_expiry) else kept.revision
        oldest = self._feed.oldest(tenant, model_sha256, self._largest, known, kept.last)
        if oldest is not None:
            if oldest.rows is None:  # changes that do not reach the cohort
                kept = _Kept(kept.cohort, oldest.revision, kept.last, kept.next_expiry)
            else:
                full = len(oldest.rows) == self._largest
                kept = _Kept(
                    _summed(oldest.rows),
                    oldest.revision,
                    oldest.rows[-1].number if full else -1,
                    min((row.expires_at for row in oldest.rows if row.expires_at), default=None),
                )
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > _REMEMBERED:
                self._kept.popitem(last=False)
        return kept.cohort


def _summed(rows: list[OldRow]) -> Cohort:
    sums: dict[str, Floats] = {}
    counts: dict[str, int] = {}
    for row in rows:
        sums[row.band] = sums.get(row.band, 0.0) + row.vector.astype(np.float64)
        counts[row.band] = counts.get(row.band, 0) + 1
    return Cohort(sums, counts, frozenset(row.speaker_id for row in rows))
