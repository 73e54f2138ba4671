"""Callers share batches and nothing else: each gets its own vectors, its own failure, its own end."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from runtime_samples import DIM, toy_network

from sayso.runtime.batcher import Batched, Batcher
from sayso.runtime.errors import EmbeddingFailed, Overloaded
from sayso.runtime.session import EmbeddingSession

POISON = 666.0
SECONDS = 20  # far beyond what any wait here takes


class Model:
    """A vector is the window's first two samples. It can be held shut, and chokes on poison."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)
        self.batches: list[int] = []

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        self.entered.release()
        assert self.open.wait(SECONDS)
        self.batches.append(len(windows))
        if (windows == POISON).any():
            raise RuntimeError("choked")
        return windows[:, :2].copy()


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def start(model: Model) -> Iterator[Callable[..., Batcher]]:
    started: list[Batcher] = []

    def make(**options: object) -> Batcher:
        started.append(Batcher(model, **options))  # type: ignore[arg-type]
        return started[-1]

    yield make
    model.open.set()
    for batcher in started:
        batcher.close()


def item(value: float, windows: int = 1) -> np.ndarray:
    return np.full((windows, 4), value, np.float32)


def held(model: Model, batcher: Batcher) -> Future[Batched]:
    """Shut the model on a first item, so that what follows queues up behind it."""
    model.open.clear()
    first = batcher.submit(item(0.0))
    assert model.entered.acquire(timeout=SECONDS)
    return first


def test_each_gets_its_own_vectors_back(model: Model, start: Callable[..., Batcher]) -> None:
    batcher = start(max_batch=8)
    first = held(model, batcher)
    futures = [batcher.submit(item(float(i), windows=1 + i % 3)) for i in range(1, 8)]
    model.open.set()
    assert first.result(SECONDS).vectors.tolist() == [[0.0, 0.0]]
    for i, future in enumerate(futures, start=1):
        batched = future.result(SECONDS)
        assert batched.vectors.tolist() == [[float(i), float(i)]] * (1 + i % 3)
        assert batched.queue_s > 0
        assert batched.run_s >= 0
    assert max(model.batches) <= 8
    assert len(model.batches) < 8  # they shared


def test_a_lone_caller_waits_for_no_company(model: Model, start: Callable[..., Batcher]) -> None:
    batched = start().submit(item(1.0)).result(SECONDS)
    assert model.batches == [1]
    assert batched.queue_s < 5


def test_only_who_had_company_waits_for_more(model: Model, start: Callable[..., Batcher]) -> None:
    batcher = start(wait_s=SECONDS, max_batch=3)
    assert batcher.submit(item(1.0)).result(5).vectors.tolist() == [[1.0, 1.0]]  # alone: at once
    assert model.entered.acquire(timeout=SECONDS)
    first = held(model, batcher)
    pair = [batcher.submit(item(float(i))) for i in (1, 2)]
    model.open.set()
    assert [future.result(5).vectors[0, 0] for future in pair] == [1.0, 2.0]
    late = [batcher.submit(item(3.0))]  # waits for company, until the batch is full
    time.sleep(0.05)
    assert not late[0].done()
    late += [batcher.submit(item(float(i))) for i in (4, 5)]
    assert [future.result(5).vectors[0, 0] for future in late] == [3.0, 4.0, 5.0]
    assert first.result(0).vectors.tolist() == [[0.0, 0.0]]
    assert model.batches == [1, 1, 2, 3]


def test_preparation_runs_on_the_thread_of_the_batches_and_its_failure_is_told() -> None:
    threads: list[threading.Thread] = []

    def run(windows: np.ndarray) -> np.ndarray:
        threads.append(threading.current_thread())
        return windows[:, :2]

    batcher = Batcher(run, prepare=lambda: threads.append(threading.current_thread()))
    batcher.submit(item(1.0)).result(SECONDS)
    batcher.close()
    assert threads[0] is threads[1] is not threading.current_thread()
    with pytest.raises(ZeroDivisionError):
        Batcher(run, prepare=lambda: 1 / 0)


def test_no_batch_is_larger_than_the_limit(model: Model, start: Callable[..., Batcher]) -> None:
    observed: list[int] = []
    batcher = start(max_batch=4, observe=observed.append)
    held(model, batcher)
    futures = [batcher.submit(item(1.0, windows=10)), batcher.submit(item(2.0, windows=3))]
    model.open.set()
    assert futures[0].result(SECONDS).vectors.shape == (10, 2)
    assert futures[1].result(SECONDS).vectors.tolist() == [[2.0, 2.0]] * 3
    assert observed == model.batches
    assert max(observed) == 4


@pytest.mark.parametrize("poison", [POISON, np.nan, np.inf])
def test_a_bad_item_fails_alone(poison: float, model: Model, start: Callable[..., Batcher]) -> None:
    batcher = start()
    held(model, batcher)
    good = [batcher.submit(item(float(i))) for i in (1, 2)]
    bad = batcher.submit(item(poison))
    good.append(batcher.submit(item(3.0)))
    model.open.set()
    assert [future.result(SECONDS).vectors[0, 0] for future in good] == [1.0, 2.0, 3.0]
    with pytest.raises(EmbeddingFailed):
        bad.result(SECONDS)
    assert batcher.submit(item(4.0)).result(SECONDS).vectors[0, 0] == 4.0  # the worker lives


