"""Speakers and their enrolments."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from sayso.enroll.errors import SpeakerExists
from sayso.service.auth import Administrator, Enroller, Reader
from sayso.service.enrolling import speaker_warnings, warnings_of
from sayso.service.idempotency import HEADER, IdempotentRoute, id_from
from sayso.service.schemas import (
    EnrollmentAdded,
    EnrollmentList,
    EnrollmentOut,
    SpeakerDetail,
    SpeakerIn,
    SpeakerOut,
    SpeakerPage,
    SpeakerPatch,
)
from sayso.service.uploads import MAX_NAME, audio_body, recordings
from sayso.service.work import engine_of, work

router = APIRouter(prefix="/v1/speakers", tags=["speakers"], route_class=IdempotentRoute)


@router.post("", status_code=201, summary="Create a speaker")
def create(request: Request, key: Enroller, body: SpeakerIn) -> SpeakerOut:
    """Add a speaker to enrol; the id is yours, or one is made."""
    store = engine_of(request).store
    retry_key = request.headers.get(HEADER)
    made = id_from("spk", key.id, retry_key) if body.id is None and retry_key else None
    try:
        speaker = store.create_speaker(
            key.tenant,
            made or body.id,
            body.name,
            body.groups,
            body.metadata,
            None if body.consent is None else body.consent.model_dump(),
            body.expires_at,
        )
    except SpeakerExists:
        if made is None:
            raise
        speaker = store.speaker(key.tenant, made)
    return SpeakerOut.model_validate(speaker)


@router.get("", summary="List speakers")
def list_(
    request: Request,
    key: Reader,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=MAX_NAME)] = None,
    group: Annotated[str | None, Query(max_length=MAX_NAME)] = None,
) -> SpeakerPage:
    """A page of speakers in the order they were created; pass `next_cursor` on for the next."""
    page = engine_of(request).store.speakers(key.tenant, limit, cursor, group)
    return SpeakerPage.model_validate(page)


@router.get("/{speaker_id}", summary="One speaker")
def one(request: Request, key: Reader, speaker_id: str) -> SpeakerDetail:
    """Status, speech so far, what is still needed, and warnings of the enrolments."""
    engine = engine_of(request)
    speaker = SpeakerDetail.model_validate(engine.store.speaker(key.tenant, speaker_id))
    enrolled = engine.store.enrollments(key.tenant, speaker_id) if speaker.enrollments else ()
    return speaker.model_copy(update={"warnings": speaker_warnings(enrolled, engine.unlike_below)})


@router.patch("/{speaker_id}", summary="Change a speaker")
def change(request: Request, key: Enroller, speaker_id: str, body: SpeakerPatch) -> SpeakerOut:
    """Change name, groups or metadata; `"status": "opted_out"` opts out, any other status back in."""
    changes = body.model_dump(exclude_unset=True)
    return SpeakerOut.model_validate(
        engine_of(request).store.update_speaker(key.tenant, speaker_id, **changes)
    )


@router.delete("/{speaker_id}", status_code=204, summary="Delete a speaker")
def delete(request: Request, key: Enroller, speaker_id: str) -> Response:
    """Remove the speaker with all enrolments and templates, for good.

    The header `Sayso-Backups` says how many backups may still hold the speaker.
    """
    engine = engine_of(request)
    backups = engine.store.delete_speaker(key.tenant, speaker_id)
    engine.index.refresh(key.tenant)
    return Response(status_code=204, headers={"Sayso-Backups": str(len(backups))})


@router.get("/{speaker_id}/export", summary="Everything kept on a speaker")
def export(request: Request, key: Administrator, speaker_id: str) -> dict[str, Any]:
    """Fields, enrolments with vectors and kept recordings (base64), templates, audit entries."""
    return engine_of(request).store.rights.everything_about(key.tenant, speaker_id)


@router.post("/{speaker_id}/unlock", status_code=204, summary="Unlock a speaker")
def unlock(request: Request, key: Enroller, speaker_id: str) -> Response:
    """Forget the failed attempts on a speaker, so that they can be verified again at once."""
    engine_of(request).attempts.unlock(key.tenant, speaker_id)
    return Response(status_code=204)


@router.post(
    "/{speaker_id}/enrollments",
    status_code=201,
    summary="Enrol a recording",
    openapi_extra=audio_body(),
)
async def enroll(request: Request, key: Enroller, speaker_id: str) -> EnrollmentAdded:
    """Add a recording to the speaker; several add up until `remaining_speech_s` is 0."""
    (data,) = await recordings(request)
    retry_key = request.headers.get(HEADER)
    enrollment_id = (
        id_from("enr", key.id, speaker_id, retry_key, data.data, data.channel) if retry_key else None
    )
    return await work(request, key, engine_of(request).enroll, speaker_id, data, enrollment_id)


@router.get("/{speaker_id}/enrollments", summary="List enrolments")
def enrollments(request: Request, key: Reader, speaker_id: str) -> EnrollmentList:
    """The speaker's enrolments, oldest first."""
    engine, scores = engine_of(request), key.allows("scores")
    enrolled = engine.store.enrollments(key.tenant, speaker_id)
    limit = engine.unlike_below if len(enrolled) > 1 else None  # a single enrolment is like itself
    return EnrollmentList(
        items=[EnrollmentOut.seen(each, scores, warnings_of(each, limit)) for each in enrolled]
    )


@router.delete("/{speaker_id}/enrollments/{enrollment_id}", summary="Delete an enrolment")
async def delete_enrollment(
    request: Request, key: Enroller, speaker_id: str, enrollment_id: str
) -> SpeakerOut:
    """Remove one recording's contribution; the speaker may be `enrolling` again."""
    store = engine_of(request).store
    speaker = await run_in_threadpool(store.delete_enrollment, key.tenant, speaker_id, enrollment_id)
    return SpeakerOut.model_validate(speaker)
