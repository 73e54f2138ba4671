"""Speech becomes windows that cover it, equal ones, or a shorter one when it is short."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sayso.runtime.windows import MAX_WINDOWS, cut


@pytest.mark.parametrize(
    ("seconds", "count"),
    [(3.0, 1), (3.01, 2), (6.0, 2), (6.01, 3), (20.0, 7), (29.9, 10), (30.0, 10), (300.0, 10)],
)
def test_as_few_windows_as_cover_it_and_ten_at_most(seconds: float, count: int) -> None:
    assert cut(np.zeros(round(seconds * 16_000), np.float32), 48_000).shape == (count, 48_000)


@given(length=st.integers(1, 2_000), window=st.integers(1, 200))
@settings(deadline=None)
def test_windows_are_pieces_in_order_that_cover_all_they_can(length: int, window: int) -> None:
    speech = np.arange(length, dtype=np.float32)
    windows = cut(speech, window)
    assert windows.dtype == np.float32
    assert 1 <= len(windows) <= MAX_WINDOWS
    if length <= window:
        if length < window / 2:
            np.testing.assert_array_equal(windows, np.resize(speech, (1, window)))
            return
        assert length - max(1, window // 30) < windows.shape[1] <= length
        if length == window:  # what a GPU takes
            assert windows.shape == (1, window)
        np.testing.assert_array_equal(windows[0], speech[: windows.shape[1]])
        return
    starts = windows[:, 0]
    np.testing.assert_array_equal(windows, starts[:, None] + np.arange(window))
    assert (starts[0], windows[-1, -1]) == (0, length - 1)
    steps = np.diff(starts)
    assert steps.max() - steps.min() <= 1  # evenly spaced
    if length <= MAX_WINDOWS * window:
        assert steps.max() <= window  # no gap


@pytest.mark.parametrize(
    ("seconds", "length_s"),
    [(0.1, 3.0), (1.49, 3.0), (1.5, 1.5), (1.59, 1.5), (2.0, 2.0), (2.96, 2.9), (3.0, 3.0)],
)
def test_short_speech_keeps_its_length_and_what_is_shorter_is_repeated(
    seconds: float, length_s: float
) -> None:
    speech = np.arange(round(seconds * 16_000), dtype=np.float32)
    windows = cut(speech, 48_000)
    assert windows.shape == (1, round(length_s * 16_000))
    np.testing.assert_array_equal(windows, np.resize(speech, windows.shape))


def test_no_speech_has_no_windows() -> None:
    with pytest.raises(ValueError, match="no samples"):
        cut(np.zeros(0, np.float32), 48_000)
