"""A store taken to PostgreSQL and back: the same store, whole or known as half, and never over another."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, recording, unit
from pgserver import MASTER_KEY, Server

from sayso.enroll.db.address import open_database
from sayso.enroll.db.sql import Database
from sayso.enroll.errors import (
    CopyRefused,
    MasterKeyUnusable,
    RecordingReplayed,
    SpeakerOptedOut,
    StoreIncomplete,
)
from sayso.enroll.moving import copying
from sayso.enroll.moving.copying import copy_store, differing_answers
from sayso.enroll.secrets.master_key import KeyText
from sayso.enroll.store import Store
from sayso.service.access.answers import Answers
from sayso.service.access.attempts import AttemptLimits, Attempts
from sayso.service.access.keys import KeyRing

KEY = KeyText(MASTER_KEY)
LIMITS = AttemptLimits(5, 30.0, 50, 30.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store with something in every table."""
    path = tmp_path / "one" / "sayso.db"
    with Store(path, REQUIRED_S, KEY) as store:
        store.tenants.keep_recordings("kept", True)
        for tenant in ("kept", "t"):
            for seed in range(12):
                name = f"s{seed}"
                consent = {"given_at": datetime.now(UTC), "reference": "form 7"}
                store.create_speaker(tenant, name, f"Näme {seed}", ["g", "h"], {"a": [1]}, consent=consent)
                both = {MODEL: unit(seed), OTHER_MODEL: unit(seed, 8)}
                for part in range(2):
                    new = recording(seed, REQUIRED_S, both if seed % 3 else None)
                    new = replace(new, recording=b"sound", digest=b"enrolled" if name == "s5" else None)
                    store.add_enrollment(tenant, name, new, f"e{part}")
        store.update_speaker("t", "s1", status="opted_out")
        store.update_speaker("t", "s2", expires_at=datetime.now(UTC) + timedelta(days=1))
        store.update_speaker("t", "s11", status="opted_out")
        store.delete_speaker("t", "s11")
        Attempts(store.database).failed("t", "s3", "a", LIMITS)
        Attempts(store.database).succeeded("t", "s4", "verify", b"samples", "a", LIMITS)
        Answers(store.database).remember("t", "scope", "key", "f", 201, b"\x00{}")
        store.audit.note("verify", "t", "s3", decision="reject")
    return path


@pytest.fixture
def address(server: Server) -> str:
    return server.url(server.database())


@pytest.fixture
def databases(file: Path, address: str) -> Iterator[tuple[Database, Database]]:
    with closing(open_database(file)) as ours, closing(open_database(address)) as theirs:
        yield ours, theirs


def assert_same(ours: Store, theirs: Store) -> None:
    for tenant in ("kept", "t"):
        assert ours.speakers(tenant) == theirs.speakers(tenant)
        for speaker in ours.speakers(tenant).items:
            assert ours.enrollments(tenant, speaker.id) == theirs.enrollments(tenant, speaker.id)
            one, other = (store.enrolled_vectors(tenant, speaker.id) for store in (ours, theirs))
            assert one.keys() == other.keys()
            for name in one:
                assert all(np.array_equal(one[name][model], other[name][model]) for model in one[name])
    assert ours.tenants.list() == theirs.tenants.list()
    assert KeyRing(ours.vault).list_keys() == KeyRing(theirs.vault).list_keys()
    copied = theirs.audit.events(limit=1000)
    assert copied[-1].event == "store.copied"
    assert differing_answers(ours, theirs) == []
    for store in (ours, theirs):
        assert store.check() == store.check_templates() == []
        assert store.audit.verify().broken is None
        assert Answers(store.database).answer("scope", "key", "f") is not None
        assert Attempts(store.database).barred("t", "b", AttemptLimits(1, 30.0, 0, 0)) == {"s3"}


def test_a_store_goes_there_and_back(file: Path, address: str, tmp_path: Path) -> None:
    with Store(file, REQUIRED_S, KEY) as store:
        text = KeyRing(store.vault).create_key("t", ["verify"], "app")[1]
        head = store.audit.verify()
    with closing(open_database(file)) as ours, closing(open_database(address)) as theirs:
        copied = copy_store(ours, theirs, KEY)
    assert (copied.rows["speakers"], copied.rows["templates"]) == (23, 38)
    assert copied.least_score > 0.9999
    back = tmp_path / "two" / "sayso.db"
    with closing(open_database(address)) as ours, closing(open_database(back)) as theirs:
        again = copy_store(ours, theirs, KEY)
    assert again.rows["embeddings"] == copied.rows["embeddings"]
    with (
        Store(file, REQUIRED_S, KEY) as first,
        Store(address, REQUIRED_S, KEY) as second,
        Store(back, REQUIRED_S, KEY) as third,
    ):
        assert_same(first, second)
        assert_same(first, third)
        for speaker in first.speakers("kept").items:  # made from the enrolments again: nothing was rounded
            one, other = (store.template("kept", speaker.id, MODEL).vector for store in (first, third))
            assert np.array_equal(one, other)
        for store in (second, third):
            assert KeyRing(store.vault).authenticate(text) is not None
            assert store.audit.verify((head.entries, head.head)).broken is None
            with pytest.raises(SpeakerOptedOut):
                store.create_speaker("t", "s11")
            with pytest.raises(RecordingReplayed):
                Attempts(store.database).succeeded("t", "s4", "verify", b"samples", "b", LIMITS)
            with pytest.raises(RecordingReplayed):
                Attempts(store.database).succeeded("t", "s5", "verify", b"enrolled", "b", LIMITS)
            number = store.recordings.to_embed("c" * 64)[0]
            assert store.recordings.read(number) == b"sound"
            with store.database.read() as connection:
                last = {name: connection.counted(name) for name in ("speakers", "enrollments", "tenant_keys")}
            assert last["speakers"] == 24  # the deleted one's number is not given again
            store.create_speaker("t", "new")
            store.add_enrollment("t", "new", recording(5, REQUIRED_S))


