"""How much a server takes: verify calls arriving at rising rates, beside the same work in a bare loop."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import costs
from bench.costs import Costs
from bench.path import wav
from bench.server import ServerProcess
from bench.timing import Spread
from enroll.decision import score
from runtime.audio import SAMPLE_RATE, decode
from runtime.embedder import Embedder
from runtime.errors import RuntimeFault
from runtime.session import Provider
from runtime.speech import SpeechDetector

SECONDS = 3.0
SHARES = (0.2, 0.5, 0.8, 1.0, 1.5, 2.0)
_SPEAKER = "alice"
_BARE_S = 5.0
_CALLS = 210
_PERIOD_S = 4.0  # longer than any answer takes


class LoadFailed(RuntimeFault):
    """The load could not be made."""


@dataclass(frozen=True)
class Step:
    """Calls arriving at `rate` a second: what came back of them. `time` is of those served, milliseconds."""

    rate: float
    sent: float
    served: float
    statuses: dict[int, int]
    time: Spread
    resident_bytes: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Load:
    """`bare` is recordings a second of decode, speech, embedding and score in a loop on the same cores.

    Each rate was kept up for `seconds`, by callers who called once in `period_s`.
    """

    model: str
    server_cores: int
    bare: float
    steps: list[Step]
    costs: Costs
    seconds: float = 0.0
    period_s: float = _PERIOD_S

    def to_dict(self) -> dict[str, Any]:
        best = max(step.served for step in self.steps)
        return {**asdict(self), "saturation": best, "saturation_over_bare": round(best / self.bare, 3)}


def measure(
    model: str,
    path: Path,
    provider: Provider,
    seconds: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Load:
    """`seconds` at each rate. Server and bare loop have half of the cores, the callers the other half."""
    if importlib.util.find_spec("locust") is None:
        raise LoadFailed("the callers are Locust: install Sayso with pip install '.[bench]'")
    cores = sorted(os.sched_getaffinity(0))
    mine, its = cores[: len(cores) // 2] or cores, cores[len(cores) // 2 :]
    data = wav(SECONDS, SAMPLE_RATE)
    os.sched_setaffinity(0, its)
    try:
        bare = _bare(path, provider, data, len(its))
    finally:
        os.sched_setaffinity(0, cores)
    steps = []
    settings = {"SAYSO_MODELS": json.dumps({model: str(path.resolve())}), "SAYSO_PROVIDER": provider}
    with ServerProcess(cores=its, **settings) as server:
        server.enroll(_SPEAKER, [wav(15.0, SAMPLE_RATE, take=1)])
        os.sched_setaffinity(0, mine)
        takes = (wav(SECONDS, SAMPLE_RATE, take=2 + i) for i in range(_CALLS))
        calls, cpu = costs.of_calls(server, f"/v1/speakers/{_SPEAKER}/verify", takes)
        os.sched_setaffinity(0, cores)
        for number, share in enumerate((SHARES[0], *SHARES)):  # the first is the warm-up
            step = _arrivals(server, data, share * bare, seconds, mine)
            steps += [step] if number else []
            progress(number + 1, len(SHARES) + 1)
    prepare, batches = costs.of_parts(its, path, provider, data)
    spent = Costs(calls, cpu, prepare, batches, len(data))
    return Load(model, len(its), round(bare, 2), steps, spent, seconds, _PERIOD_S)


def _bare(path: Path, provider: Provider, data: bytes, workers: int) -> float:
    """Recordings a second without a server: one worker a core, sharing one embedder as the service does."""
    detector, done = SpeechDetector(), [0] * workers
    with Embedder(path, provider, 1) as embedder:

        def loop(number: int, until: float) -> None:
            template = embedder.embed(detector.detect(decode(data, 10.0))[1]).vector
            while time.perf_counter() < until:
                score(embedder.embed(detector.detect(decode(data, 10.0))[1]).vector, template)
                done[number] += 1

        for length in (_BARE_S / 5, _BARE_S):  # the first is the warm-up
            done[:] = [0] * workers
            started = time.perf_counter()
            threads = [threading.Thread(target=loop, args=(i, started + length)) for i in range(workers)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            rate = sum(done) / (time.perf_counter() - started)
    return rate


def _arrivals(server: ServerProcess, data: bytes, rate: float, seconds: float, cores: list[int]) -> Step:
    with tempfile.TemporaryDirectory(prefix="sayso-load-") as folder:
        recording, out = Path(folder) / "verify.wav", Path(folder) / "answers.json"
        recording.write_bytes(data)
        users = max(1, round(rate * _PERIOD_S))
        environment = {
            "BENCH_RECORDING": str(recording),
            "BENCH_PATH": f"/v1/speakers/{_SPEAKER}/verify",
            "BENCH_KEY": server.key,
            "BENCH_PERIOD": str(_PERIOD_S),
            "BENCH_OUT": str(out),
        }
        command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "--loglevel", "ERROR"]
        command += ["-f", str(Path(__file__).with_name("locustfile.py"))]
        command += ["--host", f"http://127.0.0.1:{server.port}", "--users", str(users)]
        command += ["--spawn-rate", str(users), "--run-time", f"{seconds + _PERIOD_S + 1:g}s"]
        ran = subprocess.run(  # noqa: S603
            command,
            env={**os.environ, **environment},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
            capture_output=True,
            text=True,
        )
        if not out.exists():
            raise LoadFailed(f"Locust failed: {ran.stderr.strip()[-500:]}")
        answers = json.loads(out.read_text())
    first = min(sent for sent, _, _ in answers)
    # Without the period in which the callers start, and the last second, in which they stop.
    kept = [(ms, status) for sent, ms, status in answers if 0.0 <= sent - first - _PERIOD_S < seconds]
    served = [ms for ms, status in kept if status == 200]
    return Step(
        round(rate, 2),
        round(len(kept) / seconds, 2),
        round(len(served) / seconds, 2),
        dict(sorted(Counter(status for _, status in kept).items())),
        Spread.of(served) if served else Spread(np.nan, np.nan, np.nan),
        server.resident_bytes,
    )


def table(load: Load) -> str:
    facts = load.to_dict()
    lines = [
        f"{load.model}, verify, {SECONDS:g} s recordings; server on {load.server_cores} core(s), callers on "
        "others",
        f"bare loop: {load.bare:.1f} recordings/s; the server at most {facts['saturation']:.1f}, "
        f"{facts['saturation_over_bare']:.0%} of it",
        f"one call alone: {load.costs.cpu_ms:.1f} ms of CPU time, a median of "
        f"{np.median([call.http_ms for call in load.costs.calls]):.1f} ms for its caller",
        "",
        "| arrivals/s | sent/s | served/s | statuses | p50 ms | p95 | p99 | memory MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in load.steps:
        statuses = ", ".join(f"{status}: {count}" for status, count in s.statuses.items())
        cells = [f"{s.rate:.1f}", f"{s.sent:.1f}", f"{s.served:.1f}", statuses]
        cells += [f"{ms:.1f}" for ms in (s.time.p50, s.time.p95, s.time.p99)]
        lines.append(f"| {' | '.join(cells)} | {s.resident_bytes / 2**20:.0f} |")
    return "\n".join(lines)
