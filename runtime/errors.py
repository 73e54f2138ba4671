"""Every error this room raises. `code` is stable and machine-readable; the message says what to do.

RuntimeFault
|-- InputError            the recording
|   |-- EmptyAudio
|   |-- UndecodableAudio
|   |   |-- TruncatedAudio
|   |   `-- NonFiniteAudio
|   |-- TooManyChannels
|   |-- NoSuchChannel
|   |-- UnsupportedSampleRate
|   |-- AudioTooLong
|   |-- AudioOverCompressed
|   `-- QualityError      decodable, but not good enough to decide on
|       |-- TooLittleSpeech
|       |-- TooNoisy
|       `-- TooClipped
|-- ModelError            the model file
|   `-- ProviderError     the hardware it was asked to run on
|-- Overloaded            the queue is full
|   |-- ShuttingDown
|   `-- TookTooLong
`-- EmbeddingFailed       the model gave no usable vector
"""

from __future__ import annotations

from sayso.domain.errors import SaysoError


class RuntimeFault(SaysoError):
    """Base of this room's errors."""

    code = "runtime_error"


class InputError(RuntimeFault):
    """The recording cannot be used."""

    code = "audio_invalid"


class EmptyAudio(InputError):
    code = "audio_empty"


class UndecodableAudio(InputError):
    code = "audio_undecodable"


class TruncatedAudio(UndecodableAudio):
    code = "audio_truncated"


class NonFiniteAudio(UndecodableAudio):
    code = "audio_not_finite"


class TooManyChannels(InputError):
    code = "audio_too_many_channels"


class NoSuchChannel(InputError):
    code = "audio_channel_missing"


class UnsupportedSampleRate(InputError):
    code = "audio_sample_rate_unsupported"


class AudioTooLong(InputError):
    code = "audio_too_long"


class AudioOverCompressed(InputError):
    code = "audio_over_compressed"


class QualityError(InputError):
    """Decodable, but not good enough; carries the seconds of net speech that it has and that are required."""

    code = "audio_quality"

    def __init__(self, message: str, net_speech_s: float, required_speech_s: float) -> None:
        super().__init__(message)
        self.net_speech_s = net_speech_s
        self.required_speech_s = required_speech_s


class TooLittleSpeech(QualityError):
    code = "too_little_speech"


class TooNoisy(QualityError):
    code = "too_noisy"


class TooClipped(QualityError):
    code = "too_clipped"


class ModelError(RuntimeFault):
    """The model file cannot be served; the message names the file and what is wrong."""

    code = "model_invalid"


class ProviderError(ModelError):
    code = "provider_unavailable"


class Overloaded(RuntimeFault):
    """The embedding queue is full: try again shortly."""

    code = "overloaded"


class ShuttingDown(Overloaded):
    code = "shutting_down"


class TookTooLong(Overloaded):
    """The request has taken longer than its time limit."""

    code = "took_too_long"


class EmbeddingFailed(RuntimeFault):
    """The model failed on this recording, or gave a vector that is not finite."""

    code = "embedding_failed"
