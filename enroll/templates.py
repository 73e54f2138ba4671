"""Templates inside a transaction: the rows a speaker's enrolments leave, and the mean made of them."""

import math
from collections.abc import Iterable, Mapping

from sayso.enroll.db.sql import Connection
from sayso.enroll.decision import score
from sayso.enroll.errors import InvalidEmbedding
from sayso.enroll.secrets.transaction import Transaction, embedding_context, template_context
from sayso.enroll.types import Vector
from sayso.enroll.vectors import from_blob, from_text, mean_direction, to_blob, to_text

HALF_ROUNDING = 1e-3  # more than half precision can move one value of a unit vector


def store_embeddings(
    transaction: Transaction, tenant: str, enrollment: int, embeddings: Mapping[str, Vector]
) -> None:
    """Write one enrolment's vectors, sealed. Raises InvalidEmbedding when a model changed its dimension."""
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
    """Return the cosine of a new vector with the mean of those enrolled, under the first model named.

    None when nothing is enrolled under that model yet. Raises InvalidEmbedding when the dimensions differ.
    """
    model_sha256, vector = next(iter(embeddings.items()))
    earlier = mean_template(transaction, speaker, model_sha256)
    return None if earlier is None else score(vector, earlier)


def recompute(transaction: Transaction, tenant: str, speaker: int) -> None:
    """Make the speaker's sums and templates again from the enrolments that are there now.

    Always from all of them, never by adding to an old mean: a deleted recording leaves no trace, and
    the order of the operations cannot matter.
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
    """Write templates: tenant, speaker, model, vector, enrolments and seconds of speech of each."""
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
    """Name the column of `templates` that `read_template` reads."""
    return "sealed" if connection.seals_templates else "vector"


def read_template(transaction: Transaction, speaker: int, model_sha256: str, stored: bytes | str) -> Vector:
    """Read a template as it is stored: sealed, or as the server's text of a vector. Raises SealBroken."""
    if isinstance(stored, str):
        return from_text(stored)
    return from_blob(transaction.open(template_context(speaker, model_sha256), stored))


def read_embedding(transaction: Transaction, enrollment: int, model_sha256: str, sealed: bytes) -> Vector:
    """Open an enrolment's vector as it is stored. Raises SealBroken."""
    return from_blob(transaction.open(embedding_context(enrollment, model_sha256), sealed))


def mean_template(transaction: Transaction, speaker: int, model_sha256: str) -> Vector | None:
    """Return what the template should be: the mean direction of the speaker's vectors. Raises SealBroken."""
    return mean_direction(_vectors(transaction, speaker, model_sha256))


def _vectors(transaction: Transaction, speaker: int, model_sha256: str) -> list[Vector]:
    rows = transaction.execute(
        "SELECT number, sealed FROM enrollments JOIN embeddings ON enrollment = number"
        " WHERE speaker = ? AND model_sha256 = ? ORDER BY number",
        (speaker, model_sha256),
    )
    return [read_embedding(transaction, row["number"], model_sha256, row["sealed"]) for row in rows]
