"""Templates inside a transaction: the rows a speaker's enrolments leave, and the mean made of them."""

import math
import sqlite3
from collections.abc import Mapping

from enroll.decision import score
from enroll.errors import InvalidEmbedding
from enroll.types import Vector
from enroll.vectors import from_blob, mean_direction, to_blob


def store_embeddings(
    connection: sqlite3.Connection, enrollment: int, embeddings: Mapping[str, Vector]
) -> None:
    """Write one enrolment's vectors. Raises InvalidEmbedding when a model changed its dimension."""
    for model_sha256, vector in embeddings.items():
        connection.execute("INSERT OR IGNORE INTO models VALUES (?, ?)", (model_sha256, vector.size))
        dim = connection.execute("SELECT dim FROM models WHERE sha256 = ?", (model_sha256,)).fetchone()[0]
        if dim != vector.size:
            raise InvalidEmbedding(
                f"Model {model_sha256[:12]} gives {dim} dimensions; this embedding has {vector.size}."
            )
        connection.execute(
            "INSERT INTO embeddings VALUES (?, ?, ?)", (enrollment, model_sha256, to_blob(vector))
        )


def cohesion(connection: sqlite3.Connection, speaker: int, embeddings: Mapping[str, Vector]) -> float | None:
    """Return the cosine of a new vector with the mean of those enrolled, under the first model named.

    None when nothing is enrolled under that model yet. Raises InvalidEmbedding when the dimensions differ.
    """
    model_sha256, vector = next(iter(embeddings.items()))
    earlier = mean_direction(_vectors(connection, speaker, model_sha256))
    return None if earlier is None else score(vector, earlier)


def recompute(connection: sqlite3.Connection, speaker: int) -> None:
    """Make the speaker's sums and templates again from the enrolments that are there now.

    Always from all of them, never by adding to an old mean: a deleted recording leaves no trace, and
    the order of the operations cannot matter.
    """
    rows = connection.execute("SELECT net_speech_s FROM enrollments WHERE speaker = ?", (speaker,)).fetchall()
    connection.execute(
        "UPDATE speakers SET enrollments = ?, net_speech_s = ? WHERE number = ?",
        (len(rows), math.fsum(row["net_speech_s"] for row in rows), speaker),
    )
    connection.execute("DELETE FROM templates WHERE speaker = ?", (speaker,))
    models = connection.execute(
        "SELECT DISTINCT model_sha256 FROM enrollments JOIN embeddings ON enrollment = number"
        " WHERE speaker = ?",
        (speaker,),
    ).fetchall()
    for model in models:
        _recompute_model(connection, speaker, model["model_sha256"])


def _recompute_model(connection: sqlite3.Connection, speaker: int, model_sha256: str) -> None:
    vector = mean_direction(_vectors(connection, speaker, model_sha256))
    if vector is None:  # recordings that cancel out make no template
        return
    rows = connection.execute(
        "SELECT net_speech_s FROM enrollments JOIN embeddings ON enrollment = number"
        " WHERE speaker = ? AND model_sha256 = ?",
        (speaker, model_sha256),
    )
    speech = [row["net_speech_s"] for row in rows]
    connection.execute(
        "INSERT INTO templates VALUES (?, ?, ?, ?, ?)",
        (speaker, model_sha256, to_blob(vector), len(speech), math.fsum(speech)),
    )


def _vectors(connection: sqlite3.Connection, speaker: int, model_sha256: str) -> list[Vector]:
    rows = connection.execute(
        "SELECT vector FROM enrollments JOIN embeddings ON enrollment = number"
        " WHERE speaker = ? AND model_sha256 = ? ORDER BY number",
        (speaker, model_sha256),
    )
    return [from_blob(row["vector"]) for row in rows]
