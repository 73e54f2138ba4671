"""The speech detector's products are its convolutions."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from sayso.export.detector import _toeplitz
from sayso.runtime.speech import _WEIGHTS, DetectorState, SpeechDetector
from sayso.runtime.synthesis import synthetic_voice

# What the file as Silero published it says of `heard()`: `[speech_probs, hn, cn]`, one after the other.
PUBLISHED = np.load(Path(__file__).with_name("silero_published.npy"))


def heard() -> np.ndarray:
    voice = synthetic_voice(2.0, pitch_hz=140)
    noise = np.random.default_rng(0).standard_normal(len(voice)).astype(np.float32)
    return np.concatenate([voice, 0.05 * noise, 0.3 * voice + 0.05 * noise])[: 180 * 512].reshape(180, 512)


def test_probabilities_are_those_of_the_published_file() -> None:
    found, state = SpeechDetector().probabilities(heard())
    ours = np.concatenate([found, state.h.ravel(), state.c.ravel()])
    np.testing.assert_allclose(ours, PUBLISHED, atol=2e-5)
    assert found.max() > 0.9
    assert found.min() < 0.1


def test_states_join_what_was_cut() -> None:
    detector, frames = SpeechDetector(), heard()
    whole, _ = detector.probabilities(frames)
    first, state = detector.probabilities(frames[:67])
    assert isinstance(state, DetectorState)
    second, _ = detector.probabilities(frames[67:], state)
    np.testing.assert_allclose(np.concatenate([first, second]), whole, atol=2e-5)


@pytest.mark.parametrize(("length", "stride"), [(4, 1), (4, 2), (2, 2), (1, 1)])
def test_a_product_is_the_convolution(length: int, stride: int) -> None:
    rng = np.random.default_rng(length)
    kernel = rng.standard_normal((5, 3, 3)).astype(np.float32)
    x = rng.standard_normal((7, length, 3)).astype(np.float32)
    want = functional.conv1d(
        torch.from_numpy(x.transpose(0, 2, 1).copy()), torch.from_numpy(kernel), stride=stride, padding=1
    )
    got = (x.reshape(7, -1) @ _toeplitz(kernel, length, stride)).reshape(7, -1, 5)
    np.testing.assert_allclose(got, want.numpy().transpose(0, 2, 1), atol=1e-5)


def test_no_convolution_is_left() -> None:
    operators = {node.op_type for node in onnx.load(_WEIGHTS).graph.node}
    assert "LSTM" in operators
    assert not operators & {"Conv", "FusedConv"}
