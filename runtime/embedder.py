"""Speech to one unit-length vector: the thing other rooms use.

On a CPU each caller runs the model itself: a caller who is alone on all cores, others on one core each, since
several one-thread runs get more done than one many-thread run, and batches gain nothing there. On CUDA
callers share batches of whole windows; shorter ones stay on the CPU, since each new length costs a GPU more
than it saves. docs/decisions/0027 and 0028 have the measurements.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sayso.runtime import windows
from sayso.runtime.agreement import SEVERAL_VOICES, agreement
from sayso.runtime.audio import Samples
from sayso.runtime.batcher import Batched, Batcher, embed_checked
from sayso.runtime.card import ModelCard, read_card
from sayso.runtime.errors import EmbeddingFailed, ModelError, ShuttingDown, TookTooLong
from sayso.runtime.model_file import network_sha256
from sayso.runtime.session import CPU, EmbeddingSession, Provider, available_cores

COMPANY_S = 0.002  # for so long a GPU that is busy waits for more to join a batch


@dataclass(frozen=True)
class Embedding:
    """A unit vector `[dim]`, the windows it averages, and its time in queue and model in seconds.

    `agreement` is how much its windows sound like one voice (`runtime.agreement`), None for few of them.
    """

    vector: NDArray[np.float32]
    windows: int
    queue_s: float
    embed_s: float
    agreement: float | None = None

    @property
    def several_voices(self) -> bool:
        """Whether two people seem to speak one after the other."""
        return self.agreement is not None and self.agreement < SEVERAL_VOICES


class Embedder:
    """One model file, loaded and ready; safe to share between threads.

    `sha256` identifies the network and stays the same when its card is calibrated.
    """

    def __init__(
        self,
        path: Path,
        provider: Provider = "auto",
        threads: int = 0,
        observe_batch: Callable[[int], None] = lambda windows: None,
    ) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"cannot read the model {path}: {error.strerror or error}") from error
        self.card: ModelCard = read_card(content, path.name)
        self.sha256 = network_sha256(content)
        threads = threads or available_cores()
        self._wide = self._narrow = EmbeddingSession(
            content, path.name, provider, threads, self.card.window_samples
        )
        self.provider = self._wide.provider
        if self.provider != CPU or threads > 1:
            self._narrow = EmbeddingSession(content, path.name, "cpu", threads=1)
        self._observe, self._closed = observe_batch, False
        self._batcher: Batcher | None = None
        if self.provider != CPU:
            self._batcher = Batcher(
                self._wide.run,
                observe=observe_batch,
                wait_s=COMPANY_S,
                prepare=lambda: self._wide.warm(self.card.window_samples, self._narrow.run),
            )

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def queue_depth(self) -> int:
        """Recordings waiting for a batch; nothing waits here on a CPU."""
        return self._batcher.depth if self._batcher else 0

    def embed(self, speech: Samples, timeout_s: float | None = None, alone: bool = True) -> Embedding:
        """Embed non-empty mono speech at 16 kHz: windows, their unit vectors averaged, normalised.

        `alone` is whether nobody else needs the cores now. Raises `ShuttingDown` once closed, `Overloaded`
        when the queue is full, `TookTooLong` after `timeout_s` in it, and `EmbeddingFailed` when the model
        fails on it.
        """
        cut = windows.cut(speech, self.card.window_samples)
        if self._batcher is None:
            self._observe(len(cut))
            batched = self._run(cut, self._wide if alone else self._narrow)
        elif cut.shape[1] == self.card.window_samples:
            batched = _shared(self._batcher, cut, timeout_s)
        else:
            batched = self._run(cut, self._narrow)
        mean = batched.vectors.mean(axis=0)
        length = float(np.linalg.norm(mean))
        if not np.isfinite(length) or length == 0.0:
            raise EmbeddingFailed("the model gave no direction for this recording")
        alike = agreement(batched.vectors)
        return Embedding(mean / np.float32(length), len(cut), batched.queue_s, batched.run_s, alike)

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._closed = True
        if self._batcher is not None:
            self._batcher.close()

    def _run(self, cut: Samples, session: EmbeddingSession) -> Batched:
        if self._closed:
            raise ShuttingDown("the service is shutting down: try another instance, or again shortly")
        started = time.perf_counter()
        vectors = embed_checked(session.run, cut)
        return Batched(vectors, 0.0, time.perf_counter() - started)


def _shared(batcher: Batcher, cut: Samples, timeout_s: float | None) -> Batched:
    waiting = batcher.submit(cut)
    try:
        return waiting.result(timeout_s)
    except TimeoutError:
        waiting.cancel()  # what was not begun is dropped
        raise TookTooLong("the recording waited too long to be embedded: try again shortly") from None
