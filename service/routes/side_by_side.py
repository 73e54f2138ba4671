"""Every served model on one recording, in one call: what each decides, and how long each takes.

It is for looking, so nothing counts: the recording is not used up, and no attempt on a speaker is counted or
refused. That is why it asks for the scope `scores`, which people hold and applications need not.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict

from sayso.runtime.audio import SentAudio
from sayso.runtime.embedder import Embedding
from sayso.service.access.keys import ApiKey
from sayso.service.auth import KeyWith
from sayso.service.call import Call
from sayso.service.engine import Engine
from sayso.service.idempotency import IdempotentRoute
from sayso.service.metrics import STUDY_SECONDS
from sayso.service.schemas import Identification, Verification
from sayso.service.uploads import audio_body, recordings
from sayso.service.work import engine_of, work

router = APIRouter(prefix="/v1", tags=["decisions"], route_class=IdempotentRoute)
Analyst = Annotated[ApiKey, Depends(KeyWith("scores"))]


class SideBySideResult(BaseModel):
    """One model: its decision, and each round's time in the network.

    `embed_ms` is for all of the recording's `windows` of 3 s in one batch.
    """

    model: str
    verification: Verification | None = None
    identification: Identification | None = None
    windows: int
    embed_ms: list[float]


class SideBySide(BaseModel):
    """The models in the order they are served; `study_ms` are the study's forward passes of one window."""

    model_config = ConfigDict(protected_namespaces=())
    results: list[SideBySideResult]
    study_ms: dict[str, float]
    request_id: str


@router.post("/models/compare", summary="The models side by side", openapi_extra=audio_body())
async def side_by_side(
    request: Request,
    key: Analyst,
    speaker_id: Annotated[
        str | None, Query(max_length=128, description="Verify against this speaker; without, identify.")
    ] = None,
    rounds: Annotated[int, Query(ge=1, le=20, description="How often each model is timed.")] = 5,
) -> SideBySide:
    """Decide on one recording with every served model, then time the networks, taking turns.

    Nothing is kept of it, and it is not refused if it was used before. Rounds end when half of
    `SAYSO_REQUEST_TIMEOUT_S` is over, after one at least.
    """
    (data,) = await recordings(request)
    return await work(request, key, _all_models, engine_of(request), data, speaker_id, rounds)


def _all_models(
    call: Call, engine: Engine, data: SentAudio, speaker_id: str | None, rounds: int
) -> SideBySide:
    recording = data.decode(engine.settings.max_audio_s)
    answers: list[Verification | Identification] = []
    for name in engine.models:
        call.left_s()
        # Its own clock and stages, and held to no limits on attempts: see the docstring of the module.
        model_call = replace(call, operator=True, stages={}, started=time.perf_counter())
        if speaker_id is None:
            answers.append(engine.identify(model_call, recording, name))
        else:
            answers.append(engine.verify(model_call, speaker_id, recording, name))
    _, speech = engine.ear.detector.detect(recording)
    timed: dict[str, list[Embedding]] = {name: [] for name in engine.models}
    for done in range(rounds):
        left_s = call.left_s()
        if done and left_s is not None and left_s < engine.settings.request_timeout_s / 2:
            break
        for name, model in engine.models.items():
            timed[name].append(model.embedder.embed(speech, call.left_s(), call.alone))
    return SideBySide(
        results=[
            SideBySideResult(
                model=name,
                verification=answer if isinstance(answer, Verification) else None,
                identification=answer if isinstance(answer, Identification) else None,
                windows=timed[name][0].windows,
                embed_ms=[round(embedding.embed_s * 1000, 3) for embedding in timed[name]],
            )
            for name, answer in zip(engine.models, answers, strict=True)
        ],
        study_ms={name: round(seconds * 1000, 2) for name, seconds in STUDY_SECONDS.items()},
        request_id=call.request_id,
    )
