"""From a recording's bytes to a decision: each stage inside the server, and the call around it."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr

from sayso.bench.server import ServerProcess
from sayso.bench.timing import Spread
from sayso.runtime.audio import SAMPLE_RATE
from sayso.runtime.session import Provider
from sayso.runtime.synthesis import synthetic_voice
from sayso.service.settings import only_models

SOURCES = ((3.0, 16_000), (3.0, 48_000), (1.9, 16_000), (10.0, 16_000))
_WARM_UP = 5
_SPEAKER = "alice"


@dataclass
class Row:
    """Verify calls with one model on recordings of one length and rate, one at a time, milliseconds.

    `stages` are medians of what the server measured; `http` is what a caller on one kept-alive
    connection waited; `overhead` the median of that less the sum of its stages.
    """

    model: str
    seconds: float
    sample_rate: int
    stages: dict[str, float] = field(default_factory=dict)
    http: Spread = field(default_factory=lambda: Spread(0, 0, 0))
    overhead: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "seconds": self.seconds,
            "sample_rate": self.sample_rate,
            "stages": self.stages,
            "http": self.http.__dict__,
            "overhead": self.overhead,
        }


@dataclass(frozen=True)
class Served:
    """The rows, what the server took to be ready, and its memory before and after, in bytes."""

    rows: list[Row]
    ready_s: float
    resident_before: int
    resident_after: int

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "rows": [row.to_dict() for row in self.rows]}


def wav(seconds: float, rate: int, take: int = 0) -> bytes:
    """A 16-bit WAV file of a synthetic voice; takes differ in noise far below it, and count as others."""
    voice = synthetic_voice(seconds, pitch_hz=140)
    voice += 1e-4 * np.random.default_rng(take).standard_normal(len(voice), np.float32)
    buffer = io.BytesIO()
    sf.write(buffer, soxr.resample(voice, SAMPLE_RATE, rate), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def measure(
    models: Mapping[str, Path],
    provider: Provider,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Served:
    """Start a server and verify one speaker with every model, taking turns, models on one thread."""
    served = json.dumps(only_models(models))
    rows = {(m, *source): Row(m, *source) for source in SOURCES for m in models}
    stages: dict[tuple[str, float, int], list[dict[str, float]]] = {key: [] for key in rows}
    waited: dict[tuple[str, float, int], list[float]] = {key: [] for key in rows}
    with (
        ServerProcess(SAYSO_MODELS=served, SAYSO_PROVIDER=provider, SAYSO_THREADS="1") as server,
        server.connection() as caller,
    ):
        server.enroll(_SPEAKER, [wav(15.0, SAMPLE_RATE, take=1)])
        before, takes = server.resident_bytes, count(2)
        for turn in range(-_WARM_UP, rounds):
            for key, took in waited.items():
                # The first is not kept (as in `sayso.bench.timing`): it finds another model in the caches.
                for data in [wav(*key[1:], take=next(takes)) for _ in range(2)]:  # each is accepted once
                    started = time.perf_counter()
                    answer = caller.expect("POST", f"/v1/speakers/{_SPEAKER}/verify?model={key[0]}", data)
                if turn >= 0:
                    took.append((time.perf_counter() - started) * 1000.0)
                    stages[key].append(answer["timings_ms"])
            progress(max(0, turn + 1), rounds)
        after = server.resident_bytes
        ready = server.ready_s
    for key, row in rows.items():
        names = list(stages[key][0])
        row.stages = {n: round(float(np.median([s[n] for s in stages[key]])), 3) for n in names}
        row.http = Spread.of(waited[key])
        inside = [sum(v for n, v in s.items() if n != "total") for s in stages[key]]
        row.overhead = round(float(np.median(np.array(waited[key]) - inside)), 3)
    return Served(list(rows.values()), round(ready, 2), before, after)


def table(served: Served) -> str:
    """The rows for people: medians in milliseconds."""
    names = list(served.rows[0].stages)
    lines = [
        f"Verify calls over HTTP, models on one thread; ready {served.ready_s:.1f} s after the start, memory "
        f"{served.resident_before / 2**20:.0f} MB before and {served.resident_after / 2**20:.0f} MB after",
        "",
        f"| model | recording | {' | '.join(names)} | HTTP p50 | p95 | p99 | beyond its stages |",
        "|---" * (len(names) + 6) + "|",
    ]
    for row in served.rows:
        times = [*(row.stages[name] for name in names), row.http.p50, row.http.p95, row.http.p99]
        cells = " | ".join(f"{ms:.2f}" for ms in (*times, row.overhead))
        lines.append(f"| {row.model} | {row.seconds:g} s at {row.sample_rate / 1000:g} kHz | {cells} |")
    return "\n".join(lines)
