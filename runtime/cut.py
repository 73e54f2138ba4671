"""Refuses compressed files whose end is missing, as far as a container shows it.

Decoders read what is there and say nothing, so that half a recording would pass for one. What shows a cut:

- Ogg: the last page is incomplete, or does not say that it ends the stream.
- MP3: fewer frames than its Xing, Info or VBRI header counts; without such a header an incomplete last frame.
- AMR, AAC (ADTS): an incomplete last frame.
- MP4, 3GP: a box reaches beyond the end, or `moov` is missing.
- WebM: an element reaches beyond the end.

A cut just between two frames of AMR, AAC, MP3 without a count, or between two elements of a live WebM or a
fragmented MP4 leaves no trace: such a file is the one that a shorter recording would have made. FLAC counts
its samples in its header, which `runtime.sources` compares; without a count it shows a cut inside a frame.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from sayso.runtime.containers import Container
from sayso.runtime.errors import EmptyAudio, TruncatedAudio, UndecodableAudio

# MPEG audio, by version (0 is 1, 1 is 2 and 2.5) and layer (II, III): kbit/s, and samples a frame.
_KBITS = {
    (0, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (0, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (1, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (1, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MPEG_SAMPLES = {(0, 2): 1152, (0, 3): 1152, (1, 2): 1152, (1, 3): 576}
_MPEG_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
# Bytes of an AMR frame after its first, by type (3GPP TS 26.101 and 26.201; RFC 4867, section 5).
_AMR = (12, 13, 15, 17, 19, 20, 26, 31, 5, 6, 5, 5, 0, 0, 0, 0)
_AMR_WB = (17, 23, 32, 36, 40, 46, 50, 58, 60, 5, 0, 0, 0, 0, 0, 0)
_MP4_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
_EBML_PARENTS = (
    0x18538067,
    0x1F43B675,
    0xA0,
    0x1654AE6B,
    0xAE,
)  # Segment, Cluster, BlockGroup, Tracks, TrackEntry
_EBML_UNKNOWN = (0x18538067, 0x1F43B675)  # which live writers leave without a size: Segment, Cluster
_CONTENT_ENCODINGS = 0x6D80
_CUT = "the {} file is cut off: {}. Send the whole file"


def check_not_cut(data: bytes, container: Container) -> None:
    """Raise `TruncatedAudio` when the end of `data` is missing, `EmptyAudio` when it holds a header alone."""
    check = _CHECKS.get(container)
    if check is not None:
        check(data)


def _cut(name: str, reason: str) -> TruncatedAudio:
    return TruncatedAudio(_CUT.format(name, reason))


def _ogg(data: bytes) -> None:
    at = data.rfind(b"OggS")
    if len(data) < at + 27 or len(data) < at + 27 + data[at + 26]:
        raise _cut("Ogg", "its last page is incomplete")
    segments = data[at + 27 : at + 27 + data[at + 26]]
    if len(data) < at + 27 + len(segments) + sum(segments):
        raise _cut("Ogg", "its last page is incomplete")
    if not data[at + 5] & 4:
        raise _cut("Ogg", "its last page does not end the stream")


def _mp3(data: bytes) -> None:
    at = 0
    while data[at : at + 3] == b"ID3" and len(data) >= at + 10:
        size = sum(
            (byte & 0x7F) << shift for byte, shift in zip(data[at + 6 : at + 10], (21, 14, 7, 0), strict=True)
        )
        at += 10 + size + (10 if data[at + 5] & 0x10 else 0)
    at += len(data[at : at + 65_536]) - len(data[at : at + 65_536].lstrip(b"\0"))  # padding of the tag
    announced: int | None = None
    complete, first = 0, True
    while len(data) >= at + 4:
        length = _mpeg_frame_bytes(data, at)
        if length is None:
            return  # a tag at the end, or damage that the decoder judges
        if first:
            announced, first = _mpeg_frames_announced(data, at, length), False
            complete -= announced is not None  # the frame that counts holds no audio
        at += length
        if at > len(data) and announced is None:
            raise _cut("MP3", "its last frame is incomplete")
        complete += at <= len(data)
    if announced is not None and complete < announced - 1:  # of one frame the end may be missing
        raise _cut("MP3", f"its header announces {announced} frames and {max(0, complete)} arrived")


def _mpeg_frame_bytes(data: bytes, at: int) -> int | None:
    """The length of the MPEG frame whose header is at `at`; None where none is, or of a free bit rate."""
    if data[at] != 0xFF or data[at + 1] < 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    kind = (0 if version == 3 else 1, layer)
    bits, rate = data[at + 2] >> 4, data[at + 2] >> 2 & 3
    if version == 1 or kind not in _KBITS or bits in (0, 15) or rate == 3:
        return None
    padding = data[at + 2] >> 1 & 1
    return _MPEG_SAMPLES[kind] // 8 * _KBITS[kind][bits - 1] * 1000 // _MPEG_RATES[version][rate] + padding


def _mpeg_frames_announced(data: bytes, at: int, size: int) -> int | None:
    """The number of frames in a Xing, Info or VBRI header, which takes the place of the first frame."""
    frame = data[at : at + size]
    for name in (b"Xing", b"Info"):
        header = frame.find(name, 4, 44)
        if header >= 0 and len(frame) >= header + 12 and frame[header + 7] & 1:
            return int(struct.unpack_from(">I", frame, header + 8)[0]) or None
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        return int(struct.unpack_from(">I", frame, 50)[0]) or None
    return None


def _amr(data: bytes) -> None:
    wide = data.startswith(b"#!AMR-WB\n")
    at, sizes = (9, _AMR_WB) if wide else (6, _AMR)
    if len(data) == at:
        raise EmptyAudio("the AMR file holds no audio samples")
    while at < len(data):
        at += 1 + sizes[data[at] >> 3 & 15]
    if at > len(data):
        raise _cut("AMR", "its last frame is incomplete")


def _aac(data: bytes) -> None:
    at = 0
    while len(data) >= at + 7 and data[at] == 0xFF and data[at + 1] & 0xF6 == 0xF0:
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        if size < 7:
            return  # damage that the decoder judges
        at += size
    if at > len(data) or (at < len(data) < at + 7 and data[at] == 0xFF):
        raise _cut("AAC", "its last frame is incomplete")


def _mp4(data: bytes) -> None:
    described = _mp4_boxes(data, 0, len(data), 0)
    if not described:
        raise _cut("MP4", "it lacks the box `moov`, which recorders write last")


def _mp4_boxes(data: bytes, at: int, stop: int, depth: int) -> bool:
    """Whether `moov` is among the boxes from `at` to `stop`. Refuses what would fill a decoder's memory."""
    described = False
    while stop >= at + 8:
        size, name = struct.unpack_from(">I4s", data, at)
        header = 8
        if size == 1 and stop >= at + 16:
            size, header = struct.unpack_from(">Q", data, at + 8)[0], 16
        elif size == 0 and depth == 0:
            size = stop - at  # to the end of the file
        if size < header:
            raise UndecodableAudio("the MP4 file is damaged: a box has an impossible size")
        if at + size > stop:
            raise _cut(
                "MP4", f"its box {name.decode('ascii', 'replace')!r} has {size} bytes and {stop - at} arrived"
            )
        described |= name == b"moov"
        if name in _MP4_PARENTS and depth < 8:
            _mp4_boxes(data, at + header, at + size, depth + 1)
        # A decoder makes an entry of each sample that `stsz`, `stz2` and `trun` count; each has a byte.
        counted_at = at + {b"stsz": header + 8, b"stz2": header + 8, b"trun": header + 4}.get(name, size)
        if counted_at + 4 <= at + size and struct.unpack_from(">I", data, counted_at)[0] > len(data):
            raise UndecodableAudio("the MP4 file is damaged: it counts more samples than it has bytes")
        at += size
    return described


