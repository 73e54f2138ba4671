"""What the service answers. Fields that a newer service adds are kept and do no harm.

Scores are cosines from -1 to 1, LLRs natural logarithms, times of a call milliseconds. A score is None where
the key may not see it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Tag, TypeAdapter

Status = Literal["enrolling", "enrolled", "opted_out"]
VerifyDecision = Literal["accept", "reject", "inconclusive"]
IdentifyDecision = Literal["match", "no_match", "ambiguous", "inconclusive"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class Consent(_Answer):
    """When the person agreed, and where that is on record."""

    given_at: datetime
    reference: str | None


class Speaker(_Answer):
    """A speaker; `remaining_speech_s` is what is still needed until `enrolled`, `expires_at` their end."""

    id: str
    name: str | None
    groups: list[str]
    metadata: dict[str, Any]
    status: Status
    enrollments: int
    net_speech_s: float
    remaining_speech_s: float
    consent: Consent | None
    expires_at: datetime | None
    created_at: datetime
    updated_at: datetime


class SpeakerPage(_Answer):
    """A page of speakers; `next_cursor` is None on the last."""

    items: list[Speaker]
    next_cursor: str | None


class Enrollment(_Answer):
    """One recording's contribution; `cohesion` is its cosine with the mean of the earlier ones.

    `warnings`: `unlike_earlier`, and in the answer to an enrolment `same_recording`.
    """

    id: str
    speaker_id: str
    net_speech_s: float
    duration_s: float
    snr_db: float | None
    clipping: float
    created_at: datetime
    cohesion: float | None
    warnings: list[str] = []


class EnrollmentList(_Answer):
    """A speaker's enrolments, oldest first."""

    items: list[Enrollment]


class Audio(_Answer):
    """What was heard; `band` is wide or narrow.

    `warnings` are of downmixed, channels_differ, narrowband, noisy, clipped, several_voices.
    """

    duration_s: float
    net_speech_s: float
    snr_db: float | None
    clipping: float
    sample_rate: int
    band: str
    warnings: list[str]


class ModelRef(_Answer):
    """The model that scored."""

    name: str
    sha256: str
    provider: str


class EnrollmentAdded(_Answer):
    """An enrolment and the state it left its speaker in."""

    enrollment: Enrollment
    status: Status
    net_speech_s: float
    remaining_speech_s: float
    audio: Audio
    models: list[ModelRef]
    request_id: str
    timings_ms: dict[str, float]


class Threshold(_Answer):
    """Where a decision was made: at an LLR, or at a score that somebody set.

    The error rates are None where nobody measured, and where `outside` names what the calibration has not
    seen. `cohort` is the number of other enrolled people that the LLR was adapted to.
    """

    llr: float | None
    score: float | None
    operating_point: str
    source: str
    fmr: float | None
    fnmr: float | None
    cohort: int
    outside: list[str]


class IdentifyThreshold(_Answer):
    """The threshold of a search; `fmr` is per comparison, `fpir` over all that were compared."""

    llr: float | None
    score: float | None
    operating_point: str
    source: str
    fpir: float | None
    fmr: float | None
    extrapolated: bool
    cohort: int
    outside: list[str]


class Template(_Answer):
    """What the speaker was compared with."""

    enrollments: int
    net_speech_s: float


class Verification(_Answer):
    """Is this the speaker?"""

    decision: VerifyDecision
    reason: str | None
    score: float | None
    llr: float | None
    threshold: Threshold
    speaker_id: str
    template: Template
    audio: Audio
    model: ModelRef
    request_id: str
    timings_ms: dict[str, float]


class Candidate(_Answer):
    """A speaker compared with, `rank` 1 the best."""

    speaker_id: str
    score: float | None
    llr: float | None
    rank: int


class Identification(_Answer):
    """Who is this? `speaker_id` is None unless `match`; `margin` is the lead over the second.

    `not_compared` enrolled speakers have no template of the model; None from a service that does not say so.
    """

    decision: IdentifyDecision
    reason: str | None
    speaker_id: str | None
    score: float | None
    llr: float | None
    margin: float | None
    searched: int
    candidates: list[Candidate]
    threshold: IdentifyThreshold
    audio: Audio
    model: ModelRef
    request_id: str
    timings_ms: dict[str, float]
    not_compared: int | None = None


class Comparison(_Answer):
    """Are two recordings of one speaker?"""

    decision: VerifyDecision
    reason: str | None
    score: float | None
    llr: float | None
    threshold: Threshold
    audio: list[Audio]
    model: ModelRef
    request_id: str
    timings_ms: dict[str, float]


class Embedding(_Answer):
    """The unit-length vector itself: biometric data."""

    embedding: list[float]
    windows: int
    audio: Audio
    model: ModelRef
    request_id: str
    timings_ms: dict[str, float]


class Model(_Answer):
    """A served model with its card."""

    name: str
    sha256: str
    provider: str
    default: bool
    calibrated: bool
    card: dict[str, Any]


class ModelList(_Answer):
    """The served models."""

    items: list[Model]


class Started(_Answer):
    """A stream was accepted."""

    type: Literal["started"]
    request_id: str
    call: str
    model: str
    required_speech_s: float
    max_stream_s: float


class Speech(_Answer):
    """How much net speech a stream has heard, and how loud the last audio was (dB of full scale)."""

    type: Literal["speech"]
    audio_s: float
    net_speech_s: float
    remaining_speech_s: float
    speaking: bool
    level_db: float
    peak_db: float
    clipping: float


class _Said(_Answer):
    final: bool
    ended: str | None = None
    after_enough_speech_ms: float | None


class Decision(_Said):
    """A decision on what was heard so far; the last one has `final`, and `ended` says why it is."""

    type: Literal["decision"]
    result: Annotated[
        Annotated[Verification, Tag("verify")] | Annotated[Identification, Tag("identify")],
        Discriminator(lambda value: "identify" if "candidates" in value else "verify"),
    ]


class Enrolled(_Said):
    """The end of a stream that enrols."""

    type: Literal["enrolled"]
    result: EnrollmentAdded


Event = Speech | Decision | Enrolled
EVENT: TypeAdapter[Started | Event] = TypeAdapter(
    Annotated[Started | Speech | Decision | Enrolled, Discriminator("type")]
)
