"""Bytes of a recording to mono float32 samples at 16 kHz."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from sayso.runtime.channels import CHANNEL_PATTERN as CHANNEL_PATTERN
from sayso.runtime.channels import MIX as MIX
from sayso.runtime.channels import channel_index, differ
from sayso.runtime.containers import UTF8_MARK, container_of, signed_container
from sayso.runtime.cut import check_not_cut
from sayso.runtime.errors import (
    AudioOverCompressed,
    AudioTooLong,
    EmptyAudio,
    NonFiniteAudio,
    TooManyChannels,
    UndecodableAudio,
    UnsupportedSampleRate,
)
from sayso.runtime.sources import FFmpegSource, RawSource, SoundFileSource, Source, raw_format
from sayso.runtime.sources import Samples as Samples
from sayso.runtime.unfinished import finished

SAMPLE_RATE = 16_000
MAX_CHANNELS = 8
MIN_SOURCE_RATE, MAX_SOURCE_RATE = 8_000, 192_000
# A few kilobytes of compressed silence cost seconds of work; speech never unpacks so far.
_UNPACKED_FREE, _MAX_RATIO = 64 * 2**20, 1000  # bytes as float32, and bytes unpacked for each that arrived
_STEP_OF_16_BITS = 2.0**-15


@dataclass(frozen=True)
class Recording:
    """Mono samples in [-1, 1] at 16 kHz, with what the source was.

    `clipping` is the share of source samples at full scale; `warnings` are stable words; `step` is the
    distance between two values of the source, below which there is nothing but rounding.
    """

    samples: Samples
    source_rate: int
    clipping: float
    warnings: tuple[str, ...]
    step: float = _STEP_OF_16_BITS

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True)
class SentAudio:
    """A recording as it was sent: its bytes, what their sender calls them, and the channel to take."""

    data: bytes
    content_type: str | None = None
    channel: str = MIX

    @property
    def is_complete(self) -> bool:
        """Whether the bytes alone give the recording: all channels of a file that says what it is."""
        return self.channel == MIX and (
            signed_container(self.data) is not None or raw_format(self.content_type) is None
        )

    def decode(self, max_seconds: float) -> Recording:
        """The recording; see `decode`."""
        return decode(self.data, max_seconds, self.content_type, self.channel)


def encode(recording: Recording) -> bytes:
    """A recording that never was a file, as one: FLAC, 16 bits, 16 kHz."""
    buffer = io.BytesIO()
    sf.write(buffer, recording.samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode(data: bytes, max_seconds: float, content_type: str | None = None, channel: str = MIX) -> Recording:
    """Decode WAV (and its kin RF64, W64, AIFF, AU, CAF), FLAC, MP3, Ogg, M4A, 3GP, WebM, AAC or AMR.

    The container is read off the bytes; `content_type` counts only for samples without one, for example
    `audio/L16;rate=16000`. `channel` is `mix` (the mean of all), `left`, `right` or a number from 1.
    Raises an `InputError` that says what is wrong with the bytes.

    >>> decode(Path("voice.m4a").read_bytes(), max_seconds=60.0).duration_s
    5.1
    """
    if not data:
        raise EmptyAudio("no audio arrived: send a recording as the body or as the form field `audio`")
    if data.startswith(UTF8_MARK) and signed_container(data[len(UTF8_MARK) :]):
        data = data[len(UTF8_MARK) :]
    return _read(_opened(data, content_type), max_seconds, len(data), channel)


def _opened(data: bytes, content_type: str | None) -> Source:
    if signed_container(data) is None:
        raw = raw_format(content_type)
        if raw is not None:
            return RawSource(data, raw)
    container = container_of(data)
    check_not_cut(data, container)
    if container in ("mp4", "webm", "amr", "aac"):
        return FFmpegSource(data, container)
    data = finished(data, container)
    try:
        return SoundFileSource(data, container)
    except UndecodableAudio:
        if container not in ("caf", "ogg"):
            raise
        return FFmpegSource(data, container)  # CAF with AAC or Opus, Ogg with FLAC: not read by libsndfile


def _read(source: Source, max_seconds: float, size: int, channel: str) -> Recording:
    """Block by block to 16 kHz mono, so that compressed silence cannot unfold into gigabytes."""
    rate, channels = source.rate, source.channels
    if channels > MAX_CHANNELS:
        raise TooManyChannels(f"{channels} channels: send at most {MAX_CHANNELS}, better one")
    check_rate(rate)
    chosen = channel_index(channel, channels)
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    loudness = _Loudness(rate)
    parts, total, values, clipped = [], 0, 0, 0
    for decoded in source.blocks():
        total += len(decoded)
        if total > max_seconds * rate:
            raise AudioTooLong(f"the recording is longer than the limit of {max_seconds:g} s")
        if 4 * total * channels > max(_UNPACKED_FREE, _MAX_RATIO * size):
            raise AudioOverCompressed(
                f"{size} bytes unpack to more than {_MAX_RATIO} times as many: that is no speech. "
                "Send fewer channels or a lower sample rate"
            )
        block = decoded if chosen is None else decoded[:, chosen : chosen + 1]
        if not np.isfinite(block).all():
            raise NonFiniteAudio("the audio holds NaN or infinite samples: export it again as 16-bit PCM")
        values += block.size
        clipped += int(np.count_nonzero(np.abs(block) >= source.full_scale))
        # Float files may exceed full scale without bound, and the network's powers would overflow.
        block = np.clip(block, -1.0, 1.0)
        if block.shape[1] > 1:
            loudness.add(block)
        mono = block.mean(axis=1, dtype=np.float32)
        parts.append(mono if rate == SAMPLE_RATE else resampler.resample_chunk(mono))
    if rate != SAMPLE_RATE:
        parts.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if not len(samples):
        raise EmptyAudio("the file holds no audio samples")
    samples -= samples.mean()  # an offset is no sound, but would count as power
    warnings = []
    if channels > 1 and chosen is None:
        warnings.append("downmixed")
        if differ(loudness.powers()):
            warnings.append("channels_differ")
    if rate < SAMPLE_RATE:
        warnings.append("narrowband")
    return Recording(samples, rate, clipped / values, tuple(warnings), source.step)


def check_rate(rate: int) -> None:
    """Raise `UnsupportedSampleRate` unless a source of `rate` Hz is read."""
    if not MIN_SOURCE_RATE <= rate <= MAX_SOURCE_RATE:
        raise UnsupportedSampleRate(
            f"a sample rate of {rate} Hz: send {MIN_SOURCE_RATE} to {MAX_SOURCE_RATE} Hz"
        )


class _Loudness:
    """Power of each channel in frames of 32 ms, from blocks of any length."""

    def __init__(self, rate: int) -> None:
        self._frame = max(1, round(0.032 * rate))
        self._parts: list[NDArray[np.float64]] = []
        self._rest: Samples | None = None

    def add(self, block: Samples) -> None:
        if self._rest is not None:
            block = np.concatenate([self._rest, block])
        count = len(block) // self._frame
        self._rest = block[count * self._frame :]
        frames = block[: count * self._frame].reshape(count, self._frame, block.shape[1])
        # Power around the mean: an offset is no sound.
        self._parts.append(np.var(frames, axis=1, dtype=np.float64))

    def powers(self) -> NDArray[np.float64]:
        """`[frames, channels]`."""
        return np.concatenate(self._parts) if self._parts else np.zeros((0, 1))
