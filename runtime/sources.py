"""Readers of a recording's bytes: each gives blocks of samples, channel by channel, and what the source was.

libsndfile reads what it knows. FFmpeg's libraries (PyAV) read what telephones and browsers record, by one
demuxer chosen beforehand and decoders on a list, out of memory alone: no file, address or playlist named in a
recording is opened. Samples without a container are described by their content type.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from typing import Any, Protocol

import numpy as np
import soundfile as sf
from numpy.typing import NDArray

from sayso.runtime.containers import SEND, Container
from sayso.runtime.errors import TruncatedAudio, UndecodableAudio

Samples = NDArray[np.float32]
# Values decoded at a time, so that a header's claim never sizes an allocation. libsndfile writes zeros where
# a file has ended: a block of 2**20 cost a call 1 ms of them.
_BLOCK = 2**16
# Full scale as decoded: companded and 8-bit samples never reach 1.
FULL_SCALE = {"ULAW": 0.979, "ALAW": 0.983, "PCM_U8": 0.992, "PCM_S8": 0.992}
# The step between two values of the source, where it is not that of 16 bits.
_STEPS = dict.fromkeys(("PCM_24", "PCM_32", "FLOAT", "DOUBLE"), 2.0**-23) | dict.fromkeys(
    ("PCM_U8", "PCM_S8"), 2.0**-7
)
_DEMUXERS: dict[Container, str] = {
    "mp4": "mov",
    "webm": "matroska",
    "amr": "amr",
    "aac": "aac",
    "caf": "caf",  # with AAC or Opus
    "ogg": "ogg",  # with FLAC
}
_COMPRESSED = (
    "aac", "alac", "amrnb", "amrwb", "flac", "libopus",
    "mp3", "mp3float", "opus", "vorbis", "adpcm_ima_qt", "gsm",
)  # fmt: skip
_SAMPLES = (
    "alaw", "mulaw", "s16be", "s16le", "s24be", "s24le", "s32be",
    "s32le", "f32be", "f32le", "u8", "s8",
)  # fmt: skip
_DECODERS = frozenset(_COMPRESSED) | {f"pcm_{kind}" for kind in _SAMPLES}
_TITLES = {"mp4": "M4A, MP4 or 3GP", "webm": "WebM", "amr": "AMR", "aac": "AAC", "caf": "CAF", "ogg": "Ogg"}


class Source(Protocol):
    """An opened recording: `rate` in Hz, `channels`, and the values that full scale and one step have."""

    rate: int
    channels: int
    full_scale: float
    step: float

    def blocks(self) -> Iterator[Samples]:
        """Samples `[n, channels]` in order; raises `UndecodableAudio` for damage."""


class _Bytes(io.BytesIO):
    """Stays where it is on a seek before its start: damaged files ask for that, inside a C callback."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


class _Forward(sf.SoundFile):  # type: ignore[misc]
    """Read from its start to its end alone: soundfile would seek by lengths that FLAC need not state."""

    def seekable(self) -> bool:
        return False


