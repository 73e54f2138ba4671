"""The WebSocket: what it says as audio arrives, and that its last word is that of a posted recording."""

import json
from collections.abc import Callable, Iterator
from typing import Any, get_args

import numpy as np
import pytest
from sounds import encode, voice_of
from starlette.websockets import WebSocketDisconnect

from sayso.runtime.live import ENCODINGS
from sayso.runtime.opus import OggPackets
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.routes.streaming import MAX_TEXT, Start

HEAD = 44  # bytes of a plain WAV header


def talk(
    service: Any, chunks: list[bytes], stop: bool = True, headers: dict[str, str] | None = None, **start: Any
) -> list[dict[str, Any]]:
    """Every message of one stream, the last one included."""
    first = {"type": "start", "call": "verify", "key": service.key, **start}
    messages = []
    with service.client.websocket_connect("/v1/stream", headers=headers or {}) as socket:
        socket.send_text(json.dumps({k: v for k, v in first.items() if v is not None}))
        messages.append(socket.receive_json())
        for chunk in chunks if messages[0]["type"] == "started" else []:
            socket.send_bytes(chunk)
            while True:
                messages.append(socket.receive_json())
                if messages[-1]["type"] in ("speech", "error"):
                    break
            if messages[-1]["type"] == "error":
                return messages
        if stop and messages[-1]["type"] != "error":
            socket.send_text('{"type": "stop"}')
        try:
            while True:
                messages.append(socket.receive_json())
        except WebSocketDisconnect:
            return messages


def cut(data: bytes, size: int = 3_200) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.fixture
def enrolled(make_service: Callable[..., Any]) -> Any:
    """A service that hears one recording as often as it likes, with somebody enrolled."""
    service = make_service(replay_days=0, attempts_before_delay=0)
    service.enrolled("ann", voice_of("ann", 1, 16))
    return service


def test_the_last_word_is_that_of_the_same_recording_posted(enrolled: Any) -> None:
    wav = voice_of("ann", 2, 7)
    posted = enrolled.post("/v1/speakers/ann/verify", content=wav).json()
    messages = talk(enrolled, cut(wav[HEAD:]), speaker_id="ann")
    last = messages[-1]
    assert (last["type"], last["final"], last["ended"]) == ("decision", True, "stopped")
    for field in ("decision", "score", "llr", "threshold", "template", "audio"):
        assert last["result"][field] == posted[field], field
    speech = [m for m in messages if m["type"] == "speech"]
    seconds = [m["net_speech_s"] for m in speech]
    assert seconds[-1] == pytest.approx(posted["audio"]["net_speech_s"], abs=0.1)
    assert speech[0]["remaining_speech_s"] == pytest.approx(1.5, abs=0.15)
    assert speech[-1]["remaining_speech_s"] == 0


def test_it_decides_while_audio_still_arrives_and_then_refines(enrolled: Any) -> None:
    messages = talk(enrolled, cut(voice_of("ann", 2, 9)[HEAD:]), speaker_id="ann")
    kinds = [m["type"] for m in messages]
    decisions = [m for m in messages if m["type"] == "decision"]
    assert kinds.index("decision") < len(kinds) // 2
    assert [d["final"] for d in decisions] == [False] * (len(decisions) - 1) + [True]
    assert 3 <= len(decisions) <= 6
    assert decisions[0]["after_enough_speech_ms"] > 0
    assert all(d["after_enough_speech_ms"] is None for d in decisions[1:])
    heard = [d["result"]["audio"]["net_speech_s"] for d in decisions]
    assert heard == sorted(heard)
    assert heard[0] >= 1.5
    assert {d["result"]["request_id"] for d in decisions} == {messages[0]["request_id"]}
    metrics = enrolled.get("/metrics").text
    assert 'sayso_stream_decision_seconds_count{call="verify",model="baseline"} 1.0' in metrics
    assert "sayso_streams 0.0" in metrics


