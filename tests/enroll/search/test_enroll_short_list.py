"""The search of a large tenant: near enough to exact, and in step at every moment, also while it is built."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import numpy as np
import pytest
from enroll_samples import MODEL, REQUIRED_S, normalised, recording, unit
from hypothesis import given, settings
from hypothesis import strategies as st

from sayso.enroll import clock
from sayso.enroll.decision import score
from sayso.enroll.search import mirror, roster
from sayso.enroll.search.feed import Changes
from sayso.enroll.search.index import SpeakerIndex
from sayso.enroll.search.matrix import Matrix
from sayso.enroll.search.mirror import Mirror
from sayso.enroll.search.roster import Roster
from sayso.enroll.search.short_list import Shortlist
from sayso.enroll.store import Store

DIM, FROM = 64, 40


def voices(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    """Unit vectors `[count, dim]` that fill few dimensions, as those of trained networks do."""
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((count, dim)) * np.exp(-np.arange(dim) / (dim / 8))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


def filled(vectors: np.ndarray) -> Roster:
    matrix = Matrix()
    matrix.append(vectors)
    return Roster(range(len(vectors)), [f"s{n:05d}" for n in range(len(vectors))], matrix)


def with_short_list(vectors: np.ndarray) -> Roster:
    made = filled(vectors)
    made.shortlist = Shortlist(vectors)
    made.shortlist.add(vectors)
    return made


def exact(query: np.ndarray, made: Roster, k: int) -> list[tuple[float, str]]:
    rows = made.vectors.rows
    return sorted((-score(query, rows[slot]), name) for slot, name in enumerate(made._ids))[:k]


def test_it_finds_whom_exact_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "SHORT", 200)
    made = with_short_list(voices(6000))
    rng = np.random.default_rng(1)
    for slot in range(0, 6000, 100):
        noisy = normalised(made.vectors.rows[slot] + 0.08 * rng.standard_normal(DIM))
        found, searched = made.search(noisy, 3, None)
        assert searched == 6000
        assert [(-c.score, c.speaker_id) for c in found][:1] == exact(noisy, made, 1)
    for stranger in voices(60, seed=2):
        found, _ = made.search(stranger, 1, None)
        assert [(-c.score, c.speaker_id) for c in found] == exact(stranger, made, 1)


def test_a_narrowed_search_and_a_long_one_are_exact() -> None:
    made = with_short_list(voices(3000))
    allowed = frozenset(range(0, 3000, 7)) | {99_999}
    query = unit(5, DIM)
    found, searched = made.search(query, 200, allowed)
    among = [made.vectors.rows[n] for n in sorted(allowed - {99_999})]
    assert searched == len(among)
    assert [c.score for c in found] == sorted((score(query, row) for row in among), reverse=True)[:200]
    found, _ = made.search(query, 600, None)
    assert [(-c.score, c.speaker_id) for c in found] == exact(query, made, 600)
    half = frozenset(range(1500))  # more than are worth gathering
    assert made.search(query, 1, half)[0] == filled(made.vectors.rows[:1500]).search(query, 1, None)[0]


def test_nobody_is_on_the_list_twice() -> None:
    """Where there are fewer speakers than places on it, the last one once filled the rest."""
    made = with_short_list(voices(100))
    found, _ = made.search(made.vectors.rows[99], 5, None)
    assert [(-c.score, c.speaker_id) for c in found] == exact(made.vectors.rows[99], made, 5)


def test_equal_scores_come_by_id() -> None:
    vectors = voices(2000)
    vectors[[1500, 3, 700, 40]] = vectors[1999]
    made = with_short_list(vectors)
    for k in range(1, 6):
        found, _ = made.search(vectors[3], k, None)
        assert [c.speaker_id for c in found] == ["s00003", "s00040", "s00700", "s01500", "s01999"][:k]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(1, 40)),
            st.tuples(st.just("remove"), st.integers(0, 400)),
            st.tuples(st.just("build"), st.just(0)),
        ),
        max_size=30,
    )
)
@settings(deadline=None, max_examples=40)
def test_whatever_happens_while_it_is_built(steps: list[tuple[str, int]]) -> None:
    """Come, go and build a piece, in any order: at each step the search equals brute force."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(mirror, "_AT_ONCE", 16)
        patched.setattr(mirror, "_LAST", 4)
        made, feed = mirrored(patched, 100)
        shortlist = Shortlist(voices(100))
        fresh, done = 1000, False
        assert made._roster.written is not None
        for step, value in steps:
            if step == "build":
                done = done or made._advance(made._roster, shortlist)
                if done:
                    made._roster.written = None
            else:
                numbers = range(fresh, fresh + value) if step == "add" else ()
                fresh += len(numbers)
                feed.change(numbers, {value} if step == "remove" else set())
            agrees(made, feed)
        while not done:
            done = made._advance(made._roster, shortlist)
        assert made._roster.shortlist is shortlist
        assert len(shortlist) == len(feed.speakers)
        agrees(made, feed)