class SoundFileSource:
    """What libsndfile reads. Raises `UndecodableAudio`."""

    def __init__(self, data: bytes, container: Container) -> None:
        with _refusing():
            self._file = _Forward(_Bytes(data))
        self.rate, self.channels = self._file.samplerate, self._file.channels
        self.full_scale = FULL_SCALE.get(self._file.subtype, 0.999)
        self.step = _STEPS.get(self._file.subtype, 2.0**-15)
        # Others state no length, or `unfinished` and `cut` have compared it.
        self._announced = self._file.frames if container == "flac" and self._file.frames < 2**62 else 0

    def blocks(self) -> Iterator[Samples]:
        """Samples `[n, channels]`; raises `TruncatedAudio` for less FLAC than its header announces."""
        total = 0
        with self._file:
            while True:
                with _refusing():
                    block = self._file.read(_BLOCK // self.channels, dtype="float32", always_2d=True)
                if not len(block):
                    break
                total += len(block)
                yield block
        if total < self._announced - 0.02 * self.rate:
            raise TruncatedAudio(
                f"the file is cut off: its header announces {self._announced} samples and {total} arrived. "
                "Send the whole file"
            )


class _refusing:  # noqa: N801
    """Turns what soundfile raises into `UndecodableAudio`."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (sf.SoundFileError, RuntimeError, ValueError)):
            reason = str(error).rstrip(".").split(": ", 1)[-1]
            raise UndecodableAudio(f"the audio is damaged or cut off ({reason}): {SEND}") from error


class FFmpegSource:
    """What FFmpeg reads of the containers in `_DEMUXERS`. Raises `UndecodableAudio`."""

    def __init__(self, data: bytes, container: Container) -> None:
        self._name = _TITLES[container]
        try:
            import av
        except ImportError as error:
            raise UndecodableAudio(
                f"{self._name} is read by PyAV, which this installation lacks: pip install av, or send WAV, "
                "FLAC, MP3, Ogg Vorbis or Ogg Opus"
            ) from error
        self._av = av
        try:
            self._container: Any = av.open(
                _Bytes(data),
                format=_DEMUXERS[container],
                # Nothing else is opened, whatever the file names; no other decoder looks into it.
                container_options={
                    "protocol_whitelist": "none",
                    "codec_whitelist": ",".join(sorted(_DECODERS)),
                },
                metadata_errors="ignore",
                io_open=_refuse_to_open,
            )
            self._stream = self._chosen_stream()
            self._frames = self._decoded()
            self._first = next(self._frames, None)
        except (av.FFmpegError, ValueError, OSError) as error:
            raise self._damaged(error) from error
        frame = self._first
        self.rate = frame.sample_rate if frame is not None else self._stream.codec_context.sample_rate
        self.channels = frame.layout.nb_channels if frame is not None else 1
        codec = self._stream.codec_context.name
        self.full_scale = {"pcm_mulaw": FULL_SCALE["ULAW"], "pcm_alaw": FULL_SCALE["ALAW"]}.get(codec, 0.999)
        self.step = 2.0**-15

    def _chosen_stream(self) -> Any:
        streams = self._container.streams.audio
        if not streams:
            raise UndecodableAudio(f"the {self._name} file holds no audio")
        stream = streams[0]
        codec = stream.codec_context.name if stream.codec_context is not None else "unknown"
        if codec not in _DECODERS:
            raise UndecodableAudio(f"the codec {codec!r} in {self._name} is not read: {SEND}")
        stream.codec_context.thread_count = 1
        return stream

    def _decoded(self) -> Iterator[Any]:
        for packet in self._container.demux(self._stream):
            yield from packet.decode()

    def _damaged(self, error: Exception) -> UndecodableAudio:
        if isinstance(error, UndecodableAudio):
            return error
        reason = str(getattr(error, "strerror", None) or error)
        return UndecodableAudio(f"the {self._name} file is damaged or cut off ({reason}): {SEND}")

    def blocks(self) -> Iterator[Samples]:
        """Samples `[n, channels]`; raises `UndecodableAudio` where rate or channels change on the way."""
        waiting: list[Samples] = []
        count = 0
        frame = self._first
        try:
            while frame is not None:
                if (frame.sample_rate, frame.layout.nb_channels) != (self.rate, self.channels):
                    raise UndecodableAudio(
                        f"the {self._name} file changes its sample rate or channels on the way"
                    )
                waiting.append(_as_floats(frame.to_ndarray(), frame.format.is_planar, self.channels))
                count += waiting[-1].size
                if count >= _BLOCK // 4:
                    yield np.concatenate(waiting)
                    waiting, count = [], 0
                frame = next(self._frames, None)
        except (self._av.FFmpegError, ValueError, OSError) as error:
            raise self._damaged(error) from error
        finally:
            self._container.close()
        if waiting:
            yield np.concatenate(waiting)


def _refuse_to_open(url: str, flags: int, options: object) -> None:
    raise UndecodableAudio("the recording names another file, which is not opened")


def _as_floats(values: NDArray[Any], planar: bool, channels: int) -> Samples:
    """`[n, channels]` of a frame: `[channels, n]` when planar, `[1, n * channels]` otherwise."""
    frames = values.T if planar else values.reshape(-1, channels)
    if frames.dtype.kind == "f":
        return frames.astype(np.float32)
    if frames.dtype == np.uint8:
        return (frames.astype(np.float32) - 128.0) / 128.0
    return frames.astype(np.float32) / np.float32(-float(np.iinfo(frames.dtype).min))


@dataclass(frozen=True)
class RawFormat:
    """Samples without a container: libsndfile's subtype and byte order, rate in Hz, channels."""

    subtype: str
    endian: str
    rate: int
    channels: int


class RawSource:
    """Samples as a content type describes them; what is left of a cut one at the end is dropped."""

    def __init__(self, data: bytes, described: RawFormat) -> None:
        self.rate, self.channels = described.rate, described.channels
        self.full_scale = FULL_SCALE.get(described.subtype, 0.999)
        self.step = _STEPS.get(described.subtype, 2.0**-15)
        self._data, self._described = data, described

    def blocks(self) -> Iterator[Samples]:
        """Samples `[n, channels]`; raises nothing, since any bytes are samples."""
        raw = self._described
        with sf.SoundFile(
            io.BytesIO(self._data), "r", raw.rate, raw.channels, raw.subtype, raw.endian, "RAW"
        ) as file:
            while len(block := file.read(_BLOCK // self.channels, dtype="float32", always_2d=True)):
                yield block


_MULAW, _ALAW = "ULAW", "ALAW"
# RFC 2046 (basic), 2586 and 4856 (L16, PCMU, PCMA, L8), 3190 (L24); `pcm`, `lpcm` and `raw` are what speech
# services call samples in the byte order of computers. Subtype, byte order, and a type's own rate or 0.
_RAW_TYPES = {
    "basic": (_MULAW, "BIG", 8000),
    **dict.fromkeys(("pcmu", "x-mulaw", "mulaw", "x-ulaw", "ulaw", "x-pcmu"), (_MULAW, "BIG", 8000)),
    **dict.fromkeys(("pcma", "x-alaw", "alaw", "x-pcma"), (_ALAW, "BIG", 8000)),
    "l8": ("PCM_U8", "BIG", 0),
    "l16": ("PCM_16", "BIG", 0),
    "x-l16": ("PCM_16", "BIG", 0),
    "l24": ("PCM_24", "BIG", 0),
    **dict.fromkeys(("pcm", "x-pcm", "lpcm", "x-lpcm", "raw", "x-raw", "s16le"), ("PCM_16", "LITTLE", 0)),
}
_GSTREAMER = {"s16": "PCM_16", "s24": "PCM_24", "s32": "PCM_32", "f32": "FLOAT", "u8": "PCM_U8"}


def raw_format(content_type: str | None) -> RawFormat | None:
    """What a content type says of samples without a container; None when it names no such type.

    Reads `rate`, `channels` and `endianness` and the names that speech services give them. Raises
    `UndecodableAudio` for a type that lacks its rate or has a parameter that cannot be.
    """
    message = Message()
    message["content-type"] = content_type or ""
    kind, _, name = message.get_content_type().partition("/")
    if kind != "audio" or name not in _RAW_TYPES:
        return None
    parameters = {
        key.lower(): str(value).lower() for key, value in (message.get_params(unquote=True) or [])[1:]
    }
    subtype, endian, rate = _RAW_TYPES[name]
    layout = parameters.get("format", "")  # as GStreamer writes it: S16LE
    if layout:
        if layout.removesuffix("le").removesuffix("be") not in _GSTREAMER:
            raise UndecodableAudio(f"samples of the format {layout!r} are not read: send 16-bit samples")
        subtype = _GSTREAMER[layout.removesuffix("le").removesuffix("be")]
        endian = "BIG" if layout.endswith("be") else "LITTLE"
    order = parameters.get("endianness", parameters.get("endian", ""))
    if order.startswith(("little", "big")):
        endian = "LITTLE" if order.startswith("little") else "BIG"
    if "is-big-endian" in parameters:
        endian = "BIG" if parameters["is-big-endian"] == "true" else "LITTLE"
    rate = _number(parameters, ("rate", "sample-rate", "samplerate", "sample_rate"), rate)
    if not rate:
        raise UndecodableAudio(f"audio/{name} does not say its sample rate: send audio/{name};rate=16000")
    return RawFormat(subtype, endian, rate, _number(parameters, ("channels", "channel-count"), 1))


def _number(parameters: dict[str, str], names: tuple[str, ...], default: int) -> int:
    text = next((parameters[name] for name in names if name in parameters), None)
    if text is None:
        return default
    with suppress(ValueError):
        number = int(text)
        if text.isascii() and 0 < number < 2**20:
            return number
    raise UndecodableAudio(f"the content type's {names[0]} of {text[:40]!r} is no number of the kind")
