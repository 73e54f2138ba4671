"""Azure Speaker Recognition's text-independent calls, for those whom its retirement left: change the URL.

Paths, fields, states and error shapes are those of its public REST reference, version 2021-09-05. A profile
is a speaker with a GUID for an id, in the group `azure-verification` or `azure-identification`, so that the
same voices can be seen and used through the rest of the API. docs/api.md tells what differs.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from sayso.enroll.errors import EnrollError, SpeakerNotFound
from sayso.enroll.secrets.transaction import actor
from sayso.enroll.types import Speaker
from sayso.runtime.errors import RuntimeFault
from sayso.service import errors
from sayso.service.access.keys import ApiKey
from sayso.service.auth import authorized_aside
from sayso.service.errors import RETRY_AFTER, ServiceError, shown, status_of
from sayso.service.uploads import MAX_NAME, recordings
from sayso.service.work import engine_of, work

log = structlog.get_logger()
VERSION = "2021-09-05"
NOBODY = "00000000-0000-0000-0000-000000000000"
PREFIX = "/speaker-recognition/{kind}/text-independent"
_CODES = {
    400: "InvalidRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    408: "RequestTimeout",
    409: "Conflict",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "InvalidRequest",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}
_AUDIO_CODES = {
    "too_little_speech": "AudioTooShort",
    "audio_empty": "AudioTooShort",
    "audio_too_long": "AudioTooLong",
    "too_noisy": "AudioTooNoisy",
    "audio_undecodable": "InvalidAudioFormat",
    "audio_truncated": "InvalidAudioFormat",
    "audio_not_finite": "InvalidAudioFormat",
    "audio_sample_rate_unsupported": "InvalidAudioFormat",
    "audio_too_many_channels": "InvalidAudioFormat",
}


class _AzureRoute(APIRoute):
    """Answers errors as Azure does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def shaped(request: Request) -> Response:
            try:
                return await handle(request)
            except (ServiceError, RuntimeFault, EnrollError, RequestValidationError, HTTPException) as error:
                return _refusal(request, error)

        return shaped


def _refusal(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, HTTPException) and isinstance(error.__cause__, ServiceError):
        error = error.__cause__
    if isinstance(error, ServiceError):
        status, ours = error.status, error.code
    elif isinstance(error, RequestValidationError):
        status, ours = 400, "invalid_request"
    elif isinstance(error, HTTPException):
        status, ours = error.status_code, "malformed_request"
    else:
        status, ours = status_of(error), str(getattr(error, "code", "internal_error"))
    if status >= 500:
        log.error("fault", code=ours, request_id=request.state.request_id, exc_info=error)
    request.app.state.engine.metrics.refusals.labels(ours).inc()
    code = _AUDIO_CODES.get(ours) or _CODES.get(status, "InternalServerError")
    message = str(error)
    if isinstance(error, RequestValidationError):
        message = errors.sentence(errors.problems(error.errors()))
    elif isinstance(error, HTTPException):
        message = str(error.detail)
    headers = {"x-ms-error-code": code}
    if status in RETRY_AFTER:
        headers["Retry-After"] = RETRY_AFTER[status]
    headers |= errors.retry_after(error) or getattr(error, "headers", None) or {}
    body = {"error": {"code": code, "message": shown(message)}}
    return JSONResponse(body, 400 if status == 422 else status, headers)


def _caller(scope: str) -> Any:
    async def caller(
        request: Request,
        version: Annotated[str, Query(alias="api-version", max_length=MAX_NAME)] = VERSION,
    ) -> ApiKey:
        text = request.headers.get("ocp-apim-subscription-key")
        key = await authorized_aside(engine_of(request), text, scope)
        request.state.key_id = key.id
        actor.set(f"key:{key.id}")
        if version != VERSION:
            raise ServiceError(400, "api_version_unsupported", f"api-version {version!r}: use {VERSION}")
        return key

    return Depends(caller)


Kind = Literal["verification", "identification"]
Reader = Annotated[ApiKey, _caller("read")]
Enroller = Annotated[ApiKey, _caller("enroll")]
Verifier = Annotated[ApiKey, _caller("verify")]
# Taken and of no effect: how much speech is needed is this service's setting, for every caller.
IgnoreMinLength = Annotated[bool, Query(alias="ignoreMinLength")]

