"""Mixed load on a real server with clients that leave, dawdle and send rubbish; the answers are checked.

    PYTHONPATH=.:tests/support:tests/runtime python tests/fuzz/soak.py --minutes 30

First the server's capacity is measured, then it is loaded with `--load` of that. It fails on an answer that
is not the expected one, on an answer that never comes, when memory is not flat, when the service does not
stop cleanly, and when `sayso audit verify` or `sayso check` finds anything afterwards.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
from process import Server
from sounds import SPEAKERS, voice_of
from websockets.sync.client import connect

GROWTH_BOUND = 64 * 2**20
TAKES = range(3, 7)
WORKERS = 24
CALIBRATION_S = 10.0
WAV_HEAD = 44
SETTINGS = {
    "SAYSO_RATE_LIMIT": "0",
    "SAYSO_REPLAY_DAYS": "0",
    "SAYSO_ATTEMPTS_BEFORE_DELAY": "0",
    "SAYSO_ATTEMPTS_BEFORE_LOCK": "0",
    "SAYSO_CLIENT_TIMEOUT_S": "5",
    "SAYSO_LOG_LEVEL": "warning",
}
BUSY = (429, 503)
RUBBISH = {
    b"not audio": 400,
    b"": 400,
    b"RIFF\xff\xff\xff\xffWAVEfmt ": 400,
    voice_of("ann", 1, 0.4): 422,
    voice_of("ann", 1)[:30_000]: 400,
}


class Soak:
    """A server with known speakers, and what has been seen of it."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server, self.random = server, random.Random(seed)
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._lock = threading.Lock()
        self.voices = {(name, take): voice_of(name, take) for name in SPEAKERS for take in TAKES}
        for name in SPEAKERS:
            server.enroll(name, [voice_of(name, 1), voice_of(name, 2, 8)])
        self.scores = {
            (speaker, voice): server.post(f"/v1/speakers/{speaker}/verify", data)["score"]
            for speaker in SPEAKERS
            for voice, data in self.voices.items()
        }

    def count(self, what: str, fault: str | None = None) -> None:
        with self._lock:
            self.counts[what] += 1
            if fault:
                self.wrong.append(f"{what}: {fault}")

    def verify(self) -> None:
        speaker, voice = self.random.choice(list(self.scores))
        answer = self.server.client.post(f"/v1/speakers/{speaker}/verify", content=self.voices[voice])
        self.judge(
            "verify", answer, 200, lambda body: abs(body["score"] - self.scores[speaker, voice]) < 1e-4
        )

    def identify(self) -> None:
        voice = self.random.choice(list(self.voices))
        best = max(SPEAKERS, key=lambda name: self.scores[name, voice])
        answer = self.server.client.post(
            f"/v1/identify?{'&'.join(f'candidates={name}' for name in SPEAKERS)}", content=self.voices[voice]
        )
        self.judge("identify", answer, 200, lambda body: body["candidates"][0]["speaker_id"] == best)

    def enrol_and_delete(self) -> None:
        client, voice = self.server.client, self.voices["bob", self.random.choice(TAKES)]
        made = client.post("/v1/speakers", json={"groups": ["soak"]})
        self.judge("create", made, 201)
        if made.status_code != 201:
            return
        path = f"/v1/speakers/{made.json()['id']}"
        self.judge("enrol", client.post(f"{path}/enrollments", content=voice), 201)
        self.judge("delete", client.delete(path), 204)
        self.judge("gone", client.get(path), 404)

    def stream(self) -> None:
        """Speak a recording through the WebSocket; sometimes hang up in the middle of it."""
        speaker, voice = self.random.choice(list(self.scores))
        pcm, leaves = self.voices[voice][WAV_HEAD:], self.random.random() < 0.3
        start = {"type": "start", "call": "verify", "speaker_id": speaker, "key": self.server.key}
        with connect(f"ws://127.0.0.1:{self.server.port}/v1/stream") as socket:
            socket.send(json.dumps(start))
            for at in range(0, len(pcm), 16_000):
                if leaves and self.random.random() < 0.2:
                    return self.count("stream left")
                socket.send(pcm[at : at + 16_000])
            socket.send('{"type": "stop"}')
            last: dict[str, Any] = {}
            while not last.get("final") and last.get("type") != "error":
                last = json.loads(socket.recv(timeout=60))
        if last["type"] == "error" and last["problem"]["status"] in BUSY:
            return self.count("busy")
        fits = (
            last["type"] == "decision" and abs(last["result"]["score"] - self.scores[speaker, voice]) < 1e-4
        )
        return self.count("stream", None if fits else json.dumps(last)[:300])

    def azure(self) -> None:
        """The same speakers cannot be seen through the other family of calls, and a new one can."""
        headers = {"Ocp-Apim-Subscription-Key": self.server.key}
        root = "/speaker-recognition/verification/text-independent/profiles"
        client = self.server.client
        made = client.post(root, json={"locale": "en-us"}, headers=headers)
        self.judge("azure create", made, 201)
        if made.status_code == 201:
            path = f"{root}/{made.json()['profileId']}"
            verified = client.post(f"{path}:verify", content=self.voices["ann", TAKES[0]], headers=headers)
            self.judge("azure verify", verified, 409)
            self.judge("azure delete", client.delete(path, headers=headers), 204)

    def read(self) -> None:
        answer = self.server.client.get("/v1/speakers/ann/enrollments")
        self.judge("read", answer, 200, lambda body: len(body["items"]) == 2)

    def rubbish(self) -> None:
        content, status = self.random.choice(list(RUBBISH.items()))
        path = self.random.choice(["/v1/identify", "/v1/speakers/ann/verify", "/v1/speakers/ann/enrollments"])
        self.judge("rubbish", self.server.client.post(path, content=content), status)

    def stranger(self) -> None:
        wrong = {"Authorization": "Bearer x"}
        self.judge("stranger", self.server.client.get("/v1/speakers", headers=wrong), 401)

    def leave(self) -> None:
        """Send a part or all of a recording and hang up."""
        voice = self.random.choice(list(self.voices.values()))
        with self.open(len(voice)) as made:
            made.sendall(voice[: self.random.choice([0, 100, len(voice) // 2, len(voice)])])
        self.count("leave")

    def dawdle(self) -> None:
        """Begin a recording, and wait to be told that it took too long."""
        with self.open(100_000) as made:
            made.sendall(b"x" * 1000)
            found = made.recv(65_536).split(b" ", 2)[1:2]
        # While all places are taken nothing of it is read.
        self.count("dawdle", None if found in ([b"408"], [b"429"]) else f"{found}")

    def open(self, length: int) -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.server.port), timeout=60)
        head = f"POST /v1/identify HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.server.key}\r\n"
        made.sendall(f"{head}Content-Length: {length}\r\n\r\n".encode())
        return made

    def judge(
        self, what: str, answer: Any, status: int, fits: Callable[[Any], bool] = lambda body: True
    ) -> None:
        if answer.status_code in BUSY and "retry-after" in answer.headers:
            self.count("busy")
        elif answer.status_code != status:
            self.count(what, f"{answer.status_code} {answer.text[:200]}")
        else:
            self.count(what, None if fits(answer.json() if answer.content else None) else answer.text[:300])

    def safely(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:  # an answer that never came, or a connection refused
            self.count(do.__name__, repr(error))

    def draw(self) -> Callable[[], None]:
        kinds = {
            self.verify: 50,
            self.identify: 15,
            self.stream: 8,
            self.azure: 4,
            self.read: 10,
            self.rubbish: 10,
            self.enrol_and_delete: 5,
            self.stranger: 4,
            self.leave: 4,
            self.dawdle: 2,
        }
        return self.random.choices(list(kinds), list(kinds.values()))[0]

    def capacity(self) -> float:
        """Requests of the mix a second, as fast as they are answered, as many at once as there may ever be.

        How much memory the service needs follows from how many it works on at once, so it is warm afterwards.
        """
        until, began = time.monotonic() + CALIBRATION_S, time.monotonic()
        done = []

        def hurry() -> None:
            while time.monotonic() < until:
                kind = self.draw()
                if kind != self.dawdle:
                    self.safely(kind)
                    done.append(1)

        threads = [threading.Thread(target=hurry) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(done) / (time.monotonic() - began)


def soak(minutes: float, load: float, seed: int, folder: Path) -> dict[str, Any]:
    """The report; `wrong` in it is empty after a good run."""
    server = Server(folder / "data", **SETTINGS)
    found: dict[str, str] = {}
    try:
        run = Soak(server, seed)
        rate = max(1.0, load * run.capacity())
        run.counts.clear()
        process, rss = psutil.Process(server.process.pid), []
        began = time.monotonic()
        with ThreadPoolExecutor(WORKERS) as pool:
            pending: list[Any] = []
            while time.monotonic() - began < 60 * minutes:
                pending = [future for future in pending if not future.done()]
                if len(pending) < 4 * WORKERS:
                    pending.append(pool.submit(run.safely, run.draw()))
                rss.append(process.memory_info().rss)
                time.sleep(run.random.expovariate(rate))
        tenth = len(rss) // 10
        early, late = (sum(part) / len(part) for part in (rss[tenth : 2 * tenth], rss[-tenth:]))
        if late - early > GROWTH_BOUND:
            run.wrong.append(f"memory grew by {(late - early) / 2**20:.0f} MiB")
        metrics = server.client.get("/metrics").text
        for line in ("sayso_held_bytes 0.0", "sayso_in_flight 0.0", "sayso_streams 0.0"):
            if line not in metrics:
                run.wrong.append(f"not {line}")
        people = len(server.client.get("/v1/speakers?limit=1000").json()["items"])
        if people > len(SPEAKERS) + run.counts["busy"]:
            run.wrong.append(f"{people} speakers are left")
        if server.stop() not in (0, -15):
            run.wrong.append("it did not stop cleanly")
        for command in (["audit", "verify"], ["check"]):
            checked = subprocess.run(
                [sys.executable, "-m", "sayso", *command],
                env=server.environment,
                capture_output=True,
                text=True,
            )
            found[" ".join(command)] = checked.stdout.strip()
            if checked.returncode:
                run.wrong.append(f"sayso {' '.join(command)}: {checked.stdout}{checked.stderr}")
    finally:
        server.close()
    return {
        "minutes": minutes,
        "rate": round(rate, 1),
        "counts": dict(run.counts),
        "rss_mib_by_tenth": [round(max(rss[i * tenth : (i + 1) * tenth]) / 2**20) for i in range(10)],
        **found,
        "wrong": run.wrong[:20],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--load", type=float, default=0.8, help="share of the measured capacity")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = soak(chosen.minutes, chosen.load, chosen.seed, Path(folder))
    print(json.dumps(report, indent=2))
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
