"""The CPU image's own instructions outside Docker: a fresh environment, its health check, its command."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text().replace("\\\n", "")
PREFIX = "/opt/sayso"

pytestmark = [
    pytest.mark.skipif("SAYSO_IMAGE" not in os.environ, reason="installs from PyPI: make image runs it"),
    pytest.mark.timeout(1800),
]


def instructions(stage: str, name: str) -> list[str]:
    """The arguments of every `name` in the stage that begins with this FROM line."""
    (body,) = re.findall(rf"^FROM [^\n]*{stage}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
    return re.findall(rf"^{name} (.*)$", body, re.M)


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the build stage leaves: its RUN steps, on the tracked files, with another prefix."""
    folder = tmp_path_factory.mktemp("image")
    source, prefix = folder / "src", folder / "sayso"
    source.mkdir()
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(
        ["tar", "--null", "--create", "--files-from=-", f"--file={folder}/src.tar"],
        cwd=ROOT,
        input=tracked,
        check=True,
    )
    subprocess.run(["tar", "--extract", f"--file={folder}/src.tar"], cwd=source, check=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SAYSO_", "PYTHON"))}
    steps = instructions(" AS build", "RUN")
    assert len(steps) == 2
    for step in steps:
        command = step.replace(PREFIX, str(prefix)).replace("--no-cache-dir ", "")
        done = subprocess.run(command, shell=True, cwd=source, env=clean, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return prefix


def test_nothing_of_training_is_in_it(prefix: Path) -> None:
    listed = subprocess.run(
        [prefix / "bin/pip", "list", "--format=json"], capture_output=True, check=True
    ).stdout
    names = {package["name"] for package in json.loads(listed)}
    assert {"sayso", "onnxruntime-gpu"} <= names
    assert not {"torch", "onnx", "pytest", "matplotlib"} & names
    assert subprocess.run([prefix / "bin/pip", "check"], capture_output=True, check=False).returncode == 0


def test_it_starts_is_healthy_and_stops(prefix: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = re.findall(r"(\w+)=(\S+)", "\n".join(instructions("bookworm", "ENV")))
    settings = dict(told) | {
        "PATH": f"{prefix}/bin:{os.environ['PATH']}",
        "SAYSO_DATA_DIR": str(tmp_path / "data"),
        "SAYSO_HOST": "127.0.0.1",
        "SAYSO_PORT": str(port),
        "SAYSO_ADMIN_KEY": "an-admin-key-of-a-test",
    }
    (command,) = instructions("bookworm", "CMD")
    (health,) = re.findall(r"HEALTHCHECK .*?CMD (\[.*\])$", DOCKERFILE, re.M)
    probe = json.loads(health)
    assert settings["PYTHONDONTWRITEBYTECODE"] == "1"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(json.loads(command), env=settings, cwd=tmp_path, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 300
        while subprocess.run(probe, env=settings, capture_output=True, check=False).returncode:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(1)
        process.send_signal(signal.SIGTERM)
        # uvicorn shuts down, then dies of the signal it was sent; as a container's process 1 it exits with 0
        assert process.wait(60) in (0, -signal.SIGTERM)
        assert subprocess.run(probe, env=settings, capture_output=True, check=False).returncode != 0
    finally:
        process.kill()
        process.wait()
