"""Verify, identify, compare, and the vector itself."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field

from sayso.service.auth import Embedder, Verifier
from sayso.service.idempotency import IdempotentRoute
from sayso.service.schemas import Comparison, EmbeddingOut, Identification, Verification
from sayso.service.uploads import MAX_NAME, audio_body, recordings
from sayso.service.work import engine_of, work

router = APIRouter(prefix="/v1", tags=["decisions"], route_class=IdempotentRoute)
Model = Annotated[
    str | None, Query(max_length=MAX_NAME, description="A served model; the default one if absent.")
]


@router.post("/speakers/{speaker_id}/verify", summary="Is this the speaker?", openapi_extra=audio_body())
async def verify(request: Request, key: Verifier, speaker_id: str, model: Model = None) -> Verification:
    """Compare a recording with one enrolled speaker (1:1)."""
    (data,) = await recordings(request)
    return await work(request, key, engine_of(request).verify, speaker_id, data, model)


@router.post("/identify", summary="Who is this?", openapi_extra=audio_body())
async def identify(
    request: Request,
    key: Verifier,
    model: Model = None,
    top_k: Annotated[int, Query(ge=1, le=100, description="Candidates to list.")] = 5,
    group: Annotated[str | None, Query(max_length=MAX_NAME, description="Search only this group.")] = None,
    candidates: Annotated[
        list[Annotated[str, Field(max_length=MAX_NAME)]] | None,
        Query(max_length=1000, description="Search only these speakers."),
    ] = None,
) -> Identification:
    """Search the enrolled speakers for a recording's voice (1:N, open set)."""
    (data,) = await recordings(request)
    return await work(request, key, engine_of(request).identify, data, model, top_k, group, candidates)


@router.post("/compare", summary="One speaker or two?", openapi_extra=audio_body(count=2))
async def compare(request: Request, key: Verifier, model: Model = None) -> Comparison:
    """Compare two recordings, sent as two form fields `audio`; nothing is stored."""
    first, second = await recordings(request, count=2)
    return await work(request, key, engine_of(request).compare, first, second, model)


# Not idempotent on purpose: a kept answer would keep the vector, and the same recording gives it again.
vectors = APIRouter(prefix="/v1", tags=["decisions"])


@vectors.post("/embeddings", summary="The vector of a recording", openapi_extra=audio_body())
async def embedding(request: Request, key: Embedder, model: Model = None) -> EmbeddingOut:
    """The unit-length speaker embedding: biometric data, so it has a scope of its own."""
    (data,) = await recordings(request)
    return await work(request, key, engine_of(request).embedding, data, model)
