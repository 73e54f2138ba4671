"""What speaks against an enrolment: another voice than before, or a recording that is enrolled already."""

from __future__ import annotations

from collections.abc import Iterable

from sayso.enroll.search.index import Index
from sayso.enroll.types import Enrollment, Vector
from sayso.service.access.attempts import Attempts

UNLIKE, SAME = "unlike_earlier", "same_recording"
_NEAREST = 5  # speakers who are asked whether they have the recording


def warnings_of(enrollment: Enrollment, limit: float | None) -> list[str]:
    """`unlike_earlier` where the cohesion with the earlier enrolments is below the limit."""
    cohesion = enrollment.cohesion
    return [UNLIKE] if limit is not None and cohesion is not None and cohesion < limit else []


def speaker_warnings(enrollments: Iterable[Enrollment], limit: float | None) -> list[str]:
    """The warnings of a speaker's enrolments, each once; a single enrolment is like itself."""
    listed = list(enrollments)
    if len(listed) < 2:
        return []
    return sorted({warning for each in listed for warning in warnings_of(each, limit)})


def enrolled_elsewhere(
    attempts: Attempts,
    index: Index,
    tenant: str,
    speaker_id: str,
    digest: bytes,
    model_sha256: str,
    vector: Vector,
) -> bool:
    """Whether another speaker, of those nearest to the vector, has this very recording enrolled."""
    nearest, _ = index.search(tenant, model_sha256, vector, _NEAREST)
    others = [candidate.speaker_id for candidate in nearest if candidate.speaker_id != speaker_id]
    return any(attempts.enrolled_as(tenant, other, digest) is not None for other in others)
