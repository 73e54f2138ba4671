"""A client generated from the OpenAPI document runs the tour against a live server."""

import shutil
import subprocess
from pathlib import Path

import pytest
from process import Server
from sounds import voice_of

SOURCE = Path(__file__).parents[2] / "client" / "typescript"
pytestmark = pytest.mark.timeout(600)


def test_the_generated_typescript_client_runs_the_tour(tmp_path: Path) -> None:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node or npm here: apt-get install nodejs npm")
    project = tmp_path / "typescript"
    skipped = shutil.ignore_patterns("node_modules", "build", "schema.d.ts")
    shutil.copytree(SOURCE, project, ignore=skipped)

    def step(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)

    installed = step("npm", "ci", "--no-audit", "--no-fund")
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install here, most likely without a registry: {installed.stderr[-300:]}")
    voices = {"alice-1": voice_of("ann", 1, 16), "alice-2": voice_of("ann", 2), "other": voice_of("bob", 1)}
    for name, data in voices.items():
        (tmp_path / f"{name}.wav").write_bytes(data)
    # Thresholds that part the synthetic voices, which are more alike than people are.
    server = Server(
        tmp_path / "data",
        SAYSO_THREADS="1",
        SAYSO_REPLAY_DAYS="0",
        SAYSO_ATTEMPTS_BEFORE_DELAY="0",
        SAYSO_THRESHOLDS='{"nested": 0.9}',
    )
    try:
        url = f"http://127.0.0.1:{server.port}"
        files = [str(tmp_path / f"{name}.wav") for name in voices]
        commands = (
            ["node", "generate.mjs", url],
            ["npx", "tsc"],
            ["node", "build/tour.js", url, server.key, *files],
        )
        for command in commands:
            done = step(*command)
            assert done.returncode == 0, done.stdout + done.stderr
        assert "the tour is done" in done.stdout
    finally:
        server.close()
