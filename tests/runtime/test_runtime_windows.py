"""Speech becomes equal windows that cover it, or wrap when it is short."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.windows import MAX_WINDOWS, cut


@pytest.mark.parametrize(
    ("seconds", "count"),
    [(0.1, 1), (3.0, 1), (3.01, 2), (6.0, 2), (6.01, 3), (20.0, 7), (29.9, 10), (30.0, 10), (300.0, 10)],
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
        np.testing.assert_array_equal(windows, np.resize(speech, (1, window)))
        return
    starts = windows[:, 0]
    np.testing.assert_array_equal(windows, starts[:, None] + np.arange(window))
    assert (starts[0], windows[-1, -1]) == (0, length - 1)
    steps = np.diff(starts)
    assert steps.max() - steps.min() <= 1  # evenly spaced
    if length <= MAX_WINDOWS * window:
        assert steps.max() <= window  # no gap


def test_short_speech_is_repeated() -> None:
    speech = np.array([1, 2, 3], np.float32)
    assert cut(speech, 8).tolist() == [[1, 2, 3, 1, 2, 3, 1, 2]]


def test_no_speech_has_no_windows() -> None:
    with pytest.raises(ValueError, match="no samples"):
        cut(np.zeros(0, np.float32), 48_000)
