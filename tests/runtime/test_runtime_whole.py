"""A recording is read whole whatever its header says, and refused where its end is missing."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from phone_samples import PHONES, recorded
from runtime_samples import encode

from sayso.runtime.audio import decode
from sayso.runtime.errors import EmptyAudio, TruncatedAudio, UndecodableAudio
from sayso.runtime.synthesis import synthetic_voice

LIMIT_S = 60.0
VOICE = synthetic_voice(3.0)
WAV = encode(VOICE)
DATA_AT = WAV.index(b"data")


def announcing(size: int, wav: bytes = WAV, riff: int | None = None) -> bytes:
    """A WAV whose header says `size` bytes of audio, and `riff` bytes in all."""
    changed = bytearray(wav)
    struct.pack_into("<I", changed, wav.index(b"data") + 4, size)
    if riff is not None:
        struct.pack_into("<I", changed, 4, riff)
    return bytes(changed)


def assert_whole(content: bytes, seconds: float = 3.0) -> None:
    assert decode(content, LIMIT_S).duration_s == pytest.approx(seconds, abs=0.02)


@pytest.mark.parametrize(
    "size",
    [
        0x80000000,  # arecord
        0x7FFF0000,  # GStreamer
        0x7FFFF000,  # sox
        2_000_000_000,
        1_000_000_000,
        0x3FFFFFFF,
        0x7FFFFFFF,
        0x7FFFFFFF - 36,
        0xFFFFFFFF,
        0xFFFFFFFF - 44,
        0xFFFFFFF0,
        0xFFFF0000,
        0,
    ],
)
@pytest.mark.parametrize("riff", [None, 0, 36, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_is_read_to_its_end(size: int, riff: int | None) -> None:
    assert_whole(announcing(size, riff=riff))
    np.testing.assert_array_equal(
        decode(announcing(size, riff=riff), LIMIT_S).samples, decode(WAV, LIMIT_S).samples
    )


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT", "GSM610", "ULAW", "IMA_ADPCM"])
@pytest.mark.parametrize("size", [0x7FFFF000, 0x7FFFF000 // 65 * 65, 0x7FFFF000 // 3 * 3, 0xFFFFFFFF, 0])
def test_in_any_encoding(subtype: str, size: int) -> None:
    wav = encode(VOICE, subtype=subtype)
    np.testing.assert_array_equal(
        decode(announcing(size, wav), LIMIT_S).samples, decode(wav, LIMIT_S).samples
    )


def test_a_header_that_only_counts_the_first_buffer() -> None:
    """Python's wave module writes it so, and mends it when it is closed."""
    assert_whole(announcing(3_200, riff=36 + 3_200))


def test_a_header_that_was_never_finished_and_no_audio() -> None:
    for size in (0, 0xFFFFFFFF, 0x80000000):
        with pytest.raises(EmptyAudio):
            decode(announcing(size)[: DATA_AT + 8], LIMIT_S)


def test_chunks_behind_the_audio_are_no_audio() -> None:
    picture = b"id3 " + struct.pack("<I", 50_000) + bytes(50_000)
    for tail in (picture, picture[:30_000], b"LIST\x04\0\0\0note", bytes(2_000), b"TAG" + bytes(125)):
        assert decode(WAV + tail, LIMIT_S).duration_s == 3.0
    with pytest.raises(EmptyAudio):
        decode(announcing(0)[: DATA_AT + 8] + picture, LIMIT_S)


