"""Speech to one unit-length vector: the thing other rooms use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime import windows
from runtime.audio import Samples
from runtime.batcher import Batcher
from runtime.card import ModelCard, read_card
from runtime.errors import EmbeddingFailed, ModelError, TookTooLong
from runtime.model_file import network_sha256
from runtime.session import EmbeddingSession, Provider


@dataclass(frozen=True)
class Embedding:
    """A unit vector `[dim]`, the windows it averages, and its time in queue and model in seconds."""

    vector: NDArray[np.float32]
    windows: int
    queue_s: float
    embed_s: float


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
        session = EmbeddingSession(content, path.name, provider, threads)
        self.provider = session.provider
        self._batcher = Batcher(session.run, observe=observe_batch)

    def __enter__(self) -> Embedder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def queue_depth(self) -> int:
        return self._batcher.depth

    def embed(self, speech: Samples, timeout_s: float | None = None) -> Embedding:
        """Embed non-empty mono speech at 16 kHz: windows, their unit vectors averaged, normalised.

        Raises `Overloaded` when the queue is full, `TookTooLong` after `timeout_s`, and
        `EmbeddingFailed` when the model fails on it.
        """
        cut = windows.cut(speech, self.card.window_samples)
        waiting = self._batcher.submit(cut)
        try:
            batched = waiting.result(timeout_s)
        except TimeoutError:
            waiting.cancel()  # what was not begun is dropped
            raise TookTooLong("the recording waited too long to be embedded: try again shortly") from None
        mean = batched.vectors.mean(axis=0)
        length = float(np.linalg.norm(mean))
        if not np.isfinite(length) or length == 0.0:
            raise EmbeddingFailed("the model gave no direction for this recording")
        return Embedding(mean / np.float32(length), len(cut), batched.queue_s, batched.run_s)

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._batcher.close()
