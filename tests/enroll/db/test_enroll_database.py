"""Opening, refusing, migrating and closing the file."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from enroll_samples import REQUIRED_S, recording

from sayso.enroll.db import sqlite as database_module
from sayso.enroll.db.sqlite import Database
from sayso.enroll.db.sqlite_schema import APPLICATION_ID, MIGRATIONS
from sayso.enroll.errors import StoreBusy, StoreCorrupt, StoreForeign, StoreTooNew, StoreUnavailable
from sayso.enroll.store import Store


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_files_are_private(store: Store, path: Path) -> None:
    store.create_speaker("t", "alice")
    assert path.parent.stat().st_mode & 0o777 == 0o700
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    names = ("master.key", "sayso.db", "sayso.db-wal", "sayso.db-shm")
    assert modes == dict.fromkeys(names, 0o600)


def test_a_readable_copy_is_made_private_again(path: Path) -> None:
    Database(path).close()
    path.chmod(0o644)
    Database(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Database(tmp_path / "sayso.db").close()
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_closing_leaves_one_file_and_reopening_works(path: Path) -> None:
    for _ in range(2):
        Database(path).close()
        assert [file.name for file in path.parent.iterdir()] == ["sayso.db"]


@pytest.mark.parametrize(
    "mark", ["CREATE TABLE notes (text)", "PRAGMA application_id = 1", "PRAGMA user_version = 7"]
)
def test_a_foreign_database_is_refused_untouched(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "theirs.db"
    execute(path, mark)
    before = path.read_bytes(), path.stat().st_mode
    with pytest.raises(StoreForeign, match="another program"):
        Database(path)
    assert (path.read_bytes(), path.stat().st_mode) == before


def test_a_newer_database_is_refused(path: Path) -> None:
    Database(path).close()
    execute(path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    with pytest.raises(StoreTooNew, match="Upgrade Sayso"):
        Database(path)


@pytest.mark.parametrize("content", [b"not a database at all, " * 400, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sayso.db"
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt, match="backup"):
        Database(path)
    assert path.read_bytes() == content


def test_damage_inside_is_found_and_never_served(path: Path) -> None:
    with Store(path, REQUIRED_S) as store:
        for name in range(40):
            store.create_speaker("t", f"s{name}", metadata={"text": "x" * 500})
        assert store.check() == []
    whole = path.read_bytes()
    first = whole.index(b"x" * 100) // 4096 * 4096
    path.write_bytes(whole[:first] + b"\xa5" * 4096 + whole[first + 4096 :])
    with Store(path, REQUIRED_S) as store:
        with pytest.raises(StoreCorrupt, match="backup"):
            store.speakers("t")
        assert store.check() != []


def test_a_truncated_file_is_refused(path: Path) -> None:
    with Store(path, REQUIRED_S) as store:
        for seed in range(40):
            store.add_enrollment("t", store.create_speaker("t").id, recording(seed))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(StoreCorrupt):
        Database(path)


def test_a_place_that_cannot_hold_a_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="permissions"):
        Database(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        Database(tmp_path / "file" / "sayso.db")


def test_an_older_file_is_migrated_and_keeps_its_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(path, REQUIRED_S) as store:
        alice = store.create_speaker("t", "alice")
    newer = (*MIGRATIONS, ("ALTER TABLE speakers ADD COLUMN shoe_size INTEGER",))
    monkeypatch.setattr(database_module, "MIGRATIONS", newer)
    with Store(path, REQUIRED_S) as store:
        assert store.speaker("t", "alice") == alice
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(newer),)
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)


def test_a_failed_migration_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Database(path).close()
    broken = (*MIGRATIONS, ("CREATE TABLE extra (x)", "CREATE TABLE extra (x)"))
    with monkeypatch.context() as patched:
        patched.setattr(database_module, "MIGRATIONS", broken)
        with pytest.raises(sqlite3.OperationalError):
            Database(path)
    with closing(Database(path)) as database, database.read() as connection:
        assert connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'extra'").fetchone() is None


def test_many_processes_may_create_it_at_once(path: Path) -> None:
    code = f"from sayso.enroll.db.sqlite import Database; Database({str(path)!r}).close()"
    children = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(4)]
    assert [child.communicate()[1] for child in children] == [b""] * 4
    with closing(Database(path)) as database:
        assert database.check() == []


def test_a_write_that_raises_leaves_nothing(path: Path) -> None:
    def fail(database: Database) -> None:
        with database.write() as connection:
            connection.execute("INSERT INTO tenants (tenant, revision) VALUES ('t', 1)")
            raise KeyError

    with closing(Database(path)) as database:
        with pytest.raises(KeyError):
            fail(database)
        with database.write() as connection:
            assert connection.execute("SELECT * FROM tenants").fetchall() == []


def test_a_reader_sees_one_snapshot(path: Path) -> None:
    with closing(Database(path)) as database, database.read() as reader:
        assert reader.execute("SELECT COUNT(*) FROM tenants").fetchone()[0] == 0
        with database.write() as writer:
            writer.execute("INSERT INTO tenants (tenant, revision) VALUES ('t', 1)")
        assert reader.execute("SELECT COUNT(*) FROM tenants").fetchone()[0] == 0


def test_readers_cannot_write(path: Path) -> None:
    with closing(Database(path)) as database, pytest.raises(StoreUnavailable), database.read() as reader:
        reader.execute("INSERT INTO tenants (tenant, revision) VALUES ('t', 1)")


def test_a_writer_in_the_way_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_MS", 20)
    with (
        closing(Database(path)) as first,
        closing(Database(path)) as second,
        first.write(),
        pytest.raises(StoreBusy, match="Try again"),
        second.write(),
    ):
        pass


def test_a_purge_held_up_by_a_reader_is_made_up_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_PURGE_EVERY_S", 0.0)
    wal = path.with_name("sayso.db-wal")
    with closing(Database(path)) as database:
        with database.read() as reader:
            reader.execute("SELECT COUNT(*) FROM tenants").fetchone()
            with database.write() as writer:
                writer.execute("INSERT INTO tenants (tenant, revision) VALUES ('t', 1)")
            database.purge()
            assert wal.stat().st_size > 0
        database.purge_pending()
        assert wal.stat().st_size == 0


def test_nobody_waits_for_a_long_reader(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit empties no log, and a purge never waits for readers while it keeps other writers out."""
    monkeypatch.setattr(database_module, "_PURGE_EVERY_S", 0.0)
    statements: list[str] = []
    with closing(Database(path)) as database, database.read() as reader:
        reader.execute("SELECT COUNT(*) FROM tenants").fetchone()
        assert database._writer is not None
        database._writer.set_trace_callback(statements.append)
        for _ in range(3):
            database.purge_pending()
            with database.write() as writer:
                writer.execute("UPDATE tenants SET revision = 1")
                writer.execute("INSERT INTO erasures VALUES ('speaker', 1, '') ON CONFLICT DO NOTHING")
            begun = len(statements) - statements[::-1].index("BEGIN IMMEDIATE") - 1
            assert not any("checkpoint" in statement for statement in statements[begun:])
        database.purge()
    before = [
        statements[place - 1] for place, statement in enumerate(statements) if "checkpoint" in statement
    ]
    assert before
    assert set(before) == {"PRAGMA busy_timeout = 0"}


