"""A recording that is still being spoken: samples as they arrive, and the net speech in them so far."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import soundfile as sf
import soxr

from sayso.runtime import level
from sayso.runtime.audio import SAMPLE_RATE, Recording, Samples, check_rate
from sayso.runtime.errors import EmptyAudio, UndecodableAudio
from sayso.runtime.opus import OPUS_RATE, OggPackets, OpusDecoder, packet_samples
from sayso.runtime.sources import FULL_SCALE
from sayso.runtime.speech import FRAME, DetectorState, SpeechCounter, SpeechDetector

_RAW = {"pcm_s16le": ("PCM_16", 2), "mulaw": ("ULAW", 1), "alaw": ("ALAW", 1)}
ENCODINGS = (*_RAW, "opus", "ogg_opus")
_SILENT_DB = -100.0
_STRETCH = 4_800  # samples of Opus, 100 ms, that are decoded at a time: each stretch costs a decoder's start
_NOTHING: Samples = np.zeros((0, 1), np.float32)


class LiveRecording:
    """Mono audio of one encoding, taken in stretches; not safe to share between threads.

    `encoding` is one of ENCODINGS: `opus` takes one packet a stretch, the others any bytes. `rate` in Hz is
    that of raw samples; Opus brings its own. What comes after `max_seconds` is dropped: see `full`.
    """

    def __init__(self, detector: SpeechDetector, encoding: str, rate: int, max_seconds: float) -> None:
        if encoding not in ENCODINGS:
            raise UndecodableAudio(
                f"the encoding {encoding!r} is not read: send one of {', '.join(ENCODINGS)}"
            )
        if encoding not in _RAW:
            rate = OPUS_RATE
        check_rate(rate)
        self.rate = rate
        self._read = _raw_reader(encoding, rate) if encoding in _RAW else _OpusReader(encoding).read
        self._full_scale = FULL_SCALE.get(_RAW[encoding][0] if encoding in _RAW else "", 0.999)
        self._step = 2.0**-15  # of 16 bits, which mu-law and A-law stand for too
        self._resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        self._detector = detector
        self._state: DetectorState | None = None
        self._max = int(max_seconds * SAMPLE_RATE)
        self._samples = np.zeros(min(self._max, 8 * SAMPLE_RATE), np.float32)
        self._count = self._clipped = self._given = 0
        self._sum = 0.0  # of all samples: their mean is no sound
        self._powers = np.zeros(0)  # of the frames that the detector has had, `[n]`
        self._counter = SpeechCounter()
        self.level_db = self.peak_db = _SILENT_DB

    @property
    def duration_s(self) -> float:
        return self._count / SAMPLE_RATE

    @property
    def net_speech_s(self) -> float:
        return self._counter.net_speech_s

    @property
    def speaking(self) -> bool:
        return self._counter.speaking

    @property
    def clipping(self) -> float:
        """Share of source samples at full scale so far."""
        return self._clipped / max(1, self._given)

    @property
    def full(self) -> bool:
        """Whether `max_seconds` were taken."""
        return self._count >= self._max

    def push(self, data: bytes) -> None:
        """Take the next bytes. Raises `UndecodableAudio`, after which nothing more can be taken."""
        self._take(data, last=False)

    def finish(self) -> None:
        """End the recording: flush the few milliseconds still buffered. Nothing can be pushed afterwards."""
        self._take(b"", last=True)

    def _take(self, data: bytes, last: bool) -> None:
        samples = self._read(data, last)
        if samples.size:
            self._given += samples.size
            self._clipped += int(np.count_nonzero(np.abs(samples) >= self._full_scale))
            power = float(np.mean(samples * samples))
            self.level_db, self.peak_db = _db(power**0.5), _db(float(np.abs(samples).max()))
        mono = samples.mean(axis=1, dtype=np.float32)
        self._append(mono if self.rate == SAMPLE_RATE else self._resampler.resample_chunk(mono, last=last))
        self._listen()

    def recording(self) -> Recording:
        """All of it so far, as `sayso.runtime.audio.decode` would give the same samples in a file.

        Raises `EmptyAudio` when no sample has arrived.
        """
        if not self._count:
            raise EmptyAudio("the stream brought no audio samples")
        samples = self._samples[: self._count].copy()
        samples -= samples.mean()
        warnings = ("narrowband",) if self.rate < SAMPLE_RATE else ()
        return Recording(samples, self.rate, self.clipping, warnings, self._step)

    def _append(self, mono: Samples) -> None:
        mono = mono[: self._max - self._count]
        needed = self._count + len(mono)
        if needed > len(self._samples):
            longer = np.zeros(min(self._max, max(needed, 2 * len(self._samples))), np.float32)
            longer[: self._count] = self._samples[: self._count]
            self._samples = longer
        self._samples[self._count : needed] = mono
        self._sum += float(mono.sum())
        self._count = needed

    def _listen(self) -> None:
        """Run the detector over the frames that are complete now, at the level of all so far."""
        start, stop = len(self._powers) * FRAME, self._count // FRAME * FRAME
        if start == stop:
            return
        frames = self._samples[start:stop].reshape(-1, FRAME) - np.float32(self._sum / self._count)
        self._powers = np.concatenate([self._powers, level.frame_powers(frames)])
        # The first loud frames after a pause must not exceed full scale: the gain follows them only slowly.
        peak = float(np.abs(frames).max())
        gain = min(level.gain(self._powers, self._step), 1.0 / max(peak, 1e-9))
        before = () if self._state is None else (self._state,)
        probabilities, self._state = self._detector.probabilities(frames * np.float32(gain), *before)
        self._counter.add(probabilities)


def _raw_reader(encoding: str, rate: int) -> Callable[[bytes, bool], Samples]:
    """Bytes to samples `[n, 1]`; a sample that is cut in two waits for its other half."""
    subtype, width = _RAW[encoding]
    facts = {"samplerate": rate, "channels": 1, "format": "RAW", "subtype": subtype, "endian": "LITTLE"}
    rest = b""

    def read(data: bytes, last: bool) -> Samples:
        nonlocal rest
        whole = rest + data
        cut = len(whole) - len(whole) % width
        whole, rest = whole[:cut], whole[cut:]
        if not whole:
            return _NOTHING
        samples: Samples = sf.read(io.BytesIO(whole), dtype="float32", always_2d=True, **facts)[0]
        return samples

    return read


class _OpusReader:
    """Packets, or the bytes of an Ogg file, to samples `[n, channels]`, some packets at a time."""

    def __init__(self, encoding: str) -> None:
        self._ogg = OggPackets() if encoding == "ogg_opus" else None
        self._decoder = OpusDecoder() if self._ogg is None else None
        self._waiting: list[bytes] = []

    def read(self, data: bytes, last: bool) -> Samples:
        if data:
            self._waiting += [data] if self._ogg is None else self._ogg.packets(data)
        if self._ogg is not None:
            self._decoder = self._ogg.decoder
        held = sum(packet_samples(packet) for packet in self._waiting)
        if self._decoder is None or not held or (held < _STRETCH and not last):
            return _NOTHING
        packets, self._waiting = self._waiting, []
        return self._decoder.decode(packets)


def _db(value: float) -> float:
    return max(_SILENT_DB, round(20.0 * float(np.log10(max(value, 1e-6))), 1))
