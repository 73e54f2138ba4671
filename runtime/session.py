"""One ONNX Runtime session on a provider that was chosen and checked, never assumed."""

from __future__ import annotations

import ctypes
import importlib
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sayso.runtime.audio import Samples
from sayso.runtime.buckets import SIZES, Buckets, run_options
from sayso.runtime.errors import ModelError, ProviderError
from sayso.runtime.model_file import check_self_contained

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
_WINDOW = 48_000  # samples, where a network states none
_ERRORS_ONLY, _FATAL_ONLY = 3, 4


def available_cores() -> int:
    """Cores this process may use: its affinity (taskset, cpusets), narrowed by its cgroup's CPU limit.

    A container with `--cpus=2` on a machine of 64 cores sees all 64: as many threads would be stopped most of
    the time, each with others waiting for it. (loky counts the same way, and brings a process pool along.)
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cpu_limit(Path("/sys/fs/cgroup")))))


def _cpu_limit(cgroup: Path) -> float:
    """CPU time per time that a cgroup allows, version 2 or 1; infinite where it sets no limit."""
    for names in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            quota, period = " ".join((cgroup / name).read_text() for name in names).split()
            if quota not in ("max", "-1"):
                return int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return math.inf


def session_options(threads: int, severity: int = _ERRORS_ONLY) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = severity
    # Several models and the decoder share the cores: a spinning pool would starve them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


class EmbeddingSession:
    """`[batch, samples]` float32 waveforms to `[batch, dim]` float32 embeddings.

    `provider` "cuda" or "tensorrt" fails loudly when it cannot be used; "auto" takes CUDA where it works and
    the CPU elsewhere. `threads` 0 uses every core available. Raises `ModelError` or `ProviderError`.
    """

    def __init__(
        self, model: bytes, name: str, provider: Provider = "auto", threads: int = 0, window: int = _WINDOW
    ) -> None:
        self._session = open_session(model, name, provider, threads or available_cores(), window)
        self.provider: str = self._session.get_providers()[0]
        self._uncaptured = None if self.provider == CPU else run_options(-1)
        self._buckets: Buckets | None = None
        inputs = [(i.name, i.type, len(i.shape)) for i in self._session.get_inputs()]
        outputs = [o.name for o in self._session.get_outputs()]
        if inputs != [("waveform", "tensor(float)", 2)] or outputs != ["embedding"]:
            raise ModelError(
                f"{name} takes {inputs} and gives {outputs}; a Sayso model takes waveform [batch, samples] "
                "and gives embedding [batch, dim]"
            )

    def warm(self, window: int, expected: Callable[[Samples], NDArray[np.float32]]) -> None:
        """Capture batches of windows on a GPU, on the thread that is going to run them.

        From then on the session takes nothing but windows. Raises `ProviderError` when it does not give what
        is expected. A CPU needs no preparation.
        """
        if self.provider != CPU and self._buckets is None:
            self._buckets = Buckets(self._session, window, expected)

    def run(self, waveforms: Samples) -> NDArray[np.float32]:
        """Embed `[batch, samples]`."""
        if self._buckets is not None:
            parts = range(0, len(waveforms), SIZES[-1])
            return np.concatenate([self._buckets.run(waveforms[i : i + SIZES[-1]]) for i in parts])
        feed = {"waveform": waveforms}
        output: NDArray[np.float32] = self._session.run(["embedding"], feed, self._uncaptured)[0]
        return output


def open_session(
    model: bytes, name: str, provider: Provider, threads: int, window: int = _WINDOW
) -> ort.InferenceSession:
    """Any network that is one file, on the provider asked for. Raises `ModelError` or `ProviderError`.

    TensorRT prepares for windows of `window` samples.
    """
    try:
        check_self_contained(model)
    except ValueError as error:
        raise ModelError(f"{name} cannot be loaded: {error}") from error

    def opened(providers: list[object], severity: int = _ERRORS_ONLY) -> ort.InferenceSession:
        try:
            return ort.InferenceSession(model, session_options(threads, severity), providers=providers)
        except Exception as error:  # onnxruntime raises its own unexported classes
            raise ModelError(f"{name} cannot be loaded: {error}") from error

    if provider == "cpu" or (provider == "auto" and not cuda_driver_present()):
        return opened([CPU])
    asked, title = (TENSORRT, "TensorRT") if provider == "tensorrt" else (CUDA, "CUDA")
    if asked not in ort.get_available_providers():
        if provider == "auto":
            return opened([CPU])
        raise ProviderError(
            f"{title} was asked for, but this onnxruntime has no {title} provider: install onnxruntime-gpu"
        )
    ort.preload_dlls()
    if asked == TENSORRT:
        _preload_tensorrt()
        session = opened([(TENSORRT, tensorrt_options(window)), (CUDA, cuda_options(graphs=False)), CPU])
    else:
        severity = _ERRORS_ONLY if provider == "cuda" else _FATAL_ONLY
        try:
            session = opened([(CUDA, cuda_options(graphs=True)), CPU], severity)
        except ModelError:  # a graph that is not on the device as a whole cannot be captured
            session = opened([(CUDA, cuda_options(graphs=False)), CPU], severity)
    # A provider that is listed may still have fallen back with no more than a log line.
    if session.get_providers()[0] == asked:
        return session
    if provider == "auto":
        return opened([CPU])
    raise ProviderError(
        f"{title} was asked for, but {name} could not be placed on it: check the driver with "
        f"nvidia-smi and the libraries with pip install '.[cuda]'"
        f"{' tensorrt' if asked == TENSORRT else ''}, or set SAYSO_PROVIDER=cpu"
    )


def cuda_options(graphs: bool) -> dict[str, str]:
    """Options of the CUDA provider."""
    return {
        # Exhaustive search tries every algorithm at each new shape and costs up to a second there.
        "cudnn_conv_algo_search": "HEURISTIC",
        "enable_cuda_graph": "1" if graphs else "0",
        # TF32 saves 6 to 20 % and moves scores by up to 0.002: thresholds would mean something else.
        "use_tf32": "0",
    }


def tensorrt_options(window: int = _WINDOW) -> dict[str, str]:
    """Options of the TensorRT provider for windows of so many samples.

    Engines take minutes to build, so they are kept, and fit all batches.
    """
    shapes = {"min": 1, "opt": SIZES[-2], "max": SIZES[-1]}
    kept = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sayso" / "tensorrt"
    kept.mkdir(parents=True, exist_ok=True)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(kept),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(kept),
        "trt_fp16_enable": "0",  # half precision is for a model's export to choose, which tests what it costs
        **{f"trt_profile_{name}_shapes": f"waveform:{n}x{window}" for name, n in shapes.items()},
    }


def _preload_tensorrt() -> None:
    """Load TensorRT where its wheel put it, which is nowhere the loader looks, and without TF32."""
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # its provider has no option for that
    with suppress(ImportError, OSError):
        importlib.import_module("tensorrt")


def cuda_driver_present() -> bool:
    """Is there an NVIDIA driver, without which no CUDA provider works?"""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
