"""What a call costs the store does not grow with the tenant: counted in the database's steps, not in time."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest
from enroll_samples import MODEL, REQUIRED_S, recording, unit
from pgserver import MASTER_KEY, Server

from sayso.enroll.db.sqlite import Database, SqliteConnection
from sayso.enroll.search.index import SpeakerIndex
from sayso.enroll.secrets.master_key import KeyText
from sayso.enroll.store import Store
from sayso.service.access.attempts import AttemptLimits, Attempts

MANY = 20_000
LIMITS = AttemptLimits(delay_after=2, delay_s=3600.0, lock_after=4, replay_days=30.0)


class Steps:
    """Counts the virtual machine's instructions of every connection that is opened from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        connect = Database._connect

        def counting(database: Database) -> SqliteConnection:
            connection = connect(database)
            connection.set_progress_handler(self._step, 10)
            return connection

        monkeypatch.setattr(Database, "_connect", counting)

    def _step(self) -> int:
        self.count += 10
        return 0

    def of(self, call: Callable[[], object]) -> int:
        before = self.count
        call()
        return self.count - before


def crowd(store: Store, count: int, failures: int = 0) -> None:
    """Add other speakers of the tenant, some of whom have failed before."""
    with store.database.write() as connection:
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO speakers (tenant, id, metadata, revision, created_at, updated_at)"
            " SELECT 't', 'other-' || i, '{}', 0, '2026', '2026' FROM n",
            (count,),
        )
        if failures:
            connection.execute(
                "INSERT INTO attempts (speaker, tenant, failures, attempt, failed_at)"
                " SELECT number, 't', ?, 'a', '2026' FROM speakers WHERE id LIKE 'other-%'",
                (failures,),
            )


def calls_of(store: Store, index: SpeakerIndex) -> dict[str, Callable[[], object]]:
    """The store's part of verify and identify."""
    attempts = Attempts(store.database)
    return {
        "template": lambda: store.template("t", "alice", MODEL),
        "admit one": lambda: attempts.admit("t", ["alice"], "next", LIMITS),
        "admit several": lambda: attempts.admit("t", ["alice", "bob"], "next", LIMITS),
        "barred": lambda: attempts.barred("t", "next", LIMITS),
        "in step": lambda: index.search("t", MODEL, unit(1), 2, among=["alice", "bob"]),
        "failed": lambda: attempts.failed("t", "alice", "a", LIMITS),
        "succeeded": lambda: attempts.succeeded("t", "alice", "verify", b"voice", "a", LIMITS),
    }


@pytest.mark.parametrize("failures", [0, 1], ids=["nobody failed", "everybody failed once"])
def test_verify_and_identify_cost_the_same_in_a_large_tenant(
    path: Path, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, costs = Steps(monkeypatch), []
    for count in (1, MANY):
        with Store(path.with_name(f"{count}.db"), REQUIRED_S) as store:
            for seed, name in enumerate(("alice", "bob")):
                store.create_speaker("t", name)
                store.add_enrollment("t", name, recording(seed, REQUIRED_S))
            crowd(store, count, failures)
            index = SpeakerIndex(store)
            index.search("t", MODEL, unit(1), 2)
            calls = calls_of(store, index)
            costs.append({name: steps.of(call) for name, call in calls.items()})
    small, large = costs
    for name, cost in small.items():
        assert large[name] <= 1.2 * cost + 50, (name, small, large)


def test_a_server_scans_no_speakers_for_verify_and_identify(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = server.database()
    with Store(server.url(name), REQUIRED_S, KeyText(MASTER_KEY)) as store:
        store.create_speaker("t", "alice")
        store.add_enrollment("t", "alice", recording(1, REQUIRED_S))
        with store.database.write() as connection:
            connection.execute(
                "INSERT INTO speakers (tenant, id, metadata, revision, created_at, updated_at)"
                " SELECT 't', 'other-' || i, '{}', 0, '2026', '2026' FROM generate_series(1, ?) AS n (i)",
                (MANY,),
            )
            connection.execute(
                "INSERT INTO attempts (speaker, tenant, failures, attempt, failed_at)"
                " SELECT number, 't', 1, 'a', '2026' FROM speakers WHERE id LIKE 'other-%'"
            )
            connection.execute("SELECT pg_stat_force_next_flush()")  # what this read counts before the calls
        for table in ("speakers", "attempts", "templates"):
            server.boss(f"ANALYZE {table}", name)
        scans = "SELECT relname, seq_tup_read FROM pg_stat_user_tables ORDER BY 1"

        def rows_scanned() -> dict[str, int]:
            with psycopg.connect(server.url(name), autocommit=True) as connection:
                connection.execute("SELECT pg_stat_force_next_flush()")
                rows = connection.execute(scans).fetchall()
            return {row[0]: row[1] for row in rows if row[0] in ("speakers", "attempts")}

        def flush() -> None:  # each of the pool's connections tells what it did
            with store.database.single() as connection:  # type: ignore[attr-defined]
                connection.execute("SELECT pg_stat_force_next_flush()")

        flush()
        before = rows_scanned()
        for _ in range(8):  # beyond psycopg's threshold for prepared statements, with their generic plans
            store.template("t", "alice", MODEL)
            Attempts(store.database).admit("t", ["alice"], "next", LIMITS)
            Attempts(store.database).barred("t", "next", LIMITS)
            Attempts(store.database).failed("t", "alice", "a", LIMITS)
            Attempts(store.database).succeeded("t", "alice", "verify", b"voice", "a", LIMITS)
        flush()
        assert rows_scanned() == before


def test_rotating_a_key_costs_as_much_for_each_value_in_a_large_tenant(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sayso.enroll.tenants._SPEAKERS_AT_ONCE", 10)
    steps, costs = Steps(monkeypatch), []
    for count in (100, 400):
        with Store(path.with_name(f"{count}.db"), REQUIRED_S) as store:
            with store.database.write() as connection:
                transaction = store.vault.transaction(connection)
                connection.execute("INSERT INTO models VALUES (?, 4)", (MODEL,))
                for number in range(1, count + 1):
                    connection.execute(
                        "INSERT INTO speakers (tenant, id, metadata, revision, created_at, updated_at)"
                        " VALUES ('t', ?, '{}', 0, '', '')",
                        (f"s{number}",),
                    )
                    connection.execute(
                        "INSERT INTO enrollments"
                        " (speaker, id, net_speech_s, duration_s, clipping, created_at)"
                        " VALUES (?, 'e', 1, 1, 0, '')",
                        (number,),
                    )
                    vector = np.full(4, 0.5, np.float32).tobytes()
                    sealed = transaction.seal("t", f"embedding of enrolment {number}, model {MODEL}", vector)
                    connection.execute("INSERT INTO embeddings VALUES (?, ?, ?)", (number, MODEL, sealed))
            costs.append(steps.of(lambda: store.tenants.rotate_key("t")))
            rotated = f"{sqlite3.sqlite_version}: {costs}"
    assert costs[1] < 4.6 * costs[0], rotated
