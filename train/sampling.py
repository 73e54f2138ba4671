"""Draws the crops of each training step by seed and step alone, so that a resumed run repeats none."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sayso.train.features import Features
from sayso.train.waveform import Copy


@dataclass(frozen=True)
class Batch:
    """The crops of one training step.

    features: float16 `[batch, frames, n_mels]`, as they are cached.
    speakers: the class of each crop, which is its speaker at its speed.
    rows: the row of each crop's recording in the manifest.
    speeds: the index of each crop's speed.
    """

    features: NDArray[np.float16]
    speakers: NDArray[np.int64]
    rows: NDArray[np.int64]
    speeds: NDArray[np.int64]


class CropSampler:
    """Draws a speaker by `seconds ** balance`, one of its recordings by length, a copy, and a crop."""

    def __init__(
        self,
        copies: dict[Copy, Features],
        rows: NDArray[np.int64],
        speakers: NDArray[np.int64],
        frames: tuple[int, ...],
        balance: float,
        seed: int,
        pairs: bool = False,
    ) -> None:
        self.copies, self.rows, self.speakers = copies, rows, speakers
        self.frames, self.seed, self.pairs = frames, seed, pairs
        self.speeds = sorted({c.speed for c in copies})
        seconds = np.diff(next(iter(copies.values())).start)[rows].astype(np.float64)
        by_speaker = np.bincount(speakers, weights=seconds)
        self.within = seconds / by_speaker[speakers]
        self.speaker_weight = by_speaker**balance / (by_speaker**balance).sum()
        self.weight = self.within * self.speaker_weight[speakers]
        self.cumulative = np.cumsum(self.weight) / self.weight.sum()
        self.classes = len(by_speaker) * len(self.speeds)

    def batch(self, step: int, size: int) -> Batch:
        """`size` crops of one length; in pairs, crops 2i and 2i + 1 are one speaker's at one speed."""
        rng = np.random.default_rng([self.seed, step])
        copies = list(self.copies)
        frames = self.frames[0] if len(self.frames) == 1 else int(rng.choice(self.frames))
        if self.pairs:
            chosen = self._pairs(rng, size // 2)
            drawn = self._same_speeds(rng, size // 2, copies)
        else:
            # What rng.choice(p=weight) does, without its pass over all recordings every time.
            chosen = self.cumulative.searchsorted(rng.random(size), side="right")
            drawn = [copies[i] for i in rng.integers(len(copies), size=size)]
        speeds = np.array([self.speeds.index(c.speed) for c in drawn])
        crops = [
            self.copies[copy].crop(self.rows[i], frames, rng.random())
            for i, copy in zip(chosen, drawn, strict=True)
        ]
        classes = self.speakers[chosen] + speeds * (self.classes // len(self.speeds))
        return Batch(np.stack(crops), classes, self.rows[chosen], speeds)

    def _pairs(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        known = len(self.speaker_weight)
        speakers = rng.choice(known, count, p=self.speaker_weight, replace=count > known)
        chosen = []
        for speaker in speakers:
            own = np.flatnonzero(self.speakers == speaker)
            chosen.append(rng.choice(own, 2, p=self.within[own], replace=len(own) < 2))
        return np.concatenate(chosen)

    def _same_speeds(self, rng: np.random.Generator, count: int, copies: list[Copy]) -> list[Copy]:
        drawn = []
        for first in rng.integers(len(copies), size=count):
            alike = [c for c in copies if c.speed == copies[first].speed]
            drawn += [copies[first], alike[rng.integers(len(alike))]]
        return drawn


class Prefetcher:
    """Draws the next step's batch in a thread while a step trains: a GPU would wait for it."""

    def __init__(self, sampler: CropSampler, size: int) -> None:
        self.sampler, self.size = sampler, size
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="crops")
        self._ahead: tuple[int, Future[Batch]] | None = None

    def batch(self, step: int) -> Batch:
        """Return the batch of `step`, and begin to draw the next one."""
        ready = self._ahead
        now = ready[1].result() if ready and ready[0] == step else self.sampler.batch(step, self.size)
        self._ahead = (step + 1, self._pool.submit(self.sampler.batch, step + 1, self.size))
        return now
