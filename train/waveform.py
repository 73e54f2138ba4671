"""Augmentation of recordings: rooms, noise, other talkers, telephone lines, codecs and levels.

A copy of a recording is changed in the order in which the world changes a voice: its speed (a
different talker), the room, what else sounds there, the line, the level.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray
from pydantic import ConfigDict

from sayso.runtime.audio import SAMPLE_RATE
from sayso.train.manifest import DataError

Waveform = NDArray[np.float32]

_TELEPHONE_RATE = 8_000
# WAV subtypes of libsndfile: G.711 mu-law and A-law, none, GSM 06.10, ADPCM.
TELEPHONE_CODECS = ("ULAW", "ALAW", "PCM_16", "GSM610", "MS_ADPCM")
_BLOCK = 1 << 20  # samples read at once by a check
_NAMED = 20  # files in an error's message
_FORMATS = (("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III"))


@dataclass(frozen=True)
class Copy:
    """One version of the training recordings.

    `speed` resamples: 1.1 is a tenth faster and higher, and its speakers count as other speakers
    (Yamamoto et al. 2019). `augmentation` 0 leaves the sound alone; another number seeds the draw
    of room, noise, line and level.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # for recipes
    speed: float = 1.0
    augmentation: int = 0


def read_recording(path: Path) -> Waveform:
    """Mono 16 kHz samples of a file. Raises `DataError`."""
    try:
        audio, rate = sf.read(path, dtype="float32", always_2d=True)
    except (OSError, sf.SoundFileError) as error:
        raise DataError(f"cannot read the recording {path}: {error}") from error
    mono: Waveform = audio.mean(axis=1)
    return mono if rate == SAMPLE_RATE else _resample(mono, rate, SAMPLE_RATE, "HQ")


