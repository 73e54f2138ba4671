"""The simulation against queueing theory, and what it makes of measured costs."""

import numpy as np
import pytest

from sayso.bench.costs import Batch, Call, Costs
from sayso.bench.queueing import Times, Work, in_periods, poisson, simulate
from sayso.bench.scale import fill, pages, work_out
from sayso.service.engine import PLACES_PER_CORE

NOTHING = 1e-9
MANY = 10**6


def work(
    python: float = NOTHING,
    prepare: float | Times = NOTHING,
    flush: float | Times = 0.0,
) -> Work:
    """Costs of which most are nothing."""
    times = [np.atleast_1d(np.asarray(t, float)) for t in (prepare, NOTHING, flush, 0.0)]
    size = max(map(len, times))
    return Work(python, *(np.resize(t, size) for t in times))


@pytest.mark.parametrize("load", [0.3, 0.6])
def test_processor_sharing_is_as_theory_has_it(load: float) -> None:
    """M/G/1-PS: the mean is S / (1 - load), whatever the distribution of the work."""
    random = np.random.default_rng(1)
    for times in (random.exponential(0.01, 20_000), np.full(1, 0.01)):
        arrivals = poisson(load / 0.01, 150, random)
        took = simulate(work(prepare=times), arrivals, 1.0, places=MANY, turns=MANY, random=random)
        assert np.mean(took) == pytest.approx(0.01 / (1 - load), rel=0.1)


def test_cores_are_shared_but_python_is_one() -> None:
    arrivals = np.zeros(4)
    assert simulate(work(prepare=0.1), arrivals, 4.0) == pytest.approx(0.1)
    assert simulate(work(prepare=0.1), arrivals, 2.0, turns=MANY) == pytest.approx(0.2)
    # Calls' Python runs one at a time on any number of cores: 4 x 0.1 s of it.
    assert simulate(work(python=0.1), arrivals, 4.0).max() == pytest.approx(0.4)


def test_the_store_has_one_writer_or_more() -> None:
    """A queue of one server with constant work (M/D/1): waiting is load / (2 (1 - load)) of it."""
    random = np.random.default_rng(2)
    arrivals = poisson(60.0, 150, random)
    took = simulate(work(flush=0.01), arrivals, 1.0, places=MANY, turns=MANY, random=random)
    assert np.mean(took) == pytest.approx(0.01 * (1 + 0.6 / (2 * 0.4)), rel=0.08)
    assert np.mean(
        simulate(work(flush=0.01), arrivals, 1.0, writers=8, places=MANY, turns=MANY)
    ) == pytest.approx(0.01, rel=0.02)


def test_calls_take_turns_one_more_than_cores_and_first_come_first_served() -> None:
    arrivals = np.linspace(0.0, 0.009, 10)
    took = simulate(work(prepare=0.1), arrivals, 1.0, places=MANY)
    left = arrivals + took
    assert (np.diff(left) >= 0).all()  # in the order in which they came
    # Two share one core for 0.2 s, then the next two: nobody gets slower by those who come later.
    assert left[0] == pytest.approx(0.2, abs=0.01)
    assert left[-1] == pytest.approx(1.0, abs=0.01)
    everybody = simulate(work(prepare=0.1), arrivals, 1.0, places=MANY, turns=MANY)
    assert (arrivals + everybody)[0] > 0.9  # which is what turns are for


def test_a_turn_lasts_until_the_store_has_flushed() -> None:
    """With as many turns as cores a core idles meanwhile; the spare turn makes use of it."""
    arrivals = np.zeros(20)
    alone = simulate(work(prepare=0.01, flush=0.01), arrivals, 1.0, places=MANY, turns=1)
    assert alone.max() == pytest.approx(20 * 0.02, rel=1e-3)
    spare = simulate(work(prepare=0.01, flush=0.01), arrivals, 1.0, places=MANY)
    assert spare.max() < 0.75 * alone.max()


def test_beyond_the_places_calls_are_refused_and_all_are_answered_or_refused() -> None:
    arrivals = np.sort(np.random.default_rng(3).uniform(0, 1, 400))
    took = simulate(work(prepare=0.02), arrivals, 1.0)
    refused = np.isnan(took)
    assert 0 < refused.sum() < 400
    busy = [
        (arrivals[~refused] <= t).sum() - (arrivals[~refused] + took[~refused] <= t).sum() for t in arrivals
    ]
    assert max(busy) == PLACES_PER_CORE
    # The core was never idle: the last one ends when the work of all of them is done.
    assert (arrivals + took)[~refused].max() == pytest.approx(arrivals[0] + 0.02 * (~refused).sum(), rel=1e-3)


