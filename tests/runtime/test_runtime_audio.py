"""Whatever bytes arrive become 16 kHz mono, or an error that says what is wrong with them."""

import base64
import contextlib
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_samples import encode

from sayso.runtime import audio, sources
from sayso.runtime.audio import Recording, decode
from sayso.runtime.errors import (
    AudioOverCompressed,
    AudioTooLong,
    EmptyAudio,
    InputError,
    NonFiniteAudio,
    TooManyChannels,
    UndecodableAudio,
    UnsupportedSampleRate,
)
from sayso.runtime.synthesis import synthetic_voice

LIMIT_S = 60.0
VOICE = synthetic_voice(1.5)
VOICE -= VOICE.mean()


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def loudest_hertz(recording: Recording) -> float:
    spectrum = np.abs(np.fft.rfft(recording.samples * np.hanning(len(recording.samples))))
    return float(spectrum.argmax() * 16_000 / len(recording.samples))


def patched(wav: bytes, chunk: bytes, offset: int, format: str, value: int) -> bytes:
    """Overwrite a field, `offset` bytes after the start of a chunk's content."""
    changed = bytearray(wav)
    struct.pack_into(format, changed, wav.index(chunk) + 8 + offset, value)
    return bytes(changed)


WAV = encode(VOICE)


@pytest.mark.parametrize(
    ("format", "subtype", "error"),
    [
        ("WAV", "PCM_16", 2e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "PCM_U8", 1e-2),
        ("WAV", "FLOAT", 1e-6),
        ("WAV", "DOUBLE", 1e-6),
        ("WAV", "ULAW", 2e-2),
        ("WAV", "ALAW", 2e-2),
        ("WAVEX", "PCM_16", 2e-4),
        ("RF64", "PCM_16", 2e-4),
        ("W64", "PCM_16", 2e-4),
        ("AIFF", "PCM_16", 2e-4),
        ("CAF", "ALAC_16", 2e-4),
        ("FLAC", "PCM_16", 2e-4),
        ("FLAC", "PCM_24", 1e-6),
    ],
)
def test_lossless_formats_come_back_as_they_were(format: str, subtype: str, error: float) -> None:
    decoded = decode(encode(VOICE, format=format, subtype=subtype), LIMIT_S)
    np.testing.assert_allclose(decoded.samples, VOICE, atol=error)
    assert decoded.samples.dtype == np.float32
    assert (decoded.source_rate, decoded.clipping, decoded.warnings) == (16_000, 0.0, ())
    assert decoded.duration_s == 1.5


