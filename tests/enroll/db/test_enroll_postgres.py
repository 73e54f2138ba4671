"""What only a server has: rows guarded by tenant, large tenants' indexes, migrations, shared counters."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psycopg
import pytest
from enroll_samples import MODEL, OTHER_MODEL, REQUIRED_S, recording, unit
from pgserver import MASTER_KEY, Server

from sayso.enroll import clock
from sayso.enroll.db import postgres as module
from sayso.enroll.db.postgres import PostgresDatabase
from sayso.enroll.enrollments import salted_digest
from sayso.enroll.errors import (
    BackupRefused,
    InvalidField,
    MasterKeyUnusable,
    RecordingReplayed,
    StoreBusy,
    StoreForeign,
    StoreTooNew,
    StoreUnavailable,
)
from sayso.enroll.moving.backup import make_backup
from sayso.enroll.search.index import index_of
from sayso.enroll.search.postgres import PostgresIndex
from sayso.enroll.secrets.master_key import KeyText
from sayso.enroll.store import Store
from sayso.enroll.templates import insert_templates
from sayso.service.access.answers import Answers
from sayso.service.access.attempts import AttemptLimits, Attempts
from sayso.service.access.keys import KeyRing
from sayso.service.access.shared_buckets import shared_buckets

LIMITS = AttemptLimits(5, 30.0, 50, 30.0)
OF_TENANT = (
    "tenants",
    "speakers",
    "speaker_groups",
    "grouped_speakers",
    "enrollments",
    "embeddings",
    "templates",
    "tenant_keys",
    "api_keys",
    "answers",
    "attempts",
    "used_recordings",
)


def opened(address: str) -> Store:
    return Store(address, REQUIRED_S, KeyText(MASTER_KEY))


@pytest.fixture
def name(server: Server) -> str:
    return server.database()


@pytest.fixture
def address(server: Server, name: str) -> str:
    return server.url(name)


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    with opened(address) as empty:
        yield empty


def enrol(store: Store, tenant: str, name: str, seed: int) -> None:
    store.create_speaker(tenant, name, groups=["g"])
    store.add_enrollment(tenant, name, recording(seed, REQUIRED_S))
    KeyRing(store.vault).create_key(tenant, ["read"], "")
    Answers(store.database).remember(tenant, tenant, "key", "f", 200, b"{}")
    Attempts(store.database).succeeded(tenant, name, "verify", b"voice", "a", LIMITS)
    Attempts(store.database).failed(tenant, name, "b", LIMITS)


def counts(address: str, tenant: str | None) -> dict[str, int]:
    """How many rows of each table somebody sees who works for this tenant."""
    with psycopg.connect(address, autocommit=True) as connection:
        if tenant is not None:
            connection.execute("SELECT set_config('app.tenant', %s, false)", (tenant,))
        return {
            table: connection.execute(f"SELECT COUNT(*) FROM {table}".encode()).fetchone()[0]  # type: ignore[index]
            for table in OF_TENANT
        }


def test_rows_are_shown_by_tenant_even_to_their_owner(store: Store, address: str) -> None:
    for tenant, speakers in (("t", 1), ("u", 2)):
        for seed in range(speakers):
            enrol(store, tenant, f"s{seed}", seed)
    assert set(counts(address, None).values()) == {0}
    assert set(counts(address, "nobody").values()) == {0}
    of_t, of_u, of_all = (counts(address, tenant) for tenant in ("t", "u", "*"))
    assert min(of_t.values()) > 0
    assert {table: of_t[table] + of_u[table] for table in of_t} == of_all


def test_nothing_is_written_for_another_tenant(store: Store) -> None:
    enrol(store, "t", "alice", 1)
    with (
        pytest.raises(StoreUnavailable, match="row-level security"),
        store.database.write("u") as connection,
    ):
        connection.execute("INSERT INTO opt_outs VALUES ('t', 'x', 'now')")
    with store.database.write("u") as connection:
        assert connection.execute("UPDATE speakers SET name = 'x'").rowcount == 0
        assert connection.execute("DELETE FROM enrollments").rowcount == 0
    assert store.speaker("t", "alice").name is None


def test_a_role_that_owns_nothing_serves_the_store(server: Server, name: str, address: str) -> None:
    opened(address).close()
    server.boss(f"CREATE ROLE {name} LOGIN")
    server.boss(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}", name)
    with opened(server.url(name, user=name)) as store:
        enrol(store, "t", "alice", 1)
        assert index_of(store).search("t", MODEL, unit(1), 1)[1] == 1
        store.delete_speaker("t", "alice")
    assert set(counts(server.url(name, user=name), None).values()) == {0}


def test_a_role_that_may_not_make_tables_is_told_so(server: Server, name: str) -> None:
    server.boss(f"CREATE ROLE {name} LOGIN")
    with pytest.raises(StoreUnavailable, match=r"permission denied.*Grant the role"):
        opened(server.url(name, user=name))


def fill(store: Store, tenant: str, speakers: int, dim: int) -> np.ndarray:
    """Enrol many at once; their templates are returned."""
    vectors = np.random.default_rng(7).standard_normal((speakers, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with store.database.write() as connection:
        transaction = store.vault.transaction(connection)
        connection.execute("INSERT INTO models VALUES (?, ?)", (MODEL, dim))
        connection.execute("INSERT INTO tenants VALUES (?, 1, false)", (tenant,))
        connection.executemany(
            "INSERT INTO speakers (tenant, id, metadata, enrollments, net_speech_s, revision, created_at,"
            " updated_at) VALUES (?, ?, '{}', 1, 20, 1, 'now', 'now')",
            [(tenant, f"s{number:05}") for number in range(speakers)],
        )
        rows = connection.execute("SELECT number FROM speakers WHERE tenant = ? ORDER BY id", (tenant,))
        new = zip(rows, vectors, strict=True)
        insert_templates(transaction, [(tenant, row[0], MODEL, vector, 1, 20.0) for row, vector in new])
    return vectors


def test_a_large_tenants_index_finds_nearly_what_the_scan_finds(store: Store) -> None:
    vectors = fill(store, "large", 3000, 32)
    index = index_of(store)
    assert isinstance(index, PostgresIndex)
    queries = [(vectors[place] + 0.1 * unit(place, 32)) for place in range(0, 3000, 75)]
    queries = [query / np.linalg.norm(query) for query in queries]
    exact = [index.search("large", MODEL, query, 10) for query in queries]
    assert [one.indexed for one in index.large(above=100)] == [False]
    index.make_index("large", MODEL)
    large = index.large(above=100)
    assert [(one.tenant, one.templates, one.indexed) for one in large] == [("large", 3000, True)]
    near = [index.search("large", MODEL, query, 10) for query in queries]
    assert index.check() == []
    found = wanted = 0
    for (theirs, searched), (ours, all_searched) in zip(near, exact, strict=True):
        assert searched == all_searched == 3000
        assert theirs[0] == ours[0]
        found += len(set(theirs) & set(ours))
        wanted += len(ours)
    assert found / wanted > 0.95
    # a narrowed search is exact, a change is seen at once, and other tenants have no index
    assert index.search("large", MODEL, queries[0], 3, among=["s00007"])[1] == 1
    store.delete_speaker("large", exact[0][0][0].speaker_id)
    candidates, searched = index.search("large", MODEL, queries[0], 9)
    assert (candidates[0], searched) == (exact[0][0][1], 2999)
    assert index.search("small", MODEL, unit(1, 32), 1) == ([], 0)


def test_the_planner_takes_a_tenants_index_for_that_tenant_only(store: Store, address: str) -> None:
    fill(store, "large", 3000, 32)
    index = index_of(store)
    assert isinstance(index, PostgresIndex)
    index.make_index("large", MODEL)
    seen = []
    original = module.PostgresConnection.unprepared

    def explained(self, statement, values=()):  # type: ignore[no-untyped-def]
        plan = self.raw.execute(b"EXPLAIN " + module_translated(statement), values, prepare=False).fetchall()
        seen.append("\n".join(row[0] for row in plan))
        settings = ("hnsw.iterative_scan", "hnsw.ef_search")
        seen.extend(self.raw.execute(f"SHOW {name}".encode()).fetchone()[0] for name in settings)
        return original(self, statement, values)

    from sayso.enroll.db.postgres_values import translated as module_translated

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module.PostgresConnection, "unprepared", explained)
        index.search("large", MODEL, unit(3, 32), 5)
    plan, scan, ef_search = seen
    assert "templates_hnsw_" in plan
    assert (scan, ef_search) == ("relaxed_order", "200")


def test_an_index_that_was_not_finished_is_told_and_not_used(server: Server, name: str, store: Store) -> None:
    fill(store, "large", 50, 8)
    index = index_of(store)
    assert isinstance(index, PostgresIndex)
    index.make_index("large", MODEL)
    server.boss("UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text LIKE '%hnsw%'", name)
    index.refresh()
    assert "sayso store index" in index.check()[0]
    assert index.search("large", MODEL, unit(1, 8), 3)[1] == 50
    index.make_index("large", MODEL)
    assert index.check() == []


def test_servers_that_open_a_new_database_at_once_make_its_tables_once(address: str) -> None:
    ready = threading.Barrier(4)

    def begin(_: int) -> str:
        ready.wait(30)
        with opened(address) as store, store.database.read() as connection:
            return str(connection.execute("SELECT id FROM store").fetchone()[0])

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(begin, range(4)))) == 1


def test_tables_of_others_and_of_newer_versions_are_left_alone(server: Server) -> None:
    foreign, newer = server.database(), server.database()
    server.boss("CREATE TABLE speakers (watts int)", foreign)
    with pytest.raises(StoreForeign):
        opened(server.url(foreign))
    opened(server.url(newer)).close()
    server.boss("UPDATE sayso_version SET version = 99", newer)
    with pytest.raises(StoreTooNew, match="99"):
        opened(server.url(newer))


OF_THE_FIRST_VERSION = (
    "INSERT INTO tenants VALUES ('t', 3, 0, false)",
    "INSERT INTO speakers VALUES (1, 't', 'alice', 'Alice', '{}', false, 2, 20, 3, '2026', '2026')",
    "INSERT INTO enrollments VALUES (1, 1, 'e1', 10, 12, NULL, 0, NULL, '2026')",
    "INSERT INTO enrollments VALUES (2, 1, 'e2', 10, 12, NULL, 0, NULL, '2026')",
    "INSERT INTO attempts VALUES (1, 1, 'a', '2026-01-01T00:00:00.000Z')",
)


def test_tables_of_the_first_version_are_brought_to_this_one(
    address: str, server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(module, "MIGRATIONS", module.MIGRATIONS[:1])
        with opened(address) as store, store.database.write() as connection:
            for statement in OF_THE_FIRST_VERSION:
                connection.execute(statement)
            digest = salted_digest("t", "alice", b"enrolled")
            for number in (1, 2):
                connection.execute(
                    "INSERT INTO heard VALUES (1, ?, 'enroll', ?, ?, '2026') ON CONFLICT DO NOTHING",
                    (digest, f"e{number}", number),
                )
            used = salted_digest("t", "alice", b"voice")
            connection.execute(
                "INSERT INTO heard VALUES (1, ?, 'verify', 'a', NULL, ?)", (used, clock.stamp(clock.now()))
            )
    with opened(address) as store, store.database.read() as connection:
        assert store.speaker("t", "alice").name == "Alice"
        assert connection.execute("SELECT version FROM sayso_version").fetchone()[0] == len(module.MIGRATIONS)
        digests = connection.execute("SELECT digest FROM enrollments ORDER BY number").fetchall()
        assert [row[0] for row in digests] == [digest, None]  # of the second it was not kept then
        assert connection.execute("SELECT tenant FROM attempts").fetchone()[0] == "t"
    with opened(address) as store:
        for sound in (b"voice", b"enrolled"):
            with pytest.raises(RecordingReplayed):
                Attempts(store.database).succeeded("t", "alice", "verify", sound, "c", LIMITS)


def test_a_server_without_pgvector_is_told_so(server: Server, name: str) -> None:
    server.boss("DROP EXTENSION vector", name)
    with pytest.raises(StoreUnavailable, match="vector"):
        opened(server.url(name))


def test_the_audit_log_only_grows(store: Store, server: Server, name: str) -> None:
    store.create_speaker("t", "alice")
    for statement in ("DELETE FROM audit", "UPDATE audit SET entry = '{}'", "TRUNCATE audit"):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            server.boss(statement, name)
    server.boss("ALTER TABLE audit DISABLE TRIGGER audit_stands", name)
    server.boss("UPDATE audit SET entry = replace(entry, 'created', 'praised')", name)
    assert store.audit.verify().broken == 1


def test_what_makes_no_sense_there_says_what_does(store: Store, address: str, tmp_path: Path) -> None:
    with pytest.raises(BackupRefused, match="pg_dump"):
        make_backup(store, tmp_path / "backup")
    assert store.backups() == []
    with pytest.raises(MasterKeyUnusable, match="SAYSO_MASTER_KEY"):
        Store(address, REQUIRED_S)
    with pytest.raises(MasterKeyUnusable, match="but the store is sealed with"):
        Store(address, REQUIRED_S, KeyText("2e" * 32))
    with pytest.raises(InvalidField, match="standby"):
        Store(tmp_path / "sayso.db", REQUIRED_S, standby=address)


def test_no_message_tells_the_password() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        PostgresDatabase("postgresql://sayso:hunter2@127.0.0.1:1/sayso")
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_buckets_are_one_for_all_processes(store: Store, address: str) -> None:
    buckets = shared_buckets(store.database)
    assert buckets is not None
    code = (
        "import sys; from sayso.enroll.store import Store\n"
        "from sayso.enroll.secrets.master_key import KeyText\n"
        "from sayso.service.access.shared_buckets import shared_buckets\n"
        f"with Store(sys.argv[1], {REQUIRED_S}, KeyText('{MASTER_KEY}')) as store:\n"
        "    buckets = shared_buckets(store.database)\n"
        "    print(sum(buckets.take('key', 0.001, 10) >= 0 for _ in range(8)))"
    )
    ours = sum(buckets.take("key", 0.001, 10) >= 0 for _ in range(6))
    done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, check=True)
    assert (ours, int(done.stdout)) == (6, 4)
    left = buckets.take("key", 0.001, 10)
    assert -1.0 <= left < -0.9
    assert buckets.take("other", 0.001, 10) == pytest.approx(9)


def test_a_bucket_fills_again_by_the_servers_clock(store: Store, server: Server, name: str) -> None:
    buckets = shared_buckets(store.database)
    assert buckets is not None
    assert [buckets.take("key", 1.0, 2) >= 0 for _ in range(3)] == [True, True, False]
    server.boss("UPDATE rate_buckets SET at = at - interval '1 second'", name)
    assert [buckets.take("key", 1.0, 2) >= 0 for _ in range(2)] == [True, False]
    server.boss("UPDATE rate_buckets SET at = at - interval '1 day'", name)
    assert [buckets.take("key", 1.0, 2) >= 0 for _ in range(3)] == [True, True, False]


def test_who_waits_too_long_is_told_so(store: Store, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = module._SESSION.replace("'5s'", "'300ms'").replace("'10s'", "'2s'")
    monkeypatch.setattr(module, "_SESSION", quick)
    with opened(address) as other:
        with store.database.write("t"):
            with pytest.raises(StoreBusy):
                other.create_speaker("t", "alice")
            other.create_speaker("u", "alice")  # another tenant does not wait
            assert other.speakers("t").items == ()  # and nobody who reads
        with pytest.raises(StoreUnavailable, match="too long"), other.database.read() as connection:
            connection.execute("SELECT pg_sleep(30)")
        other.create_speaker("t", "alice")


def test_models_keep_apart_by_their_dimensions(store: Store) -> None:
    enrol(store, "t", "alice", 1)
    store.add_enrollment("t", "alice", recording(0, REQUIRED_S, {OTHER_MODEL: unit(3, 8)}))
    index = index_of(store)
    assert index.search("t", OTHER_MODEL, unit(3, 8), 5)[0][0].speaker_id == "alice"
    assert index.search("t", MODEL, unit(1), 5)[0][0].speaker_id == "alice"
