"""The front-end is the published log-mel, framed and scaled as the card says."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models_published import PreEmphasis, Spectrogram, htk_triangles, waveforms
from torch import Tensor
from torch.nn import functional as F

from sayso.models.frontend import FrontEndOptions, LogMel, mel_filterbank


def reference(waveform: Tensor, n_mels: int = 40, window: str = "hamming") -> Tensor:
    """Log-mel in float64: beside a pure tone, float32's own STFT is off by more than is asked here."""
    make = {"hamming": torch.hamming_window, "hann": torch.hann_window}[window]
    power = Spectrogram(make).double()(waveform.double())
    return torch.log(htk_triangles(n_mels).double().t() @ power + 1e-6)


def assert_equal(features: Tensor, expected: Tensor) -> None:
    """Within 1e-4; in mels more than 50 dB under the loudest, where float32 cancels, within 1e-3."""
    difference = (features.double() - expected).abs()
    heard = expected > expected.max() - 5 * math.log(10)
    assert features.shape == expected.shape
    assert difference[heard].max() < 1e-4
    assert difference.max() < 1e-3


@pytest.mark.parametrize("n_mels", [40, 80])
@pytest.mark.parametrize("window", ["hamming", "hann"])
@pytest.mark.parametrize("seconds", [0.02, 1.0, 3.0, 7.77])
def test_equals_the_stft(n_mels: int, window: str, seconds: float) -> None:
    audio = waveforms(seconds)
    features = LogMel(FrontEndOptions(n_mels, window)).unnormalised(audio)
    assert_equal(features, reference(audio, n_mels, window))


def test_equals_the_stft_on_noise_and_tones() -> None:
    torch.manual_seed(0)
    time = torch.arange(32_000) / 16_000
    tones = [torch.sin(2 * math.pi * hertz * time) + 1e-3 * torch.randn(32_000) for hertz in (50, 440, 7900)]
    audio = torch.stack([*tones, torch.rand(32_000) - 0.5, torch.zeros(32_000)])
    torch.testing.assert_close(
        LogMel(FrontEndOptions()).unnormalised(audio), reference(audio).float(), atol=1e-4, rtol=0
    )


def test_pre_emphasis_and_scale_come_before_the_spectrum() -> None:
    audio = waveforms(1.0)
    options = FrontEndOptions(pre_emphasis=0.97, sample_scale=32768.0)
    assert_equal(LogMel(options).unnormalised(audio), reference(PreEmphasis()(audio * 32768.0)))


def test_linear_input_leaves_the_logarithm_out() -> None:
    audio = waveforms(1.0)
    power = LogMel(FrontEndOptions(log_input=False)).unnormalised(audio)
    assert_equal(power.log(), reference(audio))


@given(samples=st.integers(201, 9_000))
@settings(max_examples=25, deadline=None)
def test_a_frame_begins_every_160_samples(samples: int) -> None:
    features = LogMel(FrontEndOptions(n_mels=8))(torch.ones(1, samples))
    assert features.shape == (1, 8, samples // 160 + 1)


def test_three_seconds_are_301_frames() -> None:
    assert LogMel(FrontEndOptions(n_mels=80))(torch.zeros(2, 48_000)).shape == (2, 80, 301)


def test_normalised_over_time_by_itself() -> None:
    front_end = LogMel(FrontEndOptions())
    audio = waveforms(2.0, batch=3)
    features = front_end(audio)
    torch.testing.assert_close(features, F.instance_norm(front_end.unnormalised(audio), eps=1e-5))
    torch.testing.assert_close(features.mean(dim=2), torch.zeros(3, 40), atol=1e-5, rtol=0)
    torch.testing.assert_close(features[1:2], front_end(audio[1:2]), atol=1e-5, rtol=0)


def test_silence_stays_finite() -> None:
    features = LogMel(FrontEndOptions())(torch.zeros(1, 16_000))
    assert torch.isfinite(features).all()
    assert features.abs().max() < 1.0


@pytest.mark.parametrize("n_mels", [24, 40, 80])
def test_the_filterbank_is_htk_triangles(n_mels: int) -> None:
    bank = mel_filterbank(n_mels)
    assert bank.shape == (257, n_mels)
    assert bank.dtype == torch.float32
    torch.testing.assert_close(bank, htk_triangles(n_mels), atol=1e-6, rtol=0)
    assert bank.min() == 0.0
    assert 0.0 < bank.max() <= 1.0
    peaks = bank.argmax(dim=0)
    assert (peaks.diff() >= 0).all()
    for column in bank.t():  # rises, then falls, with nothing outside
        inside = column.nonzero().flatten()
        assert inside.diff().eq(1).all()
        slope = column[inside[0] : inside[-1] + 1].diff().sign()
        assert (slope.diff() <= 0).all()
    assert bank[0].sum() == 0.0  # no filter weighs a constant offset


def test_neighbours_share_what_lies_between_them() -> None:
    bank = mel_filterbank(40)
    first, last = int(bank[:, 0].argmax()) + 1, int(bank[:, -1].argmax())
    torch.testing.assert_close(bank[first:last].sum(dim=1), torch.ones(last - first), atol=1e-5, rtol=0)


def test_a_window_and_filterbank_can_be_given() -> None:
    front_end, audio = LogMel(FrontEndOptions()), torch.rand(2, 16_000) - 0.5
    front_end.use(torch.hann_window(400), 2 * htk_triangles(40))
    assert_equal(front_end.unnormalised(audio), reference(audio, window="hann") + math.log(2))


def test_loading_a_state_brings_the_transform_along() -> None:
    audio, hann = waveforms(1.0), LogMel(FrontEndOptions(window="hann"))
    other = LogMel(FrontEndOptions(window="file"))
    other.load_state_dict(hann.state_dict())
    assert torch.equal(other(audio), hann(audio))
    assert sorted(hann.state_dict()) == ["filterbank", "window"]


def test_nothing_in_it_is_trained() -> None:
    assert list(LogMel(FrontEndOptions()).parameters()) == []


def test_an_unknown_window_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown window 'kaiser': use one of \['hamming', 'hann'\]"):
        LogMel(FrontEndOptions(window="kaiser"))