def test_more_replicas_wait_less_at_the_same_share_of_each() -> None:
    """Four of one queue each, chosen by the fewest, beat one alone as loaded."""
    means = []
    for replicas in (1, 4):
        random = np.random.default_rng(4)
        arrivals = poisson(80.0 * replicas, 30, random)
        took = simulate(work(prepare=0.01), arrivals, 1.0, replicas, places=MANY, turns=MANY, random=random)
        means.append(np.mean(took))
    assert means[1] < 0.7 * means[0]


def test_callers_in_periods_are_those_of_the_load() -> None:
    times = in_periods(25.0, 12.0, 4.0, np.random.default_rng(5))
    assert len(times) == 300
    assert np.histogram(times, bins=3)[0].tolist() == pytest.approx([100, 100, 100], abs=1)
    first = times[times < 4.0]
    assert times[100:200] == pytest.approx(first + 4.0)


COSTS = Costs(
    calls=[Call(5.0, 4.0, 2.0, 14.0), Call(7.0, 6.0, 4.0, 20.0)],
    cpu_ms=13.0,
    prepare_cpu_ms=6.0,
    batches=[Batch(k, 5.0 * k**0.9, 5.0 * k**0.9) for k in (1, 2, 4, 8, 16)],
    body_bytes=96_044,
)


def test_measured_costs_are_told_apart() -> None:
    made = Work.of(COSTS)
    assert made.python == pytest.approx(0.002)
    assert made.cpu == pytest.approx(0.013)
    assert made.prepare == pytest.approx([0.005, 0.007])
    assert made.wait + made.flush == pytest.approx([0.003, 0.005])
    assert COSTS.busy == pytest.approx(1.0)
    alone = simulate(made, np.array([0.0]), 1.0)
    assert alone.item() in (pytest.approx(0.014), pytest.approx(0.020))  # what its caller waited


def facts() -> dict[str, object]:
    """As `sayso bench load --json` prints them, of a machine that is as the simulation says."""
    steps = []
    for rate in (20.0, 40.0, 60.0):
        arrivals = in_periods(rate, 24.0, 4.0, np.random.default_rng(9))
        took = simulate(Work.of(COSTS), arrivals, 1.0)[arrivals >= 4.0] * 1e3
        took = took[~np.isnan(took)]  # what was not refused
        p50, p95, p99 = np.percentile(took, (50, 95, 99))
        time = {"p50": p50, "p95": p95, "p99": p99}
        steps.append({"rate": rate, "sent": rate, "served": len(took) / 20.0, "time": time})
    costs = {
        "calls": [vars(call) for call in COSTS.calls],
        "cpu_ms": COSTS.cpu_ms,
        "prepare_cpu_ms": COSTS.prepare_cpu_ms,
        "batches": [vars(batch) for batch in COSTS.batches],
        "body_bytes": COSTS.body_bytes,
    }
    return {
        "model": "nested", "server_cores": 1, "bare": 80.0, "rising": steps[:1], "high": steps[1],
        "over": steps[2], "costs": costs, "seconds": 20.0, "period_s": 4.0,
    }  # fmt: skip


def test_a_curve_is_put_beside_its_simulation_and_followed_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sayso.bench.scale.RATES", (10.0, 1_000.0))
    found = work_out(facts(), {"log_entries_per_s": 2000.0, "bytes_per_speaker": 10_000.0})
    for step in found["curve"]:
        for name in ("served", "p50", "p95", "p99"):
            assert 0.9 * step["lowest"][name] < step["measured"][name] < 1.1 * step["highest"][name]
            assert step["lowest"][name] <= step["simulated"][name] <= step["highest"][name]
        assert step["simulated"]["served"] == pytest.approx(step["measured"]["served"], rel=0.05)
        assert step["simulated"]["p50"] == pytest.approx(step["measured"]["p50"], rel=0.15)
    few, many = found["growth"]
    assert many["cores"] == pytest.approx(100 * few["cores"], rel=0.05)
    assert many["refused"] == 0
    assert many["log_share"] == 0.5
    assert many["commit_share"] is None
    assert many["gbit_s"] == pytest.approx(0.768, rel=0.01)
    assert many["replicas"] == pytest.approx(1000 * 0.013 / 0.7 / 4, abs=1)
    assert found["speakers"][-1]["store_gb"] == 10_000.0
    texts = pages(found)
    page = "".join(f"before\n<!-- scale: {name} -->\nold\n<!-- scale: end -->\n" for name in texts)
    filled = fill(page, found)
    assert "old" not in filled
    assert all(text in filled for text in texts.values())
    assert fill(filled, found) == filled
    with pytest.raises(ValueError, match="'curve'"):
        fill(page.replace("curve", "curves"), found)
    assert all(len({line.count("|") for line in text.splitlines()}) == 1 for text in texts.values())
