"""The keys of a store: one master key outside it, and in it, wrapped, those of each tenant and of the log.

Nothing unwrapped outlives the transaction it was needed in, apart from the master key: so a key that
one process destroys is gone for all of them.
"""

import hashlib
import hmac
import secrets

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sayso.enroll import clock
from sayso.enroll.db.sql import Connection, Database, Row
from sayso.enroll.errors import SealBroken, StoreIncomplete
from sayso.enroll.secrets.master_key import KeySource
from sayso.enroll.secrets.sealing import MasterKey, key_number, new_key, seal, unseal

_AUDIT = "audit"


def embedding_context(enrollment: int, model_sha256: str) -> str:
    return f"embedding of enrolment {enrollment}, model {model_sha256}"


def template_context(speaker: int, model_sha256: str) -> str:
    return f"template of speaker {speaker}, model {model_sha256}"


def recording_context(enrollment: int) -> str:
    return f"recording of enrolment {enrollment}"


# what a store of version 1 holds in the clear
_UNSEALED = (
    (
        "embeddings",
        "enrollment",
        embedding_context,
        "SELECT enrollment AS owner, model_sha256, sealed, tenant FROM embeddings"
        " JOIN enrollments ON enrollments.number = enrollment JOIN speakers ON speakers.number = speaker",
    ),
    (
        "templates",
        "speaker",
        template_context,
        "SELECT speaker AS owner, model_sha256, sealed, tenant FROM templates"
        " JOIN speakers ON speakers.number = speaker",
    ),
)


class Vault:
    """Gives each transaction its keys. The first one to open a store makes them, and seals what is there.

    Raises MasterKeyUnusable when the source has not the key that the store is sealed with.
    """

    def __init__(self, database: Database, source: KeySource) -> None:
        self.source = source
        self._master: MasterKey | None = None
        with database.read() as connection:
            known = connection.execute("SELECT master_key FROM store").fetchone()
            if known is not None:
                self.keychain(connection)
                source.promote(known["master_key"])
        if known is None:
            with database.write() as connection:
                if connection.execute("SELECT 1 FROM store").fetchone() is None:
                    _refuse_half_copied(connection, database.path)
                    self._found(connection, source.first())
                self.keychain(connection)  # another server may have been faster, with another key
            database.purge()

    def keychain(self, connection: Connection) -> "Keychain":
        """Return the keys as this transaction sees them. Raises MasterKeyUnusable."""
        wanted = connection.execute("SELECT master_key FROM store").fetchone()[0]
        master = self._master
        if master is None or master.id != wanted:  # another process may have rotated it
            self._master = master = self.source.load(wanted)
        return Keychain(connection, master)

    def _found(self, connection: Connection, master: MasterKey) -> None:
        """Give a store its identity and its keys, and seal the vectors of an older version."""
        connection.execute(
            "INSERT INTO store VALUES (1, ?, ?, ?)",
            (secrets.token_hex(16), master.id, master.wrap(_AUDIT, new_key())),
        )
        self._master = master
        keychain = Keychain(connection, master)
        if not connection.seals_templates:
            return  # such a store never was of version 1
        for table, owner, context, select in _UNSEALED:
            for row in connection.execute(select).fetchall():
                sealed = keychain.seal(
                    row["tenant"], context(row["owner"], row["model_sha256"]), row["sealed"]
                )
                connection.execute(
                    f"UPDATE {table} SET sealed = ? WHERE {owner} = ? AND model_sha256 = ?",
                    (sealed, row["owner"], row["model_sha256"]),
                )


