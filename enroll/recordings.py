"""Recordings kept, sealed, by tenants who chose that, so that a new model can embed them."""

from dataclasses import dataclass

from sayso.enroll import clock, speakers, templates
from sayso.enroll.parts import Shared
from sayso.enroll.secrets.transaction import recording_context
from sayso.enroll.speakers import LIVING
from sayso.enroll.types import Vector
from sayso.enroll.vectors import checked_vector


@dataclass(frozen=True)
class Outdated:
    """A speaker with enough speech who has no complete template under a model.

    `recordings` tells whether all their recordings are kept, so that they need not speak again.
    """

    tenant: str
    speaker_id: str
    recordings: bool


class Recordings:
    """What a change of model asks for: who must enrol again, and what can be embedded from what is kept."""

    def __init__(self, shared: Shared) -> None:
        self._vault, self._required_speech_s = shared.vault, shared.required_speech_s

    def outdated(self, model_sha256: str) -> list[Outdated]:
        """Return the speakers who cannot be compared under this model though they are enrolled."""
        with self._vault.read() as transaction:
            found = transaction.execute(
                "SELECT tenant, id, (SELECT COUNT(*) = speakers.enrollments FROM enrollments"
                "  JOIN recordings ON enrollment = enrollments.number WHERE enrollments.speaker ="
                "  speakers.number) AS kept"
                " FROM speakers LEFT JOIN templates ON speaker = number AND model_sha256 = ?"
                " WHERE NOT opted_out AND speakers.enrollments > 0 AND speakers.net_speech_s >= ?"
                f" AND (templates.net_speech_s IS NULL OR templates.net_speech_s < ?) AND {LIVING}"
                " ORDER BY tenant, number",
                (model_sha256, self._required_speech_s, self._required_speech_s, clock.stamp(clock.now())),
            ).fetchall()
        return [Outdated(row["tenant"], row["id"], bool(row["kept"])) for row in found]

    def enrolled_with(self, model_sha256: str) -> int:
        """Count the speakers who have a template of this model."""
        with self._vault.read() as transaction:
            row = transaction.execute(
                "SELECT COUNT(*) AS speakers FROM templates WHERE model_sha256 = ?", (model_sha256,)
            ).fetchone()
        return int(row["speakers"])

    def to_embed(self, model_sha256: str) -> list[int]:
        """Return the numbers of the enrolments whose recording is kept and not embedded by this model."""
        with self._vault.read() as transaction:
            found = transaction.execute(
                "SELECT recordings.enrollment FROM recordings"
                " JOIN enrollments ON enrollments.number = recordings.enrollment"
                " JOIN speakers ON speakers.number = speaker"
                " LEFT JOIN embeddings ON embeddings.enrollment = recordings.enrollment AND model_sha256 = ?"
                f" WHERE model_sha256 IS NULL AND NOT opted_out AND {LIVING} ORDER BY 1",
                (model_sha256, clock.stamp(clock.now())),
            ).fetchall()
        return [row[0] for row in found]

    def read(self, number: int) -> bytes | None:
        """Return a kept recording; None when it is gone. Raises SealBroken."""
        with self._vault.read() as transaction:
            row = transaction.execute(
                "SELECT sealed FROM recordings WHERE enrollment = ?", (number,)
            ).fetchone()
            if row is None:
                return None
            return transaction.open(recording_context(number), row["sealed"])

    def embedded(self, number: int, model_sha256: str, vector: Vector) -> bool:
        """Add what a model made of a kept recording; False when it is gone, or was embedded meanwhile."""
        checked = checked_vector(vector)
        with self._vault.write() as transaction:
            row = transaction.execute(
                "SELECT tenant, speaker FROM recordings"
                " JOIN enrollments ON enrollments.number = recordings.enrollment"
                " JOIN speakers ON speakers.number = speaker"
                " WHERE enrollments.number = ? AND NOT EXISTS"
                "  (SELECT 1 FROM embeddings WHERE enrollment = enrollments.number AND model_sha256 = ?)",
                (number, model_sha256),
            ).fetchone()
            if row is None:
                return False
            templates.store_embeddings(transaction, row["tenant"], number, {model_sha256: checked})
            templates.recompute(transaction, row["tenant"], row["speaker"])
            speakers.touch(transaction, row["tenant"], row["speaker"])
            transaction.audit("enrollment.reembedded", row["tenant"], model=model_sha256)
            return True
