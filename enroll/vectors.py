"""Unit vectors: checked, stored as little-endian float32, averaged into directions."""

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sayso.enroll.errors import InvalidEmbedding
from sayso.enroll.types import Vector

_UNIT_TOLERANCE = 1e-3
_VANISHED = 1e-6  # below this length a mean of unit vectors points nowhere


def checked_vector(vector: npt.ArrayLike) -> Vector:
    """Return the vector as contiguous float32 `[dim]`.

    Raises InvalidEmbedding unless it is one-dimensional, finite and of length 1 within 1e-3.
    """
    array = np.asarray(vector, dtype=np.float32, order="C")
    if array.ndim != 1 or array.size == 0:
        raise InvalidEmbedding(f"An embedding must have one dimension; this one has shape {array.shape}.")
    length = float(np.linalg.norm(array.astype(np.float64)))
    if not abs(length - 1.0) <= _UNIT_TOLERANCE:  # NaN fails this comparison too
        raise InvalidEmbedding(
            f"An embedding must be finite and of unit length; this one has length {length:g}."
        )
    return array


def score(a: Vector, b: Vector) -> float:
    """Return the cosine of two unit vectors `[dim]`. Raises InvalidEmbedding when the shapes differ."""
    if a.shape != b.shape:
        raise InvalidEmbedding(f"Embeddings of shapes {a.shape} and {b.shape} are from different models.")
    return float(np.clip(np.dot(a.astype(np.float64), b.astype(np.float64)), -1.0, 1.0))


def to_blob(vector: Vector) -> bytes:
    """Write a vector for the store."""
    return vector.astype("<f4").tobytes()


def from_blob(blob: bytes) -> Vector:
    """Read a vector from the store."""
    return np.frombuffer(blob, dtype="<f4").astype(np.float32)


def to_text(vector: Vector) -> str:
    """Write a vector as pgvector reads it; at half precision, where it is kept in that."""
    return "[" + ",".join(map(str, vector.astype(np.float16).tolist())) + "]"


def from_text(text: str) -> Vector:
    """Read a vector that pgvector wrote, and make it a unit vector again."""
    vector = np.asarray(json.loads(text), dtype=np.float64)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def mean_direction(vectors: Sequence[Vector]) -> Vector | None:
    """Average unit vectors with equal weights and normalise; None when there are none or they cancel."""
    if not vectors:
        return None
    mean = np.mean(np.asarray(vectors, dtype=np.float64), axis=0)
    length = float(np.linalg.norm(mean))
    if length < _VANISHED:
        return None
    return np.asarray(mean / length, dtype=np.float32)
