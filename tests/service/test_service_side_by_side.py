"""Every model on one recording, in one call."""

from collections.abc import Callable
from typing import Any

import pytest
from sounds import voice_of

from sayso.runtime.errors import TookTooLong
from sayso.service.call import Call
from sayso.service.settings import SHIPPED_MODELS


@pytest.fixture
def both(make_service: Callable[..., Any]) -> Any:
    service = make_service(
        replay_days=0, models={n: SHIPPED_MODELS / f"{n}.onnx" for n in ("baseline", "nested")}
    )
    service.enrolled("ann", voice_of("ann", 1, 16))
    return service


def test_it_decides_as_each_model_does_alone(both: Any) -> None:
    data = voice_of("ann", 2, 7)
    answer = both.post("/v1/models/compare?speaker_id=ann&rounds=3", content=data).json()
    assert [one["model"] for one in answer["results"]] == ["nested", "baseline"]
    assert answer["study_ms"] == {"nested": 28.83, "baseline": 31.4}
    for one in answer["results"]:
        alone = both.post(f"/v1/speakers/ann/verify?model={one['model']}", content=data).json()
        assert one["verification"]["score"] == alone["score"]
        assert one["verification"]["decision"] == alone["decision"]
        assert one["verification"]["timings_ms"].keys() >= {"speech", "embed", "total"}
        assert one["identification"] is None
        assert (len(one["embed_ms"]), one["windows"]) == (3, 3)
    assert len({one["verification"]["request_id"] for one in answer["results"]}) == 1


def test_it_identifies_without_a_speaker(both: Any) -> None:
    answer = both.post("/v1/models/compare", content=voice_of("ann", 2, 7)).json()
    for one in answer["results"]:
        assert one["identification"]["candidates"][0]["speaker_id"] == "ann"
        assert (one["verification"], len(one["embed_ms"])) == (None, 5)


@pytest.mark.parametrize(
    ("query", "code"), [("?rounds=0", "invalid_request"), ("?speaker_id=nobody", "speaker_not_found")]
)
def test_what_it_refuses(both: Any, query: str, code: str) -> None:
    assert both.post(f"/v1/models/compare{query}", content=voice_of("ann", 2)).json()["code"] == code


@pytest.fixture
def strict(make_service: Callable[..., Any]) -> Any:
    """Locks a speaker at the first failure and accepts no recording twice."""
    service = make_service(
        attempts_before_lock=1, models={n: SHIPPED_MODELS / f"{n}.onnx" for n in ("baseline", "nested")}
    )
    service.enrolled("ann", voice_of("ann", 1, 16))
    return service


def test_it_neither_uses_a_recording_up_nor_refuses_a_used_one(strict: Any) -> None:
    data = voice_of("ann", 2, 7)
    look = "/v1/models/compare?rounds=1&speaker_id=ann"
    decided = [strict.post(look, content=data).json()["results"] for _ in range(2)]
    assert [[r["verification"]["decision"] for r in results] for results in decided] == [["accept"] * 2] * 2
    verify = "/v1/speakers/ann/verify"
    assert strict.post(verify, content=data).json()["decision"] == "accept"
    assert strict.post(verify, content=data).json()["code"] == "recording_replayed"
    assert strict.post(look, content=data).status_code == 200


def test_it_counts_no_attempt(strict: Any) -> None:
    look = "/v1/models/compare?rounds=1&speaker_id=ann"
    for _ in range(3):
        assert strict.post(look, content=voice_of("dan", 1, 7)).status_code == 200
    assert (
        strict.post("/v1/speakers/ann/verify", content=voice_of("ann", 2, 7)).json()["decision"] == "accept"
    )


def test_it_is_for_those_who_may_see_scores(strict: Any) -> None:
    key = strict.new_key("default", ("read", "verify", "enroll"))
    answer = strict.post("/v1/models/compare?rounds=1", content=voice_of("ann", 2, 7), key=key)
    assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


def test_rounds_end_with_the_time(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"content": voice_of("ann", 3)}
    for left_s, rounds in ((20.0, 3), (14.0, 1)):  # of 30 s
        monkeypatch.setattr(Call, "left_s", lambda self, left_s=left_s: left_s)
        answer = both.post("/v1/models/compare?rounds=3", **asked)
        assert answer.status_code == 200, answer.text
        assert [len(each["embed_ms"]) for each in answer.json()["results"]] == [rounds] * 2


def test_a_request_out_of_time_ends_the_rounds(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def left_s(call: Call) -> float:
        calls.append(1)
        if len(calls) > 10:
            raise TookTooLong("the request was not done")
        return 30.0

    monkeypatch.setattr(Call, "left_s", left_s)
    answer = both.post("/v1/models/compare?rounds=20", content=voice_of("ann", 3))
    assert (answer.status_code, answer.json()["code"]) == (503, "took_too_long")
