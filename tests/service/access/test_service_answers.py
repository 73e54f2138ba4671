"""Answers given again: the same ones, for a day, unless they name somebody deleted."""

from datetime import UTC, datetime, timedelta

import pytest

from sayso.enroll import clock
from sayso.enroll.errors import IdempotencyKeyReused
from sayso.enroll.store import Store
from sayso.service.access.answers import Answers


def test_the_first_answer_stands(store: Store) -> None:
    answers = Answers(store.database)
    assert answers.answer("t POST /x", "k", "f") is None
    answers.remember("a", "t POST /x", "k", "f", 201, b"\x00one")
    answers.remember("a", "t POST /x", "k", "f", 200, b"two")
    found = answers.answer("t POST /x", "k", "f")
    assert found is not None
    assert (found.status, found.body) == (201, b"\x00one")
    assert answers.answer("u POST /x", "k", "f") is None


def test_another_request_under_the_key_is_refused(store: Store) -> None:
    Answers(store.database).remember("a", "t", "k", "f", 201, b"")
    with pytest.raises(IdempotencyKeyReused):
        Answers(store.database).answer("t", "k", "g")


def test_answers_last_a_day(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    start = datetime.now(UTC)
    monkeypatch.setattr(clock, "now", lambda: start)
    Answers(store.database).remember("a", "t", "k", "f", 201, b"one")
    monkeypatch.setattr(clock, "now", lambda: start + timedelta(hours=23, minutes=59))
    assert Answers(store.database).answer("t", "k", "f") is not None
    monkeypatch.setattr(clock, "now", lambda: start + timedelta(hours=24))
    assert Answers(store.database).answer("t", "k", "another") is None
    Answers(store.database).remember("a", "t", "k", "another", 200, b"two")
    found = Answers(store.database).answer("t", "k", "another")
    assert found is not None
    assert found.body == b"two"


def test_deleting_a_speaker_drops_the_answers_that_name_them(store: Store) -> None:
    for name in ("alice", "alice2"):
        store.create_speaker("t", name)
        body = f'{{"candidates":[{{"speaker_id":"{name}"}}]}}'.encode()
        Answers(store.database).remember("t", "t", name, "f", 200, body)
    store.delete_speaker("t", "alice")
    assert Answers(store.database).answer("t", "alice", "f") is None
    assert Answers(store.database).answer("t", "alice2", "f") is not None
