"""Batches on CUDA: in few sizes, each with buffers of its own on the device and a captured CUDA graph.

A graph replays all kernels of a pass with one launch, into the addresses that it was captured with. So a
batch is padded to the next size with silence, copied into that size's buffers, and what the silence gives is
dropped. See "CUDA graphs" in ONNX Runtime's documentation of its CUDA provider; a graph belongs to the thread
that captured it. Every size is checked at the start. docs/decisions/0028 has why a session that captured does
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from sayso.runtime.audio import SAMPLE_RATE, Samples
from sayso.runtime.errors import ProviderError
from sayso.runtime.synthesis import synthetic_voice

SIZES = (1, 2, 4, 8, 16)
_CAPTURING_RUNS = 3  # the first ones allocate and capture, later ones replay
_LEAST_COSINE = 0.9999


def run_options(graph: int) -> ort.RunOptions:
    """Options of a run that captures or replays the CUDA graph of this number, -1 for none; 0 is reserved."""
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


@dataclass(frozen=True)
class _Bound:
    """One size: its input `[size, window]` on the host and on the device, and what runs it."""

    host: Samples
    device: Any
    binding: Any
    options: Any


class Buckets:
    """Runs `[n, window]`, n at most 16, on a session of the CUDA or TensorRT provider.

    The session is for this alone: a run of any other shape in between moves what the graphs hold on to, and
    later answers are wrong. Only for the thread that made it. `expected` gives what it should give: raises
    `ProviderError` when a size does not.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        window: int,
        expected: Callable[[Samples], NDArray[np.float32]],
        device: str = "cuda",
    ) -> None:
        self._session, self._window = session, window
        dim = expected(np.zeros((1, window), np.float32)).shape[1]
        self._sizes = {size: self._bind(size, dim, device) for size in SIZES}
        for turn in range(_CAPTURING_RUNS):  # a size once more after all others
            voices = _voices(window, turn)
            vectors = np.concatenate([expected(voices[i : i + 1]) for i in range(len(voices))])
            for size in SIZES:
                self._check(voices[:size], vectors[:size])

    def run(self, waveforms: Samples) -> NDArray[np.float32]:
        """Embed `[n, window]`; the answer is the caller's own."""
        count, samples = waveforms.shape
        if samples != self._window:
            raise ValueError(f"windows of {samples} samples where {self._window} were captured")
        size = next(size for size in SIZES if size >= count)
        bound = self._sizes[size]
        bound.host[:count], bound.host[count:] = waveforms, 0.0
        bound.device.update_inplace(bound.host)
        self._session.run_with_iobinding(bound.binding, bound.options)
        vectors: NDArray[np.float32] = bound.binding.copy_outputs_to_cpu()[0]
        return vectors[:count].copy()

    def _bind(self, size: int, dim: int, device: str) -> _Bound:
        shape = (size, self._window)
        given = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, device, 0)
        made = ort.OrtValue.ortvalue_from_shape_and_type((size, dim), np.float32, device, 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("waveform", given)
        binding.bind_ortvalue_output("embedding", made)
        return _Bound(np.zeros(shape, np.float32), given, binding, run_options(size))

    def _check(self, windows: Samples, expected: NDArray[np.float32]) -> None:
        vectors = self.run(windows)
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(expected, axis=1)
        cosine = float(((vectors * expected).sum(axis=1) / lengths).min())
        if not cosine >= _LEAST_COSINE:  # NaN too
            raise ProviderError(
                f"batches of {len(windows)} on CUDA give wrong vectors (cosine {cosine:.4f}): "
                "set SAYSO_PROVIDER=cpu and report it"
            )


def _voices(window: int, turn: int) -> Samples:
    """Voices `[16, window]`, new ones at each turn, so that a graph that keeps its first input shows."""
    voice = np.resize(synthetic_voice(window / SAMPLE_RATE, pitch_hz=90.0 + 60.0 * turn, seed=turn), window)
    return np.stack([np.roll(voice, row * window // SIZES[-1]) for row in range(SIZES[-1])])
