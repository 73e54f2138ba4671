"""Made speakers, as many as are wanted: embeddings drawn as those of real speakers are spread.

Where speakers lie (between) and how far their recordings fall from them (within) is Gaussian in one basis,
with the spectra of the shipped `nested` on 2,524 recordings of 402 speakers from 11 corpora (the project's
`speech/`, 2 s and more, net speech embedded as the service does; the means of the corpora taken out of the
between part, since a service hears one kind of line). Fitted were the pooled within covariance, the between
covariance without the share of it that three to seven recordings leave in a speaker's mean, and the length
of the common mean. Its own directions say nothing, so they are drawn at random, and the recordings' noise has
a size of its own, drawn log-normally, for the long tail of real scores. Scores of recordings with their
speaker's template (of three) were 0.60, 0.66, 0.83 and 0.95 (1, 5, 50 and 95 %) in reality; those made here
are 0.52, 0.65, 0.85 and 0.93. The scores of different people: mean 0.09, deviation 0.18; made, 0.11 and 0.17.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIM = 512
RECORDINGS = 3  # that a template is the mean of
Vectors = NDArray[np.float32]

# variances along the directions of the numbers above them, in between interpolated in their logarithms
_DIRECTION = (0, 1, 2, 4, 8, 16, 32, 64, 100, 128, 200)
_BETWEEN = (5.389e-2, 5.057e-2, 4.108e-2, 3.096e-2, 2.148e-2, 1.105e-2, 3.8e-3, 5.2e-4, 6e-5, 1e-5, 1e-6)
_WITHIN = (6.08e-3, 5.56e-3, 6.41e-3, 5.81e-3, 5.27e-3, 4.74e-3, 2.89e-3, 1.02e-3, 2.2e-4, 1e-4, 1e-5)
_FILLED = _DIRECTION[-1] + 1
_MEAN = 0.29  # its length
_MEAN_IN = 64  # directions
_UNEVEN = 0.4  # standard deviation of the logarithm of a recording's noise


class Voices:
    """A population, the same for the same seed; each call draws others of it."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        at = np.arange(_FILLED)
        self._between = _deviations(at, _BETWEEN)
        self._within = _deviations(at, _WITHIN)
        mean = np.zeros(_FILLED)
        mean[:_MEAN_IN] = self._rng.standard_normal(_MEAN_IN)
        self._mean = (mean * _MEAN / np.linalg.norm(mean)).astype(np.float32)
        turned = np.linalg.qr(self._rng.standard_normal((DIM, _FILLED)))[0]
        self._directions = np.ascontiguousarray(turned.T, dtype=np.float32)

    def speakers(self, count: int) -> Vectors:
        """Draw where speakers lie, `[count, 201]`; `templates` and `recordings` are made of it."""
        return self._mean + self._normal(count) * self._between

    def templates(self, speakers: Vectors) -> Vectors:
        """Return unit vectors `[count, 512]`, each of a few recordings."""
        noise = self._normal(len(speakers)) * self._within / np.float32(np.sqrt(RECORDINGS))
        return self._unit(speakers + noise)

    def recordings(self, speakers: Vectors) -> Vectors:
        """Return unit vectors `[count, 512]`, each of one recording."""
        size = np.exp(_UNEVEN * self._rng.standard_normal((len(speakers), 1)) - _UNEVEN**2)
        noise = self._normal(len(speakers)) * self._within * size.astype(np.float32)
        return self._unit(speakers + noise)

    def _normal(self, count: int) -> Vectors:
        return self._rng.standard_normal((count, _FILLED), dtype=np.float32)

    def _unit(self, points: Vectors) -> Vectors:
        vectors = points @ self._directions
        unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def _deviations(at: NDArray[np.int64], variances: tuple[float, ...]) -> Vectors:
    return np.exp(np.interp(at, _DIRECTION, np.log(variances)) / 2).astype(np.float32)