def check_recordings(
    files: Sequence[Path],
    workers: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Read every file from beginning to end, so that bad ones are known before the long work begins.

    `progress` is called with the files read and their total. Raises `DataError` naming the files that cannot
    be read, up to 20 of them.
    """

    def problem(file: Path) -> str | None:
        try:
            with sf.SoundFile(file) as audio:
                for block in audio.blocks(_BLOCK, dtype="float32"):
                    if not np.isfinite(block).all():
                        return f"{file}: holds samples that are not finite"
        except (OSError, sf.SoundFileError) as error:
            return f"{file}: {error}"
        return None

    problems = []
    with ThreadPoolExecutor(workers) as pool:
        for done, text in enumerate(pool.map(problem, files), start=1):
            problems += [text] if text else []
            progress(done, len(files))
    if problems:
        more = f"\nand {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise DataError(
            f"{len(problems)} of {len(files)} recordings cannot be read; mend them, or take them out of the "
            "manifest:\n" + "\n".join(problems[:_NAMED]) + more
        )


def recording_length(path: Path) -> float:
    """Seconds of a file, from its head. Raises `DataError`."""
    try:
        return float(sf.info(path).duration)
    except (OSError, sf.SoundFileError) as error:
        raise DataError(f"cannot read the recording {path}: {error}") from error


def change_speed(x: Waveform, speed: float) -> Waveform:
    """`x` played `speed` times as fast: shorter and higher for a speed above 1."""
    return x if speed == 1.0 else _resample(x, SAMPLE_RATE * speed, SAMPLE_RATE)


def augment(x: Waveform, rng: np.random.Generator, talkers: Sequence[Waveform]) -> Waveform:
    """One random scene for `x`; babble is made of `talkers`.

    Half of the draws pass a telephone line; about one in ten changes nothing but the level.
    """
    if rng.random() < 0.4:
        x = reverberate(x, rng.uniform(0.15, 0.9), rng.uniform(-2.0, 15.0), rng)
    kind = rng.random()
    if kind < 0.4:
        x = mix(x, coloured_noise(len(x), rng.uniform(0.0, 2.0), rng), rng.uniform(0.0, 20.0))
    elif kind < 0.6:
        others = [talkers[int(rng.integers(len(talkers)))] for _ in range(rng.integers(1, 5))]
        x = mix(x, babble(others, len(x)), rng.uniform(8.0, 20.0))
    line = rng.random()
    if line < 0.5:
        x = telephone(x, str(rng.choice(TELEPHONE_CODECS)))
    elif line < 0.6:
        x = compress(x, _FORMATS[rng.integers(len(_FORMATS))], rng.uniform(0.6, 0.95))
    return change_level(x, rng.uniform(-30.0, 6.0))


def reverberate(
    x: Waveform, rt60: float, direct_to_reverberant_db: float, rng: np.random.Generator
) -> Waveform:
    """Polack's statistical room (1988): exponentially decaying noise after the direct sound.

    `rt60` in seconds is the time in which the reverberation falls by 60 dB.
    """
    length = round(rt60 * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    tail = rng.standard_normal(length) * 10.0 ** (-3.0 * time / rt60)
    tail[: round(rng.uniform(0.001, 0.02) * SAMPLE_RATE)] = 0.0  # before the first reflection
    tail *= 10.0 ** (-direct_to_reverberant_db / 20.0) / max(float(np.linalg.norm(tail)), 1e-9)
    tail[0] = 1.0
    size = _fast_length(len(x) + length)
    wet = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(tail, size), size)[: len(x)]
    return wet.astype(np.float32)


def coloured_noise(length: int, exponent: float, rng: np.random.Generator) -> Waveform:
    """Noise with a power spectrum of 1/f^`exponent`: 0 is white, 1 pink, 2 brown."""
    size = _fast_length(length)
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.maximum(np.arange(len(spectrum)), 1.0 + 50.0 * size / SAMPLE_RATE)
    return np.fft.irfft(spectrum * frequency ** (-exponent / 2.0), size)[:length].astype(np.float32)


def babble(talkers: list[Waveform], length: int) -> Waveform:
    """Several talkers at once, each at the same level."""
    voices = [np.resize(x, length) / max(float(np.std(x)), 1e-6) for x in talkers if len(x)]
    return np.sum(voices, axis=0, dtype=np.float32) if voices else np.zeros(length, np.float32)


def mix(x: Waveform, noise: Waveform, snr_db: float) -> Waveform:
    """`x` plus `noise` of its length, scaled to a signal-to-noise ratio over the whole recording."""
    signal, disturbance = float(np.mean(x * x)), float(np.mean(noise * noise))
    if not signal or not disturbance:
        return x
    return x + noise * np.float32(np.sqrt(signal / disturbance * 10.0 ** (-snr_db / 10.0)))


def telephone(x: Waveform, codec: str) -> Waveform:
    """Send `x` over a narrow-band line: 300 to 3,400 Hz, sampled at 8 kHz.

    `codec` is the name of a WAV subtype in libsndfile: `ULAW` and `ALAW` (G.711), `GSM610` (GSM 06.10),
    `MS_ADPCM`, or `PCM_16` for a line without one.
    """
    narrow = _resample(x, SAMPLE_RATE, _TELEPHONE_RATE)
    size = _fast_length(len(narrow))
    spectrum = np.fft.rfft(narrow, size)
    hertz = np.linspace(0.0, _TELEPHONE_RATE / 2, len(spectrum))
    band = np.fft.irfft(spectrum * ((hertz > 300.0) & (hertz < 3_400.0)), size)[: len(narrow)]
    coded = _through_file(band, _TELEPHONE_RATE, "WAV", codec)
    return _fit(_resample(coded, _TELEPHONE_RATE, SAMPLE_RATE), len(x))


def change_bandwidth(x: Waveform, rate: int) -> Waveform:
    """`x` as it comes from a source sampled at `rate`, at 16 kHz again."""
    return _fit(_resample(_resample(x, SAMPLE_RATE, rate), rate, SAMPLE_RATE), len(x))


def compress(x: Waveform, container: tuple[str, str], level: float) -> Waveform:
    """A lossy codec at a low bit rate; `level` up to 0.95, of libsndfile's scale to 1."""
    return _fit(_through_file(x, SAMPLE_RATE, *container, level), len(x))


def change_level(x: Waveform, peak_db: float) -> Waveform:
    """`x` with its peak at `peak_db` of full scale; what is above full scale is clipped."""
    peak = float(np.max(np.abs(x), initial=0.0))
    return np.clip(x * (10.0 ** (peak_db / 20.0) / peak), -1.0, 1.0) if peak else x


def _resample(x: Waveform, rate: float, to: float, quality: str = "MQ") -> Waveform:
    y: Waveform = soxr.resample(x, rate, to, quality=quality).astype(np.float32)
    return y


def _through_file(
    x: NDArray[np.floating], rate: int, container: str, subtype: str, level: float | None = None
) -> Waveform:
    file = io.BytesIO()
    scale = max(1.0, float(np.max(np.abs(x), initial=0.0)))
    options = {} if level is None else {"compression_level": level}
    sf.write(file, x / scale, rate, format=container, subtype=subtype, **options)
    file.seek(0)
    coded: Waveform = sf.read(file, dtype="float32")[0]
    return coded * np.float32(scale)


def _fast_length(samples: int) -> int:
    """A length that a Fourier transform is fast at; one with a large prime factor takes ten times as long."""
    return 1 << max(0, samples - 1).bit_length()


def _fit(x: Waveform, length: int) -> Waveform:
    """Codecs pad to whole frames: cut, or wrap what little is missing."""
    return np.resize(x, length) if len(x) < length else x[:length]
