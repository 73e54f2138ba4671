"""Taking people out of the store, inside a transaction; the store purges the bytes after it.

Each erasure is noted by number, which says nothing about anybody, so that a backup made before it can be
restored without bringing them back.
"""

from sayso.enroll import clock, speakers, templates
from sayso.enroll.db.sql import Connection, Row
from sayso.enroll.secrets.vault import Keychain

_KNOWN_DEPARTURES = 100_000  # revisions that an index may lag behind without being built anew


def erase_speaker(keychain: Keychain, row: Row) -> None:
    """Remove a speaker with everything that names them; one who opted out stays opted out."""
    connection, tenant = keychain.connection, row["tenant"]
    if row["opted_out"]:
        keep_opted_out(keychain, tenant, row["id"])
    connection.execute("DELETE FROM speakers WHERE number = ?", (row["number"],))
    _forget_answers(connection, tenant, row["id"])
    _note_departure(connection, tenant, row["number"])
    note_erasure(connection, "speaker", row["number"])


def erase_enrollment(keychain: Keychain, tenant: str, speaker: int, row: Row) -> None:
    """Remove one recording's contribution and make the templates without it."""
    connection = keychain.connection
    connection.execute("DELETE FROM enrollments WHERE number = ?", (row["number"],))
    _forget_answers(connection, tenant, row["id"])
    note_erasure(connection, "enrollment", row["number"])
    templates.recompute(keychain, tenant, speaker)
    speakers.touch(connection, tenant, speaker)


def expired_rows(connection: Connection) -> list[Row]:
    """Return the speakers whose time is over."""
    return connection.execute("SELECT * FROM speakers WHERE expires_at <= ?", (_now(),)).fetchall()


def note_erasure(connection: Connection, kind: str, number: int) -> None:
    """Remember that what had this number must not come back."""
    connection.execute("INSERT INTO erasures VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (kind, number, _now()))


def set_opted_out(keychain: Keychain, tenant: str, speaker_id: str, out: bool) -> None:
    """Opt an id out or back in: in the tenant's list of opt-outs, and at the speaker if there is one."""
    if out:
        keep_opted_out(keychain, tenant, speaker_id)
    else:
        _forget_opt_out(keychain, tenant, speaker_id)
    keychain.connection.execute(
        "UPDATE speakers SET opted_out = ? WHERE tenant = ? AND id = ?", (out, tenant, speaker_id)
    )


def keep_opted_out(keychain: Keychain, tenant: str, speaker_id: str) -> None:
    """Remember an opt-out apart from the speaker, who may be gone or never have been there."""
    keychain.connection.execute(
        "INSERT INTO opt_outs VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (tenant, keychain.pseudonym(tenant, speaker_id), _now()),
    )


def _forget_opt_out(keychain: Keychain, tenant: str, speaker_id: str) -> None:
    """Let the id be enrolled again."""
    keychain.connection.execute(
        "DELETE FROM opt_outs WHERE tenant = ? AND speaker = ?",
        (tenant, keychain.known_pseudonym(tenant, speaker_id)),
    )


def has_opted_out(keychain: Keychain, tenant: str, speaker_id: str) -> bool:
    """Tell whether the id stays blocked although no speaker has it."""
    found = keychain.connection.execute(
        "SELECT 1 FROM opt_outs WHERE tenant = ? AND speaker = ?",
        (tenant, keychain.known_pseudonym(tenant, speaker_id)),
    )
    return found.fetchone() is not None


def _note_departure(connection: Connection, tenant: str, number: int) -> None:
    """Tell the indexes, which look for what changed since their revision; what is older is forgotten."""
    revision = speakers.next_revision(connection, tenant)
    if not connection.seals_templates:
        return  # a server searches its own tables: no copy has to follow
    forgotten = revision - _KNOWN_DEPARTURES
    connection.execute("INSERT INTO departures VALUES (?, ?, ?)", (tenant, revision, number))
    connection.execute("DELETE FROM departures WHERE tenant = ? AND revision <= ?", (tenant, forgotten))
    connection.execute(
        "UPDATE tenants SET departures_from = MAX(departures_from, ?) WHERE tenant = ?", (forgotten, tenant)
    )


def _now() -> str:
    return clock.stamp(clock.now())


def _forget_answers(connection: Connection, tenant: str, named: str) -> None:
    """Delete the tenant's answers for retries in which this id is a value: compact JSON shows it as it is."""
    connection.execute(
        "DELETE FROM answers WHERE tenant = ? AND instr(body, ?) > 0", (tenant, f':"{named}"'.encode())
    )
