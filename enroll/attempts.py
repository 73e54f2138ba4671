"""Guessing at a speaker is bounded, and a recording that was good once is not good again.

The limits are those of NIST SP 800-63B for biometrics: some failures are free, then each further attempt
has to wait, then the speaker is locked until somebody who may enrol unlocks them. What is kept of a
recording is a hash that is salted by the speaker: it goes with the speaker, and tells nothing of the voice.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sayso.enroll import clock, rows
from sayso.enroll.errors import AttemptsDelayed, RecordingReplayed, SpeakerLocked
from sayso.enroll.sql import Connection, Database, Row

Heard = Literal["enroll", "verify", "identify"]
KEPT_PER_SPEAKER = 1000  # the newest


@dataclass(frozen=True)
class AttemptLimits:
    """After `delay_after` failures in a row each attempt waits `delay_s`; after `lock_after` none is made.

    A recording is refused again for `replay_days`, one that was enrolled as long as it is. 0 switches a
    limit off.
    """

    delay_after: int
    delay_s: float
    lock_after: int
    replay_days: float


class Attempts:
    """Failures in a row and recordings used, by speaker.

    `attempt` names one try of a caller: what comes again under the same name is that try, not another.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def admit(self, tenant: str, speaker_id: str, attempt: str, limits: AttemptLimits) -> None:
        """Raise AttemptsDelayed or SpeakerLocked when no attempt on the speaker may be made now."""
        for row in self._failing(tenant, attempt, limits, speaker_id):
            if _is_locked(row, limits):
                raise SpeakerLocked(speaker_id)
            if _wait_s(row, limits) > 0:
                raise AttemptsDelayed(speaker_id, _wait_s(row, limits))

    def barred(self, tenant: str, attempt: str, limits: AttemptLimits) -> frozenset[str]:
        """The tenant's speakers whom no attempt may be made on now: a search passes them over."""
        return frozenset(
            row["id"]
            for row in self._failing(tenant, attempt, limits)
            if _is_locked(row, limits) or _wait_s(row, limits) > 0
        )

    def _failing(
        self, tenant: str, attempt: str, limits: AttemptLimits, speaker_id: str | None = None
    ) -> list[Row]:
        """Speakers, or the one, with enough failures to matter, unless by this very attempt."""
        fewest = min((n for n in (limits.delay_after, limits.lock_after) if n), default=None)
        if fewest is None:
            return []
        with self._database.read(tenant) as connection:
            return connection.execute(
                "SELECT id, attempts.* FROM attempts JOIN speakers ON number = speaker"
                " WHERE tenant = ? AND failures >= ? AND attempt != ? AND id = COALESCE(?, id)",
                (tenant, fewest, attempt, speaker_id),
            ).fetchall()

    def succeeded(
        self, tenant: str, speaker_id: str, call: Heard, recording: bytes, attempt: str, limits: AttemptLimits
    ) -> None:
        """Forget the failures and remember the recording, by its hash.

        Raises RecordingReplayed, and changes nothing, when this call accepted it before or it was enrolled.
        Somebody may be identified and then verified by one recording, so each call counts by itself. A
        speaker who was deleted meanwhile is left alone.
        """
        with self._database.write(tenant, speaker_id) as connection:
            if not rows.exists(connection, tenant, speaker_id):
                return
            number = rows.speaker_row(connection, tenant, speaker_id)["number"]
            if limits.replay_days:
                digest = _salted(tenant, speaker_id, recording)
                replayed = connection.execute(
                    "SELECT 1 FROM heard WHERE speaker = ? AND digest = ? AND attempt != ?"
                    " AND (call = 'enroll' OR (call = ? AND at > ?))",
                    (number, digest, attempt, call, _oldest(limits)),
                ).fetchone()
                if replayed is not None:
                    raise RecordingReplayed(speaker_id)
                _remember(connection, number, call, digest, attempt, limits)
            connection.execute("DELETE FROM attempts WHERE speaker = ?", (number,))

    def failed(self, tenant: str, speaker_id: str, attempt: str) -> None:
        """Count a failure; the same attempt's next failures are the same one."""
        with self._database.write(tenant, speaker_id) as connection:
            connection.execute(
                "INSERT INTO attempts (speaker, failures, attempt, failed_at)"
                " SELECT number, 1, ?, ? FROM speakers WHERE tenant = ? AND id = ?"
                " ON CONFLICT (speaker) DO UPDATE SET failures = attempts.failures"
                " + CASE WHEN attempts.attempt = excluded.attempt THEN 0 ELSE 1 END,"
                " attempt = excluded.attempt, failed_at = excluded.failed_at",
                (attempt, clock.stamp(clock.now()), tenant, speaker_id),
            )

    def enrolled(
        self, tenant: str, speaker_id: str, enrollment_id: str, recording: bytes, limits: AttemptLimits
    ) -> None:
        """Remember an enrolled recording, until the enrolment is deleted."""
        if not limits.replay_days:
            return
        with self._database.write(tenant, speaker_id) as connection:
            row = connection.execute(
                "SELECT speakers.number AS speaker, enrollments.number AS enrollment FROM speakers"
                " JOIN enrollments ON speaker = speakers.number"
                " WHERE tenant = ? AND speakers.id = ? AND enrollments.id = ?",
                (tenant, speaker_id, enrollment_id),
            ).fetchone()
            if row is not None:
                digest = _salted(tenant, speaker_id, recording)
                _remember(
                    connection, row["speaker"], "enroll", digest, enrollment_id, limits, row["enrollment"]
                )

    def enrolled_as(self, tenant: str, speaker_id: str, recording: bytes) -> str | None:
        """Return the id of the speaker's enrolment of this very recording; None if there is none."""
        with self._database.read(tenant) as connection:
            row = connection.execute(
                "SELECT enrollments.id FROM heard JOIN speakers ON speakers.number = heard.speaker"
                " JOIN enrollments ON enrollments.number = heard.enrollment"
                " WHERE tenant = ? AND speakers.id = ? AND digest = ? AND call = 'enroll'",
                (tenant, speaker_id, _salted(tenant, speaker_id, recording)),
            ).fetchone()
        return None if row is None else str(row["id"])

    def unlock(self, tenant: str, speaker_id: str) -> None:
        """Forget the failures. Raises SpeakerNotFound."""
        with self._database.write(tenant, speaker_id) as connection:
            number = rows.speaker_row(connection, tenant, speaker_id)["number"]
            connection.execute("DELETE FROM attempts WHERE speaker = ?", (number,))


