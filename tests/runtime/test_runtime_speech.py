"""Speech is found where there is some, and its cleanness is measured as it is."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime_samples import recording

from sayso.runtime import level
from sayso.runtime.errors import QualityError, TooClipped, TooLittleSpeech, TooNoisy
from sayso.runtime.speech import (
    _COUNTED,
    FRAME,
    QualityLimits,
    SpeechCounter,
    SpeechDetector,
    SpeechReport,
    _spoken,
    _widened,
)
from sayso.runtime.synthesis import synthetic_voice

REPORT = SpeechReport(
    duration_s=5.0, net_speech_s=3.5, snr_db=18.0, clipping=0.001, sample_rate=48_000, warnings=()
)
LIMITS = QualityLimits(required_speech_s=3.0, min_snr_db=8.0, max_clipping=0.1)


def at_level(samples: np.ndarray) -> np.ndarray:
    """The samples at the level at which they are looked at and embedded."""
    padded = np.resize(
        np.append(samples, np.zeros(-len(samples) % FRAME)), (-(-len(samples) // FRAME), FRAME)
    )
    return samples.astype(np.float32) * np.float32(level.gain(level.frame_powers(padded), 2.0**-15))


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(round(seconds * 16_000))


@pytest.mark.parametrize(("pitch", "tract"), [(105, 0.94), (120, 1.0), (165, 1.08), (205, 1.16)])
def test_a_voice_is_speech(detector: SpeechDetector, pitch: float, tract: float) -> None:
    report, speech = detector.detect(recording(synthetic_voice(8.0, pitch, tract)))
    assert report.duration_s == 8.0
    assert 5.0 < report.net_speech_s < 8.0  # 1.6 s of every 2 s
    assert report.net_speech_s <= len(speech) / 16_000 <= 8.0
    assert report.snr_db is not None
    assert report.snr_db > 25
    assert report.warnings == ()


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(80_000),
        noise(5, 0.001),
        noise(5, 0.1),
        np.clip(noise(5, 0.5), -1, 1),
        0.3 * np.sin(2 * np.pi * 440 * np.arange(80_000) / 16_000),
        0.3 * np.sin(2 * np.pi * 50 * np.arange(80_000) / 16_000),
        0.3 * np.sign(np.sin(2 * np.pi * 1_000 * np.arange(80_000) / 16_000)),
        np.full(80_000, 0.5),
        np.eye(1, 80_000, 40_000)[0],
    ],
    ids=["silence", "hiss", "noise", "loud noise", "tone", "hum", "square", "offset", "click"],
)
def test_what_is_no_voice_is_no_speech(detector: SpeechDetector, samples: np.ndarray) -> None:
    report, speech = detector.detect(recording(samples))
    assert (report.net_speech_s, report.snr_db, len(speech)) == (0.0, None, 0)
    with pytest.raises(TooLittleSpeech):
        LIMITS.check(report)


@pytest.mark.parametrize("length", [1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME])
def test_any_length_is_heard(detector: SpeechDetector, length: int) -> None:
    report, speech = detector.detect(recording(synthetic_voice(1.0)[4_000 : 4_000 + length]))
    assert report.duration_s == length / 16_000
    assert len(speech) <= length


def test_long_silences_are_cut_out_and_natural_pauses_kept(detector: SpeechDetector) -> None:
    silence, said = 48_000, 57_600  # 3 s, and two phrases with 0.4 s between them
    voices = [synthetic_voice(said / 16_000, seed=seed) for seed in range(2)]
    gaps = [noise(silence / 16_000, 0.0005, seed) for seed in range(3)]
    samples = np.concatenate([gaps[0], voices[0], gaps[1], voices[1], gaps[2]]).astype(np.float32)
    report, speech = detector.detect(recording(samples))
    samples = at_level(samples)
    assert 5.0 < report.net_speech_s < 7.0
    places = {samples[i : i + 64].tobytes(): i for i in range(len(samples))}
    at = np.array([places[speech[i : i + 64].tobytes()] for i in range(0, len(speech) - 64, 64)])
    assert (np.diff(at) > 0).all()  # in order
    assert np.count_nonzero(np.diff(at) != 64) == 1  # in two pieces
    for start in (silence, 2 * silence + said):
        piece = at[(at > start - silence / 2) & (at < start + said + silence / 2)]
        assert piece[0] == pytest.approx(start, abs=12_000)
        assert piece[-1] == pytest.approx(start + said, abs=12_000)


def test_speech_to_the_very_end_counts_no_padding(detector: SpeechDetector) -> None:
    samples = synthetic_voice(1.55)[: 3 * 16_000 // 2 + 77]
    report, speech = detector.detect(recording(samples))
    assert report.net_speech_s <= report.duration_s
    np.testing.assert_allclose(speech[-50:], at_level(samples)[-50:], rtol=1e-6)


def test_noise_lowers_the_ratio_step_by_step(detector: SpeechDetector) -> None:
    voice = synthetic_voice(8.0)
    ratios = []
    for added in (0.0, 0.003, 0.006, 0.012, 0.025):
        noisy = voice + noise(8.0, added)
        report, speech = detector.detect(recording(noisy))
        assert report.snr_db is not None
        ratios.append(report.snr_db)
        if added:
            gain = at_level(noisy)[1000] / np.float32(noisy[1000])
            loudness = float(np.mean(speech.astype(np.float64) ** 2)) / gain**2 - added**2
            assert report.snr_db == pytest.approx(10 * np.log10(loudness / added**2), abs=2.0)
    assert ratios == sorted(ratios, reverse=True)
    assert len(set(ratios)) == len(ratios)


def test_digital_silence_does_not_hide_the_noise(detector: SpeechDetector) -> None:
    noisy = synthetic_voice(6.0) + noise(6.0, 0.02)
    gated = np.concatenate([np.zeros(40_000), noisy, np.zeros(40_000)])
    heard, alone = (detector.detect(recording(samples))[0] for samples in (gated, noisy))
    assert heard.snr_db is not None
    assert heard.snr_db == pytest.approx(alone.snr_db, abs=2.0)


def test_speech_is_counted_as_it_is_spoken_as_in_the_whole() -> None:
    rng = np.random.default_rng(0)
    for smooth in (1, 3, 8):
        for _ in range(20):
            probabilities = np.convolve(rng.random(200 + smooth - 1), np.ones(smooth) / smooth, "valid")
            probabilities = np.clip(2.0 * probabilities - 0.5, 0, 1).astype(np.float32)
            counter = SpeechCounter()
            for end in range(1, 201):
                counter.add(probabilities[end - 1 : end])
                spoken = _spoken(probabilities[:end])
                frames = int(_widened(spoken, **_COUNTED).sum())
                assert counter.net_speech_s == frames * FRAME / 16_000
                assert counter.speaking == spoken[-3:].any()


def test_noise_and_clipping_are_warned_of(detector: SpeechDetector) -> None:
    voice = synthetic_voice(6.0)
    noisy, _ = detector.detect(recording(voice + noise(6.0, 0.05), clipping=0.02, warnings=("downmixed",)))
    assert noisy.snr_db is not None
    assert noisy.snr_db < 10
    assert noisy.warnings == ("downmixed", "noisy", "clipped")
    assert noisy.clipping == 0.02
    clean, _ = detector.detect(recording(voice, clipping=0.004))
    assert clean.warnings == ()


def test_a_report_is_the_same_each_time(detector: SpeechDetector) -> None:
    heard = recording(synthetic_voice(3.0))
    first, again = detector.detect(heard), SpeechDetector().detect(heard)
    assert first[0] == again[0]
    np.testing.assert_array_equal(first[1], again[1])


def test_enough_clean_speech_passes() -> None:
    LIMITS.check(REPORT)
    LIMITS.check(dataclasses.replace(REPORT, net_speech_s=3.0, snr_db=8.0, clipping=0.1))


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"net_speech_s": 1.25, "snr_db": None}, TooLittleSpeech, "1.2 s of speech in 5.0 s of audio, 3.0 s"),
        ({"net_speech_s": 0.0, "snr_db": -3.0}, TooLittleSpeech, "record longer"),
        (
            {"clipping": 0.25, "snr_db": 2.0, "net_speech_s": 0.0},
            TooClipped,
            "25% of the samples are clipped",
        ),
        ({"snr_db": 3.2}, TooNoisy, "only 3 dB above the noise, 8 dB are needed"),
    ],
)
def test_what_falls_short_is_refused_in_seconds(
    changes: dict[str, float], error: type[QualityError], told: str
) -> None:
    report = dataclasses.replace(REPORT, **changes)
    with pytest.raises(error) as caught:
        LIMITS.check(report)
    assert told in str(caught.value)
    assert caught.value.net_speech_s == report.net_speech_s
    assert caught.value.required_speech_s == 3.0


@given(
    heard=st.floats(0, 100),
    snr=st.none() | st.floats(-60, 60),
    clipping=st.floats(0, 1),
)
@settings(deadline=None)
def test_a_report_passes_exactly_when_nothing_falls_short(
    heard: float, snr: float | None, clipping: float
) -> None:
    report = dataclasses.replace(REPORT, net_speech_s=heard, snr_db=snr, clipping=clipping)
    good = heard >= 3.0 and clipping <= 0.1 and (snr is None or snr >= 8.0)
    try:
        LIMITS.check(report)
    except QualityError:
        assert not good
    else:
        assert good