@pytest.mark.parametrize(
    "table", ["audit", "speakers", "embeddings", "used_recordings", "templates", "compared"]
)
def test_a_copy_that_was_cut_short_goes_on(
    file: Path,
    address: str,
    databases: tuple[Database, Database],
    table: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tables = tuple(replace(one, batch=5) for one in copying._TABLES)
    monkeypatch.setattr(copying, "_TABLES", tables)
    monkeypatch.setattr(copying, "_TEMPLATES", replace(copying._TEMPLATES, batch=5))
    monkeypatch.setattr(copying, "_AUDIT", replace(copying._AUDIT, batch=5))
    seen: list[tuple[str, int]] = []

    def stop(name: str, done: int, total: int) -> None:
        seen.append((name, done))
        if name == table:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_store(*databases, KEY, stop)
    with pytest.raises(StoreIncomplete, match="sayso store copy"):
        Store(address, REQUIRED_S, KEY)
    first = set(seen)
    seen.clear()
    copied = copy_store(*databases, KEY, lambda name, done, total: seen.append((name, done)))
    assert copied.resumed
    unlogged = {"answers", "attempts", "used_recordings", "compared"}
    assert not {one for one in seen if one[0] not in unlogged} & first  # nothing is copied twice
    with Store(file, REQUIRED_S, KEY) as ours, Store(address, REQUIRED_S, KEY) as theirs:
        assert_same(ours, theirs)


def test_a_copy_of_a_store_that_has_changed_since_begins_anew(
    file: Path, address: str, databases: tuple[Database, Database]
) -> None:
    def stop(name: str, done: int, total: int) -> None:
        if name == "embeddings":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_store(*databases, KEY, stop)
    with Store(file, REQUIRED_S, KEY) as store:
        store.delete_speaker("t", "s0")
        store.create_speaker("t", "late", groups=["g"])
    copy_store(*databases, KEY)
    with Store(file, REQUIRED_S, KEY) as ours, Store(address, REQUIRED_S, KEY) as theirs:
        assert_same(ours, theirs)
        assert "late" in {speaker.id for speaker in theirs.speakers("t").items}


def test_a_store_that_changes_meanwhile_makes_no_copy(
    file: Path, address: str, databases: tuple[Database, Database]
) -> None:
    def change(name: str, done: int, total: int) -> None:
        if name == "templates":
            with Store(file, REQUIRED_S, KEY) as store, suppress(Exception):
                store.update_speaker("t", "s0", name="Other")

    with pytest.raises(CopyRefused, match="Stop every server"):
        copy_store(*databases, KEY, change)
    with pytest.raises(StoreIncomplete):
        Store(address, REQUIRED_S, KEY)


def test_no_other_store_is_written_over(
    file: Path, address: str, databases: tuple[Database, Database], tmp_path: Path, server: Server
) -> None:
    other, foreign = tmp_path / "other" / "sayso.db", server.url(server.database())
    with Store(other, REQUIRED_S, KEY) as store:
        store.create_speaker("t", "mine")
    Store(foreign, REQUIRED_S, KEY).close()
    for target in (other, foreign):
        with closing(open_database(target)) as taken, pytest.raises(CopyRefused, match="holds a store"):
            copy_store(databases[0], taken, KEY)
    copy_store(*databases, KEY)
    with pytest.raises(CopyRefused, match="holds a store"):
        copy_store(*databases, KEY)  # it may be in use by now
    with Store(other, REQUIRED_S, KEY) as store:
        assert [speaker.id for speaker in store.speakers("t").items] == ["mine"]


def test_half_a_copy_of_another_store_is_left_alone(
    file: Path, databases: tuple[Database, Database], tmp_path: Path
) -> None:
    other = tmp_path / "other" / "sayso.db"
    with Store(other, REQUIRED_S, KEY) as store:
        store.create_speaker("t", "mine")

    def stop(name: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_store(*databases, KEY, stop)
    with closing(open_database(other)) as ours, pytest.raises(CopyRefused, match="half a copy of another"):
        copy_store(ours, databases[1], KEY)


def test_the_key_must_be_the_stores_and_the_source_a_store(
    databases: tuple[Database, Database], tmp_path: Path
) -> None:
    with pytest.raises(MasterKeyUnusable):
        copy_store(*databases, KeyText("2e" * 32))
    with closing(open_database(tmp_path / "empty.db")) as empty, pytest.raises(CopyRefused, match="no store"):
        copy_store(empty, databases[1], KEY)
    copy_store(*databases, KEY)  # nothing was begun by those


def test_a_copy_that_does_not_agree_is_no_store(
    file: Path, address: str, databases: tuple[Database, Database]
) -> None:
    def spoil(name: str, done: int, total: int) -> None:
        if name == "templates":
            with databases[1].write() as connection:
                connection.execute("DELETE FROM templates WHERE speaker = 5")
                connection.execute("DELETE FROM embeddings WHERE enrollment = 3")

    with pytest.raises(CopyRefused, match="rows"):
        copy_store(*databases, KEY, spoil)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM store").fetchone()[0] == 1
