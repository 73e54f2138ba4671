"""The service as a queue: calls wait for a turn, share the cores, and change the store one after another.

A discrete-event simulation on measured costs (`sayso.bench.costs`), of a replica as `sayso.service.work` runs
it on a CPU. A call is received (Python), waits for its turn, and in its turn it is decided on (more Python),
decoded, heard and embedded on one thread, and remembered by a flush of the store; then it is answered
(Python again). Work on the cores is processor sharing: each thread that can run has an equal share of them,
at most one core. Python is one such thread however many calls want it (the GIL). Seconds throughout.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sayso.bench.costs import Costs
from sayso.service.engine import PLACES_PER_CORE, SPARE_TURNS

Times = NDArray[np.float64]
_NEVER = float("inf")
_DONE = 1e-12  # seconds of work left that are none
_LEAST_PYTHON_S = 1e-4
_BEFORE, _WITHIN, _AFTER = 0.25, 0.5, 0.25  # of a call's Python: receiving it, in its turn, answering it


@dataclass(frozen=True)
class Work:
    """What calls need, seconds: of Python each; of decoding, hearing and embedding, and of waiting, measured
    ones.

    `flush` is what of the waiting is for the store's one writer.
    """

    python: float
    prepare: Times
    embed: Times
    flush: Times
    wait: Times

    @classmethod
    def of(cls, costs: Costs) -> Work:
        """What was measured; what no stage accounts for of the CPU's time is Python.

        How much work there is comes from CPU time, how it varies from the times that the stages took.
        """
        first = costs.batches[0]
        prepare_wall, embed_wall, search, http = (
            np.array([getattr(call, name) for call in costs.calls]) / 1e3
            for name in ("prepare_ms", "embed_ms", "search_ms", "http_ms")
        )
        prepare = prepare_wall / prepare_wall.mean() * costs.prepare_cpu_ms / 1e3
        embed = embed_wall / embed_wall.mean() * first.cpu_ms / 1e3
        python = max(_LEAST_PYTHON_S, (costs.cpu_ms - costs.prepare_cpu_ms - first.cpu_ms) / 1e3)
        # Not on a core: what the caller waited beyond the work; of it the search's part is the store's.
        idle = np.maximum(0.0, http - prepare_wall - embed_wall - python)
        flush = np.minimum(idle, np.maximum(0.0, search - python * _WITHIN))
        return cls(python, prepare, embed, flush, idle - flush)

    @property
    def cpu(self) -> float:
        """CPU seconds of a call alone, the mean."""
        return self.python + float(self.prepare.mean() + self.embed.mean())


@dataclass(eq=False)
class _Call:
    number: int
    arrived: float
    drawn: int  # which of the measured calls it is like
    heard: bool = False  # its turn is over


@dataclass
class _Replica:
    """One process: who is on its cores with how much work left, and who waits for a turn."""

    work: Work
    cores: float
    turns: int
    at: float = 0.0
    version: int = 0
    inside: int = 0  # calls that hold a place
    python: dict[_Call, float] = field(default_factory=dict)
    native: dict[_Call, float] = field(default_factory=dict)
    queue: deque[_Call] = field(default_factory=deque)
    in_turn: set[_Call] = field(default_factory=set)

    def _rates(self) -> tuple[float, float]:
        """Work a second that each call in Python, and each one outside it, gets now."""
        threads = (1 if self.python else 0) + len(self.native)
        share = min(1.0, self.cores / threads) if threads else 1.0
        return share / max(1, len(self.python)), share

    def advance(self, now: float) -> None:
        """Do the work of the time since the last event."""
        passed, self.at = now - self.at, now
        python, native = self._rates()
        for call in self.python:
            self.python[call] -= passed * python
        for call in self.native:
            self.native[call] -= passed * native

    def next_at(self) -> float:
        """When the first of what is on the cores is done, if nothing else happens."""
        python, native = self._rates()
        least = _NEVER
        if self.python:
            least = min(self.python.values()) / python
        if self.native:
            least = min(least, min(self.native.values()) / native)
        return self.at + max(0.0, least)

    def step(self) -> tuple[list[_Call], list[_Call]]:
        """Move on what is done; gives the calls that are to be remembered, and those that leave."""
        remembered, leaving = [], []
        for call in [c for c, left in self.python.items() if left <= _DONE]:
            del self.python[call]
            if call.heard:
                leaving.append(call)
            elif call in self.in_turn:
                self.native[call] = float(self.work.prepare[call.drawn] + self.work.embed[call.drawn])
            else:
                self.queue.append(call)
        for call in [c for c, left in self.native.items() if left <= _DONE]:
            del self.native[call]
            remembered.append(call)
        self._take_turns()
        return remembered, leaving

    def end_turn(self, call: _Call) -> None:
        """It is remembered: what is left is to answer."""
        call.heard = True
        self.in_turn.discard(call)
        self.python[call] = self.work.python * _AFTER
        self._take_turns()

    def _take_turns(self) -> None:
        while self.queue and len(self.in_turn) < self.turns:
            call = self.queue.popleft()
            self.in_turn.add(call)
            self.python[call] = self.work.python * _WITHIN


def poisson(rate: float, seconds: float, random: np.random.Generator) -> Times:
    """Arrivals at `rate` a second, independent of each other."""
    count = random.poisson(rate * seconds)
    return np.sort(random.uniform(0.0, seconds, count))


def in_periods(rate: float, seconds: float, period: float, random: np.random.Generator) -> Times:
    """Arrivals of callers who each call once a `period`, at its own moment, as in `sayso.bench.load`."""
    phases = random.uniform(0.0, period, max(1, round(rate * period)))
    times = np.concatenate([phases + turn * period for turn in range(int(np.ceil(seconds / period)))])
    return np.sort(times[times < seconds])


def simulate(
    work: Work,
    arrivals: Times,
    cores: float,
    replicas: int = 1,
    writers: int = 1,
    places: int | None = None,
    turns: int | None = None,
    random: np.random.Generator | None = None,
) -> Times:
    """Seconds that each arrival's answer took `[arrivals]`, NaN for those refused for lack of a place.

    Each call goes to the replica with the fewest (nginx's least_conn), of `cores` cores each, with the
    service's `places` and `turns` for them. `writers` flushes of the store go on at once, for all replicas
    together.
    """
    random = random or np.random.default_rng(0)
    places = places or PLACES_PER_CORE * max(1, int(cores))
    turns = turns or min(places, int(cores) + SPARE_TURNS)
    machines = [_Replica(work, cores, turns) for _ in range(replicas)]
    fewest = [(0, number) for number in range(replicas)]  # a heap of (calls, replica), some of them outdated
    free = [0.0] * writers
    took = np.full(len(arrivals), np.nan)
    drawn = random.integers(0, len(work.prepare), len(arrivals))
    # When, a number that keeps ties in order, replica; its version, or who was remembered, or that one left
    events: list[tuple[float, int, int, int | _Call | None]] = []

    order = itertools.count()

    def happens(at: float, number: int, what: int | _Call | None) -> None:
        heapq.heappush(events, (at, next(order), number, what))

    def plan(number: int) -> None:
        machine = machines[number]
        machine.version += 1
        if (at := machine.next_at()) < _NEVER:
            happens(at, number, machine.version)

    def run_until(now: float) -> None:
        while events and events[0][0] <= now:
            at, _, number, what = heapq.heappop(events)
            machine = machines[number]
            if what is None:
                machine.inside -= 1
                heapq.heappush(fewest, (machine.inside, number))
            elif isinstance(what, _Call):
                machine.advance(at)
                machine.end_turn(what)
                plan(number)
            elif what == machine.version:
                machine.advance(at)
                remembered, leaving = machine.step()
                for call in remembered:
                    happens(_flushed(free, at, float(work.flush[call.drawn])), number, call)
                for call in leaving:
                    end = at + float(work.wait[call.drawn])
                    took[call.number] = end - call.arrived
                    happens(end, number, None)
                plan(number)

    for index, now in enumerate(arrivals.tolist()):
        run_until(now)
        while machines[fewest[0][1]].inside != fewest[0][0]:
            heapq.heappop(fewest)
        number = fewest[0][1]
        machine = machines[number]
        if machine.inside >= places:
            continue
        machine.inside += 1
        heapq.heappush(fewest, (machine.inside, number))
        machine.advance(now)
        machine.python[_Call(index, now, int(drawn[index]))] = work.python * _BEFORE
        plan(number)
    run_until(_NEVER)
    return took


def _flushed(free: list[float], at: float, flush: float) -> float:
    """When a flush that is asked for at `at` is done; `free` is when each writer is."""
    if not flush:
        return at
    end = max(at, heapq.heappop(free)) + flush
    heapq.heappush(free, end)
    return end