def test_a_reader_that_cannot_roll_back_is_closed(path: Path) -> None:
    with closing(Database(path)) as database:
        with database.read() as connection:
            connection.execute("SELECT COUNT(*) FROM tenants").fetchone()
            connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
        assert database._pool == []
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
        with database.read() as connection:
            assert connection.execute("SELECT COUNT(*) FROM tenants").fetchone()[0] == 0


def test_a_writer_that_cannot_roll_back_is_replaced(path: Path) -> None:
    with closing(Database(path)) as database:

        def fail() -> None:
            with database.write() as connection:
                connection.execute("INSERT INTO tenants (tenant, revision) VALUES ('t', 1)")
                connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
                raise KeyError

        first = database._writer
        with pytest.raises(KeyError):
            fail()
        assert first is not None
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            first.execute("SELECT 1")
        with database.write() as connection:
            assert connection.execute("SELECT * FROM tenants").fetchall() == []
            connection.execute("INSERT INTO tenants (tenant, revision) VALUES ('u', 1)")
        assert database.check() == []


def test_connections_are_shared_not_kept_per_thread(path: Path) -> None:
    with closing(Database(path)) as database:

        def read() -> None:
            with database.read() as connection:
                connection.execute("SELECT 1 FROM tenants").fetchone()

        for _ in range(20):
            thread = threading.Thread(target=read)
            thread.start()
            thread.join()
        assert len(database._pool) == 1


def test_a_closed_store_says_so(path: Path) -> None:
    store = Store(path, REQUIRED_S)
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.speakers("t")
    with pytest.raises(StoreUnavailable, match="closed"):
        store.create_speaker("t")


def test_a_block_in_progress_outlives_closing(path: Path) -> None:
    database = Database(path)
    with database.read() as connection:
        database.close()
        assert connection.execute("SELECT COUNT(*) FROM tenants").fetchone()[0] == 0
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")
