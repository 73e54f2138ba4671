"""Latency of decode, net speech and embedding, for several models interleaved on the same recordings."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from runtime.audio import SAMPLE_RATE, decode
from runtime.embedder import Embedder
from runtime.session import Provider
from runtime.speech import SpeechDetector
from runtime.synthesis import synthetic_voice
from service.metrics import STUDY_SECONDS

SECONDS = (1.0, 3.0, 10.0)
_WARM_UP = 3


@dataclass(frozen=True)
class Row:
    """One stage on recordings of one length; milliseconds. `model` is empty for shared stages."""

    stage: str
    model: str
    provider: str
    seconds: float
    p50: float
    p95: float
    p99: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    models: Mapping[str, Path],
    provider: Provider,
    threads: int,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Row]:
    """Time every stage `rounds` times, taking turns, after a warm-up. `embed` covers the recording
    itself, so that every model works on the same samples whatever the detector finds.
    """
    detector = SpeechDetector()
    taken: dict[tuple[str, str, str, float], list[float]] = {}
    with ExitStack() as stack:
        loaded = {
            name: stack.enter_context(Embedder(path, provider, threads)) for name, path in models.items()
        }
        for turn in range(-_WARM_UP, rounds):
            for seconds in SECONDS:
                data = _wav(seconds)
                started = time.perf_counter()
                recording = decode(data, seconds + 1)
                decoded = time.perf_counter()
                detector.detect(recording)
                times = {
                    ("decode", "", "CPU"): decoded - started,
                    ("speech", "", "CPU"): time.perf_counter() - decoded,
                }
                for name, embedder in loaded.items():
                    started = time.perf_counter()
                    embedder.embed(recording.samples)
                    times["embed", name, embedder.provider] = time.perf_counter() - started
                if turn >= 0:
                    for key, value in times.items():
                        taken.setdefault((*key, seconds), []).append(value * 1000)
            progress(max(0, turn + 1), rounds)
    return [
        Row(*key, *(round(float(q), 3) for q in np.percentile(values, (50, 95, 99))))
        for key, values in sorted(taken.items())
    ]


def table(rows: list[Row]) -> str:
    """The rows for people, with the study's figures beneath."""
    lines = [f"{'stage':<8}{'model':<12}{'audio':>7}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}  provider"]
    lines += [
        f"{r.stage:<8}{r.model:<12}{r.seconds:>5g} s{r.p50:>10.2f}{r.p95:>10.2f}{r.p99:>10.2f}  {r.provider}"
        for r in rows
    ]
    study = ", ".join(f"{name} {seconds * 1000:g} ms" for name, seconds in STUDY_SECONDS.items())
    return "\n".join([*lines, f"The study's forward pass on 3 s: {study}."])


def _wav(seconds: float) -> bytes:
    buffer = io.BytesIO()
    sf.write(buffer, synthetic_voice(seconds), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
