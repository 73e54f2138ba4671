"""Consent, expiry, opting out, and seeing what is kept."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, recording, unit

from sayso.enroll import clock
from sayso.enroll.errors import InvalidField, SpeakerExists, SpeakerNotFound, SpeakerOptedOut
from sayso.enroll.search.index import index_of
from sayso.enroll.store import Store
from sayso.enroll.types import Consent
from sayso.service.access.answers import Answers

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`time.now` is what the store takes for the present."""

    class Time:
        now = NOW

    monkeypatch.setattr(clock, "now", lambda: Time.now)
    return Time


def test_consent_is_kept_as_given(store: Store) -> None:
    given = {"given_at": NOW.replace(year=2020), "reference": "form 7"}
    made = store.create_speaker("t", "alice", consent=given)
    assert made.consent == Consent("2020-01-01T12:00:00.000Z", "form 7")
    assert store.update_speaker(
        "t", "alice", consent={"given_at": NOW.replace(year=2021)}
    ).consent == Consent("2021-01-01T12:00:00.000Z", None)
    assert store.update_speaker("t", "alice", consent=None).consent is None


@pytest.mark.parametrize(
    "consent",
    [
        {},
        {"reference": "form"},
        {"given_at": "2020-01-01"},
        {"given_at": datetime(2020, 1, 1)},
        {"given_at": datetime(9000, 1, 1, tzinfo=UTC)},
        {"given_at": NOW.replace(year=2020), "reference": ""},
        {"given_at": NOW.replace(year=2020), "reference": 7},
        {"given_at": NOW.replace(year=2020), "reference": "x" * 201},
        {"given_at": NOW.replace(year=2020), "by": "me"},
    ],
)
def test_what_is_no_consent_is_refused(store: Store, consent: dict[str, object]) -> None:
    with pytest.raises(InvalidField, match="consent"):
        store.create_speaker("t", "alice", consent=consent)
    assert store.speakers("t").items == ()


@pytest.mark.parametrize("moment", [NOW, NOW - HOUR, datetime(2031, 1, 1)])
def test_an_expiry_lies_ahead(store: Store, time: Any, moment: datetime) -> None:
    with pytest.raises(InvalidField, match="expires_at"):
        store.create_speaker("t", "alice", expires_at=moment)


def test_an_expired_speaker_is_gone_at_once_and_erased_later(store: Store, path: Path, time: Any) -> None:
    index = index_of(store)
    for name, hours in (("alice", 1), ("bob", 2), ("carol", None)):
        store.create_speaker("t", name, groups=["g"], expires_at=hours and NOW + hours * HOUR)
        store.add_enrollment("t", name, recording(1, REQUIRED_S))
    assert index.search("t", MODEL, unit(1), 5)[1] == 3
    assert store.rights.expire() == 0
    for passed, left in ((1, ["bob", "carol"]), (2, ["carol"])):
        time.now = NOW + passed * HOUR
        assert [c.speaker_id for c in index.search("t", MODEL, unit(1), 5)[0]] == left
        assert [s.id for s in store.speakers("t").items] == left
        assert [s.id for s in store.speakers("t", group="g").items] == left
        with pytest.raises(SpeakerNotFound):
            index.search("t", MODEL, unit(1), 5, among=["alice"])
        for call in (
            lambda: store.speaker("t", "alice"),
            lambda: store.template("t", "alice", MODEL),
            lambda: store.enrollments("t", "alice"),
            lambda: store.add_enrollment("t", "alice", recording(2)),
            lambda: store.update_speaker("t", "alice", expires_at=None),
        ):
            with pytest.raises(SpeakerNotFound):
                call()
        assert index.check() == []
    assert b"alice" in path.with_name("sayso.db-wal").read_bytes() + path.read_bytes()
    assert store.rights.expire() == 2
    kept = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"alice" not in kept
    assert b"bob" not in kept
    assert [event.event for event in store.audit.events()][-2:] == ["speaker.expired"] * 2
    assert index.check() == []


def test_the_id_of_an_expired_speaker_is_free(store: Store, time: Any) -> None:
    store.create_speaker("t", "alice", "before", expires_at=NOW + HOUR)
    with pytest.raises(SpeakerExists):
        store.create_speaker("t", "alice")
    time.now = NOW + HOUR
    assert store.create_speaker("t", "alice", "after").name == "after"
    assert store.rights.expire() == 0


