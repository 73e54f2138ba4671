"""What telephones and browsers record is read, and nothing that such a file names is opened."""

import contextlib
import io
import struct
import subprocess
import sys

import av
import numpy as np
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from phone_samples import PHONES, muxed, recorded
from runtime_samples import encode

from sayso.runtime import sources
from sayso.runtime.audio import decode
from sayso.runtime.errors import (
    AudioOverCompressed,
    AudioTooLong,
    EmptyAudio,
    InputError,
    TooManyChannels,
    UndecodableAudio,
    UnsupportedSampleRate,
)
from sayso.runtime.synthesis import synthetic_voice

LIMIT_S = 60.0
VOICE = synthetic_voice(3.0)
VOICE -= VOICE.mean()


@pytest.mark.parametrize("name", PHONES)
def test_it_comes_back_about_as_it_was(name: str) -> None:
    decoded = decode(recorded(name, VOICE), LIMIT_S, "application/octet-stream")
    _, _, rate, layout, _ = PHONES[name]
    assert decoded.duration_s == pytest.approx(3.0, abs=0.12)
    assert decoded.source_rate == rate
    assert ("downmixed" in decoded.warnings) == (layout == "stereo")
    assert ("narrowband" in decoded.warnings) == (rate < 16_000)
    assert np.sqrt(np.mean(decoded.samples**2)) == pytest.approx(np.sqrt(np.mean(VOICE**2)), rel=0.2)
    lag = np.correlate(decoded.samples[:32_000], VOICE[4_000:28_000], "valid")
    aligned = decoded.samples[lag.argmax() :][:24_000]
    assert np.corrcoef(aligned, VOICE[4_000:28_000])[0, 1] > (0.7 if "AMR" in name else 0.9)


def test_the_content_type_does_not_matter_to_a_container() -> None:
    webm = recorded("WebM", VOICE)
    whole = decode(webm, LIMIT_S).samples
    for content_type in (
        "audio/wav",
        "audio/basic",
        "audio/L16;rate=8000",
        "nonsense",
        "",
        "video/webm;codecs=opus",
    ):
        np.testing.assert_array_equal(decode(webm, LIMIT_S, content_type).samples, whole)


def test_a_limit_holds_while_it_is_decoded() -> None:
    for name in ("M4A of an iPhone", "WebM", "AMR"):
        with pytest.raises(AudioTooLong):
            decode(recorded(name, VOICE), 2.0)


def test_silence_cannot_unfold_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sayso.runtime.audio._UNPACKED_FREE", 1_000_000)
    monkeypatch.setattr("sayso.runtime.audio._MAX_RATIO", 50)
    silence = muxed(np.zeros(30 * 16_000, np.float32), "adts", "aac", 48_000, "mono", {})
    with pytest.raises(AudioOverCompressed):
        decode(silence, 100.0)


def test_without_pyav_the_error_names_the_format_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    webm = recorded("WebM", VOICE)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UndecodableAudio, match=r"WebM is read by PyAV, .* pip install av, or send WAV"):
        decode(webm, LIMIT_S)
    assert decode(encode(VOICE), LIMIT_S).duration_s == 3.0


