"""Putting a backup's state into a store, beside a running service.

The whole restore is one transaction: everybody who reads the store sees the state before it or the state
after. What was erased, opted out or revoked since the backup was made stays so, and the audit log goes on.
"""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sayso.enroll import templates
from sayso.enroll.db.disk import draft_of
from sayso.enroll.db.sqlite import Database, SqliteConnection
from sayso.enroll.errors import BackupRefused
from sayso.enroll.moving.backup import Advance, copy_database
from sayso.enroll.secrets.master_key import KeySource
from sayso.enroll.secrets.sealing import MasterKey
from sayso.enroll.secrets.transaction import Transaction

_COUNTED = ("speakers", "enrollments", "tenant_keys")  # whose numbers are never given twice
_COPIED = ("models", "speakers", "speaker_groups", "enrollments", "embeddings", "templates", "recordings")


@dataclass(frozen=True)
class Restored:
    """How many speakers a restore brought back, and how many of the backup's stay erased."""

    speakers: int
    erased_since: int


def restore_backup(path: Path, source: Path, keys: KeySource, advance: Advance = lambda *_: None) -> Restored:
    """Put the state of a backup into the store at `path`, which is made if there is none.

    Raises BackupRefused, MasterKeyUnusable or another StoreError; then nothing is changed.
    """
    if not source.is_file():
        raise BackupRefused(f"{source} is no file.")
    draft = draft_of(path)
    with closing(Database(path)) as database:  # first: it makes the private folder that the draft lies in
        try:
            backup_key = _prepare(source, draft, keys, advance)
            with database.write(backup=draft) as connection:
                restored = _take_over(connection, source, keys, backup_key)
            database.purge()
        finally:
            for suffix in ("", "-wal", "-shm"):
                draft.with_name(draft.name + suffix).unlink(missing_ok=True)
    return restored


def _prepare(source: Path, draft: Path, keys: KeySource, advance: Advance) -> MasterKey:
    """Copy a backup beside the store, bring it to this version, and find the key it opens with."""
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        with closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as original:
            damage = copy_database(original, draft, advance)
    except sqlite3.DatabaseError as error:
        raise BackupRefused(f"{source} cannot be read as a backup ({error}). Use another one.") from error
    if damage:
        raise BackupRefused(f"{source} is damaged ({damage[0]}). Use another backup.")
    with closing(Database(draft)) as copy, copy.read() as connection:
        row = connection.execute("SELECT master_key FROM store").fetchone()
        if row is None:
            raise BackupRefused(
                f"{source} was made before anything was sealed. Put a copy of it in place of the "
                "store while Sayso is stopped, and start."
            )
        key = keys.load(row["master_key"])
        Transaction(connection, lambda _: key).audit_key()  # it opens what it should
    return key


def _take_over(
    connection: SqliteConnection, source: Path, keys: KeySource, backup_key: MasterKey
) -> Restored:
    present = connection.execute("SELECT * FROM store").fetchone()
    present_key = backup_key if present is None else keys.load(present["master_key"])
    if present is None:
        for table in ("opt_outs", "backups"):
            connection.execute(f"INSERT INTO {table} SELECT * FROM backup.{table}")
    elif present["id"] != connection.execute("SELECT id FROM backup.store").fetchone()[0]:
        raise BackupRefused(
            f"{source} is a backup of another store. To use it, restore it into an empty SAYSO_DATA_DIR."
        )
    _join_audit_logs(connection, source)
    _note_what_stands(connection, fresh=present is None)
    _replace(connection)
    connection.execute("DELETE FROM store")
    connection.execute("INSERT INTO store SELECT * FROM backup.store")
    transaction = Transaction(connection, lambda _: backup_key)
    if present_key != backup_key:
        transaction.rewrap(present_key)
        transaction = Transaction(connection, lambda _: present_key)
    connection.execute("INSERT OR IGNORE INTO tenant_keys SELECT * FROM later_keys")
    erased = _erase_again(transaction)
    connection.execute("UPDATE speakers SET opted_out = 1 WHERE number IN (SELECT number FROM out_since)")
    connection.execute(
        "INSERT OR REPLACE INTO attempts SELECT * FROM attempts_now"
        " WHERE speaker IN (SELECT number FROM speakers)"
    )
    for known in ("backup.used_recordings", "used_now"):
        connection.execute(
            f"INSERT OR REPLACE INTO used_recordings SELECT * FROM {known}"
            " WHERE speaker IN (SELECT number FROM speakers)"
        )
    for table in ("out_since", "later_keys", "attempts_now", "used_now"):
        connection.execute(f"DROP TABLE temp.{table}")
    speakers: int = connection.execute("SELECT COUNT(*) FROM speakers").fetchone()[0]
    transaction.audit("store.restored", None, speakers=speakers)
    return Restored(speakers, erased)


