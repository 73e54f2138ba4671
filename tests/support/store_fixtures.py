"""What tests of a store share: a store in a fresh folder, and the same on a real PostgreSQL.

The modules in CONTRACT say what any store does: each of their tests runs on both, unless it asks for `path`,
the file, or is marked `embedded`: then it looks into what only the embedded store has.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from enroll_samples import REQUIRED_S
from pgserver import MASTER_KEY, Server, serving

from sayso.enroll.search.index import Index, index_of
from sayso.enroll.secrets.master_key import KeyText
from sayso.enroll.store import Store

CONTRACT = (
    "attempts",
    "audit",
    "contract",
    "answers",
    "index",
    "keys",
    "recordings",
    "rights",
    "store",
    "threads",
)
Opener = Callable[..., Store]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        module = metafunc.module.__name__.rpartition("_")[2]
        marked = metafunc.definition.get_closest_marker("embedded") is not None
        both = module in CONTRACT and not marked and "path" not in metafunc.fixturenames
        metafunc.parametrize("engine", ["embedded", "postgres"] if both else ["embedded"])


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL server with pgvector, for this run; without one the tests that need it are skipped."""
    yield from serving()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a database in a folder that does not exist yet."""
    return tmp_path / "data" / "sayso.db"


@pytest.fixture
def opened(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Opener:
    """Open this test's store, again and again: the same one each time."""
    if engine == "embedded":
        file = tmp_path / "data" / "sayso.db"
        return lambda required_speech_s=REQUIRED_S: Store(file, required_speech_s)
    running: Server = request.getfixturevalue("server")
    address = running.url(running.database())
    return lambda required_speech_s=REQUIRED_S: Store(address, required_speech_s, KeyText(MASTER_KEY))


@pytest.fixture
def store(opened: Opener) -> Iterator[Store]:
    """Open an empty store that asks for 10 s of speech."""
    with opened() as empty:
        yield empty


@pytest.fixture
def index(store: Store) -> Index:
    """What searches that store."""
    return index_of(store)


@pytest.fixture
def rounding(engine: str) -> float:
    """How far a stored template may be from the mean of its recordings: the server keeps half precision."""
    return 1e-6 if engine == "embedded" else 1e-3
