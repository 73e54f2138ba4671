"""What the modules of this room ask of a database: the few calls that SQLite and PostgreSQL share.

Statements are written once for both, with `?` or `:name` for each value. What only one of them can say
stands in its own module (`sqlite`, `postgres`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

Parameters = Sequence[Any] | Mapping[str, Any]
EVERYBODY = ""  # the scope of what is no single tenant's: the audit log, keys, upkeep


class Row(Protocol):
    """One row: values by column name or position."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def keys(self) -> Any: ...


class Cursor(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """One transaction's connection."""

    # Whether templates are kept sealed: not where the server itself searches them.
    seals_templates: bool

    def execute(self, sql: str, parameters: Parameters = ..., /) -> Cursor: ...
    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Cursor: ...

    def lock(self, name: str, /) -> None:
        """Wait until no other transaction holds this name, and hold it until the end of this one."""

    def counted(self, table: str, /) -> int:
        """The last number that this table's rows were given; its row may be gone."""

    def count_from(self, table: str, number: int, /) -> None:
        """Give numbers after this one from now on, and after those given before."""


class Database(Protocol):
    """A store's tables, wherever they are. Any call may raise StoreError."""

    @property
    def path(self) -> Path | str:
        """The store's address as people know it, without passwords."""

    def read(self, tenant: str = ..., /) -> AbstractContextManager[Connection]:
        """Give a connection that sees one unchanging snapshot, and of one tenant only, if it is named."""

    def write(self, *scope: str) -> AbstractContextManager[Connection]:
        """Give a connection whose changes are kept when the block ends, and undone when it raises.

        `scope` says what may be changed, and so whom to wait for: nothing for all there is, a tenant, or a
        tenant and a speaker. Writers of scopes that do not contain each other may go on beside each other.
        """

    def ping(self) -> None:
        """Raise StoreError unless changes could be made now."""

    def purge(self) -> None:
        """Take deleted content out of what the database keeps beside its tables."""

    def purge_pending(self) -> None:
        """Purge if there is anything to."""

    def check(self) -> list[str]:
        """Return what is damaged, in the database's words; empty when sound."""

    def close(self) -> None:
        """Close every connection. May be called twice."""