@pytest.mark.parametrize(
    ("format", "subtype", "rate"),
    [
        ("MP3", "MPEG_LAYER_III", 44_100),
        ("MP3", "MPEG_LAYER_III", 16_000),
        ("OGG", "VORBIS", 16_000),
        ("OGG", "VORBIS", 48_000),
        ("OGG", "OPUS", 48_000),
        ("OGG", "OPUS", 16_000),
    ],
)
def test_lossy_formats_come_back_about_as_they_were(format: str, subtype: str, rate: int) -> None:
    source = tone(rate, seconds=2.0)
    decoded = decode(encode(source, rate, format, subtype), LIMIT_S)
    assert decoded.duration_s == pytest.approx(2.0, abs=0.1)
    assert loudest_hertz(decoded) == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(decoded.samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("rate", [8_000, 11_025, 12_345, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_any_rate_becomes_16_khz(rate: int) -> None:
    decoded = decode(encode(tone(rate), rate, subtype="FLOAT"), LIMIT_S)
    assert decoded.duration_s == pytest.approx(1.0, abs=2e-4)
    assert loudest_hertz(decoded) == pytest.approx(440, abs=1)
    middle = decoded.samples[4_000:12_000]
    np.testing.assert_allclose(middle, tone(16_000)[4_000:12_000], atol=2e-3)
    assert decoded.source_rate == rate
    assert decoded.warnings == (("narrowband",) if rate < 16_000 else ())


def test_what_16_khz_cannot_hold_is_filtered_out() -> None:
    decoded = decode(encode(tone(48_000, hertz=11_000), 48_000, subtype="FLOAT"), LIMIT_S)
    assert np.abs(decoded.samples[800:-800]).max() < 1e-4


@pytest.mark.parametrize("rate", [1_000, 7_999, 192_001, 2**31 - 1])
def test_other_rates_are_refused(rate: int) -> None:
    with pytest.raises(UnsupportedSampleRate, match=f"{rate} Hz: send 8000 to 192000 Hz"):
        decode(patched(WAV, b"fmt ", 4, "<I", rate), LIMIT_S)


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_are_averaged(channels: int) -> None:
    levels = np.linspace(0.2, 1.0, channels)
    decoded = decode(encode(VOICE[:, None] * levels, subtype="FLOAT"), LIMIT_S)
    np.testing.assert_allclose(decoded.samples, VOICE * levels.mean(), atol=1e-6)
    assert decoded.warnings == ("downmixed",)


def test_nine_channels_are_refused() -> None:
    with pytest.raises(TooManyChannels, match="9 channels: send at most 8"):
        decode(encode(np.zeros((100, 9))), LIMIT_S)


def test_long_recordings_are_decoded_in_one_piece() -> None:
    """Blocks are an inner matter: no seam may be heard."""
    source = np.tile(tone(48_000)[:, None], (25, 2))
    decoded = decode(encode(source, 48_000, "FLAC"), LIMIT_S)
    expected = np.tile(tone(16_000), 25)
    np.testing.assert_allclose(decoded.samples[100:-100], expected[100:-100], atol=2e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused(value: float) -> None:
    source = VOICE.copy()
    source[-1] = value
    with pytest.raises(NonFiniteAudio, match="NaN or infinite"):
        decode(encode(source, subtype="FLOAT"), LIMIT_S)


@pytest.mark.parametrize("level", [2.0, 32768.0, 3e38])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_floats_beyond_full_scale_stay_finite(level: float, rate: int) -> None:
    decoded = decode(encode(np.full((rate, 2), level, np.float32), rate, subtype="FLOAT"), LIMIT_S)
    assert np.abs(decoded.samples).max() < 1.2  # resampling a jump to full scale rings
    assert decoded.clipping == 1.0


def test_an_offset_is_taken_off() -> None:
    decoded = decode(encode(VOICE + 0.2, subtype="FLOAT"), LIMIT_S)
    np.testing.assert_allclose(decoded.samples, VOICE, atol=1e-6)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "ULAW", "ALAW", "FLOAT"])
def test_full_scale_is_that_of_the_format(subtype: str) -> None:
    square = np.where(np.arange(1_000) % 20 < 10, 1.0, -1.0)
    assert decode(encode(square, subtype=subtype), LIMIT_S).clipping == 1.0
    assert decode(encode(0.9 * square, subtype=subtype), LIMIT_S).clipping == 0.0


def test_clipping_is_a_share_of_the_source_samples() -> None:
    source = np.zeros((1_000, 2))
    source[:30, 0], source[:20, 1], source[500:, 0] = 1.0, -1.0, 0.99
    assert decode(encode(source), LIMIT_S).clipping == 50 / 2_000


@pytest.mark.parametrize("content", [b"", encode(np.zeros(0)), encode(np.zeros((0, 2)), 44_100)])
def test_nothing_is_refused(content: bytes) -> None:
    with pytest.raises(EmptyAudio):
        decode(content, LIMIT_S)


def test_too_little_for_one_sample_at_16_khz_is_refused() -> None:
    with pytest.raises(EmptyAudio):
        decode(encode(VOICE[:1], 192_000), LIMIT_S)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello", "no audio format that is read"),
        (b"\0" * 4_096, "no audio format that is read"),
        (b"{" + b'"audio": null' * 100 + b"}", "this is JSON"),
        (b"\xef\xbb\xbf[1, 2]", "this is JSON"),
        (b"<!doctype html><title>404</title>", "HTML or XML"),
        (b"data:audio/wav;base64,UklGRg==", "data URL"),
        (base64.b64encode(encode(VOICE)), "base64"),
        (base64.b64encode(encode(VOICE, format="OGG", subtype="OPUS")), "base64"),
        ("hello".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04" + bytes(100), "ZIP archive: unpack it"),
        (b"\x30\x26\xb2\x75" + bytes(100), "WMA .* is not read: convert it"),
        (b"NIST_1A\n   1024\n", "SPHERE is not read"),
        (b"#EXTM3U\nhttp://localhost/x.ts", "playlist"),
        (b"RIFF\x24\x00\x00\x00AVI LIST", "file of the kind 'AVI'"),
        (b"RIFF\x24\x00\x00\x00WAVE", "damaged or cut off"),
        (b"fLaC", "damaged or cut off"),
        (b"OggS" + b"\xff" * 200, "cut off"),
        (b"ID3\x04\x00\x00\x00\x00\x00\x00", "damaged or cut off"),
        (np.random.default_rng(0).bytes(10_000), "no audio format that is read"),
        (encode(VOICE, format="FLAC")[:2_000], "damaged or cut off"),
    ],
)
def test_what_is_no_audio_is_refused_by_its_name(content: bytes, reason: str) -> None:
    with pytest.raises(UndecodableAudio, match=reason):
        decode(content, LIMIT_S)


def test_chunks_before_and_after_the_audio_are_passed_over() -> None:
    at = WAV.index(b"data")
    note = b"LIST" + struct.pack("<I", 5) + b"note!\0"  # an odd size is padded
    decoded = decode(WAV[:at] + note + WAV[at:] + note, LIMIT_S)
    assert decoded.duration_s == 1.5


@pytest.mark.parametrize(
    ("offset", "format", "value"),
    [
        (-4, "<I", 0xFFFFFFFF),  # the chunk's own size
        (-4, "<I", 1),
        (0, "<H", 0),  # codec
        (0, "<H", 0x55),
        (0, "<H", 0xFFFE),
        (2, "<H", 0),  # channels
        (2, "<H", 0xFFFF),
        (4, "<I", 0),  # rate
        (4, "<I", 0xFFFFFFFF),
        (14, "<H", 0),  # bits
        (14, "<H", 0xFFFF),
    ],
)
def test_lies_about_the_format_are_refused(offset: int, format: str, value: int) -> None:
    with pytest.raises(InputError):
        decode(patched(WAV, b"fmt ", offset, format, value), LIMIT_S)


def test_the_limit_is_on_what_is_decoded() -> None:
    assert decode(WAV, 1.5).duration_s == 1.5
    with pytest.raises(AudioTooLong, match=r"limit of 1\.4 s"):
        decode(WAV, 1.4)
    with pytest.raises(AudioTooLong):
        decode(encode(np.zeros((96_000, 2)), 48_000, "FLAC"), 1.9)


def test_memory_follows_the_limit_not_the_header() -> None:
    silence = np.zeros((30 * 96_000, 8), np.int16)  # 92 MB as floats
    content = encode(silence, 96_000, "FLAC")
    assert len(content) < 200_000
    claims = bytearray(content)
    claims[21:26] = bytes([claims[21] | 0x0F]) + b"\xff" * 4  # STREAMINFO: 2**36 - 1 samples
    for data in (content, bytes(claims), patched(WAV, b"data", -4, "<I", 0xFFFFFFFF)):
        tracemalloc.start()
        try:
            decode(data, LIMIT_S)
        except InputError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 40e6


@given(
    length=st.integers(0, 400),
    changes=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=6),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_garbled_header_decodes_or_is_refused(length: int, changes: list[tuple[int, int]]) -> None:
    garbled = bytearray(WAV[: 44 + length])
    for at, value in changes:
        garbled[at % len(garbled)] = value
    try:
        decoded = decode(bytes(garbled), 1.0)
    except InputError:
        return
    assert np.isfinite(decoded.samples).all()
    assert len(decoded.samples) > 0


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_bytes_are_refused_politely(content: bytes) -> None:
    for start in (b"", b"RIFF\xff\xff\xff\xffWAVE"):
        try:
            decode(start + content, 1.0)
        except InputError:
            continue


RECORDERS = {"AIFF", "AU", "CAF", "FLAC", "MP3", "OGG", "RF64", "W64", "WAV", "WAVEX"}


@pytest.mark.parametrize("format", sorted(set(sf.available_formats()) - {"RAW", "SD2"}))
def test_only_what_recorders_write_reaches_libsndfile(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        content = encode(VOICE, 16_000, format)
    except (sf.SoundFileError, RuntimeError):
        pytest.skip("it cannot be written at this rate")
    if format in RECORDERS:
        assert decode(content, LIMIT_S).duration_s > 0.4
        return
    monkeypatch.setattr(sources, "_Forward", lambda file: pytest.fail("it was opened"))
    with pytest.raises(UndecodableAudio, match="send"):
        decode(content, LIMIT_S)


def test_a_tagged_mp3_is_read() -> None:
    tag = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + b"\0" * 10
    assert decode(tag + encode(VOICE, format="MP3"), LIMIT_S).duration_s > 1


def test_silence_cannot_unfold_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "_UNPACKED_FREE", 1_000_000)
    silence = encode(np.zeros((60 * 48_000, 2), np.int16), 48_000, "FLAC")
    with pytest.raises(AudioOverCompressed, match="1000 times"):
        decode(silence, 100.0)
    loud = np.random.default_rng(0).standard_normal((48_000, 2)).astype(np.float32) / 10
    assert decode(encode(loud, 48_000, "FLAC"), 100.0).duration_s == 1.0


def test_every_format_soundfile_knows_is_read_or_refused() -> None:
    for format in sf.available_formats():
        if format in ("RAW", "SD2"):  # one has no header; the other writes a file into the working folder
            continue
        for rate in (16_000, 44_100):
            try:
                content = encode(VOICE, rate, format)
            except (sf.SoundFileError, RuntimeError):
                continue  # it cannot be written at this rate
            with contextlib.suppress(InputError):
                assert decode(content, LIMIT_S).duration_s > 0.4
