"""A server that is killed, away, replaced by its standby, or behind: nothing acknowledged is lost."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from enroll_samples import MODEL, REQUIRED_S, recording, unit
from pgserver import MASTER_KEY, Server, serving

from sayso.enroll.errors import StoreError, StoreUnavailable
from sayso.enroll.search.index import index_of
from sayso.enroll.secrets.master_key import KeyText
from sayso.enroll.store import Store
from sayso.service.access.keys import KeyRing

RECOVERY_S = 30.0


@pytest.fixture
def primary() -> Iterator[Server]:
    """A server that keeps what it acknowledges, for this test alone."""
    yield from serving(durable=True)


@pytest.fixture
def standby(primary: Server) -> Iterator[Server]:
    """A server that follows the primary, which waits for it."""
    following = primary.standby()
    try:
        yield following
    finally:
        following.remove()


class Writers:
    """Threads that enrol, rename and delete until they are stopped, and note what was acknowledged."""

    def __init__(self, store: Store, threads: int = 3) -> None:
        self._store = store
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self.enrolled: dict[str, str] = {}  # speaker -> the name last acknowledged
        self.deleted: set[str] = set()
        self.doubtful: set[str] = set()  # a change of theirs failed: it may have been made or not
        self.failures: list[StoreError] = []
        self._running = [self._pool.submit(self._write, number) for number in range(threads)]

    def _write(self, number: int) -> None:
        for turn in count():
            if self._stop.is_set():
                return
            name = f"w{number}-{turn}"
            try:
                self._store.create_speaker("t", name)
                self._store.add_enrollment("t", name, recording(turn, REQUIRED_S), "e1")
                self.enrolled[name] = ""
                self._store.update_speaker("t", name, name=f"n{turn}")
                self.enrolled[name] = f"n{turn}"
                if turn % 4 == 0:
                    self._store.delete_speaker("t", name)
                    del self.enrolled[name]
                    self.deleted.add(name)
            except StoreError as error:
                self.doubtful.add(name)
                self.failures.append(error)
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop them; raises what was no StoreError."""
        self._stop.set()
        for future in self._running:
            future.result(60)
        self._pool.shutdown()


def wait_until_written(writers: Writers, more: int) -> None:
    wanted, deadline = len(writers.enrolled) + more, time.monotonic() + RECOVERY_S
    while len(writers.enrolled) < wanted:
        assert time.monotonic() < deadline, writers.failures[-1:]
        time.sleep(0.02)


def assert_nothing_is_lost(store: Store, writers: Writers) -> None:
    for name, given in writers.enrolled.items():
        speaker = store.speaker("t", name)  # raises for one who is gone
        if name not in writers.doubtful:
            assert speaker.name == given
        assert [enrollment.id for enrollment in store.enrollments("t", name)] == ["e1"]
    found, cursor = set(), None
    while True:
        page = store.speakers("t", 1000, cursor)
        found |= {speaker.id for speaker in page.items}
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found.isdisjoint(writers.deleted)
    assert found - writers.doubtful == writers.enrolled.keys() - writers.doubtful
    for name in found & writers.doubtful:  # whole, or not at all
        enrolled = len(store.enrollments("t", name))
        assert store.speaker("t", name).enrollments == enrolled
    assert store.check_templates() == []
    assert store.audit.verify().broken is None
    assert index_of(store).search("t", MODEL, unit(1), 3)[1] >= len(writers.enrolled)


def test_a_killed_server_keeps_what_it_acknowledged_and_the_open_store_goes_on(primary: Server) -> None:
    with Store(primary.url(primary.database()), REQUIRED_S, KeyText(MASTER_KEY)) as store:
        writers = Writers(store)
        wait_until_written(writers, 10)
        primary.kill()
        deadline = time.monotonic() + RECOVERY_S
        while not writers.failures:  # a change was tried while there was nobody to take it
            assert time.monotonic() < deadline
            time.sleep(0.02)
        primary.start()
        wait_until_written(writers, 10)
        writers.stop()
        assert {error.code for error in writers.failures} <= {"store_unavailable", "store_busy"}
        assert_nothing_is_lost(store, writers)


