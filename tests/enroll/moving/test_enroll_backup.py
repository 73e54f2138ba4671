"""Backups beside a writer, and what going back to one may and may not undo."""

import os
import sqlite3
import subprocess
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from enroll_samples import MODEL, REQUIRED_S, recording, unit

from sayso.enroll.errors import (
    BackupRefused,
    MasterKeyUnusable,
    RecordingReplayed,
    SpeakerLocked,
    SpeakerNotFound,
    SpeakerOptedOut,
)
from sayso.enroll.moving.backup import make_backup
from sayso.enroll.moving.restore import restore_backup
from sayso.enroll.search.index import SpeakerIndex
from sayso.enroll.secrets.master_key import KeyFile, KeyText
from sayso.enroll.store import Store
from sayso.service.access.attempts import AttemptLimits, Attempts
from sayso.service.access.keys import KeyRing


def enrol(store: Store, name: str, seed: int = 1, tenant: str = "t") -> None:
    store.create_speaker(tenant, name)
    store.add_enrollment(tenant, name, replace(recording(seed, REQUIRED_S), recording=b"voice"))


def names(store: Store, tenant: str = "t") -> list[str]:
    return [speaker.id for speaker in store.speakers(tenant, limit=1000).items]


def restore(path: Path, backup: Path) -> tuple[int, int]:
    restored = restore_backup(path, backup, KeyFile(path.with_name("master.key")))
    return restored.speakers, restored.erased_since


def sound(store: Store) -> bool:
    index = SpeakerIndex(store)
    index.warm()
    problems = store.check() + store.check_templates() + index.check()
    return problems == [] and store.audit.verify().broken is None


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    return tmp_path / "backup.db"


def test_a_restored_store_equals_the_one_before(store: Store, path: Path, backup: Path) -> None:
    for seed in range(4):
        enrol(store, f"s{seed}", seed)
    before = store.speakers("t"), store.enrollments("t", "s1"), store.template("t", "s1", MODEL).vector
    made = make_backup(store, backup)
    assert (made.path, store.backups()) == (str(backup), [(made.made_at, str(backup))])
    assert backup.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in backup.parent.iterdir() if file.is_file()] == ["backup.db"]
    enrol(store, "later")
    store.update_speaker("t", "s1", name="changed")
    assert restore(path, backup) == (4, 0)
    assert store.speakers("t") == before[0]
    assert store.enrollments("t", "s1") == before[1]
    assert np.array_equal(store.template("t", "s1", MODEL).vector, before[2])
    assert sound(store)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "master.key",
        "sayso.db",
        "sayso.db-shm",
        "sayso.db-wal",
    ]


def test_a_running_index_follows_a_restore(store: Store, path: Path, backup: Path) -> None:
    """Revisions repeat after going back; a mirror must not take the old ones for its own."""
    enrol(store, "alice", 1)
    make_backup(store, backup)
    index = SpeakerIndex(store)
    for turn in range(3):
        enrol(store, f"later{turn}", 2)
        assert index.search("t", MODEL, unit(2), 1)[1] == (2 if turn == 0 else 3)
        restore(path, backup)
        enrol(store, f"other{turn}", 3)  # as many changes as before, to other people
        found, searched = index.search("t", MODEL, unit(3), 5)
        assert (found[0].speaker_id, searched) == (f"other{turn}", 2)
        assert index.check() == []


def test_what_was_erased_since_stays_so(store: Store, path: Path, backup: Path) -> None:
    store.tenants.keep_recordings("t", True)
    for name in ("alice", "bob", "carol", "dave"):
        enrol(store, name)
    store.add_enrollment("t", "bob", recording(2, REQUIRED_S), "second")
    enrol(store, "eve", tenant="gone")
    revoked, text = KeyRing(store.vault).create_key("t", ["read"], "")
    _, gone = KeyRing(store.vault).create_key("gone", ["read"], "")
    make_backup(store, backup)

    store.delete_speaker("t", "alice")
    store.delete_enrollment("t", "bob", "second")
    store.update_speaker("t", "carol", status="opted_out")
    store.rights.opt_out("t", "frank")
    store.tenants.keep_recordings("t", False)
    KeyRing(store.vault).revoke_key(revoked.id)
    store.tenants.delete("gone")
    _, later = KeyRing(store.vault).create_key("t", ["read"], "")

    assert restore(path, backup) == (3, 2)
    assert names(store) == ["bob", "carol", "dave"]
    assert np.allclose(store.template("t", "bob", MODEL).vector, unit(1), atol=1e-6)
    assert store.speaker("t", "carol").status == "opted_out"
    with pytest.raises(SpeakerOptedOut):
        store.create_speaker("t", "frank")
    assert names(store, "gone") == []
    assert {t.name: (t.recordings, t.keep_recordings) for t in store.tenants.list()}["t"] == (0, False)
    assert [KeyRing(store.vault).authenticate(t) is not None for t in (text, gone, later)] == [
        False,
        False,
        True,
    ]
    assert sound(store)
    restore(path, backup)
    assert names(store) == ["bob", "carol", "dave"]


