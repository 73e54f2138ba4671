"""Embeddings and templates inside a transaction. A template is the mean direction of embeddings."""

import math
from collections.abc import Iterable, Mapping, Sequence

from sayso.domain.evidence import Band
from sayso.enroll import clock
from sayso.enroll.db.sql import Connection, Row
from sayso.enroll.errors import InvalidEmbedding
from sayso.enroll.secrets.transaction import Transaction, embedding_context, template_context
from sayso.enroll.speakers import LIVING
from sayso.enroll.types import Template, Vector
from sayso.enroll.vectors import from_blob, from_text, mean_direction, score, to_blob, to_text

# SQL: true if more than half of the speech behind a template is narrow-band.
NARROW = """(SELECT COALESCE(SUM(CASE WHEN band = 'narrow' THEN net_speech_s ELSE -net_speech_s END), 0) > 0
    FROM enrollments WHERE enrollments.speaker = templates.speaker)"""
HALF_ROUNDING = 1e-3  # an upper bound on how far half precision moves one value of a unit vector


def store_embeddings(
    transaction: Transaction, tenant: str, enrollment: int, embeddings: Mapping[str, Vector]
) -> None:
    """Seal and write an enrolment's vectors `[dim]`, by model. Raises InvalidEmbedding if `dim` is wrong."""
    for model_sha256, vector in embeddings.items():
        transaction.execute(
            "INSERT INTO models VALUES (?, ?) ON CONFLICT DO NOTHING", (model_sha256, vector.size)
        )
        dim = transaction.execute("SELECT dim FROM models WHERE sha256 = ?", (model_sha256,)).fetchone()[0]
        if dim != vector.size:
            raise InvalidEmbedding(
                f"Model {model_sha256[:12]} gives {dim} dimensions; this embedding has {vector.size}."
            )
        sealed = transaction.seal(tenant, embedding_context(enrollment, model_sha256), to_blob(vector))
        transaction.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (enrollment, model_sha256, sealed))


def cohesion(transaction: Transaction, speaker: int, embeddings: Mapping[str, Vector]) -> float | None:
    """Return the cosine of a new recording with the mean of the speaker's earlier ones.

    Only the first model in `embeddings` is compared. None if nothing is enrolled under that model yet. Raises
    InvalidEmbedding if the dimensions differ.
    """
    model_sha256, vector = next(iter(embeddings.items()))
    earlier = mean_template(transaction, speaker, model_sha256)
    return None if earlier is None else score(vector, earlier)


def recompute(transaction: Transaction, tenant: str, speaker: int) -> None:
    """Recompute the speaker's totals and templates from their present enrolments.

    All enrolments are read each time; an old mean is never added to. So a deleted recording leaves no trace,
    and the order of the operations does not matter.
    """
    rows = transaction.execute(
        "SELECT net_speech_s FROM enrollments WHERE speaker = ?", (speaker,)
    ).fetchall()
    transaction.execute(
        "UPDATE speakers SET enrollments = ?, net_speech_s = ? WHERE number = ?",
        (len(rows), math.fsum(row["net_speech_s"] for row in rows), speaker),
    )
    transaction.execute("DELETE FROM templates WHERE speaker = ?", (speaker,))
    models = transaction.execute(
        "SELECT DISTINCT model_sha256 FROM enrollments JOIN embeddings ON enrollment = number"
        " WHERE speaker = ?",
        (speaker,),
    ).fetchall()
    for model in models:
        _recompute_model(transaction, tenant, speaker, model["model_sha256"])


def _recompute_model(transaction: Transaction, tenant: str, speaker: int, model_sha256: str) -> None:
    vector = mean_template(transaction, speaker, model_sha256)
    if vector is None:  # recordings that cancel out make no template
        return
    rows = transaction.execute(
        "SELECT net_speech_s FROM enrollments JOIN embeddings ON enrollment = number"
        " WHERE speaker = ? AND model_sha256 = ?",
        (speaker, model_sha256),
    )
    speech = [row["net_speech_s"] for row in rows]
    facts = (len(speech), math.fsum(speech))
    insert_templates(transaction, [(tenant, speaker, model_sha256, vector, *facts)])


