"""The service as a queue: calls share cores, windows become batches, changes wait for the store.

A discrete-event simulation on measured costs (`bench.costs`). A call is half of its Python (receiving it),
then decoding and speech detection, then a batch of the model, then the other half, then a flush of the store.
Work on the cores is processor sharing: each thread that can run has an equal share of them, at most one core.
Python is one such thread however many calls want it (the GIL), a batch as many as the model uses. The batcher
takes what queued up while it ran the batch before, as `runtime.batcher` does. Seconds throughout.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.costs import Costs

Times = NDArray[np.float64]
_NEVER = float("inf")
_DONE = 1e-12  # seconds of work left that are none
_LEAST_PYTHON_S = 1e-4
MAX_BATCH, MAX_QUEUED, CONCURRENCY = 16, 128, 32  # of runtime.batcher, and SAYSO_MAX_CONCURRENCY


@dataclass(frozen=True)
class Work:
    """What calls need, seconds: of Python each; of preparation, of one window and of waiting, measured ones.

    `growth[k - 1]` is the work of a batch of `k` over that of one window, `threads` how many cores a batch
    keeps busy, `flush` what of the waiting is for the store's one writer.
    """

    python: float
    prepare: Times
    embed: Times
    flush: Times
    wait: Times
    growth: Times
    threads: float

    @classmethod
    def of(cls, costs: Costs) -> Work:
        """What was measured; what no stage accounts for of the CPU's time is Python.

        How much work there is comes from CPU time, how it varies from the times that the stages took.
        """
        first = costs.batches[0]
        threads = max(1.0, first.cpu_ms / first.wall_ms)
        prepare_wall, embed_wall, search, http = (
            np.array([getattr(call, name) for call in costs.calls]) / 1e3
            for name in ("prepare_ms", "embed_ms", "search_ms", "http_ms")
        )
        prepare = prepare_wall / prepare_wall.mean() * costs.prepare_cpu_ms / 1e3
        embed = embed_wall / embed_wall.mean() * first.cpu_ms / 1e3
        python = max(_LEAST_PYTHON_S, (costs.cpu_ms - costs.prepare_cpu_ms - first.cpu_ms) / 1e3)
        # Not on a core: what the caller waited beyond the work; of it the search's part is the store's.
        idle = np.maximum(0.0, http - prepare_wall - embed_wall - python)
        flush = np.minimum(idle, np.maximum(0.0, search - python / 2))
        sizes = [batch.windows for batch in costs.batches]
        growth = np.interp(range(1, MAX_BATCH + 1), sizes, [b.cpu_ms / first.cpu_ms for b in costs.batches])
        return cls(python, prepare, embed, flush, idle - flush, growth, threads)

    @property
    def cpu(self) -> float:
        """CPU seconds of a call alone, the mean."""
        return self.python + float(self.prepare.mean() + self.embed.mean())


@dataclass(eq=False)
class _Call:
    number: int
    arrived: float
    drawn: int  # which of the measured calls it is like


@dataclass
class _Replica:
    """One process: who is on its cores with how much work left, and who waits for the model."""

    work: Work
    cores: float
    at: float = 0.0
    version: int = 0
    inside: int = 0  # calls that hold a place
    python: dict[_Call, float] = field(default_factory=dict)
    prepare: dict[_Call, float] = field(default_factory=dict)
    queue: deque[_Call] = field(default_factory=deque)
    batch: list[_Call] = field(default_factory=list)
    batch_left: float = 0.0

    def _rates(self) -> tuple[float, float, float]:
        """Work a second that each Python call, each preparation and the batch get now."""
        threads = (1 if self.python else 0) + len(self.prepare) + (self.work.threads if self.batch else 0.0)
        share = min(1.0, self.cores / threads) if threads else 1.0
        return share / max(1, len(self.python)), share, share * self.work.threads

    def advance(self, now: float) -> None:
        """Do the work of the time since the last event."""
        passed, self.at = now - self.at, now
        python, prepare, batch = self._rates()
        for call in self.python:
            self.python[call] -= passed * python
        for call in self.prepare:
            self.prepare[call] -= passed * prepare
        self.batch_left -= passed * batch

    def next_at(self) -> float:
        """When the first of what is on the cores is done, if nothing else happens."""
        python, prepare, batch = self._rates()
        least = _NEVER
        if self.python:
            least = min(self.python.values()) / python
        if self.prepare:
            least = min(least, min(self.prepare.values()) / prepare)
        if self.batch:
            least = min(least, self.batch_left / batch)
        return self.at + max(0.0, least)

    def step(self, embedded: set[_Call]) -> list[_Call]:
        """Move on what is done, and give the calls that leave; `embedded` had the model's answer."""
        leaving = []
        for call in [c for c, left in self.python.items() if left <= _DONE]:
            del self.python[call]
            if call in embedded:
                embedded.discard(call)
                leaving.append(call)
            else:
                self.prepare[call] = float(self.work.prepare[call.drawn])
        for call in [c for c, left in self.prepare.items() if left <= _DONE]:
            del self.prepare[call]
            self.queue.append(call)
        if self.batch and self.batch_left <= _DONE:
            for call in self.batch:
                embedded.add(call)
                self.python[call] = self.work.python / 2
            self.batch = []
        if self.queue and not self.batch:
            size = min(MAX_BATCH, len(self.queue))
            self.batch = [self.queue.popleft() for _ in range(size)]
            self.batch_left = float(self.work.embed[self.batch[0].drawn] * self.work.growth[size - 1])
        return leaving


