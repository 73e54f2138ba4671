"""Answers already given, kept for a day so that a repeated request gets the same one."""

import sqlite3
from dataclasses import dataclass
from datetime import timedelta

from enroll import clock
from enroll.database import Database
from enroll.errors import IdempotencyKeyReused

KEPT_FOR = timedelta(hours=24)


@dataclass(frozen=True)
class Answer:
    """What the first request with this key was told."""

    status: int
    body: bytes
    created_at: str


class Answers:
    """The answers kept in one database, by (scope, key)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def answer(self, scope: str, key: str, fingerprint: str) -> Answer | None:
        """Return the answer to this same request, or None when there is none younger than a day.

        Raises IdempotencyKeyReused when the key came with another request (another fingerprint).
        """
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT * FROM answers WHERE scope = ? AND key = ? AND created_at > ?",
                (scope, key, _oldest()),
            ).fetchone()
        if row is None:
            return None
        if row["fingerprint"] != fingerprint:
            raise IdempotencyKeyReused
        return Answer(row["status"], row["body"], row["created_at"])

    def remember(self, scope: str, key: str, fingerprint: str, status: int, body: bytes) -> None:
        """Keep an answer; the first one stands. Answers older than a day are dropped on the way."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM answers WHERE created_at <= ?", (_oldest(),))
            connection.execute(
                "INSERT OR IGNORE INTO answers (scope, key, fingerprint, status, body, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (scope, key, fingerprint, status, body, clock.stamp(clock.now())),
            )


def forget_answers(connection: sqlite3.Connection, speaker_id: str) -> None:
    """Drop every answer that names the speaker: ids need no escaping, so JSON holds them as they are."""
    connection.execute("DELETE FROM answers WHERE instr(body, ?)", (f'"{speaker_id}"'.encode(),))


def _oldest() -> str:
    return clock.stamp(clock.now() - KEPT_FOR)
