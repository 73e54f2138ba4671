"""Enrolments inside a transaction: one recording's row, its vectors and its digest."""

import hashlib
from collections.abc import Mapping

from sayso.enroll import clock, templates
from sayso.enroll.db.sql import Row
from sayso.enroll.fields import is_id
from sayso.enroll.secrets.transaction import Transaction, recording_context
from sayso.enroll.types import Enrollment, NewEnrollment, Vector


def insert_enrollment(
    transaction: Transaction,
    speaker: Row,
    enrollment_id: str,
    new: NewEnrollment,
    vectors: Mapping[str, Vector],
) -> Row:
    """Add one recording's row, its digest and its sealed `vectors` [dim] by model; returns the row."""
    transaction, number, tenant = transaction, speaker["number"], speaker["tenant"]
    row: Row = transaction.execute(
        "INSERT INTO enrollments"
        " (speaker, id, net_speech_s, duration_s, snr_db, clipping, cohesion, created_at, digest)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
        (
            number,
            enrollment_id,
            new.net_speech_s,
            new.duration_s,
            new.snr_db,
            new.clipping,
            templates.cohesion(transaction, number, vectors),
            clock.stamp(clock.now()),
            None if new.digest is None else salted_digest(tenant, speaker["id"], new.digest),
        ),
    ).fetchone()
    templates.store_embeddings(transaction, tenant, row["number"], vectors)
    if new.recording is not None and keeps_recordings(transaction, tenant):
        sealed = transaction.seal(tenant, recording_context(row["number"]), new.recording)
        transaction.execute("INSERT INTO recordings VALUES (?, ?)", (row["number"], sealed))
    return row


def salted_digest(tenant: str, speaker_id: str, digest: bytes) -> bytes:
    """Hash a recording's digest together with its speaker: the same recording of two speakers differs."""
    return hashlib.sha256(f"{tenant}\n{speaker_id}\n".encode() + digest).digest()


def keeps_recordings(transaction: Transaction, tenant: str) -> bool:
    """Tell whether the tenant chose to keep recordings."""
    row = transaction.execute("SELECT keep_recordings FROM tenants WHERE tenant = ?", (tenant,)).fetchone()
    return row is not None and bool(row[0])


def enrollment_row(transaction: Transaction, number: int, enrollment_id: str) -> Row | None:
    """Return one enrolment of the speaker with this number."""
    if not is_id(enrollment_id):
        return None
    row: Row | None = transaction.execute(
        "SELECT * FROM enrollments WHERE speaker = ? AND id = ?", (number, enrollment_id)
    ).fetchone()
    return row


def as_enrollment(row: Row, speaker_id: str) -> Enrollment:
    """Make an Enrollment of its row."""
    return Enrollment(
        id=row["id"],
        speaker_id=speaker_id,
        net_speech_s=row["net_speech_s"],
        duration_s=row["duration_s"],
        snr_db=row["snr_db"],
        clipping=row["clipping"],
        created_at=row["created_at"],
        cohesion=row["cohesion"],
    )
