"""One loudness for all recordings, so that the gain of a microphone changes no decision.

The level is that of the active parts, as telephone engineers measure it (after ITU-T P.56): long pauses do
not lower it, and a click does not raise it. It grows with the gain exactly, so that a recording and its copy
40 dB down become the same samples, up to what the rounding of the copy lost.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]
FRAME = 512  # samples, 32 ms
# Mean power of the active frames of a normalised recording: -23 dB of full scale, the median of our
# development recordings, so that scores of usual recordings stay what they were.
REFERENCE = 10.0**-2.3
_LOUD_FRAMES = 10  # 0.3 s: the frame this many places below the loudest is speech and no click
_ACTIVE = 10.0**-2.5  # frames down to 25 dB below it are active


def frame_powers(frames: Samples) -> NDArray[np.float64]:
    """Mean power `[n]` of frames `[n, 512]`."""
    powers: NDArray[np.float64] = np.mean(np.square(frames, dtype=np.float64), axis=1)
    return powers


def gain(powers: NDArray[np.float64], step: float) -> float:
    """What to multiply samples by, whose frames have these powers, for an active level of `REFERENCE`.

    `step` is the distance between two values of the source. Samples that stay within it are rounding and
    dither: they are silence, and their gain is 1.
    """
    if not len(powers):
        return 1.0
    loud = float(np.partition(powers, -min(_LOUD_FRAMES, len(powers)))[-min(_LOUD_FRAMES, len(powers))])
    if loud <= step * step:
        return 1.0
    active = powers[powers >= loud * _ACTIVE]
    return float(np.sqrt(REFERENCE / active.mean()))
