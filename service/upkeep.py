"""What a running service does by itself: erases who expired, and embeds kept recordings with a new model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import structlog

from sayso.enroll.errors import EnrollError, StoreError
from sayso.enroll.secrets.transaction import acting
from sayso.runtime.errors import InputError, RuntimeFault, ShuttingDown
from sayso.service.engine import Engine

EVERY_S = 10.0
log = structlog.get_logger()


class Upkeep:
    """A thread beside the requests; `start` it, and `stop` it before the engine is closed."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with acting("upkeep"):
            self._tidy()
            with suppress(ShuttingDown):
                self._reembed()
            while not self._stop.wait(EVERY_S):
                self._tidy()

    def _tidy(self) -> None:
        store = self._engine.store
        try:
            if expired := store.rights.expire():
                log.info("expired", speakers=expired)
            store.purge()
            self._engine.index.refresh()
        except EnrollError as error:
            log.error("upkeep", code=error.code, detail=str(error))

    def _reembed(self) -> None:
        try:
            done, failed = reembed(self._engine, stopped=self._stop.is_set)
        except StoreError as error:
            log.error("upkeep", code=error.code, detail=str(error))
            return
        if done or failed:
            log.info("reembedded", recordings=done, failed=failed)


def reembed(
    engine: Engine,
    advance: Callable[[int, int], None] = lambda *_: None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[int, int]:
    """Embed each kept recording with each served model that has not seen it yet, one after the other.

    `advance` is told (done, all). Returns how many were embedded and how many could not be; those stay as
    they are, and are tried again at the next start. What was done stays done when it is cut short.
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
            except (InputError, RuntimeFault, EnrollError) as error:
                failed += 1
                log.warning("reembedding_failed", enrollment=number, model=name, code=error.code)
            tried += 1
            waiting.dec()
            advance(tried, total)
    return tried - failed, failed