def test_pyav_is_loaded_only_when_it_is_needed() -> None:
    script = (
        "import io, sys; import soundfile as sf; from sayso.runtime.audio import decode\n"
        "from sayso.runtime.synthesis import synthetic_voice\n"
        "b = io.BytesIO(); sf.write(b, synthetic_voice(1.0), 16000, format='WAV')\n"
        "decode(b.getvalue(), 9.0); sys.exit('av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_video_alone_is_no_recording() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 16
        for _ in range(3):
            frame = av.VideoFrame(16, 16, "yuv420p")
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with pytest.raises(UndecodableAudio, match="holds no audio"):
        decode(buffer.getvalue(), LIMIT_S)


def test_a_decoder_that_is_not_on_the_list_is_never_used() -> None:
    with pytest.raises(UndecodableAudio, match=r"codec 'ac3'.* is not read"):
        decode(muxed(VOICE, "mp4", "ac3", 48_000, "mono", {}), LIMIT_S)


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def replaced_box(data: bytes, name: bytes, content: bytes) -> bytes:
    """The box's content exchanged for another of the same or a smaller size."""
    at = data.index(name) - 4
    size = struct.unpack_from(">I", data, at)[0]
    filling = size - 8 - len(content)
    assert filling == 0 or filling >= 8
    new = box(name, content) + (box(b"free", bytes(filling - 8)) if filling else b"")
    return data[:at] + new + data[at + size :]


def test_samples_in_another_file_are_not_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    """QuickTime can name a file that holds the samples; nothing is opened for it."""
    secret = tmp_path_factory.mktemp("secret") / "a.wav"
    secret.write_bytes(encode(VOICE))
    mov = recorded("MOV", VOICE)
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    url = b"\0\0\0\0" + f"file://{secret}".encode() + b"\0"
    entry = box(b"url ", url)
    dref = box(b"dref", struct.pack(">II", 0, 1) + entry)
    at = mov.index(b"dref") - 4
    size = struct.unpack_from(">I", mov, at)[0]
    grown = len(dref) - size
    changed = bytearray(mov[:at] + dref + mov[at + size :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = bytes(changed).rindex(parent) - 4
        struct.pack_into(">I", changed, place, struct.unpack_from(">I", changed, place)[0] + grown)
    with contextlib.suppress(UndecodableAudio):
        decode(bytes(changed), LIMIT_S)
    assert [name for name in opened if str(secret) in name] == []


def test_an_mp4_that_counts_more_samples_than_it_has_bytes_is_refused() -> None:
    m4a = recorded("M4A of an iPhone", VOICE)
    at = m4a.index(b"stsz") + 4
    claims = bytearray(m4a)
    struct.pack_into(">III", claims, at, 0, 1, 80_000_000)  # flags, one size for all, how many
    with pytest.raises(UndecodableAudio, match="more samples than it has bytes"):
        decode(bytes(claims), LIMIT_S)


def test_a_webm_whose_blocks_are_compressed_again_is_refused() -> None:
    webm = recorded("WebM of a live recorder", VOICE)
    at = webm.rindex(b"\x16\x54\xae\x6b") + 4  # Tracks, then its size
    content_encodings = b"\x6d\x80\x80"
    width = 9 - webm[at].bit_length()
    size = int.from_bytes(webm[at : at + width]) - (1 << 7 * width)
    new_size = (size + len(content_encodings) + (1 << 56)).to_bytes(8)
    changed = webm[:at] + new_size + content_encodings + webm[at + width :]
    with pytest.raises(UndecodableAudio, match="compressed a second time or encrypted"):
        decode(changed, LIMIT_S)


@pytest.mark.parametrize(
    "content",
    [b"#!AMR\n", b"#!AMR-WB\n", b"\x1a\x45\xdf\xa3", b"\xff\xf1\x50\x40", b"\0\0\0\x18ftypM4A " + bytes(16)],
)
def test_a_header_alone_is_refused(content: bytes) -> None:
    with pytest.raises(InputError):
        decode(content, LIMIT_S)


@given(
    name=st.sampled_from(sorted(PHONES)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=6),
    head=st.booleans(),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_damaged_one_is_decoded_or_refused(name: str, changes: list[tuple[float, int]], head: bool) -> None:
    damaged = bytearray(WHOLE[name])
    span = min(200, len(damaged)) if head else len(damaged)
    for place, value in changes:
        damaged[int(place * (span - 1))] = value
    try:
        decoded = decode(bytes(damaged), 4.0)
    except InputError:
        return
    assert np.isfinite(decoded.samples).all()
    assert 0 < len(decoded.samples) <= 4.1 * 16_000


SHORT = synthetic_voice(0.5)
WHOLE = {name: recorded(name, SHORT) for name in PHONES}


RAW = {
    "audio/basic": ("ULAW", "BIG", 8_000, 1),
    "audio/PCMU": ("ULAW", "BIG", 8_000, 1),
    "audio/pcmu;rate=16000": ("ULAW", "BIG", 16_000, 1),
    "audio/x-mulaw": ("ULAW", "BIG", 8_000, 1),
    'audio/x-mulaw; rate="8000"; channels=2': ("ULAW", "BIG", 8_000, 2),
    "audio/PCMA;rate=8000": ("ALAW", "BIG", 8_000, 1),
    "audio/x-alaw": ("ALAW", "BIG", 8_000, 1),
    "audio/L8;rate=11025": ("PCM_U8", "BIG", 11_025, 1),
    "audio/L16;rate=16000;channels=1": ("PCM_16", "BIG", 16_000, 1),
    "audio/L16; rate=44100; channels=2": ("PCM_16", "BIG", 44_100, 2),
    "audio/l16;rate=16000;endianness=little-endian": ("PCM_16", "LITTLE", 16_000, 1),
    "audio/L24;rate=48000": ("PCM_24", "BIG", 48_000, 1),
    "audio/pcm;rate=16000": ("PCM_16", "LITTLE", 16_000, 1),
    "audio/x-pcm; sample-rate=8000; channel-count=1": ("PCM_16", "LITTLE", 8_000, 1),
    "audio/lpcm; sample-rate=8000; sample-size-bits=16; channel-count=1; is-big-endian=false": (
        "PCM_16",
        "LITTLE",
        8_000,
        1,
    ),
    "audio/x-raw; format=F32LE; rate=16000; channels=1; layout=interleaved": ("FLOAT", "LITTLE", 16_000, 1),
    "AUDIO/L16 ; RATE=16000": ("PCM_16", "BIG", 16_000, 1),
}


@pytest.mark.parametrize("content_type", RAW)
def test_samples_without_a_container_are_read_by_their_content_type(content_type: str) -> None:
    subtype, endian, rate, channels = RAW[content_type]
    source = np.tile(VOICE[:16_000, None], (1, channels))
    buffer = io.BytesIO()
    sf.write(buffer, source, rate, subtype, endian, "RAW")
    decoded = decode(buffer.getvalue(), LIMIT_S, content_type)
    in_a_file = decode(encode(source, rate, "WAV", subtype), LIMIT_S)
    np.testing.assert_allclose(decoded.samples, in_a_file.samples, atol=1e-4)
    assert (decoded.source_rate, decoded.warnings) == (in_a_file.source_rate, in_a_file.warnings)


def test_silence_in_mulaw_is_not_taken_for_mp3() -> None:
    for samples in (b"\xff" * 8_000, b"\xff\xfb\x90\x64" * 2_000):
        assert decode(samples, LIMIT_S, "audio/basic").duration_s == 1.0


def test_sun_audio_is_read_by_its_header_under_the_same_type() -> None:
    au = encode(VOICE, 16_000, "AU", "PCM_16")
    assert decode(au, LIMIT_S, "audio/basic").duration_s == 3.0


@pytest.mark.parametrize(
    ("content_type", "error", "reason"),
    [
        ("audio/L16", UndecodableAudio, "does not say its sample rate: send audio/l16;rate=16000"),
        ("audio/pcm", UndecodableAudio, "sample rate"),
        ("audio/L16;rate=x", UndecodableAudio, "'x'"),
        ("audio/L16;rate=-1", UndecodableAudio, "'-1'"),
        ("audio/L16;rate=1000", UnsupportedSampleRate, "1000 Hz"),
        ("audio/L16;rate=16000;channels=9", TooManyChannels, "9 channels"),
        ("audio/L16;rate=16000;channels=99999", TooManyChannels, "channels"),
        ("audio/x-raw;format=S13LE;rate=16000", UndecodableAudio, "'s13le'"),
        ("audio/wav", UndecodableAudio, "need a content type"),
        ("text/plain;rate=8000", UndecodableAudio, "need a content type"),
    ],
)
def test_content_types_that_do_not_do(content_type: str, error: type[InputError], reason: str) -> None:
    with pytest.raises(error, match=reason):
        decode(bytes(16_000), LIMIT_S, content_type)


def test_less_than_one_sample_is_none() -> None:
    with pytest.raises(EmptyAudio):
        decode(b"\1", LIMIT_S, "audio/L16;rate=16000")


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_content_type_is_taken_or_refused(text: str) -> None:
    for content_type in (text, f"audio/L16;{text}", f"audio/pcm;rate={text}", f"audio/pcm;rate*={text}"):
        try:
            sources.raw_format(content_type)
        except InputError:
            continue
