"""The examples run as they stand."""

import ast
import functools
import http.server
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process import Server
from sounds import encode, voice_of

from sayso.runtime.synthesis import synthetic_voice

EXAMPLES = Path(__file__).parents[2] / "examples"
CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Thresholds that part the synthetic voices, which are more alike than people are.
    folder = tmp_path_factory.mktemp("examples")
    running = Server(
        folder / "data",
        SAYSO_THREADS="1",
        SAYSO_REPLAY_DAYS="0",
        SAYSO_ATTEMPTS_BEFORE_DELAY="0",
        SAYSO_THRESHOLDS='{"nested": 0.9}',
    )
    yield running
    running.close()


@pytest.fixture
def voices(tmp_path: Path) -> list[str]:
    recordings = {
        "alice-1": voice_of("ann", 1, 16),
        "alice-2": voice_of("ann", 2),
        "other": voice_of("bob", 1),
    }
    for name, data in recordings.items():
        (tmp_path / f"{name}.wav").write_bytes(data)
    return [str(tmp_path / f"{name}.wav") for name in recordings]


def run(server: Server, *command: str) -> str:
    environment = {
        **os.environ,
        "SAYSO_URL": f"http://127.0.0.1:{server.port}",
        "SAYSO_KEY": server.key,
        "PYTHONPATH": str(EXAMPLES.parent / "client"),
    }
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tour_with_curl(server: Server, voices: list[str]) -> None:
    if not shutil.which("curl"):
        pytest.skip("no curl here")
    lines = run(server, str(EXAMPLES / "tour.sh"), *voices).splitlines()
    assert '"status":"enrolled"' in lines[1]
    assert ['"decision":"accept"' in lines[2], '"decision":"reject"' in lines[3]] == [True, True]
    assert '"decision":"match"' in lines[4]


def test_the_tour_in_python(server: Server, voices: list[str]) -> None:
    said = run(server, sys.executable, str(EXAMPLES / "tour.py"), *voices)
    assert "enrolled, 0.0 s" in said
    assert "alice-2.wav: accept" in said
    assert "other.wav: reject" in said
    assert "identify: match example-alice" in said


def imports(script: Path) -> set[str]:
    """The top-level names that a script imports, but for the standard library's."""
    names = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names - sys.stdlib_module_names


def test_the_documented_install_brings_what_an_example_imports() -> None:
    lines = (EXAMPLES / "README.md").read_text().splitlines()
    for script in EXAMPLES.glob("*.py"):
        (row,) = [line for line in lines if line.startswith(f"| `{script.name} ")]
        command = re.search(r"`pip install ([^`]+)`", row)
        assert command is not None, script.name
        installed = {re.sub(r"\[.*", "", word) for word in shlex.split(command[1])}
        assert imports(script) <= {"sayso_client" if n == "./client" else n for n in installed}, script.name


def test_a_telephone_line(server: Server, voices: list[str], tmp_path: Path) -> None:
    server.enroll("caller", [Path(voices[0]).read_bytes()])
    line = tmp_path / "line.wav"
    line.write_bytes(encode(synthetic_voice(5.0, 205.0, 1.16, seed=3)))
    said = run(server, sys.executable, str(EXAMPLES / "telephone.py"), "caller", str(line))
    lines = said.splitlines()
    assert len(lines) >= 3  # decided while the call went on, more than once
    assert all("of speech: " in one for one in lines[:-1])
    assert lines[-1].startswith("in the end: ")


def test_a_microphone_in_a_page(server: Server, voices: list[str], tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip("no /usr/bin/chromium here: apt-get install chromium")
    if server.client.get("/v1/speakers/visitor").status_code == 404:
        server.enroll("visitor", [Path(voices[0]).read_bytes()])
    microphone = tmp_path / "microphone.wav"
    microphone.write_bytes(encode(np.repeat(synthetic_voice(8.0, 205.0, 1.16, seed=2), 3), 48_000))
    handler: Any = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(EXAMPLES))
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as pages,
        api.sync_playwright() as playwright,
    ):
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream"]
        flags += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{pages.server_address[1]}/browser.html")
        page.get_by_label("Service").fill(f"http://127.0.0.1:{server.port}")
        page.get_by_label("API key").fill(server.key)
        page.get_by_label("Speaker").fill("visitor")
        page.get_by_role("button", name="Speak").click()
        page.get_by_text("of speech.").wait_for(timeout=60_000)
        assert page.get_by_role("status").inner_text().split()[0] in ("accept", "reject", "inconclusive")
        browser.close()
        pages.shutdown()
