"""Memory that a model takes, in a process of its own: the peak beyond what was there before it was loaded."""

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
    """Megabytes at the peak of loading the model and running it on the CPU, by batch of 3 s windows."""
    found = {}
    for batch in BATCHES:
        command = [sys.executable, "-m", "sayso.bench.memory", str(model), str(threads), str(batch)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        found[batch] = float(ran.stdout)
    return found


def _peak() -> float:
    """Megabytes of this process's peak so far."""
    try:  # getrusage would tell the peak of the process that started this one, where that is higher
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except OSError:
        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
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
