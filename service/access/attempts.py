"""Guessing at a speaker is bounded, and a recording that was accepted once is not accepted again.

The limits are those of NIST SP 800-63B for biometrics: some failures are free, then each further attempt
has to wait, then the speaker is locked until somebody who may enrol unlocks them. What is kept of a
recording is a hash that is salted by the speaker: it is deleted with the speaker, and says nothing of the
voice.

An attempt is checked twice: before any work, so that a caller who has to wait costs nothing, and again in
the transaction that writes down how it ended. Of many attempts at once, only as many learn their outcome
as would have been admitted one after the other.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sayso.enroll import clock, speakers
from sayso.enroll.db.sql import Connection, Database, Row
from sayso.enroll.enrollments import salted_digest
from sayso.enroll.errors import AttemptsDelayed, RecordingReplayed, SpeakerLocked
from sayso.enroll.fields import is_id
from sayso.enroll.speakers import LIVING

GuessingCall = Literal["verify", "identify"]
KEPT_PER_SPEAKER = 1000  # the newest
_IDS_AT_ONCE = 500  # either database takes a statement with so many values


@dataclass(frozen=True)
class AttemptLimits:
    """After `delay_after` failures in a row each attempt waits `delay_s`; after `lock_after` none is made.

    An accepted recording is refused for `replay_days`, an enrolled one for as long as it is enrolled. 0
    switches a limit off.
    """

    delay_after: int
    delay_s: float
    lock_after: int
    replay_days: float


class Attempts:
    """Failures in a row, and the recordings that were accepted, by speaker.

    `attempt` names one attempt of a caller: a request that comes again under the same name is the same
    attempt. Where `limits` is None, the caller is the operator: nothing is refused and nothing is counted.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def admit(
        self, tenant: str, speaker_ids: Collection[str], attempt: str, limits: AttemptLimits | None
    ) -> None:
        """Raise AttemptsDelayed or SpeakerLocked if one of the speakers must wait or is locked now."""
        if limits is None:
            return
        with self._database.read(tenant) as connection:
            for row in _failures_of(connection, tenant, sorted(set(speaker_ids))):
                _refuse_if_barred(row, attempt, limits)

    def barred(self, tenant: str, attempt: str, limits: AttemptLimits | None) -> frozenset[str]:
        """Return the ids of the tenant's speakers who must wait or are locked: a search leaves them out."""
        if limits is None:
            return frozenset()
        with self._database.read(tenant) as connection:
            rows_ = _locked(connection, tenant, limits) + _waiting(connection, tenant, limits)
        return frozenset(row["id"] for row in rows_ if row["attempt"] != attempt)

    def succeeded(
        self,
        tenant: str,
        speaker_id: str,
        call: GuessingCall,
        recording: bytes,
        attempt: str,
        limits: AttemptLimits | None,
    ) -> None:
        """Forget the failures and remember the recording (the sha256 of its samples), salted.

        Raises AttemptsDelayed or SpeakerLocked if others failed in the meantime. Raises RecordingReplayed,
        and counts a failure, if this call accepted the recording before or if it is enrolled. Verify and
        identify each accept a recording once: whoever was identified by it may be verified by it. Nothing
        is written for a speaker who was deleted in the meantime.
        """
        if limits is None:
            return
        with self._database.write(tenant, speaker_id) as connection:
            row = _speaker_with_failures(connection, tenant, speaker_id)
            if row is None:
                return
            _refuse_if_barred(row, attempt, limits)
            digest = salted_digest(tenant, speaker_id, recording)
            replayed = bool(limits.replay_days) and _is_replay(
                connection, row["number"], digest, call, attempt, limits
            )
            if replayed:
                _count_failure(connection, tenant, row["number"], attempt)
            else:
                if limits.replay_days:
                    _remember(connection, row["number"], call, digest, attempt, limits)
                connection.execute("DELETE FROM attempts WHERE speaker = ?", (row["number"],))
        if replayed:
            raise RecordingReplayed(speaker_id)

    def failed(self, tenant: str, speaker_id: str, attempt: str, limits: AttemptLimits | None) -> None:
        """Count a failure, unless the last one counted was of the same attempt.

        Raises AttemptsDelayed or SpeakerLocked, and counts nothing, if others failed in the meantime.
        """
        if limits is None:
            return
        with self._database.write(tenant, speaker_id) as connection:
            row = _speaker_with_failures(connection, tenant, speaker_id)
            if row is not None:
                _refuse_if_barred(row, attempt, limits)
                _count_failure(connection, tenant, row["number"], attempt)

    def enrolled_as(self, tenant: str, speaker_id: str, recording: bytes) -> str | None:
        """Return the id of the speaker's enrolment of this very recording; None if there is none."""
        with self._database.read(tenant) as connection:
            row = connection.execute(
                "SELECT enrollments.id FROM speakers JOIN enrollments ON speaker = speakers.number"
                " WHERE tenant = ? AND speakers.id = ? AND digest = ?",
                (tenant, speaker_id, salted_digest(tenant, speaker_id, recording)),
            ).fetchone()
        return None if row is None else str(row["id"])

    def unlock(self, tenant: str, speaker_id: str) -> None:
        """Forget the failures. Raises SpeakerNotFound."""
        with self._database.write(tenant, speaker_id) as connection:
            number = speakers.speaker_row(connection, tenant, speaker_id)["number"]
            connection.execute("DELETE FROM attempts WHERE speaker = ?", (number,))