def _join_audit_logs(connection: sqlite3.Connection, source: Path) -> None:
    """Keep the longer of the two logs, of which the other has to be the beginning."""
    fork = connection.execute(
        "SELECT 1 FROM audit JOIN backup.audit AS theirs USING (number) WHERE audit.mac != theirs.mac LIMIT 1"
    )
    if fork.fetchone() is not None:
        raise BackupRefused(
            f"{source} and the store went separate ways: each has audit entries that the other lacks. "
            "Restore it into an empty SAYSO_DATA_DIR."
        )
    connection.execute(
        "INSERT INTO audit SELECT * FROM backup.audit"
        " WHERE number > (SELECT COALESCE(MAX(number), 0) FROM main.audit) ORDER BY number"
    )


def _note_what_stands(connection: sqlite3.Connection, fresh: bool) -> None:
    """Set aside what must not be undone by going back."""
    connection.execute("CREATE TEMP TABLE out_since AS SELECT number FROM speakers WHERE opted_out")
    # A restore unlocks nobody and lets no recording be used again. An empty store has only what the backup
    # knows of failures; any other goes on from its own, so that who was unlocked since stays so.
    known = "backup" if fresh else "main"
    connection.execute(f"CREATE TEMP TABLE attempts_now AS SELECT * FROM {known}.attempts")
    connection.execute("CREATE TEMP TABLE used_now AS SELECT * FROM main.used_recordings")
    connection.execute(  # the audit log and the opt-outs name people by them
        "CREATE TEMP TABLE later_keys AS SELECT * FROM main.tenant_keys WHERE purpose = 'pseudonym'"
        " AND number NOT IN (SELECT number FROM backup.tenant_keys)"
    )
    connection.execute("INSERT OR IGNORE INTO erasures SELECT * FROM backup.erasures")
    connection.execute("INSERT OR IGNORE INTO api_keys SELECT * FROM backup.api_keys")
    for table in _COUNTED:
        connection.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT :name, 0"
            " WHERE NOT EXISTS (SELECT 1 FROM main.sqlite_sequence WHERE name = :name)",
            {"name": table},
        )
        connection.execute(
            "UPDATE sqlite_sequence SET seq = MAX(seq, COALESCE((SELECT seq FROM backup.sqlite_sequence"
            " WHERE name = :name), 0)) WHERE name = :name",
            {"name": table},
        )


def _replace(connection: sqlite3.Connection) -> None:
    """Exchange the tables, and give every tenant a revision that no index has seen yet."""
    connection.execute("DELETE FROM answers")
    connection.execute("DELETE FROM tenant_keys")
    connection.execute("INSERT INTO tenant_keys SELECT * FROM backup.tenant_keys")
    for table in reversed(_COPIED):
        connection.execute(f"DELETE FROM {table}")
    for table in _COPIED:
        connection.execute(f"INSERT INTO {table} SELECT * FROM backup.{table}")
    connection.execute(
        "INSERT INTO tenants (tenant, revision, keep_recordings)"
        " SELECT tenant, revision, keep_recordings FROM backup.tenants WHERE true"
        " ON CONFLICT DO UPDATE SET revision = MAX(tenants.revision, excluded.revision)"
    )
    connection.execute("UPDATE tenants SET revision = revision + 1")
    connection.execute("UPDATE tenants SET departures_from = revision")
    connection.execute("DELETE FROM departures")
    connection.execute(
        "UPDATE speakers SET revision = (SELECT revision FROM tenants WHERE tenants.tenant = speakers.tenant)"
    )


def _erase_again(transaction: Transaction) -> int:
    """Take out what was erased since the backup; returns how many speakers that were."""
    erased = "(SELECT number FROM erasures WHERE kind = ?)"
    halved = transaction.execute(
        f"SELECT DISTINCT speaker, tenant FROM enrollments JOIN speakers ON speakers.number = speaker"
        f" WHERE enrollments.number IN {erased}",
        ("enrollment",),
    ).fetchall()
    speakers = transaction.execute(f"DELETE FROM speakers WHERE number IN {erased}", ("speaker",)).rowcount
    transaction.execute(f"DELETE FROM enrollments WHERE number IN {erased}", ("enrollment",))
    transaction.execute(f"DELETE FROM recordings WHERE enrollment IN {erased}", ("recording",))
    for row in halved:
        if transaction.execute("SELECT 1 FROM speakers WHERE number = ?", (row["speaker"],)).fetchone():
            templates.recompute(transaction, row["tenant"], row["speaker"])
    ended = "SELECT tenant, MAX(at) FROM tenant_keys JOIN erasures USING (number) WHERE kind = 'tenant key'"
    for tenant, at in transaction.execute(f"{ended} GROUP BY tenant").fetchall():
        transaction.execute("DELETE FROM api_keys WHERE tenant = ? AND created_at <= ?", (tenant, at))
    transaction.execute(f"DELETE FROM tenant_keys WHERE number IN {erased}", ("tenant key",))
    return speakers