def test_identify_and_enroll_stream_too(enrolled: Any) -> None:
    found = talk(enrolled, cut(voice_of("ann", 3, 6)[HEAD:]), call="identify")[-1]
    assert (found["result"]["speaker_id"], found["result"]["searched"]) == ("ann", 1)
    enrolled.post("/v1/speakers", json={"id": "bob"})
    messages = talk(enrolled, cut(voice_of("bob", 1, 6)[HEAD:]), call="enroll", speaker_id="bob")
    assert messages[0]["required_speech_s"] == 10.0
    last = messages[-1]
    assert (last["type"], last["final"], last["result"]["status"]) == ("enrolled", True, "enrolling")
    stored = enrolled.get("/v1/speakers/bob").json()
    assert stored["net_speech_s"] == last["result"]["net_speech_s"] > 4
    assert stored["remaining_speech_s"] == pytest.approx(messages[-2]["remaining_speech_s"], abs=0.1)


def _telephone(samples: np.ndarray, subtype: str) -> bytes:
    narrow = samples[::2].copy()  # the synthetic voice has nothing over 3.4 kHz worth a filter
    return encode(narrow, 8_000, "RAW", subtype)


def _encodings() -> Iterator[Any]:
    voice = synthetic_voice(12.0, 205.0, 1.16, seed=4)
    yield pytest.param(
        {"encoding": "mulaw", "sample_rate": 8000}, cut(_telephone(voice, "ULAW"), 160), id="mulaw"
    )
    yield pytest.param(
        {"encoding": "alaw", "sample_rate": 8000}, cut(_telephone(voice, "ALAW"), 160), id="alaw"
    )
    ogg = encode(voice, format="OGG", subtype="OPUS")
    yield pytest.param({"encoding": "ogg_opus"}, cut(ogg, 777), id="ogg")
    yield pytest.param({"encoding": "opus"}, OggPackets().packets(ogg), id="opus")
    pcm = encode(voice, format="RAW", subtype="PCM_16")
    yield pytest.param({"sample_rate": 16_000}, cut(pcm, 1_001), id="samples cut in two")


@pytest.mark.parametrize(("start", "chunks"), list(_encodings()))
def test_every_encoding_finds_its_speaker(enrolled: Any, start: dict[str, Any], chunks: list[bytes]) -> None:
    messages = talk(enrolled, chunks, speaker_id="ann", **start)
    last = messages[-1]
    assert last["type"] == "decision", last
    assert last["result"]["decision"] == "accept"
    narrow = start.get("sample_rate") == 8000
    assert last["result"]["audio"]["warnings"] == (["narrowband"] if narrow else [])
    assert last["result"]["audio"]["duration_s"] == pytest.approx(12.0, abs=0.03)


@pytest.mark.parametrize(
    ("start", "status", "code"),
    [
        ({"key": "wrong"}, 401, "key_invalid"),
        ({"key": None}, 401, "key_missing"),
        ({"speaker_id": "nobody"}, 404, "speaker_not_found"),
        ({"speaker_id": None}, 422, "invalid_request"),
        ({"model": "other"}, 404, "model_unknown"),
        ({"encoding": "aac"}, 422, "invalid_request"),
        ({"sample_rate": 100}, 415, "audio_sample_rate_unsupported"),
        ({"colour": "red"}, 422, "invalid_request"),
        ({"call": "identify", "top_k": 0}, 422, "invalid_request"),
    ],
)
def test_a_start_that_cannot_work_is_refused_as_over_http(
    enrolled: Any, start: dict[str, Any], status: int, code: str
) -> None:
    (message,) = talk(enrolled, [b"\0" * 320], **{"speaker_id": "ann", **start})
    assert message["type"] == "error"
    assert (message["problem"]["status"], message["problem"]["code"]) == (status, code)
    assert message["problem"]["instance"] == "/v1/stream"
    assert message["problem"]["request_id"]


