"""Jobs take turns, each run is warmed by one before it, and times are held against a measured peak."""

import time

import numpy as np

from sayso.bench.peak import core_peak
from sayso.bench.timing import Spread, interleave


def test_jobs_take_turns_each_after_a_run_that_is_not_kept() -> None:
    ran: list[str] = []
    told: list[tuple[int, int]] = []
    taken = interleave(
        {"a": lambda: ran.append("a"), "b": lambda: ran.append("b")},
        rounds=2,
        warm_up=1,
        progress=lambda *n: told.append(n),
    )
    assert "".join(ran) == "ab" + "aabb" * 2
    assert {name: len(times) for name, times in taken.items()} == {"a": 2, "b": 2}
    assert told == [(0, 2), (1, 2), (2, 2)]


def test_a_slower_job_takes_longer() -> None:
    taken = interleave({"sleeps": lambda: time.sleep(0.01), "idles": lambda: None}, rounds=3)
    assert np.median(taken["sleeps"]) >= 10.0 > np.median(taken["idles"])


def test_a_spread_is_of_percentiles() -> None:
    assert Spread.of(list(np.arange(101.0))) == Spread(50.0, 95.0, 99.0)


def test_a_cores_peak_is_that_of_a_computer() -> None:
    assert 1e8 < core_peak() < 1e12