def _failures_of(connection: Connection, tenant: str, speaker_ids: list[str]) -> Iterator[Row]:
    # CROSS JOIN keeps SQLite at this order: the speakers by id first, then the failures of each.
    possible = [speaker_id for speaker_id in speaker_ids if is_id(speaker_id)]
    for start in range(0, len(possible), _IDS_AT_ONCE):
        ids = possible[start : start + _IDS_AT_ONCE]
        yield from connection.execute(
            "SELECT id, attempts.* FROM speakers CROSS JOIN attempts WHERE speakers.tenant = ?"
            f" AND id IN ({', '.join('?' * len(ids))}) AND attempts.speaker = speakers.number ORDER BY id",
            (tenant, *ids),
        ).fetchall()


def _speaker_with_failures(connection: Connection, tenant: str, speaker_id: str) -> Row | None:
    row: Row | None = connection.execute(
        "SELECT number, id, failures, attempt, failed_at FROM speakers"
        f" LEFT JOIN attempts ON attempts.speaker = number WHERE speakers.tenant = ? AND id = ? AND {LIVING}",
        (tenant, speaker_id, clock.stamp(clock.now())),
    ).fetchone()
    return row


def _locked(connection: Connection, tenant: str, limits: AttemptLimits) -> list[Row]:
    if not limits.lock_after:
        return []
    return _barred_where(connection, "failures >= ?", (tenant, limits.lock_after))


def _waiting(connection: Connection, tenant: str, limits: AttemptLimits) -> list[Row]:
    if not limits.delay_after:
        return []
    last = clock.stamp(clock.now() - timedelta(seconds=limits.delay_s))
    return _barred_where(connection, "failed_at > ? AND failures >= ?", (tenant, last, limits.delay_after))


def _barred_where(connection: Connection, condition: str, values: tuple[object, ...]) -> list[Row]:
    return connection.execute(
        f"SELECT id, attempt FROM attempts CROSS JOIN speakers WHERE attempts.tenant = ? AND {condition}"
        " AND speakers.number = attempts.speaker",
        values,
    ).fetchall()


def _refuse_if_barred(row: Row, attempt: str, limits: AttemptLimits) -> None:
    """Raise if the speaker is locked or must wait. A repeat of the last failed attempt is let through."""
    if row["failures"] is None or row["attempt"] == attempt:
        return
    if limits.lock_after and row["failures"] >= limits.lock_after:
        raise SpeakerLocked(row["id"])
    if limits.delay_after and row["failures"] >= limits.delay_after:
        free_at = datetime.fromisoformat(row["failed_at"]) + timedelta(seconds=limits.delay_s)
        # A clock that was set back must not bar the speaker for longer than the delay.
        wait_s = min(limits.delay_s, (free_at - clock.now()).total_seconds())
        if wait_s > 0:
            raise AttemptsDelayed(row["id"], wait_s)


def _count_failure(connection: Connection, tenant: str, speaker: int, attempt: str) -> None:
    connection.execute(
        "INSERT INTO attempts (speaker, tenant, failures, attempt, failed_at) VALUES (?, ?, 1, ?, ?)"
        " ON CONFLICT (speaker) DO UPDATE SET failures = attempts.failures"
        " + CASE WHEN attempts.attempt = excluded.attempt THEN 0 ELSE 1 END,"
        " attempt = excluded.attempt, failed_at = excluded.failed_at",
        (speaker, tenant, attempt, clock.stamp(clock.now())),
    )


def _is_replay(
    connection: Connection,
    speaker: int,
    digest: bytes,
    call: GuessingCall,
    attempt: str,
    limits: AttemptLimits,
) -> bool:
    row = connection.execute(
        "SELECT 1 FROM enrollments WHERE speaker = ? AND digest = ? UNION ALL"
        " SELECT 1 FROM used_recordings WHERE speaker = ? AND digest = ? AND call = ? AND attempt != ?"
        " AND at > ?",
        (speaker, digest, speaker, digest, call, attempt, _oldest(limits)),
    ).fetchone()
    return row is not None


def _remember(
    connection: Connection,
    speaker: int,
    call: GuessingCall,
    digest: bytes,
    attempt: str,
    limits: AttemptLimits,
) -> None:
    connection.execute("DELETE FROM used_recordings WHERE at <= ?", (_oldest(limits),))
    connection.execute(
        "INSERT INTO used_recordings (speaker, digest, call, attempt, at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (speaker, digest, call, attempt, clock.stamp(clock.now())),
    )
    connection.execute(
        "DELETE FROM used_recordings WHERE speaker = ? AND at < (SELECT at FROM used_recordings"
        " WHERE speaker = ? ORDER BY at DESC LIMIT 1 OFFSET ?)",
        (speaker, speaker, KEPT_PER_SPEAKER - 1),
    )


def _oldest(limits: AttemptLimits) -> str:
    return clock.stamp(clock.now() - timedelta(days=limits.replay_days))
