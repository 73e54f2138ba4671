"""Verification is a password prompt: guesses are few, scores are not shown around, replays are refused."""

import io
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import soundfile as sf
from sounds import encode, voice_of

ANN = [voice_of("ann", 1), voice_of("ann", 2, 8)]


@pytest.fixture
def strict(make_service: Any) -> Any:
    """Only a voice that is all but identical passes, so that every other one is a failed guess."""
    service = make_service(
        thresholds={"baseline": 0.9999}, attempts_before_delay=2, attempts_before_lock=4, attempt_delay_s=60
    )
    service.enrolled("ann", *ANN)
    service.enrolled("bob", voice_of("bob", 1), voice_of("bob", 2, 8))
    return service


def guess(service: Any, path: str = "/v1/speakers/ann/verify", take: int = 3, seconds: float = 3.0) -> Any:
    return service.post(path, content=voice_of("dan", take, seconds))


class Clock:
    """Time that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = datetime.now(UTC).replace(microsecond=0)  # as precise as what is kept
        monkeypatch.setattr("sayso.enroll.clock.now", lambda: self.at)

    def wait(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def test_guesses_have_to_wait_and_then_lock(strict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert [guess(strict).status_code for _ in range(2)] == [200, 200]
    delayed = guess(strict)
    assert (delayed.status_code, delayed.json()["code"]) == (429, "attempts_delayed")
    assert delayed.headers["retry-after"] == "60"
    assert delayed.json()["retry_after_s"] == 60
    assert strict.post("/v1/speakers/bob/verify", content=voice_of("ann", 5)).status_code == 200
    clock.wait(59)
    assert guess(strict).headers["retry-after"] == "1"
    clock.wait(1)
    assert guess(strict).status_code == 200
    assert guess(strict).status_code == 429
    clock.wait(60)
    assert guess(strict).status_code == 200
    for _ in range(2):
        locked = guess(strict)
        assert (locked.status_code, locked.json()["code"]) == (409, "speaker_locked")
        clock.wait(10_000)
    assert strict.post("/v1/speakers/ann/unlock").status_code == 204
    assert guess(strict).status_code == 200
    assert strict.post("/v1/speakers/zed/unlock").json()["code"] == "speaker_not_found"


def test_a_lock_outlives_the_process(make_service: Any) -> None:
    limits = {"thresholds": {"baseline": 0.9999}, "attempts_before_lock": 1}
    first = make_service(**limits)
    first.enrolled("ann", *ANN)
    assert guess(first).json()["decision"] == "reject"
    assert guess(make_service(**limits)).json()["code"] == "speaker_locked"


def test_a_success_starts_anew(make_service: Any) -> None:
    service = make_service(thresholds={"baseline": -1.0}, attempts_before_delay=2)
    service.enrolled("ann", *ANN)
    attempts, limits = service.engine.attempts, service.engine.settings.attempt_limits
    attempts.failed("default", "ann", "a", limits)
    for take in (3, 4):  # everything is accepted here
        assert guess(service, take=take).json()["decision"] == "accept"
        attempts.failed("default", "ann", f"b{take}", limits)
    assert guess(service, take=5).status_code == 200


def test_listed_candidates_are_guesses_and_barred_ones_are_passed_over(strict: Any) -> None:
    listed = "/v1/identify?candidates=ann&candidates=bob"
    nearest = guess(strict, listed).json()["candidates"][0]["speaker_id"]
    other = {"ann": "bob", "bob": "ann"}[nearest]
    assert guess(strict, f"/v1/speakers/{nearest}/verify").status_code == 200
    assert guess(strict, listed).json()["code"] == "attempts_delayed"
    assert guess(strict, f"/v1/identify?candidates={other}").status_code == 200
    found = guess(strict, "/v1/identify").json()
    assert [c["speaker_id"] for c in found["candidates"]] == [other]


def test_a_search_of_everybody_locks_nobody(strict: Any) -> None:
    for take in range(6):
        assert guess(strict, "/v1/identify", take).status_code == 200
    assert guess(strict).status_code == 200


def test_what_is_never_compared_is_no_guess(strict: Any) -> None:
    for content in (b"nothing", voice_of("dan", 1, 0.5)):
        for _ in range(5):
            assert strict.post("/v1/speakers/ann/verify", content=content).status_code in (400, 422)
    assert guess(strict).status_code == 200


def test_a_recording_is_accepted_once(make_service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    service = make_service(thresholds={"baseline": -1.0})
    service.enrolled("ann", *ANN)
    service.enrolled("bob", voice_of("bob", 1), voice_of("bob", 2, 8))
    data = voice_of("ann", 3)
    samples, rate = sf.read(io.BytesIO(data))
    same = encode(samples, rate, format="FLAC")  # the same samples in another file
    verify = "/v1/speakers/ann/verify"
    assert service.post("/v1/identify?candidates=ann", content=data).status_code == 200
    assert service.post(verify, content=data).status_code == 200  # first identified, then verified
    for replay in (data, same, ANN[0], ANN[1]):
        for path in (verify, f"{verify}?model=baseline", "/v1/identify?candidates=ann"):
            answer = service.post(path, content=replay)
            assert (answer.status_code, answer.json()["code"]) == (409, "recording_replayed")
        service.post("/v1/speakers/ann/unlock")  # a replay is a failed guess
    assert service.post("/v1/speakers/bob/verify", content=data).status_code == 200  # somebody else's guess
    Clock(monkeypatch).wait(30 * 86_400 + 1)
    assert service.post(verify, content=data).status_code == 200
    assert service.post(verify, content=ANN[0]).json()["code"] == "recording_replayed"  # it is enrolled


def test_replays_count_as_guesses(make_service: Any) -> None:
    service = make_service(attempts_before_lock=2)
    service.enrolled("ann", *ANN)
    codes = [service.post("/v1/speakers/ann/verify", content=ANN[0]).json()["code"] for _ in range(3)]
    assert codes == ["recording_replayed", "recording_replayed", "speaker_locked"]


def test_a_retry_is_no_replay(make_service: Any) -> None:
    service = make_service(thresholds={"baseline": -1.0})
    service.enrolled("ann", *ANN)
    headers = {"Idempotency-Key": "abc"}
    data = voice_of("ann", 3)
    first = service.post("/v1/speakers/ann/verify", content=data, headers=headers)
    with service.engine.store._database.write() as connection:  # as after a crash
        connection.execute("DELETE FROM answers")
    again = service.post("/v1/speakers/ann/verify", content=data, headers=headers)
    assert again.json()["score"] == first.json()["score"]
    stolen = service.post("/v1/speakers/ann/verify", content=data, headers={"Idempotency-Key": "b"})
    assert stolen.json()["code"] == "recording_replayed"
    other = service.new_key("default")
    with service.engine.store._database.write() as connection:
        connection.execute("DELETE FROM answers")
    theirs = service.post("/v1/speakers/ann/verify", content=data, headers=headers, key=other)
    assert theirs.json()["code"] == "recording_replayed"


def test_one_retry_key_is_no_attempt_without_end(strict: Any) -> None:
    """Another recording under the same key is another guess, also where no answers are kept for retries."""
    headers = {"Idempotency-Key": "abc"}
    verify = "/v1/speakers/ann/verify"
    first = strict.post(verify, content=voice_of("dan", 3, 3), headers=headers)
    assert first.json()["decision"] == "reject"
    with strict.engine.store._database.write() as connection:  # a day later
        connection.execute("DELETE FROM answers")
    assert strict.post(verify, content=voice_of("dan", 4, 3), headers=headers).status_code == 200
    third = strict.post(verify, content=voice_of("dan", 5, 3), headers={"Idempotency-Key": "b"})
    assert third.json()["code"] == "attempts_delayed"

    profile = "49a36324-fc4b-4387-aa06-090cfbf0064f"
    strict.post("/v1/speakers", json={"id": profile, "groups": ["azure-verification"]})
    for data in ANN:
        strict.post(f"/v1/speakers/{profile}/enrollments", content=data)
    path = f"/speaker-recognition/verification/text-independent/profiles/{profile}:verify"
    answers = [
        strict.post(
            path,
            content=voice_of("dan", take, 3),
            headers={**headers, "Ocp-Apim-Subscription-Key": strict.key},
        )
        for take in (3, 4, 5)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["retry-after"] == "60"


def test_a_deleted_enrolment_is_forgotten_with_its_recording(service: Any) -> None:
    service.enrolled("ann", *ANN, voice_of("ann", 7))
    third = service.get("/v1/speakers/ann/enrollments").json()["items"][2]["id"]
    service.call("DELETE", f"/v1/speakers/ann/enrollments/{third}")
    assert service.post("/v1/speakers/ann/verify", content=voice_of("ann", 7)).status_code == 200
    service.call("DELETE", "/v1/speakers/ann")
    with service.engine.store._database.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM used_recordings").fetchone()[0] == 0


def test_used_recordings_are_bounded(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sayso.service.access.attempts.KEPT_PER_SPEAKER", 3)
    clock = Clock(monkeypatch)
    service.post("/v1/speakers", json={"id": "ann"})
    limits = service.engine.settings.attempt_limits
    for i in range(10):
        clock.wait(1)
        service.engine.attempts.succeeded("default", "ann", "verify", bytes([i]) * 32, f"{i}", limits)
    with service.engine.store._database.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM used_recordings").fetchone()[0] == 3


def test_scores_are_shown_to_their_scope_only(make_service: Any) -> None:
    service = make_service(replay_days=0)
    service.enrolled("ann", *ANN)
    service.enrolled("bob", voice_of("bob", 1), voice_of("bob", 2, 8))
    blind = service.new_key("default", ("verify", "read", "enroll"))
    sighted = service.new_key("default", ("verify", "scores"))
    pair = [("audio", ("1.wav", ANN[0])), ("audio", ("2.wav", ANN[1]))]
    for path, sent in (
        ("/v1/speakers/ann/verify", {"content": voice_of("dan", 4)}),
        ("/v1/identify", {"content": voice_of("dan", 4)}),
        ("/v1/compare", {"files": pair}),
    ):
        hidden = service.post(path, key=blind, **sent).json()
        shown = service.post(path, key=sighted, **sent).json()
        assert (hidden["score"], hidden["llr"]) == (None, None)
        assert isinstance(shown["score"], float)
        if path == "/v1/identify":
            assert hidden["margin"] is None
            assert shown["margin"] is not None
            assert [c["score"] for c in hidden["candidates"]] == [None] * len(hidden["candidates"])
            assert {c["speaker_id"] for c in hidden["candidates"]} <= {hidden["speaker_id"]}
            assert len(shown["candidates"]) == 2
    for key, cohesive in ((blind, False), (service.key, True)):
        listed = service.get("/v1/speakers/ann/enrollments", key=key).json()["items"]
        assert (listed[1]["cohesion"] is not None) == cohesive
    added = service.post("/v1/speakers/ann/enrollments", key=blind, content=voice_of("ann", 8)).json()
    assert added["enrollment"]["cohesion"] is None


def test_metrics_tell_scores_in_steps_of_a_tenth(service: Any) -> None:
    """/metrics needs no key unless told to: a sum would give the last score away."""
    service.enrolled("ann", *ANN)
    service.post("/v1/speakers/ann/verify", content=voice_of("dan", 4))
    text = service.get("/metrics", key=None).text
    assert 'sayso_score_count{call="verify",model="baseline"} 1.0' in text
    assert "sayso_score_sum" not in text


def test_what_a_proxy_sends_again_is_the_same_attempt(make_service: Any) -> None:
    service = make_service(thresholds={"baseline": -1.0})  # everything is accepted here
    service.enrolled("ann", *ANN)
    verify, data = "/v1/speakers/ann/verify", voice_of("ann", 3, 3)

    def sent(name: str, content: bytes = data, path: str = verify) -> Any:
        answer = service.post(path, content=content, headers={"Sayso-Attempt": name}).json()
        return answer.get("code") or answer["decision"]

    assert [sent("one"), sent("one")] == ["accept", "accept"]  # the first answer never arrived
    assert sent("two") == "recording_replayed"
    again = "/v1/models/compare?rounds=1&speaker_id=ann"
    assert service.post(again, content=data, headers={"Sayso-Attempt": "one"}).status_code == 200
    other = service.new_key("default")
    kept = {"content": data, "headers": {"Sayso-Attempt": "one"}, "key": other}
    assert service.post(verify, **kept).json()["code"] == "recording_replayed"


def test_another_recording_under_a_proxys_name_is_another_guess(strict: Any) -> None:
    named = {"Sayso-Attempt": "one"}
    for take in (3, 3, 4):
        answer = strict.post("/v1/speakers/ann/verify", content=voice_of("dan", take, 3), headers=named)
        assert answer.status_code == 200
    assert guess(strict).json()["code"] == "attempts_delayed"
    answer = strict.post("/v1/speakers/ann/verify", content=voice_of("dan", 5, 3), headers=named)
    assert answer.json()["code"] == "attempts_delayed"


def test_a_crash_after_an_enrolment_leaves_no_recording_to_replay(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The enrolment and what refuses its recording are one commit: nothing comes after it."""
    service.enrolled("ann", *ANN)
    store, data = service.engine.store, voice_of("ann", 7)
    with monkeypatch.context() as crashing:
        add = store.add_enrollment

        def crash(*args: Any) -> None:
            add(*args)
            raise RuntimeError("killed")

        crashing.setattr(store, "add_enrollment", crash)
        assert service.post("/v1/speakers/ann/enrollments", content=data).status_code == 500
    assert len(service.get("/v1/speakers/ann/enrollments").json()["items"]) == 3
    replayed = service.post("/v1/speakers/ann/verify", content=data)
    assert replayed.json()["code"] == "recording_replayed"


def test_guesses_at_once_are_as_few_as_guesses_in_a_row(make_service: Any) -> None:
    service = make_service(
        thresholds={"baseline": 0.9999},
        attempts_before_delay=5,
        attempt_delay_s=3600,
        max_concurrency=16,
        request_timeout_s=280,  # however busy the machine is
    )
    service.enrolled("ann", *ANN)
    for take in range(4):
        assert guess(service, take=take).status_code == 200
    with ThreadPoolExecutor(16) as pool:
        # Of 6 s: some takes of 3 s hold too little speech to be a guess.
        answers = list(pool.map(lambda take: guess(service, take=take, seconds=6.0), range(10, 26)))
    codes = [answer.json().get("code", "told") for answer in answers]
    assert (codes.count("told"), codes.count("attempts_delayed")) == (1, 15)