class Feed:
    """A store of vectors by number, as a mirror sees one."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.revision, self.speakers = 1, dict(enumerate(vectors))
        self._log: list[tuple[int, set[int]]] = []

    def change(self, new: range | tuple[()], gone: set[int]) -> None:
        self.revision += 1
        for number in gone:
            self.speakers.pop(number, None)
        for number in new:
            self.speakers[number] = voices(1, number)[0]
        self._log.append((self.revision, gone | set(new)))

    def since(self, tenant: str, model: str, revision: int) -> Changes | None:
        if revision == self.revision:
            return None
        whole = revision < 1
        touched = set().union(*(numbers for at, numbers in self._log if at > revision))
        there = sorted(self.speakers if whole else self.speakers.keys() & touched)
        vectors = Matrix()
        if there:
            vectors.append([self.speakers[n] for n in there])
        ids = [f"s{n:05d}" for n in there]
        return Changes(self.revision, whole, set() if whole else touched, there, ids, vectors, {})


def mirrored(patched: pytest.MonkeyPatch, count: int) -> tuple[Mirror, Feed]:
    """A mirror that has begun a short list, which the caller builds step by step."""
    feed = Feed(voices(count))
    patched.setattr(Mirror, "_build", lambda self, made: None)
    made = Mirror(feed, "t", MODEL, FROM, threading.Semaphore())  # type: ignore[arg-type]
    made.catch_up()
    return made, feed


def agrees(made: Mirror, feed: Feed) -> None:
    query = voices(1, seed=77)[0]
    found, searched = made.search(query, 5, None)
    best = sorted((-score(query, vector), f"s{n:05d}") for n, vector in feed.speakers.items())[:5]
    assert [(-c.score, c.speaker_id) for c in found] == best
    assert searched == len(feed.speakers)
    assert made.differences() == []


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Hold every training until the event is set."""
    go = threading.Event()
    train = Shortlist.__init__

    def wait(self: Shortlist, sample: np.ndarray) -> None:
        assert go.wait(30)
        train(self, sample)

    monkeypatch.setattr(Shortlist, "__init__", wait)
    yield go
    go.set()


