"""The transactions of a store with their keys: the master key outside it wraps those of each tenant in it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from sayso.enroll.db.sql import EVERYBODY, Connection, Database
from sayso.enroll.errors import StoreIncomplete
from sayso.enroll.secrets.master_key import KeySource
from sayso.enroll.secrets.sealing import MasterKey, new_key
from sayso.enroll.secrets.transaction import AUDIT_KEY, Transaction, embedding_context, template_context

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
    """Gives the transactions of one database. The first vault of a store makes its keys.

    Raises MasterKeyUnusable if the source lacks the key that the store is sealed with.
    """

    def __init__(self, database: Database, source: KeySource) -> None:
        self.database, self.source = database, source
        self._master: MasterKey | None = None
        with database.read() as connection:
            known = connection.execute("SELECT master_key FROM store").fetchone()
            if known is not None:
                self._master_key(connection)
                source.promote(known["master_key"])
        if known is None:
            with database.write() as connection:
                if connection.execute("SELECT 1 FROM store").fetchone() is None:
                    _refuse_half_copied(connection, database.path)
                    self._found(connection, source.first())
                self._master_key(connection)  # another server may have been faster, with another key
            database.purge()

    @contextmanager
    def read(self, tenant: str = EVERYBODY, /) -> Iterator[Transaction]:
        """Give a transaction that sees one unchanging snapshot, of one tenant only if it is named."""
        with self.database.read(tenant) as connection:
            yield self.transaction(connection)

    @contextmanager
    def write(self, *scope: str) -> Iterator[Transaction]:
        """Give a transaction that is committed when the block ends, and rolled back if it raises.

        `scope` is what `Database.write` takes: nothing, a tenant, or a tenant and a speaker.
        """
        with self.database.write(*scope) as connection:
            yield self.transaction(connection)

    def transaction(self, connection: Connection) -> Transaction:
        """Give a connection, which is inside a transaction, the store's keys."""
        return Transaction(connection, self._master_key)

    def _master_key(self, connection: Connection) -> MasterKey:
        key_id = connection.execute("SELECT master_key FROM store").fetchone()[0]
        master = self._master
        if master is None or master.id != key_id:  # another process may have rotated it
            self._master = master = self.source.load(key_id)
        return master

    def _found(self, connection: Connection, master: MasterKey) -> None:
        """Give a store its identity and its keys, and seal the vectors of an older version."""
        connection.execute(
            "INSERT INTO store VALUES (1, ?, ?, ?)",
            (secrets.token_hex(16), master.id, master.wrap(AUDIT_KEY, new_key())),
        )
        self._master = master
        transaction = self.transaction(connection)
        if not connection.seals_templates:
            return  # such a store never was of version 1
        for table, owner, context, select in _UNSEALED:
            for row in connection.execute(select).fetchall():
                sealed = transaction.seal(
                    row["tenant"], context(row["owner"], row["model_sha256"]), row["sealed"]
                )
                connection.execute(
                    f"UPDATE {table} SET sealed = ? WHERE {owner} = ? AND model_sha256 = ?",
                    (sealed, row["owner"], row["model_sha256"]),
                )


def _refuse_half_copied(connection: Connection, path: object) -> None:
    """A copy brings the audit log first and the store's identity last."""
    if connection.execute("SELECT 1 FROM audit LIMIT 1").fetchone() is not None:
        raise StoreIncomplete(path)
