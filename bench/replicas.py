"""Two replicas over one on the same PostgreSQL, taking turns, and what that server gives to decisions.

What stops the ratio from being two is read off whose CPU time it was: replicas', callers', everybody else's
(PostgreSQL's, above all). Replicas are held to a core each where there are two.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sayso.bench.path import wav
from sayso.bench.server import ServerFailed, ServerProcess
from sayso.enroll.secrets.master_key import KeyText
from sayso.enroll.store import Store
from sayso.runtime.audio import SAMPLE_RATE
from sayso.service.access.attempts import AttemptLimits, Attempts

CALLERS = 8
SECONDS = 3.0
_SPEAKER = "alice"
_HEADER = 44
_THREADS = 16  # as many as a replica has connections
_LIMITS = AttemptLimits(5, 30.0, 50, 30.0)


@dataclass(frozen=True)
class Turn:
    """Calls served a second by so many replicas, and cores that were busy with what meanwhile."""

    replicas: int
    served: float
    replicas_cores: float
    callers_cores: float
    others_cores: float


@dataclass(frozen=True)
class Replicas:
    """`ratio` is the median of two's rate over one's, round by round."""

    turns: list[Turn]
    ratio: float
    log_entries_per_s: float
    decisions_per_s: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def measure(
    address: str,
    settings: dict[str, str],
    seconds: float,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Replicas:
    """On this store, which has to be empty; `settings` are those of the replicas beside it."""
    key = secrets.token_hex(32)
    with Store(address, 10.0, KeyText(key)) as store:
        entries, decisions = _log_rate(store, seconds), _decision_rate(store, seconds)
    cores = sorted(os.sched_getaffinity(0))
    admin = secrets.token_urlsafe(24)
    shared = {**settings, "SAYSO_STORE": address, "SAYSO_MASTER_KEY": key, "SAYSO_ADMIN_KEY": admin}
    with (
        ServerProcess(cores=cores[:1], **shared) as first,
        ServerProcess(cores=cores[-1:], **shared) as second,
    ):
        servers = [first, second]
        for server in servers:
            server.key = admin
        first.enroll(_SPEAKER, [wav(15.0, SAMPLE_RATE, take=1)])
        turns: list[Turn] = []
        for number in range(-1, rounds):  # the first round is the warm-up
            pair = [_turn(servers[:1], seconds), _turn(servers, seconds)]
            turns += pair if number >= 0 else []
            progress(number + 2, rounds + 1)
    ratios = [two.served / one.served for one, two in zip(turns[::2], turns[1::2], strict=True)]
    return Replicas(turns, round(float(np.median(ratios)), 3), entries, decisions)


def _turn(servers: Sequence[ServerProcess], seconds: float) -> Turn:
    data, until, served = wav(SECONDS, SAMPLE_RATE, take=2), time.monotonic() + seconds, [0] * CALLERS

    def call(number: int) -> None:
        with servers[number % len(servers)].connection() as caller:
            while time.monotonic() < until:
                caller.expect("POST", f"/v1/speakers/{_SPEAKER}/verify", _fresh(data))
                served[number] += 1

    before, started = _cpu(servers), time.monotonic()
    _in_threads(call, CALLERS)
    took = time.monotonic() - started
    spent = [(now - then) / took for now, then in zip(_cpu(servers), before, strict=True)]
    mine, theirs, all_of_it = spent
    rest = max(0.0, all_of_it - mine - theirs)
    return Turn(len(servers), round(sum(served) / took, 2), round(theirs, 2), round(mine, 2), round(rest, 2))


def _cpu(servers: Sequence[ServerProcess]) -> tuple[float, float, float]:
    """CPU seconds so far of this process, of the servers, and of the whole machine (0 where unknown)."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        fields = ["0"] * 8
    busy = sum(map(int, fields[:3])) + sum(map(int, fields[5:7]))
    machine = busy / os.sysconf("SC_CLK_TCK")
    return time.process_time(), sum(server.cpu_s for server in servers), machine


def _fresh(data: bytes) -> bytes:
    """The recording with a few samples' last bits changed: one that was accepted is not accepted again."""
    changed = bytearray(data)
    for _ in range(16):
        changed[_HEADER + 2 * random.randrange((len(changed) - _HEADER) // 2)] ^= 1  # noqa: S311
    return bytes(changed)


def _log_rate(store: Store, seconds: float) -> float:
    """Decisions a second that one process gets into the audit log, however many come at once."""
    written, until, started = 0, time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < until:
        for _ in range(200):
            store.audit.note("verify", "default", "alice", decision="accept", score=0.5, request="0" * 32)
        store.audit.flush()
        written += 200
    return round(written / (time.monotonic() - started), 1)


def _decision_rate(store: Store, seconds: float) -> float:
    """Accepted recordings a second that are remembered, of as many tenants as there are threads."""
    done = [0] * _THREADS
    for number in range(_THREADS):
        store.create_speaker(f"tenant-{number}", "alice")
    until, started = time.monotonic() + seconds, time.monotonic()

    def accept(number: int) -> None:
        while time.monotonic() < until:
            digest, attempt = secrets.token_bytes(32), secrets.token_hex(16)
            Attempts(store.database).succeeded(
                f"tenant-{number}", "alice", "verify", digest, attempt, _LIMITS
            )
            done[number] += 1

    _in_threads(accept, _THREADS)
    return round(sum(done) / (time.monotonic() - started), 1)


def _in_threads(work: Callable[[int], None], count: int) -> None:
    """Run it for each number; raises what went wrong in any of them."""
    wrong: list[Exception] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise ServerFailed(f"a caller failed: {wrong[0]}") from wrong[0]


def table(found: Replicas) -> str:
    lines = [
        "| replicas | served/s | cores: replicas | callers | all else |",
        "|---|---|---|---|---|",
    ]
    for count in (1, 2):
        turns = [turn for turn in found.turns if turn.replicas == count]
        cells = [
            float(np.median([getattr(turn, name) for turn in turns]))
            for name in ("served", "replicas_cores", "callers_cores", "others_cores")
        ]
        lines.append(
            f"| {count} | {cells[0]:.1f} | " + " | ".join(f"{cell:.2f}" for cell in cells[1:]) + " |"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"two over one: {found.ratio:.2f} times, on {os.cpu_count()} cores for all of it",
            f"the audit log takes {found.log_entries_per_s:.0f} entries/s, and "
            f"{found.decisions_per_s:.0f} accepted recordings/s are remembered",
        ]
    )
