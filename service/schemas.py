"""Bodies of the HTTP calls. The engine fills them, so what the command line prints is what HTTP answers.

Timings are in milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from sayso.domain.evidence import Band
from sayso.enroll.decision import IdentifyDecision, VerifyDecision
from sayso.enroll.types import Enrollment, Status
from sayso.service import examples


class _Body(BaseModel):
    model_config = ConfigDict(from_attributes=True, protected_namespaces=())


class ConsentIn(_Body):
    """When the person agreed, and where that is on record."""

    model_config = ConfigDict(extra="forbid")
    given_at: AwareDatetime
    reference: str | None = None


class ConsentOut(_Body):
    """When the person agreed, and where that is on record."""

    given_at: str
    reference: str | None


class SpeakerIn(_Body):
    """A new speaker; without an `id` one is made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"id": "alice", "name": "Alice", "groups": ["sales"]}]},
    )
    id: str | None = None
    name: str | None = None
    groups: list[str] = []
    metadata: dict[str, Any] = {}
    consent: ConsentIn | None = None
    expires_at: AwareDatetime | None = None


class SpeakerPatch(_Body):
    """What to change; absent fields stay. `opted_out` blocks enrolment and every decision."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"groups": ["support"]}]})
    name: str | None = None
    groups: list[str] = []
    metadata: dict[str, Any] | None = None
    consent: ConsentIn | None = None
    expires_at: AwareDatetime | None = None
    status: Status = "enrolled"


class SpeakerOut(_Body):
    """A speaker; `remaining_speech_s` is what is still needed until `enrolled`.

    At `expires_at` the speaker is deleted.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.SPEAKER]})
    id: str
    name: str | None
    groups: list[str]
    metadata: dict[str, Any]
    status: Status
    enrollments: int
    net_speech_s: float
    remaining_speech_s: float
    consent: ConsentOut | None
    expires_at: str | None
    created_at: str
    updated_at: str


class SpeakerDetail(SpeakerOut):
    """A speaker with the warnings of the enrolments: `unlike_earlier` where voices may have been mixed."""

    warnings: list[str] = []


class SpeakerPage(_Body):
    """A page of speakers in the order they were created; `next_cursor` is null on the last."""

    items: list[SpeakerOut]
    next_cursor: str | None


class EnrollmentOut(_Body):
    """One recording's contribution; `cohesion` is its cosine with the mean of the earlier ones.

    `warnings`: `unlike_earlier` (hardly the voice of the earlier ones); in the answer to an enrolment also
    `same_recording` (another speaker has this very recording).
    """

    id: str
    speaker_id: str
    net_speech_s: float
    duration_s: float
    snr_db: float | None
    clipping: float
    created_at: str
    cohesion: float | None
    warnings: list[str] = []

    @classmethod
    def seen(cls, enrollment: Enrollment, scores: bool, warnings: list[str]) -> EnrollmentOut:
        """The enrolment as a key may see it: cohesion is a score too, a warning is none."""
        hidden = {} if scores else {"cohesion": None}
        return cls.model_validate(enrollment).model_copy(update={**hidden, "warnings": warnings})


class EnrollmentList(_Body):
    """A speaker's enrolments, oldest first."""

    items: list[EnrollmentOut]


class AudioOut(_Body):
    """What was heard. `band` is what the sound holds, whatever the sample rate.

    `warnings`: downmixed, channels_differ, narrowband, noisy, clipped, several_voices.
    """

    duration_s: float
    net_speech_s: float
    snr_db: float | None
    clipping: float
    sample_rate: int
    band: Band
    warnings: list[str]


class ModelRef(_Body):
    """The model that scored: its served name, the network's sha256 and where it ran."""

    name: str
    sha256: str
    provider: str