def test_an_expiry_can_be_put_off(store: Store, time: Any) -> None:
    index = index_of(store)
    store.create_speaker("t", "alice", expires_at=NOW + HOUR)
    store.add_enrollment("t", "alice", recording(1, REQUIRED_S))
    index.warm()
    assert (
        store.update_speaker("t", "alice", expires_at=NOW + 2 * HOUR).expires_at == "2030-01-01T14:00:00.000Z"
    )
    time.now = NOW + HOUR
    assert index.search("t", MODEL, unit(1), 5)[1] == 1
    assert store.update_speaker("t", "alice", expires_at=None).expires_at is None
    time.now = NOW + 3 * HOUR
    assert index.search("t", MODEL, unit(1), 5)[1] == 1


def test_an_opt_out_outlives_the_speaker(store: Store, path: Path) -> None:
    store.create_speaker("t", "alice")
    store.update_speaker("t", "alice", status="opted_out")
    store.delete_speaker("t", "alice")
    assert b"alice" not in b"".join(file.read_bytes() for file in path.parent.iterdir())
    with pytest.raises(SpeakerOptedOut):
        store.create_speaker("t", "alice")
    assert store.create_speaker("u", "alice").id == "alice"
    store.rights.opt_in("t", "alice")
    assert store.create_speaker("t", "alice").status == "enrolling"


def test_somebody_who_was_never_enrolled_can_opt_out(store: Store) -> None:
    store.rights.opt_out("t", "alice")
    with pytest.raises(SpeakerOptedOut):
        store.create_speaker("t", "alice")
    store.rights.opt_in("t", "alice")
    store.create_speaker("t", "alice")
    store.add_enrollment("t", "alice", recording(1, REQUIRED_S))
    store.rights.opt_out("t", "alice")
    assert store.speaker("t", "alice").status == "opted_out"
    store.rights.opt_in("t", "alice")
    assert store.speaker("t", "alice").status == "enrolled"
    with pytest.raises(InvalidField):
        store.rights.opt_out("t", "no id")


def test_everything_about_a_speaker_is_given_out_and_that_is_logged(store: Store) -> None:
    store.tenants.keep_recordings("t", True)
    store.create_speaker("t", "alice", "Alice", ["g"], {"a": 1})
    vectors = {MODEL: unit(1), OTHER_MODEL: unit(2, 8)}
    store.add_enrollment("t", "alice", replace(recording(0, REQUIRED_S, vectors), recording=b"RIFF"), "e1")
    Answers(store.database).remember("t", "t", "k", "f", 200, b'{"speaker_id":"alice"}')
    store.audit.note("verify", "t", "alice", decision="reject")
    found = store.rights.everything_about("t", "alice")
    json.dumps(found)
    assert found["speaker"]["name"] == "Alice"
    assert found["speaker"]["groups"] == ("g",)
    (enrolled,) = found["enrollments"]
    assert (enrolled["id"], base64.b64decode(enrolled["recording"])) == ("e1", b"RIFF")
    assert np.allclose(enrolled["embeddings"][OTHER_MODEL], vectors[OTHER_MODEL])
    assert {t["model_sha256"] for t in found["templates"]} == {MODEL, OTHER_MODEL}
    assert found["answers_for_retries"][0]["body"] == '{"speaker_id":"alice"}'
    assert [e["event"] for e in found["audit"]][-2:] == ["verify", "speaker.exported"]
    with pytest.raises(SpeakerNotFound):
        store.rights.everything_about("u", "alice")


@pytest.mark.parametrize("out", ["by id", "by a change"])
@pytest.mark.parametrize("back", ["by id", "by a change"])
def test_an_opt_out_that_is_withdrawn_is_withdrawn_for_good(store: Store, out: str, back: str) -> None:
    """However it was said and taken back: a speaker of that id can be deleted and created again."""
    store.create_speaker("t", "alice")
    if out == "by id":
        store.rights.opt_out("t", "alice")
    else:
        store.update_speaker("t", "alice", status="opted_out")
    assert store.speaker("t", "alice").status == "opted_out"
    if back == "by id":
        store.rights.opt_in("t", "alice")
    else:
        store.update_speaker("t", "alice", status="enrolling")
    store.delete_speaker("t", "alice")
    assert store.create_speaker("t", "alice").status == "enrolling"


def test_a_change_that_says_nothing_of_the_status_leaves_an_opt_out(store: Store) -> None:
    store.create_speaker("t", "alice")
    store.update_speaker("t", "alice", status="opted_out")
    assert store.update_speaker("t", "alice", name="Alice").status == "opted_out"
    store.delete_speaker("t", "alice")
    with pytest.raises(SpeakerOptedOut):
        store.create_speaker("t", "alice")
