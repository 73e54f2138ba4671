"""The comparison of the stores measures what it says, at a size that tells nothing."""

from collections.abc import Iterator

import pytest
from pgserver import Server, serving

from sayso.bench.stores import run


@pytest.fixture
def server() -> Iterator[Server]:
    yield from serving()


def test_both_stores_are_measured_alike(server: Server) -> None:
    found = run(server.url(server.database()), tenants=2, speakers=20, large=300, dim=16, rounds=3)
    calls = {f"{store}.{call}" for store in ("embedded", "postgres") for call in ("verify", "identify")}
    assert found["small_ms"].keys() == found["large_ms"].keys() == found["large_indexed_ms"].keys() == calls
    assert min(found["small_ms"].values()) > 0
    assert found["recall_at_1"] == 1.0
    assert found["recall_at_10"] > 0.9
