"""A synthetic voice: harmonics under moving formants, in syllables.

Phrases of 1.6 s with pauses of 0.4 s. It carries no one's voice, so it can be the declared example
that readiness runs through the real pipeline, stand in for speech when an export is checked, and
prove the product where no recordings are.
"""

from __future__ import annotations

import numpy as np

from sayso.runtime.audio import SAMPLE_RATE, Samples

# First four formants in Hz of a, e, i, o, u (Peterson & Barney 1952, adult averages).
_VOWELS = np.array(
    [
        [730, 1090, 2440, 3400],
        [530, 1840, 2480, 3500],
        [270, 2290, 3010, 3700],
        [570, 840, 2410, 3300],
        [300, 870, 2240, 3200],
    ],
    dtype=np.float64,
)
_BANDWIDTHS = np.array([80.0, 100.0, 140.0, 200.0])
_SYLLABLE_S, _PHRASE_S, _PAUSE_S = 0.2, 1.6, 0.4


def synthetic_voice(seconds: float, pitch_hz: float = 120.0, tract: float = 1.0, seed: int = 0) -> Samples:
    """Speech-like audio at 16 kHz, `[seconds * 16000]`, peak 0.5.

    `pitch_hz` and `tract` (the formants' scale, about 0.85 to 1.2) make the speaker, `seed` the words.
    """
    rng = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    syllables = int(seconds / _SYLLABLE_S) + 2
    marks = np.arange(syllables) * _SYLLABLE_S
    vowels = _VOWELS[rng.integers(len(_VOWELS), size=syllables)] * tract
    formants = np.stack([np.interp(time, marks, vowels[:, i]) for i in range(4)])
    melody = pitch_hz * (1 + 0.12 * np.interp(time, marks, rng.standard_normal(syllables)))
    phase = 2 * np.pi * np.cumsum(melody * (1 + 0.01 * np.sin(2 * np.pi * 5 * time))) / SAMPLE_RATE
    voice = np.zeros(count)
    for harmonic in range(1, int(4500 / pitch_hz)):
        frequency = harmonic * melody
        response = sum((0.8**i) / (1 + ((frequency - formants[i]) / _BANDWIDTHS[i]) ** 2) for i in range(4))
        voice += response / harmonic**0.4 * np.sin(harmonic * phase)
    loudness = np.interp(time, marks, rng.uniform(0.5, 1.0, syllables))
    envelope = np.clip(np.sin(np.pi * (time % _SYLLABLE_S) / _SYLLABLE_S) * 2.5, 0.05, 1.0)
    speaking = time % (_PHRASE_S + _PAUSE_S) < _PHRASE_S
    voice = voice * envelope * loudness * speaking / np.abs(voice).max()
    voice += 0.001 * rng.standard_normal(count)
    scaled: Samples = (0.5 * voice / np.abs(voice).max()).astype(np.float32)
    return scaled
