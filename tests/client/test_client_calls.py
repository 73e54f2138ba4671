"""What the Python client does with answers, refusals and silence, without a server."""

import asyncio
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sayso_client
from sayso_client import (
    AsyncClient,
    BadRecording,
    Client,
    Conflict,
    InvalidRequest,
    NotFound,
    Problem,
    TooLittleSpeech,
    Unauthorized,
    Unavailable,
    Unreachable,
    models,
)

from sayso.service import examples, schemas

ROOT = Path(sayso_client.__file__).parent.parent


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client would have waited; it does not."""
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    return waited


def client(*answers: httpx.Response | Exception, seen: list[httpx.Request] | None = None) -> Client:
    """A client whose service gives these answers, one after the other."""
    left = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        given = next(left)
        if isinstance(given, Exception):
            raise given
        return given

    return Client("http://sayso.test", "a-key", transport=httpx.MockTransport(answer))


def refusal(status: int, code: str, **facts: Any) -> httpx.Response:
    body = {"status": status, "code": code, "detail": "why", "request_id": "r1", **facts}
    headers = {"content-type": "application/problem+json"}
    return httpx.Response(status, json=body, headers={**headers, **facts.get("headers", {})})


def speaker() -> httpx.Response:
    return httpx.Response(200, json=examples.SPEAKER)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "key_invalid", Unauthorized),
        (403, "scope_missing", Unauthorized),
        (404, "speaker_not_found", NotFound),
        (409, "speaker_exists", Conflict),
        (400, "audio_undecodable", BadRecording),
        (413, "audio_too_long", BadRecording),
        (415, "audio_sample_rate_unsupported", BadRecording),
        (422, "too_noisy", BadRecording),
        (422, "too_little_speech", TooLittleSpeech),
        (422, "audio_missing", InvalidRequest),
        (422, "invalid_field", InvalidRequest),
        (413, "body_too_large", InvalidRequest),
        (500, "internal_error", Unavailable),
    ],
)
def test_a_refusal_is_an_exception_of_its_kind(status: int, code: str, kind: type[Problem]) -> None:
    with client(refusal(status, code)) as sayso, pytest.raises(Problem) as raised:
        sayso.speaker("alice")
    assert type(raised.value) is kind
    assert (raised.value.code, raised.value.status, str(raised.value)) == (code, status, "why")
    assert raised.value.request_id == "r1"


def test_too_little_speech_says_how_much_there_was() -> None:
    answer = refusal(422, "too_little_speech", net_speech_s=0.4, required_speech_s=1.5)
    with client(answer) as sayso, pytest.raises(TooLittleSpeech) as raised:
        sayso.verify("alice", b"wav")
    assert (raised.value.net_speech_s, raised.value.required_speech_s) == (0.4, 1.5)


def test_an_answer_that_is_no_problem_document_is_still_a_problem() -> None:
    for body in (b"<html>", b"[]", b""):
        with client(httpx.Response(404, content=body)) as sayso, pytest.raises(NotFound, match="404"):
            sayso.speaker("alice")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_is_tried_again_under_one_idempotency_key(status: int, waits: list[float]) -> None:
    seen: list[httpx.Request] = []
    gone = httpx.ConnectError("refused")
    with client(
        refusal(status, "overloaded"), gone, httpx.Response(201, json=examples.SPEAKER), seen=seen
    ) as sayso:
        assert sayso.create_speaker("alice").id == "alice"
    assert len({request.headers["idempotency-key"] for request in seen}) == 1
    assert len(seen) == 3
    assert len(waits) == 2


def test_calls_do_not_share_an_idempotency_key_and_reads_have_none() -> None:
    seen: list[httpx.Request] = []
    with client(speaker(), speaker(), speaker(), seen=seen) as sayso:
        sayso.create_speaker("a")
        sayso.create_speaker("b")
        sayso.speaker("a")
    assert seen[0].headers["idempotency-key"] != seen[1].headers["idempotency-key"]
    assert "idempotency-key" not in seen[2].headers
    assert all(request.headers["authorization"] == "Bearer a-key" for request in seen)


def test_it_waits_as_long_as_the_service_asks(waits: list[float]) -> None:
    busy = refusal(429, "overloaded", headers={"retry-after": "7"})
    with client(busy, speaker()) as sayso:
        sayso.speaker("alice")
    assert waits == [7.0]


def test_it_does_not_wait_for_ever(waits: list[float]) -> None:
    delayed = refusal(429, "attempts_delayed", headers={"retry-after": "600"}, retry_after_s=600.0)
    with client(delayed) as sayso, pytest.raises(Unavailable) as raised:
        sayso.verify("alice", b"wav")
    assert (raised.value.retry_after_s, waits) == (600.0, [])


def test_waits_grow_and_end(waits: list[float]) -> None:
    with client(*[httpx.ReadTimeout("slow")] * 4) as sayso, pytest.raises(Unreachable, match=r"sayso\.test"):
        sayso.speaker("alice")
    assert len(waits) == 3
    assert all(0.125 * 2**n <= wait <= 0.25 * 2**n for n, wait in enumerate(waits))


def test_what_is_wrong_is_not_tried_again(waits: list[float]) -> None:
    with client(refusal(409, "speaker_exists")) as sayso, pytest.raises(Conflict):
        sayso.create_speaker("alice")
    with client(refusal(409, "idempotency_in_progress"), speaker()) as sayso:
        sayso.create_speaker("alice")
    assert len(waits) == 1


def test_a_deletion_whose_answer_was_lost_is_no_error(waits: list[float]) -> None:
    with client(httpx.ReadError("cut"), refusal(404, "speaker_not_found")) as sayso:
        sayso.delete_speaker("alice")
    with client(refusal(404, "speaker_not_found")) as sayso, pytest.raises(NotFound):
        sayso.delete_speaker("alice")


def test_pages_are_followed() -> None:
    seen: list[httpx.Request] = []
    pages = [
        {"items": [{**examples.SPEAKER, "id": "a"}, {**examples.SPEAKER, "id": "b"}], "next_cursor": "Mg"},
        {"items": [{**examples.SPEAKER, "id": "c"}], "next_cursor": None},
    ]
    with client(*[httpx.Response(200, json=page) for page in pages], seen=seen) as sayso:
        assert [one.id for one in sayso.speakers(group="sales")] == ["a", "b", "c"]
    assert [dict(request.url.params).get("cursor") for request in seen] == [None, "Mg"]
    assert all(request.url.params["group"] == "sales" for request in seen)


def test_ids_are_quoted_and_lists_repeated() -> None:
    seen: list[httpx.Request] = []
    with client(speaker(), httpx.Response(200, json=examples.IDENTIFICATION), seen=seen) as sayso:
        sayso.speaker("../models")
        sayso.identify(b"wav", candidates=["a", "b"], top_k=3)
    assert seen[0].url.raw_path == b"/v1/speakers/..%2Fmodels"
    assert seen[1].url.params.get_list("candidates") == ["a", "b"]


@pytest.mark.parametrize("form", [bytes, str, Path, io.BytesIO])
def test_a_recording_is_bytes_a_path_or_a_file(form: Any, tmp_path: Path) -> None:
    path = tmp_path / "voice.wav"
    path.write_bytes(b"a voice")
    seen: list[httpx.Request] = []
    recording = {bytes: b"a voice", str: str(path), Path: path, io.BytesIO: io.BytesIO(b"a voice")}[form]
    with client(httpx.Response(200, json=examples.VERIFICATION), seen=seen) as sayso:
        assert sayso.verify("alice", recording).decision == "accept"
    assert seen[0].content == b"a voice"


def test_the_async_client_tries_again_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(seconds: float) -> None:
        pass

    monkeypatch.setattr("asyncio.sleep", at_once)
    answers: Iterator[httpx.Response] = iter([refusal(503, "not_ready"), speaker()])

    async def tour() -> None:
        transport = httpx.MockTransport(lambda request: next(answers))
        async with AsyncClient("http://sayso.test", "a-key", transport=transport) as sayso:
            assert (await sayso.speaker("alice")).groups == ["sales"]

    asyncio.run(tour())


PAIRS = [
    (models.Speaker, schemas.SpeakerOut),
    (models.SpeakerPage, schemas.SpeakerPage),
    (models.Enrollment, schemas.EnrollmentOut),
    (models.Audio, schemas.AudioOut),
    (models.ModelRef, schemas.ModelRef),
    (models.EnrollmentAdded, schemas.EnrollmentAdded),
    (models.Threshold, schemas.ThresholdOut),
    (models.IdentifyThreshold, schemas.IdentifyThreshold),
    (models.Template, schemas.TemplateOut),
    (models.Verification, schemas.Verification),
    (models.Candidate, schemas.CandidateOut),
    (models.Identification, schemas.Identification),
    (models.Comparison, schemas.Comparison),
    (models.Embedding, schemas.EmbeddingOut),
    (models.Model, schemas.ModelOut),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda model: model.__name__)
def test_every_field_of_the_service_has_a_name_here(ours: Any, theirs: Any) -> None:
    assert ours.model_fields.keys() == theirs.model_fields.keys()


def test_a_field_that_a_newer_service_adds_does_no_harm() -> None:
    with client(httpx.Response(200, json={**examples.SPEAKER, "shoe_size": 43})) as sayso:
        assert sayso.speaker("alice").model_extra == {"shoe_size": 43}


@pytest.mark.parametrize(
    ("theirs", "ours"), [("_async.py", "_sync.py"), ("_async_stream.py", "_sync_stream.py")]
)
def test_the_sync_client_is_the_async_one(theirs: str, ours: str) -> None:
    scope: dict[str, Any] = {"__file__": str(ROOT / "unasync.py"), "__name__": "unasync"}
    exec((ROOT / "unasync.py").read_text(), scope)
    synced: Callable[[str], str] = scope["synced"]
    made = synced((ROOT / "sayso_client" / theirs).read_text())
    assert made == (ROOT / "sayso_client" / ours).read_text(), "run python client/unasync.py"


def test_it_needs_nothing_of_the_service() -> None:
    code = (
        "import sys, sayso_client;"
        "rooms = {'sayso', 'numpy', 'onnxruntime', 'fastapi', 'websockets'};"
        "print(sorted(rooms & set(sys.modules)))"
    )
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
