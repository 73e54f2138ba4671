"""Many threads at once: nothing raises, nothing deleted is found, everything acknowledged is."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from enroll_samples import MODEL, REQUIRED_S, recording, unit

from sayso.enroll.errors import SpeakerNotFound
from sayso.enroll.search.index import index_of
from sayso.enroll.store import Store

ROUNDS = 25


def test_enrolling_deleting_and_searching_at_once(store: Store) -> None:
    index = index_of(store)
    gone: set[str] = set()
    stop = threading.Event()

    def write(worker: int) -> None:
        for turn in range(ROUNDS):
            name, vector = f"w{worker}-{turn}", unit(1000 * worker + turn)
            store.create_speaker("t", name)
            store.add_enrollment("t", name, recording(0, REQUIRED_S, {MODEL: vector}))
            assert index.search("t", MODEL, vector, 1)[0][0].speaker_id == name
            assert index.search("t", MODEL, vector, 1, among=[name])[1] == 1
            if turn % 2:
                store.delete_speaker("t", name)
                gone.add(name)

    def search(worker: int) -> None:
        while not stop.is_set():
            gone_before = set(gone)
            candidates, searched = index.search("t", MODEL, unit(worker), 100)
            assert len(candidates) == min(searched, 100)
            assert gone_before.isdisjoint(candidate.speaker_id for candidate in candidates)

    run(stop, [lambda: write(1), lambda: write(2)], [lambda: search(3), lambda: search(4)])
    assert index.check() == []
    assert store.check() == []
    assert len(store.speakers("t").items) == 2 * ROUNDS - len(gone)


def test_one_speaker_pulled_from_all_sides(store: Store) -> None:
    index = index_of(store)
    stop = threading.Event()

    def churn() -> None:
        for turn in range(ROUNDS):
            store.create_speaker("t", "alice")
            store.add_enrollment("t", "alice", recording(turn, REQUIRED_S))
            store.delete_speaker("t", "alice")

    def disturb() -> None:
        while not stop.is_set():
            try:
                store.update_speaker("t", "alice", groups=["g"])
                store.add_enrollment("t", "alice", recording(99, 1.0))
                index.search("t", MODEL, unit(1), 3, among=["alice"], group="g")
            except SpeakerNotFound:
                pass

    run(stop, [churn], [disturb, disturb])
    assert index.check() == []
    assert store.speakers("t").items == ()


def run(stop: threading.Event, work: list[Callable[[], None]], until_done: list[Callable[[], None]]) -> None:
    """Run the work and, until it is done, the rest beside it; raise what any of them raised."""
    with ThreadPoolExecutor(len(work) + len(until_done)) as pool:
        beside = [pool.submit(call) for call in until_done]
        main = [pool.submit(call) for call in work]
        try:
            for future in main:
                future.result(timeout=60)
        finally:
            stop.set()
        for future in beside:
            future.result(timeout=60)
