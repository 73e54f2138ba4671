"""What a running service does by itself: erases who expired, and embeds kept recordings with a new model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from sayso.enroll.secrets.transaction import acting
from sayso.runtime.errors import ShuttingDown
from sayso.service.engine import Engine
from sayso.service.errors import ServiceError

EVERY_S = 10.0
LATE_AFTER = 6  # rounds in a row that a task may fail until the service is not ready
log = structlog.get_logger()


class Upkeep:
    """Threads beside the requests; `start` them, and `stop` them before the engine is closed.

    A task that fails is logged and counted, and done again in the next round, whatever it raised.
    """

    def __init__(self, engine: Engine, every_s: float = EVERY_S) -> None:
        self._engine, self._every_s = engine, every_s
        self._tasks: dict[str, Callable[[], None]] = {
            "expire": self._expire,
            "purge": lambda: engine.store.purge(),
            "index": lambda: engine.index.refresh(),
            "lacking": lambda: engine.lacking.refresh(),
        }
        for task in (*self._tasks, "problems", "reembed"):
            engine.metrics.upkeep_failures.labels(task)  # so that `increase()` sees the first failure
        self._problems: set[str] = set()
        self._done_at = dict.fromkeys(self._tasks, time.monotonic())
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start them, anew after a `stop`: a server may begin an app's lifespan more than once."""
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._tidy, name="upkeep", daemon=True),
            threading.Thread(target=self._reembed, name="reembedding", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise a 503 that names a task which has not succeeded for LATE_AFTER rounds."""
        now, allowed_s = time.monotonic(), LATE_AFTER * self._every_s
        for task, done_at in self._done_at.items():
            if now - done_at > allowed_s:
                detail = f"the upkeep `{task}` has not succeeded for {now - done_at:.0f} s: the log says why"
                raise ServiceError(503, "not_ready", detail)

    def _tidy(self) -> None:
        with acting("upkeep"):
            while True:
                for name, task in self._tasks.items():
                    if self._succeeds(name, task):
                        self._done_at[name] = time.monotonic()
                self._succeeds("problems", self._report_problems)
                if self._stop.wait(self._every_s):
                    return

    def _report_problems(self) -> None:
        """Log what fails in the background of the index and the audit log, each once while it lasts."""
        audit = self._engine.store.audit.problem
        problems = {*self._engine.index.problems, *([] if audit is None else [audit])}
        for problem in sorted(problems - self._problems):
            log.error("background_problem", detail=problem)
        self._problems = problems
        self._engine.metrics.background_problems.set(len(problems))

    def _reembed(self) -> None:
        """Embed kept recordings that lack a vector; after a failure try again every `_every_s` seconds."""
        with acting("upkeep"):
            while not self._succeeds("reembed", self._reembed_once):
                if self._stop.wait(self._every_s):
                    return

    def _succeeds(self, name: str, task: Callable[[], None]) -> bool:
        try:
            task()
        except Exception as error:
            if self._stop.is_set() and isinstance(error, ShuttingDown):
                return True
            self._engine.metrics.upkeep_failures.labels(name).inc()
            code = getattr(error, "code", type(error).__name__)
            log.error("upkeep_failed", task=name, code=code, detail=str(error), exc_info=error)
            return False
        return True

    def _expire(self) -> None:
        if expired := self._engine.store.rights.expire():
            log.info("expired", speakers=expired)

    def _reembed_once(self) -> None:
        done, failed = reembed(self._engine, stopped=self._stop.is_set)
        if done or failed:
            log.info("reembedded", recordings=done, failed=failed)


def reembed(
    engine: Engine,
    advance: Callable[[int, int], None] = lambda *_: None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[int, int]:
    """Embed each kept recording with each served model that has not seen it yet, one after the other.

    Calls `advance(done, all)` after each. Returns how many were embedded and how many could not be; those
    stay as they are, and are tried again at the next start. What was done stays done when it is cut short.
    """
    todo = {
        model.name: engine.store.recordings.to_embed(model.embedder.sha256)
        for model in engine.models.values()
    }
    total, tried, failed = sum(map(len, todo.values())), 0, 0
    for name, numbers in todo.items():
        waiting = engine.metrics.reembedding.labels(name)
        waiting.set(len(numbers))
        for number in numbers:
            if stopped():
                return tried - failed, failed
            try:
                data = engine.store.recordings.read(number)
                if data is not None:
                    vector = engine.embed_kept(data, name)
                    engine.store.recordings.embedded(number, engine.model(name).embedder.sha256, vector)
            except ShuttingDown:
                raise
            except Exception as error:  # one recording fails alone
                failed += 1
                code = getattr(error, "code", type(error).__name__)
                log.warning("reembedding_failed", enrollment=number, model=name, code=code, exc_info=error)
            tried += 1
            waiting.dec()
            advance(tried, total)
    return tried - failed, failed