@pytest.mark.parametrize("missing", [1, 2, 44, 319, 600])
def test_some_milliseconds_may_be_missing(missing: int) -> None:
    assert_whole(WAV[:-missing])
    assert_whole(announcing(len(WAV) - DATA_AT - 8 + missing))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "GSM610"),
        ("WAVEX", "PCM_24"),
        ("RF64", "PCM_16"),
        ("W64", "PCM_16"),
        ("AIFF", "PCM_16"),
        ("AIFF", "ULAW"),
        ("AU", "PCM_16"),
        ("AU", "ULAW"),
        ("CAF", "PCM_16"),
        ("CAF", "ALAC_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", "MPEG_LAYER_III"),
    ],
)
def test_what_was_cut_is_refused(format: str, subtype: str, share: float) -> None:
    whole = encode(VOICE, 16_000, format, subtype)
    assert_whole(whole, 3.0)
    start = min(500, len(whole) // 4)  # past the header
    with pytest.raises((TruncatedAudio, UndecodableAudio), match="cut off"):
        decode(whole[: start + int((len(whole) - start) * share)], LIMIT_S)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", PHONES)
def test_what_was_cut_of_a_telephone_is_refused(name: str, share: float) -> None:
    whole = recorded(name, VOICE)
    kept = int(len(whole) * share)
    if name in ("AMR", "AAC", "MP3 without a count"):
        kept = next(n for n in range(kept, len(whole)) if not_between_frames(whole[:n]))
    with pytest.raises((TruncatedAudio, UndecodableAudio), match="cut off"):
        decode(whole[:kept], LIMIT_S)


def not_between_frames(content: bytes) -> bool:
    try:
        decode(content, LIMIT_S)
    except TruncatedAudio:
        return True
    return False


def test_an_mp3_may_lack_a_part_of_its_last_frame() -> None:
    assert_whole(encode(VOICE, 16_000, "MP3")[:-1])


def test_ogg_needs_its_last_page() -> None:
    ogg = encode(VOICE, 48_000, "OGG", "OPUS")
    with pytest.raises(TruncatedAudio, match="does not end the stream"):
        decode(ogg[: ogg.rindex(b"OggS")], LIMIT_S)
    assert_whole(ogg + b"TAG" + bytes(125), 1.0)


def set_sizes(content: bytes, fields: dict[int, tuple[str, int]]) -> bytes:
    changed = bytearray(content)
    for at, (format, value) in fields.items():
        struct.pack_into(format, changed, at, value)
    return bytes(changed)


def rf64(value: int) -> bytes:
    content = encode(VOICE, format="RF64")
    at = content.index(b"ds64") + 8
    return set_sizes(content, {at: ("<Q", value), at + 8: ("<Q", value), at + 16: ("<Q", value)})


def bw64(value: int) -> bytes:
    return b"BW64" + rf64(value)[4:]


def w64(value: int) -> bytes:
    content = encode(VOICE, format="W64")
    return set_sizes(content, {16: ("<Q", value), content.index(b"data") + 16: ("<Q", value)})


def aiff(value: int) -> bytes:
    content = encode(VOICE, format="AIFF")
    value &= 0xFFFFFFFF
    fields = {
        4: (">I", value),
        content.index(b"COMM") + 10: (">I", value),
        content.index(b"SSND") + 4: (">I", value),
    }
    return set_sizes(content, fields)


def au(value: int) -> bytes:
    return set_sizes(encode(VOICE, format="AU"), {8: (">I", value & 0xFFFFFFFF)})


def caf(value: int) -> bytes:
    content = encode(VOICE, format="CAF")
    at = content.index(b"data") + 4
    return set_sizes(content, {at: (">Q", value)})


@pytest.mark.parametrize("value", [0, 2**64 - 1, 0x7FFFFFFFFFFFFFFF, 0x7FFFF000, 0xFFFFFFFF, 0x80000000])
@pytest.mark.parametrize("made", [rf64, bw64, w64, aiff, au, caf])
def test_its_kin_from_a_pipe_are_read_to_their_end(made: Callable[[int], bytes], value: int) -> None:
    if made is aiff and value == 0x7FFFFFFFFFFFFFFF:
        value = 0x7FFFFFFF
    np.testing.assert_array_equal(decode(made(value), LIMIT_S).samples, decode(WAV, LIMIT_S).samples)


def without_a_count(flac: bytes) -> bytes:
    """What writes to a pipe leaves 0 samples and no checksum in STREAMINFO."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(20) + flac[42:]


def test_flac_without_a_length_is_read_to_its_end() -> None:
    flac = encode(VOICE, format="FLAC")
    streamed = without_a_count(flac)
    np.testing.assert_array_equal(decode(streamed, LIMIT_S).samples, decode(flac, LIMIT_S).samples)
    with pytest.raises(UndecodableAudio, match="cut off"):
        decode(streamed[: len(streamed) // 2], LIMIT_S)


def test_flac_cut_between_two_frames_is_refused_by_its_count() -> None:
    flac = encode(VOICE, format="FLAC")
    ends = [at for at in range(len(flac) // 2, len(flac)) if flac[at : at + 2] == b"\xff\xf8"]
    outcomes = set()
    for end in ends:
        with pytest.raises(UndecodableAudio, match="cut off") as caught:
            decode(flac[:end], LIMIT_S)
        outcomes.add(type(caught.value))
    assert TruncatedAudio in outcomes
