"""How much speech a recording holds and how clean it is.

Voice activity comes from Silero VAD (MIT, weights/silero_vad.LICENSE), whose sequence graph scores a
whole recording in one call: one speech probability per 32 ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sayso.domain.evidence import Band
from sayso.runtime import level
from sayso.runtime.audio import SAMPLE_RATE, Recording, Samples
from sayso.runtime.band import band_of
from sayso.runtime.errors import TooClipped, TooLittleSpeech, TooNoisy
from sayso.runtime.session import CPU, session_options

FRAME = level.FRAME
_CONTEXT = 64  # samples of the previous frame the detector sees
_ON, _OFF = 0.5, 0.35  # speech starts at the first probability and ends below the second
_MIN_SPEECH = 3  # frames: shorter bursts are no speech
# Pauses up to so many frames, and so many frames at either edge, go with the speech: tightly where it
# is counted, widely where it is embedded, since networks learn from recordings with natural pauses.
_COUNTED = {"gap": 3, "edge": 1}
_EMBEDDED = {"gap": 62, "edge": 16}  # 2.0 s and 0.5 s
_MAX_SNR_DB = 60.0
_DIGITAL_SILENCE = 1e-9  # power, at our level: below the rounding of 16-bit samples
NOISY_DB, CLIPPED_SHARE = 10.0, 0.005
_WEIGHTS = Path(str(files("sayso.runtime") / "weights" / "silero_vad.onnx"))


@dataclass(frozen=True)
class SpeechReport:
    """What a recording holds. `snr_db` is None without speech; `clipping` is a share of samples.

    `warnings`: downmixed, channels_differ, narrowband, noisy (under 10 dB), clipped (over 0.5 % of the
    samples).
    """

    duration_s: float
    net_speech_s: float
    snr_db: float | None
    clipping: float
    sample_rate: int
    warnings: tuple[str, ...]
    band: Band = "wide"


@dataclass(frozen=True)
class QualityLimits:
    """What a recording needs before it may decide anything."""

    required_speech_s: float
    min_snr_db: float
    max_clipping: float

    def check(self, report: SpeechReport) -> None:
        """Raise `TooLittleSpeech`, `TooNoisy` or `TooClipped` if the report falls short of a limit."""
        net_speech_s, required_s = report.net_speech_s, self.required_speech_s
        # Before the speech: heavy clipping hides it from the detector, and is what to mend.
        if report.clipping > self.max_clipping:
            raise TooClipped(
                f"{report.clipping:.0%} of the samples are clipped: lower the recording level",
                net_speech_s,
                required_s,
            )
        if net_speech_s < required_s:
            raise TooLittleSpeech(
                f"{net_speech_s:.1f} s of speech in {report.duration_s:.1f} s of audio, "
                f"{required_s:.1f} s are needed: record longer or closer to the microphone",
                net_speech_s,
                required_s,
            )
        if report.snr_db is not None and report.snr_db < self.min_snr_db:
            raise TooNoisy(
                f"the speech is only {report.snr_db:.0f} dB above the noise, {self.min_snr_db:.0f} dB are "
                "needed: record in a quieter place",
                net_speech_s,
                required_s,
            )


@dataclass(frozen=True, eq=False)
class DetectorState:
    """Where the detector stands between two stretches: last samples `[64]`, LSTM state `[1, 1, 128]` each."""

    tail: Samples
    h: NDArray[np.float32]
    c: NDArray[np.float32]


_AT_START = DetectorState(*(np.zeros(shape, np.float32) for shape in (_CONTEXT, (1, 1, 128), (1, 1, 128))))


class SpeechDetector:
    """Finds speech; safe to share between threads."""

    def __init__(self) -> None:
        self._session = ort.InferenceSession(_WEIGHTS, session_options(threads=1), providers=[CPU])

    def detect(self, recording: Recording) -> tuple[SpeechReport, Samples]:
        """The report, and what to embed: the speech with its natural pauses, long silences cut out.

        Both are of the recording at one level (`runtime.level`), whatever its gain was. Without any speech
        the second is empty.
        """
        powers = level.frame_powers(_frames(recording.samples))
        gain = level.gain(powers, recording.step)
        samples = recording.samples * np.float32(gain)
        frames = _frames(samples)
        spoken = _spoken(self.probabilities(frames)[0])
        counted = np.repeat(_widened(spoken, **_COUNTED), FRAME)[: len(samples)]
        embedded = np.repeat(_widened(spoken, **_EMBEDDED), FRAME)[: len(samples)]
        snr = _snr_db(powers * gain**2, counted[::FRAME])
        warnings = list(recording.warnings)
        if snr is not None and snr < NOISY_DB:
            warnings.append("noisy")
        if recording.clipping > CLIPPED_SHARE:
            warnings.append("clipped")
        report = SpeechReport(
            duration_s=recording.duration_s,
            net_speech_s=int(counted.sum()) / SAMPLE_RATE,
            snr_db=snr,
            clipping=recording.clipping,
            sample_rate=recording.source_rate,
            warnings=tuple(warnings),
            band=band_of(frames, counted[::FRAME]),
        )
        return report, samples[embedded]

    def probabilities(
        self, frames: Samples, after: DetectorState = _AT_START
    ) -> tuple[NDArray[np.float32], DetectorState]:
        """Speech probabilities `[n]` of `n > 0` frames `[n, 512]` that follow those of `after`."""
        context = np.empty((len(frames), _CONTEXT), np.float32)
        context[0], context[1:] = after.tail, frames[:-1, -_CONTEXT:]
        feed = {"input": np.concatenate([context, frames], axis=1), "h": after.h, "c": after.c}
        probabilities, h, c = self._session.run(["speech_probs", "hn", "cn"], feed)
        return probabilities, DetectorState(frames[-1, -_CONTEXT:].copy(), h, c)


class SpeechCounter:
    """Counts net speech as `detect` does, while it is being spoken; each frame is looked at once."""

    def __init__(self) -> None:
        self._frames = 0
        self._speaking = False
        self._run_start = 0  # of the frames that are speech now
        self._settled = 0  # frames of the segments that nothing can join any more
        self._segment: tuple[int, int] | None = (
            None  # the last one: runs of speech and the short pauses between
        )

    def add(self, probabilities: NDArray[np.float32]) -> None:
        """Take the speech probabilities `[n]` of the frames that follow."""
        for p in probabilities.tolist():
            speaking = p >= _ON or (self._speaking and p >= _OFF)
            if speaking and not self._speaking:
                self._run_start = self._frames
            elif self._speaking and not speaking:
                self._settled, self._segment = self._with_run()
            self._speaking = speaking
            self._frames += 1

    @property
    def net_speech_s(self) -> float:
        """Seconds of net speech so far."""
        settled, segment = self._with_run() if self._speaking else (self._settled, self._segment)
        return (settled + self._width(segment)) * FRAME / SAMPLE_RATE

    @property
    def speaking(self) -> bool:
        """Whether the last frames are speech."""
        if self._speaking and self._frames - self._run_start >= _MIN_SPEECH:
            return True
        return self._segment is not None and self._segment[1] > self._frames - _MIN_SPEECH

    def _with_run(self) -> tuple[int, tuple[int, int] | None]:
        """`_settled` and `_segment` with the run of speech that ends at the present frame."""
        start, stop, segment = self._run_start, self._frames, self._segment
        if stop - start < _MIN_SPEECH:
            return self._settled, segment
        if segment is not None and start - segment[1] <= _COUNTED["gap"]:
            return self._settled, (segment[0], stop)
        return self._settled + self._width(segment), (start, stop)

    def _width(self, segment: tuple[int, int] | None) -> int:
        if segment is None:
            return 0
        edge = _COUNTED["edge"]
        return min(self._frames, segment[1] + edge) - max(0, segment[0] - edge)


def _frames(samples: Samples) -> Samples:
    """`[frames, 512]`, the last one zero-padded."""
    count = -(-len(samples) // FRAME)
    padded = np.zeros(count * FRAME, np.float32)
    padded[: len(samples)] = samples
    return padded.reshape(count, FRAME)


def _spoken(probabilities: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Frames of speech, by hysteresis, without short bursts."""
    mask = np.zeros(len(probabilities), bool)
    speaking = False
    for i, p in enumerate(probabilities.tolist()):
        speaking = p >= _ON or (speaking and p >= _OFF)
        mask[i] = speaking
    for start, stop in _runs(mask):
        if stop - start < _MIN_SPEECH:
            mask[start:stop] = False
    return mask


