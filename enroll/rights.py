"""What a person may ask for: to be left out, to be shown what is kept of them, to be forgotten in time."""

import base64
from dataclasses import asdict
from typing import Any

from sayso.enroll import enrollments, erasure, fields, speakers
from sayso.enroll.db.sql import Row
from sayso.enroll.parts import Shared
from sayso.enroll.secrets.transaction import Transaction, recording_context
from sayso.enroll.templates import column, read_embedding, read_template


class Rights:
    """Opting out, expiry and export, in one store."""

    def __init__(self, shared: Shared) -> None:
        self._vault, self._audit = shared.vault, shared.audit
        self._required_speech_s = shared.required_speech_s

    def opt_out(self, tenant: str, speaker_id: str) -> None:
        """Block an id, whether there is such a speaker or not. Raises InvalidField."""
        fields.checked_id("id", speaker_id)
        with self._vault.write(tenant) as transaction:
            self._set_opted_out(transaction, tenant, speaker_id, out=True)

    def opt_in(self, tenant: str, speaker_id: str) -> None:
        """Withdraw an opt-out, with the person's consent. Raises InvalidField."""
        fields.checked_id("id", speaker_id)
        with self._vault.write(tenant) as transaction:
            self._set_opted_out(transaction, tenant, speaker_id, out=False)

    def expire(self) -> int:
        """Erase the speakers whose time is over, bytes included; returns how many. They are hidden before."""
        with self._vault.read() as transaction:
            if not erasure.expired_rows(transaction):
                return 0
        with self._vault.write() as transaction:
            expired = erasure.expired_rows(transaction)
            for row in expired:
                erasure.erase_speaker(transaction, row)
                transaction.audit("speaker.expired", row["tenant"], row["id"])
        self._vault.database.purge()
        return len(expired)

    def everything_about(self, tenant: str, speaker_id: str) -> dict[str, Any]:
        """Return all that is kept on a speaker, as JSON can hold it; that it was given out is logged.

        The speaker, enrolments with vectors (lists of floats) and kept recordings (base64), templates,
        answers kept for retries and audit entries. Raises SpeakerNotFound or SealBroken.
        """
        self._audit.flush()
        with self._vault.write(tenant) as transaction:
            row = speakers.speaker_row(transaction, tenant, speaker_id)
            everything = {
                "speaker": asdict(speakers.as_speaker(row, self._required_speech_s)),
                "enrollments": _enrollments(transaction, row),
                "templates": _templates(transaction, row["number"]),
                "answers_for_retries": _answers(transaction, tenant, speaker_id),
            }
            transaction.audit("speaker.exported", tenant, speaker_id)
        events = self._audit.events(tenant, speaker_id, limit=None)
        return {**everything, "audit": [asdict(event) for event in events]}

    def _set_opted_out(self, transaction: Transaction, tenant: str, speaker_id: str, out: bool) -> None:
        erasure.set_opted_out(transaction, tenant, speaker_id, out)
        if speakers.exists(transaction, tenant, speaker_id):
            row = speakers.speaker_row(transaction, tenant, speaker_id)
            speakers.touch(transaction, tenant, row["number"])
        transaction.audit("speaker.opted_out" if out else "speaker.opted_in", tenant, speaker_id)


def _enrollments(transaction: Transaction, speaker: Row) -> list[dict[str, Any]]:
    rows = transaction.execute(
        "SELECT enrollments.*, recordings.sealed FROM enrollments LEFT JOIN recordings ON enrollment = number"
        " WHERE speaker = ? ORDER BY number",
        (speaker["number"],),
    ).fetchall()
    return [
        {
            **asdict(enrollments.as_enrollment(row, speaker["id"])),
            "embeddings": _embeddings(transaction, row["number"]),
            "recording": _recording(transaction, row["number"], row["sealed"]),
        }
        for row in rows
    ]


def _embeddings(transaction: Transaction, enrollment: int) -> dict[str, list[float]]:
    rows = transaction.execute("SELECT * FROM embeddings WHERE enrollment = ?", (enrollment,))
    return {
        row["model_sha256"]: read_embedding(
            transaction, enrollment, row["model_sha256"], row["sealed"]
        ).tolist()
        for row in rows.fetchall()
    }


def _recording(transaction: Transaction, enrollment: int, sealed: bytes | None) -> str | None:
    if sealed is None:
        return None
    return base64.b64encode(transaction.open(recording_context(enrollment), sealed)).decode()


def _templates(transaction: Transaction, number: int) -> list[dict[str, Any]]:
    rows = transaction.execute("SELECT * FROM templates WHERE speaker = ?", (number,)).fetchall()
    return [
        {
            "model_sha256": row["model_sha256"],
            "enrollments": row["enrollments"],
            "net_speech_s": row["net_speech_s"],
            "vector": read_template(
                transaction, number, row["model_sha256"], row[column(transaction)]
            ).tolist(),
        }
        for row in rows
    ]


def _answers(transaction: Transaction, tenant: str, speaker_id: str) -> list[dict[str, str]]:
    rows = transaction.execute(
        "SELECT created_at, body FROM answers WHERE tenant = ? AND instr(body, ?) > 0",
        (tenant, f':"{speaker_id}"'.encode()),
    )
    return [{"created_at": row["created_at"], "body": row["body"].decode(errors="replace")} for row in rows]
