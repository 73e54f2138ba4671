"""Search over a tenant's templates: one mirror per (tenant, model) in memory, kept in step with the store.

A mirror remembers the tenant revision it stands at. Each search compares that with the store's, one small
SELECT, and takes over what changed since: so an acknowledged enrolment is found and a deleted one is not,
whichever process made the change.
"""

import threading
from collections.abc import Collection
from typing import Protocol

from sayso.enroll.db.sqlite import Database as SqliteDatabase
from sayso.enroll.search.feed import TemplateFeed
from sayso.enroll.search.mirror import Mirror
from sayso.enroll.store import Store
from sayso.enroll.types import Candidate, Vector
from sayso.enroll.vectors import checked_vector

APPROXIMATE_FROM = 10_000


class Index(Protocol):
    """What searches a store's speakers, wherever that is done; `SpeakerIndex` says what each call means."""

    def warm(self) -> None: ...
    def search(
        self,
        tenant: str,
        model_sha256: str,
        vector: Vector,
        k: int,
        among: Collection[str] | None = None,
        group: str | None = None,
    ) -> tuple[list[Candidate], int]: ...
    def refresh(self, tenant: str | None = None) -> None: ...
    def check(self) -> list[str]: ...

    @property
    def problems(self) -> list[str]: ...


def index_of(store: Store) -> Index:
    """Return what searches this store: the server it is on, or an index in this process."""
    if isinstance(store.database, SqliteDatabase):
        return SpeakerIndex(store)
    from sayso.enroll.search.postgres import PostgresIndex

    return PostgresIndex(store)


class SpeakerIndex:
    """Searches the enrolled speakers of a store. Thread-safe; built on first use or by `warm`.

    Every speaker is compared in a tenant of fewer than `approximate_from`, and in a search that is narrowed.
    In larger ones a short list is compared, of those whom 4-bit codes of all put first.
    """

    def __init__(self, store: Store, approximate_from: int = APPROXIMATE_FROM) -> None:
        self._feed, self._approximate_from = TemplateFeed(store), approximate_from
        self._mirrors: dict[tuple[str, str], Mirror] = {}
        self._mirrors_lock = threading.Lock()
        self._building = threading.Semaphore()  # one core at most is taken from the requests

    def warm(self) -> None:
        """Build the index of every tenant and model now; a short list follows while it is already used."""
        with self._building:  # what a start waits for comes first
            for tenant, model_sha256 in sorted(self._feed.templated()):
                self._mirror(tenant, model_sha256).catch_up()

    def search(
        self,
        tenant: str,
        model_sha256: str,
        vector: Vector,
        k: int,
        among: Collection[str] | None = None,
        group: str | None = None,
    ) -> tuple[list[Candidate], int]:
        """Return the `k` nearest speakers, best first, equal scores by id, and how many were compared.

        `among` (ids) and `group` narrow the search, together to their intersection. Raises SpeakerNotFound
        naming the ids in `among` that the tenant does not have, and InvalidEmbedding.
        """
        if k < 1:
            raise ValueError("k must be 1 or more")
        query = checked_vector(vector)
        allowed = None
        if among is not None or group is not None:
            allowed = self._feed.numbers(tenant, among, group)
        return self._mirror(tenant, model_sha256).search(query, k, allowed)

    def refresh(self, tenant: str | None = None) -> None:
        """Take over every change (of one tenant) now: what was deleted leaves this process's memory too."""
        with self._mirrors_lock:
            mirrors = [m for (name, _), m in self._mirrors.items() if tenant is None or name == tenant]
        for mirror in mirrors:
            mirror.catch_up()

    @property
    def building(self) -> bool:
        """Tell whether a short list is being built."""
        with self._mirrors_lock:
            return any(mirror.building for mirror in self._mirrors.values())

    @property
    def problems(self) -> list[str]:
        """What failed in the background and has not gone well since; searches are right all the same."""
        with self._mirrors_lock:
            mirrors = sorted(self._mirrors.items())
        return [
            f"tenant {tenant}, model {model_sha256[:12]}: {mirror.problem}"
            for (tenant, model_sha256), mirror in mirrors
            if mirror.problem is not None
        ]

    @property
    def bytes(self) -> int:
        """Memory that the vectors and codes of all tenants take."""
        with self._mirrors_lock:
            mirrors = list(self._mirrors.values())
        return sum(mirror.bytes for mirror in mirrors)

    def check(self) -> list[str]:
        """Compare every index with the store and return the differences; empty when all are in step."""
        with self._mirrors_lock:
            pairs = self._feed.templated() | self._mirrors.keys()
        return [
            f"tenant {tenant}, model {model_sha256[:12]}: {difference}"
            for tenant, model_sha256 in sorted(pairs)
            for difference in self._mirror(tenant, model_sha256).differences()
        ]

    def _mirror(self, tenant: str, model_sha256: str) -> Mirror:
        with self._mirrors_lock:
            key = (tenant, model_sha256)
            if key not in self._mirrors:
                self._mirrors[key] = Mirror(self._feed, *key, self._approximate_from, self._building)
            return self._mirrors[key]
