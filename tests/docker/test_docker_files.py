"""What stands around the service: images, compose files, dashboard, alerts, unit. Each by its own tool."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import checked, tool

from sayso.service.metrics import Metrics

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = (ROOT / "docker-compose.yml", DOCKER / "compose.cuda.yml")
DASHBOARD = DOCKER / "grafana/dashboards/sayso.json"
RULES = DOCKER / "prometheus/rules.yml"


@pytest.fixture(scope="module")
def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    """(where, PromQL) of the dashboard and of the alert rules."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


@pytest.mark.parametrize("path", sorted(DOCKER.glob("*Dockerfile")), ids=lambda path: path.name)
def test_images_are_clean(path: Path) -> None:
    checked(tool("hadolint"), path)
    text = path.read_text()
    assert "USER 10001" in text
    assert "HEALTHCHECK" in text
    assert not re.search(r"^FROM [^\s:]+(:latest)?(\s|$)", text, re.M)  # a tag that says which


def test_compose_files_follow_the_specification() -> None:
    checked(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *COMPOSE)


def test_compose_pins_images_and_mounts_what_is_there() -> None:
    for service in yaml.safe_load(COMPOSE[0].read_text())["services"].values():
        assert "build" in service or re.search(r":v?\d+\.\d+\.\d+(-\w+)?$|^sayso$", service["image"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (ROOT / source).exists()


def test_alert_rules_and_scrape_configuration_are_prometheus_own(tmp_path: Path) -> None:
    promtool = tool("promtool")
    assert "6 rules found" in checked(promtool, "check", "rules", RULES)
    config = (DOCKER / "prometheus/prometheus.yml").read_text()
    (tmp_path / "prometheus.yml").write_text(config.replace("/etc/prometheus/rules.yml", str(RULES)))
    checked(promtool, "check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=lambda text: str(text)[:40])
def test_every_metric_named_is_one_that_the_service_has(where: str, expression: str) -> None:
    types = re.findall(r"^# TYPE (\w+) (\w+)$", Metrics().text().decode(), re.M)
    known = {"up"} | {name for name, _ in types}
    for name, kind in types:
        if kind == "histogram":
            known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    named = set(re.findall(r"\b(?:sayso_\w+|up)\b", expression))
    assert named
    assert named <= known, f"{where}: {named - known}"


def test_the_labels_asked_for_are_those_that_are_set() -> None:
    metrics = Metrics()
    metrics.scores.labels("verify", "nested").observe(0.5)
    metrics.stage_seconds.labels("embed", "nested", "verify").observe(0.005)
    text = metrics.text().decode()
    assert 'sayso_score_bucket{call="verify",le="0.4",model="nested"}' in text
    assert 'sayso_stage_seconds_bucket{call="verify",le="0.02883",model="nested",stage="embed"}' in text
    assert 'sayso_study_latency_seconds{network="baseline"} 0.0314' in text


def test_panels_are_whole_and_do_not_overlap(panels: list[dict[str, Any]]) -> None:
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"]
        assert panel["description"]
        assert all(target["datasource"]["uid"] == "prometheus" for target in panel["targets"])
    assert any("sayso_study_latency_seconds" in t["expr"] for panel in panels for t in panel["targets"])


def test_the_systemd_unit_is_one(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    text = (DOCKER / "sayso.service").read_text().replace("/opt/sayso/bin/sayso", "/bin/true")
    (tmp_path / "sayso.service").write_text(text)
    checked(analyze, "verify", tmp_path / "sayso.service")
