"""Which crops a training step sees: a pure function of the seed and the step, so that resuming is exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.features import FeatureStore


@dataclass(frozen=True)
class Batch:
    """Features `[batch, n_mels, frames]` before normalisation, speaker numbers and recording rows."""

    features: NDArray[np.float32]
    speakers: NDArray[np.int64]
    rows: NDArray[np.int64]


class CropSampler:
    """Draws a speaker by `seconds ** balance`, one of its recordings by length, and a random crop."""

    def __init__(
        self,
        store: FeatureStore,
        rows: NDArray[np.int64],
        speakers: NDArray[np.int64],
        frames: int,
        balance: float,
        seed: int,
    ) -> None:
        self.store, self.rows, self.speakers = store, rows, speakers
        self.frames, self.seed = frames, seed
        seconds = np.diff(store.start)[rows].astype(np.float64)
        by_speaker = np.bincount(speakers, weights=seconds)
        weight = seconds / by_speaker[speakers] * by_speaker[speakers] ** balance
        self.weight = weight / weight.sum()

    def batch(self, step: int, size: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.choice(len(self.rows), size, p=self.weight)
        crops = [self.store.crop(self.rows[i], self.frames, rng.random()) for i in chosen]
        features = np.stack(crops).transpose(0, 2, 1).astype(np.float32)
        return Batch(features, self.speakers[chosen], self.rows[chosen])
