"""The nouns of this room, as frozen dataclasses. Timestamps are ISO-8601 in UTC, ending in Z."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from sayso.domain.evidence import Band, Side

Vector = npt.NDArray[np.float32]  # [dim]
Vectors = npt.NDArray[np.float32]  # [n, dim]
Status = Literal["enrolling", "enrolled", "opted_out"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Consent:
    """When a person agreed to be enrolled, and where that is on record (a form, a call, a ticket)."""

    given_at: str
    reference: str | None


@dataclass(frozen=True)
class Speaker:
    """A person of one tenant; `groups` are sorted, `remaining_speech_s` is 0.0 once enrolled.

    From `expires_at` on there is no such speaker.
    """

    id: str
    name: str | None
    groups: tuple[str, ...]
    metadata: dict[str, Any]
    status: Status
    enrollments: int
    net_speech_s: float
    remaining_speech_s: float
    consent: Consent | None
    expires_at: str | None
    created_at: str
    updated_at: str


@dataclass(frozen=True)
class Enrollment:
    """One recording's contribution to a speaker.

    `clipping` is the clipped share of samples (0 to 1); `cohesion` is the cosine with the mean of the
    enrolments that were there before it (None for the first).
    """

    id: str
    speaker_id: str
    net_speech_s: float
    duration_s: float
    snr_db: float | None
    clipping: float
    created_at: str
    cohesion: float | None
    band: Band = "wide"


@dataclass(frozen=True)
class NewEnrollment:
    """What a recording brings: its speech report and one unit vector `[dim]` per model (by sha256).

    `digest`, the sha256 of all its samples, is kept so that the enrolled recording verifies nobody. The
    recording itself, as bytes, is kept only for a tenant who chose that. With a `min_cohesion` (cosine) the
    enrolment is refused where its cohesion is lower; with `unique`, where the speaker has one of the same
    digest.
    """

    net_speech_s: float
    duration_s: float
    snr_db: float | None
    clipping: float
    embeddings: Mapping[str, Vector]
    recording: bytes | None = field(default=None, repr=False)
    digest: bytes | None = field(default=None, repr=False)
    band: Band = "wide"
    min_cohesion: float | None = None
    unique: bool = False


@dataclass(frozen=True, eq=False)
class Template:
    """What a speaker is compared with under one model: a unit vector `[dim]` and what it was made of."""

    vector: Vector
    enrollments: int
    net_speech_s: float
    model_sha256: str
    band: Band = "wide"

    @property
    def side(self) -> Side:
        """What is known of it as one side of a comparison."""
        return Side(self.net_speech_s, self.enrollments, self.band)


@dataclass(frozen=True)
class Candidate:
    """A speaker whom a search compared, with the cosine score."""

    speaker_id: str
    score: float


@dataclass(frozen=True)
class Page(Generic[Item]):
    """A stretch of a listing; `next_cursor` is None on the last one."""

    items: tuple[Item, ...]
    next_cursor: str | None
