"""The store in one SQLite file: opens, migrates, reads and writes it, and purges deleted content."""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sayso.enroll.db.disk import sync_folder
from sayso.enroll.db.sqlite_schema import APPLICATION_ID, MIGRATIONS
from sayso.enroll.errors import (
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreForeign,
    StoreTooNew,
    StoreUnavailable,
)

_BUSY_TIMEOUT_MS = 10_000
_PURGE_TRIES, _PURGE_EVERY_S = (
    25,
    0.01,
)  # a purge tries this often, this far apart, to find no reader
_SETTINGS = (
    "PRAGMA synchronous = FULL",  # an acknowledged commit survives a power cut
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # deleted rows are overwritten with zeros
    "PRAGMA temp_store = MEMORY",  # no vector reaches a temporary file
)


class SqliteConnection(sqlite3.Connection):
    """SQLite's implementation of `sayso.enroll.db.sql.Connection`, which has the docstrings."""

    seals_templates = True

    def lock(self, name: str, /) -> None:
        """Do nothing: SQLite has one writer at a time."""

    def counted(self, table: str, /) -> int:
        row = self.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
        return 0 if row is None else int(row[0])

    def count_from(self, table: str, number: int, /) -> None:
        number = max(number, self.counted(table))
        self.execute("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
        self.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, number))


