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

from sayso.bench import costs
from sayso.bench.costs import Costs
from sayso.bench.path import wav
from sayso.bench.server import ServerProcess
from sayso.bench.timing import Spread
from sayso.enroll.vectors import score
from sayso.runtime.audio import SAMPLE_RATE, decode
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import RuntimeFault
from sayso.runtime.session import Provider
from sayso.runtime.speech import SpeechDetector
from sayso.service.settings import only_models

SECONDS = 3.0
RISING = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.2)  # of the bare loop's rate: the most served is the saturation
HIGH, OVER = 0.8, 2.0  # of the saturation
# What the service is held to: saturation over the bare loop, and p99 at OVER over p99 at HIGH.
LEAST_OF_BARE, MOST_P99 = 0.9, 3.0
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

    @property
    def refused(self) -> float:
        """Share of the calls that were not served."""
        return round(1.0 - self.served / self.sent, 3) if self.sent else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "refused": self.refused}


@dataclass(frozen=True)
class Load:
    """`bare` is recordings a second of decode, speech, embedding and score in a loop on the same cores.

    `rising` are steps at shares of it, `high` and `over` at 80 % and twice the saturation found.
    Each rate was kept up for `seconds`, by callers who called once in `period_s`. `costs` are those of one
    call alone.
    """

    model: str
    server_cores: int
    bare: float
    rising: list[Step]
    high: Step
    over: Step
    costs: Costs
    seconds: float
    period_s: float

    @property
    def saturation(self) -> float:
        """The most calls served a second."""
        return max(step.served for step in self.rising)

    @property
    def of_bare(self) -> float:
        return round(self.saturation / self.bare, 3)

    @property
    def p99_over_high(self) -> float:
        return round(self.over.time.p99 / self.high.time.p99, 2)

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "server_cores": self.server_cores,
            "bare": self.bare,
            "saturation": self.saturation,
            "saturation_over_bare": self.of_bare,
            "p99_over_high": self.p99_over_high,
            "rising": [step.to_dict() for step in self.rising],
            "high": self.high.to_dict(),
            "over": self.over.to_dict(),
            "costs": asdict(self.costs),
            "seconds": self.seconds,
            "period_s": self.period_s,
        }


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
    total = len(RISING) + 3

    def bare() -> float:
        os.sched_setaffinity(0, its)
        try:
            return _bare(path, provider, data, len(its))
        finally:
            os.sched_setaffinity(0, cores)

    loops = [bare()]
    rising: list[Step] = []
    settings = {"SAYSO_MODELS": json.dumps(only_models({model: path})), "SAYSO_PROVIDER": provider}
    settings["SAYSO_MAX_CONNECTIONS"] = "0"  # each caller has one, and fast models need many callers
    with ServerProcess(cores=its, **settings) as server:
        server.enroll(_SPEAKER, [wav(15.0, SAMPLE_RATE, take=1)])
        os.sched_setaffinity(0, mine)
        takes = (wav(SECONDS, SAMPLE_RATE, take=2 + i) for i in range(_CALLS))
        calls, cpu = costs.of_calls(server, f"/v1/speakers/{_SPEAKER}/verify", takes)
        os.sched_setaffinity(0, cores)
        for number, share in enumerate((RISING[0], *RISING)):  # the first is the warm-up
            step = _arrivals(server, data, share * loops[0], seconds, mine)
            rising += [step] if number else []
            progress(number + 1, total)
        saturation = max(step.served for step in rising)
        high, over = (_arrivals(server, data, share * saturation, seconds, mine) for share in (HIGH, OVER))
    loops.append(bare())  # before and after, so that a machine that slows down does not flatter either
    progress(total, total)
    prepare, batches = costs.of_parts(its, path, provider, data)
    spent = Costs(calls, cpu, prepare, batches, len(data))
    bare_rate = round(float(np.mean(loops)), 2)
    return Load(model, len(its), bare_rate, rising, high, over, spent, seconds, _PERIOD_S)


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
    lines = [
        f"{load.model}, verify, {SECONDS:g} s recordings; server on {load.server_cores} core(s), callers on "
        "others",
        f"one call alone: {load.costs.cpu_ms:.1f} ms of CPU time, a median of "
        f"{np.median([call.http_ms for call in load.costs.calls]):.1f} ms for its caller",
        "",
        "| arrivals/s | of saturation | sent/s | served/s | refused | statuses | p50 ms | p95 | p99 | MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for s in (*load.rising, load.high, load.over):
        statuses = ", ".join(f"{status}: {count}" for status, count in s.statuses.items())
        cells = [f"{s.rate:.1f}", f"{s.rate / load.saturation:.0%}", f"{s.sent:.1f}", f"{s.served:.1f}"]
        cells += [f"{s.refused:.0%}", statuses, *(f"{ms:.1f}" for ms in (s.time.p50, s.time.p95, s.time.p99))]
        lines.append(f"| {' | '.join(cells)} | {s.resident_bytes / 2**20:.0f} |")
    others = set(load.over.statuses) - {200, 429}
    return "\n".join(
        [
            *lines,
            "",
            f"bare loop {load.bare:.1f} recordings/s, server at most {load.saturation:.1f}: "
            f"{load.of_bare:.0%} of it (wanted: {LEAST_OF_BARE:.0%} or more)",
            f"at {OVER:g}x the saturation: answers "
            + (f"also {', '.join(map(str, sorted(others)))}" if others else "200 and 429 only")
            + f"; p99 {load.p99_over_high:.2f}x that at {HIGH:.0%} (wanted: {MOST_P99:g}x or less)",
        ]
    )