def test_every_encoding_that_can_be_read_can_be_asked_for() -> None:
    assert set(get_args(Start.model_fields["encoding"].annotation)) == set(ENCODINGS)


def test_the_close_code_carries_the_status(enrolled: Any) -> None:
    with enrolled.client.websocket_connect("/v1/stream") as socket:
        socket.send_text('{"type": "start", "call": "identify", "key": "wrong"}')
        socket.receive_json()
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
    assert closed.value.code == 4401


def test_a_key_may_come_in_the_header_and_needs_the_scope(enrolled: Any) -> None:
    silence = [b"\0" * 32_000]
    header = {"Authorization": f"Bearer {enrolled.key}"}
    assert talk(enrolled, silence, headers=header, key=None, speaker_id="ann")[0]["type"] == "started"
    reader = enrolled.new_key("default", ("verify",))
    refused = talk(enrolled, [], key=reader, call="enroll", speaker_id="ann")[-1]
    assert refused["problem"]["code"] == "scope_missing"


def test_a_stream_without_any_audio_is_refused(enrolled: Any) -> None:
    for call in ("verify", "identify", "enroll"):
        for encoding in ENCODINGS:
            last = talk(enrolled, [], call=call, speaker_id="ann", encoding=encoding)[-1]
            assert (last["problem"]["status"], last["problem"]["code"]) == (400, "audio_empty")


def test_silence_gets_no_decision(enrolled: Any) -> None:
    messages = talk(enrolled, [b"\0" * 32_000] * 5, speaker_id="ann")
    assert [m["type"] for m in messages if m["type"] == "decision"] == []
    problem = messages[-1]["problem"]
    assert (problem["code"], problem["net_speech_s"], problem["required_speech_s"]) == (
        "too_little_speech",
        0,
        1.5,
    )


@pytest.mark.parametrize(
    ("data", "encoding"), [(b"not ogg at all", "ogg_opus"), (b"\xff", "opus"), (b"\x03\x00", "opus")]
)
def test_audio_that_is_none_is_refused(enrolled: Any, data: bytes, encoding: str) -> None:
    messages = talk(enrolled, [data], speaker_id="ann", encoding=encoding)
    assert messages[-1]["problem"]["code"] == "audio_undecodable"


@pytest.mark.parametrize("text", ["{", "[]", '{"type": "hello"}', '{"type": "start", "call": "verify"}'])
def test_text_that_is_no_stop_is_refused(enrolled: Any, text: str) -> None:
    with enrolled.client.websocket_connect("/v1/stream") as socket:
        socket.send_text(json.dumps({"type": "start", "call": "identify", "key": enrolled.key}))
        socket.receive_json()
        socket.send_text(text)
        assert socket.receive_json()["problem"]["status"] in (400, 422)


def test_memory_and_time_are_bounded(make_service: Callable[..., Any]) -> None:
    service = make_service(replay_days=0, max_stream_s=4.0, stream_idle_s=0.3, max_streams=1)
    service.enrolled("ann", voice_of("ann", 1, 16))
    long = voice_of("ann", 2, 30)[HEAD:]
    messages = talk(service, cut(long, 64_000)[:2], stop=False, speaker_id="ann")
    assert (messages[-1]["ended"], messages[-1]["result"]["audio"]["duration_s"]) == ("limit", 4.0)
    idle = talk(service, [], stop=False, speaker_id="ann")
    assert (idle[-1]["problem"]["code"], idle[-1]["problem"]["status"]) == ("stream_idle", 408)
    with service.client.websocket_connect("/v1/stream") as first:
        first.send_text(json.dumps({"type": "start", "call": "identify", "key": service.key}))
        assert first.receive_json()["type"] == "started"
        (refused,) = talk(service, [], call="identify")
        assert refused["problem"]["code"] == "overloaded"
    assert talk(service, [b"\0" * 32_000], speaker_id="ann")[0]["type"] == "started"
    huge = talk(service, [b"\0" * (2**20 + 2)], speaker_id="ann")
    assert huge[-1]["problem"]["code"] == "body_too_large"


