"""Speech to equal 3 s windows: equal shapes batch without padding, and padding would leak into pooling."""

from __future__ import annotations

import numpy as np

from runtime.audio import Samples

MAX_WINDOWS = 10


def cut(speech: Samples, window: int) -> Samples:
    """`[n, window]` windows covering `speech` evenly, 1 to 10 of them.

    Speech shorter than a window is repeated until it fills one, as voxceleb_trainer does; longer
    speech is cut into evenly spaced windows that overlap as needed (and leave gaps beyond 10).
    """
    if len(speech) == 0:
        raise ValueError("no samples to cut into windows")
    if len(speech) <= window:
        return np.resize(speech, (1, window))
    count = min(MAX_WINDOWS, -(-len(speech) // window))
    starts = np.linspace(0, len(speech) - window, count).round().astype(int)
    return np.stack([speech[start : start + window] for start in starts])
