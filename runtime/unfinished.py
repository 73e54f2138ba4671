"""How much audio a WAV file and its kin hold, whatever their headers announce.

A recorder that writes to a pipe, or that was stopped, cannot come back to its header. What stands there is a
placeholder: a size that no recording has, zero, or the size of its first buffer. Such a file is read to its
end. A header that announces somewhat more than there is belongs to a file that was cut off.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sayso.runtime.containers import Container
from sayso.runtime.errors import TruncatedAudio

# No recording is this long: recorders write 0x7FFF0000, 0x7FFFF000, 0x80000000, 2 * 10**9 and 0xFFFFFFFF,
# each rounded to frames or less the header, and all ones where sizes have 64 bits.
_PLACEHOLDER = 10**9  # bytes
TOLERATED_S = 0.02  # of audio that may be missing: telephones announce some samples more than they write
_TAIL_S = 0.1  # what follows the audio and is longer is audio too, unless it begins as a chunk does
_FIXED_SIZE = (
    1,
    3,
    6,
    7,
    0xFFFE,
)  # WAV's numbers of PCM, float, A-law, mu-law, and of either with more fields
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # ends the identifiers of most chunks of W64


@dataclass(frozen=True)
class _Layout:
    """How a container writes its chunks: identifier, size, content."""

    id_bytes: int
    size: str  # of struct
    counts_header: bool  # whether the size counts the identifier and itself
    align: int
    first: int  # offset of the first chunk


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    at: int  # offset of the content
    size: int  # of the content, as announced


@dataclass(frozen=True)
class _Field:
    """A number of the header that follows from the audio's size: `(bytes + plus) // per`."""

    at: int
    format: str
    plus: int = 0
    per: int = 1


@dataclass(frozen=True)
class _Audio:
    """Where a file's samples begin, how many bytes of them it announces, and what repeats that number."""

    start: int
    announced: int
    bytes_per_s: float
    fields: tuple[_Field, ...]
    chunks_follow: bool = True