class EnrollmentAdded(_Body):
    """An enrolment and the state it left its speaker in."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ENROLLMENT_ADDED]})
    enrollment: EnrollmentOut
    status: Status
    net_speech_s: float
    remaining_speech_s: float
    audio: AudioOut
    models: list[ModelRef]
    request_id: str
    timings_ms: dict[str, float]


class ThresholdOut(_Body):
    """Where the decision was made: at an LLR, or at a score where somebody set one on purpose.

    The error rates were measured on trials of one recording against a template. They are null where nobody
    measured, and where the comparison lies outside what the calibration has seen: `outside` then names
    `probe_speech`, `template_speech` or `band`. `cohort` is the number of the tenant's other templates that
    the LLR was adapted to.
    """

    llr: float | None
    score: float | None
    operating_point: str
    source: str
    fmr: float | None
    fnmr: float | None
    cohort: int
    outside: list[str]


class TemplateOut(_Body):
    """What the speaker was compared with."""

    enrollments: int
    net_speech_s: float


class Verification(_Body):
    """Is this the speaker? `score` is a cosine, `llr` a natural-log likelihood ratio.

    Both are null for keys without the scope `scores`.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.VERIFICATION]})
    decision: VerifyDecision
    reason: str | None
    score: float | None
    llr: float | None
    threshold: ThresholdOut
    speaker_id: str
    template: TemplateOut
    audio: AudioOut
    model: ModelRef
    request_id: str
    timings_ms: dict[str, float]


class CandidateOut(_Body):
    """A speaker compared with, `rank` 1 the best; scores need the scope `scores`."""

    speaker_id: str
    score: float | None
    llr: float | None
    rank: int


class IdentifyThreshold(_Body):
    """The threshold for a search: `fmr` is per comparison, `fpir` over all that were compared.

    `extrapolated` says that the calibration trials were too few for so small an `fmr`. `llr` is where it
    lies, or `score` where somebody set one on purpose; `cohort` and `outside` are as for a verification, of
    the best.
    """

    llr: float | None
    score: float | None
    operating_point: str
    source: str
    fpir: float | None
    fmr: float | None
    extrapolated: bool
    cohort: int
    outside: list[str]


class Identification(_Body):
    """Who is this? `speaker_id` is null unless `match`; `margin` is the lead over the second, as an LLR.

    `not_compared` is how many of the tenant's enrolled speakers the model cannot compare, since they were
    enrolled without it. Keys without the scope `scores` get no scores, and of the candidates the match alone.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [examples.IDENTIFICATION]})
    decision: IdentifyDecision
    reason: str | None
    speaker_id: str | None
    score: float | None
    llr: float | None
    margin: float | None
    searched: int
    not_compared: int
    candidates: list[CandidateOut]
    threshold: IdentifyThreshold
    audio: AudioOut
    model: ModelRef
    request_id: str
    timings_ms: dict[str, float]


class Comparison(_Body):
    """Are two recordings of one speaker? Nothing is stored."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.COMPARISON]})
    decision: VerifyDecision
    reason: str | None
    score: float | None
    llr: float | None
    threshold: ThresholdOut
    audio: list[AudioOut]
    model: ModelRef
    request_id: str
    timings_ms: dict[str, float]


class EmbeddingOut(_Body):
    """The unit-length vector itself: biometric data."""

    embedding: list[float]
    windows: int
    audio: AudioOut
    model: ModelRef
    request_id: str
    timings_ms: dict[str, float]


class ModelOut(_Body):
    """A served model with its card."""

    name: str
    sha256: str
    provider: str
    default: bool
    calibrated: bool
    card: dict[str, Any]


class ModelList(_Body):
    """The served models."""

    items: list[ModelOut]


class Health(_Body):
    """The state of the process (`/healthz`) or of its whole pipeline (`/readyz`)."""

    status: Literal["ok"]


class Problem(_Body):
    """An error (RFC 9457). `code` is stable; `detail` is for people."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PROBLEM]})
    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str
    request_id: str | None
    net_speech_s: float | None = None
    required_speech_s: float | None = None
    remaining_speech_s: float | None = None
    retry_after_s: float | None = None