def _is_locked(row: Row, limits: AttemptLimits) -> bool:
    return bool(limits.lock_after and row["failures"] >= limits.lock_after)


def _wait_s(row: Row, limits: AttemptLimits) -> float:
    if not limits.delay_after or row["failures"] < limits.delay_after:
        return 0.0
    free_at = datetime.fromisoformat(row["failed_at"]) + timedelta(seconds=limits.delay_s)
    # A clock that was set back must not bar the speaker for longer than the delay.
    return min(limits.delay_s, (free_at - clock.now()).total_seconds())


def _remember(
    connection: Connection,
    speaker: int,
    call: Heard,
    digest: bytes,
    attempt: str,
    limits: AttemptLimits,
    enrollment: int | None = None,
) -> None:
    connection.execute("DELETE FROM heard WHERE at <= ? AND call != 'enroll'", (_oldest(limits),))
    connection.execute(
        "INSERT INTO heard (speaker, digest, call, attempt, enrollment, at)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (speaker, digest, call, attempt, enrollment, clock.stamp(clock.now())),
    )
    connection.execute(
        "DELETE FROM heard WHERE speaker = ? AND call != 'enroll' AND at < (SELECT at FROM heard"
        " WHERE speaker = ? AND call != 'enroll' ORDER BY at DESC LIMIT 1 OFFSET ?)",
        (speaker, speaker, KEPT_PER_SPEAKER - 1),
    )


def _salted(tenant: str, speaker_id: str, recording: bytes) -> bytes:
    return hashlib.sha256(f"{tenant}\n{speaker_id}\n".encode() + recording).digest()


def _oldest(limits: AttemptLimits) -> str:
    return clock.stamp(clock.now() - timedelta(days=limits.replay_days))
