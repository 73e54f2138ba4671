"""Examples for the OpenAPI document; a test checks each against its schema."""

from __future__ import annotations

from typing import Any

_MODEL = {
    "name": "baseline",
    "sha256": "5f0c9e7f1c1d4bfa8f7f1f0a3bb0c59d4be0c2f1b8a4e6f2f9d1c0b7a6e5d4c3",
    "provider": "CUDAExecutionProvider",
}
_AUDIO = {
    "duration_s": 5.1,
    "net_speech_s": 3.9,
    "snr_db": 27.2,
    "clipping": 0.0,
    "sample_rate": 48000,
    "band": "wide",
    "warnings": [],
}
_ANSWER = {
    "request_id": "0d2f7c1a9b8e4f6d8c3b2a1908f7e6d5",
    "timings_ms": {
        "queue": 0.1,
        "store": 0.2,
        "decode": 0.8,
        "speech": 1.9,
        "embed": 6.0,
        "search": 0.6,
        "total": 9.9,
    },
}
_THRESHOLD: dict[str, Any] = {
    "llr": 3.1,
    "score": None,
    "operating_point": "fmr=0.01",
    "source": "calibrated",
    "fmr": 0.01,
    "fnmr": 0.06,
    "cohort": 57,
    "outside": [],
}

SPEAKER: dict[str, Any] = {
    "id": "alice",
    "name": "Alice",
    "groups": ["sales"],
    "metadata": {"employee": 17},
    "status": "enrolled",
    "enrollments": 3,
    "net_speech_s": 31.4,
    "remaining_speech_s": 0.0,
    "consent": {"given_at": "2026-11-22T15:14:00.000Z", "reference": "form 2026-118"},
    "expires_at": "2028-11-22T00:00:00.000Z",
    "created_at": "2026-11-22T15:16:14.209Z",
    "updated_at": "2026-11-22T15:20:02.117Z",
}
ENROLLMENT_ADDED: dict[str, Any] = {
    "enrollment": {
        "id": "enr_4d7a1f0c2b3e5a697881",
        "speaker_id": "alice",
        "net_speech_s": 3.9,
        "duration_s": 5.1,
        "snr_db": 27.2,
        "clipping": 0.0,
        "created_at": "2026-11-22T15:16:20.005Z",
        "cohesion": None,
        "warnings": [],
    },
    "status": "enrolling",
    "net_speech_s": 3.9,
    "remaining_speech_s": 6.1,
    "audio": _AUDIO,
    "models": [_MODEL],
    **_ANSWER,
}
VERIFICATION: dict[str, Any] = {
    "decision": "accept",
    "reason": None,
    "score": 0.612,
    "llr": 5.3,
    "threshold": _THRESHOLD,
    "speaker_id": "alice",
    "template": {"enrollments": 3, "net_speech_s": 31.4},
    "audio": _AUDIO,
    "model": _MODEL,
    **_ANSWER,
}
IDENTIFICATION: dict[str, Any] = {
    "decision": "match",
    "reason": None,
    "speaker_id": "alice",
    "score": 0.742,
    "llr": 8.1,
    "margin": 7.7,
    "searched": 250,
    "not_compared": 0,
    "candidates": [
        {"speaker_id": "alice", "score": 0.742, "llr": 8.1, "rank": 1},
        {"speaker_id": "bob", "score": 0.432, "llr": 0.4, "rank": 2},
    ],
    "threshold": {
        "llr": 5.9,
        "score": None,
        "operating_point": "fpir=0.05",
        "source": "calibrated",
        "fpir": 0.05,
        "fmr": 0.000205,
        "extrapolated": True,
        "cohort": 249,
        "outside": [],
    },
    "audio": _AUDIO,
    "model": _MODEL,
    **_ANSWER,
}
COMPARISON: dict[str, Any] = {
    "decision": "reject",
    "reason": None,
    "score": 0.113,
    "llr": -6.4,
    "threshold": _THRESHOLD,
    "audio": [_AUDIO, _AUDIO],
    "model": _MODEL,
    **_ANSWER,
}
PROBLEM: dict[str, Any] = {
    "type": "urn:sayso:error:too_little_speech",
    "title": "Unprocessable Entity",
    "status": 422,
    "code": "too_little_speech",
    "detail": (
        "0.4 s of speech in 2.0 s of audio, 1.5 s are needed: record longer or closer to the microphone"
    ),
    "instance": "/v1/speakers/alice/verify",
    "request_id": _ANSWER["request_id"],
    "net_speech_s": 0.4,
    "required_speech_s": 1.5,
}
