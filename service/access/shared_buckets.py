"""Buckets of requests by API key that every server of one store draws from."""

from typing import TYPE_CHECKING, Protocol

from sayso.enroll.db.sql import Database
from sayso.enroll.db.sqlite import Database as SqliteDatabase

if TYPE_CHECKING:
    from sayso.enroll.db.postgres import PostgresDatabase

# The server's clock counts, so that those of its callers need not agree. One statement: one round trip.
_TAKE = """
    INSERT INTO rate_buckets AS b (key, tokens, granted, at)
    VALUES (:key, CAST(:burst AS double precision) - 1, true, clock_timestamp())
    ON CONFLICT (key) DO UPDATE SET (tokens, granted, at) = (
        SELECT CASE WHEN there >= 1 THEN there - 1 ELSE there END, there >= 1, clock_timestamp()
        FROM (SELECT LEAST(CAST(:burst AS double precision), b.tokens
              + GREATEST(0, EXTRACT(EPOCH FROM clock_timestamp() - b.at))
                * CAST(:per_s AS double precision)) AS there) AS now)
    RETURNING tokens, granted"""


class Buckets(Protocol):
    """Token buckets of requests that several servers draw from."""

    def take(self, key: str, per_s: float, burst: float) -> float:
        """Take one token; returns how many are left, less than 0 if there was none to take."""


def shared_buckets(database: Database) -> Buckets | None:
    """Return the buckets of a database that several servers use; None where one server counts for itself."""
    if isinstance(database, SqliteDatabase):
        return None
    from sayso.enroll.db.postgres import PostgresDatabase

    if not isinstance(database, PostgresDatabase):
        raise TypeError("shared buckets are made for PostgreSQL")
    return _SharedBuckets(database)


class _SharedBuckets:
    """Token buckets on the server. They are full again after it crashes, and outlive everything else."""

    def __init__(self, database: "PostgresDatabase") -> None:
        self._database = database

    def take(self, key: str, per_s: float, burst: float) -> float:
        """Take one token; returns how many are left, less than 0 if there was none to take."""
        with self._database.single() as connection:
            row = connection.execute(_TAKE, {"key": key, "burst": burst, "per_s": per_s}).fetchone()
        assert row is not None  # noqa: S101
        return float(row["tokens"] if row["granted"] else row["tokens"] - 1.0)