class Database:
    """One SQLite file in WAL mode: one writer at a time, any number of readers.

    Opening creates the file (mode 0600, in a new folder of mode 0700) or migrates an older one. If the file
    is not a usable store, opening leaves it untouched and raises StoreForeign, StoreTooNew or StoreCorrupt.
    Later SQLite failures are raised as a StoreError too.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._pool: list[SqliteConnection] = []  # idle readers, shared by all threads
        self._pool_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._closed = False
        self._create_private()
        self._writer: SqliteConnection | None = self._open_writer()

    @contextmanager
    def read(self, _tenant: str = "", /) -> Iterator[SqliteConnection]:
        """Give a connection that sees one unchanging snapshot until the block ends."""
        with self._translated():
            connection = self._borrow()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                self._give_back(connection)

    @contextmanager
    def write(self, *_scope: str, backup: Path | None = None) -> Iterator[SqliteConnection]:
        """Give the one writing connection: committed when the block ends, rolled back when it raises.

        If `backup` names another SQLite file, its tables are attached as the schema `backup`.
        """
        with self._write_lock, self._translated():
            self._refuse_when_closed()
            if self._writer is None:  # the last one could not roll back
                self._writer = self._connect()
            writer = self._writer
            try:
                if backup is not None:
                    writer.execute("ATTACH ? AS backup", (str(backup),))
                writer.execute("BEGIN IMMEDIATE")
                yield writer
                writer.execute("COMMIT")
                if backup is not None:
                    writer.execute("DETACH backup")
            except BaseException:
                if not _rolled_back(writer, attached=backup is not None):
                    self._writer = None
                raise

    def ping(self) -> None:
        """Do nothing: only a write shows whether a file can be written to."""

    def purge(self) -> None:
        """Empty the write-ahead log, which still holds deleted content. Takes up to a quarter of a second.

        Best effort: a reader of an older snapshot prevents it. The content then stays in the log until
        `purge_pending` succeeds, or until the store is closed or next opened. Other writers may write between
        the tries.
        """
        for remaining in reversed(range(_PURGE_TRIES)):
            with self._write_lock, self._translated():
                self._refuse_when_closed()
                if self._writer is None or _truncate_wal(self._writer):
                    return
            if remaining:
                time.sleep(_PURGE_EVERY_S)

    def purge_pending(self) -> None:
        """Purge if the write-ahead log is not empty, as after a purge that readers prevented."""
        with suppress(FileNotFoundError):
            if self.path.with_name(f"{self.path.name}-wal").stat().st_size:
                self.purge()

    def check(self) -> list[str]:
        """Check the whole file; returns SQLite's message for each damage, none if it is sound."""
        try:
            with self.read() as connection:
                damage = [row[0] for row in connection.execute("PRAGMA quick_check") if row[0] != "ok"]
                dangling = [row["table"] for row in connection.execute("PRAGMA foreign_key_check")]
        except StoreCorrupt as error:  # too damaged even to be described
            return [str(error)]
        return damage + [f"a row of {table} refers to one that is missing" for table in dangling]

    def close(self) -> None:
        """Close every connection; one that is in use closes when its block ends. May be called twice."""
        with self._pool_lock:
            self._closed = True
            while self._pool:
                self._pool.pop().close()
        with self._write_lock:
            if self._writer is not None:
                self._writer.close()

    def _create_private(self) -> None:
        with self._translated():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                sync_folder(self.path.parent)
                with suppress(PermissionError):  # somebody else's folder, made long before
                    sync_folder(self.path.parent.parent)

    def _open_writer(self) -> SqliteConnection:
        with self._translated():
            connection = self._connect()
            try:
                self._recognise(connection)
                self.path.chmod(0o600)  # a copy put back from a backup may have been opened to others
                self._use_wal(connection)
                self._migrate(connection)
                _truncate_wal(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _connect(self) -> SqliteConnection:
        connection = sqlite3.connect(
            self.path,
            timeout=_BUSY_TIMEOUT_MS / 1000,
            isolation_level=None,
            check_same_thread=False,
            factory=SqliteConnection,
        )
        connection.row_factory = sqlite3.Row
        try:
            for setting in _SETTINGS:
                connection.execute(setting)
        except BaseException:
            connection.close()
            raise
        return connection

    def _recognise(self, connection: sqlite3.Connection) -> None:
        """Refuse a file that is not ours before anything is written to it."""
        identity = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0]
        fresh = identity == version == tables == 0
        if not fresh and identity != APPLICATION_ID:
            raise StoreForeign(self.path)
        self._version(connection)

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise StoreUnavailable(self.path, "its file system has no shared memory; use a local disk")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        if self._version(connection) == len(MIGRATIONS):
            return  # most openings write nothing
        connection.execute("BEGIN IMMEDIATE")
        try:
            # read again under the lock: another process may have migrated meanwhile
            for migration in MIGRATIONS[self._version(connection) :]:
                for statement in migration:
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _version(self, connection: sqlite3.Connection) -> int:
        """Return the file's format; refuse one that a newer Sayso wrote."""
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StoreTooNew(self.path, version, len(MIGRATIONS))
        return version

    def _borrow(self) -> SqliteConnection:
        with self._pool_lock:
            self._refuse_when_closed()
            if self._pool:
                return self._pool.pop()
        connection = self._connect()
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _give_back(self, connection: SqliteConnection) -> None:
        usable = _rolled_back(connection)
        with self._pool_lock:
            if usable and not self._closed:
                self._pool.append(connection)
                return
        connection.close()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreUnavailable(self.path, "the store is closed")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise SQLite's and the system's errors in the block as a StoreError."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            refusal = self._as_store_error(error)
            if refusal is None:
                raise
            raise refusal from error
        except OSError as error:
            raise StoreUnavailable(self.path, error) from error

    def _as_store_error(self, error: sqlite3.DatabaseError) -> StoreError | None:
        # the low byte is the primary code; the rest says where inside SQLite it arose
        match getattr(error, "sqlite_errorcode", -1) & 0xFF:
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return StoreCorrupt(self.path, error)
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return StoreBusy(self.path)
            case (
                sqlite3.SQLITE_FULL
                | sqlite3.SQLITE_IOERR
                | sqlite3.SQLITE_READONLY
                | sqlite3.SQLITE_CANTOPEN
                | sqlite3.SQLITE_PERM
            ):
                return StoreUnavailable(self.path, error)
            case _:
                return None  # a mistake of ours: let it be seen as one


def _rolled_back(connection: SqliteConnection, attached: bool = False) -> bool:
    """Roll back the open transaction and detach a backup. If that fails, closes the connection: False."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if attached and any(row["name"] == "backup" for row in connection.execute("PRAGMA database_list")):
            connection.execute("DETACH backup")
    except sqlite3.Error:
        connection.close()
        return False
    return True


def _truncate_wal(connection: SqliteConnection) -> bool:
    """Empty the write-ahead log unless a reader uses it; returns whether it is empty.

    It does not wait for readers: it runs under the write lock, so every other writer would wait too.
    """
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        return not connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError:
        return False
    finally:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