class Keychain:
    """The keys in one transaction; each is unwrapped when first needed."""

    def __init__(self, connection: Connection, master: MasterKey) -> None:
        self.connection, self._master = connection, master
        self._ciphers: dict[int, AESGCM] = {}
        self._current: dict[str, int] = {}
        self._pseudonym_keys: dict[str, bytes] = {}
        self._audit_key: bytes | None = None

    def seal(self, tenant: str, context: str, data: bytes) -> bytes:
        """Seal bytes under the tenant's newest key, which is made when there is none (a write, then)."""
        if tenant not in self._current:
            row = self._key_row(tenant, "seal")
            self._current[tenant] = self.add_key(tenant) if row is None else row["number"]
        number = self._current[tenant]
        return seal(self._cipher(number, context), number, context, data)

    def open(self, context: str, sealed: bytes) -> bytes:
        """Open what was sealed for this context. Raises SealBroken."""
        return unseal(self._cipher(key_number(sealed), context), context, sealed)

    def pseudonym(self, tenant: str, speaker_id: str) -> str:
        """Return what stands for a speaker where no name may stay: the same one until the tenant is deleted.

        Without the keys it leads back to nobody. Makes the tenant's pseudonym key when there is none.
        """
        known = self.known_pseudonym(tenant, speaker_id)
        if known is None:
            self.connection.lock("pseudonyms")
            known = self.known_pseudonym(tenant, speaker_id)
        if known is not None:
            return known
        self.add_key(tenant, "pseudonym")
        return self.pseudonym(tenant, speaker_id)

    def known_pseudonym(self, tenant: str, speaker_id: str) -> str | None:
        """Return the same, or None in a tenant for whom none was ever given."""
        key = self._pseudonym_keys.get(tenant)
        if key is None:
            row = self._key_row(tenant, "pseudonym")
            if row is None:
                return None
            key = self._master.unwrap(_purpose("pseudonym", tenant), row["wrapped"])
            self._pseudonym_keys[tenant] = key
        return hmac.new(key, speaker_id.encode(), hashlib.sha256).hexdigest()[:32]

    def audit_key(self) -> bytes:
        """Return the key that the audit log's chain is made with."""
        if self._audit_key is None:
            wrapped = self.connection.execute("SELECT audit_key FROM store").fetchone()[0]
            self._audit_key = self._master.unwrap(_AUDIT, wrapped)
        return self._audit_key

    def add_key(self, tenant: str, purpose: str = "seal") -> int:
        """Make a key; from now on it is the tenant's newest. Returns its number."""
        number: int = self.connection.execute(
            "INSERT INTO tenant_keys (tenant, purpose, wrapped, created_at) VALUES (?, ?, ?, ?)"
            " RETURNING number",
            (
                tenant,
                purpose,
                self._master.wrap(_purpose(purpose, tenant), new_key()),
                clock.stamp(clock.now()),
            ),
        ).fetchone()[0]
        self._current.pop(tenant, None)
        return number

    def rewrap(self, master: MasterKey) -> None:
        """Wrap every key with another master key; the values stay as they are sealed."""
        connection = self.connection
        for row in connection.execute("SELECT * FROM tenant_keys").fetchall():
            purpose = _purpose(row["purpose"], row["tenant"])
            key = self._master.unwrap(purpose, row["wrapped"])
            connection.execute(
                "UPDATE tenant_keys SET wrapped = ? WHERE number = ?",
                (master.wrap(purpose, key), row["number"]),
            )
        wrapped = connection.execute("SELECT audit_key FROM store").fetchone()[0]
        connection.execute(
            "UPDATE store SET master_key = ?, audit_key = ?",
            (master.id, master.wrap(_AUDIT, self._master.unwrap(_AUDIT, wrapped))),
        )

    def _key_row(self, tenant: str, purpose: str) -> Row | None:
        row: Row | None = self.connection.execute(
            "SELECT * FROM tenant_keys WHERE tenant = ? AND purpose = ? ORDER BY number DESC LIMIT 1",
            (tenant, purpose),
        ).fetchone()
        return row

    def _cipher(self, number: int, context: str) -> AESGCM:
        if number not in self._ciphers:
            row = None
            if number < 2**63:
                row = self.connection.execute(
                    "SELECT * FROM tenant_keys WHERE number = ? AND purpose = 'seal'", (number,)
                ).fetchone()
            if row is None:
                raise SealBroken(context)
            key = self._master.unwrap(_purpose("seal", row["tenant"]), row["wrapped"])
            self._ciphers[number] = AESGCM(key)
        return self._ciphers[number]


def _refuse_half_copied(connection: Connection, path: object) -> None:
    """A copy brings the audit log first and the store's identity last."""
    if connection.execute("SELECT 1 FROM audit LIMIT 1").fetchone() is not None:
        raise StoreIncomplete(path)


def _purpose(purpose: str, tenant: str) -> str:
    return f"{purpose} of tenant {tenant}"
