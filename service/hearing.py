"""From a recording's bytes to its speech, and to what a model makes of it, on the clock of a call."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sayso.runtime.audio import Recording, Samples, SentAudio
from sayso.runtime.embedder import Embedding
from sayso.runtime.speech import QualityLimits, SpeechDetector, SpeechReport
from sayso.service.call import Call
from sayso.service.schemas import AudioOut
from sayso.service.served import ServedModel
from sayso.service.settings import Settings

Audio = bytes | SentAudio | Recording  # a file's bytes, as they were sent, or what is decoded already
SEVERAL = "several_voices"
_DOUBTFUL = ("noisy", "clipped")


@dataclass(eq=False)
class Heard:
    """A recording that was good enough: its report, its speech alone and the sha256 of all its samples.

    `embeddings` are those that were made of it so far.
    """

    call: Call
    report: SpeechReport
    speech: Samples
    digest: bytes
    embeddings: list[Embedding] = field(default_factory=list)

    def embed(self, model: ServedModel, speech: Samples | None = None) -> NDArray[np.float32]:
        """The unit vector `[dim]` of the recording's speech, or of what was made of that speech."""
        embedding = model.embedder.embed(
            self.speech if speech is None else speech, self.call.left_s(), self.call.alone
        )
        if embedding.queue_s:  # for a batch, after its turn
            self.call.add("queue", embedding.queue_s, ended_ago=embedding.embed_s)
        self.call.add("embed", embedding.embed_s)
        self.embeddings.append(embedding)
        return embedding.vector

    @property
    def several_voices(self) -> bool:
        """Tell whether an embedding found more than one voice."""
        return any(embedding.several_voices for embedding in self.embeddings)

    def audio(self) -> AudioOut:
        """The report as it is answered, with what the embeddings say of who is on the recording."""
        audio: AudioOut = AudioOut.model_validate(self.report)
        if self.several_voices:
            audio.warnings.append(SEVERAL)
        return audio

    def doubts(self, short_speech_s: float) -> Sequence[str]:
        """What is wrong with the recording, the weightiest first."""
        short = ["short_speech"] if self.report.net_speech_s < short_speech_s else []
        return short + [warning for warning in self.report.warnings if warning in _DOUBTFUL]


class Ear:
    """Decodes recordings and finds their speech, within the service's limits. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.detector = SpeechDetector()

    def decode(self, data: Audio) -> Recording:
        """The recording's samples; raises an `InputError`."""
        if isinstance(data, Recording):
            return data
        sent = SentAudio(data) if isinstance(data, bytes) else data
        return sent.decode(self._settings.max_audio_s)

    def hear(self, call: Call, data: Audio, required_speech_s: float) -> Heard:
        """Decode a recording and find its speech; raises an `InputError` if it is not good enough."""
        with call.stage("decode"):
            recording = self.decode(data)
        with call.stage("speech"):
            report, speech = self.detector.detect(recording)
            limits = QualityLimits(required_speech_s, self._settings.min_snr_db, self._settings.max_clipping)
            limits.check(report)
            digest = hashlib.sha256(recording.samples.data).digest()
        return Heard(call, report, speech, digest)