def insert_templates(
    transaction: Transaction, new: Iterable[tuple[str, int, str, Vector, int, float]]
) -> None:
    """Write templates, each a tuple (tenant, speaker, model, vector, enrolments, net seconds of speech)."""
    if transaction.seals_templates:
        transaction.executemany(
            "INSERT INTO templates VALUES (?, ?, ?, ?, ?)",
            [
                (
                    speaker,
                    model,
                    transaction.seal(tenant, template_context(speaker, model), to_blob(vector)),
                    *facts,
                )
                for tenant, speaker, model, vector, *facts in new
            ],
        )
        return
    transaction.executemany(
        "INSERT INTO templates (of_tenant, speaker, model_sha256, vector, enrollments, net_speech_s)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [(tenant, speaker, model, to_text(vector), *facts) for tenant, speaker, model, vector, *facts in new],
    )


def column(connection: Connection) -> str:
    """Name the column that holds a template's vector: `sealed` on SQLite, plain `vector` on PostgreSQL."""
    return "sealed" if connection.seals_templates else "vector"


def read_template(transaction: Transaction, speaker: int, model_sha256: str, stored: bytes | str) -> Vector:
    """Decode a stored vector: sealed bytes from SQLite, or text from PostgreSQL. Raises SealBroken."""
    if isinstance(stored, str):
        return from_text(stored)
    return from_blob(transaction.open(template_context(speaker, model_sha256), stored))


def read_embedding(transaction: Transaction, enrollment: int, model_sha256: str, sealed: bytes) -> Vector:
    """Open the sealed vector of an enrolment. Raises SealBroken."""
    return from_blob(transaction.open(embedding_context(enrollment, model_sha256), sealed))


def as_template(row: Row, vector: Vector, model_sha256: str) -> Template:
    """Make a Template from its row and its opened vector `[dim]`."""
    band: Band = "narrow" if row["narrow"] else "wide"
    return Template(vector, row["enrollments"], row["net_speech_s"], model_sha256, band)


def templates_of(
    transaction: Transaction,
    tenant: str,
    speaker_ids: Sequence[str],
    model_sha256: str,
    required_speech_s: float,
) -> dict[str, Template]:
    """Read the templates of the listed speakers, by id. Raises SealBroken.

    Speakers who cannot be compared are left out: too little speech, opted out, expired, or unknown.
    """
    if not speaker_ids:
        return {}
    marks = ", ".join("?" * len(speaker_ids))
    stored = transaction.execute(
        f"SELECT id, templates.*, {NARROW} AS narrow FROM speakers JOIN templates ON speaker = number"
        f" WHERE tenant = ? AND id IN ({marks}) AND model_sha256 = ?"
        f" AND templates.net_speech_s >= ? AND NOT opted_out AND {LIVING}",
        (tenant, *speaker_ids, model_sha256, required_speech_s, clock.stamp(clock.now())),
    )
    return {
        row["id"]: as_template(
            row,
            read_template(transaction, row["speaker"], model_sha256, row[column(transaction)]),
            model_sha256,
        )
        for row in stored.fetchall()
    }


def mean_template(transaction: Transaction, speaker: int, model_sha256: str) -> Vector | None:
    """Compute a template from the speaker's embeddings: their mean direction. Raises SealBroken.

    None if there are no embeddings, or if they cancel out.
    """
    return mean_direction(_vectors(transaction, speaker, model_sha256))


def _vectors(transaction: Transaction, speaker: int, model_sha256: str) -> list[Vector]:
    rows = transaction.execute(
        "SELECT number, sealed FROM enrollments JOIN embeddings ON enrollment = number"
        " WHERE speaker = ? AND model_sha256 = ? ORDER BY number",
        (speaker, model_sha256),
    )
    return [read_embedding(transaction, row["number"], model_sha256, row["sealed"]) for row in rows]
