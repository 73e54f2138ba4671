"""Unit vectors: what is let in, what comes back, what a mean is."""

import numpy as np
import pytest
from enroll_samples import normalised, unit
from hypothesis import given
from hypothesis import strategies as st

from sayso.enroll.errors import InvalidEmbedding
from sayso.enroll.vectors import checked_vector, from_blob, mean_direction, to_blob

seeds = st.integers(0, 10_000)


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(4),
        np.ones(4),
        np.array([]),
        np.array(1.0),
        np.ones((1, 1)),
        np.array([np.nan, 1.0]),
        np.array([np.inf, 0.0]),
        np.array([1.002, 0.0]),
        np.array([0.998, 0.0]),
    ],
)
def test_what_is_no_unit_vector_is_refused(vector: object) -> None:
    with pytest.raises(InvalidEmbedding):
        checked_vector(vector)  # type: ignore[arg-type]


def test_rounding_is_let_in() -> None:
    assert checked_vector([1.0005, 0.0]).dtype == np.float32
    assert checked_vector(unit(1, 512).astype(np.float16)).shape == (512,)


@given(seeds)
def test_a_blob_gives_the_vector_back(seed: int) -> None:
    assert np.array_equal(from_blob(to_blob(unit(seed))), unit(seed))


def test_blobs_are_little_endian_float32() -> None:
    assert to_blob(np.array([1.0], dtype=np.float32)) == b"\x00\x00\x80\x3f"


@given(st.lists(seeds, min_size=1, max_size=6))
def test_a_mean_is_a_unit_vector_whatever_the_order(chosen: list[int]) -> None:
    vectors = [unit(seed) for seed in chosen]
    mean = mean_direction(vectors)
    assert mean is not None
    assert checked_vector(mean) is not None
    turned = mean_direction(vectors[::-1])
    assert turned is not None
    assert np.allclose(mean, turned, atol=1e-6)
    assert np.allclose(mean, normalised(np.sum(vectors, axis=0, dtype=np.float64)), atol=1e-6)


def test_nothing_and_opposites_have_no_mean() -> None:
    assert mean_direction([]) is None
    assert mean_direction([unit(1), -unit(1)]) is None