def test_a_restore_unlocks_nobody_and_forgets_no_recording(store: Store, path: Path, backup: Path) -> None:
    limits = AttemptLimits(delay_after=0, delay_s=0, lock_after=2, replay_days=1)
    for name in ("alice", "bob"):
        enrol(store, name)
    make_backup(store, backup)
    Attempts(store.database).succeeded("t", "alice", "verify", b"voice", "1", limits)
    for attempt in "23":
        Attempts(store.database).failed("t", "bob", attempt, limits)
    enrol(store, "later")
    Attempts(store.database).failed("t", "later", "4", limits)
    restore(path, backup)
    with pytest.raises(RecordingReplayed):
        Attempts(store.database).succeeded("t", "alice", "verify", b"voice", "5", limits)
    with pytest.raises(SpeakerLocked):
        Attempts(store.database).admit("t", ["bob"], "6", limits)
    assert sound(store)


def test_a_restore_on_a_new_machine_knows_locks_and_recordings(
    store: Store, tmp_path: Path, path: Path, backup: Path
) -> None:
    limits = AttemptLimits(delay_after=0, delay_s=0, lock_after=2, replay_days=1)
    for name in ("alice", "bob"):
        enrol(store, name)
    store.add_enrollment("t", "alice", recording(2, REQUIRED_S, digest=b"enrolled voice"))
    for attempt in "12":
        Attempts(store.database).failed("t", "bob", attempt, limits)
    make_backup(store, backup)
    elsewhere = tmp_path / "elsewhere" / "sayso.db"
    restore_backup(elsewhere, backup, KeyFile(path.with_name("master.key")))
    with Store(elsewhere, REQUIRED_S, KeyFile(path.with_name("master.key"))) as restored:
        with pytest.raises(RecordingReplayed):
            Attempts(restored.database).succeeded("t", "alice", "verify", b"enrolled voice", "3", limits)
        with pytest.raises(SpeakerLocked):
            Attempts(restored.database).admit("t", ["bob"], "4", limits)


def test_a_new_speaker_of_an_erased_ones_name_is_another(store: Store, path: Path, backup: Path) -> None:
    enrol(store, "alice", 1)
    store.delete_speaker("t", "alice")
    enrol(store, "alice", 2)
    make_backup(store, backup)
    assert restore(path, backup) == (1, 0)
    assert np.allclose(store.template("t", "alice", MODEL).vector, unit(2), atol=1e-6)


def test_numbers_are_never_given_twice(store: Store, path: Path, backup: Path) -> None:
    enrol(store, "alice")
    make_backup(store, backup)
    enrol(store, "lost")
    restore(path, backup)
    enrol(store, "new")
    with store._database.read() as connection:
        assert [row[0] for row in connection.execute("SELECT number FROM speakers")] == [1, 3]


def test_it_can_be_put_on_an_empty_machine(store: Store, path: Path, backup: Path, tmp_path: Path) -> None:
    enrol(store, "alice")
    store.rights.opt_out("t", "bob")
    make_backup(store, backup)
    elsewhere = tmp_path / "elsewhere" / "sayso.db"
    with pytest.raises(MasterKeyUnusable, match="missing"):
        restore(elsewhere, backup)
    elsewhere.with_name("master.key").write_bytes(path.with_name("master.key").read_bytes())
    assert restore(elsewhere, backup) == (1, 0)
    with Store(elsewhere, REQUIRED_S) as other:
        assert other.speakers("t") == store.speakers("t")
        with pytest.raises(SpeakerOptedOut):
            other.create_speaker("t", "bob")
        assert sound(other)
        assert other.audit.events(limit=-1)[-1].event == "store.restored"


def test_a_backup_from_before_a_rotation_needs_the_key_before(store: Store, path: Path, backup: Path) -> None:
    enrol(store, "alice")
    make_backup(store, backup)
    keys = KeyFile(path.with_name("master.key"))
    old = keys.first()
    new = keys.prepare()
    store.tenants.rotate_master(new)
    keys.promote(new.id)
    store.tenants.rotate_key("t")
    assert restore(path, backup) == (1, 0)  # the key before is kept beside the new one
    assert sound(store)
    keys.kept(old.id).unlink()
    with pytest.raises(MasterKeyUnusable, match=old.id):
        restore(path, backup)
    assert sound(store)


