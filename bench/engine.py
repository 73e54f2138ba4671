"""What verify and identify take by the number of speakers, through the engine that the service runs.

    python -m sayso.bench.engine [--store postgresql://…] [--sizes 1 100000 1000000] [--rounds 100] [--json]

One speaker is enrolled with a recording, the others are templates written many at a time; all are one
tenant's. Each call is a recording of its own, so everything is in it but HTTP: decoding, the detector, the
network on one thread, the search, and each of the store's transactions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any

from sayso.bench.path import wav
from sayso.bench.stores import fill
from sayso.bench.timing import Spread
from sayso.bench.voices import Voices
from sayso.enroll.secrets.sealing import new_key
from sayso.runtime.audio import SAMPLE_RATE
from sayso.service.call import Call
from sayso.service.engine import Engine
from sayso.service.metrics import Metrics
from sayso.service.settings import SHIPPED, Settings, only_models

SIZES = (1, 100_000, 1_000_000)
_TENANT, _SPEAKER, _MODEL = "bench", "caller", "baseline"
_SECONDS = 3.0
_WARM_UP = 5
_AT_ONCE = 10_000


@dataclass(frozen=True)
class Row:
    """Calls in a tenant of so many speakers, in milliseconds; of `stages` the median."""

    call: str
    speakers: int
    total: Spread
    stages: dict[str, float]


@contextmanager
def _engine(folder: Path, store: str | None) -> Iterator[Engine]:
    values: dict[str, Any] = {
        "data_dir": folder,
        "store": store,
        "master_key": new_key().hex(),
        "models": only_models({_MODEL: SHIPPED[_MODEL]}),
        "provider": "cpu",
        "threads": 1,
        "thresholds": {_MODEL: -1.0},  # everything is accepted: each call remembers its recording
        "identify_margin": 0.0,
    }
    engine = Engine(Settings(**values), Metrics())
    try:
        yield engine
    finally:
        engine.close()


def measure(
    store: str | None,
    sizes: tuple[int, ...],
    rounds: int,
    progress: Callable[[str], None] = lambda what: None,
) -> list[Row]:
    """Measure at each size, in rising order. A `store` is the address of an empty PostgreSQL database."""
    rows: list[Row] = []
    takes = count(2)
    with TemporaryDirectory(prefix="sayso-bench-") as folder, _engine(Path(folder), store) as engine:
        engine.store.create_speaker(_TENANT, _SPEAKER)
        engine.enroll(_call(0), _SPEAKER, wav(15.0, SAMPLE_RATE, take=1))
        model, voices, speakers = engine.model(_MODEL).embedder.sha256, Voices(seed=0), 1
        for size in sorted(sizes):
            while speakers < size:
                progress(f"{speakers:,} of {size:,} speakers written")
                batch = voices.templates(voices.speakers(min(_AT_ONCE, size - speakers)))
                fill(engine.store, _TENANT, batch, model, first=speakers)
                speakers += len(batch)
            engine.index.refresh()
            engine.index.warm()
            while getattr(engine.index, "building", False):
                sleep(0.05)
            progress(f"calls among {size:,} speakers")
            rows += _calls(engine, size, rounds, takes)
    return rows


def _calls(engine: Engine, size: int, rounds: int, takes: Iterator[int]) -> list[Row]:
    calls: dict[str, Callable[[bytes, Call], Any]] = {
        "verify": lambda data, call: engine.verify(call, _SPEAKER, data),
        "identify": lambda data, call: engine.identify(call, data),
    }
    totals: dict[str, list[float]] = {name: [] for name in calls}
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for turn in range(-_WARM_UP, rounds):
        for name, answer in calls.items():
            take = next(takes)
            data, call = wav(_SECONDS, SAMPLE_RATE, take=take), _call(take)
            begun = perf_counter()
            answer(data, call)
            if turn >= 0:
                totals[name].append((perf_counter() - begun) * 1000.0)
                stages[name].append({stage: s * 1000.0 for stage, s in call.stages.items()})
    return [Row(name, size, Spread.of(totals[name]), _medians(stages[name])) for name in calls]


def _call(take: int) -> Call:
    return Call(_TENANT, f"request {take}", f"attempt {take}", scores=True)


def _medians(stages: list[dict[str, float]]) -> dict[str, float]:
    return {name: Spread.of([one[name] for one in stages]).p50 for name in stages[0]}


def table(rows: list[Row]) -> str:
    """The rows for people: medians in milliseconds."""
    lines = ["| call | speakers | p50 | p95 | store | search | embed |", "|---" * 7 + "|"]
    for row in sorted(rows, key=lambda one: (one.call, one.speakers)):
        parts = [row.total.p50, row.total.p95, *(row.stages[name] for name in ("store", "search", "embed"))]
        lines.append(f"| {row.call} | {row.speakers:,} | {' | '.join(f'{ms:.2f}' for ms in parts)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, or what was measured as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", help="an empty PostgreSQL database; a file if left out")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = measure(chosen.store, tuple(chosen.sizes), chosen.rounds, lambda what: print(what, flush=True))
    print(json.dumps([asdict(row) for row in rows], indent=1) if chosen.json else table(rows))


if __name__ == "__main__":
    main()
