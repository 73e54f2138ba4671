"""Two replicas over one, on a real PostgreSQL: counted, and told whose time it took."""

import json
from collections.abc import Iterator

import pytest
from pgserver import Server, ServerUnavailable

from sayso.bench.replicas import CALLERS, measure, table
from sayso.service.settings import SHIPPED_MODELS, only_models


@pytest.fixture
def address() -> Iterator[str]:
    try:
        server = Server().create()
    except ServerUnavailable as unavailable:
        pytest.skip(str(unavailable))
    yield server.url(server.database())
    server.remove()


def test_turns_are_served_by_one_and_by_both(address: str) -> None:
    settings = {
        "SAYSO_MODELS": json.dumps(only_models({"nested": SHIPPED_MODELS / "nested.onnx"})),
        "SAYSO_THREADS": "1",
        "SAYSO_THRESHOLDS": json.dumps({"nested": -1.0}),
    }
    found = measure(address, settings, seconds=1.0, rounds=1)
    assert [turn.replicas for turn in found.turns] == [1, 2]
    for turn in found.turns:
        assert turn.served >= CALLERS / 10
        assert turn.replicas_cores > 0
    assert found.ratio == pytest.approx(found.turns[1].served / found.turns[0].served, rel=0.01)
    assert found.log_entries_per_s > 0
    assert found.decisions_per_s > 0
    assert f"two over one: {found.ratio:.2f} times" in table(found)
