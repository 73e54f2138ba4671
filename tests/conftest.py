"""Shared by every room's tests: the real recordings, where there are any."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def speech() -> Path:
    """The folder of real recordings; tests that need it are skipped on machines without."""
    root = Path(os.environ.get("SAYSO_SPEECH", "../shared/speech"))
    if not (root / "manifest.csv").is_file():
        pytest.skip("no real recordings here: set SAYSO_SPEECH to a folder with manifest.csv and dev.trials")
    return root.resolve()
