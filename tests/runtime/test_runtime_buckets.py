"""Batches padded to a few sizes give what plain runs give. On a CPU the same calls run without graphs."""

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from runtime_samples import DIM, toy_network

from runtime.batcher import Batcher
from runtime.buckets import SIZES, Buckets
from runtime.errors import ProviderError
from runtime.session import CPU, CUDA, EmbeddingSession, cuda_options, tensorrt_options

WINDOW = 4_000


def session() -> ort.InferenceSession:
    return ort.InferenceSession(toy_network(), providers=[CPU])


def noise(count: int, samples: int = WINDOW) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, samples)).astype(np.float32)


@pytest.fixture(scope="module")
def buckets() -> Buckets:
    return Buckets(session(), WINDOW, device="cpu")


@pytest.mark.parametrize("samples", [WINDOW, WINDOW - 500])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 16])
def test_a_padded_batch_gives_what_a_plain_one_does(buckets: Buckets, count: int, samples: int) -> None:
    given = noise(count, samples)
    found = buckets.run(given)
    assert found.shape == (count, DIM)
    np.testing.assert_allclose(found, session().run(None, {"waveform": given})[0], atol=1e-6)


def test_an_answer_stays_when_its_buffers_are_used_again(buckets: Buckets) -> None:
    first = buckets.run(noise(2))
    kept = first.copy()
    buckets.run(noise(2) * 0.5 + 0.1)
    np.testing.assert_array_equal(first, kept)


class Stuck:
    """A session whose bound runs replay the first input for ever, as a badly captured graph would."""

    def __init__(self) -> None:
        self.real = session()
        self.replayed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if not self.replayed:
            self.real.run_with_iobinding(binding, options)
            self.replayed = True


def test_a_graph_that_replays_its_first_input_is_refused_at_the_start() -> None:
    with pytest.raises(ProviderError, match="batches of 1 on CUDA give other vectors"):
        Buckets(Stuck(), WINDOW, device="cpu")  # type: ignore[arg-type]


def test_sizes_reach_the_batchers_largest_batch() -> None:
    batcher = Batcher(lambda windows: windows)
    assert SIZES[-1] == batcher._max_batch
    batcher.close()


def test_options_are_text_that_onnxruntime_takes() -> None:
    for options in (cuda_options(graphs=True), cuda_options(graphs=False), tensorrt_options()):
        assert all(isinstance(value, str) for value in options.values())
    assert cuda_options(graphs=True)["cudnn_conv_algo_search"] == "HEURISTIC"
    assert tensorrt_options()["trt_profile_max_shapes"] == "waveform:16x48000"


try:
    GPU: EmbeddingSession | None = EmbeddingSession(toy_network(), "toy", provider="cuda")
except ProviderError:
    GPU = None


@pytest.mark.skipif(GPU is None, reason="CUDA does not work on this machine")
@pytest.mark.parametrize("count", [1, 3, 16, 20])
def test_captured_batches_on_cuda_give_the_vectors_of_the_cpu(count: int) -> None:
    assert GPU is not None
    GPU.warm(WINDOW)
    assert GPU.provider == CUDA
    for turn in range(4):  # the first runs capture, the others replay
        given = noise(count) * (1.0 + turn)
        expected = session().run(None, {"waveform": given})[0]
        np.testing.assert_allclose(GPU.run(given), expected, atol=1e-3)
