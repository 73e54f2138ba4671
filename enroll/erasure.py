"""Taking people out of the store, inside a transaction; the store purges the bytes after it.

Each erasure is noted by number, which says nothing about anybody, so that a backup made before it can be
restored without bringing them back.
"""

from sayso.enroll import clock, speakers, templates
from sayso.enroll.db.sql import Row
from sayso.enroll.secrets.transaction import Transaction

_KNOWN_DEPARTURES = 100_000  # revisions that an index may lag behind without being built anew


def erase_speaker(transaction: Transaction, row: Row) -> None:
    """Remove a speaker with everything that names them; one who opted out stays opted out."""
    tenant = row["tenant"]
    if row["opted_out"]:
        keep_opted_out(transaction, tenant, row["id"])
    transaction.execute("DELETE FROM speakers WHERE number = ?", (row["number"],))
    _forget_answers(transaction, tenant, row["id"])
    _note_departure(transaction, tenant, row["number"])
    note_erasure(transaction, "speaker", row["number"])


def erase_enrollment(transaction: Transaction, tenant: str, speaker: int, row: Row) -> None:
    """Remove one recording's contribution and make the templates without it."""
    transaction.execute("DELETE FROM enrollments WHERE number = ?", (row["number"],))
    _forget_answers(transaction, tenant, row["id"])
    note_erasure(transaction, "enrollment", row["number"])
    templates.recompute(transaction, tenant, speaker)
    speakers.touch(transaction, tenant, speaker)


def expired_rows(transaction: Transaction) -> list[Row]:
    """Return the speakers whose time is over."""
    return transaction.execute("SELECT * FROM speakers WHERE expires_at <= ?", (_now(),)).fetchall()


def note_erasure(transaction: Transaction, kind: str, number: int) -> None:
    """Remember that what had this number must not come back."""
    transaction.execute(
        "INSERT INTO erasures VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (kind, number, _now())
    )


def set_opted_out(transaction: Transaction, tenant: str, speaker_id: str, out: bool) -> None:
    """Opt an id out or back in: in the tenant's list of opt-outs, and at the speaker if there is one."""
    if out:
        keep_opted_out(transaction, tenant, speaker_id)
    else:
        _forget_opt_out(transaction, tenant, speaker_id)
    transaction.execute(
        "UPDATE speakers SET opted_out = ? WHERE tenant = ? AND id = ?", (out, tenant, speaker_id)
    )


def keep_opted_out(transaction: Transaction, tenant: str, speaker_id: str) -> None:
    """Remember an opt-out apart from the speaker, who may be gone or never have been there."""
    transaction.execute(
        "INSERT INTO opt_outs VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (tenant, transaction.pseudonym(tenant, speaker_id), _now()),
    )


def _forget_opt_out(transaction: Transaction, tenant: str, speaker_id: str) -> None:
    """Let the id be enrolled again."""
    transaction.execute(
        "DELETE FROM opt_outs WHERE tenant = ? AND speaker = ?",
        (tenant, transaction.known_pseudonym(tenant, speaker_id)),
    )


def has_opted_out(transaction: Transaction, tenant: str, speaker_id: str) -> bool:
    """Tell whether the id is among the tenant's opt-outs, which outlive the speaker."""
    opt_outs = transaction.execute(
        "SELECT 1 FROM opt_outs WHERE tenant = ? AND speaker = ?",
        (tenant, transaction.known_pseudonym(tenant, speaker_id)),
    )
    return opt_outs.fetchone() is not None


def _note_departure(transaction: Transaction, tenant: str, number: int) -> None:
    """Record a deletion for the indexes in memory; only the last `_KNOWN_DEPARTURES` revisions are kept."""
    revision = speakers.next_revision(transaction, tenant)
    if not transaction.seals_templates:
        return  # a server searches its own tables: no copy has to follow
    forgotten = revision - _KNOWN_DEPARTURES
    transaction.execute("INSERT INTO departures VALUES (?, ?, ?)", (tenant, revision, number))
    transaction.execute("DELETE FROM departures WHERE tenant = ? AND revision <= ?", (tenant, forgotten))
    transaction.execute(
        "UPDATE tenants SET departures_from = MAX(departures_from, ?) WHERE tenant = ?", (forgotten, tenant)
    )


def _now() -> str:
    return clock.stamp(clock.now())


def _forget_answers(transaction: Transaction, tenant: str, named: str) -> None:
    """Delete the tenant's answers for retries in which this id is a value: compact JSON shows it as it is."""
    transaction.execute(
        "DELETE FROM answers WHERE tenant = ? AND instr(body, ?) > 0", (tenant, f':"{named}"'.encode())
    )
