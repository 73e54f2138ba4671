"""Each augmentation does what its name says, keeps the length, and is drawn by its generator alone."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sayso.runtime.synthesis import synthetic_voice
from sayso.train import waveform as module
from sayso.train.manifest import DataError
from sayso.train.waveform import (
    TELEPHONE_CODECS,
    augment,
    babble,
    change_level,
    change_speed,
    coloured_noise,
    compress,
    mix,
    read_recording,
    reverberate,
    telephone,
)

RATE = 16_000


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def power(x: np.ndarray, low: float, high: float) -> float:
    """Power between two frequencies."""
    spectrum = np.abs(np.fft.rfft(x)) ** 2 / len(x) ** 2
    hertz = np.fft.rfftfreq(len(x), 1 / RATE)
    return float(spectrum[(hertz >= low) & (hertz < high)].sum())


@pytest.mark.parametrize("speed", [0.9, 1.1, 1.25])
def test_speed_moves_pitch_and_duration_together(speed: float) -> None:
    x = change_speed(tone(400.0), speed)
    assert len(x) == pytest.approx(RATE / speed, abs=2)
    peak = np.argmax(np.abs(np.fft.rfft(x))) * RATE / len(x)
    assert peak == pytest.approx(400.0 * speed, rel=0.01)
    assert change_speed(x, 1.0) is x


@pytest.mark.parametrize("rt60", [0.2, 0.8])
def test_a_room_rings_for_its_reverberation_time(rt60: float) -> None:
    click = np.zeros(2 * RATE, np.float32)
    click[0] = 1.0
    wet = reverberate(click, rt60, 0.0, np.random.default_rng(0))
    assert wet[0] == pytest.approx(1.0, abs=1e-5)
    assert np.sum(wet[1:] ** 2) == pytest.approx(1.0, rel=0.05)  # as much as the direct sound: 0 dB
    at = [round(share * rt60 * RATE) for share in (0.25, 0.75)]
    early, late = (np.sum(wet[i : i + 800].astype(float) ** 2) for i in at)
    assert 10 * np.log10(early / late) == pytest.approx(30.0, abs=3.0)  # 60 dB in rt60


@pytest.mark.parametrize(("exponent", "fall"), [(0.0, 0.0), (1.0, 3.0), (2.0, 6.0)])
def test_noise_falls_by_its_colour(exponent: float, fall: float) -> None:
    noise = coloured_noise(10 * RATE, exponent, np.random.default_rng(0))
    low, high = power(noise, 500, 600) / 100, power(noise, 1_000, 1_200) / 200
    assert 10 * np.log10(low / high) == pytest.approx(fall, abs=1.0)  # dB an octave


@pytest.mark.parametrize("snr", [20.0, 5.0, -3.0])
def test_noise_is_mixed_in_at_its_ratio(snr: float) -> None:
    voice, noise = synthetic_voice(2.0), coloured_noise(2 * RATE, 1.0, np.random.default_rng(0))
    added = mix(voice, noise, snr) - voice
    assert 10 * np.log10(np.mean(voice**2) / np.mean(added**2)) == pytest.approx(snr, abs=0.05)
    silence = np.zeros(100, np.float32)
    assert mix(silence, noise[:100], snr) is silence
    assert mix(voice, np.zeros_like(voice), snr) is voice


def test_babble_is_everybody_at_one_level() -> None:
    loud, soft = tone(500.0), 0.01 * tone(2_000.0, 0.25)
    both = babble([loud, soft, np.zeros(0, np.float32)], 2 * RATE)
    assert len(both) == 2 * RATE
    assert power(both, 400, 600) == pytest.approx(power(both, 1_900, 2_100), rel=0.01)
    assert not babble([], 10).any()


@pytest.mark.parametrize("codec", TELEPHONE_CODECS)
def test_a_telephone_passes_its_band_alone(codec: str) -> None:
    voice = coloured_noise(RATE, 0.0, np.random.default_rng(0)) * np.float32(0.1)
    received = telephone(voice, codec)
    assert received.shape == voice.shape
    assert received.dtype == np.float32
    inside = power(received, 500, 3_000) / power(voice, 500, 3_000)
    assert 0.2 < inside < 2.0
    assert power(received, 4_200, 8_000) < 0.01 * power(voice, 4_200, 8_000)


@pytest.mark.parametrize("container", [("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")])
@pytest.mark.parametrize("level", [0.6, 0.95])
@pytest.mark.parametrize("samples", [900, 16_001])
def test_a_codec_keeps_length_and_voice(container: tuple[str, str], level: float, samples: int) -> None:
    voice = synthetic_voice(2.0)[:samples]
    coded = compress(voice, container, level)
    assert coded.shape == voice.shape
    assert not np.array_equal(coded, voice)
    if samples > 10_000:
        assert 0.3 < power(coded, 100, 3_000) / power(voice, 100, 3_000) < 1.5


def test_a_level_is_reached_or_clipped() -> None:
    assert np.abs(change_level(tone(300.0), -20.0)).max() == pytest.approx(0.1, rel=1e-3)
    clipped = change_level(tone(300.0), 6.0)
    assert np.abs(clipped).max() == 1.0
    assert (np.abs(clipped) == 1.0).mean() > 0.3
    assert not change_level(np.zeros(5, np.float32), 0.0).any()


def test_every_codec_of_a_telephone_sounds_different() -> None:
    voice = synthetic_voice(1.0)
    received = [telephone(voice, codec) for codec in TELEPHONE_CODECS]
    assert len({x.tobytes() for x in received}) == len(TELEPHONE_CODECS)
    by_name = dict(zip(TELEPHONE_CODECS, received, strict=True))
    assert set(by_name) == {"ULAW", "ALAW", "PCM_16", "GSM610", "MS_ADPCM"}
    for codec in ("ULAW", "ALAW"):  # G.711 adds little
        assert np.std(by_name[codec] - by_name["PCM_16"]) < 0.1 * np.std(by_name["PCM_16"])


def test_augmentation_draws_every_telephone_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def note(x: np.ndarray, codec: str) -> np.ndarray:
        drawn.append(codec)
        return x

    monkeypatch.setattr(module, "telephone", note)
    voice = synthetic_voice(0.2)
    for seed in range(100):
        augment(voice, np.random.default_rng(seed), [voice])
    assert set(drawn) == set(TELEPHONE_CODECS)


def test_scenes_are_drawn_by_their_generator() -> None:
    voice, others = synthetic_voice(1.0), [tone(300.0), tone(700.0, 0.3)]
    scenes = [augment(voice, np.random.default_rng(i), others) for i in range(40)]
    for i in (0, 7, 39):
        np.testing.assert_array_equal(augment(voice, np.random.default_rng(i), others), scenes[i])
    for scene in scenes:
        assert scene.shape == voice.shape
        assert scene.dtype == np.float32
        assert np.isfinite(scene).all()
        assert np.abs(scene).max() <= 1.0
    assert len({scene.tobytes() for scene in scenes}) == 40
    assert np.isfinite(augment(voice[:30], np.random.default_rng(1), others)).all()


def test_recordings_are_read_as_mono_at_16_khz(tmp_path: Path) -> None:
    sf.write(tmp_path / "x.wav", np.stack([tone(500.0), 0 * tone(500.0)], axis=1)[::2], RATE // 2)
    x = read_recording(tmp_path / "x.wav")
    assert len(x) == RATE
    assert power(x, 480, 520) == pytest.approx(power(tone(500.0), 480, 520) / 4, rel=0.02)
    with pytest.raises(DataError, match="cannot read the recording"):
        read_recording(tmp_path / "absent.wav")
