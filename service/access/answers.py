"""Answers already given, kept for a day so that a repeated request gets the same one."""

from dataclasses import dataclass
from datetime import timedelta

from sayso.enroll import clock, speakers
from sayso.enroll.db.sql import Connection, Database
from sayso.enroll.errors import IdempotencyKeyReused

KEPT_FOR = timedelta(hours=24)


@dataclass(frozen=True)
class Answer:
    """What the first request with this key was told."""

    status: int
    body: bytes


class Answers:
    """The answers kept in one database, by (scope, key)."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.write() as connection:  # a quiet service must not keep old answers for want of new
            _drop_expired(connection)

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
        return Answer(row["status"], row["body"])

    def remember(
        self,
        tenant: str,
        scope: str,
        key: str,
        fingerprint: str,
        status: int,
        body: bytes,
        speaker_id: str | None = None,
    ) -> None:
        """Keep an answer; the first one stands. Answers older than a day are dropped on the way.

        An answer about `speaker_id` is not kept when the speaker was deleted in the meantime.
        """
        scope_of_write = (tenant,) if speaker_id is None else (tenant, speaker_id)
        with self._database.write(*scope_of_write) as connection:
            _drop_expired(connection)
            if speaker_id is not None and not speakers.exists(connection, tenant, speaker_id):
                return
            connection.execute(
                "INSERT INTO answers (tenant, scope, key, fingerprint, status, body, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (tenant, scope, key, fingerprint, status, body, clock.stamp(clock.now())),
            )


def _drop_expired(connection: Connection) -> None:
    connection.execute("DELETE FROM answers WHERE created_at <= ?", (_oldest(),))


def _oldest() -> str:
    return clock.stamp(clock.now() - KEPT_FOR)
