"""A recording that arrives in pieces is the recording: same samples, same speech, wherever it is cut."""

import struct

import numpy as np
import pytest
import soxr
from sounds import encode

from sayso.runtime.audio import decode
from sayso.runtime.errors import UndecodableAudio, UnsupportedSampleRate
from sayso.runtime.live import LiveRecording
from sayso.runtime.opus import OggPackets, packet_samples
from sayso.runtime.speech import SpeechDetector
from sayso.runtime.synthesis import synthetic_voice

VOICE = synthetic_voice(7.3)


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return SpeechDetector()


def heard(detector: SpeechDetector, encoding: str, rate: int, pieces: list[bytes]) -> LiveRecording:
    live = LiveRecording(detector, encoding, rate, 60.0)
    for piece in pieces:
        live.push(piece)
    live.finish()
    return live


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 333, 3_200, 10**6])
@pytest.mark.parametrize(
    ("encoding", "subtype", "rate"),
    [
        ("pcm_s16le", "PCM_16", 16_000),
        ("pcm_s16le", "PCM_16", 44_100),
        ("mulaw", "ULAW", 8_000),
        ("alaw", "ALAW", 8_000),
    ],
)
def test_raw_samples_are_those_of_the_file(
    detector: SpeechDetector, encoding: str, subtype: str, rate: int, size: int
) -> None:
    seconds = 0.5 if size == 1 else 7.0
    samples = soxr.resample(VOICE[: int(seconds * 16_000)], 16_000, rate)
    raw = encode(samples, rate, "RAW", subtype)
    live = heard(detector, encoding, rate, pieces(raw, size))
    file = decode(encode(samples, rate, "WAV", subtype), 60.0)
    recording = live.recording()
    assert len(recording.samples) == len(file.samples)
    np.testing.assert_allclose(recording.samples, file.samples, atol=2e-4)
    assert (recording.clipping, recording.warnings) == (file.clipping, file.warnings)
    report, _ = detector.detect(file)
    # A stream's level is that of what has been spoken, a file's that of all of it.
    assert live.net_speech_s == pytest.approx(report.net_speech_s, abs=0.25)


def test_opus_comes_out_the_same_whole_or_packet_by_packet(detector: SpeechDetector) -> None:
    ogg = encode(VOICE, format="OGG", subtype="OPUS")
    whole = heard(detector, "ogg_opus", 0, [ogg]).recording().samples
    torn = heard(detector, "ogg_opus", 0, pieces(ogg, 611)).recording().samples
    packets = heard(detector, "opus", 0, OggPackets().packets(ogg)).recording().samples
    assert len(whole) == len(torn) == len(packets)
    for other in (torn, packets):
        assert np.corrcoef(whole, other)[0, 1] > 0.995
    assert len(whole) == pytest.approx(len(VOICE), abs=400)


def test_stereo_opus_is_averaged(detector: SpeechDetector) -> None:
    both = np.stack([VOICE, 0 * VOICE], axis=1)
    live = heard(detector, "ogg_opus", 0, pieces(encode(both, 48_000, "OGG", "OPUS"), 900))
    assert live.recording().samples.std() == pytest.approx(VOICE.std() / 2, rel=0.1)


def test_levels_and_clipping_are_of_the_source(detector: SpeechDetector) -> None:
    loud = np.clip(VOICE * 8, -1, 1)
    live = LiveRecording(detector, "pcm_s16le", 16_000, 60.0)
    live.push(encode(loud, format="RAW", subtype="PCM_16"))
    assert live.peak_db == pytest.approx(0.0, abs=0.1)
    assert -20 < live.level_db < 0
    assert live.clipping == pytest.approx(np.mean(np.abs(loud) >= 0.999), abs=0.005)
    assert live.clipping > 0.01


def test_it_takes_no_more_than_its_limit(detector: SpeechDetector) -> None:
    live = LiveRecording(detector, "pcm_s16le", 16_000, 2.0)
    raw = encode(VOICE, format="RAW", subtype="PCM_16")
    for piece in pieces(raw, 32_000):
        live.push(piece)
    assert live.full
    assert live.duration_s == 2.0
    assert len(live.recording().samples) == 32_000


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        (b"\x48", 960),
        (b"\x49", 1920),
        (bytes([0x4B, 3]), 2880),
        (b"\xe0", 120),
        (b"\xf8", 960),
        (b"\x18", 2880),
    ],
)
def test_the_length_of_a_packet(packet: bytes, samples: int) -> None:
    assert packet_samples(packet) == samples


@pytest.mark.parametrize("packet", [b"", b"\x03", bytes([0x1B, 63]), bytes([0x1B, 0])])
def test_packets_that_are_none(packet: bytes) -> None:
    with pytest.raises(UndecodableAudio):
        packet_samples(packet)


def test_streams_that_are_none(detector: SpeechDetector) -> None:
    vorbis = encode(VOICE, format="OGG", subtype="VORBIS")
    for data in (vorbis, b"RIFF....", b"OggX" + bytes(40)):
        live = LiveRecording(detector, "ogg_opus", 0, 60.0)
        with pytest.raises(UndecodableAudio):
            live.push(data)
    with pytest.raises(UndecodableAudio):
        LiveRecording(detector, "aac", 16_000, 60.0)
    with pytest.raises(UnsupportedSampleRate):
        LiveRecording(detector, "mulaw", 4_000, 60.0)


def test_a_packet_that_never_ends_is_refused(detector: SpeechDetector) -> None:
    page = struct.pack("<4sBBqIIIB", b"OggS", 0, 0, 0, 1, 0, 0, 255) + b"\xff" * 255 + bytes(255 * 255)
    live = LiveRecording(detector, "ogg_opus", 0, 60.0)
    live.push(page)
    with pytest.raises(UndecodableAudio):
        live.push(page)


def test_many_small_pages_cost_one_pass() -> None:
    """A megabyte of empty pages must not be copied once for each of them."""

    class Counting(OggPackets):
        copies = 0

        def __setattr__(self, name: str, value: object) -> None:
            Counting.copies += name == "_bytes"
            super().__setattr__(name, value)

    ogg = encode(synthetic_voice(0.5), format="OGG", subtype="OPUS")
    empty = struct.pack("<4sBBqIIIB", b"OggS", 0, 0, 0, 1, 9, 0, 0)
    head, _, rest = ogg.partition(b"OggS" + b"\0" + b"\0")  # between the headers and the audio
    packets = Counting()
    before = Counting.copies
    found = packets.packets(head + empty * 10_000 + b"OggS\0\0" + rest)
    assert Counting.copies - before == 2
    assert found == OggPackets().packets(ogg)
