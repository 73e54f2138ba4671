"""Speakers inside a transaction: their rows, the `Speaker` made of a row, and places in a listing."""

import base64
import json
from collections.abc import Iterable

from sayso.enroll import clock
from sayso.enroll.db.sql import Connection, Row
from sayso.enroll.errors import InvalidField, SpeakerNotFound
from sayso.enroll.fields import is_id
from sayso.enroll.types import Consent, Speaker, Status

LIVING = "(expires_at IS NULL OR expires_at > ?)"  # takes the present moment


def speaker_row(connection: Connection, tenant: str, speaker_id: str) -> Row:
    """Return a speaker's row with `group_names`. Raises SpeakerNotFound, also for one who has expired."""
    if not is_id(speaker_id):  # a database need not be able to hold such a text
        raise SpeakerNotFound(speaker_id)
    row: Row | None = connection.execute(
        f"SELECT * FROM grouped_speakers WHERE tenant = ? AND id = ? AND {LIVING}",
        (tenant, speaker_id, clock.stamp(clock.now())),
    ).fetchone()
    if row is None:
        raise SpeakerNotFound(speaker_id)
    return row


def speaker_rows(connection: Connection, tenant: str, group: str | None, after: int, limit: int) -> list[Row]:
    """Return up to `limit` rows of a tenant (of one group, if named) in creation order, after a number."""
    now = clock.stamp(clock.now())
    if group is not None and not is_id(group):
        return []
    if group is None:
        return connection.execute(
            f"SELECT * FROM grouped_speakers WHERE tenant = ? AND number > ? AND {LIVING}"
            " ORDER BY number LIMIT ?",
            (tenant, after, now, limit),
        ).fetchall()
    return connection.execute(
        "SELECT grouped_speakers.* FROM speaker_groups JOIN grouped_speakers ON number = speaker"
        f" WHERE speaker_groups.name = ? AND tenant = ? AND speaker > ? AND {LIVING}"
        " ORDER BY speaker LIMIT ?",
        (group, tenant, after, now, limit),
    ).fetchall()


def exists(connection: Connection, tenant: str, speaker_id: str) -> bool:
    """Tell whether the tenant has this speaker."""
    if not is_id(speaker_id):
        return False
    found = connection.execute(
        f"SELECT 1 FROM speakers WHERE tenant = ? AND id = ? AND {LIVING}",
        (tenant, speaker_id, clock.stamp(clock.now())),
    )
    return found.fetchone() is not None


def as_speaker(row: Row, required_speech_s: float) -> Speaker:
    """Make a Speaker of a row that has `group_names`; the status follows from the speech enrolled."""
    remaining = max(0.0, required_speech_s - row["net_speech_s"])
    status: Status = "enrolling" if remaining or not row["enrollments"] else "enrolled"
    return Speaker(
        id=row["id"],
        name=row["name"],
        groups=tuple(json.loads(row["group_names"])),
        metadata=json.loads(row["metadata"]),
        status="opted_out" if row["opted_out"] else status,
        enrollments=row["enrollments"],
        net_speech_s=row["net_speech_s"],
        remaining_speech_s=remaining,
        consent=Consent(**json.loads(row["consent"])) if row["consent"] else None,
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def set_groups(connection: Connection, number: int, names: Iterable[str]) -> None:
    """Put a speaker into exactly these groups."""
    connection.execute("DELETE FROM speaker_groups WHERE speaker = ?", (number,))
    connection.executemany("INSERT INTO speaker_groups VALUES (?, ?)", [(number, name) for name in names])


def next_revision(connection: Connection, tenant: str) -> int:
    """Count a change of the tenant's speakers; every copy made before is stale from the commit on."""
    revision: int = connection.execute(
        "INSERT INTO tenants (tenant, revision) VALUES (?, 1)"
        " ON CONFLICT (tenant) DO UPDATE SET revision = tenants.revision + 1 RETURNING revision",
        (tenant,),
    ).fetchone()[0]
    return revision


def touch(connection: Connection, tenant: str, number: int) -> None:
    """Mark a speaker as changed now."""
    connection.execute(
        "UPDATE speakers SET revision = ?, updated_at = ? WHERE number = ?",
        (next_revision(connection, tenant), clock.stamp(clock.now()), number),
    )


def write_cursor(number: int) -> str:
    """Name a place in the listing; opaque to callers."""
    return base64.urlsafe_b64encode(str(number).encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> int:
    """Return the place a cursor names. Raises InvalidField unless `write_cursor` could have made it."""
    try:
        number = int(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        number = -1
    if not 0 < number < 2**63 or write_cursor(number) != cursor:
        raise InvalidField("cursor", "use the next_cursor of the page before, unchanged")
    return number
