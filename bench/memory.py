"""Measures the memory that a model takes on the CPU, in a fresh process for each batch size.

The figure is the process's peak after a few runs, less its peak just before the model was loaded.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from sayso.runtime.audio import SAMPLE_RATE
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice

BATCHES = (1, 32)
_WINDOW_S, _RUNS = 3.0, 3


def peak_mb(model: Path, threads: int = 1) -> dict[int, float]:
    """Return the memory in MiB that loading and running the model adds, by batch size, on windows of 3 s."""
    peaks = {}
    for batch in BATCHES:
        command = [sys.executable, "-m", "sayso.bench.memory", str(model), str(threads), str(batch)]
        measured = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        peaks[batch] = float(measured.stdout)
    return peaks


def _peak() -> float:
    """Return this process's peak resident memory so far, in MiB."""
    try:  # not getrusage: on Linux it inherits the parent's peak, which may be higher
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except OSError:
        unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, other systems KiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _measure(model: Path, threads: int, batch: int) -> float:
    windows = np.tile(synthetic_voice(_WINDOW_S)[: round(_WINDOW_S * SAMPLE_RATE)], (batch, 1))
    content = model.read_bytes()
    before = _peak()
    session = EmbeddingSession(content, model.name, "cpu", threads)
    for _ in range(_RUNS):
        session.run(windows)
    return _peak() - before


if __name__ == "__main__":
    print(round(_measure(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])), 1))
