"""Who is on a recording: which channel is taken, and what its channels and its windows say of voices."""

import numpy as np
import pytest
from runtime_samples import encode

from sayso.runtime.agreement import SEVERAL_VOICES, agreement
from sayso.runtime.audio import SentAudio, decode
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import NoSuchChannel
from sayso.runtime.speech import SpeechDetector
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.settings import SHIPPED_MODELS

LIMIT_S = 60.0
RNG = np.random.default_rng(0)
ANN, BOB = synthetic_voice(6.0, 205.0, 1.16, seed=1), synthetic_voice(6.0, 110.0, 0.92, seed=2)


def stereo(left: np.ndarray, right: np.ndarray) -> bytes:
    return encode(np.stack([left, right], axis=1))


def hiss(count: int, level: float) -> np.ndarray:
    return level * RNG.standard_normal(count)


def test_a_channel_is_taken_by_number_or_name() -> None:
    content = stereo(ANN, BOB)
    left, right = (decode(encode(voice), LIMIT_S).samples for voice in (ANN, BOB))
    for channel, expected in (("left", left), ("1", left), ("right", right), ("2", right)):
        decoded = decode(content, LIMIT_S, channel=channel)
        np.testing.assert_allclose(decoded.samples, expected, atol=1e-4)
        assert decoded.warnings == ()
    np.testing.assert_allclose(decode(content, LIMIT_S).samples, (left + right) / 2, atol=1e-4)
    assert decode(encode(ANN), LIMIT_S, channel="left").duration_s == 6.0


def test_clipping_is_that_of_the_channel_taken() -> None:
    content = stereo(np.clip(ANN * 9, -1, 1), BOB)
    assert decode(content, LIMIT_S, channel="right").clipping == 0.0
    assert decode(content, LIMIT_S, channel="left").clipping > 0.02


@pytest.mark.parametrize("channel", ["3", "8", "0", "", "12", "middle", "-1"])
def test_a_channel_that_is_not_there_is_refused(channel: str) -> None:
    with pytest.raises(NoSuchChannel, match="has 2 channels and no channel"):
        decode(stereo(ANN, BOB), LIMIT_S, channel=channel)
    with pytest.raises(NoSuchChannel, match="has one channel"):
        decode(encode(ANN), LIMIT_S, channel="right")


def test_a_call_in_stereo_is_warned_of() -> None:
    quiet = hiss(len(ANN), 0.0005)
    in_turn = np.append(ANN, quiet), np.append(quiet, BOB)
    at_once = ANN, np.roll(BOB, 7_000)
    leaking = in_turn[0] + 0.1 * in_turn[1], in_turn[1] + 0.1 * in_turn[0]
    for left, right in (in_turn, at_once, leaking):
        assert decode(stereo(left, right), LIMIT_S).warnings == ("downmixed", "channels_differ")


def test_one_voice_in_several_microphones_is_not() -> None:
    echo = np.exp(-np.arange(4_000) / 800) * RNG.standard_normal(4_000) / 20
    far = 0.3 * np.convolve(ANN, echo)[: len(ANN)] + hiss(len(ANN), 0.001)
    for other in (ANN, 0.2 * np.roll(ANN, 16), far, 0 * ANN, hiss(len(ANN), 0.02), -ANN):
        assert decode(stereo(ANN, other), LIMIT_S).warnings == ("downmixed",)


@pytest.mark.parametrize("count", [1, 100, 511, 513])
def test_less_than_a_frame_of_stereo_is_read(count: int) -> None:
    """The fuzzer found it: no frame was complete."""
    assert decode(stereo(ANN[:count], BOB[:count]), LIMIT_S).warnings == ("downmixed",)


def test_bytes_that_need_their_content_type_or_channel_are_not_complete() -> None:
    assert SentAudio(encode(ANN)).is_complete
    assert SentAudio(encode(ANN), "audio/basic").is_complete
    assert not SentAudio(encode(ANN), channel="left").is_complete
    assert not SentAudio(bytes(100), "audio/basic").is_complete


def unit(*rows: list[float]) -> np.ndarray:
    made = np.array(rows, np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_agreement_is_lowest_where_the_second_voice_begins() -> None:
    a, b = [1.0, 0.1, 0.0], [0.0, 0.1, 1.0]
    assert agreement(unit(a, a, a, a)) == pytest.approx(1.0)
    for first in (1, 2, 3):
        assert agreement(unit(*[a] * first, *[b] * (4 - first))) == pytest.approx(0.01 / 1.01, abs=1e-6)
    assert agreement(unit(a, b)) is None
    assert agreement(unit(a)) is None


def test_two_voices_one_after_the_other_are_noticed() -> None:
    detector = SpeechDetector()
    with Embedder(SHIPPED_MODELS / "baseline.onnx", provider="cpu", threads=1) as embedder:
        alone = embedder.embed(detector.detect(decode(encode(np.append(ANN, ANN)), LIMIT_S))[1])
        both = embedder.embed(detector.detect(decode(encode(np.append(ANN, BOB)), LIMIT_S))[1])
    assert alone.agreement is not None
    assert both.agreement is not None
    assert not alone.several_voices
    assert both.agreement < alone.agreement - 0.1
    assert both.several_voices == (both.agreement < SEVERAL_VOICES)
