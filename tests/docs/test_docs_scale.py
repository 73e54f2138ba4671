"""docs/scale.md says what docs/scale.json holds, and that follows from the load that was measured."""

import json
from pathlib import Path

import pytest

from sayso.bench.costs import Costs
from sayso.bench.queueing import Work
from sayso.bench.scale import fill, steps_of

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_has_the_files_figures() -> None:
    facts = json.loads((DOCS / "scale.json").read_text())
    page = (DOCS / "scale.md").read_text()
    assert fill(page, facts) == page, "run sayso bench scale … --docs docs"


def test_the_files_figures_follow_from_what_was_measured() -> None:
    facts = json.loads((DOCS / "scale.json").read_text())
    work = Work.of(Costs.read(facts["load"]["costs"]))
    assert facts["work"]["cpu_ms"] == pytest.approx(work.cpu * 1e3, abs=0.01)
    for step, shown in zip(steps_of(facts["load"]), facts["curve"], strict=True):
        assert shown["measured"]["served"] == step["served"]
    for row in facts["growth"]:
        assert row["cores"] == pytest.approx(row["rate"] * work.cpu / 0.7, rel=0.01, abs=0.01)