def test_items_that_cannot_be_joined_are_run_apart(model: Model, start: Callable[..., Batcher]) -> None:
    batcher = start()
    held(model, batcher)
    odd = batcher.submit(np.full((1, 9), 5.0, np.float32))
    even = batcher.submit(item(6.0))
    with pytest.raises(ValueError, match="needs a window"):
        batcher.submit(np.zeros((0, 9), np.float32))
    model.open.set()
    assert odd.result(SECONDS).vectors.tolist() == [[5.0, 5.0]]
    assert even.result(SECONDS).vectors.tolist() == [[6.0, 6.0]]


@pytest.mark.parametrize("rows", [0, 1, 3, 9])
def test_a_model_that_loses_or_makes_up_vectors_fails(rows: int) -> None:
    """Vectors are dealt out by their place: one too few would be somebody else's."""
    batcher = Batcher(lambda windows: np.ones((rows, 2), np.float32))
    try:
        with pytest.raises(EmbeddingFailed, match=f"{rows} vectors for 2"):
            batcher.submit(item(1.0, windows=2)).result(SECONDS)
    finally:
        batcher.close()


def test_an_observer_that_fails_hangs_no_one(model: Model, start: Callable[..., Batcher]) -> None:
    def broken(windows: int) -> None:
        raise ValueError(windows)

    with pytest.raises(EmbeddingFailed, match="ValueError"):
        start(observe=broken).submit(item(1.0)).result(SECONDS)


def test_a_caller_that_has_gone_is_dropped(model: Model, start: Callable[..., Batcher]) -> None:
    batcher = start()
    held(model, batcher)
    gone, stays = batcher.submit(item(POISON)), batcher.submit(item(2.0))
    assert gone.cancel()
    model.open.set()
    assert stays.result(SECONDS).vectors[0, 0] == 2.0
    assert model.batches == [1, 1]  # the poison never ran


def test_a_full_queue_refuses_and_recovers(model: Model, start: Callable[..., Batcher]) -> None:
    batcher = start(max_queued=2)
    held(model, batcher)
    waiting = [batcher.submit(item(float(i))) for i in (1, 2)]
    assert batcher.depth == 2
    with pytest.raises(Overloaded, match="try again shortly"):
        batcher.submit(item(3.0))
    model.open.set()
    assert [future.result(SECONDS).vectors[0, 0] for future in waiting] == [1.0, 2.0]
    assert batcher.submit(item(4.0)).result(SECONDS).vectors[0, 0] == 4.0
    assert batcher.depth == 0


def test_closing_finishes_what_is_queued_and_refuses_the_rest(
    model: Model, start: Callable[..., Batcher]
) -> None:
    batcher = start(max_queued=3)
    held(model, batcher)
    waiting = [batcher.submit(item(float(i))) for i in (1, 2, 3)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:  # until the closing is noticed, the full queue refuses too
        with pytest.raises(Overloaded) as refused:
            batcher.submit(item(9.0))
        if "shutting down" in str(refused.value):
            break
    model.open.set()
    closing.join(SECONDS)
    assert not closing.is_alive()
    assert [future.result(0).vectors[0, 0] for future in waiting] == [1.0, 2.0, 3.0]
    with pytest.raises(Overloaded, match="shutting down"):
        batcher.submit(item(9.0))
    batcher.close()  # again, at once


def test_whatever_is_accepted_is_answered_even_while_closing() -> None:
    """Submissions racing a close are refused or finished; none is left hanging."""
    for _ in range(30):
        batcher = Batcher(lambda windows: windows[:, :2])
        go = threading.Barrier(5)

        def hammer(batcher: Batcher = batcher, go: threading.Barrier = go) -> list[Future[Batched]]:
            accepted = []
            go.wait()
            for _ in range(20):
                try:
                    accepted.append(batcher.submit(item(1.0)))
                except Overloaded:
                    break
            return accepted

        with ThreadPoolExecutor(4) as pool:
            hammering = [pool.submit(hammer) for _ in range(4)]
            go.wait()
            batcher.close()
            for future in (f for h in hammering for f in h.result(SECONDS)):
                assert future.result(SECONDS).vectors.shape == (1, 2)


def test_a_batched_embedding_equals_a_single_one() -> None:
    session = EmbeddingSession(toy_network(), "toy", provider="cpu", threads=1)
    rng = np.random.default_rng(0)
    items = [rng.standard_normal((1 + i % 4, 8_000)).astype(np.float32) for i in range(24)]
    batcher = Batcher(session.run, max_batch=8)
    with ThreadPoolExecutor(12) as pool:
        batched = list(pool.map(lambda windows: batcher.submit(windows).result(SECONDS).vectors, items))
    batcher.close()
    for windows, vectors in zip(items, batched, strict=True):
        assert vectors.shape == (len(windows), DIM)
        np.testing.assert_allclose(vectors, session.run(windows), atol=1e-6)
