"""The callers of `sayso bench load`: each at a moment of its own, which it keeps."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

import sayso.bench

USERS, PERIOD_S = 40, 1.0


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_arrivals_do_not_bunch(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    recording, out = tmp_path / "voice.wav", tmp_path / "answers.json"
    recording.write_bytes(bytes(4096))
    environment = {
        "BENCH_RECORDING": str(recording),
        "BENCH_PATH": "/",
        "BENCH_KEY": "key",
        "BENCH_PERIOD": str(PERIOD_S),
        "BENCH_OUT": str(out),
    }
    command = [sys.executable, "-m", "locust", "--headless", "--only-summary", "--loglevel", "ERROR"]
    command += ["-f", str(Path(sayso.bench.__file__).with_name("locustfile.py")), "--run-time", "7s"]
    command += [
        "--host",
        f"http://127.0.0.1:{server.server_port}",
        "--users",
        str(USERS),
        "--spawn-rate",
        "40",
    ]
    subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, timeout=60)
    server.shutdown()
    server.server_close()
    sent = np.sort([when for when, _, _ in json.loads(out.read_text())])
    kept = sent[(sent > sent[0] + 2 * PERIOD_S) & (sent < sent[0] + 5 * PERIOD_S)]
    assert len(kept) >= 2 * USERS
    tenths = np.histogram(kept % PERIOD_S, bins=10, range=(0, PERIOD_S))[0]
    assert tenths.max() < len(kept) / 2  # all of them, where everybody calls at once
