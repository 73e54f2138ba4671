"""Connections to a PostgreSQL server: opened, migrated, borrowed, and replaced when the server was away.

A write takes advisory locks before anything else: shared ones of what contains its scope, then its own. So
what SQLite's single writer promises holds for every pair of writers that could meet, whichever process they
are in. The audit log has one lock of its own (`PostgresConnection.lock`), held from the entry to the commit.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from sayso.enroll.db.postgres_schema import MIGRATIONS, VERSION_TABLE
from sayso.enroll.db.postgres_values import PostgresConnection, Row, name_number, rows_by_name, scope_number
from sayso.enroll.db.sql import EVERYBODY
from sayso.enroll.errors import StoreBusy, StoreError, StoreForeign, StoreTooNew, StoreUnavailable

MOST_CONNECTIONS = 16  # of one process to one server
WAIT_S = 3.0  # for a connection, before a request is told that the server is away
_CONNECTING = {
    "connect_timeout": 3,
    "application_name": "sayso",
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds: a server that lost its power is noticed
}
_SESSION = (
    "SET statement_timeout = '10s'; SET lock_timeout = '5s';"
    " SET idle_in_transaction_session_timeout = '30s'; SET client_encoding = 'UTF8';"
    # what was acknowledged is on the disk; a stricter setting of the server stays
    " SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'"
)
_PATIENT = "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0"
_LEAST_PGVECTOR = (0, 8)  # whose HNSW scans go on until enough is found
_STANDBY = "the server is a standby and takes no changes"
_FIX = "Check that the server runs, accepts changes and can be reached; Sayso goes on by itself when it does."

Pool = ConnectionPool[psycopg.Connection[Row]]


class PostgresDatabase:
    """A store's tables on a server, and if there is one, a standby of it that searches may read.

    `address` is what libpq takes: several hosts, of which the one that takes writes is used, too. Opening
    makes or migrates the tables; it raises StoreForeign, StoreTooNew or StoreUnavailable. A statement may
    take ten seconds, or with `patient` as long as it takes.
    """

    def __init__(self, address: str, standby: str | None = None, patient: bool = False) -> None:
        conninfo, self.path = _conninfo(address)
        self._closed = False
        with self._translated(), psycopg.connect(conninfo, autocommit=True, row_factory=rows_by_name) as raw:
            _prepare(raw, self.path)
            only_reads = raw.execute("SELECT pg_is_in_recovery()").fetchone()
        if only_reads is not None and only_reads[0]:
            raise StoreUnavailable(self.path, _STANDBY, _FIX)
        self._pools = [_pool(conninfo, patient)]
        if standby is not None:
            self._pools.append(_pool(_conninfo(standby)[0], patient))

    @property
    def has_standby(self) -> bool:
        """Tell whether there is a standby to read from."""
        return len(self._pools) > 1

    @contextmanager
    def read(self, tenant: str = EVERYBODY, /, *, standby: bool = False) -> Iterator[PostgresConnection]:
        """Give a connection that sees one unchanging snapshot until the block ends."""
        opening = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_showing(tenant)}"
        with self._transaction(self._pools[-1 if standby else 0], opening) as connection:
            yield connection

    @contextmanager
    def write(self, *scope: str) -> Iterator[PostgresConnection]:
        """Give a connection whose changes are committed when the block ends, rolled back when it raises."""
        locks = [
            f"pg_advisory_xact_lock_shared({scope_number(*scope[:depth])})" for depth in range(len(scope))
        ]
        locks.append(f"pg_advisory_xact_lock({scope_number(*scope)})")
        tenant = scope[0] if scope else EVERYBODY
        opening = f"BEGIN; {_showing(tenant)}; " + "; ".join(f"SELECT {lock}" for lock in locks)
        with self._transaction(self._pools[0], opening) as connection:
            yield connection

    @contextmanager
    def single(self) -> Iterator[PostgresConnection]:
        """Give a connection outside a transaction: each statement is one."""
        with self._connection(self._pools[0], "SELECT 1") as connection:
            yield connection

    def ping(self) -> None:
        """Raise StoreError unless the server takes changes now."""
        with self.read() as connection:
            only_reads = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        if only_reads is not None and only_reads[0]:
            raise StoreUnavailable(self.path, _STANDBY, _FIX)

    def purge(self) -> None:
        """Nothing to do: VACUUM frees what was deleted, and the server runs it by itself."""

    def purge_pending(self) -> None:
        """Nothing to do."""

    def check(self) -> list[str]:
        """Nothing to say: the server looks after its own pages (`pg_amcheck`, data checksums)."""
        return []

    def close(self) -> None:
        """Close every connection. May be called twice."""
        self._closed = True
        for pool in self._pools:
            pool.close()

    @contextmanager
    def _transaction(self, pool: Pool, opening: str) -> Iterator[PostgresConnection]:
        with self._connection(pool, opening) as connection:
            try:
                yield connection
                if connection.raw.execute("COMMIT").statusmessage != "COMMIT":
                    raise StoreUnavailable(self.path, "the change was not made", _FIX)
            except BaseException:
                with suppress(psycopg.Error):
                    connection.raw.execute("ROLLBACK")
                raise

    @contextmanager
    def _connection(self, pool: Pool, opening: str) -> Iterator[PostgresConnection]:
        """Borrow a connection on which the opening statements went well."""
        with self._translated():
            raw = self._opened(pool, opening)
            try:
                yield PostgresConnection(raw)
            except errors.ReadOnlySqlTransaction:
                raw.close()  # it leads to a server that is not the primary any more
                raise
            finally:
                pool.putconn(raw)

    def _opened(self, pool: Pool, opening: str) -> psycopg.Connection[Row]:
        # After a restart of the server every idle connection is dead. Nothing has been done on it yet, so
        # another is taken until one answers.
        for _ in range(MOST_CONNECTIONS + 1):
            raw = pool.getconn()
            try:
                raw.execute(opening.encode())
            except psycopg.OperationalError:
                lost = raw.closed
                with suppress(psycopg.Error):
                    raw.execute("ROLLBACK")
                pool.putconn(raw)
                if not lost:
                    raise
            except BaseException:
                raw.close()
                pool.putconn(raw)
                raise
            else:
                return raw
        raise StoreUnavailable(self.path, "the server closes its connections", _FIX)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            refusal = self._as_store_error(error)
            if refusal is None:
                raise
            raise refusal from error

    def _as_store_error(self, error: psycopg.Error) -> StoreError | None:
        match error:
            case errors.LockNotAvailable() | errors.DeadlockDetected() | errors.SerializationFailure():
                return StoreBusy(self.path)
            case errors.QueryCanceled():
                return StoreUnavailable(self.path, "the server takes too long", _FIX)
            case PoolClosed() if self._closed:
                return StoreUnavailable(self.path, "the store is closed", _FIX)
            case PoolTimeout():
                return StoreUnavailable(self.path, "no connection to the server", _FIX)
            case errors.InsufficientPrivilege():
                fix = "Grant the role of SAYSO_STORE what docs/how-to/postgresql.md lists."
                return StoreUnavailable(self.path, _first_line(error), fix)
            case psycopg.OperationalError() | errors.ReadOnlySqlTransaction() | errors.InternalError_():
                return StoreUnavailable(self.path, _first_line(error), _FIX)
            case _:
                return None  # a mistake of ours: let it be seen as one


def _conninfo(address: str) -> tuple[str, str]:
    """Return the connection string, and the address as it may be shown."""
    try:
        given = conninfo_to_dict(address)
    except psycopg.Error as error:
        raise StoreUnavailable(
            "SAYSO_STORE", _first_line(error), "Give postgresql://user@host/name."
        ) from error
    defaults: dict[str, Any] = dict(_CONNECTING)
    if "," in str(given.get("host", "")):
        defaults["target_session_attrs"] = "read-write"  # of several servers the primary
    shown = f"postgresql://{given.get('host', '')}/{given.get('dbname', '')}"
    return make_conninfo(address, **{k: v for k, v in defaults.items() if k not in given}), shown


def _pool(conninfo: str, patient: bool) -> Pool:
    return ConnectionPool(
        conninfo,
        kwargs={"autocommit": True, "row_factory": rows_by_name},
        configure=_as_patient if patient else _configure,
        min_size=1,
        max_size=MOST_CONNECTIONS,
        timeout=WAIT_S,
        reconnect_timeout=WAIT_S,
        open=True,
    )


def _configure(raw: psycopg.Connection[Any]) -> None:
    raw.execute(_SESSION)


def _as_patient(raw: psycopg.Connection[Any]) -> None:
    raw.execute(f"{_SESSION}; {_PATIENT}".encode())


def _showing(tenant: str) -> str:
    """The statement after which row-level security shows this tenant's rows."""
    return f"SET LOCAL app.tenant = {sql.Literal(tenant or '*').as_string()}"


