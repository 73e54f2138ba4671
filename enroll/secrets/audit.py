"""The audit log: who did what to whom and when, in a chain that nobody can rewrite without the key.

Each entry's MAC is HMAC-SHA256 over the MAC before it and the entry, under a key of the store that is
wrapped by the master key. Speakers appear as pseudonyms; there are no names, vectors, audio or requests.
A change of the store is logged in its own transaction. Decisions change nothing, so they are `note`d:
written together within half a second, which is what a killed process can lose of them.
"""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sayso.enroll import clock
from sayso.enroll.db.sql import EVERYBODY, Row
from sayso.enroll.errors import StoreError, StoreUnavailable
from sayso.enroll.secrets.transaction import CHAIN_START, Transaction, actor, chained_mac
from sayso.enroll.secrets.vault import Vault

WRITE_AFTER_S = 0.5
MOST_WAITING = 10_000
log = logging.getLogger(__name__)
_NO_LIMIT = 2**63 - 1
_PAGE = 10_000


@dataclass(frozen=True)
class AuditEvent:
    """One entry. `speaker` is a pseudonym or None; `facts` depend on the event."""

    number: int
    at: str
    event: str
    tenant: str | None
    speaker: str | None
    actor: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class AuditReport:
    """What a verification found: `broken` is the first entry that does not fit, None when all do.

    `entries` and `head` (hex) name the last entry that does: note them elsewhere, and a later
    verification can tell that nothing up to there was cut off.
    """

    entries: int
    head: str
    broken: int | None


class AuditLog:
    """The log of one store. Thread-safe; `close` writes what is waiting."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._waiting: list[tuple[str, str, str | None, str | None, str, dict[str, Any]]] = []
        self._lock = threading.Lock()  # of the list
        self._writing = threading.Lock()  # one flush at a time, so that entries keep their order
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._problem: str | None = None

    @property
    def problem(self) -> str | None:
        """Why the last attempt to write what was noted failed; None when it went well."""
        return self._problem

    def note(self, event: str, tenant: str | None, speaker_id: str | None = None, **facts: Any) -> None:
        """Log something that changes nothing in the store, soon and together with others.

        Raises StoreUnavailable when 10,000 wait because the log cannot be written: then no more is
        decided than can be answered for.
        """
        entry = (clock.stamp(clock.now()), event, tenant, speaker_id, actor.get(), facts)
        json.dumps(entry).encode()  # what cannot be written fails here, not with the others later
        (speaker_id or "").encode()
        with self._lock:
            if len(self._waiting) >= MOST_WAITING:
                raise StoreUnavailable(self._vault.database.path, "the audit log cannot be written")
            self._waiting.append(entry)
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._keep_writing, name="audit", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write what was noted. Raises StoreError, and then keeps it for the next time."""
        with self._writing:
            with self._lock:
                entries = list(self._waiting)
            if not entries:
                return
            with self._vault.write(EVERYBODY, "audit") as transaction:
                transaction.lock("pseudonyms")  # before the log itself, as every other writer does
                for entry in entries:
                    transaction.audit_entry(*entry)
            with self._lock:
                del self._waiting[: len(entries)]

    def close(self) -> None:
        """Stop the writing thread and write the rest. Raises StoreError when that cannot be."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def events(
        self,
        tenant: str | None = None,
        speaker_id: str | None = None,
        after: int = 0,
        limit: int | None = 100,
    ) -> list[AuditEvent]:
        """Return entries in order, the first of them after number `after`; a speaker's need the tenant."""
        wanted: list[tuple[str, object]] = [("number > ?", after)]
        with self._vault.read() as transaction:
            if tenant is not None:
                wanted.append(("json_extract(entry, '$.tenant') = ?", tenant))
                if speaker_id is not None:
                    who = transaction.known_pseudonym(tenant, speaker_id)
                    if who is None:
                        return []
                    wanted.append(("json_extract(entry, '$.speaker') = ?", who))
            conditions = " AND ".join(condition for condition, _ in wanted)
            rows = transaction.execute(
                f"SELECT * FROM audit WHERE {conditions} ORDER BY number LIMIT ?",
                (*(value for _, value in wanted), _NO_LIMIT if limit is None else limit),
            )
            return [_event(row) for row in rows]

    def verify(self, head: tuple[int, str] | None = None) -> AuditReport:
        """Go through the whole chain; `head`, of an earlier report, has to be in it still."""
        self.flush()
        count, mac = 0, CHAIN_START
        with self._vault.read() as transaction:
            key = transaction.audit_key()
            for row in _all(transaction):
                expected = chained_mac(key, mac, row["entry"])
                named = json.loads(row["entry"]).get("number") if expected == row["mac"] else None
                if row["number"] != count + 1 or named != count + 1:
                    return AuditReport(count, mac.hex(), count + 1)
                count, mac = count + 1, expected
                if head is not None and head[0] == count and head[1] != mac.hex():
                    return AuditReport(count - 1, head[1], count)
        if head is not None and head[0] > count:
            return AuditReport(count, mac.hex(), count + 1)
        return AuditReport(count, mac.hex(), None)

    def _keep_writing(self) -> None:
        while not self._stop.wait(WRITE_AFTER_S):
            try:
                self.flush()
            except Exception as error:  # the entries are kept and tried again; `note` refuses too many
                problem = f"the audit log cannot be written: {error or type(error).__name__}"
                if problem != self._problem:  # once, not twice a second
                    log.error(problem, exc_info=None if isinstance(error, StoreError) else error)
                self._problem = problem
            else:
                self._problem = None


def _all(transaction: Transaction) -> Iterator[Row]:
    after = -_NO_LIMIT
    while page := transaction.execute(
        "SELECT * FROM audit WHERE number > ? ORDER BY number LIMIT ?", (after, _PAGE)
    ).fetchall():
        yield from page
        after = page[-1]["number"]


def _event(row: Row) -> AuditEvent:
    return AuditEvent(**json.loads(row["entry"]))
