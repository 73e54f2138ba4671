"""What Locust runs for `sayso bench load`: verify calls arriving at a steady rate, answers told apart.

Run by Locust in a process of its own (gevent patches its standard library). The recording, the key, the
rate and where to write come in the environment.
"""

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, events, task

RECORDING = Path(os.environ["BENCH_RECORDING"]).read_bytes()
PATH = os.environ["BENCH_PATH"]
HEADERS = {"Authorization": f"Bearer {os.environ['BENCH_KEY']}", "Content-Type": "audio/wav"}
# Each user calls once a period, at a moment of its own, so that arrivals are even; while answers come
# within a period, they do not wait for them.
PERIOD_S = float(os.environ["BENCH_PERIOD"])


def take() -> bytes:
    """The recording with some samples' last bits changed: one that was accepted is not accepted again."""
    changed = bytearray(RECORDING)
    for _ in range(16):
        changed[random.randrange(22, len(changed) // 2) * 2] ^= 1  # noqa: S311  # behind the header of 44 bytes
    return bytes(changed)


answers: list[tuple[float, float, int]] = []  # when it was sent, milliseconds, status (0: no answer)


class Caller(FastHttpUser):
    """Verifies the same recording again and again."""

    def on_start(self) -> None:
        gevent.sleep(random.uniform(0.0, PERIOD_S))  # noqa: S311
        self.due = time.monotonic()

    def wait_time(self) -> float:
        """Until its next moment. Locust's constant_throughput counts from when all were made: all at once."""
        self.due += PERIOD_S
        return max(0.0, self.due - time.monotonic())

    @task
    def verify(self) -> None:
        body: Any = take()
        with self.client.post(PATH, data=body, headers=HEADERS, catch_response=True) as answer:
            if answer.status_code == 429:
                answer.success()


def note(start_time: float, response_time: float, response: Any, **_: Any) -> None:
    answers.append((start_time, response_time, response.status_code if response is not None else 0))


def write(**_: Any) -> None:
    Path(os.environ["BENCH_OUT"]).write_text(json.dumps(answers))


events.request.add_listener(note)  # type: ignore[no-untyped-call]
events.quitting.add_listener(write)  # type: ignore[no-untyped-call]
