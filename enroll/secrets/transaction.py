"""One transaction of a store: its statements, what they seal and open, and the audit log's entries.

Nothing unwrapped outlives the transaction that needed it, apart from the master key: a key that one process
destroys is gone for all of them.
"""

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sayso.enroll import clock
from sayso.enroll.db.sql import Connection, Cursor, Parameters, Row
from sayso.enroll.errors import SealBroken
from sayso.enroll.secrets.sealing import MasterKey, key_number, new_key, seal, unseal

actor: ContextVar[str] = ContextVar("actor", default="system")  # who acts: set at the edge, by task or thread
CHAIN_START = bytes(32)
AUDIT_KEY = "audit"


@contextmanager
def acting(name: str) -> Iterator[None]:
    """Log what is done in the block as done by `name`."""
    token = actor.set(name)
    try:
        yield
    finally:
        actor.reset(token)


def embedding_context(enrollment: int, model_sha256: str) -> str:
    return f"embedding of enrolment {enrollment}, model {model_sha256}"


def template_context(speaker: int, model_sha256: str) -> str:
    return f"template of speaker {speaker}, model {model_sha256}"


def recording_context(enrollment: int) -> str:
    return f"recording of enrolment {enrollment}"


def chained_mac(key: bytes, before: bytes, entry: str) -> bytes:
    """Return the MAC of an audit entry, given that of the entry before it."""
    return hmac.new(key, before + entry.encode(), hashlib.sha256).digest()


