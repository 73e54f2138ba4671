"""One tenant's templates of one model in memory, kept in step with the store."""

import logging
import threading
import time

import numpy as np

from sayso.enroll.errors import InvalidEmbedding
from sayso.enroll.search.feed import Changes, TemplateFeed, has_passed
from sayso.enroll.search.roster import Roster
from sayso.enroll.search.short_list import Shortlist
from sayso.enroll.types import Candidate, Vector, Vectors

_SAMPLE = 65_536  # vectors that a short list is trained on
_AT_ONCE = 2048  # rows copied, then encoded, while searches go on between
_LAST = 64  # rows that are encoded while searches wait
_GROWTH = 4  # a short list is trained anew in a tenant so many times larger
_RETRY_S = 60.0  # a short list that could not be built is tried again after so long
log = logging.getLogger(__name__)


class Mirror:
    """Searches exactly, and by a short list from `approximate_from` speakers on. Thread-safe.

    The short list is built in a thread, of which one at a time in `building` works; the searches until then
    are exact. A search sees every enrolment and deletion that was committed before it began.
    """

    _revision: int
    _roster: Roster
    _expiries: dict[int, str]  # of those in the roster who will expire
    _next_expiry: str | None
    _built_for: int  # speakers there were when the last short list was begun

    def __init__(
        self,
        feed: TemplateFeed,
        tenant: str,
        model_sha256: str,
        approximate_from: int,
        building: threading.Semaphore,
    ) -> None:
        self._feed, self._source = feed, (tenant, model_sha256)
        self._approximate_from, self._building = approximate_from, building
        self._lock = threading.Lock()
        self._problem: str | None = None
        self._retry_at = 0.0
        self._forget()

    def catch_up(self) -> None:
        with self._lock:
            self._catch_up()

    def search(self, query: Vector, k: int, allowed: frozenset[int] | None) -> tuple[list[Candidate], int]:
        with self._lock:
            self._catch_up()
            dim = self._roster.vectors.dim
            if len(self._roster) and query.size != dim:
                raise InvalidEmbedding(f"This model's embeddings have {dim} dimensions, not {query.size}.")
            return self._roster.search(query, k, allowed)

    def differences(self) -> list[str]:
        """Compare with the whole store at one revision."""
        with self._lock:
            while True:
                whole = self._feed.since(*self._source, -1)
                self._catch_up()
                if whole is not None and whole.revision == self._revision:
                    return self._roster.differences(whole.numbers, whole.ids, whole.vectors)

    @property
    def building(self) -> bool:
        """Tell whether a short list is being built."""
        return self._roster.written is not None

    @property
    def problem(self) -> str | None:
        """Why the last short list could not be built; None when it could."""
        return self._problem

    @property
    def bytes(self) -> int:
        """Memory that vectors and codes take."""
        with self._lock:
            codes = self._roster.shortlist
            return self._roster.vectors.bytes + (codes.bytes if codes else 0)

    def _catch_up(self) -> None:
        changes = self._feed.since(*self._source, self._revision)
        expired = has_passed(self._next_expiry)
        if changes is None and not expired:
            self._tend()
            return
        try:
            if changes is not None:
                self._apply(changes)
                self._revision = changes.revision
            if expired:
                for number in [n for n, moment in self._expiries.items() if has_passed(moment)]:
                    self._remove(number)
            self._next_expiry = min(self._expiries.values(), default=None)
        except BaseException:
            self._forget()  # half applied: start again from the store next time
            raise
        self._tend()

    def _apply(self, changes: Changes) -> None:
        if changes.whole:
            self._forget()
            self._roster = Roster(changes.numbers, changes.ids, changes.vectors)
        else:
            for number in changes.touched:
                self._remove(number)
            if changes.numbers:
                self._roster.add(changes.numbers, changes.ids, changes.vectors.rows)
        self._expiries.update(changes.expiries)

    def _remove(self, number: int) -> None:
        self._roster.remove(number)
        self._expiries.pop(number, None)

    def _forget(self) -> None:
        self._revision = -1
        self._roster = Roster()
        self._expiries, self._next_expiry = {}, None
        self._built_for = 0

    def _tend(self) -> None:
        """Start building a short list if the tenant has outgrown exact search, or its present short list."""
        roster = self._roster
        if len(roster) < self._approximate_from // 2:
            roster.shortlist, self._built_for = None, 0
        build_at = max(self._approximate_from, _GROWTH * self._built_for)
        if len(roster) >= build_at and roster.written is None and time.monotonic() >= self._retry_at:
            roster.written, self._built_for = set(), len(roster)
            threading.Thread(target=self._build, args=(roster,), name="short list", daemon=True).start()

    def _build(self, roster: Roster) -> None:
        """Train a short list and bring it in step with a roster that goes on changing, then hand it over."""
        try:
            with self._building:
                sample = self._sample(roster)
                if sample is not None:
                    shortlist = Shortlist(sample)
                    del sample
                    while not self._advance(roster, shortlist):
                        pass
        except Exception as error:  # every speaker is still compared: slower, and as good
            log.exception("the short list of a tenant's speakers could not be built")
            with self._lock:
                self._problem = f"a short list could not be built: {error or type(error).__name__}"
                self._retry_at, self._built_for = time.monotonic() + _RETRY_S, 0
        else:
            self._problem = None
        finally:
            with self._lock:
                roster.written = None

    def _sample(self, roster: Roster) -> Vectors | None:
        """Copy vectors `[n, dim]` from all over the table; None when it is no longer the one in use."""
        rng, parts = np.random.default_rng(0), []
        with self._lock:
            share = min(1.0, _SAMPLE / max(1, len(roster)))
        start = 0
        while True:
            with self._lock:
                if roster is not self._roster or not len(roster):
                    return None
                rows = roster.vectors.rows[start : start + _AT_ONCE]
                parts.append(rows[rng.random(len(rows)) < share])
            start += _AT_ONCE
            if len(rows) < _AT_ONCE:
                return np.concatenate(parts)

    def _advance(self, roster: Roster, shortlist: Shortlist) -> bool:
        """Encode one batch of new and changed vectors; True once the short list is in use or obsolete."""
        with self._lock:
            if roster is not self._roster or roster.written is None:
                return True
            while len(shortlist) > len(roster):
                shortlist.remove(len(shortlist) - 1)
            known = len(shortlist)
            again = [slot for slot in roster.written if slot < known][:_AT_ONCE]
            roster.written = {slot for slot in roster.written.difference(again) if slot < known}
            rows = roster.vectors.rows[again], roster.vectors.rows[known : known + _AT_ONCE].copy()
            if len(again) + len(roster) - known <= _LAST:
                _encode(shortlist, again, *rows)
                roster.shortlist = shortlist
                return True
        _encode(shortlist, again, *rows)
        return False


def _encode(shortlist: Shortlist, again: list[int], changed: Vectors, new: Vectors) -> None:
    for slot, vector in zip(again, changed, strict=True):
        shortlist.replace(slot, vector)
    if len(new):
        shortlist.add(new)