def _widened(spoken: NDArray[np.bool_], gap: int, edge: int) -> NDArray[np.bool_]:
    """Speech frames with pauses of up to `gap` frames between and `edge` frames around them."""
    mask = spoken.copy()
    for (_, stop), (start, _) in pairwise(_runs(spoken)):
        if start - stop <= gap:
            mask[stop:start] = True
    for start, stop in _runs(mask):
        mask[max(0, start - edge) : stop + edge] = True
    return mask


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """`(start, stop)` of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _snr_db(power: NDArray[np.float64], mask: NDArray[np.bool_]) -> float | None:
    """Speech power over noise power, the noise taken off the speech; None without speech.

    The quietest tenth of the frames is taken for noise: pauses, or at worst the softest speech. Frames
    of digital silence are left out: a gate or an editor put them there, and they hide the noise.
    """
    if not mask.any():
        return None
    audible = power[power > _DIGITAL_SILENCE]
    noise = float(np.percentile(audible, 10)) if len(audible) else 0.0
    speech = float(power[mask].mean()) - noise
    if speech <= 0.0:
        return -_MAX_SNR_DB
    if noise <= speech * 10.0 ** (-_MAX_SNR_DB / 10.0):
        return _MAX_SNR_DB
    return round(10.0 * float(np.log10(speech / noise)), 1)
