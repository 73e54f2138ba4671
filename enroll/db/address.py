"""Which database an address means."""

from pathlib import Path

from sayso.enroll.db.disk import clear_drafts
from sayso.enroll.db.sql import Database
from sayso.enroll.db.sqlite import Database as SqliteDatabase
from sayso.enroll.errors import InvalidField

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
        from sayso.enroll.db.postgres import PostgresDatabase
    except ImportError as error:
        raise InvalidField(
            "SAYSO_STORE", "install what PostgreSQL needs with pip install '.[postgres]'"
        ) from error
    return PostgresDatabase(str(address), standby, patient)
