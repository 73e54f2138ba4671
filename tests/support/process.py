"""The real server as its own process, spoken to over HTTP."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

START_LIMIT_S = 60.0
Run = Callable[..., subprocess.CompletedProcess[str]]  # the fixture `run` of the command line's tests


class Server:
    """`sayso serve` on a free port of this machine; its key is read off what the first start prints."""

    def __init__(self, data_dir: Path, certificate: Path | None = None, **settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SAYSO_")},
            "SAYSO_DATA_DIR": str(data_dir),
            "SAYSO_PORT": str(self.port),
            **settings,
        }
        self.log = data_dir.parent / "server.log"
        self.key = ""
        url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        trusted = ssl.create_default_context(cafile=certificate) if certificate else True
        self.client = httpx2.Client(base_url=url, timeout=60, verify=trusted)
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "sayso", "serve"]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        stop = time.monotonic() + START_LIMIT_S
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < stop, self.log.read_text()
            try:
                if self.client.get("/readyz").status_code == 200:
                    break
            except httpx2.TransportError:
                time.sleep(0.1)
        for line in self.log.read_text().splitlines():
            if "export SAYSO_KEY=" in line:
                self.key = line.partition("=")[2]
        self.client.headers["Authorization"] = f"Bearer {self.key}"

    def kill(self) -> None:
        """SIGKILL: nothing gets to finish."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def post(self, path: str, data: bytes) -> dict[str, Any]:
        answer = self.client.post(path, content=data)
        assert answer.status_code < 300, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def enroll(self, speaker_id: str, recordings: list[bytes]) -> dict[str, Any]:
        """Create the speaker and send recordings until enrolled; the last answer."""
        assert self.client.post("/v1/speakers", json={"id": speaker_id}).status_code == 201
        for data in recordings:
            answer = self.post(f"/v1/speakers/{speaker_id}/enrollments", data)
            if answer["status"] == "enrolled":
                break
        return answer

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.kill()
