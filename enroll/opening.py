"""Which database an address means."""

from pathlib import Path
from typing import Protocol

from sayso.enroll.database import Database as SqliteDatabase
from sayso.enroll.disk import clear_drafts
from sayso.enroll.errors import InvalidField
from sayso.enroll.sql import Database

_POSTGRES = ("postgresql://", "postgres://")


def is_postgres(address: Path | str) -> bool:
    """Tell whether this is a server's address; anything else is the path of a file."""
    return str(address).startswith(_POSTGRES)


def open_database(address: Path | str, standby: str | None = None, patient: bool = False) -> Database:
    """Open a store's database, and make or migrate its tables. Raises StoreError.

    `address` is the path of an SQLite file or `postgresql://…`. Only the latter has a `standby`, and time
    limits that `patient` work on whole tables does without.
    """
    if not is_postgres(address):
        if standby is not None:
            raise InvalidField("SAYSO_STORE_STANDBY", "only a store on PostgreSQL has a standby")
        opened = SqliteDatabase(address)
        clear_drafts(opened.path.parent)
        return opened
    try:
        from sayso.enroll.postgres.database import PostgresDatabase
    except ImportError as error:
        raise InvalidField(
            "SAYSO_STORE", "install what PostgreSQL needs with pip install '.[postgres]'"
        ) from error
    return PostgresDatabase(str(address), standby, patient)


class Buckets(Protocol):
    """Token buckets of requests that several servers draw from."""

    def take(self, key: str, per_s: float, burst: float) -> float:
        """Take one token; returns how many are left, less than 0 when there was none to take."""


def shared_buckets(database: Database) -> Buckets | None:
    """The buckets of a database that several servers use; None where one server counts for itself."""
    if not database.shared:
        return None
    from sayso.enroll.postgres.rates import SharedBuckets

    return SharedBuckets(database)
