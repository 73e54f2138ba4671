"""The fp32 multiply-accumulates a second that one core reaches: what a network's time is held against."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

_SIZE = 768  # three matrices of 2.4 MB: the product is bound by arithmetic, not by memory
_ROUNDS = 20
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")


def core_peak() -> float:
    """Multiply-accumulates a second of a square fp32 matrix product on one thread, the best of 20.

    In a process of its own: a BLAS library takes its number of threads when it is loaded.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "bench.peak"],
        env={**os.environ, **_ONE_THREAD},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(ran.stdout)


def _measure() -> float:
    a = np.random.default_rng(0).standard_normal((_SIZE, _SIZE)).astype(np.float32)
    out = np.empty_like(a)
    best = np.inf
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        np.matmul(a, a, out=out)
        best = min(best, time.perf_counter() - started)
    return _SIZE**3 / best


if __name__ == "__main__":
    print(_measure())
