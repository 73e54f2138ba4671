"""Opus packets to samples, a stretch at a time.

libsndfile decodes whole Ogg files only. So each stretch of packets is put into a small Ogg file of its
own (RFC 3533, RFC 7845), led by the packets before it, which the decoder needs to settle and which are
skipped in what it gives.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import numpy as np
import soundfile as sf

from sayso.runtime.audio import Samples
from sayso.runtime.errors import UndecodableAudio

OPUS_RATE = 48_000  # what Opus counts in, whatever it carries
# Samples of the packets before. RFC 7845 asks for 80 ms before a place that is sought; after 200 ms what is
# decoded in stretches correlates with the whole by more than 0.998, after 80 ms by 0.96 to 0.98.
_SETTLE = 9_600
_LONGEST_PAGE = 65_307
_FRAME_SAMPLES = (480, 960, 1920, 2880) * 3 + (480, 960) * 2 + (120, 240, 480, 960) * 4
_SERIAL = 1


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


_CRC = _crc_table()


def packet_samples(packet: bytes) -> int:
    """How many samples at 48 kHz a packet holds, by its first bytes (RFC 6716, section 3)."""
    if not packet:
        raise UndecodableAudio("an Opus packet is empty")
    code = packet[0] & 3
    if code == 3 and len(packet) < 2:
        raise UndecodableAudio("an Opus packet is cut off")
    frames = 1 if code == 0 else 2 if code < 3 else packet[1] & 63
    samples = _FRAME_SAMPLES[packet[0] >> 3] * frames
    if not 0 < samples <= 5_760:
        raise UndecodableAudio("an Opus packet holds no audio, or more than 120 ms")
    return samples


class OpusDecoder:
    """Decodes packets in the order they were encoded."""

    def __init__(self, channels: int = 1, skip: int = 312) -> None:
        self._channels = channels
        self._skip = skip  # the encoder's delay, of the first packets only
        self._before: list[bytes] = []

    def decode(self, packets: Sequence[bytes]) -> Samples:
        """Samples `[n, channels]` at 48 kHz of one or more packets. Raises `UndecodableAudio`."""
        with_lead = [*self._before, *packets]
        lengths = [packet_samples(packet) for packet in with_lead]
        skipped = sum(lengths[: len(self._before)]) + self._skip
        samples = self._file(with_lead, skipped)
        self._skip = max(0, skipped - sum(lengths))
        settling = 0
        while lengths and settling < _SETTLE:
            settling += lengths.pop()
        self._before = with_lead[len(lengths) :]
        return samples

    def _file(self, packets: Sequence[bytes], skip: int) -> Samples:
        head = struct.pack("<8sBBHIhB", b"OpusHead", 1, self._channels, min(skip, 65_535), OPUS_RATE, 0, 0)
        tags = struct.pack("<8sI0sI", b"OpusTags", 0, b"", 0)
        pages = [_page(head, 0, 0, first=True), _page(tags, 0, 1)]
        granule = 0
        for number, packet in enumerate(packets, start=2):
            granule += packet_samples(packet)
            pages.append(_page(packet, granule, number, last=number == len(packets) + 1))
        if granule <= skip:
            return np.zeros((0, self._channels), np.float32)
        try:
            samples: Samples = sf.read(io.BytesIO(b"".join(pages)), dtype="float32", always_2d=True)[0]
        except (sf.SoundFileError, RuntimeError, ValueError) as error:
            raise UndecodableAudio("the Opus packets cannot be decoded") from error
        return samples


class OggPackets:
    """Takes an Ogg Opus file apart as its bytes arrive."""

    def __init__(self) -> None:
        self._bytes, self._at = b"", 0  # what has arrived, and how much of it is taken apart
        self._partial = b""
        self._headers = 0
        self.decoder: OpusDecoder | None = None

    def packets(self, data: bytes) -> list[bytes]:
        """The audio packets that `data` completes; `decoder` is set once the header was read."""
        self._bytes += data
        complete: list[bytes] = []
        while (page := self._next_page()) is not None:
            for packet in page:
                self._headers += 1
                if self._headers == 1:
                    self.decoder = _from_head(packet)
                elif self._headers > 2:
                    complete.append(packet)
        self._bytes, self._at = self._bytes[self._at :], 0
        return complete

    def _next_page(self) -> list[bytes] | None:
        data, begin = self._bytes, self._at
        mark = data[begin : begin + 4]
        if not b"OggS".startswith(mark):
            raise UndecodableAudio("this is not an Ogg Opus stream: a page does not begin with `OggS`")
        if len(data) < begin + 27 or len(data) < begin + 27 + data[begin + 26]:
            return None
        sizes = data[begin + 27 : begin + 27 + data[begin + 26]]
        start = begin + 27 + len(sizes)
        if len(data) < start + sum(sizes):
            return None
        packets, at = [], start
        for size in sizes:
            self._partial += data[at : at + size]
            at += size
            if len(self._partial) > _LONGEST_PAGE:
                raise UndecodableAudio("a packet of the Ogg Opus stream is too long")
            if size < 255:
                packets.append(self._partial)
                self._partial = b""
        self._at = at
        return packets


def _from_head(head: bytes) -> OpusDecoder:
    if len(head) < 19 or not head.startswith(b"OpusHead") or head[18] != 0 or head[9] not in (1, 2):
        raise UndecodableAudio("this is not an Ogg Opus stream of one or two channels")
    return OpusDecoder(channels=head[9], skip=struct.unpack_from("<H", head, 10)[0])


def _page(packet: bytes, granule: int, number: int, first: bool = False, last: bool = False) -> bytes:
    lacing = b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])
    if len(lacing) > 255:
        raise UndecodableAudio("an Opus packet is too long")
    flags = 2 * first + 4 * last
    header = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, _SERIAL, number, 0, len(lacing)) + lacing
    crc = 0
    for byte in header + packet:
        crc = ((crc << 8) & 0xFFFFFFFF) ^ _CRC[(crc >> 24) ^ byte]
    return header[:22] + struct.pack("<I", crc) + header[26:] + packet
