"""Whether a recording's windows sound like one person throughout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEWEST_WINDOWS = 3  # over 6 s of speech: windows of less overlap too much to disagree
SEVERAL_VOICES = 0.5  # docs/decisions/0037 has how often this is wrong


def agreement(vectors: NDArray[np.float32]) -> float | None:
    """Cosine between the voice before and after the moment at which both differ most; None for few windows.

    `vectors [windows, dim]` of unit length, in the order they were spoken. One person scores high wherever a
    recording is cut in two, two people who speak one after the other score low where the second begins.
    """
    if len(vectors) < FEWEST_WINDOWS:
        return None
    before = np.cumsum(vectors, axis=0, dtype=np.float64)[:-1]
    after = vectors.sum(axis=0, dtype=np.float64) - before
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return float(np.min((before * after).sum(axis=1) / np.maximum(lengths, 1e-12)))
