"""What the enrolment tests share: a store in a fresh folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from enroll_samples import REQUIRED_S

from enroll.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a database in a folder that does not exist yet."""
    return tmp_path / "data" / "sayso.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """Open an empty store that asks for 10 s of speech."""
    with Store(path, REQUIRED_S) as opened:
        yield opened