router = APIRouter(prefix=PREFIX, route_class=_AzureRoute, include_in_schema=False)


class _LocaleInfo(BaseModel):
    model_config = ConfigDict(extra="ignore")
    locale: Annotated[str, Field(pattern=r"^[a-zA-Z]{2}-?[a-zA-Z]{2}$")]


def _group(kind: Kind) -> str:
    return f"azure-{kind}"


def _path(request: Request) -> str:
    """The request's path; `request.url` fails on a query that is no UTF-8."""
    path: str = request.scope["path"]
    return path


def _profile(request: Request, key: ApiKey, kind: Kind, profile_id: str) -> Speaker:
    """The speaker of a profile id of this kind; raises a 404."""
    try:
        wanted = str(uuid.UUID(profile_id))
    except ValueError:
        raise ServiceError(400, "invalid_request", "a profile id is a GUID") from None
    speaker = engine_of(request).store.speaker(key.tenant, wanted)
    if _group(kind) not in speaker.groups:
        raise SpeakerNotFound(wanted)
    return speaker


def _lengths(request: Request, key: ApiKey, speaker: Speaker) -> dict[str, Any]:
    """What profiles and enrolments both tell."""
    enrolled = engine_of(request).store.enrollments(key.tenant, speaker.id) if speaker.enrollments else ()
    return {
        "profileId": speaker.id,
        "enrollmentStatus": "Enrolled" if speaker.status == "enrolled" else "Enrolling",
        "enrollmentsCount": speaker.enrollments,
        "enrollmentsLengthInSec": round(sum(one.duration_s for one in enrolled), 2),
        "enrollmentsSpeechLengthInSec": round(speaker.net_speech_s, 2),
        "remainingEnrollmentsSpeechLengthInSec": round(speaker.remaining_speech_s, 2),
    }


def _info(request: Request, key: ApiKey, speaker: Speaker) -> dict[str, Any]:
    changed = speaker.updated_at != speaker.created_at
    return {
        **_lengths(request, key, speaker),
        "locale": speaker.metadata.get("locale", "en-us"),
        "profileStatus": "Inactive" if speaker.status == "opted_out" else "Active",
        "createdDateTime": speaker.created_at,
        "lastUpdatedDateTime": speaker.updated_at if changed else None,
        "modelVersion": None,
    }


@router.post("/profiles", status_code=201)
def create(
    request: Request, response: Response, key: Enroller, kind: Kind, body: _LocaleInfo
) -> dict[str, Any]:
    store = engine_of(request).store
    speaker = store.create_speaker(
        key.tenant, str(uuid.uuid4()), None, [_group(kind)], {"locale": body.locale}
    )
    response.headers["Location"] = f"{_path(request)}/{speaker.id}"
    return _info(request, key, speaker)


@router.get("/profiles")
def list_(
    request: Request,
    key: Reader,
    kind: Kind,
    size: Annotated[int, Query(alias="maxpagesize", ge=1, le=500)] = 100,
    after: Annotated[str, Query(alias="$skiptoken", max_length=MAX_NAME)] = "",
) -> dict[str, Any]:
    """Profiles in the order of their ids; the store lists by age, so all of them are read for a page."""
    store, found, cursor = engine_of(request).store, [], None
    while True:
        page = store.speakers(key.tenant, 1000, cursor, _group(kind))
        found += [speaker for speaker in page.items if speaker.id > after]
        cursor = page.next_cursor
        if cursor is None:
            break
    found.sort(key=lambda speaker: speaker.id)
    body: dict[str, Any] = {"value": [_info(request, key, speaker) for speaker in found[:size]]}
    if len(found) > size:
        wanted = {"api-version": VERSION, "maxpagesize": size, "$skiptoken": found[size - 1].id}
        body["nextLink"] = str(request.base_url.replace(path=_path(request)).include_query_params(**wanted))
    return body


@router.get("/profiles/{profile_id}")
def one(request: Request, key: Reader, kind: Kind, profile_id: str) -> dict[str, Any]:
    return _info(request, key, _profile(request, key, kind, profile_id))