def test_what_is_no_backup_of_this_store_is_refused(store: Store, path: Path, tmp_path: Path) -> None:
    enrol(store, "alice")
    other = tmp_path / "other" / "sayso.db"
    with Store(other, REQUIRED_S, KeyText(path.with_name("master.key").read_text())) as stranger:
        make_backup(stranger, tmp_path / "theirs.db")
    (tmp_path / "noise.db").write_bytes(b"\xff" * 8192)
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as connection:
        connection.execute("CREATE TABLE notes (text)")
    for name, problem in {
        "theirs.db": "another store",
        "noise.db": "cannot be read",
        "foreign.db": "another program",
        "missing.db": "no file",
    }.items():
        with pytest.raises(Exception, match=problem) as caught:
            restore(path, tmp_path / name)
        assert caught.value.code in ("backup_refused", "store_foreign")  # type: ignore[attr-defined]
        assert names(store) == ["alice"]
    assert len(list(path.parent.iterdir())) == 4


def test_a_damaged_backup_is_refused(store: Store, path: Path, backup: Path) -> None:
    for seed in range(30):
        enrol(store, f"s{seed}", seed)
    make_backup(store, backup)
    whole = bytearray(backup.read_bytes())
    whole[len(whole) // 2 : len(whole) // 2 + 4096] = b"\xa5" * 4096
    backup.write_bytes(whole)
    with pytest.raises(BackupRefused, match="another"):
        restore(path, backup)
    assert len(names(store)) == 30


def test_no_file_is_written_over_or_left_half(store: Store, backup: Path, tmp_path: Path) -> None:
    backup.write_text("mine")
    with pytest.raises(BackupRefused, match="exists already"):
        make_backup(store, backup)
    assert backup.read_text() == "mine"
    with pytest.raises(OSError, match="No such file"):
        make_backup(store, tmp_path / "nowhere" / "b.db")

    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_backup(store, tmp_path / "b.db", interrupt)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["backup.db", "data"]
    assert store.backups() == []


def test_what_a_killed_restore_left_is_cleared(store: Store, path: Path, backup: Path) -> None:
    enrol(store, "alice")
    make_backup(store, backup)
    with subprocess.Popen(["true"]) as gone:
        pass
    drafts = [
        f".{name}.{gone.pid}.sayso-draft{suffix}" for name in ("sayso.db", "b.db") for suffix in ("", "-wal")
    ]
    drafts += [f".sayso.db.{os.getpid()}.sayso-draft", ".sayso-draft", ".x.sayso-draft"]
    for draft in drafts:
        path.with_name(draft).write_bytes(backup.read_bytes())
        backup.with_name(draft).write_bytes(backup.read_bytes())
    with Store(path, REQUIRED_S) as again:
        make_backup(again, backup.with_name("second.db"))
    for folder in (path.parent, backup.parent):
        assert {file.name for file in folder.iterdir() if file.name.startswith(".")} == set(drafts[4:])


def test_backups_while_others_write_are_whole(store: Store, path: Path, tmp_path: Path) -> None:
    stop = threading.Event()
    done: list[str] = []

    def write() -> None:
        with Store(path, REQUIRED_S) as other:
            while not stop.is_set():
                enrol(other, f"s{len(done)}", len(done))
                done.append(f"s{len(done)}")
                stop.wait(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(4):
            before = len(done)
            target = tmp_path / f"b{turn}.db"
            make_backup(store, target)
            elsewhere = tmp_path / f"restored{turn}" / "sayso.db"
            restore_backup(elsewhere, target, KeyFile(path.with_name("master.key")))
            with Store(elsewhere, REQUIRED_S, KeyFile(path.with_name("master.key"))) as copy:
                kept = names(copy)
                assert kept == [f"s{i}" for i in range(len(kept))]
                assert len(kept) >= before
                assert sound(copy)
    finally:
        stop.set()
        writer.join()


def test_a_failed_restore_changes_nothing(
    store: Store, path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol(store, "alice")
    make_backup(store, backup)
    enrol(store, "bob")

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sayso.enroll.secrets.transaction.Transaction.audit", fail)
        with pytest.raises(KeyboardInterrupt):
            restore(path, backup)
    assert names(store) == ["alice", "bob"]
    assert sound(store)
    store.delete_speaker("t", "bob")
    with pytest.raises(SpeakerNotFound):
        store.speaker("t", "bob")
