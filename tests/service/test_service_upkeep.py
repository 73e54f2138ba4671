"""Upkeep goes on whatever fails, and says so; readiness is checked once however many ask."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from sounds import voice_of

from sayso.enroll.errors import StoreUnavailable
from sayso.service import upkeep
from sayso.service.errors import ServiceError
from sayso.service.readiness import READY_FOR_S, Readiness
from sayso.service.upkeep import LATE_AFTER, Upkeep, reembed


class Failing:
    """A task that raises these errors one after the other, and then works; waits for its n-th call."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors, self.calls = list(errors), threading.Semaphore(0)

    def __call__(self, *_: object, **__: object) -> Any:
        self.calls.release()
        if self.errors:
            raise self.errors.pop(0)

    def called(self, times: int) -> None:
        for _ in range(times):
            assert self.calls.acquire(timeout=60)


@pytest.fixture
def keep(service: Any) -> Iterator[Callable[[], Upkeep]]:
    """Start an upkeep of this engine with short rounds."""
    started = []

    def start() -> Upkeep:
        started.append(Upkeep(service.engine, 0.01))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.stop()


def failures(service: Any, task: str) -> float:
    return float(service.engine.metrics.upkeep_failures.labels(task)._value.get())


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), MemoryError(), StoreUnavailable("here", OSError("gone")), KeyError("x")]
)
def test_upkeep_survives_any_error(
    service: Any, keep: Callable[[], Upkeep], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expire, purge = Failing(error, error), Failing()
    monkeypatch.setattr(service.engine.store.rights, "expire", expire)
    monkeypatch.setattr(service.engine.store, "purge", purge)
    keep()
    expire.called(4)
    purge.called(4)  # one task that fails keeps no other from its work
    assert failures(service, "expire") == 2
    assert 'sayso_upkeep_failures_total{task="expire"} 2.0' in service.get("/metrics").text


def test_embedding_again_is_tried_until_it_was_done_once(
    service: Any, keep: Callable[[], Upkeep], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = Failing(RuntimeError("a bug"), StoreUnavailable("here", OSError("gone")))
    monkeypatch.setattr(upkeep, "reembed", lambda *a, **k: again() or (0, 0))
    keep()
    again.called(3)
    assert failures(service, "reembed") == 2


def test_one_recording_that_cannot_be_embedded_leaves_the_others_alone(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = service.engine
    engine.store.tenants.keep_recordings("default", True)
    service.enrolled("ann", voice_of("ann", 1), voice_of("ann", 2, 8))
    sha256 = engine.model(None).embedder.sha256
    monkeypatch.setattr(
        engine.store.recordings, "to_embed", lambda wanted: [1, 2] if wanted == sha256 else []
    )
    failing = Failing(ZeroDivisionError("a bug"))
    embed = engine.embed_kept
    monkeypatch.setattr(engine, "embed_kept", lambda *args: failing() or embed(*args))
    assert reembed(engine) == (1, 1)


def test_problems_of_the_background_are_counted_while_they_last(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = type(service.engine.index)
    upkeep = Upkeep(service.engine)
    for problems, shown in ((["a short list could not be built"], 1.0), ([], 0.0)):
        monkeypatch.setattr(index, "problems", problems)
        upkeep._report_problems()
        assert f"sayso_background_problems {shown}" in service.engine.metrics.text().decode()


def test_readiness_turns_red_when_upkeep_cannot_work(
    service: Any, keep: Callable[[], Upkeep], monkeypatch: pytest.MonkeyPatch
) -> None:
    expire, now = Failing(*[RuntimeError("a bug")] * 10_000), [1000.0]
    monkeypatch.setattr(service.engine.store.rights, "expire", expire)
    monkeypatch.setattr(upkeep, "time", SimpleNamespace(monotonic=lambda: now[0]))
    running = keep()
    expire.called(2)
    running.check()
    now[0] += LATE_AFTER * 0.01 + 1
    with pytest.raises(ServiceError, match="`expire` has not succeeded"):
        running.check()
    expire.errors.clear()
    expire.calls = threading.Semaphore(0)
    expire.called(3)  # two rounds are over since
    running.check()


def test_readyz_says_what_upkeep_says(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        raise ServiceError(503, "not_ready", "the upkeep `expire` has not succeeded for 61 s")

    service.client.app.state.readiness = Readiness(check)
    answer = service.get("/readyz", key=None)
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "expire" in answer.json()["detail"]


@pytest.mark.parametrize("healthy", [True, False])
def test_many_callers_cost_one_check(service: Any, healthy: bool) -> None:
    calls: Counter[str] = Counter()

    def check() -> None:
        calls["checks"] += 1
        if not healthy:
            raise RuntimeError("a bug")

    service.client.app.state.readiness = Readiness(check, 3600)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: service.get("/readyz", key=None).status_code, range(20)))
    assert answers == [200 if healthy else 503] * 20
    assert calls["checks"] == 1


def test_a_check_is_made_again_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Exception | None] = [ValueError("first"), None, ValueError("third")]

    def check() -> None:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    async def ask() -> None:
        now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        readiness = Readiness(check)
        assert str(await readiness.failure()) == "first"
        now += READY_FOR_S / 2
        assert str(await readiness.failure()) == "first"
        now += READY_FOR_S
        assert await readiness.failure() is None
        now += READY_FOR_S
        assert str(await readiness.failure()) == "third"

    asyncio.run(ask())
