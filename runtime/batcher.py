"""Groups windows of concurrent callers into batches, and keeps one bad item from hurting another.

A single worker owns the session. It takes whatever has queued up while it ran the previous batch, so
a lone caller never waits for company and a busy server batches by itself. Only after a batch that was
shared, when more are likely on their way, it waits for them up to `wait_s`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sayso.runtime.audio import Samples
from sayso.runtime.errors import EmbeddingFailed, Overloaded, ShuttingDown

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Batched:
    """`vectors [windows, dim]` of one item, with how long it waited and ran, in seconds."""

    vectors: Vectors
    queue_s: float
    run_s: float


@dataclass(frozen=True)
class _Item:
    windows: Samples
    future: Future[Batched]
    queued_at: float = field(default_factory=time.perf_counter)


class Batcher:
    """`run` maps `[n, samples]` to `[n, dim]`; `observe` is told each batch's number of windows.

    All windows are of one length, so `max_batch` of them bound a batch's frames. `prepare` runs first, on
    the thread that will run the batches; what it raises, the constructor raises.
    """

    def __init__(
        self,
        run: Callable[[Samples], Vectors],
        max_batch: int = 16,
        max_queued: int = 128,
        observe: Callable[[int], None] = lambda windows: None,
        wait_s: float = 0.0,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._run, self._observe = run, observe
        self._max_batch, self._wait_s, self._had_company = max_batch, wait_s, False
        self._queue: queue.Queue[_Item | None] = queue.Queue(max_queued)
        self._closed = False
        self._closing = threading.Lock()  # nothing is queued behind the None that stops the worker
        ready: Future[None] = Future()
        self._worker = threading.Thread(target=self._work, args=(prepare, ready), name="batcher", daemon=True)
        self._worker.start()
        ready.result()

    @property
    def depth(self) -> int:
        """Items waiting now."""
        return self._queue.qsize()

    def submit(self, windows: Samples) -> Future[Batched]:
        """Queue one item's windows `[n, samples]`, at least one.

        Raises `Overloaded` when the queue is full, `ShuttingDown` once closed.
        """
        if not len(windows):
            raise ValueError("an item needs a window")
        item = _Item(windows, Future())
        with self._closing:
            if self._closed:
                raise ShuttingDown("the service is shutting down: try another instance, or again shortly")
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                raise Overloaded(
                    "too many recordings are waiting to be embedded: try again shortly"
                ) from None
        return item.future

    def close(self) -> None:
        """Finish what is queued, then stop; later submissions are refused."""
        with self._closing:
            already, self._closed = self._closed, True
        if not already:
            self._queue.put(None)
        self._worker.join()

    def _work(self, prepare: Callable[[], None], ready: Future[None]) -> None:
        try:
            prepare()
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        open_ = True
        while open_:
            items, open_ = self._take()
            if items:
                self._process(items)

    def _take(self) -> tuple[list[_Item], bool]:
        """Wait for an item and add what else has queued up; the second is False when the worker must stop."""
        items: list[_Item] = []
        total = 0
        item = self._queue.get()
        until = time.perf_counter() + self._wait_s if self._had_company else 0.0
        while item is not None:
            if item.future.set_running_or_notify_cancel():
                items.append(item)
                total += len(item.windows)
            if total >= self._max_batch:
                break
            left_s = until - time.perf_counter()
            try:
                item = self._queue.get(timeout=left_s) if left_s > 0 else self._queue.get_nowait()
            except queue.Empty:
                break
        self._had_company = len(items) > 1
        return items, item is not None

    def _process(self, items: list[_Item]) -> None:
        """One batch; when it fails, each item alone, so that only the bad one does."""
        started = time.perf_counter()
        try:
            vectors = self._embed(np.concatenate([item.windows for item in items]))
        except Exception as error:
            if len(items) == 1:
                reason = (
                    error
                    if isinstance(error, EmbeddingFailed)
                    else EmbeddingFailed(f"the model could not embed this recording ({type(error).__name__})")
                )
                reason.__cause__ = None if reason is error else error
                items[0].future.set_exception(reason)
                return
            for item in items:
                self._process([item])
            return
        ran = time.perf_counter() - started
        at = 0
        for item in items:
            part = vectors[at : at + len(item.windows)]
            at += len(item.windows)
            item.future.set_result(Batched(part, started - item.queued_at, ran))

    def _embed(self, windows: Samples) -> Vectors:
        parts = []
        for i in range(0, len(windows), self._max_batch):
            batch = windows[i : i + self._max_batch]
            self._observe(len(batch))
            parts.append(embed_checked(self._run, batch))
        return np.concatenate(parts)


def embed_checked(run: Callable[[Samples], Vectors], windows: Samples) -> Vectors:
    """One finite vector for each window; raises `EmbeddingFailed` whatever it was that failed."""
    try:
        vectors = run(windows)
    except Exception as error:  # onnxruntime raises its own unexported classes
        raise EmbeddingFailed(f"the model could not embed this recording ({type(error).__name__})") from error
    if len(vectors) != len(windows):
        raise EmbeddingFailed(f"the model gave {len(vectors)} vectors for {len(windows)} windows")
    if not np.isfinite(vectors).all():
        raise EmbeddingFailed("the model gave a vector that is not finite for this recording")
    return vectors
