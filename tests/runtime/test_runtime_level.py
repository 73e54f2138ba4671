"""Gain changes nothing that is decided on, and silence stays silence."""

import numpy as np
import pytest
import soxr
from runtime_samples import encode

from sayso.runtime.audio import decode
from sayso.runtime.embedder import Embedder
from sayso.runtime.live import LiveRecording
from sayso.runtime.speech import SpeechDetector
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.settings import SHIPPED_MODELS

RNG = np.random.default_rng(0)
VOICE = synthetic_voice(8.0) + 0.002 * RNG.standard_normal(128_000).astype(np.float32)
LSB = 2.0**-15  # of 16 bits


def at_db(samples: np.ndarray, gain_db: float) -> np.ndarray:
    return samples * 10.0 ** (gain_db / 20.0)


@pytest.fixture(scope="module")
def embedders() -> list[Embedder]:
    return [
        Embedder(path, provider="cpu", threads=1)
        for path in (SHIPPED_MODELS / "baseline.onnx", SHIPPED_MODELS / "nested.onnx")
    ]


@pytest.mark.parametrize("gain_db", [-60, -40, -20, -3.3])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_gain_changes_nothing_of_a_float_recording(
    detector: SpeechDetector, embedders: list[Embedder], gain_db: float, rate: int
) -> None:
    assert embedders
    given = soxr.resample(VOICE, 16_000, rate)
    usual, usual_speech = detector.detect(decode(encode(given, rate, subtype="FLOAT"), 60.0))
    changed = decode(encode(at_db(given, gain_db), rate, subtype="FLOAT"), 60.0)
    report, speech = detector.detect(changed)
    assert report == usual
    np.testing.assert_allclose(speech, usual_speech, atol=1e-5)
    for embedder in embedders:
        cosine = float(embedder.embed(speech).vector @ embedder.embed(usual_speech).vector)
        assert cosine > 0.9999, embedder.card.name


@pytest.mark.parametrize(
    ("gain_db", "subtype", "least_cosine", "snr_db"),
    # With 16 bits the voice 40 dB down still spans 300 steps, 50 dB down 100, with more rounding beside it.
    [(-20, "PCM_16", 0.999, 1.0), (-40, "PCM_16", 0.99, 4.0), (-60, "PCM_24", 0.999, 1.0)],
)
def test_gain_changes_little_where_the_source_rounds(
    detector: SpeechDetector,
    embedders: list[Embedder],
    gain_db: float,
    subtype: str,
    least_cosine: float,
    snr_db: float,
) -> None:
    usual, usual_speech = detector.detect(decode(encode(VOICE, subtype=subtype), 60.0))
    report, speech = detector.detect(decode(encode(at_db(VOICE, gain_db), subtype=subtype), 60.0))
    assert report.net_speech_s == pytest.approx(usual.net_speech_s, abs=0.3)
    assert report.snr_db == pytest.approx(usual.snr_db, abs=snr_db)
    for embedder in embedders:
        cosine = float(embedder.embed(speech).vector @ embedder.embed(usual_speech).vector)
        assert cosine > least_cosine, embedder.card.name


def test_clipping_is_that_of_the_source(detector: SpeechDetector) -> None:
    loud = np.clip(VOICE * 8, -1, 1)
    report, _ = detector.detect(decode(encode(loud, subtype="FLOAT"), 60.0))
    assert report.clipping == pytest.approx(np.mean(np.abs(loud) >= 0.999))
    assert "clipped" in report.warnings
    quiet, _ = detector.detect(decode(encode(at_db(loud, -40), subtype="FLOAT"), 60.0))
    assert quiet.clipping == 0.0


@pytest.mark.parametrize(
    ("subtype", "samples"),
    [
        ("PCM_16", np.zeros(80_000)),
        ("FLOAT", np.zeros(80_000)),
        ("FLOAT", np.full(80_000, 1e-30)),
        ("PCM_16", (RNG.random(80_000) + RNG.random(80_000) - 1) * LSB),  # dither of triangular density
        ("PCM_16", (RNG.random(80_000) > 0.5) * LSB),
        ("PCM_16", at_db(RNG.standard_normal(80_000), -80)),
        ("PCM_16", at_db(RNG.standard_normal(80_000), -60)),
        ("FLOAT", at_db(RNG.standard_normal(80_000), -80)),
        ("FLOAT", at_db(RNG.standard_normal(80_000), -120)),
        ("FLOAT", at_db(np.sin(2 * np.pi * 50 * np.arange(80_000) / 16_000), -80)),
        ("ULAW", np.zeros(80_000)),
        ("PCM_16", at_db(VOICE, -80)),  # less than its steps
    ],
)
def test_silence_stays_silence(detector: SpeechDetector, subtype: str, samples: np.ndarray) -> None:
    report, speech = detector.detect(decode(encode(samples, subtype=subtype), 60.0))
    assert (report.net_speech_s, report.snr_db, len(speech)) == (0.0, None, 0)


def test_pauses_and_clicks_do_not_set_the_level(detector: SpeechDetector) -> None:
    """Nearly a minute of silence around a voice, and a click, leave its level as it was."""
    usual, usual_speech = detector.detect(decode(encode(VOICE, subtype="FLOAT"), 60.0))
    silence = 0.002 * RNG.standard_normal(400_000).astype(np.float32)
    silence[1000] = 1.0
    spread = np.concatenate([silence, VOICE, silence])
    report, speech = detector.detect(decode(encode(spread, subtype="FLOAT"), 90.0))
    assert report.net_speech_s == pytest.approx(usual.net_speech_s, abs=0.5)
    assert np.abs(speech[8_000:-8_000]).max() == pytest.approx(np.abs(usual_speech).max(), rel=0.05)


@pytest.mark.parametrize("gain_db", [0, -20, -40])
@pytest.mark.parametrize("before_s", [0.0, 2.0])
def test_gain_does_not_matter_to_a_stream(detector: SpeechDetector, gain_db: float, before_s: float) -> None:
    quiet = at_db(np.concatenate([0.001 * RNG.standard_normal(int(16_000 * before_s)), VOICE]), gain_db)
    raw = encode(quiet, format="RAW", subtype="PCM_16")
    live = LiveRecording(detector, "pcm_s16le", 16_000, 60.0)
    for at in range(0, len(raw), 3_200):
        live.push(raw[at : at + 3_200])
    live.finish()
    in_a_file, _ = detector.detect(decode(encode(quiet, subtype="PCM_16"), 60.0))
    assert in_a_file.net_speech_s > 5.0
    assert live.net_speech_s == pytest.approx(in_a_file.net_speech_s, abs=0.35)
    assert detector.detect(live.recording())[0].net_speech_s == pytest.approx(
        in_a_file.net_speech_s, abs=0.05
    )


def test_a_stream_of_noise_is_no_speech(detector: SpeechDetector) -> None:
    for gain_db in (-20, -60, -80):
        raw = encode(at_db(RNG.standard_normal(80_000), gain_db), format="RAW", subtype="PCM_16")
        live = LiveRecording(detector, "pcm_s16le", 16_000, 60.0)
        for at in range(0, len(raw), 3_200):
            live.push(raw[at : at + 3_200])
        assert live.net_speech_s == 0.0
