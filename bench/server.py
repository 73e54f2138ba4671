"""The real service as a process of its own, on a data folder that goes away with it."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sayso.runtime.errors import RuntimeFault

_START_LIMIT_S = 60.0


class ServerFailed(RuntimeFault):
    """The server under test did not start, or refused what it should have answered."""


class ServerProcess:
    """`sayso serve` on a free port, with a key of its own; `ready_s` is how long its start took.

    It is held to `cores` where any are given. `settings` are SAYSO_ variables; others that are set in the
    environment are left out.
    """

    def __init__(self, cores: Collection[int] = (), **settings: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sayso-bench-")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.key = secrets.token_urlsafe(24)
        self._log = Path(self._folder.name) / "server.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SAYSO_")}
        environment |= {
            "SAYSO_DATA_DIR": self._folder.name,
            "SAYSO_PORT": str(self.port),
            "SAYSO_ADMIN_KEY": self.key,
            "SAYSO_LOG_LEVEL": "error",
            "SAYSO_RATE_LIMIT": "0",  # one key makes all the calls
            **settings,
        }
        started = time.monotonic()
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "sayso", "serve"]
            self.process = subprocess.Popen(  # noqa: S603
                command,
                env=environment,
                stdout=log,
                stderr=log,
                preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
            )
        try:
            self._wait(started + _START_LIMIT_S)
        except BaseException:
            self.close()
            raise
        self.ready_s = time.monotonic() - started

    def _wait(self, until: float) -> None:
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise ServerFailed(f"the server did not start: {self._log.read_text().strip()}")
            try:
                with self.connection() as caller:
                    if caller.call("GET", "/readyz")[0] == 200:
                        return
            except OSError:
                time.sleep(0.02)
        raise ServerFailed(f"the server was not ready within {_START_LIMIT_S:g} s")

    def connection(self) -> Connection:
        return Connection(self.port, self.key)

    def enroll(self, speaker_id: str, recordings: list[bytes]) -> None:
        """Create a speaker from recordings."""
        with self.connection() as caller:
            caller.expect("POST", "/v1/speakers", json.dumps({"id": speaker_id}).encode())
            for data in recordings:
                caller.expect("POST", f"/v1/speakers/{speaker_id}/enrollments", data)

    @property
    def resident_bytes(self) -> int:
        return resident_bytes(self.process.pid)

    @property
    def cpu_s(self) -> float:
        """CPU time of all its threads; 0 where the system does not tell (it is read from /proc)."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()


def resident_bytes(process: int | str) -> int:
    """Memory that a process (or `self`) holds now; 0 where the system does not tell (it is in /proc)."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


class Connection:
    """One kept-alive connection with the server's key."""

    def __init__(self, port: int, key: str) -> None:
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = {"Authorization": f"Bearer {key}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """Status and parsed body. Audio goes as the raw body, JSON as JSON."""
        kind = "application/json" if body is None or body[:1] == b"{" else "application/octet-stream"
        self._http.request(method, path, body, {**self._headers, "Content-Type": kind})
        answer = self._http.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None

    def expect(self, method: str, path: str, body: bytes | None = None) -> Any:
        """The answer's body; raises `ServerFailed` for anything but success."""
        status, answer = self.call(method, path, body)
        if status >= 300:
            raise ServerFailed(f"{method} {path} was answered {status}: {answer}")
        return answer
