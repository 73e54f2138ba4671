"""Bytes of a recording to mono float32 samples at 16 kHz."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

from sayso.runtime.errors import (
    AudioOverCompressed,
    AudioTooLong,
    EmptyAudio,
    NonFiniteAudio,
    TooManyChannels,
    TruncatedAudio,
    UndecodableAudio,
    UnsupportedSampleRate,
)

SAMPLE_RATE = 16_000
MAX_CHANNELS = 8
MIN_SOURCE_RATE, MAX_SOURCE_RATE = 8_000, 192_000
_BLOCK = 2**20  # values decoded at a time, so that a header's claim never sizes an allocation
# Full scale as decoded: companded and 8-bit samples never reach 1.
FULL_SCALE = {"ULAW": 0.979, "ALAW": 0.983, "PCM_U8": 0.992, "PCM_S8": 0.992}
# A few kilobytes of compressed silence cost seconds of work; speech never unpacks so far.
_UNPACKED_FREE, _MAX_RATIO = 64 * 2**20, 1000  # bytes as float32, and bytes unpacked for each that arrived
_UNKNOWN_SIZES = (0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF)  # what streaming writers leave in a WAV header
_WANTED = "send WAV, FLAC, MP3, Ogg Vorbis or Ogg Opus"
Samples = NDArray[np.float32]


@dataclass(frozen=True)
class Recording:
    """Mono samples in [-1, 1] at 16 kHz, with what the source was.

    `clipping` is the share of source samples at full scale; `warnings` are stable words.
    """

    samples: Samples
    source_rate: int
    clipping: float
    warnings: tuple[str, ...]

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE


class _Bytes(io.BytesIO):
    """Stays where it is on a seek before its start: damaged files ask for that, inside a C callback."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def encode(recording: Recording) -> bytes:
    """A recording that never was a file, as one: FLAC, 16 bits, 16 kHz."""
    buffer = io.BytesIO()
    sf.write(buffer, recording.samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode(data: bytes, max_seconds: float) -> Recording:
    """Decode WAV (and its kin RF64, W64, AIFF, AU, CAF), FLAC, MP3, Ogg Vorbis or Ogg Opus.

    Channels are averaged. Raises an `InputError` that says what is wrong with the bytes.
    """
    if not data:
        raise EmptyAudio("no audio arrived: send a recording as the body or as the form field `audio`")
    if not _is_recorder_format(data):
        raise UndecodableAudio(f"this is no audio format that is read: {_WANTED}")
    _check_wav_is_whole(data)
    try:
        with sf.SoundFile(_Bytes(data)) as file:
            return _read(file, max_seconds, len(data))
    except (sf.SoundFileError, RuntimeError, ValueError) as error:
        reason = str(error).rstrip(".").split(": ", 1)[-1]
        raise UndecodableAudio(f"the audio cannot be decoded ({reason}): {_WANTED}") from error


def _is_recorder_format(data: bytes) -> bool:
    """libsndfile also has readers for samplers and file formats of the 1980s, which attackers know too."""
    kind, form = data[:4], data[8:12]
    if kind in (b"RIFF", b"RIFX"):
        return form == b"WAVE"
    if kind == b"FORM":
        return form in (b"AIFF", b"AIFC")
    if kind in (b"fLaC", b"OggS", b"RF64", b"riff", b"caff", b".snd", b"dns."):
        return True
    return data[:3] == b"ID3" or (data[:1] == b"\xff" and data[1:2] >= b"\xe0")  # MP3, tagged or bare


def _read(file: sf.SoundFile, max_seconds: float, size: int) -> Recording:
    """Block by block to 16 kHz mono, so that compressed silence cannot unfold into gigabytes."""
    rate, channels = file.samplerate, file.channels
    if channels > MAX_CHANNELS:
        raise TooManyChannels(f"{channels} channels: send at most {MAX_CHANNELS}, better one")
    if not MIN_SOURCE_RATE <= rate <= MAX_SOURCE_RATE:
        raise UnsupportedSampleRate(
            f"a sample rate of {rate} Hz: send {MIN_SOURCE_RATE} to {MAX_SOURCE_RATE} Hz"
        )
    full_scale = FULL_SCALE.get(file.subtype, 0.999)
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
    parts, total, clipped, last = [], 0, 0, False
    while not last:
        block = file.read(_BLOCK // channels, dtype="float32", always_2d=True)
        last = not len(block)
        total += len(block)
        if total > max_seconds * rate:
            raise AudioTooLong(f"the recording is longer than the limit of {max_seconds:g} s")
        if 4 * total * channels > max(_UNPACKED_FREE, _MAX_RATIO * size):
            raise AudioOverCompressed(
                f"{size} bytes unpack to more than {_MAX_RATIO} times as many: that is no speech. "
                "Send fewer channels or a lower sample rate"
            )
        if not np.isfinite(block).all():
            raise NonFiniteAudio("the audio holds NaN or infinite samples: export it again as 16-bit PCM")
        clipped += int(np.count_nonzero(np.abs(block) >= full_scale))
        # Float files may exceed full scale without bound, and the network's powers would overflow.
        mono = np.clip(block, -1.0, 1.0).mean(axis=1, dtype=np.float32)
        parts.append(mono if rate == SAMPLE_RATE else resampler.resample_chunk(mono, last=last))
    samples = np.concatenate(parts)
    if not len(samples):
        raise EmptyAudio("the file holds no audio samples")
    samples -= samples.mean()  # an offset is no sound, but would count as power
    warnings = []
    if channels > 1:
        warnings.append("downmixed")
    if rate < SAMPLE_RATE:
        warnings.append("narrowband")
    return Recording(samples, rate, clipped / (total * channels), tuple(warnings))


def _check_wav_is_whole(data: bytes) -> None:
    """libsndfile quietly reads what is there of a cut-off WAV; half a recording must not pass as one.

    Only RIFF is checked, which is what recorders write; its 64-bit and big-endian kin are not.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        return
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        at += 8
        if name == b"data":
            if size not in _UNKNOWN_SIZES and at + size > len(data):
                raise TruncatedAudio(
                    f"the WAV file is cut off: its header announces {size} bytes of audio and "
                    f"{len(data) - at} arrived. Send the whole file"
                )
            return
        at += size + size % 2
