"""The command line as a user runs it: each command a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
from process import Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("verify", "ann", "a.wav", data="there")`: a command on the data folder of that name."""

    def command(*words: str, data: str = "data", check: bool = True) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("SAYSO_DATA_DIR", str(tmp_path / data))
        done = subprocess.run(
            [sys.executable, "-m", "sayso", *words], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done

    monkeypatch.setenv("SAYSO_DATA_DIR", str(tmp_path / "data"))
    return command
