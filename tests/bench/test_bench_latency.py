"""The latency table: one factor varied at a time, the network held against the core's peak, a picture."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sayso.bench import latency, path, pictures
from sayso.bench.latency import Case, Latency, cases, measure, table
from sayso.bench.path import Row as Call
from sayso.bench.path import Served
from sayso.bench.timing import Spread
from sayso.cli import app
from sayso.runtime.session import CPU, available_cores
from sayso.service.settings import SHIPPED_MODELS, only_models


@pytest.fixture(scope="module")
def found() -> Latency:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(latency, "SECONDS", (1.0, 3.0))
        patched.setattr(latency, "BATCHES", (1, 2))
        return measure({n: SHIPPED_MODELS / f"{n}.onnx" for n in ("baseline", "nested")}, "cpu", 2)


def test_cases_vary_one_factor_about_the_usual_request() -> None:
    made = cases(["nested"], "onnxruntime", CPU, 2)
    assert len(made) == len(set(made)) == len(latency.SECONDS) + len(latency.BATCHES) - 1 + 2
    usual = Case("nested", "model", "onnxruntime", CPU, 1, 3.0, 1)
    assert sum(case.usual for case in made) == 1
    for case in made:
        changed = [n for n in ("threads", "seconds", "batch") if getattr(case, n) != getattr(usual, n)]
        assert len(changed) <= 1 or case.threads > 1


def test_every_engine_measures_every_case(found: Latency) -> None:
    engines = {row.case.engine for row in found.rows}
    assert engines == {"onnxruntime", "pytorch"}
    for model in ("baseline", "nested"):
        for engine in engines:
            ours = [r.case for r in found.rows if (r.case.model, r.case.engine) == (model, engine)]
            ours = [case for case in ours if case.part == "model"]
            assert len(ours) == 3 + 2 * (available_cores() - 1)
    assert all(0 < row.time.p50 <= row.time.p95 <= row.time.p99 for row in found.rows)


def test_the_network_is_held_against_the_peak_and_the_front_end_apart(found: Latency) -> None:
    medians = {(r.case.model, r.case.part): r.time.p50 for r in found.rows if r.case.engine == "onnxruntime"}
    floors = {
        r.case.model: r.over_floor for r in found.rows if r.over_floor and r.case.engine == "onnxruntime"
    }
    for model in ("baseline", "nested"):
        assert medians[model, "front-end"] < medians[model, "model"]
        floor = floors[model]
        assert floor is not None
        assert floor > 0.3  # nothing runs much under its own multiplies
    assert found.facts["baseline"].macs > found.facts["nested"].macs
    assert all(0 < (facts.eer or 0) < 0.5 for facts in found.facts.values())
    for facts in found.facts.values():
        one, many = facts.memory_mb.values()
        assert 1 < one < many  # the windows' feature maps are held beside the weights


def test_the_table_and_its_json_hold_every_row(found: Latency) -> None:
    text = table(found)
    assert text.count("\n| ") == len(found.rows) + 1
    assert "28.83" in text
    values = json.loads(json.dumps(found.to_dict()))
    assert len(values["rows"]) == len(found.rows)
    assert values["study_seconds"]["baseline"] == 0.0314


def test_the_picture_is_drawn(found: Latency, tmp_path: Path) -> None:
    call = Call("nested", 3.0, 16_000, {"embed": 5.0}, Spread(9.0, 10.0, 11.0), 1.0)
    picture = tmp_path / "latency.svg"
    pictures.draw_latency(found, Served([call], 1.0, 1, 1), {"campplus": Spread(80.0, 90.0, 99.0)}, picture)
    drawn = picture.read_text()
    assert drawn.startswith("<?xml")


def test_the_command_measures_models_and_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", (3.0,))
    monkeypatch.setattr(latency, "BATCHES", (1,))
    monkeypatch.setattr(path, "SOURCES", ((3.0, 16_000),))
    monkeypatch.setenv("SAYSO_MODELS", json.dumps(only_models({"nested": SHIPPED_MODELS / "nested.onnx"})))
    picture = tmp_path / "latency.png"
    done = CliRunner().invoke(app, ["bench", "latency", "--rounds", "5", "--plot", str(picture), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {row["part"] for row in found["rows"]} == {"model", "front-end"}
    assert [row["model"] for row in found["served"]["rows"]] == ["nested"]
    assert found["peers"] == {}
    assert picture.read_bytes().startswith(b"\x89PNG")
