"""Recordings made of nothing: unit vectors from seeds, and speech reports around them."""

import numpy as np

from sayso.enroll.types import NewEnrollment, Vector

MODEL = "a" * 64
OTHER_MODEL = "b" * 64
REQUIRED_S = 10.0


def unit(seed: int, dim: int = 16) -> Vector:
    """Make the unit vector `[dim]` of a seed."""
    return normalised(np.random.default_rng(seed).standard_normal(dim))


def normalised(values: object) -> Vector:
    """Scale values `[dim]` to a unit vector."""
    vector = np.asarray(values, dtype=np.float64)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def recording(
    seed: int = 0,
    net_speech_s: float = 6.0,
    embeddings: dict[str, Vector] | None = None,
    digest: bytes | None = None,
) -> NewEnrollment:
    """Make an enrolment with the seed's vector under MODEL, or with the embeddings given."""
    return NewEnrollment(
        net_speech_s=net_speech_s,
        duration_s=net_speech_s + 1.0,
        snr_db=20.0,
        clipping=0.0,
        embeddings={MODEL: unit(seed)} if embeddings is None else embeddings,
        digest=digest,
    )
