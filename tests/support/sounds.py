"""Recordings that tests make: synthetic speakers, and samples in any container."""

import io

import numpy as np
import soundfile as sf

from sayso.runtime.synthesis import synthetic_voice

# Pitch in Hz and vocal tract scale of four synthetic speakers.
SPEAKERS = {"ann": (205.0, 1.16), "bob": (120.0, 1.0), "cat": (165.0, 1.08), "dan": (145.0, 1.04)}


def encode(samples: np.ndarray, rate: int = 16_000, format: str = "WAV", subtype: str | None = None) -> bytes:
    """A file holding `samples`."""
    buffer = io.BytesIO()
    sf.write(buffer, samples, rate, format=format, subtype=subtype)
    return buffer.getvalue()


def voice_of(name: str, take: int = 0, seconds: float = 6.0) -> bytes:
    """A WAV of a synthetic speaker; another `take` says something else."""
    pitch, tract = SPEAKERS[name]
    return encode(synthetic_voice(seconds, pitch, tract, seed=take))