def poisson(rate: float, seconds: float, random: np.random.Generator) -> Times:
    """Arrivals at `rate` a second, independent of each other."""
    count = random.poisson(rate * seconds)
    return np.sort(random.uniform(0.0, seconds, count))


def in_periods(rate: float, seconds: float, period: float, random: np.random.Generator) -> Times:
    """Arrivals of callers who each call once a `period`, at a moment of their own: those of `bench.load`."""
    phases = random.uniform(0.0, period, max(1, round(rate * period)))
    times = np.concatenate([phases + turn * period for turn in range(int(np.ceil(seconds / period)))])
    return np.sort(times[times < seconds])


def simulate(
    work: Work,
    arrivals: Times,
    cores: float,
    replicas: int = 1,
    writers: int = 1,
    concurrency: int = CONCURRENCY,
    random: np.random.Generator | None = None,
) -> Times:
    """Seconds that each arrival's answer took `[arrivals]`, NaN for those refused for lack of a place.

    Each call goes to the replica with the fewest (nginx's least_conn), of `cores` cores each. `writers`
    flushes of the store go on at once, for all replicas together.
    """
    random = random or np.random.default_rng(0)
    machines = [_Replica(work, cores) for _ in range(replicas)]
    embedded: list[set[_Call]] = [set() for _ in machines]
    fewest = [(0, number) for number in range(replicas)]  # a heap of (calls, replica), some of them outdated
    free = [0.0] * writers
    took = np.full(len(arrivals), np.nan)
    drawn = random.integers(0, len(work.prepare), len(arrivals))
    events: list[tuple[float, int, int]] = []  # when, replica, its version or -1: an answer left it

    def plan(number: int) -> None:
        machine = machines[number]
        machine.version += 1
        if (at := machine.next_at()) < _NEVER:
            heapq.heappush(events, (at, number, machine.version))

    def run_until(now: float) -> None:
        while events and events[0][0] <= now:
            at, number, version = heapq.heappop(events)
            machine = machines[number]
            if version < 0:
                machine.inside -= 1
                heapq.heappush(fewest, (machine.inside, number))
            elif version == machine.version:
                machine.advance(at)
                for call in machine.step(embedded[number]):
                    finish(at, number, call)
                plan(number)

    def finish(at: float, number: int, call: _Call) -> None:
        flush = float(work.flush[call.drawn])
        end = at
        if flush:
            end = max(at, heapq.heappop(free)) + flush
            heapq.heappush(free, end)
        end += float(work.wait[call.drawn])
        took[call.number] = end - call.arrived
        heapq.heappush(events, (end, number, -1))

    for index, now in enumerate(arrivals.tolist()):
        run_until(now)
        while machines[fewest[0][1]].inside != fewest[0][0]:
            heapq.heappop(fewest)
        number = fewest[0][1]
        machine = machines[number]
        if machine.inside >= concurrency:
            continue
        machine.inside += 1
        heapq.heappush(fewest, (machine.inside, number))
        machine.advance(now)
        machine.python[_Call(index, now, int(drawn[index]))] = work.python / 2
        plan(number)
    run_until(_NEVER)
    return took
