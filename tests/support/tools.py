"""Other people's programs that check what is written for them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_SYSTEM = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def tool(name: str) -> str:
    """A program of this environment or of the system; skips where there is none."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name, path=_SYSTEM)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


def checked(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
