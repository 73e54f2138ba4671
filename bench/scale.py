"""How cost grows with requests and speakers: what was measured, a simulation held to it, and what follows.

Everything that docs/scale.md says in figures is one dictionary, which `work_out` makes of what
`sayso bench load` measured and docs/scale.json keeps; `pages` makes the page's tables of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from sayso.bench.costs import Costs
from sayso.bench.queueing import Times, Work, in_periods, poisson, simulate
from sayso.bench.timing import Spread

RATES = (10.0, 100.0, 1_000.0, 10_000.0)
CORES = 4.0  # of one replica
CONNECTIONS = 16  # of one replica to PostgreSQL, which flushes commits of different tenants together
UTILISATION = 0.7  # of its cores that is planned with: beyond it waiting grows faster than work
BUSY = 1.3  # stages' time over their CPU time from which on the machine was not ours alone
_OTHERS = (
    "\n\n**Other work kept this machine busy while it was measured: no time on this page is worth quoting "
    "yet, and the measured curve is not the service's.**"
)
SIMULATED_S = 4.0
_ARRIVALS = 40_000.0  # that a simulation is worth at most
# Callers keep their moments from period to period, so one run's high percentiles are those of one pattern of
# moments: the simulation is run with as many patterns, and says how far they lie apart.
_RUNS = 9
_SHOWN = ("served", "p50", "p95", "p99")

# Bytes and seconds that follow from formats. What PostgreSQL takes in fact is measured, under "store".
DIM, MODELS = 512, 2
SPEAKERS = (1_000, 1_000_000, 1_000_000_000)
SHARD_SPEAKERS = 100_000_000  # of one PostgreSQL server: a template index that its memory still holds


def steps_of(load: dict[str, Any]) -> list[dict[str, Any]]:
    """Every rate that a load was measured at, rising."""
    return sorted([*load["rising"], load["high"], load["over"]], key=lambda step: float(step["rate"]))


def work_out(
    load: dict[str, Any], store: dict[str, float], progress: Callable[[int, int], None] = lambda d, t: None
) -> dict[str, Any]:
    """The whole of docs/scale.json: `load` is `sayso bench load --json`, `store` what a store takes."""
    work = Work.of(Costs.read(load["costs"]))
    steps = steps_of(load)
    total = len(steps) + len(RATES)
    curve = []
    for number, step in enumerate(steps):
        curve.append(_beside(load, work, step))
        progress(number + 1, total)
    growth = []
    for number, rate in enumerate(RATES):
        growth.append(_replicas(work, rate, load["costs"]["body_bytes"], store))
        progress(len(curve) + number + 1, total)
    return {
        "load": load,
        "store": store,
        "work": _work(work, Costs.read(load["costs"])),
        "curve": curve,
        "growth": growth,
        "speakers": [_speakers(count, store) for count in SPEAKERS],
    }


def _work(work: Work, costs: Costs) -> dict[str, float]:
    python, cpu = work.python * 1e3, work.cpu * 1e3
    return {
        "cpu_ms": round(cpu, 2),
        "python_ms": round(python, 2),
        "prepare_ms": round(float(work.prepare.mean()) * 1e3, 2),
        "embed_ms": round(float(work.embed.mean()) * 1e3, 2),
        "store_ms": round(float(work.flush.mean()) * 1e3, 2),
        "wait_ms": round(float(work.wait.mean()) * 1e3, 2),
        "most_useful_cores": round(cpu / python, 1),
        "batch_of_16_over_1": round(costs.batches[-1].cpu_ms / costs.batches[0].cpu_ms, 2),
        "stages_over_cpu": round(costs.busy, 2),
    }


def _spread(times: Times) -> Spread:
    served = times[~np.isnan(times)] * 1e3
    return Spread.of(served) if len(served) else Spread(np.nan, np.nan, np.nan)


def _beside(load: dict[str, Any], work: Work, step: dict[str, Any]) -> dict[str, Any]:
    """One rate, measured and simulated: as many callers with the same habits, for as long, several times."""
    seconds, period = load["seconds"], load["period_s"]
    runs: dict[str, list[float]] = {name: [] for name in _SHOWN}
    for seed in range(_RUNS):
        random = np.random.default_rng(seed)
        arrivals = in_periods(step["rate"], period + seconds, period, random)
        took = simulate(work, arrivals, load["server_cores"], random=random)[arrivals >= period]
        found = {"served": float((~np.isnan(took)).sum()) / seconds, **vars(_spread(took))}
        for name, values in runs.items():
            values.append(found[name])
    return {
        "rate": step["rate"],
        "sent": step["sent"],
        "measured": {"served": step["served"], **step["time"]},
        "simulated": {name: round(float(np.median(values)), 3) for name, values in runs.items()},
        "lowest": {name: round(min(values), 3) for name, values in runs.items()},
        "highest": {name: round(max(values), 3) for name, values in runs.items()},
    }


def _replicas(work: Work, rate: float, body_bytes: int, store: dict[str, float]) -> dict[str, Any]:
    """What a rate takes, replicas of CORES at UTILISATION, and how long calls take there as simulated."""
    by_cores = CORES * UTILISATION / work.cpu
    by_python = UTILISATION / work.python  # one interpreter a replica
    replicas = math.ceil(rate / min(by_cores, by_python))
    seconds = min(max(SIMULATED_S, 200 / rate), _ARRIVALS / rate)
    random = np.random.default_rng(0)
    arrivals = poisson(rate, seconds, random)
    took = simulate(work, arrivals, CORES, replicas, writers=CONNECTIONS * replicas, random=random)
    return {
        "rate": rate,
        "cores": round(rate * work.cpu / UTILISATION, 2),
        "replicas": replicas,
        "refused": round(float(np.isnan(took).mean()), 4),
        **vars(_spread(took[len(took) // 4 :])),  # behind the time in which it fills up
        "gbit_s": round(rate * body_bytes * 8 / 1e9, 3),
        "log_share": round(rate / store["log_entries_per_s"], 3) if "log_entries_per_s" in store else None,
        "commit_share": round(rate / store["decisions_per_s"], 3) if "decisions_per_s" in store else None,
    }


def _speakers(count: int, store: dict[str, float]) -> dict[str, Any]:
    """Bytes, and a search of them all."""
    vector = DIM * 2 + 8  # halfvec
    row = store.get("bytes_per_speaker")
    exact = store.get("exact_us_per_speaker")
    return {
        "speakers": count,
        "vectors_gb": round(count * vector * MODELS / 1e9, 4),
        "faiss_gb": round(count * DIM * 4 * MODELS / 1e9, 4),
        "store_gb": None if row is None else round(count * row / 1e9, 4),
        "exact_s": None if exact is None else round(count * exact / 1e6, 4),
        "shards": math.ceil(count / SHARD_SPEAKERS),
        "fmr_for_fpir_5": f"{1 - 0.95 ** (1 / count):.1e}",
    }


def table(facts: dict[str, Any]) -> str:
    """All of it for people."""
    return "\n\n".join(pages(facts).values())


def pages(facts: dict[str, Any]) -> dict[str, str]:
    """The page's tables by name."""
    return {
        "inputs": _inputs(facts),
        "curve": _curve(facts),
        "growth": _growth(facts),
        "speakers": _people(facts),
    }


