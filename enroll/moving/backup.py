"""Backups, made beside a running service: one database file, sealed as the store is, without the key."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sayso.enroll import clock
from sayso.enroll.db.disk import clear_drafts, draft_of, sync_folder
from sayso.enroll.db.sqlite import Database
from sayso.enroll.errors import BackupRefused, StoreCorrupt
from sayso.enroll.store import Store

_STEP_PAGES = 1024
Advance = Callable[[int, int], None]  # pages copied, pages in all


@dataclass(frozen=True)
class Backup:
    """A backup that was made: where to, when, and the id of the master key it opens with."""

    path: str
    made_at: str
    master_key: str


def make_backup(store: Store, target: Path, advance: Advance = lambda *_: None) -> Backup:
    """Write a checked copy of the store, as it is now, to a file that does not exist yet.

    Raises BackupRefused, OSError or StoreError; then there is no file of that name.
    """
    database = store.database
    if not isinstance(database, Database):
        raise BackupRefused(
            f"{database.path} is backed up with PostgreSQL's own tools: use pg_dump, or base "
            "backups and WAL archiving (docs/how-to/postgresql.md)."
        )
    target = target.absolute()
    if target.exists():
        raise BackupRefused(f"{target} exists already. Choose another name, or move it away.")
    draft = draft_of(target)
    made_at = clock.stamp(clock.now())
    clear_drafts(target.parent)
    draft.unlink(missing_ok=True)
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with database.read() as connection:
            key = connection.execute("SELECT master_key FROM store").fetchone()[0]  # also takes the snapshot
            damage = copy_database(connection, draft, advance)
        if damage:
            raise StoreCorrupt(database.path, damage[0])
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(draft, target)
        sync_folder(target.parent)
    finally:
        draft.unlink(missing_ok=True)
    with store.vault.write() as transaction:
        transaction.execute("INSERT INTO backups VALUES (?, ?)", (made_at, str(target)))
        transaction.audit("store.backed_up", None)
    return Backup(str(target), made_at, key)


def copy_database(connection: sqlite3.Connection, target: Path, advance: Advance) -> list[str]:
    """Copy the connection's database into a file by SQLite's online backup; returns what is damaged in it."""
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        copy.execute("PRAGMA synchronous = FULL")
        connection.backup(
            copy, pages=_STEP_PAGES, progress=lambda _, left, total: advance(total - left, total)
        )
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, with no companions
        return [row[0] for row in copy.execute("PRAGMA quick_check") if row[0] != "ok"]