def _prepare(raw: psycopg.Connection[Row], path: str) -> None:
    """Refuse tables that are not ours, and bring ours to this version."""
    if _version(raw, path) < len(MIGRATIONS):
        with raw.transaction():
            raw.execute("SET LOCAL app.tenant = '*'")
            raw.execute("SELECT pg_advisory_xact_lock(%s)", (name_number("migrations"),))
            _migrate(raw, path, _version(raw, path))  # read again: another server may have migrated
    found = raw.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    version = "none" if found is None else str(found[0])
    if found is None or tuple(int(part) for part in version.split(".")[:2]) < _LEAST_PGVECTOR:
        fix = "Install 0.8 or newer on the server, then ALTER EXTENSION vector UPDATE."
        raise StoreUnavailable(path, f"its pgvector is {version}", fix)


def _migrate(raw: psycopg.Connection[Row], path: str, version: int) -> None:
    try:
        raw.execute("CREATE EXTENSION IF NOT EXISTS vector")
    except (errors.FeatureNotSupported, errors.UndefinedFile) as error:
        raise StoreUnavailable(
            path, "the server has no pgvector", "Install pgvector 0.8 or newer."
        ) from error
    if version == 0:
        raw.execute(VERSION_TABLE)
        raw.execute("INSERT INTO sayso_version VALUES (1, 0)")
    for migration in MIGRATIONS[version:]:
        for statement in migration:
            raw.execute(statement.encode())
    raw.execute("UPDATE sayso_version SET version = %s", (len(MIGRATIONS),))


def _version(raw: psycopg.Connection[Row], path: str) -> int:
    """Return the format of the tables, 0 for none; refuse others' and a newer Sayso's."""
    found = raw.execute(
        "SELECT to_regclass('sayso_version') IS NOT NULL AS ours, to_regclass('speakers') IS NOT NULL"
        " OR to_regclass('tenants') IS NOT NULL OR to_regclass('templates') IS NOT NULL AS taken"
    ).fetchone()
    if found is None or not found["ours"]:
        if found is not None and found["taken"]:
            raise StoreForeign(path)
        return 0
    row = raw.execute("SELECT version FROM sayso_version").fetchone()
    version: int = 0 if row is None else row[0]
    if version > len(MIGRATIONS):
        raise StoreTooNew(path, version, len(MIGRATIONS))
    return version


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
