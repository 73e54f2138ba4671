"""One cluster for all tests here: PostgreSQL with a standby, two replicas, the shipped nginx."""

import json
from collections.abc import Iterator

import pytest
from pgserver import MASTER_KEY, serving
from pgserver import Server as Postgres
from replicas import Nginx, Replica, started
from tools import tool


@pytest.fixture(scope="package")
def primary() -> Iterator[Postgres]:
    """A server that loses nothing it has committed, however it ends."""
    yield from serving(durable=True)


@pytest.fixture(scope="package")
def database(primary: Postgres) -> str:
    return primary.database()


@pytest.fixture(scope="package")
def standby(primary: Postgres, database: str) -> Iterator[Postgres]:
    follower = primary.standby()
    yield follower
    follower.remove()


@pytest.fixture(scope="package")
def replicas(
    primary: Postgres, standby: Postgres, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Replica]]:
    """Two, started together on an empty database; of the servers they use the one that takes changes."""
    tool("nginx")
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    running = started(
        tmp_path_factory.mktemp("replicas"),
        2,
        SAYSO_STORE=f"postgresql://sayso@{hosts}/{database}",
        SAYSO_MASTER_KEY=MASTER_KEY,
        SAYSO_THRESHOLDS=json.dumps({"nested": -1.0}),  # all pass: every verify is a change
    )
    yield running
    for one in running:
        one.close()


@pytest.fixture(scope="package")
def nginx(replicas: list[Replica], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    proxy = Nginx(tmp_path_factory.mktemp("proxy") / "nginx", replicas)
    yield proxy
    proxy.close()
