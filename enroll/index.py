"""Exact search over a tenant's templates: one FAISS index per (tenant, model), kept in step with the store.

An index remembers the tenant revision it mirrors. Each search compares that with the store's, one small
SELECT, and takes over what changed since: so an acknowledged enrolment is found and a deleted one is not,
whichever process made the change.
"""

import threading
from collections.abc import Collection
from typing import Protocol

import faiss
import numpy as np
import numpy.typing as npt

from enroll.decision import score
from enroll.errors import InvalidEmbedding
from enroll.feed import Changes, TemplateFeed, has_passed
from enroll.store import Store
from enroll.types import Candidate, Vector
from enroll.vectors import checked_vector

Numbers = npt.NDArray[np.int64]

_ROUNDING = 1e-5  # more than FAISS's float32 sums can be off


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


def index_of(store: Store) -> Index:
    """Return what searches this store: the server it is on, or an index in this process."""
    if not store.database.shared:
        return SpeakerIndex(store)
    from enroll.postgres.search import PostgresIndex

    return PostgresIndex(store)


class SpeakerIndex:
    """Searches the enrolled speakers of a store. Thread-safe; built on first use or by `warm`."""

    def __init__(self, store: Store) -> None:
        self._feed = store.feed
        self._mirrors: dict[tuple[str, str], _Mirror] = {}
        self._mirrors_lock = threading.Lock()

    def warm(self) -> None:
        """Build the index of every tenant and model now."""
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

    def check(self) -> list[str]:
        """Compare every index with the store and return the differences; empty when all are in step."""
        with self._mirrors_lock:
            pairs = self._feed.templated() | self._mirrors.keys()
        return [
            f"tenant {tenant}, model {model_sha256[:12]}: {difference}"
            for tenant, model_sha256 in sorted(pairs)
            for difference in self._mirror(tenant, model_sha256).differences()
        ]

    def _mirror(self, tenant: str, model_sha256: str) -> "_Mirror":
        with self._mirrors_lock:
            key = (tenant, model_sha256)
            if key not in self._mirrors:
                self._mirrors[key] = _Mirror(self._feed, tenant, model_sha256)
            return self._mirrors[key]


class _Mirror:
    """One tenant's templates of one model. The lock covers FAISS, which must not be read while written."""

    def __init__(self, feed: TemplateFeed, tenant: str, model_sha256: str) -> None:
        self._feed = feed
        self._source = (tenant, model_sha256)
        self._lock = threading.Lock()
        self._revision = -1
        self._names: dict[int, str] = {}  # number -> speaker id, of the speakers in the index
        self._expiries: dict[int, str] = {}  # of those among them who will expire
        self._next_expiry: str | None = None
        self._index: faiss.IndexIDMap2 | None = None

    def catch_up(self) -> None:
        with self._lock:
            self._catch_up()

    def search(self, query: Vector, k: int, allowed: frozenset[int] | None) -> tuple[list[Candidate], int]:
        with self._lock:
            self._catch_up()
            numbers = self._names.keys() if allowed is None else allowed & self._names.keys()
            if self._index is None or not numbers:
                return [], 0
            if query.size != self._index.d:
                raise InvalidEmbedding(
                    f"This model's embeddings have {self._index.d} dimensions, not {query.size}."
                )
            searched = len(numbers)  # now: `numbers` may be a view of what the next search changes
            selected = None if allowed is None else np.fromiter(numbers, np.int64, searched)
            nearest = _nearest(self._index, query, min(k, searched), searched, selected)
            # scored again as verify scores, so that both calls give one speaker the same score
            found = [
                Candidate(self._names[number], score(query, _stored(self._index, number)))
                for number in nearest
            ]
        found.sort(key=lambda candidate: (-candidate.score, candidate.speaker_id))
        return found[:k], searched

    def differences(self) -> list[str]:
        """Compare with the whole store at one revision."""
        with self._lock:
            while True:
                whole = self._feed.since(*self._source, -1)
                self._catch_up()
                if whole is not None and whole.revision == self._revision:
                    return self._differences_from(whole)

    def _catch_up(self) -> None:
        changes = self._feed.since(*self._source, self._revision)
        expired = has_passed(self._next_expiry)
        if changes is None and not expired:
            return
        try:
            if changes is not None:
                self._apply(changes)
                self._revision = changes.revision
            if expired:
                self._remove({number for number, moment in self._expiries.items() if has_passed(moment)})
            self._next_expiry = min(self._expiries.values(), default=None)
        except BaseException:
            self._forget()  # half applied: start again from the store next time
            raise

    def _remove(self, gone: set[int]) -> None:
        if gone and self._index is not None:
            self._index.remove_ids(faiss.IDSelectorBatch(np.fromiter(gone, np.int64, len(gone))))
            if self._index.ntotal == 0:
                self._index = None  # FAISS keeps the memory, and what was in it
        for number in gone:
            del self._names[number]
            self._expiries.pop(number, None)

    def _apply(self, changes: Changes) -> None:
        gone = self._names.keys() & changes.changed.keys()
        if changes.numbers is not None:
            gone |= self._names.keys() - changes.numbers
        self._remove(gone)
        new = {number: entry.vector for number, entry in changes.changed.items() if entry.vector is not None}
        if not new:
            return
        vectors = np.stack(list(new.values()))
        if self._index is None:
            self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        self._index.add_with_ids(vectors, np.fromiter(new, np.int64, len(new)))
        for number in new:
            entry = changes.changed[number]
            self._names[number] = entry.id
            if entry.expires_at is not None:
                self._expiries[number] = entry.expires_at

    def _forget(self) -> None:
        self._revision = -1
        self._names, self._expiries, self._next_expiry = {}, {}, None
        self._index = None

    def _differences_from(self, whole: Changes) -> list[str]:
        expected = {n: (e.id, e.vector) for n, e in whole.changed.items() if e.vector is not None}
        found = [f"{self._names[n]} should not be there" for n in self._names.keys() - expected.keys()]
        for number, (name, vector) in expected.items():
            if self._index is None or self._names.get(number) != name:
                found.append(f"{name} is missing")
            elif not np.array_equal(_stored(self._index, number), vector):
                found.append(f"{name} has another template")
        size = 0 if self._index is None else self._index.ntotal
        if size != len(self._names):
            found.append(f"{size} vectors for {len(self._names)} speakers")
        return found


def _stored(index: "faiss.IndexIDMap2", number: int) -> Vector:
    return np.asarray(index.reconstruct(number), dtype=np.float32)


def _nearest(
    index: "faiss.IndexIDMap2", query: Vector, k: int, searched: int, selected: Numbers | None
) -> list[int]:
    """Return the numbers of the k best of `searched`, and of any that may tie with the last of them."""
    # One query is one scan: a second OpenMP thread gains nothing and, when the cores are busy with
    # embeddings, is waited for (24 ms instead of 0.5 for 10,000 speakers). The setting is per thread.
    faiss.omp_set_num_threads(1)
    parameters = None
    if selected is not None:
        selector = faiss.IDSelectorBatch(selected)  # FAISS keeps only a pointer: this name keeps it alive
        parameters = faiss.SearchParameters()
        parameters.sel = selector
    fetch = min(k + 1, searched)
    while True:
        scores, numbers = index.search(query[np.newaxis], fetch, params=parameters)
        if fetch == searched or scores[0, k - 1] - scores[0, -1] > _ROUNDING:
            return [int(number) for number in numbers[0]]
        fetch = min(2 * fetch, searched)