@router.delete("/profiles/{profile_id}", status_code=204)
def delete(request: Request, key: Enroller, kind: Kind, profile_id: str) -> Response:
    engine, speaker = engine_of(request), _profile(request, key, kind, profile_id)
    engine.store.delete_speaker(key.tenant, speaker.id)
    engine.index.refresh(key.tenant)
    return Response(status_code=204)


@router.post("/profiles/{profile_id}:reset")
def reset(request: Request, response: Response, key: Enroller, kind: Kind, profile_id: str) -> dict[str, Any]:
    store, speaker = engine_of(request).store, _profile(request, key, kind, profile_id)
    for enrollment in store.enrollments(key.tenant, speaker.id):
        speaker = store.delete_enrollment(key.tenant, speaker.id, enrollment.id)
    response.headers["Location"] = _path(request).removesuffix(":reset")
    return _info(request, key, speaker)


@router.post("/profiles/{profile_id}/enrollments", status_code=201)
async def enroll(
    request: Request, key: Enroller, kind: Kind, profile_id: str, ignore: IgnoreMinLength = False
) -> dict[str, Any]:
    speaker = await run_in_threadpool(_profile, request, key, kind, profile_id)
    (data,) = await recordings(request)
    added = await work(request, key, engine_of(request).enroll, speaker.id, data)
    now = await run_in_threadpool(engine_of(request).store.speaker, key.tenant, speaker.id)
    return {
        **await run_in_threadpool(_lengths, request, key, now),
        "audioLengthInSec": round(added.audio.duration_s, 2),
        "audioSpeechLengthInSec": round(added.audio.net_speech_s, 2),
    }


@router.post("/profiles/{profile_id}:verify")
async def verify(
    request: Request, key: Verifier, kind: Kind, profile_id: str, ignore: IgnoreMinLength = False
) -> dict[str, Any]:
    if kind != "verification":
        raise ServiceError(404, "not_found", "identification profiles are not verified")
    speaker = await run_in_threadpool(_profile, request, key, kind, profile_id)
    (data,) = await recordings(request)
    answer = await work(request, key, engine_of(request).verify, speaker.id, data)
    # There is no third answer, and one that cannot be sure must not open a door.
    return {
        "recognitionResult": "Accept" if answer.decision == "accept" else "Reject",
        "score": _similarity(answer.score),
    }


@router.post("/profiles:identifySingleSpeaker")
async def identify(
    request: Request,
    key: Verifier,
    kind: Kind,
    ids: Annotated[str, Query(alias="profileIds", max_length=4000)],
    ignore: IgnoreMinLength = False,
) -> dict[str, Any]:
    if kind != "identification":
        raise ServiceError(404, "not_found", "verification profiles are not identified")
    named = dict.fromkeys(part.strip() for part in ids.split(",") if part.strip())
    if not 1 <= len(named) <= 50:
        raise ServiceError(400, "invalid_request", "profileIds takes 1 to 50 GUIDs")
    speakers = [await run_in_threadpool(_profile, request, key, kind, one) for one in named]
    listed = [speaker.id for speaker in speakers]
    (data,) = await recordings(request)
    answer = await work(request, key, engine_of(request).identify, data, None, 5, None, listed)
    ranking = [{"profileId": c.speaker_id, "score": _similarity(c.score)} for c in answer.candidates]
    matched = answer.speaker_id is not None
    best = {"profileId": answer.speaker_id, "score": _similarity(answer.score)}
    return {
        "identifiedProfile": best if matched else {"profileId": NOBODY, "score": 0.0},
        "profilesRanking": ranking,
    }


@router.get("/phrases/{locale}")
def phrases(request: Request, key: Reader, kind: Kind, locale: str) -> dict[str, Any]:
    """Azure wanted one of these said first; here any words do, and these are as good as others."""
    said = "I'll talk for a few seconds so you can recognize my voice in the future."
    return {"value": [{"activationPhrase": said}]}


def _similarity(score: float | None) -> float:
    """The cosine, no lower than 0: Azure's scores lie between 0 and 1. No score seen is 0."""
    return 0.0 if score is None else round(max(0.0, score), 6)