def test_while_the_server_is_away_calls_fail_soon_and_say_so(primary: Server) -> None:
    with Store(primary.url(primary.database()), REQUIRED_S, KeyText(MASTER_KEY)) as store:
        store.create_speaker("t", "alice")
        index = index_of(store)
        store.audit.note("verify", "t", "alice", decision="reject")
        primary.kill()
        for call in (
            lambda: store.speaker("t", "alice"),
            lambda: store.create_speaker("t", "bob"),
            lambda: index.search("t", MODEL, unit(1), 1),
            lambda: KeyRing(store.vault).authenticate("sayso_"),
            lambda: store.database.ping(),
        ):
            before = time.monotonic()
            with pytest.raises(StoreUnavailable, match="goes on by itself"):
                call()
            assert time.monotonic() - before < 20  # and not for ever
        primary.start()
        deadline = time.monotonic() + RECOVERY_S
        while True:
            try:
                store.database.ping()
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline
        assert [speaker.id for speaker in store.speakers("t").items] == ["alice"]
        assert store.create_speaker("t", "bob").id == "bob"
        store.audit.flush()
        assert "verify" in {event.event for event in store.audit.events()}  # noted before, written after


def test_a_promoted_standby_has_every_acknowledged_change(primary: Server, standby: Server) -> None:
    name = primary.database()
    hosts = f"postgresql://sayso@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/{name}"
    with Store(hosts, REQUIRED_S, KeyText(MASTER_KEY)) as store:
        writers = Writers(store)
        wait_until_written(writers, 15)
        primary.kill()
        standby.boss("SELECT pg_promote()")
        standby.boss("ALTER SYSTEM SET synchronous_standby_names = ''")
        standby.boss("SELECT pg_reload_conf()")
        wait_until_written(writers, 10)
        writers.stop()
        assert writers.failures
        assert_nothing_is_lost(store, writers)


def test_a_standby_takes_no_changes_and_says_so(primary: Server, standby: Server) -> None:
    name = primary.database()
    Store(primary.url(name), REQUIRED_S, KeyText(MASTER_KEY)).close()
    deadline = time.monotonic() + RECOVERY_S
    while True:
        try:
            with pytest.raises(StoreUnavailable, match=r"read-only|takes no changes"):
                Store(standby.url(name), REQUIRED_S, KeyText(MASTER_KEY))
            break
        except BaseException:
            if time.monotonic() > deadline:
                raise


def test_identify_reads_a_standby_that_has_caught_up_and_no_other(primary: Server, standby: Server) -> None:
    name = primary.database()
    addresses = (primary.url(name), REQUIRED_S, KeyText(MASTER_KEY), standby.url(name))
    with Store(*addresses) as store:
        index = index_of(store)
        store.create_speaker("t", "alice")
        store.add_enrollment("t", "alice", recording(1, REQUIRED_S))
        assert index.search("t", MODEL, unit(1), 1)[1] == 1  # at once, wherever it was read

        def searches_there() -> int:
            found = standby.boss("SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE '%COMMIT%'", name)
            return int(found[0][0])

        deadline = time.monotonic() + RECOVERY_S
        while not searches_there():
            assert index.search("t", MODEL, unit(1), 1)[1] == 1
            assert time.monotonic() < deadline
        standby.boss("SELECT pg_wal_replay_pause()")
        primary.boss("ALTER SYSTEM SET synchronous_standby_names = ''")
        primary.boss("SELECT pg_reload_conf()")
        store.delete_speaker("t", "alice")
        assert index.search("t", MODEL, unit(1), 1) == ([], 0)  # the standby still has them
        standby.kill()
        assert index.search("t", MODEL, unit(1), 1) == ([], 0)
        store.create_speaker("t", "bob")
        store.add_enrollment("t", "bob", recording(2, REQUIRED_S))
        assert index.search("t", MODEL, unit(2), 1)[1] == 1


def test_a_standby_that_lacks_even_the_tables_is_passed_over(primary: Server, standby: Server) -> None:
    name = primary.database()
    deadline = time.monotonic() + RECOVERY_S
    there = "SELECT COUNT(*) FROM pg_database WHERE datname = '" + name + "'"
    while not standby.boss(there)[0][0]:
        assert time.monotonic() < deadline
    primary.boss("ALTER SYSTEM SET synchronous_standby_names = ''")
    primary.boss("SELECT pg_reload_conf()")
    standby.boss("SELECT pg_wal_replay_pause()")
    with Store(primary.url(name), REQUIRED_S, KeyText(MASTER_KEY), standby.url(name)) as store:
        store.create_speaker("t", "alice")
        store.add_enrollment("t", "alice", recording(1, REQUIRED_S))
        assert index_of(store).search("t", MODEL, unit(1), 1)[1] == 1
