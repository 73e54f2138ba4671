"""A session runs where it was told to, or says why it cannot."""

import math
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from runtime_samples import DIM, toy_network

from sayso.runtime import session
from sayso.runtime.errors import ModelError, ProviderError
from sayso.runtime.session import CPU, CUDA, EmbeddingSession, available_cores

try:
    EmbeddingSession(toy_network(), "toy", provider="cuda")
    HAS_CUDA = True
except ProviderError:
    HAS_CUDA = False


def noise(batch: int, samples: int = 4_000) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, samples)).astype(np.float32)


def test_cpu_runs_any_batch_and_length() -> None:
    session = EmbeddingSession(toy_network(), "toy", provider="cpu", threads=1)
    assert session.provider == CPU
    for batch, samples in ((1, 400), (3, 4_000), (8, 48_000)):
        vectors = session.run(noise(batch, samples))
        assert vectors.shape == (batch, DIM)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_threads_do_not_change_the_vectors() -> None:
    one, two = (EmbeddingSession(toy_network(), "toy", "cpu", threads=n) for n in (1, 2))
    np.testing.assert_allclose(one.run(noise(4)), two.run(noise(4)), atol=1e-6)


@pytest.mark.skipif(HAS_CUDA, reason="CUDA works on this machine")
def test_cuda_is_refused_loudly_where_there_is_none() -> None:
    with pytest.raises(ProviderError, match="CUDA was asked for"):
        EmbeddingSession(toy_network(), "toy", provider="cuda")
    assert EmbeddingSession(toy_network(), "toy", provider="auto").provider == CPU


@pytest.mark.skipif(not HAS_CUDA, reason="CUDA does not work on this machine")
def test_cuda_gives_the_vectors_of_the_cpu() -> None:
    cuda, cpu = (EmbeddingSession(toy_network(), "toy", provider=p) for p in ("cuda", "cpu"))
    assert cuda.provider == EmbeddingSession(toy_network(), "toy", provider="auto").provider == CUDA
    np.testing.assert_allclose(cuda.run(noise(4)), cpu.run(noise(4)), atol=1e-3)


def test_cuda_is_refused_where_onnxruntime_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CPU])
    with pytest.raises(ProviderError, match="install onnxruntime-gpu"):
        EmbeddingSession(toy_network(), "toy", provider="cuda")


@pytest.mark.parametrize(
    "model",
    [toy_network(inputs="audio"), toy_network(outputs="vector"), toy_network(rank=1)],
    ids=["another input", "another output", "another rank"],
)
def test_another_graph_is_refused(model: bytes) -> None:
    with pytest.raises(ModelError, match=r"other\.onnx"):
        EmbeddingSession(model, "other.onnx", provider="cpu")


@pytest.mark.parametrize("model", [b"", b"no model", toy_network()[:200]])
def test_what_is_no_model_is_refused(model: bytes) -> None:
    with pytest.raises(ModelError, match=r"bad\.onnx cannot be loaded"):
        EmbeddingSession(model, "bad.onnx", provider="cpu")


def test_a_session_leaves_the_process_its_arithmetic() -> None:
    """A session that flushes denormals to zero does so in every thread started after it, too."""
    EmbeddingSession(toy_network(), "toy", provider="cpu", threads=2)
    assert np.float64(5e-324) * np.float64(1.0) > 0.0


def test_there_is_a_core() -> None:
    assert available_cores() >= 1


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ({"cpu.max": "nonsense"}, math.inf),
        ({}, math.inf),
    ],
)
def test_a_containers_cpu_limit_counts(
    files: dict[str, str], limit: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert session._cpu_limit(tmp_path) == limit
    monkeypatch.setattr(session, "Path", lambda _: tmp_path)
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    else:
        monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert available_cores() == (64 if limit == math.inf else math.ceil(limit))