class Transaction:
    """A connection inside a transaction, with the store's keys; each key is unwrapped when first needed.

    It is a `Connection`, so whatever takes one takes this too. `Vault.read` and `Vault.write` give it.
    """

    def __init__(self, connection: Connection, master_key: Callable[[Connection], MasterKey]) -> None:
        self.connection, self._master_key = connection, master_key
        self.seals_templates = connection.seals_templates
        self._master: MasterKey | None = None
        self._ciphers: dict[int, AESGCM] = {}
        self._current: dict[str, int] = {}
        self._pseudonym_keys: dict[str, bytes] = {}
        self._audit_key: bytes | None = None

    # Statements

    def execute(self, sql: str, parameters: Parameters = (), /) -> Cursor:
        return self.connection.execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Cursor:
        return self.connection.executemany(sql, parameters)

    def lock(self, name: str, /) -> None:
        self.connection.lock(name)

    def counted(self, table: str, /) -> int:
        return self.connection.counted(table)

    def count_from(self, table: str, number: int, /) -> None:
        self.connection.count_from(table, number)

    # Sealed values

    def seal(self, tenant: str, context: str, data: bytes) -> bytes:
        """Seal bytes under the tenant's newest key, which is made if there is none (only in a write).

        `context` says what the bytes are and where they belong; they open for the same context only.
        """
        if tenant not in self._current:
            row = self._key_row(tenant, "seal")
            self._current[tenant] = self.add_key(tenant) if row is None else row["number"]
        number = self._current[tenant]
        return seal(self._cipher(number, context), number, context, data)

    def open(self, context: str, sealed: bytes) -> bytes:
        """Open what was sealed for this context. Raises SealBroken."""
        return unseal(self._cipher(key_number(sealed), context), context, sealed)

    # The audit log

    def audit(self, event: str, tenant: str | None, speaker_id: str | None = None, **facts: Any) -> None:
        """Write an entry by the present `actor`; it is kept or undone with the transaction."""
        self.audit_entry(clock.stamp(clock.now()), event, tenant, speaker_id, actor.get(), facts)

    def audit_entry(
        self,
        at: str,
        event: str,
        tenant: str | None,
        speaker_id: str | None,
        by: str,
        facts: dict[str, Any],
    ) -> None:
        """Write an entry of an earlier moment, by somebody else."""
        speaker = None
        if tenant is not None and speaker_id is not None:
            speaker = self.pseudonym(tenant, speaker_id)
        self.lock("audit")  # one chain, however many write
        last = self.execute("SELECT number, mac FROM audit ORDER BY number DESC LIMIT 1").fetchone()
        number, mac = (1, CHAIN_START) if last is None else (last["number"] + 1, last["mac"])
        entry = json.dumps(
            {
                "number": number,
                "at": at,
                "event": event,
                "tenant": tenant,
                "speaker": speaker,
                "actor": by,
                "facts": facts,
            },
            separators=(",", ":"),
        )
        self.execute(
            "INSERT INTO audit VALUES (?, ?, ?)", (number, entry, chained_mac(self.audit_key(), mac, entry))
        )

    def audit_key(self) -> bytes:
        """Return the key that the audit log's chain is made with."""
        if self._audit_key is None:
            wrapped = self.execute("SELECT audit_key FROM store").fetchone()[0]
            self._audit_key = self.master.unwrap(AUDIT_KEY, wrapped)
        return self._audit_key

    def pseudonym(self, tenant: str, speaker_id: str) -> str:
        """Return what stands for a speaker where no name may stay: the same one until the tenant is deleted.

        Without the keys it leads back to nobody. Makes the tenant's pseudonym key if there is none.
        """
        known = self.known_pseudonym(tenant, speaker_id)
        if known is None:
            self.lock("pseudonyms")
            known = self.known_pseudonym(tenant, speaker_id)
        if known is not None:
            return known
        self.add_key(tenant, "pseudonym")
        return self.pseudonym(tenant, speaker_id)

    def known_pseudonym(self, tenant: str, speaker_id: str) -> str | None:
        """Return the same, or None in a tenant that has no pseudonyms yet."""
        key = self._pseudonym_keys.get(tenant)
        if key is None:
            row = self._key_row(tenant, "pseudonym")
            if row is None:
                return None
            key = self.master.unwrap(_purpose("pseudonym", tenant), row["wrapped"])
            self._pseudonym_keys[tenant] = key
        return hmac.new(key, speaker_id.encode(), hashlib.sha256).hexdigest()[:32]

    # Keys

    @property
    def master(self) -> MasterKey:
        """The master key that the store is sealed with now. Raises MasterKeyUnusable."""
        if self._master is None:
            self._master = self._master_key(self.connection)
        return self._master

    def add_key(self, tenant: str, purpose: str = "seal") -> int:
        """Make a key; from now on it is the tenant's newest. Returns its number."""
        number: int = self.execute(
            "INSERT INTO tenant_keys (tenant, purpose, wrapped, created_at) VALUES (?, ?, ?, ?)"
            " RETURNING number",
            (
                tenant,
                purpose,
                self.master.wrap(_purpose(purpose, tenant), new_key()),
                clock.stamp(clock.now()),
            ),
        ).fetchone()[0]
        self._current.pop(tenant, None)
        return number

    def rewrap(self, new: MasterKey) -> None:
        """Wrap every key with another master key; the values stay as they are sealed."""
        for row in self.execute("SELECT * FROM tenant_keys").fetchall():
            purpose = _purpose(row["purpose"], row["tenant"])
            key = self.master.unwrap(purpose, row["wrapped"])
            self.execute(
                "UPDATE tenant_keys SET wrapped = ? WHERE number = ?",
                (new.wrap(purpose, key), row["number"]),
            )
        wrapped = self.execute("SELECT audit_key FROM store").fetchone()[0]
        self.execute(
            "UPDATE store SET master_key = ?, audit_key = ?",
            (new.id, new.wrap(AUDIT_KEY, self.master.unwrap(AUDIT_KEY, wrapped))),
        )

    def _key_row(self, tenant: str, purpose: str) -> Row | None:
        row: Row | None = self.execute(
            "SELECT * FROM tenant_keys WHERE tenant = ? AND purpose = ? ORDER BY number DESC LIMIT 1",
            (tenant, purpose),
        ).fetchone()
        return row

    def _cipher(self, number: int, context: str) -> AESGCM:
        if number not in self._ciphers:
            row = None
            if number < 2**63:
                row = self.execute(
                    "SELECT * FROM tenant_keys WHERE number = ? AND purpose = 'seal'", (number,)
                ).fetchone()
            if row is None:
                raise SealBroken(context)
            key = self.master.unwrap(_purpose("seal", row["tenant"]), row["wrapped"])
            self._ciphers[number] = AESGCM(key)
        return self._ciphers[number]


def _purpose(purpose: str, tenant: str) -> str:
    return f"{purpose} of tenant {tenant}"
