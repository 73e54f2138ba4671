"""API keys. The text is shown once; only its SHA-256 is kept, which suffices for 256 random bits."""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sayso.enroll import clock
from sayso.enroll.db.sql import Row
from sayso.enroll.db.sqlite import Database as SqliteDatabase
from sayso.enroll.errors import InvalidField, KeyNotFound
from sayso.enroll.fields import checked_id
from sayso.enroll.secrets.transaction import Transaction
from sayso.enroll.secrets.vault import Vault

# `scores` shows the scores behind decisions: with them a stranger's voice can be bent towards a template.
SCOPES = ("read", "enroll", "verify", "scores", "embed", "admin")
_KEY = re.compile(r"sayso_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_MIN_INSTALLED = 16


@dataclass(frozen=True)
class ApiKey:
    """Who may do what in which tenant; times are ISO-8601 UTC or None."""

    id: str
    tenant: str
    scopes: frozenset[str]
    label: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None

    def allows(self, scope: str) -> bool:
        """Tell whether the key holds this scope; admin holds every one."""
        return scope in self.scopes or "admin" in self.scopes


class KeyRing:
    """The keys kept in one database; each call may have to wait where it `asks_a_server`."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.asks_a_server = not isinstance(vault.database, SqliteDatabase)

    def create_key(
        self, tenant: str, scopes: Iterable[str], label: str, expires_at: datetime | None = None
    ) -> tuple[ApiKey, str]:
        """Make a key and return it with its text, which cannot be read again. Raises InvalidField."""
        text = _new_text()
        tenant = checked_id("tenant", tenant)
        return self._put(text, tenant, _checked_scopes(scopes), label, _checked_expiry(expires_at)), text

    def install_key(self, text: str, tenant: str, scopes: Iterable[str], label: str) -> ApiKey:
        """Accept a key the operator chose (16 characters or more). Raises InvalidField.

        Installing the same text again changes nothing; one that was revoked stays revoked.
        """
        if len(text) < _MIN_INSTALLED:
            raise InvalidField("key", f"use {_MIN_INSTALLED} characters or more, best random ones")
        return self._put(text, tenant, _checked_scopes(scopes), label, None)

    def authenticate(self, text: str) -> ApiKey | None:
        """Return the key this text belongs to, or None when it is unknown, revoked or expired."""
        digest = _digest(text)
        with self._vault.read() as transaction:
            row = _row(transaction, _id_of(text, digest))
        if row is None or not hmac.compare_digest(row["digest"], digest):
            return None
        key = _key(row)
        return None if key.revoked_at is not None or _expired(key) else key

    def list_keys(self) -> list[ApiKey]:
        """Return every key, revoked and expired ones included, oldest first."""
        with self._vault.read() as transaction:
            rows = transaction.execute("SELECT * FROM api_keys ORDER BY created_at, id").fetchall()
        return [_key(row) for row in rows]

    def revoke_key(self, key_id: str) -> ApiKey:
        """Make a key useless from now on. Raises KeyNotFound; revoking again changes nothing."""
        with self._vault.write() as transaction:
            changed = transaction.execute(
                "UPDATE api_keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL",
                (clock.stamp(clock.now()), key_id),
            )
            row = _row(transaction, key_id)
            if changed.rowcount and row is not None:
                transaction.audit("key.revoked", row["tenant"], key=key_id)
        if row is None:
            raise KeyNotFound(key_id)
        return _key(row)

    def rotate_key(self, key_id: str, overlap: timedelta) -> tuple[ApiKey, str]:
        """Make a key's successor, with its text, and let the old one expire after `overlap`.

        Both work until then. A key that expires passes its lifetime on, counted from now. Raises
        KeyNotFound, and InvalidField for a key that is revoked or expired already.
        """
        now = clock.now()
        text = _new_text()
        with self._vault.write() as transaction:
            row = _row(transaction, key_id)
            if row is None:
                raise KeyNotFound(key_id)
            old = _key(row)
            if old.revoked_at is not None or _expired(old):
                raise InvalidField("key", "it is revoked or expired; create a new one")
            expires = None
            ends = clock.stamp(now + overlap)
            if old.expires_at is not None:
                born = datetime.fromisoformat(old.created_at)
                expires = clock.stamp(now + (datetime.fromisoformat(old.expires_at) - born))
                ends = min(ends, old.expires_at)
            transaction.execute("UPDATE api_keys SET expires_at = ? WHERE id = ?", (ends, key_id))
            transaction.audit("key.superseded", old.tenant, key=key_id, expires_at=ends)
            return _insert(transaction, text, old.tenant, old.scopes, old.label, expires), text

    def has_keys(self) -> bool:
        """Tell whether a key was ever made, so that only a first start makes one by itself."""
        with self._vault.read() as transaction:
            return transaction.execute("SELECT 1 FROM api_keys LIMIT 1").fetchone() is not None

    def _put(
        self, text: str, tenant: str, scopes: frozenset[str], label: str, expires_at: str | None
    ) -> ApiKey:
        with self._vault.write() as transaction:
            return _insert(transaction, text, tenant, scopes, label, expires_at)


def _insert(
    transaction: Transaction,
    text: str,
    tenant: str,
    scopes: frozenset[str],
    label: str,
    expires_at: str | None,
) -> ApiKey:
    digest = _digest(text)
    key_id = _id_of(text, digest)
    made = transaction.execute(
        "INSERT INTO api_keys (id, tenant, scopes, label, digest, created_at, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (key_id, tenant, json.dumps(sorted(scopes)), label, digest, clock.stamp(clock.now()), expires_at),
    )
    row = _row(transaction, key_id)
    if row is None or not hmac.compare_digest(row["digest"], digest):
        raise InvalidField("key", "its id collides with another key's; use another text")
    if made.rowcount:
        transaction.audit("key.created", tenant, key=key_id, scopes=sorted(scopes))
    return _key(row)


def _new_text() -> str:
    return f"sayso_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"


def _expired(key: ApiKey) -> bool:
    return key.expires_at is not None and key.expires_at <= clock.stamp(clock.now())


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()


def _id_of(text: str, digest: bytes) -> str:
    """Name the row a key text lives in, so that finding it compares no secret."""
    ours = _KEY.fullmatch(text)
    return ours[1] if ours else digest.hex()[:8]


def _row(transaction: Transaction, key_id: str) -> Row | None:
    row: Row | None = transaction.execute("SELECT * FROM api_keys WHERE id = ?", (key_id,)).fetchone()
    return row


def _key(row: Row) -> ApiKey:
    return ApiKey(
        id=row["id"],
        tenant=row["tenant"],
        scopes=frozenset(json.loads(row["scopes"])),
        label=row["label"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )


def _checked_scopes(scopes: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(scopes)
    if not chosen or not chosen <= set(SCOPES):
        raise InvalidField("scopes", f"choose one or more of {', '.join(SCOPES)}")
    return chosen


def _checked_expiry(expires_at: datetime | None) -> str | None:
    if expires_at is None:
        return None
    if expires_at.tzinfo is None:
        raise InvalidField("expires_at", "give the time zone too")
    return clock.stamp(expires_at)
