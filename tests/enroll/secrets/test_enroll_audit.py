"""What the log holds, that nobody can rewrite it unseen, and what a kill can cost of it."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from enroll_samples import MODEL, REQUIRED_S, recording, unit

from sayso.enroll.errors import SpeakerExists, StoreUnavailable
from sayso.enroll.secrets import audit as audit_module
from sayso.enroll.secrets.transaction import acting
from sayso.enroll.store import Store

Opener = Callable[..., Store]


def life_of(store: Store, name: str = "alice") -> None:
    store.create_speaker("t", name, "Alice Anonymous", metadata={"secret": "note"})
    store.add_enrollment("t", name, recording(1, REQUIRED_S), "enrollmentid")
    store.update_speaker("t", name, groups=["g"])
    store.delete_enrollment("t", name, "enrollmentid")
    store.delete_speaker("t", name)


def entries(path: Path) -> list[tuple[int, str, bytes]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM audit ORDER BY number").fetchall()


def tamper(path: Path, *statements: str) -> None:
    """Change the log as somebody with the file and no respect for triggers would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER audit_keeps")
        connection.execute("DROP TRIGGER audit_stands")
        for statement in statements:
            connection.execute(statement)


def test_every_change_is_logged_with_who_did_it(store: Store) -> None:
    with acting("key:0a1b2c3d"):
        life_of(store)
    events = store.audit.events()
    assert [event.event for event in events] == [
        "speaker.created",
        "enrollment.added",
        "speaker.updated",
        "enrollment.deleted",
        "speaker.deleted",
    ]
    assert {(event.tenant, event.actor) for event in events} == {("t", "key:0a1b2c3d")}
    assert len({event.speaker for event in events}) == 1
    assert [event.number for event in events] == [1, 2, 3, 4, 5]
    assert events[2].facts == {"changed": ["groups"]}
    report = store.audit.verify()
    assert (report.entries, report.broken) == (5, None)


def test_it_holds_no_name_no_id_and_no_vector(store: Store, path: Path) -> None:
    life_of(store)
    store.audit.note("verify", "t", "alice", decision="accept")
    store.close()
    text = "".join(entry for _, entry, _ in entries(path))
    for secret in (
        "alice",
        "Alice",
        "Anonymous",
        "secret",
        "note",
        "enrollmentid",
        str(float(unit(1)[0]))[:8],
    ):
        assert secret not in text.replace('"event":"verify"', "")
    assert json.loads(entries(path)[-1][1])["facts"] == {"decision": "accept"}


def test_a_speakers_entries_can_be_found_even_after_their_deletion(store: Store) -> None:
    life_of(store)
    life_of(store, "bob")
    store.create_speaker("u", "alice")
    assert len(store.audit.events("t", "alice")) == 5
    assert len(store.audit.events("t")) == 10
    assert len(store.audit.events("u", "alice")) == 1
    assert store.audit.events("nobody", "alice") == store.audit.events("t", "carol") == []
    assert [e.number for e in store.audit.events(after=4, limit=2)] == [5, 6]
    store.tenants.delete("t")
    assert store.audit.events("t", "alice") == []  # the key of the pseudonyms is gone
    assert len(store.audit.events("t")) == 11


def test_what_was_refused_is_not_logged_as_done(store: Store) -> None:
    store.create_speaker("t", "alice")
    with pytest.raises(SpeakerExists):
        store.create_speaker("t", "alice")
    assert len(store.audit.events()) == 1


def test_it_only_grows(store: Store, path: Path) -> None:
    life_of(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in (
            "DELETE FROM audit",
            "UPDATE audit SET entry = '{}'",
            "DELETE FROM audit WHERE number = 5",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "broken"),
    [
        (
            "UPDATE audit SET entry = replace(entry, 'added', 'praised') WHERE number = 2",
            2,
        ),
        ("UPDATE audit SET mac = zeroblob(32) WHERE number = 3", 3),
        ("DELETE FROM audit WHERE number = 1", 1),
        ("DELETE FROM audit WHERE number = 3", 3),
        ("UPDATE audit SET number = 99 WHERE number = 5", 5),
        ("INSERT INTO audit SELECT 6, entry, mac FROM audit WHERE number = 5", 6),
        ("DELETE FROM audit", 0),
    ],
)
def test_tampering_is_found(store: Store, path: Path, statement: str, broken: int) -> None:
    life_of(store)
    head = store.audit.verify()
    tamper(path, statement)
    report = store.audit.verify()
    assert report.broken == (broken or None)
    assert store.audit.verify((head.entries, head.head)).broken is not None


