"""Replicas of the service behind the real nginx with docker/nginx.conf, and callers that keep them busy."""

import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from process import Server
from tools import tool

from sayso.service.settings import SHIPPED_MODELS, only_models

DOCKER = Path(__file__).parents[2] / "docker"
KEY = "sayso_key_of_the_cluster_tests"
_HEADER_BYTES = 44
PAUSE_S = 0.1  # between the calls of one caller: a replica has to start beside them on the same cores


def fresh(wav: bytes) -> bytes:
    """The same voice with a few samples' last bits changed: a recording is accepted once."""
    changed = bytearray(wav)
    for _ in range(16):
        changed[_HEADER_BYTES + 2 * random.randrange((len(changed) - _HEADER_BYTES) // 2)] ^= 1
    return bytes(changed)


class Replica(Server):
    """A server that says so before it stops, with the key that all of them have."""

    def __init__(self, folder: Path, **settings: str) -> None:
        folder.mkdir()
        super().__init__(
            folder / "data",
            SAYSO_ADMIN_KEY=KEY,
            SAYSO_RATE_LIMIT="0",
            SAYSO_DRAIN_S="1",
            SAYSO_THREADS="1",
            SAYSO_MODELS=json.dumps(only_models({"nested": SHIPPED_MODELS / "nested.onnx"})),
            **settings,
        )

    def start(self) -> None:
        super().start()
        self.client.headers["Authorization"] = f"Bearer {KEY}"

    def restart(self) -> None:
        """As a rolling restart does: SIGTERM, the end of it, and a new process that is ready."""
        assert self.stop() in (0, -signal.SIGTERM), self.log.read_text()
        self.start()


def started(folder: Path, count: int, **settings: str) -> list[Replica]:
    """`count` replicas, started together."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda n: Replica(folder / f"replica-{n}", **settings), range(1, count + 1)))


class Nginx:
    """The shipped configuration on a free port, with these replicas instead of the containers'."""

    def __init__(self, folder: Path, replicas: list[Replica]) -> None:
        folder.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        text = (DOCKER / "nginx.conf").read_text()
        for shipped, ours in (
            ("worker_processes auto;", f"worker_processes 2;\n{'user root;' if os.geteuid() == 0 else ''}"),
            ("listen 8080;", f"listen 127.0.0.1:{port};"),
            ("/tmp/", f"{folder}/"),
        ):
            assert shipped in text
            text = text.replace(shipped, ours)
        (folder / "nginx.conf").write_text(text)
        (folder / "replicas.conf").write_text(servers(replicas))
        self.log = folder / "log"
        with self.log.open("ab") as log:  # the access log is opened by its name beside it
            command = [tool("nginx"), "-e", "stderr", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx2.Client(base_url=self.url, timeout=60, headers={"Authorization": f"Bearer {KEY}"})
        stop = time.monotonic() + 10
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < stop
            try:
                self.client.get("/healthz")
                break
            except httpx2.TransportError:
                time.sleep(0.05)

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(10)


def servers(replicas: list[Replica]) -> str:
    """What stands in docker/replicas.conf, for these."""
    lines = []
    for line in (DOCKER / "replicas.conf").read_text().splitlines():
        if line.startswith("server "):  # the other one is for names, which Debian's nginx cannot look up anew
            line = line.replace(" resolve;", ";")
            for number, replica in enumerate(replicas, start=1):
                line = line.replace(f"replica-{number}:8000", f"127.0.0.1:{replica.port}")
            lines.append(line)
    assert len(lines) == 2 * len(replicas)
    return "\n".join(lines)


class Callers:
    """Threads that call one after the other, without retries of their own; `failures` is what they saw."""

    def __init__(self, url: str, call: Callable[[httpx2.Client], httpx2.Response], threads: int = 3) -> None:
        self._url, self._call = url, call
        self._stop = threading.Event()
        self.answered, self.failures = 0, list[str]()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx2.Client(base_url=self._url, timeout=60, headers=headers) as client:
            while not self._stop.is_set():
                try:
                    answer = self._call(client)
                    failed = answer.text if answer.status_code >= 300 else ""
                except httpx2.HTTPError as error:
                    failed = repr(error)
                with self._lock:
                    self.answered += not failed
                    if failed:
                        self.failures.append(failed)
                self._stop.wait(PAUSE_S)

    def wait_for(self, more: int) -> None:
        """Until so many more calls were answered, well or not."""
        until, wanted = time.monotonic() + 60, self.answered + len(self.failures) + more
        while self.answered + len(self.failures) < wanted:
            assert time.monotonic() < until, f"{self.answered} answered, {self.failures}"
            time.sleep(0.02)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)


@contextmanager
def calling(
    url: str, call: Callable[[httpx2.Client], httpx2.Response], threads: int = 3
) -> Iterator[Callers]:
    """Callers for as long as the block runs; they have begun when it does."""
    callers = Callers(url, call, threads)
    try:
        callers.wait_for(threads)
        yield callers
    finally:
        callers.stop()


def answered(answer: httpx2.Response) -> Any:
    """The body of a good answer."""
    assert answer.status_code < 300, f"{answer.status_code}: {answer.text}"
    return answer.json()