def test_thirty_seconds_of_speech_are_enough(make_service: Callable[..., Any]) -> None:
    service = make_service()
    service.enrolled("ann", voice_of("ann", 1, 16))
    chunks = cut(voice_of("ann", 5, 40)[HEAD:], 32_000)
    messages, last = [], None
    with service.client.websocket_connect("/v1/stream") as socket:
        socket.send_text(
            json.dumps({"type": "start", "call": "verify", "key": service.key, "speaker_id": "ann"})
        )
        for chunk in chunks:
            socket.send_bytes(chunk)
        while last is None or not last.get("final"):
            last = socket.receive_json()
            messages.append(last)
    assert last["ended"] == "enough"
    assert 30 <= last["result"]["audio"]["net_speech_s"] <= 32


def test_a_busy_service_puts_a_decision_off(enrolled: Any) -> None:
    admission = enrolled.client.app.state.admission
    chunks = cut(voice_of("ann", 2, 7)[HEAD:])
    with enrolled.client.websocket_connect("/v1/stream") as socket:
        start = {"type": "start", "call": "verify", "key": enrolled.key, "speaker_id": "ann"}
        socket.send_text(json.dumps(start))
        admission.taken = admission.limit
        for chunk in chunks[:40]:
            socket.send_bytes(chunk)
        kinds = [socket.receive_json()["type"] for _ in range(41)]
        assert set(kinds) == {"started", "speech"}
        admission.taken = 0
        socket.send_bytes(chunks[40])
        assert [socket.receive_json()["type"] for _ in range(2)] == ["speech", "decision"]


def test_a_caller_who_leaves_frees_the_place(enrolled: Any) -> None:
    with enrolled.client.websocket_connect("/v1/stream") as socket:
        socket.send_text(json.dumps({"type": "start", "call": "identify", "key": enrolled.key}))
        assert socket.receive_json()["type"] == "started"
    assert enrolled.client.app.state.streams.taken == 0


def test_a_place_is_for_those_whose_key_is_good(make_service: Callable[..., Any]) -> None:
    """Who only connects, or shows no key, takes no place from those who may stream."""
    service = make_service(max_streams=1)
    with service.client.websocket_connect("/v1/stream"):  # and says nothing
        assert service.client.app.state.streams.taken == 0
        assert talk(service, [], call="identify", key="wrong")[0]["problem"]["status"] == 401
        assert talk(service, [], call="identify")[0]["type"] == "started"


def test_a_stream_ends_however_steadily_it_trickles(enrolled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sayso.service.routes.streaming.PATIENCE", 0)
    messages = talk(enrolled, [b"\0\0"], call="identify")
    assert messages[-1]["problem"]["code"] == "stream_too_slow"
    assert enrolled.client.app.state.streams.taken == 0


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x" * (MAX_TEXT + 1), "body_too_large"),
        (json.dumps({str(i): i for i in range(9_000)}), "invalid_request"),
        (json.dumps({"type": "start", "call": "verify", "speaker_id": "a" * 300}), "invalid_request"),
        (json.dumps({"type": "start", "call": "identify", "model": "a" * 300}), "invalid_request"),
        (json.dumps({"type": "start", "call": "identify", "candidates": ["a" * 300]}), "invalid_request"),
        ("[" * 100_000, "malformed_json"),
    ],
    ids=["long", "many fields", "long id", "long model", "long candidate", "deep"],
)
def test_a_start_is_small_and_refused_briefly(service: Any, text: str, code: str) -> None:
    with service.client.websocket_connect("/v1/stream") as socket:
        socket.send_text(text)
        answer = socket.receive_text()
    assert json.loads(answer)["problem"]["code"] == code
    assert len(answer) < 25_000
