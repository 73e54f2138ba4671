"""Statements and rows as the rest of this room writes and reads them, on psycopg."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import psycopg

from sayso.enroll.db.sql import Parameters

_NAMED = re.compile(r"(?<![:\w]):([a-z_]+)")


class Row:
    """One row, as sqlite3.Row is: values by column name or position."""

    __slots__ = ("_names", "_values")

    def __init__(self, names: dict[str, int], values: Sequence[Any]) -> None:
        self._names, self._values = names, values

    def __getitem__(self, key: str | int, /) -> Any:
        return self._values[self._names[key] if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def keys(self) -> list[str]:
        return list(self._names)


def rows_by_name(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], Row]:
    """psycopg's row factory for `Row`."""
    names = {column.name: place for place, column in enumerate(cursor.description or ())}
    return lambda values: Row(names, values)


class PostgresConnection:
    """A transaction's connection as `sayso.enroll.db.sql` describes it; `raw` is psycopg's."""

    seals_templates = False

    def __init__(self, raw: psycopg.Connection[Row]) -> None:
        self.raw = raw

    def execute(self, sql: str, parameters: Parameters = (), /) -> psycopg.Cursor[Row]:
        return self.raw.execute(translated(sql), parameters)

    def unprepared(self, sql: str, parameters: Parameters = (), /) -> psycopg.Cursor[Row]:
        """The same, for a statement whose plan has to depend on its values."""
        return self.raw.execute(translated(sql), parameters, prepare=False)

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> psycopg.Cursor[Row]:
        cursor = self.raw.cursor()
        cursor.executemany(translated(sql), list(parameters))
        return cursor

    def lock(self, name: str, /) -> None:
        self.raw.execute("SELECT pg_advisory_xact_lock(%s)", (name_number(name),))

    def counted(self, table: str, /) -> int:
        sequence = self._sequence(table)
        row = self.execute(
            f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}"
        ).fetchone()
        return 0 if row is None else int(row[0])

    def count_from(self, table: str, number: int, /) -> None:
        number = max(number, self.counted(table))
        if number:
            self.execute("SELECT setval(CAST(? AS regclass), ?)", (self._sequence(table), number))

    def _sequence(self, table: str) -> str:
        row = self.execute("SELECT pg_get_serial_sequence(?, 'number')", (table,)).fetchone()
        return "" if row is None else str(row[0])


@lru_cache(maxsize=512)
def translated(sql: str) -> bytes:
    """Write a statement with psycopg's marks for its values."""
    return _NAMED.sub(r"%(\1)s", sql.replace("%", "%%").replace("?", "%s")).encode()


def scope_number(*scope: str) -> int:
    """Name the lock of a scope of writing by a number."""
    return _number("scope", *scope)


def name_number(name: str) -> int:
    """Name any other lock by a number."""
    return _number("name", name)


def _number(*parts: str) -> int:
    # 64 bits: two that share a number would only wait for each other needlessly
    digest = blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
