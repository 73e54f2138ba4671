"""Bad input: the right status, a stable code, a sentence to act on, and a service that goes on."""

import base64
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sounds import encode

from sayso.runtime.batcher import Batcher
from sayso.runtime.card import ModelCard, read_card, with_card
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.access.keys import SCOPES
from sayso.service.settings import SHIPPED_MODELS, only_models

RATE = 16_000
SPEECH = synthetic_voice(4.0, 165.0, 1.08)
DATA_URL = b"data:audio/wav;base64," + base64.b64encode(encode(SPEECH))


def with_bad_sample(value: float) -> bytes:
    samples = SPEECH.copy()
    samples[1000] = value
    return encode(samples, subtype="FLOAT")


def header_claims(size: int) -> bytes:
    """A WAV whose data chunk announces `size` bytes."""
    whole = encode(SPEECH)
    at = whole.index(b"data") + 4
    return whole[:at] + struct.pack("<I", size) + whole[at + 4 :]


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"x": value}
    return value


NOISE = 0.1 * np.random.default_rng(0).standard_normal(5 * RATE)
REFUSED = {
    "empty body": (b"", 400, "audio_empty"),
    "text": (b"these are not, by the way, the samples: look elsewhere. " * 50, 400, "audio_undecodable"),
    "header only": (encode(SPEECH)[:44], 400, "audio_truncated"),
    "truncated WAV": (encode(SPEECH)[:60_000], 400, "audio_truncated"),
    "a second more announced": (header_claims(len(SPEECH) * 2 + RATE * 2), 400, "audio_truncated"),
    "truncated FLAC": (encode(SPEECH, format="FLAC")[:3000], 400, "audio_undecodable"),
    "no samples": (encode(SPEECH[:0]), 400, "audio_empty"),
    "0.2 s": (encode(SPEECH[: RATE // 5]), 422, "too_little_speech"),
    "20 s of silence": (encode(np.zeros(20 * RATE)), 422, "too_little_speech"),
    "white noise": (encode(NOISE), 422, "too_little_speech"),
    "NaN": (with_bad_sample(np.nan), 400, "audio_not_finite"),
    "infinite": (with_bad_sample(np.inf), 400, "audio_not_finite"),
    "9 channels": (encode(np.tile(SPEECH[:, None], 9)), 422, "audio_too_many_channels"),
    "4 kHz": (encode(SPEECH[::4], 4000), 415, "audio_sample_rate_unsupported"),
    "clipped": (encode(np.clip(SPEECH * 30, -1, 1)), 422, "too_clipped"),
    "over the length limit": (encode(np.tile(SPEECH, 6)), 413, "audio_too_long"),
    "over the size limit": (b"x" * 2_000_001, 413, "body_too_large"),
}


@pytest.fixture
def limited(make_service: Any) -> Any:
    return make_service(max_audio_s=20.5, max_body_bytes=2_000_000)


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("path", ["/v1/speakers/ann/enrollments", "/v1/identify", "/v1/embeddings"])
def test_bad_recordings(limited: Any, path: str, name: str) -> None:
    data, status, code = REFUSED[name]
    limited.post("/v1/speakers", json={"id": "ann"})
    answer = limited.post(path, content=data)
    assert_problem(answer, status, code)
    if status == 422 and code.startswith("too_"):
        assert answer.json()["required_speech_s"] == 1.5
        assert answer.json()["net_speech_s"] >= 0
    good = limited.post("/v1/speakers/ann/enrollments", content=encode(SPEECH))
    assert good.status_code == 201  # and the service goes on


ACCEPTED = {
    "8 kHz": (encode(synthetic_voice(4.0, 165.0, 1.08)[::2], 8000), 8000, ["narrowband"]),
    "192 kHz": (encode(np.repeat(SPEECH, 12), 192_000), 192_000, []),
    "8 channels": (encode(np.tile(SPEECH[:, None], 8)), RATE, ["downmixed"]),
    "MP3": (encode(SPEECH, format="MP3"), RATE, []),
    "FLAC": (encode(SPEECH, format="FLAC"), RATE, []),
    "Ogg Opus": (encode(SPEECH, format="OGG", subtype="OPUS"), RATE, []),
    "Ogg Vorbis": (encode(SPEECH, format="OGG", subtype="VORBIS"), RATE, []),
    "mu-law": (encode(SPEECH[::2], 8000, subtype="ULAW"), 8000, ["narrowband"]),
    "streamed WAV": (header_claims(0xFFFFFFFF), RATE, []),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_usable_recordings(service: Any, name: str) -> None:
    data, rate, warnings = ACCEPTED[name]
    answer = service.post("/v1/embeddings", content=data)
    assert answer.status_code == 200, answer.text
    audio = answer.json()["audio"]
    assert audio["sample_rate"] == rate
    assert [w for w in audio["warnings"] if w in ("narrowband", "downmixed")] == warnings
    assert audio["duration_s"] == pytest.approx(4.0, abs=0.1)


def test_noise_over_speech_is_refused_where_the_limit_says_so(make_service: Any) -> None:
    service = make_service(min_snr_db=20.0)
    noise = 0.02 * np.random.default_rng(0).standard_normal(len(SPEECH))
    answer = service.post("/v1/embeddings", content=encode(SPEECH + noise))
    assert_problem(answer, 422, "too_noisy")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/v1/speakers/nobody", {}, 404, "speaker_not_found"),
        ("POST", "/v1/speakers/nobody/verify", {"content": encode(SPEECH)}, 404, "speaker_not_found"),
        ("POST", "/v1/speakers/nobody/enrollments", {"content": encode(SPEECH)}, 404, "speaker_not_found"),
        ("DELETE", "/v1/speakers/ann/enrollments/none", {}, 404, "enrollment_not_found"),
        ("POST", "/v1/identify?model=none", {"content": encode(SPEECH)}, 404, "model_unknown"),
        ("GET", "/v1/nowhere", {}, 404, "not_found"),
        ("PUT", "/v1/speakers/ann", {}, 405, "method_not_allowed"),
        ("POST", "/v1/speakers", {"json": {"id": "ann"}}, 409, "speaker_exists"),
        ("POST", "/v1/speakers", {"json": {"id": "../etc"}}, 422, "invalid_field"),
        ("POST", "/v1/speakers", {"json": {"surname": "x"}}, 422, "invalid_request"),
        ("POST", "/v1/speakers", {"json": {"metadata": {"x": "y" * 9000}}}, 422, "invalid_field"),
        ("POST", "/v1/speakers", {"content": b'{"id": '}, 400, "malformed_json"),
        ("POST", "/v1/speakers", {"content": b"\xff\xfe"}, 400, "malformed_json"),
        ("POST", "/v1/speakers", {"json": {"metadata": nested(500)}}, 422, "invalid_field"),
        ("POST", "/v1/speakers", {"json": {"metadata": {"x": "y" * 70_000}}}, 413, "body_too_large"),
        ("POST", "/v1/identify?candidates=ann%00x", {"content": encode(SPEECH)}, 404, "speaker_not_found"),
        ("GET", "/v1/speakers?limit=0", {}, 422, "invalid_request"),
        ("GET", "/v1/speakers?cursor=%00", {}, 422, "invalid_field"),
        ("POST", "/v1/compare", {"content": encode(SPEECH)}, 415, "multipart_required"),
        ("POST", "/v1/compare", {"files": {"audio": encode(SPEECH)}}, 422, "audio_missing"),
        ("POST", "/v1/identify", {"json": {"audio": "x"}}, 415, "audio_is_text"),
        ("POST", "/v1/identify", {"content": base64.b64encode(encode(SPEECH))}, 415, "audio_is_text"),
        ("POST", "/v1/identify", {"files": {"audio": DATA_URL}}, 415, "audio_is_text"),
        ("POST", "/v1/identify", {"data": {"audio": "voice.wav"}}, 415, "audio_is_text"),
        ("POST", "/v1/identify", {"files": {str(i): b"x" for i in range(21)}}, 400, "malformed_multipart"),
        ("POST", "/v1/identify", {"files": {"sound": encode(SPEECH)}}, 422, "audio_missing"),
        (
            "POST",
            "/v1/identify",
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
            400,
            "malformed_multipart",
        ),
        (
            "POST",
            "/v1/identify",
            {
                "content": b"x",
                "headers": {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"},
            },
            400,
            "malformed_multipart",
        ),
    ],
)
def test_bad_requests(
    service: Any, method: str, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    service.post("/v1/speakers", json={"id": "ann"})
    headers = {"Content-Type": "application/json"} if path.endswith("/speakers") else {}
    answer = service.call(method, path, **{"headers": headers, **body})
    assert_problem(answer, status, code)


def routes(service: Any) -> list[tuple[str, str]]:
    """Every call of the OpenAPI document that needs a key, with ids filled in."""
    paths = service.client.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path.format(speaker_id="ann", enrollment_id="none"))
        for path, methods in paths.items()
        for method, call in methods.items()
        if call.get("security")
    ]


def test_every_route_refuses_without_a_good_key(service: Any) -> None:
    revoked, text = service.engine.keys.create_key("default", SCOPES, "old")
    service.engine.keys.revoke_key(revoked.id)
    guarded = routes(service)
    assert len(guarded) == 16
    for method, path in guarded:
        assert_problem(service.call(method, path, key=None), 401, "key_missing")
        for bad in ("sayso_00000000_" + "x" * 43, "nonsense", text, service.key + "x"):
            answer = service.call(method, path, key=bad)
            assert_problem(answer, 401, "key_invalid")
            assert answer.headers["www-authenticate"] == "Bearer"


def test_every_route_refuses_without_the_scope(service: Any) -> None:
    scopes = ("read", "enroll", "verify", "embed", "scores")
    keys = {scope: service.new_key("default", (scope,)) for scope in scopes}
    for method, path in routes(service):
        # An empty recording stops the call right after the scope was found good.
        statuses = {
            scope: service.call(method, path, key=key, content=b"").status_code for scope, key in keys.items()
        }
        refused = 5 if path.endswith("/export") else 4  # everything kept on somebody is for admins alone
        assert list(statuses.values()).count(403) == refused, (method, path, statuses)


def test_a_model_without_calibration_refuses_to_decide(make_service: Any, tmp_path: Path) -> None:
    content = (SHIPPED_MODELS / "baseline.onnx").read_bytes()
    card = read_card(content, "baseline")
    bare = ModelCard(**{**vars(card), "calibration": None})
    path = tmp_path / "bare.onnx"
    path.write_bytes(with_card(content, bare))
    service = make_service(models=only_models({"bare": path}))
    service.enrolled("ann", encode(synthetic_voice(16)))
    for call in ("/v1/speakers/ann/verify", "/v1/identify"):
        answer = service.post(call, content=encode(SPEECH))
        assert_problem(answer, 409, "model_not_calibrated")
        assert "sayso calibrate" in answer.json()["detail"]
    assert service.post("/v1/embeddings", content=encode(SPEECH)).status_code == 200
    on_purpose = make_service(models=only_models({"bare": path}), thresholds={"bare": 0.5})
    answer = on_purpose.post("/v1/speakers/ann/verify", content=encode(SPEECH)).json()
    assert (answer["threshold"]["score"], answer["threshold"]["source"]) == (0.5, "setting")
    assert answer["llr"] is None
    assert answer["threshold"]["fmr"] is None


def patched(service: Any, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any, Any], Any]) -> None:
    """Let `change` do each run of the baseline: it gets the session's own run, and the windows."""
    embedder = service.engine.models["baseline"].embedder
    for session in {embedder._wide, embedder._narrow}:
        monkeypatch.setattr(session, "run", partial(change, session.run))