def test_cutting_off_the_end_is_found_by_a_head_noted_before(store: Store, path: Path) -> None:
    life_of(store)
    head = store.audit.verify()
    assert store.audit.verify((head.entries, head.head)).broken is None
    tamper(path, "DELETE FROM audit WHERE number > 3")
    assert store.audit.verify().broken is None  # the chain itself cannot tell
    assert store.audit.verify((head.entries, head.head)).broken == 4
    store.create_speaker("t", "x")
    store.create_speaker("t", "y")
    assert store.audit.verify((head.entries, head.head)).broken == 5


def test_decisions_are_written_together_and_at_closing(store: Store, opened: Opener) -> None:
    for number in range(10):
        store.audit.note("verify", "t", "alice", decision="accept", turn=number)
    store.create_speaker("t", "bob")
    store.close()
    with opened() as again:
        found = [event for event in again.audit.events() if event.event == "verify"]
        assert [event.facts["turn"] for event in found] == list(range(10))
        assert again.audit.verify().broken is None


def test_decisions_are_written_by_themselves(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "WRITE_AFTER_S", 0.01)
    store.audit.note("verify", "t", "alice", decision="accept")
    while not entries(path):
        pass


def test_decisions_are_refused_when_too_many_cannot_be_logged(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "MOST_WAITING", 3)
    monkeypatch.setattr(audit_module, "WRITE_AFTER_S", 3600)
    for _ in range(3):
        store.audit.note("verify", "t", "alice")
    with pytest.raises(StoreUnavailable, match="audit log"):
        store.audit.note("verify", "t", "alice")
    store.audit.flush()
    store.audit.note("verify", "t", "alice")
    assert len(store.audit.events()) == 3


def test_two_processes_share_one_chain(store: Store, opened: Opener) -> None:
    with opened() as other:
        for turn in range(6):
            (store, other)[turn % 2].create_speaker("t", f"s{turn}")
            (store, other)[turn % 2].audit.note("verify", "t", f"s{turn}", model=MODEL)
        other.audit.flush()
        report = store.audit.verify()
    assert (report.entries, report.broken) == (12, None)


def test_what_cannot_be_written_fails_by_itself(store: Store) -> None:
    store.audit.note("verify", "t", "alice", turn=1)
    with pytest.raises(TypeError):
        store.audit.note("verify", "t", "alice", turn=object())
    with pytest.raises(UnicodeEncodeError):
        store.audit.note("verify", "t", "\ud800")
    store.audit.note("verify", "t", "alice", turn=2)
    store.audit.flush()
    assert [event.facts["turn"] for event in store.audit.events()] == [1, 2]


def test_the_writing_survives_any_fault_and_says_so(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_module, "WRITE_AFTER_S", 0.001)
    assert store.problems == []
    with monkeypatch.context() as faulty:
        faulty.setattr(store.audit, "flush", lambda: 1 / 0)
        store.audit.note("verify", "t", "alice", turn=1)
        while not store.problems:
            time.sleep(0.001)
        assert "division by zero" in store.problems[0]
        thread = store.audit._thread
    while len(entries(path)) < 1:
        time.sleep(0.001)
    while store.problems:
        time.sleep(0.001)
    assert store.audit._thread is thread
    store.audit.note("verify", "t", "alice", turn=2)
    while len(entries(path)) < 2:
        time.sleep(0.001)
    assert [event.facts["turn"] for event in store.audit.events()] == [1, 2]
    assert len([record for record in caplog.records if "audit log" in record.message]) == 1