def finished(data: bytes, container: Container) -> bytes:
    """`data` with the true size in its header, or as it is where the header holds.

    Raises `TruncatedAudio` when more than some milliseconds of what the header announces are missing. What
    the header lacks otherwise is left to the decoder to refuse.
    """
    try:
        audio = _audio(data, container)
    except struct.error:  # the header itself is cut off
        return data
    if audio is None:
        return data
    size = _size(audio, data)
    if size == audio.announced and container != "rf64":
        return data
    mended = bytearray(data)
    if container == "rf64":  # far from needing 64 bits
        mended[:4] = b"RIFF"
    for field in audio.fields:
        struct.pack_into(field.format, mended, field.at, (size + field.plus) // field.per)
    return bytes(mended)


def _size(audio: _Audio, data: bytes) -> int:
    arrived = len(data) - audio.start
    if audio.announced >= _PLACEHOLDER:
        return arrived
    missing = audio.announced - arrived
    if missing > TOLERATED_S * audio.bytes_per_s or (missing > 0 and not arrived):
        raise TruncatedAudio(
            f"the file is cut off: its header announces {audio.announced} bytes of audio and {arrived} "
            "arrived. Send the whole file"
        )
    if missing >= 0:
        return arrived
    tail = data[audio.start + audio.announced :]
    never_closed = -missing > _TAIL_S * audio.bytes_per_s and not (audio.chunks_follow and _is_chunk(tail))
    return arrived if never_closed else audio.announced


def _is_chunk(tail: bytes) -> bool:
    start = tail.lstrip(b"\0")[:16]
    return (start[:4].isascii() and start[:4].decode().isprintable()) or start.endswith(_W64_TAIL)


def _audio(data: bytes, container: Container) -> _Audio | None:
    """None where the header has no place for the audio, or is not understood."""
    if container == "wav":
        return _wav(data, "<" if data[:4] == b"RIFF" else ">")
    if container == "rf64":
        return _wav(data, "<")
    if container == "w64":
        return _w64(data)
    if container == "aiff":
        return _aiff(data)
    if container == "caf":
        return _caf(data)
    return _au(data) if container == "au" else None


def _chunks(data: bytes, layout: _Layout) -> Iterator[_Chunk]:
    at, size_bytes = layout.first, struct.calcsize(layout.size)
    header = layout.id_bytes + size_bytes
    while at + header <= len(data):
        name = data[at : at + layout.id_bytes]
        size = struct.unpack_from(layout.size, data, at + layout.id_bytes)[0]
        if layout.counts_header:
            size = max(0, size - header)
        yield _Chunk(name, at + header, size)
        at += header + size
        at += -at % layout.align


def _rate_of_wav(data: bytes, at: int, order: str) -> float:
    """Bytes per second by the format chunk; of samples of a fixed size the lower of both ways to tell."""
    codec, _, rate, bytes_per_s, block = struct.unpack_from(order + "HHIIH", data, at)
    ways = (bytes_per_s, rate * block) if codec in _FIXED_SIZE else (bytes_per_s,)
    return float(min((n for n in ways if n), default=0))


def _wav(data: bytes, order: str) -> _Audio | None:
    bytes_per_s, wide = 0.0, None
    for chunk in _chunks(data, _Layout(4, order + "I", False, 2, 12)):
        if chunk.name == b"ds64":
            wide = struct.unpack_from("<Q", data, chunk.at + 8)[0]
        elif chunk.name == b"fmt ":
            bytes_per_s = _rate_of_wav(data, chunk.at, order)
        elif chunk.name == b"data":
            announced = wide if wide is not None and chunk.size == 0xFFFFFFFF else chunk.size
            whole = _Field(4, order + "I", chunk.at - 8)
            return _Audio(chunk.at, announced, bytes_per_s, (whole, _Field(chunk.at - 4, order + "I")))
    return None


def _w64(data: bytes) -> _Audio | None:
    bytes_per_s = 0.0
    for chunk in _chunks(data, _Layout(16, "<Q", True, 8, 40)):
        if chunk.name[:4] == b"fmt ":
            bytes_per_s = _rate_of_wav(data, chunk.at, "<")
        elif chunk.name[:4] == b"data":
            fields = (_Field(16, "<Q", chunk.at), _Field(chunk.at - 8, "<Q", 24))
            return _Audio(chunk.at, chunk.size, bytes_per_s, fields)
    return None


def _aiff(data: bytes) -> _Audio | None:
    """Only samples of a fixed size: how many frames other codecs have, their size does not say."""
    bytes_per_s, frame, frames_at = 0.0, 0, 0
    for chunk in _chunks(data, _Layout(4, ">I", False, 2, 12)):
        if chunk.name == b"COMM":
            channels, _, bits = struct.unpack_from(">HIH", data, chunk.at)
            codec = data[chunk.at + 18 : chunk.at + 22] if data[8:12] == b"AIFC" else b"NONE"
            wide = {b"ulaw": 1, b"ULAW": 1, b"alaw": 1, b"ALAW": 1}.get(codec, (bits + 7) // 8)
            frame, frames_at = channels * wide, chunk.at + 2
            bytes_per_s = frame * _extended(data[chunk.at + 8 : chunk.at + 18])
            if codec in (b"ima4", b"GSM ", b"MAC3", b"MAC6"):
                return None
        elif chunk.name == b"SSND" and frame:
            start = chunk.at + 8
            announced = max(0, chunk.size - 8)
            fields = (
                _Field(4, ">I", start - 8),
                _Field(chunk.at - 4, ">I", 8),
                _Field(frames_at, ">I", 0, frame),
            )
            return _Audio(start, announced, bytes_per_s, fields)
    return None


def _extended(number: bytes) -> float:
    """AIFF's sample rate: an 80-bit float, of which a rate in Hz uses the first bits."""
    exponent, mantissa = struct.unpack(">HQ", number)
    return float(mantissa) * 2.0 ** ((exponent & 0x7FFF) - 16_446) if 16_383 <= exponent < 16_415 else 0.0


def _caf(data: bytes) -> _Audio | None:
    bytes_per_s = 0.0
    for chunk in _chunks(data, _Layout(4, ">Q", False, 1, 8)):
        if chunk.name == b"desc":
            rate, _, _, packet_bytes, packet_frames = struct.unpack_from(">d4sIII", data, chunk.at)
            bytes_per_s = packet_bytes * rate / packet_frames if packet_frames and 0 < rate < 1e6 else 0.0
        elif chunk.name == b"data":
            fields = (_Field(chunk.at - 8, ">Q", 4),)
            return _Audio(chunk.at + 4, max(0, chunk.size - 4), bytes_per_s, fields)
    return None


def _au(data: bytes) -> _Audio | None:
    order = ">" if data[:4] == b".snd" else "<"
    start, announced, encoding, rate, channels = struct.unpack_from(order + "5I", data, 4)
    # Sun's encodings of whole bytes: mu-law, 8, 16, 24, 32 bits, float, double; A-law.
    width = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}.get(encoding, 0)
    if not width or start > len(data):
        return None
    fields = (_Field(8, order + "I"),)
    return _Audio(start, announced, float(rate * channels * width), fields, chunks_follow=False)
