"""Calls through the engine, timed by the number of speakers."""

import pytest

from sayso.bench import engine
from sayso.bench.engine import measure, table


def test_each_size_is_measured_with_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_WARM_UP", 0)
    rows = measure(None, (1, 30), rounds=2)
    assert [(row.call, row.speakers) for row in rows] == [
        ("verify", 1),
        ("identify", 1),
        ("verify", 30),
        ("identify", 30),
    ]
    for row in rows:
        assert 0 < row.stages["store"] < row.total.p50
        assert {"decode", "speech", "embed", "search"} < row.stages.keys()
    text = table(rows)
    assert "| verify | 30 |" in text
    assert "| identify | 1 |" in text
