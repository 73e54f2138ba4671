"""Batches padded to a few sizes give what plain runs give. On a CPU the same calls run without graphs."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnxruntime as ort
import pytest
from runtime_samples import DIM, toy_network

from sayso.runtime.batcher import Batcher
from sayso.runtime.buckets import SIZES, Buckets
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import ProviderError
from sayso.runtime.session import CPU, CUDA, EmbeddingSession, Provider, cuda_options, tensorrt_options
from sayso.runtime.synthesis import synthetic_voice

WEIGHTS = Path("runtime/weights")
WINDOW = 4_000


def session() -> ort.InferenceSession:
    return ort.InferenceSession(toy_network(), providers=[CPU])


def noise(count: int, samples: int = WINDOW) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, samples)).astype(np.float32)


def plainly(given: np.ndarray) -> np.ndarray:
    return np.asarray(session().run(None, {"waveform": given})[0])


@pytest.fixture(scope="module")
def buckets() -> Buckets:
    return Buckets(session(), WINDOW, plainly, device="cpu")


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16])
def test_a_padded_batch_gives_what_a_plain_one_does(buckets: Buckets, count: int) -> None:
    found = buckets.run(noise(count))
    assert found.shape == (count, DIM)
    np.testing.assert_allclose(found, plainly(noise(count)), atol=1e-6)


def test_nothing_but_whole_windows_runs(buckets: Buckets) -> None:
    """A run of another shape would move what the graphs hold on to: decision 28."""
    with pytest.raises(ValueError, match="3500 samples where 4000 were captured"):
        buckets.run(noise(1, WINDOW - 500))


def test_an_answer_stays_when_its_buffers_are_used_again(buckets: Buckets) -> None:
    first = buckets.run(noise(2))
    kept = first.copy()
    buckets.run(noise(2) * 0.5 + 0.1)
    np.testing.assert_array_equal(first, kept)


class Stuck:
    """A session whose bound runs replay the first input for ever, as a badly captured graph would."""

    def __init__(self) -> None:
        self.real = session()
        self.captured: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        if id(binding) not in self.captured:
            self.real.run_with_iobinding(binding, options)
            self.captured.add(id(binding))


def test_a_graph_that_replays_its_first_input_is_refused_at_the_start() -> None:
    with pytest.raises(ProviderError, match="batches of 1 on CUDA give wrong vectors"):
        Buckets(Stuck(), WINDOW, plainly, device="cpu")  # type: ignore[arg-type]


def test_sizes_reach_the_batchers_largest_batch() -> None:
    batcher = Batcher(lambda windows: windows)
    assert SIZES[-1] == batcher._max_batch
    batcher.close()


def test_options_are_text_that_onnxruntime_takes() -> None:
    for options in (cuda_options(graphs=True), cuda_options(graphs=False), tensorrt_options()):
        assert all(isinstance(value, str) for value in options.values())
    assert cuda_options(graphs=True)["cudnn_conv_algo_search"] == "HEURISTIC"
    assert cuda_options(graphs=False)["use_tf32"] == "0"  # scores on a GPU are the CPU's
    assert tensorrt_options()["trt_profile_max_shapes"] == "waveform:16x48000"
    assert tensorrt_options(32_000)["trt_profile_min_shapes"] == "waveform:1x32000"


class OnCpu(EmbeddingSession):
    """A session for CUDA as far as a machine without a GPU can have one: its batches run on the CPU."""

    shapes: ClassVar[list[tuple[int, ...]]] = []

    def __init__(
        self, model: bytes, name: str, provider: Provider = "auto", threads: int = 0, window: int = 48_000
    ) -> None:
        super().__init__(model, name, "cpu", threads, window)
        if provider == "cuda":
            self.provider = CUDA

    def warm(self, window: int, expected: Callable[[np.ndarray], np.ndarray]) -> None:
        self._buckets = Buckets(self._session, window, expected, device="cpu")

    def run(self, waveforms: np.ndarray) -> np.ndarray:
        if self.provider == CUDA:
            self.shapes.append(waveforms.shape)
        return super().run(waveforms)


def test_whole_windows_are_for_the_gpu_and_shorter_ones_for_the_cpu(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeches = [synthetic_voice(seconds) for seconds in (1.7, 3.0, 2.2, 7.5, 2.9)]
    with Embedder(model_path, provider="cpu", threads=1) as plain:
        expected = [plain.embed(speech) for speech in speeches]
    monkeypatch.setattr("sayso.runtime.embedder.EmbeddingSession", OnCpu)
    with Embedder(model_path, provider="cuda") as embedder, ThreadPoolExecutor(5) as pool:
        assert embedder.provider == CUDA
        for _ in range(3):
            for found, wanted in zip(pool.map(embedder.embed, speeches), expected, strict=True):
                np.testing.assert_allclose(found.vector, wanted.vector, atol=1e-5)
                assert found.windows == wanted.windows
    assert {samples for _, samples in OnCpu.shapes} == {48_000}
    assert sum(count for count, _ in OnCpu.shapes) == 3 * (1 + 3)


try:
    GPU: EmbeddingSession | None = EmbeddingSession(toy_network(), "toy", provider="cuda")
except ProviderError:
    GPU = None


@pytest.fixture(scope="module")
def gpu() -> Iterator[Embedder]:
    with Embedder(WEIGHTS / "nested.onnx", provider="cuda") as opened:
        yield opened


@pytest.mark.skipif(GPU is None, reason="CUDA does not work on this machine")
@pytest.mark.parametrize("count", [1, 3, 16, 20])
def test_captured_batches_on_cuda_give_the_vectors_of_the_cpu(count: int) -> None:
    assert GPU is not None
    GPU.warm(WINDOW, plainly)
    assert GPU.provider == CUDA
    for turn in range(4):  # the first runs capture, the others replay
        given = noise(count) * (1.0 + turn)
        np.testing.assert_allclose(GPU.run(given), plainly(given), atol=1e-3)


@pytest.mark.skipif(GPU is None, reason="CUDA does not work on this machine")
def test_speech_of_any_length_at_once_on_cuda_gives_the_vectors_of_the_cpu(gpu: Embedder) -> None:
    """The shipped network, whose layers cuDNN plans anew for each shape: batches went wrong by that once."""
    speeches = [synthetic_voice(1.5 + 0.17 * i, 90 + 9 * i, seed=i) for i in range(40)]
    with Embedder(WEIGHTS / "nested.onnx", provider="cpu") as cpu, ThreadPoolExecutor(16) as pool:
        expected = [cpu.embed(speech).vector for speech in speeches]
        for _ in range(3):
            found = [embedding.vector for embedding in pool.map(gpu.embed, speeches)]
            assert min(float(a @ b) for a, b in zip(found, expected, strict=True)) > 0.999