def fill(page: str, facts: dict[str, Any]) -> str:
    """The page with the tables between `<!-- scale: NAME -->` and `<!-- scale: end -->` made anew."""
    for name, text in pages(facts).items():
        between = re.compile(rf"(<!-- scale: {name} -->\n).*?(<!-- scale: end -->)", re.S)
        page, found = between.subn(lambda match, text=text: f"{match[1]}\n{text}\n\n{match[2]}", page)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"the page has {found} places for the table {name!r}, one is needed")
    return page


def _rows(head: str, rows: list[list[str]]) -> str:
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def _inputs(facts: dict[str, Any]) -> str:
    work, load = facts["work"], facts["load"]
    names = {
        "cpu_ms": "CPU time of a call",
        "prepare_ms": "of it decoding and speech detection",
        "embed_ms": "of it the network",
        "python_ms": "of it Python, under its lock",
        "store_ms": "waiting for the store to flush",
        "wait_ms": "waiting for anything else",
    }
    rows = [[text, f"{work[name]:.2f} ms"] for name, text in names.items()]
    rows += [["the stages' time over the CPU time of their work", f"{work['stages_over_cpu']:.2f}"]]
    rows += [["work of a batch of 16 over one window", f"{work['batch_of_16_over_1']:.2f}"]]
    rows += [["model, cores of the server", f"{load['model']}, {load['server_cores']}"]]
    warning = "" if work["stages_over_cpu"] < BUSY else _OTHERS
    return _rows("| one verify call of 3 s, alone | |", rows) + warning


def _curve(facts: dict[str, Any]) -> str:
    rows = []
    for step in facts["curve"]:
        cells = []
        for name in _SHOWN:
            low, high = step["lowest"][name], step["highest"][name]
            cells.append(
                f"{step['measured'][name]:.1f} / {step['simulated'][name]:.1f} ({low:.1f} to {high:.1f})"
            )
        rows.append([f"{step['rate']:.1f}", *cells])
    return _rows("| arrivals/s | served/s: measured / simulated | p50 ms | p95 ms | p99 ms |", rows)


def _growth(facts: dict[str, Any]) -> str:
    rows = []
    for row in facts["growth"]:
        shares = [_share(row["log_share"]), _share(row["commit_share"])]
        times = [f"{row[name]:.0f}" for name in ("p50", "p95", "p99")]
        machines = [f"{row['cores']:,.1f}", f"{row['replicas']:,}"]
        rows.append([f"{row['rate']:,.0f}", *machines, " / ".join(times), f"{row['gbit_s']:g}", *shares])
    head = (
        f"| verify/s | cores | replicas of {CORES:g} | p50 / p95 / p99 ms | Gbit/s of WAV | "
        "audit log, used | commits, used |"
    )
    return _rows(head, rows)


def _share(share: float | None) -> str:
    return "not measured" if share is None else f"{share:.0%}"


def _people(facts: dict[str, Any]) -> str:
    rows = []
    for row in facts["speakers"]:
        store, exact = row["store_gb"], row["exact_s"]
        rows.append(
            [
                f"{row['speakers']:,}",
                f"{row['vectors_gb']:,g}",
                f"{row['faiss_gb']:,g}",
                "not measured" if store is None else f"{store:,.3g}",
                "not measured" if exact is None else f"{exact:,.3g}",
                f"{row['shards']:,}",
                row["fmr_for_fpir_5"],
            ]
        )
    head = (
        "| speakers | GB of vectors | GB in FAISS | GB in PostgreSQL | exact search, s a core | shards | "
        "FMR for an FPIR of 5 % |"
    )
    return _rows(head, rows)
