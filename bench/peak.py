"""The fp32 multiply-accumulates a second that one core reaches: what a network's time is held against."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

_SIZES = (256, 384, 512, 768)  # bound by arithmetic, not by memory; small ones fit between interruptions
_ROUNDS = 30
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")


def core_peak() -> float:
    """Multiply-accumulates a second of square fp32 matrix products on one thread, the best of 120.

    In a process of its own: a BLAS library takes its number of threads when it is loaded.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "sayso.bench.peak"],
        env={**os.environ, **_ONE_THREAD},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(ran.stdout)


def _measure() -> float:
    rng, best = np.random.default_rng(0), 0.0
    for size in _SIZES:
        a = rng.standard_normal((size, size)).astype(np.float32)
        out = np.empty_like(a)
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            np.matmul(a, a, out=out)
            best = max(best, size**3 / (time.perf_counter() - started))
    return best


if __name__ == "__main__":
    print(_measure())
