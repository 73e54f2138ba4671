"""What one verify call costs: inputs of `sayso.bench.queueing`, measured beside the load to explain."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sayso.bench.server import ServerProcess
from sayso.bench.timing import interleave
from sayso.runtime import windows
from sayso.runtime.audio import decode
from sayso.runtime.card import read_card
from sayso.runtime.session import EmbeddingSession, Provider
from sayso.runtime.speech import SpeechDetector

BATCHES = (1, 2, 4, 8, 16)
_WARM_UP = 10


@dataclass(frozen=True)
class Batch:
    """One run of the model on `windows` windows: medians of the time passed and of all threads' CPU time."""

    windows: int
    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True)
class Call:
    """One verify call alone on the server: decode and speech, embed, search, and what the caller waited."""

    prepare_ms: float
    embed_ms: float
    search_ms: float
    http_ms: float


@dataclass(frozen=True)
class Costs:
    """`cpu_ms` is the server's CPU time for a call, the mean of all calls; `body_bytes` one recording's.

    `prepare_cpu_ms` is the CPU time of decoding and speech detection in a process of their own.
    """

    calls: list[Call]
    cpu_ms: float
    prepare_cpu_ms: float
    batches: list[Batch]
    body_bytes: int

    @classmethod
    def read(cls, facts: dict[str, Any]) -> Costs:
        """From what `to_dict` of a `Load` wrote."""
        calls, batches = [Call(**c) for c in facts["calls"]], [Batch(**b) for b in facts["batches"]]
        return cls(calls, facts["cpu_ms"], facts["prepare_cpu_ms"], batches, facts["body_bytes"])

    @property
    def busy(self) -> float:
        """How long the stages took over the CPU time they had: about 1, more where others use the cores."""
        inside = [c.prepare_ms + c.embed_ms for c in self.calls]
        return float(np.mean(inside)) / (self.prepare_cpu_ms + self.batches[0].wall_ms)


def of_calls(server: ServerProcess, path: str, takes: Iterable[bytes]) -> tuple[list[Call], float]:
    """Verify calls one after the other, and the server's CPU milliseconds for each in the mean."""
    calls: list[Call] = []
    cpu = 0.0
    with server.connection() as caller:
        for number, data in enumerate(takes):
            if number == _WARM_UP:
                calls, cpu = [], server.cpu_s
            started = time.perf_counter()
            stages = caller.expect("POST", path, data)["timings_ms"]
            waited = (time.perf_counter() - started) * 1000.0
            prepare = stages["decode"] + stages["speech"]
            measured = (prepare, stages["embed"], stages["search"], waited)
            calls.append(Call(*(round(ms, 3) for ms in measured)))
    return calls, round((server.cpu_s - cpu) * 1000.0 / len(calls), 3)


def of_parts(
    cores: Iterable[int], path: Path, provider: Provider, data: bytes, rounds: int = 30
) -> tuple[float, list[Batch]]:
    """CPU milliseconds of hearing this recording, and the model on 1 to 16 windows of its speech, in turns.

    On these cores, with as many threads as the service takes on them.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        return _of_parts(path, provider, data, rounds)
    finally:
        os.sched_setaffinity(0, before)


def _of_parts(path: Path, provider: Provider, data: bytes, rounds: int) -> tuple[float, list[Batch]]:
    content, detector = path.read_bytes(), SpeechDetector()
    session = EmbeddingSession(content, path.name, provider, 0)
    whole = read_card(content, path.name).window_samples
    session.warm(whole, EmbeddingSession(content, path.name, "cpu", 1).run)
    window = windows.cut(detector.detect(decode(data, 60.0))[1], whole)[:1]
    spent: dict[int, list[float]] = {size: [] for size in (0, *BATCHES)}

    def run(size: int) -> None:
        started = time.process_time()
        if size:
            session.run(np.repeat(window, size, axis=0))
        else:
            detector.detect(decode(data, 60.0))
        spent[size].append((time.process_time() - started) * 1000.0)

    walls = interleave({size: partial(run, size) for size in spent}, rounds)
    wall = {size: round(float(np.median(times)), 3) for size, times in walls.items()}
    cpu = {size: round(float(np.median(times)), 3) for size, times in spent.items()}
    return cpu[0], [Batch(size, wall[size], cpu[size]) for size in BATCHES]
