"""Which crops a step sees depends on the seed and the step, and on nothing that happened before."""

import numpy as np
import pytest

from sayso.train.features import Features
from sayso.train.sampling import CropSampler, Prefetcher
from sayso.train.waveform import Copy

LENGTHS = [100, 50, 50, 10, 400, 7]  # frames
SPEAKERS = np.array([0, 0, 1, 1, 2])
ROWS = np.array([0, 1, 2, 3, 4])  # the last recording is not to be trained on


PLAIN = (Copy(),)
COPIES = (Copy(0.9, 1), Copy(), Copy(1.0, 2))


def features(number: int) -> Features:
    """Each frame tells its recording, its place in it, and its copy."""
    start = np.cumsum([0, *LENGTHS])
    frames = [[(i, t, number) for t in range(n)] for i, n in enumerate(LENGTHS)]
    return Features(np.concatenate(frames).astype(np.float16), start)


def sampler(
    balance: float = 1.0,
    seed: int = 5,
    frames: int = 20,
    copies: tuple[Copy, ...] = PLAIN,
    pairs: bool = False,
) -> CropSampler:
    made = {copy: features(number) for number, copy in enumerate(copies)}
    return CropSampler(made, ROWS, SPEAKERS, (frames,), balance, seed, pairs)


def test_a_step_is_the_same_whatever_came_before() -> None:
    walked = sampler()
    steps = [walked.batch(step, 16) for step in range(6)]
    for step in (5, 2, 0):
        again = sampler().batch(step, 16)
        np.testing.assert_array_equal(again.features, steps[step].features)
        np.testing.assert_array_equal(again.rows, steps[step].rows)
        np.testing.assert_array_equal(again.speakers, steps[step].speakers)


def test_other_steps_and_seeds_see_other_crops() -> None:
    first = sampler().batch(0, 16).features
    assert not np.array_equal(sampler().batch(1, 16).features, first)
    assert not np.array_equal(sampler(seed=6).batch(0, 16).features, first)


def test_crops_are_pieces_of_their_recording() -> None:
    batch = sampler().batch(3, 200)
    assert batch.features.shape == (200, 20, 3)
    assert batch.features.dtype == np.float16
    assert set(batch.rows) <= set(ROWS)
    np.testing.assert_array_equal(batch.speakers, SPEAKERS[batch.rows])
    for crop, row in zip(batch.features, batch.rows, strict=True):
        recording, place, _ = crop.T
        assert (recording == row).all()
        if LENGTHS[row] >= 20:
            np.testing.assert_array_equal(place, place[0] + np.arange(20))
        else:
            np.testing.assert_array_equal(place, np.resize(np.arange(LENGTHS[row]), 20))


def test_every_place_of_a_recording_may_come() -> None:
    batch = sampler().batch(0, 4_000)
    starts = {int(crop[0, 1]) for crop, row in zip(batch.features, batch.rows, strict=True) if row == 1}
    assert starts == set(range(31))


@pytest.mark.parametrize(
    ("balance", "shares"),
    [(1.0, [150 / 610, 60 / 610, 400 / 610]), (0.0, [1 / 3, 1 / 3, 1 / 3])],
)
def test_balance_goes_from_seconds_to_speakers(balance: float, shares: list[float]) -> None:
    batch = sampler(balance, frames=1).batch(0, 6_000)
    counts = np.bincount(batch.speakers, minlength=3) / 6_000
    np.testing.assert_allclose(counts, shares, atol=0.03)
    first = np.bincount(batch.rows[batch.speakers == 0], minlength=2)
    assert first[0] / first[1] == pytest.approx(2.0, abs=0.3)  # by length within a speaker


def test_a_speaker_at_another_speed_is_another_class() -> None:
    drawn = sampler(copies=COPIES)
    batch = drawn.batch(0, 3_000)
    assert drawn.speeds == [0.9, 1.0]
    assert drawn.classes == 6
    copies = batch.features[:, 0, 2].astype(int)
    np.testing.assert_allclose(np.bincount(copies) / 3_000, 1 / 3, atol=0.04)
    np.testing.assert_array_equal(batch.speeds, np.array([0, 1, 1])[copies])
    np.testing.assert_array_equal(batch.speakers, SPEAKERS[batch.rows] + 3 * batch.speeds)


def test_pairs_are_one_speakers_at_one_speed() -> None:
    drawn = sampler(balance=0.0, copies=COPIES, pairs=True)
    for step in range(20):
        batch = drawn.batch(step, 6)
        first, second = batch.speakers.reshape(-1, 2).T
        np.testing.assert_array_equal(first, second)
        assert len(set(first % 3)) == 3  # nobody is somebody else's impostor
    rows = np.concatenate([drawn.batch(step, 6).rows for step in range(20)]).reshape(-1, 2)
    of_two = rows[SPEAKERS[rows[:, 0]] < 2]
    assert (of_two[:, 0] != of_two[:, 1]).all()  # two recordings where there are two


def test_drawing_ahead_draws_the_same() -> None:
    drawn = sampler()
    ahead = Prefetcher(drawn, 16)
    for step in (0, 1, 2, 7, 8, 3):  # resuming elsewhere and going on
        np.testing.assert_array_equal(ahead.batch(step).features, drawn.batch(step, 16).features)


def test_weights_are_kept_to_the_last_recording() -> None:
    drawn = sampler()
    assert drawn.cumulative[-1] == 1.0
    expected = np.random.default_rng([5, 3]).choice(5, 64, p=drawn.weight / drawn.weight.sum())
    np.testing.assert_array_equal(drawn.batch(3, 64).rows, expected)


def test_each_step_draws_a_length() -> None:
    made = {Copy(): features(0)}
    drawn = CropSampler(made, ROWS, SPEAKERS, (10, 20, 30), 1.0, seed=1)
    lengths = [drawn.batch(step, 4).features.shape[1] for step in range(60)]
    assert set(lengths) == {10, 20, 30}
    assert all(lengths.count(n) > 8 for n in (10, 20, 30))
    assert drawn.batch(7, 4).features.shape[1] == lengths[7]