def enrol(store: Store, name: str, vector: np.ndarray, expires_at: datetime | None = None) -> None:
    store.create_speaker("t", name, expires_at=expires_at)
    store.add_enrollment("t", name, recording(0, REQUIRED_S, {MODEL: vector}))


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_no_search_waits_for_a_build(
    store: Store, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = SpeakerIndex(store, approximate_from=FROM)
    now = [clock.now()]
    monkeypatch.setattr(clock, "now", lambda: now[0])
    vectors = voices(FROM + 8)

    def best(slot: int) -> str:
        return index.search("t", MODEL, vectors[slot], 1)[0][0].speaker_id

    for slot in range(FROM):
        enrol(store, f"s{slot}", vectors[slot])
        assert best(slot) == f"s{slot}"
    made = index._mirror("t", MODEL)
    assert made.building
    assert made._roster.shortlist is None
    enrol(store, "new", vectors[FROM])
    enrol(store, "brief", vectors[FROM + 1], expires_at=now[0] + timedelta(hours=1))
    assert (best(FROM), best(FROM + 1)) == ("new", "brief")
    store.delete_speaker("t", "s3")
    store.update_speaker("t", "s4", status="opted_out")
    assert {best(3), best(4)}.isdisjoint({"s3", "s4"})
    assert index.check() == []

    slow.set()
    wait_for(lambda: not made.building)
    assert made._roster.shortlist is not None
    assert index.check() == []
    assert (best(FROM), best(FROM + 1), best(5)) == ("new", "brief", "s5")
    assert {best(3), best(4)}.isdisjoint({"s3", "s4"})
    now[0] += timedelta(hours=2)
    assert best(FROM + 1) != "brief"
    store.delete_speaker("t", "new")
    enrol(store, "newer", vectors[FROM + 2])
    assert best(FROM) != "new"
    assert best(FROM + 2) == "newer"
    store.add_enrollment("t", "newer", recording(0, 3.0, {MODEL: vectors[FROM + 3]}))
    moved = normalised(vectors[FROM + 2] + vectors[FROM + 3])
    assert index.search("t", MODEL, moved, 1)[0][0].score == pytest.approx(1.0, abs=1e-6)
    assert index.check() == []


def test_nothing_of_the_deleted_stays_in_memory() -> None:
    made = with_short_list(voices(500))
    gone = [made.vectors.rows[n].tobytes() for n in (499, 30, 0)]
    codes = made.shortlist
    assert codes is not None
    for number in (499, 30, 0):
        made.remove(number)
    memory = made.vectors._memory.tobytes()
    assert [vector for vector in gone if vector in memory] == []
    places = [codes._packer.unpack_1(codes._block(slot), slot % 32) for slot in range(497, 500)]
    assert not np.any(places)
    assert made.differences(made._numbers, made._ids, made.vectors) == []


def test_check_sees_a_wrong_code() -> None:
    made = with_short_list(voices(300))
    assert made.shortlist is not None
    made.shortlist.replace(7, -made.vectors.rows[7])
    assert made.differences(made._numbers, made._ids, made.vectors) == [
        "1 codes on the short list are of other templates"
    ]


def test_a_tenant_that_grows_is_trained_anew_and_one_that_shrinks_is_exact_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, feed = mirrored(monkeypatch, FROM)
    assert made._built_for == FROM
    made._roster.written = None
    feed.change(range(1000, 1000 + 3 * FROM - 1), set())
    made.catch_up()
    assert made._built_for == FROM
    feed.change(range(5000, 5001), set())
    made.catch_up()
    assert made._built_for == 4 * FROM
    made._roster.shortlist = Shortlist(voices(100))
    made._roster.shortlist.add(made._roster.vectors.rows)
    feed.change((), set(feed.speakers) - {0, 1, 2})
    agrees(made, feed)
    assert made._roster.shortlist is None


def test_a_build_that_is_overtaken_is_given_up(store: Store, slow: threading.Event) -> None:
    index = SpeakerIndex(store, approximate_from=FROM)
    for slot, vector in enumerate(voices(FROM)):
        enrol(store, f"s{slot}", vector)
    index.warm()
    made = index._mirror("t", MODEL)
    before = made._roster
    with made._lock:
        made._forget()
    slow.set()
    wait_for(lambda: before.written is None)
    assert before.shortlist is None
    assert index.search("t", MODEL, voices(1)[0], 1)[1] == FROM
    wait_for(lambda: made._roster.shortlist is not None)
    assert index.check() == []


def test_writers_readers_and_builds_at_once(store: Store) -> None:
    index = SpeakerIndex(store, approximate_from=FROM)
    vectors, stop, gone = voices(200), threading.Event(), set[str]()
    failures: list[BaseException] = []

    def write(part: range) -> None:
        for slot in part:
            enrol(store, f"s{slot}", vectors[slot])
            assert index.search("t", MODEL, vectors[slot], 1)[0][0].speaker_id == f"s{slot}"
            if slot % 3 == 0:
                store.delete_speaker("t", f"s{slot}")
                gone.add(f"s{slot}")

    def read() -> None:
        while not stop.is_set():
            before = set(gone)
            found, searched = index.search("t", MODEL, vectors[0], 20)
            assert len(found) == min(searched, 20)
            assert before.isdisjoint(candidate.speaker_id for candidate in found)

    def kept(call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                call()
            except BaseException as error:
                failures.append(error)

        return run

    writers = [threading.Thread(target=kept(lambda p=p: write(p))) for p in (range(100), range(100, 200))]
    readers = [threading.Thread(target=kept(read)) for _ in range(2)]
    for thread in [*writers, *readers]:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert failures == []
    made = index._mirror("t", MODEL)
    wait_for(lambda: not made.building)
    assert made._roster.shortlist is not None
    assert index.check() == []


def test_a_short_list_that_cannot_be_built_is_told_and_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(20):
        store.create_speaker("t", f"s{seed}")
        store.add_enrollment("t", f"s{seed}", recording(seed, REQUIRED_S, {MODEL: unit(seed, DIM)}))
    index = SpeakerIndex(store, approximate_from=16)
    with monkeypatch.context() as failing:
        failing.setattr(mirror, "Shortlist", lambda sample: 1 / 0)
        index.warm()
        while index.building:
            time.sleep(0.001)
    assert len(index.problems) == 1
    assert "division by zero" in index.problems[0]
    assert "short list" in caplog.text
    assert index.search("t", MODEL, unit(7, DIM), 1)[0][0].speaker_id == "s7"  # every speaker is compared
    assert not index.building
    monkeypatch.setattr(mirror, "_RETRY_S", 0.0)
    index._mirror("t", MODEL)._retry_at = 0.0
    index.refresh()
    while index.building:
        time.sleep(0.001)
    assert index.problems == []
    assert index._mirror("t", MODEL)._roster.shortlist is not None
