"""The band of a recording: whether it holds what a telephone leaves out."""

import numpy as np
from numpy.typing import NDArray

from sayso.domain.evidence import Band
from sayso.runtime.audio import SAMPLE_RATE, Samples

# A telephone line passes 300 to 3,400 Hz; a codec at 8 kHz nothing above 4,000.
_PASSED_HZ = (300.0, 3_400.0)
_LEFT_OUT_HZ = (4_200.0, 7_500.0)
# Power density above the band over that in it. Of 700 recordings of 15 corpora, those with 16 kHz lay above
# -45 dB but for 2 in 100, those through a telephone line below -59, and older 8 kHz recordings, coded again,
# around -55.
_NARROW_DB = -45.0
_MOST_FRAMES = 64  # of speech, evenly spaced: of 1,000 recordings all were told as by 200


def band_of(frames: Samples, spoken: NDArray[np.bool_]) -> Band:
    """The band of the frames `[n, samples]` that are speech; `wide` where none is."""
    chosen = np.flatnonzero(spoken)
    if not len(chosen):
        return "wide"
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), _MOST_FRAMES)).astype(int)]
    size = frames.shape[1]
    power = np.mean(
        np.abs(np.fft.rfft(frames[chosen] * np.hanning(size).astype(np.float32), axis=1)) ** 2, axis=0
    )
    hertz = np.fft.rfftfreq(size, 1.0 / SAMPLE_RATE)
    passed, left_out = (
        power[(hertz > low) & (hertz < high)].mean() for low, high in (_PASSED_HZ, _LEFT_OUT_HZ)
    )
    return "narrow" if left_out <= passed * 10.0 ** (_NARROW_DB / 10.0) else "wide"