def _webm(data: bytes) -> None:
    at = 0
    while at < len(data):
        name, at = _ebml_number(data, at, keep_marker=True)
        size, at = _ebml_number(data, at)
        if name == _CONTENT_ENCODINGS:
            raise UndecodableAudio(
                "the WebM file is compressed a second time or encrypted: send it as recorded"
            )
        if size is None and name not in _EBML_UNKNOWN:
            raise UndecodableAudio("the WebM file is damaged: an element has no size")
        if size is not None and at + size > len(data):
            raise _cut("WebM", f"an element has {size} bytes and {len(data) - at} arrived")
        if name not in _EBML_PARENTS:  # what lies in a parent follows its head
            at += size or 0


def _ebml_number(data: bytes, at: int, keep_marker: bool = False) -> tuple[int | None, int]:
    """A number of 1 to 8 bytes, whose first says how many, and where it ends; None for one of ones alone."""
    width = 9 - data[at].bit_length() if at < len(data) else 9
    if at + width > len(data) or width > 8:
        if at < len(data) and data[at] == 0:
            raise UndecodableAudio("the WebM file is damaged: an element has no length")
        raise _cut("WebM", "its last element is incomplete")
    number = int.from_bytes(data[at : at + width])
    if keep_marker:
        return number, at + width
    number -= 1 << 7 * width
    return (None if number == (1 << 7 * width) - 1 else number), at + width


_CHECKS: dict[Container, Callable[[bytes], None]] = {
    "ogg": _ogg,
    "mp3": _mp3,
    "amr": _amr,
    "aac": _aac,
    "mp4": _mp4,
    "webm": _webm,
}
