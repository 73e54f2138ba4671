"""Speech to windows: equal ones where it is long, one of its own length where it is short."""

from __future__ import annotations

import numpy as np

from sayso.runtime.audio import Samples

MAX_WINDOWS = 10
STEPS = 30  # of a window: tenths of a second of 3 s, so that shapes are few


def cut(speech: Samples, window: int) -> Samples:
    """`[n, length]` windows covering `speech` evenly, 1 to 10 of them, `length` at most `window`.

    Longer speech is cut into evenly spaced windows that overlap as needed (and leave gaps beyond 10).
    From half a window on, shorter speech is one window of its own length, to the last thirtieth of
    `window`. What is shorter still is repeated until it fills one, as voxceleb_trainer does.
    """
    if len(speech) == 0:
        raise ValueError("no samples to cut into windows")
    if len(speech) < window / 2:
        return np.resize(speech, (1, window))
    if len(speech) < window:
        step = max(1, window // STEPS)
        return speech[np.newaxis, : len(speech) // step * step]
    count = min(MAX_WINDOWS, -(-len(speech) // window))
    starts = np.linspace(0, len(speech) - window, count).round().astype(int)
    return np.stack([speech[start : start + window] for start in starts])
