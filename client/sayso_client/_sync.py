"""The client. Made of `_async.py` by `unasync.py`: change that one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
from pydantic import BaseModel

from sayso_client import _wire
from sayso_client._sync_stream import Stream
from sayso_client._wire import Recording
from sayso_client.errors import Unreachable
from sayso_client.models import (
    Comparison,
    Embedding,
    Enrollment,
    EnrollmentAdded,
    EnrollmentList,
    Identification,
    Model,
    ModelList,
    Speaker,
    SpeakerPage,
    Status,
    Verification,
)

Answer = TypeVar("Answer", bound=BaseModel)


class Client:
    """Talks to one Sayso with one key; use it as a context manager, or `close` it.

    Every method raises a `SaysoError` when it does not succeed. `timeout` is in seconds, for each try.
    """

    def __init__(
        self,
        base_url: str,
        key: str,
        *,
        timeout: float = 60.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._base_url, self._key, self._retries = base_url, key, retries
        self._http = httpx.Client(
            base_url=base_url,
            timeout=timeout,
            transport=transport,
            headers={"Authorization": f"Bearer {key}", "User-Agent": "sayso-client/0.1.0"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Speakers

    def create_speaker(
        self,
        speaker_id: str | None = None,
        *,
        name: str | None = None,
        groups: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Speaker:
        """Add a speaker to enrol; without an id one is made."""
        body = _wire.given(id=speaker_id, name=name, groups=list(groups), metadata=metadata)
        return self._get(Speaker, "POST", _wire.path("speakers"), json=body)

    def speaker(self, speaker_id: str) -> Speaker:
        """One speaker."""
        return self._get(Speaker, "GET", _wire.path("speakers", speaker_id))

    def speakers(self, group: str | None = None) -> Iterator[Speaker]:
        """Every speaker, in the order they were created, fetched a page at a time."""
        cursor = None
        while True:
            wanted = _wire.given(limit=1000, cursor=cursor, group=group)
            page = self._get(SpeakerPage, "GET", _wire.path("speakers"), params=wanted)
            for item in page.items:
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    def update_speaker(
        self,
        speaker_id: str,
        *,
        name: str | None = None,
        groups: Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        status: Status | None = None,
    ) -> Speaker:
        """Change what is given; `status="opted_out"` opts out, any other status back in."""
        listed = None if groups is None else list(groups)
        body = _wire.given(name=name, groups=listed, metadata=metadata, status=status)
        return self._get(Speaker, "PATCH", _wire.path("speakers", speaker_id), json=body)

    def delete_speaker(self, speaker_id: str) -> None:
        """Remove the speaker with all enrolments, for good."""
        self._call("DELETE", _wire.path("speakers", speaker_id))

    def enroll(self, speaker_id: str, recording: Recording) -> EnrollmentAdded:
        """Add a recording to a speaker."""
        where = _wire.path("speakers", speaker_id, "enrollments")
        return self._get(EnrollmentAdded, "POST", where, content=_wire.audio(recording))

    def enrollments(self, speaker_id: str) -> list[Enrollment]:
        """The speaker's enrolments, oldest first."""
        where = _wire.path("speakers", speaker_id, "enrollments")
        return (self._get(EnrollmentList, "GET", where)).items

    def delete_enrollment(self, speaker_id: str, enrollment_id: str) -> None:
        """Remove one recording's contribution."""
        self._call("DELETE", _wire.path("speakers", speaker_id, "enrollments", enrollment_id))

    # Decisions

    def verify(
        self, speaker_id: str, recording: Recording, *, model: str | None = None
    ) -> Verification:
        """Is this recording of that speaker?"""
        where = _wire.path("speakers", speaker_id, "verify")
        wanted = _wire.given(model=model)
        return self._get(Verification, "POST", where, params=wanted, content=_wire.audio(recording))

    def identify(
        self,
        recording: Recording,
        *,
        model: str | None = None,
        top_k: int | None = None,
        group: str | None = None,
        candidates: Iterable[str] | None = None,
    ) -> Identification:
        """Who, of all speakers, a group or the listed candidates, is this?"""
        listed = None if candidates is None else list(candidates)
        wanted = _wire.given(model=model, top_k=top_k, group=group, candidates=listed)
        where = _wire.path("identify")
        return self._get(Identification, "POST", where, params=wanted, content=_wire.audio(recording))

    def compare(self, first: Recording, second: Recording, *, model: str | None = None) -> Comparison:
        """Are two recordings of one speaker? Nothing is stored."""
        files = [("audio", _wire.audio(first)), ("audio", _wire.audio(second))]
        wanted = _wire.given(model=model)
        return self._get(Comparison, "POST", _wire.path("compare"), params=wanted, files=files)

    def embedding(self, recording: Recording, *, model: str | None = None) -> Embedding:
        """The vector of a recording; needs the scope `embed`."""
        wanted = _wire.given(model=model)
        where = _wire.path("embeddings")
        return self._get(Embedding, "POST", where, params=wanted, content=_wire.audio(recording))

    def models(self) -> list[Model]:
        """The served models with their cards."""
        return (self._get(ModelList, "GET", _wire.path("models"))).items

    def stream(
        self,
        call: Literal["verify", "identify", "enroll"],
        *,
        speaker_id: str | None = None,
        model: str | None = None,
        encoding: Literal["pcm_s16le", "mulaw", "alaw", "opus", "ogg_opus"] = "pcm_s16le",
        sample_rate: int = 16_000,
        group: str | None = None,
        candidates: Iterable[str] | None = None,
    ) -> Stream:
        """Audio as it is spoken, decisions as they come; needs `sayso-client[stream]`."""
        listed = None if candidates is None else list(candidates)
        start = _wire.given(
            type="start",
            call=call,
            speaker_id=speaker_id,
            model=model,
            encoding=encoding,
            sample_rate=sample_rate,
            group=group,
            candidates=listed,
        )
        return Stream(_wire.stream_url(self._base_url), self._key, start)

    def _get(self, answer: type[Answer], method: str, where: str, **request: Any) -> Answer:
        return answer.model_validate_json(self._call(method, where, **request))

    def _call(self, method: str, where: str, **request: Any) -> bytes:
        """One call, tried again while that may help; a POST keeps its idempotency key."""
        headers = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        attempt = 0
        while True:
            response = None
            try:
                response = self._http.request(method, where, headers=headers, **request)
            except httpx.TransportError as error:
                if attempt >= self._retries:
                    raise Unreachable(f"{self._base_url} does not answer: {error}") from error
            if response is not None:
                if response.is_success:
                    return response.content
                gone = method == "DELETE" and response.status_code == 404 and attempt > 0
                if gone:  # the first try got through, only its answer did not
                    return b""
                if attempt >= self._retries or not _wire.worth_retrying(response):
                    raise _wire.failure(response)
            time.sleep(_wire.wait_s(attempt, response))
            attempt += 1
