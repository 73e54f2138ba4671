"""Answers given again: the same ones, for a day, unless they name somebody deleted."""

from datetime import UTC, datetime, timedelta

import pytest

from sayso.enroll import clock
from sayso.enroll.errors import IdempotencyKeyReused
from sayso.enroll.store import Store


def test_the_first_answer_stands(store: Store) -> None:
    answers = store.answers
    assert answers.answer("t POST /x", "k", "f") is None
    answers.remember("a", "t POST /x", "k", "f", 201, b"\x00one")
    answers.remember("a", "t POST /x", "k", "f", 200, b"two")
    found = answers.answer("t POST /x", "k", "f")
    assert found is not None
    assert (found.status, found.body) == (201, b"\x00one")
    assert answers.answer("u POST /x", "k", "f") is None


def test_another_request_under_the_key_is_refused(store: Store) -> None:
    store.answers.remember("a", "t", "k", "f", 201, b"")
    with pytest.raises(IdempotencyKeyReused):
        store.answers.answer("t", "k", "g")


def test_answers_last_a_day(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    start = datetime.now(UTC)
    monkeypatch.setattr(clock, "now", lambda: start)
    store.answers.remember("a", "t", "k", "f", 201, b"one")
    monkeypatch.setattr(clock, "now", lambda: start + timedelta(hours=23, minutes=59))
    assert store.answers.answer("t", "k", "f") is not None
    monkeypatch.setattr(clock, "now", lambda: start + timedelta(hours=24))
    assert store.answers.answer("t", "k", "another") is None
    store.answers.remember("a", "t", "k", "another", 200, b"two")
    found = store.answers.answer("t", "k", "another")
    assert found is not None
    assert found.body == b"two"


def test_deleting_a_speaker_drops_the_answers_that_name_them(store: Store) -> None:
    for name in ("alice", "alice2"):
        store.create_speaker("t", name)
        body = f'{{"candidates":[{{"speaker_id":"{name}"}}]}}'.encode()
        store.answers.remember("t", "t", name, "f", 200, body)
    store.delete_speaker("t", "alice")
    assert store.answers.answer("t", "alice", "f") is None
    assert store.answers.answer("t", "alice2", "f") is not None