def test_a_poisoned_model_fails_its_own_request_only(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service.post("/v1/speakers", json={"id": "ann"})
    with monkeypatch.context() as poisoned:
        patched(service, poisoned, lambda run, windows: run(windows) * np.nan)
        assert_problem(service.post("/v1/embeddings", content=encode(SPEECH)), 500, "embedding_failed")
    assert service.post("/v1/embeddings", content=encode(SPEECH)).status_code == 200


@pytest.mark.parametrize("poison", ["nan", "raises", "drops"])
def test_a_poisoned_recording_fails_alone(service: Any, monkeypatch: pytest.MonkeyPatch, poison: str) -> None:
    """Two callers share a batch, as on a GPU, and the model chokes on one of their voices."""
    takes = [encode(synthetic_voice(4.5, pitch, seed=1)) for pitch in (130.0, 170.0)]
    alone = [service.post("/v1/embeddings", content=take).json()["embedding"] for take in takes]
    heard: list[np.ndarray] = []
    with monkeypatch.context() as listening:
        patched(service, listening, lambda run, windows: heard.append(windows.copy()) or run(windows))
        service.post("/v1/embeddings", content=takes[1])
    poisoned = heard[0][0]
    embedder = service.engine.models["baseline"].embedder
    sizes: list[int] = []
    both_wait = threading.Event()

    def choking(windows: np.ndarray) -> np.ndarray:
        assert both_wait.wait(30.0)
        sizes.append(len(windows))
        bad = (windows == poisoned).all(axis=1)
        vectors = embedder._narrow.run(windows)
        if bad.any() and poison == "raises":
            raise RuntimeError("choked")
        if bad.any() and poison == "drops":
            return vectors[~bad]
        vectors[bad] = np.nan
        return vectors

    class Counting(Batcher):
        submitted = 0

        def submit(self, windows: np.ndarray) -> Any:
            future = super().submit(windows)
            self.submitted += 1
            if self.submitted == 3:
                both_wait.set()
            return future

    batcher = Counting(choking)
    batcher.submit(np.zeros((1, len(poisoned)), np.float32))  # holds the worker while the others queue up
    with monkeypatch.context() as shared, ThreadPoolExecutor(2) as pool:
        shared.setattr(embedder, "_batcher", batcher)
        answers = list(pool.map(lambda take: service.post("/v1/embeddings", content=take), takes))
    batcher.close()
    each = len(heard[0])
    assert sizes[:2] == [1, 2 * each]
    assert answers[0].json()["embedding"] == pytest.approx(alone[0], abs=1e-5)
    assert_problem(answers[1], 500, "embedding_failed")
    assert service.post("/v1/embeddings", content=takes[1]).status_code == 200


def test_a_bug_of_ours_is_a_problem_document_too(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.engine.store, "speakers", lambda *args: 1 / 0)
    assert_problem(service.get("/v1/speakers"), 500, "internal_error")
    assert 'status="500"} 1.0' in service.get("/metrics").text


def test_readiness_tries_a_whole_window(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shorter one would stay on the CPU, and a GPU that has died would look well."""
    shapes: list[tuple[int, ...]] = []
    patched(service, monkeypatch, lambda run, windows: shapes.append(windows.shape) or run(windows))
    service.engine.check()
    assert shapes == [(1, service.engine.models["baseline"].embedder.card.window_samples)]


def test_readiness_says_so_when_the_store_is_gone(service: Any) -> None:
    service.engine.store.close()
    answer = service.get("/readyz", key=None)
    assert_problem(answer, 503, "not_ready")
    assert int(answer.headers["retry-after"]) > 0


def test_readiness_says_so_when_the_file_is_damaged(service: Any) -> None:
    service.engine.damage = ["page 3 is never used"]
    assert_problem(service.get("/readyz", key=None), 503, "not_ready")


def assert_problem(answer: Any, status: int, code: str) -> None:
    """One shape for every error."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), body
    assert body["type"] == f"urn:sayso:error:{code}"
    assert body["title"]
    assert body["request_id"] == answer.headers["x-request-id"]
    assert len(body["detail"]) > 10


def test_a_channel_can_be_chosen(service: Any) -> None:
    ann, bob = synthetic_voice(5.0, 205.0, 1.16), synthetic_voice(5.0, 120.0, 1.0)
    both = np.stack([np.append(ann, 0 * bob), np.append(0 * ann, bob)], axis=1)
    call = encode(both)
    vectors, warnings = {}, {}
    for channel in ("mix", "left", "right", "1", "2"):
        answer = service.post(f"/v1/embeddings?channel={channel}", content=call).json()
        vectors[channel], warnings[channel] = np.array(answer["embedding"]), answer["audio"]["warnings"]
    assert {"downmixed", "channels_differ"} <= set(warnings["mix"])
    assert "channels_differ" not in warnings["left"] + warnings["right"]
    np.testing.assert_array_equal(vectors["left"], vectors["1"])
    np.testing.assert_array_equal(vectors["right"], vectors["2"])
    assert vectors["left"] @ vectors["right"] < vectors["left"] @ vectors["1"] - 0.05
    assert_problem(service.post("/v1/embeddings?channel=3", content=call), 422, "audio_channel_missing")
    assert_problem(service.post("/v1/embeddings?channel=9", content=call), 422, "invalid_field")
    form = {"audio": ("call.wav", call, "audio/wav")}
    answer = service.post("/v1/embeddings?channel=right", files=form).json()
    np.testing.assert_array_equal(answer["embedding"], vectors["right"])


def test_samples_without_a_container_come_by_their_content_type(service: Any) -> None:
    raw = encode(SPEECH, format="RAW", subtype="PCM_16")
    expected = service.post("/v1/embeddings", content=encode(SPEECH)).json()["embedding"]
    headers = {"Content-Type": "audio/pcm;rate=16000"}
    assert service.post("/v1/embeddings", content=raw, headers=headers).json()["embedding"] == expected
    form = {"audio": ("voice.raw", raw, "audio/pcm;rate=16000")}
    assert service.post("/v1/embeddings", files=form).json()["embedding"] == expected
    assert_problem(service.post("/v1/embeddings", content=raw), 400, "audio_undecodable")
