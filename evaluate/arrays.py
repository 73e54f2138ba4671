"""Checks scores and labels once, where they come into this room."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


def checked_scores(scores: npt.ArrayLike, what: str = "scores") -> FloatArray:
    """`scores` as float64 `[trials]`; ValueError when empty, not one-dimensional or not finite."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what} must be one-dimensional, got shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"no {what} given")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(f"{bad.size} of {array.size} {what} are not finite; the first is number {bad[0]}")
    return array


def checked_trials(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Scores float64 `[trials]` and labels bool `[trials]` (true for a target), both classes present."""
    array = checked_scores(scores)
    target = np.asarray(labels).astype(np.bool_)
    if target.shape != array.shape:
        raise ValueError(
            f"{array.size} scores but labels of shape {target.shape}: one label per score is needed"
        )
    if not target.any():
        raise ValueError("no target trials: error rates need both targets and non-targets")
    if target.all():
        raise ValueError("no non-target trials: error rates need both targets and non-targets")
    return array, target
