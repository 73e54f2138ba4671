"""The synthetic voice is steady enough to be an example and varied enough to be several speakers."""

import numpy as np
import pytest

from sayso.runtime.synthesis import synthetic_voice


@pytest.mark.parametrize("seconds", [0.01, 0.5, 3.0, 10.1])
def test_length_and_level_are_as_asked(seconds: float) -> None:
    voice = synthetic_voice(seconds)
    assert voice.shape == (round(seconds * 16_000),)
    assert voice.dtype == np.float32
    assert np.abs(voice).max() == pytest.approx(0.5)


def test_it_is_the_same_each_time_and_other_for_other_words_and_speakers() -> None:
    voice = synthetic_voice(1.0)
    np.testing.assert_array_equal(voice, synthetic_voice(1.0))
    for other in (synthetic_voice(1.0, seed=1), synthetic_voice(1.0, 180), synthetic_voice(1.0, tract=1.1)):
        assert np.abs(other - voice).max() > 0.05


def test_phrases_are_followed_by_pauses() -> None:
    voice = synthetic_voice(6.0)
    for phrase in range(3):
        at = phrase * 32_000
        said, pause = voice[at : at + 25_600], voice[at + 25_600 : at + 32_000]
        assert np.sqrt(np.mean(said**2)) > 20 * np.sqrt(np.mean(pause**2))
